//! What the programs cost a packet, over an empty program of the same kind in the same run.
//!
//! `programs/driver.rs` says how it is measured. Each figure is the median over rounds in which the empty program and
//! the one in question take turns; beside it the quartiles.
//!
//! DESIGN's budgets are printed beside the figures. The test fails if three rounds in four are far beyond a budget: a
//! virtual machine whose neighbours are busy is not a ruler, and they can only add.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use wificall_common::{
    abi::{Block4, Block6, FLAG_WHOLE, Features, Hook, Policy},
    exit::Exit,
};
use wificall_tests::{
    packet::Packet,
    programs::{
        Kernel, TC_ACT_UNSPEC, XDP_PASS,
        driver::Driver,
        raw::{Insn, Kind, RawProgram},
    },
    vectors::{Contents, Setup},
};

const ROUNDS: usize = 31;
/// So many of them have to be quiet.
const QUIET: usize = 15;
const PACKETS: u32 = 50_000;
/// Groups and policies in use: the endpoints are spread over them.
const GROUPS: u32 = 200;
/// Endpoint `i` is `101.0.0.7` plus 256 `i`, and `2001:db8:0:i::7`: a block of its own each, the most lookups there can
/// be.
const BLOCKS4: u32 = u32::from_be_bytes([101, 0, 0, 0]);
const POLICIES: u32 = 20;

/// What an agent with its defaults loads: no irregular prefixes, counting at the access side.
const SETUP: Setup = Setup {
    features: Features::DSCP | Features::MARK | Features::PRIORITY | Features::COUNT_ACCESS,
    pref64: None,
};

/// A budget of DESIGN: nanoseconds at most.
const NON_MATCHING: f64 = 3.0;
const MATCHING: f64 = 40.0;
/// 10,000 endpoints over 1,000.
const GROWTH: f64 = 1.3;
/// Times a budget that fails the test.
const MARGIN: f64 = 2.5;

#[derive(Clone, Copy, PartialEq)]
enum Traffic {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    Esp4,
    Esp6,
}

impl Traffic {
    fn matches(self) -> bool {
        matches!(self, Self::Esp4 | Self::Esp6)
    }

    fn is_v4(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Udp4 | Self::Esp4)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "TCP, IPv4",
            Self::Tcp6 => "TCP, IPv6",
            Self::Udp4 => "UDP, IPv4",
            Self::Udp6 => "UDP, IPv6",
            Self::Esp4 => "ESP in UDP, IPv4",
            Self::Esp6 => "ESP in UDP, IPv6",
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Tcp4 | Self::Tcp6 => Exit::OtherProtocol,
            Self::Udp4 | Self::Udp6 => Exit::OtherPort,
            Self::Esp4 | Self::Esp6 => Exit::Matched,
        }
    }

    /// A frame to or from the endpoint `index`.
    fn frame(self, index: u32, down: bool) -> Vec<u8> {
        let ip = if self.is_v4() {
            format!(
                "ip4 10.9.8.7 > {}",
                Ipv4Addr::from(BLOCKS4 | index << 8 | 7)
            )
        } else {
            format!("ip6 fd00::7 > 2001:db8:0:{index:x}::7")
        };
        let inner = match self {
            Self::Tcp4 | Self::Tcp6 => "tcp 40000 > 443 / bytes 100",
            Self::Udp4 | Self::Udp6 => "udp 40000 > 443 / bytes 100",
            Self::Esp4 | Self::Esp6 => "udp 40000 > 4500 sum=0 / esp 100",
        };
        let packet: Packet = format!("eth / {ip} / {inner}").parse().unwrap();
        let packet = if down { packet.mirrored() } else { packet };
        packet.bytes()
    }
}

