//! Desired − actual = plan. Pure.

use std::collections::{BTreeMap, BTreeSet};

use wificall_common::abi::{COMPANIONS_SIZE, Choice, ChoiceKey, Policy as Row};

use super::{
    compile::{Choices, Class, Clients},
    desired::{self, Meaning, Wanted},
    label::Label,
};
use crate::{
    config::Limits,
    kernel::{Entry, INTERFACES, Key, Numbered, activity_slots},
};

/// What the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// The endpoint table.
    pub entries: BTreeMap<Key, Entry>,
    /// The policy rows, by index.
    pub policies: Vec<Row>,
    /// The labels given out, by group.
    pub labels: BTreeMap<u32, Label>,
    /// Choices by client.
    pub choices: BTreeMap<ChoiceKey, Choice>,
    /// Clients and interfaces with their classes, of all epochs.
    pub clients: BTreeMap<Numbered, u32>,
}

impl Actual {
    /// What an entry stands for; `None` if it points to a group that was never given out.
    #[must_use]
    pub fn meaning(&self, entry: &Entry) -> Option<desired::Entry> {
        let meaning = match entry.group {
            0 => None,
            group => {
                let row = *self.policies.get(entry.policy as usize)?;
                Some(Meaning {
                    label: self.labels.get(&group)?.clone(),
                    row: Row { set: 0, ..row },
                    choices: self.choices(row.set),
                })
            }
        };
        Some(desired::Entry {
            meaning,
            flags: entry.flags,
            members: entry.members,
        })
    }

    /// The choices of a set.
    fn choices(&self, set: u32) -> Choices {
        let first = ChoiceKey {
            set,
            interface: 0,
            client: 0,
            reserved: 0,
        };
        let own = self.choices.range(first..);
        let own = own.take_while(|(key, _)| key.set == set && set != 0);
        let choices = own.filter_map(|(key, choice)| {
            let class = Class {
                interface: key.interface,
                client: key.client,
            };
            let row = self.policies.get(choice.policy as usize)?;
            Some((class, choice.order, *row))
        });
        Choices::new(choices.collect())
    }

    /// The sets that there are.
    fn sets(&self) -> BTreeSet<u32> {
        self.choices.keys().map(|key| key.set).collect()
    }
}

/// What is to be done, in this order: labels, policies, clients and choices, then entries to set, then entries to remove,
/// then choices and clients to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Groups that get a label.
    pub labels: Vec<(u32, Label)>,
    /// Policy rows to write; no entry points to them yet.
    pub policies: Vec<(u32, Row)>,
    /// Clients and interfaces to number; no row that is in use names their epoch yet.
    pub clients: Vec<(Numbered, u32)>,
    /// Choices to add; no row that is in use names their set yet.
    pub choices: Vec<(ChoiceKey, Choice)>,
    /// Choices that nothing names any more.
    pub old_choices: Vec<ChoiceKey>,
    /// Clients and interfaces of epochs that nothing names any more.
    pub old_clients: Vec<Numbered>,
    /// Entries to add or replace: hosts and prefixes before the blocks that send lookups to them.
    pub set: Vec<(Key, Entry)>,
    /// Entries to remove: blocks first.
    pub remove: Vec<Key>,
    /// Keys that find no room, by kind.
    pub left_out: LeftOut,
}

/// How much found no room. What is in the table stays in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// IPv4 blocks.
    pub ipv4_blocks: u64,
    /// IPv6 blocks.
    pub ipv6_blocks: u64,
    /// Single hosts.
    pub hosts: u64,
    /// Prefixes.
    pub prefixes: u64,
    /// Entries counted under `other` for want of a group.
    pub groups: u64,
    /// Entries not set for want of a policy row.
    pub policies: u64,
    /// Addresses of companion names.
    pub companions: u64,
    /// Entries whose clients are all treated alike for want of room for their choices, or for clients.
    pub choices: u64,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.policies.is_empty()
            && self.clients.is_empty()
            && self.choices.is_empty()
            && self.set.is_empty()
            && self.remove.is_empty()
            && self.old_choices.is_empty()
            && self.old_clients.is_empty()
    }
}

