//! What captured frames start with, and the packets that the classifier reads in them.

use std::borrow::Cow;
use std::fmt;

use wificall_common::{
    classify::Link,
    wire::ethernet::{self, TYPE_IPV4, TYPE_IPV6},
};

use super::{FRAME_MAX, Frame};

/// What a captured frame starts with (draft-ietf-opsawg-pcaplinktype).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Raw,
    /// The header of Linux' cooked captures, of 16 bytes (`tcpdump -i any`, older).
    Cooked1,
    /// Their second version, of 20 bytes.
    Cooked2,
    /// Another.
    Other(u32),
}

impl From<u32> for LinkType {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Ethernet,
            // LINKTYPE_RAW, two systems' DLT_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6.
            101 | 12 | 14 | 228 | 229 => Self::Raw,
            113 => Self::Cooked1,
            276 => Self::Cooked2,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethernet => f.write_str("Ethernet"),
            Self::Raw => f.write_str("raw IP"),
            Self::Cooked1 => f.write_str("Linux cooked"),
            Self::Cooked2 => f.write_str("Linux cooked v2"),
            Self::Other(number) => write!(f, "link type {number}"),
        }
    }
}

/// A frame as the classifier reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it starts with.
    pub link: Link,
    /// All of it: what was not captured is zeros.
    pub bytes: Cow<'a, [u8]>,
    /// How many bytes were not captured.
    pub missing: u32,
}

/// ARPHRD_ETHER and ARPHRD_LOOPBACK (uapi/linux/if_arp.h): devices with an Ethernet header.
const HARDWARE_ETHERNET: [u16; 2] = [1, 772];

impl Frame {
    /// The packet in it; `None` if it starts with what is not supported, or ends inside of that.
    ///
    /// A cooked capture has no Ethernet header any more: one is made, with the source's address and none of the
    /// destination.
    #[must_use]
    pub fn packet(&self) -> Option<Packet<'_>> {
        let (link, bytes) = match self.link {
            LinkType::Ethernet => (Link::Ethernet, Cow::Borrowed(&self.bytes[..])),
            LinkType::Raw => (Link::Bare, Cow::Borrowed(&self.bytes[..])),
            LinkType::Cooked1 => {
                let (head, payload) = self.bytes.split_first_chunk::<16>()?;
                let [_, _, h0, h1, _, l1, address @ ..] = *head;
                let [address @ .., _, _, p0, p1] = address;
                uncooked([h0, h1], l1, address, [p0, p1], payload)
            }
            LinkType::Cooked2 => {
                let (head, payload) = self.bytes.split_first_chunk::<20>()?;
                let [p0, p1, _, _, _, _, _, _, h0, h1, _, len, address @ ..] = *head;
                let [address @ .., _, _] = address;
                uncooked([h0, h1], len, address, [p0, p1], payload)
            }
            LinkType::Other(_) => return None,
        };
        let missing = self
            .len
            .min(FRAME_MAX)
            .saturating_sub(self.bytes.len() as u32);
        let mut bytes = bytes;
        if missing > 0 {
            let len = bytes.len() + missing as usize;
            bytes.to_mut().resize(len, 0);
        }
        Some(Packet {
            link,
            bytes,
            missing,
        })
    }
}

/// The frame as it was before it was cooked, as far as that is known.
fn uncooked<'a>(
    hardware: [u8; 2],
    address_len: u8,
    address: [u8; 6],
    protocol: [u8; 2],
    payload: &'a [u8],
) -> (Link, Cow<'a, [u8]>) {
    let is_ethernet = HARDWARE_ETHERNET.contains(&u16::from_be_bytes(hardware)) && address_len == 6;
    let is_ip = matches!(u16::from_be_bytes(protocol), TYPE_IPV4 | TYPE_IPV6);
    if is_ip && !is_ethernet {
        return (Link::Bare, Cow::Borrowed(payload));
    }
    let mut bytes = Vec::with_capacity(ethernet::HEADER_LEN + payload.len());
    bytes.extend([0; 6]);
    bytes.extend(if is_ethernet { address } else { [0; 6] });
    bytes.extend(protocol);
    bytes.extend(payload);
    (Link::Ethernet, Cow::Owned(bytes))
}
