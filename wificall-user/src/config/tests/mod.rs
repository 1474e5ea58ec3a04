//! Bad files and the exact messages that they get; good files and what they mean.

mod bad;
mod bad_sources;
mod exits;
mod policies;

use std::path::Path;

use super::*;
use crate::discover::Tier;
use crate::steer::{Exit, Gateway, Health, WhenDown, WhenNone};

/// Parses `source`, completed at its end with the sections that every file needs.
fn complete(source: &str) -> Result<Parsed, Errors> {
    let mut source = source.trim_start().to_owned();
    for (header, section) in [
        ("[interfaces]", "access = [\"wlan0\"]"),
        ("[discovery]", "countries = [\"AU\", \"DE\"]"),
    ] {
        if !source.contains(header.trim_matches(['[', ']'])) {
            source.push_str(&format!("\n{header}\n{section}\n"));
        }
    }
    parse(&source, Path::new("f"))
}

/// Each of these files gets exactly what is said beside it.
fn get_their_errors(files: &[(&str, &str)]) {
    for (source, expected) in files {
        match complete(source) {
            Ok(parsed) => panic!("accepted: {source}\n{parsed:?}"),
            Err(errors) => assert_eq!(format!("\n{errors}\n"), *expected, "for: {source}"),
        }
    }
}

/// Each of these files is accepted, with exactly the warnings beside it.
fn get_their_warnings(files: &[(&str, &str)]) {
    for (source, expected) in files {
        match complete(source) {
            Ok(parsed) => assert_eq!(
                format!("\n{}\n", parsed.warnings),
                *expected,
                "for: {source}"
            ),
            Err(errors) => panic!("refused: {source}\n{errors}"),
        }
    }
}

#[test]
fn bad_files_get_all_their_errors_at_once() {
    get_their_errors(bad_sources::BAD);
    get_their_errors(bad::BAD);
}

#[test]
fn what_is_odd_is_a_warning() {
    let source = r#"
[discovery]
operators = ["001-01", "208-85", "998-*"]
countries = ["AX"]
[[prefix]]
prefix = "192.0.2.0/24"
operator = "302-720"
[[policy]]
name = "elsewhere"
countries = ["FR", "CA"]
[[policy]]
name = "other"
operators = ["262-01"]
[[policy]]
name = "neither"
operators = ["208-*"]
countries = ["GB"]
"#;
    let expected = r#"
f:2:24: warning: discovery.operators[1]: found "208-85", expected an operator that the catalogue has
  hint: did you mean 208-86 (SEM@FOR77)? It is used all the same: its standard name may exist
f:2:34: warning: discovery.operators[2]: found "998-*", expected an MCC of which the catalogue has operators
  hint: this resolves nothing: name its operators one by one
f:3:14: warning: discovery.countries[0]: found "AX", expected a country of which the catalogue has operators
  hint: this resolves nothing: name its operators in `operators`
f:10:1: warning: policy[1] "other": found only others, expected operators or countries that [discovery] or a [[prefix]] has
  hint: this policy matches nothing: add them to [discovery]
f:13:1: warning: policy[2] "neither": found only others, expected operators or countries that [discovery] or a [[prefix]] has
  hint: this policy matches nothing: add them to [discovery]
"#;
    let parsed = complete(source).unwrap();
    assert_eq!(format!("\n{}\n", parsed.warnings), expected);
    // In a lab, operators that do not exist are the rule.
    let lab = complete(&format!("{source}\n[lab]\n")).unwrap();
    assert_eq!(lab.warnings.warnings.len(), 2);
    assert_eq!(lab.config.discovery, parsed.config.discovery);
}

#[test]
fn names_that_are_not_seen_are_named() {
    let name = |labels: usize| format!("{}example", "epdg-label.".repeat(labels));
    let source = |more: &str| {
        let (short, long) = (name(10), name(11));
        format!("[discovery]\nnames = [\"{short}\", \"{long}\"]\n{more}")
    };
    let parsed = complete(&source("[snoop]\nnames = true\n")).unwrap();
    let expected = format!(
        "f:2:9: warning: discovery.names: found \"{}\", expected names of at most 126 characters, where [snoop] looks for \
         them\n  hint: it is resolved all the same; clients that ask for it are not seen",
        name(11)
    );
    assert_eq!(parsed.warnings.to_string(), expected);
    // Nobody looks.
    assert_eq!(complete(&source("")).unwrap().warnings.warnings, []);
}

