//! The layer `program`: what our programs cost a packet, over an empty program of the same kind in the same run.
//!
//! `programs/driver.rs` says how one turn is timed. Every turn begins with a pass over the whole table that is not
//! timed, so that variants do not pay for each other's use of the caches.
//!
//! A virtual machine may be slow for seconds on end, longer than a contest takes. Such contests are found by their
//! baselines, which are to be alike, and held again.

mod contest;
mod table;
mod traffic;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::{
    contest::{Loaded, PLACES, Place, compare},
    traffic::{TRAFFIC, Traffic},
};
use super::{Layer, Scale, chart::Chart, report::Table, row::Row, turns::Effort};
use crate::netns::Netns;

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

const FULL: Effort = Effort {
    rounds: 13,
    quiet: 7,
    most: 26,
    slack: 1.1,
};
/// With many endpoints a turn is long.
const LONG: Effort = Effort {
    rounds: 7,
    quiet: 4,
    most: 14,
    slack: 1.1,
};
const QUICK: Effort = Effort {
    rounds: 9,
    quiet: 5,
    most: 18,
    slack: 1.1,
};
/// For how long contests are held again.
const PATIENCE: Duration = Duration::from_secs(240);
const QUICK_PATIENCE: Duration = Duration::from_secs(25);
/// A contest was slow if its baseline was so much slower than the best of those like it.
const SLOW: f64 = 1.1;
/// Above it, tables are for information.
const LARGE: u32 = 10_000;

/// A contest and what came out.
struct Contest {
    /// Index among the tables.
    table: usize,
    place: &'static Place,
    traffic: &'static Traffic,
    rows: Vec<Row>,
}

impl Contest {
    fn baseline(&self) -> f64 {
        self.rows.first().map_or(f64::MAX, |row| row.value.median)
    }

    /// The same program at the same work.
    fn is_like(&self, other: &Self) -> bool {
        let what = |contest: &Self| (contest.table, contest.place.kind, contest.traffic.header());
        what(self) == what(other)
    }

    fn was_slow(&self, all: &[Self]) -> bool {
        let best = all
            .iter()
            .filter(|other| self.is_like(other))
            .map(Self::baseline)
            .fold(f64::MAX, f64::min);
        self.baseline() > best * SLOW
    }
}

/// Measures the layer.
///
/// # Errors
///
/// If the kernel refuses something, or a packet does not take the way that is measured.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let (sizes, effort, patience): (&[u32], _, _) = match scale {
        Scale::Full => (&[10, 1_000, LARGE, 100_000], FULL, PATIENCE),
        Scale::Quick => (&[1_000, LARGE], QUICK, QUICK_PATIENCE),
    };
    let start = Instant::now();
    let idle = Netns::new("idle")?;
    let mut tables = Vec::new();
    let mut contests = Vec::new();
    for endpoints in sizes.iter().copied() {
        let few = scale == Scale::Quick || endpoints > LARGE;
        tables.push((endpoints, Loaded::sets(endpoints, few)?));
        for place in &PLACES {
            for traffic in &TRAFFIC {
                // What is not looked up does not depend on the table.
                if traffic.is_looked_up() || !few || endpoints < LARGE {
                    contests.push(Contest {
                        table: tables.len() - 1,
                        place,
                        traffic,
                        rows: Vec::new(),
                    });
                }
            }
        }
    }
    let mut hold = |contest: &Contest| {
        let (endpoints, loaded) = &mut tables[contest.table];
        let effort = if *endpoints > LARGE { LONG } else { effort };
        let Contest { place, traffic, .. } = contest;
        compare(place, traffic, loaded, *endpoints, &effort, &idle)
    };
    for contest in &mut contests {
        contest.rows = hold(contest)?;
    }
    loop {
        let slow: Vec<_> = (0..contests.len())
            .filter(|at| contests[*at].was_slow(&contests))
            .collect();
        eprintln!(
            "{} of {} contests were slow after {} s",
            slow.len(),
            contests.len(),
            start.elapsed().as_secs()
        );
        if slow.is_empty() {
            break;
        }
        for at in slow {
            if start.elapsed() > patience {
                eprintln!("no time to hold the others again");
                return Ok(rows(contests));
            }
            let again = Contest {
                rows: hold(&contests[at])?,
                ..contests[at]
            };
            if again.baseline() < contests[at].baseline() {
                contests[at] = again;
            }
        }
    }
    Ok(rows(contests))
}

fn rows(contests: Vec<Contest>) -> Vec<Row> {
    contests
        .into_iter()
        .flat_map(|contest| contest.rows)
        .collect()
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
