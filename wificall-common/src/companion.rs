//! Packets to port 443, which may go to a companion name's address.

use crate::{
    classify::Link,
    endpoint::mapped,
    frame::Frame,
    wire::{PROTOCOL_UDP, Version, ethernet, ipv4, ipv6},
};

/// HTTPS, over TCP and QUIC (RFC 9110 §4.2.2, RFC 9114 §3.1).
const PORT: u16 = 443;
/// Protocol number of TCP (RFC 9293).
const PROTOCOL_TCP: u8 = 6;

/// Where such a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// IP version.
    pub version: Version,
    /// Where the IP header begins in the frame.
    pub offset: usize,
    /// The destination; IPv4 as `::ffff:a.b.c.d`.
    pub address: u128,
}

/// Where a frame's packet to port 443 goes; `None` if it is none. Headers with options or extensions, and fragments, are
/// none: nobody's HTTPS has them.
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, link: Link) -> Option<To> {
    let (version, offset) = match link {
        Link::Ethernet => ethernet::network(frame),
        Link::Bare => ethernet::bare_network(frame),
    }
    .ok()?;
    let (protocol, payload) = match version {
        Version::V4 => (
            ipv4::protocol(frame, offset)?,
            ipv4::plain_payload(frame, offset)?,
        ),
        Version::V6 => (
            ipv6::next_header(frame, offset)?,
            ipv6::plain_payload(frame, offset)?,
        ),
    };
    // Source and destination are where UDP has them.
    let [_, _, high, low]: [u8; 4] = frame.read(payload)?;
    if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
        || u16::from_be_bytes([high, low]) != PORT
    {
        return None;
    }
    let address = match version {
        Version::V4 => mapped(ipv4::destination(frame, offset)?),
        Version::V6 => ipv6::destination(frame, offset)?,
    };
    Some(To {
        version,
        offset,
        address,
    })
}
