//! Explanations of packets in a world that is made up: no kernel, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::{self, Client as ConfigClient};
use crate::control::{
    country::Geo,
    desired::{Entry, Meaning},
    hooks::selection,
    label::Label,
    world::Steering,
};
use crate::discover::{Bounds, Family, Memory, Outcome, Target, Targets, Tier, Update, Visited};
use crate::explanation::{Content, Flow, Hex, Tried, Way};
use crate::export::set::Text;
use crate::net::{self, Link as NetLink};

const NAME: &str = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
const EMERGENCY: &str = "sos.epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
/// What the names are answered with.
pub(super) const ADDRESS: &str = "109.237.187.195";
pub(super) const SOS_ADDRESS: &str = "109.237.187.200";

fn link(index: u32, name: &str, kind: Kind) -> NetLink {
    NetLink {
        index,
        name: name.into(),
        kind,
        wireless: name.starts_with("wlan"),
        master: None,
        parent: None,
        up: true,
        running: true,
        mtu: 1500,
        address: None,
        info_kind: None,
    }
}

/// A box with `lan`, `wlan0`, `tun0` and `wan`, whose resolver has answered both names.
pub(super) fn world(source: &str) -> World {
    let source = format!("[discovery]\noperators = [\"262-01\"]\n{source}");
    let config = match config::parse(&source, "test.toml".as_ref()) {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{errors}"),
    };
    let mut memory = Memory::new(Duration::from_secs(86_400), Bounds::default());
    let mut targets = Targets::default();
    for (name, address) in [(NAME, ADDRESS), (EMERGENCY, SOS_ADDRESS)] {
        let owners = config.catalogue.owner_of_name(name).unwrap().1;
        targets.names.push(Target {
            name: name.into(),
            owners: owners.into(),
        });
        memory.set_targets(&targets.names);
        let update = Update {
            name: name.into(),
            family: Family::V4,
            outcome: Outcome::Addresses {
                addresses: vec![address.parse().unwrap()],
                ttl: Duration::from_secs(60),
            },
            at: SystemTime::now(),
        };
        memory.apply(&update, &crate::discover::Filter::default());
    }
    World {
        config,
        memory,
        targets,
        visited: Visited::default(),
        links: vec![
            link(1, "lan", Kind::Ethernet),
            link(2, "wlan0", Kind::Ethernet),
            link(3, "tun0", Kind::NoLinkHeader),
            link(4, "wan", Kind::Ethernet),
        ],
        local: vec!["10.1.0.1/16".parse().unwrap()],
        ways_out: BTreeSet::new(),
        geo: Geo::default(),
        steering: Steering::default(),
    }
}

pub(super) fn packet(text: &str) -> Packet {
    let words: Vec<_> = text.split_whitespace().collect();
    Packet {
        frame: Text(Hex(Flow::parse(&words).unwrap().frame(None))),
        link: None,
        direction: None,
        interface: None,
        client_mac: None,
        first_fragment: None,
    }
}

pub(super) fn to(address: &str) -> Packet {
    packet(&format!("10.1.2.3 {address} udp 40000 4500"))
}

fn explain(world: &World, packet: &Packet) -> Explanation {
    let selection = selection(&world.config.interfaces, &world.links, true);
    let desired = world.desired().entries;
    world.explain(packet, &desired, &selection, Some(&Live::default()))
}

/// `policy condition` of those that were tried.
fn tried(explanation: &Explanation) -> Vec<String> {
    let tried = explanation.policies.iter();
    tried
        .map(
            |Tried {
                 policy, condition, ..
             }| { format!("{policy} {}", condition.as_deref().unwrap_or("matches")) },
        )
        .collect()
}

const CLIENTS: &str = r#"
[interfaces]
access = ["lan", "wlan*"]
[[policy]]
name = "phone"
clients = ["02:00:00:00:00:01", "10.1.9.0/24"]
mark = "0x1/0xff"
[[policy]]
name = "air"
interfaces = ["wlan*"]
mark = "0x2/0xff"
[[policy]]
name = "all"
operators = ["262-01"]
mark = "0x3/0xff"
"#;

