//! The layer `program`: what our programs cost a packet, over an empty program of the same kind in the same run.
//!
//! `programs/driver.rs` says how one turn is timed. Every turn begins with a pass over the whole table that is not
//! timed, so that variants do not pay for each other's use of the caches.

mod table;
mod traffic;

use std::{cell::Cell, os::fd::OwnedFd};

use anyhow::{Result, ensure};
use wificall_common::{
    abi::{Features, Hook},
    exit::Exit,
};

use self::traffic::{TRAFFIC, Traffic};
use super::{
    Layer, Scale,
    chart::Chart,
    report::{Table, thousands},
    row::{Row, setting},
    turns::{Effort, Turn, turns},
};
use crate::{
    programs::{
        Kernel, TC_ACT_UNSPEC, XDP_PASS,
        driver::Driver,
        raw::{Insn, Kind, RawProgram},
    },
    vectors::Setup,
};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables,
    charts,
};
const NAME: &str = "program";
/// The variant that is the baseline.
const EMPTY: &str = "empty program";
/// The variant with every feature.
const ALL: &str = "all on";
const UNIT: &str = "ns/packet";

/// Packets of a turn, at least.
const PACKETS: u32 = 50_000;
const FULL: Effort = Effort {
    rounds: 21,
    quiet: 11,
    most: 63,
    slack: 1.1,
};
/// With many endpoints a turn is long.
const LONG: Effort = Effort {
    rounds: 9,
    quiet: 5,
    most: 27,
    slack: 1.1,
};
const QUICK: Effort = Effort {
    rounds: 9,
    quiet: 5,
    most: 45,
    slack: 1.1,
};

/// Sets of features that are measured, and whether of the largest table and in quick runs, too.
const VARIANTS: [(&str, u32, bool); 6] = [
    ("all off", 0, true),
    ("DSCP", Features::DSCP, false),
    ("mark", Features::MARK, false),
    ("priority", Features::PRIORITY, false),
    ("counters", Features::COUNT_ACCESS, false),
    (
        ALL,
        Features::DSCP | Features::MARK | Features::PRIORITY | Features::COUNT_ACCESS,
        true,
    ),
];

/// A program of ours.
struct Place {
    name: &'static str,
    program: &'static str,
    hook: Hook,
    kind: Kind,
    down: bool,
    /// Features that make it another program.
    features: u32,
}

const PLACES: [Place; 3] = [
    Place {
        name: "TC ingress",
        program: "in_up",
        hook: Hook::TcIngress,
        kind: Kind::Tc,
        down: false,
        features: Features::DSCP | Features::MARK | Features::COUNT_ACCESS,
    },
    Place {
        name: "TC egress",
        program: "out_down",
        hook: Hook::TcEgress,
        kind: Kind::Tc,
        down: true,
        features: Features::DSCP | Features::PRIORITY | Features::COUNT_ACCESS,
    },
    Place {
        name: "XDP",
        program: "xdp_up",
        hook: Hook::Xdp,
        kind: Kind::Xdp,
        down: false,
        features: Features::DSCP | Features::COUNT_ACCESS,
    },
];

/// Measures the layer.
///
/// # Errors
///
/// If the kernel refuses something, or a packet does not take the way that is measured.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    // The last one is for information.
    let sizes: &[u32] = match scale {
        Scale::Full => &[10, 1_000, 10_000, 100_000],
        Scale::Quick => &[1_000, 10_000],
    };
    let mut rows = Vec::new();
    for endpoints in sizes.iter().copied() {
        let few = scale == Scale::Quick || endpoints > 10_000;
        let mut loaded = VARIANTS
            .iter()
            .filter(|(_, _, always)| *always || !few)
            .map(|(name, features, _)| Loaded::new(name, *features, endpoints))
            .collect::<Result<Vec<_>>>()?;
        let effort = match scale {
            Scale::Quick => QUICK,
            Scale::Full if few => LONG,
            Scale::Full => FULL,
        };
        for place in &PLACES {
            eprintln!("{}, {} endpoints", place.name, thousands(endpoints));
            for traffic in &TRAFFIC {
                rows.extend(compare(place, traffic, &mut loaded, endpoints, &effort)?);
            }
        }
    }
    Ok(rows)
}

/// The object with some features and a table.
struct Loaded {
    name: &'static str,
    features: u32,
    kernel: Kernel,
}

impl Loaded {
    fn new(name: &'static str, features: u32, endpoints: u32) -> Result<Self> {
        let room = endpoints.max(1_024);
        let sizes = [
            ("BLOCKS4", room),
            ("BLOCKS6", room),
            ("ACTIVITY", room),
            // An LRU map is evicted from before it is full.
            ("FRAGMENTS", 2 * room),
            ("COUNTERS", table::GROUPS + 1),
            ("POLICIES", table::POLICIES + 1),
        ];
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load_with(&setup, [1, 2], &sizes)?;
        kernel.fill(&table::contents(endpoints))?;
        Ok(Self {
            name,
            features,
            kernel,
        })
    }

    fn exits(&self, hook: Hook, exit: Exit) -> Result<u64> {
        let exits = self.kernel.exits(hook)?;
        Ok(exits.get(&(hook, exit)).copied().unwrap_or(0))
    }
}

