//! The addresses that DNS has ever named, for as long as they may be in use.
//!
//! Carriers rotate their answers within seconds while tunnels live for a day, so an answer adds
//! and refreshes but never removes. An address goes when all of this holds:
//!
//! - no answer named it for `keep`,
//! - no traffic was seen at it for `keep`,
//! - its name was answered with addresses after that `keep` had passed, so that DNS has shown
//!   what there is instead. While DNS is down or denies the name, the last known good stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::{Family, Filter, Outcome, Owner, Reason, Target, Update};

/// How much is remembered.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Addresses of one name.
    pub per_name: usize,
    /// Addresses in all.
    pub total: usize,
}

impl Default for Bounds {
    /// Far above what is known of the real world, about 800 addresses in all, and small in memory.
    fn default() -> Self {
        Self {
            per_name: 512,
            total: 16_384,
        }
    }
}

/// A remembered address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The address.
    pub address: IpAddr,
    /// Whose it is: the owners of all its names.
    pub owners: BTreeSet<Owner>,
    /// When an answer named it first.
    pub first_seen: SystemTime,
    /// When an answer named it last.
    pub last_answer: SystemTime,
    /// When traffic was seen at it last, as far as that was reported.
    pub last_traffic: Option<SystemTime>,
    /// The configured names whose answers named it.
    pub names: BTreeSet<Arc<str>>,
}

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Addresses that were not known before.
    pub added: Vec<IpAddr>,
    /// Addresses that the filter refused.
    pub refused: Vec<(IpAddr, Reason)>,
    /// How many new addresses found no room. They are not remembered: what is known may be in
    /// use, and so does not yield to an answer that is too large to be true.
    pub overflow: usize,
}

/// What became of the questions for one family of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When an answer, or none, came last.
    pub last_attempt: Option<SystemTime>,
    /// When an answer with addresses came last.
    pub last_success: Option<SystemTime>,
    /// What the last attempt brought: [`Outcome::as_str`].
    pub result: Option<&'static str>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// TTL of the last answer with addresses.
    pub ttl: Option<Duration>,
    /// Failed attempts since the last answer of any kind.
    pub failures: u32,
    /// Addresses of the last answer that the filter refused.
    pub refused: usize,
}

/// A name that is looked up, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameState {
    /// Whose it is; empty for a name no longer configured.
    pub owners: BTreeSet<Owner>,
    asked: [Asked; 2],
}

impl NameState {
    /// The questions for one family.
    #[must_use]
    pub fn asked(&self, family: Family) -> &Asked {
        &self.asked[family as usize]
    }

    pub(super) fn asked_mut(&mut self, family: Family) -> &mut Asked {
        &mut self.asked[family as usize]
    }

    /// When an answer with addresses came last, of either family.
    #[must_use]
    pub fn last_success(&self) -> Option<SystemTime> {
        self.asked.iter().filter_map(|a| a.last_success).max()
    }

    fn configured(&self) -> bool {
        !self.owners.is_empty()
    }
}

/// An address, with the time of the last answer of each name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first_seen: SystemTime,
    pub(super) last_traffic: Option<SystemTime>,
    pub(super) answers: BTreeMap<Arc<str>, SystemTime>,
}

/// The memory. It is pure: the time is an argument, and [`store`](super::store) keeps it on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    keep: Duration,
    bounds: Bounds,
    pub(super) names: BTreeMap<Arc<str>, NameState>,
    pub(super) addresses: BTreeMap<IpAddr, Entry>,
    overflow: u64,
}

impl Memory {
    /// An empty memory. An address stays for `keep` after its last answer and its last traffic.
    #[must_use]
    pub fn new(keep: Duration, bounds: Bounds) -> Self {
        Self {
            keep,
            bounds,
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            overflow: 0,
        }
    }

