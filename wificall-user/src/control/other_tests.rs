use std::num::NonZeroU32;

use super::*;
use crate::config::Mark;

fn drop_at(arm_at: u32) -> OtherAction {
    OtherAction::Drop {
        arm_at: NonZeroU32::new(arm_at).unwrap(),
    }
}

/// The number of endpoints, step by step, and whether it is armed then.
#[test]
fn it_arms_at_the_number_and_disarms_well_below() {
    let mut arming = Arming::default();
    for (endpoints, armed) in [
        (0, false),
        (99, false),
        (100, true),
        (99, true),
        (80, true),
        (79, false),
        (80, false),
        (99, false),
        (100, true),
        (0, false),
    ] {
        arming = arming.next(drop_at(100), endpoints, 0);
        assert_eq!(arming.armed, armed, "{endpoints}");
    }
    let mut one = Arming::default().next(drop_at(1), 1, 0);
    assert!(one.armed);
    one = one.next(drop_at(1), 0, 0);
    assert!(!one.armed, "an empty table never drops");
}

#[test]
fn what_found_no_room_disarms() {
    let armed = Arming::default().next(drop_at(10), 1000, 0);
    assert!(armed.armed);
    assert!(!armed.next(drop_at(10), 1000, 1).armed);
    let left_out = |change: fn(&mut LeftOut)| {
        let mut left_out = LeftOut::default();
        change(&mut left_out);
        missing(&left_out)
    };
    assert_eq!(left_out(|all| all.groups = 7), 0);
    assert_eq!(left_out(|all| all.ipv4_blocks = 1), 1);
    assert_eq!(left_out(|all| all.ipv6_blocks = 1), 1);
    assert_eq!(left_out(|all| all.hosts = 1), 1);
    assert_eq!(left_out(|all| all.prefixes = 1), 1);
    assert_eq!(left_out(|all| all.policies = 1), 1);
}

/// Nothing but `drop` ever drops, however many endpoints there are.
#[test]
fn features_follow_the_action() {
    let mark = OtherAction::Mark(Mark {
        value: 0x200,
        mask: 0xf00,
    });
    for (action, disarmed, armed) in [
        (OtherAction::Pass, 0, 0),
        (mark, Features::OTHER_MARK, Features::OTHER_MARK),
        (
            OtherAction::Audit,
            Features::OTHER_AUDIT,
            Features::OTHER_AUDIT,
        ),
        (drop_at(5), Features::OTHER_AUDIT, Features::OTHER_DROP),
    ] {
        let trust = Trust::default();
        assert_eq!(features(action, trust, false), disarmed, "{action:?}");
        let arming = Arming::default().next(action, 5, 0);
        assert_eq!(features(action, trust, arming.armed), armed, "{action:?}");
    }
    let bleach = Trust { bleach: true };
    assert_eq!(features(OtherAction::Pass, bleach, false), Features::BLEACH);
    assert_eq!(super::mark(mark), [0x200, 0xf00]);
    assert_eq!(super::mark(OtherAction::Audit), [0, 0]);
}

/// The table of RFC 6052 §2.4: 192.0.2.33 under each length; and networks.
#[test]
fn ipv4_peers_are_spared_behind_nat64() {
    for (prefix, peer, expected) in [
        ("2001:db8::/32", "192.0.2.33/32", "2001:db8:c000:221::/64"),
        (
            "2001:db8:100::/40",
            "192.0.2.33/32",
            "2001:db8:1c0:2:21::/80",
        ),
        ("2001:db8:100::/40", "192.0.2.0/24", "2001:db8:1c0:2::/64"),
        (
            "2001:db8:122::/48",
            "192.0.2.33/32",
            "2001:db8:122:c000:2:2100::/88",
        ),
        (
            "2001:db8:122:300::/56",
            "192.0.2.33/32",
            "2001:db8:122:3c0:0:221::/96",
        ),
        (
            "2001:db8:122:344::/64",
            "192.0.2.33/32",
            "2001:db8:122:344:c0:2:2100::/104",
        ),
        (
            "2001:db8:122:344::/64",
            "10.0.0.0/8",
            "2001:db8:122:344:a::/80",
        ),
        ("64:ff9b::/96", "192.0.2.33/32", "64:ff9b::c000:221/128"),
        ("64:ff9b::/96", "10.0.0.0/8", "64:ff9b::a00:0/104"),
        ("64:ff9b::/96", "0.0.0.0/0", "64:ff9b::/96"),
    ] {
        let net: Ipv6Net = prefix.parse().unwrap();
        let pref64 = Pref64 {
            prefix: net.addr().octets(),
            len: net.prefix_len(),
        };
        let expected: Ipv6Net = expected.parse().unwrap();
        let embedded = embed(&pref64, peer.parse().unwrap());
        assert_eq!(embedded, Some(expected), "{peer} behind {prefix}");
    }
}

#[test]
fn the_box_its_networks_and_peers_are_spared() {
    let nets =
        |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|t| t.parse().unwrap()).collect() };
    let local = nets(&["10.77.0.1/24", "2001:db8::1/64", "203.0.113.9/32"]);
    let peers = nets(&["198.51.100.7/32", "2001:db8:5::/48"]);
    let pref64 = Pref64 {
        prefix: "64:ff9b::".parse::<Ipv6Addr>().unwrap().octets(),
        len: 96,
    };
    let spared = spared(&local, &peers, &[pref64]);
    let is = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        spared.iter().any(|net| net.contains(&address))
    };
    for address in [
        "10.77.0.1",
        "10.77.0.255",
        "2001:db8::77",
        "203.0.113.9",
        "198.51.100.7",
        "64:ff9b::c633:6407",
        "2001:db8:5::1",
        "224.0.0.251",
        "255.255.255.255",
        "169.254.1.1",
        "ff02::1",
        "fe80::1",
    ] {
        assert!(is(address), "{address}");
    }
    for address in [
        "10.78.0.1",
        "203.0.113.10",
        "198.51.100.8",
        "64:ff9b::c633:6408",
        "2001:db8:6::1",
        "192.0.2.1",
    ] {
        assert!(!is(address), "{address}");
    }
    let v4: IpNet = "10.77.0.0/24".parse().unwrap();
    let mapped: Ipv6Addr = "::ffff:10.77.0.0".parse().unwrap();
    assert_eq!(key(&v4), (120, mapped.octets()));
}

#[test]
fn the_busiest_come_first_and_no_more_than_twenty() {
    let address = |last: u8| IpAddr::from([192, 0, 2, last]);
    let all = (0..30).map(|n| (address(n), u64::from(n % 10), 0, ()));
    let top = top(all);
    assert_eq!(top.len(), 20);
    assert_eq!(top[0].0, address(9));
    assert_eq!(top[1].0, address(19));
    assert!(top.iter().all(|(_, packets, ..)| *packets >= 3));
    assert_eq!(top[19].1, 3);
}
