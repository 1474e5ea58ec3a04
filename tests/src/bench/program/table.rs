//! The endpoint table of the measurements.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use wificall_common::abi::{
    Block4, Block6, EndpointRef, FLAG_HOSTS, FLAG_WHOLE, Policy, TIER_TRUSTED,
};

use crate::{scatter::scattered, vectors::Contents};

/// Groups and policies in use: the endpoints are spread over them.
pub const GROUPS: u32 = 200;
/// See [`GROUPS`].
pub const POLICIES: u32 = 20;
/// Prefixes that are there besides, of which none is anybody's that sends.
pub const OTHERS: u32 = 100;
/// Bits of a /24's number. The upper half are strangers.
const BITS4: u32 = 24;
/// Likewise of a /64 in 2001:db8::/32.
const BITS6: u32 = 32;
/// 2001:db8::.
const BLOCKS6: u64 = 0x2001_0db8_0000_0000;
/// The last part of every address.
const HOST: u32 = 7;

/// In which form the same endpoints stand in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A block each, of one member.
    Blocks,
    /// A block each, in which a second host is somebody else's: the members have gaps, and one of the two, by turns, is an
    /// exception among the hosts.
    Shared,
    /// A block each, and irregular prefixes of others besides.
    BesidePrefixes,
    /// An irregular prefix each, a /25 or a /65, and no block.
    Prefixes,
}

/// Endpoint `index`, in a block of its own.
pub fn address4(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(scattered(index, BITS4) << 8 | HOST)
}

/// An address in nobody's block.
pub fn stranger4(index: u32) -> Ipv4Addr {
    address4(index | 1 << (BITS4 - 1))
}

/// Endpoint `index` by IPv6.
pub fn address6(index: u32) -> Ipv6Addr {
    let block = u128::from(BLOCKS6 | u64::from(scattered(index, BITS6))) << 64;
    Ipv6Addr::from(block | u128::from(HOST))
}

/// What stands in the maps: as many endpoints of each family.
///
/// # Errors
///
/// If two of them have the same block.
pub fn contents(endpoints: u32, shape: Shape) -> Result<Contents> {
    let mut contents = Contents::default();
    for index in 0..endpoints {
        let entry = EndpointRef {
            group: 1 + index % GROUPS,
            policy: 1 + index % POLICIES,
            slot: index,
            reserved: 0,
        };
        match shape {
            Shape::Prefixes => prefixes(&mut contents, index, entry),
            Shape::Blocks | Shape::BesidePrefixes | Shape::Shared => {
                blocks(&mut contents, index, entry, shape == Shape::Shared);
            }
        }
    }
    if shape == Shape::BesidePrefixes {
        for index in 0..OTHERS {
            let entry = EndpointRef {
                group: 1,
                policy: 1,
                slot: 0,
                reserved: 0,
            };
            // Far past the endpoints.
            prefixes(&mut contents, (1 << (BITS4 - 1)) - 1 - index, entry);
        }
    }
    let (expected, found) = match shape {
        Shape::Prefixes => (2 * endpoints, contents.prefixes.len()),
        _ => (
            2 * endpoints,
            contents.blocks4.len() + contents.blocks6.len(),
        ),
    };
    ensure!(
        found == expected as usize,
        "{found} blocks instead of {expected}"
    );
    for index in 1..=POLICIES {
        let policy = Policy {
            mark: index,
            mask: 0xff,
            dscp: [[46; 4]; 2],
            voice: [1; 2],
            valid: 1,
            tier: TIER_TRUSTED,
            passes: 1,
            // For those whose clients are held to a cap: one that they stay within.
            interval: 1,
            ..Policy::default()
        };
        contents.policies.insert(index, policy);
    }
    Ok(contents)
}

fn blocks(contents: &mut Contents, index: u32, own: EndpointRef, shared: bool) {
    let (four, six) = (address4(index), address6(index));
    let [a, b, c, last] = four.octets();
    let mut members = [0; 8];
    members[usize::from(last / 32)] = 1 << (last % 32);
    let mut flags = 0;
    let mut block = own;
    if shared {
        let other = last + 2;
        members[usize::from(other / 32)] |= 1 << (other % 32);
        flags = FLAG_HOSTS;
        let theirs = EndpointRef {
            group: 1 + own.group % GROUPS,
            ..own
        };
        let mut exception = |distance: u128, entry: EndpointRef| {
            for address in [four.to_ipv6_mapped(), six] {
                let host = (u128::from(address) + distance).to_be_bytes();
                contents.hosts.insert(host, entry);
            }
        };
        if index.is_multiple_of(2) {
            exception(2, theirs);
        } else {
            exception(0, own);
            block = theirs;
        }
    }
    let EndpointRef {
        group,
        policy,
        slot,
        ..
    } = block;
    let block = Block4 {
        group,
        policy,
        slot,
        flags,
        members,
    };
    contents.blocks4.insert([a, b, c, 0], block);
    let block = Block6 {
        group,
        policy,
        slot,
        flags: flags | FLAG_WHOLE,
    };
    let [a, b, c, d, e, f, g, h, ..] = six.octets();
    contents.blocks6.insert([a, b, c, d, e, f, g, h], block);
}

fn prefixes(contents: &mut Contents, index: u32, entry: EndpointRef) {
    for (bits, address) in [
        (96 + 25, address4(index).to_ipv6_mapped()),
        (65, address6(index)),
    ] {
        let prefix = u128::from(address) >> (128 - bits) << (128 - bits);
        contents
            .prefixes
            .insert((bits, prefix.to_be_bytes()), entry);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wificall_common::abi::{CELLS_PER_LINE, line_of, line_shift, lines};

    use super::*;

    #[test]
    fn the_largest_table_has_all_its_blocks_and_no_stranger() {
        let contents = contents(100_000, Shape::Blocks).unwrap();
        assert_eq!(contents.blocks4.len(), 100_000);
        for index in 0..100_000 {
            let [a, b, c, _] = stranger4(index).octets();
            assert!(!contents.blocks4.contains_key(&[a, b, c, 0]), "{index}");
        }
    }

    /// At even distances they would all find room.
    #[test]
    fn some_lines_are_full() {
        let contents = contents(10_000, Shape::Blocks).unwrap();
        let shift = line_shift(lines(16_384));
        let spilled = |addresses: Vec<u64>| {
            let mut lines: BTreeMap<u32, usize> = BTreeMap::new();
            for address in addresses {
                *lines.entry(line_of(address, shift)).or_default() += 1;
            }
            let over = |blocks: &usize| blocks.saturating_sub(CELLS_PER_LINE);
            lines.values().map(over).sum::<usize>()
        };
        let four = contents.blocks4.keys();
        let six = contents.blocks6.keys();
        for spilled in [
            spilled(four.map(|key| u32::from_be_bytes(*key).into()).collect()),
            spilled(six.map(|key| u64::from_be_bytes(*key)).collect()),
        ] {
            assert!((40..160).contains(&spilled), "{spilled}");
        }
    }

    #[test]
    fn the_owners_of_a_block_differ() {
        let contents = contents(10, Shape::Shared).unwrap();
        assert_eq!((contents.blocks4.len(), contents.hosts.len()), (10, 20));
        for index in 0..10 {
            let [a, b, c, _] = address4(index).octets();
            let block = contents.blocks4[&[a, b, c, 0]];
            let own = contents
                .hosts
                .get(&address4(index).to_ipv6_mapped().octets());
            assert_eq!(block.group == 1 + index, index % 2 == 0);
            assert_eq!(
                own.map(|own| own.group),
                (index % 2 == 1).then_some(1 + index)
            );
        }
    }
}
