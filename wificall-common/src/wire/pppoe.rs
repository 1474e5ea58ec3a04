//! PPPoE session frames (RFC 2516 §4): version and type 1, code 1, session id 2, length 2, then the PPP protocol 2.

use super::{Network, Version};
use crate::{exit::Exit, frame::Frame};

/// EtherType of the session stage (RFC 2516 §4); discovery frames (0x8863) are not IP.
pub const TYPE_SESSION: u16 = 0x8864;
/// PPP protocol numbers (RFC 1332 §2, RFC 5072 §2), uncompressed as RFC 2516 §7 asks.
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const HEADER_LEN: usize = 6;
const PROTOCOL_LEN: usize = 2;

/// Finds the network header behind the PPPoE header at `offset`.
///
/// # Errors
///
/// [`Exit::Malformed`] if version, type or code are not those of a session; [`Exit::NotIp`] for PPP control
/// protocols; [`Exit::Truncated`].
#[inline(always)]
pub fn network<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Network, Exit> {
    let header: [u8; HEADER_LEN + PROTOCOL_LEN] = frame.read(offset).ok_or(Exit::Truncated)?;
    let [version_type, code, _, _, _, _, protocol @ ..] = header;
    if version_type != 0x11 || code != 0 {
        return Err(Exit::Malformed);
    }
    let inner = offset + HEADER_LEN + PROTOCOL_LEN;
    match u16::from_be_bytes(protocol) {
        PPP_IPV4 => Ok((Version::V4, inner)),
        PPP_IPV6 => Ok((Version::V6, inner)),
        _ => Err(Exit::NotIp),
    }
}
