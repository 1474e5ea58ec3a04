//! The data plane: loading, pinning, attaching, maps. The only module that knows aya.

mod attach;
mod error;
mod inspect;
mod log;
mod maps;
mod migrate;
mod object;
mod pins;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use aya::Ebpf;
use wificall_common::{
    abi::{ABI_VERSION, Counters, GroupLabel, Hook, META_MAGIC, Meta, Policy, exit_slot},
    exit::Exit,
};

pub use self::{
    attach::{Attachment, Method},
    error::KernelError,
    inspect::{EndpointMap, Inspection, inspect},
    maps::{Entry, Key},
    object::{OBJECT, Settings, activity_slots},
    pins::Pins,
};
use self::{maps::Maps, pins::Generation};
use crate::config::Limits;

/// How long a program that was replaced may still be running on another CPU. Programs run for less than a microsecond
/// with preemption or migration off; this leaves room for a slow box.
const GRACE: Duration = Duration::from_millis(20);

/// The data plane of an instance, loaded and ready to attach.
pub struct Plane {
    pins: Pins,
    limits: Limits,
    settings: Settings,
    generation: Generation,
    /// Data planes before this one, newest first, whose counters are to be carried over.
    older: Vec<Generation>,
    nonce: [u32; 2],
    ebpf: Ebpf,
    maps: Maps,
    log: Option<log::Reader>,
}

/// What [`Plane::attach`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Kernel id of the program that runs now.
    pub program_id: u32,
    /// Whether the attachment was made anew, and not one of ours given another program.
    pub made: bool,
}

/// Whether the kernel has TCX (Linux 6.6).
#[must_use]
pub fn has_tcx() -> bool {
    use aya::util::KernelVersion;
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// What runs where, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Hooks with a pinned link.
    pub links: BTreeSet<(Hook, u32)>,
    /// Hooks with a clsact filter: whether its qdisc was added by us, the filter's priority and handle.
    pub filters: BTreeMap<(Hook, u32), Filter>,
}

/// A clsact filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// Its handle.
    pub handle: u32,
    /// Whether the qdisc was added by us.
    pub own_qdisc: bool,
}

impl Plane {
    /// Opens the instance's maps, or makes new ones if there are none or they are of another ABI or size, and prepares
    /// programs with these settings. Nothing that is attached changes yet.
    ///
    /// # Errors
    ///
    /// If the data plane there is newer than this program, or the kernel refuses.
    pub fn open(pins: Pins, settings: Settings, limits: Limits) -> Result<Self, KernelError> {
        pins.create()?;
        let mut older = pins.generations()?;
        if let Some(newer) = older.iter().find(|found| found.abi > ABI_VERSION) {
            return Err(KernelError::newer_abi(newer.abi, ABI_VERSION, &newer.path));
        }
        let current = match older.pop() {
            Some(newest)
                if newest.abi == ABI_VERSION
                    && migrate::meta(&newest.path)?.is_some()
                    && object::same_shapes(&newest.path, &limits)? =>
            {
                Some(newest)
            }
            Some(other) => {
                older.push(other);
                None
            }
            None => None,
        };
        older.reverse();
        let number = older.first().map_or(0, |newest| newest.number + 1);
        let fresh = current.is_none();
        let generation = current.unwrap_or_else(|| pins.generation(ABI_VERSION, number));
        let (ebpf, nonce, maps) = load(&generation, &settings, &limits, fresh, older.is_empty())?;
        let mut plane = Self {
            pins,
            limits,
            settings,
            generation,
            older,
            nonce,
            ebpf,
            maps,
            log: None,
        };
        if fresh {
            plane.adopt_labels()?;
            plane.adopt_filters()?;
        }
        Ok(plane)
    }

    /// Whether another data plane of this instance is still to be carried over, by [`Self::finish_migration`] once
    /// everything is attached.
    #[must_use]
    pub fn is_migrating(&self) -> bool {
        !self.older.is_empty()
    }

