//! What the programs have counted, and whose counts they are.

use std::collections::BTreeMap;

use aya::maps::{MapError, PerCpuValues};
use wificall_common::abi::{CELLS, Counter, Counters, EXIT_SLOTS, GroupLabel};

use super::{Maps, Raw};
use crate::kernel::error::{Context as _, KernelError};

impl Maps {
    /// The label of every group ever given out, by group.
    pub(in crate::kernel) fn labels(&self) -> Result<BTreeMap<u32, GroupLabel>, KernelError> {
        let mut labels = BTreeMap::new();
        let last = self.groups.len().saturating_sub(1);
        // Labels are given out from the front and never taken back, but for the last one, which collects the rest.
        let mut index = 1;
        while index <= last {
            let Raw(label) = self
                .groups
                .get(&index, 0)
                .doing(|| format!("read label {index}"))?;
            if label.bytes[0] != 0 {
                labels.insert(index, label);
                index += 1;
            } else if index < last {
                index = last;
            } else {
                break;
            }
        }
        Ok(labels)
    }

    pub(in crate::kernel) fn set_label(
        &mut self,
        index: u32,
        label: GroupLabel,
    ) -> Result<(), KernelError> {
        self.groups
            .set(index, Raw(label), 0)
            .doing(|| format!("write label {index}"))
    }

    /// A group's counters, those of data planes before this one included.
    pub(in crate::kernel) fn counters(&self, group: u32) -> Result<Counters, KernelError> {
        let reading = || format!("read the counters of group {group}");
        let values: PerCpuValues<_> = self.counters.get(&group, 0).doing(reading)?;
        let Raw(mut total) = self.carried.get(&group, 0).doing(reading)?;
        for Raw(value) in values.iter() {
            add(&mut total, value);
        }
        Ok(total)
    }

    pub(in crate::kernel) fn set_carried(
        &mut self,
        group: u32,
        counters: Counters,
    ) -> Result<(), KernelError> {
        self.carried
            .set(group, Raw(counters), 0)
            .doing(|| format!("write the carried counters of group {group}"))
    }

    /// The exits, by slot, those of data planes before this one included.
    pub(in crate::kernel) fn exits(&self) -> Result<Vec<u64>, KernelError> {
        (0..EXIT_SLOTS)
            .map(|slot| {
                let values = self.exits.get(&slot, 0)?;
                let carried = self.carried_exits.get(&slot, 0)?;
                Ok(carried + values.iter().sum::<u64>())
            })
            .collect::<Result<_, MapError>>()
            .doing(|| "read map EXITS".into())
    }

    pub(in crate::kernel) fn set_carried_exit(
        &mut self,
        slot: u32,
        count: u64,
    ) -> Result<(), KernelError> {
        self.carried_exits
            .set(slot, count, 0)
            .doing(|| format!("write carried exit {slot}"))
    }

    pub(in crate::kernel) fn activity(&self, slot: u32) -> Result<u32, KernelError> {
        self.activity
            .get(&slot, 0)
            .doing(|| format!("read activity slot {slot}"))
    }

    pub(in crate::kernel) fn event_count(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self
            .event_counts
            .get(&slot, 0)
            .doing(|| format!("read event count {slot}"))?;
        Ok(values.iter().sum())
    }
}

/// Adds `more` to `total`.
pub(in crate::kernel) fn add(total: &mut Counters, more: &Counters) {
    for (sum, cells) in total.cells.iter_mut().zip(&more.cells) {
        for class in 0..CELLS {
            let Counter { packets, bytes } = cells[class];
            sum[class].packets += packets;
            sum[class].bytes += bytes;
        }
    }
}
