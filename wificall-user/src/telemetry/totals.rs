//! What adds up over all tunnels, by owner.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{histogram::Histogram, leg::Leg, setup::Outcome, view::Cause};

/// Bounds of set-ups' durations, in seconds.
pub const SETUP_BOUNDS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0];
/// Bounds of round trips, in seconds.
pub const ROUND_TRIP_BOUNDS: [f64; 9] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];
/// Bounds of jitter, in seconds.
pub const JITTER_BOUNDS: [f64; 8] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1];

/// Whose an endpoint is, as the counters of its group are labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Whose {
    /// Operators, such as `262-01` or `505-01+505-71`, or `none`, `observed`, `other`.
    pub operator: String,
    /// Countries, such as `DE`, or `none`.
    pub country: String,
}

/// Sums since the agent started.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// From clients and from the network to this box.
    pub legs: [Leg; 2],
    /// Calls that began.
    pub calls: u64,
    /// How long calls lasted that ended, in nanoseconds.
    pub call_ns: u64,
    /// Calls that were one-way for a while.
    pub one_way: u64,
    /// Set-ups by result.
    pub setups: BTreeMap<Outcome, u64>,
    /// From the first question to ESP both ways, in seconds.
    pub setup_seconds: Histogram,
    /// Seconds of calls by jitter, in seconds, by direction.
    pub jitter: [Histogram; 2],
    /// Round trips of the network's side and the clients', in seconds.
    pub round_trip: [Histogram; 2],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            legs: Default::default(),
            calls: 0,
            call_ns: 0,
            one_way: 0,
            setups: BTreeMap::new(),
            setup_seconds: Histogram::new(&SETUP_BOUNDS),
            jitter: [(); 2].map(|()| Histogram::new(&JITTER_BOUNDS)),
            round_trip: [(); 2].map(|()| Histogram::new(&ROUND_TRIP_BOUNDS)),
        }
    }
}

impl Totals {
    /// Adds those of another owner.
    pub fn merge(&mut self, other: &Self) {
        for (leg, more) in self.legs.iter_mut().zip(&other.legs) {
            leg.add(more);
        }
        self.calls += other.calls;
        self.call_ns += other.call_ns;
        self.one_way += other.one_way;
        for (outcome, count) in &other.setups {
            *self.setups.entry(*outcome).or_default() += count;
        }
        self.setup_seconds.merge(&other.setup_seconds);
        for (way, more) in self.jitter.iter_mut().zip(&other.jitter) {
            way.merge(more);
        }
        for (side, more) in self.round_trip.iter_mut().zip(&other.round_trip) {
            side.merge(more);
        }
    }
}

/// How long a client's results count, in nanoseconds.
const COUNTS: u64 = 3_600_000_000_000;

/// Which clients succeeded and which did not, lately: one phone that tries all day is one.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    results: BTreeMap<[u8; 16], Results>,
}

#[derive(Clone, Debug, Default)]
struct Results {
    ok: Option<u64>,
    failed: Option<(u64, Cause)>,
    whose: Arc<Whose>,
}

impl Clients {
    /// Notes how a client's set-up ended. Of new clients above `limit` nothing is noted.
    pub fn note(
        &mut self,
        client: [u8; 16],
        whose: &Arc<Whose>,
        outcome: Outcome,
        now: u64,
        limit: usize,
    ) {
        if self.results.len() >= limit && !self.results.contains_key(&client) {
            self.results.retain(|_, results| {
                let failed = results.failed.map(|(at, _)| at);
                let last = results.ok.max(failed).unwrap_or_default();
                now.saturating_sub(last) < COUNTS
            });
            if self.results.len() >= limit {
                return;
            }
        }
        let results = self.results.entry(client).or_default();
        results.whose = whose.clone();
        match outcome {
            Outcome::Ok => {
                results.ok = Some(now);
                results.failed = None;
            }
            Outcome::Failed(cause) => results.failed = Some((now, cause)),
            Outcome::Detour => {}
        }
    }

    /// How many clients there are by owner and result in the last hour: each under its last one.
    #[must_use]
    pub fn count(&self, now: u64) -> BTreeMap<(&Whose, Outcome), u64> {
        let lately = |at: u64| now.saturating_sub(at) < COUNTS;
        // By where they are first: clients are many, and owners shared by them.
        let mut counts: HashMap<_, (&Whose, u64)> = HashMap::new();
        for results in self.results.values() {
            let outcome = match (results.failed, results.ok) {
                (Some((at, cause)), _) if lately(at) => Outcome::Failed(cause),
                (_, Some(at)) if lately(at) => Outcome::Ok,
                _ => continue,
            };
            let at = (Arc::as_ptr(&results.whose), outcome);
            counts.entry(at).or_insert((&results.whose, 0)).1 += 1;
        }
        let mut sums = BTreeMap::new();
        for ((_, outcome), (whose, count)) in counts {
            *sums.entry((whose, outcome)).or_default() += count;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_once_under_its_last_result() {
        let mut clients = Clients::default();
        let whose = Arc::new(Whose::default());
        let failed = Outcome::Failed(Cause::NoAnswer);
        for _ in 0..9 {
            clients.note([1; 16], &whose, failed, 10, 2);
        }
        clients.note([2; 16], &whose, failed, 10, 2);
        clients.note([2; 16], &whose, Outcome::Ok, 11, 2);
        // No room.
        clients.note([3; 16], &whose, Outcome::Ok, 12, 2);
        let of = |outcome| (&*whose, outcome);
        let expected = BTreeMap::from([(of(failed), 1), (of(Outcome::Ok), 1)]);
        assert_eq!(clients.count(20), expected);
        assert!(clients.count(20 + COUNTS).is_empty());
        // Room again, an hour later.
        clients.note([3; 16], &whose, Outcome::Ok, 20 + COUNTS, 2);
        assert_eq!(clients.count(20 + COUNTS).len(), 1);
    }
}
