//! Observation: what the agent reports, and how it is shown. Nothing here writes a map.

mod report;

pub use report::*;
