//! The layer `forwarding`: what rules cost a packet that a router forwards.
//!
//! `rig.rs` says how packets are sent, counted and timed. Before anything is timed, each set of rules is sent every kind
//! of packet once to every endpoint, and must have given marks and DSCP to those and only those that it is about; every
//! timed burst must arrive whole, with the DSCP that it should have.
//!
//! There are two contests for each kind of traffic: all rules over a router without any, and, for the budgets, ours over an
//! empty hook in many more rounds. A few nanoseconds are to be told from ten times as much noise.

mod rules;
mod show;

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};

pub use self::rules::{InPlace, Rules};
use super::{
    Layer, Scale,
    patience::{Patience, hold_all},
    report::thousands,
    row::{Row, setting},
    turns::{Effort, Turn, turns},
};
use crate::rig::{
    Rig,
    injector::Injector,
    road::Road,
    traffic::{Direction, Family, Kind, Traffic},
};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables: show::tables,
    charts: show::charts,
};
const NAME: &str = "forwarding";
const UNIT: &str = "ns/packet";
/// The setting that names the baseline: rules are compared with two.
const OVER: &str = "over";

/// Whose rules have no budget.
const ONCE: Effort = Effort {
    rounds: 3,
    quiet: 1,
    most: 3,
    slack: 1.1,
};

/// Many short turns: the machine's own moods are longer than a round.
const FULL: Effort = Effort {
    rounds: 31,
    quiet: 21,
    most: 45,
    slack: 1.1,
};
/// Of our own rules over an empty hook.
const OWN: Effort = Effort {
    rounds: 81,
    quiet: 51,
    most: 161,
    slack: 1.1,
};
const QUICK: Effort = Effort {
    rounds: 61,
    quiet: 41,
    most: 121,
    slack: 1.1,
};
const PATIENCE: Patience = Patience {
    limit: Duration::from_secs(270),
    slow: 1.3,
};
const QUICK_PATIENCE: Patience = Patience {
    limit: Duration::from_secs(60),
    ..PATIENCE
};
/// Frames of a turn.
const PACKETS: u32 = 10_000;

/// So many endpoints, and the rules that are told them.
struct Size {
    endpoints: u32,
    rules: &'static [Rules],
}

/// What budgets are about, and what it is compared with.
const OURS: [Rules; 3] = [Rules::EmptyHook, Rules::Tc, Rules::Xdp];

const SIZES: [Size; 3] = [
    Size {
        endpoints: 250,
        rules: &[
            Rules::Nothing,
            Rules::EmptyHook,
            Rules::Iptables,
            Rules::IptablesLegacy,
            Rules::Ipset,
            Rules::NftSet,
            Rules::NftMap,
            Rules::Tc,
            Rules::Xdp,
        ],
    },
    Size {
        endpoints: 1_000,
        rules: &[Rules::Nothing, Rules::EmptyHook, Rules::Tc, Rules::Xdp],
    },
    Size {
        endpoints: 10_000,
        rules: &[
            Rules::Nothing,
            Rules::EmptyHook,
            Rules::NftMap,
            Rules::Tc,
            Rules::Xdp,
        ],
    },
];

/// What is sent, and whether it is timed with two CPUs and in quick runs, too. It is checked always.
struct Case {
    direction: Direction,
    kind: Kind,
    family: Family,
    twice: bool,
    quick: bool,
}

impl Case {
    const fn up(kind: Kind, family: Family) -> Self {
        Self {
            direction: Direction::Up,
            kind,
            family,
            twice: false,
            quick: false,
        }
    }

    const fn down(kind: Kind, family: Family) -> Self {
        Self {
            direction: Direction::Down,
            ..Self::up(kind, family)
        }
    }

    const fn twice(self) -> Self {
        Self {
            twice: true,
            ..self
        }
    }

    const fn quick(self) -> Self {
        Self {
            quick: true,
            ..self
        }
    }

    const fn traffic(&self) -> Traffic {
        Traffic {
            direction: self.direction,
            kind: self.kind,
            family: self.family,
        }
    }
}

const CASES: [Case; 11] = [
    Case::up(Kind::Tcp, Family::V4).twice().quick(),
    Case::up(Kind::Udp, Family::V4).twice(),
    Case::up(Kind::Esp, Family::V4).twice().quick(),
    Case::up(Kind::Vpn, Family::V4),
    Case::up(Kind::Tcp, Family::V6),
    Case::up(Kind::Udp, Family::V6),
    Case::up(Kind::Esp, Family::V6).twice(),
    Case::down(Kind::Tcp, Family::V4),
    Case::down(Kind::Udp, Family::V4),
    Case::down(Kind::Esp, Family::V4).quick(),
    Case::down(Kind::Esp, Family::V6),
];

/// A router and the rules in it.
struct Contestant<'a> {
    rules: Rules,
    /// Endpoints that it was told, or 0 if they make no difference.
    endpoints: u32,
    road: &'a Road,
    in_place: InPlace<'a>,
}

/// The number of endpoints that rules are told.
const fn told(rules: Rules, endpoints: u32) -> u32 {
    if rules.has_endpoints() { endpoints } else { 0 }
}

/// What is compared with what: the first of the rules is the baseline.
struct Contest {
    size: &'static Size,
    case: &'static Case,
    rules: Vec<Rules>,
    cpus: usize,
    effort: Effort,
}

