//! The arguments of `export`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{DEFAULT_CONFIG, country, instance};
use crate::catalogue::{Country, OperatorPattern};
use crate::config::{Agent, parse_duration};
use crate::discover::Tier;
use crate::export::{Dnsmasq, Format, Selection, Server};

/// The help's last part.
pub(super) const EXAMPLES: &str = "\
Examples:
  wificall export plain
  wificall export nft --country DE --output /etc/nftables.d/wificall.nft
  wificall export iptables-script --offline --output wificall-gateway.sh
  wificall export ipset --watch --output /run/wificall.ipset --exec /etc/wificall/load-sets
  wificall export dnsmasq --dnsmasq server --server 192.0.2.53 --country NZ
  wificall export csv --tier observed --family 4 --operator 505-*

Exit codes:
  0  written; also if the set is empty, which is said on stderr
  1  it could not be written, or nobody could be asked
  2  the command line or the configuration is wrong";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(next_line_help = false)]
pub struct Export {
    /// What to write
    #[arg(value_enum)]
    pub format: ExportFormat,
    /// The configuration of the instance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The instance of this name in the default directories, without reading a configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "offline"], value_parser = instance)]
    pub instance: Option<Agent>,
    /// Ask no agent: the state on disk, and the catalogue and prefixes of the configuration
    #[arg(long)]
    pub offline: bool,
    /// Only IPv4, or only IPv6
    #[arg(long, value_name = "4|6", value_parser = ["4", "6"])]
    pub family: Option<String>,
    /// Only endpoints of this country; may be given more than once
    #[arg(long, value_name = "COUNTRY", value_parser = country)]
    pub country: Vec<Country>,
    /// Only endpoints of these operators (262-01, 505-*); may be given more than once
    #[arg(long, value_name = "OPERATOR")]
    pub operator: Vec<OperatorPattern>,
    /// Only what is trusted so far and further: authoritative (for whatever opens a firewall), corroborated, observed
    #[arg(long, value_name = "TIER", default_value_t = Tier::Corroborated)]
    pub tier: Tier,
    /// Write to a file: replaced as a whole, with the mode and owner that it had
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on: write the file again when the set has changed
    #[arg(long, requires = "output")]
    pub watch: bool,
    /// How often to look: 1s to 1d
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "watch", value_parser = interval)]
    pub interval: Duration,
    /// Run this with `sh -c` each time that the file was replaced
    #[arg(long, value_name = "COMMAND", requires = "output")]
    pub exec: Option<String>,
    /// What dnsmasq is to do with a name
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = DnsmasqWhat::Nftset)]
    pub dnsmasq: DnsmasqWhat,
    /// The server that dnsmasq is to ask, with `--dnsmasq server`
    #[arg(
        long,
        value_name = "ADDRESS[#PORT]",
        required_if_eq("dnsmasq", "server")
    )]
    pub server: Option<Server>,
}

/// A format by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// nftables: a table with sets, marks and DSCP, for `nft -f`
    Nft,
    /// A POSIX sh script (up|down) that sets this table up
    NftScript,
    /// Sets for `ipset restore`
    Ipset,
    /// Chains that use these sets, for `iptables-restore --noflush` and `ip6tables-restore --noflush`
    Iptables,
    /// A POSIX sh script (up|down) that sets both up
    IptablesScript,
    /// dnsmasq: what to do with the names
    Dnsmasq,
    /// hosts(5)
    Hosts,
    /// unbound: local data
    Unbound,
    /// Juniper SRX: an address set, for `load set`
    Junos,
    /// Cisco IOS and IOS XE: object groups
    CiscoIos,
    /// Cisco ASA: an object group
    CiscoAsa,
    /// MikroTik RouterOS: address lists, for `/import`
    Mikrotik,
    /// Surge: an external rule set
    Surge,
    /// Clash and mihomo: a rule provider, classical, YAML
    Clash,
    /// sing-box: a rule set in source form
    SingBox,
    /// JSON: everything
    Json,
    /// CSV: networks with tier, owners, mark and DSCP
    Csv,
    /// A network a line
    Plain,
}

