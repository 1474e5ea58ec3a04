//! What is compiled against the rule it is to follow: of the policies whose conditions all hold, the first.

use std::net::IpAddr;

use wificall_common::{
    abi::{Choice, ChoiceKey},
    client::{Client as Who, choose},
};

use super::*;
use crate::{
    config,
    control::policy_match::{Origin, Subject},
    net::Kind,
};

/// The maps, as the kernel would have them; an endpoint's choices are set 1, and the rows lie one behind the other.
struct Maps<'a> {
    clients: &'a Clients,
    choices: &'a Choices,
}

impl wificall_common::client::Clients for Maps<'_> {
    fn network(&self, epoch: u32, address: u128) -> u32 {
        assert_eq!(epoch, self.clients.epoch);
        let address = IpAddr::from(address.to_be_bytes()).to_canonical();
        let around = self.clients.networks.iter();
        let around = around.filter(|(net, _)| net.contains(&address));
        around
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(0, |(_, class)| *class)
    }
    fn station(&self, epoch: u32, mac: u64) -> u32 {
        assert_eq!(epoch, self.clients.epoch);
        let [_, _, mac @ ..] = mac.to_be_bytes();
        self.clients.stations.get(&mac).copied().unwrap_or(0)
    }
    fn interface(&self, epoch: u32, ifindex: u32) -> u32 {
        assert_eq!(epoch, self.clients.epoch);
        self.clients.interfaces.get(&ifindex).copied().unwrap_or(0)
    }
    fn choice(&self, key: &ChoiceKey) -> Option<Choice> {
        let mut all = (0..).zip(self.choices.iter());
        all.find(|(_, (class, ..))| (class.interface, class.client) == (key.interface, key.client))
            .map(|(policy, (_, order, _))| Choice {
                order: *order,
                policy,
            })
    }
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: Kind::Ethernet,
        wireless: false,
        master: None,
        parent: None,
        up: true,
        info_kind: None,
        address: None,
        mtu: 1500,
        running: true,
    }
}

fn parse(policies: &str) -> Config {
    let source = format!(
        "[interfaces]\naccess = [\"lan*\"]\n[discovery]\noperators = [\"262-01\"]\n[lab]\n{policies}"
    );
    config::parse(&source, "test.toml".as_ref()).unwrap().config
}

/// A policy without conditions, of which the tests make others.
fn plain(config: &Config, order: u32) -> Policy {
    let mut policy = config.policies[0].clone();
    policy.name = format!("p{order}");
    policy.operators.clear();
    policy.countries.clear();
    policy.treatment.mark = Some(config::Mark {
        value: order,
        mask: 0xffff,
    });
    policy
}

fn row_of(maps: &Maps, row: &Row, client: &Who) -> Row {
    let set = Row { set: 1, ..*row };
    if maps.choices.is_empty() {
        return *row;
    }
    match choose(maps, &set, client) {
        Some(choice) => maps.choices.iter().nth(choice.policy as usize).unwrap().2,
        None => *row,
    }
}

