//! The layer `xdp`: what XDP buys and what it costs.
//!
//! It buys early drops: a packet that nobody wants is gone before the kernel has made anything of it (`drops`). It costs
//! whatever else uses the interface: offloads, the largest MTU, throughput and latency of what is passed (`links`).

mod drops;
mod links;

use anyhow::Result;

use super::{Layer, Scale, chart::Chart, report::Table, row::Row};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables,
    charts,
};
const NAME: &str = "xdp";
/// The setting by which the parts are told apart.
const PART: &str = "part";

/// Measures the layer.
///
/// # Errors
///
/// If a tool is missing, the kernel refuses something, or a packet is dropped or passed that should not be.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let mut rows = drops::measure(scale)?;
    rows.extend(links::measure(scale)?);
    Ok(rows)
}

fn of<'a>(rows: &'a [Row], part: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.at(PART) == part).collect()
}

fn tables(rows: &[Row]) -> Vec<Table> {
    let variant = |row: &Row| row.variant.clone();
    let case = |row: &Row| row.case.clone();
    [
        (
            drops::RATE,
            "Dropping UDP 500/4500 to others than ePDGs",
            "a packet, by one CPU",
        ),
        (drops::COST, "Over not being there", "ns a packet"),
        (
            links::FEATURES,
            "What a veth pair can do (1: on, 0: off)",
            "at the interface or its peer",
        ),
        (
            links::TRAFFIC,
            "Other traffic over that veth pair",
            "difference from no XDP",
        ),
        (links::PLAIN, "The same without XDP", "as it is"),
    ]
    .into_iter()
    .map(|(part, title, corner)| Table::pivot(title, corner, of(rows, part), case, variant))
    .collect()
}

fn charts(rows: &[Row]) -> Vec<Chart> {
    let rates = of(rows, drops::RATE)
        .into_iter()
        .filter(|row| row.unit == drops::RATE_UNIT);
    vec![Chart::of(
        [
            "xdp-drops",
            "Dropping UDP 500/4500 to others than ePDGs, one CPU",
            "million packets a second",
        ],
        rates,
        |row| row.variant.clone(),
        |row| row.unit.clone(),
    )]
}
