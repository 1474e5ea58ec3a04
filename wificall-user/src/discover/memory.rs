//! The addresses that are known, for as long as they may be in use.
//!
//! Carriers rotate their answers within seconds while tunnels live for a day, so an answer of our
//! own resolver adds and refreshes but never removes. Such an address goes when all of this holds:
//!
//! - no answer named it for `keep`,
//! - no traffic was seen at it for `keep`,
//! - its name was answered with addresses after that `keep` had passed, so that DNS has shown
//!   what there is instead. While DNS is down or denies the name, the last known good stays.
//!
//! What only clients were told is another matter, by DESIGN's tiers ([`trust`](super::trust)):
//!
//! - An address in a client's answer, or one that answered a client's IKE_SA_INIT, is *observed*.
//!   It stays for minutes, longer while it answers, and no longer than a few hours.
//! - The name is given to our own resolver ([`to_confirm`](Memory::to_confirm)). What our resolver
//!   says is *corroborated*, and kept as anything our resolver says. What the client was told is
//!   not, by itself: whoever forges answers on the way to the phone can put any address under a
//!   real name, and a real name's being confirmed would launder it. An observed address is
//!   corroborated only by being in our resolver's answers, or in the block around one, as far as
//!   those are widened.
//!
//! The tiers have room of their own each: none can push out what is trusted more.

mod aging;
mod intake;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wificall_common::wire::nat64::Pref64;

use super::asked::Errors;
use super::companions::Companions;
use super::nat64;
use super::observed;
use super::seen::Seen;
use super::trust::{Observed, Source, Tier};
use super::{Owner, Reason, Target, Update};
use crate::catalogue::{Catalogue, catalogue};

pub use super::asked::{Asked, NameState};

/// How much is remembered.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Addresses of one name.
    pub per_name: usize,
    /// Addresses of configured names in all.
    pub total: usize,
    /// Addresses in all of names that only clients asked for.
    pub corroborated: usize,
}

impl Default for Bounds {
    /// Far above what is known of the real world, about 800 addresses in all, and small in memory.
    fn default() -> Self {
        Self {
            per_name: 512,
            total: 16_384,
            corroborated: 4_096,
        }
    }
}

/// A remembered address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The address.
    pub address: IpAddr,
    /// How far it is trusted: as its best source is.
    pub tier: Tier,
    /// Whose it is: the owners of all its names of that tier.
    pub owners: Arc<BTreeSet<Owner>>,
    /// When it was named or observed first.
    pub first_seen: SystemTime,
    /// When it was named or observed last.
    pub last_answer: SystemTime,
    /// When traffic was seen at it last, as far as that was reported.
    pub last_traffic: Option<SystemTime>,
    /// Its names, of that tier.
    pub names: BTreeSet<Arc<str>>,
    /// Names below that tier that our own resolver gave it too.
    pub further: BTreeSet<Arc<str>>,
    /// All its sources, each with the time it named the address last.
    pub sources: BTreeMap<Source, SystemTime>,
}

/// An answer that a client got, already checked to be one: for a query that this client sent, from
/// where answers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The name that the client asked for, in lower case and without a final dot.
    pub name: Arc<str>,
    /// The addresses that it was told, unfiltered.
    pub addresses: Vec<IpAddr>,
    /// The client.
    pub client: IpAddr,
    /// When.
    pub at: SystemTime,
}

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Addresses that were not known before.
    pub added: Vec<IpAddr>,
    /// Addresses that the filter refused.
    pub refused: Vec<(IpAddr, Reason)>,
    /// How many new addresses found no room. They are not remembered: what is in use, or was named
    /// by the same answer, does not yield.
    pub overflow: usize,
    /// Observed addresses that have had their longest time and rest.
    pub spent: usize,
    /// Whether [`Memory::to_confirm`] has changed.
    pub to_confirm: bool,
    /// Of an observation: whether it counts. False for a name that nothing says to be an ePDG's.
    pub counts: bool,
}

/// An address, with the time of the last answer of each name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first_seen: SystemTime,
    pub(super) last_traffic: Option<SystemTime>,
    pub(super) answers: BTreeMap<Arc<str>, SystemTime>,
}

/// The memory. It is pure: the time is an argument, and [`store`](super::store) keeps it on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    keep: Duration,
    bounds: Bounds,
    /// The catalogue in force, which says whose a name is that nobody configured; `None` is the compiled-in one.
    catalogue: Option<Arc<Catalogue>>,
    /// How the observed tier is treated.
    rules: Observed,
    pub(super) names: BTreeMap<Arc<str>, NameState>,
    pub(super) addresses: BTreeMap<IpAddr, Entry>,
    pub(super) seen: Seen,
    pub(super) observed: observed::Pool,
    errors: Errors,
    pub(super) nat64: nat64::Found,
    pub(super) companions: Companions,
    pref64: Vec<Pref64>,
    overflow: u64,
    displaced: u64,
}

