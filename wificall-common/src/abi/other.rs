//! IPsec that is no match, or whose endpoint is not trusted enough to pass (`[other_ipsec]`).

use super::assert_size;

/// What has gone to one destination (value of the map `OTHERS`, an LRU; the key is the address, network order, IPv4 as
/// `::ffff:a.b.c.d`), written by the kernel only. Whose packets they were is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Destination {
    /// Packets; an aggregate (GSO) counts its segments. CPUs that race lose one of two.
    pub packets: u64,
    /// Bytes of the IP packets, an aggregate's headers once.
    pub bytes: u64,
    /// When the last one passed, by the monotonic clock in nanoseconds.
    pub last: u64,
}
assert_size!(Destination, 24);

/// Destinations that are remembered.
pub const OTHERS_SIZE: u32 = 1024;
/// Room for the networks that are spared (map `SPARED`, an LPM trie; keys as those of `PREFIXES`, written by the agent).
pub const SPARED_SIZE: u32 = 4096;
