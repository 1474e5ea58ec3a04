//! Frame and tables → verdict.

use crate::{
    Class, Direction,
    abi::{BucketKey, CLIENT_IPV4, CLIENT_IPV6, CLIENT_MAC, FragmentKey, TunnelKey},
    client::Client,
    endpoint::{self, Endpoint, Table, mapped},
    exit::Exit,
    frame::Frame,
    wire::{
        Fragment, Network, PROTOCOL_ESP, PROTOCOL_UDP, Packet, Version, dns, esp, ethernet, ike,
        ipv4, ipv6, natt, udp,
    },
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

    /// Whether DNS messages are to be told apart ([`Exit::Dns`]).
    #[inline(always)]
    fn snoops_names(&self) -> bool {
        false
    }

    /// Whether IKE_SA_INIT with unknown addresses is to be told apart ([`Exit::NewIke`]).
    #[inline(always)]
    fn snoops_ike(&self) -> bool {
        false
    }
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
    /// Where what UDP carries begins.
    pub payload: usize,
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
    if F::PLAIN
        && let Some(exit) = foreign(frame, tables, link, direction)
    {
        return Err(exit);
    }
    let packet = network(frame, link)?;
    let payload = packet.offset + packet.header_len;
    let is_later = matches!(packet.fragment, Fragment::Later);
    let is_esp = packet.protocol == PROTOCOL_ESP;
    // What has no ports has none of ours.
    let mut port = 0;
    let mut datagram_len = 0;
    if !is_later && !is_esp {
        let header = udp::parse(frame, payload)?;
        port = match direction {
            Direction::Up => header.destination,
            Direction::Down => header.source,
        };
        if port != udp::PORT_IKE && port != udp::PORT_NATT {
            return Err(other_port(tables, port));
        }
        datagram_len = header.len;
    }
    packet.check_len(frame)?;
    // One place for all: it is most of the code that a match takes.
    let endpoint = match lookup(frame, tables, &packet, direction) {
        Err(Exit::NotEndpoint) if tables.snoops_ike() && !is_later && !is_esp => {
            return Err(unknown(frame, port, payload + udp::HEADER_LEN));
        }
        found => found?,
    };

    let payload_len = packet.total_len - packet.header_len;
    let (class, treat_as, segment_headers) = if is_later {
        let key = fragment_key(frame, &packet).ok_or(Exit::Truncated)?;
        let first = tables.first_fragment(&key).ok_or(Exit::UnknownFragment)?;
        (Class::Fragment, first, packet.header_len)
    } else if is_esp {
        esp::check(frame, payload, payload_len)?;
        (Class::Esp, Class::Esp, packet.header_len)
    } else {
        let shown = match packet.fragment {
            Fragment::Whole => datagram_len,
            _ => FIRST_FRAGMENT,
        };
        if datagram_len < udp::HEADER_LEN || shown > payload_len {
            return Err(Exit::Malformed);
        }
        let offset = payload + udp::HEADER_LEN;
        let len = datagram_len - udp::HEADER_LEN;
        let class = if port == udp::PORT_NATT {
            natt::classify(frame, offset, len)?
        } else {
            ike::check(frame, offset, len)?;
            Class::Ike
        };
        (class, class, packet.header_len + udp::HEADER_LEN)
    };
    Ok(Match {
        class,
        treat_as,
        endpoint,
        packet,
        segment_headers,
        payload: payload + udp::HEADER_LEN,
    })
}

/// Whether a match is the first packet of a tunnel's IKE: it may take another exit than the tunnel before it.
#[inline(always)]
pub fn begins<F: Frame + ?Sized>(frame: &F, found: &Match, direction: Direction) -> bool {
    if !matches!(found.class, Class::Ike) {
        return false;
    }
    // On port 4500 behind the marker; an initiator's SPI that begins like one costs only this answer.
    let marker = frame
        .read(found.payload)
        .unwrap_or([0xff; natt::MARKER_LEN]);
    let header = if marker == [0; natt::MARKER_LEN] {
        found.payload + natt::MARKER_LEN
    } else {
        found.payload
    };
    ike::is_init(frame, header, direction)
}

/// The client of a match, as policies know it; `None` if the frame ends too early. Towards clients (`faces_clients`) on
/// Ethernet it has a link-layer address too; elsewhere that is a router's.
#[inline(always)]
pub fn client<F: Frame + ?Sized>(
    frame: &F,
    (version, offset): Network,
    link: Link,
    faces_clients: bool,
    direction: Direction,
    ifindex: u32,
) -> Option<Client> {
    let address = match (version, direction) {
        (Version::V4, Direction::Up) => mapped(ipv4::source(frame, offset)?),
        (Version::V4, Direction::Down) => mapped(ipv4::destination(frame, offset)?),
        (Version::V6, Direction::Up) => ipv6::source(frame, offset)?,
        (Version::V6, Direction::Down) => ipv6::destination(frame, offset)?,
    };
    let mac = if faces_clients && matches!(link, Link::Ethernet) {
        ethernet::address(frame, direction.station())
    } else {
        None
    };
    Some(Client {
        address,
        mac,
        ifindex,
    })
}

/// Which tunnel an `up` packet belongs to, or `None` if the frame ends too early.
#[inline(always)]
pub fn tunnel_key<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<TunnelKey> {
    let (client, endpoint) = ends(frame, packet)?;
    Some(TunnelKey {
        client: client.to_be_bytes(),
        endpoint: endpoint.to_be_bytes(),
    })
}

