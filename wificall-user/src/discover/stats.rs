//! Counters of the refresh loop, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::resolver::Answer;
use super::{FailureKind, Family, Kind, Lie, Transport};

/// What came of a question, as metrics tell it apart.
const RESULTS: [&str; 11] = [
    "addresses",
    "names",
    "no_data",
    "nx_domain",
    FailureKind::Timeout.as_str(),
    FailureKind::ServFail.as_str(),
    FailureKind::Refused.as_str(),
    FailureKind::Unreachable.as_str(),
    FailureKind::Tls.as_str(),
    FailureKind::Bogus.as_str(),
    FailureKind::Other.as_str(),
];

/// Counters since the start. They only grow, but for those of the present moment.
#[derive(Debug, Default)]
pub struct Stats {
    questions: [[AtomicU64; RESULTS.len()]; Kind::ALL.len()],
    queries: [AtomicU64; Transport::ALL.len()],
    connections: [AtomicU64; Transport::ALL.len()],
    lies: [AtomicU64; Lie::ALL.len()],
    recoveries: AtomicU64,
    in_flight: AtomicU64,
    names: AtomicU64,
    unasked: AtomicU64,
    backlog: AtomicU64,
    servers: Mutex<Vec<(String, bool)>>,
}

impl Stats {
    /// Questions answered (or not), by kind and result.
    pub fn questions(&self) -> impl Iterator<Item = (Kind, &'static str, u64)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let counts = self.questions[kind_index(kind)].iter();
            RESULTS
                .into_iter()
                .zip(counts)
                .map(move |(result, count)| (kind, result, count.load(Relaxed)))
        })
    }

    /// Queries sent on the wire by this transport. One question takes several where a server does
    /// not answer, truncates or leaves a CNAME to be followed.
    #[must_use]
    pub fn queries(&self, transport: Transport) -> u64 {
        self.queries[transport as usize].load(Relaxed)
    }

    /// Connections made, or tried to make; none for UDP.
    #[must_use]
    pub fn connections(&self, transport: Transport) -> u64 {
        self.connections[transport as usize].load(Relaxed)
    }

    /// Answers, and parts of answers, that were not believed.
    #[must_use]
    pub fn lies(&self, lie: Lie) -> u64 {
        self.lies[lie as usize].load(Relaxed)
    }

    /// Times that a server answered again that had been silent.
    #[must_use]
    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Relaxed)
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

    /// Names that have not been asked for yet.
    #[must_use]
    pub fn unasked(&self) -> u64 {
        self.unasked.load(Relaxed)
    }

    /// Questions that are due and wait for their turn.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Relaxed)
    }

    /// The servers, and whether each answers.
    #[must_use]
    pub fn servers(&self) -> Vec<(String, bool)> {
        self.servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn add_question(&self, kind: Kind, answer: &Answer) {
        let result = RESULTS.iter().position(|r| *r == answer.result());
        if let Some(result) = result {
            self.questions[kind_index(kind)][result].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn add_query(&self, transport: Transport) {
        self.queries[transport as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn add_connection(&self, transport: Transport) {
        self.connections[transport as usize].fetch_add(1, Relaxed);
    }

    /// Returns how many there were before.
    pub(super) fn add_lie(&self, lie: Lie, count: usize) -> u64 {
        self.lies[lie as usize].fetch_add(count as u64, Relaxed)
    }

    pub(super) fn add_recovery(&self) {
        self.recoveries.fetch_add(1, Relaxed);
    }

    pub(super) fn set_in_flight(&self, questions: usize) {
        self.in_flight.store(questions as u64, Relaxed);
    }

    pub(super) fn set_names(&self, names: usize) {
        self.names.store(names as u64, Relaxed);
    }

    pub(super) fn set_unasked(&self, names: usize) {
        self.unasked.store(names as u64, Relaxed);
    }

    pub(super) fn set_backlog(&self, questions: usize) {
        self.backlog.store(questions as u64, Relaxed);
    }

    pub(super) fn set_servers(&self, servers: Vec<(String, bool)>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    }
}

fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Addresses(Family::V4) => 0,
        Kind::Addresses(Family::V6) => 1,
        Kind::Naptr => 2,
    }
}
