//! What a packet is, as far as it can be read.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wificall_common::{
    classify::Link,
    frame::Frame as _,
    wire::{PROTOCOL_ESP, PROTOCOL_UDP, ethernet, ike, ipv4, ipv6, natt, pppoe, udp, vlan},
};

use super::{LinkName, Mac};
use crate::export::set::Text;

const PROTOCOL_TCP: u8 = 6;
/// A bound of its own, above the classifier's: what that refuses is shown too.
const EXTENSIONS_SHOWN: usize = 16;
const TAGS_SHOWN: usize = 8;
/// Headers that have the extension format (RFC 8200 §4, IANA protocol numbers): name and number.
const EXTENSIONS: [(u8, &str); 7] = [
    (0, "hop-by-hop options"),
    (43, "routing"),
    (44, "fragment"),
    (60, "destination options"),
    (135, "mobility"),
    (139, "HIP"),
    (140, "shim6"),
];
const FRAGMENT: u8 = 44;

/// A packet's headers. What could not be read is `None`, or empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parsed {
    /// What it starts with.
    pub link: LinkName,
    /// Length of the frame.
    pub frame_bytes: usize,
    /// Link-layer source.
    pub source_mac: Option<Text<Mac>>,
    /// Link-layer destination.
    pub destination_mac: Option<Text<Mac>>,
    /// VLAN IDs, the outer one first.
    pub vlans: Vec<u16>,
    /// EtherType behind the tags.
    pub ethertype: Option<u16>,
    /// The session, if there is a PPPoE header.
    pub pppoe_session: Option<u16>,
    /// 4 or 6.
    pub ip_version: Option<u8>,
    /// The IP source.
    pub source: Option<Text<IpAddr>>,
    /// The IP destination.
    pub destination: Option<Text<IpAddr>>,
    /// Length of the IP packet, as its header says.
    pub ip_bytes: Option<usize>,
    /// Its DSCP.
    pub dscp: Option<u8>,
    /// Its ECN bits.
    pub ecn: Option<u8>,
    /// Bytes of IPv4 options.
    pub ipv4_options: usize,
    /// IPv6 extension headers, by name.
    pub extensions: Vec<String>,
    /// Its place in a fragmented datagram.
    pub fragment: Option<Fragment>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source port of UDP or TCP.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// What it carries, for people.
    pub payload: Option<String>,
}

/// A place in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Identification of the datagram.
    pub id: u32,
    /// Offset in bytes.
    pub offset: u32,
    /// Whether there are more.
    pub more: bool,
}

/// Reads a frame's headers.
#[must_use]
pub fn dissect(frame: &[u8], link: Link) -> Parsed {
    let mut parsed = Parsed {
        link: link.into(),
        frame_bytes: frame.len(),
        source_mac: None,
        destination_mac: None,
        vlans: Vec::new(),
        ethertype: None,
        pppoe_session: None,
        ip_version: None,
        source: None,
        destination: None,
        ip_bytes: None,
        dscp: None,
        ecn: None,
        ipv4_options: 0,
        extensions: Vec::new(),
        fragment: None,
        protocol: None,
        source_port: None,
        destination_port: None,
        payload: None,
    };
    // Whatever is missing ends it, with what there is.
    let _ = read_link(frame, link, &mut parsed);
    parsed
}

fn read_link(frame: &[u8], link: Link, parsed: &mut Parsed) -> Option<()> {
    let mut offset = 0;
    if matches!(link, Link::Ethernet) {
        parsed.destination_mac = frame.read(ethernet::DESTINATION).map(|mac| Text(Mac(mac)));
        parsed.source_mac = frame.read(ethernet::SOURCE).map(|mac| Text(Mac(mac)));
        offset = ethernet::HEADER_LEN;
        let mut ethertype = u16::from_be_bytes(frame.read(offset - 2)?);
        while matches!(ethertype, vlan::TYPE_C_TAG | vlan::TYPE_S_TAG)
            && parsed.vlans.len() < TAGS_SHOWN
        {
            let tag = u16::from_be_bytes(frame.read(offset)?);
            parsed.vlans.push(tag & vlan::ID_MASK);
            ethertype = u16::from_be_bytes(frame.read(offset + 2)?);
            offset += 4;
        }
        parsed.ethertype = Some(ethertype);
        match ethertype {
            ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6 => {}
            pppoe::TYPE_SESSION => {
                parsed.pppoe_session = Some(u16::from_be_bytes(frame.read(offset + 2)?));
                offset += 8;
            }
            _ => return None,
        }
    }
    let [first] = frame.read(offset)?;
    match first >> 4 {
        4 => read_ipv4(frame, offset, parsed),
        6 => read_ipv6(frame, offset, parsed),
        _ => None,
    }
}

