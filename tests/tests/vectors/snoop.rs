//! The second look: rows of `tests/vectors/snoop.toml` in every TC program of their direction, under every link header.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use aya::{
    maps::{HashMap, MapData, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use serde::Deserialize;
use wificall::kernel::Event;
use wificall_common::{
    Direction,
    abi::{EventFate, EventKind, Features, Hook, event_slot},
    classify::Link,
    exit::Exit,
    wire::{dns, ike},
};
use wificall_tests::{
    packet::Packet,
    programs::{Kernel, pass},
    vectors::{PROGRAMS, Program, Setup, contents},
};

use crate::{assert_more, each_program};

const ROWS: &str = include_str!("../../vectors/snoop.toml");
const SNOOPING: Setup = Setup {
    features: Setup::DEFAULT.features | Features::SNOOP_NAMES | Features::SNOOP_IKE,
    pref64: None,
};
const LINKS: [(&str, u16); 6] = [
    ("", 0),
    ("eth", 0),
    ("eth / vlan 7", 7),
    ("eth / svlan 8 / vlan 7", 8),
    ("eth / pppoe", 0),
    ("eth / vlan 7 / pppoe", 7),
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
    /// `name_query` if not given.
    kind: Option<String>,
    /// Not looked at if not given.
    fate: Option<String>,
    links: Option<Vec<String>>,
    #[serde(default)]
    gso_segs: u32,
}

impl Row {
    fn kind(&self) -> EventKind {
        let name = self.kind.as_deref().unwrap_or("name_query");
        let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.unwrap_or_else(|| panic!("{name} is no kind"))
    }

    fn fate(&self) -> Option<EventFate> {
        let name = self.fate.as_deref()?;
        let fate = EventFate::ALL.into_iter().find(|fate| fate.name() == name);
        Some(fate.unwrap_or_else(|| panic!("{name} is no fate")))
    }

    /// Source and destination of the layer that begins with one of these words.
    fn ends(&self, layers: [&str; 2]) -> [&str; 2] {
        let mut found = self.packet.split(" / ").map(|layer| {
            let words: Vec<_> = layer.split_whitespace().collect();
            (words[0], words)
        });
        let (_, words) = found.find(|(name, _)| layers.contains(name)).unwrap();
        match self.kind().direction() {
            Direction::Up => [words[1], words[3]],
            Direction::Down => [words[3], words[1]],
        }
    }

    /// What is told of it: without the times and interfaces.
    fn event(&self, vlan: u16) -> Event {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let port = |text: &str| text.parse::<u16>().unwrap();
        let [client, far] = self.ends(["ip4", "ip6"]).map(address);
        let [client_port, far_port] = self.ends(["udp", "tcp"]).map(port);
        // The message by itself: from the layer behind UDP's on.
        let message = self
            .packet
            .split(" / ")
            .skip_while(|l| !l.starts_with("udp"))
            .skip(1);
        let message: Vec<_> = message
            .filter(|layer| !layer.starts_with("marker") && !layer.starts_with("pad"))
            .collect();
        let mut data = message.join(" / ").parse::<Packet>().unwrap().bytes();
        if !self.kind().is_name() {
            data.truncate(ike::HEADER_LEN);
        }
        Event {
            at: 0,
            kind: self.kind(),
            ifindex: 0,
            ingress_ifindex: 0,
            vlan,
            client,
            client_port,
            far,
            far_port,
            data,
        }
    }
}

/// The data plane and what it tells.
struct Snooper {
    kernel: Kernel,
    events: RingBuf<MapData>,
    counts: PerCpuArray<MapData, u64>,
    /// Open until the programs are loaded, which is at their first run.
    _names: HashMap<MapData, u64, u8>,
}

/// Packets by kind and fate.
type Counts = BTreeMap<(EventKind, EventFate), u64>;

impl Snooper {
    fn new(setup: &Setup) -> Self {
        Self::of(Kernel::load(setup).unwrap())
    }

    fn of(mut kernel: Kernel) -> Self {
        kernel.fill(&contents().unwrap()).unwrap();
        let mut names: HashMap<_, u64, u8> =
            kernel.ebpf.take_map("NAMES").unwrap().try_into().unwrap();
        names
            .insert(dns::hash("wo.vzwwo.com").unwrap(), 0, 0)
            .unwrap();
        let events = kernel.ebpf.take_map("EVENTS").unwrap().try_into().unwrap();
        let counts = kernel.ebpf.take_map("EVENT_COUNTS").unwrap();
        Self {
            kernel,
            events,
            counts: counts.try_into().unwrap(),
            _names: names,
        }
    }

    /// Runs a program; what it counted, and what it told.
    fn run(
        &mut self,
        program: &Program,
        frame: &[u8],
        gso_segs: u32,
    ) -> Option<(Counts, Vec<Event>)> {
        let run = self.kernel.run(program.name, frame, gso_segs).unwrap()?;
        assert_eq!(run.verdict, pass(program));
        assert_eq!(
            run.frame, frame,
            "a packet that is looked at does not change"
        );
        let exits = self.kernel.exits(program.hook).unwrap();
        assert_eq!(exits.values().sum::<u64>(), 1, "one exit: {exits:?}");
        let outcome = self.kernel.outcome(&run, program.hook).unwrap();
        self.kernel.clear(&outcome).unwrap();
        let mut counted = BTreeMap::new();
        for kind in EventKind::ALL {
            for fate in EventFate::ALL {
                let slot = event_slot(kind, fate);
                let count: u64 = self.counts.get(&slot, 0).unwrap().iter().sum();
                if count != 0 {
                    counted.insert((kind, fate), count);
                    let zeros = vec![0; nr_cpus().unwrap()];
                    let zeros = PerCpuValues::try_from(zeros).unwrap();
                    self.counts.set(slot, zeros, 0).unwrap();
                }
            }
        }
        let mut told = Vec::new();
        while let Some(item) = self.events.next() {
            let event = Event::parse(&item).expect("an event that this agent knows");
            assert!(event.at != 0);
            told.push(Event {
                at: 0,
                ifindex: 0,
                ingress_ifindex: 0,
                ..event
            });
        }
        Some((counted, told))
    }
}

fn rows() -> Vec<Row> {
    toml::from_str::<File>(ROWS).unwrap().row
}

/// The frames of a row: link header, VLAN ID, bytes.
fn frames(row: &Row) -> Vec<(Link, u16, Vec<u8>)> {
    let wanted = |link: &str| {
        row.links
            .as_ref()
            .is_none_or(|links| links.iter().any(|l| l == link))
    };
    let links = LINKS.into_iter().filter(|(link, _)| wanted(link));
    links
        .map(|(link, vlan)| {
            let (kind, words) = match link {
                "" => (Link::Bare, row.packet.clone()),
                _ => (Link::Ethernet, format!("{link} / {}", row.packet)),
            };
            (kind, vlan, words.parse::<Packet>().unwrap().bytes())
        })
        .collect()
}

#[test]
fn names_and_ike_are_told_of_and_nothing_else() {
    let mut runs = 0;
    let mut snooper = Snooper::new(&SNOOPING);
    for row in rows() {
        for (link, vlan, frame) in frames(&row) {
            for program in each_program() {
                let for_it = program.hook != Hook::Xdp
                    && program.link == link
                    && program.direction == row.kind().direction();
                if !for_it {
                    continue;
                }
                let name = format!("{} in {} with VLAN {vlan}", row.name, program.name);
                let Some((counted, told)) = snooper.run(program, &frame, row.gso_segs) else {
                    continue;
                };
                let expected = row.fate().map(|fate| ((row.kind(), fate), 1));
                assert_eq!(counted, expected.into_iter().collect(), "{name}");
                let event = (row.fate() == Some(EventFate::Sent)).then(|| row.event(vlan));
                assert_eq!(told, event.into_iter().collect::<Vec<_>>(), "{name}");
                runs += 1;
            }
        }
    }
    println!("{} rows, {runs} runs", rows().len());
    assert_more(runs, 900);
}

#[test]
fn what_is_switched_off_is_not_looked_at() {
    for (features, names) in [
        (0, false),
        (Features::SNOOP_NAMES, true),
        (Features::SNOOP_IKE, false),
    ] {
        let setup = Setup {
            features: Setup::DEFAULT.features | features,
            pref64: None,
        };
        let mut snooper = Snooper::new(&setup);
        for row in rows()
            .iter()
            .filter(|row| row.fate() == Some(EventFate::Sent))
        {
            let on = features != 0 && row.kind().is_name() == names;
            let (_, _, frame) = frames(row)
                .into_iter()
                .find(|(l, ..)| *l == Link::Ethernet)
                .unwrap();
            let program = PROGRAMS
                .iter()
                .find(|p| p.link == Link::Ethernet && p.direction == row.kind().direction())
                .unwrap();
            let run = snooper
                .kernel
                .run(program.name, &frame, 0)
                .unwrap()
                .unwrap();
            let outcome = snooper.kernel.outcome(&run, program.hook).unwrap();
            snooper.kernel.clear(&outcome).unwrap();
            let looked = [Exit::Dns, Exit::NewIke]
                .iter()
                .any(|exit| outcome.exits.contains_key(&(program.hook, *exit)));
            assert_eq!(looked, on, "{}", row.name);
            let told = snooper.events.next().is_some();
            assert_eq!(told, on, "{}", row.name);
        }
    }
}

/// XDP leaves it to TC, under the same exit.
#[test]
fn xdp_tells_nothing() {
    let mut snooper = Snooper::new(&SNOOPING);
    let row = &rows()[0];
    let (_, _, frame) = frames(row)
        .into_iter()
        .find(|(l, ..)| *l == Link::Ethernet)
        .unwrap();
    let program = PROGRAMS
        .iter()
        .find(|program| program.name == "xdp_up")
        .unwrap();
    let (counted, told) = snooper.run(program, &frame, 0).unwrap();
    assert!(counted.is_empty() && told.is_empty());
}

/// One client's flood leaves something for the others, and all floods together no more than the rate.
#[test]
fn floods_are_bounded_by_client_and_in_all() {
    // 100 events a second, 10 of one client, on each CPU, and a second's worth at once.
    let rates = [10_000_000, 100_000_000];
    let kernel = Kernel::load_at_rates(&SNOOPING, [7, 9], &[], rates).unwrap();
    let mut snooper = Snooper::of(kernel);
    let start = Instant::now();
    let program = PROGRAMS
        .iter()
        .find(|program| program.name == "in_up")
        .unwrap();
    let mut send = |client: &str, count: usize| {
        let words = format!(
            "eth / ip4 {client} > 198.18.9.53 / udp 40000 > 53 / dns epdg.epc.mnc001.mcc262.pub.3gppnetwork.org"
        );
        let frame = words.parse::<Packet>().unwrap().bytes();
        let mut fates: BTreeMap<EventFate, u64> = BTreeMap::new();
        for _ in 0..count {
            let (counted, told) = snooper.run(program, &frame, 0).unwrap();
            for ((_, fate), count) in counted {
                assert_eq!(told.len(), usize::from(fate == EventFate::Sent));
                *fates.entry(fate).or_default() += count;
            }
        }
        fates
    };
    let flood = send("198.18.0.66", 500);
    let most = |rate: u64| (rate * (start.elapsed().as_secs() + 2) + 1) * nr_cpus().unwrap() as u64;
    let sent = flood[&EventFate::Sent];
    assert!((11..=most(10)).contains(&sent), "{flood:?}");
    assert_eq!(sent + flood[&EventFate::ClientRate], 500, "{flood:?}");
    // Another client's question passes at once.
    assert_eq!(
        send("198.18.0.2", 1),
        BTreeMap::from([(EventFate::Sent, 1)])
    );
    // Made-up clients use up the rate of all, and no more.
    let sent_before = sent + 1;
    let mut all: BTreeMap<EventFate, u64> = BTreeMap::new();
    for number in 0..1500_u32 {
        for (fate, count) in send(&format!("10.7.{}.{}", number >> 8, number & 0xff), 1) {
            *all.entry(fate).or_default() += count;
        }
    }
    println!("one client: {flood:?}; 1,500 made-up clients: {all:?}");
    // A second's worth at once, less what was sent before; then the rate. A bucket that some tens of clients happen to share
    // may refuse a few by itself.
    let (sent, rate) = (all[&EventFate::Sent], all[&EventFate::Rate]);
    assert!((100 - sent_before..=most(100)).contains(&sent), "{all:?}");
    assert!(rate >= 1500_u64.saturating_sub(most(100) + 300), "{all:?}");
    let by_client = all.get(&EventFate::ClientRate).copied().unwrap_or(0);
    assert_eq!(sent + rate + by_client, 1500, "{all:?}");
}

/// An agent that does not read costs events, and they are counted.
#[test]
fn a_full_ring_buffer_is_counted() {
    let mut snooper = Snooper::new(&SNOOPING);
    let program = PROGRAMS
        .iter()
        .find(|program| program.name == "in_up")
        .unwrap();
    let mut full = 0;
    for number in 0..2000_u32 {
        let words = format!(
            "eth / ip4 10.7.{}.{} > 198.18.9.53 / udp 40000 > 53 / dns a.3gppnetwork.org / bytes 1000",
            number >> 8,
            number & 0xff
        );
        let frame = words.parse::<Packet>().unwrap().bytes();
        snooper
            .kernel
            .run(program.name, &frame, 0)
            .unwrap()
            .unwrap();
        let slot = event_slot(EventKind::NameQuery, EventFate::Full);
        full = snooper.counts.get(&slot, 0).unwrap().iter().sum();
        if full > 0 {
            break;
        }
    }
    assert!(full > 0);
    let mut told = 0;
    while snooper.events.next().is_some() {
        told += 1;
    }
    assert!(told > 100, "{told}");
}
