//! Fixed data: what an agent could say.

use crate::telemetry::view::{
    Call, Clients, Flow, HalfLeg, Health, Milestone, Minute, Overview, Received, Sample, Setup,
    Side, Sides, State, Trouble, Tunnel, Tunnels, Voice, WayKind, WayOut,
};

use super::Snapshot;

const NOW: u64 = 1_790_000_000_000;

fn leg(received: u64, lost: u64, jitter_ms: Option<f64>) -> HalfLeg {
    HalfLeg {
        received,
        lost,
        loss_percent: Received::new(received, lost).loss_percent,
        jitter_ms,
        ..HalfLeg::default()
    }
}

fn history() -> Vec<Sample> {
    let second = |n: u64| Sample {
        at: NOW - 1_000 * (40 - n),
        up: if n % 10 < 5 { 50 } else { 6 },
        down: if n % 10 < 5 { 6 } else { 50 },
        down_lost: u32::from(n.is_multiple_of(13)) * 3,
        ..Sample::default()
    };
    (0..40).map(second).collect()
}

fn milestones() -> Vec<Milestone> {
    let reached = [
        ("init_sent", 0.0),
        ("init_answered", 31.2),
        ("natt", 33.0),
        ("auth_sent", 33.0),
        ("auth_answered", 95.0),
        ("esp_up", 402.0),
        ("esp_down", 433.1),
    ];
    let milestone = |(name, after_ms): (&str, f64)| Milestone {
        name: name.to_owned(),
        after_ms,
    };
    reached.into_iter().map(milestone).collect()
}

/// Five phones: a call, a call with one end silent, idle, one that waits, one that was refused.
pub fn snapshot() -> Snapshot {
    let tunnel =
        |id: &str, client: &str, operator: &str, country: &str, state, seconds: u64| Tunnel {
            id: id.to_owned(),
            client: client.to_owned(),
            endpoint: "198.51.100.10".to_owned(),
            operator: operator.to_owned(),
            country: country.to_owned(),
            state,
            since: NOW - seconds * 1_000,
            began: NOW - seconds * 1_000,
            seen: NOW - 20,
            ..Tunnel::default()
        };
    let talking = Tunnel {
        owners: vec!["262-01".to_owned()],
        setup: Some(Setup {
            milestones: milestones(),
            result: Some("ok".to_owned()),
            took_ms: Some(433.1),
            auth_responses: 4,
            ..Setup::default()
        }),
        flows: vec![Flow {
            client: "192.0.2.23".to_owned(),
            port: 4500,
            protocol: "udp".to_owned(),
            seen: NOW - 20,
        }],
        keepalive_ms: Some(20_000),
        round_trip_client_ms: Some(4.2),
        round_trip_network_ms: Some(28.9),
        packets_up: 7_301,
        packets_down: 7_420,
        bytes_up: 1_100_000,
        bytes_down: 1_124_000,
        exit: Some(WayOut {
            exit: Some("de".to_owned()),
            way: WayKind::Gateway,
            gateway: Some("192.0.2.254".to_owned()),
            device: Some("lan".to_owned()),
            mark: Some("0x65/0xff".to_owned()),
        }),
        calls: vec![
            Call {
                state: Voice::Talking,
                since: NOW - 73_000,
                seconds: 73,
                client_to_us: leg(3_650, 2, Some(3.1)),
                network_to_us: leg(3_500, 140, Some(9.4)),
                mos: Some(3.6),
                history: history(),
                ..Call::default()
            },
            Call {
                since: NOW - 700_000,
                ended: Some(NOW - 600_000),
                seconds: 100,
                client_to_us: leg(5_000, 0, Some(2.0)),
                network_to_us: leg(5_000, 5, Some(3.0)),
                ..Call::default()
            },
        ],
        ..tunnel("1a", "192.0.2.23", "Telekom", "DE", State::Call, 73)
    };
    let one_way = Tunnel {
        keepalive_ms: Some(180_000),
        nat_timeout_shorter: true,
        calls: vec![Call {
            state: Voice::OneWayUp,
            seconds: 9,
            client_to_us: leg(450, 0, Some(2.2)),
            mos_missing: Some("one direction is not seen".to_owned()),
            history: history(),
            ..Call::default()
        }],
        ..tunnel("2b", "192.0.2.5", "Telstra", "AU", State::Call, 9)
    };
    let waits = Tunnel {
        setup: Some(Setup {
            stalled: Some("auth_answered".to_owned()),
            stalled_ms: Some(5_800),
            ..Setup::default()
        }),
        ..tunnel("4d", "192.0.2.77", "Telekom", "DE", State::SettingUp, 6)
    };
    let refused = Tunnel {
        setup: Some(Setup {
            result: Some("refused".to_owned()),
            notify: Some("NO_PROPOSAL_CHOSEN".to_owned()),
            ..Setup::default()
        }),
        ..tunnel("5e", "192.0.2.80", "unknown", "", State::Failed, 40)
    };
    let idle = tunnel("3c", "2001:db8:4::1c5f:23", "EE", "GB", State::Idle, 12_000);
    let count = |state| {
        let number = match state {
            State::Call => 2,
            State::Up | State::Gone => 0,
            _ => 1,
        };
        (state, number)
    };
    Snapshot {
        overview: Overview {
            now: NOW,
            uptime_seconds: 90_061,
            enabled: true,
            tunnels: State::ALL.into_iter().map(count).collect(),
            calls_active: 2,
            calls_one_way: 1,
            calls_total: 41,
            minutes: vec![Minute {
                client_to_us: Received::new(4_100, 2),
                network_to_us: Received::new(3_500, 140),
                ..Minute::default()
            }],
            sides: Sides {
                client: Side {
                    trouble: Trouble::None,
                    why: Vec::new(),
                },
                network: Side {
                    trouble: Trouble::Bad,
                    why: vec![
                        "3.8 % of what the network sent in calls did not come here, in 5 min"
                            .to_owned(),
                    ],
                },
                carrier: Side {
                    trouble: Trouble::Some,
                    why: vec!["unknown: 1 × refused (packets get there and back)".to_owned()],
                },
            },
            health: Health {
                problems: vec!["wlan1: there is no such interface".to_owned()],
                ..Health::default()
            },
            ..Overview::default()
        },
        filter: String::new(),
        tunnels: Tunnels {
            now: NOW,
            enabled: true,
            clients: Clients::Shown,
            total: 5,
            found: 5,
            tunnels: vec![talking, one_way, idle, waits, refused],
        },
    }
}