fn read_ipv4(frame: &[u8], offset: usize, parsed: &mut Parsed) -> Option<()> {
    let head: [u8; ipv4::HEADER_LEN] = frame.read(offset)?;
    parsed.ip_version = Some(4);
    set_class(parsed, head[1]);
    parsed.ip_bytes = Some(u16::from_be_bytes([head[2], head[3]]).into());
    parsed.source = ipv4::source(frame, offset).map(|address| Text(IpAddr::V4(address.into())));
    parsed.destination =
        ipv4::destination(frame, offset).map(|address| Text(IpAddr::V4(address.into())));
    let len = usize::from(head[0] & 0x0f) * 4;
    parsed.ipv4_options = len.saturating_sub(ipv4::HEADER_LEN);
    let field = u16::from_be_bytes([head[6], head[7]]);
    let (place, more) = (u32::from(field & 0x1fff) * 8, field & 0x2000 != 0);
    if place != 0 || more {
        parsed.fragment = Some(Fragment {
            id: u16::from_be_bytes([head[4], head[5]]).into(),
            offset: place,
            more,
        });
    }
    parsed.protocol = Some(head[9]);
    read_transport(frame, offset + len.max(ipv4::HEADER_LEN), parsed)
}

fn read_ipv6(frame: &[u8], offset: usize, parsed: &mut Parsed) -> Option<()> {
    let head: [u8; 8] = frame.read(offset)?;
    parsed.ip_version = Some(6);
    set_class(parsed, head[0] << 4 | head[1] >> 4);
    let payload = usize::from(u16::from_be_bytes([head[4], head[5]]));
    parsed.ip_bytes = Some(ipv6::HEADER_LEN + payload);
    parsed.source = ipv6::source(frame, offset).map(|address| Text(IpAddr::V6(address.into())));
    parsed.destination =
        ipv6::destination(frame, offset).map(|address| Text(IpAddr::V6(address.into())));
    let mut next = head[6];
    let mut at = offset + ipv6::HEADER_LEN;
    while let Some((_, name)) = EXTENSIONS.iter().find(|(number, _)| *number == next) {
        if parsed.extensions.len() >= EXTENSIONS_SHOWN {
            return None;
        }
        parsed.extensions.push((*name).to_owned());
        let header: [u8; 8] = frame.read(at)?;
        if next == FRAGMENT {
            let field = u16::from_be_bytes([header[2], header[3]]);
            parsed.fragment = Some(Fragment {
                id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                offset: u32::from(field & 0xfff8),
                more: field & 1 != 0,
            });
            at += 8;
        } else {
            at += (usize::from(header[1]) + 1) * 8;
        }
        next = header[0];
        if parsed.fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
    }
    parsed.protocol = Some(next);
    read_transport(frame, at, parsed)
}

fn set_class(parsed: &mut Parsed, class: u8) {
    parsed.dscp = Some(class >> 2);
    parsed.ecn = Some(class & 3);
}

fn read_transport(frame: &[u8], at: usize, parsed: &mut Parsed) -> Option<()> {
    if parsed.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    match parsed.protocol? {
        PROTOCOL_ESP => {
            parsed.payload = Some(esp_text(frame, at)?);
        }
        PROTOCOL_UDP => {
            let header = udp::parse(frame, at).ok()?;
            parsed.source_port = Some(header.source);
            parsed.destination_port = Some(header.destination);
            let len = header.len.saturating_sub(udp::HEADER_LEN);
            let at = at + udp::HEADER_LEN;
            let has = |port| header.source == port || header.destination == port;
            parsed.payload = Some(if has(udp::PORT_NATT) {
                natt_text(frame, at, len)
            } else if has(udp::PORT_IKE) {
                ike_text(frame, at, len)
            } else {
                format!("{len} bytes")
            });
        }
        PROTOCOL_TCP => {
            let ports: [u8; 4] = frame.read(at)?;
            parsed.source_port = Some(u16::from_be_bytes([ports[0], ports[1]]));
            parsed.destination_port = Some(u16::from_be_bytes([ports[2], ports[3]]));
        }
        _ => {}
    }
    Some(())
}

fn natt_text(frame: &[u8], at: usize, len: usize) -> String {
    match (len, frame.read::<1>(at)) {
        (1, Some([0xff])) => return "a NAT keepalive".to_owned(),
        (..8, _) => return format!("{len} bytes: neither ESP, nor IKE, nor a keepalive"),
        _ => {}
    }
    if frame.read(at) == Some([0; natt::MARKER_LEN]) {
        let text = ike_text(frame, at + natt::MARKER_LEN, len - natt::MARKER_LEN);
        return format!("the non-ESP marker, {text}");
    }
    esp_text(frame, at).unwrap_or_else(|| format!("{len} bytes"))
}

