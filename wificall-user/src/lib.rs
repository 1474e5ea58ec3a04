//! The agent of wificall: finds ePDGs, keeps the kernel's tables, reports.
//!
//! ARCHITECTURE.md at the root of the repository has the map of the modules.

pub mod analysis;
pub mod capture;
pub mod catalogue;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod discover;
mod explain;
pub mod explanation;
pub mod export;
pub mod kernel;
pub mod net;
pub mod observe;
pub mod probe;
pub mod steer;
pub mod telemetry;
pub mod top;
pub mod trace;
