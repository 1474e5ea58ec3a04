//! What an instance has left in the kernel, read without loading a program or changing anything.

use std::path::Path;
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
    /// Packets over a cap, in each direction.
    pub demoted: [u64; 2],
    /// Packets that were no match and lost the DSCP of voice.
    pub bleached: u64,
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

    /// The map that has as many entries as there is room for.
    const fn pin(self) -> &'static str {
        match self {
            Self::Blocks4 => "SPILLED4",
            Self::Blocks6 => "SPILLED6",
            Self::Hosts => "HOSTS",
            Self::Prefixes => "PREFIXES",
        }
    }

    /// `None`: it is no endpoint.
    const fn of(key: &Key) -> Option<Self> {
        Some(match key {
            Key::Companion(_) => return None,
            Key::Block4(_) => Self::Blocks4,
            Key::Block6(_) => Self::Blocks6,
            Key::Host(_) => Self::Hosts,
            Key::Prefix(..) => Self::Prefixes,
        })
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
    for (hook, ifindex, path) in pins.links()? {
        inspection.links.insert((hook, ifindex), program_id(&path)?);
    }
    let mut groups: BTreeMap<[u8; LABEL_LEN], Counters> = BTreeMap::new();
    for generation in &generations {
        read_filters(generation, &mut inspection)?;
    }
    for generation in &generations {
        if inspection.abi.is_none() && migrate::meta(&generation.path)?.is_some() {
            inspection.abi = Some(generation.abi);
            if generation.abi == ABI_VERSION {
                inspection.endpoints = endpoints(generation)?;
            }
        }
    }
    let totals = migrate::sum(&generations)?;
    for (label, counters) in totals.groups {
        let bytes = migrate::padded(&label);
        maps::add(groups.entry(bytes).or_default(), &counters);
    }
    let slots = totals.exits;
    inspection.demoted = super::demoted(&slots);
    inspection.bleached = super::bleached(&slots);
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

fn program_id(path: &Path) -> Result<u32, KernelError> {
    let reading = || format!("read the link {}", path.display());
    let link = FdLink::from(PinnedLink::from_pin(path).doing(reading)?);
    Ok(link.info().doing(reading)?.program_id())
}

fn read_filters(generation: &Generation, inspection: &mut Inspection) -> Result<(), KernelError> {
    for (key, record) in maps::filters_in(&generation.path)? {
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook) {
            let filter = Filter::from(record);
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
            let used = entries
                .keys()
                .filter(|key| EndpointMap::of(key) == Some(map));
            Ok((map, used.count() as u64, info.max_entries().into()))
        })
        .collect()
}