#[test]
fn a_file_of_two_lines_has_the_documented_defaults() {
    let parsed = complete("").unwrap();
    assert_eq!(parsed.warnings.warnings, []);
    let ef = Treatment {
        dscp: Dscp::all(46),
        priority: Priority::Voice,
        mark: None,
        mark_use: MarkUse::Route,
        cap: None,
    };
    let expected = Config {
        snoop: Snoop {
            names: false,
            ike: SnoopIke::Off,
            events_per_second: 500,
        },
        telemetry: Telemetry {
            enabled: true,
            flows_per_second: 500,
            events_per_second: 2_000,
            labels: LabelProfile::Small,
            textfile: None,
            textfile_interval: Duration::from_secs(15),
            log: EventLog::Results,
            log_clients: false,
            log_per_second: 100,
        },
        geoip: GeoIp::default(),
        agent: Agent {
            instance: "default".to_owned(),
            bpffs: "/sys/fs/bpf".into(),
            run_dir: "/run/wificall".into(),
            state_dir: "/var/lib/wificall".into(),
            listen: Some("127.0.0.1:9817".parse().unwrap()),
            token_file: None,
            hosts: vec![],
            resync: Duration::from_secs(30),
        },
        interfaces: Interfaces {
            access: vec![Glob::new("wlan0").unwrap()],
            uplink: vec![],
            xdp: vec![],
            xdp_mode: XdpMode::Native,
            tc: TcMode::Auto,
            wireless: vec![],
        },
        discovery: Discovery {
            world: false,
            operators: vec![],
            countries: vec!["AU".parse().unwrap(), "DE".parse().unwrap()],
            names: vec![],
            catalogue: vec![],
            resolvers: vec![Upstream::System],
            routes: Vec::new(),
            ca_file: None,
            refresh_min: Duration::from_secs(60),
            refresh_max: Duration::from_secs(3600),
            absent_max: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(86400),
            timeout: Duration::from_secs(3),
            widen: Widen::Block,
            queries_per_second: 20,
            concurrency: 8,
            nat64_prefix: Nat64::Auto,
        },
        observed: Observed {
            dscp: true,
            priority: true,
            mark: false,
            cap: NonZeroU32::new(150),
            keep: Duration::from_secs(600),
            longest: Duration::from_secs(4 * 3600),
        },
        other_ipsec: OtherIpsec::default(),
        trust: Trust::default(),
        probe: Probe {
            enabled: false,
            interval: Duration::from_secs(6 * 3600),
            spacing: Duration::from_secs(10),
            ports: vec![500, 4500],
        },
        lab: Lab::default(),
        prefixes: vec![],
        defaults: ef,
        exits: vec![],
        policies: vec![],
        catch_all: CatchAll {
            enabled: false,
            first: First::Hold,
            exit: None,
            per_second: 20,
        },
        limits: Limits {
            blocks: 16384,
            hosts: 4096,
            prefixes: 4096,
            groups: 2048,
            policies: 256,
            fragments: 1024,
            clients: 4096,
            choices: 65536,
            tunnels: 16384,
            flows: 8192,
        },
        catalogue: Arc::new(crate::catalogue::catalogue().clone()),
    };
    assert_eq!(parsed.config, expected);
    let agent = parsed.config.agent;
    assert_eq!(agent.lock_path(), Path::new("/run/wificall/default/lock"));
    assert_eq!(
        agent.control_socket(),
        Path::new("/run/wificall/default/control.sock")
    );
    assert_eq!(
        agent.state_path(),
        Path::new("/var/lib/wificall/default/state.json")
    );
    assert_eq!(agent.pin_dir(), Path::new("/sys/fs/bpf/wificall/default"));
}

