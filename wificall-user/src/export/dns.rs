//! DNS: names and their addresses, for those who answer phones or fill sets by what they answer.

use std::fmt;
use std::io::{Result, Write};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::comment;
use super::view::View;

/// A DNS server, as dnsmasq writes it: `192.0.2.53` or `192.0.2.53#5353`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server(SocketAddr);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (address, port) = text.split_once('#').unwrap_or((text, "53"));
        match (address.parse::<IpAddr>(), port.parse::<u16>()) {
            (Ok(address), Ok(port)) if port != 0 => Ok(Self((address, port).into())),
            _ => Err("expected an address, or address#port".to_owned()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0.ip(), self.0.port())
    }
}

/// What dnsmasq is to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dnsmasq {
    /// Put the answers into nftables sets.
    Nftset,
    /// Put the answers into ipsets.
    Ipset,
    /// Answer with the addresses that are known.
    Address,
    /// Ask this server.
    Server(Server),
}

/// `dnsmasq`
///
/// # Errors
///
/// Those of the writer.
pub fn dnsmasq(view: &View, what: Dnsmasq, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    let families = [4, 6].into_iter().zip(view.families);
    let families: Vec<i32> = families
        .filter_map(|(n, selected)| selected.then_some(n))
        .collect();
    match what {
        Dnsmasq::Nftset => {
            let sets: Vec<_> = (families.iter())
                .map(|n| format!("{n}#inet#wificall_dns#epdg{n}"))
                .collect();
            for name in view.names() {
                writeln!(out, "nftset=/{name}/{}", sets.join(","))?;
            }
        }
        Dnsmasq::Ipset => {
            let sets: Vec<_> = families
                .iter()
                .map(|n| format!("wificall_dns{n}"))
                .collect();
            for name in view.names() {
                writeln!(out, "ipset=/{name}/{}", sets.join(","))?;
            }
        }
        Dnsmasq::Address => {
            for (name, addresses) in view.resolved() {
                for address in addresses {
                    writeln!(out, "address=/{name}/{address}")?;
                }
            }
        }
        Dnsmasq::Server(server) => {
            for name in view.names() {
                writeln!(out, "server=/{name}/{server}")?;
            }
        }
    }
    Ok(())
}

/// `hosts(5)`
///
/// # Errors
///
/// Those of the writer.
pub fn hosts(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    for (name, addresses) in view.resolved() {
        for address in addresses {
            writeln!(out, "{address} {name}")?;
        }
    }
    Ok(())
}

/// A `server:` clause for unbound.
///
/// # Errors
///
/// Those of the writer.
pub fn unbound(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    writeln!(out, "server:")?;
    for (name, addresses) in view.resolved() {
        // Other types are still looked up.
        writeln!(out, "\tlocal-zone: \"{name}.\" typetransparent")?;
        for address in addresses {
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            writeln!(out, "\tlocal-data: \"{name}. 300 IN {kind} {address}\"")?;
        }
    }
    Ok(())
}