/// What dnsmasq is to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DnsmasqWhat {
    /// Put the answers into nftables sets
    Nftset,
    /// Put the answers into ipsets
    Ipset,
    /// Answer with the addresses that are known
    Address,
    /// Ask the server of --server
    Server,
}

impl Export {
    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.format {
            ExportFormat::Nft => Format::Nft,
            ExportFormat::NftScript => Format::NftScript,
            ExportFormat::Ipset => Format::Ipset,
            ExportFormat::Iptables => Format::Iptables,
            ExportFormat::IptablesScript => Format::IptablesScript,
            ExportFormat::Dnsmasq => Format::Dnsmasq(match (self.dnsmasq, self.server) {
                (DnsmasqWhat::Server, Some(server)) => Dnsmasq::Server(server),
                (DnsmasqWhat::Nftset | DnsmasqWhat::Server, _) => Dnsmasq::Nftset,
                (DnsmasqWhat::Ipset, _) => Dnsmasq::Ipset,
                (DnsmasqWhat::Address, _) => Dnsmasq::Address,
            }),
            ExportFormat::Hosts => Format::Hosts,
            ExportFormat::Unbound => Format::Unbound,
            ExportFormat::Junos => Format::Junos,
            ExportFormat::CiscoIos => Format::CiscoIos,
            ExportFormat::CiscoAsa => Format::CiscoAsa,
            ExportFormat::Mikrotik => Format::Mikrotik,
            ExportFormat::Surge => Format::Surge,
            ExportFormat::Clash => Format::Clash,
            ExportFormat::SingBox => Format::SingBox,
            ExportFormat::Json => Format::Json,
            ExportFormat::Csv => Format::Csv,
            ExportFormat::Plain => Format::Plain,
        }
    }

    /// What is wanted.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            ipv4: self.family.as_deref() != Some("6"),
            ipv6: self.family.as_deref() != Some("4"),
            countries: self.country.clone(),
            operators: self.operator.clone(),
            tier: self.tier,
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    parse_duration(text)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| "expected a duration from 1s to 1d, such as 10s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<Export, clap::Error> {
        let line = format!("wificall export {line}");
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Export(export) => Ok(*export),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn selections_and_variants_are_read() {
        let export = parse("dnsmasq --dnsmasq server --server 192.0.2.53#5353 --family 6").unwrap();
        let server = "192.0.2.53#5353".parse().unwrap();
        assert_eq!(export.format(), Format::Dnsmasq(Dnsmasq::Server(server)));
        let selection = export.selection();
        assert_eq!((selection.ipv4, selection.ipv6), (false, true));
        let export = parse("plain --country DE --country NZ --operator 505-*").unwrap();
        let selection = export.selection();
        assert_eq!(selection.countries.len(), 2);
        assert_eq!(
            selection.to_string(),
            "corroborated and better, countries DE NZ, operators 505-*"
        );
        let export = parse("hosts --tier authoritative --family 4").unwrap();
        assert_eq!(export.selection().to_string(), "IPv4, authoritative");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (line, kind) in [
            ("", ErrorKind::MissingRequiredArgument),
            ("pf", ErrorKind::InvalidValue),
            ("plain --watch", ErrorKind::MissingRequiredArgument),
            ("plain --exec true", ErrorKind::MissingRequiredArgument),
            (
                "plain --output a --interval 5s",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "plain --output a --watch --interval 1ms",
                ErrorKind::ValueValidation,
            ),
            ("plain --family 5", ErrorKind::InvalidValue),
            ("plain --tier best", ErrorKind::ValueValidation),
            (
                "plain --instance lab --offline",
                ErrorKind::ArgumentConflict,
            ),
            (
                "dnsmasq --dnsmasq server",
                ErrorKind::MissingRequiredArgument,
            ),
            ("dnsmasq --server a.example", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }
}
