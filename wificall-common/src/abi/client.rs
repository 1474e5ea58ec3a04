//! Policies by client, written by the agent only.
//!
//! A row of `POLICIES` with a [`set`](super::Policy::set) may be replaced by another, by the client and the interface of
//! the packet. Clients that no policy tells apart are of one class. Classes are numbered anew whenever the policies
//! change; every key has the epoch of its numbering, and a row names the epoch that its set was made for: so a packet
//! that is on its way meanwhile is decided by the one or the other, and never by a mixture.

use super::assert_size;

/// Addresses of companion names that there is room for.
pub const COMPANIONS_SIZE: u32 = 4_096;

/// Gateways of exits on access links that there is room for, each with two keys.
pub const GATEWAYS_SIZE: u32 = 512;

/// Bits of the key of the trie `CLIENTS` before those of an address: its epoch.
pub const EPOCH_BITS: u8 = 32;

/// Key of the trie `CLIENTS`, behind its length in bits; the value is the class of the network's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ClientKey {
    /// [`Policy::epoch`](super::Policy::epoch), any order, but always the same.
    pub epoch: [u8; 4],
    /// Network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}
assert_size!(ClientKey, 20);

/// Key of the hash `STATIONS`; the value is the class of the client with this link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct StationKey {
    /// The address, in the low 48 bits.
    pub mac: u64,
    /// As above.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
}
assert_size!(StationKey, 16);

/// Key of the hash `INTERFACES`; the value is the class of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct InterfaceKey {
    /// As above.
    pub epoch: u32,
    /// The interface's index.
    pub ifindex: u32,
}
assert_size!(InterfaceKey, 8);

/// Key of the hash `CHOICES`. Class 0 is everybody (every interface) that is of no class of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct ChoiceKey {
    /// [`Policy::set`](super::Policy::set).
    pub set: u32,
    /// Class of the interface.
    pub interface: u32,
    /// Class of the client.
    pub client: u32,
    /// Zero.
    pub reserved: u32,
}
assert_size!(ChoiceKey, 16);

/// What such packets get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Choice {
    /// Place of the policy in the list: the lowest that is found wins.
    pub order: u32,
    /// Index in `POLICIES`.
    pub policy: u32,
}
assert_size!(Choice, 8);
