//! Counters of the refresh loop, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{FailureKind, Family, Outcome, Transport};

/// What came of a question, as metrics tell it apart.
const RESULTS: [&str; 8] = [
    "addresses",
    "no_data",
    "nx_domain",
    FailureKind::Timeout.as_str(),
    FailureKind::ServFail.as_str(),
    FailureKind::Refused.as_str(),
    FailureKind::Unreachable.as_str(),
    FailureKind::Other.as_str(),
];

/// Counters since the start. They only grow, but for `in_flight` and `names`.
#[derive(Debug, Default)]
pub struct Stats {
    questions: [[AtomicU64; RESULTS.len()]; 2],
    queries: [AtomicU64; 2],
    foreign: AtomicU64,
    in_flight: AtomicU64,
    names: AtomicU64,
}

impl Stats {
    /// Questions answered (or not), by family and result.
    pub fn questions(&self) -> impl Iterator<Item = (Family, &'static str, u64)> {
        Family::ALL.into_iter().flat_map(|family| {
            let counts = self.questions[family as usize].iter();
            RESULTS
                .into_iter()
                .zip(counts)
                .map(move |(result, count)| (family, result, count.load(Relaxed)))
        })
    }

    /// Queries sent on the wire by this transport. One question takes several where a server does
    /// not answer, truncates or leaves a CNAME to be followed.
    #[must_use]
    pub fn queries(&self, transport: Transport) -> u64 {
        self.queries[transport as usize].load(Relaxed)
    }

    /// Addresses ignored because they were given for a name that was not asked for.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Relaxed)
    }

    /// Questions being asked now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Names on the schedule.
    #[must_use]
    pub fn names(&self) -> u64 {
        self.names.load(Relaxed)
    }

    pub(super) fn add_question(&self, family: Family, outcome: &Outcome) {
        let result = RESULTS.iter().position(|r| *r == outcome.as_str());
        if let Some(result) = result {
            self.questions[family as usize][result].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn add_query(&self, transport: Transport) {
        self.queries[transport as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn add_foreign(&self, addresses: usize) {
        self.foreign.fetch_add(addresses as u64, Relaxed);
    }

    pub(super) fn set_in_flight(&self, questions: usize) {
        self.in_flight.store(questions as u64, Relaxed);
    }

    pub(super) fn set_names(&self, names: usize) {
        self.names.store(names as u64, Relaxed);
    }
}
