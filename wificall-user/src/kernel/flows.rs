//! Flows: what the programs keep of tunnels (map `FLOWS`), read one by one, or all of them in slices.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use wificall_common::abi::{Flow, FlowFate, FlowKey};

use super::{
    error::{Context as _, KernelError},
    maps::{Raw, absent},
};

/// `BPF_MAP_LOOKUP_BATCH` (Linux 5.6, include/uapi/linux/bpf.h): aya has no call for it.
const LOOKUP_BATCH: libc::c_long = 24;
/// Flows that a slice has room for at least: the kernel gives whole buckets, and refuses if one does not fit.
const SLICE: usize = 512;

/// The maps of flows.
pub(super) struct Flows {
    map: HashMap<MapData, Raw<FlowKey>, Raw<Flow>>,
    /// The same map once more, for its descriptor.
    data: MapData,
    counts: PerCpuArray<MapData, u64>,
    room: Array<MapData, u64>,
}

/// How far all flows have been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(Option<u32>);

/// Some of all flows, and where the next ones begin; `None`: these were the last.
pub type Slice = (Vec<(FlowKey, Flow)>, Option<Place>);

/// `union bpf_attr`, as batches use it.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Flows {
    /// Opens the maps pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        let pinned = |name: &str| {
            let path = directory.join(name);
            let data = MapData::from_pin(&path);
            data.doing(|| format!("open map {}", path.display()))
        };
        let opening = || "open map FLOWS".to_owned();
        Ok(Self {
            map: HashMap::try_from(Map::LruHashMap(pinned("FLOWS")?)).doing(opening)?,
            data: pinned("FLOWS")?,
            room: Array::try_from(Map::Array(pinned("FLOW_ROOM")?))
                .doing(|| "open map FLOW_ROOM".into())?,
            counts: PerCpuArray::try_from(Map::PerCpuArray(pinned("FLOW_COUNTS")?))
                .doing(|| "open map FLOW_COUNTS".into())?,
        })
    }

    /// A flow; `None` if it is not in the table. Reading does not count as use.
    pub(super) fn get(&self, key: &FlowKey) -> Result<Option<Flow>, KernelError> {
        match self.map.get(&Raw(*key), 0) {
            Ok(Raw(flow)) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).doing(|| "read map FLOWS".into()),
        }
    }

    pub(super) fn remove(&mut self, key: FlowKey) -> Result<(), KernelError> {
        absent(self.map.remove(&Raw(key))).doing(|| "remove from map FLOWS".into())
    }

    /// How many flows may enter from now on.
    pub(super) fn set_room(&mut self, room: u64) -> Result<(), KernelError> {
        self.room
            .set(0, room, 0)
            .doing(|| "write map FLOW_ROOM".into())
    }

    pub(super) fn counts(&self) -> Result<Vec<(FlowFate, u64)>, KernelError> {
        FlowFate::ALL
            .into_iter()
            .map(|fate| {
                let values = self.counts.get(&(fate as u32), 0);
                let values = values.doing(|| "read map FLOW_COUNTS".into())?;
                Ok((fate, values.iter().sum()))
            })
            .collect()
    }

    /// The next slice of all flows, and where the one after it begins; `None`: that was the last.
    pub(super) fn slice(&self, place: Place) -> Result<Slice, KernelError> {
        let mut room = SLICE;
        loop {
            match self.batch(place, room) {
                // A bucket with more flows than that.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < SLICE << 6 => {
                    room *= 4;
                }
                result => return result.doing(|| "read a slice of map FLOWS".into()),
            }
        }
    }

    fn batch(&self, Place(place): Place, room: usize) -> io::Result<Slice> {
        let mut keys = vec![FlowKey::default(); room];
        let mut flows = vec![Flow::default(); room];
        let from = place.unwrap_or_default();
        let mut to = 0_u32;
        let mut attributes = Batch {
            in_batch: place.map_or(0, |_| &raw const from as u64),
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: flows.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: self.data.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes name buffers of as many keys and values as they say, which live until it returns; keys and
        // values are plain data, of the sizes that the map's shape was checked to have.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Batch>(),
            )
        };
        let error = io::Error::last_os_error();
        // It ends with ENOENT, which may come with the last flows.
        let ends = result < 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result < 0 && !ends {
            return Err(error);
        }
        let count = attributes.count as usize;
        keys.truncate(count);
        flows.truncate(count);
        let next = (!ends).then_some(Place(Some(to)));
        Ok((keys.into_iter().zip(flows).collect(), next))
    }
}
