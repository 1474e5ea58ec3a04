//! The endpoint table of the measurements.

use std::net::{Ipv4Addr, Ipv6Addr};

use wificall_common::abi::{Block4, Block6, FLAG_WHOLE, Policy};

use crate::vectors::Contents;

/// Groups and policies in use: the endpoints are spread over them.
pub const GROUPS: u32 = 200;
/// See [`GROUPS`].
pub const POLICIES: u32 = 20;
/// 101.0.0.0.
const BLOCKS4: u32 = u32::from_be_bytes([101, 0, 0, 0]);
/// 2001:db8::.
const BLOCKS6: u64 = 0x2001_0db8_0000_0000;
/// The last part of every address.
const HOST: u32 = 7;

/// Endpoint `index`: a block of its own each, the most lookups there can be.
pub fn address4(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(BLOCKS4 | index << 8 | HOST)
}

/// Likewise.
pub fn address6(index: u32) -> Ipv6Addr {
    let block = u128::from(BLOCKS6 | u64::from(index)) << 64;
    Ipv6Addr::from(block | u128::from(HOST))
}

/// What stands in the maps: as many endpoints of each family.
pub fn contents(endpoints: u32) -> Contents {
    let mut contents = Contents::default();
    for index in 0..endpoints {
        let (group, policy, slot) = (1 + index % GROUPS, 1 + index % POLICIES, index);
        let [a, b, c, last] = address4(index).octets();
        let mut members = [0; 8];
        members[usize::from(last / 32)] = 1 << (last % 32);
        let block = Block4 {
            group,
            policy,
            slot,
            flags: 0,
            members,
        };
        contents.blocks4.insert([a, b, c, 0], block);
        let block = Block6 {
            group,
            policy,
            slot,
            flags: FLAG_WHOLE,
        };
        let [a, b, c, d, e, f, g, h, ..] = address6(index).octets();
        contents.blocks6.insert([a, b, c, d, e, f, g, h], block);
    }
    for index in 1..=POLICIES {
        let policy = Policy {
            mark: index,
            mask: 0xff,
            dscp: [[46; 4]; 2],
            voice: [1; 2],
            valid: 1,
            tier: 0,
            interval: 0,
        };
        contents.policies.insert(index, policy);
    }
    contents
}
