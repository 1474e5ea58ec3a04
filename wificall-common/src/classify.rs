//! Frame and tables → verdict.

use crate::{
    Class, Direction,
    abi::{BucketKey, FragmentKey},
    endpoint::{self, Endpoint, Table, mapped},
    exit::Exit,
    frame::Frame,
    wire::{Fragment, PROTOCOL_ESP, Packet, Version, esp, ethernet, ike, ipv4, ipv6, natt, udp},
};

/// The least that a first fragment of UDP has to show: all headers that are looked at, so that none is read from beyond
/// the packet. IPv4's smallest MTU of 68 bytes leaves 48 for it (RFC 791 §3.2).
const FIRST_FRAGMENT: usize = udp::HEADER_LEN + natt::MARKER_LEN + ike::HEADER_LEN;

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tun, ppp, WireGuard.
    Bare,
}

/// Bits of the offset of an IP header: Ethernet, two tags and PPPoE are 30 bytes.
const MAX_OFFSET: usize = 0x1f;
/// Bits of the length of IP headers: 40 bytes and [`ipv6::MAX_EXTENSIONS`] headers of up to 2,048.
const MAX_HEADER_LEN: usize = 0x3fff;
const _: () = assert!(ipv6::HEADER_LEN + ipv6::MAX_EXTENSIONS * 2048 <= MAX_HEADER_LEN);

/// What the classifier asks of the maps.
pub trait Tables: Table {
    /// The class of the first fragment of this datagram, if that matched.
    fn first_fragment(&self, key: &FragmentKey) -> Option<Class>;
}

/// A packet that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// What it is.
    pub class: Class,
    /// The class whose treatment it gets: a later fragment's is its first fragment's.
    pub treat_as: Class,
    /// The endpoint it goes to or comes from.
    pub endpoint: Endpoint,
    /// Its IP header.
    pub packet: Packet,
    /// Length in bytes of the headers that each segment of an aggregate repeats.
    pub segment_headers: usize,
}

/// Classifies a frame that goes in `direction`: only the far end (destination if up, source if down) is looked up, and
/// the port that counts is the far end's.
///
/// # Errors
///
/// The way out of a packet that is to pass untouched.
#[inline(always)]
pub fn classify<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    link: Link,
    direction: Direction,
) -> Result<Match, Exit> {
    let packet = network(frame, link)?;
    let payload = packet.offset + packet.header_len;
    let payload_len = packet.total_len - packet.header_len;

    if matches!(packet.fragment, Fragment::Later) {
        let endpoint = lookup(frame, tables, &packet, direction)?;
        let key = fragment_key(frame, &packet).ok_or(Exit::Truncated)?;
        let first = tables.first_fragment(&key).ok_or(Exit::UnknownFragment)?;
        return Ok(Match {
            class: Class::Fragment,
            treat_as: first,
            endpoint,
            packet,
            segment_headers: packet.header_len,
        });
    }

    if packet.protocol == PROTOCOL_ESP {
        let endpoint = lookup(frame, tables, &packet, direction)?;
        esp::check(frame, payload, payload_len)?;
        return Ok(Match {
            class: Class::Esp,
            treat_as: Class::Esp,
            endpoint,
            packet,
            segment_headers: packet.header_len,
        });
    }

    let header = udp::parse(frame, payload)?;
    let port = match direction {
        Direction::Up => header.destination,
        Direction::Down => header.source,
    };
    if port != udp::PORT_IKE && port != udp::PORT_NATT {
        return Err(Exit::OtherPort);
    }
    let endpoint = lookup(frame, tables, &packet, direction)?;
    let shown = match packet.fragment {
        Fragment::Whole => header.len,
        _ => FIRST_FRAGMENT,
    };
    if header.len < udp::HEADER_LEN || shown > payload_len {
        return Err(Exit::Malformed);
    }
    let offset = payload + udp::HEADER_LEN;
    let len = header.len - udp::HEADER_LEN;
    let class = if port == udp::PORT_NATT {
        natt::classify(frame, offset, len)?
    } else {
        ike::check(frame, offset, len)?;
        Class::Ike
    };
    Ok(Match {
        class,
        treat_as: class,
        endpoint,
        packet,
        segment_headers: packet.header_len + udp::HEADER_LEN,
    })
}

#[inline(always)]
fn network<F: Frame + ?Sized>(frame: &F, link: Link) -> Result<Packet, Exit> {
    let (version, offset) = match link {
        Link::Ethernet => ethernet::network(frame)?,
        Link::Bare => ethernet::bare_network(frame)?,
    };
    if F::PLAIN {
        return match version {
            Version::V4 => ipv4::parse(frame, offset),
            Version::V6 => ipv6::parse(frame, offset),
        };
    }
    let offset = frame.forget(offset, MAX_OFFSET);
    let mut packet = match version {
        Version::V4 => ipv4::parse(frame, offset)?,
        Version::V6 => ipv6::parse(frame, offset)?,
    };
    packet.header_len = frame.forget(packet.header_len, MAX_HEADER_LEN);
    Ok(packet)
}

/// Looks the far end up.
#[inline(always)]
fn lookup<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    direction: Direction,
) -> Result<Endpoint, Exit> {
    let offset = packet.offset;
    let found = match packet.version {
        Version::V4 => {
            let address = match direction {
                Direction::Up => ipv4::destination(frame, offset),
                Direction::Down => ipv4::source(frame, offset),
            };
            endpoint::lookup4(tables, address.ok_or(Exit::Truncated)?)
        }
        Version::V6 => {
            let address = match direction {
                Direction::Up => ipv6::destination(frame, offset),
                Direction::Down => ipv6::source(frame, offset),
            };
            endpoint::lookup6(tables, address.ok_or(Exit::Truncated)?)
        }
    };
    found.ok_or(Exit::NotEndpoint)
}

/// Whose cap a packet counts towards, or `None` if the frame ends too early.
#[inline(always)]
pub fn bucket_key<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    direction: Direction,
    tier: u8,
) -> Option<BucketKey> {
    let client = match (packet.version, direction) {
        (Version::V4, Direction::Up) => mapped(ipv4::source(frame, packet.offset)?),
        (Version::V4, Direction::Down) => mapped(ipv4::destination(frame, packet.offset)?),
        (Version::V6, Direction::Up) => ipv6::source(frame, packet.offset)?,
        (Version::V6, Direction::Down) => ipv6::destination(frame, packet.offset)?,
    };
    Some(BucketKey {
        client: client.to_be_bytes(),
        tier: u32::from(tier),
        direction: direction as u32,
    })
}

/// What identifies the datagram of a fragment, or `None` if the frame ends too early.
#[inline(always)]
pub fn fragment_key<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<FragmentKey> {
    let (source, destination) = match packet.version {
        Version::V4 => (
            mapped(ipv4::source(frame, packet.offset)?),
            mapped(ipv4::destination(frame, packet.offset)?),
        ),
        Version::V6 => (
            ipv6::source(frame, packet.offset)?,
            ipv6::destination(frame, packet.offset)?,
        ),
    };
    Some(FragmentKey {
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
        id: packet.fragment_id,
        protocol: packet.protocol,
        reserved: [0; 3],
    })
}
