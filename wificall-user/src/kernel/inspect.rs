//! What an instance has left in the kernel, read without loading a program or changing anything.

use std::{collections::BTreeMap, fs, io};

use aya::{
    maps::MapInfo,
    programs::links::{FdLink, PinnedLink},
};
use wificall_common::{
    abi::{ABI_VERSION, Counters, GroupLabel, Hook, LABEL_LEN, exit_slot},
    exit::Exit,
};

use super::{
    Filter, Key,
    error::{Context as _, KernelError},
    maps::{self, Maps},
    migrate,
    pins::{Generation, Pins},
};

/// What an instance has left in the kernel.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// ABI version of its maps; `None` if only links are left.
    pub abi: Option<u32>,
    /// Hooks with a pinned link, by hook and interface index: the kernel's id of the program.
    pub links: BTreeMap<(Hook, u32), u32>,
    /// Hooks with a clsact filter, by hook and interface index. The filter may have been removed by somebody else.
    pub filters: BTreeMap<(Hook, u32), Filter>,
    /// Labels and counters of the groups.
    pub groups: Vec<(GroupLabel, Counters)>,
    /// How often each exit was taken.
    pub exits: Vec<(Hook, Exit, u64)>,
    /// Entries and room of the maps that make up the endpoint table; empty if they are of an older ABI.
    pub endpoints: Vec<(EndpointMap, u64, u64)>,
}

/// A map of the endpoint table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointMap {
    /// IPv4 /24 blocks.
    Blocks4,
    /// IPv6 /64 blocks.
    Blocks6,
    /// Single hosts.
    Hosts,
    /// Prefixes of other lengths.
    Prefixes,
}

impl EndpointMap {
    const ALL: [Self; 4] = [Self::Blocks4, Self::Blocks6, Self::Hosts, Self::Prefixes];

    const fn pin(self) -> &'static str {
        match self {
            Self::Blocks4 => "BLOCKS4",
            Self::Blocks6 => "BLOCKS6",
            Self::Hosts => "HOSTS",
            Self::Prefixes => "PREFIXES",
        }
    }

    const fn of(key: &Key) -> Self {
        match key {
            Key::Block4(_) => Self::Blocks4,
            Key::Block6(_) => Self::Blocks6,
            Key::Host(_) => Self::Hosts,
            Key::Prefix(..) => Self::Prefixes,
        }
    }
}

/// Reads what an instance has left in the kernel; `None` if there is nothing.
///
/// # Errors
///
/// If it is newer than this program, or something cannot be read.
pub fn inspect(pins: &Pins) -> Result<Option<Inspection>, KernelError> {
    // `Path::exists` would take what we may not see for what is not there.
    match fs::metadata(pins.root()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("read {}", pins.root().display())),
    }
    let mut generations = pins.generations()?;
    if let Some(newer) = generations.iter().find(|found| found.abi > ABI_VERSION) {
        return Err(KernelError::newer_abi(newer.abi, ABI_VERSION, &newer.path));
    }
    generations.reverse();
    let mut inspection = Inspection::default();
    for (hook, ifindex) in pins.links()? {
        inspection
            .links
            .insert((hook, ifindex), program_id(pins, hook, ifindex)?);
    }
    let mut groups: BTreeMap<[u8; LABEL_LEN], Counters> = BTreeMap::new();
    let mut slots = Vec::new();
    for generation in &generations {
        read_filters(generation, &mut inspection)?;
    }
    // Newest first, down to the one whose counters hold those of all before it. An agent that died while it made maps
    // left some without `META`.
    for generation in &generations {
        let Some(meta) = migrate::meta(&generation.path)? else {
            continue;
        };
        if inspection.abi.is_none() {
            inspection.abi = Some(generation.abi);
            if generation.abi == ABI_VERSION {
                inspection.endpoints = endpoints(generation)?;
            }
        }
        let totals = migrate::totals(&generation.path)?;
        for (label, counters) in totals.groups {
            let mut bytes = [0; LABEL_LEN];
            bytes[..label.len()].copy_from_slice(&label);
            maps::add(groups.entry(bytes).or_default(), &counters);
        }
        slots.resize(totals.exits.len().max(slots.len()), 0);
        for (sum, count) in slots.iter_mut().zip(totals.exits) {
            *sum += count;
        }
        if meta.carried != 0 {
            break;
        }
    }
    inspection.groups = groups
        .into_iter()
        .map(|(bytes, counters)| (GroupLabel { bytes }, counters))
        .collect();
    for hook in Hook::ALL {
        for exit in Exit::ALL {
            let slot = exit_slot(hook, exit) as usize;
            let count = slots.get(slot).copied().unwrap_or_default();
            inspection.exits.push((hook, exit, count));
        }
    }
    Ok(Some(inspection))
}

fn program_id(pins: &Pins, hook: Hook, ifindex: u32) -> Result<u32, KernelError> {
    let path = pins.link(hook, ifindex);
    let reading = || format!("read the link {}", path.display());
    let link = FdLink::from(PinnedLink::from_pin(&path).doing(reading)?);
    Ok(link.info().doing(reading)?.program_id())
}

fn read_filters(generation: &Generation, inspection: &mut Inspection) -> Result<(), KernelError> {
    for (key, record) in maps::filters_in(&generation.path)? {
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook) {
            let filter = Filter {
                priority: record.priority,
                handle: record.handle,
                own_qdisc: record.own_qdisc != 0,
            };
            inspection
                .filters
                .entry((hook, key.ifindex))
                .or_insert(filter);
        }
    }
    Ok(())
}

fn endpoints(generation: &Generation) -> Result<Vec<(EndpointMap, u64, u64)>, KernelError> {
    let entries = Maps::open(&generation.path)?.entries()?;
    EndpointMap::ALL
        .into_iter()
        .map(|map| {
            let path = generation.path.join(map.pin());
            let info = MapInfo::from_pin(&path)
                .doing(|| format!("read the size of {}", path.display()))?;
            let used = entries.keys().filter(|key| EndpointMap::of(key) == map);
            Ok((map, used.count() as u64, info.max_entries().into()))
        })
        .collect()
}
