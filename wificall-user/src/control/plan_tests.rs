//! Plans applied to a kernel of paper.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::*;

fn limits() -> Limits {
    Limits {
        blocks: 8,
        hosts: 8,
        prefixes: 8,
        groups: 6,
        policies: 4,
        fragments: 8,
        clients: 8,
        choices: 8,
        tunnels: 8,
        flows: 8,
    }
}

fn empty() -> Actual {
    Actual {
        policies: vec![Row::default(); 4],
        ..Actual::default()
    }
}

/// Applies a plan in its order and checks at each step that no entry points to nothing.
fn apply(actual: &mut Actual, plan: &Plan) {
    for (index, label) in &plan.labels {
        assert_eq!(actual.labels.insert(*index, label.clone()), None);
    }
    for (index, row) in &plan.policies {
        let used = actual
            .entries
            .values()
            .any(|entry| entry.policy == *index && entry.group != 0);
        assert!(!used, "row {index} is changed while an entry points to it");
        actual.policies[*index as usize] = *row;
    }
    for (numbered, class) in &plan.clients {
        let in_use = actual.entries.values();
        let epochs: BTreeSet<u32> = in_use
            .map(|entry| actual.policies[entry.policy as usize].epoch)
            .collect();
        assert!(
            !epochs.contains(&numbered.epoch()),
            "an epoch is changed while it is in use"
        );
        actual.clients.insert(*numbered, *class);
    }
    let sets_before = actual.sets();
    for (key, choice) in &plan.choices {
        assert!(!sets_before.contains(&key.set), "a set is changed");
        assert_ne!(actual.policies[choice.policy as usize].valid, 0);
        assert_eq!(actual.choices.insert(*key, *choice), None);
    }
    for (key, entry) in &plan.set {
        if entry.group != 0 {
            assert!(actual.labels.contains_key(&entry.group));
            assert_ne!(actual.policies[entry.policy as usize].valid, 0);
        }
        actual.entries.insert(*key, *entry);
        whole(actual);
    }
    for key in &plan.remove {
        assert!(actual.entries.remove(key).is_some());
    }
    for key in &plan.old_choices {
        assert!(actual.choices.remove(key).is_some());
        whole(actual);
    }
    for key in &plan.old_clients {
        assert!(actual.clients.remove(key).is_some());
        whole(actual);
    }
    let slots: BTreeSet<u32> = actual.entries.values().map(|entry| entry.slot).collect();
    assert_eq!(
        slots.len(),
        actual.entries.len(),
        "each entry has a slot of its own"
    );
}

/// Whatever an entry names is there, and as it was when it was written: the choices of the tests begin with their mark.
fn whole(actual: &Actual) {
    for entry in actual.entries.values() {
        let row = actual.policies[entry.policy as usize];
        let choices = actual.choices(row.set);
        assert_eq!(choices.is_empty(), row.set == 0, "the set is there");
        if row.set != 0 {
            assert!(
                actual.clients.keys().any(|key| key.epoch() == row.epoch),
                "the clients are there"
            );
            assert!(
                choices.iter().all(|(_, _, own)| own.mark >> 8 == row.mark),
                "all of one set"
            );
        }
    }
}

fn row(mark: u32) -> Row {
    Row {
        mark,
        mask: 0xff,
        valid: 1,
        ..Row::default()
    }
}

fn block(number: u8) -> Key {
    Key::Block4([203, 0, number, 0])
}

fn entry(operator: &str, mark: u32) -> desired::Entry {
    desired::Entry {
        meaning: Some(Meaning {
            label: Label {
                operator: operator.into(),
                country: "none".into(),
            },
            row: row(mark),
            choices: Choices::default(),
        }),
        flags: 0,
        members: [u32::MAX; 8],
    }
}

fn entries(entries: impl IntoIterator<Item = (Key, desired::Entry)>) -> Wanted {
    Wanted {
        entries: entries.into_iter().collect(),
        clients: Clients::default(),
    }
}

