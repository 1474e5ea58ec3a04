//! Addresses of the observed tier: from clients' answers, and from IKE exchanges that were
//! answered. Nobody of ours has confirmed them, so they live short, are never widened, and have
//! room of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Addresses in all.
pub const ADDRESSES_MAX: usize = 1024;
/// Addresses that one client brought. A large carrier's answer has some tens.
const PER_CLIENT_MAX: usize = 64;
/// Names of one address that are remembered.
pub const NAMES_MAX: usize = 4;

/// An observed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub first_seen: SystemTime,
    /// When it was observed last, in an answer or an exchange.
    pub last_seen: SystemTime,
    /// When something came from it last.
    pub last_traffic: Option<SystemTime>,
    /// The client that brought it.
    pub client: IpAddr,
    /// The names that clients asked for, and when it was an answer to each last.
    pub names: BTreeMap<Arc<str>, SystemTime>,
    /// When an IKE_SA_INIT was answered last.
    pub ike: Option<SystemTime>,
    /// When a client's IKE_SA_INIT went there last (`catch_all`).
    pub caught: Option<SystemTime>,
    /// Its longest time is over. It is no endpoint, and stays to be told from a new one.
    pub spent: bool,
}

impl Entry {
    /// When it was observed or had traffic last.
    pub fn last_sign(&self) -> SystemTime {
        self.last_seen
            .max(self.last_traffic.unwrap_or(self.last_seen))
    }
}

fn over(since: SystemTime, after: Duration, now: SystemTime) -> bool {
    since.checked_add(after).is_some_and(|end| now >= end)
}

/// How an address was observed.
#[derive(Copy, Clone, Debug)]
pub(super) enum How<'a> {
    /// In an answer to this name.
    Answer(&'a Arc<str>),
    /// By an IKE exchange.
    Ike,
    /// By a client's IKE_SA_INIT alone, for its country.
    Caught,
}

/// What became of an observation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    New,
    Known,
    /// It has had its longest time and rests.
    Spent,
    /// Everything that could make room is in use.
    NoRoom,
}

/// The observed addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    pub addresses: BTreeMap<IpAddr, Entry>,
    /// Addresses that made room for others, since the start.
    pub dropped: u64,
}

impl Pool {
    pub fn note(
        &mut self,
        address: IpAddr,
        client: IpAddr,
        how: How<'_>,
        at: SystemTime,
        longest: Duration,
    ) -> Noted {
        let mut noted = Noted::Known;
        if !self.addresses.contains_key(&address) {
            if !self.make_room(client) {
                return Noted::NoRoom;
            }
            noted = Noted::New;
        }
        let entry = self.addresses.entry(address).or_insert_with(|| Entry {
            first_seen: at,
            last_seen: at,
            last_traffic: None,
            client,
            names: BTreeMap::new(),
            ike: None,
            caught: None,
            spent: false,
        });
        if over(entry.first_seen, longest, at) {
            return Noted::Spent;
        }
        entry.last_seen = entry.last_seen.max(at);
        match how {
            How::Ike => entry.ike = entry.ike.max(Some(at)),
            How::Caught => entry.caught = entry.caught.max(Some(at)),
            How::Answer(name) => {
                if !entry.names.contains_key(name)
                    && entry.names.len() >= NAMES_MAX
                    && let Some(oldest) = entry.names.iter().min_by_key(|(_, at)| **at)
                {
                    let oldest = oldest.0.clone();
                    entry.names.remove(&oldest);
                }
                entry.names.insert(name.clone(), at);
            }
        }
        noted
    }

    /// Sees to it that there is room for one more. What answered goes last: a call may be on it.
    fn make_room(&mut self, client: IpAddr) -> bool {
        let of_client = self.addresses.values().filter(|e| e.client == client);
        let of_client = of_client.count() >= PER_CLIENT_MAX;
        if !of_client && self.addresses.len() < ADDRESSES_MAX {
            return true;
        }
        let oldest = self
            .addresses
            .iter()
            .filter(|(_, entry)| !of_client || entry.client == client)
            .filter(|(_, entry)| entry.last_traffic.is_none())
            .min_by_key(|(_, entry)| entry.last_seen)
            .map(|(address, _)| *address);
        let Some(oldest) = oldest else {
            return false;
        };
        self.addresses.remove(&oldest);
        self.dropped += 1;
        true
    }

    /// Forgets what was neither observed nor answered for `keep`, and what has rested after its
    /// longest time. Returns the addresses that ceased to be endpoints.
    pub fn expire(&mut self, now: SystemTime, keep: Duration, longest: Duration) -> Vec<IpAddr> {
        let mut gone = Vec::new();
        self.addresses.retain(|address, entry| {
            let was = std::mem::replace(&mut entry.spent, over(entry.first_seen, longest, now));
            let stays = if entry.spent {
                !over(entry.first_seen, longest.saturating_mul(2), now)
            } else {
                !over(entry.last_sign(), keep, now)
            };
            if !was && (entry.spent || !stays) {
                gone.push(*address);
            }
            stays
        });
        gone
    }
}
