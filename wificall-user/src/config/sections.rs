//! Reads the sections of the file.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Item, Section};
use super::report::{Mismatch, Report};
use super::{
    Agent, CatchAll, Config, Discovery, Dscp, EventLog, ExtraName, GeoIp, Glob, Interfaces, Lab,
    LabelProfile, Limits, MarkUse, OtherIpsec, Priority, Probe, Snoop, SnoopIke, StaticPrefix,
    TcMode, Telemetry, Treatment, Trust, Widen, XdpMode, catch_all, checks, dscp, exits, other,
    policies, treatment, upstream, values,
};
use crate::catalogue::{Catalogue, Country, OperatorPattern, Owner, catalogue};
use crate::discover::{Observed, Upstream, nat64::Nat64};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const OPERATORS: &str = "an array of operators";
pub(super) const COUNTRIES: &str = "an array of countries";

/// Values as they were read, each with its place.
pub(super) type Placed<'a, T> = Vec<(Item<'a>, T)>;

pub(super) fn config(
    root: Section,
    report: &Report,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Config {
    let (discovery_section, lab_section) = (root.section("discovery"), root.section("lab"));
    let (defaults_section, limits_section) = (root.section("defaults"), root.section("limits"));
    let in_lab = lab_section.is_present();
    let (files, catalogue) = catalogue_files(&discovery_section, report, read);
    let discovery = Discovery {
        catalogue: files,
        ..discovery(&discovery_section, in_lab, &catalogue)
    };
    let names = discovery.names.iter().map(|name| {
        let owner = Owner::configured(&catalogue, name.operator, name.country);
        (name.name.clone(), owner)
    });
    let mut config = Config {
        agent: agent(root.section("agent")),
        interfaces: interfaces(root.section("interfaces")),
        snoop: snoop(root.section("snoop")),
        telemetry: telemetry(root.section("telemetry")),
        geoip: geoip(root.section("geoip")),
        observed: observed(root.section("observed")),
        probe: probe(root.section("probe"), in_lab),
        lab: lab(lab_section),
        prefixes: prefixes(&root, &discovery_section),
        catalogue: Arc::new(catalogue.clone().with_names(names)),
        discovery,
        defaults: defaults(&defaults_section),
        exits: Vec::new(),
        policies: Vec::new(),
        catch_all: CatchAll::default(),
        limits: limits(&limits_section),
        other_ipsec: OtherIpsec::default(),
        trust: Trust::default(),
    };
    let exits = exits::read(&root, in_lab);
    exits::foreign_mark(&defaults_section, &exits, exits::BY_POLICY);
    config.catch_all = catch_all::read(root.section("catch_all"), &config, &exits);
    config.policies = policies::read(&root, &config, &exits);
    exits::used(&exits, &config);
    config.other_ipsec = other::other_ipsec(root.section("other_ipsec"), &config, &exits);
    config.exits = exits.into_iter().map(|placed| placed.exit).collect();
    config.trust = other::trust(root.section("trust"), &config.interfaces);
    let routes = discovery_section.sections("upstream").into_iter();
    config.discovery.routes = routes
        .map(|section| upstream::read(section, &config))
        .collect();
    checks::sources(&root, &discovery_section, &config);
    checks::names_to_see(&discovery_section, &config.discovery, &config.snoop);
    checks::sizes(&limits_section, &config);
    discovery_section.finish();
    defaults_section.finish();
    limits_section.finish();
    root.finish();
    config
}

fn agent(section: Section) -> Agent {
    let default = Agent::of_instance("default").expect("the default name is a valid one");
    let agent = Agent {
        instance: section.value("instance", default.instance, values::instance),
        bpffs: section.value("bpffs", default.bpffs, values::path),
        run_dir: section.value("run_dir", default.run_dir, values::path),
        state_dir: section.value("state_dir", default.state_dir, values::path),
        listen: section.value("listen", default.listen, values::listen),
        token_file: section.value("token_file", None, |item| values::path(item).map(Some)),
        hosts: unplaced(section.list("hosts", "an array of host names", values::host)),
        resync: duration(&section, "resync", default.resync, SECOND..=DAY),
    };
    section.finish();
    agent
}

fn interfaces(section: Section) -> Interfaces {
    let globs = |key| {
        let globs = section.list(key, "an array of interface names", values::glob);
        checks::no_duplicates(&globs, "interface");
        globs
    };
    let (access, uplink, xdp) = (globs("access"), globs("uplink"), globs("xdp"));
    checks::interfaces(&section, &access, &uplink, &xdp);
    let interfaces = Interfaces {
        access: unplaced(access),
        uplink: unplaced(uplink),
        xdp: unplaced(xdp),
        xdp_mode: section.value("xdp_mode", XdpMode::Native, |item| {
            item.choice(&[("native", XdpMode::Native), ("generic", XdpMode::Generic)])
        }),
        tc: section.value("tc", TcMode::Auto, |item| {
            item.choice(&[
                ("auto", TcMode::Auto),
                ("tcx", TcMode::Tcx),
                ("clsact", TcMode::Clsact),
            ])
        }),
        wireless: unplaced::<Glob>(globs("wireless")),
    };
    section.finish();
    interfaces
}

fn discovery(section: &Section, in_lab: bool, catalogue: &Catalogue) -> Discovery {
    let operators = section.list("operators", OPERATORS, values::operator_pattern);
    let countries = section.list("countries", COUNTRIES, values::country);
    let names = names(section);
    checks::no_duplicates(&operators, "operator");
    checks::no_duplicates(&countries, "country");
    if !in_lab {
        // Labs use operators that do not exist.
        checks::known_operators(&operators, catalogue);
        checks::known_countries(&countries, catalogue);
    }
    let resolvers = resolvers(section);
    let discovery = Discovery {
        world: section.value("world", false, Item::flag),
        operators: unplaced::<OperatorPattern>(operators),
        countries: unplaced::<Country>(countries),
        names: unplaced(names),
        catalogue: Vec::new(),
        resolvers: if resolvers.is_empty() {
            vec![Upstream::System]
        } else {
            resolvers
        },
        // These follow from the policies.
        routes: Vec::new(),
        ca_file: section.value("ca_file", None, |item| values::path(item).map(Some)),
        refresh_min: duration(section, "refresh_min", 60 * SECOND, SECOND..=DAY),
        refresh_max: duration(section, "refresh_max", 3600 * SECOND, SECOND..=7 * DAY),
        absent_max: duration(section, "absent_max", DAY, SECOND..=30 * DAY),
        keep: duration(section, "keep", DAY, SECOND..=30 * DAY),
        timeout: duration(
            section,
            "timeout",
            3 * SECOND,
            100 * MILLISECOND..=30 * SECOND,
        ),
        widen: section.value("widen", Widen::Block, |item| {
            item.choice(&[("block", Widen::Block), ("exact", Widen::Exact)])
        }),
        queries_per_second: section.value("queries_per_second", 20, |item| item.number(1..=10_000)),
        concurrency: section.value("concurrency", 8, |item| item.number(1..=256)) as usize,
        nat64_prefix: section.value("nat64_prefix", Nat64::Auto, values::nat64),
    };
    checks::durations(section, &discovery, in_lab, DAY);
    discovery
}

fn snoop(section: Section) -> Snoop {
    let snoop = Snoop {
        names: section.value("names", false, Item::flag),
        ike: section.value("ike", SnoopIke::Off, |item| {
            item.choice(&[
                ("off", SnoopIke::Off),
                ("report", SnoopIke::Report),
                ("observe", SnoopIke::Observe),
            ])
        }),
        events_per_second: section.value("events_per_second", 500, |item| item.number(8..=100_000)),
    };
    section.finish();
    snoop
}

fn telemetry(section: Section) -> Telemetry {
    let rate = |key, default| section.value(key, default, |item| item.number(8..=100_000));
    let telemetry = Telemetry {
        enabled: section.value("enabled", true, Item::flag),
        flows_per_second: rate("flows_per_second", 500),
        events_per_second: rate("events_per_second", 2_000),
        labels: section.value("labels", LabelProfile::default(), |item| {
            item.choice(&[("small", LabelProfile::Small), ("full", LabelProfile::Full)])
        }),
        textfile: section.value("textfile", None, |item| values::textfile(item).map(Some)),
        textfile_interval: duration(&section, "textfile_interval", 15 * SECOND, SECOND..=DAY),
        log: section.value("log", EventLog::default(), |item| {
            item.choice(&[
                ("off", EventLog::Off),
                ("results", EventLog::Results),
                ("all", EventLog::All),
            ])
        }),
        log_clients: section.value("log_clients", false, |item| {
            item.choice(&[("hash", false), ("address", true)])
        }),
        log_per_second: section.value("log_per_second", 100, |item| item.number(1..=10_000)),
    };
    section.finish();
    telemetry
}

fn geoip(section: Section) -> GeoIp {
    let geoip = GeoIp {
        database: section.value("database", None, |item| values::path(item).map(Some)),
    };
    section.finish();
    geoip
}

pub(super) fn resolvers(section: &Section) -> Vec<Upstream> {
    let resolvers = section.list("resolvers", "an array of resolvers", values::upstream);
    checks::no_duplicates(&resolvers, "resolver");
    unplaced(resolvers)
}

fn probe(section: Section, in_lab: bool) -> Probe {
    // Gateways count half-open SAs by client, and lock out whoever has many.
    let (shortest, closest) = if in_lab {
        (SECOND, 10 * MILLISECOND)
    } else {
        (600 * SECOND, SECOND)
    };
    let ports = section.list("ports", "an array of UDP ports", |item| {
        item.number(1..=65535)
    });
    checks::no_duplicates(&ports, "port");
    let ports: Vec<u16> = unplaced(ports)
        .into_iter()
        .filter_map(|port| u16::try_from(port).ok())
        .collect();
    let probe = Probe {
        enabled: section.value("enabled", false, values::boolean),
        interval: duration(&section, "interval", 6 * 3600 * SECOND, shortest..=7 * DAY),
        spacing: duration(&section, "spacing", 10 * SECOND, closest..=3600 * SECOND),
        ports: if ports.is_empty() {
            vec![500, 4500]
        } else {
            ports
        },
    };
    section.finish();
    probe
}

fn observed(section: Section) -> Observed {
    let default = Observed::default();
    let observed = Observed {
        dscp: section.value("dscp", default.dscp, Item::flag),
        priority: section.value("priority", default.priority, Item::flag),
        mark: section.value("mark", default.mark, Item::flag),
        cap: section.value("cap", default.cap, values::cap),
        keep: duration(&section, "keep", default.keep, SECOND..=DAY),
        longest: duration(&section, "longest", default.longest, SECOND..=30 * DAY),
    };
    checks::observed(&section, &observed);
    section.finish();
    observed
}

fn lab(section: Section) -> Lab {
    let admit = section.list("admit", "an array of networks", values::network);
    section.finish();
    Lab {
        admit: unplaced(admit),
    }
}

/// The catalogue with what the named files add to it, one after the other.
fn catalogue_files(
    section: &Section,
    report: &Report,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Vec<PathBuf>, Catalogue) {
    // The whole compiled-in catalogue as such a file has half a megabyte.
    const LARGEST: usize = 8 << 20;
    let mut catalogue = catalogue().clone();
    let files = section.list("catalogue", "an array of files", values::path);
    checks::no_duplicates(&files, "file");
    for (index, (item, file)) in files.iter().enumerate() {
        if files[..index].iter().any(|(_, earlier)| earlier == file) {
            continue;
        }
        let mismatch = |found: String, expected: &str| Mismatch::expected(expected).found(found);
        let text = match read(file) {
            Err(error) => Err(mismatch(
                format!("{} ({error})", file.display()),
                "a file that can be read",
            )),
            Ok(bytes) if bytes.len() > LARGEST => Err(mismatch(
                format!("a file of {} bytes", bytes.len()),
                "a catalogue file, of at most 8 MiB",
            )),
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                mismatch(
                    format!("a byte sequence in line {line} that is not UTF-8"),
                    "UTF-8 text",
                )
            }),
        };
        match text {
            Err(mismatch) => item.refuse(mismatch),
            Ok(text) => {
                if let Err(rows) = catalogue.add_file(&file.to_string_lossy(), &text) {
                    report.refuse_rows(file, rows);
                }
            }
        }
    }
    (unplaced(files), catalogue)
}

