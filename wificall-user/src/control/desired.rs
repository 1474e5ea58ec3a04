//! What the endpoint table should hold. Pure.
//!
//! An address belongs to the most specific thing that is said of it: a host that DNS named, the block around it or a
//! static prefix, a shorter static prefix. Things of the same length add up: their owners are united. Local networks and
//! the box's own addresses are never endpoints, whatever covers them.
//!
//! What an endpoint may get depends on its tier (`discover/trust.rs`), which is that of its best source; the members of a
//! block have at least the block's.
//!
//! IPv4 of any length from /16 on becomes /24 blocks with a bitmap, IPv6 /64 becomes whole blocks; both are one hash
//! lookup. What does not fit that goes to the LPM trie, which costs more and is looked into only if it is used at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wificall_common::abi::{FLAG_HOSTS, FLAG_WHOLE, Policy as Row};

use super::{
    compile::{Around, Choices, Clients, Compiler},
    label::Label,
    policy_match::Endpoint,
};
use crate::{
    config::{Config, Widen},
    discover::{Owner, Tier, nat64},
    kernel::Key,
};

/// Length of the blocks.
const BLOCK4: u8 = 24;
const BLOCK6: u8 = 64;
/// Static IPv4 prefixes from this length on become blocks, at most 256 each; shorter ones go to the trie.
const EXPANDED4: u8 = 16;

/// 64:ff9b::/96.
const NAT64_WELL_KNOWN: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is known: addresses and prefixes with their owners.
pub type Known = BTreeMap<IpNet, Claim>;

/// Whose something is, and how far that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// By the best source.
    pub tier: Tier,
    /// Whose it is by the sources of that tier.
    pub owners: BTreeSet<Owner>,
    /// The names that those gave it, where a policy asks for names; of a block, those of its addresses.
    pub names: BTreeSet<Arc<str>>,
    /// Whether one of its names is for emergency calls. Of an address alone: what else is in its block is not known to be.
    pub emergency: bool,
}

impl From<BTreeSet<Owner>> for Claim {
    /// What the configuration or the catalogue says.
    fn from(owners: BTreeSet<Owner>) -> Self {
        Self {
            tier: Tier::Authoritative,
            owners,
            names: BTreeSet::new(),
            emergency: false,
        }
    }
}

/// Claims of one tier add up, a better one replaces a worse; but emergency calls are told by each.
fn claim(known: &mut Known, net: IpNet, claim: &Claim) {
    let emergency = claim.emergency || known.get(&net).is_some_and(|before| before.emergency);
    match known.get_mut(&net) {
        Some(before) if before.tier > claim.tier => {}
        Some(before) if before.tier == claim.tier => {
            before.owners.extend(&claim.owners);
            before.names.extend(claim.names.iter().cloned());
        }
        _ => drop(known.insert(net, claim.clone())),
    }
    if let Some(claim) = known.get_mut(&net) {
        claim.emergency = emergency;
    }
}

/// What an entry of the table stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meaning {
    /// What it is counted under.
    pub label: Label,
    /// What is done.
    pub row: Row,
    /// What is done instead for some clients.
    pub choices: Choices,
}

/// An entry of the table, by meaning. `None`: not an endpoint, an exception inside a shorter prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it stands for.
    pub meaning: Option<Meaning>,
    /// `FLAG_…` of a block.
    pub flags: u32,
    /// Members of a /24.
    pub members: [u32; 8],
}

/// The table.
pub type Desired = BTreeMap<Key, Entry>;

/// The table, and the numbering of clients that its choices go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The table.
    pub entries: Desired,
    /// The numbering.
    pub clients: Clients,
}

impl Wanted {
    /// All rows, and those that choices name.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let meanings = self.entries.values().filter_map(|e| e.meaning.as_ref());
        meanings.flat_map(|meaning| {
            let chosen = meaning.choices.iter().map(|(_, _, row)| row);
            chosen.chain([&meaning.row])
        })
    }
}

