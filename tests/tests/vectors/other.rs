//! Other IPsec: rows of `tests/vectors/other.toml` in every program, under every link header and action.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use aya::{
    Pod,
    maps::{HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use serde::Deserialize;
use wificall_common::{
    Direction,
    abi::{Destination, Features, Hook, TIER_CORROBORATED, TIER_OBSERVED},
    classify::Link,
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, OTHER_MARK, Run, TC_ACT_SHOT, XDP_DROP, pass},
    vectors::{Contents, MARK, PROGRAMS, Program, Setup, contents},
};

use crate::{assert_more, each_program};

/// Packets and bytes by destination.
type Destinations = BTreeMap<[u8; 16], (u64, u64)>;

const ROWS: &str = include_str!("../../vectors/other.toml");
const LINKS: [&str; 7] = [
    "",
    "eth",
    "eth / vlan 7",
    "eth / svlan 8 / vlan 7",
    "eth / pppoe",
    "eth / vlan 7 / pppoe",
    "eth / svlan 8 / vlan 7 / pppoe",
];
const ACTIONS: [(u32, Exit); 3] = [
    (Features::OTHER_MARK, Exit::OtherMarked),
    (Features::OTHER_AUDIT, Exit::OtherAudited),
    (Features::OTHER_DROP, Exit::OtherDropped),
];
const SPARED: [&str; 4] = [
    "100.64.9.0/24",
    "2001:db8:9:8::/64",
    "224.0.0.0/4",
    "fe80::/10",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    row: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// From the IP header on.
    packet: String,
    /// If it is not for the action to say.
    exit: Option<String>,
    links: Option<Vec<String>>,
    #[serde(default)]
    gso_segs: u32,
}

impl Row {
    fn exit(&self) -> Option<Exit> {
        let name = self.exit.as_deref()?;
        let exit = Exit::ALL.into_iter().find(|exit| exit.name() == name);
        Some(exit.unwrap_or_else(|| panic!("{name} is no exit")))
    }

    /// The frames: link header, bytes.
    fn frames(&self) -> Vec<(Link, Vec<u8>)> {
        let all: Vec<_> = LINKS.map(str::to_owned).into();
        let links = self.links.as_ref().unwrap_or(&all);
        links
            .iter()
            .map(|link| {
                let (kind, words) = match &**link {
                    "" => (Link::Bare, self.packet.clone()),
                    _ => (Link::Ethernet, format!("{link} / {}", self.packet)),
                };
                (kind, words.parse::<Packet>().unwrap().bytes())
            })
            .collect()
    }

    /// What is counted of it.
    fn destination(&self) -> ([u8; 16], u64, u64) {
        let words: Vec<_> = self.packet.split_whitespace().collect();
        let packet: Packet = self.packet.parse().unwrap();
        let packets = u64::from(self.gso_segs.max(1));
        (mapped(words[3]), packets, packet.stated_len())
    }
}

fn mapped(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address),
    }
}

/// [`Destination`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counted(Destination);
// SAFETY: three integers.
unsafe impl Pod for Counted {}

/// The data plane, the networks that it spares, and what it counts.
struct Firewall {
    kernel: Kernel,
    others: HashMap<MapData, [u8; 16], Counted>,
    /// Open until the programs are loaded, which is at their first run.
    _spared: LpmTrie<MapData, [u8; 16], u8>,
}

impl Firewall {
    fn new(features: u32, contents: &Contents) -> Self {
        Self::sparing(features, contents, &SPARED)
    }

