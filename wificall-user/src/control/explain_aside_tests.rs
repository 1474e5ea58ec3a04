//! What explanations say of packets that are no match, and of tunnels and tiers.

use std::time::{Duration, SystemTime};

use wificall_common::abi::{Features, KEEP_OFF, KEEP_ON, KEEP_UNKNOWN, MOVED, Tunnel, TunnelKey};

use super::tests::{ADDRESS, SOS_ADDRESS, packet, to, world};
use super::*;
use crate::control::{hooks::selection, other::Arming};
use crate::discover::{Family, Filter, Outcome, Update};
use crate::explanation::{Content, Flow, Hex};
use crate::export::set::Text;

const LAN: &str = "[interfaces]\naccess = [\"lan\"]\n";
const DATABASE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/data/GeoLite2-Country-Test.mmdb"
);
/// In GB by that, and in SE.
const BRITAIN: &str = "2.125.160.217";
const SWEDEN: &str = "89.160.20.112";

fn explain(world: &World, packet: &Packet, live: Option<&Live>) -> Explanation {
    let selection = selection(&world.config.interfaces, &world.links, true);
    world.explain(packet, &world.desired().entries, &selection, live)
}

/// `hook exit dscp mark` of each hook.
fn hooks(explanation: &Explanation) -> Vec<String> {
    let hooks = explanation.hooks.iter();
    hooks
        .map(|hook| {
            let dscp = hook.dscp.map_or("-".to_owned(), |dscp| dscp.to_string());
            let mark = hook.mark.as_deref().unwrap_or("-");
            let drop = if hook.dropped { " dropped" } else { "" };
            format!("{} {} {dscp} {mark}{drop}", hook.hook, hook.exit)
        })
        .collect()
}

/// `part result` of each step.
fn steps(explanation: &Explanation) -> Vec<String> {
    let steps = explanation.steps.iter();
    steps
        .map(|step| format!("{} {}", step.part, step.result))
        .collect()
}

fn init_to(address: &str) -> Packet {
    let words: Vec<_> = format!("10.1.2.3 {address} udp 500 500")
        .split(' ')
        .map(str::to_owned)
        .collect();
    Packet {
        frame: Text(Hex(Flow::parse(&words).unwrap().frame(Some(Content::Ike)))),
        ..to(address)
    }
}

#[test]
fn other_ipsec_is_what_is_configured() {
    let peers = "peers = [\"9.9.0.0/16\"]\n";
    for (action, result, exit) in [
        ("action = \"pass\"", None, "not_endpoint - -"),
        (
            "action = \"mark\"\nmark = \"0x200/0xf00\"",
            Some("marked"),
            "other_marked - 0x200/0xf00",
        ),
        ("action = \"audit\"", Some("audited"), "other_audited - -"),
        (
            "action = \"drop\"\narm_at = 1",
            Some("dropped"),
            "other_dropped - - dropped",
        ),
        (
            "action = \"drop\"\narm_at = 1000",
            Some("not_armed"),
            "other_audited - -",
        ),
    ] {
        let world = world(&format!("{LAN}[other_ipsec]\n{action}\n{peers}"));
        let told = explain(&world, &to("9.8.7.6"), None);
        assert_eq!(hooks(&told), [format!("tc_ingress {exit}")], "{action}");
        let expected: Vec<_> = result
            .iter()
            .map(|result| format!("other_ipsec {result}"))
            .collect();
        assert_eq!(steps(&told), expected, "{action}");
        for (spared, why) in [
            ("9.9.1.2", "other_ipsec.peers (9.9.0.0/16)"),
            ("10.1.77.7", "this box's network 10.1.0.0/16"),
            ("10.1.0.1", "10.1.0.1 is this box"),
            ("224.0.0.1", "local everywhere"),
        ] {
            let told = explain(&world, &to(spared), None);
            assert_eq!(hooks(&told), ["tc_ingress not_endpoint - -"], "{spared}");
            if result.is_some() {
                assert_eq!(steps(&told), ["other_ipsec spared"]);
                assert!(told.steps[0].why.contains(why), "{:?}", told.steps);
            }
            assert!(told.text().contains("it passes untouched"));
        }
        // Of what is no IPsec, and of matches of the authoritative tier, nothing.
        let other = explain(&world, &packet("10.1.2.3 9.8.7.6 udp 1 443"), None);
        assert_eq!(hooks(&other), ["tc_ingress other_port - -"]);
        let known = explain(&world, &to(ADDRESS), None);
        assert_eq!(hooks(&known), ["tc_ingress matched 46 -"]);
    }
}

