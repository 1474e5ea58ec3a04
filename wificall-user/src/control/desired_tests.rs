//! The compiled table against the rule it is to follow: whatever is looked up in it, by the kernel's own lookup, must
//! come out as the most specific thing that is known of the address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use wificall_common::{
    abi::{Block4, Block6, Cell, EndpointRef, Members},
    endpoint::{Endpoint, Table, lookup4, lookup6},
    wire::nat64::Pref64,
};

use super::*;
use crate::{
    config::{self, Limits},
    control::plan::{Actual, plan},
    kernel::Entry as Row,
};

/// The maps, as the kernel would have them.
#[derive(Default)]
struct Maps {
    blocks4: BTreeMap<[u8; 4], Block4>,
    blocks6: BTreeMap<[u8; 8], Block6>,
    hosts: BTreeMap<[u8; 16], EndpointRef>,
    prefixes: Vec<(u8, [u8; 16], EndpointRef)>,
}

impl Table for Maps {
    fn block4(&self, key: u32) -> Cell {
        let block = self.blocks4.get(&key.to_be_bytes());
        block.map_or(Cell::NONE, |block| Cell::of4(key, block))
    }
    fn members(&self, key: u32) -> Option<&Members> {
        Some(&self.blocks4.get(&key.to_be_bytes())?.members)
    }
    fn block6(&self, key: u64) -> Cell {
        let block = self.blocks6.get(&key.to_be_bytes());
        block.map_or(Cell::NONE, |block| Cell::of6(key, block))
    }
    fn host(&self, address: u128) -> Option<&EndpointRef> {
        self.hosts.get(&address.to_be_bytes())
    }
    fn prefix(&self, address: u128) -> Option<&EndpointRef> {
        self.prefixes
            .iter()
            .filter(|(len, net, _)| {
                let shift = 128 - u32::from(*len);
                let net = u128::from_be_bytes(*net);
                address.checked_shr(shift).unwrap_or(0) == net.checked_shr(shift).unwrap_or(0)
            })
            .max_by_key(|(len, _, _)| *len)
            .map(|(_, _, value)| value)
    }
    fn pref64(&self, _index: usize) -> Option<Pref64> {
        None
    }
}

fn config(widen: &str) -> Config {
    let source = format!(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"262-01\"]\nwiden = \"{widen}\"\n\
         [[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"0x65/0xff\"\n"
    );
    config::parse(&source, "test.toml".as_ref()).unwrap().config
}

fn owners(list: &[&str]) -> BTreeSet<Owner> {
    list.iter()
        .map(|plmn| Owner::of(crate::catalogue::catalogue(), plmn.parse().unwrap()))
        .collect()
}

fn limits() -> Limits {
    config("block").limits
}

/// The kernel's tables for what is desired, and the labels of their groups.
fn compiled(desired: &Wanted) -> (Maps, BTreeMap<u32, Label>) {
    let plan = plan(
        desired,
        &Actual {
            policies: vec![Default::default(); 256],
            ..Actual::default()
        },
        &limits(),
    );
    let labels = plan.labels.iter().cloned().collect();
    let mut maps = Maps::default();
    for (key, entry) in &plan.set {
        let Row {
            group,
            policy,
            slot,
            flags,
            members,
        } = *entry;
        let endpoint = EndpointRef {
            group,
            policy,
            slot,
            reserved: 0,
        };
        match *key {
            Key::Companion(_) => unreachable!("none is configured"),
            Key::Host(address) => drop(maps.hosts.insert(address, endpoint)),
            Key::Prefix(len, address) => maps.prefixes.push((len, address, endpoint)),
            Key::Block4(key) => {
                maps.blocks4.insert(
                    key,
                    Block4 {
                        group,
                        policy,
                        slot,
                        flags,
                        members,
                    },
                );
            }
            Key::Block6(key) => {
                maps.blocks6.insert(
                    key,
                    Block6 {
                        group,
                        policy,
                        slot,
                        flags,
                    },
                );
            }
        }
    }
    (maps, labels)
}

fn look(maps: &Maps, address: IpAddr) -> Option<Endpoint> {
    match address {
        IpAddr::V4(address) => lookup4(maps, address.to_bits()),
        IpAddr::V6(address) => lookup6(maps, address.to_bits()),
    }
}