/// A file that has every key.
const FULL: &str = r#"
[agent]
instance = "lab_1"
bpffs = "/tmp/bpf"
run_dir = "/tmp/run"
state_dir = "/tmp/state"
listen = "off"
token_file = "/etc/wificall/token"
hosts = ["AP1.example.net"]
resync = "5m"

[interfaces]
access = ["wlan*", "br-lan"]
uplink = ["wan"]
xdp = ["wan", "wlan0"]
xdp_mode = "generic"
tc = "clsact"
wireless = ["wlan*"]

[discovery]
operators = ["001-01", "505-*"]
countries = ["DE"]
world = true
names = ["ePDG.example.net.", { name = "vowifi.example.net", operator = "262-01", country = "AT" }]
prefixes = ["109.237.188.0/24"]
catalogue = []
resolvers = ["system", "192.0.2.53", "tcp://[2001:db8::53]:5353"]
ca_file = "/etc/ssl/own.pem"
refresh_min = "1000ms"
refresh_max = "1d"
absent_max = "2d"
keep = "10s"
widen = "exact"
queries_per_second = 1
concurrency = 1
timeout = "1s"
nat64_prefix = "64:ff9b::/96"

[[discovery.upstream]]
operators = ["505-01"]
countries = ["NZ"]
resolvers = ["tls://192.0.2.53#dns.example.net"]
mark = "0x65"

[probe]
enabled = true
interval = "2s"
spacing = "10ms"
ports = [4500]

[telemetry]
enabled = false
flows_per_second = 10
events_per_second = 11
labels = "full"
textfile = "/var/lib/node_exporter/wificall.prom"
textfile_interval = "20s"
log = "all"
log_clients = "address"
log_per_second = 12

[snoop]
names = true
ike = "report"
events_per_second = 8

[geoip]
database = "/usr/share/country.mmdb"

[observed]
dscp = false
priority = false
mark = true
cap = 50
keep = "1m"
longest = "1h"

[lab]
admit = ["198.18.0.0/15", "fd00::/8"]

[[prefix]]
prefix = "109.237.187.0/24"
operator = "262-01"
country = "DE"
[[prefix]]
prefix = "2001:db8:1::/48"

[defaults]
dscp = { mode = "if-default", up = "EF", down = { default = "EF", ike = "CS5", esp_udp = 46, keepalive = "keep", esp = "EF" } }
priority = "none"
mark = "0x100/0xff00"

[[policy]]
name = "australia"
operators = ["505-01", "505-02"]
countries = ["AU"]
dscp = { up = "VA" }
mark = "101/0xff"
[[policy]]
name = "germany"
countries = ["DE"]
dscp = "keep"
priority = "voice"
mark = "none"
[[policy]]
name = "rest"
operators = ["505-*"]
dscp = 40
[[policy]]
name = "phones"
names = ["ePDG.example.net.", "*.pub.3gppnetwork.org"]
prefixes = ["109.237.187.0/24", "::/0"]
tiers = ["authoritative", "corroborated"]
clients = ["192.168.1.0/24", "192.168.2.9", "fd00::/64", "02:00:00:00:00:aB"]
interfaces = ["wlan0", "wlan1*"]
mark_use = "route"
mark = "0x100/0xff00"
cap = 150
companions = ["Entitlement.example.com"]
[[policy]]
name = "emergency"
emergency = true
keep = true
[[policy]]
name = "guests"
tiers = ["observed"]
drop = true
[[policy]]
name = "by-exit"
emergency = false
exit = "au"

[[exit]]
name = "au"
gateways = ["192.168.1.2", "fd00::2", { address = "fe80::1", device = "br-lan" }]
device = "lan"
table = 0x429
priority = 7
mark = "0x650000/0xff0000"
when_down = "next"
when_none = "block"
health = "ike"
interval = "200ms"
down_after = 2
up_after = 5
probe = "2001:db8::1"
manage_sysctls = true
[[exit]]
name = "de"
device = "wg-de"
table = 4294967295
mark = "0x660000/0xff0000"
when_down = "direct"
health = "none"

[catch_all]
enabled = true
first = "mark"
exit = "de"
per_second = 5