/// The running agent's word counts, and the configuration's only without one.
#[test]
fn armed_is_what_the_agent_says() {
    let world = world(&format!(
        "{LAN}[other_ipsec]\naction = \"drop\"\narm_at = 1\n"
    ));
    let mut live = Live {
        arming: Arming {
            armed: false,
            endpoints: 0,
            left_out: 0,
        },
        ..Live::default()
    };
    let told = explain(&world, &to("9.8.7.6"), Some(&live));
    assert_eq!(hooks(&told), ["tc_ingress other_audited - -"]);
    let text = told.text();
    assert!(
        text.contains("0 authoritative endpoints are known, and arm_at is 1"),
        "{text}"
    );
    assert!(text.contains("(counted as other_audited)"), "{text}");
    live.arming.armed = true;
    let told = explain(&world, &to("9.8.7.6"), Some(&live));
    assert!(
        told.text()
            .contains("lan tc_ingress: dropped (counted as other_dropped)")
    );
}

/// XDP drops; it neither marks nor counts.
#[test]
fn xdp_drops_and_leaves_the_rest_to_tc() {
    let xdp = "[interfaces]\naccess = [\"lan\"]\nxdp = [\"lan\"]\n[other_ipsec]\n";
    let drop = world(&format!("{xdp}action = \"drop\"\narm_at = 1\n"));
    let told = explain(&drop, &to("9.8.7.6"), None);
    assert_eq!(hooks(&told), ["xdp other_dropped - - dropped"]);
    let audit = world(&format!("{xdp}action = \"audit\"\n"));
    let told = explain(&audit, &to("9.8.7.6"), None);
    assert_eq!(
        hooks(&told),
        ["xdp not_endpoint - -", "tc_ingress other_audited - -"]
    );
    let mut later = to("9.8.7.6");
    later.frame.0.0[20..22].copy_from_slice(&[0, 40]);
    let told = explain(&drop, &later, None);
    assert_eq!(
        hooks(&told),
        ["xdp not_endpoint - -", "tc_ingress not_endpoint - -"]
    );
    assert_eq!(steps(&told), ["other_ipsec passes"]);
}

/// An observed endpoint matches, and is other IPsec.
#[test]
fn who_is_only_observed_does_not_pass() {
    for (action, expected) in [
        ("action = \"audit\"", "tc_ingress other_audited 46 -"),
        (
            "action = \"mark\"\nmark = \"0x200/0xf00\"",
            "tc_ingress other_marked 46 0x200/0xf00",
        ),
        (
            "action = \"drop\"\narm_at = 1",
            "tc_ingress other_dropped - - dropped",
        ),
        ("action = \"pass\"", "tc_ingress matched 46 -"),
    ] {
        let mut world = world(&format!("{LAN}[other_ipsec]\n{action}\n"));
        world.memory.catch(
            "9.8.7.6".parse().unwrap(),
            "10.1.2.3".parse().unwrap(),
            SystemTime::now(),
            &Filter::default(),
        );
        let told = explain(&world, &to("9.8.7.6"), None);
        let endpoint = told.endpoint.as_ref().unwrap();
        assert_eq!(endpoint.tier.as_deref(), Some("observed"));
        assert_eq!(hooks(&told), [expected], "{action}");
        if action.contains("pass") {
            continue;
        }
        // An emergency call is none, nor what is authoritative.
        for address in [ADDRESS, SOS_ADDRESS] {
            let told = explain(&world, &to(address), None);
            assert_eq!(hooks(&told), ["tc_ingress matched 46 -"]);
            assert_eq!(steps(&told), ["other_ipsec passes"]);
        }
    }
}

