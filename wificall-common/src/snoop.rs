//! What the second look at a packet finds: a DNS message or an IKE_SA_INIT, and between whom.

use crate::{
    Direction,
    abi::{EVENT_DATA, EventFate, EventKind},
    classify::{Link, network},
    endpoint::mapped,
    frame::Frame,
    wire::{Fragment, Packet, Version, dns, ike, ipv4, ipv6, natt, udp},
};

/// Where the message of a packet lies, and between which ports it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The IP packet.
    pub packet: Packet,
    /// The client's port.
    pub client_port: u16,
    /// The far end's port.
    pub far_port: u16,
    /// Where the message begins in the frame.
    pub offset: usize,
    /// Its length in bytes, of a DNS message at most [`EVENT_DATA`].
    pub len: usize,
}

/// Finds the message in a frame that the classifier has sent here as one of `kind`.
///
/// # Errors
///
/// What is to be counted instead.
#[inline(always)]
pub fn look<F: Frame + ?Sized>(frame: &F, link: Link, kind: EventKind) -> Result<Seen, EventFate> {
    let Ok(packet) = network(frame, link) else {
        return Err(EventFate::Malformed);
    };
    if packet.check_len(frame).is_err() {
        return Err(EventFate::Malformed);
    }
    if !matches!(packet.fragment, Fragment::Whole) {
        return Err(EventFate::Fragment);
    }
    let payload = packet.offset + packet.header_len;
    let Ok(header) = udp::parse(frame, payload) else {
        return Err(EventFate::Malformed);
    };
    if header.len < udp::HEADER_LEN || header.len > packet.total_len - packet.header_len {
        return Err(EventFate::Malformed);
    }
    let (client_port, far_port) = match kind.direction() {
        Direction::Up => (header.source, header.destination),
        Direction::Down => (header.destination, header.source),
    };
    let mut offset = payload + udp::HEADER_LEN;
    let mut len = header.len - udp::HEADER_LEN;
    if kind.is_name() {
        if len > EVENT_DATA {
            return Err(EventFate::Large);
        }
        if len < dns::HEADER_LEN + dns::QUESTION_MIN {
            return Err(EventFate::Malformed);
        }
        let head = frame.read(offset).unwrap_or([0xff; dns::HEADER_LEN]);
        if !dns::is_plain(&head, matches!(kind.direction(), Direction::Down)) {
            return Err(EventFate::Other);
        }
    } else {
        if far_port == udp::PORT_NATT {
            offset += natt::MARKER_LEN;
            len = len.saturating_sub(natt::MARKER_LEN);
        }
        if ike::check(frame, offset, len).is_err() {
            return Err(EventFate::Malformed);
        }
        if !ike::is_init(frame, offset, kind.direction()) {
            return Err(EventFate::Other);
        }
    }
    Ok(Seen {
        packet,
        client_port,
        far_port,
        offset,
        len,
    })
}

/// The addresses of the client and of the far end, IPv4 mapped.
#[inline(always)]
pub fn ends<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    direction: Direction,
) -> Option<[u128; 2]> {
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
    Some(match direction {
        Direction::Up => [source, destination],
        Direction::Down => [destination, source],
    })
}

/// A keyed hash of a client's address, for its share of the rate: whoever does not know the key cannot choose whose share
/// to use up.
#[inline(always)]
#[must_use]
pub const fn client_hash(client: u128, key: [u32; 2]) -> u32 {
    // The finaliser of MurmurHash3 (fmix64), over both halves one after the other.
    let key = key[0] as u64 | (key[1] as u64) << 32;
    let first = mix(key ^ client as u64);
    mix(first ^ (client >> 64) as u64) as u32
}

#[inline(always)]
const fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}
