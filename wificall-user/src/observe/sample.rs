//! A report with something in each of its parts, for tests.

use super::*;

/// The report, taken three hours after the last answer of DNS.
pub(super) fn report() -> Report {
    Report {
        version: "0.1.0".into(),
        abi: 1,
        instance: "default".into(),
        pid: Some(4242),
        started: Some(1_699_990_000),
        config: Some("/etc/wificall/wificall.toml".into()),
        at: 1_700_010_800,
        ready: false,
        problems: vec![
            "`wlan1` is a port of the bridge `br-lan`".into(),
            "DNS has stopped answering: the addresses known before stay in use".into(),
        ],
        interfaces: vec![
            Interface {
                // Linux allows it.
                name: "wlan\"0".into(),
                index: 3,
                role: "access".into(),
                wireless: true,
                hooks: vec![hook("tc_ingress", 17), hook("tc_egress", 18)],
                problem: None,
            },
            Interface {
                name: "wlan1".into(),
                index: 4,
                role: "access".into(),
                problem: Some("`wlan1` is a port of the bridge `br-lan`".into()),
                ..Interface::default()
            },
        ],
        waiting: vec!["usb*".into()],
        tables: vec![
            table("ipv4_blocks", 12, 16384, 0),
            table("hosts", 4096, 4096, 2),
            table("groups", 2, 2048, 0),
            table("policies", 1, 256, 0),
        ],
        groups: vec![
            Group {
                operator: "001-01".into(),
                country: "none".into(),
                counters: vec![
                    counter("up", "ike", 8, 3600),
                    counter("up", "esp_udp", 1500, 2_000_000),
                    counter("down", "esp_udp", 1400, 1_900_000),
                ],
            },
            Group {
                operator: "262-01+262-02".into(),
                country: "DE".into(),
                counters: vec![counter("up", "keepalive", 3, 87)],
            },
            Group {
                operator: "505-01".into(),
                country: "AU".into(),
                counters: Vec::new(),
            },
        ],
        exits: vec![
            exit("tc_ingress", "matched", 1511),
            exit("tc_ingress", "malformed", 0),
            exit("tc_ingress", "other_audited", 2),
            exit("tc_ingress", "other_dropped", 41),
            exit("tc_egress", "matched", 1400),
            exit("xdp", "matched", 0),
        ],
        steering: vec![
            Steering {
                exit: "au".into(),
                family: "ipv4".into(),
                mark: "0x65/0xff".into(),
                table: 1065,
                state: "gateway".into(),
                gateway: Some("192.168.1.3".into()),
                since: Some(1_700_009_000),
                failovers: 1,
                gateways: vec![gateway("192.168.1.2", "down"), gateway("192.168.1.3", "up")],
            },
            Steering {
                exit: "au".into(),
                family: "ipv6".into(),
                mark: "0x65/0xff".into(),
                table: 1065,
                state: "block".into(),
                ..Steering::default()
            },
        ],
        steering_repairs: 2,
        demoted: vec![("up".into(), 0), ("down".into(), 70)],
        bleached: 12,
        other_ipsec: OtherIpsec {
            action: "drop".into(),
            armed: true,
            endpoints: 104,
            arm_at: Some(100),
            destinations: vec![Destination {
                address: "203.0.113.77".into(),
                packets: 40,
                bytes: 20_000,
                last: 1_700_010_600,
            }],
            more: 1,
        },
        discovery: Discovery {
            known: vec![
                Address {
                    address: "198.18.0.1".into(),
                    tier: "authoritative".into(),
                    operators: vec!["001-01".into()],
                    sources: vec![
                        ("resolver".into(), 1_700_000_000),
                        ("client".into(), 1_700_000_500),
                    ],
                    first_seen: 1_699_000_000,
                    last_answer: 1_700_000_000,
                    ..Address::default()
                },
                Address {
                    address: "203.0.113.9".into(),
                    tier: "observed".into(),
                    operators: vec!["505-01".into()],
                    countries: vec!["AU".into()],
                    sources: vec![("client".into(), 1_700_000_600)],
                    first_seen: 1_700_000_600,
                    last_answer: 1_700_000_600,
                    last_traffic: Some(1_700_000_700),
                },
            ],
            seen: vec![Name {
                name: "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org".into(),
                operators: vec!["505-01".into()],
                countries: vec!["AU".into()],
                ..Name::default()
            }],
            displaced: 2,
            nat64: vec!["64:ff9b::/96".into()],
            names: vec![
                Name {
                    name: "epdg.epc.mnc001.mcc001.pub.3gppnetwork.org".into(),
                    operators: vec!["001-01".into()],
                    addresses: vec!["198.18.0.1".into(), "198.18.0.2".into()],
                    ipv4: Some("addresses".into()),
                    ipv6: Some("no_data".into()),
                    last_success: Some(1_700_000_000),
                    ..Name::default()
                },
                Name {
                    name: "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org".into(),
                    operators: vec!["262-01".into()],
                    countries: vec!["DE".into()],
                    ipv4: Some("timeout".into()),
                    ipv6: Some("timeout".into()),
                    error: Some("192.0.2.53:53: timed out".into()),
                    ..Name::default()
                },
                Name {
                    name: "n3iwf.5gc.mnc001.mcc262.pub.3gppnetwork.org".into(),
                    operators: vec!["262-01".into()],
                    countries: vec!["DE".into()],
                    ipv4: Some("nx_domain".into()),
                    ipv6: Some("nx_domain".into()),
                    ..Name::default()
                },
            ],
            name_states: [("addresses", 1), ("none", 1), ("failed", 1), ("pending", 0)]
                .map(|(state, count)| (state.to_owned(), count))
                .into(),
            addresses: 14,
            questions: vec![
                question("ipv4", "addresses", 40),
                question("ipv6", "timeout", 2),
            ],
            queries: vec![("udp".into(), 45), ("tcp".into(), 1)],
            connections: vec![("tcp".into(), 1)],
            not_believed: vec![("foreign_name".into(), 2)],
            servers: vec![
                ("192.0.2.53:53".into(), false),
                ("tls://192.0.2.54:853#dns.example.net".into(), true),
            ],
            unasked: 1,
            backlog: 7,
            refused: vec![("private".into(), 5)],
            overflow: 0,
            last_success: Some(1_700_000_000),
            stale: true,
            state_problem: None,
        },
        probes: Probes {
            enabled: true,
            operators: vec![ProbedOperator {
                operator: "262-01".into(),
                addresses: 2,
                reachable: 0,
                answering: 0,
                pending: 0,
                results: vec![(4500, "reachable".into(), 0), (4500, "silent".into(), 2)],
                last_success: Some(1_700_000_000),
                rtt_us: Some(12_300),
                detail: Some("198.18.0.1 port 4500 silent".into()),
            }],
            left_out: 0,
            exchanges: vec![("silent".into(), 4)],
        },
        snoop: snoop(),
        telemetry: Telemetry::default(),
        geoip: GeoIp {
            database: Some("/var/lib/GeoIP/country.mmdb".into()),
            built: Some(1_699_000_000),
            located: 2,
            unknown: 1,
            contradictions: 11,
            listed: vec![Contradiction {
                network: "198.18.0.1".into(),
                operators: vec!["262-01".into()],
                countries: vec!["DE".into()],
                geoip: "AT".into(),
            }],
        },
        surroundings: Surroundings {
            stations: vec![Stations {
                interface: "wlan\"0".into(),
                source: "nl80211".into(),
                count: 4,
            }],
            bypasses: vec![
                Bypass {
                    interface: "wlan\"0".into(),
                    why: None,
                },
                Bypass {
                    interface: "lan0".into(),
                    why: Some("its switch forwards".into()),
                },
            ],
            offloaded: Some(Offloaded {
                tracked: 20,
                software: 7,
                hardware: 2,
            }),
            problem: None,
        },
        reloads: Reloads {
            done: 3,
            refused: 1,
            problem: None,
        },
        repairs: 1,
    }
}

