use super::*;
use crate::observe::sample::report;

/// The page of docs/metrics.md, made from the declarations.
fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Served at `/metrics` in the OpenMetrics text format, by default on `127.0.0.1:9817` (`agent.listen`). Labels \
         are bounded by the configuration; no client address is ever among them. Counters of packets, bytes and exits live in the \
         kernel and go on over restarts and upgrades of the agent; those of events and of flows' fates over restarts; \
         all others start with the agent.\n\n\
         `operator` and `country` are those of the endpoint, joined by `+` where it has several; `none` where it \
         has none, `other` where [limits] left no room for a group of its own. Metrics of tunnels and calls have \
         `operator` only with `telemetry.labels = \"full\"`; [telemetry.md](telemetry.md) says what they mean.\n\n\
         | metric | type | labels | help |\n|---|---|---|---|\n",
    );
    for metric in metrics() {
        let (kind, suffix) = match metric.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
            Kind::Info => ("info", "_info"),
        };
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        page += &format!(
            "| `{}{suffix}` | {kind} | {} | {} |\n",
            metric.name,
            labels.join(", "),
            metric.help
        );
    }
    page
}

#[test]
fn the_page_lists_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("WIFICALL_WRITE_DOCS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == page(),
        "docs/metrics.md is not what METRICS says: run this test with WIFICALL_WRITE_DOCS=1"
    );
}

#[test]
fn names_follow_the_rules() {
    let mut names: Vec<_> = metrics().map(|metric| metric.name).collect();
    for name in &names {
        assert!(
            name.starts_with("wificall_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            !name.ends_with("_total") && !name.ends_with("_info"),
            "{name}"
        );
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), metrics().count());
}

#[test]
fn a_report_becomes_this_text() {
    let text = text(report()).unwrap();
    // Help and type of each metric once, in front of its samples.
    for metric in metrics() {
        let head = format!(
            "# HELP {} {}\n# TYPE {} {}\n",
            metric.name,
            metric.help,
            metric.name,
            metric.kind.metric_type().as_str()
        );
        assert_eq!(text.matches(&head).count(), 1, "{head}");
    }
    let samples: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("# "))
        .collect();
    assert_eq!(samples.join("\n"), SAMPLES.trim());
    assert!(text.ends_with("\n# EOF\n"));
}

