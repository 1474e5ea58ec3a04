//! Plans applied to a kernel of paper.

use std::collections::BTreeSet;

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
    for (key, entry) in &plan.set {
        if entry.group != 0 {
            assert!(actual.labels.contains_key(&entry.group));
            assert_ne!(actual.policies[entry.policy as usize].valid, 0);
        }
        actual.entries.insert(*key, *entry);
    }
    for key in &plan.remove {
        assert!(actual.entries.remove(key).is_some());
    }
    let slots: BTreeSet<u32> = actual.entries.values().map(|entry| entry.slot).collect();
    assert_eq!(
        slots.len(),
        actual.entries.len(),
        "each entry has a slot of its own"
    );
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
        }),
        flags: 0,
        members: [u32::MAX; 8],
    }
}

#[test]
fn from_nothing_and_then_nothing_to_do() {
    let wanted = Desired::from([(block(1), entry("a", 1)), (block(2), entry("b", 1))]);
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
        let wanted = Desired::from([(block(1), entry("a", mark))]);
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
    let wanted = Desired::from([(block(1), entry("a", 1)), (host, entry("b", 1))]);
    let first = plan(&wanted, &actual, &limits());
    assert_eq!(
        first.set[0].0, host,
        "what a block refers to is there before it"
    );
    apply(&mut actual, &first);
    let last = plan(&Desired::new(), &actual, &limits());
    assert_eq!(last.remove, [block(1), host]);
    apply(&mut actual, &last);
    assert!(actual.entries.is_empty());
}

#[test]
fn what_finds_no_room_is_said_and_what_is_there_stays() {
    let mut actual = empty();
    let wanted: Desired = (0..8)
        .map(|number| (block(number), entry("a", 1)))
        .collect();
    let first = plan(&wanted, &actual, &limits());
    apply(&mut actual, &first);
    let wanted: Desired = (0..12)
        .map(|number| (block(number), entry("a", 1)))
        .collect();
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.ipv4_blocks, 4);
    assert!(next.is_empty());
}

#[test]
fn labels_beyond_the_groups_are_counted_as_other() {
    let mut actual = empty();
    let wanted: Desired = (0..8)
        .map(|number| (block(number), entry(&number.to_string(), 1)))
        .collect();
    let next = plan(&wanted, &actual, &limits());
    apply(&mut actual, &next);
    // Group 0 is none, 5 is other: four labels of their own.
    assert_eq!(next.left_out.groups, 4);
    assert_eq!(actual.labels[&5], Label::overflow());
    assert!(plan(&wanted, &actual, &limits()).is_empty());
}

#[test]
fn rows_beyond_the_policies_leave_the_entry_as_it_is() {
    let mut actual = empty();
    let wanted: Desired = (0..6)
        .map(|number| (block(number), entry("a", number.into())))
        .collect();
    let next = plan(&wanted, &actual, &limits());
    assert_eq!(next.left_out.policies, 2);
    apply(&mut actual, &next);
    assert_eq!(actual.entries.len(), 4);
}
