//! Names that clients asked for and the configuration does not select: our own resolver is asked
//! about them, so that their addresses can be trusted further than what a client was told.
//!
//! Whoever is on the access side can ask for any number of names, made-up or real. So the pool is
//! bounded, in all and by client; a name that our resolver has confirmed makes room for no other,
//! since phones may be on its addresses; and names are let through to the resolver no faster than
//! [`Seen::set_rate`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Owner, Target, memory::NameState};

/// Names in the pool.
pub const NAMES_MAX: usize = 256;
/// Of those, names without an address of ours yet.
const UNCONFIRMED_MAX: usize = 64;
/// Names of one client, which may be another router with its own clients.
const PER_CLIENT_MAX: usize = 32;
/// Of those, unconfirmed ones. A phone asks for a handful: operator, emergency, N3IWF.
const PER_CLIENT_UNCONFIRMED_MAX: usize = 8;
/// Names let through at once, when none was for long: those of one phone.
const BURST: u32 = 4;
/// A name that our resolver denied is not asked again for this long, however often a client asks.
const DENIED_FOR: Duration = Duration::from_secs(3600);

/// A name in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenName {
    /// Whose it is by its form or the catalogue. Beyond that as for a configured name.
    pub state: NameState,
    pub first_seen: SystemTime,
    pub last_seen: SystemTime,
    /// The client that asked first.
    pub client: IpAddr,
    /// When it was let through to the resolver.
    pub admitted: Option<SystemTime>,
}

impl SeenName {
    /// Our resolver had addresses for it.
    pub fn confirmed(&self) -> bool {
        self.state.last_success().is_some()
    }
}

/// The pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub names: BTreeMap<Arc<str>, SeenName>,
    /// Time between names let through.
    interval: Duration,
    /// When the next name would be let through if there were no burst (GCRA).
    next: SystemTime,
    /// Names that made room for others or found none, since the start.
    pub dropped: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
            interval: Duration::from_secs(1),
            next: SystemTime::UNIX_EPOCH,
            dropped: 0,
        }
    }
}

impl Seen {
    /// Names go through at a quarter of the resolver's rate: each is two questions.
    pub fn set_rate(&mut self, queries_per_second: u32) {
        self.interval = Duration::from_secs(8) / queries_per_second.max(1);
    }

    /// Notes that a client asked.
    pub fn note(
        &mut self,
        name: &Arc<str>,
        owners: Arc<BTreeSet<Owner>>,
        client: IpAddr,
        at: SystemTime,
    ) {
        if let Some(known) = self.names.get_mut(name) {
            known.last_seen = known.last_seen.max(at);
            return;
        }
        if !self.make_room(client) {
            self.dropped += 1;
            return;
        }
        let state = NameState::of(owners);
        let seen = SeenName {
            state,
            first_seen: at,
            last_seen: at,
            client,
            admitted: None,
        };
        self.names.insert(name.clone(), seen);
    }

    /// Sees to it that there is room for one more name of this client. Only unconfirmed names make
    /// room, the oldest first: where the client's own share is used up, its own.
    fn make_room(&mut self, client: IpAddr) -> bool {
        let of_client = |seen: &&SeenName| seen.client == client;
        let unconfirmed = || self.names.values().filter(|seen| !seen.confirmed());
        if self.names.values().filter(of_client).count() >= PER_CLIENT_MAX
            || unconfirmed().filter(of_client).count() >= PER_CLIENT_UNCONFIRMED_MAX
        {
            self.drop_oldest(|seen| seen.client == client)
        } else if self.names.len() >= NAMES_MAX || unconfirmed().count() >= UNCONFIRMED_MAX {
            self.drop_oldest(|_| true)
        } else {
            true
        }
    }

    /// Drops the unconfirmed name that was not asked for for the longest time; whether there is one.
    fn drop_oldest(&mut self, of: impl Fn(&SeenName) -> bool) -> bool {
        let names = self.names.iter();
        let candidates = names.filter(|(_, seen)| !seen.confirmed() && of(seen));
        let oldest = candidates.min_by_key(|(_, seen)| seen.last_seen);
        let Some(name) = oldest.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.names.remove(&name);
        self.dropped += 1;
        true
    }

    /// Lets names through to the resolver, as many as the rate allows; those seen last first,
    /// because whoever asked waits for them. Returns whether any was.
    pub fn admit(&mut self, now: SystemTime) -> bool {
        let mut any = false;
        // A clock that was set back must not stop this until it is where it was.
        if self
            .next
            .duration_since(now)
            .is_ok_and(|ahead| ahead > self.interval * (BURST + 1))
        {
            self.next = now;
        }
        while self.next <= now + self.interval * (BURST - 1) {
            let waiting = self.names.iter().filter(|(_, seen)| {
                seen.admitted.is_none_or(|at| {
                    // Denied once: as good as new after a while, if a client still asks.
                    seen.state.denied()
                        && seen.last_seen > at
                        && now.duration_since(at).is_ok_and(|age| age >= DENIED_FOR)
                })
            });
            let newest = waiting.max_by_key(|(_, seen)| seen.last_seen);
            let Some(name) = newest.map(|(name, _)| name.clone()) else {
                break;
            };
            if let Some(seen) = self.names.get_mut(&name) {
                if seen.state.denied() {
                    seen.state = NameState::of(seen.state.owners.clone());
                }
                seen.admitted = Some(now);
            }
            self.next = self.next.max(now) + self.interval;
            any = true;
        }
        any
    }

    /// The names that our resolver is to ask: those let through and not denied.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.names
            .iter()
            .filter(|(_, seen)| seen.admitted.is_some() && !seen.state.denied())
            .map(|(name, seen)| Target {
                name: name.clone(),
                owners: seen.state.owners.clone(),
            })
    }

    /// Forgets the names that no client asked for since `keep`, unless they are `in_use`: our resolver
    /// is asked about a name for as long as it is here, so an answer of its is no sign of use. Returns
    /// them.
    pub fn expire(
        &mut self,
        now: SystemTime,
        keep: Duration,
        in_use: impl Fn(&Arc<str>) -> bool,
    ) -> BTreeSet<Arc<str>> {
        let over = |name: &Arc<str>, seen: &mut SeenName| {
            let end = seen.last_seen.checked_add(keep);
            end.is_some_and(|end| now >= end) && !in_use(name)
        };
        let gone = self.names.extract_if(.., over);
        gone.map(|(name, _)| name).collect()
    }
}
