//! IKE_SA_INIT on the wire: our request, and what a responder says to it (RFC 7296 §1.2, §3).

mod request;
mod response;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sha1::{Digest as _, Sha1};

pub use request::Request;
pub use response::{Malformed, NotOurs, Notify, Response, answers, gateway, response};

/// UDP port of IKE without the marker.
pub const PORT: u16 = 500;
/// UDP port on which IKE stands behind the non-ESP marker (RFC 3948 §2.2).
pub const NATT_PORT: u16 = 4500;
/// Four zero bytes.
pub const MARKER: [u8; 4] = [0; 4];

/// Version 2.0 (§3.1).
const VERSION: u8 = 0x20;
/// Flags (§3.1): the original initiator sent it; it is a response.
const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;

/// Payload types (§3.2).
const SA: u8 = 33;
const KE: u8 = 34;
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;
const VENDOR_ID: u8 = 43;

/// Generic payload header: next payload, flags, length (§3.2).
const PAYLOAD_HEADER: usize = 4;
/// Protocol id of IKE in proposals (§3.3.1).
const PROTOCOL_IKE: u8 = 1;
/// A transform attribute of two bytes: key length (§3.3.5).
const KEY_LENGTH: u16 = 0x8000 | 14;

/// Notify message types (§3.10.1; RFC 5685 §10).
pub mod notify {
    use crate::telemetry::notify::known;

    /// The responder wants another group; its number is the data.
    pub const INVALID_KE_PAYLOAD: u16 = 17;
    /// NO_PROPOSAL_CHOSEN.
    pub const NO_PROPOSAL_CHOSEN: u16 = 14;
    /// Types below are errors, from it on they are status.
    pub const FIRST_STATUS: u16 = 16384;
    /// Hash of the sender's address and port.
    pub const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    /// Hash of the receiver's.
    pub const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    /// To be sent back in front of everything else.
    pub const COOKIE: u16 = 16390;
    /// The initiator understands REDIRECT.
    pub const REDIRECT_SUPPORTED: u16 = 16406;
    /// Go to another gateway.
    pub const REDIRECT: u16 = 16407;
    /// The gateway that sent us here.
    pub const REDIRECTED_FROM: u16 = 16408;

    /// The name of an error type.
    #[must_use]
    pub fn name(kind: u16) -> String {
        match known(kind) {
            Some(name) => name.to_owned(),
            None if (8192..16384).contains(&kind) => format!("private error {kind}"),
            None => format!("error {kind}"),
        }
    }
}

/// Where a REDIRECT leads (RFC 5685 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// An address.
    Address(IpAddr),
    /// A name, in lower case.
    Name(String),
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// SHA-1 over SPIs, address and port (§2.23).
#[must_use]
pub fn address_hash(spi_i: [u8; 8], spi_r: [u8; 8], end: SocketAddr) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(spi_i);
    hash.update(spi_r);
    match end.ip() {
        IpAddr::V4(address) => hash.update(address.octets()),
        IpAddr::V6(address) => hash.update(address.octets()),
    }
    hash.update(end.port().to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
pub(in crate::probe) mod tests;
