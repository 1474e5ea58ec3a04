//! The arguments of what follows the agent live: `top` and `trace`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};

use super::{DEFAULT_CONFIG, instance};
use crate::config::Agent;
use crate::explanation::Mac;

/// The help's last part, of `trace`.
pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  wificall trace --any
  wificall trace 192.168.1.20
  wificall trace 02:00:00:00:00:01 --json

How to test Wi-Fi calling:
  1. Join a phone whose carrier has Wi-Fi calling to this box's Wi-Fi, with Wi-Fi calling on in its settings.
  2. Start `wificall trace --any`, or with the phone's address.
  3. On the phone: airplane mode on, then Wi-Fi alone on again.
  4. Each step is printed as it is seen, mostly within half a minute; if one is not, what to try.";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// The configuration of the instance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The instance of this name in the default directories, without reading a configuration
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = instance)]
    pub instance: Option<Agent>,
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("whom").required(true).args(["client", "any"])))]
pub struct Trace {
    /// The phone: its address, or its link-layer address as this host's neighbour table has it
    #[arg(value_name = "CLIENT")]
    pub client: Option<Client>,
    /// Every phone
    #[arg(long)]
    pub any: bool,
    /// Print a JSON object a line instead, and nothing else
    #[arg(long)]
    pub json: bool,
    /// The configuration of the instance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The instance of this name in the default directories, without reading a configuration
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = instance)]
    pub instance: Option<Agent>,
}

/// A phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// By its address.
    Address(IpAddr),
    /// By its link-layer address.
    Mac(Mac),
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        (text.parse().map(Self::Mac)).map_err(|_| {
            "expected an address (192.168.1.20, 2001:db8::20) or a link-layer address \
             (02:00:00:00:00:01)"
                .to_owned()
        })
    }
}
