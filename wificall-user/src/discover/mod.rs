//! From operators' names to addresses.
//!
//! ```text
//! configuration ── target ──▶ names ── schedule, run ──▶ resolver ──▶ Update
//!                               ▲                                      │ filter
//!   names to confirm ── seen ◀──┴───────────── memory (addresses) ◀────┤
//!                                                │                     │
//!                       store (state on disk) ◀──┘      Sighting ──────┘ of clients' answers
//! ```
//!
//! A [`Refresher`] asks and reports; it decides nothing about addresses. Whoever holds the
//! [`Memory`] applies the [`Update`]s, each through a [`Filter`]. What decides (`schedule`,
//! `filter`, `memory`) does no I/O and takes the time as an argument.
//!
//! Invariants: an answer never takes an address away, a failed or empty one changes no address at
//! all, and everything that grows with what DNS says is bounded.

mod answer;
mod asked;
mod companions;
mod connection;
pub mod country;
pub mod filter;
pub mod geoip;
mod health;
pub mod memory;
pub mod nat64;
mod observed;
mod pace;
pub mod resolver;
pub mod run;
pub mod schedule;
mod seen;
mod server;
pub mod snoop;
mod socket;
pub mod stats;
pub mod store;
mod system;
pub mod target;
#[cfg(test)]
mod test_server;
mod tls;
pub mod trust;
mod upstream;
pub mod visited;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use answer::Lie;
pub use companions::Companions;
pub use filter::{Filter, Reason};
pub use memory::{Applied, Bounds, Known, Memory, Sighting};
pub use resolver::{Answer, Resolver, ResolverError, RouteIndex};
pub use run::{Command, Found, Names, Refresher};
pub use schedule::{Kind, Rank};
pub use stats::Stats;
pub use target::{Owner, Selection, Target, Targets, targets};
pub use trust::{Action, Observed, Source, Tier};
pub use upstream::{Route, Transport, Upstream, UpstreamError};
pub use visited::Visited;

/// How to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The servers, in order of preference.
    pub upstreams: Vec<Upstream>,
    /// The fwmark of what is sent to them (`SO_MARK`): carriers answer by where one asks from.
    pub mark: Option<u32>,
    /// Other servers for some names: the first route that is for an owner of a name takes it.
    pub routes: Vec<Route>,
    /// A PEM file of the authorities that sign the certificates of encrypted resolvers; those of
    /// the system if there is none.
    pub ca_file: Option<PathBuf>,
    /// How long one query waits for its answer.
    pub timeout: Duration,
    /// A name is asked again no sooner than this after an answer, whatever the TTL.
    pub refresh_min: Duration,
    /// A name is asked again no later than this after an answer, whatever the TTL.
    pub refresh_max: Duration,
    /// A name that does not exist is asked again no later than this.
    pub absent_max: Duration,
    /// Queries a second, all together: retries, truncated answers asked again over TCP and CNAMEs
    /// followed count. At least 1.
    pub queries_per_second: u32,
    /// Names looked up at the same time. At least 1.
    pub concurrency: usize,
}

/// Which addresses are asked for: a name has two questions, each with its own schedule.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, the A record.
    V4,
    /// IPv6, the AAAA record.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses.
    Addresses {
        /// In the order of the answer, each once, unfiltered.
        addresses: Vec<IpAddr>,
        /// The shortest TTL of the records that lead to them.
        ttl: Duration,
    },
    /// The name exists and has no address of this family.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// No usable answer.
    Failed(Failure),
}

impl Outcome {
    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Addresses { .. } => "addresses",
            Self::NoData => "no_data",
            Self::NxDomain => "nx_domain",
            Self::Failed(failure) => failure.kind.as_str(),
        }
    }
}

/// Why there was no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// The server that was asked and what it said, for people.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Kinds of failure that call for different remedies.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// Nobody answered in time.
    Timeout,
    /// SERVFAIL: the server could not find out.
    ServFail,
    /// REFUSED: the server does not serve us.
    Refused,
    /// No server could be reached at all.
    Unreachable,
    /// A server could be reached, and could not be trusted: its certificate, or the handshake.
    Tls,
    /// An answer that cannot be true: CNAMEs in a circle, a record of another class.
    Bogus,
    /// Anything else: another response code, a message that does not parse.
    Other,
}

impl FailureKind {
    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Bogus => "bogus",
            Self::Other => "other",
        }
    }

    /// Whether the server gave no answer at all.
    #[must_use]
    pub const fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable | Self::Tls)
    }
}

/// What came of one question, reported to the holder of the [`Memory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The name, as the [`Target`] has it.
    pub name: Arc<str>,
    /// Which addresses were asked for.
    pub family: Family,
    /// What came of it.
    pub outcome: Outcome,
    /// When.
    pub at: SystemTime,
}
