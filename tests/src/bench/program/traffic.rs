//! The packets that are measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use wificall_common::{abi::Features, exit::Exit};

use super::table::{address4, address6, stranger4};
use crate::packet::{Packet, checksum};

/// 64:ff9b::/96 (RFC 6052 §2.1), which stands for all of IPv4.
pub const NAT64: u128 = 0x0064_ff9b << 96;

/// One kind of packet, to or from an endpoint unless it says otherwise.
pub struct Traffic {
    /// Its name, the `case` of its rows.
    pub name: &'static str,
    /// The packet upwards, in words (`packet.rs`), but for the addresses of its IP header.
    link: &'static str,
    /// Fields of the IP header.
    fields: &'static str,
    inner: &'static str,
    /// The same downwards, if it is not that with its ends exchanged.
    inner_down: Option<&'static str>,
    far: Far,
    /// How it leaves the program.
    exit: Exit,
    /// Features with which it leaves by another.
    snooped: Option<(u32, Exit)>,
    /// Features without which it would leave by another.
    pub needs: u32,
}

/// What varies: the far end's address.
#[derive(Clone, Copy, PartialEq)]
enum Far {
    Endpoint4,
    Endpoint6,
    /// An endpoint's IPv4 address behind the NAT64 prefix.
    Nat64,
    /// An address in no block.
    Stranger4,
    /// The address that is asked for.
    Arp,
}

/// Frames that differ in their headers only.
pub struct Frames {
    /// The first of them.
    pub frame: Vec<u8>,
    /// All headers behind the Ethernet header, one after another.
    pub headers: Vec<u8>,
    /// Length in bytes of each.
    pub header: usize,
    /// Where in each is a word in network order that grows by one each time that it is sent.
    pub counter: Option<usize>,
}

const fn traffic(name: &'static str, inner: &'static str, far: Far, exit: Exit) -> Traffic {
    Traffic {
        name,
        link: "eth",
        fields: "",
        inner,
        inner_down: None,
        far,
        exit,
        snooped: None,
        needs: 0,
    }
}

const fn under(link: &'static str, traffic: Traffic) -> Traffic {
    Traffic { link, ..traffic }
}

const fn with(fields: &'static str, traffic: Traffic) -> Traffic {
    Traffic { fields, ..traffic }
}

const fn snooped(feature: u32, exit: Exit, traffic: Traffic) -> Traffic {
    Traffic {
        snooped: Some((feature, exit)),
        ..traffic
    }
}

/// The name that the growth chart is of.
pub const ESP_IN_UDP: &str = "ESP in UDP";
const LATER: &str = "later fragment";
const TCP: &str = "tcp 40000 > 443 / bytes 100";
const UDP: &str = "udp 40000 > 8801 / bytes 100";
const ESP: &str = "udp 40000 > 4500 sum=0 / esp 100";
/// The first fragment of a datagram of 2,000 bytes: 1,408 bytes of it are 176 units of eight.
const FIRST: &str = "udp 40000 > 4500 sum=0 len=2008 / esp 1400";
const VLAN: &str = "eth / vlan 7";
const PPPOE: &str = "eth / pppoe";

const fn tcp(name: &'static str, far: Far) -> Traffic {
    traffic(name, TCP, far, Exit::OtherProtocol)
}

const fn udp(name: &'static str, far: Far) -> Traffic {
    traffic(name, UDP, far, Exit::OtherPort)
}

const fn esp(name: &'static str, far: Far) -> Traffic {
    traffic(name, ESP, far, Exit::Matched)
}

