//! The endpoint table as the classifier reads it, on the host: what is in the kernel's maps, without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use wificall_common::{
    Class,
    abi::{Block4, Block6, Cell, EndpointRef, FragmentKey, Members},
    classify,
    endpoint::Table,
    wire::nat64::Pref64,
};

use super::desired::{Desired, Entry};
use crate::kernel::Key;

/// All that is an endpoint is of this group: whose it is does not matter here.
const GROUP: u32 = 1;

/// The table. An endpoint's slot is the place of its key.
#[derive(Default)]
pub(crate) struct Tables {
    keys: Vec<Key>,
    blocks4: BTreeMap<u32, (Cell, Members)>,
    blocks6: BTreeMap<u64, Cell>,
    hosts: BTreeMap<u128, EndpointRef>,
    prefixes: BTreeMap<(u8, u128), EndpointRef>,
    /// Lengths of prefixes.
    lengths: BTreeSet<u8>,
    /// Prefixes of NAT64.
    pub pref64: Vec<Pref64>,
    /// Whether DNS messages are told apart.
    pub snoops_names: bool,
    /// Whether IKE with unknown addresses is told apart.
    pub snoops_ike: bool,
    /// The one fragmented datagram of which the first fragment is known.
    pub(crate) first: Option<(FragmentKey, Class)>,
}

impl Tables {
    /// The table that these entries make.
    pub(super) fn new(desired: &Desired) -> Self {
        let mut tables = Self::default();
        for (key, entry) in desired {
            tables.insert(*key, entry);
        }
        tables
    }

    /// The table in which these networks are endpoints, each with its place among them as its slot.
    pub(crate) fn of_networks(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut tables = Self::default();
        for (slot, net) in networks.into_iter().enumerate() {
            let (address, len) = match net.network() {
                IpAddr::V4(address) => (address.to_ipv6_mapped(), 96 + net.prefix_len()),
                IpAddr::V6(address) => (address, net.prefix_len()),
            };
            tables.keys.push(Key::Prefix(len, address.octets()));
            tables.lengths.insert(len);
            let endpoint = EndpointRef {
                group: GROUP,
                slot: slot as u32,
                ..EndpointRef::default()
            };
            tables.prefixes.insert((len, address.to_bits()), endpoint);
        }
        tables
    }

    /// The key of what was found under a slot.
    pub(super) fn key(&self, slot: u32) -> Option<Key> {
        self.keys.get(slot as usize).copied()
    }

    fn insert(&mut self, key: Key, entry: &Entry) {
        let group = if entry.meaning.is_some() { GROUP } else { 0 };
        let slot = self.keys.len() as u32;
        let endpoint = EndpointRef {
            group,
            slot,
            ..EndpointRef::default()
        };
        self.keys.push(key);
        match key {
            // No endpoint.
            Key::Companion(_) => {}
            Key::Host(address) => {
                self.hosts.insert(u128::from_be_bytes(address), endpoint);
            }
            Key::Prefix(len, address) => {
                self.lengths.insert(len);
                let address = u128::from_be_bytes(address);
                self.prefixes.insert((len, address), endpoint);
            }
            Key::Block4(block) => {
                let block = u32::from_be_bytes(block);
                let value = Block4 {
                    group,
                    policy: 0,
                    slot,
                    flags: entry.flags,
                    members: entry.members,
                };
                let cell = Cell::of4(block, &value);
                self.blocks4.insert(block, (cell, entry.members));
            }
            Key::Block6(block) => {
                let block = u64::from_be_bytes(block);
                let value = Block6 {
                    group,
                    policy: 0,
                    slot,
                    flags: entry.flags,
                };
                self.blocks6.insert(block, Cell::of6(block, &value));
            }
        }
    }
}

impl Table for Tables {
    fn block4(&self, key: u32) -> Cell {
        self.blocks4.get(&key).map_or(Cell::NONE, |(cell, _)| *cell)
    }

    fn members(&self, key: u32) -> Option<&Members> {
        self.blocks4.get(&key).map(|(_, members)| members)
    }

    fn block6(&self, key: u64) -> Cell {
        self.blocks6.get(&key).copied().unwrap_or(Cell::NONE)
    }

    fn host(&self, address: u128) -> Option<&EndpointRef> {
        self.hosts.get(&address)
    }

    fn prefix(&self, address: u128) -> Option<&EndpointRef> {
        self.lengths.iter().rev().find_map(|len| {
            let hidden = 128 - u32::from(*len);
            let network = address & u128::MAX.checked_shl(hidden).unwrap_or(0);
            self.prefixes.get(&(*len, network))
        })
    }

    fn pref64(&self, index: usize) -> Option<Pref64> {
        self.pref64.get(index).copied()
    }
}

impl classify::Tables for Tables {
    fn first_fragment(&self, key: &FragmentKey) -> Option<Class> {
        let (known, class) = self.first?;
        (known == *key).then_some(class)
    }

    fn snoops_names(&self) -> bool {
        self.snoops_names
    }

    fn snoops_ike(&self) -> bool {
        self.snoops_ike
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use wificall_common::endpoint::{lookup4, lookup6};

    use super::*;
    use crate::{
        config,
        control::{
            compile::Around,
            desired::{Claim, Known, desired},
        },
    };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// Each address is found, or not, as what is most specific says.
    #[test]
    fn every_kind_of_entry_is_found() {
        let source = "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"262-01\"]\n";
        let config = config::parse(source, "test.toml".as_ref()).unwrap().config;
        let known: Known = [
            "192.0.2.0/28",
            "192.0.2.200/32",
            "198.18.0.0/15",
            "2001:db8:1::/64",
            "2001:db8:2::7/128",
            "2001:db8:3::/48",
        ]
        .map(|text| (net(text), Claim::from(BTreeSet::new())))
        .into();
        let local = [net("198.18.7.0/24")];
        let tables = Tables::new(&desired(&config, Around::default(), &known, &local).entries);
        let found = |address: &str| -> Option<Key> {
            let endpoint = match address.parse().unwrap() {
                IpAddr::V4(address) => lookup4(&tables, Ipv4Addr::to_bits(address)),
                IpAddr::V6(address) => lookup6(&tables, Ipv6Addr::to_bits(address)),
            };
            tables.key(endpoint?.slot)
        };
        let block = Key::Block4([192, 0, 2, 0]);
        assert_eq!(found("192.0.2.15"), Some(block));
        assert_eq!(found("192.0.2.16"), None);
        assert_eq!(found("192.0.2.200"), Some(block));
        assert!(matches!(found("198.19.255.1"), Some(Key::Prefix(111, _))));
        assert_eq!(found("198.18.7.1"), None, "an exception inside");
        assert!(matches!(found("2001:db8:1::9"), Some(Key::Block6(_))));
        assert_eq!(found("2001:db8:2::8"), None);
        assert!(found("2001:db8:2::7").is_some());
        assert!(matches!(found("2001:db8:3:9::1"), Some(Key::Prefix(48, _))));
    }
}
