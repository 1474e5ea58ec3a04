//! The layer's tables and charts.

use super::{
    super::{chart::Chart, report::Table, row::Row},
    OVER, Rules,
};
use crate::rig::traffic::{Direction, Family, Kind, Traffic};

/// Rows over this baseline, of so many endpoints and CPUs.
fn over<'a>(
    rows: &'a [Row],
    baseline: Rules,
    endpoints: &'a str,
    cpus: &'a str,
) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(move |row| {
        row.against.is_some()
            && row.at(OVER) == baseline.name()
            && row.at("endpoints") == endpoints
            && row.at("cpus") == cpus
    })
}

fn case_and_direction(row: &Row) -> String {
    match row.at("direction") {
        "up" => row.case.clone(),
        other => format!("{}, {other}", row.case),
    }
}

/// What docs/performance.md shows.
pub(super) fn tables(rows: &[Row]) -> Vec<Table> {
    let variant = |row: &Row| row.variant.clone();
    let mut tables = Vec::new();
    for (endpoints, cpus, title) in [
        ("250", "1", "250 endpoints"),
        ("10,000", "1", "10,000 endpoints"),
        ("250", "2", "250 endpoints, two CPUs at once"),
        ("10,000", "2", "10,000 endpoints, two CPUs at once"),
    ] {
        let chosen: Vec<_> = over(rows, Rules::Nothing, endpoints, cpus)
            .filter(|row| row.at("direction") == "up")
            .collect();
        // A quick run has none of two CPUs, nor has a machine of one.
        if !chosen.is_empty() {
            tables.push(Table::pivot(
                &format!("Added to forwarding, {title}"),
                "ns a packet over no rules",
                chosen,
                |row| row.case.clone(),
                variant,
            ));
        }
    }
    let ours = |row: &&Row| [Rules::Tc.name(), Rules::Xdp.name()].contains(&row.variant.as_str());
    tables.push(Table::pivot(
        "wificall by endpoints and direction",
        "ns a packet over one empty TCX hook",
        rows.iter()
            .filter(|row| row.at(OVER) == Rules::EmptyHook.name() && row.at("cpus") == "1")
            .filter(ours),
        case_and_direction,
        |row| format!("{} endpoints, {}", row.at("endpoints"), row.variant),
    ));
    let itself: Vec<_> = rows
        .iter()
        .filter(|row| row.variant == Rules::Nothing.name())
        .collect();
    // Nor of no rules.
    if !itself.is_empty() {
        tables.push(Table::pivot(
            "Forwarding itself, no rules",
            "ns a packet",
            itself,
            case_and_direction,
            |row| format!("{} endpoints, {} CPU", row.at("endpoints"), row.at("cpus")),
        ));
    }
    tables
}

/// What is drawn.
pub(super) fn charts(rows: &[Row]) -> Vec<Chart> {
    let of = |kind| {
        let traffic = Traffic {
            direction: Direction::Up,
            kind,
            family: Family::V4,
        };
        let name = traffic.name();
        ["250", "10,000"]
            .into_iter()
            .flat_map(|endpoints| over(rows, Rules::Nothing, endpoints, "1"))
            .filter(move |row| row.at("direction") == "up" && row.case == name)
    };
    let label = |row: &Row| format!("{}, {} endpoints", row.variant, row.at("endpoints"));
    let ours = |row: &Row| {
        let who = if row.variant.starts_with("wificall") {
            "wificall"
        } else {
            "others"
        };
        who.to_owned()
    };
    let unit = "ns a packet over no rules";
    vec![
        Chart::of(
            [
                "forwarding-calls",
                "Added to a forwarded packet of Wi-Fi Calling",
                unit,
            ],
            of(Kind::Esp),
            label,
            ours,
        ),
        Chart::of(
            [
                "forwarding-others",
                "Added to a forwarded packet of TCP",
                unit,
            ],
            of(Kind::Tcp),
            label,
            ours,
        ),
    ]
}
