//! Packets over their client's cap, in every program: they lose the DSCP and the priority of voice, whoever set them.

use aya::maps::HashMap;
use wificall_common::{
    Direction,
    abi::{DSCP_DEMOTE, DSCP_IF_DEFAULT, DSCP_KEEP, Features, Hook, demoted_slot},
    classify::Link,
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, pass},
    vectors::{PRIORITY, PROGRAMS, Program, Setup, contents},
};

use crate::{assert_more, each_program};

const EF: u8 = 46;
const VA: u8 = 44;
const CS5: u8 = 40;
const AF41: u8 = 34;
/// Nanoseconds to a packet, as many as there can be: one, and what comes in the three seconds after it is over the cap.
const INTERVAL: u32 = u32::MAX;
/// `{}` is the traffic class.
const UP: [&str; 5] = [
    "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 40000 > 4500 / esp 136",
    "ip4 198.18.0.2 > 203.0.113.1 tos={} / udp 500 > 500 / ike 300",
    "ip4 198.18.0.2 > 203.0.113.1 opts=12 tos={} / udp 40000 > 4500 / esp 136",
    "ip6 2001:db8:ffff::2 > 2001:db8:1::1 tc={} / esp 136",
    "ip6 2001:db8:ffff::2 > 2001:db8:1::1 tc={} / hop 0 / udp 40000 > 4500 / esp 136",
];
const DOWN: [&str; 3] = [
    "ip4 203.0.113.1 > 198.18.0.2 tos={} / udp 4500 > 40000 / esp 136",
    "ip6 2001:db8:1::1 > 2001:db8:ffff::2 tc={} / esp 136",
    "ip6 2001:db8:1::1 > 2001:db8:ffff::2 tc={} / hop 0 / udp 4500 > 40000 / esp 136",
];

struct Cap(Kernel);

impl Cap {
    fn new(features: u32, rule: u8, voice: u8) -> Self {
        let setup = Setup {
            features: Setup::DEFAULT.features & !Features::HANDOVER | features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        let mut contents = contents().unwrap();
        for row in contents.policies.values_mut() {
            row.interval = INTERVAL;
            row.dscp = [[rule; 4]; 2];
            row.voice = [voice; 2];
        }
        kernel.fill(&contents).unwrap();
        Self(kernel)
    }

    /// Nobody has sent anything.
    fn forget(&mut self) {
        let map = self.0.ebpf.map_mut("BUCKETS").unwrap();
        let mut buckets: HashMap<_, [u8; 16], [u8; 8]> = map.try_into().unwrap();
        let keys: Vec<_> = buckets.keys().map(Result::unwrap).collect();
        for key in keys {
            buckets.remove(&key).unwrap();
        }
    }

    fn demoted(&self, program: &Program) -> u64 {
        let slot = demoted_slot(program.hook, program.direction);
        self.0.slot(slot).unwrap()
    }

    /// The frame, mark left aside, and the priority that a packet leaves with.
    fn run(&mut self, program: &Program, frame: &[u8], segments: u32) -> (Vec<u8>, u32) {
        let run = self.0.run(program.name, frame, segments).unwrap().unwrap();
        assert_eq!(run.verdict, pass(program), "never dropped");
        let outcome = self.0.outcome(&run, program.hook).unwrap();
        assert_eq!(outcome.exits, [((program.hook, Exit::Matched), 1)].into());
        self.0.clear(&outcome).unwrap();
        (run.frame, run.priority)
    }
}

fn frame(program: &Program, packet: &str, class: u8) -> Vec<u8> {
    let packet = packet.replace("{}", &class.to_string());
    let words = match program.link {
        Link::Bare => packet,
        Link::Ethernet => format!("eth / vlan 7 / {packet}"),
    };
    words.parse::<Packet>().unwrap().bytes()
}

/// Whatever the rest of the programs does: bleaching is not needed, and is not what does it.
#[test]
fn excess_loses_the_dscp_of_voice_whoever_set_it() {
    let mut runs = 0;
    for (features, rule, within) in [
        (0, EF, [EF; 5]),
        (0, CS5, [CS5; 5]),
        (0, CS5 | DSCP_IF_DEFAULT, [EF, VA, CS5, AF41, CS5]),
        (Features::BLEACH, DSCP_KEEP, [EF, VA, CS5, AF41, 0]),
        (0, DSCP_DEMOTE, [0, 0, CS5, AF41, 0]),
    ] {
        let mut cap = Cap::new(Features::CAP | features, rule, 1);
        let value = if rule & DSCP_KEEP == 0 {
            rule & 0x3f
        } else {
            0
        };
        for program in each_program() {
            let packets = match program.direction {
                Direction::Up => &UP[..],
                Direction::Down => &DOWN[..],
            };
            for packet in packets {
                for (dscp, within) in [EF, VA, CS5, AF41, 0].into_iter().zip(within) {
                    let name = format!("{packet} with {dscp} under {rule:#x} in {}", program.name);
                    let ecn = dscp & 3;
                    let before = frame(program, packet, dscp << 2 | ecn);
                    cap.forget();
                    let counted = cap.demoted(program);
                    let after = frame(program, packet, within << 2 | ecn);
                    assert_eq!(cap.run(program, &before, 0).0, after, "{name}");
                    assert_eq!(cap.demoted(program), counted, "{name}");
                    let goes = [EF, VA, value].contains(&dscp);
                    let rest = if goes { 0 } else { dscp };
                    let after = frame(program, packet, rest << 2 | ecn);
                    assert_eq!(cap.run(program, &before, 0).0, after, "{name}");
                    assert_eq!(cap.demoted(program), counted + 1, "{name}");
                    runs += 2;
                }
            }
        }
    }
    println!("{runs} runs");
    assert_more(runs, 2_000);
}

/// Forwarding gives a packet that came with EF the priority that voice has on a wire, before any program sees it.
#[test]
fn excess_has_no_priority_of_voice() {
    let mut cap = Cap::new(Features::CAP, EF, 1);
    for program in PROGRAMS.iter().filter(|p| p.hook == Hook::TcEgress) {
        let packet = match program.direction {
            Direction::Up => UP[0],
            Direction::Down => DOWN[0],
        };
        let voice = if program.wireless { 262 } else { 6 };
        let before = frame(program, packet, EF << 2);
        for (came, left) in [(voice, 0), (PRIORITY, PRIORITY)] {
            cap.forget();
            let run = cap.0.run_at_priority(program.name, &before, 0, came);
            assert_eq!(run.unwrap().unwrap().priority, voice);
            let run = cap.0.run_at_priority(program.name, &before, 0, came);
            assert_eq!(run.unwrap().unwrap().priority, left, "{}", program.name);
        }
    }
}

/// An aggregate counts its segments.
#[test]
fn segments_over_the_cap_are_counted() {
    let mut cap = Cap::new(Features::CAP, EF, 1);
    let program = PROGRAMS.iter().find(|p| p.name == "in_up").unwrap();
    let before = frame(program, UP[0], EF << 2);
    assert_eq!(cap.run(program, &before, 10).0, before);
    assert_eq!(cap.demoted(program), 0);
    assert_eq!(cap.run(program, &before, 10).0, frame(program, UP[0], 0));
    assert_eq!(cap.demoted(program), 10);
}
