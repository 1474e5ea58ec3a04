//! Flows: what a conversation leaves in the map, in every program, and what is told of it.

use aya::{
    Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
};
use wificall_common::{
    Class, Direction,
    abi::{Candidate, EVENT_HEAD, EventKind, Features, Flow, FlowFate, FlowKey, Hook, SpiSlot},
    classify::Link,
    flow::{Changes, Milestone, Sight},
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, raw},
    vectors::{PROGRAMS, Program, Setup, contents},
};

/// A type of the ABI as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);
// SAFETY: integers without padding.
unsafe impl Pod for Raw<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Flow> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Candidate> {}

const FEATURES: u32 = Features::DSCP
    | Features::MARK
    | Features::PRIORITY
    | Features::COUNT_ACCESS
    | Features::COUNT_UPLINK
    | Features::FLOWS;

struct Tracker {
    kernel: Kernel,
    flows: HashMap<MapData, Raw<FlowKey>, Raw<Flow>>,
    candidates: HashMap<MapData, Raw<FlowKey>, Raw<Candidate>>,
    fates: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    room: Array<MapData, u64>,
}

impl Tracker {
    fn new(features: u32) -> Self {
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        kernel.fill(&contents().unwrap()).unwrap();
        let mut take = |name| kernel.ebpf.take_map(name).unwrap();
        let mut tracker = Self {
            flows: take("FLOWS").try_into().unwrap(),
            candidates: take("CANDIDATES").try_into().unwrap(),
            fates: take("FLOW_COUNTS").try_into().unwrap(),
            events: take("EVENTS").try_into().unwrap(),
            room: take("FLOW_ROOM").try_into().unwrap(),
            kernel,
        };
        tracker.leave_room(1_000);
        tracker
    }

    /// What the agent does.
    fn leave_room(&mut self, flows: u64) {
        self.room.set(0, flows, 0).unwrap();
    }

    fn run(&mut self, program: &Program, words: &str) {
        let packet: Packet = words.parse().unwrap();
        let run = self.kernel.run(program.name, &packet.bytes(), 0).unwrap();
        assert!(run.is_some(), "{words}: refused");
    }

    /// Both directions of a conversation, each packet in the program of its direction; `ends` are client, endpoint.
    fn talk(&mut self, [up, down]: [&Program; 2], link: &str, packets: &[(Direction, String)]) {
        for (direction, words) in packets {
            let program = match direction {
                Direction::Up => up,
                Direction::Down => down,
            };
            let words = match link {
                "" => words.clone(),
                _ => format!("{link} / {words}"),
            };
            self.run(program, &words);
        }
    }

    fn take(&mut self) -> Vec<(FlowKey, Flow)> {
        let keys: Vec<_> = self.flows.keys().map(Result::unwrap).collect();
        let mut flows = Vec::new();
        for key in keys {
            flows.push((key.0, self.flows.get(&key, 0).unwrap().0));
            self.flows.remove(&key).unwrap();
        }
        let keys: Vec<_> = self.candidates.keys().map(Result::unwrap).collect();
        for key in keys {
            self.candidates.remove(&key).unwrap();
        }
        flows.sort_by_key(|(key, _)| *key);
        flows
    }

    fn fate(&self, fate: FlowFate) -> u64 {
        self.fates.get(&(fate as u32), 0).unwrap().iter().sum()
    }

    /// What was told, all changes together; how often.
    fn told(&mut self) -> (u32, usize) {
        let (mut changes, mut count) = (0, 0);
        while let Some(item) = self.events.next() {
            assert_eq!(item[9], EventKind::Flow as u8);
            changes |= u32::from_le_bytes(item[EVENT_HEAD..EVENT_HEAD + 4].try_into().unwrap());
            count += 1;
        }
        (changes, count)
    }
}

