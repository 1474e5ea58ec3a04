//! Observation: what the agent reports, and how it is shown. Nothing here writes a map.

pub mod classic;
mod connections;
mod countries;
pub mod http;
mod list;
pub mod metrics;
pub mod offline;
mod page;
mod query;
mod report;
#[cfg(test)]
mod sample;
pub mod status;
mod surroundings;
pub mod textfile;
pub mod token;

pub use report::*;
pub use surroundings::*;
