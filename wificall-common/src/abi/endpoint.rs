//! The endpoint table, written by the agent only.
//!
//! Addresses are looked up in this order: the block (map `BLOCKS4` by /24, `BLOCKS6` by /64), then, only where the
//! block says that single hosts differ, `HOSTS`; then, only if any irregular prefix is configured, the LPM trie
//! `PREFIXES`. See `endpoint.rs` for the algorithm, `lines.rs` for how blocks lie in the maps.

use super::{Members, assert_size};

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

/// What is said of an IPv4 /24. In the maps it is a [`Cell`](super::Cell), and `members` an entry of `MEMBERS` where they
/// are no range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block4 {
    /// Group of the members that have no entry in `HOSTS`.
    pub group: u32,
    /// Their policy.
    pub policy: u32,
    /// Their activity slot.
    pub slot: u32,
    /// [`FLAG_HOSTS`].
    pub flags: u32,
    /// Which addresses are endpoints.
    pub members: Members,
}

/// What is said of an IPv6 /64. In the maps it is a [`Cell`](super::Cell).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
