//! Which carrier a client belongs to, by the names that it asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::super::Owner;

/// Clients that are remembered.
const CLIENTS: usize = 4096;
/// Names of one client. A phone with two SIMs asks for the operator's, the emergency and the N3IWF name of both.
const NAMES: usize = 8;
/// How long a name that is not asked for again tells of its client. Phones ask whenever they connect.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// A name that a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose it is.
    pub owners: BTreeSet<Owner>,
    /// When it was asked for first.
    pub first: SystemTime,
    /// When it was asked for last.
    pub last: SystemTime,
}

/// The clients.
#[derive(Debug, Default)]
pub struct Clients {
    names: BTreeMap<IpAddr, BTreeMap<String, Asked>>,
    /// When each client asked last, so that the oldest is found at once: a flood of made-up clients makes room for every
    /// one of them.
    last: BTreeMap<IpAddr, SystemTime>,
    order: BTreeSet<(SystemTime, IpAddr)>,
}

impl Clients {
    pub(super) fn note(
        &mut self,
        client: IpAddr,
        name: &str,
        owners: impl FnOnce() -> BTreeSet<Owner>,
        now: SystemTime,
    ) {
        if !self.names.contains_key(&client)
            && self.names.len() >= CLIENTS
            && let Some((_, oldest)) = self.order.first().copied()
        {
            self.remove(oldest);
        }
        if let Some(before) = self.last.insert(client, now) {
            self.order.remove(&(before, client));
        }
        self.order.insert((now, client));
        let names = self.names.entry(client).or_default();
        if let Some(asked) = names.get_mut(name) {
            asked.last = now;
            return;
        }
        if names.len() >= NAMES {
            let oldest = names.iter().min_by_key(|(_, asked)| asked.last);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                names.remove(&oldest);
            }
        }
        let asked = Asked {
            owners: owners(),
            first: now,
            last: now,
        };
        names.insert(name.to_owned(), asked);
    }

    fn remove(&mut self, client: IpAddr) {
        self.names.remove(&client);
        if let Some(last) = self.last.remove(&client) {
            self.order.remove(&(last, client));
        }
    }

    pub(super) fn expire(&mut self, now: SystemTime) {
        let mut gone = Vec::new();
        for (client, names) in &mut self.names {
            // A time in the future (the clock was wrong once) counts as just now.
            names.retain(|_, asked| {
                now.duration_since(asked.last)
                    .map_or(true, |age| age < KEEP)
            });
            if names.is_empty() {
                gone.push(*client);
            }
        }
        for client in gone {
            self.remove(client);
        }
    }

    /// The clients and the names that they asked for, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &BTreeMap<String, Asked>)> {
        self.names.iter().map(|(client, names)| (*client, names))
    }

    /// Whose names a client asked for.
    #[must_use]
    pub fn owners(&self, client: IpAddr) -> BTreeSet<Owner> {
        let names = self.names.get(&client).into_iter().flatten();
        names
            .flat_map(|(_, asked)| &asked.owners)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: usize) -> IpAddr {
        IpAddr::from((number as u32).to_be_bytes())
    }

    fn owner(plmn: &str) -> BTreeSet<Owner> {
        BTreeSet::from([Owner {
            plmn: plmn.parse().ok(),
            country: None,
        }])
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    #[test]
    fn a_client_is_known_by_its_names_for_a_day() {
        let mut clients = Clients::default();
        clients.note(client(1), "a", || owner("262-01"), at(0));
        clients.note(client(1), "b", || owner("505-01"), at(10));
        clients.note(client(1), "a", || unreachable!("known already"), at(3600));
        assert_eq!(clients.owners(client(1)).len(), 2);
        assert_eq!(clients.owners(client(2)).len(), 0);
        clients.expire(at(10 + 24 * 3600));
        assert_eq!(clients.owners(client(1)), owner("262-01"));
        clients.expire(at(3600 + 24 * 3600));
        assert_eq!(clients.iter().count(), 0);
    }

    #[test]
    fn made_up_names_and_addresses_are_bounded() {
        let mut clients = Clients::default();
        for number in 0..2 * CLIENTS {
            clients.note(client(number), "a", BTreeSet::new, at(number as u64));
        }
        assert_eq!(clients.iter().count(), CLIENTS);
        for number in 0..100 {
            let name = number.to_string();
            clients.note(
                client(2 * CLIENTS),
                &name,
                BTreeSet::new,
                at(99_999 + number),
            );
        }
        let (_, names) = clients.iter().last().unwrap();
        assert_eq!(names.len(), NAMES);
        assert!(names.contains_key("99"));
    }
}
