//! What is known now, as others see it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Entry, Known, Memory, NameState};
use crate::discover::seen::SeenName;
use crate::discover::trust::{Source, Tier};
use crate::discover::{Filter, observed};

impl Memory {
    /// The addresses that `filter` lets through, in order, each with the tier of its best source:
    /// those of configured names, of names that our resolver confirmed, and observed ones. They
    /// passed a filter when they came, but the box's own networks change.
    pub fn known(&self, filter: &Filter) -> impl Iterator<Item = Known> {
        let resolved = self.addresses.iter().filter_map(move |(address, entry)| {
            filter.check(*address).ok()?;
            let mut known = self.resolved(*address, entry)?;
            if let Some(observed) = self.observed.addresses.get(address) {
                known.sources.extend(sources(observed));
                known.first_seen = known.first_seen.min(observed.first_seen);
            }
            Some(known)
        });
        let observed = self
            .observed
            .addresses
            .iter()
            .filter_map(move |(address, entry)| {
                filter.check(*address).ok()?;
                let better = self
                    .addresses
                    .get(address)
                    .and_then(|entry| self.tier(entry));
                if better.is_some() || entry.spent {
                    return None;
                }
                Some(self.observed(*address, entry))
            });
        resolved.chain(observed)
    }

    fn resolved(&self, address: IpAddr, entry: &Entry) -> Option<Known> {
        let tier = self.tier(entry)?;
        let mut owners = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut further = BTreeSet::new();
        let mut sources = BTreeMap::new();
        let mut last_answer = SystemTime::UNIX_EPOCH;
        for (name, at) in &entry.answers {
            let configured = self.names.get(name).filter(|state| state.configured());
            let (source, state) = match (configured, self.seen.names.get(name)) {
                (Some(state), _) => (Source::Resolver, state),
                (None, Some(SeenName { state, .. })) => (Source::Confirmed, state),
                (None, None) => continue,
            };
            let last = sources.entry(source).or_insert(*at);
            *last = (*last).max(*at);
            if source.tier() == tier {
                owners.extend(state.owners.iter().copied());
                names.insert(name.clone());
                last_answer = last_answer.max(*at);
            } else {
                further.insert(name.clone());
            }
        }
        Some(Known {
            address,
            tier,
            owners: Arc::new(owners),
            first_seen: entry.first_seen,
            last_answer,
            last_traffic: entry.last_traffic,
            names,
            further,
            sources,
        })
    }

    fn observed(&self, address: IpAddr, entry: &observed::Entry) -> Known {
        let mut owners = BTreeSet::new();
        for name in entry.names.keys() {
            let configured = self.names.get(name).filter(|state| state.configured());
            match configured.or(self.seen.names.get(name).map(|seen| &seen.state)) {
                Some(state) => owners.extend(state.owners.iter().copied()),
                None => owners.extend(self.owners_of_name(name).iter().flat_map(|o| o.iter())),
            }
        }
        Known {
            address,
            tier: Tier::Observed,
            owners: Arc::new(owners),
            first_seen: entry.first_seen,
            last_answer: entry.last_seen,
            last_traffic: entry.last_traffic,
            names: entry.names.keys().cloned().collect(),
            further: BTreeSet::new(),
            sources: sources(entry).collect(),
        }
    }

    /// The configured names and what became of them, in order.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &NameState)> {
        self.names.iter().filter(|(_, state)| state.configured())
    }

    /// The names that clients asked for, with what became of them, in order.
    pub fn seen_names(&self) -> impl Iterator<Item = (&Arc<str>, &NameState)> {
        self.seen
            .names
            .iter()
            .map(|(name, seen)| (name, &seen.state))
    }
}

/// The sources of an observed address.
fn sources(entry: &observed::Entry) -> impl Iterator<Item = (Source, SystemTime)> {
    let client = entry.names.values().max().map(|at| (Source::Client, *at));
    let ike = entry.ike.map(|at| (Source::Ike, at));
    let caught = entry.caught.map(|at| (Source::Caught, at));
    client.into_iter().chain(ike).chain(caught)
}
