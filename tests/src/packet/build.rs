//! From layers to bytes.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Kind, Layer, number};

/// Builds `layers`, which stand inside `ip` if that is given.
pub(super) fn build(layers: &[Layer], ip: Option<&Layer>) -> Result<Vec<u8>> {
    let Some((layer, inner)) = layers.split_first() else {
        return Ok(Vec::new());
    };
    let next = inner.first().map(|layer| layer.kind);
    let ip = if layer.kind.is_ip() { Some(layer) } else { ip };
    let payload = build(inner, ip)?;
    let mut out = header(layer, next, ip, &payload)?;
    out.extend(payload);
    Ok(out)
}

fn header(
    layer: &Layer,
    next: Option<Kind>,
    ip: Option<&Layer>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let ethertype = |layer: &Layer| -> Result<[u8; 2]> {
        let natural = next.and_then(Kind::ethertype).unwrap_or(0x88b5);
        Ok(u16::try_from(layer.field("type", natural.into())?)?.to_be_bytes())
    };
    let protocol = |layer: &Layer| -> Result<u8> {
        let natural = next.and_then(Kind::protocol).unwrap_or(253);
        Ok(layer.field("proto", natural.into())?.try_into()?)
    };
    let mut out = Vec::new();
    match layer.kind {
        Kind::Eth => {
            out.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            out.extend(ethertype(layer)?);
        }
        Kind::Vlan | Kind::Svlan => {
            out.extend(u16::try_from(layer.value)?.to_be_bytes());
            out.extend(ethertype(layer)?);
        }
        Kind::Pppoe => {
            let natural = if next == Some(Kind::Ip6) { 0x57 } else { 0x21 };
            let proto = u16::try_from(layer.field("proto", natural)?)?;
            out.push(layer.field("vt", 0x11)?.try_into()?);
            out.push(layer.field("code", 0)?.try_into()?);
            out.extend(9u16.to_be_bytes());
            out.extend(u16::try_from(payload.len() + 2)?.to_be_bytes());
            out.extend(proto.to_be_bytes());
        }
        Kind::Ip4 => out = ipv4(layer, protocol(layer)?, payload.len())?,
        Kind::Ip6 => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = layer.addresses()? else {
                bail!("ip6 needs two IPv6 addresses");
            };
            let word = layer.field("ver", 6)? << 28
                | layer.field("tc", 0)? << 20
                | layer.field("flow", 0x12345)?;
            out.extend(u32::try_from(word)?.to_be_bytes());
            out.extend(layer.length(payload.len())?.to_be_bytes());
            out.push(protocol(layer)?);
            out.push(64);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        Kind::Hop | Kind::Route | Kind::Dst => {
            let units = u8::try_from(layer.value)?;
            out.extend([protocol(layer)?, units, 1, 4, 0, 0, 0, 0]); // a PadN option of six bytes
            out.resize(8 * (1 + usize::from(units)), 0);
        }
        Kind::Frag => {
            let field = layer.field("off", 0)? << 3 | layer.field("mf", 0)?;
            out.extend([protocol(layer)?, 0]);
            out.extend(u16::try_from(field)?.to_be_bytes());
            out.extend(u32::try_from(layer.field("id", 0x1234_5678)?)?.to_be_bytes());
        }
        Kind::Udp => {
            out.extend(layer.ports()?);
            out.extend(layer.length(payload.len() + 8)?.to_be_bytes());
            out.extend([0, 0]);
            let sum = match layer.fields.get("sum") {
                Some(text) => number(text)?.try_into()?,
                None => udp_checksum(ip.context("udp outside of ip")?, &out, payload)?,
            };
            out[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        Kind::Tcp => {
            out.extend(layer.ports()?);
            out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Kind::Marker => out.extend([0; 4]),
        Kind::Ike => {
            out.extend(layer.field("spi", 0x0123_4567_89ab_cdef)?.to_be_bytes());
            out.extend(layer.field("spir", 0)?.to_be_bytes());
            for (key, natural) in [
                ("next", 33),
                ("version", 0x20),
                ("exchange", 34),
                ("flags", 8),
            ] {
                out.push(layer.field(key, natural)?.try_into()?);
            }
            out.extend(u32::try_from(layer.field("id", 0)?)?.to_be_bytes());
            let len = layer.field("len", layer.value as u64)?;
            out.extend(u32::try_from(len)?.to_be_bytes());
            let notify = u16::try_from(layer.field("notify", 0)?)?;
            if notify != 0 {
                // RFC 7296 section 3.10, without an SPI and data; the last payload.
                out.extend([0, 0, 0, 8, 0, 0]);
                out.extend(notify.to_be_bytes());
            }
            fill(&mut out, layer.value);
        }
        Kind::Esp => {
            out.extend(u32::try_from(layer.field("spi", 0xc0ff_ee01)?)?.to_be_bytes());
            out.extend(u32::try_from(layer.field("seq", 1)?)?.to_be_bytes());
            fill(&mut out, layer.value);
        }
        Kind::Dns => out = dns(layer)?,
        Kind::Bytes => fill(&mut out, layer.value),
        Kind::Hex => out.extend(&layer.bytes),
        Kind::Pad | Kind::Cut => bail!("pad and cut come last"),
    }
    Ok(out)
}

fn ipv4(layer: &Layer, protocol: u8, payload: usize) -> Result<Vec<u8>> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = layer.addresses()? else {
        bail!("ip4 needs two IPv4 addresses");
    };
    let options = usize::try_from(layer.field("opts", 0)?)?;
    ensure!(options.is_multiple_of(4), "options come in four bytes");
    let len = 20 + options;
    let ihl = layer.field("ihl", len as u64 / 4)?;
    let flags =
        layer.field("df", 0)? << 14 | layer.field("mf", 0)? << 13 | layer.field("off", 0)?;
    let mut out = vec![
        u8::try_from(layer.field("ver", 4)? << 4 | ihl)?,
        layer.field("tos", 0)?.try_into()?,
    ];
    out.extend(layer.length(len + payload)?.to_be_bytes());
    out.extend(u16::try_from(layer.field("id", 0xbeef)?)?.to_be_bytes());
    out.extend(u16::try_from(flags)?.to_be_bytes());
    out.extend([layer.field("ttl", 64)?.try_into()?, protocol, 0, 0]);
    out.extend(from.octets());
    out.extend(to.octets());
    out.resize(len, 1); // no-operation options
    let sum = match layer.fields.get("sum") {
        Some(text) => number(text)?.try_into()?,
        None => checksum(&out),
    };
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(out)
}

/// RFC 1035 §4.1: a header with recursion desired, and one question; more of them are only announced.
fn dns(layer: &Layer) -> Result<Vec<u8>> {
    let mut out = u16::try_from(layer.field("id", 0x1234)?)?
        .to_be_bytes()
        .to_vec();
    let flags = layer.field("qr", 0)? << 15 | layer.field("op", 0)? << 11 | 1 << 8;
    out.extend(u16::try_from(flags)?.to_be_bytes());
    out.extend(u16::try_from(layer.field("qd", 1)?)?.to_be_bytes());
    out.extend([0; 6]);
    for label in layer.bytes.split(|byte| *byte == b'.') {
        out.push(u8::try_from(label.len())?);
        out.extend(label);
    }
    out.push(0);
    for (key, natural) in [("type", 1), ("class", 1)] {
        out.extend(u16::try_from(layer.field(key, natural)?)?.to_be_bytes());
    }
    Ok(out)
}

/// RFC 1071: the complement of the ones' complement sum of the 16-bit words.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// RFC 768, RFC 8200 §8.1: over the pseudo-header, header and payload; a zero is sent as its other form.
fn udp_checksum(ip: &Layer, header: &[u8], payload: &[u8]) -> Result<u16> {
    let mut bytes = Vec::new();
    match ip.addresses()? {
        (IpAddr::V4(from), IpAddr::V4(to)) => bytes.extend([from.octets(), to.octets()].concat()),
        (IpAddr::V6(from), IpAddr::V6(to)) => bytes.extend([from.octets(), to.octets()].concat()),
        _ => bail!("addresses of two families"),
    }
    bytes.extend(17u16.to_be_bytes());
    bytes.extend(u16::try_from(header.len() + payload.len())?.to_be_bytes());
    bytes.extend(header);
    bytes.extend(payload);
    Ok(match checksum(&bytes) {
        0 => 0xffff,
        sum => sum,
    })
}

/// Fills up to `len` with a pattern, or cuts down to it.
fn fill(out: &mut Vec<u8>, len: usize) {
    let have = out.len();
    out.extend((have..len).map(|index| (index as u8).wrapping_mul(37) ^ 0x5a));
    out.truncate(len);
}
