//! Control: desired − actual = plan; apply.
//!
//! `desired` and `plan` decide and are pure; `agent` holds the state and acts; `run` waits for what happens next.

mod agent;
mod attach;
mod compile;
mod country;
mod desired;
mod event_log;
mod exits;
mod explain;
mod explain_act;
mod explain_aside;
mod explain_endpoint;
mod explain_hooks;
mod explain_live;
mod explain_why;
mod hooks;
mod label;
pub mod lock;
mod other;
mod plan;
mod policy;
mod policy_match;
mod probes;
mod reload;
mod report;
mod request;
mod run;
mod set;
mod snoop;
pub mod socket;
mod steer;
mod surroundings;
pub(crate) mod tables;
mod telemetry;
mod trace;
mod tunnels;
mod ways;
mod world;

use crate::config::Errors;

pub(crate) use agent::discovery;
pub(crate) use country::Geo;
pub(crate) use desired::known as endpoints;
pub(crate) use exits::{check as check_exits, remove as remove_exits};
pub use explain::explain_offline;
pub use label::Label;
pub use report::{demoted, group};
pub use request::{Refused, Request, Requests};
pub use run::run;
pub use set::offline_endpoints;
pub use trace::{Following, Told};

/// Why the agent did not run, or ended.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong; nothing was touched.
    Configuration(Errors),
    /// Something else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}
