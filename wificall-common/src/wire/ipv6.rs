//! IPv6 header and extension headers (RFC 8200 §3, §4).

use super::{Fragment, PROTOCOL_ESP, PROTOCOL_UDP, Packet, Version};
use crate::{
    exit::Exit,
    frame::{Frame, leave_plain},
};

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Length of the part of the header that holds the traffic class.
pub const HEAD_LEN: usize = 4;
/// Extension headers followed in one packet. RFC 8200 §4.1 recommends each at most once, destination options twice:
/// hop-by-hop, destination, routing, fragment, destination. Real packets have at most two.
pub const MAX_EXTENSIONS: usize = 5;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const FRAGMENT_HEADER_LEN: usize = 8;
const MORE_FRAGMENTS: u16 = 1;
const OFFSET_MASK: u16 = 0xfff8;

/// Parses the header at `offset` of a packet that carries UDP or ESP. Whether the frame is as long as the packet is
/// for [`Packet::check_len`], once it is known to matter.
///
/// # Errors
///
/// [`Exit::OtherProtocol`] (decided as early as the chain allows), [`Exit::ExtensionDepth`], [`Exit::Malformed`],
/// [`Exit::Truncated`].
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Exit> {
    let bytes: [u8; 8] = frame.read(offset).ok_or(Exit::Truncated)?;
    let next = bytes[6];
    if !is_upper(next) && !is_extension(next) {
        return Err(Exit::OtherProtocol);
    }
    if bytes[0] >> 4 != 6 {
        return Err(Exit::Malformed);
    }
    let total_len = HEADER_LEN + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let packet = Packet {
        version: Version::V6,
        offset,
        protocol: next,
        header_len: HEADER_LEN,
        total_len,
        fragment: Fragment::Whole,
        fragment_id: 0,
    };
    if is_upper(next) {
        return Ok(packet);
    }
    leave_plain::<F>()?;
    let packet = extensions(frame, packet)?;
    if packet.header_len > total_len {
        return Err(Exit::Malformed);
    }
    Ok(packet)
}

/// The next header field of the header at `offset`, unless it is an extension header.
#[inline(always)]
pub fn next_header<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u8> {
    let bytes: [u8; 8] = frame.read(offset)?;
    (!is_extension(bytes[6])).then_some(bytes[6])
}

/// Where the payload is if no extension header stands before it. `None` if [`parse`] has to say what it is.
#[inline(always)]
pub fn plain_payload<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<usize> {
    let bytes: [u8; 8] = frame.read(offset)?;
    (bytes[0] >> 4 == 6).then_some(offset + HEADER_LEN)
}

/// The source address of the header at `offset`, as a number.
#[inline(always)]
pub fn source<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u128> {
    frame.read(offset + 8).map(u128::from_be_bytes)
}

/// The destination address of the header at `offset`, as a number.
#[inline(always)]
pub fn destination<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u128> {
    frame.read(offset + 24).map(u128::from_be_bytes)
}

/// Walks the chain of extension headers that begins with `packet.protocol`.
#[inline(always)]
fn extensions<F: Frame + ?Sized>(frame: &F, packet: Packet) -> Result<Packet, Exit> {
    let mut packet = packet;
    for _ in 0..MAX_EXTENSIONS {
        let at = packet.offset + packet.header_len;
        if packet.protocol == FRAGMENT {
            let header: [u8; FRAGMENT_HEADER_LEN] = frame.read(at).ok_or(Exit::Truncated)?;
            let [next, _, o0, o1, i0, i1, i2, i3] = header;
            let field = u16::from_be_bytes([o0, o1]);
            packet.header_len += FRAGMENT_HEADER_LEN;
            packet.protocol = next;
            packet.fragment_id = u32::from_be_bytes([i0, i1, i2, i3]);
            if field & OFFSET_MASK != 0 {
                packet.fragment = Fragment::Later;
                // What follows in a later fragment is payload. If the first one carries more headers, the protocol
                // is not to be known here.
                return if is_upper(next) {
                    Ok(packet)
                } else {
                    Err(Exit::OtherProtocol)
                };
            }
            if field & MORE_FRAGMENTS != 0 {
                packet.fragment = Fragment::First;
            }
            // Otherwise an atomic fragment (RFC 6946): whole.
        } else {
            let [next, units] = frame.read(at).ok_or(Exit::Truncated)?;
            packet.header_len += (usize::from(units) + 1) * 8;
            packet.protocol = next;
        }
        if is_upper(packet.protocol) {
            return Ok(packet);
        }
        if !is_extension(packet.protocol) {
            return Err(Exit::OtherProtocol);
        }
    }
    Err(Exit::ExtensionDepth)
}

const fn is_upper(next: u8) -> bool {
    matches!(next, PROTOCOL_UDP | PROTOCOL_ESP)
}

const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}