/// Many lists of policies, told apart by a fixed sequence: every client at every interface gets the first that matches.
#[test]
fn every_client_gets_the_first_policy_that_matches() {
    let mut state = 0x2545_f491_u32;
    let mut next = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    };
    let base = parse("[[policy]]\nname = \"base\"\noperators = [\"262-01\"]\n");
    let links = [link(3, "lan0"), link(4, "lan1"), link(9, "wan0")];
    let macs: Vec<[u8; 6]> = (1..4).map(|n| [2, 0, 0, 0, 0, n]).collect();
    let nets = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.128/25",
        "10.0.0.7/32",
        "fd00::/8",
        "fd00::/64",
        "fd00::1/128",
    ];
    let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
    let prefixes: [IpNet; 2] = [
        "192.0.2.0/25".parse().unwrap(),
        "2001:db8::/64".parse().unwrap(),
    ];
    let mut by_client = 0;
    for _ in 0..400 {
        let mut config = base.clone();
        config.policies = (1..=next(7))
            .map(|order| {
                let mut policy = plain(&base, order);
                if next(3) == 0 {
                    policy.operators = vec!["262-01".parse().unwrap()];
                }
                if next(4) == 0 {
                    policy.prefixes = vec![prefixes[next(2) as usize]];
                }
                if next(4) == 0 {
                    policy.tiers = vec![Tier::Authoritative];
                }
                if next(4) == 0 {
                    policy.emergency = Some(next(2) == 0);
                }
                for _ in 0..next(4) {
                    policy.clients.push(if next(3) == 0 {
                        Client::Mac(macs[next(3) as usize])
                    } else {
                        Client::Network(nets[next(8) as usize])
                    });
                }
                if next(3) == 0 {
                    let names = ["lan0", "lan1", "lan*"];
                    let glob = config::Glob::new(names[next(3) as usize]);
                    policy.interfaces = vec![glob.unwrap()];
                }
                policy
            })
            .collect();
        let own = [Client::Network(nets[4]), Client::Mac(macs[2])];
        let around = Around {
            links: &links,
            own: &own,
            ..Around::default()
        };
        let mut compiler = Compiler::new(&config, around);
        for (operator, net, tier, emergency) in [
            ("262-01", "192.0.2.0/26", Tier::Authoritative, false),
            ("262-02", "192.0.2.200/32", Tier::Corroborated, true),
            ("505-01", "2001:db8::7/128", Tier::Authoritative, true),
        ] {
            let owners = BTreeSet::from([Owner::of(&config.catalogue, operator.parse().unwrap())]);
            let endpoint = Endpoint {
                owners: &owners,
                names: &BTreeSet::new(),
                emergency,
                net: net.parse().unwrap(),
                tier,
            };
            // The same compiler would hold what it has seen: one more, that borrows less.
            let (row, choices) = Compiler::new(&config, around).rows(&endpoint);
            let maps = Maps {
                clients: &compiler.clients,
                choices: &choices,
            };
            by_client += choices.iter().len();
            for address in [
                "10.0.0.7",
                "10.0.0.200",
                "10.9.0.1",
                "172.16.0.1",
                "fd00::1",
                "fd01::1",
            ] {
                for mac in macs.iter().copied().map(Some).chain([None]) {
                    for link in &links {
                        let address: IpAddr = address.parse().unwrap();
                        let subject = Subject {
                            endpoint,
                            origin: Origin {
                                address: Some(address),
                                mac,
                                interface: Some(&link.name),
                            },
                        };
                        let mut policies = config.policies.iter();
                        let first = policies.find(|policy| policy.mismatch(&subject).is_none());
                        let expected =
                            first.map_or(0, |policy| policy.treatment.mark.unwrap().value);
                        let who = Who {
                            address: match address {
                                IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
                                IpAddr::V6(v6) => u128::from(v6),
                            },
                            mac: mac.map(|[a, b, c, d, e, f]| {
                                u64::from_be_bytes([0, 0, a, b, c, d, e, f])
                            }),
                            ifindex: link.index,
                        };
                        assert_eq!(
                            row_of(&maps, &row, &who).mark,
                            expected,
                            "{subject:?} of {:#?}",
                            config.policies
                        );
                    }
                }
            }
        }
        compiler.choices.clear();
    }
    assert!(
        by_client > 1000,
        "{by_client}: policies by client were tried"
    );
}

fn mark(config: &Config, around: Around<'_>, emergency: bool, who: Option<Who>) -> Row {
    let owners = BTreeSet::from([Owner::of(&config.catalogue, "262-01".parse().unwrap())]);
    let names = BTreeSet::new();
    let endpoint = Endpoint {
        owners: &owners,
        names: &names,
        emergency,
        net: "192.0.2.0/24".parse().unwrap(),
        tier: Tier::Authoritative,
    };
    let mut compiler = Compiler::new(config, around);
    let (row, choices) = compiler.rows(&endpoint);
    let maps = Maps {
        clients: &compiler.clients,
        choices: &choices,
    };
    who.map_or(row, |who| row_of(&maps, &row, &who))
}

fn with_exit() -> Config {
    let mut config =
        parse("[[policy]]\nname = \"de\"\noperators = [\"262-01\"]\nmark = \"0x65/0xff\"\n");
    config.policies[0].exit = Some("de".to_owned());
    config.exits = vec![crate::steer::Exit {
        name: "de".to_owned(),
        gateways: Vec::new(),
        device: Some("wg0".to_owned()),
        table: 100,
        priority: 100,
        mark: config.policies[0].treatment.mark.unwrap(),
        when_down: crate::steer::WhenDown::Block,
        when_none: crate::steer::WhenNone::Block,
        health: crate::steer::Health::None,
        interval: std::time::Duration::from_secs(1),
        down_after: 3,
        up_after: 3,
        probe: None,
        manage_sysctls: false,
    }];
    config
}