/// Every address at and around the borders of everything that is known or local.
fn interesting(known: &Known, local: &[IpNet]) -> BTreeSet<IpAddr> {
    let step = |address: IpAddr, by: i8| -> IpAddr {
        match address {
            IpAddr::V4(address) => IpAddr::from(
                u32::from(address)
                    .wrapping_add_signed(by.into())
                    .to_be_bytes(),
            ),
            IpAddr::V6(address) => IpAddr::from(
                u128::from(address)
                    .wrapping_add_signed(by.into())
                    .to_be_bytes(),
            ),
        }
    };
    known
        .keys()
        .chain(local)
        .flat_map(|net| [net.network(), net.broadcast()])
        .flat_map(|address| (-2..=2).map(move |by| step(address, by)))
        .collect()
}

fn check(config: &Config, known: &Known, local: &[IpNet]) {
    let desired = desired(config, Around::default(), known, local);
    let (maps, labels) = compiled(&desired);
    for address in interesting(known, local) {
        let expected = if local.iter().any(|net| net.contains(&address)) {
            None
        } else {
            known
                .iter()
                .filter(|(net, _)| net.contains(&address))
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|(_, claim)| Label::of(&claim.owners))
        };
        let found = look(&maps, address).map(|endpoint| labels[&endpoint.group].clone());
        assert_eq!(
            found, expected,
            "{address}\nknown {known:#?}\nlocal {local:?}"
        );
    }
}

fn net(net: &str) -> IpNet {
    net.parse().unwrap()
}

#[test]
fn hosts_widened_and_exact() {
    let hosts = [
        ("109.237.187.195", owners(&["262-01"])),
        ("109.237.187.200", owners(&["262-01"])),
        ("203.0.114.7", owners(&["505-01", "505-71"])),
        ("203.0.114.8", owners(&["505-01"])),
        ("2a00:20:1:2::7", owners(&["262-01"])),
        ("2a00:20:1:2::8", owners(&["262-02"])),
    ];
    for widen in ["block", "exact"] {
        let config = config(widen);
        let hosts = hosts
            .iter()
            .map(|(address, owners)| (address.parse().unwrap(), owners.clone()));
        let known = known(&config, hosts, []);
        check(&config, &known, &[]);
        let desired = desired(&config, Around::default(), &known, &[]);
        assert!(
            !desired
                .entries
                .keys()
                .any(|key| matches!(key, Key::Prefix(..))),
            "hosts need no trie"
        );
    }
}

#[test]
fn one_owner_to_a_block_is_one_entry() {
    let config = config("block");
    let hosts = (1..200).map(|last| (IpAddr::from([109, 237, 187, last]), owners(&["262-01"])));
    let desired = desired(&config, Around::default(), &known(&config, hosts, []), &[]);
    assert_eq!(desired.entries.len(), 1);
}

#[test]
fn local_networks_inside_everything() {
    let config = config("block");
    let prefixes = [
        ("198.18.0.0/15", owners(&["262-01"])),
        ("100.0.0.0/8", owners(&["262-02"])),
        ("100.64.0.0/24", owners(&["505-01"])),
        ("2a00::/32", owners(&["262-01"])),
        ("2a00:0:1:2::/64", owners(&["262-02"])),
        ("2a00:0:1:3::/96", owners(&["505-01"])),
    ]
    .map(|(prefix, owners)| (net(prefix), owners));
    let hosts = [
        ("100.64.0.9", owners(&["262-01"])),
        ("2a00:0:1:2::9", owners(&["262-01"])),
        ("2a00:0:1:3::9", owners(&["262-01"])),
    ]
    .map(|(address, owners)| (address.parse().unwrap(), owners));
    let known = known(&config, hosts, prefixes);
    let local = [
        "198.18.1.1/32",
        "198.18.1.128/25",
        "100.64.0.9/32",
        "100.1.0.0/16",
        "2a00:0:1:2::1/128",
        "2a00:0:1:4::/64",
        "2a00:0:1:5::5/128",
    ]
    .map(net);
    check(&config, &known, &[]);
    check(&config, &known, &local);
}

