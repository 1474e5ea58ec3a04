//! The maps, typed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
};

use aya::{
    Pod,
    maps::{
        Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues,
        lpm_trie::Key as LpmKey,
    },
};
use ipnet::IpNet;
use wificall_common::abi::{
    Block4, Block6, CELLS, Cell, Choice, ChoiceKey, ClientKey, Counter, Counters, Destination,
    EPOCH_BITS, EXIT_SLOTS, EndpointRef, Flow, FlowKey, GroupLabel, HookKey, HookRecord,
    InterfaceKey, Members, Meta, OTHERS_SIZE, Policy, StationKey, Tunnel, TunnelKey,
};

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

/// A key of the endpoint table. The order is the order in which entries are added, and the reverse of that in which they
/// are removed: what refers comes after what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address of a companion name, likewise mapped. No endpoint.
    Companion([u8; 16]),
    /// A single host; IPv4 as `::ffff:a.b.c.d`.
    Host([u8; 16]),
    /// An irregular prefix: length in bits, address; IPv4 mapped likewise, 96 bits longer.
    Prefix(u8, [u8; 16]),
    /// A /24: three bytes and a zero.
    Block4([u8; 4]),
    /// A /64: its first eight bytes.
    Block6([u8; 8]),
}

/// A client or an interface, with the epoch of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Numbered {
    /// Clients by network.
    Network(u32, IpNet),
    /// A client by link-layer address.
    Station(u32, [u8; 6]),
    /// An interface by index.
    Interface(u32, u32),
}

impl Numbered {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        match self {
            Self::Network(epoch, _) | Self::Station(epoch, _) | Self::Interface(epoch, _) => *epoch,
        }
    }
}

