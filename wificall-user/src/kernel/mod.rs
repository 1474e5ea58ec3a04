//! The data plane: loading, pinning, attaching, maps. The only module that knows aya.

mod attach;
mod blocks;
mod error;
mod events;
mod flows;
mod inspect;
mod log;
mod maps;
mod migrate;
mod object;
mod pins;
mod succession;

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use wificall_common::{
    Direction,
    abi::{
        ABI_VERSION, Choice, ChoiceKey, Counters, Destination, EventFate, EventKind, Flow,
        FlowFate, FlowKey, GroupLabel, Hook, HookRecord, META_MAGIC, Meta, Policy, Tunnel,
        TunnelKey, bleached_slot, demoted_slot, event_slot, exit_slot,
    },
    exit::Exit,
};

pub use self::{
    attach::{Attachment, Method},
    error::KernelError,
    events::{Event, Events, ktime},
    flows::{Place, Slice},
    inspect::{EndpointMap, Inspection, inspect},
    maps::{Entry, Key, Numbered},
    object::{INTERFACES, OBJECT, Settings, activity_slots},
    pins::Pins,
    succession::OTHER,
};
use self::{maps::Maps, pins::Generation};
use crate::config::Limits;

/// The data plane of an instance, loaded and ready to attach.
pub struct Plane {
    pins: Pins,
    limits: Limits,
    settings: Settings,
    generation: Generation,
    /// Data planes before this one, newest first, whose counters are to be carried over.
    older: Vec<Generation>,
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

impl From<HookRecord> for Filter {
    fn from(record: HookRecord) -> Self {
        Self {
            priority: record.priority,
            handle: record.handle,
            own_qdisc: record.own_qdisc != 0,
        }
    }
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
        if fresh {
            // Left by an agent that died while it made them.
            generation.remove()?;
            generation.create()?;
        }
        let (ebpf, maps) = load(&generation, &older, &settings, &limits)?;
        let mut plane = Self {
            pins,
            limits,
            settings,
            generation,
            older,
            ebpf,
            maps,
            log: None,
        };
        // Also if an agent before this one began: it may have died in the middle.
        plane.adopt()?;
        Ok(plane)
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

    /// Prepares programs with other settings. What is attached keeps running the old ones until it is attached anew.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the programs prepared before stay.
    pub fn reconfigure(&mut self, settings: Settings) -> Result<(), KernelError> {
        let (ebpf, maps) = load(&self.generation, &self.older, &settings, &self.limits)?;
        self.ebpf = ebpf;
        self.maps = maps;
        self.settings = settings;
        Ok(())
    }

    /// Starts handing the programs' log records to `tracing`. Needs a tokio runtime.
    pub fn start_log(&mut self) {
        self.log = log::start(&mut self.ebpf);
    }

    /// Loads programs that are not loaded yet, each by a thread of its own: the verifier takes tens of milliseconds for
    /// each. One that the kernel refuses is loaded again, and the error said, where it is attached.
    pub fn load(&mut self, programs: &BTreeSet<&str>) {
        attach::load(&mut self.ebpf, programs);
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

    /// Choices by client.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn choices(&self) -> Result<BTreeMap<ChoiceKey, Choice>, KernelError> {
        self.maps.choices()
    }

    /// Adds a choice to a set that no row in use names.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn set_choice(&mut self, key: ChoiceKey, choice: Choice) -> Result<(), KernelError> {
        self.maps.set_choice(key, choice)
    }

