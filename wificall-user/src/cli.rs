//! The command line: one definition for parsing, help, completions and man pages.

mod analyze;
mod explain;
mod export;
mod follow;
mod probe;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::catalogue::names::host_name;
use crate::catalogue::{Country, CountryError, OperatorPattern, PlmnError, catalogue};
use crate::config::Agent;

pub use analyze::Analyze;
pub use explain::Explain;
pub use export::{Export, ExportFormat};
pub use follow::{Client, Top, Trace};
pub use probe::{Probe, ProbeTarget};

/// Where the configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/wificall/wificall.toml";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: what was tried and why is on stderr
  2  the command line or the configuration is wrong; nothing was touched";

/// First-class Wi-Fi Calling on a Linux access point, gateway or bypass router.
///
/// Finds the tunnels between phones and their carriers' ePDGs (IKEv2 and ESP) among the traffic of this box,
/// gives them DSCP, priority and fwmarks by policy, and counts them by operator and country.
/// Nothing is decrypted, and what is not such a tunnel passes untouched.
#[derive(Debug, Parser)]
#[command(name = "wificall", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Log more: -v for debugging, -vv for every step
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground
    ///
    /// Attaches to the configured interfaces, keeps the kernel's tables, serves metrics.
    /// SIGHUP reloads the configuration. On SIGTERM and SIGINT the agent ends and the kernel goes on classifying
    /// with what it knows: `wificall detach` removes that.
    #[command(
        after_help = "Example:\n  wificall run --config /etc/wificall/wificall.toml --log-format json"
    )]
    Run(Run),
    /// Check a configuration without touching the kernel
    ///
    /// Prints all errors and warnings of the file, each with line, key, what was found and what was expected.
    /// Exits 2 if there is an error; warnings do not count.
    #[command(
        after_help = "Examples:\n  wificall check\n  wificall check --config examples/firewall.toml --json"
    )]
    Check(Check),
    /// Show what the agent of an instance is doing
    ///
    /// Interfaces and hooks, endpoints and their age, operators, resolvers, policies, and what is wrong.
    /// Without a running agent, shows what is left in the kernel, and exits 1.
    #[command(after_help = "Examples:\n  wificall status\n  wificall status --instance lab --json")]
    Status(Instance),
    /// Show the tunnels of phones, and what looks like calls
    ///
    /// Who is connected to whose ePDG, how the set-up went, and of calls what was lost on which half of the way
    /// (docs/telemetry.md). Nothing is decrypted.
    #[command(after_help = "Examples:\n  wificall tunnels\n  wificall tunnels --json")]
    Tunnels(Instance),
    /// Show tunnels and calls live, on the whole terminal
    ///
    /// Asks the agent each second. `?` shows the keys: sort, filter, everything about one tunnel. NO_COLOR is honoured; a
    /// narrow terminal has fewer columns.
    #[command(after_help = "Examples:\n  wificall top\n  wificall top --instance lab")]
    Top(Top),
    /// Follow a phone live: which step its Wi-Fi calling reaches, where it stalls, and what to try
    ///
    /// DNS asked, answered, IKE_SA_INIT, its reply, port 4500, IKE_AUTH, ESP up, ESP down, the way out; with times. Of a
    /// step that does not come, says which it is, what that means and what to try. Ends with Ctrl-C. Names are seen only
    /// where [snoop] names is on.
    #[command(after_help = follow::TRACE_EXAMPLES)]
    Trace(Trace),
    /// Resolve ePDG names as the agent would, and print the addresses
    ///
    /// Asks the configured resolvers once, applies the same filters, and says of each name whose it is, which kind
    /// and from which source, and of each address what was refused and why; then all networks that would be
    /// classified: addresses as far as they are widened, prefixes of the catalogue and of the configuration.
    /// Changes nothing.
    #[command(
        after_help = "Examples:\n  wificall resolve\n  wificall resolve 262-01 505-* NZ\n  \
                      wificall resolve --world --json\n  \
                      wificall resolve epdg.epc.mnc001.mcc262.pub.3gppnetwork.org --json"
    )]
    Resolve(Resolve),
    /// List the operators that are known, their countries and names
    ///
    /// The compiled-in catalogue, with what the catalogue files of the configuration add to it or override.
    /// Exits 1 if there is none.
    #[command(
        after_help = "Examples:\n  wificall operators --country AU\n  wificall operators --search telekom\n  \
                      wificall operators --search 310-260 --json"
    )]
    Operators(Operators),
    /// Ask ePDGs whether they answer from here: reachable, refused, silent, how fast, which algorithms
    ///
    /// Sends a real IKE_SA_INIT (RFC 7296), the first message of IKEv2, to every address, on UDP 500 and 4500, over IPv4
    /// and IPv6, and follows what the gateway says: INVALID_KE_PAYLOAD (another group), COOKIE, REDIRECT.
    /// Nobody is authenticated, nothing after IKE_SA_INIT is sent. A gateway that agrees keeps a half-open SA until it
    /// gives up on us (30 s on some, minutes on others), and many limit those of one client: so there is one exchange for each address
    /// and port, and few a second. To ask again and again is not polite, and soon not answered.
    #[command(after_help = probe::EXAMPLES)]
    Probe(Box<Probe>),
    /// Explain what is done with a packet: how it is read, its endpoint, which policy, and why not another
    ///
    /// Asks the running agent, which classifies the packet with the code of its programs, over the table that it keeps in the
    /// kernel. With --offline, by the configuration and the state on disk. Nothing is sent, nothing is changed.
    #[command(after_help = explain::EXAMPLES)]
    Explain(Box<Explain>),
    /// Analyze a capture: its tunnels, set-ups, rekeys, roaming, what of them is missing on which side, and calls
    ///
    /// The classifier of the kernel and the tracker of the agent, over a file of tcpdump, Wireshark or the like. Nothing is
    /// decrypted. Endpoints are the catalogue's prefixes, and those of --endpoint, or whoever speaks IKE as one in the file.
    /// Memory is bounded whatever the file says, and what stands before a damaged place is analyzed. Needs no agent, no
    /// configuration and no privilege.
    #[command(after_help = analyze::EXAMPLES)]
    Analyze(Analyze),
    /// Write the endpoint set for what else runs here: nft, ipset, iptables, dnsmasq, unbound, firewalls of vendors, proxies
    ///
    /// Networks of what is trusted enough, joined where they touch, in a stable order; names and addresses are checked once
    /// more before they are written. The formats for nft and iptables also have the policies' marks and DSCP. Asks the
    /// running agent; with --offline, reads the state that it left on disk and the configuration.
    #[command(after_help = export::EXAMPLES)]
    Export(Box<Export>),
    /// Make the running agent read its configuration again
    ///
    /// If the new configuration has an error, the agent keeps the old one, and this exits 2 with the errors.
    /// No packet goes unclassified meanwhile.
    #[command(after_help = "Example:\n  wificall reload")]
    Reload(Instance),
    /// Remove everything that an instance has left in the kernel
    ///
    /// Programs, maps, links and pins of that instance, and nothing else. Refused while its agent runs.
    /// With --instance no configuration is needed.
    #[command(after_help = "Examples:\n  wificall detach\n  wificall detach --instance lab")]
    Detach(Instance),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// Which instance, and how to print.
