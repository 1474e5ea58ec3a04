//! The metrics of tunnels and calls.

use super::super::{TelemetryLeg, TelemetryRow};
use super::{Kind, Metric, Report, Samples};
use crate::telemetry::totals::{JITTER_BOUNDS, ROUND_TRIP_BOUNDS, SETUP_BOUNDS};

/// Each declared once.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        kind: Kind::Gauge,
        name: "wificall_tunnels",
        help: "Tunnels by state: setting_up, failed, up, call, idle, gone.",
        labels: &["operator", "country", "state"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                named(row, samples, &row.tunnels);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_calls_active",
        help: "What looks like calls, now.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.calls),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_calls",
        help: "What looked like calls.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.calls_total),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_call_seconds",
        help: "Seconds that calls lasted, of those that ended.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.call_seconds),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_calls_one_way_active",
        help: "Calls in which one direction talks and the other has sent nothing for some seconds, now.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.one_way),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_calls_one_way",
        help: "Times that a call became one-way.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.one_way_total),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_esp_received_packets",
        help: "ESP packets of tracked flows, by half-leg: client_to_us, network_to_us.",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| legs(report, samples, |leg| leg.received),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_esp_lost_packets",
        help: "ESP sequence numbers that did not come: lost before this box.",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| legs(report, samples, |leg| leg.lost),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_esp_late_packets",
        help: "ESP packets that came behind a later one.",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| legs(report, samples, |leg| leg.late),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_esp_duplicate_packets",
        help: "ESP packets that came again.",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| legs(report, samples, |leg| leg.duplicate),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_esp_stray_packets",
        help: "ESP packets whose sequence number nothing confirmed: forged, or far too old.",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| legs(report, samples, |leg| leg.stray),
    },
    Metric {
        kind: Kind::Histogram,
        name: "wificall_call_jitter_seconds",
        help: "Seconds of calls, by their smoothed deviation from the interval of voice frames (RFC 3550 6.4.1).",
        labels: &["operator", "country", "half_leg"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                for leg in &row.legs {
                    let values = [&*row.operator, &row.country, &leg.half_leg];
                    samples.add_histogram(values, &JITTER_BOUNDS, &leg.jitter);
                }
            }
        },
    },
    Metric {
        kind: Kind::Histogram,
        name: "wificall_ike_round_trip_seconds",
        help: "From an IKE request to its response, as seen from here, by side: network, client. Not of IKE_AUTH, nor of \
               requests that were sent again.",
        labels: &["operator", "country", "side"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                for (side, histogram) in ["network", "client"].into_iter().zip(&row.round_trip) {
                    let values = [&*row.operator, &row.country, side];
                    samples.add_histogram(values, &ROUND_TRIP_BOUNDS, histogram);
                }
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_setups",
        help: "Set-ups of tunnels that ended, by result: ok, no_answer, refused, authentication_stalled, esp_missing; \
               detour: asked to go on in another way.",
        labels: &["operator", "country", "result"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                named(row, samples, &row.setups);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_setup_clients",
        help: "Distinct clients that set up a tunnel, or tried to, in the last hour, each by its last result.",
        labels: &["operator", "country", "result"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                named(row, samples, &row.setup_clients);
            }
        },
    },
    Metric {
        kind: Kind::Histogram,
        name: "wificall_setup_seconds",
        help: "From the first IKE_SA_INIT to ESP both ways, of set-ups that succeeded.",
        labels: &["operator", "country"],
        samples: |report, samples| {
            for row in &report.telemetry.rows {
                let values = [&*row.operator, &row.country];
                samples.add_histogram(values, &SETUP_BOUNDS, &row.setup_seconds);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_nat_timeout_shorter",
        help: "Tunnels whose keepalives come further apart than this host's connection tracking remembers UDP.",
        labels: &["operator", "country"],
        samples: |report, samples| each(report, samples, |row| row.nat_timeout_shorter),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_flows",
        help: "Flows that are followed.",
        labels: &[],
        samples: |report, samples| {
            if report.telemetry.enabled {
                samples.add([], report.telemetry.flows);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_flow_fates",
        help: "What became of what could have entered the table of flows: candidate, entered, rate (too many a second), \
               client_rate (one client's share of it), full; untracked: it found no room in the agent. From zero again when the maps are made anew.",
        labels: &["fate"],
        samples: |report, samples| {
            for (fate, count) in &report.telemetry.fates {
                samples.add([fate], *count);
            }
            if report.telemetry.enabled {
                samples.add(["untracked"], report.telemetry.left_out);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_flow_events_dropped",
        help: "Events of flows that did not reach the agent, for rate or room: it then reads all flows.",
        labels: &[],
        samples: |report, samples| {
            if report.telemetry.enabled {
                samples.add([], report.telemetry.events_dropped);
            }
        },
    },
];

fn each(report: &Report, samples: &mut Samples, value: fn(&TelemetryRow) -> u64) {
    for row in &report.telemetry.rows {
        samples.add([&row.operator, &row.country], value(row));
    }
}

fn legs(report: &Report, samples: &mut Samples, value: fn(&TelemetryLeg) -> u64) {
    for row in &report.telemetry.rows {
        for leg in &row.legs {
            samples.add([&row.operator, &row.country, &leg.half_leg], value(leg));
        }
    }
}

fn named(row: &TelemetryRow, samples: &mut Samples, values: &[(String, u64)]) {
    for (name, value) in values {
        samples.add([&row.operator, &row.country, name], *value);
    }
}
