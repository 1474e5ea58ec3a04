//! The BPF object: what is embedded, how it is configured and loaded.

use std::{collections::BTreeMap, path::Path};

use aya::{Ebpf, EbpfLoader, include_bytes_aligned, maps::MapInfo};
use aya_obj::Object;
use wificall_common::{
    abi::{Features, PREF64S, line_shift, lines},
    wire::nat64::Pref64,
};

use super::error::{Context as _, KernelError};
use crate::config::Limits;

/// The programs and maps, built by `cargo xtask ebpf`.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("WIFICALL_BPF_OBJECT_PATH"));

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Load-time constants of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bits of [`Features`](wificall_common::abi::Features).
    pub features: u32,
    /// The NAT64 prefixes, those that are there first.
    pub pref64: [Option<Pref64>; PREF64S],
    /// Events of each kind a second, on each CPU.
    pub events_per_second: u32,
    /// Value and mask of the mark of other IPsec.
    pub other_mark: [u32; 2],
    /// Unknown addresses that may be caught in a second.
    pub catch_per_second: u32,
    /// The exit of tunnels to unknown addresses: routing table, value and mask of the mark.
    pub catch_exit: [u32; 3],
    /// Flows that may enter the table in a second, on each CPU.
    pub flows_per_second: u32,
    /// Events of flows a second, on each CPU.
    pub flow_events_per_second: u32,
}

impl Settings {
    /// Nanoseconds that an event uses up of the rate of its kind, and of its client's share: an eighth of it, so that no
    /// client's flood leaves nothing for the others.
    fn gaps(&self) -> (u64, u64) {
        const SHARE: u64 = 8;
        let gap = gap(self.events_per_second);
        (gap, gap * SHARE)
    }

    /// Nanoseconds that a caught address uses up of their rate.
    #[must_use]
    pub fn catch_gap(&self) -> u32 {
        // At most a second: it fits.
        (SECOND / u64::from(self.catch_per_second.max(1))) as u32
    }
}

/// Nanoseconds that one uses up of a rate.
fn gap(per_second: u32) -> u64 {
    SECOND / u64::from(per_second.max(1))
}

/// Maps that are pinned: those whose contents outlive an agent.
pub(super) const PINNED: [&str; 33] = [
    "BLOCKS4",
    "BLOCKS6",
    "SPILLED4",
    "SPILLED6",
    "MEMBERS",
    "HOSTS",
    "COMPANION_HOSTS",
    "PREFIXES",
    "POLICIES",
    "COUNTERS",
    "EXITS",
    "FRAGMENTS",
    "ACTIVITY",
    "META",
    "GROUPS",
    "CARRIED",
    "CARRIED_EXITS",
    "CLSACT_HOOKS",
    "EVENTS",
    "EVENT_COUNTS",
    "NAMES",
    "SPARED",
    "OTHERS",
    "CLIENTS",
    "STATIONS",
    "INTERFACES",
    "CHOICES",
    "KEEP",
    "GATEWAYS",
    "TUNNELS",
    "FLOWS",
    "FLOW_COUNTS",
    "FLOW_ROOM",
];

/// Activity slots: one for every entry that the endpoint table can hold.
pub fn activity_slots(limits: &Limits) -> u32 {
    2 * limits.blocks + limits.hosts + limits.prefixes
}

/// Interfaces that policies may name at once.
pub const INTERFACES: usize = 512;

/// Sizes of the maps whose size the configuration sets.
fn sizes(limits: &Limits, cpus: u32) -> [(&'static str, u32); 19] {
    [
        ("BLOCKS4", lines(limits.blocks)),
        ("BLOCKS6", lines(limits.blocks)),
        ("SPILLED4", limits.blocks),
        ("SPILLED6", limits.blocks),
        ("MEMBERS", limits.blocks),
        ("HOSTS", limits.hosts),
        ("PREFIXES", limits.prefixes),
        // Those in force, and those that replace them.
        ("POLICIES", 2 * limits.policies),
        ("COUNTERS", limits.groups),
        ("GROUPS", limits.groups),
        ("CARRIED", limits.groups),
        ("FRAGMENTS", limits.fragments),
        ("ACTIVITY", activity_slots(limits)),
        // Of two epochs: the next is there before the last one goes.
        ("CLIENTS", 2 * limits.clients),
        ("STATIONS", 2 * limits.clients),
        ("INTERFACES", 2 * INTERFACES as u32),
        ("CHOICES", 2 * limits.choices),
        ("TUNNELS", limits.tunnels),
        ("FLOWS", flow_entries(limits.flows, cpus)),
    ]
}

/// Entries with which the map `FLOWS` keeps as many as may enter: an LRU map evicts as soon as a CPU finds none free, while
/// others have up to 128 each for themselves (`LOCAL_FREE_TARGET`, kernel/bpf/bpf_lru_list.c). And what enters while the agent
/// does not know of it yet.
#[must_use]
pub const fn flow_entries(flows: u32, cpus: u32) -> u32 {
    flows + flows / 16 + 128 * (cpus + 1)
}

/// CPUs that there may be: what per-CPU maps have values for.
fn possible_cpus() -> Result<u32, KernelError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(file, source)| KernelError::new(format!("read {file}: {source}")))?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// What makes one map another: type, key size, value size, entries, flags.
type Shape = (u32, u32, u32, u32, u32);

