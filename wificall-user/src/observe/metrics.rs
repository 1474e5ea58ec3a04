//! The metrics, each declared once: name, help, labels and where it is found in a report.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Address, Name, Report, Table};

#[path = "metrics_telemetry.rs"]
mod telemetry;
use crate::discover::{Source, Tier};
use crate::telemetry::histogram::Histogram;

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric: what it is called and where it comes from.
struct Metric {
    kind: Kind,
    /// Without the suffix that its kind adds.
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&Report, &mut Samples),
}

#[derive(Clone, Copy)]
enum Kind {
    /// Suffix `_total`.
    Counter,
    Gauge,
    /// Suffixes `_bucket`, `_sum`, `_count`.
    Histogram,
    /// Suffix `_info`, value 1.
    Info,
}

impl Kind {
    const fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

/// The samples of one metric, on their way out.
struct Samples<'a> {
    kind: Kind,
    labels: &'static [&'static str],
    encoder: MetricEncoder<'a>,
    result: fmt::Result,
}

impl Samples<'_> {
    /// A sample; `values` are those of the labels, in their order.
    fn add<const N: usize>(&mut self, values: [&str; N], value: u64) {
        debug_assert_eq!(self.labels.len(), N);
        if self.result.is_ok() {
            self.result = self.write(&values, value);
        }
    }

    /// A sample that is a time in seconds.
    fn add_seconds<const N: usize>(&mut self, values: [&str; N], value: f64) {
        let labels: Vec<(&str, &str)> = self.labels.iter().copied().zip(values).collect();
        if self.result.is_ok() {
            let family = self.encoder.encode_family(&labels);
            self.result = family.and_then(|mut encoder| encoder.encode_gauge(&value));
        }
    }

    /// A histogram with these bounds.
    fn add_histogram<const N: usize>(
        &mut self,
        values: [&str; N],
        bounds: &[f64],
        histogram: &Histogram,
    ) {
        let labels = labels(self.labels, &values);
        let above = std::iter::once(f64::INFINITY);
        let buckets: Vec<(f64, u64)> = (bounds.iter().copied().chain(above))
            .zip(histogram.counts.iter().copied())
            .collect();
        if self.result.is_ok() {
            let family = self.encoder.encode_family(&labels);
            self.result = family.and_then(|mut encoder| {
                let count = histogram.count();
                encoder.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)
            });
        }
    }

    fn write(&mut self, values: &[&str], value: u64) -> fmt::Result {
        let labels = labels(self.labels, values);
        match self.kind {
            Kind::Info => self.encoder.encode_info(&labels),
            kind if labels.is_empty() => number(kind, &mut self.encoder, value),
            kind => number(kind, &mut self.encoder.encode_family(&labels)?, value),
        }
    }
}

/// The labels of a sample; one without a value is none.
fn labels<'v>(names: &'static [&'static str], values: &[&'v str]) -> Vec<(&'static str, &'v str)> {
    let pairs = names.iter().copied().zip(values.iter().copied());
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

fn number(kind: Kind, encoder: &mut MetricEncoder, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Kind::Gauge | Kind::Histogram | Kind::Info => encoder.encode_gauge(&value),
    }
}

/// A report as metrics in the OpenMetrics text format, version 1.0.0.
///
/// # Errors
///
/// None: memory is written to.
pub fn text(report: Report) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(report)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Collected(Report);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for metric in metrics() {
            let kind = metric.kind;
            let encoder =
                encoder.encode_descriptor(metric.name, metric.help, None, kind.metric_type())?;
            let mut samples = Samples {
                kind,
                labels: metric.labels,
                encoder,
                result: Ok(()),
            };
            (metric.samples)(&self.0, &mut samples);
            samples.result?;
        }
        Ok(())
    }
}

/// All, in the order in which they are served.
fn metrics() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().chain(telemetry::METRICS)
}