/// Compares.
#[must_use]
pub fn plan(wanted: &Wanted, actual: &Actual, limits: &Limits) -> Plan {
    let desired = &wanted.entries;
    let mut plan = Plan::default();
    let mut groups = Groups::new(actual, limits);
    let mut rows = Rows::new(wanted, actual, limits);
    let mut sets = Sets::new(wanted, actual, limits);
    let mut epochs = BTreeSet::new();
    let mut slots = Slots::new(actual, limits);
    let mut room = Room::new(actual, limits);

    // What is trusted more has the first pick of room, groups and rows.
    let mut by_tier: Vec<_> = desired.iter().collect();
    by_tier.sort_by_key(|(_, entry)| entry.meaning.as_ref().map(|meaning| meaning.row.tier));
    for (key, wanted) in by_tier {
        let present = actual.entries.get(key);
        if present.is_none() && !room.take(*key, &mut plan.left_out) {
            continue;
        }
        let (group, policy) = match &wanted.meaning {
            None => (0, 0),
            Some(Meaning {
                label,
                row,
                choices,
            }) => {
                let mut row = *row;
                match sets.index(choices, row.epoch, &mut rows, &mut plan) {
                    Some(set) => row.set = set,
                    None => {
                        plan.left_out.choices += 1;
                        row.epoch = 0;
                    }
                }
                let Some(policy) = rows.index(&row, &mut plan) else {
                    plan.left_out.policies += 1;
                    // The entry that stays goes on naming what its row names.
                    let row = present.and_then(|entry| actual.policies.get(entry.policy as usize));
                    if let Some(row) = row {
                        sets.used.insert(row.set);
                        epochs.insert(row.epoch);
                    }
                    continue;
                };
                epochs.insert(row.epoch);
                (groups.index(label, &mut plan), policy)
            }
        };
        let entry = Entry {
            group,
            policy,
            slot: present.map_or_else(|| slots.next(), |entry| entry.slot),
            flags: wanted.flags,
            members: wanted.members,
        };
        if present != Some(&entry) {
            plan.set.push((*key, entry));
        }
    }
    plan.set.sort_by_key(|(key, _)| *key);
    plan.remove = actual
        .entries
        .keys()
        .filter(|key| !desired.contains_key(key))
        .rev()
        .copied()
        .collect();
    let clients = &wanted.clients;
    if clients.epoch != 0 && epochs.contains(&clients.epoch) {
        let absent = |(key, class): &(Numbered, u32)| actual.clients.get(key) != Some(class);
        plan.clients = numbered(clients).filter(absent).collect();
    }
    plan.old_choices = actual
        .choices
        .keys()
        .filter(|key| !sets.used.contains(&key.set))
        .copied()
        .collect();
    plan.old_clients = actual
        .clients
        .keys()
        .filter(|key| !epochs.contains(&key.epoch()))
        .copied()
        .collect();
    plan
}

/// A numbering, as the kernel holds it.
fn numbered(clients: &Clients) -> impl Iterator<Item = (Numbered, u32)> {
    let epoch = clients.epoch;
    let networks = clients.networks.iter();
    let networks = networks.map(move |(net, class)| (Numbered::Network(epoch, *net), *class));
    let stations = clients.stations.iter();
    let stations = stations.map(move |(mac, class)| (Numbered::Station(epoch, *mac), *class));
    let interfaces = clients.interfaces.iter();
    let interfaces =
        interfaces.map(move |(index, class)| (Numbered::Interface(epoch, *index), *class));
    networks.chain(stations).chain(interfaces)
}