    fn sparing(features: u32, contents: &Contents, networks: &[&str]) -> Self {
        let setup = Setup {
            features: Setup::DEFAULT.features | features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        kernel.fill(contents).unwrap();
        let mut spared: LpmTrie<_, [u8; 16], u8> =
            kernel.ebpf.take_map("SPARED").unwrap().try_into().unwrap();
        for network in networks {
            let (address, len) = network.split_once('/').unwrap();
            let mapped_len = if address.contains(':') { 0 } else { 96 };
            let len = mapped_len + len.parse::<u32>().unwrap();
            spared
                .insert(&Key::new(len, mapped(address)), 0, 0)
                .unwrap();
        }
        let others = kernel.ebpf.take_map("OTHERS").unwrap().try_into().unwrap();
        Self {
            kernel,
            others,
            _spared: spared,
        }
    }

    /// Runs a program; its exit, and what it counted by destination. `None` if the kernel refuses so short a frame.
    fn run(
        &mut self,
        program: &Program,
        frame: &[u8],
        gso_segs: u32,
    ) -> Option<(Run, Exit, Destinations)> {
        let run = self.kernel.run(program.name, frame, gso_segs).unwrap()?;
        let outcome = self.kernel.outcome(&run, program.hook).unwrap();
        let exits: Vec<_> = outcome.exits.iter().collect();
        let [((_, exit), 1)] = exits[..] else {
            panic!("one exit: {exits:?}");
        };
        let exit = *exit;
        self.kernel.clear(&outcome).unwrap();
        let mut counted = BTreeMap::new();
        for key in self.others.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            let Counted(destination) = self.others.get(&key, 0).unwrap();
            assert_ne!(destination.last, 0);
            counted.insert(key, (destination.packets, destination.bytes));
            self.others.remove(&key).unwrap();
        }
        Some((run, exit, counted))
    }
}

fn rows() -> Vec<Row> {
    toml::from_str::<File>(ROWS).unwrap().row
}

/// Programs where clients' packets come in.
fn is_access_ingress(program: &Program) -> bool {
    program.direction == Direction::Up && program.hook != Hook::TcEgress
}

fn dropped(program: &Program) -> u32 {
    if program.hook == Hook::Xdp {
        XDP_DROP
    } else {
        TC_ACT_SHOT
    }
}

/// Runs the rows that `wanted` names, with every action, in the programs where clients' packets come in.
fn run_rows(wanted: impl Fn(&Row) -> bool) -> usize {
    let mut runs = 0;
    for (feature, by_action) in ACTIONS {
        let mut firewall = Firewall::new(feature, &contents().unwrap());
        for row in rows().iter().filter(|row| wanted(row)) {
            for (link, frame) in row.frames() {
                for program in each_program().filter(|p| is_access_ingress(p)) {
                    let in_xdp = program.hook == Hook::Xdp;
                    if program.link != link || (in_xdp && row.gso_segs != 0) {
                        continue;
                    }
                    let name = format!("{} in {}, {by_action:?}", row.name, program.name);
                    let Some((run, exit, counted)) = firewall.run(program, &frame, row.gso_segs)
                    else {
                        continue;
                    };
                    runs += 1;
                    // XDP leaves to TC what is not dropped.
                    let acts = row.exit().is_none() && (!in_xdp || feature == Features::OTHER_DROP);
                    let expected = match row.exit() {
                        Some(exit) => exit,
                        None if acts => by_action,
                        None => Exit::NotEndpoint,
                    };
                    assert_eq!(exit, expected, "{name}");
                    let drops = expected == Exit::OtherDropped;
                    let verdict = if drops {
                        dropped(program)
                    } else {
                        pass(program)
                    };
                    assert_eq!(run.verdict, verdict, "{name}");
                    let matched = expected == Exit::Matched;
                    assert!(matched || run.frame == frame, "{name}: changed");
                    if !in_xdp && !matched {
                        let mark = match expected {
                            Exit::OtherMarked => (MARK & !OTHER_MARK[1]) | OTHER_MARK[0],
                            _ => MARK,
                        };
                        assert_eq!(run.mark, mark, "{name}");
                    }
                    let (address, packets, bytes) = row.destination();
                    let listed = acts.then_some((address, (packets, bytes)));
                    assert_eq!(counted, listed.into_iter().collect(), "{name}");
                }
            }
        }
    }
    runs
}

#[test]
fn other_ipsec_leaves_by_what_is_configured() {
    let runs = run_rows(|row| row.exit().is_none() || row.name.contains("endpoint"));
    println!("{runs} runs");
    assert_more(runs, 900);
}

#[test]
fn the_box_its_networks_and_peers_are_spared_in_the_kernel() {
    let runs =
        run_rows(|row| row.exit() == Some(Exit::NotEndpoint) && !row.name.starts_with("open"));
    assert_more(runs, 250);
}

/// Each row is a line of the table in docs/security.md.
#[test]
fn what_fails_open_passes() {
    let runs = run_rows(|row| row.name.starts_with("open"));
    assert_more(runs, 500);
}