#[test]
fn an_exit_that_blocks_takes_no_emergency_call() {
    let config = with_exit();
    let blocked = BTreeSet::from([(100, Family::V4)]);
    let around = Around {
        blocked: Some(&blocked),
        ..Around::default()
    };
    let (row, sos) = (
        mark(&config, around, false, None),
        mark(&config, around, true, None),
    );
    assert_eq!((row.exit, row.mark), (100, 0x65));
    assert_eq!((sos.exit, sos.mark, sos.mask), (0, 0, 0));
    let open = mark(&config, Around::default(), true, None);
    assert_eq!((open.exit, open.mark), (100, 0x65));
}

#[test]
fn each_family_of_an_emergency_call_is_asked_whether_it_is_blocked() {
    let config = with_exit();
    let blocked = BTreeSet::from([(100, Family::V6)]);
    let owners = BTreeSet::from([Owner::of(&config.catalogue, "262-01".parse().unwrap())]);
    let names = BTreeSet::new();
    let marks = |nat64| {
        let around = Around {
            blocked: Some(&blocked),
            nat64,
            ..Around::default()
        };
        let mut compiler = Compiler::new(&config, around);
        // By one compiler, which remembers.
        ["192.0.2.1/32", "2001:db8::1/128"].map(|net| {
            let endpoint = Endpoint {
                owners: &owners,
                names: &names,
                emergency: true,
                net: net.parse().unwrap(),
                tier: Tier::Authoritative,
            };
            compiler.rows(&endpoint).0.mark
        })
    };
    assert_eq!(marks(false), [0x65, 0]);
    assert_eq!(marks(true), [0, 0], "IPv4 goes by IPv6 behind a NAT64");
}

#[test]
fn an_emergency_call_is_neither_dropped_nor_capped() {
    let mut config =
        parse("[[policy]]\nname = \"no\"\noperators = [\"262-01\"]\n[defaults]\ncap = 100\n");
    config.policies[0].action = config::Action::Drop;
    let row = |emergency| mark(&config, Around::default(), emergency, None);
    assert_eq!(row(false).drop, 1);
    assert_eq!((row(true).drop, row(true).interval), (0, 0));
}

#[test]
fn gateways_on_access_links_are_left_alone() {
    let config = with_exit();
    let own = [Client::Network("10.0.0.2/32".parse().unwrap())];
    let around = Around {
        own: &own,
        ..Around::default()
    };
    let who = |address: &str| {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        Some(Who {
            address: u128::from(address.to_ipv6_mapped()),
            mac: None,
            ifindex: 1,
        })
    };
    assert_eq!(
        mark(&config, around, false, who("10.0.0.2")),
        Row {
            epoch: 0,
            ..gateway_row(Tier::Authoritative)
        }
    );
    assert_eq!(mark(&config, around, false, who("10.0.0.3")).mark, 0x65);
    // Where nothing is steered there is nothing to be left alone.
    let mut plain = with_exit();
    plain.policies[0].exit = None;
    assert_eq!(mark(&plain, around, false, who("10.0.0.2")).mark, 0x65);
}

/// Thousands of addresses have one set of companion names: they take room for their choices once.
#[test]
fn equal_choices_are_given_out_as_one() {
    let config = parse(
        "[[policy]]\nname = \"p\"\nclients = [\"10.0.0.0/8\"]\nmark = \"0x65/0xff\"\n\
         companions = [\"a.example.com\", \"b.example.com\"]\n",
    );
    let mut compiler = Compiler::new(&config, Around::default());
    let [first, same, other] = ["a.example.com", "a.example.com", "b.example.com"].map(|name| {
        let (_, choices) = compiler.companion(&BTreeSet::from([name]));
        assert_eq!(choices.iter().len(), 1);
        choices
    });
    assert!(Arc::ptr_eq(&first.0, &same.0));
    assert!(
        Arc::ptr_eq(&first.0, &other.0),
        "another name of the same policy"
    );
}
