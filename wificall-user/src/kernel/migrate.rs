//! Carrying counters from one data plane to the next.
//!
//! An older data plane is read by the sizes of its maps, not by this program's types: classes and exits are only ever
//! appended to, so what is there stands where it always stood.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::{maps::MapData, util::nr_cpus};
use wificall_common::abi::{Counter, Counters, LABEL_LEN, META_MAGIC, Meta};

use super::{
    error::{Context as _, KernelError},
    pins::Generation,
};

/// `BPF_MAP_LOOKUP_ELEM` (uapi/linux/bpf.h).
const LOOKUP: libc::c_int = 1;

/// The totals of a data plane.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// By group: label (`operator\0country`) and counters.
    pub groups: Vec<(Vec<u8>, Counters)>,
    /// By exit slot.
    pub exits: Vec<u64>,
}

/// What `META` says of the maps in `directory`; `None` if it was never written or is not ours.
///
/// # Errors
///
/// If the map cannot be read.
pub(super) fn meta(directory: &Path) -> Result<Option<Meta>, KernelError> {
    let path = directory.join("META");
    if !path.exists() {
        return Ok(None);
    }
    let map = RawMap::open(&path)?;
    let bytes = map.value(0)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    if bytes.len() < size_of::<Meta>() || word(0) != META_MAGIC {
        return Ok(None);
    }
    Ok(Some(Meta {
        magic: word(0),
        nonce: word(8),
        abi: half(16),
        carried: half(20),
    }))
}

/// Reads the totals of the data plane in `directory`, of this ABI or an older one.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn totals(directory: &Path) -> Result<Totals, KernelError> {
    let carried_over = meta(directory)?.is_some_and(|meta| meta.carried != 0);
    let groups = RawMap::open(&directory.join("GROUPS"))?;
    let counters = RawMap::open(&directory.join("COUNTERS"))?;
    let carried = RawMap::open(&directory.join("CARRIED"))?;
    let mut totals = Totals::default();
    let last = groups.entries.saturating_sub(1);
    // As in `Maps::labels`.
    let mut index = 1;
    while index <= last {
        let mut label = groups.value(index)?;
        if label.first().is_none_or(|byte| *byte == 0) {
            index = if index < last { last } else { break };
            continue;
        }
        label.truncate(LABEL_LEN);
        let mut sum = Counters::default();
        for value in counters.values(index)? {
            add(&mut sum, &value);
        }
        if carried_over {
            add(&mut sum, &carried.value(index)?);
        }
        totals.groups.push((label, sum));
        index += 1;
    }
    let exits = RawMap::open(&directory.join("EXITS"))?;
    let carried = RawMap::open(&directory.join("CARRIED_EXITS"))?;
    for slot in 0..exits.entries {
        let mut sum: u64 = exits
            .values(slot)?
            .iter()
            .map(|value| first_u64(value))
            .sum();
        if carried_over {
            sum += first_u64(&carried.value(slot)?);
        }
        totals.exits.push(sum);
    }
    Ok(totals)
}

/// The totals of several data planes, newest first, down to the one whose counters hold those of all before it. Those
/// that an agent began to make and did not finish count nothing.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn sum(generations: &[Generation]) -> Result<Totals, KernelError> {
    let mut all = Totals::default();
    for generation in generations {
        let Some(meta) = meta(&generation.path)? else {
            continue;
        };
        let totals = totals(&generation.path)?;
        all.groups.extend(totals.groups);
        all.exits.resize(totals.exits.len().max(all.exits.len()), 0);
        for (sum, count) in all.exits.iter_mut().zip(totals.exits) {
            *sum += count;
        }
        if meta.carried != 0 {
            break;
        }
    }
    Ok(all)
}

/// A label in the room that this ABI has for it.
pub(super) fn padded(label: &[u8]) -> [u8; LABEL_LEN] {
    let mut bytes = [0; LABEL_LEN];
    let len = label.len().min(LABEL_LEN);
    bytes[..len].copy_from_slice(&label[..len]);
    bytes
}

/// Adds counters of any number of classes: two directions, each a row of packets and bytes.
fn add(sum: &mut Counters, value: &[u8]) {
    let row = value.len() / sum.cells.len();
    for (cells, bytes) in sum.cells.iter_mut().zip(value.chunks_exact(row)) {
        for (cell, bytes) in cells
            .iter_mut()
            .zip(bytes.chunks_exact(size_of::<Counter>()))
        {
            cell.packets += first_u64(bytes);
            cell.bytes += first_u64(&bytes[8..]);
        }
    }
}

fn first_u64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A map read by number and size; aya's maps are typed, and an older ABI's types are gone.
struct RawMap {
    data: MapData,
    entries: u32,
    value_size: usize,
    per_cpu: usize,
    name: String,
}

impl RawMap {
    fn open(path: &Path) -> Result<Self, KernelError> {
        let opening = || format!("open map {}", path.display());
        let data = MapData::from_pin(path).doing(opening)?;
        let info = data.info().doing(opening)?;
        let per_cpu = match info.map_type().doing(opening)? {
            aya::maps::MapType::PerCpuArray => nr_cpus()
                .map_err(|(_, error)| error)
                .doing(|| "count the CPUs".into())?,
            _ => 1,
        };
        Ok(Self {
            entries: info.max_entries(),
            value_size: info.value_size() as usize,
            per_cpu,
            name: path.display().to_string(),
            data,
        })
    }

    /// The value of an entry, per CPU.
    fn values(&self, index: u32) -> Result<Vec<Vec<u8>>, KernelError> {
        // The kernel rounds per-CPU values up to eight bytes (`bpf_percpu_array_copy()`).
        let stride = self.value_size.next_multiple_of(8);
        let mut bytes = vec![0; stride * self.per_cpu];
        let attributes = Lookup {
            fd: self.data.fd().as_fd().as_raw_fd() as u32,
            _pad: 0,
            key: &raw const index as u64,
            value: bytes.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the attributes are those of this command; key and value live until it returns, and the value has
        // room for every CPU.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP,
                &raw const attributes,
                size_of::<Lookup>(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error())
                .doing(|| format!("read entry {index} of map {}", self.name));
        }
        Ok(bytes
            .chunks_exact(stride)
            .map(|value| value[..self.value_size].to_vec())
            .collect())
    }

    fn value(&self, index: u32) -> Result<Vec<u8>, KernelError> {
        self.values(index)
            .map(|mut values| values.pop().unwrap_or_default())
    }
}

/// `union bpf_attr` of `BPF_MAP_*_ELEM` (uapi/linux/bpf.h).
#[repr(C)]
struct Lookup {
    fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}