/// Finds sets of the same choices, else gives them a number that no set has.
struct Sets {
    known: BTreeMap<Choices, u32>,
    used: BTreeSet<u32>,
    next: u32,
    /// Choices for which there is room; those that are to be removed have as much of their own.
    room: usize,
    /// The epoch that is wanted.
    wanted: u32,
    /// The same, if its clients have room.
    epoch: u32,
}

impl Sets {
    fn new(wanted: &Wanted, actual: &Actual, limits: &Limits) -> Self {
        let sets = actual.sets();
        let clients = &wanted.clients;
        let most = clients.networks.len().max(clients.stations.len());
        let fits = most <= limits.clients as usize && clients.interfaces.len() <= INTERFACES;
        Self {
            next: sets.last().map_or(1, |last| last.wrapping_add(1).max(1)),
            known: sets
                .iter()
                .map(|set| (actual.choices(*set), *set))
                .collect(),
            used: BTreeSet::new(),
            room: limits.choices as usize,
            wanted: clients.epoch,
            epoch: if fits { clients.epoch } else { 0 },
        }
    }

    /// `None`: there is no room.
    fn index(
        &mut self,
        choices: &Choices,
        epoch: u32,
        rows: &mut Rows,
        plan: &mut Plan,
    ) -> Option<u32> {
        if choices.is_empty() {
            return Some(0);
        }
        let known = self.known.get(choices).copied();
        if let Some(set) = known.filter(|set| self.used.contains(set)) {
            return Some(set);
        }
        // What was found in the kernel has its clients there.
        let fits = epoch == self.epoch || (known.is_some() && epoch != self.wanted);
        if !fits {
            return None;
        }
        self.room = self.room.checked_sub(choices.iter().len())?;
        if let Some(set) = known {
            self.used.insert(set);
            return Some(set);
        }
        let rows: Option<Vec<_>> = choices
            .iter()
            .map(|(class, order, row)| Some((*class, *order, rows.index(row, plan)?)))
            .collect();
        let set = self.next;
        self.next = self.next.checked_add(1)?;
        for (class, order, policy) in rows? {
            let key = ChoiceKey {
                set,
                interface: class.interface,
                client: class.client,
                reserved: 0,
            };
            plan.choices.push((key, Choice { order, policy }));
        }
        self.known.insert(choices.clone(), set);
        self.used.insert(set);
        Some(set)
    }
}

/// Gives labels their groups: the one they have, else the next free one, else that of the overflow.
struct Groups {
    known: BTreeMap<Label, u32>,
    next: u32,
    limit: u32,
}

impl Groups {
    fn new(actual: &Actual, limits: &Limits) -> Self {
        let known: BTreeMap<_, _> = actual
            .labels
            .iter()
            .map(|(index, label)| (label.clone(), *index))
            .collect();
        Self {
            next: known
                .iter()
                .filter(|(label, _)| **label != Label::overflow())
                .map(|(_, index)| index + 1)
                .max()
                .unwrap_or(1),
            known,
            limit: limits.groups,
        }
    }

    fn index(&mut self, label: &Label, plan: &mut Plan) -> u32 {
        if let Some(index) = self.known.get(label) {
            return *index;
        }
        // The last group is kept for what finds none.
        if self.next + 1 >= self.limit {
            plan.left_out.groups += 1;
            if let Some(index) = self.known.get(&Label::overflow()) {
                return *index;
            }
            return self.give(Label::overflow(), self.limit.saturating_sub(1), plan);
        }
        self.give(label.clone(), self.next, plan)
    }

    fn give(&mut self, label: Label, index: u32, plan: &mut Plan) -> u32 {
        if label != Label::overflow() {
            self.next = index + 1;
        }
        self.known.insert(label.clone(), index);
        plan.labels.push((index, label));
        index
    }
}

/// Finds rows of the same content, else rows that no entry points to.
struct Rows {
    known: BTreeMap<Row, u32>,
    free: Vec<u32>,
    /// Those that are wanted, which may be half of all that there is room for.
    assigned: BTreeSet<u32>,
    limit: usize,
}

