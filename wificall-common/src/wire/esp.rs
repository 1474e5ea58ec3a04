//! ESP header (RFC 4303 §2): SPI 4, sequence number 4.

use crate::{exit::Exit, frame::Frame};

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// Checks that the IP payload of `len` bytes at `offset` starts with an ESP header; SPI 0 is for local use only
/// (RFC 4303 §2.1).
///
/// # Errors
///
/// [`Exit::NotIpsec`] if it does not, [`Exit::Truncated`].
#[inline(always)]
pub fn check<F: Frame + ?Sized>(frame: &F, offset: usize, len: usize) -> Result<(), Exit> {
    if len < HEADER_LEN {
        return Err(Exit::NotIpsec);
    }
    let spi: [u8; 4] = frame.read(offset).ok_or(Exit::Truncated)?;
    if spi == [0; 4] {
        return Err(Exit::NotIpsec);
    }
    Ok(())
}