/// Many small worlds, told apart by a fixed sequence.
#[test]
fn any_world_compiles_to_its_rule() {
    let mut state = 0x9e37_79b9_u32;
    let mut next = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    };
    let operators = ["262-01", "262-02", "505-01", "310-004"];
    for round in 0..300 {
        let config = config(if next(2) == 0 { "block" } else { "exact" });
        let owner = |n: u32| owners(&[operators[n as usize % operators.len()]]);
        let v4 = |a: u32, b: u32| IpAddr::from([100, 64, a as u8, b as u8]);
        let v6 = |a: u32, b: u32| IpAddr::from([0x2a00, 0, 0, a as u16, 0, 0, 0, b as u16]);
        let hosts: Vec<_> = (0..next(8))
            .map(|_| {
                let (a, b) = (next(3), next(256));
                let address = if next(2) == 0 { v4(a, b) } else { v6(a, b) };
                (address, owner(next(4)))
            })
            .collect();
        let mut nets = |count: u32| -> Vec<IpNet> {
            (0..count)
                .map(|_| {
                    let (a, b) = (next(3), next(256));
                    if next(2) == 0 {
                        IpNet::new(v4(a, b), 14 + next(19) as u8).unwrap().trunc()
                    } else {
                        IpNet::new(v6(a, b), 56 + next(73) as u8).unwrap().trunc()
                    }
                })
                .collect()
        };
        let prefixes = nets(round % 6);
        let local = nets(round % 4);
        let prefixes = prefixes
            .into_iter()
            .map(|net| (net, owner(u32::from(net.prefix_len()))));
        check(&config, &known(&config, hosts, prefixes), &local);
    }
}

#[test]
fn what_is_trusted_less_changes_nothing_that_is_trusted_more() {
    let config = config("block");
    let said = |tier, list: &[&str]| Claim {
        tier,
        ..Claim::from(owners(list))
    };
    use Tier::{Authoritative, Corroborated, Observed};
    let hosts = [
        ("109.237.187.195", said(Authoritative, &["262-01"])),
        // The same address, and others of its block.
        ("109.237.187.195", said(Corroborated, &["505-01"])),
        ("109.237.187.195", said(Observed, &["505-01"])),
        ("109.237.187.7", said(Observed, &["505-01"])),
        ("109.237.187.8", said(Corroborated, &["505-01"])),
        // A network of its own each.
        ("203.0.114.7", said(Corroborated, &["505-01"])),
        ("203.0.115.7", said(Observed, &["505-01"])),
        ("203.0.115.8", said(Observed, &[])),
        ("2a00:20:1:2::7", said(Observed, &["505-01"])),
    ];
    let hosts = hosts.map(|(address, said)| (address.parse().unwrap(), said));
    let desired = desired(&config, Around::default(), &known(&config, hosts, []), &[]);
    let (maps, labels) = compiled(&desired);
    let found = |address: &str| {
        let endpoint = look(&maps, address.parse().unwrap())?;
        let label = &labels[&endpoint.group];
        Some(format!("{} {}", label.operator, label.country))
    };
    let found = |address| found(address).unwrap_or_default();
    assert_eq!(found("109.237.187.195"), "262-01 DE");
    assert_eq!(
        found("109.237.187.7"),
        "262-01 DE",
        "observed: the block stands"
    );
    assert_eq!(
        found("109.237.187.8"),
        "505-01 AU",
        "confirmed: more specific"
    );
    assert_eq!(found("203.0.114.200"), "505-01 AU", "confirmed: widened");
    assert_eq!(found("203.0.115.7"), "observed AU");
    assert_eq!(found("203.0.115.8"), "observed none");
    assert_eq!(found("203.0.115.9"), "", "observed: not widened");
    assert_eq!(found("2a00:20:1:2::7"), "observed AU");
    assert_eq!(found("2a00:20:1:2::8"), "", "observed: not widened");
    // Marks follow: of the policy for AU all but the observed have it.
    let marked = |entry: &Entry| entry.meaning.as_ref().is_some_and(|m| m.row.mask != 0);
    let marked: Vec<_> = desired
        .entries
        .iter()
        .filter(|(_, e)| marked(e))
        .map(|(k, _)| *k)
        .collect();
    let host = "109.237.187.8"
        .parse::<Ipv4Addr>()
        .unwrap()
        .to_ipv6_mapped();
    assert_eq!(
        marked,
        [Key::Host(host.octets()), Key::Block4([203, 0, 114, 0])]
    );
}