[other_ipsec]
action = "mark"
mark = "0x200/0xf00"
peers = ["10.0.0.0/8", "198.51.100.7"]

[trust]
bleach = true

[limits]
blocks = 1
hosts = 2
prefixes = 3
groups = 0x4
policies = 9
fragments = 1_000_000
clients = 6
choices = 7
tunnels = 8
flows = 9
"#;

#[test]
fn a_file_with_every_key_means_what_it_says() {
    let parsed = parse(FULL, Path::new("f")).unwrap();
    assert_eq!(parsed.warnings.warnings, []);
    let config = parsed.config;
    assert_eq!(config.agent.listen, None);
    assert_eq!(config.agent.resync, Duration::from_secs(300));
    assert_eq!(config.agent.hosts, ["ap1.example.net"]);
    assert_eq!(
        config.agent.token_file.as_deref(),
        Some(Path::new("/etc/wificall/token"))
    );
    let telemetry = Telemetry {
        enabled: false,
        flows_per_second: 10,
        events_per_second: 11,
        labels: LabelProfile::Full,
        textfile: Some("/var/lib/node_exporter/wificall.prom".into()),
        textfile_interval: Duration::from_secs(20),
        log: EventLog::All,
        log_clients: true,
        log_per_second: 12,
    };
    assert_eq!(config.telemetry, telemetry);
    assert_eq!(config.agent.pin_dir(), Path::new("/tmp/bpf/wificall/lab_1"));
    assert_eq!(
        (config.interfaces.xdp_mode, config.interfaces.tc),
        (XdpMode::Generic, TcMode::Clsact)
    );
    assert_eq!(
        config.discovery.operators,
        ["001-01", "505-*"].map(|text| text.parse().unwrap())
    );
    assert!(config.discovery.world);
    assert_eq!(
        config.discovery.names,
        [
            ExtraName {
                name: "epdg.example.net".to_owned(),
                operator: None,
                country: None,
            },
            ExtraName {
                name: "vowifi.example.net".to_owned(),
                operator: "262-01".parse().ok(),
                country: "AT".parse().ok(),
            },
        ]
    );
    assert!(config.catalogue.owner_of_name("epdg.example.net").is_some());
    let resolvers = ["system", "192.0.2.53", "tcp://[2001:db8::53]:5353"];
    assert_eq!(
        config.discovery.resolvers,
        resolvers.map(|text| text.parse().unwrap())
    );
    let route = &config.discovery.routes[0];
    assert_eq!(
        route.upstreams,
        ["tls://192.0.2.53#dns.example.net".parse().unwrap()]
    );
    assert_eq!(
        (route.operators.len(), route.countries.len(), route.mark),
        (1, 1, Some(0x65))
    );
    assert_eq!(
        config.discovery.ca_file.as_deref(),
        Some(Path::new("/etc/ssl/own.pem"))
    );
    assert_eq!(
        config.discovery.absent_max,
        Duration::from_secs(2 * 24 * 3600)
    );
    assert_eq!(config.discovery.refresh_min, Duration::from_secs(1));
    assert_eq!(config.discovery.keep, Duration::from_secs(10));
    assert_eq!(
        config.discovery.nat64_prefix,
        Nat64::Prefix("64:ff9b::/96".parse().unwrap())
    );
    let probe = Probe {
        enabled: true,
        interval: Duration::from_secs(2),
        spacing: Duration::from_millis(10),
        ports: vec![4500],
    };
    assert_eq!(config.probe, probe);
    assert_eq!(
        config.lab.admit,
        ["198.18.0.0/15", "fd00::/8"].map(|text| text.parse().unwrap())
    );
    let prefix = &config.prefixes[0];
    assert_eq!(prefix.prefix, "109.237.187.0/24".parse().unwrap());
    assert_eq!(
        (prefix.operator, prefix.country),
        ("262-01".parse().ok(), "DE".parse().ok())
    );
    assert_eq!(
        (config.prefixes[1].operator, config.prefixes[1].country),
        (None, None)
    );
    assert_eq!(
        config.prefixes[2].prefix,
        "109.237.188.0/24".parse().unwrap()
    );
    let limits = Limits {
        blocks: 1,
        hosts: 2,
        prefixes: 3,
        groups: 4,
        policies: 9,
        fragments: 1_000_000,
        clients: 6,
        choices: 7,
        tunnels: 8,
        flows: 9,
    };
    assert_eq!(config.limits, limits);
    let other_ipsec = OtherIpsec {
        action: OtherAction::Mark(Mark {
            value: 0x200,
            mask: 0xf00,
        }),
        peers: ["10.0.0.0/8", "198.51.100.7/32"]
            .map(|peer| peer.parse().unwrap())
            .into(),
    };
    assert_eq!(config.other_ipsec, other_ipsec);
    assert!(config.trust.bleach);
}

