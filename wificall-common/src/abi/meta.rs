//! What the agent keeps in the kernel about the data plane itself, so that the next agent needs no other memory.

use super::assert_size;

/// "wificall" in ASCII.
pub const META_MAGIC: u64 = u64::from_le_bytes(*b"wificall");

/// The one entry of the map `META`. Its layout is the same in every ABI version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// [`META_MAGIC`].
    pub magic: u64,
    /// The XDP nonce of the programs that were attached last.
    pub nonce: u64,
    /// [`ABI_VERSION`](super::ABI_VERSION) of the maps beside this one.
    pub abi: u32,
    /// 1 once the counters of the data plane before this one have been carried over.
    pub carried: u32,
}
assert_size!(Meta, 24);

/// Room for a group's labels.
pub const LABEL_LEN: usize = 128;

/// What a group's counters count (map `GROUPS`, indexed by group): `operator\0country`, padded with zeros. All zero in a
/// row that was never given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupLabel {
    /// The labels.
    pub bytes: [u8; LABEL_LEN],
}
assert_size!(GroupLabel, LABEL_LEN);

/// Key of the map `CLSACT_HOOKS`: a clsact filter that we installed. TCX and XDP links are pinned instead. Key and value
/// have the same layout in every ABI version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HookKey {
    /// Interface index.
    pub ifindex: u32,
    /// [`Hook`](super::Hook).
    pub hook: u32,
}
assert_size!(HookKey, 8);

/// Value of the map `CLSACT_HOOKS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HookRecord {
    /// Filter handle.
    pub handle: u32,
    /// Filter priority.
    pub priority: u16,
    /// 1 if the clsact qdisc was added by us.
    pub own_qdisc: u8,
    /// Zero.
    pub reserved: u8,
}
assert_size!(HookRecord, 8);
