//! Packets written as text.
//!
//! Layers are separated by ` / `, outermost first:
//!
//! ```text
//! eth / vlan 7 / ip4 10.0.0.2 > 203.0.113.1 tos=3 / udp 40000 > 4500 / esp 100
//! ```
//!
//! Lengths, checksums, next protocols and EtherTypes follow from what stands further right, unless a field says
//! otherwise; `len=+4` and `len=-4` lie relative to the truth. Everything here is written from the standards and shares
//! no line with `wificall-common`: what the two agree on, neither has from the other.
//!
//! | layer | is | fields |
//! |---|---|---|
//! | `eth` | Ethernet II | `type` |
//! | `vlan ID`, `svlan ID` | C-tag, S-tag | `type` |
//! | `pppoe` | session header and PPP protocol | `vt` (version and type), `code`, `proto` |
//! | `ip4 A > B` | IPv4 | `tos id ttl off` (in 8 bytes) `mf df opts` (bytes of options) `ver ihl len proto sum` |
//! | `ip6 A > B` | IPv6 | `tc flow ver len proto` |
//! | `hop N`, `route N`, `dst N` | IPv6 extension header of N more 8-byte units | `proto` |
//! | `frag` | IPv6 fragment header | `off` (in 8 bytes) `mf id proto` |
//! | `udp A > B`, `tcp A > B` | | `len sum` (UDP) |
//! | `marker` | the four zero bytes before IKE in UDP 4500 | |
//! | `ike N` | an IKEv2 message of N bytes | `spi spir next version exchange flags len id`, `notify` (type of a first payload) |
//! | `esp N` | an ESP packet of N bytes | `spi seq` |
//! | `dns NAME` | a DNS message of one question | `id qr op qd type class` |
//! | `bytes N`, `hex …` | N bytes of a pattern, or these | |
//! | `pad N` | N zero bytes after the IP packet: Ethernet padding | |
//! | `cut N` | the frame ends after N bytes | |

mod build;

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use anyhow::{Context as _, Result, ensure};

use self::build::build;
pub use self::build::checksum;

/// A packet as its layers.
#[derive(Clone, Debug)]
pub struct Packet {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    kind: Kind,
    /// Source and destination of addresses or ports.
    ends: Option<[String; 2]>,
    /// The number after the name.
    value: usize,
    /// The bytes of `hex`, the name of `dns`.
    bytes: Vec<u8>,
    fields: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Eth,
    Vlan,
    Svlan,
    Pppoe,
    Ip4,
    Ip6,
    Hop,
    Route,
    Dst,
    Frag,
    Udp,
    Tcp,
    Marker,
    Ike,
    Esp,
    Dns,
    Bytes,
    Hex,
    Pad,
    Cut,
}

impl Kind {
    /// Name, kind, number if none is given, fields.
    const ALL: [(&str, Self, usize, &[&str]); 20] = [
        ("eth", Self::Eth, 0, &["type"]),
        ("vlan", Self::Vlan, 1, &["type"]),
        ("svlan", Self::Svlan, 1, &["type"]),
        ("pppoe", Self::Pppoe, 0, &["vt", "code", "proto"]),
        (
            "ip4",
            Self::Ip4,
            0,
            &[
                "tos", "id", "ttl", "off", "mf", "df", "opts", "ver", "ihl", "len", "proto", "sum",
            ],
        ),
        ("ip6", Self::Ip6, 0, &["tc", "flow", "ver", "len", "proto"]),
        ("hop", Self::Hop, 0, &["proto"]),
        ("route", Self::Route, 0, &["proto"]),
        ("dst", Self::Dst, 0, &["proto"]),
        ("frag", Self::Frag, 0, &["off", "mf", "id", "proto"]),
        ("udp", Self::Udp, 0, &["len", "sum"]),
        ("tcp", Self::Tcp, 0, &[]),
        ("marker", Self::Marker, 0, &[]),
        (
            "ike",
            Self::Ike,
            300,
            &[
                "spi", "spir", "next", "version", "exchange", "flags", "len", "id", "notify",
            ],
        ),
        ("esp", Self::Esp, 100, &["spi", "seq"]),
        (
            "dns",
            Self::Dns,
            0,
            &["id", "qr", "op", "qd", "type", "class"],
        ),
        ("bytes", Self::Bytes, 0, &[]),
        ("hex", Self::Hex, 0, &[]),
        ("pad", Self::Pad, 0, &[]),
        ("cut", Self::Cut, 0, &[]),
    ];

