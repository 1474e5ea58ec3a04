//! VLAN tags (IEEE 802.1Q §9): TPID 2, TCI 2, each before the next EtherType.
//!
//! A tag that the NIC took out is not in the frame, and the frame parses as if it had never been there.

use crate::{exit::Exit, frame::Frame};

/// C-VLAN tag.
pub const TYPE_C_TAG: u16 = 0x8100;
/// S-VLAN tag (802.1ad).
pub const TYPE_S_TAG: u16 = 0x88a8;
/// Tags followed in one frame.
pub const MAX_TAGS: usize = 2;
const TAG_LEN: usize = 4;
/// The VLAN ID in a TCI.
pub const ID_MASK: u16 = 0x0fff;

/// Skips up to [`MAX_TAGS`] tags. `ethertype` was read just before `offset`; returns those after the tags.
///
/// # Errors
///
/// [`Exit::VlanDepth`] if there are more, [`Exit::Truncated`] if the frame ends inside one.
#[inline(always)]
pub fn skip<F: Frame + ?Sized>(
    frame: &F,
    ethertype: u16,
    offset: usize,
) -> Result<(u16, usize), Exit> {
    let (mut ethertype, mut offset) = (ethertype, offset);
    for _ in 0..MAX_TAGS {
        if !is_tag(ethertype) {
            return Ok((ethertype, offset));
        }
        ethertype = u16::from_be_bytes(frame.read(offset + 2).ok_or(Exit::Truncated)?);
        offset += TAG_LEN;
    }
    if is_tag(ethertype) {
        return Err(Exit::VlanDepth);
    }
    Ok((ethertype, offset))
}

/// The VLAN ID of the first tag in an Ethernet frame; 0 without one.
#[inline(always)]
pub fn outermost<F: Frame + ?Sized>(frame: &F) -> u16 {
    let start = super::ethernet::HEADER_LEN - 2;
    let [e0, e1, t0, t1] = frame.read(start).unwrap_or([0; 4]);
    if is_tag(u16::from_be_bytes([e0, e1])) {
        u16::from_be_bytes([t0, t1]) & ID_MASK
    } else {
        0
    }
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, TYPE_C_TAG | TYPE_S_TAG)
}