/// All that are to be held, one kind of traffic after the other.
fn contests(cpus: usize, scale: Scale) -> Vec<Contest> {
    let quick = scale == Scale::Quick;
    let mut contests = Vec::new();
    for size in &SIZES {
        for case in CASES.iter().filter(|case| !quick || case.quick) {
            let goes = |rules: &Rules| case.direction == Direction::Up || rules.goes_both_ways();
            let chosen = |rules: &[Rules]| rules.iter().copied().filter(goes).collect();
            for cpus in 1..=if case.twice { cpus } else { 1 } {
                let contest = |rules, effort| Contest {
                    size,
                    case,
                    rules,
                    cpus,
                    effort,
                };
                // In a quick run that others' rules are right, too.
                let others = if quick { ONCE } else { FULL };
                contests.push(contest(chosen(size.rules), others));
                let own = if quick { QUICK } else { OWN };
                contests.push(contest(chosen(&OURS), own));
            }
        }
    }
    contests
}

/// Measures the layer.
///
/// # Errors
///
/// If a tool is missing, the kernel refuses something, a packet is lost or not treated as it should be.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let mut rig = Rig::new()?;
    let contests = contests(rig.cpus().len(), scale);
    let mut wanted: Vec<(Rules, u32)> = Vec::new();
    for contest in &contests {
        for rules in &contest.rules {
            let one = (*rules, told(*rules, contest.size.endpoints));
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
    }
    let roads: Vec<Road> = (0..wanted.len())
        .map(|number| rig.road(&format!("forward{number}")))
        .collect::<Result<_>>()?;
    let contestants: Vec<_> = wanted
        .iter()
        .zip(&roads)
        .map(|(&(rules, endpoints), road)| {
            let in_place = rules
                .put(road, endpoints)
                .with_context(|| format!("{} for {endpoints} endpoints", rules.name()))?;
            Ok(Contestant {
                rules,
                endpoints,
                road,
                in_place,
            })
        })
        .collect::<Result<_>>()?;
    // Everybody is checked once with every kind of traffic.
    let checked = RefCell::new(BTreeSet::new());
    let patience = match scale {
        Scale::Full => PATIENCE,
        Scale::Quick => QUICK_PATIENCE,
    };
    let rows = hold_all(
        &contests,
        |contest| {
            let Contest {
                size, case, rules, ..
            } = contest;
            (size.endpoints, case.family, contest.cpus, rules[0])
        },
        patience,
        |contest| hold(&rig, &contestants, contest, &mut checked.borrow_mut()),
    )?;
    for each in contestants {
        each.in_place.remove()?;
    }
    Ok(rows)
}

/// Checks whoever has not been, and times all.
fn hold(
    rig: &Rig,
    contestants: &[Contestant<'_>],
    contest: &Contest,
    checked: &mut BTreeSet<(String, u32)>,
) -> Result<Vec<Row>> {
    let Contest {
        size,
        case,
        rules,
        cpus,
        effort,
    } = contest;
    let traffic = case.traffic();
    let injectors = rig.injectors(&traffic, size.endpoints)?;
    let mut chosen = Vec::new();
    for rules in rules {
        let endpoints = told(*rules, size.endpoints);
        let one = contestants
            .iter()
            .find(|one| one.rules == *rules && one.endpoints == endpoints)
            .with_context(|| format!("no router has the rules {rules:?}"))?;
        let what = format!("{}, {}, {:?}", rules.name(), traffic.name(), case.direction);
        if checked.insert((what.clone(), size.endpoints)) {
            check(rig, one, traffic, &injectors[0], size.endpoints).context(what)?;
        }
        chosen.push(one);
    }
    time(rig, &chosen, size, case, &injectors[..*cpus], effort)
}

/// That the rules are about these packets, if they should be, and only then.
fn check(
    rig: &Rig,
    one: &Contestant<'_>,
    traffic: Traffic,
    injector: &Injector,
    endpoints: u32,
) -> Result<()> {
    let dscp = one.rules.dscp(traffic);
    let before = one.in_place.exits()?;
    let found = rig.marks(one.road, traffic.direction, injector, dscp)?;
    let expected = one.rules.marks(traffic, endpoints);
    ensure!(
        found == expected,
        "packets by mark are {found:?}, not {expected:?}"
    );
    let left: Vec<_> = std::iter::zip(one.in_place.exits()?, before)
        .map(|(now, before)| now - before)
        .collect();
    let expected = one.rules.exits(traffic, endpoints);
    ensure!(
        left == expected,
        "packets that left at ingress by `matched` and `by_xdp`, and XDP by `matched`, are {left:?}, not {expected:?}"
    );
    Ok(())
}

fn time(
    rig: &Rig,
    chosen: &[&Contestant<'_>],
    size: &Size,
    case: &Case,
    injectors: &[Injector],
    effort: &Effort,
) -> Result<Vec<Row>> {
    let traffic = case.traffic();
    let variants = chosen
        .iter()
        .map(|one| {
            let dscp = Some(one.rules.dscp(traffic));
            let turn: Turn<'_> =
                Box::new(move || rig.burst(one.road, traffic.direction, injectors, PACKETS, dscp));
            (one.rules.name().to_owned(), turn)
        })
        .collect();
    let turns = turns(effort, variants)?;
    let direction = match traffic.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let baseline = chosen[0].rules.name();
    let at = setting(&[
        ("direction", direction),
        ("endpoints", &thousands(size.endpoints)),
        ("cpus", &injectors.len().to_string()),
        (OVER, baseline),
    ]);
    let name = traffic.name();
    chosen
        .iter()
        .map(|one| {
            let variant = one.rules.name();
            let against = (variant != baseline).then_some(baseline);
            turns.row(NAME, &at, [name.as_str(), variant, UNIT], against)
        })
        .collect()
}
