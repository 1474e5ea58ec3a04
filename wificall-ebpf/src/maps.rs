//! The maps. Sizes here are defaults; the agent sets them from its limits when it creates the maps.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use wificall_common::{
    Class,
    abi::{
        Bucket, BucketKey, COMPANIONS_SIZE, Candidate, Cell, Choice, ChoiceKey, ClientKey,
        Counters, Destination, EPOCH_BITS, EVENT_BUCKETS as BUCKET_SLOTS, EVENT_SLOTS, EVENTS_SIZE,
        EXIT_SLOTS, EndpointRef, Event, FLOW_BUCKETS, Features, Flow, FlowFate, FlowKey,
        FragmentKey, FragmentValue, GATEWAYS_SIZE, GroupLabel, HookKey, HookRecord, InterfaceKey,
        Line, Members, Meta, OTHERS_SIZE, Policy, SPARED_SIZE, StationKey, Tunnel, TunnelKey,
        line_of,
    },
    classify::Tables,
    client::Clients,
    endpoint::Table,
};

use crate::{flows::Room, settings};

/// Something on the stack, where the verifier demands the natural alignment of every access. Elsewhere unaligned access is
/// fine, and the compiler, told so (`flags()`, xtask/src/ebpf.rs), moves up to eight bytes at once wherever it can.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Aligned<T>(pub T);

/// The key of a prefix: padded, so that its address is aligned.
#[repr(C, align(8))]
struct PrefixKey {
    padding: u32,
    key: Key<[u8; 16]>,
}

/// The key by which an address is looked for.
#[inline(always)]
fn whole(address: u128) -> PrefixKey {
    PrefixKey {
        padding: 0,
        key: Key::new(128, address.to_be_bytes()),
    }
}

/// Whether IPsec to an address is nobody's business; IPv4 mapped.
#[inline(always)]
pub fn is_spared(address: u128) -> bool {
    SPARED.get(&whole(address).key).is_some()
}

// Endpoints and policies: written by the agent, read here.
#[map]
static BLOCKS4: Array<Line> = Array::with_max_entries(8_192, BPF_F_MMAPABLE);
#[map]
static BLOCKS6: Array<Line> = Array::with_max_entries(8_192, BPF_F_MMAPABLE);
#[map]
static SPILLED4: HashMap<u32, Cell> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static SPILLED6: HashMap<u64, Cell> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static MEMBERS: HashMap<u32, Members> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static HOSTS: HashMap<Aligned<[u8; 16]>, EndpointRef> =
    HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static PREFIXES: LpmTrie<[u8; 16], EndpointRef> =
    LpmTrie::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
pub static POLICIES: Array<Policy> = Array::with_max_entries(256, 0);

// Policies by client, likewise. The agent makes them small where no policy asks.
#[map]
static CLIENTS: LpmTrie<ClientKey, u32> = LpmTrie::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static STATIONS: HashMap<StationKey, u32> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static INTERFACES: HashMap<InterfaceKey, u32> = HashMap::with_max_entries(1_024, BPF_F_NO_PREALLOC);
#[map]
static CHOICES: HashMap<ChoiceKey, Choice> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// One entry: `KEEP_…`.
#[map]
pub static KEEP: Array<u32> = Array::with_max_entries(1, 0);

/// Addresses of companion names, likewise. Of the value, only the policy means something.
#[map]
pub static COMPANION_HOSTS: HashMap<Aligned<[u8; 16]>, EndpointRef> =
    HashMap::with_max_entries(COMPANIONS_SIZE, BPF_F_NO_PREALLOC);

/// The gateways of exits on access links, by IP address and by link-layer address: written by the agent.
#[map]
pub static GATEWAYS: HashMap<Aligned<[u8; 16]>, u8> =
    HashMap::with_max_entries(2 * GATEWAYS_SIZE, BPF_F_NO_PREALLOC);

/// When the first packet to an address was held. Not pinned: it holds minutes. The agent makes it small where nothing is.
#[map]
pub static HELD: LruHashMap<Aligned<[u8; 16]>, u64> = LruHashMap::with_max_entries(4_096, 0);
/// One entry: when the next address may be caught.
#[map]
pub static CATCH_DUE: Array<u64> = Array::with_max_entries(1, 0);