#[test]
fn clients_own_voice_is_reset() {
    let world = world(&format!("{LAN}[trust]\nbleach = true\n"));
    for (dscp, expected) in [(46, Some(0)), (44, Some(0)), (34, None), (0, None)] {
        for words in ["10.1.2.3 9.8.7.6 udp 1 5060", "10.1.2.3 9.8.7.6 esp"] {
            let mut packet = packet(words);
            packet.frame.0.0[15] = dscp << 2;
            let told = explain(&world, &packet, None);
            assert_eq!(told.hooks[0].dscp, expected, "{words} {dscp}");
            assert_eq!(!told.steps.is_empty(), expected.is_some());
            // From outside, nothing is.
            packet.direction = Some(crate::explanation::Way::Down);
            let down = explain(&world, &packet, None);
            assert_eq!(down.hooks[0].dscp, None);
        }
        let mut known = to(ADDRESS);
        known.frame.0.0[15] = dscp << 2;
        let told = explain(&world, &known, None);
        assert_eq!(told.steps, [], "a match has a right to it");
    }
}

#[test]
fn clients_own_voice_is_reset_to_observed_endpoints_without_dscp() {
    for (rest, dscp, part) in [
        ("", 46, &[][..]),
        ("[observed]\ndscp = false\n", 46, &[]),
        (
            "[observed]\ndscp = false\n[trust]\nbleach = true\n",
            0,
            &["bleach reset"],
        ),
    ] {
        let mut world = world(&format!("{LAN}{rest}"));
        let sighting = crate::discover::Sighting {
            name: "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org".into(),
            addresses: vec![BRITAIN.parse().unwrap()],
            client: "10.1.2.3".parse().unwrap(),
            at: SystemTime::now(),
        };
        let applied = world.memory.observe(&sighting, &Filter::default());
        assert!(applied.counts);
        let mut packet = to(BRITAIN);
        packet.frame.0.0[15] = 46 << 2;
        let told = explain(&world, &packet, None);
        assert_eq!(told.hooks[0].dscp.unwrap_or(46), dscp, "{rest}");
        assert_eq!(told.hooks[0].cap, Some(150));
        assert_eq!(steps(&told), part, "{rest}");
    }
}

const COMPANIONS: &str = r#"
[interfaces]
access = ["lan"]
[[exit]]
name = "far"
gateways = ["10.1.0.9"]
table = 1065
mark = "0x65/0xff"
[[policy]]
name = "other"
clients = ["10.1.2.3"]
mark = "0x1/0xff"
companions = ["other.example.com"]
[[policy]]
name = "phone"
clients = ["10.1.2.0/24"]
exit = "far"
companions = ["entitlement.example.com"]
"#;

#[test]
fn companions_take_the_exit_of_their_client() {
    let mut world = world(COMPANIONS);
    let update = Update {
        name: "entitlement.example.com".into(),
        family: Family::V4,
        outcome: Outcome::Addresses {
            addresses: vec!["9.8.7.6".parse().unwrap()],
            ttl: Duration::from_secs(60),
        },
        at: SystemTime::now(),
    };
    let names: Vec<String> = world.config.companions().map(Into::into).collect();
    let companions = world.memory.companions_mut();
    companions.select(names.iter().map(String::as_str));
    assert!(companions.apply(&update, &Filter::default()));

    let steered = "tc_ingress companion - 0x65/0xff";
    for (words, expected, step) in [
        ("10.1.2.3 9.8.7.6 tcp 1 443", steered, Some("steered")),
        ("10.1.2.3 9.8.7.6 udp 1 443", steered, Some("steered")),
        (
            "10.1.3.3 9.8.7.6 tcp 1 443",
            "tc_ingress other_protocol - -",
            Some("not_for_client"),
        ),
        (
            "10.1.2.3 9.8.7.7 tcp 1 443",
            "tc_ingress other_protocol - -",
            Some("unknown"),
        ),
        (
            "10.1.2.3 9.8.7.6 tcp 1 80",
            "tc_ingress other_protocol - -",
            None,
        ),
    ] {
        let told = explain(&world, &packet(words), None);
        assert_eq!(hooks(&told), [expected], "{words}");
        let result = told.steps.first().map(|step| step.result.as_str());
        assert_eq!(result, step, "{words}");
        if step == Some("steered") {
            assert_eq!(told.policy.as_deref(), Some("phone"));
            assert_eq!(told.leaves_by.as_deref(), Some("far"));
            let condition = told.policies[0].condition.as_deref();
            assert_eq!(condition, Some("companions"));
        }
    }
    world.steering.own = vec![crate::config::Client::Network(
        "10.1.2.9/32".parse().unwrap(),
    )];
    let told = explain(&world, &packet("10.1.2.9 9.8.7.6 tcp 1 443"), None);
    assert!(
        told.notes[0].contains("gateway of an exit"),
        "{:?}",
        told.notes
    );
    assert_eq!(hooks(&told), ["tc_ingress other_protocol - -"]);
}

