//! UDP header (RFC 768).

use crate::{exit::Exit, frame::Frame};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// IKE (RFC 7296 §2).
pub const PORT_IKE: u16 = 500;
/// IKE and ESP behind NATs (RFC 3948 §2).
pub const PORT_NATT: u16 = 4500;

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and payload in bytes; of the whole datagram also in its first fragment.
    pub len: usize,
}

/// Parses the header at `offset`.
///
/// # Errors
///
/// [`Exit::Truncated`]. The length field is not judged here: what is not ours may hold what it likes.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Header, Exit> {
    let bytes: [u8; 6] = frame.read(offset).ok_or(Exit::Truncated)?;
    let [s0, s1, d0, d1, l0, l1] = bytes;
    Ok(Header {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        len: usize::from(u16::from_be_bytes([l0, l1])),
    })
}
