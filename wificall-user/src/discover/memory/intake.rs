//! What comes in: answers to our own questions, and what clients were told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::{Applied, Entry, Memory, NameState, Sighting};
use crate::discover::observed::{How, Noted};
use crate::discover::{Filter, Outcome, Update};

impl Memory {
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
}