/// A peer behind a NAT64 is another address, for which the agent has an entry of its own.
#[test]
fn nat64_peers_are_spared() {
    let peers = ["64:ff9b::c000:200/121"];
    let mut firewall = Firewall::sparing(Features::OTHER_DROP, &contents().unwrap(), &peers);
    let program = PROGRAMS.iter().find(|p| p.name == "in_up").unwrap();
    for (to, exit) in [
        ("64:ff9b::192.0.2.7", Exit::NotEndpoint),
        ("64:ff9b::192.0.2.200", Exit::OtherDropped),
        // Of a prefix that nobody knows.
        ("2001:db8:64::192.0.2.7", Exit::OtherDropped),
    ] {
        let words = format!("eth / ip6 2001:db8:ffff::2 > {to} / udp 500 > 500 / ike 300");
        let frame = words.parse::<Packet>().unwrap().bytes();
        assert_eq!(firewall.run(program, &frame, 0).unwrap().1, exit, "{to}");
    }
}

/// Endpoints below the authoritative tier are matches, and may not pass all the same.
#[test]
fn observed_and_corroborated_endpoints_do_not_pass() {
    let words = "eth / ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / esp 136";
    let frame = words.parse::<Packet>().unwrap().bytes();
    let with_ef = words.parse::<Packet>().unwrap().with_dscp(46).bytes();
    for tier in [TIER_CORROBORATED, TIER_OBSERVED] {
        let mut contents = contents().unwrap();
        for row in contents.policies.values_mut() {
            (row.tier, row.passes) = (tier, 0);
        }
        for (feature, by_action) in ACTIONS {
            let mut firewall = Firewall::new(feature, &contents);
            let mut spared = Firewall::sparing(feature, &contents, &["203.0.113.1/32"]);
            for program in
                each_program().filter(|p| is_access_ingress(p) && p.link == Link::Ethernet)
            {
                let name = format!("{} {by_action:?} {tier}", program.name);
                let in_xdp = program.hook == Hook::Xdp;
                let acts = !in_xdp || feature == Features::OTHER_DROP;
                let (run, exit, counted) = firewall.run(program, &frame, 0).unwrap();
                assert_eq!(exit, if acts { by_action } else { Exit::Matched }, "{name}");
                assert_eq!(counted.len(), usize::from(acts), "{name}");
                if exit == Exit::OtherDropped {
                    assert_eq!(run.verdict, dropped(program), "{name}");
                    continue;
                }
                assert_eq!(run.verdict, pass(program), "{name}");
                assert_eq!(run.frame, with_ef, "{name}: treated as its policy says");
                if !in_xdp {
                    // Its policy's mark has bits of its own.
                    let mask = if exit == Exit::OtherMarked {
                        OTHER_MARK
                    } else {
                        [0; 2]
                    };
                    let mark = (MARK & !0xff & !mask[1]) | 0x65 | mask[0];
                    assert_eq!(run.mark, mark, "{name}");
                }
                let (run, exit, counted) = spared.run(program, &frame, 0).unwrap();
                assert_eq!(
                    (exit, run.verdict),
                    (Exit::Matched, pass(program)),
                    "{name}"
                );
                assert!(counted.is_empty(), "{name}");
            }
        }
    }
}

/// Only what comes in from clients is looked at.
#[test]
fn nothing_is_looked_at_elsewhere() {
    let mut firewall = Firewall::new(Features::OTHER_DROP, &contents().unwrap());
    let mut runs = 0;
    for row in rows().iter().filter(|row| row.exit().is_none()) {
        for (link, frame) in row.frames() {
            for program in each_program().filter(|p| !is_access_ingress(p) && p.link == link) {
                if program.hook == Hook::Xdp && row.gso_segs != 0 {
                    continue;
                }
                let Some((run, exit, counted)) = firewall.run(program, &frame, row.gso_segs) else {
                    continue;
                };
                assert_eq!(
                    run.verdict,
                    pass(program),
                    "{} in {}",
                    row.name,
                    program.name
                );
                assert!(!matches!(exit, Exit::OtherDropped | Exit::OtherAudited));
                assert!(counted.is_empty());
                runs += 1;
            }
        }
    }
    assert_more(runs, 500);
}