const METRICS: &[Metric] = &[
    Metric {
        kind: Kind::Counter,
        name: "wificall_packets",
        help: "Packets that matched an endpoint, an aggregate (GSO) counted as its segments.",
        labels: &["class", "direction", "operator", "country"],
        samples: |report, samples| traffic(report, samples, |counter| counter.packets),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_bytes",
        help: "Bytes of the IP packets that matched an endpoint, IP headers included.",
        labels: &["class", "direction", "operator", "country"],
        samples: |report, samples| traffic(report, samples, |counter| counter.bytes),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_exits",
        help: "Frames that a hook saw, by the way out that they took; an aggregate counts as one.",
        labels: &["hook", "exit"],
        samples: |report, samples| {
            let attached = |hook: &str| {
                let mut hooks = report.interfaces.iter().flat_map(|i| &i.hooks);
                hooks.any(|attached| attached.hook == hook)
            };
            for exit in &report.exits {
                if exit.frames != 0 || attached(&exit.hook) {
                    samples.add([&exit.hook, &exit.exit], exit.frames);
                }
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_demoted_packets",
        help: "Packets over their client's cap, which passed without the DSCP and priority of voice; they are in wificall_packets too.",
        labels: &["direction"],
        samples: |report, samples| {
            for (direction, packets) in &report.demoted {
                samples.add([direction], *packets);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_bleached_packets",
        help: "Packets from clients that were no match and lost EF or VA, with trust.bleach.",
        labels: &[],
        samples: |report, samples| samples.add([], report.bleached),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_other_ipsec_armed",
        help: "1 while other IPsec is dropped, with other_ipsec.action = \"drop\"; 0 while it is audited instead, and with \
               any other action.",
        labels: &[],
        samples: |report, samples| samples.add([], report.other_ipsec.armed.into()),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_other_ipsec_action",
        help: "1 for the action that other_ipsec.action has: pass, mark, audit, drop.",
        labels: &["action"],
        samples: |report, samples| {
            for action in ["pass", "mark", "audit", "drop"] {
                samples.add([action], u64::from(report.other_ipsec.action == action));
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_exit_way",
        help: "The way that a policy exit's traffic takes: 1 for `gateway`, `direct` or `block`, 0 for the others.",
        labels: &["exit", "family", "way"],
        samples: |report, samples| {
            for exit in &report.steering {
                for way in ["gateway", "direct", "block"] {
                    samples.add(
                        [&exit.exit, &exit.family, way],
                        u64::from(exit.state == way),
                    );
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_exit_gateway_up",
        help: "Whether a gateway of a policy exit, or its device, is up; one that has not been asked often enough is not.",
        labels: &["exit", "family", "gateway"],
        samples: |report, samples| {
            for exit in &report.steering {
                for gateway in &exit.gateways {
                    let up = u64::from(gateway.state == "up");
                    samples.add([&exit.exit, &exit.family, &gateway.gateway], up);
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_exit_gateway_in_use",
        help: "Whether a policy exit's traffic goes by this gateway, or by its device.",
        labels: &["exit", "family", "gateway"],
        samples: |report, samples| {
            for exit in &report.steering {
                for gateway in &exit.gateways {
                    let used = exit.gateway.as_ref() == Some(&gateway.gateway);
                    samples.add(
                        [&exit.exit, &exit.family, &gateway.gateway],
                        u64::from(used),
                    );
                }
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_exit_failovers",
        help: "How often a policy exit has left a gateway because that was down.",
        labels: &["exit", "family"],
        samples: |report, samples| {
            for exit in &report.steering {
                samples.add([&exit.exit, &exit.family], exit.failovers);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_exit_repairs",
        help: "Rules and routes of policy exits that were put back after somebody had removed or changed them.",
        labels: &[],
        samples: |report, samples| samples.add([], report.steering_repairs),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_hooks_attached",
        help: "1 for each hook where a program of this instance runs.",
        labels: &["interface", "hook", "method"],
        samples: |report, samples| {
            for interface in &report.interfaces {
                for hook in &interface.hooks {
                    samples.add([&interface.name, &hook.hook, &hook.method], 1);
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_stations",
        help: "Who is on an access interface: stations associated with it (source nl80211), or link-layer addresses of \
               neighbours that were there within 15 minutes (source neighbours; routers among them count too).",
        labels: &["interface", "source"],
        samples: |report, samples| {
            for stations in &report.surroundings.stations {
                samples.add([&stations.interface, &stations.source], stations.count);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_offload_bypass_suspected",
        help: "1 if packets may pass this interface's hooks unseen: a flowtable hands them to hardware, or tracked \
               IPsec connections are in hardware; `wificall status` says which. Accelerators that the kernel does not \
               drive are not noticed.",
        labels: &["interface"],
        samples: |report, samples| {
            for bypass in &report.surroundings.bypasses {
                samples.add([&bypass.interface], bypass.why.is_some().into());
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_offloaded_connections",
        help: "Tracked connections on UDP 500 and 4500 and of ESP that a flowtable forwards, in software (TC still sees \
               them, a new mark no longer moves them) or in hardware; absent where nothing is tracked.",
        labels: &["offload"],
        samples: |report, samples| {
            if let Some(offloaded) = report.surroundings.offloaded {
                samples.add(["software"], offloaded.software);
                samples.add(["hardware"], offloaded.hardware);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_interfaces_waiting",
        help: "Configured interface names and globs that no interface has.",
        labels: &[],
        samples: |report, samples| samples.add([], report.waiting.len() as u64),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_endpoints",
        help: "Entries of the endpoint table in the kernel.",
        labels: &["kind"],
        samples: |report, samples| tables(report, samples, |table| table.used),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_endpoints_limit",
        help: "Entries that the endpoint table has room for, as [limits] sets it.",
        labels: &["kind"],
        samples: |report, samples| tables(report, samples, |table| table.size),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_endpoints_left_out",
        help: "Entries that found no room in the endpoint table: their traffic passes unclassified.",
        labels: &["kind"],
        samples: |report, samples| tables(report, samples, |table| table.left_out),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_groups",
        help: "Distinct sets of operators and countries that have counters; they are never taken back.",
        labels: &[],
        samples: |report, samples| table(report, samples, "groups", |table| table.used),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_groups_limit",
        help: "Groups that there is room for, as [limits] sets it.",
        labels: &[],
        samples: |report, samples| table(report, samples, "groups", |table| table.size),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_groups_left_out",
        help: "Entries of the endpoint table that are counted under operator and country `other` for want of a group.",
        labels: &[],
        samples: |report, samples| table(report, samples, "groups", |table| table.left_out),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_policies",
        help: "Policies in the kernel, the defaults included.",
        labels: &[],
        samples: |report, samples| table(report, samples, "policies", |table| table.used),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_policies_limit",
        help: "Policies that there is room for, as [limits] sets it.",
        labels: &[],
        samples: |report, samples| table(report, samples, "policies", |table| table.size),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_policies_left_out",
        help: "Entries of the endpoint table that are not set for want of a policy: their traffic passes unclassified.",
        labels: &[],
        samples: |report, samples| table(report, samples, "policies", |table| table.left_out),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_choices",
        help: "What clients that policies name get instead of what others get: entries in the kernel, by endpoints and class of client.",
        labels: &[],
        samples: |report, samples| table(report, samples, "choices", |table| table.used),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_choices_left_out",
        help: "Entries of the endpoint table whose clients are all treated alike although policies tell them apart, for want of room for choices or clients.",
        labels: &[],
        samples: |report, samples| table(report, samples, "choices", |table| table.left_out),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_addresses",
        help: "Addresses from DNS that are remembered.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.addresses),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_addresses_overflow",
        help: "Addresses from DNS that found no room in memory.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.overflow),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_names",
        help: "Names that are looked up, by what came of it last: addresses, none (no such name, or no address), \
               failed, pending.",
        labels: &["state"],
        samples: |report, samples| {
            for (state, count) in &report.discovery.name_states {
                samples.add([state], *count);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_dns_questions",
        help: "Questions to DNS, by what was asked for (ipv4, ipv6, naptr) and result.",
        labels: &["kind", "result"],
        samples: |report, samples| {
            for question in &report.discovery.questions {
                samples.add([&question.kind, &question.result], question.count);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_dns_queries",
        help: "Queries to DNS sent on the wire; a question takes several where a server does not answer or truncates.",
        labels: &["transport"],
        samples: |report, samples| {
            for (transport, count) in &report.discovery.queries {
                samples.add([transport], *count);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_dns_connections",
        help: "Connections to DNS servers made or tried, by transport: tcp, tls, https.",
        labels: &["transport"],
        samples: |report, samples| {
            for (transport, count) in &report.discovery.connections {
                samples.add([transport], *count);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_dns_not_believed",
        help: "Answers of DNS, and parts of answers, that were not believed: datagrams from another source or with \
               another id, answers to another question, records of another class, addresses of another name \
               (foreign_name), CNAMEs in a circle (cname_loop) or too many (cname_chain), more addresses than a \
               name has (too_many), names of a visited country that are no ePDG's there (replacement).",
        labels: &["reason"],
        samples: |report, samples| {
            for (reason, count) in &report.discovery.not_believed {
                samples.add([reason], *count);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_server_up",
        help: "1 for each configured DNS server that answers, 0 for one that has stopped answering and is only tried \
               now and then.",
        labels: &["server"],
        samples: |report, samples| {
            for (index, (server, up)) in report.discovery.servers.iter().enumerate() {
                // A server may be on several routes; it is down if it is on any.
                let same = |(other, _): &&(String, bool)| other == server;
                let mut all = report.discovery.servers.iter().filter(same);
                let first = report.discovery.servers.iter().position(|s| same(&s));
                if first == Some(index) {
                    samples.add([server], (*up && all.all(|(_, up)| *up)).into());
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_names_unasked",
        help: "Names that have not been asked for since the start; 0 when the first sweep is over.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.unasked),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_backlog",
        help: "Questions that are due and wait for their turn, which the configured rate decides.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.backlog),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_dns_addresses_refused",
        help: "Addresses in answers that may not be endpoints: not global unicast, or of this box or its networks.",
        labels: &["reason"],
        samples: |report, samples| {
            for (reason, count) in &report.discovery.refused {
                samples.add([reason], *count);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_known_addresses",
        help: "Addresses from DNS, clients' answers and IKE that are endpoints, by how far they are trusted.",
        labels: &["tier"],
        samples: |report, samples| {
            for tier in Tier::ALL {
                let tier = tier.as_str();
                let known = report.discovery.known.iter();
                samples.add(
                    [tier],
                    known.filter(|known| known.tier == tier).count() as u64,
                );
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_known_oldest_timestamp_seconds",
        help: "The last answer or observation of the address for which that is longest ago, by tier; absent without any.",
        labels: &["tier"],
        samples: |report, samples| {
            for tier in Tier::ALL {
                let tier = tier.as_str();
                let known = report.discovery.known.iter();
                let of_tier = known.filter(|known| known.tier == tier);
                if let Some(oldest) = of_tier.map(|known| known.last_answer).min() {
                    samples.add([tier], oldest);
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_known_by_source",
        help: "Addresses that are endpoints, by source; one with several sources counts under each.",
        labels: &["source"],
        samples: |report, samples| {
            for source in [
                Source::Resolver,
                Source::Confirmed,
                Source::Client,
                Source::Ike,
            ] {
                let source = source.as_str();
                let known = report.discovery.known.iter();
                let has = |known: &&Address| known.sources.iter().any(|(name, _)| name == source);
                samples.add([source], known.filter(has).count() as u64);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_seen_names",
        help: "Names that clients asked for, the configuration does not select and our resolver is asked about.",
        labels: &["state"],
        samples: |report, samples| {
            let confirmed = report.discovery.seen.iter();
            let confirmed = confirmed.filter(|name| name.last_success.is_some()).count();
            let others = report.discovery.seen.len() - confirmed;
            samples.add(["confirmed"], confirmed as u64);
            samples.add(["unconfirmed"], others as u64);
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_displaced",
        help: "Names and addresses from clients, and addresses of names with very many, that made room for others, and names that found none: many of them are a flood.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.displaced),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_nat64_prefixes",
        help: "NAT64 prefixes in force.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.nat64.len() as u64),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_last_success_timestamp_seconds",
        help: "When an answer with addresses came last, for any name; absent before the first.",
        labels: &[],
        samples: |report, samples| {
            if let Some(at) = report.discovery.last_success {
                samples.add([], at);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_dns_stale",
        help: "1 if the last attempts failed for every name that our resolver gave addresses for: the last known good is in use.",
        labels: &[],
        samples: |report, samples| samples.add([], report.discovery.stale.into()),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_events",
        help: "Packets that the programs looked at a second time, by what became of them: sent to the agent, about \
               something else (other), or dropped: rate, client_rate (one client's share of it), full, large, fragment, \
               malformed. From zero again when the maps are made anew.",
        labels: &["kind", "result"],
        samples: |report, samples| {
            if report.snoop.on || report.telemetry.enabled {
                for fate in &report.snoop.events {
                    samples.add([&fate.kind, &fate.fate], fate.count);
                }
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_snoop",
        help: "Events that the agent read, by what came of them: waiting (a question), taken (an answer that counts), or \
               why not: stale, spoofed (an answer from the clients' side), unasked, respelled, malformed, other, empty, \
               refused, elsewhere, unknown.",
        labels: &["kind", "result"],
        samples: |report, samples| {
            for fate in &report.snoop.heard {
                samples.add([&fate.kind, &fate.fate], fate.count);
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_snoop_displaced",
        help: "Clients' questions that were forgotten before their answers, for want of room.",
        labels: &[],
        samples: |report, samples| samples.add([], report.snoop.displaced),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_snoop_clients",
        help: "Clients that asked for an ePDG's name within a day.",
        labels: &[],
        samples: |report, samples| samples.add([], report.snoop.clients.len() as u64),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_geoip_build_timestamp_seconds",
        help: "When the GeoIP database in use was made; absent without one.",
        labels: &[],
        samples: |report, samples| {
            if let Some(built) = report.geoip.built {
                samples.add([], built);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_geoip_located",
        help: "Endpoints (addresses and static prefixes) whose country is from the GeoIP database, for want of one by \
               operator.",
        labels: &[],
        samples: |report, samples| samples.add([], report.geoip.located),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_geoip_contradictions",
        help: "Endpoints that the GeoIP database has in another country than those of their operators' codes (MCC); \
               `wificall status` lists them.",
        labels: &[],
        samples: |report, samples| samples.add([], report.geoip.contradictions),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_ike_candidates",
        help: "Unknown addresses that answered a client's IKE_SA_INIT within a week, by their country.",
        labels: &["country"],
        samples: |report, samples| {
            let mut countries: BTreeMap<&str, u64> = BTreeMap::new();
            for candidate in &report.snoop.candidates {
                *countries
                    .entry(candidate.country.as_deref().unwrap_or("unknown"))
                    .or_default() += 1;
            }
            for (country, count) in countries {
                samples.add([country], count);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_probe_addresses",
        help: "Addresses of an operator by the result of the last probe of this port, with [probe]: reachable (also \
               when it is 0), redirected, refused, invalid, silent, unreachable, failed.",
        labels: &["operator", "port", "result"],
        samples: |report, samples| {
            for row in &report.probes.operators {
                for (port, result, count) in &row.results {
                    samples.add([&row.operator, &port.to_string(), result], *count);
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_probe_last_success_timestamp_seconds",
        help: "When an address of the operator agreed to a suite last; absent before the first time.",
        labels: &["operator"],
        samples: |report, samples| {
            for row in &report.probes.operators {
                if let Some(at) = row.last_success {
                    samples.add([&row.operator], at);
                }
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_probe_rtt_seconds",
        help: "Shortest round-trip time to a reachable address of the operator, by the last probes.",
        labels: &["operator"],
        samples: |report, samples| {
            for row in &report.probes.operators {
                if let Some(rtt) = row.rtt_us {
                    samples.add_seconds([&row.operator], rtt as f64 / 1e6);
                }
            }
        },
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_probe_exchanges",
        help: "Exchanges of the agent's round of probes, by result.",
        labels: &["result"],
        samples: |report, samples| {
            for (result, count) in &report.probes.exchanges {
                samples.add([result], *count);
            }
        },
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_ready",
        help: "1 if the tables are filled and every interface that could be attached is.",
        labels: &[],
        samples: |report, samples| samples.add([], report.ready.into()),
    },
    Metric {
        kind: Kind::Gauge,
        name: "wificall_problems",
        help: "Things that are wrong; `wificall status` says which.",
        labels: &[],
        samples: |report, samples| samples.add([], report.problems.len() as u64),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_repairs",
        help: "Hooks put back after somebody had removed them.",
        labels: &[],
        samples: |report, samples| samples.add([], report.repairs),
    },
    Metric {
        kind: Kind::Counter,
        name: "wificall_reloads",
        help: "Reloads of the configuration, by result: done, refused.",
        labels: &["result"],
        samples: |report, samples| {
            samples.add(["done"], report.reloads.done);
            samples.add(["refused"], report.reloads.refused);
        },
    },
    Metric {
        kind: Kind::Info,
        name: "wificall_build",
        help: "Version of the agent and ABI version of its data plane.",
        labels: &["version", "abi"],
        samples: |report, samples| samples.add([&report.version, &report.abi.to_string()], 1),
    },
    Metric {
        kind: Kind::Gauge,
        name: "process_start_time_seconds",
        help: "When the agent started, in seconds since 1970-01-01 UTC.",
        labels: &[],
        samples: |report, samples| {
            if let Some(started) = report.started {
                samples.add([], started);
            }
        },
    },
];

fn traffic(report: &Report, samples: &mut Samples, value: fn(&super::Counter) -> u64) {
    for group in &report.groups {
        for counter in &group.counters {
            samples.add(
                [
                    &counter.class,
                    &counter.direction,
                    &group.operator,
                    &group.country,
                ],
                value(counter),
            );
        }
    }
}

/// The tables that make up the endpoint table.
const ENDPOINTS: [&str; 4] = ["ipv4_blocks", "ipv6_blocks", "hosts", "prefixes"];

fn tables(report: &Report, samples: &mut Samples, value: fn(&Table) -> u64) {
    for table in &report.tables {
        if ENDPOINTS.contains(&table.name.as_str()) {
            samples.add([&table.name], value(table));
        }
    }
}

fn table(report: &Report, samples: &mut Samples, name: &str, value: fn(&Table) -> u64) {
    if let Some(table) = report.tables.iter().find(|table| table.name == name) {
        samples.add([], value(table));
    }
}

/// What can come of a name's last questions.
pub const NAME_STATES: [&str; 4] = ["addresses", "none", "failed", "pending"];

/// What came of a name's last questions.
#[must_use]
pub fn name_state(name: &Name) -> &'static str {
    let results = [&name.ipv4, &name.ipv6];
    let any = |wanted: &str| results.iter().any(|r| r.as_deref() == Some(wanted));
    if any("addresses") {
        "addresses"
    } else if name.error.is_some() {
        "failed"
    } else if any("no_data") || any("nx_domain") {
        "none"
    } else {
        "pending"
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