    fn is_ip(self) -> bool {
        matches!(self, Self::Ip4 | Self::Ip6)
    }

    fn ethertype(self) -> Option<u16> {
        Some(match self {
            Self::Vlan => 0x8100,
            Self::Svlan => 0x88a8,
            Self::Pppoe => 0x8864,
            Self::Ip4 => 0x0800,
            Self::Ip6 => 0x86dd,
            _ => return None,
        })
    }

    /// IANA protocol numbers.
    fn protocol(self) -> Option<u8> {
        Some(match self {
            Self::Hop => 0,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Route => 43,
            Self::Frag => 44,
            Self::Esp => 50,
            Self::Dst => 60,
            _ => return None,
        })
    }
}

impl FromStr for Packet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let layers = text
            .split(" / ")
            .map(|layer| layer.parse().with_context(|| format!("layer {layer:?}")))
            .collect::<Result<_>>()?;
        let packet = Self { layers };
        packet.build()?;
        Ok(packet)
    }
}

impl FromStr for Layer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().peekable();
        let name = words.next().context("an empty layer")?;
        let (_, kind, default, known) = Kind::ALL
            .into_iter()
            .find(|row| row.0 == name)
            .with_context(|| format!("no layer is called {name:?}"))?;
        let mut layer = Self {
            kind,
            ends: None,
            value: default,
            bytes: Vec::new(),
            fields: BTreeMap::new(),
        };
        while let Some(word) = words.next() {
            if let Some((key, value)) = word.split_once('=') {
                ensure!(known.contains(&key), "{name} has no field {key:?}");
                layer.fields.insert(key.to_owned(), value.to_owned());
            } else if words.next_if_eq(&">").is_some() {
                let to = words.next().context("nothing after `>`")?;
                layer.ends = Some([word.to_owned(), to.to_owned()]);
            } else if kind == Kind::Dns {
                layer.bytes.extend(word.bytes());
            } else if kind == Kind::Hex {
                layer.bytes.extend(hex(word)?);
            } else if known.contains(&word) {
                layer.fields.insert(word.to_owned(), "1".to_owned());
            } else {
                layer.value = number(word)?.try_into()?;
            }
        }
        Ok(layer)
    }
}

impl Layer {
    fn field(&self, key: &str, default: u64) -> Result<u64> {
        match self.fields.get(key) {
            Some(text) => number(text).with_context(|| format!("field {key}")),
            None => Ok(default),
        }
    }

    /// A length field: the truth, a lie relative to it, or a number.
    fn length(&self, truth: usize) -> Result<u16> {
        let length = match self.fields.get("len") {
            Some(text) if text.starts_with(['+', '-']) => truth as i64 + text.parse::<i64>()?,
            Some(text) => number(text)? as i64,
            None => truth as i64,
        };
        Ok(length.try_into()?)
    }

    fn addresses(&self) -> Result<(IpAddr, IpAddr)> {
        let [from, to] = self.ends.as_ref().context("no addresses")?;
        Ok((from.parse()?, to.parse()?))
    }

    fn ports(&self) -> Result<[u8; 4]> {
        let [from, to] = self.ends.as_ref().context("no ports")?;
        let ([a, b], [c, d]) = (
            from.parse::<u16>()?.to_be_bytes(),
            to.parse::<u16>()?.to_be_bytes(),
        );
        Ok([a, b, c, d])
    }
}