    /// The settings that the programs were prepared with.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The sizes of the maps.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.generation.path.clone()
    }

    /// Prepares programs with other settings. What is attached keeps running the old ones until it is attached anew.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the programs prepared before stay.
    pub fn reconfigure(&mut self, settings: Settings) -> Result<(), KernelError> {
        let (ebpf, nonce, maps) = load(&self.generation, &settings, &self.limits, false, false)?;
        self.ebpf = ebpf;
        self.nonce = nonce;
        self.maps = maps;
        self.settings = settings;
        Ok(())
    }

    /// Starts handing the programs' log records to `tracing`. Needs a tokio runtime.
    pub fn start_log(&mut self) {
        self.log = log::start(&mut self.ebpf);
    }

    /// Attaches a program, or replaces the one that is there in one step.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn attach(&mut self, wanted: &Attachment) -> Result<Attached, KernelError> {
        attach::attach(&mut self.ebpf, &mut self.maps, &self.pins, wanted)
    }

    /// Removes our program from a hook. `interface` is its name, if it still exists.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn detach(
        &mut self,
        hook: Hook,
        ifindex: u32,
        interface: Option<&str>,
    ) -> Result<(), KernelError> {
        attach::unpin(&self.pins, hook, ifindex)?;
        attach::detach_filter(&mut self.maps, hook, ifindex, interface.unwrap_or_default())
    }

    /// What is attached.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn hooks(&self) -> Result<Hooks, KernelError> {
        hooks(&self.pins, &self.maps)
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
            let mut groups: BTreeMap<Vec<u8>, Counters> = BTreeMap::new();
            let mut exits = Vec::new();
            for older in &self.older {
                let Some(its_meta) = migrate::meta(&older.path)? else {
                    continue;
                };
                let totals = migrate::totals(&older.path)?;
                for (label, counters) in totals.groups {
                    maps::add(groups.entry(label).or_default(), &counters);
                }
                exits.resize(totals.exits.len().max(exits.len()), 0);
                for (sum, count) in exits.iter_mut().zip(totals.exits) {
                    *sum += count;
                }
                // Its totals hold those of all before it.
                if its_meta.carried != 0 {
                    break;
                }
            }
            for (index, label) in self.maps.labels()? {
                if let Some(counters) = groups.remove(label.bytes.as_slice()) {
                    self.maps.set_carried(index, counters)?;
                }
            }
            for (slot, count) in exits.into_iter().enumerate() {
                if slot < wificall_common::abi::EXIT_SLOTS as usize {
                    self.maps.set_carried_exit(slot as u32, count)?;
                }
            }
            meta.carried = 1;
            self.maps.set_meta(meta)?;
        }
        for older in &self.older {
            older.remove()?;
        }
        self.older.clear();
        Ok(())
    }

    /// Gives every label of the data planes before this one a group, so that their counters have where to go.
    fn adopt_labels(&mut self) -> Result<(), KernelError> {
        let mut index = 1;
        let mut known = BTreeSet::new();
        for older in &self.older {
            if migrate::meta(&older.path)?.is_none() {
                continue;
            }
            for (label, _) in migrate::totals(&older.path)?.groups {
                let mut bytes = [0; wificall_common::abi::LABEL_LEN];
                let len = label.len().min(bytes.len());
                bytes[..len].copy_from_slice(&label[..len]);
                if index < self.limits.groups && known.insert(bytes) {
                    self.maps.set_label(index, GroupLabel { bytes })?;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes over the records of filters that are in the kernel, so that they are replaced and not doubled.
    fn adopt_filters(&mut self) -> Result<(), KernelError> {
        // Newest first; where one was started and not finished, it had taken over those of the one before.
        for older in &self.older {
            for (key, record) in maps::filters_in(&older.path)? {
                if !self.maps.hooks()?.iter().any(|(known, _)| *known == key) {
                    self.maps.set_hook(key, record)?;
                }
            }
        }
        Ok(())
    }

    /// The endpoint table.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn entries(&self) -> Result<BTreeMap<Key, Entry>, KernelError> {
        self.maps.entries()
    }

    /// Adds or replaces an entry of the endpoint table in one step.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn set_entry(&mut self, key: Key, entry: &Entry) -> Result<(), KernelError> {
        self.maps.set(key, entry)
    }

    /// Removes an entry of the endpoint table, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_entry(&mut self, key: Key) -> Result<(), KernelError> {
        self.maps.remove(key)
    }

    /// The policy rows.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn policies(&self) -> Result<Vec<Policy>, KernelError> {
        self.maps.policies()
    }

    /// Writes a policy row that no entry points to.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_policy(&mut self, index: u32, policy: Policy) -> Result<(), KernelError> {
        self.maps.set_policy(index, policy)
    }

    /// The label of every group ever given out.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn labels(&self) -> Result<BTreeMap<u32, GroupLabel>, KernelError> {
        self.maps.labels()
    }

    /// Gives a group its label, once.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_label(&mut self, index: u32, label: GroupLabel) -> Result<(), KernelError> {
        self.maps.set_label(index, label)
    }

    /// A group's counters.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn counters(&self, group: u32) -> Result<Counters, KernelError> {
        self.maps.counters(group)
    }

    /// How often each exit was taken.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn exits(&self) -> Result<Vec<(Hook, Exit, u64)>, KernelError> {
        let slots = self.maps.exits()?;
        let mut exits = Vec::new();
        for hook in Hook::ALL {
            for exit in Exit::ALL {
                let slot = exit_slot(hook, exit) as usize;
                exits.push((hook, exit, slots.get(slot).copied().unwrap_or_default()));
            }
        }
        Ok(exits)
    }

    /// When an entry was last hit, as a number that changes every few seconds while it is.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn activity(&self, slot: u32) -> Result<u32, KernelError> {
        self.maps.activity(slot)
    }
}

