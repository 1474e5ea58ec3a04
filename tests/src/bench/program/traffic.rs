//! The packets that are measured.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use wificall_common::{abi::Features, exit::Exit};

use super::table::{address4, address6};
use crate::packet::{Packet, checksum};

/// One kind of packet, to or from an endpoint unless it says otherwise.
pub struct Traffic {
    /// Its name, the `case` of its rows.
    pub name: &'static str,
    /// The packet upwards, in words (`packet.rs`), but for its IP header.
    link: &'static str,
    inner: &'static str,
    far: Far,
    /// How it leaves the program.
    pub exit: Exit,
    /// Features without which it would leave by another.
    pub needs: u32,
}

/// What varies: the far end's address.
#[derive(Clone, Copy, PartialEq)]
enum Far {
    Endpoint4,
    Endpoint6,
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
}

const fn traffic(name: &'static str, inner: &'static str, far: Far, exit: Exit) -> Traffic {
    Traffic {
        name,
        link: "eth",
        inner,
        far,
        exit,
        needs: 0,
    }
}

const fn under(link: &'static str, traffic: Traffic) -> Traffic {
    Traffic { link, ..traffic }
}

/// The name that the growth chart is of.
pub const ESP_IN_UDP: &str = "ESP in UDP";
const LATER: &str = "later fragment";
const ESP: &str = "udp 40000 > 4500 sum=0 / esp 100";
/// The first fragment of a datagram of 2,000 bytes: 1,408 bytes of it are 176 units of eight.
const FIRST: &str = "udp 40000 > 4500 sum=0 len=2008 / esp 1400";

/// Whole packets of 60 to 1,300 bytes. What matches comes second.
pub const TRAFFIC: [Traffic; 16] = [
    traffic(
        "TCP",
        "tcp 40000 > 443 / bytes 100",
        Far::Endpoint4,
        Exit::OtherProtocol,
    ),
    traffic(
        "TCP, IPv6",
        "tcp 40000 > 443 / bytes 100",
        Far::Endpoint6,
        Exit::OtherProtocol,
    ),
    traffic(
        "UDP",
        "udp 40000 > 53 / bytes 100",
        Far::Endpoint4,
        Exit::OtherPort,
    ),
    traffic(
        "UDP, IPv6",
        "udp 40000 > 53 / bytes 100",
        Far::Endpoint6,
        Exit::OtherPort,
    ),
    traffic(
        "UDP of 1,250 bytes (QUIC)",
        "udp 40000 > 443 / bytes 1250",
        Far::Endpoint4,
        Exit::OtherPort,
    ),
    traffic("ARP", "", Far::Arp, Exit::NotIp),
    traffic(
        "ESP in UDP, no endpoint",
        ESP,
        Far::Stranger4,
        Exit::NotEndpoint,
    ),
    traffic(
        "IKE",
        "udp 40000 > 500 / ike 300",
        Far::Endpoint4,
        Exit::Matched,
    ),
    traffic(ESP_IN_UDP, ESP, Far::Endpoint4, Exit::Matched),
    traffic(
        "keepalive",
        "udp 40000 > 4500 / hex ff",
        Far::Endpoint4,
        Exit::Matched,
    ),
    traffic("native ESP", "esp 100", Far::Endpoint4, Exit::Matched),
    traffic("ESP in UDP, IPv6", ESP, Far::Endpoint6, Exit::Matched),
    under(
        "eth / vlan 7",
        traffic(
            "ESP in UDP, VLAN tag in the frame",
            ESP,
            Far::Endpoint4,
            Exit::Matched,
        ),
    ),
    under(
        "eth / pppoe",
        traffic("ESP in UDP, PPPoE", ESP, Far::Endpoint4, Exit::Matched),
    ),
    traffic("first fragment", FIRST, Far::Endpoint4, Exit::Matched),
    Traffic {
        // Remembered is what is counted.
        needs: Features::COUNT_ACCESS,
        ..traffic(LATER, "bytes 600", Far::Endpoint4, Exit::Matched)
    },
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

    fn packet(&self, far: &str) -> Result<Packet> {
        let Self { link, inner, .. } = self;
        let text = match self.far {
            // Who has the last four bytes? (RFC 826); padded to Ethernet's 60 bytes.
            Far::Arp => format!(
                "{link} type=0x0806 / hex 0001080006040001020000000001 0a090807 000000000000 0a090000 / pad 18"
            ),
            Far::Endpoint6 => format!("{link} / ip6 fd00::7 > {far} / {inner}"),
            Far::Endpoint4 | Far::Stranger4 => {
                let fields = match self.name {
                    LATER => "id=7 off=176 proto=17",
                    _ if *inner == FIRST => "id=7 mf",
                    _ => "",
                };
                format!("{link} / ip4 10.9.8.7 > {far} {fields} / {inner}")
            }
        };
        text.parse().with_context(|| text.clone())
    }

    fn far(&self, index: u32) -> Vec<u8> {
        match self.far {
            Far::Endpoint4 => address4(index).octets().to_vec(),
            Far::Endpoint6 => address6(index).octets().to_vec(),
            Far::Stranger4 => Ipv4Addr::from(u32::from_be_bytes([160, 0, 0, 7]) | index << 8)
                .octets()
                .to_vec(),
            Far::Arp => [vec![10, 9], (index as u16).to_be_bytes().to_vec()].concat(),
        }
    }

    /// A frame to each of so many endpoints, or from it.
    ///
    /// # Errors
    ///
    /// If one is not what building it in words would have given.
    pub fn frames(&self, endpoints: u32, down: bool) -> Result<Frames> {
        let frame = |index: u32| -> Result<Vec<u8>> {
            let far = self.far(index);
            let text = match self.far {
                Far::Endpoint6 => {
                    let octets: [u8; 16] = far.as_slice().try_into()?;
                    std::net::Ipv6Addr::from(octets).to_string()
                }
                _ => {
                    let octets: [u8; 4] = far.as_slice().try_into()?;
                    Ipv4Addr::from(octets).to_string()
                }
            };
            let packet = self.packet(&text)?;
            let packet = if down { packet.mirrored() } else { packet };
            Ok(packet.bytes())
        };
        let template = frame(0)?;
        let network = 14
            + match self.link {
                "eth" => 0,
                "eth / vlan 7" => 4,
                _ => 8,
            };
        let (header, address) = match (self.far, down) {
            (Far::Arp, _) => (28, 24),
            (Far::Endpoint6, false) => (40, 24),
            (Far::Endpoint6, true) => (40, 8),
            (_, false) => (20, 16),
            (_, true) => (20, 12),
        };
        // A stride that shares no factor with the number of endpoints: all of them, in no order that memory likes.
        let mut headers = Vec::new();
        for number in 0..endpoints {
            let index = (u64::from(number) * 7_919 % u64::from(endpoints)) as u32;
            let far = self.far(index);
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
            header: network - 14 + header,
        })
    }
}
