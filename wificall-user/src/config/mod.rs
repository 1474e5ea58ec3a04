//! The configuration: TOML → [`Config`], with all errors of a file at once.
//!
//! docs/configuration.md has every key for the reader; the types here have the same order.
//! [`parse`] is pure but for the catalogue files that a configuration names. What it cannot know (does the interface exist, can this kernel do it) is checked where it is used.

mod catch_all;
mod checks;
mod conditions;
mod cover;
mod display;
mod dscp;
mod exits;
mod glob;
mod other;
mod policies;
mod policy;
mod problem;
mod reach;
mod reader;
mod report;
mod sections;
mod treatment;
mod upstream;
mod values;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::catalogue::{Catalogue, Country, OperatorPattern, Owner, Plmn};
use crate::discover::{Observed, Route, Selection, Upstream, nat64::Nat64};
use crate::steer::Exit;

use reader::Section;
use report::Report;

pub use catch_all::{CatchAll, First};
pub use dscp::{Dscp, DscpMode};
pub use glob::Glob;
pub use other::{OtherAction, OtherIpsec, Trust};
pub use policy::{Action, Client, NamePattern, Policy};
pub use problem::{Errors, Problem, Warnings};
pub use values::{parse_duration, parse_number};

/// Everything that a configuration file says, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[agent]`
    pub agent: Agent,
    /// `[interfaces]`
    pub interfaces: Interfaces,
    /// `[discovery]`
    pub discovery: Discovery,
    /// `[snoop]`
    pub snoop: Snoop,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[geoip]`
    pub geoip: GeoIp,
    /// `[observed]`
    pub observed: Observed,
    /// `[other_ipsec]`
    pub other_ipsec: OtherIpsec,
    /// `[trust]`
    pub trust: Trust,
    /// `[probe]`
    pub probe: Probe,
    /// `[lab]`
    pub lab: Lab,
    /// `[[prefix]]`, and `prefixes` in `[discovery]`.
    pub prefixes: Vec<StaticPrefix>,
    /// `[defaults]`: the treatment of a match that no policy names.
    pub defaults: Treatment,
    /// `[[exit]]`, in order.
    pub exits: Vec<Exit>,
    /// `[[policy]]`, in order: the first match wins.
    pub policies: Vec<Policy>,
    /// `[catch_all]`
    pub catch_all: CatchAll,
    /// `[limits]`
    pub limits: Limits,
    /// The operators, countries and names that there are: the compiled-in ones, and what this
    /// configuration adds to them.
    pub catalogue: Arc<Catalogue>,
}

/// The process: where it keeps things and where it listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Name of this instance, `[a-z0-9_-]{1,32}`: agents of different instances share nothing.
    pub instance: String,
    /// Where a bpffs is mounted.
    pub bpffs: PathBuf,
    /// Parent of the directory of the lock and the control socket.
    pub run_dir: PathBuf,
    /// Parent of the directory of the state that survives a reboot.
    pub state_dir: PathBuf,
    /// Where HTTP is served; `None` = nowhere.
    pub listen: Option<SocketAddr>,
    /// File of the token that shows clients' addresses to who has it; `None` = none does.
    pub token_file: Option<PathBuf>,
    /// Names that HTTP is asked by, beside loopback ones and the address that it listens on; lower case.
    pub hosts: Vec<String>,
    /// How often everything is compared with the kernel although no event said so.
    pub resync: Duration,
}

impl Agent {
    /// The instance of this name in the default directories, as a file without `[agent]` but its name would have it.
    /// `None` if no instance can have that name.
    pub fn of_instance(name: &str) -> Option<Self> {
        values::is_instance(name).then(|| Self {
            instance: name.to_owned(),
            bpffs: "/sys/fs/bpf".into(),
            run_dir: "/run/wificall".into(),
            state_dir: "/var/lib/wificall".into(),
            listen: Some(([127, 0, 0, 1], 9817).into()),
            token_file: None,
            hosts: Vec::new(),
            resync: Duration::from_secs(30),
        })
    }

    /// The file whose lock says that an agent of this instance runs.
    pub fn lock_path(&self) -> PathBuf {
        self.run_dir.join(&self.instance).join("lock")
    }

    /// The Unix socket that takes commands.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join(&self.instance).join("control.sock")
    }

    /// What its exits have installed.
    pub fn exits_path(&self) -> PathBuf {
        self.run_dir.join(&self.instance).join("exits.json")
    }

    /// The last known endpoints.
    pub fn state_path(&self) -> PathBuf {
        self.state_dir.join(&self.instance).join("state.json")
    }

    /// The directory below which this instance pins its programs, maps and links.
    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs.join("wificall").join(&self.instance)
    }
}

/// Which links have which role. A link may be in one role only.
#[derive(Clone, Debug, PartialEq)]
pub struct Interfaces {
    /// Towards phones.
    pub access: Vec<Glob>,
    /// Towards the network.
    pub uplink: Vec<Glob>,
    /// Those of the above that also run XDP at ingress.
    pub xdp: Vec<Glob>,
    /// How XDP is attached there.
    pub xdp_mode: XdpMode,
    /// How TC programs are attached.
    pub tc: TcMode,
    /// Treated as wireless although the kernel does not say so.
    pub wireless: Vec<Glob>,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, or not at all.
    Native,
    /// After an skb exists: works everywhere, gains nothing but a test of the path.
    Generic,
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// TCX where the kernel has it (6.6), clsact otherwise.
    Auto,
    /// TCX or not at all.
    Tcx,
    /// clsact and cls_bpf, also where TCX exists.
    Clsact,
}

/// Whose names are resolved, by whom and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// All catalogued operators.
    pub world: bool,
    /// Operators by PLMN.
    pub operators: Vec<OperatorPattern>,
    /// Countries: all catalogued operators that serve them.
    pub countries: Vec<Country>,
    /// Further names.
    pub names: Vec<ExtraName>,
    /// Files that add to the catalogue or override it. What they say is in [`Config::catalogue`].
    pub catalogue: Vec<PathBuf>,
    /// Asked in order.
    pub resolvers: Vec<Upstream>,
    /// `[[discovery.upstream]]`: other resolvers for some operators and countries.
    pub routes: Vec<Route>,
    /// The authorities that sign the certificates of encrypted resolvers; `None` = the system's.
    pub ca_file: Option<PathBuf>,
    /// Floor of an answer's TTL.
    pub refresh_min: Duration,
    /// Ceiling of an answer's TTL.
    pub refresh_max: Duration,
    /// How long at most a name that does not exist is not asked for.
    pub absent_max: Duration,
    /// How long an address stays after its last answer.
    pub keep: Duration,
    /// How long one query may take.
    pub timeout: Duration,
    /// What an address stands for.
    pub widen: Widen,
    /// Queries a second, all resolvers together.
    pub queries_per_second: u32,
    /// Queries at a time.
    pub concurrency: usize,
    /// The NAT64 prefix behind which IPv4 endpoints are seen as IPv6 (RFC 6052).
    pub nat64_prefix: Nat64,
}

impl Discovery {
    /// Whose names are resolved.
    #[must_use]
    pub fn selection(&self) -> Selection<'_> {
        Selection {
            world: self.world,
            operators: &self.operators,
            countries: &self.countries,
            names: &self.names,
        }
    }
}

/// A name that is resolved although no selected operator has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtraName {
    /// The name, in lower case and without a final dot.
    pub name: String,
    /// Whose it is.
    pub operator: Option<Plmn>,
    /// Where it counts as; by default the operator's country.
    pub country: Option<Country>,
}

/// What an address from DNS stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widen {
    /// Its /24 (IPv4) or /64 (IPv6): carriers use more of a block than they publish.
    Block,
    /// Itself.
    Exact,
}

/// The agent's own round of probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether there is one.
    pub enabled: bool,
    /// How often each address and port is probed.
    pub interval: Duration,
    /// The least time between two exchanges.
    pub spacing: Duration,
    /// The ports, each once.
    pub ports: Vec<u16>,
}

/// What is learnt from clients' own packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snoop {
    /// The names that clients ask DNS for, and what they are told.
    pub names: bool,
    /// Who answers their IKE.
    pub ike: SnoopIke,
    /// Events of each kind a second, on each CPU.
    pub events_per_second: u32,
}

impl Snoop {
    /// Whether anything is looked at.
    #[must_use]
    pub fn on(&self) -> bool {
        self.names || self.ike != SnoopIke::Off
    }
}

/// What is measured of tunnels and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Whether flows are tracked.
    pub enabled: bool,
    /// Flows that may enter the table in a second, on each CPU.
    pub flows_per_second: u32,
    /// Events of flows a second, on each CPU.
    pub events_per_second: u32,
    /// By what metrics of tunnels and calls are told apart.
    pub labels: LabelProfile,
    /// Where the metrics are written for node_exporter's textfile collector; `None` = nowhere.
    pub textfile: Option<PathBuf>,
    /// How often.
    pub textfile_interval: Duration,
    /// Which events the log has.
    pub log: EventLog,
    /// Whether the log has clients' addresses; else keyed hashes.
    pub log_clients: bool,
    /// Events that are logged in a second at most.
    pub log_per_second: u32,
}

/// Which events of tunnels and calls are logged, and not as mere details (level `DEBUG`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventLog {
    /// None, not as details either.
    Off,
    /// How set-ups end, calls, roaming, changes of exit.
    #[default]
    Results,
    /// Each step.
    All,
}

/// By what metrics of tunnels and calls are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelProfile {
    /// By country: for access points, of which there are many.
    #[default]
    Small,
    /// By operator and country: for gateways.
    Full,
}

/// What is done with an unknown address that answers IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnoopIke {
    /// Nothing: IKE with unknown addresses is not looked at.
    Off,
    /// It is reported as a candidate.
    Report,
    /// It is reported, and an endpoint of the observed tier.
    Observe,
}

/// Where addresses are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeoIp {
    /// A database in MaxMind's format.
    pub database: Option<PathBuf>,
}

/// What only a test set-up needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lab {
    /// Prefixes that are admitted as endpoints although they are not global unicast, or are local.
    pub admit: Vec<IpNet>,
}

/// An endpoint that is known without DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StaticPrefix {
    /// The network; host bits are zero.
    pub prefix: IpNet,
    /// Whose it is.
    pub operator: Option<Plmn>,
    /// Where it counts as; by default the country of the operator's MCC.
    pub country: Option<Country>,
}

/// What is done with a match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Treatment {
    /// The DSCP that it gets.
    pub dscp: Dscp,
    /// The priority that its packets get.
    pub priority: Priority,
    /// The fwmark that its `up` packets get.
    pub mark: Option<Mark>,
    /// What that mark is for.
    pub mark_use: MarkUse,
    /// Packets a second of one client in one direction that get DSCP and priority, whatever the endpoint's tier.
    pub cap: Option<NonZeroU32>,
}

/// What a mark is for. It decides how far an endpoint must be trusted to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkUse {
    /// A route is chosen by it, or something is counted.
    Route,
    /// A firewall lets packets pass that have it.
    Passage,
}

/// A priority, named by meaning: the numbers differ between wireless and wired links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// WMM voice on wireless links, interactive elsewhere.
    Voice,
    /// As it comes.
    None,
}

/// A firewall mark under a mask: `mark = (mark & !mask) | value`. `value` lies inside `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The bits to set.
    pub value: u32,
    /// The bits that are ours.
    pub mask: u32,
}