fn catching(rest: &str) -> World {
    let mut world = world(&format!(
        "[interfaces]\naccess = [\"lan\"]\n[geoip]\ndatabase = \"{DATABASE}\"\n[observed]\nmark = true\n\
         [catch_all]\nenabled = true\n{rest}\n[[exit]]\nname = \"far\"\ngateways = [\"10.1.0.9\"]\ntable = 1065\n\
         mark = \"0x65/0xff\"\n[[policy]]\nname = \"britain\"\ncountries = [\"GB\"]\nexit = \"far\"\n"
    ));
    world.follow_geoip();
    world
}

#[test]
fn catch_all_holds_the_first_and_says_what_then_decides() {
    let world = catching("");
    let held = explain(&world, &init_to(BRITAIN), None);
    assert_eq!(hooks(&held), ["tc_ingress held - - dropped"]);
    assert_eq!(steps(&held), ["catch_all held"]);
    let step = &held.steps[0];
    assert_eq!(
        (step.country.as_deref(), step.policy.as_deref()),
        (Some("GB"), Some("britain"))
    );
    assert!(
        step.why.contains("policy \"britain\" decides"),
        "{}",
        step.why
    );
    assert_eq!(held.exit, "new_ike", "it is looked at");
    let sweden = explain(&world, &init_to(SWEDEN), None);
    assert_eq!(hooks(&sweden), ["tc_ingress held - - dropped"]);
    assert!(sweden.steps[0].why.contains("SE, which no policy is for"));
    assert_eq!(sweden.steps[0].policy, None);
    let esp = explain(&world, &to(BRITAIN), None);
    assert_eq!(hooks(&esp), ["tc_ingress not_endpoint - -"]);
    assert_eq!(steps(&esp), ["catch_all passes"]);
    let own = explain(&world, &init_to("10.1.77.7"), None);
    assert_eq!(steps(&own), ["catch_all spared"]);
    assert_eq!(hooks(&own), ["tc_ingress new_ike - -"]);
}

#[test]
fn catch_all_marks_the_first_and_its_tunnel() {
    let world = catching("first = \"mark\"\nexit = \"far\"\n");
    let caught = "tc_ingress caught_first - 0x65/0xff";
    let first = explain(&world, &init_to(SWEDEN), None);
    assert_eq!(hooks(&first), [caught]);
    assert_eq!(first.leaves_by.as_deref(), Some("far"));
    let esp = explain(&world, &to(SWEDEN), None);
    assert_eq!(steps(&esp), ["catch_all unknown"]);
    let mut live = live(1065, SWEDEN);
    let esp = explain(&world, &to(SWEDEN), Some(&live));
    assert_eq!(steps(&esp), ["catch_all kept"]);
    assert_eq!(hooks(&esp), [caught]);
    live.tunnels.clear();
    let esp = explain(&world, &to(SWEDEN), Some(&live));
    assert_eq!(steps(&esp), ["catch_all passes"]);
    assert_eq!(hooks(&esp), ["tc_ingress not_endpoint - -"]);
}