/// A variant in a contest.
struct Contestant<'a> {
    loaded: &'a Loaded,
    program: OwnedFd,
    /// Packets sent, and how many had taken the way that is measured before.
    sent: Cell<u64>,
    before: u64,
}

/// What one kind of traffic costs in one program, by features.
fn compare(
    place: &Place,
    traffic: &Traffic,
    loaded: &mut [Loaded],
    endpoints: u32,
    effort: &Effort,
) -> Result<Vec<Row>> {
    let frames = traffic.frames(endpoints, place.down)?;
    let driver = Driver::new(place.kind, &frames.frame, &frames.headers, frames.header)?;
    let pass = match place.kind {
        Kind::Xdp => XDP_PASS,
        Kind::Tc => TC_ACT_UNSPEC,
    };
    let empty = RawProgram::load(place.kind, &Insn::empty(pass.cast_signed()))?;
    let mut contestants = Vec::new();
    for loaded in loaded {
        let own = loaded.features & place.features;
        let single = loaded.features.count_ones() == 1;
        if single && own == 0 || traffic.needs & !loaded.features != 0 {
            continue;
        }
        let program = loaded.kernel.descriptor(place.program)?;
        if let Some(first) = traffic.first()? {
            let first = first.frames(endpoints, place.down)?;
            Driver::new(place.kind, &first.frame, &first.headers, first.header)?
                .time(&program, endpoints)?;
        }
        contestants.push(Contestant {
            program,
            sent: Cell::new(0),
            before: loaded.exits(place.hook, traffic.exit)?,
            loaded,
        });
    }
    let packets = PACKETS.max(endpoints);
    let mut variants: Vec<(String, Turn<'_>)> = vec![(
        EMPTY.to_owned(),
        Box::new(|| {
            driver.time(&empty, endpoints)?;
            driver.time(&empty, packets)
        }),
    )];
    for each in &contestants {
        let turn = || {
            each.sent
                .set(each.sent.get() + u64::from(endpoints) + u64::from(packets));
            driver.time(&each.program, endpoints)?;
            driver.time(&each.program, packets)
        };
        variants.push((each.loaded.name.to_owned(), Box::new(turn)));
    }
    let turns = turns(effort, variants)?;
    let at = setting(&[("hook", place.name), ("endpoints", &thousands(endpoints))]);
    let mut rows = vec![turns.row(NAME, &at, [traffic.name, EMPTY, UNIT], None)?];
    for each in &contestants {
        let seen = each.loaded.exits(place.hook, traffic.exit)? - each.before;
        ensure!(
            seen == each.sent.get(),
            "{} in {}, {}, {endpoints} endpoints: {seen} of {} packets left by `{}`",
            traffic.name,
            place.program,
            each.loaded.name,
            each.sent.get(),
            traffic.exit.name()
        );
        let names = [traffic.name, each.loaded.name, UNIT];
        rows.push(turns.row(NAME, &at, names, Some(EMPTY))?);
    }
    Ok(rows)
}

/// The table size of the budgets.
const USUAL: &str = "1,000";

fn tables(rows: &[Row]) -> Vec<Table> {
    let compared = || rows.iter().filter(|row| row.against.is_some());
    let case = |row: &Row| row.case.clone();
    let mut tables = vec![Table::pivot(
        "Every kind of traffic, 1,000 endpoints, all features on",
        "ns a packet over the empty program",
        compared().filter(|row| row.at("endpoints") == USUAL && row.variant == ALL),
        case,
        |row| row.at("hook").to_owned(),
    )];
    for place in &PLACES {
        tables.push(Table::pivot(
            &format!("{}: what a feature costs, 1,000 endpoints", place.name),
            "ns a packet over the empty program",
            compared().filter(|row| row.at("endpoints") == USUAL && row.at("hook") == place.name),
            case,
            |row| row.variant.clone(),
        ));
    }
    for place in &PLACES {
        tables.push(Table::pivot(
            &format!("{}: with more endpoints, all features on", place.name),
            "ns a packet over the empty program",
            compared().filter(|row| row.at("hook") == place.name && row.variant == ALL),
            case,
            |row| row.at("endpoints").to_owned(),
        ));
    }
    tables
}

fn charts(rows: &[Row]) -> Vec<Chart> {
    let all = || {
        rows.iter()
            .filter(|row| row.against.is_some() && row.variant == ALL)
    };
    let hook = |row: &Row| row.at("hook").to_owned();
    let mut by_case: Vec<_> = all().filter(|row| row.at("endpoints") == USUAL).collect();
    let place = |row: &Row| TRAFFIC.iter().position(|traffic| traffic.name == row.case);
    by_case.sort_by_key(|row| place(row));
    let growth = all().filter(|row| row.case == traffic::ESP_IN_UDP);
    vec![
        Chart::of(
            [
                "program",
                "Cost of a packet, all features on, 1,000 endpoints",
                "ns over an empty program",
            ],
            by_case,
            |row| format!("{}, {}", row.case, row.at("hook")),
            hook,
        ),
        Chart::of(
            [
                "program-endpoints",
                "Cost of ESP in UDP, all features on, by endpoints",
                "ns over an empty program",
            ],
            growth,
            |row| format!("{} endpoints, {}", row.at("endpoints"), row.at("hook")),
            hook,
        ),
    ]
}