/// Sizes of the kernel's maps, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IPv4 /24 blocks, and as many IPv6 /64 blocks.
    pub blocks: u32,
    /// Single addresses.
    pub hosts: u32,
    /// Prefixes of other lengths.
    pub prefixes: u32,
    /// Distinct sets of operators and countries that an endpoint can have.
    pub groups: u32,
    /// Policies.
    pub policies: u32,
    /// Fragmented packets whose later fragments are awaited.
    pub fragments: u32,
    /// Networks that policies name as clients, and as many link-layer addresses.
    pub clients: u32,
    /// What clients get instead of what others get, by endpoints and class of client.
    pub choices: u32,
    /// Tunnels whose exit is remembered.
    pub tunnels: u32,
    /// Flows that are tracked.
    pub flows: u32,
}

impl Config {
    /// Whether anything is learnt from clients' packets.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.snoop.on() || self.catch_all.enabled
    }

    /// Whether the programs tell of anything.
    #[must_use]
    pub fn hears(&self) -> bool {
        self.listens() || self.telemetry.enabled
    }

    /// Whether a policy is for a country as such, whoever is there.
    #[must_use]
    pub fn is_for(&self, country: Country) -> bool {
        let owner = Owner {
            plmn: None,
            country: Some(country),
        };
        let mut policies = self.policies.iter();
        policies.any(|policy| !policy.countries.is_empty() && policy.matches(&owner))
    }

    /// The companion names of all policies.
    pub fn companions(&self) -> impl Iterator<Item = &str> {
        let policies = self.policies.iter();
        policies.flat_map(|policy| policy.companions.iter().map(String::as_str))
    }

    /// The sizes that the kernel's maps are to have: those that are made whole are small where nothing uses them.
    #[must_use]
    pub fn sizes(&self) -> Limits {
        Limits {
            tunnels: if self.exits.is_empty() {
                1
            } else {
                self.limits.tunnels
            },
            flows: if self.telemetry.enabled {
                self.limits.flows
            } else {
                1
            },
            ..self.limits
        }
    }
}

