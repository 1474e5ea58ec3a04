//! IPv4 header (RFC 791 §3.1).

use super::{Fragment, PROTOCOL_ESP, PROTOCOL_UDP, Packet, Version};
use crate::{
    exit::Exit,
    frame::{Frame, leave_plain},
};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the part of the header that a DSCP change rewrites: through the checksum (bytes 10 and 11).
pub const HEAD_LEN: usize = 12;
/// First byte of a header without options: version 4, five words.
const PLAIN: u8 = 0x45;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Parses the header at `offset` of a packet that carries UDP or ESP. Whether the frame is as long as the packet is
/// for [`Packet::check_len`], once it is known to matter.
///
/// # Errors
///
/// [`Exit::OtherProtocol`] (decided first: it is the common way out), [`Exit::Malformed`], [`Exit::Truncated`].
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Exit> {
    let bytes: [u8; HEADER_LEN] = frame.read(offset).ok_or(Exit::Truncated)?;
    let protocol = bytes[9];
    if protocol != PROTOCOL_UDP && protocol != PROTOCOL_ESP {
        return Err(Exit::OtherProtocol);
    }
    if bytes[0] != PLAIN {
        leave_plain::<F>()?;
    }
    let header_len = usize::from(bytes[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if bytes[0] >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len {
        return Err(Exit::Malformed);
    }
    let flags_offset = u16::from_be_bytes([bytes[6], bytes[7]]);
    if flags_offset & (OFFSET_MASK | MORE_FRAGMENTS) != 0 {
        leave_plain::<F>()?;
    }
    let fragment = if flags_offset & OFFSET_MASK != 0 {
        Fragment::Later
    } else if flags_offset & MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    Ok(Packet {
        version: Version::V4,
        offset,
        protocol,
        header_len,
        total_len,
        fragment,
        fragment_id: u32::from(u16::from_be_bytes([bytes[4], bytes[5]])),
    })
}

/// The protocol field of the header at `offset`.
#[inline(always)]
pub fn protocol<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u8> {
    let bytes: [u8; HEADER_LEN] = frame.read(offset)?;
    Some(bytes[9])
}

/// Where the payload is if the header at `offset` has no options and the packet is whole. `None` if [`parse`] has to say
/// what it is.
#[inline(always)]
pub fn plain_payload<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<usize> {
    let bytes: [u8; HEADER_LEN] = frame.read(offset)?;
    let [more, rest] = (MORE_FRAGMENTS | OFFSET_MASK).to_be_bytes();
    let is_plain = bytes[0] == PLAIN && (bytes[6] & more) | (bytes[7] & rest) == 0;
    let is_long_enough = bytes[2] != 0 || bytes[3] >= HEADER_LEN as u8;
    (is_plain && is_long_enough).then_some(offset + HEADER_LEN)
}

/// The source address of the header at `offset`, as a number.
#[inline(always)]
pub fn source<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u32> {
    frame.read(offset + 12).map(u32::from_be_bytes)
}

/// The destination address of the header at `offset`, as a number.
#[inline(always)]
pub fn destination<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u32> {
    frame.read(offset + 16).map(u32::from_be_bytes)
}
