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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use wificall_common::wire::nat64::Pref64;

use super::asked::Errors;
use super::companions::Companions;
use super::nat64;
use super::observed::{self, How, Noted};
use super::seen::{Seen, SeenName};
use super::trust::{Observed, Source, Tier};
use super::{Family, Filter, Outcome, Owner, Reason, Target, Update};
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

    /// Takes in what came of a question. A name that is neither configured (any more) nor being
    /// confirmed changes nothing.
    pub fn apply(&mut self, update: &Update, filter: &Filter) -> Applied {
        let mut applied = Applied::default();
        let configured = self
            .names
            .get(&update.name)
            .is_some_and(NameState::configured);
        if !configured && !self.seen.names.contains_key(&update.name) {
            return applied;
        }
        if let Outcome::Addresses { addresses, .. } = &update.outcome {
            for address in addresses {
                match filter.check(*address) {
                    Ok(()) => self.remember(*address, update, configured, &mut applied),
                    Err(reason) => applied.refused.push((*address, reason)),
                }
            }
            self.overflow += applied.overflow as u64;
        }
        let state = if configured {
            self.names.get_mut(&update.name)
        } else {
            self.seen
                .names
                .get_mut(&update.name)
                .map(|seen| &mut seen.state)
        };
        if let Some(state) = state {
            let denied = state.denied();
            let refused = applied.refused.len();
            state.note(
                update.family,
                &update.outcome,
                update.at,
                refused,
                &mut self.errors,
            );
            applied.to_confirm = !configured && denied != state.denied();
        }
        applied
    }

    fn remember(
        &mut self,
        address: IpAddr,
        update: &Update,
        configured: bool,
        applied: &mut Applied,
    ) {
        let known = self.addresses.get(&address);
        let of_name = known.is_some_and(|entry| entry.answers.contains_key(&update.name));
        // Whether it takes up room of this tier that it has not yet.
        let new = !known.is_some_and(|entry| !configured || self.is_authoritative(entry));
        let room = if configured {
            self.bounds.total
        } else {
            self.bounds.corroborated
        };
        if new && self.count(configured) >= room || !of_name && !self.make_room(update) {
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

    /// Makes room for another address of the name, if it has as many as it may have: that goes which
    /// was named longest ago and has had no traffic for `keep`. Returns whether there is room.
    fn make_room(&mut self, update: &Update) -> bool {
        let Update { name, at, .. } = update;
        if self.count_of(name) < self.bounds.per_name {
            return true;
        }
        let unused = |entry: &Entry| {
            let end = entry.last_traffic.map(|at| at.checked_add(self.keep));
            end.is_none_or(|end| end.is_some_and(|end| end <= *at))
        };
        let oldest = self.addresses.iter().filter_map(|(address, entry)| {
            let last = entry.answers.get(name)?;
            (last < at && unused(entry)).then_some((*last, *address))
        });
        let Some((_, address)) = oldest.min() else {
            return false;
        };
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.answers.remove(name);
            if entry.answers.is_empty() {
                self.addresses.remove(&address);
            }
        }
        self.displaced += 1;
        true
    }

    /// Takes in an answer that a client got. Its addresses are observed at once; its name is to be
    /// asked by our own resolver, unless it is configured and so is asked anyway.
    pub fn observe(&mut self, sighting: &Sighting, filter: &Filter) -> Applied {
        let mut applied = Applied::default();
        let Sighting {
            name, client, at, ..
        } = sighting;
        let configured = self.names.get(name).is_some_and(NameState::configured);
        if !configured {
            let known = self.seen.names.contains_key(name);
            let owners = if known {
                None
            } else {
                self.owners_of_name(name)
            };
            if !known && owners.is_none() {
                return applied;
            }
            self.seen
                .note(name, owners.unwrap_or_default(), *client, *at);
            applied.to_confirm = self.seen.admit(*at);
        }
        applied.counts = true;
        for address in &sighting.addresses {
            self.note_observed(
                *address,
                *client,
                How::Answer(name),
                *at,
                filter,
                &mut applied,
            );
        }
        applied
    }

    /// Takes in that an address answered a client's IKE_SA_INIT.
    pub fn learn(
        &mut self,
        address: IpAddr,
        client: IpAddr,
        at: SystemTime,
        filter: &Filter,
    ) -> Applied {
        let mut applied = Applied {
            counts: true,
            ..Applied::default()
        };
        self.note_observed(address, client, How::Ike, at, filter, &mut applied);
        applied
    }

    /// Takes in an address that a client's IKE goes to and whose country policies are for.
    pub fn catch(
        &mut self,
        address: IpAddr,
        client: IpAddr,
        at: SystemTime,
        filter: &Filter,
    ) -> Applied {
        let mut applied = Applied {
            counts: true,
            ..Applied::default()
        };
        self.note_observed(address, client, How::Caught, at, filter, &mut applied);
        applied
    }

    fn note_observed(
        &mut self,
        address: IpAddr,
        client: IpAddr,
        how: How<'_>,
        at: SystemTime,
        filter: &Filter,
        applied: &mut Applied,
    ) {
        if let Err(reason) = filter.check(address) {
            applied.refused.push((address, reason));
            return;
        }
        let better = self
            .addresses
            .get(&address)
            .is_some_and(|entry| self.tier(entry).is_some());
        match self
            .observed
            .note(address, client, how, at, self.rules.longest)
        {
            Noted::New if !better => applied.added.push(address),
            Noted::New | Noted::Known => {}
            Noted::Spent => applied.spent += 1,
            Noted::NoRoom => {
                applied.overflow += 1;
                self.overflow += 1;
            }
        }
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

    /// Notes that packets of an endpoint in `prefix` were seen. Endpoints are widened to blocks,
    /// so all addresses of the block are taken to be in use; observed ones only where the kernel
    /// tells them from others, as it does of every single one. An IPv6 address that stands for an
    /// IPv4 host behind one of the NAT64 prefixes is that host. Returns how many are known.
    pub fn note_traffic(&mut self, prefix: IpNet, now: SystemTime) -> usize {
        let mut known = 0;
        let own = prefix.network()..=prefix.broadcast();
        for block in std::iter::once(own).chain(nat64::behind(prefix, &self.pref64)) {
            for (_, entry) in self.addresses.range_mut(block.clone()) {
                entry.last_traffic = entry.last_traffic.max(Some(now));
                known += 1;
            }
            for (_, entry) in self.observed.addresses.range_mut(block) {
                entry.last_traffic = entry.last_traffic.max(Some(now));
                known += 1;
            }
        }
        known
    }

    /// Begins again with what was remembered when nobody looked any more: for what had traffic until then, the time in
    /// between does not count, for its tunnels may live. What has none now goes when its time is over from here.
    pub fn resume(&mut self, now: SystemTime) {
        let of_addresses = self
            .addresses
            .values()
            .flat_map(|entry| entry.answers.values().copied().chain(entry.last_traffic));
        let of_observed = self
            .observed
            .addresses
            .values()
            .map(observed::Entry::last_sign);
        let Some(looked) = of_addresses.chain(of_observed).max() else {
            return;
        };
        let Ok(gap) = now.duration_since(looked) else {
            return;
        };
        // Its age stays: what was over then is over now.
        let of_addresses = self.addresses.values_mut();
        let of_addresses = of_addresses.map(|entry| &mut entry.last_traffic);
        let of_observed = self.observed.addresses.values_mut();
        let of_observed = of_observed.map(|entry| &mut entry.last_traffic);
        for at in of_addresses.chain(of_observed).flatten() {
            *at = at.checked_add(gap).unwrap_or(now);
        }
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
            seen,
            ..
        } = self;
        let over_at = |now: SystemTime, since: SystemTime| {
            since.checked_add(*keep).is_some_and(|end| now >= end)
        };
        let over = |since| over_at(now, since);
        let mut in_use: BTreeSet<&Arc<str>> = BTreeSet::new();
        for entry in addresses.values() {
            if entry.last_traffic.is_some_and(|at| !over(at)) {
                in_use.extend(entry.answers.keys());
            }
        }
        let forgotten = seen.expire(now, *keep, |name| in_use.contains(name));
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
                let configured = names.get(name).filter(|state| state.configured());
                let asked = configured.or(seen.names.get(name).map(|seen| &seen.state));
                let superseded = asked.is_none_or(|state| {
                    let success = state.success(family);
                    success.is_some_and(|at| at > *last_answer && over_at(at, *last_answer))
                });
                !(over(*last_answer) && superseded || forgotten.contains(name))
            });
            let keep = !entry.answers.is_empty();
            if !keep {
                gone.push(*address);
            }
            keep
        });
        let mut answering: BTreeSet<&Arc<str>> = BTreeSet::new();
        for entry in addresses.values() {
            answering.extend(entry.answers.keys());
        }
        names.retain(|name, state| state.configured() || answering.contains(name));
        self.nat64.expire(now, *keep);
        self.companions.expire(now, *keep);
        let Observed { keep, longest, .. } = self.rules;
        for address in self.observed.expire(now, keep, longest) {
            let entry = self.addresses.get(&address);
            if entry.and_then(|entry| self.tier(entry)).is_none() {
                gone.push(address);
            }
        }
        gone
    }

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

/// The sources of an observed address.
fn sources(entry: &observed::Entry) -> impl Iterator<Item = (Source, SystemTime)> {
    let client = entry.names.values().max().map(|at| (Source::Client, *at));
    let ike = entry.ike.map(|at| (Source::Ike, at));
    let caught = entry.caught.map(|at| (Source::Caught, at));
    client.into_iter().chain(ike).chain(caught)
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "observed_tests.rs"]
mod observed_tests;