/// Removes everything that an instance ever installed, whatever ABI it was of up to ours. `interface` tells an
/// interface's name by its index. Returns the interfaces whose clsact qdisc we had added: it can go if it is empty.
///
/// # Errors
///
/// If something cannot be removed; the rest is.
pub fn detach_all(
    pins: &Pins,
    interface: impl Fn(u32) -> Option<String>,
) -> Result<BTreeSet<u32>, KernelError> {
    let mut own_qdiscs = BTreeSet::new();
    if !pins.exists() {
        return Ok(own_qdiscs);
    }
    let generations = pins.generations()?;
    if let Some(newer) = generations.iter().find(|found| found.abi > ABI_VERSION) {
        return Err(KernelError::newer_abi(newer.abi, ABI_VERSION, &newer.path));
    }
    for (hook, ifindex) in pins.links()? {
        attach::unpin(pins, hook, ifindex)?;
    }
    for generation in &generations {
        for (key, record) in maps::filters_in(&generation.path)? {
            if record.own_qdisc != 0 {
                own_qdiscs.insert(key.ifindex);
            }
            if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook)
                && let Some(name) = interface(key.ifindex)
            {
                attach::remove_filter(&record, hook, &name);
            }
        }
    }
    pins.remove()?;
    Ok(own_qdiscs)
}

fn hooks(pins: &Pins, maps: &Maps) -> Result<Hooks, KernelError> {
    let mut hooks = Hooks {
        links: pins.links()?.into_iter().collect(),
        ..Hooks::default()
    };
    for (key, record) in maps.hooks()? {
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook) {
            hooks.filters.insert(
                (hook, key.ifindex),
                Filter {
                    priority: record.priority,
                    handle: record.handle,
                    own_qdisc: record.own_qdisc != 0,
                },
            );
        }
    }
    Ok(hooks)
}

/// Loads the object over the maps of a generation and notes its nonce there.
fn load(
    generation: &Generation,
    settings: &Settings,
    limits: &Limits,
    fresh: bool,
    first: bool,
) -> Result<(Ebpf, [u32; 2], Maps), KernelError> {
    if fresh {
        // Left by an agent that died while it made them.
        generation.remove()?;
        generation.create()?;
    }
    let before = migrate::meta(&generation.path)?;
    let previous = before.map_or(0, |meta| meta.nonce);
    let nonce = nonce()?;
    let ebpf = object::load(
        &generation.path,
        settings,
        limits,
        [halves(nonce), halves(previous)],
    )?;
    let mut maps = Maps::open(&generation.path)?;
    maps.set_meta(Meta {
        magic: META_MAGIC,
        nonce,
        abi: ABI_VERSION,
        carried: before.map_or(u32::from(first), |meta| meta.carried),
    })?;
    Ok((ebpf, halves(nonce), maps))
}

/// A random number for one load; it tells our XDP verdicts from other people's metadata.
fn nonce() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    // SAFETY: a buffer of that length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(KernelError::new("ask the kernel for a random number"));
    }
    Ok(u64::from_le_bytes(bytes))
}

const fn halves(nonce: u64) -> [u32; 2] {
    [nonce as u32, (nonce >> 32) as u32]
}
