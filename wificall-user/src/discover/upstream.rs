//! Where to ask: the servers of `/etc/resolv.conf`, or servers by address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use thiserror::Error;

use crate::catalogue::{Country, OperatorPattern};

use super::{Owner, RouteIndex};

/// The path of DNS over HTTPS where none is given: what public servers use (RFC 8484 §4.1.1).
const PATH: &str = "/dns-query";

/// A DNS server to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Whatever `/etc/resolv.conf` names at the time of asking.
    System,
    /// UDP, and TCP for an answer that UDP truncated (RFC 7766 §5).
    Udp(SocketAddr),
    /// TCP only.
    Tcp(SocketAddr),
    /// DNS over TLS (RFC 7858).
    Tls {
        /// Address and port.
        addr: SocketAddr,
        /// The name, or address, that the certificate must be for.
        name: Arc<str>,
    },
    /// DNS over HTTPS (RFC 8484), HTTP/2.
    Https {
        /// Address and port.
        addr: SocketAddr,
        /// The name, or address, that the certificate must be for.
        name: Arc<str>,
        /// The path of the resource, with its `/`.
        path: Arc<str>,
    },
}

/// What a query travels by.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A TCP connection.
    Tcp,
    /// A TLS connection.
    Tls,
    /// A request on an HTTP/2 connection.
    Https,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https];

    /// A stable name, for metrics and JSON; the scheme of an upstream.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
        }
    }

    /// The usual port (RFC 1035 §4.2, RFC 7858 §3.1, RFC 8484 §8.1).
    const fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls => 853,
            Self::Https => 443,
        }
    }
}

/// Other servers for some operators, because answers differ by where one asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// For names of these operators,
    pub operators: Vec<OperatorPattern>,
    /// and of these countries.
    pub countries: Vec<Country>,
    /// The servers, in order of preference.
    pub upstreams: Vec<Upstream>,
    /// The fwmark of what is sent (SO_MARK), so that policy routing sends it out of an exit.
    pub mark: Option<u32>,
}

impl Route {
    /// Whether a name with these owners is asked here.
    pub fn is_for<'a>(&self, owners: impl IntoIterator<Item = &'a Owner>) -> bool {
        owners.into_iter().any(|owner| {
            let operator = |plmn| self.operators.iter().any(|o| o.matches(&plmn));
            owner.plmn.is_some_and(operator)
                || owner.country.is_some_and(|c| self.countries.contains(&c))
        })
    }
}

/// Which servers are asked for a name with these owners: those of the first route that is for one
/// of them.
pub(super) fn route_of<'a>(
    routes: &[Route],
    owners: impl IntoIterator<Item = &'a Owner> + Clone,
) -> RouteIndex {
    let found = routes.iter().position(|r| r.is_for(owners.clone()));
    found.and_then(|i| u16::try_from(i + 1).ok()).unwrap_or(0)
}

/// A text that is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{found}` is not a resolver: expected {}", Self::EXPECTED)]
pub struct UpstreamError {
    /// The text as it was given.
    pub found: String,
    /// What to do about it, if the text tells what was meant.
    pub hint: Option<&'static str>,
}

impl UpstreamError {
    /// The forms that are accepted.
    pub const EXPECTED: &str = "`system`, or an address with an optional port, such as 192.0.2.53, \
         [2001:db8::53]:5353, tcp://192.0.2.53, tls://192.0.2.53#dns.example.net or \
         https://192.0.2.53/dns-query#dns.example.net";

    fn hint(text: &str) -> Option<&'static str> {
        const BY_ADDRESS: &str =
            "a resolver is given by address, for there is nobody to resolve its name";
        const ADDRESS_AND_NAME: &str = "the address comes first, for there is nobody to resolve \
             the name; the name that the certificate must have goes behind #: \
             tls://192.0.2.53#dns.example.net";
        let named =
            |rest: &str| rest.chars().any(|c| c.is_ascii_alphabetic()) && !rest.starts_with('[');
        match text.split_once("://") {
            Some(("quic" | "h3" | "doq", _)) => {
                Some("DNS over QUIC is not supported: use `tls` or `https`")
            }
            Some(("udp" | "tcp", rest)) if rest.contains('#') => {
                Some("a name behind # is for `tls` and `https`, which have certificates")
            }
            Some(("tls" | "https", rest)) => {
                let server = rest.split(['#', '/']).next().unwrap_or_default();
                named(server).then_some(ADDRESS_AND_NAME)
            }
            Some(("udp" | "tcp", rest)) => (named(rest) && rest != "system").then_some(BY_ADDRESS),
            Some(_) => Some("the schemes are `udp`, `tcp`, `tls` and `https`"),
            None if text.contains('#') => {
                Some("a name behind # is for `tls` and `https`, which have certificates")
            }
            None if named(text) && !text.contains(':') => Some(BY_ADDRESS),
            None => None,
        }
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        if text == "system" {
            return Ok(Self::System);
        }
        parse(text).ok_or_else(|| UpstreamError {
            found: text.to_owned(),
            hint: UpstreamError::hint(text),
        })
    }
}

