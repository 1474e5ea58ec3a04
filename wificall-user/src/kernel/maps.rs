//! The maps, typed.

mod clients;
mod counts;
mod endpoints;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key as LpmKey},
};
use wificall_common::abi::{
    Choice, ChoiceKey, ClientKey, Counters, Destination, EndpointRef, Flow, FlowKey, GroupLabel,
    HookKey, HookRecord, InterfaceKey, Members, Meta, OTHERS_SIZE, Policy, StationKey, Tunnel,
    TunnelKey,
};

pub use self::{
    clients::Numbered,
    endpoints::{Entry, Key},
};
pub(super) use self::{counts::add, tunnels::tunnels_in};
use super::{
    blocks::Blocks,
    error::{Context as _, KernelError},
    flows::Flows,
};

/// A type of `wificall_common::abi` as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

/// Plain data without padding, of which every bit pattern is a value.
///
/// # Safety
///
/// As said.
pub(super) unsafe trait Abi: Copy + 'static {}
// SAFETY: integers and arrays of integers with explicit padding, sizes asserted where they are declared.
unsafe impl Abi for EndpointRef {}
// SAFETY: as above.
unsafe impl Abi for Policy {}
// SAFETY: as above.
unsafe impl Abi for Counters {}
// SAFETY: as above.
unsafe impl Abi for Meta {}
// SAFETY: as above.
unsafe impl Abi for GroupLabel {}
// SAFETY: as above.
unsafe impl Abi for HookKey {}
// SAFETY: as above.
unsafe impl Abi for HookRecord {}
// SAFETY: as above.
unsafe impl Abi for Destination {}
// SAFETY: as above.
unsafe impl Abi for ClientKey {}
// SAFETY: as above.
unsafe impl Abi for StationKey {}
// SAFETY: as above.
unsafe impl Abi for InterfaceKey {}
// SAFETY: as above.
unsafe impl Abi for ChoiceKey {}
// SAFETY: as above.
unsafe impl Abi for Choice {}
// SAFETY: as above.
unsafe impl Abi for TunnelKey {}
// SAFETY: as above.
unsafe impl Abi for Tunnel {}
// SAFETY: as above.
unsafe impl Abi for FlowKey {}
// SAFETY: as above.
unsafe impl Abi for Flow {}
// SAFETY: transparent around plain data.
unsafe impl<T: Abi> Pod for Raw<T> {}

/// The open maps of a data plane.
pub(super) struct Maps {
    blocks4: Blocks<[u8; 4]>,
    members: HashMap<MapData, [u8; 4], Members>,
    blocks6: Blocks<[u8; 8]>,
    hosts: HashMap<MapData, [u8; 16], Raw<EndpointRef>>,
    companions: HashMap<MapData, [u8; 16], Raw<EndpointRef>>,
    prefixes: LpmTrie<MapData, [u8; 16], Raw<EndpointRef>>,
    policies: Array<MapData, Raw<Policy>>,
    groups: Array<MapData, Raw<GroupLabel>>,
    counters: PerCpuArray<MapData, Raw<Counters>>,
    carried: Array<MapData, Raw<Counters>>,
    exits: PerCpuArray<MapData, u64>,
    carried_exits: Array<MapData, u64>,
    activity: Array<MapData, u32>,
    meta: Array<MapData, Raw<Meta>>,
    hooks: HashMap<MapData, Raw<HookKey>, Raw<HookRecord>>,
    event_counts: PerCpuArray<MapData, u64>,
    names: HashMap<MapData, u64, u8>,
    spared: LpmTrie<MapData, [u8; 16], u8>,
    others: HashMap<MapData, [u8; 16], Raw<Destination>>,
    clients: LpmTrie<MapData, Raw<ClientKey>, u32>,
    stations: HashMap<MapData, Raw<StationKey>, u32>,
    interfaces: HashMap<MapData, Raw<InterfaceKey>, u32>,
    choices: HashMap<MapData, Raw<ChoiceKey>, Raw<Choice>>,
    keep: Array<MapData, u32>,
    gateways: HashMap<MapData, [u8; 16], u8>,
    tunnels: HashMap<MapData, Raw<TunnelKey>, Raw<Tunnel>>,
    pub(super) flows: Flows,
}

macro_rules! open {
    ($directory:expr, $name:literal, $kind:ident) => {{
        let path = $directory.join($name);
        let opening = || format!("open map {}", path.display());
        let data = MapData::from_pin(&path).doing(opening)?;
        Map::$kind(data).try_into().doing(opening)?
    }};
}