    /// Removes a choice, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_choice(&mut self, key: ChoiceKey) -> Result<(), KernelError> {
        self.maps.remove_choice(key)
    }

    /// Clients and interfaces of all epochs, with their classes.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn numbered(&self) -> Result<BTreeMap<Numbered, u32>, KernelError> {
        self.maps.numbered()
    }

    /// Gives a client or an interface its class.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn number(&mut self, numbered: Numbered, class: u32) -> Result<(), KernelError> {
        self.maps.number(numbered, class)
    }

    /// Removes a client or an interface, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn forget(&mut self, numbered: Numbered) -> Result<(), KernelError> {
        self.maps.forget(numbered)
    }

    /// What is done about the ESP of tunnels, `KEEP_…`.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn keep(&self) -> Result<u32, KernelError> {
        self.maps.keep()
    }

    /// Says what is done about the ESP of tunnels, `KEEP_…`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_keep(&mut self, keep: u32) -> Result<(), KernelError> {
        self.maps.set_keep(keep)
    }

    /// The tunnels whose exit is known, in no order.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn tunnels(&self) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
        self.maps.tunnels()
    }

    /// Which exit a tunnel has, if that is known.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn tunnel(&self, key: TunnelKey) -> Result<Option<Tunnel>, KernelError> {
        self.maps.tunnel(key)
    }

    /// Makes these the gateways that the programs leave alone.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_gateways(&mut self, gateways: &BTreeSet<[u8; 16]>) -> Result<(), KernelError> {
        self.maps.set_gateways(gateways)
    }

    /// Notes which exit a tunnel has.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_tunnel(&mut self, key: TunnelKey, tunnel: Tunnel) -> Result<(), KernelError> {
        self.maps.set_tunnel(key, tunnel)
    }

    /// Forgets which exit a tunnel has.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_tunnel(&mut self, key: TunnelKey) -> Result<(), KernelError> {
        self.maps.remove_tunnel(key)
    }

    /// A flow; `None` if it is not in the table.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, KernelError> {
        self.maps.flows.get(key)
    }

    /// Some of all flows, from `place` on, and where the next ones begin; `None` if these were the last. What enters or
    /// leaves meanwhile may be missed.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn flows(&self, place: Place) -> Result<Slice, KernelError> {
        self.maps.flows.slice(place)
    }

    /// Forgets a flow.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_flow(&mut self, key: FlowKey) -> Result<(), KernelError> {
        self.maps.flows.remove(key)
    }

    /// Says how many flows may enter the table from now on: a full one would forget somebody's.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_flow_room(&mut self, room: u64) -> Result<(), KernelError> {
        self.maps.flows.set_room(room)
    }

    /// What became of what could have entered the table of flows, since it was made.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn flow_counts(&self) -> Result<Vec<(FlowFate, u64)>, KernelError> {
        self.maps.flows.counts()
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

    /// Opens the reading end of what the programs tell. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(&self.generation.path)
    }

    /// What became of the packets that were looked at for an event, since these maps were made.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn event_counts(&self) -> Result<Vec<(EventKind, EventFate, u64)>, KernelError> {
        let mut counts = Vec::new();
        for kind in EventKind::ALL {
            for fate in EventFate::ALL {
                counts.push((kind, fate, self.maps.event_count(event_slot(kind, fate))?));
            }
        }
        Ok(counts)
    }

    /// Makes these hashes of names ([`dns::hash`](wificall_common::wire::dns::hash)), and no others, the ones that are
    /// told of besides those below `3gppnetwork.org`. Returns how many found no room.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_names(&mut self, names: &BTreeSet<u64>) -> Result<usize, KernelError> {
        self.maps.set_names(names)
    }

    /// Packets that were over a cap, in each direction.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn demoted(&self) -> Result<[u64; 2], KernelError> {
        let slots = self.maps.exits()?;
        Ok(demoted(&slots))
    }

    /// Packets that were no match and lost the DSCP of voice.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn bleached(&self) -> Result<u64, KernelError> {
        let slots = self.maps.exits()?;
        Ok(bleached(&slots))
    }

    /// Makes these the networks that other IPsec may go to, by length in bits and address, IPv4 as `::ffff:a.b.c.d`, 96
    /// bits longer. Returns how many found no room.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_spared(
        &mut self,
        networks: &BTreeSet<(u32, [u8; 16])>,
    ) -> Result<usize, KernelError> {
        self.maps.set_spared(networks)
    }

    /// Where other IPsec has gone, IPv4 likewise, in no order.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn others(&self) -> Result<Vec<([u8; 16], Destination)>, KernelError> {
        self.maps.others()
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

/// Packets over a cap by direction, of the slots of `EXITS`.
pub(crate) fn demoted(slots: &[u64]) -> [u64; 2] {
    Direction::ALL.map(|direction| {
        let slots = Hook::ALL.map(|hook| slots.get(demoted_slot(hook, direction) as usize));
        slots.into_iter().flatten().sum()
    })
}

/// Packets that lost the DSCP of voice, of the slots of `EXITS`.
pub(crate) fn bleached(slots: &[u64]) -> u64 {
    let slots = Hook::ALL.map(|hook| slots.get(bleached_slot(hook) as usize));
    slots.into_iter().flatten().sum()
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
    let mut failure = None;
    for (hook, ifindex, _) in pins.links()? {
        failure = failure.or(attach::unpin(pins, hook, ifindex).err());
    }
    for generation in &generations {
        for (key, record) in maps::filters_in(&generation.path)? {
            if record.own_qdisc != 0 {
                own_qdiscs.insert(key.ifindex);
            }
            if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook)
                && let Some(name) = interface(key.ifindex)
            {
                failure = failure.or(attach::remove_filter(&record, hook, &name).err());
            }
        }
    }
    // The records stay for another try if something is still there.
    match failure {
        Some(failure) => Err(failure),
        None => pins.remove().map(|()| own_qdiscs),
    }
}

fn hooks(pins: &Pins, maps: &Maps) -> Result<Hooks, KernelError> {
    let mut hooks = Hooks {
        links: pins
            .links()?
            .into_iter()
            .map(|(hook, ifindex, _)| (hook, ifindex))
            .collect(),
        ..Hooks::default()
    };
    for (key, record) in maps.hooks()? {
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| *hook as u32 == key.hook) {
            hooks
                .filters
                .insert((hook, key.ifindex), Filter::from(record));
        }
    }
    Ok(hooks)
}

/// Loads the object over the maps of a generation and notes its nonce there.
fn load(
    generation: &Generation,
    older: &[Generation],
    settings: &Settings,
    limits: &Limits,
) -> Result<(Ebpf, Maps), KernelError> {
    let before = migrate::meta(&generation.path)?;
    let nonce = random()?;
    // What runs now stamps the nonce of this generation's last load, or of the generation before. If nothing runs, no
    // second nonce is trusted.
    let mut running = before;
    for generation in older {
        if running.is_none() {
            running = migrate::meta(&generation.path)?;
        }
    }
    let previous = running.map_or(nonce, |meta| meta.nonce);
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
        carried: before.map_or(u32::from(older.is_empty()), |meta| meta.carried),
    })?;
    Ok((ebpf, maps))
}

/// A random number.
fn random() -> Result<u64, KernelError> {
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
