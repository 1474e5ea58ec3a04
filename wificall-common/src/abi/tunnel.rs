//! Which exit a tunnel has (map `TUNNELS`, an LRU), written by the kernel; the agent removes entries.

use super::assert_size;

/// A tunnel: IKE and ESP between the two, whatever the ports.
///
/// Aligned for the BPF programs, which have it on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct TunnelKey {
    /// The phone's address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The ePDG's, likewise, as it stands in the packet.
    pub endpoint: [u8; 16],
}
assert_size!(TunnelKey, 32);

/// Where its `up` packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Tunnel {
    /// [`Policy::exit`](super::Policy::exit) when it began.
    pub exit: u32,
    /// [`Policy::mark`](super::Policy::mark), likewise.
    pub mark: u32,
    /// [`Policy::mask`](super::Policy::mask), likewise.
    pub mask: u32,
    /// When it was last seen, in steps of 2^[`SEEN_SHIFT`] nanoseconds of the monotonic clock.
    pub seen: u32,
    /// When it began, likewise; with [`MOVED`].
    pub began: u32,
    /// When it last carried ESP, likewise, as far as that was noted; 0: never. A call does so all the time.
    pub esp: u32,
}
assert_size!(Tunnel, 24);

/// A step of [`Tunnel::seen`] is about a second: 2^30 ns.
pub const SEEN_SHIFT: u32 = 30;
/// In [`Tunnel::began`]: one between the same two went by another exit before it, and the agent has not yet had its tracked
/// connections forgotten.
pub const MOVED: u32 = 1 << 31;

/// Entry 0 of the map `KEEP`: what is done about ESP, whose packets are many. IKE and keepalives always go by `TUNNELS`.
/// No tunnel is where it should not be: ESP goes by its policy and asks nothing.
pub const KEEP_OFF: u32 = 0;
/// Tunnels may be on another exit than their policy says: ESP goes by `TUNNELS`.
pub const KEEP_ON: u32 = 1;
/// Likewise, and ESP of tunnels that nobody knows is older than the exits: it goes on without a mark.
pub const KEEP_UNKNOWN: u32 = 2;
