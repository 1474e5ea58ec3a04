//! Ethernet II (IEEE 802.3 §3.2.6), and devices without a link header.

use super::{Network, Version, ipv4, pppoe, vlan};
use crate::{
    Direction,
    exit::Exit,
    frame::{Frame, leave_plain},
};

/// Length of the header without tags.
pub const HEADER_LEN: usize = 14;
/// Where the destination's address is.
pub const DESTINATION: usize = 0;
/// Where the source's address is.
pub const SOURCE: usize = 6;
/// IPv4 (RFC 894).
pub const TYPE_IPV4: u16 = 0x0800;
/// IPv6 (RFC 2464 §3).
pub const TYPE_IPV6: u16 = 0x86dd;

/// Finds the network header behind an Ethernet header, VLAN tags and a PPPoE session header.
///
/// # Errors
///
/// [`Exit::NotIp`], [`Exit::VlanDepth`], [`Exit::Truncated`], [`Exit::Malformed`].
#[inline(always)]
pub fn network<F: Frame + ?Sized>(frame: &F) -> Result<Network, Exit> {
    if F::PLAIN {
        // One check of bounds for this header and IPv4's. No shorter frame is worth a quick answer.
        let _: [u8; HEADER_LEN + ipv4::HEADER_LEN] = frame.read(0).ok_or(Exit::Truncated)?;
    }
    let ethertype = u16::from_be_bytes(frame.read(HEADER_LEN - 2).ok_or(Exit::Truncated)?);
    match ethertype {
        TYPE_IPV4 => return Ok((Version::V4, HEADER_LEN)),
        TYPE_IPV6 => return Ok((Version::V6, HEADER_LEN)),
        vlan::TYPE_C_TAG | vlan::TYPE_S_TAG | pppoe::TYPE_SESSION => leave_plain::<F>()?,
        _ => return Err(Exit::NotIp),
    }
    let (ethertype, offset) = vlan::skip(frame, ethertype, HEADER_LEN)?;
    match ethertype {
        TYPE_IPV4 => Ok((Version::V4, offset)),
        TYPE_IPV6 => Ok((Version::V6, offset)),
        pppoe::TYPE_SESSION => pppoe::network(frame, offset),
        _ => Err(Exit::NotIp),
    }
}

impl Direction {
    /// Where the address of the station on the client's side is.
    #[inline(always)]
    pub(crate) const fn station(self) -> usize {
        match self {
            Self::Up => SOURCE,
            Self::Down => DESTINATION,
        }
    }
}

/// The link-layer address at [`SOURCE`] or [`DESTINATION`], a number of 48 bits.
#[inline(always)]
pub fn address<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u64> {
    let [a, b, c, d, e, f] = frame.read(offset)?;
    Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

/// Finds the network header of a device without a link header (tun, ppp, WireGuard): the frame starts with it.
///
/// # Errors
///
/// [`Exit::NotIp`] if the first four bits are neither 4 nor 6, [`Exit::Truncated`] if there is no first byte.
#[inline(always)]
pub fn bare_network<F: Frame + ?Sized>(frame: &F) -> Result<Network, Exit> {
    let [first] = frame.read(0).ok_or(Exit::Truncated)?;
    match first >> 4 {
        4 => Ok((Version::V4, 0)),
        6 => Ok((Version::V6, 0)),
        _ => Err(Exit::NotIp),
    }
}