/// Which exit tunnels have: written here, tidied by the agent.
#[map]
pub static TUNNELS: LruHashMap<TunnelKey, Tunnel> = LruHashMap::with_max_entries(16_384, 0);

// Written here, read by the agent.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(2_048, 0);
#[map]
pub static EXITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EXIT_SLOTS, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> =
    LruHashMap::with_max_entries(1_024, 0);
/// Not pinned: it holds seconds. The agent makes it small where no policy has a cap.
#[map]
pub static BUCKETS: LruHashMap<BucketKey, Bucket> = LruHashMap::with_max_entries(4_096, 0);
#[map]
pub static ACTIVITY: Array<u32> = Array::with_max_entries(16_384, 0);

/// Flows: written here, read and tidied by the agent, which makes it small where they are not tracked.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(16_384, 0);
/// Flows of which one end has not spoken yet. Not pinned: it holds seconds.
#[map]
pub static CANDIDATES: LruHashMap<FlowKey, Candidate> = LruHashMap::with_max_entries(4_096, 0);
/// When the next flow may enter.
#[map]
pub static FLOW_DUE: PerCpuArray<u64> = PerCpuArray::with_max_entries(FLOW_BUCKETS, 0);
/// One entry: how many flows may still enter before the agent has tidied up. A full LRU would forget somebody's.
#[map]
pub static FLOW_ROOM: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static FLOW_COUNTS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(FlowFate::ALL.len() as u32, 0);
/// A packet on its way to its flow: more than the stack has room for.
#[map]
pub static FLOW: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

// Other IPsec: networks that are spared, written by the agent; destinations, written here.
#[map]
static SPARED: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(SPARED_SIZE, BPF_F_NO_PREALLOC);
#[map]
pub static OTHERS: LruHashMap<Aligned<[u8; 16]>, Destination> =
    LruHashMap::with_max_entries(OTHERS_SIZE, 0);

// What is told as it happens.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_SIZE, 0);
#[map]
pub static EVENT_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EVENT_SLOTS, 0);
#[map]
pub static EVENT_BUCKETS: PerCpuArray<u64> = PerCpuArray::with_max_entries(BUCKET_SLOTS, 0);
/// Bits of the length of a DNS message that is copied into an event.
pub const LENGTH_MASK: usize = 0x7ff;

/// An event, and room behind it for as much as [`LENGTH_MASK`] lets through beside a header: the compiler may check a
/// length in one register and use another, of which the verifier then knows no more than the mask.
#[repr(C)]
pub struct EventRoom {
    pub event: Event,
    room: [u8; LENGTH_MASK + 1],
}

/// An event in the making: longer than the stack.
#[map]
pub static EVENT: PerCpuArray<EventRoom> = PerCpuArray::with_max_entries(1, 0);
/// Hashes of the catalogue's names outside of `3gppnetwork.org`: written by the agent.
#[map]
pub static NAMES: HashMap<u64, u8> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static SCRATCH: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// [`Frame::forget`](wificall_common::frame::Frame::forget): the verifier does not track what a map holds.
#[inline(always)]
pub fn forget(number: usize, mask: usize) -> usize {
    match SCRATCH.get_ptr_mut(0) {
        // SAFETY: this CPU's own value; nothing else runs between the two.
        Some(scratch) => unsafe {
            scratch.write_volatile(number as u64);
            scratch.read_volatile() as usize & mask
        },
        // Never: the entry exists. And not the number, whose origin would be known on this path.
        None => 0,
    }
}

// The agent's own notes, kept in the kernel because they are true exactly as long as the rest of it.
#[map]
static META: Array<Meta> = Array::with_max_entries(1, 0);
#[map]
static GROUPS: Array<GroupLabel> = Array::with_max_entries(2_048, 0);
#[map]
static CARRIED: Array<Counters> = Array::with_max_entries(2_048, 0);
#[map]
static CARRIED_EXITS: Array<u64> = Array::with_max_entries(EXIT_SLOTS, 0);
#[map]
static CLSACT_HOOKS: HashMap<HookKey, HookRecord> =
    HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// The maps as the classifier sees them.
pub struct KernelTables;

