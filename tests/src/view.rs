//! An independent reading of IP packets, so that the tests do not judge the
//! agent by its own parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::capture::Frame;

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// An IPv4 or IPv6 packet without VLAN tags or extension headers, which is all
/// that the labs send.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IPv4 TOS or IPv6 traffic class: DSCP in the upper six bits, ECN below.
    pub tos: u8,
    /// IPv4 protocol or IPv6 next header.
    pub protocol: u8,
    /// Whether this is an IPv4 fragment other than the first.
    pub later_fragment: bool,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// What follows the UDP header, or else the IP header.
    pub payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Reads an Ethernet frame; nothing if it is not a whole IP packet.
    #[must_use]
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let ip = frame.bytes.get(ETHERNET..)?;
        match u16::from_be_bytes([frame.bytes[12], frame.bytes[13]]) {
            0x0800 => Self::ipv4(ip),
            0x86dd => Self::ipv6(ip),
            _ => None,
        }
    }

    fn ipv4(ip: &'a [u8]) -> Option<Self> {
        let header = usize::from(ip.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
        let offset = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x1fff;
        let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
        let destination: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
        let view = Self {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
            tos: ip[1],
            protocol: ip[9],
            later_fragment: offset != 0,
            ports: None,
            payload: ip.get(header..total)?,
        };
        Some(view.transport())
    }

    fn ipv6(ip: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
        let source: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
        let destination: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
        let view = Self {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            tos: ip[0] << 4 | ip[1] >> 4,
            protocol: ip[6],
            later_fragment: false,
            ports: None,
            payload: ip.get(40..40 + length)?,
        };
        Some(view.transport())
    }

    fn transport(mut self) -> Self {
        if self.later_fragment || !matches!(self.protocol, UDP | TCP) {
            return self;
        }
        if let [a, b, c, d, ..] = *self.payload {
            self.ports = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        }
        if self.protocol == UDP {
            self.payload = self.payload.get(8..).unwrap_or_default();
        }
        self
    }

    /// The DSCP, 0 to 63.
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// Whether both addresses are unicast addresses of a lab, which leaves out
    /// what kernels say to each other (neighbour discovery, MLD).
    #[must_use]
    pub fn is_traffic(&self) -> bool {
        let local = |address: IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
        };
        const ICMPV6: u8 = 58;
        let discovery = self.protocol == ICMPV6 && matches!(self.payload.first(), Some(133..=137));
        !(discovery
            || self.destination.is_multicast()
            || local(self.source)
            || local(self.destination))
    }
}
