//! What UDP 4500 carries (RFC 3948 §2).

use super::{esp, ike};
use crate::{Class, exit::Exit, frame::Frame};

/// Length of the non-ESP marker: four zero bytes before IKE (RFC 3948 §2.2).
pub const MARKER_LEN: usize = 4;
const KEEPALIVE: u8 = 0xff;

/// The class of a UDP 4500 payload of `len` bytes at `offset`.
///
/// # Errors
///
/// [`Exit::NotIpsec`] if it is none of the three kinds, [`Exit::Truncated`].
#[inline(always)]
pub fn classify<F: Frame + ?Sized>(frame: &F, offset: usize, len: usize) -> Result<Class, Exit> {
    if len == 1 {
        let [byte] = frame.read(offset).ok_or(Exit::Truncated)?;
        return if byte == KEEPALIVE {
            Ok(Class::Keepalive)
        } else {
            Err(Exit::NotIpsec)
        };
    }
    if len < esp::HEADER_LEN {
        return Err(Exit::NotIpsec);
    }
    let first: [u8; MARKER_LEN] = frame.read(offset).ok_or(Exit::Truncated)?;
    if first != [0; MARKER_LEN] {
        // Not the marker, so an SPI, and not zero.
        return Ok(Class::EspUdp);
    }
    ike::check(frame, offset + MARKER_LEN, len - MARKER_LEN)?;
    Ok(Class::Ike)
}