#[test]
fn a_policy_takes_from_the_defaults_what_it_does_not_give() {
    let config = parse(FULL, Path::new("f")).unwrap().config;
    let down = [Some(40), Some(46), None, Some(46)];
    let if_default = |up| Dscp {
        mode: DscpMode::IfDefault,
        up: [Some(up); 4],
        down,
    };
    let mark = |value, mask| Some(Mark { value, mask });
    assert_eq!(config.defaults.dscp, if_default(46));
    let treatments: Vec<_> = config.policies[..3]
        .iter()
        .map(|policy| policy.treatment)
        .collect();
    let expected = [
        (if_default(44), Priority::None, mark(101, 0xff)),
        (Dscp::KEEP, Priority::Voice, None),
        (Dscp::all(40), Priority::None, mark(0x100, 0xff00)),
    ];
    assert_eq!(
        treatments,
        expected.map(|(dscp, priority, mark)| Treatment {
            dscp,
            priority,
            mark,
            mark_use: MarkUse::Route,
            cap: None,
        })
    );
}

#[test]
fn dscp_tables_complete_themselves_from_what_they_replace() {
    let dscp = |source: &str| complete(source).unwrap().config.defaults.dscp;
    // A table over `keep` writes what it names and nothing else.
    let policy = "[defaults]\ndscp = \"keep\"\n[[policy]]\nname = \"p\"\ncountries = [\"AU\"]\ndscp = { down = \"EF\" }";
    let expected = Dscp {
        mode: DscpMode::Set,
        up: [None; 4],
        down: [Some(46); 4],
    };
    assert_eq!(
        complete(policy).unwrap().config.policies[0].treatment.dscp,
        expected
    );
    assert_eq!(
        dscp("[defaults]\ndscp = { up = \"keep\", down = \"keep\" }"),
        Dscp::KEEP
    );
    assert_eq!(dscp("[defaults.dscp]\nmode = \"set\"\n"), Dscp::all(46));
    assert_eq!(
        dscp("[defaults.dscp.up]\nesp = 0\n").up,
        [Some(46), Some(46), Some(46), Some(0)]
    );
}

#[test]
fn problems_are_the_same_for_scripts() {
    let errors =
        complete("[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"1/2\"").unwrap_err();
    let expected = serde_json::json!({
        "file": "f",
        "errors": [{
            "line": 4,
            "column": 8,
            "key": "policy[0].mark",
            "name": "au",
            "found": "\"1/2\"",
            "expected": "a value inside its mask",
            "hint": "the mask of this value is at least 0x3: write \"0x1/0x3\"",
        }],
    });
    assert_eq!(serde_json::to_value(errors).unwrap(), expected);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wificall.toml");
    let message = |file: &Path| {
        load(file)
            .unwrap_err()
            .to_string()
            .replace(file.to_str().unwrap(), "f")
    };
    assert_eq!(
        message(&file),
        "f: found No such file or directory (os error 2), expected a file that can be read\n  \
         hint: name another with --config; examples/ has some to start from"
    );
    std::fs::write(&file, b"[agent]\ninstance = \"\xff\"\n").unwrap();
    assert_eq!(
        message(&file),
        "f: found a byte sequence in line 2 that is not UTF-8, expected UTF-8 text\n  hint: save the file as UTF-8"
    );
    std::fs::write(&file, FULL).unwrap();
    assert_eq!(
        load(&file).unwrap().config,
        parse(FULL, &file).unwrap().config
    );
}