    /// Changes how long addresses stay.
    pub fn set_keep(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// Says which names are configured, and whose they are. Addresses of other names are no
    /// longer [`known`](Self::known), but stay for as long as they would have: a name that comes
    /// back finds them.
    pub fn set_targets(&mut self, targets: &[Target]) {
        for state in self.names.values_mut() {
            state.owners.clear();
        }
        for target in targets {
            let state = self.names.entry(target.name.clone()).or_default();
            state.owners.clone_from(&target.owners);
        }
    }

    /// Takes in what came of a question. A name that is not configured (any more) changes
    /// nothing.
    pub fn apply(&mut self, update: &Update, filter: &Filter) -> Applied {
        let mut applied = Applied::default();
        let Some(state) = self.names.get_mut(&update.name) else {
            return applied;
        };
        if !state.configured() {
            return applied;
        }
        let asked = state.asked_mut(update.family);
        asked.last_attempt = Some(update.at);
        asked.result = Some(update.outcome.as_str());
        asked.error = None;
        match &update.outcome {
            Outcome::Addresses { addresses, ttl } => {
                asked.failures = 0;
                asked.last_success = Some(update.at);
                asked.ttl = Some(*ttl);
                for address in addresses {
                    match filter.check(*address) {
                        Ok(()) => self.remember(*address, update, &mut applied),
                        Err(reason) => applied.refused.push((*address, reason)),
                    }
                }
                if let Some(state) = self.names.get_mut(&update.name) {
                    state.asked_mut(update.family).refused = applied.refused.len();
                }
                self.overflow += applied.overflow as u64;
            }
            Outcome::NoData | Outcome::NxDomain => asked.failures = 0,
            Outcome::Failed(failure) => {
                asked.failures = asked.failures.saturating_add(1);
                asked.error = Some(failure.to_string());
            }
        }
        applied
    }

    fn remember(&mut self, address: IpAddr, update: &Update, applied: &mut Applied) {
        let known = self.addresses.get(&address);
        let of_name = known.is_some_and(|entry| entry.answers.contains_key(&update.name));
        if !of_name && self.count_of(&update.name) >= self.bounds.per_name
            || known.is_none() && self.addresses.len() >= self.bounds.total
        {
            applied.overflow += 1;
            return;
        }
        let entry = self.addresses.entry(address).or_insert_with(|| {
            applied.added.push(address);
            Entry {
                first_seen: update.at,
                last_traffic: None,
                answers: BTreeMap::new(),
            }
        });
        entry.answers.insert(update.name.clone(), update.at);
    }

    /// How many addresses a name has.
    #[must_use]
    pub fn count_of(&self, name: &str) -> usize {
        let entries = self.addresses.values();
        entries.filter(|e| e.answers.contains_key(name)).count()
    }

    /// Notes that packets of an endpoint in `prefix` were seen. Endpoints are widened to blocks,
    /// so all addresses of the block are taken to be in use. Returns how many are known in it.
    pub fn note_traffic(&mut self, prefix: IpNet, now: SystemTime) -> usize {
        let block = prefix.network()..=prefix.broadcast();
        let mut known = 0;
        for entry in self.addresses.range_mut(block).map(|(_, entry)| entry) {
            entry.last_traffic = entry.last_traffic.max(Some(now));
            known += 1;
        }
        known
    }

    /// Forgets what has had its time, and returns the addresses that went. The configured names
    /// must have been [set](Self::set_targets) before, for of others time alone decides.
    ///
    /// A time in the future (the clock was wrong once) counts as just now: too long is harmless.
    pub fn expire(&mut self, now: SystemTime) -> Vec<IpAddr> {
        let Self {
            keep,
            names,
            addresses,
            ..
        } = self;
        let over_at = |now: SystemTime, since: SystemTime| {
            since.checked_add(*keep).is_some_and(|end| now >= end)
        };
        let over = |since| over_at(now, since);
        let mut gone = Vec::new();
        addresses.retain(|address, entry| {
            if entry.last_traffic.is_some_and(|at| !over(at)) {
                return true;
            }
            let family = if address.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            entry.answers.retain(|name, last_answer| {
                let superseded = names
                    .get(name)
                    .filter(|state| state.configured())
                    .is_none_or(|state| {
                        let success = state.asked(family).last_success;
                        success.is_some_and(|at| at > *last_answer && over_at(at, *last_answer))
                    });
                !(over(*last_answer) && superseded)
            });
            let keep = !entry.answers.is_empty();
            if !keep {
                gone.push(*address);
            }
            keep
        });
        names.retain(|name, state| {
            state.configured() || addresses.values().any(|e| e.answers.contains_key(name))
        });
        gone
    }

    /// The addresses of the configured names that `filter` lets through, in order. They passed a
    /// filter when they were answered, but the box's own networks change.
    pub fn known(&self, filter: &Filter) -> impl Iterator<Item = Known> {
        self.addresses.iter().filter_map(|(address, entry)| {
            filter.check(*address).ok()?;
            let mut owners = BTreeSet::new();
            let mut names = BTreeSet::new();
            let mut last_answer = SystemTime::UNIX_EPOCH;
            for (name, at) in &entry.answers {
                let Some(state) = self.names.get(name).filter(|s| s.configured()) else {
                    continue;
                };
                owners.extend(&state.owners);
                names.insert(name.clone());
                last_answer = last_answer.max(*at);
            }
            (!names.is_empty()).then_some(Known {
                address: *address,
                owners,
                first_seen: entry.first_seen,
                last_answer,
                last_traffic: entry.last_traffic,
                names,
            })
        })
    }

    /// The configured names and what became of them, in order.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &NameState)> {
        self.names.iter().filter(|(_, state)| state.configured())
    }

    /// How many addresses are remembered, those of names no longer configured included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether no address is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// New addresses that found no room, since the start.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