/// Entries whose clients are told apart: each has a choice for each of the networks.
fn by_client(entries: &[(Key, u32)], epoch: u32, networks: u32) -> Wanted {
    let networks: BTreeMap<IpNet, u32> = (1..=networks)
        .map(|n| (IpNet::new([10, 0, n as u8, 0].into(), 24).unwrap(), n))
        .collect();
    let entry = |mark: u32| {
        let mut entry = entry("a", mark);
        let meaning = entry.meaning.as_mut().unwrap();
        meaning.row.epoch = epoch;
        let class = |client| Class {
            interface: 0,
            client,
        };
        let choices = networks.values();
        let choices = choices.map(|n| (class(*n), *n, row(mark << 8 | 1)));
        meaning.choices = Choices::new(choices.collect());
        entry
    };
    Wanted {
        entries: entries
            .iter()
            .map(|(key, mark)| (*key, entry(*mark)))
            .collect(),
        clients: Clients {
            epoch,
            networks,
            ..Clients::default()
        },
    }
}

#[test]
fn clients_are_renumbered_without_a_mixture() {
    let mut actual = empty();
    actual.policies = vec![Row::default(); 16];
    for (epoch, networks) in [(7, 2), (8, 3), (9, 1), (7, 2)] {
        let wanted = by_client(
            &[(block(1), 1), (block(2), 2), (block(3), 1)],
            epoch,
            networks,
        );
        let next = plan(&wanted, &actual, &limits());
        assert_eq!(next.left_out, LeftOut::default());
        apply(&mut actual, &next);
        assert_eq!(actual.sets().len(), 2, "equal choices are one set");
        assert_eq!(actual.choices.len(), 2 * networks as usize);
        assert!(actual.clients.keys().all(|key| key.epoch() == epoch));
        assert!(plan(&wanted, &actual, &limits()).is_empty());
    }
    apply(
        &mut actual.clone(),
        &plan(&Wanted::default(), &actual, &limits()),
    );
    let plain = entries([(block(1), entry("a", 1))]);
    let next = plan(&plain, &actual, &limits());
    apply(&mut actual, &next);
    assert!(actual.choices.is_empty() && actual.clients.is_empty());
}

#[test]
fn without_room_for_choices_all_clients_are_alike() {
    let mut actual = empty();
    actual.policies = vec![Row::default(); 16];
    let wanted = by_client(&[(block(1), 1), (block(2), 2)], 7, 5);
    let first = plan(&wanted, &actual, &limits());
    assert_eq!(first.left_out.choices, 1, "five of eight are taken");
    apply(&mut actual, &first);
    assert_eq!(actual.sets().len(), 1);
    // More networks than there is room for.
    let wanted = by_client(&[(block(1), 1)], 8, 9);
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.choices, 1);
    apply(&mut actual, &next);
    assert!(actual.choices.is_empty() && actual.clients.is_empty());
}

#[test]
fn from_nothing_and_then_nothing_to_do() {
    let wanted = entries([(block(1), entry("a", 1)), (block(2), entry("b", 1))]);
    let mut actual = empty();
    let first = plan(&wanted, &actual, &limits());
    assert_eq!(first.policies.len(), 1, "equal rows are shared");
    apply(&mut actual, &first);
    assert!(plan(&wanted, &actual, &limits()).is_empty());
}

#[test]
fn a_changed_policy_gets_a_new_row_and_the_label_stays() {
    let mut actual = empty();
    for mark in 1..20 {
        let wanted = entries([(block(1), entry("a", mark))]);
        let next = plan(&wanted, &actual, &limits());
        assert_eq!(next.left_out, LeftOut::default());
        apply(&mut actual, &next);
        assert_eq!(actual.labels.len(), 1);
        let entry = actual.entries[&block(1)];
        assert_eq!(actual.policies[entry.policy as usize].mark, mark);
    }
}