/// Programs of the two directions that stand together, with a link header that they are for.
fn pairs() -> Vec<([&'static Program; 2], &'static str)> {
    let mut pairs = Vec::new();
    for up in PROGRAMS.iter().filter(|it| it.direction == Direction::Up) {
        let down = PROGRAMS.iter().find(|it| {
            let hook = match up.hook {
                Hook::TcIngress => Hook::TcEgress,
                Hook::TcEgress => Hook::TcIngress,
                Hook::Xdp => Hook::Xdp,
            };
            it.direction == Direction::Down && it.hook == hook && it.link == up.link
        });
        let links: &[&str] = match up.link {
            Link::Bare => &[""],
            Link::Ethernet => &["eth", "eth / svlan 8 / vlan 7"],
        };
        pairs.extend(links.iter().map(|link| ([up, down.unwrap()], *link)));
    }
    pairs
}

fn up(words: &str) -> (Direction, String) {
    (
        Direction::Up,
        words.replace("C > E", "198.18.0.2 > 203.0.113.1"),
    )
}

fn down(words: &str) -> (Direction, String) {
    let words = words.replace("E > C", "203.0.113.1 > 198.18.0.2");
    (Direction::Down, words)
}

/// IKE_SA_INIT to ESP both ways, with a COOKIE on the way and an IKE_AUTH whose request is repeated.
fn set_up() -> Vec<(Direction, String)> {
    const INIT: &str = "ip4 C > E / udp 40000 > 500 / ike 300";
    // RFC 7296 section 2.6.
    const COOKIE: &str = "ip4 E > C / udp 500 > 40000 / ike 300 flags=0x20 next=41 notify=16390";
    const ANSWER: &str = "ip4 E > C / udp 500 > 40000 / ike 300 spir=0xfeed flags=0x20 next=33";
    const AUTH: &str =
        "ip4 C > E / udp 40001 > 4500 / marker / ike 300 spir=0xfeed exchange=35 id=1";
    const AUTH_ANSWER: &str =
        "ip4 E > C / udp 4500 > 40001 / marker / ike 200 spir=0xfeed exchange=35 id=1 flags=0x20";
    let mut packets = vec![
        up(INIT),
        down(COOKIE),
        up(INIT),
        down(ANSWER),
        up(AUTH),
        up(AUTH),
        down(AUTH_ANSWER),
        up("ip4 C > E / udp 40001 > 4500 / hex ff"),
    ];
    for number in [1, 2, 4, 3, 3, 7] {
        packets.push(up(&format!(
            "ip4 C > E / udp 40001 > 4500 / esp 116 spi=0x1001 seq={number}"
        )));
    }
    for number in 1..=3 {
        packets.push(down(&format!(
            "ip4 E > C / udp 4500 > 40001 / esp 116 spi=0x2002 seq={number}"
        )));
    }
    packets
}

#[test]
fn a_set_up_leaves_its_flows_in_every_program() {
    let mut tracker = Tracker::new(FEATURES);
    let pairs = pairs();
    assert!(pairs.len() >= 9, "{}", pairs.len());
    for (programs, link) in pairs {
        let name = format!("{} {} {link}", programs[0].name, programs[1].name);
        let _ = tracker.told();
        tracker.talk(programs, link, &set_up());
        let flows = tracker.take();
        let [(first, init), (second, rest)] = &flows[..] else {
            panic!("{name}: two flows: {flows:?}");
        };
        assert_eq!([first.port, second.port], [40_000, 40_001], "{name}");
        assert_eq!(first.endpoint[12..], [203, 0, 113, 1], "{name}");
        let reached = |flow: &Flow| -> Vec<_> {
            let all = Milestone::ALL.into_iter();
            all.filter(|it| flow.control.milestones & it.bit() != 0)
                .map(Milestone::name)
                .collect()
        };
        assert_eq!(reached(init), ["init_sent", "init_answered"], "{name}");
        assert_eq!(
            reached(rest),
            ["natt", "auth_sent", "auth_answered", "esp_up", "esp_down"],
            "{name}"
        );
        assert_eq!(init.control.setups, 1, "{name}");
        assert_eq!(init.control.notify, 0, "{name}: the detour is over");
        assert_eq!(init.control.spi_i, rest.control.spi_i, "{name}");
        assert_eq!(init.control.spi_r, rest.control.spi_r, "{name}");
        assert_ne!(init.control.round_trip[0], 0, "{name}: the network side's");
        assert_eq!(rest.control.round_trip, [0, 0], "{name}: IKE_AUTH");
        assert_eq!(rest.control.auth_responses, 1, "{name}");
        let way = &rest.up;
        // The first packet was a candidate's.
        assert_eq!((way.packets, way.esp), (7, 6), "{name}");
        assert_eq!((way.late, way.duplicate, way.stray), (1, 1, 0), "{name}");
        assert_eq!(way.spis[usize::from(way.current)].missing(), 2, "{name}");
        assert_eq!((rest.down.packets, rest.down.esp), (4, 3), "{name}");
        let (changes, count) = tracker.told();
        let expected = Changes::ENTERED
            | Changes::ASKED
            | Changes::MESSAGE
            | Changes::MILESTONE
            | Changes::NOTIFY
            | Changes::ROUND_TRIP
            | Changes::SPI;
        assert_eq!(changes & expected, expected, "{name}: {changes:#x}");
        assert!((8..=12).contains(&count), "{name}: {count} events");
    }
}

#[test]
fn what_only_one_end_says_is_no_flow() {
    let mut tracker = Tracker::new(FEATURES);
    for (programs, link) in pairs() {
        for direction in Direction::ALL {
            let packets: Vec<_> = set_up();
            let one: Vec<_> = packets
                .into_iter()
                .filter(|(way, _)| *way == direction)
                .collect();
            tracker.talk(programs, link, &one);
            assert!(tracker.take().is_empty(), "{} {link}", programs[0].name);
        }
    }
    assert_eq!(tracker.fate(FlowFate::Entered), 0);
    assert_ne!(tracker.fate(FlowFate::Candidate), 0);
}

#[test]
fn native_esp_and_ipv6_are_flows_too() {
    let mut tracker = Tracker::new(FEATURES);
    let up = |number| {
        let words =
            format!("ip6 2001:db8:ffff::2 > 2001:db8:1::1 / esp 116 spi=0x1001 seq={number}");
        (Direction::Up, words)
    };
    let down = |number| {
        let words =
            format!("ip6 2001:db8:1::1 > 2001:db8:ffff::2 / esp 116 spi=0x2002 seq={number}");
        (Direction::Down, words)
    };
    for (programs, link) in pairs() {
        tracker.talk(programs, link, &[up(1), down(1), up(2), up(3), down(2)]);
        let flows = tracker.take();
        let [(key, flow)] = &flows[..] else {
            panic!("{}: {flows:?}", programs[0].name);
        };
        assert_eq!((key.port, key.protocol), (0, 50));
        assert_eq!((flow.up.esp, flow.down.esp), (2, 2));
        assert_eq!(
            flow.control.milestones,
            Milestone::EspUp.bit() | Milestone::EspDown.bit()
        );
    }
}

#[test]
fn switched_off_nothing_is_kept() {
    let mut tracker = Tracker::new(FEATURES & !Features::FLOWS);
    for (programs, link) in pairs() {
        tracker.talk(programs, link, &set_up());
    }
    assert!(tracker.take().is_empty());
    assert_eq!(FlowFate::ALL.map(|fate| tracker.fate(fate)), [0; 5]);
    assert_eq!(tracker.told(), (0, 0));
}

/// What costs nothing is not there: of a program that was loaded without tracking the verifier leaves no instruction that
/// names a map of it.
#[test]
fn switched_off_no_instruction_of_it_is_left() {
    const MAPS: [&str; 6] = [
        "FLOWS",
        "FLOW",
        "CANDIDATES",
        "FLOW_ROOM",
        "FLOW_DUE",
        "FLOW_COUNTS",
    ];
    let named = |program: &Program, features| {
        let setup = Setup {
            features,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup).unwrap();
        let ids = MAPS.map(|name| match kernel.ebpf.map(name) {
            Some(Map::Array(map) | Map::PerCpuArray(map) | Map::LruHashMap(map)) => {
                map.info().unwrap().id()
            }
            other => panic!("{name}: {other:?}"),
        });
        let named = raw::maps_named(kernel.descriptor(program.name).unwrap()).unwrap();
        let names = MAPS.into_iter().zip(ids);
        let found = names.filter(|(_, id)| named.contains(id));
        found.map(|(name, _)| name).collect::<Vec<_>>()
    };
    for program in &PROGRAMS {
        let name = program.name;
        let off = named(program, Features::ALL & !Features::FLOWS);
        assert!(off.is_empty(), "{name}: {off:?}");
        assert_eq!(named(program, FEATURES), MAPS, "{name}");
        if super::is_emulated() {
            // The verifier takes long there, and looks at one as at the others.
            break;
        }
    }
}

/// Sequence numbers at random, as the kernel counts them and as the host does.
#[test]
fn kernel_and_host_count_alike() {
    let mut tracker = Tracker::new(FEATURES);
    let programs = pairs()[0].0;
    let words = |number: u32, spi: u32| {
        let ends = "eth / ip4 198.18.0.2 > 203.0.113.1 / udp 40001 > 4500";
        format!("{ends} / esp 116 spi={spi:#x} seq={number}")
    };
    let down = "eth / ip4 203.0.113.1 > 198.18.0.2 / udp 4500 > 40001 / esp 116 spi=0x2002 seq=1";
    let mut random = super::Random(1);
    for round in 0..8 {
        tracker.run(programs[1], down);
        let mut host = Flow::default();
        let mut now = 1_000_000_000;
        let mut next = random.next() as u32;
        let mut spi = 0x1000 + round;
        for _ in 0..400 {
            next = next.wrapping_add(match random.below(20) {
                0 => 2,
                1 => random.below(100) as u32,
                2 => random.below(4_000) as u32,
                3 => 0_u32.wrapping_sub(random.below(70) as u32),
                4 => 0,
                _ => 1,
            });
            if random.below(100) == 0 {
                spi += 1;
            }
            let number = if random.below(50) == 0 {
                random.next() as u32
            } else {
                next
            };
            tracker.run(programs[0], &words(number, spi));
            now += 1_000;
            let sight = Sight {
                now,
                bytes: 144,
                segments: 1,
                class: Class::EspUdp,
                esp: [spi, number],
            };
            let _ = host.see(Direction::Up, &sight);
        }
        let flows = tracker.take();
        let [(_, kernel)] = &flows[..] else {
            panic!("one flow: {flows:?}");
        };
        let (kernel, host) = (&kernel.up, &host.up);
        let counts = |way: &wificall_common::abi::Way| {
            let lost = way.lost + way.spis.iter().map(SpiSlot::missing).sum::<u32>();
            [
                way.esp,
                lost,
                way.late,
                way.duplicate,
                way.stray,
                way.anchored.into(),
                way.voice,
            ]
        };
        assert_eq!(counts(kernel), counts(host), "round {round}");
        assert_eq!(kernel.spis, host.spis, "round {round}");
    }
}

/// Established flows are idle while clients that nobody knows seem to talk to the endpoint, and it to them.
#[test]
fn a_flood_evicts_no_established_flow() {
    const ESTABLISHED: u32 = 100;
    const ROOM: u64 = 1_000;
    let forged: u32 = if super::is_emulated() { 2_000 } else { 500_000 };
    let mut tracker = Tracker::new(FEATURES);
    let [up, down] = pairs()[0].0;
    let frames = |client: u32| {
        let [a, b, c] = [client >> 16, client >> 8, client].map(|part| part & 0xff);
        let client = format!("10.{a}.{b}.{c}");
        [
            format!("eth / ip4 {client} > 203.0.113.1 / udp 4500 > 4500 / esp 116"),
            format!("eth / ip4 203.0.113.1 > {client} / udp 4500 > 4500 / esp 116"),
        ]
    };
    for client in 0..ESTABLISHED {
        for (program, words) in [up, down].into_iter().zip(frames(client)) {
            tracker.run(program, &words);
        }
    }
    assert_eq!(tracker.fate(FlowFate::Entered), u64::from(ESTABLISHED));
    tracker.leave_room(ROOM);
    // The address is all that changes: offsets behind the Ethernet header, and a header checksum that nobody looks at.
    let [first, second] = frames(0).map(|words| words.parse::<Packet>().unwrap().bytes());
    for (program, mut frame, at) in [(up, first, 26), (down, second, 30)] {
        let program = tracker.kernel.program(program.name).unwrap();
        for client in 0..forged {
            frame[at..at + 4].copy_from_slice(&(0x0b00_0000 + client).to_be_bytes());
            run_once(program, &frame);
        }
    }
    // One after another, so that the answer is there before its candidate is forgotten.
    let [first, second] = frames(0).map(|words| words.parse::<Packet>().unwrap().bytes());
    let mut both = [(up, first, 26), (down, second, 30)];
    for client in 0..forged {
        for (program, frame, at) in &mut both {
            frame[*at..*at + 4].copy_from_slice(&(0x0c00_0000 + client).to_be_bytes());
            run_once(tracker.kernel.program(program.name).unwrap(), frame);
        }
    }
    let fates = FlowFate::ALL.map(|fate| (fate.name(), tracker.fate(fate)));
    let flows = tracker.take();
    println!(
        "{forged} forged clients one way, then {forged} both ways: {fates:?}, {} flows in the table",
        flows.len()
    );
    let is_ours = |key: &FlowKey| key.client[12] == 10;
    let ours = flows.iter().filter(|(key, _)| is_ours(key)).count();
    assert_eq!(ours, ESTABLISHED as usize);
    assert!(flows.len() <= ESTABLISHED as usize + ROOM as usize);
    let refused: u64 = [FlowFate::Rate, FlowFate::Full, FlowFate::ClientRate]
        .into_iter()
        .map(|fate| tracker.fate(fate))
        .sum();
    assert!(
        refused > u64::from(forged) / 4,
        "the flood reached the table's door"
    );
}

fn run_once(program: &aya::programs::Program, frame: &[u8]) {
    let aya::programs::Program::SchedClassifier(program) = program else {
        panic!("a TC program");
    };
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    program.test_run(options).unwrap();
}