/// A tunnel of 10.1.2.3 to `endpoint` that began 100 steps ago with the exit of this table and its mark, low byte 9.
fn live(table: u32, endpoint: &str) -> Live {
    let mapped = |text: &str| {
        let address: Ipv4Addr = text.parse().unwrap();
        address.to_ipv6_mapped().octets()
    };
    let key = TunnelKey {
        client: mapped("10.1.2.3"),
        endpoint: mapped(endpoint),
    };
    let tunnel = Tunnel {
        exit: table,
        mark: 0x65,
        mask: 0xff,
        seen: 1000,
        began: 900 | MOVED,
        esp: 0,
    };
    Live {
        features: Features::MARK | Features::EXITS,
        keep: KEEP_ON,
        tunnels: [(key, tunnel)].into(),
        now: 1000,
        at: 1_700_000_000,
        ..Live::default()
    }
}

const TWO_EXITS: &str = r#"
[interfaces]
access = ["lan"]
[[exit]]
name = "before"
gateways = ["10.1.0.8"]
table = 1065
mark = "0x65/0xff"
[[exit]]
name = "now"
gateways = ["10.1.0.9"]
table = 1066
mark = "0x66/0xff"
[[policy]]
name = "germany"
operators = ["262-01"]
exit = "now"
"#;

#[test]
fn a_tunnel_keeps_its_exit() {
    let world = world(TWO_EXITS);
    let mut live = live(1065, ADDRESS);
    let told = |packet: &Packet, live: &Live| {
        let told = explain(&world, packet, Some(live));
        let mark = told.hooks[0].mark.clone().unwrap_or_default();
        let exit = told.leaves_by.clone().unwrap_or_default();
        (steps(&told).join(" "), mark, exit)
    };
    let is = |step: &str, mark: &str, exit: &str| {
        (format!("tunnel {step}"), mark.to_owned(), exit.to_owned())
    };
    let before = ("0x65/0xff", "before");
    let now = ("0x66/0xff", "now");
    let (esp, init) = (to(ADDRESS), init_to(ADDRESS));

    assert_eq!(told(&esp, &live), is("kept", before.0, before.1));
    let text = explain(&world, &esp, Some(&live));
    // A hundred steps of 2^30 ns.
    assert!(text.steps[0].why.contains("107 s ago"), "{:?}", text.steps);
    assert_eq!(text.steps[0].since, Some(1_700_000_000 - 107));
    assert_eq!(text.policy.as_deref(), Some("germany"));
    assert_eq!(told(&init, &live), is("renewed", now.0, now.1));
    live.keep = KEEP_OFF;
    assert_eq!(told(&esp, &live), is("by_policy", now.0, now.1));
    for tunnel in live.tunnels.values_mut() {
        (tunnel.exit, tunnel.mark) = (1066, 0x66);
    }
    live.keep = KEEP_ON;
    assert_eq!(told(&esp, &live), is("agrees", now.0, now.1));
    live.tunnels.clear();
    assert_eq!(told(&esp, &live), is("begins", now.0, now.1));
    live.keep = KEEP_UNKNOWN;
    assert_eq!(told(&esp, &live), is("kept", "", ""));
    assert_eq!(told(&init, &live), is("begins", now.0, now.1));
    // Without an agent, that is not known.
    let offline = explain(&world, &esp, None);
    assert_eq!(steps(&offline), ["tunnel unknown"]);
    assert!(offline.text().contains("not known without an agent"));
}

/// What goes to a network of ours comes from outside, unless it comes from there.
#[test]
fn which_way_it_goes_is_seen_by_our_networks() {
    let world = world(&format!("{LAN}[trust]\nbleach = true\n"));
    for (words, bleached) in [
        ("9.8.7.6 10.1.2.3 udp 1 5060", false),
        ("10.1.2.3 9.8.7.6 udp 1 5060", true),
        ("10.1.2.3 10.1.2.4 udp 1 5060", true),
    ] {
        let mut packet = packet(words);
        packet.frame.0.0[15] = 46 << 2;
        let told = explain(&world, &packet, None);
        assert_eq!(!told.steps.is_empty(), bleached, "{words}");
    }
}
