//! IKEv2 header (RFC 7296 §3.1).

use crate::{Direction, exit::Exit, frame::Frame};

/// Length of the header: SPIi 8, SPIr 8, next payload 1, version 1, exchange 1, flags 1, message id 4, length 4.
pub const HEADER_LEN: usize = 28;
/// Major version 2; minor versions differ and are ignored (RFC 7296 §2.5).
const MAJOR_VERSION: u8 = 2;
/// IKE_SA_INIT.
pub const EXCHANGE_SA_INIT: u8 = 34;
/// The flag of the original initiator.
const FLAG_INITIATOR: u8 = 0x08;
/// The flag of a response.
const FLAG_RESPONSE: u8 = 0x20;
/// Where the exchange type lies in the header.
pub const EXCHANGE_OFFSET: usize = 18;
/// The last exchange type that IANA has assigned: IKE_FOLLOWUP_KE (RFC 9370).
pub const EXCHANGE_LAST: u8 = 44;

/// Checks that the `len` bytes at `offset` (behind the non-ESP marker, if there was one) start with a sane IKEv2 header:
/// an initiator SPI, version 2, a known exchange, a length that the datagram can hold.
///
/// The whole header must be in this frame; the rest of the message may be in later fragments.
///
/// # Errors
///
/// [`Exit::NotIpsec`] if it is something else, [`Exit::Truncated`].
#[inline(always)]
pub fn check<F: Frame + ?Sized>(frame: &F, offset: usize, len: usize) -> Result<(), Exit> {
    if len < HEADER_LEN {
        return Err(Exit::NotIpsec);
    }
    let spi_i: [u8; 8] = frame.read(offset).ok_or(Exit::Truncated)?;
    let rest: [u8; 12] = frame.read(offset + 16).ok_or(Exit::Truncated)?;
    let [_next, version, exchange, _flags, _, _, _, _, l0, l1, l2, l3] = rest;
    let message_len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if spi_i != [0; 8]
        && version >> 4 == MAJOR_VERSION
        && (EXCHANGE_SA_INIT..=EXCHANGE_LAST).contains(&exchange)
        && message_len >= HEADER_LEN
        && message_len <= len
    {
        Ok(())
    } else {
        Err(Exit::NotIpsec)
    }
}

/// Whether the header at `offset`, which was [`check`]ed, begins an IKE SA: an IKE_SA_INIT request of the initiator that
/// knows no responder yet (`up`), or a response to one by a responder that has committed itself to an SPI (`down`). A
/// COOKIE is none (RFC 7296 §2.6): whoever sends one has not looked at the request.
#[inline(always)]
#[must_use]
pub fn is_init<F: Frame + ?Sized>(frame: &F, offset: usize, direction: Direction) -> bool {
    // In one piece: of two, the compiler would go on with an undefined register where the frame ends between them, which
    // the verifier refuses.
    let Some(header) = frame.read::<12>(offset + 8) else {
        return false;
    };
    let [spi_r @ .., _next, _version, exchange, flags] = header;
    let flags = flags & (FLAG_INITIATOR | FLAG_RESPONSE);
    let unknown = spi_r == [0; 8];
    exchange == EXCHANGE_SA_INIT
        && match direction {
            Direction::Up => flags == FLAG_INITIATOR && unknown,
            Direction::Down => flags == FLAG_RESPONSE && !unknown,
        }
}