/// A value of the endpoint table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Index of the group; 0 in an exception: not an endpoint.
    pub group: u32,
    /// Index of the policy.
    pub policy: u32,
    /// Index of the activity slot.
    pub slot: u32,
    /// `FLAG_…` of a block.
    pub flags: u32,
    /// Members of a /24.
    pub members: [u32; 8],
}

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

    pub(super) fn entries(&self) -> Result<BTreeMap<Key, Entry>, KernelError> {
        let mut all = BTreeMap::new();
        for (key, cell) in self.blocks4.cells()? {
            let members = if cell.is_partial() {
                self.members(key)?
            } else {
                Members::default()
            };
            all.insert(Key::Block4(key), Entry::from(cell.block4(members).1));
        }
        for (key, cell) in self.blocks6.cells()? {
            all.insert(Key::Block6(key), Entry::from(cell.block6().1));
        }
        for pair in self.hosts.iter() {
            let (key, Raw(host)) = pair.doing(|| "read map HOSTS".into())?;
            all.insert(Key::Host(key), Entry::from(host));
        }
        for pair in self.companions.iter() {
            let (key, Raw(host)) = pair.doing(|| "read map COMPANION_HOSTS".into())?;
            all.insert(Key::Companion(key), Entry::from(host));
        }
        for pair in self.prefixes.iter() {
            let (key, Raw(prefix)) = pair.doing(|| "read map PREFIXES".into())?;
            all.insert(
                Key::Prefix(key.prefix_len() as u8, key.data()),
                Entry::from(prefix),
            );
        }
        Ok(all)
    }

    pub(super) fn set(&mut self, key: Key, entry: &Entry) -> Result<(), KernelError> {
        match key {
            Key::Companion(address) => self.companions.insert(address, Raw(entry.into()), 0),
            Key::Host(address) => self.hosts.insert(address, Raw(entry.into()), 0),
            Key::Prefix(len, address) => {
                self.prefixes
                    .insert(&LpmKey::new(len.into(), address), Raw(entry.into()), 0)
            }
            Key::Block4(key) => self.set_block4(key, &entry.into()),
            Key::Block6(key) => {
                let cell = Cell::of6(u64::from_be_bytes(key), &entry.into());
                self.blocks6.set(key, cell)
            }
        }
        .doing(|| format!("add {key:?} to the endpoint table"))
    }

    pub(super) fn remove(&mut self, key: Key) -> Result<(), KernelError> {
        let result = absent(match key {
            Key::Companion(address) => self.companions.remove(&address),
            Key::Host(address) => self.hosts.remove(&address),
            Key::Prefix(len, address) => self.prefixes.remove(&LpmKey::new(len.into(), address)),
            Key::Block4(key) => self
                .blocks4
                .remove(key)
                .and_then(|()| self.members.remove(&key)),
            Key::Block6(key) => self.blocks6.remove(key),
        });
        result.doing(|| format!("remove {key:?} from the endpoint table"))
    }

    /// Members that are no range come before the cell that refers to them and go after it.
    fn set_block4(&mut self, key: [u8; 4], block: &Block4) -> Result<(), MapError> {
        let cell = Cell::of4(u32::from_be_bytes(key), block);
        if cell.is_partial() {
            self.members.insert(key, block.members, 0)?;
            return self.blocks4.set(key, cell);
        }
        self.blocks4.set(key, cell)?;
        absent(self.members.remove(&key))
    }

    fn members(&self, key: [u8; 4]) -> Result<Members, KernelError> {
        match self.members.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(Members::default()),
            result => result.doing(|| "read map MEMBERS".into()),
        }
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

    /// The label of every group ever given out, by group.
    pub(super) fn labels(&self) -> Result<BTreeMap<u32, GroupLabel>, KernelError> {
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

    pub(super) fn set_label(&mut self, index: u32, label: GroupLabel) -> Result<(), KernelError> {
        self.groups
            .set(index, Raw(label), 0)
            .doing(|| format!("write label {index}"))
    }

    /// A group's counters, those of data planes before this one included.
    pub(super) fn counters(&self, group: u32) -> Result<Counters, KernelError> {
        let reading = || format!("read the counters of group {group}");
        let values: PerCpuValues<_> = self.counters.get(&group, 0).doing(reading)?;
        let Raw(mut total) = self.carried.get(&group, 0).doing(reading)?;
        for Raw(value) in values.iter() {
            add(&mut total, value);
        }
        Ok(total)
    }

    pub(super) fn set_carried(
        &mut self,
        group: u32,
        counters: Counters,
    ) -> Result<(), KernelError> {
        self.carried
            .set(group, Raw(counters), 0)
            .doing(|| format!("write the carried counters of group {group}"))
    }

    /// The exits, by slot, those of data planes before this one included.
    pub(super) fn exits(&self) -> Result<Vec<u64>, KernelError> {
        (0..EXIT_SLOTS)
            .map(|slot| {
                let values = self.exits.get(&slot, 0)?;
                let carried = self.carried_exits.get(&slot, 0)?;
                Ok(carried + values.iter().sum::<u64>())
            })
            .collect::<Result<_, MapError>>()
            .doing(|| "read map EXITS".into())
    }

    pub(super) fn set_carried_exit(&mut self, slot: u32, count: u64) -> Result<(), KernelError> {
        self.carried_exits
            .set(slot, count, 0)
            .doing(|| format!("write carried exit {slot}"))
    }

    pub(super) fn activity(&self, slot: u32) -> Result<u32, KernelError> {
        self.activity
            .get(&slot, 0)
            .doing(|| format!("read activity slot {slot}"))
    }

    pub(super) fn event_count(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self
            .event_counts
            .get(&slot, 0)
            .doing(|| format!("read event count {slot}"))?;
        Ok(values.iter().sum())
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

    /// Choices by client.
    pub(super) fn choices(&self) -> Result<BTreeMap<ChoiceKey, Choice>, KernelError> {
        self.choices
            .iter()
            .map(|pair| pair.map(|(Raw(key), Raw(choice))| (key, choice)))
            .collect::<Result<_, _>>()
            .doing(|| "read map CHOICES".into())
    }

    pub(super) fn set_choice(&mut self, key: ChoiceKey, choice: Choice) -> Result<(), KernelError> {
        self.choices
            .insert(Raw(key), Raw(choice), 0)
            .doing(|| format!("add {key:?} to map CHOICES"))
    }

    pub(super) fn remove_choice(&mut self, key: ChoiceKey) -> Result<(), KernelError> {
        absent(self.choices.remove(&Raw(key))).doing(|| format!("remove {key:?} from map CHOICES"))
    }

    /// Clients and interfaces of all epochs, with their classes.
    pub(super) fn numbered(&self) -> Result<BTreeMap<Numbered, u32>, KernelError> {
        let mut all = BTreeMap::new();
        for pair in self.clients.iter() {
            let (key, class) = pair.doing(|| "read map CLIENTS".into())?;
            let Raw(ClientKey { epoch, address }) = key.data();
            let address = IpAddr::from(address).to_canonical();
            let before = u32::from(EPOCH_BITS) + if address.is_ipv4() { 96 } else { 0 };
            let len = key.prefix_len().saturating_sub(before) as u8;
            if let Ok(net) = IpNet::new(address, len) {
                all.insert(Numbered::Network(u32::from_ne_bytes(epoch), net), class);
            }
        }
        for pair in self.stations.iter() {
            let (Raw(key), class) = pair.doing(|| "read map STATIONS".into())?;
            let [_, _, mac @ ..] = key.mac.to_be_bytes();
            all.insert(Numbered::Station(key.epoch, mac), class);
        }
        for pair in self.interfaces.iter() {
            let (Raw(key), class) = pair.doing(|| "read map INTERFACES".into())?;
            all.insert(Numbered::Interface(key.epoch, key.ifindex), class);
        }
        Ok(all)
    }

    pub(super) fn number(&mut self, numbered: Numbered, class: u32) -> Result<(), KernelError> {
        match numbered {
            Numbered::Network(epoch, net) => self.clients.insert(&client(epoch, net), class, 0),
            Numbered::Station(epoch, mac) => {
                self.stations.insert(Raw(station(epoch, mac)), class, 0)
            }
            Numbered::Interface(epoch, ifindex) => {
                self.interfaces
                    .insert(Raw(InterfaceKey { epoch, ifindex }), class, 0)
            }
        }
        .doing(|| format!("number {numbered:?}"))
    }

    pub(super) fn forget(&mut self, numbered: Numbered) -> Result<(), KernelError> {
        absent(match numbered {
            Numbered::Network(epoch, net) => self.clients.remove(&client(epoch, net)),
            Numbered::Station(epoch, mac) => self.stations.remove(&Raw(station(epoch, mac))),
            Numbered::Interface(epoch, ifindex) => self
                .interfaces
                .remove(&Raw(InterfaceKey { epoch, ifindex })),
        })
        .doing(|| format!("forget {numbered:?}"))
    }

    /// What is done about the ESP of tunnels, `KEEP_…`.
    pub(super) fn keep(&self) -> Result<u32, KernelError> {
        self.keep.get(&0, 0).doing(|| "read map KEEP".into())
    }

    pub(super) fn set_keep(&mut self, keep: u32) -> Result<(), KernelError> {
        self.keep.set(0, keep, 0).doing(|| "write map KEEP".into())
    }

    /// The tunnels that have an exit, those seen last.
    pub(super) fn tunnels(&self) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
        read_tunnels(&self.tunnels)
    }

    pub(super) fn tunnel(&self, key: TunnelKey) -> Result<Option<Tunnel>, KernelError> {
        match self.tunnels.get(&Raw(key), 0) {
            Ok(Raw(tunnel)) => Ok(Some(tunnel)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).doing(|| "read map TUNNELS".into()),
        }
    }

    pub(super) fn set_gateways(&mut self, wanted: &BTreeSet<[u8; 16]>) -> Result<(), KernelError> {
        let present = self
            .gateways
            .keys()
            .collect::<Result<BTreeSet<_>, _>>()
            .doing(|| "read map GATEWAYS".into())?;
        for key in wanted.difference(&present) {
            self.gateways
                .insert(key, 0, 0)
                .doing(|| "add to map GATEWAYS".into())?;
        }
        for key in present.difference(wanted) {
            absent(self.gateways.remove(key)).doing(|| "remove from map GATEWAYS".into())?;
        }
        Ok(())
    }

    pub(super) fn set_tunnel(&mut self, key: TunnelKey, tunnel: Tunnel) -> Result<(), KernelError> {
        self.tunnels
            .insert(Raw(key), Raw(tunnel), 0)
            .doing(|| format!("add {key:?} to map TUNNELS"))
    }

    pub(super) fn remove_tunnel(&mut self, key: TunnelKey) -> Result<(), KernelError> {
        absent(self.tunnels.remove(&Raw(key))).doing(|| format!("remove {key:?} from map TUNNELS"))
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

fn client(epoch: u32, net: IpNet) -> LpmKey<Raw<ClientKey>> {
    let (address, before) = match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped(), 96),
        IpNet::V6(net) => (net.network(), 0),
    };
    let key = ClientKey {
        epoch: epoch.to_ne_bytes(),
        address: address.octets(),
    };
    let len = u32::from(EPOCH_BITS) + before + u32::from(net.prefix_len());
    LpmKey::new(len, Raw(key))
}