/// Names alone, or tables that also say whose they are.
fn names<'a>(section: &Section<'a>) -> Placed<'a, ExtraName> {
    const EXPECTED: &str = "an array of names, or of tables with name, operator and country";
    let mut names: Placed<ExtraName> = Vec::new();
    for item in section.items("names", EXPECTED) {
        let name = match item.get() {
            DeValue::Table(_) => {
                let table = item.section(EXPECTED);
                let name = match table.item("name") {
                    Some(name) => name.read(values::host_name),
                    None => {
                        table.require("name", "a name such as name = \"epdg.example.net\"");
                        None
                    }
                };
                let operator = table.value("operator", None, |i| values::plmn(i).map(Some));
                let country = table.value("country", None, |i| values::country(i).map(Some));
                table.finish();
                name.map(|name| ExtraName {
                    name,
                    operator,
                    country,
                })
            }
            _ => item.read(values::host_name).map(|name| ExtraName {
                name,
                operator: None,
                country: None,
            }),
        };
        if let Some(name) = name {
            names.push((item, name));
        }
    }
    checks::no_duplicates(&names, "name");
    names
}

fn prefixes(root: &Section, discovery: &Section) -> Vec<StaticPrefix> {
    let mut prefixes: Placed<StaticPrefix> = Vec::new();
    for section in root.sections("prefix") {
        let operator = section.value("operator", None, |item| values::plmn(item).map(Some));
        let country = section.value("country", None, |item| values::country(item).map(Some));
        match section.item("prefix") {
            None => section.require("prefix", "a network such as prefix = \"192.0.2.0/24\""),
            Some(item) => {
                if let Some(prefix) = item.read(values::network) {
                    let prefix = StaticPrefix {
                        prefix,
                        operator,
                        country,
                    };
                    checks::prefix(&item, &prefix);
                    prefixes.push((item, prefix));
                }
            }
        }
        section.finish();
    }
    let short = discovery.list("prefixes", "an array of networks", values::network);
    checks::no_duplicates(&short, "prefix");
    checks::prefixes_once(&prefixes);
    let mut prefixes: Vec<_> = prefixes.into_iter().map(|(_, prefix)| prefix).collect();
    for (item, prefix) in short {
        let prefix = StaticPrefix {
            prefix,
            operator: None,
            country: None,
        };
        checks::prefix(&item, &prefix);
        prefixes.push(prefix);
    }
    prefixes
}

fn defaults(section: &Section) -> Treatment {
    let built_in = Treatment {
        dscp: Dscp::all(dscp::EF),
        priority: Priority::Voice,
        mark: None,
        mark_use: MarkUse::Route,
        cap: None,
    };
    treatment::read(section, built_in)
}

fn limits(section: &Section) -> Limits {
    const LARGEST: u32 = 1_000_000;
    let size = |key, default| section.value(key, default, |item| item.number(1..=LARGEST));
    Limits {
        blocks: size("blocks", 16384),
        hosts: size("hosts", 4096),
        prefixes: size("prefixes", 4096),
        groups: size("groups", 2048),
        policies: size("policies", 256),
        fragments: size("fragments", 1024),
        clients: size("clients", 4096),
        choices: size("choices", 65536),
        tunnels: size("tunnels", 16384),
        flows: size("flows", 8192),
    }
}

pub(super) fn duration(
    section: &Section,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    section.value(key, default, |item| values::duration(item, range))
}

pub(super) fn unplaced<T>(placed: Placed<T>) -> Vec<T> {
    placed.into_iter().map(|(_, value)| value).collect()
}
