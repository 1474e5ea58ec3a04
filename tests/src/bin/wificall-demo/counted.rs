//! What the agent says that it counted: a scrape of its `/metrics`, less an earlier one.

use std::collections::BTreeMap;

use wificall_tests::metrics::{Labels, Metrics};

use crate::tally::{Count, Direction};

/// Operator, country and class, as the labels have them.
pub type Call = (String, String, String);

/// The counters that the demonstration shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By call and direction; those of nothing are left out.
    pub calls: BTreeMap<(Call, Direction), Count>,
    /// Ways out of the programs, by hook and exit; likewise.
    pub exits: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counted {
    /// What `metrics` has more than `before`.
    pub fn since(before: &Metrics, metrics: &Metrics) -> Self {
        let mut counted = Self::default();
        for (labels, packets) in more(before, metrics, "wificall_packets_total") {
            counted.call(&labels).packets += packets;
        }
        for (labels, bytes) in more(before, metrics, "wificall_bytes_total") {
            counted.call(&labels).bytes += bytes;
        }
        for (labels, frames) in more(before, metrics, "wificall_exits_total") {
            let exits = counted.exits.entry(label(&labels, "hook")).or_default();
            *exits.entry(label(&labels, "exit")).or_default() += frames;
        }
        counted
    }

    /// What was counted of a call in a direction.
    pub fn way(&self, call: &Call, direction: Direction) -> Count {
        let key = (call.clone(), direction);
        self.calls.get(&key).copied().unwrap_or_default()
    }

    /// Frames that took `exit` at `hook`.
    pub fn exit(&self, hook: &str, exit: &str) -> u64 {
        let exits = self.exits.get(hook);
        exits
            .and_then(|exits| exits.get(exit))
            .copied()
            .unwrap_or_default()
    }

    /// Frames that `hook` saw.
    pub fn frames(&self, hook: &str) -> u64 {
        self.exits.get(hook).map_or(0, |exits| exits.values().sum())
    }

    fn call(&mut self, labels: &Labels) -> &mut Count {
        let direction = if label(labels, "direction") == Direction::Up.name() {
            Direction::Up
        } else {
            Direction::Down
        };
        let call = ["operator", "country", "class"]
            .map(|key| label(labels, key))
            .into();
        self.calls.entry((call, direction)).or_default()
    }
}

/// The samples of `name` that have grown, and by how much.
fn more(before: &Metrics, metrics: &Metrics, name: &str) -> Vec<(Labels, u64)> {
    let samples = metrics.select(name, &[]).map(|(labels, value)| {
        let known: Vec<_> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        (
            labels.clone(),
            (value as u64).saturating_sub(before.sum(name, &known)),
        )
    });
    samples.filter(|(_, value)| *value > 0).collect()
}

fn label(labels: &Labels, key: &str) -> String {
    labels.get(key).cloned().unwrap_or_default()
}