fn station(epoch: u32, mac: [u8; 6]) -> StationKey {
    let [a, b, c, d, e, f] = mac;
    StationKey {
        mac: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
        epoch,
        reserved: 0,
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

/// The tunnels in the maps of `directory`; none if they were never made, or are of an ABI that has others.
pub(super) fn tunnels_in(directory: &Path) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
    if !directory.join("TUNNELS").exists() {
        return Ok(Vec::new());
    }
    let path = directory.join("TUNNELS");
    let opening = || format!("open map {}", path.display());
    let data = MapData::from_pin(&path).doing(opening)?;
    let Ok(tunnels) = HashMap::try_from(Map::LruHashMap(data)) else {
        return Ok(Vec::new());
    };
    read_tunnels(&tunnels)
}

fn read_tunnels(
    map: &HashMap<MapData, Raw<TunnelKey>, Raw<Tunnel>>,
) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
    let mut tunnels = Vec::new();
    for key in map.keys() {
        let key = key.doing(|| "read map TUNNELS".into())?;
        match map.get(&key, 0) {
            Ok(Raw(tunnel)) => tunnels.push((key.0, tunnel)),
            // It made room for another meanwhile.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).doing(|| "read map TUNNELS".into()),
        }
    }
    Ok(tunnels)
}

/// Adds `more` to `total`.
pub(super) fn add(total: &mut Counters, more: &Counters) {
    for (sum, cells) in total.cells.iter_mut().zip(&more.cells) {
        for class in 0..CELLS {
            let Counter { packets, bytes } = cells[class];
            sum[class].packets += packets;
            sum[class].bytes += bytes;
        }
    }
}

impl From<Block4> for Entry {
    fn from(block: Block4) -> Self {
        let Block4 {
            group,
            policy,
            slot,
            flags,
            members,
        } = block;
        Self {
            group,
            policy,
            slot,
            flags,
            members,
        }
    }
}

impl From<Block6> for Entry {
    fn from(block: Block6) -> Self {
        let Block6 {
            group,
            policy,
            slot,
            flags,
        } = block;
        Self {
            group,
            policy,
            slot,
            flags,
            members: [0; 8],
        }
    }
}

impl From<EndpointRef> for Entry {
    fn from(endpoint: EndpointRef) -> Self {
        Self {
            group: endpoint.group,
            policy: endpoint.policy,
            slot: endpoint.slot,
            flags: 0,
            members: [0; 8],
        }
    }
}

impl From<&Entry> for Block4 {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            flags: entry.flags,
            members: entry.members,
        }
    }
}

impl From<&Entry> for Block6 {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            flags: entry.flags,
        }
    }
}

impl From<&Entry> for EndpointRef {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            reserved: 0,
        }
    }
}
