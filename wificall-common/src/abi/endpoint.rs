//! The endpoint table, written by the agent only.
//!
//! Addresses are looked up in this order: the block (map `BLOCKS4` by /24, `BLOCKS6` by /64), then, only where the
//! block says that single hosts differ, `HOSTS`; then, only if any irregular prefix is configured, the LPM trie
//! `PREFIXES`. See `endpoint.rs` for the algorithm.

use super::assert_size;

/// The block holds single hosts with entries of their own in `HOSTS`.
pub const FLAG_HOSTS: u32 = 1;
/// IPv6: every address of the block is an endpoint.
pub const FLAG_WHOLE: u32 = 2;

/// What the table says of an endpoint: a value of `HOSTS` and `PREFIXES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EndpointRef {
    /// Index in `COUNTERS` and `GROUPS`; 0 means "not an endpoint": an exception inside a shorter prefix.
    pub group: u32,
    /// Index in `POLICIES`.
    pub policy: u32,
    /// Index in `ACTIVITY`.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
}
assert_size!(EndpointRef, 16);

/// An IPv4 /24: value of `BLOCKS4`, whose key is the block's first three bytes and a zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Block4 {
    /// Group of the members that have no entry in `HOSTS`.
    pub group: u32,
    /// Their policy.
    pub policy: u32,
    /// Their activity slot.
    pub slot: u32,
    /// [`FLAG_HOSTS`].
    pub flags: u32,
    /// Bit `last_byte % 32` of word `last_byte / 32` is set for each endpoint.
    pub members: [u32; 8],
}
assert_size!(Block4, 48);

/// An IPv6 /64: value of `BLOCKS6`, whose key is the block's first eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Block6 {
    /// Group of the members that have no entry in `HOSTS`.
    pub group: u32,
    /// Their policy.
    pub policy: u32,
    /// Their activity slot.
    pub slot: u32,
    /// [`FLAG_HOSTS`], [`FLAG_WHOLE`].
    pub flags: u32,
}
assert_size!(Block6, 16);
