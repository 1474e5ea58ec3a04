//! First fragments that matched (map `FRAGMENTS`, a small LRU), written by the kernel only.

use super::assert_size;

/// What identifies a fragmented datagram (RFC 791 §3.2, RFC 8200 §4.5).
///
/// Aligned for the BPF programs, which have it on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Source address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Identification.
    pub id: u32,
    /// Protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
assert_size!(FragmentKey, 40);

/// How the later fragments are to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentValue {
    /// The first fragment's [`Class`](crate::Class).
    pub class: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
assert_size!(FragmentValue, 4);