#[derive(Debug, Args)]
pub struct Instance {
    /// The configuration of the instance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The instance of this name in the default directories, without reading a configuration
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = instance)]
    pub instance: Option<Agent>,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub struct Resolve {
    /// Operators (262-01, 505-*), countries (NZ) or names; without any, all that is configured
    #[arg(value_name = "OPERATOR|COUNTRY|NAME")]
    pub targets: Vec<Target>,
    /// All names of all catalogued operators. This takes minutes, at `queries_per_second`; Ctrl-C prints what there is
    #[arg(long, conflicts_with = "targets")]
    pub world: bool,
    /// Also the forms of operators' names that the agent does not ask for
    ///
    /// `sos.n3iwf.`, names without `pub`, two-digit MNC labels in all forms.
    #[arg(long)]
    pub all_forms: bool,
    /// The configuration, for resolvers and filters [default: /etc/wificall/wificall.toml, if it exists or nothing is named]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `operators`.
#[derive(Debug, Args)]
pub struct Operators {
    /// Only operators that serve this country; may be given more than once
    #[arg(long, value_name = "COUNTRY", value_parser = country)]
    pub country: Vec<Country>,
    /// Only operators with this in their number, in one of their names, or in a name or address of their ePDGs
    ///
    /// Case and accents make no difference.
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// The configuration, for its catalogue files [default: /etc/wificall/wificall.toml, if it exists]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Print a JSON array instead
    #[arg(long)]
    pub json: bool,
}

/// Something that can be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All names of these operators.
    Operators(OperatorPattern),
    /// All names of all catalogued operators of a country.
    Country(Country),
    /// One name, without a dot at its end.
    Name(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let suggest = |message: String, suggestion: Option<String>| match suggestion {
            Some(suggestion) => format!("{message}; did you mean {suggestion}?"),
            None => message,
        };
        if text.contains('.') {
            return host_name(text)
                .map(Self::Name)
                .map_err(|error| suggest(error.to_string(), error.suggestion));
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Operators)
                .map_err(|error: PlmnError| suggest(error.to_string(), catalogue().meant(&error)));
        }
        country(text).map(Self::Country).map_err(|message| {
            // Nobody knows numbers by heart.
            match catalogue().called(text) {
                Some(operator) => format!(
                    "{message}; the operator {} is {}",
                    operator.name, operator.plmn
                ),
                None => message,
            }
        })
    }
}