/// Catalogue files are read with the configuration: what they add is known to its checks, and their errors come with
/// its own.
#[test]
fn catalogue_files_add_and_err() {
    let files = |path: &Path| match path.to_str().unwrap() {
        "/good" => Ok(b"operator\t998-01\tXK\tNew\nname\t998-01\tepdg.new.example\n".to_vec()),
        "/bad" => Ok(b"operator\t998-01\tUK\tNew\nnam\t998-01\tx\n".to_vec()),
        "/latin1" => Ok(b"# x\noperator\t998-01\tXK\t\xe9\n".to_vec()),
        "/huge" => Ok(vec![b'#'; (8 << 20) + 1]),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let parsed = |catalogue: &str, rest: &str| {
        let source = format!(
            "interfaces.access = [\"wlan0\"]\n[discovery]\noperators = [\"998-*\"]\ncatalogue = {catalogue}\n{rest}"
        );
        parse_with(&source, Path::new("f"), &files)
    };
    let good = parsed(
        r#"["/good"]"#,
        "[[policy]]\nname = \"new\"\ncountries = [\"XK\"]",
    )
    .unwrap();
    assert_eq!(good.warnings.warnings, []);
    let catalogue = &good.config.catalogue;
    assert_eq!(
        catalogue.country_of("998-01".parse().unwrap()),
        "XK".parse().ok()
    );
    let targets = crate::discover::targets(catalogue, &good.config.discovery.selection());
    assert!(
        targets
            .names
            .iter()
            .any(|target| &*target.name == "epdg.new.example")
    );

    let errors = parsed(
        r#"["/bad", "/none", "relative", "/latin1", "/bad", "/huge"]"#,
        "widen = \"x\"\n",
    );
    assert_eq!(
        format!("\n{}\n", errors.unwrap_err()),
        r#"
f:4:22: discovery.catalogue[1]: found /none (entity not found), expected a file that can be read
f:4:31: discovery.catalogue[2]: found "relative", expected an absolute path
f:4:43: discovery.catalogue[3]: found a byte sequence in line 2 that is not UTF-8, expected UTF-8 text
f:4:54: discovery.catalogue[4]: found "/bad", expected each file once
f:4:62: discovery.catalogue[5]: found a file of 8388609 bytes, expected a catalogue file, of at most 8 MiB
f:5:9: discovery.widen: found "x", expected "block" or "exact"
/bad:1:17: found "UK", expected countries such as AU, or AU NZ, or - for none
  hint: did you mean GB?
/bad:2:1: found "nam", expected `operator`, `name`, `prefix` or `mcc`, and a tab after it
  hint: did you mean name?
"#
    );
}

#[test]
fn no_damage_to_a_file_makes_it_panic() {
    // The world would be looked through each time.
    let full = FULL.replace("world = true", "world = false");
    // One kind of damage at a place and another at the next: each key and value meets all of them.
    let damages = ["\"", "[", "=", "é", "0"].into_iter().cycle();
    for ((at, _), damage) in full.char_indices().zip(damages) {
        let (before, after) = (&full[..at], &full[at + 1..]);
        let _ = parse(before, Path::new("f"));
        let _ = parse(&format!("{before}{damage}{after}"), Path::new("f"));
    }
}

#[test]
fn the_examples_are_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["access-point", "bypass-router", "firewall", "operations"] {
        let parsed = load(&directory.join(name).with_extension("toml"))
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(parsed.warnings.warnings, [], "{name}");
    }
}

/// What the documents show as whole files can be used as it stands.
#[test]
fn the_files_in_the_documents_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (document, whole) in [("docs/configuration.md", 2), ("README.md", 4)] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let files: Vec<&str> = text
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split_once("```").map(|(file, _)| file))
            .filter(|file| file.contains("[interfaces]\n"))
            .collect();
        assert_eq!(files.len(), whole, "{document}");
        for file in files {
            let parsed =
                parse(file, Path::new(document)).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(parsed.warnings.warnings, [], "{document}");
        }
    }
}