impl Maps {
    /// Opens the maps pinned in `directory`, whose shapes were checked before.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            blocks4: Blocks::open(directory)?,
            members: open!(directory, "MEMBERS", HashMap),
            blocks6: Blocks::open(directory)?,
            hosts: open!(directory, "HOSTS", HashMap),
            companions: open!(directory, "COMPANION_HOSTS", HashMap),
            prefixes: open!(directory, "PREFIXES", LpmTrie),
            policies: open!(directory, "POLICIES", Array),
            groups: open!(directory, "GROUPS", Array),
            counters: open!(directory, "COUNTERS", PerCpuArray),
            carried: open!(directory, "CARRIED", Array),
            exits: open!(directory, "EXITS", PerCpuArray),
            carried_exits: open!(directory, "CARRIED_EXITS", Array),
            activity: open!(directory, "ACTIVITY", Array),
            meta: open!(directory, "META", Array),
            hooks: open!(directory, "CLSACT_HOOKS", HashMap),
            event_counts: open!(directory, "EVENT_COUNTS", PerCpuArray),
            names: open!(directory, "NAMES", HashMap),
            spared: open!(directory, "SPARED", LpmTrie),
            others: open!(directory, "OTHERS", LruHashMap),
            clients: open!(directory, "CLIENTS", LpmTrie),
            stations: open!(directory, "STATIONS", HashMap),
            interfaces: open!(directory, "INTERFACES", HashMap),
            choices: open!(directory, "CHOICES", HashMap),
            keep: open!(directory, "KEEP", Array),
            gateways: open!(directory, "GATEWAYS", HashMap),
            tunnels: open!(directory, "TUNNELS", LruHashMap),
            flows: Flows::open(directory)?,
        })
    }

    pub(super) fn policies(&self) -> Result<Vec<Policy>, KernelError> {
        self.policies
            .iter()
            .map(|row| row.map(|Raw(policy)| policy))
            .collect::<Result<_, _>>()
            .doing(|| "read map POLICIES".into())
    }

    pub(super) fn set_policy(&mut self, index: u32, policy: Policy) -> Result<(), KernelError> {
        self.policies
            .set(index, Raw(policy), 0)
            .doing(|| format!("write policy {index}"))
    }

    /// Makes these the names; how many find no room.
    pub(super) fn set_names(&mut self, names: &BTreeSet<u64>) -> Result<usize, KernelError> {
        let present = self
            .names
            .keys()
            .collect::<Result<BTreeSet<_>, _>>()
            .doing(|| "read map NAMES".into())?;
        for name in present.difference(names) {
            match self.names.remove(name) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).doing(|| "remove a name from map NAMES".into()),
            }
        }
        let mut left_out = 0;
        for name in names.difference(&present) {
            match self.names.insert(name, 0, 0) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
                {
                    left_out += 1;
                }
                Err(error) => return Err(error).doing(|| "add a name to map NAMES".into()),
            }
        }
        Ok(left_out)
    }

    /// Makes these the networks that other IPsec may go to, by length in bits and address, IPv4 mapped; how many find no
    /// room. Those that come are there before those that go have gone.
    pub(super) fn set_spared(
        &mut self,
        networks: &BTreeSet<(u32, [u8; 16])>,
    ) -> Result<usize, KernelError> {
        let present = self
            .spared
            .keys()
            .map(|key| key.map(|key| (key.prefix_len(), key.data())))
            .collect::<Result<BTreeSet<_>, _>>()
            .doing(|| "read map SPARED".into())?;
        let mut left_out = 0;
        for (len, address) in networks.difference(&present) {
            match self.spared.insert(&LpmKey::new(*len, *address), 0, 0) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::ENOSPC) =>
                {
                    left_out += 1;
                }
                Err(error) => return Err(error).doing(|| "add a network to map SPARED".into()),
            }
        }
        for (len, address) in present.difference(networks) {
            absent(self.spared.remove(&LpmKey::new(*len, *address)))
                .doing(|| "remove a network from map SPARED".into())?;
        }
        Ok(left_out)
    }

    /// Where other IPsec has gone. What makes room for others meanwhile may be missing.
    pub(super) fn others(&self) -> Result<Vec<([u8; 16], Destination)>, KernelError> {
        let mut found = BTreeMap::new();
        // Behind a key that was forgotten meanwhile the kernel begins again (`htab_map_get_next_key()`).
        for key in self.others.keys().take(2 * OTHERS_SIZE as usize) {
            let key = key.doing(|| "read map OTHERS".into())?;
            match self.others.get(&key, 0) {
                Ok(Raw(destination)) => drop(found.insert(key, destination)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).doing(|| "read map OTHERS".into()),
            }
        }
        Ok(found.into_iter().collect())
    }

    pub(super) fn meta(&self) -> Result<Meta, KernelError> {
        let Raw(meta) = self.meta.get(&0, 0).doing(|| "read map META".into())?;
        Ok(meta)
    }

    pub(super) fn set_meta(&mut self, meta: Meta) -> Result<(), KernelError> {
        self.meta
            .set(0, Raw(meta), 0)
            .doing(|| "write map META".into())
    }

    pub(super) fn hooks(&self) -> Result<Vec<(HookKey, HookRecord)>, KernelError> {
        self.hooks
            .iter()
            .map(|pair| pair.map(|(Raw(key), Raw(record))| (key, record)))
            .collect::<Result<_, _>>()
            .doing(|| "read map CLSACT_HOOKS".into())
    }

    pub(super) fn set_hook(&mut self, key: HookKey, record: HookRecord) -> Result<(), KernelError> {
        self.hooks
            .insert(Raw(key), Raw(record), 0)
            .doing(|| format!("record the filter on interface {}", key.ifindex))
    }

    pub(super) fn remove_hook(&mut self, key: HookKey) -> Result<(), KernelError> {
        absent(self.hooks.remove(&Raw(key)))
            .doing(|| format!("forget the filter on interface {}", key.ifindex))
    }
}

/// Removing what is not there is no failure. aya hands the kernel's ENOENT on as it is.
pub(super) fn absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    }
}

/// The clsact filters recorded in the maps of `directory`, which may be of an older ABI: the layout of `CLSACT_HOOKS` is
/// the same in all. None if the map was never made.
pub(super) fn filters_in(directory: &Path) -> Result<Vec<(HookKey, HookRecord)>, KernelError> {
    if !directory.join("CLSACT_HOOKS").exists() {
        return Ok(Vec::new());
    }
    let hooks: HashMap<MapData, Raw<HookKey>, Raw<HookRecord>> =
        open!(directory, "CLSACT_HOOKS", HashMap);
    hooks
        .iter()
        .map(|pair| pair.map(|(Raw(key), Raw(record))| (key, record)))
        .collect::<Result<_, _>>()
        .doing(|| "read map CLSACT_HOOKS".into())
}