fn country(text: &str) -> Result<Country, String> {
    text.parse()
        .map_err(|error: CountryError| match error.suggestion {
            Some(country) => format!("{error}; did you mean {country} ({})?", country.name()),
            None => error.to_string(),
        })
}

fn instance(name: &str) -> Result<Agent, String> {
    Agent::of_instance(name)
        .ok_or_else(|| "expected 1 to 32 characters out of a-z, 0-9, _ and -".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_in_the_help_is_accepted() {
        let mut examples = 0;
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .expect("each command has an example")
                .to_string();
            for line in help.lines().filter(|line| line.starts_with("  wificall")) {
                parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                examples += 1;
            }
        }
        assert!(examples >= 10);
    }

    #[test]
    fn defaults_are_the_documented_paths() {
        let Command::Run(run) = parse("wificall run").unwrap().command else {
            panic!()
        };
        assert_eq!(run.config, PathBuf::from(DEFAULT_CONFIG));
        let cli = parse("wificall status -vv --log-format json").unwrap();
        assert_eq!((cli.verbose, cli.log_format), (2, LogFormat::Json));
        let Command::Status(status) = cli.command else {
            panic!()
        };
        assert_eq!(
            (status.config, status.instance, status.json),
            (PathBuf::from(DEFAULT_CONFIG), None, false)
        );
    }

    #[test]
    fn an_instance_stands_in_the_default_directories() {
        let Command::Detach(detach) = parse("wificall detach --instance lab").unwrap().command
        else {
            panic!()
        };
        let agent = detach.instance.unwrap();
        assert_eq!(
            agent.control_socket(),
            PathBuf::from("/run/wificall/lab/control.sock")
        );
        assert_eq!(agent.pin_dir(), PathBuf::from("/sys/fs/bpf/wificall/lab"));
        for (line, kind) in [
            (
                "wificall detach --instance ../x",
                ErrorKind::ValueValidation,
            ),
            (
                "wificall detach --instance a --config b",
                ErrorKind::ArgumentConflict,
            ),
            ("wificall detatch", ErrorKind::InvalidSubcommand),
            ("wificall run --json", ErrorKind::UnknownArgument),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
        }
    }

    #[test]
    fn targets_are_told_apart() {
        let name = |name: &str| Ok(Target::Name(name.to_owned()));
        for (text, expected) in [
            ("262-01", Ok(Target::Operators("262-01".parse().unwrap()))),
            ("505-*", Ok(Target::Operators("505-*".parse().unwrap()))),
            ("NZ", Ok(Target::Country("NZ".parse().unwrap()))),
            ("wo.vzwwo.com", name("wo.vzwwo.com")),
            ("EPDG.epc.att.net.", name("epdg.epc.att.net")),
            ("262.example", name("262.example")),
        ] {
            assert_eq!(text.parse::<Target>(), expected);
        }
        for (text, hint) in [
            ("UK", "did you mean GB (United Kingdom)?"),
            ("DEU", "did you mean DE (Germany)?"),
            ("Germany", "did you mean DE (Germany)?"),
            ("telstra", "the operator Telstra is 505-01"),
            ("262-1000", "expected MCC-MNC"),
            ("000-01", "expected MCC-MNC"),
            ("26201", "did you mean 262-01?"),
            ("a..b", "did you mean a.b?"),
            ("262.01", "a DNS name"),
        ] {
            let message = text.parse::<Target>().unwrap_err();
            assert!(message.contains(hint), "{message}");
        }
    }
}
