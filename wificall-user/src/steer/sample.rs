//! An exit and a box for tests.

use std::time::Duration;

use super::place::Network;
use super::{Exit, Gateway, Health, WhenDown, WhenNone};
use crate::config::Mark;
use crate::net::{Kind, Link};

/// Two gateways and one of IPv6, beside the phones.
pub(crate) fn exit() -> Exit {
    Exit {
        name: "au".to_owned(),
        gateways: ["192.168.1.2", "192.168.1.3", "fd00::2"]
            .map(|address| Gateway {
                address: address.parse().unwrap(),
                device: None,
            })
            .into(),
        device: None,
        table: 1065,
        priority: 1000,
        mark: Mark {
            value: 0x65,
            mask: 0xff,
        },
        when_down: WhenDown::Next,
        when_none: WhenNone::Direct,
        health: Health::Neighbour,
        interval: Duration::from_secs(1),
        down_after: 3,
        up_after: 3,
        probe: None,
        manage_sysctls: false,
    }
}

/// `lan` towards phones, `wan`, and `wg` without IPv6 and with a smaller MTU.
pub(crate) fn network() -> Network {
    let link = |index, name: &str, kind, mtu| Link {
        index,
        name: name.to_owned(),
        kind,
        wireless: false,
        master: None,
        parent: None,
        up: true,
        running: true,
        mtu,
        address: (kind == Kind::Ethernet).then_some([2, 0, 0, 0, 0, index as u8]),
        info_kind: None,
    };
    let addresses = [
        (2, "192.168.1.1/24"),
        (2, "fd00::1/64"),
        (2, "fe80::1/64"),
        (3, "192.168.1.129/25"),
        (3, "198.51.100.1/24"),
        (3, "fe80::1/64"),
        (4, "10.9.0.1/32"),
    ];
    Network {
        links: vec![
            link(2, "lan", Kind::Ethernet, 1500),
            link(3, "wan", Kind::Ethernet, 1500),
            link(4, "wg", Kind::NoLinkHeader, 1420),
        ],
        addresses: addresses
            .map(|(index, net)| (index, net.parse().unwrap()))
            .into(),
        access: vec![2],
        ipv6: vec![2, 3],
    }
}