/// Gathers what is known: host addresses, widened if the configuration says so, and static prefixes. What is only observed
/// is never widened: one forged answer would make endpoints of 256 strangers. Nor is an IPv6 address that contains a known
/// IPv4 one (RFC 6052 §2.2): it may be of a NAT64 that nobody told us of, and its /64 the whole IPv4 Internet.
#[must_use]
pub fn known(
    config: &Config,
    hosts: impl IntoIterator<Item = (IpAddr, impl Into<Claim>)>,
    prefixes: impl IntoIterator<Item = (IpNet, BTreeSet<Owner>)>,
) -> Known {
    let mut known = Known::new();
    let hosts: Vec<(IpAddr, Claim)> = hosts
        .into_iter()
        .map(|(a, said)| (a, said.into()))
        .collect();
    let ipv4 = hosts.iter().filter(|(address, _)| address.is_ipv4());
    let ipv4: BTreeSet<IpNet> = ipv4.map(|(address, _)| block_of(*address)).collect();
    let translated = |address: IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => nat64::embedded(v6).any(|inner| ipv4.contains(&block_of(inner.into()))),
    };
    for (address, said) in hosts {
        let widened = config.discovery.widen == Widen::Block && said.tier > Tier::Observed;
        if widened && !translated(address) {
            let around = Claim {
                emergency: false,
                ..said.clone()
            };
            claim(&mut known, block_of(address), &around);
        }
        claim(&mut known, IpNet::from(address), &said);
    }
    for (prefix, owners) in prefixes {
        claim(&mut known, prefix.trunc(), &owners.into());
    }
    split(config, &mut known);
    known
}

/// Makes entries of their own of the prefixes that policies name and that lie in something wider.
fn split(config: &Config, known: &mut Known) {
    for prefix in config.policies.iter().flat_map(|policy| &policy.prefixes) {
        let prefix = prefix.trunc();
        let wider = (0..prefix.prefix_len()).rev().find_map(|len| {
            let wider = IpNet::new(prefix.addr(), len).ok()?;
            known.get(&wider.trunc())
        });
        if let Some(wider) = wider.cloned() {
            claim(known, prefix, &wider);
        }
    }
}

/// The tier of each thing known: the best of what is said of it and of all that it lies in, for the members of a block
/// follow it. `None` for what is only observed and lies in something better: that says all there is to say.
pub(super) fn tiers(known: &Known) -> BTreeMap<IpNet, Option<Tier>> {
    let lengths = |v4: bool| -> BTreeSet<u8> {
        let nets = known.keys().filter(|net| net.addr().is_ipv4() == v4);
        nets.map(IpNet::prefix_len).collect()
    };
    let (lengths4, lengths6) = (lengths(true), lengths(false));
    known
        .iter()
        .map(|(net, said)| {
            let lengths = if net.addr().is_ipv4() {
                &lengths4
            } else {
                &lengths6
            };
            let around = lengths
                .range(..net.prefix_len())
                .filter_map(|len| IpNet::new(net.addr(), *len).ok())
                .filter_map(|wider| known.get(&wider.trunc()))
                .map(|wider| wider.tier)
                .max();
            let tier = match around {
                Some(better) if said.tier == Tier::Observed && better > said.tier => None,
                better => Some(better.map_or(said.tier, |better| better.max(said.tier))),
            };
            (*net, tier)
        })
        .collect()
}

/// Adds what was found in the kernel at a start without state: it is the last known good until DNS has said better.
#[must_use]
pub fn with_recovered(desired: Desired, recovered: &Desired) -> Desired {
    let mut desired = desired;
    for (key, found) in recovered {
        let entry = desired.entry(*key).or_insert_with(|| found.clone());
        for (members, found) in entry.members.iter_mut().zip(found.members) {
            *members |= found;
        }
    }
    desired
}

/// Takes out of what was found in the kernel what policies decided that are no longer in force: by which exit packets go,
/// for whom, and what is dropped. It goes on being counted, and keeps its class of service.
pub fn forget_policies(recovered: &mut Desired) {
    let meanings = recovered
        .values_mut()
        .filter_map(|entry| entry.meaning.as_mut());
    for meaning in meanings {
        meaning.choices = Choices::default();
        let row = &mut meaning.row;
        (row.mark, row.mask, row.exit) = (0, 0, 0);
        (row.set, row.epoch, row.drop) = (0, 0, 0);
    }
}

/// The block around an address. One that stands for an IPv4 host behind the well-known NAT64 prefix (RFC 6052 §2.1) is
/// alone: its /64 is the whole IPv4 Internet.
#[must_use]
pub fn block_of(address: IpAddr) -> IpNet {
    let len = match address {
        IpAddr::V4(_) => BLOCK4,
        IpAddr::V6(address) if address.octets()[..12] == NAT64_WELL_KNOWN => 128,
        IpAddr::V6(_) => BLOCK6,
    };
    // Both lengths are valid for their family.
    IpNet::new(address, len).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}

