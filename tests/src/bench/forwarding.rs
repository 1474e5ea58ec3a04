//! The layer `forwarding`: what rules cost a packet that a router forwards.
//!
//! `rig.rs` says how packets are sent, counted and timed. Before anything is timed, each set of rules is sent every kind
//! of packet once to every endpoint, and must have given marks and DSCP to those and only those that it is about; every
//! timed burst must arrive whole, with the DSCP that it should have.

mod rules;
mod show;

use anyhow::{Context as _, Result, ensure};

pub use self::rules::{InPlace, Rules};
use super::{
    Layer, Scale,
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

/// Many short turns: the machine's own moods are longer than a round.
const FULL: Effort = Effort {
    rounds: 31,
    quiet: 21,
    most: 45,
    slack: 1.1,
};
const QUICK: Effort = Effort {
    rounds: 11,
    quiet: 5,
    most: 15,
    slack: 1.1,
};

/// So many endpoints, and the rules that are told them.
struct Size {
    endpoints: u32,
    rules: &'static [Rules],
    /// Whether quick runs are about them, too.
    quick: bool,
}

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
        quick: true,
    },
    Size {
        endpoints: 1_000,
        rules: &[Rules::Nothing, Rules::EmptyHook, Rules::Tc, Rules::Xdp],
        quick: false,
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
        quick: false,
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

/// Measures the layer.
///
/// # Errors
///
/// If a tool is missing, the kernel refuses something, a packet is lost or not treated as it should be.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let sizes = || {
        SIZES
            .iter()
            .filter(|size| scale == Scale::Full || size.quick)
    };
    let mut wanted: Vec<(Rules, u32)> = Vec::new();
    for size in sizes() {
        for rules in size.rules {
            let one = (*rules, told(*rules, size.endpoints));
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
    }
    let mut rig = Rig::new()?;
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
    let mut rows = Vec::new();
    for size in sizes() {
        eprintln!("{} endpoints", thousands(size.endpoints));
        for case in &CASES {
            rows.extend(compare(&rig, &contestants, size, case, scale)?);
        }
    }
    for each in contestants {
        each.in_place.remove()?;
    }
    Ok(rows)
}

/// What one kind of traffic costs with each of the rules for one number of endpoints.
fn compare(
    rig: &Rig,
    contestants: &[Contestant<'_>],
    size: &Size,
    case: &Case,
    scale: Scale,
) -> Result<Vec<Row>> {
    let traffic = case.traffic();
    let injectors = rig.injectors(&traffic, size.endpoints)?;
    let mut chosen = Vec::new();
    for rules in size.rules {
        if traffic.direction == Direction::Down && !rules.goes_both_ways() {
            continue;
        }
        let endpoints = told(*rules, size.endpoints);
        let one = contestants
            .iter()
            .find(|one| one.rules == *rules && one.endpoints == endpoints)
            .with_context(|| format!("no router has the rules {rules:?}"))?;
        check(rig, one, traffic, &injectors[0], size.endpoints)
            .with_context(|| format!("{}, {}", rules.name(), traffic.name()))?;
        chosen.push(one);
    }
    let quick = scale == Scale::Quick;
    let mut rows = Vec::new();
    for cpus in 1..=injectors.len() {
        let wanted = match cpus {
            1 => !quick || case.quick,
            _ => !quick && case.twice,
        };
        if wanted {
            rows.extend(time(rig, &chosen, size, case, &injectors[..cpus], scale)?);
        }
    }
    Ok(rows)
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
    let found = rig.marks(one.road, traffic.direction, injector, dscp)?;
    let expected = one.rules.marks(traffic, endpoints);
    ensure!(
        found == expected,
        "packets by mark are {found:?}, not {expected:?}"
    );
    Ok(())
}

fn time(
    rig: &Rig,
    chosen: &[&Contestant<'_>],
    size: &Size,
    case: &Case,
    injectors: &[Injector],
    scale: Scale,
) -> Result<Vec<Row>> {
    let traffic = case.traffic();
    let (effort, packets) = match scale {
        Scale::Full => (FULL, 10_000),
        Scale::Quick => (QUICK, 10_000),
    };
    let variants = chosen
        .iter()
        .map(|one| {
            let dscp = Some(one.rules.dscp(traffic));
            let turn: Turn<'_> =
                Box::new(move || rig.burst(one.road, traffic.direction, injectors, packets, dscp));
            (one.rules.name().to_owned(), turn)
        })
        .collect();
    let turns = turns(&effort, variants)?;
    let direction = match traffic.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let at = |over: Rules| {
        setting(&[
            ("direction", direction),
            ("endpoints", &thousands(size.endpoints)),
            ("cpus", &injectors.len().to_string()),
            (OVER, over.name()),
        ])
    };
    let name = traffic.name();
    let names = |rules: Rules| [name.as_str(), rules.name(), UNIT];
    let nothing = Rules::Nothing;
    let mut rows = vec![turns.row(NAME, &at(nothing), names(nothing), None)?];
    for baseline in [nothing, Rules::EmptyHook] {
        for one in chosen {
            if one.rules != nothing && one.rules != baseline {
                let against = Some(baseline.name());
                rows.push(turns.row(NAME, &at(baseline), names(one.rules), against)?);
            }
        }
    }
    Ok(rows)
}