impl Rows {
    fn new(wanted: &Wanted, actual: &Actual, limits: &Limits) -> Self {
        let entries = actual.entries.values().filter(|entry| entry.group != 0);
        let used: BTreeSet<u32> = entries
            .map(|entry| entry.policy)
            .chain(actual.choices.values().map(|choice| choice.policy))
            .collect();
        let wanted: BTreeSet<&Row> = wanted.rows().collect();
        let mut known = BTreeMap::new();
        let mut free = Vec::new();
        for (index, row) in (0..).zip(&actual.policies) {
            if row.valid != 0 && (used.contains(&index) || wanted.contains(row)) {
                known.entry(*row).or_insert(index);
            } else if !used.contains(&index) {
                free.push(index);
            }
        }
        // The lowest first.
        free.reverse();
        Self {
            known,
            free,
            assigned: BTreeSet::new(),
            limit: limits.policies as usize,
        }
    }

    fn index(&mut self, row: &Row, plan: &mut Plan) -> Option<u32> {
        let known = self.known.get(row).copied();
        if known.is_none_or(|index| !self.assigned.contains(&index)) {
            if self.assigned.len() >= self.limit {
                return None;
            }
            self.assigned.insert(known.or(self.free.last().copied())?);
        }
        if let Some(index) = known {
            return Some(index);
        }
        let index = self.free.pop()?;
        self.known.insert(*row, index);
        plan.policies.push((index, *row));
        Some(index)
    }
}

/// Gives new entries an activity slot that no other has.
struct Slots {
    used: BTreeSet<u32>,
    next: u32,
    limit: u32,
}

impl Slots {
    fn new(actual: &Actual, limits: &Limits) -> Self {
        Self {
            used: actual.entries.values().map(|entry| entry.slot).collect(),
            next: 0,
            limit: activity_slots(limits),
        }
    }

    /// There are as many slots as entries; an entry that is replaced while another goes may still find none, and then
    /// shares the last one: its activity is the other's too.
    fn next(&mut self) -> u32 {
        while self.next < self.limit {
            let slot = self.next;
            self.next += 1;
            if self.used.insert(slot) {
                return slot;
            }
        }
        self.limit - 1
    }
}

/// Room in the maps. What is to be removed still takes room: it goes last.
struct Room {
    ipv4_blocks: u64,
    ipv6_blocks: u64,
    hosts: u64,
    prefixes: u64,
    companions: u64,
}

impl Room {
    fn new(actual: &Actual, limits: &Limits) -> Self {
        let mut room = Self {
            ipv4_blocks: limits.blocks.into(),
            ipv6_blocks: limits.blocks.into(),
            hosts: limits.hosts.into(),
            prefixes: limits.prefixes.into(),
            companions: COMPANIONS_SIZE.into(),
        };
        for key in actual.entries.keys() {
            let left = match key {
                Key::Companion(_) => &mut room.companions,
                Key::Block4(_) => &mut room.ipv4_blocks,
                Key::Block6(_) => &mut room.ipv6_blocks,
                Key::Host(_) => &mut room.hosts,
                Key::Prefix(..) => &mut room.prefixes,
            };
            *left = left.saturating_sub(1);
        }
        room
    }

    fn take(&mut self, key: Key, left_out: &mut LeftOut) -> bool {
        let (left, out) = match key {
            Key::Companion(_) => (&mut self.companions, &mut left_out.companions),
            Key::Block4(_) => (&mut self.ipv4_blocks, &mut left_out.ipv4_blocks),
            Key::Block6(_) => (&mut self.ipv6_blocks, &mut left_out.ipv6_blocks),
            Key::Host(_) => (&mut self.hosts, &mut left_out.hosts),
            Key::Prefix(..) => (&mut self.prefixes, &mut left_out.prefixes),
        };
        if *left == 0 {
            *out += 1;
            return false;
        }
        *left -= 1;
        true
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
