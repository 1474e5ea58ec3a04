//! Measurements: what is compared, how often, and what comes out.
//!
//! A layer ([`Layer`]) measures and returns rows; all that is done with rows, from budgets to charts, is the same for
//! every layer. To add one: a module with a function that returns rows, and a line in [`LAYERS`].

pub mod budget;
pub mod chart;
pub mod forwarding;
mod patience;
pub mod policies;
pub mod program;
pub mod record;
pub mod report;
mod row;
pub mod system;
pub mod telemetry;
mod turns;
pub mod xdp;

use anyhow::Result;

use self::{chart::Chart, report::Table};
pub use self::{
    row::{Comparison, Row, Setting, Spread, setting},
    turns::{Effort, Turns, turns},
};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Everything, for figures to publish.
    Full,
    /// What the budgets are about, in seconds: for every change.
    Quick,
}

/// A part of the measurements.
pub struct Layer {
    /// What `--layer` and the files call it.
    pub name: &'static str,
    /// Measures.
    pub measure: fn(Scale) -> Result<Vec<Row>>,
    /// What docs/performance.md shows of it; the JSON has every row.
    pub tables: fn(&[Row]) -> Vec<Table>,
    /// Its charts.
    pub charts: fn(&[Row]) -> Vec<Chart>,
}

/// Every layer, in the order in which they run.
pub const LAYERS: [Layer; 6] = [
    program::LAYER,
    policies::LAYER,
    forwarding::LAYER,
    xdp::LAYER,
    system::LAYER,
    telemetry::LAYER,
];
