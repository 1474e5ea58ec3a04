//! One kind of traffic in one program, by features.

use std::{
    cell::Cell,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Result, ensure};
use wificall_common::{
    abi::{Features, Hook},
    exit::Exit,
};

use super::{
    BUDGETED, EMPTY, EVERYTHING, NAME, OVER, UNIT, USUAL,
    table::{self, Shape, contents},
    track::{self, Track},
    traffic::{NAT64, Traffic},
};
use crate::{
    bench::{
        report::thousands,
        row::{Row, setting},
        turns::{Effort, Turn, turns},
    },
    netns::Netns,
    programs::{Kernel, raw::Kind},
    vectors::Setup,
};

/// What the agent sets up for policies with marks and nothing more.
pub const USUAL_FEATURES: u32 =
    Features::DSCP | Features::MARK | Features::PRIORITY | Features::COUNT_ACCESS;
const SNOOP: u32 = Features::SNOOP_NAMES | Features::SNOOP_IKE;

/// A way to set a program up.
#[derive(Clone, Copy)]
pub struct Variant {
    /// What the rows call it.
    pub name: &'static str,
    features: u32,
    nat64: bool,
    shape: Shape,
    /// Where it is measured.
    scope: Scope,
    /// What makes it another program than the one before; 0 if it is one everywhere.
    own: u32,
}

/// With which tables, and whether in quick runs.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// With every table, always.
    Always,
    /// With the table of the budgets, always.
    Budgeted,
    /// With the table of the budgets and the small one, in full runs.
    Feature,
    /// With the table of the budgets, in full runs.
    Extra,
}

const fn single(name: &'static str, feature: u32) -> Variant {
    Variant {
        name,
        features: feature,
        nat64: false,
        shape: Shape::Blocks,
        scope: Scope::Feature,
        own: feature,
    }
}

/// The usual features and others.
const fn more(name: &'static str, features: u32) -> Variant {
    Variant {
        name,
        features: USUAL_FEATURES | features,
        nat64: false,
        shape: Shape::Blocks,
        scope: Scope::Extra,
        own: features,
    }
}

/// The usual features and another table.
const fn shaped(name: &'static str, features: u32, shape: Shape) -> Variant {
    Variant {
        shape,
        own: 0,
        ..more(name, features)
    }
}

const VARIANTS: [Variant; 15] = [
    Variant {
        scope: Scope::Budgeted,
        ..single("all off", 0)
    },
    single("DSCP", Features::DSCP),
    single("mark", Features::MARK),
    single("priority", Features::PRIORITY),
    single("counters", Features::COUNT_ACCESS),
    Variant {
        scope: Scope::Always,
        ..more(USUAL, 0)
    },
    Variant {
        scope: Scope::Budgeted,
        ..more("+ names snooped", Features::SNOOP_NAMES)
    },
    Variant {
        scope: Scope::Budgeted,
        ..more("+ IKE snooped", Features::SNOOP_IKE)
    },
    more("+ cap", Features::CAP),
    Variant {
        nat64: true,
        ..more("+ NAT64", 0)
    },
    more("+ handover to TC", Features::HANDOVER),
    shaped("two owners a block", 0, Shape::Shared),
    shaped(
        "+ irregular prefixes of others",
        Features::PREFIXES,
        Shape::BesidePrefixes,
    ),
    shaped(
        "every endpoint an irregular prefix",
        Features::PREFIXES,
        Shape::Prefixes,
    ),
    // All that one program can have: only XDP hands over.
    Variant {
        nat64: true,
        scope: Scope::Budgeted,
        ..shaped(
            EVERYTHING,
            SNOOP | Features::CAP | Features::PREFIXES,
            Shape::BesidePrefixes,
        )
    },
];

impl Variant {
    fn is_measured(&self, endpoints: u32, quick: bool) -> bool {
        match self.scope {
            Scope::Always => true,
            Scope::Budgeted => endpoints == BUDGETED,
            Scope::Feature => !quick && endpoints <= BUDGETED,
            Scope::Extra => !quick && endpoints == BUDGETED,
        }
    }

    /// Whether it is a program of its own here, and this traffic is for it.
    fn is_for(&self, place: &Place, traffic: &Traffic) -> bool {
        (self.own == 0 || self.own & place.features != 0)
            && traffic.needs & !self.features == 0
            && (self.nat64 || !traffic.needs_nat64())
    }
}

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
        features: Features::DSCP | Features::MARK | Features::COUNT_ACCESS | Features::CAP | SNOOP,
    },
    Place {
        name: "TC egress",
        program: "out_down",
        hook: Hook::TcEgress,
        kind: Kind::Tc,
        down: true,
        features: Features::DSCP
            | Features::PRIORITY
            | Features::COUNT_ACCESS
            | Features::CAP
            | SNOOP,
    },
    Place {
        name: "XDP",
        program: "xdp_up",
        hook: Hook::Xdp,
        kind: Kind::Xdp,
        down: false,
        // What is snooped leaves by an exit of its own, for TC to look at.
        features: Features::DSCP
            | Features::COUNT_ACCESS
            | Features::CAP
            | Features::HANDOVER
            | SNOOP,
    },
];