fn esp_text(frame: &[u8], at: usize) -> Option<String> {
    let spi = u32::from_be_bytes(frame.read(at)?);
    let sequence = u32::from_be_bytes(frame.read(at + 4)?);
    Some(format!("ESP, SPI {spi:#010x}, sequence number {sequence}"))
}

fn ike_text(frame: &[u8], at: usize, len: usize) -> String {
    let Some(head) = frame
        .read::<{ ike::HEADER_LEN }>(at)
        .filter(|_| len >= ike::HEADER_LEN)
    else {
        return format!("{len} bytes: too short for an IKE header");
    };
    let [version, exchange, flags] = [head[17], head[18], head[19]];
    let message = u32::from_be_bytes([head[24], head[25], head[26], head[27]]);
    // RFC 7296 §3.1, RFC 9242, RFC 9370.
    let exchange = match exchange {
        34 => "IKE_SA_INIT".to_owned(),
        35 => "IKE_AUTH".to_owned(),
        36 => "CREATE_CHILD_SA".to_owned(),
        37 => "INFORMATIONAL".to_owned(),
        43 => "IKE_INTERMEDIATE".to_owned(),
        44 => "IKE_FOLLOWUP_KE".to_owned(),
        other => format!("exchange {other}"),
    };
    let kind = if flags & 0x20 != 0 {
        "response"
    } else {
        "request"
    };
    let (major, minor) = (version >> 4, version & 0x0f);
    format!("IKE {major}.{minor} {exchange} {kind}, {message} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::{Content, Flow};

    fn frame(text: &str, content: Option<Content>) -> Vec<u8> {
        let words: Vec<_> = text.split_whitespace().collect();
        Flow::parse(&words).unwrap().frame(content)
    }

    #[test]
    fn tags_sessions_and_extension_headers() {
        let plain = frame("10.0.0.2 192.0.2.1 udp 40000 4500", Some(Content::Ike));
        let (macs, rest) = plain.split_at(12);
        let ip = &rest[2..];
        let tagged = [macs, &[0x88, 0xa8, 0xe0, 7, 0x81, 0, 0, 9, 0x88, 0x64]].concat();
        let session = [0x11, 0, 0, 42, 0, (ip.len() + 2) as u8, 0, 0x21];
        let frame4 = [&tagged[..], &session, ip].concat();
        let parsed = dissect(&frame4, Link::Ethernet);
        assert_eq!(parsed.vlans, [7, 9]);
        assert_eq!(parsed.pppoe_session, Some(42));
        assert_eq!(parsed.destination_port, Some(4500));
        assert_eq!(
            parsed.payload.as_deref(),
            Some("the non-ESP marker, IKE 2.0 IKE_SA_INIT request, 28 bytes")
        );
        assert_eq!(dissect(ip, Link::Bare).payload, parsed.payload);

        let mut plain = frame("fd00::2 2001:db8::1 udp 40000 4500", None);
        plain[14..16].copy_from_slice(&[0x6b, 0x90]); // DSCP 46, ECN 1
        let (head, udp) = plain.split_at(14 + 40);
        let mut head = head.to_vec();
        head[20] = 0;
        let first = [60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0];
        let fragment = |offset: u8| [17, 0, 0, offset | 1, 0, 0, 0, 5];
        let parsed = dissect(
            &[&head[..], &first, &fragment(0), udp].concat(),
            Link::Ethernet,
        );
        assert_eq!(
            parsed.extensions,
            ["hop-by-hop options", "destination options", "fragment"]
        );
        let place = |offset| {
            Some(Fragment {
                id: 5,
                offset,
                more: true,
            })
        };
        assert_eq!(
            (parsed.fragment, parsed.source_port),
            (place(0), Some(40000))
        );
        assert_eq!((parsed.dscp, parsed.ecn), (Some(46), Some(1)));
        let later = dissect(
            &[&head[..], &first, &fragment(8), udp].concat(),
            Link::Ethernet,
        );
        assert_eq!((later.fragment, later.source_port), (place(8), None));
        assert_eq!(later.protocol, Some(17));
    }

    /// Cut anywhere, or with any byte changed, it says what there is.
    #[test]
    fn no_packet_is_too_broken() {
        for text in [
            "10.0.0.2 192.0.2.1 udp 500 500",
            "fd00::2 2001:db8::1 udp 1 4500",
        ] {
            let whole = frame(text, None);
            for len in 0..whole.len() {
                for link in [Link::Ethernet, Link::Bare] {
                    let _ = dissect(&whole[..len], link);
                }
            }
            for at in 0..whole.len() {
                for value in [0, 0x3c, 0x44, 0x60, 0xff] {
                    let mut frame = whole.clone();
                    frame[at] = value;
                    let _ = dissect(&frame, Link::Ethernet);
                }
            }
        }
    }
}