impl Table for KernelTables {
    #[inline(always)]
    fn block4(&self, key: u32) -> Cell {
        let Some(line) = BLOCKS4.get(line_of(u64::from(key), settings::line_shift())) else {
            return Cell::NONE;
        };
        let cell = line.find4(key);
        if cell.meaning == 0 && line.is_full() {
            // SAFETY: the agent replaces whole values.
            return unsafe { SPILLED4.get(key.to_be()) }.map_or(Cell::NONE, |cell| *cell);
        }
        cell
    }

    #[inline(always)]
    fn members(&self, key: u32) -> Option<&Members> {
        // SAFETY: as above.
        unsafe { MEMBERS.get(key.to_be()) }
    }

    #[inline(always)]
    fn block6(&self, key: u64) -> Cell {
        let Some(line) = BLOCKS6.get(line_of(key, settings::line_shift())) else {
            return Cell::NONE;
        };
        let cell = line.find6(key);
        if cell.meaning == 0 && line.is_full() {
            // SAFETY: as above.
            return unsafe { SPILLED6.get(key.to_be()) }.map_or(Cell::NONE, |cell| *cell);
        }
        cell
    }

    #[inline(always)]
    fn host(&self, address: u128) -> Option<&EndpointRef> {
        // SAFETY: as above.
        unsafe { HOSTS.get(Aligned(address.to_be_bytes())) }
    }

    #[inline(always)]
    fn prefix(&self, address: u128) -> Option<&EndpointRef> {
        if !settings::on(Features::PREFIXES) {
            return None;
        }
        PREFIXES.get(&whole(address).key)
    }

    #[inline(always)]
    fn pref64(&self, index: usize) -> Option<wificall_common::wire::nat64::Pref64> {
        settings::pref64(index)
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn first_fragment(&self, key: &FragmentKey) -> Option<Class> {
        // SAFETY: values are written once and never changed.
        let value = unsafe { FRAGMENTS.get(key) }?;
        Class::from_u8(value.class)
    }

    #[inline(always)]
    fn snoops_names(&self) -> bool {
        settings::on(Features::SNOOP_NAMES)
    }

    #[inline(always)]
    fn snoops_ike(&self) -> bool {
        settings::on(Features::SNOOP_IKE)
    }
}

impl Clients for KernelTables {
    #[inline(always)]
    fn network(&self, epoch: u32, address: u128) -> u32 {
        if !settings::on(Features::CLIENTS) {
            return 0;
        }
        // In words: of bytes, the compiler would make moves that are not aligned.
        let words = [
            (u64::from(EPOCH_BITS) + 128) | (u64::from(epoch) << 32),
            ((address >> 64) as u64).to_be(),
            (address as u64).to_be(),
        ];
        // SAFETY: as long as a key, which is its length in bits, the epoch and the address, and of bytes.
        let key = unsafe { &*(&raw const words).cast::<Key<ClientKey>>() };
        CLIENTS.get(key).map_or(0, |class| *class)
    }

    #[inline(always)]
    fn station(&self, epoch: u32, mac: u64) -> u32 {
        if !settings::on(Features::STATIONS) {
            return 0;
        }
        let key = StationKey {
            mac,
            epoch,
            reserved: 0,
        };
        // SAFETY: the agent replaces whole values.
        unsafe { STATIONS.get(key) }.map_or(0, |class| *class)
    }

    #[inline(always)]
    fn interface(&self, epoch: u32, ifindex: u32) -> u32 {
        if !settings::on(Features::INTERFACES) {
            return 0;
        }
        // SAFETY: as above.
        unsafe { INTERFACES.get(InterfaceKey { epoch, ifindex }) }.map_or(0, |class| *class)
    }

    #[inline(always)]
    fn choice(&self, key: &ChoiceKey) -> Option<Choice> {
        // In words, as above.
        let words = [
            u64::from(key.set) | (u64::from(key.interface) << 32),
            u64::from(key.client),
        ];
        // SAFETY: as long as a key, with its parts where it has them.
        let key = unsafe { &*(&raw const words).cast::<ChoiceKey>() };
        // SAFETY: the agent replaces whole values.
        unsafe { CHOICES.get(key) }.copied()
    }
}
