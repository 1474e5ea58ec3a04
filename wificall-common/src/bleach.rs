//! The DSCPs of voice, on what has no right to them.

use crate::{
    classify::Link,
    frame::Frame,
    rewrite,
    wire::{Network, Version, ethernet, ipv4, ipv6},
};

/// The rule that resets a DSCP.
const DEFAULT: u8 = 0;

/// Finds the IP header of a frame whose DSCP is to be reset; `None` if there is none, or it has another DSCP.
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, link: Link) -> Option<Network> {
    let (version, offset) = match link {
        Link::Ethernet => ethernet::network(frame),
        Link::Bare => ethernet::bare_network(frame),
    }
    .ok()?;
    let [first, second] = frame.read(offset)?;
    let (number, class) = match version {
        Version::V4 => (4, second),
        Version::V6 => (6, first << 4 | second >> 4),
    };
    (first >> 4 == number && rewrite::is_voice(class >> 2)).then_some((version, offset))
}

/// An IPv4 header's first bytes with DSCP 0, checksum included, or `None` if they stay as they are.
#[inline(always)]
#[must_use]
pub fn ipv4(head: [u8; ipv4::HEAD_LEN]) -> Option<[u8; ipv4::HEAD_LEN]> {
    rewrite::ipv4(head, DEFAULT)
}

/// Likewise IPv6's.
#[inline(always)]
#[must_use]
pub fn ipv6(head: [u8; ipv6::HEAD_LEN]) -> Option<[u8; ipv6::HEAD_LEN]> {
    rewrite::ipv6(head, DEFAULT)
}
