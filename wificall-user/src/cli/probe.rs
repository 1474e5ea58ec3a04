//! The arguments of `probe`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::Target;
use crate::config::{parse_duration, parse_number};
use crate::probe::Group;

/// The help's last part.
pub(super) const EXAMPLES: &str = "\
Examples:
  wificall probe 262-01
  wificall probe NZ --best
  wificall probe 198.51.100.7 -v --ports 4500 --timeout 2s
  wificall probe epdg.epc.mnc001.mcc262.pub.3gppnetwork.org --json
  wificall probe --policy australia
  wificall probe 505-01 --mark 0x65 -4

Exit codes:
  0  every operator, name and address asked for can be reached at one address at least
  1  some cannot; operators of a country or pattern that have no ePDG do not count
  2  the command line or the configuration is wrong; nothing was sent";

/// Arguments of `probe`.
#[derive(Debug, Args)]
#[command(next_line_help = false)]
pub struct Probe {
    /// Operators (262-01, 505-*), countries (NZ), names or addresses; without any, those of --policy, or all that is configured
    #[arg(value_name = "OPERATOR|COUNTRY|NAME|ADDRESS")]
    pub targets: Vec<ProbeTarget>,
    /// The configuration, for resolvers, policies and filters [default: /etc/wificall/wificall.toml, if it exists or nothing is named]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Name the fastest address of each operator instead, and of each name
    #[arg(long)]
    pub best: bool,
    /// UDP ports; on 4500 IKE stands behind the non-ESP marker
    #[arg(long, value_name = "PORTS", value_delimiter = ',', default_values_t = [500, 4500], value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Exchanges begun a second at most
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rate: u32,
    /// How long a request waits for its answer, retransmissions included: 100ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = timeout)]
    pub timeout: Duration,
    /// How often a request without an answer is sent again, after 0.5, 1, 2 s and so on
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=6))]
    pub retries: u32,
    /// Only IPv4 addresses
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long = "ipv6")]
    pub ipv6: bool,
    /// The key exchange group to begin with: some gateways are silent where they should ask for another
    #[arg(long, value_name = "GROUP", default_value_t = Group::Modp2048)]
    pub group: Group,
    /// Send probes and DNS questions with this fwmark, such as 0x65: the way that the box's rules give it
    #[arg(long, value_name = "NUMBER", group = "source", value_parser = mark)]
    pub mark: Option<u32>,
    /// Send with the mark of this policy of the configuration
    #[arg(long, value_name = "NAME", group = "source")]
    pub policy: Option<String>,
    /// Probe private, local and other addresses that are not global, too
    #[arg(long, action = ArgAction::SetTrue)]
    pub allow_local: bool,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// Something that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// An address.
    Address(IpAddr),
    /// The addresses of something that is resolved.
    Resolved(Target),
}

impl FromStr for ProbeTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            // It was to be an address: no name, operator or country has a colon, or only digits and dots.
            Err(_) if text.contains(':') => {
                Err("an IPv6 address has a form such as 2001:db8::1, without a port".to_owned())
            }
            Err(_)
                if text.matches('.').count() == 3
                    && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') =>
            {
                Err(
                    "an IPv4 address is four numbers from 0 to 255 without leading zeros"
                        .to_owned(),
                )
            }
            Err(_) => text.parse().map(Self::Resolved),
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    parse_duration(text)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| "expected a duration from 100ms to 60s, such as 2s".to_owned())
}

fn mark(text: &str) -> Result<u32, String> {
    match parse_number(text) {
        Some(0) => Err("expected a mark above 0".to_owned()),
        Some(mark) => Ok(mark),
        None if text.contains('/') => {
            Err("a mark without a mask is expected: all bits of it are set".to_owned())
        }
        None => Err("expected a number such as 101 or 0x65".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<Probe, clap::Error> {
        let cli = Cli::try_parse_from(
            ["wificall", "probe"]
                .into_iter()
                .chain(line.split_whitespace()),
        )?;
        match cli.command {
            Command::Probe(probe) => Ok(*probe),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_polite() {
        let probe = parse("262-01").unwrap();
        assert_eq!(probe.ports, [500, 4500]);
        assert_eq!((probe.rate, probe.retries), (5, 3));
        assert_eq!(probe.timeout, Duration::from_secs(5));
        assert_eq!(probe.group, Group::Modp2048);
        assert!(!probe.allow_local && probe.mark.is_none());
    }

    #[test]
    fn addresses_are_told_from_names() {
        let probe = parse("198.51.100.7 2001:db8::1 NZ 262-01 epdg.example.org").unwrap();
        let kinds: Vec<_> = probe
            .targets
            .iter()
            .map(|target| matches!(target, ProbeTarget::Address(_)))
            .collect();
        assert_eq!(kinds, [true, true, false, false, false]);
    }

    #[test]
    fn mistakes_are_told_what_is_meant() {
        for (line, hint) in [
            ("198.51.100.700", "four numbers"),
            ("198.51.100.07", "four numbers"),
            ("[2001:db8::1]:500", "without a port"),
            ("UK", "did you mean GB"),
            ("NZ --mark 0x65/0xff", "without a mask"),
            ("NZ --mark -1", "unexpected argument"),
            ("NZ --mark 0", "above 0"),
            ("NZ --mark x", "such as 101"),
            ("NZ --timeout 5", "100ms to 60s"),
            ("NZ --timeout 2m", "100ms to 60s"),
            ("NZ --ports 0", "0 is not in"),
            ("NZ --rate 101", "101 is not in"),
            ("NZ --group modp768", "modp1024"),
            ("NZ -4 -6", "cannot be used with"),
            ("NZ --mark 1 --policy a", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.to_string().contains(hint), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert_eq!(parse("NZ --mark 0x65").unwrap().mark, Some(0x65));
    }
}