#[test]
fn adds_before_it_removes_and_blocks_go_first() {
    let mut actual = empty();
    let host = Key::Host([7; 16]);
    let wanted = entries([(block(1), entry("a", 1)), (host, entry("b", 1))]);
    let first = plan(&wanted, &actual, &limits());
    assert_eq!(
        first.set[0].0, host,
        "what a block refers to is there before it"
    );
    apply(&mut actual, &first);
    let last = plan(&Wanted::default(), &actual, &limits());
    assert_eq!(last.remove, [block(1), host]);
    apply(&mut actual, &last);
    assert!(actual.entries.is_empty());
}

#[test]
fn what_finds_no_room_is_said_and_what_is_there_stays() {
    let mut actual = empty();
    let wanted = entries((0..8).map(|number| (block(number), entry("a", 1))));
    let first = plan(&wanted, &actual, &limits());
    apply(&mut actual, &first);
    let wanted = entries((0..12).map(|number| (block(number), entry("a", 1))));
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.ipv4_blocks, 4);
    assert!(next.is_empty());
}

#[test]
fn labels_beyond_the_groups_are_counted_as_other() {
    let mut actual = empty();
    let wanted = entries((0..8).map(|number| (block(number), entry(&number.to_string(), 1))));
    let next = plan(&wanted, &actual, &limits());
    apply(&mut actual, &next);
    // Group 0 is none, 5 is other: four labels of their own.
    assert_eq!(next.left_out.groups, 4);
    assert_eq!(actual.labels[&5], Label::overflow());
    assert!(plan(&wanted, &actual, &limits()).is_empty());
}

#[test]
fn all_rows_can_be_replaced_at_once() {
    let mut actual = empty();
    actual.policies = vec![Row::default(); 8];
    for round in 1..5 {
        let marked = |number: u8| (block(number), entry("a", round * 10 + u32::from(number)));
        let next = plan(&entries((0..4).map(marked)), &actual, &limits());
        assert_eq!(next.left_out, LeftOut::default(), "round {round}");
        apply(&mut actual, &next);
    }
    let marked = |number: u8| (block(number), entry("a", 90 + u32::from(number)));
    let more = plan(&entries((0..5).map(marked)), &actual, &limits());
    assert_eq!(more.left_out.policies, 1, "one more than the limit");
}

#[test]
fn an_entry_that_cannot_be_replaced_keeps_its_choices() {
    let mut actual = empty();
    actual.policies = vec![Row::default(); 16];
    let before = by_client(&[(block(1), 1)], 7, 2);
    let next = plan(&before, &actual, &limits());
    apply(&mut actual, &next);
    // Four rows are wanted for the others, and there is room for four.
    let mut wanted = entries((2..6).map(|number| (block(number), entry("a", number.into()))));
    wanted
        .entries
        .extend(by_client(&[(block(9), 1)], 8, 2).entries);
    let moved = wanted.entries.remove(&block(9)).unwrap();
    let mut trusted_less = moved;
    trusted_less.meaning.as_mut().unwrap().row.tier = 2;
    wanted.entries.insert(block(1), trusted_less);
    wanted.clients = by_client(&[], 8, 2).clients;
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.policies, 1);
    apply(&mut actual, &next);
    whole(&actual);
}

#[test]
fn choices_stay_within_their_limit() {
    let mut actual = empty();
    actual.policies = vec![Row::default(); 32];
    let limits = Limits {
        policies: 16,
        ..limits()
    };
    // Eight fit; each round keeps some sets and brings others.
    for round in 0..10_u32 {
        let all: Vec<_> = (0..4)
            .map(|number| (block(number), 1 + (round + u32::from(number)) % 6))
            .collect();
        let next = plan(&by_client(&all, 7, 2), &actual, &limits);
        assert_eq!(next.left_out, LeftOut::default(), "round {round}");
        apply(&mut actual, &next);
        assert!(actual.choices.len() <= 8, "{}", actual.choices.len());
    }
}

#[test]
fn rows_beyond_the_policies_leave_the_entry_as_it_is() {
    let mut actual = empty();
    let wanted = entries((0..6).map(|number| (block(number), entry("a", number.into()))));
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.policies, 2);
    apply(&mut actual, &next);
    assert_eq!(actual.entries.len(), 4);
}
