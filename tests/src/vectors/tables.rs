//! What the maps hold while vectors run: `tests/vectors/tables.toml`.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use wificall_common::abi::{Block4, Block6, EndpointRef, FLAG_HOSTS, FLAG_WHOLE, Policy};

const TABLES: &str = include_str!("../../vectors/tables.toml");

/// Address and length of `address/length`.
pub(super) fn parse_prefix(text: &str) -> Result<(IpAddr, u8)> {
    let (address, len) = text.split_once('/').context("no prefix length")?;
    Ok((address.parse()?, len.parse()?))
}

/// IPv4 as `::ffff:a.b.c.d`.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The contents of the maps, by key.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// `BLOCKS4`.
    pub blocks4: BTreeMap<[u8; 4], Block4>,
    /// `BLOCKS6`.
    pub blocks6: BTreeMap<[u8; 8], Block6>,
    /// `HOSTS`.
    pub hosts: BTreeMap<[u8; 16], EndpointRef>,
    /// `PREFIXES`, by length in bits and prefix.
    pub prefixes: BTreeMap<(u32, [u8; 16]), EndpointRef>,
    /// `POLICIES`.
    pub policies: BTreeMap<u32, Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TablesFile {
    policy: Vec<PolicyRow>,
    block4: Vec<Block>,
    block6: Vec<Block>,
    host: Vec<Host>,
    prefix: Vec<Block>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRow {
    index: u32,
    mark: u32,
    mask: u32,
    up: [String; 4],
    down: [String; 4],
    voice: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    prefix: String,
    group: u32,
    policy: u32,
    slot: u32,
    #[serde(default)]
    hosts: bool,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    members: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    address: IpAddr,
    group: u32,
    policy: u32,
    slot: u32,
}

/// What `tests/vectors/tables.toml` puts into the maps.
///
/// # Errors
///
/// Says what is wrong with the file.
pub fn contents() -> Result<Contents> {
    let file: TablesFile = toml::from_str(TABLES).context("tables.toml")?;
    let mut contents = Contents::default();
    for row in file.policy {
        contents.policies.insert(row.index, policy(&row)?);
    }
    for row in file.block4 {
        let (IpAddr::V4(address), 24) = parse_prefix(&row.prefix)? else {
            bail!("{} is no /24", row.prefix);
        };
        let mut members = [0u32; 8];
        for last in row.members {
            members[usize::from(last / 32)] |= 1 << (last % 32);
        }
        let block = Block4 {
            group: row.group,
            policy: row.policy,
            slot: row.slot,
            flags: if row.hosts { FLAG_HOSTS } else { 0 },
            members,
        };
        contents.blocks4.insert(address.octets(), block);
    }
    for row in file.block6 {
        let (IpAddr::V6(address), 64) = parse_prefix(&row.prefix)? else {
            bail!("{} is no /64", row.prefix);
        };
        let [a, b, c, d, e, f, g, h, ..] = address.octets();
        let hosts = if row.hosts { FLAG_HOSTS } else { 0 };
        let whole = if row.whole { FLAG_WHOLE } else { 0 };
        let block = Block6 {
            group: row.group,
            policy: row.policy,
            slot: row.slot,
            flags: hosts | whole,
        };
        contents.blocks6.insert([a, b, c, d, e, f, g, h], block);
    }
    for row in file.host {
        let entry = EndpointRef {
            group: row.group,
            policy: row.policy,
            slot: row.slot,
            reserved: 0,
        };
        contents.hosts.insert(mapped(row.address), entry);
    }
    for row in file.prefix {
        let (address, len) = parse_prefix(&row.prefix)?;
        let bits = u32::from(len) + if address.is_ipv4() { 96 } else { 0 };
        let entry = EndpointRef {
            group: row.group,
            policy: row.policy,
            slot: row.slot,
            reserved: 0,
        };
        contents.prefixes.insert((bits, mapped(address)), entry);
    }
    Ok(contents)
}

fn policy(row: &PolicyRow) -> Result<Policy> {
    let rules = |texts: &[String; 4]| -> Result<[u8; 4]> {
        let mut rules = [0; 4];
        for (rule, text) in rules.iter_mut().zip(texts) {
            *rule = match (text.as_str(), text.strip_suffix('?')) {
                ("keep", _) => 0x80,
                (_, Some(dscp)) => 0x40 | dscp.parse::<u8>()?,
                (dscp, None) => dscp.parse()?,
            };
        }
        Ok(rules)
    };
    let voice = |name: &str| u8::from(row.voice.iter().any(|voice| voice == name));
    Ok(Policy {
        mark: row.mark,
        mask: row.mask,
        dscp: [rules(&row.up)?, rules(&row.down)?],
        voice: [voice("up"), voice("down")],
        valid: 1,
        tier: wificall_common::abi::TIER_TRUSTED,
        passes: 1,
        ..Policy::default()
    })
}
