//! `[trust] bleach`: every DSCP and ECN, on packets of every kind, in every program.

use wificall_common::{
    Direction,
    abi::{Features, Hook, bleached_slot},
    classify::Link,
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, pass},
    vectors::{PROGRAMS, Setup, contents},
};

use crate::{assert_more, each_program};

const EF: u8 = 46;
const VA: u8 = 44;
/// `{}` is the traffic class. The exit that each leaves by.
const NO_MATCH: [(&str, Exit); 10] = [
    (
        "ip4 198.18.0.2 > 192.0.2.200 tos={} / tcp 40000 > 443 / bytes 100",
        Exit::OtherProtocol,
    ),
    (
        "ip6 2001:db8:ffff::2 > 2001:db8:9::9 tc={} / tcp 40000 > 443 / bytes 100",
        Exit::OtherProtocol,
    ),
    (
        "ip4 198.18.0.2 > 192.0.2.200 tos={} / udp 40000 > 5060 / bytes 100",
        Exit::OtherPort,
    ),
    (
        "ip4 198.18.0.2 > 192.0.2.200 tos={} / udp 40000 > 4500 / esp 100",
        Exit::NotEndpoint,
    ),
    (
        "ip6 2001:db8:ffff::2 > 2001:db8:9::9 tc={} / udp 500 > 500 / ike 300",
        Exit::NotEndpoint,
    ),
    (
        "ip4 198.18.0.2 > 192.0.2.200 opts=12 tos={} / udp 40000 > 53 / bytes 100",
        Exit::OtherPort,
    ),
    (
        "ip6 2001:db8:ffff::2 > 2001:db8:9::9 tc={} / hop 0 / udp 40000 > 53 / bytes 100",
        Exit::OtherPort,
    ),
    (
        "ip4 198.18.0.2 > 192.0.2.200 tos={} proto=1 / bytes 100",
        Exit::OtherProtocol,
    ),
    (
        "ip4 198.18.0.2 > 192.0.2.200 tos={} off=100 id=7 proto=17 / bytes 100",
        Exit::NotEndpoint,
    ),
    (
        "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 500 > 500 / bytes 100",
        Exit::NotIpsec,
    ),
];
const LINKS: [&str; 7] = [
    "",
    "eth",
    "eth / vlan 7",
    "eth / svlan 8 / vlan 7",
    "eth / pppoe",
    "eth / vlan 7 / pppoe",
    "eth / svlan 8 / vlan 7 / pppoe",
];

fn frame(link: &str, packet: &str, class: u8) -> Vec<u8> {
    let packet = packet.replace("{}", &class.to_string());
    let words = if link.is_empty() {
        packet
    } else {
        format!("{link} / {packet}")
    };
    words.parse::<Packet>().unwrap().bytes()
}

struct Bleach(Kernel);

impl Bleach {
    fn new(features: u32) -> Self {
        let setup = Setup {
            features: Setup::DEFAULT.features | features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        kernel.fill(&contents().unwrap()).unwrap();
        Self(kernel)
    }

    fn bleached(&self) -> u64 {
        Hook::ALL
            .iter()
            .map(|hook| self.0.slot(bleached_slot(*hook)).unwrap())
            .sum()
    }
}

/// EF and VA become 0 where clients' packets come in, and nothing else changes anywhere.
#[test]
fn voice_is_reset_on_what_is_no_match_and_nothing_else() {
    let mut bleach = Bleach::new(Features::BLEACH);
    let (mut runs, mut expected_count) = (0, 0);
    for program in each_program() {
        let acts = program.hook == Hook::TcIngress && program.direction == Direction::Up;
        for (packet, exit) in NO_MATCH {
            for link in LINKS {
                let kind = if link.is_empty() {
                    Link::Bare
                } else {
                    Link::Ethernet
                };
                if kind != program.link {
                    continue;
                }
                for dscp in [0, 1, 8, 34, 43, VA, 45, EF, 47, 48, 63] {
                    let class = dscp << 2 | dscp & 3;
                    let before = frame(link, packet, class);
                    let resets = acts && matches!(dscp, EF | VA);
                    let after = frame(link, packet, if resets { class & 3 } else { class });
                    let run = bleach.0.run(program.name, &before, 0).unwrap().unwrap();
                    let name = format!("{packet} with {dscp} behind {link:?} in {}", program.name);
                    assert_eq!(run.verdict, pass(program), "{name}");
                    assert_eq!(run.frame, after, "{name}");
                    let outcome = bleach.0.outcome(&run, program.hook).unwrap();
                    if program.direction == Direction::Up {
                        assert_eq!(outcome.exits, [((program.hook, exit), 1)].into(), "{name}");
                    }
                    bleach.0.clear(&outcome).unwrap();
                    expected_count += u64::from(resets);
                    assert_eq!(bleach.bleached(), expected_count, "{name}");
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs, {expected_count} bleached");
    assert_more(expected_count as usize, 200);
}

/// A match has what its policy says, be that EF or what the client set.
#[test]
fn a_match_keeps_what_its_policy_says() {
    let mut bleach = Bleach::new(Features::BLEACH);
    let program = PROGRAMS.iter().find(|p| p.name == "in_up").unwrap();
    for (dscp, expected, words) in [
        (
            0,
            EF,
            "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 40000 > 4500 / esp 136",
        ),
        (
            EF,
            EF,
            "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 40000 > 4500 / esp 136",
        ),
        (
            VA,
            EF,
            "ip6 2001:db8:ffff::2 > 2001:db8:1::1 tc={} / esp 136",
        ),
    ] {
        let run = bleach
            .0
            .run(program.name, &frame("eth", words, dscp << 2), 0);
        assert_eq!(
            run.unwrap().unwrap().frame,
            frame("eth", words, expected << 2)
        );
    }
    assert_eq!(bleach.bleached(), 0);
    // Its policy leaves the DSCP alone.
    let mut keeps = Bleach::new(Features::BLEACH);
    let mut contents = contents().unwrap();
    for row in contents.policies.values_mut() {
        row.dscp = [[0x80; 4]; 2];
    }
    keeps.0.fill_policies(&contents).unwrap();
    let words = "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 40000 > 4500 / esp 136";
    let before = frame("eth", words, EF << 2);
    let run = keeps.0.run(program.name, &before, 0).unwrap().unwrap();
    assert_eq!(run.frame, before);
    assert_eq!(keeps.bleached(), 0);
}

#[test]
fn off_it_changes_nothing() {
    let mut bleach = Bleach::new(0);
    for program in each_program() {
        for (packet, _) in NO_MATCH {
            let link = if program.link == Link::Bare {
                ""
            } else {
                "eth"
            };
            let before = frame(link, packet, EF << 2);
            let run = bleach.0.run(program.name, &before, 0).unwrap().unwrap();
            assert_eq!(run.frame, before);
        }
    }
    assert_eq!(bleach.bleached(), 0);
}

/// An aggregate counts its segments.
#[test]
fn segments_are_counted() {
    let mut bleach = Bleach::new(Features::BLEACH);
    let (packet, _) = NO_MATCH[2];
    bleach
        .0
        .run("in_up", &frame("eth", packet, EF << 2), 10)
        .unwrap()
        .unwrap();
    assert_eq!(bleach.bleached(), 10);
}