/// A configuration that can be used, and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The configuration.
    pub config: Config,
    /// What does not prevent its use but is probably not meant.
    pub warnings: Warnings,
}

/// Reads a configuration from its source, and the catalogue files that it names; `file` is only named in messages.
///
/// # Errors
///
/// All that is wrong, in the order of the file, then in those of the catalogue files.
pub fn parse(source: &str, file: &Path) -> Result<Parsed, Errors> {
    parse_with(source, file, &|path| std::fs::read(path))
}

/// As [`parse`], with a way to read the catalogue files.
fn parse_with(
    source: &str,
    file: &Path,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Parsed, Errors> {
    parse_leniently(source, file, read).map_err(|(errors, _)| errors)
}

/// As [`parse_with`]; beside the errors, `[agent]`, if the file is TOML at all.
fn parse_leniently(
    source: &str,
    file: &Path,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Parsed, (Errors, Option<Box<Agent>>)> {
    let report = Report::new(source);
    let tree = report.parse();
    let config = tree
        .as_ref()
        .map(|tree| sections::config(Section::root(&report, tree), &report, read));
    let (errors, warnings) = report.finish();
    let file = file.to_owned();
    match config {
        Some(config) if errors.is_empty() => Ok(Parsed {
            config,
            warnings: Warnings { file, warnings },
        }),
        config => Err((
            Errors { file, errors },
            config.map(|config| Box::new(config.agent)),
        )),
    }
}

/// Reads a configuration from a file.
///
/// # Errors
///
/// As [`parse`]; also if the file cannot be read or is not UTF-8.
pub fn load(file: &Path) -> Result<Parsed, Errors> {
    parse(&source(file)?, file)
}

/// Reads which instance a file is of, though what it says of others than `[agent]` be wrong.
///
/// # Errors
///
/// As [`load`], if the instance may be another than the file says.
pub fn load_agent(file: &Path) -> Result<Agent, Errors> {
    match parse_leniently(&source(file)?, file, &|path| std::fs::read(path)) {
        Ok(parsed) => Ok(parsed.config.agent),
        Err((errors, Some(agent))) if errors.errors.iter().all(is_elsewhere) => Ok(*agent),
        Err((errors, _)) => Err(errors),
    }
}

/// Whether a problem is in a section that has nothing to do with `[agent]`, and is none that is misspelt.
fn is_elsewhere(problem: &Problem) -> bool {
    const SECTIONS: [&str; 16] = [
        "interfaces",
        "discovery",
        "snoop",
        "geoip",
        "observed",
        "probe",
        "lab",
        "defaults",
        "limits",
        "catch_all",
        "other_ipsec",
        "trust",
        "telemetry",
        "prefix",
        "policy",
        "exit",
    ];
    let section = problem.key.split(['.', '[', ':']).next();
    section.is_some_and(|section| SECTIONS.contains(&section))
}

/// The text of a file.
fn source(file: &Path) -> Result<String, Errors> {
    let whole_file = |found: String, expected: &str, hint: &str| Errors {
        file: file.to_owned(),
        errors: vec![Problem {
            file: None,
            line: None,
            column: None,
            key: String::new(),
            name: None,
            found,
            expected: expected.to_owned(),
            hint: Some(hint.to_owned()),
        }],
    };
    let bytes = std::fs::read(file).map_err(|error| {
        whole_file(
            error.to_string(),
            "a file that can be read",
            "name another with --config; examples/ has some to start from",
        )
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1;
        whole_file(
            format!("a byte sequence in line {line} that is not UTF-8"),
            "UTF-8 text",
            "save the file as UTF-8",
        )
    })
}