fn parse(text: &str) -> Option<Upstream> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
    let transport = *Transport::ALL.iter().find(|t| t.as_str() == scheme)?;
    if matches!(transport, Transport::Udp | Transport::Tcp) {
        let addr = parse_server(rest, transport.port())?;
        return Some(match transport {
            Transport::Udp => Upstream::Udp(addr),
            _ => Upstream::Tcp(addr),
        });
    }
    let (rest, name) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(name)),
        None => (rest, None),
    };
    let (server, path) = match (transport, rest.find('/')) {
        (Transport::Https, Some(slash)) => rest.split_at(slash),
        _ => (rest, PATH),
    };
    let addr = parse_server(server, transport.port())?;
    let name: Arc<str> = match name {
        Some(name) => {
            ServerName::try_from(name).ok()?;
            name.to_ascii_lowercase().into()
        }
        None => addr.ip().to_string().into(),
    };
    // RFC 3986 §3.3, without what would have to be escaped.
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    if !path.chars().all(is_path) {
        return None;
    }
    Some(match transport {
        Transport::Tls => Upstream::Tls { addr, name },
        _ => Upstream::Https {
            addr,
            name,
            path: path.into(),
        },
    })
}

/// `IP`, `IPv4:port`, `[IPv6]` or `[IPv6]:port`.
fn parse_server(text: &str, port: u16) -> Option<SocketAddr> {
    let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let addr = match bracketed {
        Some(v6) => SocketAddr::new(IpAddr::V6(v6.parse().ok()?), port),
        None => match text.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => text.parse().ok()?,
        },
    };
    (addr.port() != 0).then_some(addr)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = |f: &mut fmt::Formatter<'_>, addr: &SocketAddr, name: &str| {
            if addr.ip().to_string() == name {
                return Ok(());
            }
            write!(f, "#{name}")
        };
        match self {
            Self::System => f.write_str("system"),
            Self::Udp(addr) => addr.fmt(f),
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
            Self::Tls { addr, name } => {
                write!(f, "tls://{addr}")?;
                certificate(f, addr, name)
            }
            Self::Https { addr, name, path } => {
                write!(f, "https://{addr}{path}")?;
                certificate(f, addr, name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, written) in [
            ("system", "system"),
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("udp://192.0.2.53", "192.0.2.53:53"),
            ("tcp://192.0.2.53", "tcp://192.0.2.53:53"),
            ("tcp://[2001:db8::53]:5353", "tcp://[2001:db8::53]:5353"),
            ("tls://192.0.2.53", "tls://192.0.2.53:853"),
            (
                "tls://192.0.2.53#DNS.example.net",
                "tls://192.0.2.53:853#dns.example.net",
            ),
            (
                "tls://[2001:db8::53]:8853#dns.example.net",
                "tls://[2001:db8::53]:8853#dns.example.net",
            ),
            ("https://192.0.2.53", "https://192.0.2.53:443/dns-query"),
            (
                "https://192.0.2.53:8443/q/7#dns.example.net",
                "https://192.0.2.53:8443/q/7#dns.example.net",
            ),
            (
                "https://2001:db8::53#dns.example.net",
                "https://[2001:db8::53]:443/dns-query#dns.example.net",
            ),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.to_string(), written);
            assert_eq!(written.parse(), Ok(upstream));
        }
    }

    #[test]
    fn refuses_with_a_hint() {
        for (text, hint) in [
            ("", ""),
            ("dns.example", "by address"),
            ("udp://dns.example", "by address"),
            ("https://dns.example.net/dns-query", "behind #"),
            ("tls://dns.example.net", "behind #"),
            ("quic://192.0.2.53", "QUIC"),
            ("sctp://192.0.2.53", "schemes"),
            ("192.0.2.53#dns.example.net", "behind #"),
            ("tcp://192.0.2.53#dns.example.net", "behind #"),
            ("tls://192.0.2.53#", ""),
            ("tls://192.0.2.53#a b", ""),
            ("tls://192.0.2.53/dns-query", ""),
            ("https://192.0.2.53/a b", ""),
            ("192.0.2.53:0", ""),
            ("192.0.2.256", ""),
            ("tcp://system", ""),
        ] {
            let error = text.parse::<Upstream>().unwrap_err();
            assert_eq!(error.found, text);
            assert!(error.hint.unwrap_or_default().contains(hint), "{text}");
        }
    }

    #[test]
    fn routes_are_for_operators_and_countries() {
        let route = Route {
            operators: vec!["262-*".parse().unwrap()],
            countries: vec!["AU".parse().unwrap()],
            upstreams: Vec::new(),
            mark: None,
        };
        let owner = |plmn: &str, country: &str| Owner {
            plmn: plmn.parse().ok(),
            country: country.parse().ok(),
        };
        for (owner, expected) in [
            (owner("262-01", "DE"), true),
            (owner("505-01", "AU"), true),
            (owner("", "AU"), true),
            (owner("310-260", "US"), false),
        ] {
            assert_eq!(route.is_for([&owner]), expected, "{owner:?}");
        }
        assert!(!route.is_for([]));
    }
}