impl Packet {
    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.build().expect("it could be built when it was parsed")
    }

    /// The same in the other direction: addresses and ports swapped.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut packet = self.clone();
        for layer in &mut packet.layers {
            if let Some(ends) = &mut layer.ends {
                ends.reverse();
            }
        }
        packet
    }

    /// The same with this DSCP in its IP header, ECN as it was.
    #[must_use]
    pub fn with_dscp(&self, dscp: u8) -> Self {
        let mut packet = self.clone();
        for layer in packet.layers.iter_mut().filter(|layer| layer.kind.is_ip()) {
            let key = if layer.kind == Kind::Ip4 { "tos" } else { "tc" };
            let octet = layer.field(key, 0).expect("it was parsed");
            let octet = u64::from(dscp) << 2 | octet & 3;
            layer.fields.insert(key.to_owned(), octet.to_string());
        }
        packet
    }

    /// Length in bytes of the IP packet as its header states it, or 0 without one.
    #[must_use]
    pub fn stated_len(&self) -> u64 {
        let Some(at) = self.layers.iter().position(|layer| layer.kind.is_ip()) else {
            return 0;
        };
        let ip: Vec<_> = self.layers[at..]
            .iter()
            .filter(|layer| layer.kind != Kind::Cut)
            .cloned()
            .collect();
        let bytes = Self { layers: ip }.bytes();
        if self.layers[at].kind == Kind::Ip4 {
            u64::from(u16::from_be_bytes([bytes[2], bytes[3]]))
        } else {
            40 + u64::from(u16::from_be_bytes([bytes[4], bytes[5]]))
        }
    }

    fn build(&self) -> Result<Vec<u8>> {
        let mut layers = &self.layers[..];
        let mut padding = 0;
        let mut end = usize::MAX;
        while let Some((last, rest)) = layers.split_last() {
            match last.kind {
                Kind::Pad => padding += last.value,
                Kind::Cut => end = last.value,
                _ => break,
            }
            layers = rest;
        }
        let mut frame = build(layers, None)?;
        frame.resize(frame.len() + padding, 0);
        frame.truncate(end);
        Ok(frame)
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("{text:?} is no number"))
}

fn hex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "{text:?} has an odd digit");
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let digits = text.get(at..at + 2).context("not ASCII")?;
            u8::from_str_radix(digits, 16).with_context(|| format!("{digits:?} is no byte"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header whose checksum is printed in a textbook: 45 00 00 73 00 00 40 00 40 11 b8 61 c0 a8 00 01 c0 a8 00 c7.
    #[test]
    fn a_known_ipv4_header() {
        let packet: Packet = "ip4 192.168.0.1 > 192.168.0.199 id=0 df proto=17 / bytes 95"
            .parse()
            .unwrap();
        assert_eq!(
            packet.bytes()[..20],
            hex("45000073000040004011b861c0a80001c0a800c7").unwrap()
        );
        assert_eq!(packet.stated_len(), 0x73);
    }

    /// A receiver sums pseudo-header, header and payload and expects all ones.
    #[test]
    fn udp_checksums_verify() {
        let packet: Packet = "ip6 2001:db8::1 > 2001:db8::2 / udp 5 > 6 / bytes 7"
            .parse()
            .unwrap();
        let bytes = packet.bytes();
        let mut summed = bytes[8..].to_vec();
        summed.extend([0, 17, 0, 15]);
        // An odd datagram: the pad byte of the sum stands at its end.
        summed.splice(32 + 15..32 + 15, [0]);
        assert_eq!(checksum(&summed), 0);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for text in [
            "eht",
            "ip4 1.2.3.4 > 1.2.3.5 tso=1",
            "udp 1 > 2",
            "ip4 1.2.3.4 > ::1",
        ] {
            assert!(text.parse::<Packet>().is_err(), "{text}");
        }
    }
}