/// A thing known, as policies see it.
#[must_use]
pub(super) fn endpoint<'k>(net: &IpNet, claim: &'k Claim, tier: Tier) -> Endpoint<'k> {
    Endpoint {
        owners: &claim.owners,
        names: &claim.names,
        emergency: claim.emergency,
        net: *net,
        tier,
    }
}

/// Compiles the table. `local` are the box's own networks and addresses, except those that a lab admits.
#[must_use]
pub fn desired(config: &Config, around: Around<'_>, known: &Known, local: &[IpNet]) -> Wanted {
    let mut entries = Desired::new();
    let mut compiler = Compiler::new(config, around);
    let tiers = tiers(known);
    let meanings: BTreeMap<IpNet, Meaning> = known
        .iter()
        .filter_map(|(net, claim)| {
            let tier = tiers.get(net).copied().flatten()?;
            let label = match tier {
                Tier::Observed => Label::observed(&claim.owners),
                Tier::Corroborated | Tier::Authoritative => Label::of(&claim.owners),
            };
            let (row, choices) = compiler.rows(&endpoint(net, claim, tier));
            let meaning = Meaning {
                label,
                row,
                choices,
            };
            Some((*net, meaning))
        })
        .collect();
    ipv4(&meanings, local, &mut entries);
    ipv6(&meanings, local, &mut entries);
    for (address, names) in around.companions.into_iter().flatten() {
        let (row, choices) = compiler.companion(names);
        let meaning = Meaning {
            label: Label::companion(),
            row,
            choices,
        };
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => *address,
        };
        entries.insert(Key::Companion(address.octets()), plain(Some(meaning)));
    }
    Wanted {
        entries,
        clients: compiler.into_clients(),
    }
}

fn ipv4(meanings: &BTreeMap<IpNet, Meaning>, local: &[IpNet], desired: &mut Desired) {
    let nets: Vec<(Ipv4Net, &Meaning)> = meanings
        .iter()
        .filter_map(|(net, meaning)| match net {
            IpNet::V4(net) => Some((*net, meaning)),
            IpNet::V6(_) => None,
        })
        .collect();
    let local: Vec<Ipv4Net> = local
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })
        .collect();
    // The last write wins: from the shortest to the longest.
    let mut blocks: BTreeMap<[u8; 4], [Option<&Meaning>; 256]> = BTreeMap::new();
    let mut sorted = nets.clone();
    sorted.sort_by_key(|(net, _)| net.prefix_len());
    for (net, meaning) in sorted {
        if net.prefix_len() < EXPANDED4 {
            if !local.iter().any(|own| own.contains(&net)) {
                desired.insert(prefix4(net), plain(Some(meaning.clone())));
            }
            continue;
        }
        for (key, range) in pieces(net) {
            blocks.entry(key).or_insert([None; 256])[range].fill(Some(meaning));
        }
    }
    for net in &local {
        for (key, members) in blocks
            .iter_mut()
            .filter(|(key, _)| overlap(&Ipv4Net::from(Ipv4Addr::from(**key)), net))
        {
            for (last, member) in (0..=u8::MAX).zip(members.iter_mut()) {
                if net.contains(&Ipv4Addr::new(key[0], key[1], key[2], last)) {
                    *member = None;
                }
            }
        }
        let covered = nets.iter().any(|(wide, _)| {
            wide.prefix_len() < EXPANDED4 && (wide.contains(net) || net.contains(wide))
        });
        if covered {
            desired.insert(prefix4(*net), plain(None));
        }
    }
    for (key, members) in blocks {
        block4(key, &members, desired);
    }
}

/// The /24s of a prefix, each with the range of last bytes that it covers.
fn pieces(net: Ipv4Net) -> impl Iterator<Item = ([u8; 4], std::ops::Range<usize>)> {
    let first = u32::from(net.network());
    let blocks = 1_u32 << BLOCK4.saturating_sub(net.prefix_len());
    let len = 1_usize << (32 - net.prefix_len().max(BLOCK4));
    (0..blocks).map(move |block| {
        let start = first + (block << 8);
        let [a, b, c, last] = start.to_be_bytes();
        let last = usize::from(last);
        ([a, b, c, 0], last..last + len)
    })
}