/// The object set up in one way, with a table.
pub struct Loaded {
    variant: Variant,
    kernel: Kernel,
}

impl Loaded {
    /// Those that are measured with so many endpoints, each with its own maps.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one.
    pub fn all(endpoints: u32, quick: bool) -> Result<Vec<Self>> {
        VARIANTS
            .into_iter()
            .filter(|variant| variant.is_measured(endpoints, quick))
            .map(|variant| Self::new(variant, endpoints))
            .collect()
    }

    fn new(variant: Variant, endpoints: u32) -> Result<Self> {
        let contents = contents(endpoints, variant.shape)?;
        let room = |entries: usize| entries.try_into().unwrap_or(u32::MAX).max(4_096);
        let sizes = [
            // The default limit of the agent.
            ("BLOCKS4", endpoints.max(16_384)),
            ("HOSTS", room(contents.hosts.len())),
            ("PREFIXES", room(contents.prefixes.len())),
            ("ACTIVITY", endpoints.max(1_024)),
            // An LRU map is evicted from before it is full.
            ("FRAGMENTS", 16 * endpoints.max(1_024)),
            ("COUNTERS", table::GROUPS + 1),
            ("POLICIES", table::POLICIES + 1),
        ];
        let setup = Setup {
            features: variant.features,
            pref64: variant.nat64.then_some((NAT64.to_be_bytes(), 96)),
        };
        let mut kernel = Kernel::load_with(&setup, [1, 2], &sizes)?;
        kernel.fill(&contents)?;
        Ok(Self { variant, kernel })
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
    /// How packets are to leave it.
    exit: Exit,
    /// Packets sent, and how many had taken the way that is measured before.
    sent: Cell<u64>,
    before: u64,
}

impl Contestant<'_> {
    fn is_usual(&self) -> bool {
        self.loaded.variant.name == USUAL
    }
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
    let track = Track::new(place.kind, &frames, endpoints, idle)?;
    let empty = track::empty(place.kind)?;
    let mut contestants = Vec::new();
    for loaded in loaded {
        if !loaded.variant.is_for(place, traffic) {
            continue;
        }
        let exit = traffic.exit(loaded.variant.features);
        let program = loaded.kernel.descriptor(place.program)?;
        if let Some(first) = traffic.first()? {
            let first = first.frames(endpoints, place.down)?;
            track::driver(place.kind, &first)?.time(&program, endpoints)?;
        }
        contestants.push(Contestant {
            program,
            sent: Cell::new(0),
            before: loaded.exits(place.hook, exit)?,
            exit,
            loaded,
        });
    }
    let mut variants: Vec<(String, Turn<'_>)> =
        vec![(EMPTY.to_owned(), Box::new(|| track.time(empty.as_fd())))];
    for each in &contestants {
        let turn = || {
            each.sent.set(each.sent.get() + track.packets());
            track.time(each.program.as_fd())
        };
        variants.push((each.loaded.variant.name.to_owned(), Box::new(turn)));
    }
    let turns = turns(effort, variants)?;
    let at = |over: &str| {
        setting(&[
            ("hook", place.name),
            ("endpoints", &thousands(endpoints)),
            (OVER, over),
        ])
    };
    let mut rows = vec![turns.row(NAME, &at(EMPTY), [traffic.name, EMPTY, UNIT], None)?];
    for each in &contestants {
        let Variant { name, features, .. } = each.loaded.variant;
        let seen = each.loaded.exits(place.hook, each.exit)? - each.before;
        ensure!(
            seen == each.sent.get(),
            "{} in {}, {name}, {endpoints} endpoints: {seen} of {} packets left by `{}`",
            traffic.name,
            place.program,
            each.sent.get(),
            each.exit.name()
        );
        let names = [traffic.name, name, UNIT];
        rows.push(turns.row(NAME, &at(EMPTY), names, Some(EMPTY))?);
        let is_more = features & USUAL_FEATURES == USUAL_FEATURES;
        if is_more && name != USUAL && contestants.iter().any(Contestant::is_usual) {
            rows.push(turns.row(NAME, &at(USUAL), names, Some(USUAL))?);
        }
    }
    Ok(rows)
}