/// Client and endpoint of a packet that goes in `direction`, or `None` if the frame ends too early; IPv4 as
/// `::ffff:a.b.c.d`.
#[inline(always)]
pub fn tunnel_ends<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    direction: Direction,
) -> Option<(u128, u128)> {
    let (source, destination) = ends(frame, packet)?;
    Some(match direction {
        Direction::Up => (source, destination),
        Direction::Down => (destination, source),
    })
}

/// Source and destination; IPv4 as `::ffff:a.b.c.d`.
#[inline(always)]
fn ends<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<(u128, u128)> {
    Some(match packet.version {
        Version::V4 => (
            mapped(ipv4::source(frame, packet.offset)?),
            mapped(ipv4::destination(frame, packet.offset)?),
        ),
        Version::V6 => (
            ipv6::source(frame, packet.offset)?,
            ipv6::destination(frame, packet.offset)?,
        ),
    })
}

/// The way out of a plain packet that has another protocol or another port, which is what most of the box's traffic
/// has: the same as below, by no more reads than that takes. `None` if it has to be looked at.
#[inline(always)]
fn foreign<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    link: Link,
    direction: Direction,
) -> Option<Exit> {
    let (version, offset) = match link {
        Link::Ethernet => ethernet::network(frame).ok()?,
        Link::Bare => ethernet::bare_network(frame).ok()?,
    };
    let protocol = match version {
        Version::V4 => ipv4::protocol(frame, offset)?,
        Version::V6 => ipv6::next_header(frame, offset)?,
    };
    if protocol != PROTOCOL_UDP {
        return (protocol != PROTOCOL_ESP).then_some(Exit::OtherProtocol);
    }
    let payload = match version {
        Version::V4 => ipv4::plain_payload(frame, offset)?,
        Version::V6 => ipv6::plain_payload(frame, offset)?,
    };
    let header = udp::parse(frame, payload).ok()?;
    let port = match direction {
        Direction::Up => header.destination,
        Direction::Down => header.source,
    };
    (port != udp::PORT_IKE && port != udp::PORT_NATT).then_some(other_port(tables, port))
}

/// The way out of a datagram of another port.
#[inline(always)]
fn other_port<T: Tables>(tables: &T, port: u16) -> Exit {
    if tables.snoops_names() && port == dns::PORT {
        Exit::Dns
    } else {
        Exit::OtherPort
    }
}

/// The way out of a packet with an unknown address: as much as tells IKE_SA_INIT from the ESP of somebody's VPN, whose
/// every packet passes here. The rest is left to who looks next.
#[inline(always)]
fn unknown<F: Frame + ?Sized>(frame: &F, port: u16, offset: usize) -> Exit {
    let mut header = offset;
    if port == udp::PORT_NATT {
        // With a value for a frame that ends here: an undefined register is refused by the verifier.
        if frame.read(offset).unwrap_or([0xff; natt::MARKER_LEN]) != [0; natt::MARKER_LEN] {
            return Exit::NotEndpoint;
        }
        header += natt::MARKER_LEN;
    }
    let [exchange] = frame.read(header + ike::EXCHANGE_OFFSET).unwrap_or([0]);
    if exchange == ike::EXCHANGE_SA_INIT {
        Exit::NewIke
    } else {
        Exit::NotEndpoint
    }
}

/// Finds the IP header and parses it.
///
/// # Errors
///
/// The way out of a packet that is neither UDP nor ESP.
#[inline(always)]
pub fn network<F: Frame + ?Sized>(frame: &F, link: Link) -> Result<Packet, Exit> {
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

/// Whose cap a packet counts towards, or `None` if the frame ends too early. Towards clients (`faces_clients`) on Ethernet it
/// is that of the link-layer address, of which a station in a wireless network has one, while it may take any number of IP
/// addresses; elsewhere that is the box's own, and the IP address has to do.
#[inline(always)]
pub fn bucket_key<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    link: Link,
    faces_clients: bool,
    direction: Direction,
    tier: u8,
) -> Option<BucketKey> {
    let (client, kind) = match (link, faces_clients, packet.version) {
        (Link::Ethernet, true, _) => (ethernet::address(frame, direction.station())?, CLIENT_MAC),
        (_, _, Version::V4) => {
            let address = match direction {
                Direction::Up => ipv4::source(frame, packet.offset)?,
                Direction::Down => ipv4::destination(frame, packet.offset)?,
            };
            (u64::from(address), CLIENT_IPV4)
        }
        (_, _, Version::V6) => {
            let address = match direction {
                Direction::Up => ipv6::source(frame, packet.offset)?,
                Direction::Down => ipv6::destination(frame, packet.offset)?,
            };
            ((address >> 64) as u64, CLIENT_IPV6)
        }
    };
    Some(BucketKey {
        client,
        kind,
        tier: u16::from(tier),
        direction: direction as u16,
    })
}

/// What identifies the datagram of a fragment, or `None` if the frame ends too early.
#[inline(always)]
pub fn fragment_key<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<FragmentKey> {
    let (source, destination) = ends(frame, packet)?;
    Some(FragmentKey {
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
        id: packet.fragment_id,
        protocol: packet.protocol,
        reserved: [0; 3],
    })
}