/// The keys of all tables of the value, without their paths.
fn keys(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| [vec![key.as_str()], keys(value)].concat())
            .collect(),
        toml::Value::Array(array) => array.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_documentation_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    for key in keys(&toml::from_str(FULL).unwrap()) {
        let documented = [
            format!("\n| `{key}` |"),
            format!("\n## [{key}]"),
            format!("\n## [[{key}]]"),
            format!("\n## [[discovery.{key}]]"),
        ];
        assert!(
            documented.iter().any(|form| documentation.contains(form)),
            "{key}"
        );
    }
}

/// Where an operator's names are asked for its packets go too, unless the file says otherwise.
#[test]
fn questions_go_by_the_mark_of_the_policy() {
    const POLICIES: &str = "[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"0x65/0xff\"\n\
                            [[policy]]\nname = \"de\"\noperators = [\"262-01\"]\nmark = \"0x66/0xff\"\n\
                            [[policy]]\nname = \"firewall\"\ncountries = [\"ZA\"]\nmark = \"0x67\"\n\
                            mark_use = \"passage\"\n[defaults]\nmark = \"0x70/0xff\"\n";
    let marks = |discovery: &str, upstream: &str| {
        let source = format!(
            "[interfaces]\naccess = [\"lan\"]\n[discovery]\n{discovery}\n\
             [[discovery.upstream]]\nresolvers = [\"192.0.2.53\"]\n{upstream}\n{POLICIES}"
        );
        let parsed = parse(&source, Path::new("f")).unwrap();
        let warned = parsed.warnings.to_string().contains("several marks");
        (parsed.config.discovery.routes[0].mark, warned)
    };
    let world = "world = true";
    let australia = "countries = [\"AU\"]";
    assert_eq!(marks(world, australia), (Some(0x65), false));
    for (mark, expected) in [("0x77", Some(0x77)), ("none", None)] {
        let upstream = format!("{australia}\nmark = \"{mark}\"");
        assert_eq!(marks(world, &upstream), (expected, false));
    }
    assert_eq!(
        marks(world, "operators = [\"262-01\"]"),
        (Some(0x66), false)
    );
    // What no policy is for has the mark of the defaults; a mark for a firewall leads nowhere.
    assert_eq!(marks(world, "countries = [\"NZ\"]"), (Some(0x70), false));
    assert_eq!(marks(world, "countries = [\"ZA\"]"), (None, false));
    // Others of the country have no policy; it matters only if they are asked for.
    let germany = "countries = [\"DE\"]";
    assert_eq!(marks(world, germany), (None, true));
    let one = "operators = [\"262-01\", \"505-01\"]";
    assert_eq!(marks(one, germany), (Some(0x66), false));
    assert_eq!(marks(one, "countries = [\"DE\", \"AU\"]"), (None, true));
    // Names that only clients ask for.
    assert_eq!(
        marks("[snoop]\nnames = true", australia),
        (Some(0x65), false)
    );
}

/// What `detach` needs of a file: to remove an instance that cannot be started any more.
#[test]
fn an_instance_is_known_though_the_rest_of_the_file_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let agent = |text: &str| {
        std::fs::write(&path, text).unwrap();
        load_agent(&path).map(|agent| agent.instance).ok()
    };
    let named = "[agent]\ninstance = \"lab\"\n";
    for (rest, known) in [
        ("", true),
        ("[[policy]]\nname = \"p\"\n", true),
        ("[interfaces]\naccess = 1\n[discovery]\nnamse = []\n", true),
        ("[[exit]]\nname = \"e\"\n", true),
        // It may be what `[agent]` should have said.
        ("[agnet]\nrun_dir = \"/run/lab\"\n", false),
        ("[interfaces\n", false),
    ] {
        let found = agent(&format!("{named}{rest}"));
        assert_eq!(found.as_deref(), known.then_some("lab"), "{rest}");
    }
    assert_eq!(agent("[agent]\ninstance = 1\n"), None);
    assert_eq!(agent("[agent]\ninstanec = \"lab\"\n"), None);
}