/// Whole packets of 60 to 1,300 bytes: plain ones that do not match, others that do not, what is looked up and not found,
/// what matches.
pub const TRAFFIC: [Traffic; 25] = [
    tcp("TCP", Far::Endpoint4),
    tcp("TCP, IPv6", Far::Endpoint6),
    udp("UDP", Far::Endpoint4),
    udp("UDP, IPv6", Far::Endpoint6),
    traffic(
        "UDP of 1,250 bytes (QUIC)",
        "udp 40000 > 443 / bytes 1250",
        Far::Endpoint4,
        Exit::OtherPort,
    ),
    traffic("ARP", "", Far::Arp, Exit::NotIp),
    Traffic {
        inner_down: Some("udp 53 > 40000 / dns www.example.org qr=1"),
        ..snooped(
            Features::SNOOP_NAMES,
            Exit::Dns,
            traffic(
                "DNS, UDP 53",
                "udp 40000 > 53 / dns www.example.org",
                Far::Endpoint4,
                Exit::OtherPort,
            ),
        )
    },
    under(VLAN, tcp("VLAN tag in the frame, TCP", Far::Endpoint4)),
    under(VLAN, udp("VLAN tag in the frame, UDP", Far::Endpoint4)),
    under(PPPOE, tcp("PPPoE, TCP", Far::Endpoint4)),
    under(PPPOE, udp("PPPoE, UDP", Far::Endpoint4)),
    with("opts=4", udp("IPv4 options, UDP", Far::Endpoint4)),
    traffic(
        "IPv6 extension header, UDP",
        "dst 0 / udp 40000 > 8801 / bytes 100",
        Far::Endpoint6,
        Exit::OtherPort,
    ),
    traffic(
        "ESP in UDP, no endpoint",
        ESP,
        Far::Stranger4,
        Exit::NotEndpoint,
    ),
    snooped(
        Features::SNOOP_IKE,
        Exit::NewIke,
        traffic(
            "IKE_SA_INIT, no endpoint",
            "udp 40000 > 500 / ike 300",
            Far::Stranger4,
            Exit::NotEndpoint,
        ),
    ),
    traffic(
        "IKE",
        "udp 40000 > 500 / ike 300",
        Far::Endpoint4,
        Exit::Matched,
    ),
    esp(ESP_IN_UDP, Far::Endpoint4),
    traffic(
        "keepalive",
        "udp 40000 > 4500 / hex ff",
        Far::Endpoint4,
        Exit::Matched,
    ),
    traffic("native ESP", "esp 100", Far::Endpoint4, Exit::Matched),
    esp("ESP in UDP, IPv6", Far::Endpoint6),
    esp("ESP in UDP, NAT64", Far::Nat64),
    under(
        VLAN,
        esp("ESP in UDP, VLAN tag in the frame", Far::Endpoint4),
    ),
    under(PPPOE, esp("ESP in UDP, PPPoE", Far::Endpoint4)),
    with(
        "id=7 mf",
        traffic("first fragment", FIRST, Far::Endpoint4, Exit::Matched),
    ),
    with(
        "id=7 off=176 proto=17",
        Traffic {
            // Remembered is what is counted.
            needs: Features::COUNT_ACCESS,
            ..traffic(LATER, "bytes 600", Far::Endpoint4, Exit::Matched)
        },
    ),
];

/// What is no match and comes with DSCP EF (RFC 3246), in the octet that it shares with ECN.
pub const WITH_EF: [Traffic; 4] = [
    with("tos=184", tcp("TCP, EF", Far::Endpoint4)),
    with("tos=184", udp("UDP, EF", Far::Endpoint4)),
    with("tc=184", udp("UDP, IPv6, EF", Far::Endpoint6)),
    with(
        "tos=184",
        traffic(
            "ESP in UDP, no endpoint, EF",
            ESP,
            Far::Stranger4,
            Exit::NotEndpoint,
        ),
    ),
];

