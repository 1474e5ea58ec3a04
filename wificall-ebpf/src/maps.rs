//! The maps. Sizes here are defaults; the agent sets them from its limits when it creates the maps.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use wificall_common::{
    Class,
    abi::{
        Block4, Block6, Bucket, BucketKey, Counters, EXIT_SLOTS, EndpointRef, FragmentKey,
        FragmentValue, GroupLabel, HookKey, HookRecord, Meta, Policy,
    },
    classify::Tables,
    endpoint::Table,
};

use crate::settings;

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

// Endpoints and policies: written by the agent, read here.
#[map]
static BLOCKS4: HashMap<u32, Block4> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static BLOCKS6: HashMap<u64, Block6> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static HOSTS: HashMap<Aligned<[u8; 16]>, EndpointRef> =
    HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static PREFIXES: LpmTrie<[u8; 16], EndpointRef> =
    LpmTrie::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
pub static POLICIES: Array<Policy> = Array::with_max_entries(256, 0);

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
        None => number & mask,
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
    fn block4(&self, key: u32) -> Option<&Block4> {
        // SAFETY: the agent replaces whole values; the kernel frees an old one only after this run.
        unsafe { BLOCKS4.get(key.to_be()) }
    }

    #[inline(always)]
    fn block6(&self, key: u64) -> Option<&Block6> {
        // SAFETY: as above.
        unsafe { BLOCKS6.get(key.to_be()) }
    }

    #[inline(always)]
    fn host(&self, address: u128) -> Option<&EndpointRef> {
        // SAFETY: as above.
        unsafe { HOSTS.get(Aligned(address.to_be_bytes())) }
    }

    #[inline(always)]
    fn prefix(&self, address: u128) -> Option<&EndpointRef> {
        if !settings::on(wificall_common::abi::Features::PREFIXES) {
            return None;
        }
        let padded = PrefixKey {
            padding: 0,
            key: Key::new(128, address.to_be_bytes()),
        };
        PREFIXES.get(&padded.key)
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
}