const SAMPLES: &str = r#"
wificall_packets_total{class="ike",direction="up",operator="001-01",country="none"} 8
wificall_packets_total{class="esp_udp",direction="up",operator="001-01",country="none"} 1500
wificall_packets_total{class="esp_udp",direction="down",operator="001-01",country="none"} 1400
wificall_packets_total{class="keepalive",direction="up",operator="262-01+262-02",country="DE"} 3
wificall_bytes_total{class="ike",direction="up",operator="001-01",country="none"} 3600
wificall_bytes_total{class="esp_udp",direction="up",operator="001-01",country="none"} 2000000
wificall_bytes_total{class="esp_udp",direction="down",operator="001-01",country="none"} 1900000
wificall_bytes_total{class="keepalive",direction="up",operator="262-01+262-02",country="DE"} 87
wificall_exits_total{hook="tc_ingress",exit="matched"} 1511
wificall_exits_total{hook="tc_ingress",exit="malformed"} 0
wificall_exits_total{hook="tc_ingress",exit="other_audited"} 2
wificall_exits_total{hook="tc_ingress",exit="other_dropped"} 41
wificall_exits_total{hook="tc_egress",exit="matched"} 1400
wificall_demoted_packets_total{direction="up"} 0
wificall_demoted_packets_total{direction="down"} 70
wificall_bleached_packets_total 12
wificall_other_ipsec_armed 1
wificall_other_ipsec_action{action="pass"} 0
wificall_other_ipsec_action{action="mark"} 0
wificall_other_ipsec_action{action="audit"} 0
wificall_other_ipsec_action{action="drop"} 1
wificall_exit_way{exit="au",family="ipv4",way="gateway"} 1
wificall_exit_way{exit="au",family="ipv4",way="direct"} 0
wificall_exit_way{exit="au",family="ipv4",way="block"} 0
wificall_exit_way{exit="au",family="ipv6",way="gateway"} 0
wificall_exit_way{exit="au",family="ipv6",way="direct"} 0
wificall_exit_way{exit="au",family="ipv6",way="block"} 1
wificall_exit_gateway_up{exit="au",family="ipv4",gateway="192.168.1.2"} 0
wificall_exit_gateway_up{exit="au",family="ipv4",gateway="192.168.1.3"} 1
wificall_exit_gateway_in_use{exit="au",family="ipv4",gateway="192.168.1.2"} 0
wificall_exit_gateway_in_use{exit="au",family="ipv4",gateway="192.168.1.3"} 1
wificall_exit_failovers_total{exit="au",family="ipv4"} 1
wificall_exit_failovers_total{exit="au",family="ipv6"} 0
wificall_exit_repairs_total 2
wificall_hooks_attached{interface="wlan\"0",hook="tc_ingress",method="tcx"} 1
wificall_hooks_attached{interface="wlan\"0",hook="tc_egress",method="tcx"} 1
wificall_stations{interface="wlan\"0",source="nl80211"} 4
wificall_offload_bypass_suspected{interface="wlan\"0"} 0
wificall_offload_bypass_suspected{interface="lan0"} 1
wificall_offloaded_connections{offload="software"} 7
wificall_offloaded_connections{offload="hardware"} 2
wificall_interfaces_waiting 1
wificall_endpoints{kind="ipv4_blocks"} 12
wificall_endpoints{kind="hosts"} 4096
wificall_endpoints_limit{kind="ipv4_blocks"} 16384
wificall_endpoints_limit{kind="hosts"} 4096
wificall_endpoints_left_out{kind="ipv4_blocks"} 0
wificall_endpoints_left_out{kind="hosts"} 2
wificall_groups 2
wificall_groups_limit 2048
wificall_groups_left_out 0
wificall_policies 1
wificall_policies_limit 256
wificall_policies_left_out 0
wificall_addresses 14
wificall_addresses_overflow_total 0
wificall_dns_names{state="addresses"} 1
wificall_dns_names{state="none"} 1
wificall_dns_names{state="failed"} 1
wificall_dns_names{state="pending"} 0
wificall_dns_questions_total{kind="ipv4",result="addresses"} 40
wificall_dns_questions_total{kind="ipv6",result="timeout"} 2
wificall_dns_queries_total{transport="udp"} 45
wificall_dns_queries_total{transport="tcp"} 1
wificall_dns_connections_total{transport="tcp"} 1
wificall_dns_not_believed_total{reason="foreign_name"} 2
wificall_dns_server_up{server="192.0.2.53:53"} 0
wificall_dns_server_up{server="tls://192.0.2.54:853#dns.example.net"} 1
wificall_dns_names_unasked 1
wificall_dns_backlog 7
wificall_dns_addresses_refused_total{reason="private"} 5
wificall_known_addresses{tier="observed"} 1
wificall_known_addresses{tier="corroborated"} 0
wificall_known_addresses{tier="authoritative"} 1
wificall_known_oldest_timestamp_seconds{tier="observed"} 1700000600
wificall_known_oldest_timestamp_seconds{tier="authoritative"} 1700000000
wificall_known_by_source{source="resolver"} 1
wificall_known_by_source{source="confirmed"} 0
wificall_known_by_source{source="client"} 2
wificall_known_by_source{source="ike"} 0
wificall_seen_names{state="confirmed"} 0
wificall_seen_names{state="unconfirmed"} 1
wificall_displaced_total 2
wificall_nat64_prefixes 1
wificall_dns_last_success_timestamp_seconds 1700000000
wificall_dns_stale 1
wificall_events_total{kind="name_query",result="sent"} 9
wificall_events_total{kind="name_answer",result="client_rate"} 2
wificall_snoop_total{kind="name_answer",result="taken"} 3
wificall_snoop_total{kind="name_answer",result="spoofed"} 1
wificall_snoop_displaced_total 0
wificall_snoop_clients 1
wificall_geoip_build_timestamp_seconds 1699000000
wificall_geoip_located 2
wificall_geoip_contradictions 11
wificall_ike_candidates{country="JP"} 1
wificall_probe_addresses{operator="262-01",port="4500",result="reachable"} 0
wificall_probe_addresses{operator="262-01",port="4500",result="silent"} 2
wificall_probe_last_success_timestamp_seconds{operator="262-01"} 1700000000
wificall_probe_rtt_seconds{operator="262-01"} 0.0123
wificall_probe_exchanges_total{result="silent"} 4
wificall_ready 0
wificall_problems 2
wificall_repairs_total 1
wificall_reloads_total{result="done"} 3
wificall_reloads_total{result="refused"} 1
wificall_build_info{version="0.1.0",abi="1"} 1
process_start_time_seconds 1699990000
"#;

#[test]
fn tunnels_and_calls_are_told_apart_as_far_as_the_labels_are_given() {
    use super::super::{Telemetry, TelemetryLeg, TelemetryRow};
    use crate::telemetry::totals::SETUP_BOUNDS;

    let mut setup_seconds = Histogram::new(&SETUP_BOUNDS);
    for seconds in [0.3, 0.4, 99.0] {
        setup_seconds.add(&SETUP_BOUNDS, seconds);
    }
    let row = TelemetryRow {
        operator: "262-01".into(),
        country: "DE".into(),
        setup_seconds,
        setups: vec![("refused".into(), 2)],
        legs: vec![TelemetryLeg {
            half_leg: "client_to_us".into(),
            lost: 7,
            ..TelemetryLeg::default()
        }],
        ..TelemetryRow::default()
    };
    let served = |row| {
        let telemetry = Telemetry {
            enabled: true,
            rows: vec![row],
            ..Telemetry::default()
        };
        let report = Report {
            telemetry,
            ..Report::default()
        };
        text(report).unwrap()
    };
    let full = served(row.clone());
    let labels = r#"operator="262-01",country="DE""#;
    for line in [
        format!(r#"wificall_setups_total{{{labels},result="refused"}} 2"#),
        format!(r#"wificall_esp_lost_packets_total{{{labels},half_leg="client_to_us"}} 7"#),
        format!(r#"wificall_setup_seconds_bucket{{le="0.25",{labels}}} 0"#),
        format!(r#"wificall_setup_seconds_bucket{{le="0.5",{labels}}} 2"#),
        format!(r#"wificall_setup_seconds_bucket{{le="+Inf",{labels}}} 3"#),
        format!("wificall_setup_seconds_count{{{labels}}} 3"),
    ] {
        assert!(full.lines().any(|served| served == line), "{line}\n{full}");
    }
    let small = served(TelemetryRow {
        operator: String::new(),
        ..row
    });
    assert!(small.contains(r#"wificall_setups_total{country="DE",result="refused"} 2"#));
    assert!(!small.contains("operator="), "{small}");
}