/// One entry for the meaning that most members have, and one for each host that differs.
fn block4(key: [u8; 4], members: &[Option<&Meaning>; 256], desired: &mut Desired) {
    let mut counts: BTreeMap<&Meaning, usize> = BTreeMap::new();
    for meaning in members.iter().flatten() {
        *counts.entry(meaning).or_default() += 1;
    }
    let Some((most, _)) = counts.iter().max_by_key(|(_, count)| **count) else {
        return;
    };
    let mut bits = [0_u32; 8];
    for (last, meaning) in (0..=u8::MAX).zip(members) {
        let Some(meaning) = meaning else { continue };
        bits[usize::from(last / 32)] |= 1 << (last % 32);
        if meaning != most {
            let address = Ipv4Addr::new(key[0], key[1], key[2], last);
            let host = Key::Host(address.to_ipv6_mapped().octets());
            desired.insert(host, plain(Some((*meaning).clone())));
        }
    }
    let entry = Entry {
        meaning: Some((*most).clone()),
        flags: if counts.len() > 1 { FLAG_HOSTS } else { 0 },
        members: bits,
    };
    desired.insert(Key::Block4(key), entry);
}

fn ipv6(meanings: &BTreeMap<IpNet, Meaning>, local: &[IpNet], desired: &mut Desired) {
    let nets: Vec<(Ipv6Net, &Meaning)> = meanings
        .iter()
        .filter_map(|(net, meaning)| match net {
            IpNet::V6(net) => Some((*net, meaning)),
            IpNet::V4(_) => None,
        })
        .collect();
    let local: Vec<Ipv6Net> = local
        .iter()
        .filter_map(|net| match net {
            IpNet::V6(net) => Some(*net),
            IpNet::V4(_) => None,
        })
        .collect();
    let whole = |net: &Ipv6Net| net.prefix_len() == BLOCK6;
    let single = |net: &Ipv6Net| net.prefix_len() == 128;
    let regular = |net: &Ipv6Net| whole(net) || single(net);
    // A block goes to the trie if anything but whole hosts is said inside it.
    let irregular: BTreeSet<Ipv6Net> = nets
        .iter()
        .map(|(net, _)| *net)
        .filter(|net| net.prefix_len() > BLOCK6 && !single(net))
        .chain(
            local
                .iter()
                .copied()
                .filter(|net| net.prefix_len() > BLOCK6),
        )
        .map(block6_of)
        .collect();
    let excluded = |net: &Ipv6Net| local.iter().any(|own| own.contains(net));
    for (net, meaning) in &nets {
        if excluded(net) {
            continue;
        }
        if !regular(net) || irregular.contains(&block6_of(*net)) {
            desired.insert(prefix6(*net), plain(Some((*meaning).clone())));
            continue;
        }
        let block = block6_of(*net);
        let base = meanings.get(&IpNet::V6(block));
        let entry = desired
            .entry(Key::Block6(block_key(block)))
            .or_insert_with(|| Entry {
                meaning: base.cloned().or_else(|| Some((*meaning).clone())),
                flags: if base.is_some() { FLAG_WHOLE } else { 0 },
                members: [0; 8],
            });
        if single(net) && base != Some(*meaning) {
            entry.flags |= FLAG_HOSTS;
            let host = Key::Host(net.network().octets());
            desired.insert(host, plain(Some((*meaning).clone())));
        }
    }
    for own in &local {
        let covered = nets.iter().any(|(net, _)| {
            net.contains(own)
                && !excluded(net)
                && (!regular(net) || irregular.contains(&block6_of(*net)))
        });
        if covered {
            desired.insert(prefix6(*own), plain(None));
        }
    }
}

fn block6_of(net: Ipv6Net) -> Ipv6Net {
    let len = net.prefix_len().min(BLOCK6);
    Ipv6Net::new(net.network(), len).map_or(net, |net| net.trunc())
}

fn block_key(block: Ipv6Net) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = block.network().octets();
    [a, b, c, d, e, f, g, h]
}

fn overlap(block: &Ipv4Net, net: &Ipv4Net) -> bool {
    let block = Ipv4Net::new(block.network(), BLOCK4).unwrap_or(*block);
    block.contains(net) || net.contains(&block)
}

fn prefix4(net: Ipv4Net) -> Key {
    let mapped: Ipv6Addr = net.network().to_ipv6_mapped();
    Key::Prefix(96 + net.prefix_len(), mapped.octets())
}

fn prefix6(net: Ipv6Net) -> Key {
    Key::Prefix(net.prefix_len(), net.network().octets())
}

fn plain(meaning: Option<Meaning>) -> Entry {
    Entry {
        meaning,
        flags: 0,
        members: [0; 8],
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
