//! The arguments of `explain`.

use std::path::PathBuf;

use clap::Args;

use super::{DEFAULT_CONFIG, instance};
use crate::config::Agent;
use crate::explanation::{Content, Hex, LinkName, Mac, Way};

/// The help's last part.
pub(super) const EXAMPLES: &str = "\
Examples:
  wificall explain 192.168.1.20 192.0.2.1 udp 40000 4500
  wificall explain 192.168.1.20 192.0.2.1 udp 500 500 --interface wlan0 --client-mac 02:00:00:00:00:01
  wificall explain 2001:db8::1 fd00::20 esp --direction down --json
  wificall explain --pcap call.pcapng --frame 12
  wificall explain --link bare 4500002000000000401100000a000002c0000201a4401194000c0000ff

Exit codes:
  0  explained, whether the packet matches or not
  1  nobody could be asked, or the packet could not be read
  2  the command line or the configuration is wrong";

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(next_line_help = false)]
pub struct Explain {
    /// The packet: a frame in hex, or SOURCE DESTINATION PROTOCOL, and of udp and tcp SOURCE-PORT DESTINATION-PORT
    #[arg(value_name = "PACKET", required_unless_present = "pcap")]
    pub packet: Vec<String>,
    /// A frame of this capture instead: pcap or pcapng, of Ethernet, raw IP, or Linux cooked (`tcpdump -i any`)
    #[arg(long, value_name = "FILE", requires = "frame", conflicts_with_all = ["packet", "class", "link"])]
    pub pcap: Option<PathBuf>,
    /// Which frame of the capture, from 1 on. Fragments find their first one before it
    #[arg(long, value_name = "N", requires = "pcap", value_parser = clap::value_parser!(u64).range(1..))]
    pub frame: Option<u64>,
    /// What a frame in hex starts with [default: as packets at the interface, else ethernet]
    #[arg(long, value_enum, value_name = "LINK")]
    pub link: Option<LinkName>,
    /// Which way the packet goes [default: by which end is an endpoint]
    #[arg(long, value_enum, value_name = "WAY")]
    pub direction: Option<Way>,
    /// The interface that the packet is seen at [default: the configured one, if there is one only]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The client's link-layer address [default: the frame's]
    #[arg(long, value_name = "ADDRESS")]
    pub client_mac: Option<Mac>,
    /// What UDP carries, where the packet is given by addresses and ports [default: esp_udp, on port 500 ike]
    #[arg(long, value_enum, value_name = "CLASS")]
    pub class: Option<Content>,
    /// The first fragment of the packet's datagram, in hex, where the packet is a later one
    #[arg(long, value_name = "HEX")]
    pub first_fragment: Option<Hex>,
    /// The configuration of the instance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The instance of this name in the default directories, without reading a configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "offline"], value_parser = instance)]
    pub instance: Option<Agent>,
    /// Ask no agent: the configuration, and the state on disk
    #[arg(long)]
    pub offline: bool,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}
