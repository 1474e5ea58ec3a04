//! A frame made of addresses, protocol and ports.

use std::net::IpAddr;

use thiserror::Error;
use wificall_common::wire::{
    PROTOCOL_ESP, PROTOCOL_UDP, esp, ethernet, ike, ipv4, ipv6, natt, udp,
};

const PROTOCOL_TCP: u8 = 6;
const NAMES: [(&str, u8); 5] = [
    ("udp", PROTOCOL_UDP),
    ("esp", PROTOCOL_ESP),
    ("tcp", PROTOCOL_TCP),
    ("icmp", 1),
    ("icmpv6", 58),
];
/// An SPI that is in nobody's way; those below 256 are reserved (RFC 4303 §2.1).
const SPI: [u8; 4] = [0, 0, 1, 0];
const TTL: u8 = 64;

/// A packet by what a firewall's log says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
}

/// What UDP carries to or from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Content {
    /// An IKE_SA_INIT, on port 4500 behind the non-ESP marker
    Ike,
    /// ESP
    #[value(name = "esp_udp")]
    EspUdp,
    /// A NAT keepalive
    Keepalive,
}

/// The words do not say a packet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlowError {
    /// Too few or too many.
    #[error(
        "expected SOURCE DESTINATION PROTOCOL, and of udp and tcp SOURCE-PORT DESTINATION-PORT"
    )]
    Words,
    /// One that is no address.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// Two families.
    #[error("{0} and {1} are of two families")]
    Families(IpAddr, IpAddr),
    /// One that is no protocol.
    #[error("{0:?} is no protocol: expected udp, esp, tcp, icmp, icmpv6 or a number below 256")]
    Protocol(String),
    /// One that is no port.
    #[error("{0:?} is no port: expected a number from 0 to 65535")]
    Port(String),
}

