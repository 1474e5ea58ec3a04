//! The layer `policies`: what policies, exits, caps, bleaching and tracking flows cost a packet, over the same program without them in the
//! same run.
//!
//! It is measured in `in_up`, where all of it happens: policies by client and by interface choose the row, tunnels keep
//! their exit by the mark, and only TC ingress bleaches. Timed as in the layer `program`; here clients vary as well.

mod setup;

use std::{
    cell::{Cell, RefCell},
    os::fd::AsFd as _,
};

use anyhow::{Result, ensure};
use wificall_common::abi::{Features, KEEP_OFF, KEEP_ON};

pub(super) use self::setup::with_sequence;
use self::setup::{Loaded, with_clients};
use super::{
    Layer, Scale,
    chart::Chart,
    patience::hold_all,
    program::{
        BUDGETED, EMPTY, FULL, LARGE, OVER, PATIENCE, QUICK, QUICK_PATIENCE, UNIT, over,
        track::{self, Track},
        traffic::{TRAFFIC, Traffic, WITH_EF},
    },
    report::{Table, thousands},
    row::{Row, setting},
    turns::{Effort, Turn, turns},
};
use crate::{netns::Netns, programs::raw::Kind};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables,
    charts,
};
const NAME: &str = "policies";
/// The variant that others are compared with: a policy for all endpoints, whoever the client is.
const ONE: &str = "1 policy";
/// The same where nothing matches.
const BLEACH: &str = "bleach";
/// Each packet in a flow of its own client's and endpoint's.
const FLOWS: &str = "flows";
/// Policies where there are many, one a client or an interface where they are by these.
const MANY: u32 = 1_000;

/// A way to set `in_up` up.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Besides the usual ones.
    features: u32,
    /// Policies that the endpoints are spread over.
    policies: u32,
    /// `KEEP_…`, if policies have an exit.
    keep: Option<u32>,
    /// Whether it is measured in quick runs.
    quick: bool,
}

const fn one(name: &'static str, features: u32) -> Variant {
    Variant {
        name,
        features,
        policies: 1,
        keep: None,
        quick: true,
    }
}

const fn exit(name: &'static str, keep: u32) -> Variant {
    Variant {
        keep: Some(keep),
        ..one(name, Features::EXITS)
    }
}

const BY_CLIENT: u32 = Features::CLIENTS | Features::STATIONS | Features::INTERFACES;

/// What is compared where packets match, the first with all others.
const MATCHING: [Variant; 11] = [
    one(ONE, 0),
    Variant {
        policies: MANY,
        ..one("1,000 policies", 0)
    },
    one("1,000 policies by client network", Features::CLIENTS),
    one("1,000 policies by MAC", Features::STATIONS),
    one("1,000 policies by interface", Features::INTERFACES),
    Variant {
        quick: false,
        ..one("1,000 policies by each of these", BY_CLIENT)
    },
    exit("exit, tunnels where they should be", KEEP_OFF),
    exit("exit, tunnels elsewhere", KEEP_ON),
    one("cap", Features::CAP),
    one(FLOWS, Features::FLOWS),
    Variant {
        keep: Some(KEEP_ON),
        quick: false,
        ..one("all of it", BY_CLIENT | Features::EXITS | Features::CAP)
    },
];

/// Likewise where none does.
const STRANGE: [Variant; 2] = [one(ONE, 0), one(BLEACH, Features::BLEACH)];

/// Of the kinds of traffic, those that match; the others are for [`STRANGE`].
const MATCHES: [&str; 3] = ["ESP in UDP", "IKE", "keepalive"];
const STRANGERS: [&str; 4] = ["TCP", "UDP", "UDP, IPv6", "ESP in UDP, no endpoint"];

/// A contest: what is compared.
struct Contest {
    /// Index among the tables.
    table: usize,
    traffic: &'static Traffic,
}

/// The object set up in each of some ways, for so many endpoints.
struct Set {
    endpoints: u32,
    loaded: Vec<(&'static Variant, Loaded)>,
}

impl Set {
    fn new(variants: &'static [Variant], endpoints: u32, quick: bool) -> Result<Self> {
        let measured = variants.iter().filter(|variant| variant.quick || !quick);
        let loaded = measured.map(|variant| Ok((variant, Loaded::new(variant, endpoints)?)));
        Ok(Self {
            endpoints,
            loaded: loaded.collect::<Result<_>>()?,
        })
    }
}

/// Measures the layer.
///
/// # Errors
///
/// If the kernel refuses something, or a packet does not take the way that is measured.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let quick = scale == Scale::Quick;
    let (effort, patience) = if quick {
        (QUICK, QUICK_PATIENCE)
    } else {
        (FULL, PATIENCE)
    };
    let of = |name: &&str| TRAFFIC.iter().find(|traffic| traffic.name == *name);
    let matches: Vec<&Traffic> = MATCHES.iter().filter_map(of).collect();
    let mut strangers: Vec<&Traffic> = STRANGERS.iter().filter_map(of).collect();
    strangers.extend(&WITH_EF);
    let tables = [
        (Set::new(&MATCHING, BUDGETED, quick)?, &matches),
        (Set::new(&MATCHING, LARGE, quick)?, &matches),
        (Set::new(&STRANGE, BUDGETED, quick)?, &strangers),
    ];
    let mut contests = Vec::new();
    let mut sets = Vec::new();
    for (table, (set, traffic)) in tables.into_iter().enumerate() {
        sets.push(set);
        contests.extend(traffic.iter().map(|traffic| Contest { table, traffic }));
    }
    let idle = Netns::new("idle")?;
    let sets = RefCell::new(sets);
    hold_all(
        &contests,
        // The same program at the same work.
        |contest| (contest.table, contest.traffic.header()),
        patience,
        |contest| {
            compare(
                contest,
                &mut sets.borrow_mut()[contest.table],
                &effort,
                &idle,
            )
        },
    )
}

