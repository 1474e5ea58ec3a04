//! The layer `program`: what our programs cost a packet, over an empty program of the same kind in the same run.
//!
//! `programs/driver.rs` says how one turn is timed. Every turn begins with a pass over the whole table that is not
//! timed, so that variants do not pay for each other's use of the caches.

pub(super) mod contest;
pub(super) mod table;
pub(super) mod track;
pub(super) mod traffic;

use std::{cell::RefCell, time::Duration};

use anyhow::Result;

use self::{
    contest::{Loaded, PLACES, Place, compare},
    traffic::{TRAFFIC, Traffic},
};
use super::{
    Layer, Scale,
    chart::Chart,
    patience::{Patience, hold_all},
    report::{Table, thousands},
    row::Row,
    turns::Effort,
};
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
pub(super) const EMPTY: &str = "empty program";
/// The setting that names the baseline: what is more than usual is compared with two.
pub(super) const OVER: &str = "over";
/// The variant of an ordinary configuration.
const USUAL: &str = "usual features";
/// The variant with all that can be switched on.
const EVERYTHING: &str = "everything on";
pub(super) const UNIT: &str = "ns/packet";

pub(super) const FULL: Effort = Effort {
    rounds: 25,
    quiet: 17,
    most: 50,
    slack: 1.1,
};
/// With many endpoints a turn is long.
const LONG: Effort = Effort {
    rounds: 9,
    quiet: 7,
    most: 16,
    slack: 1.1,
};
pub(super) const QUICK: Effort = Effort {
    rounds: 13,
    quiet: 9,
    most: 26,
    slack: 1.1,
};
pub(super) const PATIENCE: Patience = Patience {
    limit: Duration::from_secs(300),
    slow: 1.1,
};
pub(super) const QUICK_PATIENCE: Patience = Patience {
    limit: Duration::from_secs(60),
    ..PATIENCE
};
/// The table of most budgets.
pub(super) const BUDGETED: u32 = 1_000;
/// Above it, tables are for information.
pub(super) const LARGE: u32 = 10_000;

/// A contest: what is compared.
struct Contest {
    /// Index among the tables.
    table: usize,
    place: &'static Place,
    traffic: &'static Traffic,
}

/// Measures the layer.
///
/// # Errors
///
/// If the kernel refuses something, or a packet does not take the way that is measured.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let quick = scale == Scale::Quick;
    let (sizes, effort, patience): (&[u32], _, _) = if quick {
        (&[BUDGETED, LARGE], QUICK, QUICK_PATIENCE)
    } else {
        (&[10, BUDGETED, LARGE, 100_000], FULL, PATIENCE)
    };
    let idle = Netns::new("idle")?;
    let mut tables = Vec::new();
    let mut contests = Vec::new();
    for (table, endpoints) in sizes.iter().copied().enumerate() {
        tables.push((endpoints, Loaded::all(endpoints, quick)?));
        for place in &PLACES {
            for traffic in &TRAFFIC {
                let has_variant = endpoints == BUDGETED || !traffic.needs_nat64();
                // What is not looked up does not depend on the table.
                if has_variant && (traffic.is_looked_up() || endpoints <= BUDGETED) {
                    contests.push(Contest {
                        table,
                        place,
                        traffic,
                    });
                }
            }
        }
    }
    let tables = RefCell::new(tables);
    hold_all(
        &contests,
        // The same program at the same work.
        |contest| (contest.table, contest.place.kind, contest.traffic.header()),
        patience,
        |contest| {
            let (endpoints, loaded) = &mut tables.borrow_mut()[contest.table];
            let effort = if *endpoints > LARGE { LONG } else { effort };
            let Contest { place, traffic, .. } = contest;
            compare(place, traffic, loaded, *endpoints, &effort, &idle)
        },
    )
}

/// The rows over a baseline.
pub(super) fn over<'a>(rows: &'a [Row], baseline: &str) -> impl Iterator<Item = &'a Row> {
    rows.iter()
        .filter(move |row| row.against.is_some() && row.at(OVER) == baseline)
}

fn is_budgeted(row: &&Row) -> bool {
    row.at("endpoints") == thousands(BUDGETED)
}

fn tables(rows: &[Row]) -> Vec<Table> {
    let case = |row: &Row| row.case.clone();
    let variant = |row: &Row| row.variant.clone();
    // Those are compared with the usual features, which says more.
    let is_more = |row: &Row| {
        over(rows, USUAL).any(|more| (&more.case, &more.variant) == (&row.case, &row.variant))
    };
    let mut tables = vec![Table::pivot(
        "Every kind of traffic, 1,000 endpoints, usual features",
        "ns a packet over the empty program",
        over(rows, EMPTY).filter(|row| is_budgeted(row) && row.variant == USUAL),
        case,
        |row| row.at("hook").to_owned(),
    )];
    for place in &PLACES {
        tables.push(Table::pivot(
            &format!("{}: what a feature costs, 1,000 endpoints", place.name),
            "ns a packet over the empty program",
            over(rows, EMPTY)
                .filter(|row| is_budgeted(row) && row.at("hook") == place.name && !is_more(row)),
            case,
            variant,
        ));
        tables.push(Table::pivot(
            &format!(
                "{}: what more than the usual costs, 1,000 endpoints",
                place.name
            ),
            "ns a packet over the usual features",
            over(rows, USUAL).filter(|row| row.at("hook") == place.name),
            case,
            variant,
        ));
    }
    for place in &PLACES {
        tables.push(Table::pivot(
            &format!("{}: with more endpoints, usual features", place.name),
            "ns a packet over the empty program",
            over(rows, EMPTY).filter(|row| row.at("hook") == place.name && row.variant == USUAL),
            case,
            |row| row.at("endpoints").to_owned(),
        ));
    }
    tables
}

fn charts(rows: &[Row]) -> Vec<Chart> {
    let usual = || over(rows, EMPTY).filter(|row| row.variant == USUAL);
    let hook = |row: &Row| row.at("hook").to_owned();
    let mut by_case: Vec<_> = usual().filter(is_budgeted).collect();
    let place = |row: &Row| TRAFFIC.iter().position(|traffic| traffic.name == row.case);
    by_case.sort_by_key(|row| place(row));
    let growth = usual().filter(|row| row.case == traffic::ESP_IN_UDP);
    vec![
        Chart::of(
            [
                "program",
                "Cost of a packet, usual features, 1,000 endpoints",
                "ns over an empty program",
            ],
            by_case,
            |row| format!("{}, {}", row.case, row.at("hook")),
            hook,
        ),
        Chart::of(
            [
                "program-endpoints",
                "Cost of ESP in UDP, usual features, by endpoints",
                "ns over an empty program",
            ],
            growth,
            |row| format!("{} endpoints, {}", row.at("endpoints"), row.at("hook")),
            hook,
        ),
    ]
}
