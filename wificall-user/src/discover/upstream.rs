//! Where to ask: the servers of `/etc/resolv.conf`, or servers by address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
const PORT: u16 = 53;

/// A DNS server to ask.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Whatever `/etc/resolv.conf` names at the time of asking.
    System,
    /// One server.
    Server {
        /// Its address and port.
        addr: SocketAddr,
        /// How to reach it.
        transport: Transport,
    },
}

/// How to reach a DNS server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP, and TCP for an answer that UDP truncated (RFC 7766 §5).
    Udp,
    /// TCP only.
    Tcp,
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
         [2001:db8::53]:5353 or tcp://192.0.2.53";

    fn hint(text: &str) -> Option<&'static str> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("tls" | "https" | "quic" | "h3") => {
                Some("encrypted DNS is not supported: run a local forwarder and name its address")
            }
            Some(_) => Some("the schemes are `udp` and `tcp`"),
            None if text.chars().any(|c| c.is_ascii_alphabetic()) && !text.contains(':') => {
                Some("a resolver is given by address, for there is nobody to resolve its name")
            }
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
        let server = match text.split_once("://") {
            None => Some((Transport::Udp, text)),
            Some(("udp", server)) => Some((Transport::Udp, server)),
            Some(("tcp", server)) => Some((Transport::Tcp, server)),
            Some(_) => None,
        };
        server
            .and_then(|(transport, server)| {
                let addr = parse_server(server)?;
                Some(Self::Server { addr, transport })
            })
            .ok_or_else(|| UpstreamError {
                found: text.to_owned(),
                hint: UpstreamError::hint(text),
            })
    }
}

/// `IP`, `IPv4:port`, `[IPv6]` or `[IPv6]:port`.
fn parse_server(text: &str) -> Option<SocketAddr> {
    let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let addr = match bracketed {
        Some(v6) => SocketAddr::new(IpAddr::V6(v6.parse().ok()?), PORT),
        None => match text.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, PORT),
            Err(_) => text.parse().ok()?,
        },
    };
    (addr.port() != 0).then_some(addr)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Server {
                addr,
                transport: Transport::Udp,
            } => addr.fmt(f),
            Self::Server {
                addr,
                transport: Transport::Tcp,
            } => write!(f, "tcp://{addr}"),
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
            ("https://192.0.2.53", "encrypted"),
            ("sctp://192.0.2.53", "schemes"),
            ("192.0.2.53:0", ""),
            ("192.0.2.256", ""),
            ("tcp://system", "schemes"),
        ] {
            let error = text.parse::<Upstream>().unwrap_err();
            assert_eq!(error.found, text);
            assert!(error.hint.unwrap_or_default().contains(hint), "{text}");
        }
    }
}