impl Flow {
    /// Reads `SOURCE DESTINATION PROTOCOL [SOURCE-PORT DESTINATION-PORT]`.
    ///
    /// # Errors
    ///
    /// What is wrong with the words.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self, FlowError> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let [source, destination, protocol, ports @ ..] = &words[..] else {
            return Err(FlowError::Words);
        };
        let address = |text: &str| -> Result<IpAddr, FlowError> {
            text.parse()
                .map_err(|_| FlowError::Address(text.to_owned()))
        };
        let (source, destination) = (address(source)?, address(destination)?);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::Families(source, destination));
        }
        let lower = protocol.to_ascii_lowercase();
        let named = NAMES.iter().find(|(name, _)| *name == lower);
        let protocol = match named {
            Some((_, number)) => *number,
            None => lower
                .parse()
                .map_err(|_| FlowError::Protocol((*protocol).to_owned()))?,
        };
        let port = |text: &str| -> Result<u16, FlowError> {
            text.parse().map_err(|_| FlowError::Port(text.to_owned()))
        };
        let ports = match (protocol, ports) {
            (PROTOCOL_UDP | PROTOCOL_TCP, [from, to]) => Some((port(from)?, port(to)?)),
            (PROTOCOL_UDP | PROTOCOL_TCP, _) => return Err(FlowError::Words),
            (_, []) => None,
            _ => return Err(FlowError::Words),
        };
        Ok(Self {
            source,
            destination,
            protocol,
            ports,
        })
    }

    /// An Ethernet frame of it, without addresses of the link layer. What UDP carries is by default what its ports say.
    #[must_use]
    pub fn frame(&self, content: Option<Content>) -> Vec<u8> {
        let payload = self.payload(content);
        let mut frame = vec![0; ethernet::HEADER_LEN - 2];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = (ipv4::HEADER_LEN + payload.len()) as u16;
                frame.extend(ethernet::TYPE_IPV4.to_be_bytes());
                frame.extend([0x45, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([0, 0, 0, 0, TTL, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (source, destination) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                frame.extend(ethernet::TYPE_IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([self.protocol, TTL]);
                frame.extend(octets(source));
                frame.extend(octets(destination));
                debug_assert_eq!(frame.len(), ethernet::HEADER_LEN + ipv6::HEADER_LEN);
            }
        }
        frame.extend(payload);
        frame
    }

    fn payload(&self, content: Option<Content>) -> Vec<u8> {
        let Some((from, to)) = self.ports else {
            return match self.protocol {
                PROTOCOL_ESP => esp_packet(),
                _ => vec![0; 8],
            };
        };
        let mut head = [from.to_be_bytes(), to.to_be_bytes()].concat();
        if self.protocol == PROTOCOL_TCP {
            head.resize(20, 0);
            head[12] = 5 << 4;
            return head;
        }
        let has = |port| from == port || to == port;
        let content = content.unwrap_or(if has(udp::PORT_IKE) && !has(udp::PORT_NATT) {
            Content::Ike
        } else {
            Content::EspUdp
        });
        let data = match content {
            Content::Keepalive => vec![0xff],
            Content::EspUdp => esp_packet(),
            Content::Ike if has(udp::PORT_NATT) => {
                [vec![0; natt::MARKER_LEN], ike_packet()].concat()
            }
            Content::Ike => ike_packet(),
        };
        head.extend(((udp::HEADER_LEN + data.len()) as u16).to_be_bytes());
        head.extend([0; 2]);
        head.extend(data);
        head
    }
}

fn esp_packet() -> Vec<u8> {
    let mut packet = SPI.to_vec();
    packet.resize(esp::HEADER_LEN + 32, 1);
    packet
}

/// An IKE_SA_INIT request without payloads.
fn ike_packet() -> Vec<u8> {
    let mut packet = vec![1; 8];
    packet.extend([0; 8]);
    packet.extend([0, 0x20, ike::EXCHANGE_SA_INIT, 0x08, 0, 0, 0, 0]);
    packet.extend((ike::HEADER_LEN as u32).to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use wificall_common::{
        Class, Direction,
        abi::{Cell, EndpointRef, FragmentKey, Members},
        classify::{Link, Tables, classify},
        endpoint::Table,
        exit::Exit,
        wire::nat64::Pref64,
    };

    use super::*;

    /// Everything is an endpoint.
    struct Everything;

    const ENDPOINT: EndpointRef = EndpointRef {
        group: 1,
        policy: 1,
        slot: 1,
        reserved: 0,
    };

    impl Table for Everything {
        fn block4(&self, _: u32) -> Cell {
            Cell::NONE
        }
        fn members(&self, _: u32) -> Option<&Members> {
            None
        }
        fn block6(&self, _: u64) -> Cell {
            Cell::NONE
        }
        fn host(&self, _: u128) -> Option<&EndpointRef> {
            None
        }
        fn prefix(&self, _: u128) -> Option<&EndpointRef> {
            Some(&ENDPOINT)
        }
        fn pref64(&self, _: usize) -> Option<Pref64> {
            None
        }
    }

    impl Tables for Everything {
        fn first_fragment(&self, _: &FragmentKey) -> Option<Class> {
            None
        }
    }

    fn flow(text: &str) -> Result<Flow, FlowError> {
        Flow::parse(&text.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn frames_are_what_they_were_said_to_be() {
        for (text, content, expected) in [
            ("10.0.0.2 192.0.2.1 udp 40000 4500", None, Ok(Class::EspUdp)),
            (
                "10.0.0.2 192.0.2.1 UDP 4500 4500",
                Some(Content::Ike),
                Ok(Class::Ike),
            ),
            (
                "10.0.0.2 192.0.2.1 udp 1 4500",
                Some(Content::Keepalive),
                Ok(Class::Keepalive),
            ),
            ("10.0.0.2 192.0.2.1 udp 500 500", None, Ok(Class::Ike)),
            (
                "10.0.0.2 192.0.2.1 17 40000 443",
                None,
                Err(Exit::OtherPort),
            ),
            ("10.0.0.2 192.0.2.1 esp", None, Ok(Class::Esp)),
            (
                "10.0.0.2 192.0.2.1 tcp 40000 4500",
                None,
                Err(Exit::OtherProtocol),
            ),
            ("10.0.0.2 192.0.2.1 icmp", None, Err(Exit::OtherProtocol)),
            (
                "fd00::2 2001:db8::1 udp 40000 4500",
                None,
                Ok(Class::EspUdp),
            ),
            ("fd00::2 2001:db8::1 udp 40000 500", None, Ok(Class::Ike)),
            ("fd00::2 2001:db8::1 esp", None, Ok(Class::Esp)),
        ] {
            let frame = flow(text).unwrap().frame(content);
            let found = classify(&frame[..], &Everything, Link::Ethernet, Direction::Up);
            assert_eq!(found.map(|found| found.class), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_with_a_reason() {
        for (text, expected) in [
            ("10.0.0.2 192.0.2.1", "expected SOURCE"),
            ("10.0.0.2 192.0.2.1 udp", "expected SOURCE"),
            ("10.0.0.2 192.0.2.1 udp 1", "expected SOURCE"),
            ("10.0.0.2 192.0.2.1 esp 1 2", "expected SOURCE"),
            ("10.0.0.2 192.0.2.1 udp 1 65536", "\"65536\" is no port"),
            ("10.0.0.2 192.0.2.1 ospf", "\"ospf\" is no protocol"),
            ("10.0.0.2 192.0.2.1 256", "\"256\" is no protocol"),
            ("10.0.0.2 192.0.2 esp", "\"192.0.2\" is no IP address"),
            ("10.0.0.2 ::1 esp", "10.0.0.2 and ::1 are of two families"),
        ] {
            let error = flow(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