/// What one kind of traffic costs by variants: a row for each, first that of the empty program.
fn compare(contest: &Contest, set: &mut Set, effort: &Effort, idle: &Netns) -> Result<Vec<Row>> {
    let traffic = contest.traffic;
    let Set { endpoints, loaded } = set;
    let mut frames = with_clients(traffic.frames(*endpoints, false)?, MANY);
    if traffic.is_esp() {
        frames = with_sequence(frames);
    }
    let track = Track::new(Kind::Tc, &frames, *endpoints, idle)?;
    let empty = track::empty(Kind::Tc)?;
    let mut contestants = Vec::new();
    for (variant, loaded) in loaded {
        let program = loaded.ready(variant, traffic, &frames)?;
        let before = loaded.counted(traffic)?;
        contestants.push((*variant, &*loaded, program, Cell::new(0_u64), before));
    }
    let mut variants: Vec<(String, Turn<'_>)> =
        vec![(EMPTY.to_owned(), Box::new(|| track.time(empty.as_fd())))];
    for (variant, _, program, sent, _) in &contestants {
        let turn = || {
            sent.set(sent.get() + track.packets());
            track.time(program.as_fd())
        };
        variants.push((variant.name.to_owned(), Box::new(turn)));
    }
    let turns = turns(effort, variants)?;
    let at = |over: &str| setting(&[("endpoints", &thousands(*endpoints)), (OVER, over)]);
    let mut rows = vec![turns.row(NAME, &at(EMPTY), [traffic.name, EMPTY, UNIT], None)?];
    for (variant, loaded, _, sent, before) in &contestants {
        let seen = loaded.counted(traffic)?;
        ensure!(
            seen.exit - before.exit == sent.get(),
            "{}, {}, {endpoints} endpoints: {} of {} packets left by `{}`",
            traffic.name,
            variant.name,
            seen.exit - before.exit,
            sent.get(),
            traffic.exit(0).name()
        );
        let bleached = if variant.name == BLEACH && WITH_EF.iter().any(|ef| ef.name == traffic.name)
        {
            sent.get()
        } else {
            0
        };
        ensure!(
            seen.bleached - before.bleached == bleached,
            "{}, {}: {} packets bleached, not {bleached}",
            traffic.name,
            variant.name,
            seen.bleached - before.bleached
        );
        loaded.check_tunnels(variant, traffic, *endpoints)?;
        if variant.features & Features::FLOWS != 0 {
            // The first is that which has shown the mark.
            loaded.check_flows(traffic, sent.get() + 1)?;
        }
        let baseline = if variant.name == ONE { EMPTY } else { ONE };
        let names = [traffic.name, variant.name, UNIT];
        rows.push(turns.row(NAME, &at(baseline), names, Some(baseline))?);
    }
    Ok(rows)
}

fn tables(rows: &[Row]) -> Vec<Table> {
    let case = |row: &Row| row.case.clone();
    let variant = |row: &Row| row.variant.clone();
    let mut tables = Vec::new();
    for endpoints in [LARGE, BUDGETED].map(thousands) {
        tables.push(Table::pivot(
            &format!("A match, {endpoints} endpoints"),
            "ns a packet over 1 policy",
            over(rows, ONE).filter(|row| row.at("endpoints") == endpoints && row.variant != BLEACH),
            variant,
            case,
        ));
    }
    tables.push(Table::pivot(
        "No match, where voice's DSCPs are bleached",
        "ns a packet over not bleaching",
        over(rows, ONE).filter(|row| row.variant == BLEACH),
        case,
        variant,
    ));
    tables.push(Table::pivot(
        "One policy by itself",
        "ns a packet over the empty program",
        over(rows, EMPTY),
        case,
        |row| format!("{} endpoints", row.at("endpoints")),
    ));
    tables
}

fn charts(rows: &[Row]) -> Vec<Chart> {
    vec![Chart::of(
        [
            NAME,
            "What policies add to a packet of ESP in UDP",
            "ns over 1 policy",
        ],
        over(rows, ONE).filter(|row| row.case == MATCHES[0]),
        variant_of,
        |row| format!("{} endpoints", row.at("endpoints")),
    )]
}

fn variant_of(row: &Row) -> String {
    row.variant.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_traffic_is_there() {
        for name in MATCHES.iter().chain(&STRANGERS) {
            assert!(
                TRAFFIC.iter().any(|traffic| traffic.name == *name),
                "{name}"
            );
        }
    }
}
