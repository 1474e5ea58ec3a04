//! The addresses of companion names: what policies steer beside endpoints. They are no endpoints, and nothing else follows
//! from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Filter, Outcome, Target, Update};

/// Addresses of one name: content networks answer with a few at a time, out of hundreds.
const PER_NAME: usize = 256;
/// Addresses of all names, as the kernel has room for.
const IN_ALL: usize = wificall_common::abi::COMPANIONS_SIZE as usize;

/// The names, and the addresses that they have had lately, each with the time of the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    pub(super) names: BTreeMap<Arc<str>, BTreeMap<IpAddr, SystemTime>>,
}

impl Companions {
    /// Makes these the names. Addresses of others are forgotten.
    pub fn select<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: BTreeSet<&str> = names.collect();
        self.names.retain(|name, _| names.contains(&**name));
        for name in names {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), BTreeMap::new());
            }
        }
    }

    /// The questions to ask.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.names.keys().map(|name| Target {
            name: name.clone(),
            owners: Arc::default(),
        })
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes in what came of a question. Returns whether there are addresses that were not there.
    pub fn apply(&mut self, update: &Update, filter: &Filter) -> bool {
        let Outcome::Addresses { addresses, .. } = &update.outcome else {
            return false;
        };
        let mut total: usize = self.names.values().map(BTreeMap::len).sum();
        let Some(known) = self.names.get_mut(&update.name) else {
            return false;
        };
        let mut is_new = false;
        for address in addresses.iter().take(PER_NAME) {
            if filter.check(*address).is_err() {
                continue;
            }
            if let Some(last) = known.get_mut(address) {
                *last = (*last).max(update.at);
                continue;
            }
            // What was answered longest ago makes room, of this name.
            if known.len() >= PER_NAME || total >= IN_ALL {
                let oldest = known.iter().min_by_key(|(_, at)| **at);
                let Some(oldest) = oldest.map(|(address, _)| *address) else {
                    continue;
                };
                known.remove(&oldest);
                total -= 1;
            }
            known.insert(*address, update.at);
            total += 1;
            is_new = true;
        }
        is_new
    }

    /// Forgets what no answer has named for `keep`. Of a name that has no newer answer, nothing: DNS may be down.
    pub fn expire(&mut self, now: SystemTime, keep: Duration) {
        for addresses in self.names.values_mut() {
            let newest = addresses.values().max().copied();
            addresses.retain(|_, at| {
                let over = at.checked_add(keep).is_some_and(|end| now >= end);
                !(over && newest.is_some_and(|newest| newest > *at))
            });
        }
    }

    /// Addresses, each with its names.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<IpAddr, BTreeSet<&str>> {
        let mut found: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
        for (name, addresses) in &self.names {
            for address in addresses.keys() {
                found.entry(*address).or_default().insert(name);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::Family;
    use super::*;

    fn update(name: &str, addresses: &[[u8; 4]], hours: u64) -> Update {
        Update {
            name: name.into(),
            family: Family::V4,
            outcome: Outcome::Addresses {
                addresses: addresses
                    .iter()
                    .map(|octets| IpAddr::from(*octets))
                    .collect(),
                ttl: Duration::from_secs(60),
            },
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours),
        }
    }

    fn filter() -> Filter {
        Filter::new([], [])
    }

    #[test]
    fn addresses_outlive_answers_and_have_all_their_names() {
        const DAY: Duration = Duration::from_secs(86400);
        let mut known = Companions::default();
        known.select(["a.example", "b.example"].into_iter());
        assert!(known.apply(
            &update("a.example", &[[1, 1, 1, 1], [1, 1, 1, 2]], 1),
            &filter()
        ));
        assert!(known.apply(&update("b.example", &[[1, 1, 1, 1]], 1), &filter()));
        assert!(
            !known.apply(&update("c.example", &[[1, 1, 1, 3]], 1), &filter()),
            "not asked for"
        );
        assert!(
            !known.apply(&update("a.example", &[[10, 0, 0, 1]], 1), &filter()),
            "local"
        );
        let of = |known: &Companions, address: [u8; 4]| -> Vec<String> {
            let all = known.addresses();
            let names = all.get(&IpAddr::from(address)).into_iter().flatten();
            names.map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(of(&known, [1, 1, 1, 1]), ["a.example", "b.example"]);
        let hour = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours);
        known.expire(hour(1000), DAY);
        assert_eq!(known.addresses().len(), 2, "nobody has answered since");
        assert!(known.apply(&update("a.example", &[[1, 1, 1, 9]], 1000), &filter()));
        known.expire(hour(1000), DAY);
        assert_eq!(of(&known, [1, 1, 1, 1]), ["b.example"]);
        assert_eq!(of(&known, [1, 1, 1, 2]), <[String; 0]>::default());
        known.select(["a.example"].into_iter());
        assert_eq!(known.addresses().len(), 1);
    }

    #[test]
    fn a_name_has_room_for_so_many() {
        let mut known = Companions::default();
        known.select(["a.example"].into_iter());
        for round in 0..20_u8 {
            let addresses: Vec<[u8; 4]> = (0..100).map(|n| [1, 1, round, n]).collect();
            known.apply(&update("a.example", &addresses, round.into()), &filter());
        }
        let left = known.addresses();
        assert_eq!(left.len(), PER_NAME);
        assert!(
            left.contains_key(&IpAddr::from([1, 1, 19, 99])),
            "the newest stay"
        );
    }
}