/// Whether the maps pinned in `directory` are those that this program would make. aya opens whatever is pinned under a
/// map's name, so this has to be asked first.
///
/// # Errors
///
/// If the object or a pinned map cannot be read.
pub(super) fn same_shapes(directory: &Path, limits: &Limits) -> Result<bool, KernelError> {
    let object = Object::parse(OBJECT).doing(|| "parse the embedded BPF object".into())?;
    let sizes = BTreeMap::from(sizes(limits, possible_cpus()?));
    for name in PINNED {
        let map = object
            .maps
            .get(name)
            .ok_or_else(|| KernelError::new(format!("find map {name} in the BPF object")))?;
        let entries = sizes.get(name).copied().unwrap_or(map.max_entries());
        let ours: Shape = (
            map.map_type(),
            map.key_size(),
            map.value_size(),
            entries,
            map.map_flags(),
        );
        let path = directory.join(name);
        if !path.exists() {
            return Ok(false);
        }
        let reading = || format!("read the shape of map {}", path.display());
        let info = MapInfo::from_pin(&path).doing(reading)?;
        let pinned: Shape = (
            info.map_type().doing(reading)? as u32,
            info.key_size(),
            info.value_size(),
            info.max_entries(),
            info.map_flags(),
        );
        if ours != pinned {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates or opens the maps pinned in `directory` and prepares the programs.
///
/// # Errors
///
/// If the kernel refuses a map.
pub(super) fn load(
    directory: &Path,
    settings: &Settings,
    limits: &Limits,
    nonces: [[u32; 2]; 2],
) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for (name, entries) in sizes(limits, possible_cpus()?) {
        loader.map_max_entries(name, entries);
    }
    for name in PINNED {
        loader.map_pin_path(name, directory.join(name));
    }
    let [nonce, previous] = nonces;
    let (event_gap, client_gap) = settings.gaps();
    if settings.features & Features::CAP == 0 {
        loader.map_max_entries("BUCKETS", 1);
    }
    if settings.features & Features::CATCH_HOLD == 0 {
        loader.map_max_entries("HELD", 1);
    }
    if settings.features & Features::FLOWS == 0 {
        loader.map_max_entries("CANDIDATES", 1);
    }
    let prefixes = settings.pref64.iter().flatten();
    let mut slots = [(0_u8, [0_u8; 16]); PREF64S];
    for (slot, Pref64 { prefix, len }) in slots.iter_mut().zip(prefixes) {
        *slot = (*len, *prefix);
    }
    let [(len, prefix), more @ ..] = slots;
    let (more_len, more) = (more.map(|(len, _)| len), more.map(|(_, prefix)| prefix));
    loader
        .override_global("EVENT_GAP", &event_gap, true)
        .override_global("CLIENT_GAP", &client_gap, true)
        .override_global("OTHER_MARK", &settings.other_mark, true)
        .override_global("CATCH_GAP", &settings.catch_gap(), true)
        .override_global("FLOW_GAP", &gap(settings.flows_per_second), true)
        .override_global(
            "FLOW_EVENT_GAP",
            &gap(settings.flow_events_per_second),
            true,
        )
        .override_global("CATCH_EXIT", &settings.catch_exit, true)
        .override_global("FEATURES", &settings.features, true)
        .override_global("LINE_SHIFT", &line_shift(lines(limits.blocks)), true)
        .override_global("PREF64_LEN", &len, true)
        .override_global("PREF64", &prefix, true)
        .override_global("PREF64_MORE_LEN", &more_len, true)
        .override_global("PREF64_MORE", &more, true)
        .override_global("NONCE", &nonce, true)
        .override_global("PREVIOUS_NONCE", &previous, true)
        .load(OBJECT)
        .doing(|| format!("load the BPF object with maps in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use aya::maps::{HashMap, Map, MapData, MapType};

    use super::*;

    /// This thread goes on on one CPU.
    fn stay_on(cpu: usize) {
        // SAFETY: a CPU set of zeroes is an empty one, of which CPU_SET writes one bit, and which the kernel reads.
        let result = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
        };
        assert_eq!(result, 0, "CPU {cpu}: {}", std::io::Error::last_os_error());
    }

    /// Of `flows` that enter on `writers` CPUs, a share on each, those that a map of so many entries still has.
    fn kept(entries: u32, flows: u32, writers: usize) -> usize {
        let kind = MapType::LruHash as u32;
        let shape = aya_obj::Map::new_from_params(kind, 4, 8, entries, 0);
        let data = MapData::create(shape, "test_flows", None).unwrap();
        let id = data.info().unwrap().id();
        let map: HashMap<MapData, u32, u64> = Map::LruHashMap(data).try_into().unwrap();
        thread::scope(|scope| {
            for cpu in 0..writers {
                scope.spawn(move || {
                    stay_on(cpu);
                    let data = MapData::from_id(id).unwrap();
                    let mut map: HashMap<_, u32, u64> = Map::LruHashMap(data).try_into().unwrap();
                    for flow in (0..flows).filter(|flow| *flow as usize % writers == cpu) {
                        map.insert(flow, 0, 0).unwrap();
                    }
                });
            }
        });
        map.keys().count()
    }

    #[test]
    fn root_no_flow_goes_as_long_as_there_is_room() {
        let cpus = possible_cpus().unwrap();
        let online = thread::available_parallelism().unwrap().get();
        for flows in (500..2_500).step_by(47).chain([8_192]) {
            for writers in 1..=online {
                let entries = flow_entries(flows, cpus);
                let all = flows as usize;
                assert_eq!(
                    kept(entries, flows, writers),
                    all,
                    "{writers} of {cpus} CPUs"
                );
            }
        }
    }
}
