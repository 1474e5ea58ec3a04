//! The arguments of `analyze`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

/// The help's last part.
pub(super) const EXAMPLES: &str = "\
Examples:
  tcpdump -i lan -s 128 -w call.pcap 'udp port 500 or udp port 4500 or esp'
  wificall analyze call.pcap
  wificall analyze call.pcap --endpoint 192.0.2.1 --endpoint 2001:db8::/64
  wificall analyze call.pcapng --json

Exit codes:
  0  analyzed; also if the file is cut short or damaged somewhere, which is said, or has no tunnel
  1  nothing of it could be read
  2  the command line is wrong";

/// Arguments of `analyze`.
#[derive(Debug, Args)]
#[command(next_line_help = false)]
pub struct Analyze {
    /// The capture: pcap or pcapng, of Ethernet, raw IP, or Linux cooked (`tcpdump -i any`)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// This address or prefix is an ePDG's; may be given more than once [default: who is sent and answers IKE_SA_INIT in the
    /// capture]
    ///
    /// The catalogue's prefixes are endpoints in any case.
    #[arg(long, value_name = "ADDRESS|PREFIX", value_parser = endpoint)]
    pub endpoint: Vec<IpNet>,
    /// Print a JSON object instead
    #[arg(long)]
    pub json: bool,
}

fn endpoint(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let net = address.or_else(|| text.parse().ok());
    let net = net.ok_or("expected an address or a prefix, such as 192.0.2.1 or 2001:db8::/64")?;
    if net.prefix_len() == 0 {
        return Err("not everything can be an ePDG's: expected a longer prefix".to_owned());
    }
    Ok(net.trunc())
}