#[test]
fn policies_follow_the_owners() {
    let config = config("block");
    let hosts = [
        ("203.0.114.7", owners(&["505-01"])),
        ("109.237.187.195", owners(&["262-01"])),
    ]
    .map(|(address, owners)| (address.parse().unwrap(), owners));
    let desired = desired(&config, Around::default(), &known(&config, hosts, []), &[]);
    let marks: Vec<(u32, u32)> = desired
        .entries
        .values()
        .map(|entry| {
            let row = entry.meaning.as_ref().unwrap().row;
            (row.mark, row.mask)
        })
        .collect();
    assert_eq!(marks, [(0, 0), (0x65, 0xff)]);
}

/// A DNS64 may have a prefix that nobody told us of. Answers rotate, so another address of the block says so too.
#[test]
fn what_contains_a_known_ipv4_address_is_not_widened() {
    let config = config::parse(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"001-01\"]\nnat64_prefix = \"none\"\n",
        "test.toml".as_ref(),
    )
    .unwrap()
    .config;
    let owners = BTreeSet::from([Owner::UNKNOWN]);
    let widened = |addresses: &[&str]| -> Vec<String> {
        let hosts = addresses
            .iter()
            .map(|a| (a.parse().unwrap(), owners.clone()));
        let known = known(&config, hosts, []);
        let nets = known
            .keys()
            .filter(|net| net.prefix_len() < net.max_prefix_len());
        nets.map(ToString::to_string).collect()
    };
    let ipv4 = "8.0.114.9";
    for translated in [
        "2a00:1:2::8.0.114.9",
        "2a00:1:2::8.0.114.77",
        "2a00:1:2:0:8:72:900::",
        "2a00:1:800:7209::",
    ] {
        assert_eq!(
            widened(&[ipv4, translated]),
            ["8.0.114.0/24"],
            "{translated}"
        );
        assert_eq!(widened(&[translated]).len(), 1, "nothing says so");
    }
    let native = ["8.0.114.0/24", "2a00:1:2::/64"];
    for address in ["2a00:1:2::1", "2a00:1:2::8.0.115.9"] {
        assert_eq!(widened(&[ipv4, address]), native, "{address}");
    }
}

#[test]
fn what_was_found_in_the_kernel_outlives_its_policies_without_what_they_decided() {
    let source = "[interfaces]\naccess = [\"lan\"]\n[[exit]]\nname = \"de\"\ngateways = [\"10.1.0.2\"]\ntable = 1065\n\
                  mark = \"0x65/0xff\"\n[[policy]]\nname = \"one\"\nclients = [\"10.1.2.3\"]\nexit = \"de\"\n\
                  [[policy]]\nname = \"all\"\ncountries = [\"DE\"]\nexit = \"de\"\n[discovery]\noperators = [\"262-01\"]\n";
    let config = config::parse(source, "f".as_ref()).unwrap().config;
    let owners = BTreeSet::from([Owner::of(&config.catalogue, "262-01".parse().unwrap())]);
    let known = known(&config, [("8.0.114.9".parse().unwrap(), owners)], []);
    let mut recovered = desired(&config, Around::default(), &known, &[]).entries;
    let before = recovered.clone();
    let meanings = |entries: &Desired| -> Vec<Meaning> {
        entries.values().filter_map(|e| e.meaning.clone()).collect()
    };
    let all = meanings(&before);
    assert!(
        all.iter()
            .all(|it| it.row.exit == 1065 && !it.choices.is_empty())
    );
    forget_policies(&mut recovered);
    assert_eq!(recovered.len(), before.len());
    for (now, before) in meanings(&recovered).iter().zip(all) {
        assert_eq!((now.row.mark, now.row.mask, now.row.exit), (0, 0, 0));
        assert!(now.choices.is_empty() && now.row.epoch == 0);
        assert_eq!((now.row.dscp, &now.label), (before.row.dscp, &before.label));
    }
}
