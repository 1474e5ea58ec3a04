//! One data plane after another: what the next takes over from those before it.
//!
//! Every step can be done again: an agent that dies in the middle is followed by one that does the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wificall_common::abi::{Counters, EXIT_SLOTS, GroupLabel};

use super::{
    Plane,
    error::KernelError,
    maps,
    migrate::{self, Totals},
};

/// How long a program that was replaced may still be running on another CPU. Programs run for less than a microsecond
/// with preemption or migration off; this leaves room for a slow box.
const GRACE: Duration = Duration::from_millis(20);

/// The label, as the kernel keeps it, of the group that counts what finds no group of its own. It is the last one.
pub const OTHER: &[u8] = b"other\0other";

impl Plane {
    /// Takes over what has to be there before anything is attached: a group for every label, the records of filters, so that
    /// those are replaced and not doubled, and the exits of tunnels.
    pub(super) fn adopt(&mut self) -> Result<(), KernelError> {
        let labels = self.maps.labels()?;
        let mut known: BTreeSet<_> = labels.values().map(|label| label.bytes).collect();
        let mut next = (1..).find(|index| !labels.contains_key(index)).unwrap_or(1);
        // The newest last: what it says of a tunnel is what holds.
        for older in self.older.iter().rev() {
            for (key, tunnel) in maps::tunnels_in(&older.path)? {
                self.maps.set_tunnel(key, tunnel)?;
            }
        }
        // Newest first.
        for older in &self.older {
            if migrate::meta(&older.path)?.is_some() {
                for (label, _) in migrate::totals(&older.path)?.groups {
                    let bytes = migrate::padded(&label);
                    if next + 1 < self.limits.groups && known.insert(bytes) {
                        self.maps.set_label(next, GroupLabel { bytes })?;
                        next += 1;
                    }
                }
            }
            for (key, record) in maps::filters_in(&older.path)? {
                if !self.maps.hooks()?.iter().any(|(taken, _)| *taken == key) {
                    self.maps.set_hook(key, record)?;
                }
            }
        }
        Ok(())
    }

    /// Carries the counters of the data planes before this one over and removes them. To be called once nothing runs
    /// their programs any more.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or written; it can be called again.
    pub fn finish_migration(&mut self) -> Result<(), KernelError> {
        if self.older.is_empty() {
            return Ok(());
        }
        std::thread::sleep(GRACE);
        let mut meta = self.maps.meta()?;
        if meta.carried == 0 {
            self.carry(migrate::sum(&self.older)?)?;
            meta.carried = 1;
            self.maps.set_meta(meta)?;
        }
        for older in &self.older {
            older.remove()?;
        }
        self.older.clear();
        Ok(())
    }

    /// Writes totals as what was counted before. What finds no group any more goes to the last.
    fn carry(&mut self, totals: Totals) -> Result<(), KernelError> {
        let labels = self.maps.labels()?;
        let groups: BTreeMap<_, _> = labels
            .iter()
            .map(|(index, label)| (label.bytes, *index))
            .collect();
        let last = self.limits.groups.saturating_sub(1);
        let mut sums: BTreeMap<u32, Counters> = BTreeMap::new();
        for (label, counters) in totals.groups {
            let bytes = migrate::padded(&label);
            let index = groups.get(&bytes).copied().unwrap_or(last);
            maps::add(sums.entry(index).or_default(), &counters);
        }
        if sums.contains_key(&last) && !labels.contains_key(&last) {
            let bytes = migrate::padded(OTHER);
            self.maps.set_label(last, GroupLabel { bytes })?;
        }
        for (index, counters) in sums {
            self.maps.set_carried(index, counters)?;
        }
        for (slot, count) in (0..EXIT_SLOTS).zip(totals.exits) {
            self.maps.set_carried_exit(slot, count)?;
        }
        Ok(())
    }
}