impl Traffic {
    /// What has to go before it, once for each address.
    pub fn first(&self) -> Result<Option<&'static Self>> {
        if self.name != LATER {
            return Ok(None);
        }
        let first = TRAFFIC.iter().find(|traffic| traffic.inner == FIRST);
        Ok(Some(first.context("later fragments without a first one")?))
    }

    /// How it leaves a program with these features.
    pub fn exit(&self, features: u32) -> Exit {
        match self.snooped {
            Some((feature, exit)) if features & feature != 0 => exit,
            _ => self.exit,
        }
    }

    /// Whether its far end's address is looked up.
    pub fn is_looked_up(&self) -> bool {
        matches!(self.exit, Exit::Matched | Exit::NotEndpoint)
    }

    /// Whether it is treated.
    pub fn is_match(&self) -> bool {
        self.exit == Exit::Matched
    }

    /// Whether it is what a tunnel carries, most of all packets.
    pub fn is_esp(&self) -> bool {
        matches!(self.inner, ESP | "esp 100")
    }

    /// Whether it needs a program that knows the NAT64 prefix.
    pub fn needs_nat64(&self) -> bool {
        self.far == Far::Nat64
    }

    /// Length in bytes of what the driver writes: all behind Ethernet up to the end of the IP header.
    pub fn header(&self) -> usize {
        self.network() - 14 + self.own_header()
    }

    /// Offset of the IP header.
    fn network(&self) -> usize {
        14 + match self.link {
            VLAN => 4,
            PPPOE => 8,
            _ => 0,
        }
    }

    fn own_header(&self) -> usize {
        match self.far {
            Far::Arp => 28,
            Far::Endpoint6 | Far::Nat64 => 40,
            Far::Endpoint4 | Far::Stranger4 if self.fields == "opts=4" => 24,
            Far::Endpoint4 | Far::Stranger4 => 20,
        }
    }

    /// The packet to this far end, or from it.
    fn packet(&self, far: IpAddr, down: bool) -> Result<Packet> {
        let Self {
            link,
            fields,
            inner,
            inner_down,
            ..
        } = self;
        let (inner, mirrored) = match inner_down {
            Some(inner) if down => (inner, false),
            _ => (inner, down),
        };
        let text = match (self.far, far) {
            // Who has the last four bytes? (RFC 826); padded to Ethernet's 60 bytes.
            (Far::Arp, _) => format!(
                "{link} type=0x0806 / hex 0001080006040001020000000001 0a090807 000000000000 0a090000 / pad 18"
            ),
            (_, far) => {
                let (version, own) = match far {
                    IpAddr::V4(_) => ("ip4", "10.9.8.7"),
                    IpAddr::V6(_) => ("ip6", "fd00::7"),
                };
                let ends = if down && !mirrored {
                    format!("{far} > {own}")
                } else {
                    format!("{own} > {far}")
                };
                format!("{link} / {version} {ends} {fields} / {inner}")
            }
        };
        let packet: Packet = text.parse().with_context(|| text.clone())?;
        Ok(if mirrored { packet.mirrored() } else { packet })
    }

    fn far(&self, index: u32) -> IpAddr {
        match self.far {
            Far::Endpoint4 => address4(index).into(),
            Far::Endpoint6 => address6(index).into(),
            Far::Nat64 => Ipv6Addr::from(NAT64 | u128::from(u32::from(address4(index)))).into(),
            Far::Stranger4 => stranger4(index).into(),
            Far::Arp => Ipv4Addr::from(u32::from_be_bytes([10, 9, 0, 0]) | index & 0xffff).into(),
        }
    }

    /// A frame to each of so many endpoints, or from it.
    ///
    /// # Errors
    ///
    /// If one is not what building it in words would have given.
    pub fn frames(&self, endpoints: u32, down: bool) -> Result<Frames> {
        let frame =
            |index: u32| -> Result<Vec<u8>> { Ok(self.packet(self.far(index), down)?.bytes()) };
        let template = frame(0)?;
        let (network, header) = (self.network(), self.own_header());
        let address = match (self.far, down) {
            (Far::Endpoint6 | Far::Nat64, false) | (Far::Arp, _) => 24,
            (Far::Endpoint6 | Far::Nat64, true) => 8,
            (_, false) => 16,
            (_, true) => 12,
        };
        // A stride that shares no factor with the number of endpoints: all of them, in no order that memory likes.
        let mut headers = Vec::new();
        for number in 0..endpoints {
            let index = (u64::from(number) * 7_919 % u64::from(endpoints)) as u32;
            let far = match self.far(index) {
                IpAddr::V4(far) => far.octets().to_vec(),
                IpAddr::V6(far) => far.octets().to_vec(),
            };
            let mut bytes = template[..network + header].to_vec();
            bytes[network + address..][..far.len()].copy_from_slice(&far);
            if matches!(self.far, Far::Endpoint4 | Far::Stranger4) {
                bytes[network + 10..][..2].fill(0);
                let sum = checksum(&bytes[network..]);
                bytes[network + 10..][..2].copy_from_slice(&sum.to_be_bytes());
            }
            if number < 2 && self.far != Far::Arp {
                ensure!(
                    bytes == frame(index)?[..network + header],
                    "{}: the header of endpoint {index} is wrong",
                    self.name
                );
            }
            headers.extend(&bytes[14..]);
        }
        Ok(Frames {
            frame: template,
            headers,
            header: self.header(),
            counter: None,
        })
    }
}
