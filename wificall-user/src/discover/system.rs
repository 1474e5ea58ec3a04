//! The servers of `/etc/resolv.conf`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;

use super::server::{Connect, Server};
use super::{Failure, FailureKind, Upstream};

pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// No more servers are taken from `resolv.conf`, as by the C library (`MAXNS`).
const SERVERS_MAX: usize = 3;

/// The servers of `resolv.conf`, and its text when they were read.
#[derive(Debug)]
pub(super) struct SystemServers {
    path: PathBuf,
    text: Vec<u8>,
    pub(super) servers: Vec<Arc<Server>>,
}

impl SystemServers {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            text: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Reads `resolv.conf` anew: DHCP clients and VPNs rewrite it. A missing file means the
    /// defaults, as for the C library.
    pub(super) fn update(&mut self, connect: &Connect) -> Result<(), Failure> {
        let text = fs::read(&self.path).unwrap_or_default();
        if text == self.text && !self.servers.is_empty() {
            return Ok(());
        }
        let servers = nameservers(&String::from_utf8_lossy(&text))
            .into_iter()
            .map(|addr| connect.connect(Upstream::Udp(addr), addr).map(Arc::new));
        self.servers = servers.collect::<Result<_, _>>().map_err(|error| Failure {
            kind: FailureKind::Other,
            detail: format!("{}: {error}", self.path.display()),
        })?;
        self.text = text;
        Ok(())
    }
}

/// The servers of a `resolv.conf` (resolv.conf(5)); without any, the one of this host.
pub(super) fn nameservers(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            nameserver(words.next()?)
        })
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        return vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)];
    }
    servers
}

/// An address; a link-local one with the interface it is on (`fe80::1%eth0`).
fn nameserver(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)),
        Some((address, interface)) => {
            let index = interface.parse().ok().or_else(|| {
                let path = format!("/sys/class/net/{interface}/ifindex");
                fs::read_to_string(path).ok()?.trim().parse().ok()
            })?;
            let address = address.parse().ok()?;
            Some(SocketAddrV6::new(address, 53, 0, index).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let servers = |text: &str| -> Vec<String> {
            nameservers(text)
                .iter()
                .map(SocketAddr::to_string)
                .collect()
        };
        assert_eq!(servers(""), ["127.0.0.1:53"]);
        assert_eq!(
            servers("# nameserver 192.0.2.1\nsearch lan\n"),
            ["127.0.0.1:53"]
        );
        assert_eq!(
            servers("search lan\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \noptions edns0\n"),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
        assert_eq!(servers("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
        assert_eq!(servers("nameserver fe80::1%7"), ["[fe80::1%7]:53"]);
        assert_eq!(
            servers("nameserver bogus\nnameserver 192.0.2.1"),
            ["192.0.2.1:53"]
        );
        assert_eq!(servers(&"nameserver 192.0.2.1\n".repeat(5)).len(), 3);
    }
}
