//! One kind of traffic in one program, by features.

use std::{
    cell::Cell,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Result, ensure};
use wificall_common::{
    abi::{Features, Hook},
    exit::Exit,
};

use super::{
    ALL, EMPTY, NAME, UNIT,
    table::{self, contents},
    traffic::Traffic,
};
use crate::{
    bench::{
        report::thousands,
        row::{Row, setting},
        turns::{Effort, Turn, turns},
    },
    netns::Netns,
    programs::{
        Kernel, TC_ACT_UNSPEC, XDP_PASS,
        driver::Driver,
        raw::{Insn, Kind, RawProgram},
    },
    vectors::Setup,
};

/// Packets of a turn, at least.
const PACKETS: u32 = 25_000;
/// A larger table does not stay in the caches, with or without a pass before.
const CACHED: u32 = 10_000;

/// Sets of features by name.
const VARIANTS: [(&str, u32); 6] = [
    ("all off", 0),
    ("DSCP", Features::DSCP),
    ("mark", Features::MARK),
    ("priority", Features::PRIORITY),
    ("counters", Features::COUNT_ACCESS),
    (
        ALL,
        Features::DSCP | Features::MARK | Features::PRIORITY | Features::COUNT_ACCESS,
    ),
];

/// A program of ours.
pub struct Place {
    /// What the rows call it.
    pub name: &'static str,
    program: &'static str,
    hook: Hook,
    /// Empty programs of this kind are its baseline.
    pub kind: Kind,
    down: bool,
    /// Features that make it another program.
    features: u32,
}

/// Those that are measured.
pub const PLACES: [Place; 3] = [
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

/// The object with some features and a table.
pub struct Loaded {
    name: &'static str,
    features: u32,
    kernel: Kernel,
}

impl Loaded {
    /// The sets of features, each with its own maps; with `few`, only that which has all.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one.
    pub fn sets(endpoints: u32, few: bool) -> Result<Vec<Self>> {
        VARIANTS
            .iter()
            .filter(|(name, _)| !few || *name == ALL)
            .map(|(name, features)| Self::new(name, *features, endpoints))
            .collect()
    }

    fn new(name: &'static str, features: u32, endpoints: u32) -> Result<Self> {
        let room = endpoints.max(1_024);
        let sizes = [
            ("BLOCKS4", room),
            ("ACTIVITY", room),
            // An LRU map is evicted from before it is full.
            ("FRAGMENTS", 16 * room),
            ("COUNTERS", table::GROUPS + 1),
            ("POLICIES", table::POLICIES + 1),
        ];
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load_with(&setup, [1, 2], &sizes)?;
        kernel.fill(&contents(endpoints))?;
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

/// What one kind of traffic costs in one program, by features: a row for each, first that of the empty program.
///
/// # Errors
///
/// If the kernel refuses something, or a packet does not take the way that is measured.
pub fn compare(
    place: &Place,
    traffic: &Traffic,
    loaded: &mut [Loaded],
    endpoints: u32,
    effort: &Effort,
    idle: &Netns,
) -> Result<Vec<Row>> {
    let frames = traffic.frames(endpoints, place.down)?;
    let mut driver = Driver::new(place.kind, &frames.frame, &frames.headers, frames.header)?;
    if place.kind == Kind::Xdp {
        driver.make_known(idle)?;
    }
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
    // Turns go on in the table where the one before stopped.
    let packets = PACKETS.max(endpoints / 2);
    let pass_before = if endpoints > CACHED { 0 } else { endpoints };
    let time = |program: BorrowedFd<'_>| {
        if pass_before > 0 {
            driver.time(program, pass_before)?;
        }
        driver.time(program, packets)
    };
    let mut variants: Vec<(String, Turn<'_>)> =
        vec![(EMPTY.to_owned(), Box::new(|| time(empty.as_fd())))];
    for each in &contestants {
        let turn = || {
            let sent = each.sent.get() + u64::from(pass_before + packets);
            each.sent.set(sent);
            time(each.program.as_fd())
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