/// What stands in the maps: as many endpoints of each family.
fn contents(endpoints: u32) -> Contents {
    let mut contents = Contents::default();
    for index in 0..endpoints {
        let (group, policy, slot) = (1 + index % GROUPS, 1 + index % POLICIES, index);
        let [a, b, c, _] = (BLOCKS4 | index << 8).to_be_bytes();
        let mut members = [0; 8];
        members[0] = 1 << 7;
        let block = Block4 {
            group,
            policy,
            slot,
            flags: 0,
            members,
        };
        contents.blocks4.insert([a, b, c, 0], block);
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, index as u16, 0, 0, 0, 7).octets();
        let block = Block6 {
            group,
            policy,
            slot,
            flags: FLAG_WHOLE,
        };
        let key = *address.first_chunk().expect("eight of sixteen");
        contents.blocks6.insert(key, block);
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

/// A program to be timed, and what it is.
struct Subject {
    name: &'static str,
    kind: Kind,
    hook: Hook,
    down: bool,
    program: OwnedFd,
}

struct Bench {
    endpoints: u32,
    kernel: Kernel,
    subjects: Vec<Subject>,
}

impl Bench {
    fn new(endpoints: u32) -> Self {
        let sizes = [("COUNTERS", 2_048), ("POLICIES", 256), ("ACTIVITY", 16_384)];
        let mut kernel = Kernel::load_with(&SETUP, [1, 2], &sizes).unwrap();
        kernel.fill(&contents(endpoints)).unwrap();
        let subjects = [
            ("xdp_up", Kind::Xdp, Hook::Xdp, false),
            ("in_up", Kind::Tc, Hook::TcIngress, false),
            ("out_down", Kind::Tc, Hook::TcEgress, true),
        ]
        .map(|(name, kind, hook, down)| Subject {
            name,
            kind,
            hook,
            down,
            program: kernel.descriptor(name).unwrap(),
        })
        .into();
        Self {
            endpoints,
            kernel,
            subjects,
        }
    }

    fn exits(&self, subject: &Subject, exit: Exit) -> u64 {
        let exits = self.kernel.exits(subject.hook).unwrap();
        exits.get(&(subject.hook, exit)).copied().unwrap_or(0)
    }

    /// What `traffic` costs in this program over an empty one, per packet.
    fn cost(&self, subject: &Subject, traffic: Traffic) -> Cost {
        // A stride that shares no factor with the number of endpoints: all of them, in no order that memory likes.
        let frames: Vec<_> = (0..self.endpoints)
            .map(|index| traffic.frame(index * 7_919 % self.endpoints, subject.down))
            .collect();
        let header = if traffic.is_v4() { 20 } else { 40 };
        let driver = Driver::new(subject.kind, &frames, header).unwrap();
        let pass = match subject.kind {
            Kind::Xdp => XDP_PASS,
            Kind::Tc => TC_ACT_UNSPEC,
        };
        let empty = RawProgram::load(subject.kind, &Insn::empty(pass.cast_signed())).unwrap();
        let before = self.exits(subject, traffic.exit());
        // Caches and branch predictors get to know both.
        driver.time(&empty, PACKETS).unwrap();
        driver.time(&subject.program, PACKETS).unwrap();
        let mut rounds = Vec::new();
        // On a machine that is never quiet for long, more of them.
        while rounds.len() < ROUNDS || (quiet(&rounds).len() < QUIET && rounds.len() < 4 * ROUNDS) {
            let base = driver.time(&empty, PACKETS).unwrap();
            rounds.push((base, driver.time(&subject.program, PACKETS).unwrap() - base));
        }
        let seen = self.exits(subject, traffic.exit()) - before;
        assert_eq!(
            seen,
            (rounds.len() as u64 + 1) * u64::from(PACKETS),
            "{} in {}: every packet must take the way that is measured",
            traffic.name(),
            subject.name
        );
        let quiet = quiet(&rounds);
        Cost {
            empty: quartiles(quiet.iter().map(|round| round.0))[1],
            over: quartiles(quiet.iter().map(|round| round.1)),
            rounds: quiet.len(),
        }
    }
}

/// The rounds in which the empty program was not slow: in the others it shared its core with somebody.
fn quiet(rounds: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let best = rounds.iter().map(|round| round.0).fold(f64::MAX, f64::min);
    rounds
        .iter()
        .copied()
        .filter(|round| round.0 < best * 1.1)
        .collect()
}

#[derive(Clone, Copy)]
struct Cost {
    empty: f64,
    /// Quartiles of the difference.
    over: [f64; 3],
    /// Rounds that these are of.
    rounds: usize,
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

#[test]
fn costs() {
    let (small, large) = (Bench::new(1_000), Bench::new(10_000));
    println!(
        "At least {ROUNDS} rounds of {PACKETS} packets, nanoseconds a packet; median [quartiles]"
    );
    println!(
        "{:<9} {:<16} {:>9} {:>18} {:>26} {:>6} {:>8}",
        "program",
        "traffic",
        "endpoints",
        "empty and driver",
        "over the empty program",
        "rounds",
        "budget"
    );
    let mut failures = Vec::new();
    for (few, many) in small.subjects.iter().zip(&large.subjects) {
        for traffic in [
            Traffic::Tcp4,
            Traffic::Tcp6,
            Traffic::Udp4,
            Traffic::Udp6,
            Traffic::Esp4,
            Traffic::Esp6,
        ] {
            let budget = if traffic.matches() {
                MATCHING
            } else {
                NON_MATCHING
            };
            let cost = small.cost(few, traffic);
            print_row(few, traffic, small.endpoints, cost, budget);
            if cost.over[0] > MARGIN * budget {
                failures.push(format!("{} in {}", traffic.name(), few.name));
            }
            if !traffic.matches() {
                continue;
            }
            let budget = cost.over[1] * GROWTH;
            let cost = large.cost(many, traffic);
            print_row(many, traffic, large.endpoints, cost, budget);
            if cost.over[0] > MARGIN * budget {
                failures.push(format!("{} in {}, growth", traffic.name(), few.name));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "more than {MARGIN} times the budget: {}",
        failures.join("; ")
    );
}

fn print_row(subject: &Subject, traffic: Traffic, endpoints: u32, cost: Cost, budget: f64) {
    let [low, median, high] = cost.over;
    let spread = format!("{median:+.1} [{low:+.1}, {high:+.1}]");
    let rounds = cost.rounds;
    let verdict = if median <= budget {
        ""
    } else {
        "  over budget"
    };
    println!(
        "{:<9} {:<16} {endpoints:>9} {:>18.1} {spread:>26} {rounds:>6} {budget:>+8.1}{verdict}",
        subject.name,
        traffic.name(),
        cost.empty
    );
}
