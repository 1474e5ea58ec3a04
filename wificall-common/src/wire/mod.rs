//! Packet formats, one protocol a file.
//!
//! A parser takes a [`Frame`](crate::frame::Frame) and an offset and returns a small value, or the
//! [`Exit`](crate::exit::Exit) that says why it could not. It never panics.
//!
//! Not supported: 802.3 length fields with SNAP, MPLS, PPPoE behind more than two VLAN tags, IPv6 jumbograms,
//! tunnels (their inner packets are seen on the tunnel's own device).

pub mod dns;
pub mod esp;
pub mod ethernet;
pub mod ike;
pub mod ipv4;
pub mod ipv6;
pub mod nat64;
pub mod natt;
pub mod pppoe;
pub mod udp;
pub mod vlan;

use crate::{exit::Exit, frame::Frame};

/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ESP.
pub const PROTOCOL_ESP: u8 = 50;

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The network layer protocol that a link layer header announces, and the offset of its header.
pub type Network = (Version, usize);

/// An IP packet that carries UDP or ESP. Scalars only: addresses are read where they are needed, so that no run of the
/// classifier has to hold both families' on the BPF stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP version.
    pub version: Version,
    /// Where the IP header begins in the frame.
    pub offset: usize,
    /// [`PROTOCOL_UDP`] or [`PROTOCOL_ESP`].
    pub protocol: u8,
    /// Length in bytes of the IP header, options and extension headers included.
    pub header_len: usize,
    /// Length in bytes of the packet, headers included; at least `header_len`, but see [`check_len`](Self::check_len).
    pub total_len: usize,
    /// Place in a fragmented datagram.
    pub fragment: Fragment,
    /// Identification of the datagram if it is fragmented, else 0. Not a field of [`Fragment`]: there it would be
    /// undefined in whole packets, and the verifier refuses to see an undefined register spilled.
    pub fragment_id: u32,
}

impl Packet {
    /// Checks that the frame holds the whole packet. Asked once the packet is worth it: what goes to another port may be
    /// as long as it likes.
    ///
    /// # Errors
    ///
    /// [`Exit::Truncated`].
    #[inline(always)]
    pub fn check_len<F: Frame + ?Sized>(&self, frame: &F) -> Result<(), Exit> {
        if frame.size() < self.offset + self.total_len {
            return Err(Exit::Truncated);
        }
        Ok(())
    }
}

/// Where an IP packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The packet is the whole datagram.
    Whole,
    /// The first fragment, which carries the ports.
    First,
    /// A later fragment.
    Later,
}
