//! What is sent: kinds of packets, and the addresses that they differ in.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use crate::{
    lab::{PHONE4, PHONE6},
    packet::Packet,
    scatter::scattered,
};

/// Length of the Ethernet header.
pub const LINK: usize = 14;
/// Countries, each with a mark of its own.
pub const MARKS: u32 = 20;
/// Endpoints at most.
const MOST: u32 = 30_000;
/// Bits of the number of an endpoint's block.
const BITS: u32 = 15;
/// Where a TCP header has its flags, and the one of pushed data (RFC 9293 §3.1).
const TCP_FLAGS: usize = 13;
const PUSH: u8 = 0x08;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From phones: in by `lan`, out by `wan`, to an endpoint.
    Up,
    /// To phones, from an endpoint.
    Down,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP port 443.
    Tcp,
    /// UDP port 443, as QUIC.
    Udp,
    /// ESP in UDP 4500: a call.
    Esp,
    /// The same to hosts that are no endpoints: somebody's VPN.
    Vpn,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Packets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Which way.
    pub direction: Direction,
    /// What.
    pub kind: Kind,
    /// In what.
    pub family: Family,
}

impl Traffic {
    /// As tables call it.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Tcp => "TCP",
            Kind::Udp => "UDP 443",
            Kind::Esp => "Wi-Fi Calling",
            Kind::Vpn => "other VPN",
        };
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        format!("{kind}, {family}")
    }

    /// Whether these are packets to or from an endpoint by a port of IPsec.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.kind == Kind::Esp
    }

    /// A frame for each of `endpoints` endpoints, in an order that memory does not like. All have about the size of a
    /// voice packet.
    ///
    /// # Errors
    ///
    /// If there are more than addresses are made for.
    pub fn frames(&self, endpoints: u32) -> Result<Vec<Vec<u8>>> {
        ensure!(endpoints <= MOST, "at most {MOST} endpoints");
        order(endpoints).map(|index| self.frame(index)).collect()
    }

    fn frame(&self, index: u32) -> Result<Vec<u8>> {
        let ip = match self.family {
            Family::V4 => format!("ip4 {PHONE4} > {}", self.host4(index)),
            Family::V6 => format!("ip6 {PHONE6} > {}", self.host6(index)),
        };
        let inner = match self.kind {
            Kind::Tcp => "tcp 40000 > 443 / bytes 100",
            Kind::Udp => "udp 40000 > 443 sum=0 / bytes 112",
            Kind::Esp | Kind::Vpn => "udp 40000 > 4500 sum=0 / esp 112",
        };
        let packet: Packet = format!("eth / {ip} / {inner}").parse()?;
        let mut bytes = match self.direction {
            Direction::Up => packet,
            Direction::Down => packet.mirrored(),
        }
        .bytes();
        if self.kind == Kind::Tcp {
            // Pushed: receive offload passes each on at once instead of waiting for more of a stream.
            bytes[LINK + self.family.header() + TCP_FLAGS] |= PUSH;
        }
        Ok(bytes)
    }

    fn host4(&self, index: u32) -> Ipv4Addr {
        let host = match self.kind {
            // 151.0.0.0/8
            Kind::Vpn => u32::from(block4(index)) + (50 << 24),
            Kind::Tcp | Kind::Udp | Kind::Esp => u32::from(block4(index)),
        };
        Ipv4Addr::from(host + 1 + index % 254)
    }

    fn host6(&self, index: u32) -> Ipv6Addr {
        let mut segments = block6(index).segments();
        if self.kind == Kind::Vpn {
            segments[2] = 0xffff;
        }
        segments[7] = 1 + (index % 254) as u16;
        segments.into()
    }
}

impl Family {
    /// Length of the header.
    #[must_use]
    pub const fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// Every index below `endpoints` once.
pub fn order(endpoints: u32) -> impl Iterator<Item = u32> {
    // A prime that divides no count of endpoints up to `MOST` but its own multiples, which nobody takes.
    const STRIDE: u64 = 7_919;
    let count = u64::from(endpoints);
    (0..count).map(move |index| (index * STRIDE % count) as u32)
}

/// The /24 of an endpoint, in 101.0.0.0/8. None are neighbours, as hardly any in the world are.
#[must_use]
pub fn block4(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(101, 0, 0, 0)) + scattered(index, BITS) * 2 * 256)
}

/// Likewise, the /64.
#[must_use]
pub fn block6(index: u32) -> Ipv6Addr {
    Ipv6Addr::new(
        0x2001,
        0xdb8,
        0,
        (scattered(index, BITS) * 2) as u16,
        0,
        0,
        0,
        0,
    )
}

/// The mark of an endpoint's country.
#[must_use]
pub const fn mark(index: u32) -> u32 {
    1 + index % MARKS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_endpoint_is_met_once() {
        for endpoints in [250, 1_000, 10_000] {
            let seen: BTreeSet<_> = order(endpoints).collect();
            assert_eq!(seen.len(), endpoints as usize);
        }
    }

    /// The injector writes only the headers, so nothing else may differ.
    #[test]
    fn frames_differ_in_their_headers_only() {
        for family in [Family::V4, Family::V6] {
            for kind in [Kind::Tcp, Kind::Udp, Kind::Esp, Kind::Vpn] {
                for direction in [Direction::Up, Direction::Down] {
                    let traffic = Traffic {
                        direction,
                        kind,
                        family,
                    };
                    let frames = traffic.frames(300).unwrap();
                    let header = LINK + family.header();
                    assert!(
                        frames
                            .iter()
                            .all(|frame| frame[header..] == frames[0][header..])
                    );
                    let headers: BTreeSet<_> =
                        frames.iter().map(|frame| &frame[..header]).collect();
                    assert_eq!(headers.len(), 300);
                }
            }
        }
    }
}