fn hook(hook: &str, program_id: u32) -> Hook {
    Hook {
        hook: hook.into(),
        method: "tcx".into(),
        program: format!("{hook}_eth"),
        program_id,
    }
}

fn table(name: &str, used: u64, size: u64, left_out: u64) -> Table {
    Table {
        name: name.into(),
        used,
        size,
        left_out,
    }
}

fn counter(direction: &str, class: &str, packets: u64, bytes: u64) -> Counter {
    Counter {
        direction: direction.into(),
        class: class.into(),
        packets,
        bytes,
    }
}

fn exit(hook: &str, exit: &str, frames: u64) -> Exit {
    Exit {
        hook: hook.into(),
        exit: exit.into(),
        frames,
    }
}

fn question(kind: &str, result: &str, count: u64) -> Question {
    Question {
        kind: kind.into(),
        result: result.into(),
        count,
    }
}

fn snoop() -> Snoop {
    let fate = |kind: &str, fate: &str, count| Fate {
        kind: kind.into(),
        fate: fate.into(),
        count,
    };
    Snoop {
        on: true,
        events: vec![
            fate("name_query", "sent", 9),
            fate("name_answer", "client_rate", 2),
        ],
        heard: vec![
            fate("name_answer", "taken", 3),
            fate("name_answer", "spoofed", 1),
        ],
        waiting: 1,
        displaced: 0,
        clients: vec![Client {
            address: "192.0.2.77".into(),
            operators: vec!["262-01".into()],
            countries: vec!["DE".into()],
            names: vec![ClientName {
                name: "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org".into(),
                first: 1_700_000_000,
                last: 1_700_010_000,
            }],
        }],
        candidates: vec![Candidate {
            address: "203.0.113.9".into(),
            country: Some("JP".into()),
            first: 1_700_000_000,
            last: 1_700_010_000,
            exchanges: 4,
        }],
    }
}

fn gateway(address: &str, state: &str) -> SteeringGateway {
    SteeringGateway {
        gateway: address.into(),
        device: Some("lan".into()),
        state: state.into(),
        ..SteeringGateway::default()
    }
}