#[test]
fn whose_packet_it_is_and_where_decides() {
    let world = world(CLIENTS);
    let mut unknown = to(ADDRESS);
    let explanation = explain(&world, &unknown);
    // Two interfaces: nobody said which.
    assert_eq!(
        tried(&explanation),
        ["phone clients", "air interfaces", "all matches"]
    );
    assert_eq!(explanation.policies[1].found, Vec::<String>::new());
    let marks: Vec<_> = explanation
        .hooks
        .iter()
        .map(|hook| (&*hook.interface, hook.mark.as_deref()))
        .collect();
    assert_eq!(
        marks,
        [("lan", Some("0x3/0xff")), ("wlan0", Some("0x3/0xff"))]
    );

    unknown.interface = Some("wlan0".into());
    let explanation = explain(&world, &unknown);
    assert_eq!(tried(&explanation), ["phone clients", "air matches"]);
    assert_eq!(explanation.hooks[0].mark.as_deref(), Some("0x2/0xff"));
    assert_eq!(explanation.hooks.len(), 1);

    unknown.client_mac = Some(Text(Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(tried(&explain(&world, &unknown)), ["phone matches"]);
    let near = packet(&format!("10.1.9.7 {ADDRESS} udp 40000 4500"));
    assert_eq!(tried(&explain(&world, &near)), ["phone matches"]);
    // The frame's own address is a client's only on the side of clients.
    let mut framed = to(ADDRESS);
    framed.frame.0.0[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    assert_eq!(tried(&explain(&world, &framed)), ["phone matches"]);
    framed.interface = Some("eth9".into());
    let explanation = explain(&world, &framed);
    assert!(explanation.hooks.is_empty());
    assert!(
        explanation.notes[0].contains("`eth9` is no interface"),
        "{:?}",
        explanation.notes
    );
}

#[test]
fn what_is_known_of_the_endpoint() {
    let world = world(CLIENTS);
    let endpoint = explain(&world, &to(ADDRESS)).endpoint.unwrap();
    assert_eq!((&*endpoint.found_as, &*endpoint.network), ("host", ADDRESS));
    assert_eq!(endpoint.names, [NAME]);
    assert_eq!(
        (endpoint.operators, endpoint.countries),
        (vec!["262-01".into()], vec!["DE".into()])
    );
    assert_eq!(
        (endpoint.tier.as_deref(), endpoint.emergency),
        (Some(Tier::Authoritative.as_str()), false)
    );
    // Its block is known by both, and is not for emergency calls.
    let beside = explain(&world, &to("109.237.187.9")).endpoint.unwrap();
    assert_eq!(
        (&*beside.found_as, &*beside.network),
        ("block", "109.237.187.0/24")
    );
    assert_eq!(beside.addresses, [ADDRESS, SOS_ADDRESS]);
    assert_eq!(
        (beside.sources, beside.emergency),
        (vec!["resolver".into()], false)
    );
    assert!(
        explain(&world, &to(SOS_ADDRESS))
            .endpoint
            .unwrap()
            .emergency
    );
}

const DROPS: &str = r#"
[interfaces]
access = ["lan"]
[[policy]]
name = "nobody"
operators = ["262-01"]
drop = true
[[policy]]
name = "rest"
operators = ["262-*"]
"#;

#[test]
fn emergency_calls_are_not_dropped() {
    let world = world(DROPS);
    let dropped = explain(&world, &to(ADDRESS));
    assert_eq!(tried(&dropped), ["nobody matches"]);
    let hook = &dropped.hooks[0];
    assert_eq!(
        (hook.dropped, hook.dscp, hook.mark.as_ref()),
        (true, None, None)
    );
    assert!(
        dropped.text().contains("lan tc_ingress: dropped"),
        "{}",
        dropped.text()
    );
    let spared = explain(&world, &to(SOS_ADDRESS));
    assert_eq!(tried(&spared), ["nobody drop", "rest matches"]);
    assert!(!spared.hooks[0].dropped);
    assert_eq!(spared.notes, Vec::<String>::new());
}

const EXITS: &str = r#"
[interfaces]
access = ["lan"]
[[exit]]
name = "far"
gateways = ["10.1.0.9"]
table = 1065
mark = "0x65/0xff"
[[policy]]
name = "far"
operators = ["262-01"]
exit = "far"
"#;

#[test]
fn exits_gateways_and_emergency() {
    let mut world = world(EXITS);
    let leaves = |world: &World, packet: &Packet| explain(world, packet).leaves_by;
    assert_eq!(leaves(&world, &to(ADDRESS)).as_deref(), Some("far"));
    world.steering.blocked.insert((1065, net::Family::V4));
    assert_eq!(
        leaves(&world, &to(ADDRESS)).as_deref(),
        Some("far"),
        "it is blocked there"
    );
    let spared = explain(&world, &to(SOS_ADDRESS));
    assert_eq!(
        (spared.leaves_by, spared.hooks[0].mark.as_ref()),
        (None, None)
    );
    assert!(spared.notes[0].contains("emergency"), "{:?}", spared.notes);
    world.steering.own = vec![ConfigClient::Network("10.1.0.9/32".parse().unwrap())];
    let own = explain(&world, &packet(&format!("10.1.0.9 {ADDRESS} udp 1 4500")));
    assert!(
        own.notes[0].contains("gateway of an exit"),
        "{:?}",
        own.notes
    );
    assert_eq!((own.policy, own.hooks[0].dscp), (None, None));
}

/// What runs where: XDP before TC, priority where packets go out, nothing at an uplink beside an access interface.
#[test]
fn each_hook_has_its_part() {
    let parts = |source: &str, packet: &Packet| -> Vec<String> {
        let explanation = explain(&world(source), packet);
        let parts = explanation.hooks.iter().map(|hook| {
            format!(
                "{} {} {:?} {:?} {:?}",
                hook.interface,
                hook.hook,
                hook.dscp,
                hook.mark.is_some(),
                hook.priority
            )
        });
        parts.collect()
    };
    let rest = "[defaults]\nmark = \"0x65/0xff\"\n";
    let down = packet(&format!("{ADDRESS} 10.1.2.3 udp 4500 40000"));
    let both = format!(
        "[interfaces]\naccess = [\"lan\", \"wlan*\"]\nuplink = [\"wan\"]\nxdp = [\"lan\"]\n{rest}"
    );
    assert_eq!(
        parts(&both, &to(ADDRESS)),
        [
            "lan xdp Some(46) false None",
            "lan tc_ingress None true None",
            "wlan0 tc_ingress Some(46) true None",
        ]
    );
    assert_eq!(
        parts(&both, &down),
        [
            "lan tc_egress Some(46) false Some(6)",
            "wlan0 tc_egress Some(46) false Some(262)"
        ]
    );
    let uplink = format!("[interfaces]\nuplink = [\"wan\"]\n{rest}");
    assert_eq!(
        parts(&uplink, &to(ADDRESS)),
        ["wan tc_egress Some(46) false Some(6)"]
    );
    assert_eq!(
        parts(&uplink, &down),
        ["wan tc_ingress Some(46) false None"]
    );
}

#[test]
fn which_way_and_behind_which_header() {
    let world = world("[interfaces]\naccess = [\"tun0\"]\n");
    let mut bare = to(ADDRESS);
    bare.frame.0.0.drain(..14);
    // As packets at the only interface start.
    assert!(explain(&world, &bare).matches);
    bare.direction = Some(Way::Down);
    let wrong = explain(&world, &bare);
    assert_eq!((wrong.matches, &*wrong.exit), (false, "other_port"));
    assert_eq!(wrong.direction, Some(Way::Down));
    // An endpoint at the wrong port decides the way all the same.
    let mut reverse = packet(&format!("{ADDRESS} 10.1.2.3 udp 443 40000"));
    reverse.link = Some(crate::explanation::LinkName::Ethernet);
    let reverse = explain(&world, &reverse);
    assert_eq!(reverse.direction, Some(Way::Down));
    assert!(reverse.endpoint.is_some());
    assert_eq!(reverse.why, "UDP from 443: not 500 or 4500");
}

#[test]
fn an_endpoint_behind_nat64_is_the_one_that_it_stands_for() {
    let source = "nat64_prefix = \"64:ff9b::/96\"\n[interfaces]\naccess = [\"lan\"]\n";
    let world = world(source);
    let explanation = explain(&world, &packet("fd00::2 64:ff9b::6ded:bbc3 udp 40000 4500"));
    assert!(explanation.matches, "{}", explanation.text());
    assert_eq!(
        explanation.endpoint.unwrap().address.unwrap().0.to_string(),
        ADDRESS
    );
}

#[test]
fn later_fragments_follow_the_first() {
    let world = world(
        "[interfaces]\naccess = [\"lan\"]\n[defaults]\ndscp = { up = { default = \"EF\", ike = \"CS6\" } }\n",
    );
    let words: Vec<_> = format!("10.1.2.3 {ADDRESS} udp 40000 4500")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let mut first = Flow::parse(&words).unwrap().frame(Some(Content::Ike));
    (first[18], first[20]) = (7, 0x20);
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 40]);
    let mut packet = to(ADDRESS);
    packet.frame = Text(Hex(later));
    let alone = explain(&world, &packet);
    assert_eq!(alone.exit, "unknown_fragment");
    assert!(alone.hints[0].contains("--first-fragment"));
    packet.first_fragment = Some(Text(Hex(first.clone())));
    let followed = explain(&world, &packet);
    assert_eq!(
        (followed.class.as_deref(), followed.treated_as.as_deref()),
        (Some("fragment"), Some("ike"))
    );
    assert_eq!(followed.hooks[0].dscp, Some(48));
    first[18] = 8;
    packet.first_fragment = Some(Text(Hex(first)));
    assert_eq!(
        explain(&world, &packet).exit,
        "unknown_fragment",
        "of another datagram"
    );
}

/// What an agent before has left in the kernel, and nobody knows any more.
#[test]
fn what_is_left_over_is_treated_as_it_was() {
    let world = world(DROPS);
    let mut desired = world.desired().entries;
    let row = wificall_common::abi::Policy {
        mark: 9,
        mask: 0xff,
        dscp: [[10; 4]; 2],
        valid: 1,
        ..Default::default()
    };
    let meaning = Meaning {
        label: Label::overflow(),
        row,
        choices: Default::default(),
    };
    let entry = Entry {
        meaning: Some(meaning),
        flags: 0,
        members: [u32::MAX; 8],
    };
    desired.insert(Key::Block4([9, 9, 9, 0]), entry);
    let selection = selection(&world.config.interfaces, &world.links, true);
    let explanation = world.explain(&to("9.9.9.9"), &desired, &selection, Some(&Live::default()));
    assert!(explanation.matches);
    assert_eq!(explanation.hooks[0].mark.as_deref(), Some("0x9/0xff"));
    assert!(explanation.notes[0].contains("left from an agent before"));
    let endpoint = explanation.endpoint.unwrap();
    assert_eq!((&*endpoint.network, endpoint.tier), ("9.9.9.0/24", None));
}

/// The name of another operator that only a client has asked for, and that our resolver has confirmed.
fn confirm(world: &mut World, name: &str, address: &str) {
    let (at, filter) = (SystemTime::now(), crate::discover::Filter::default());
    let sighting = crate::discover::Sighting {
        name: name.into(),
        addresses: Vec::new(),
        client: "10.1.2.3".parse().unwrap(),
        at,
    };
    assert!(world.memory.observe(&sighting, &filter).counts);
    let update = Update {
        name: name.into(),
        family: Family::V4,
        outcome: Outcome::Addresses {
            addresses: vec![address.parse().unwrap()],
            ttl: Duration::from_secs(60),
        },
        at,
    };
    world.memory.apply(&update, &filter);
}

#[test]
fn a_confirmed_emergency_name_makes_a_configured_address_one_for_emergency_calls() {
    let mut world = world("[interfaces]\naccess = [\"lan\"]\n");
    let said = |world: &World| world.known()[&format!("{ADDRESS}/32").parse().unwrap()].clone();
    assert!(!said(&world).emergency);
    confirm(
        &mut world,
        "sos.epdg.epc.mnc002.mcc262.pub.3gppnetwork.org",
        ADDRESS,
    );
    let said = said(&world);
    assert_eq!((said.tier, said.emergency), (Tier::Authoritative, true));
    assert_eq!(said.owners.len(), 1, "whose it is, the best source says");
}

#[test]
fn an_exit_of_some_clients_only_has_epdgs_to_be_asked_by() {
    let exit = "[[exit]]\nname = \"de\"\ngateways = [\"10.1.0.2\"]\ntable = 1065\nmark = \"0x65/0xff\"\n\
                [interfaces]\naccess = [\"lan\"]\n";
    let policy =
        |condition: &str| format!("{exit}[[policy]]\nname = \"p\"\n{condition}\nexit = \"de\"\n");
    let address = ADDRESS.parse().unwrap();
    for condition in [
        "countries = [\"DE\"]",
        "clients = [\"10.1.2.0/24\"]",
        "interfaces = [\"lan\"]",
    ] {
        let steered = world(&policy(condition)).steered();
        let expected = BTreeMap::from([((1065, net::Family::V4), address)]);
        assert_eq!(steered, expected, "{condition}");
    }
    assert!(world(&policy("countries = [\"AU\"]")).steered().is_empty());
    let prefix = |prefix: &str| {
        let policy = policy("countries = [\"AU\"]");
        format!("{policy}[[prefix]]\nprefix = \"{prefix}\"\noperator = \"505-01\"\n")
    };
    let expected = BTreeMap::from([((1065, net::Family::V4), "9.7.1.1".parse().unwrap())]);
    assert_eq!(world(&prefix("9.7.1.1/32")).steered(), expected);
    // Nobody knows who in it is one.
    assert!(world(&prefix("9.7.1.0/31")).steered().is_empty());
}