impl Memory {
    /// An empty memory. An address stays for `keep` after its last answer and its last traffic.
    #[must_use]
    pub fn new(keep: Duration, bounds: Bounds) -> Self {
        Self {
            keep,
            bounds,
            catalogue: None,
            rules: Observed::default(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            seen: Seen::default(),
            observed: observed::Pool::default(),
            errors: Errors::default(),
            nat64: nat64::Found::default(),
            companions: Companions::default(),
            pref64: Vec::new(),
            overflow: 0,
            displaced: 0,
        }
    }

    /// Changes how long addresses stay.
    pub fn set_keep(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// Changes the catalogue, which says whose a name is that nobody configured.
    pub fn set_catalogue(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = Some(catalogue);
        let mut seen = std::mem::take(&mut self.seen.names);
        seen.retain(|name, seen| match self.owners_of_name(name) {
            Some(owners) => {
                seen.state.owners = owners;
                true
            }
            None => false,
        });
        self.seen.names = seen;
    }

    /// Whose a name is that nobody configured; `None` if nothing says that it is an ePDG's.
    pub(super) fn owners_of_name(&self, name: &str) -> Option<Arc<BTreeSet<Owner>>> {
        let catalogue = self.catalogue.as_deref().unwrap_or_else(|| catalogue());
        let (_, owners) = catalogue.owner_of_name(name)?;
        Some(Arc::new(owners))
    }

    /// Changes how the observed tier is treated, and how fast our resolver is asked about names
    /// that clients asked for: at no more than a quarter of its rate.
    pub fn set_observed(&mut self, rules: Observed, queries_per_second: u32) {
        self.rules = rules;
        self.seen.set_rate(queries_per_second);
    }

    /// Says which names are configured, and whose they are. Addresses of other names are no
    /// longer [`known`](Self::known), but stay for as long as they would have: a name that comes
    /// back finds them.
    pub fn set_targets(&mut self, targets: &[Target]) {
        let none = Arc::<BTreeSet<Owner>>::default();
        let mut old = std::mem::take(&mut self.names);
        for state in old.values_mut() {
            state.owners = none.clone();
        }
        // Made at once from what is sorted, the tree is packed full.
        let named = targets.iter().map(|target| {
            // A name that a client asked for is now configured: what was found of it stays.
            let state = old.remove(&target.name);
            let state = state.or(self.seen.names.remove(&target.name).map(|seen| seen.state));
            let mut state = state.unwrap_or_default();
            state.owners = target.owners.clone();
            (target.name.clone(), state)
        });
        let mut names: Vec<_> = named.collect();
        names.extend(old);
        self.names = names.into_iter().collect();
    }

    /// The NAT64 prefixes that DNS has named.
    pub fn nat64(&self) -> &nat64::Found {
        &self.nat64
    }

    /// Says which NAT64 prefixes are in force.
    pub fn set_pref64(&mut self, prefixes: Vec<Pref64>) {
        self.pref64 = prefixes;
    }

    /// Companion names.
    #[must_use]
    pub fn companions(&self) -> &Companions {
        &self.companions
    }

    /// Companion names, to select them or to take in an answer.
    pub fn companions_mut(&mut self) -> &mut Companions {
        &mut self.companions
    }

    /// Takes in what came of the question for [`nat64::NAME`]. Returns whether they changed.
    pub fn apply_nat64(&mut self, update: &Update) -> bool {
        self.nat64.apply(update)
    }

    /// Lets names that clients asked for through to our resolver, as far as its rate allows.
    /// Returns whether [`to_confirm`](Self::to_confirm) has changed. To be called every so often:
    /// what came while there was no room waits for it.
    pub fn admit(&mut self, now: SystemTime) -> bool {
        self.seen.admit(now)
    }

    /// The names that clients asked for and our own resolver is to be asked about, in order.
    #[must_use]
    pub fn to_confirm(&self) -> Vec<Target> {
        self.seen.targets().collect()
    }

    /// The tier of an address that our resolver named; `None` if it has no name left that counts.
    fn tier(&self, entry: &Entry) -> Option<Tier> {
        if self.is_authoritative(entry) {
            return Some(Tier::Authoritative);
        }
        let seen = |name| self.seen.names.contains_key(name);
        entry.answers.keys().any(seen).then_some(Tier::Corroborated)
    }

    fn is_authoritative(&self, entry: &Entry) -> bool {
        let configured = |name| self.names.get(name).is_some_and(NameState::configured);
        entry.answers.keys().any(configured)
    }

    /// How many addresses there are that configured names have, or that have other names only.
    fn count(&self, configured: bool) -> usize {
        let entries = self.addresses.values();
        entries
            .filter(|e| self.is_authoritative(e) == configured)
            .count()
    }

    /// How many addresses a name has.
    #[must_use]
    pub fn count_of(&self, name: &str) -> usize {
        let entries = self.addresses.values();
        entries.filter(|e| e.answers.contains_key(name)).count()
    }

    /// Names and addresses that made room for others, and names that found none, since the start.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced + self.seen.dropped + self.observed.dropped
    }

    /// How many addresses our resolver named that are remembered, those of names no longer
    /// configured included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether none is.
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

#[cfg(test)]
#[path = "observed_tests.rs"]
mod observed_tests;
