//! IKEv2 header (RFC 7296 §3.1).

use crate::{Direction, exit::Exit, frame::Frame};

/// Length of the header: SPIi 8, SPIr 8, next payload 1, version 1, exchange 1, flags 1, message id 4, length 4.
pub const HEADER_LEN: usize = 28;
/// Major version 2; minor versions differ and are ignored (RFC 7296 §2.5).
const MAJOR_VERSION: u8 = 2;
/// IKE_SA_INIT.
pub const EXCHANGE_SA_INIT: u8 = 34;
/// IKE_AUTH.
pub const EXCHANGE_AUTH: u8 = 35;
/// The flag of the original initiator.
const FLAG_INITIATOR: u8 = 0x08;
/// The flag of a response.
pub const FLAG_RESPONSE: u8 = 0x20;
/// Security Association, which stands in every answer that accepts (RFC 7296 §3.3).
const PAYLOAD_SA: u8 = 33;
/// Notify (RFC 7296 §3.10).
const PAYLOAD_NOTIFY: u8 = 41;
/// Encrypted and Authenticated Fragment (RFC 7383 §2.5).
pub const PAYLOAD_SKF: u8 = 53;
/// Length of a payload's generic header: next payload 1, flags 1, length 2 (RFC 7296 §3.2).
const PAYLOAD_HEADER: usize = 4;
/// Payloads of an answer that are looked at for a notify.
const PAYLOADS: usize = 6;
/// Bits of an offset into a message.
const OFFSET_MASK: usize = 0x3fff;
/// The first notify type that is a status and not an error (RFC 7296 §3.10.1).
pub const NOTIFY_STATUS: u16 = 16_384;
/// COOKIE: asks for the same again with a token (RFC 7296 §2.6).
pub const NOTIFY_COOKIE: u16 = 16_390;
/// REDIRECT: asks for another endpoint (RFC 5685 §3).
pub const NOTIFY_REDIRECT: u16 = 16_407;
/// Where the exchange type lies in the header.
pub const EXCHANGE_OFFSET: usize = 18;
/// The last exchange type that IANA has assigned: IKE_FOLLOWUP_KE (RFC 9370).
pub const EXCHANGE_LAST: u8 = 44;

/// An IKE header. Integers are in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// SPI of the initiator.
    pub spi_i: [u8; 8],
    /// SPI of the responder; zero in the first request.
    pub spi_r: [u8; 8],
    /// Type of the first payload.
    pub next: u8,
    /// Exchange type.
    pub exchange: u8,
    /// Flags: 0x08 initiator, 0x10 higher version, 0x20 response.
    pub flags: u8,
    /// Message ID.
    pub id: u32,
}

/// The header at `offset`, which was [`check`]ed; `None` if the frame ends too early.
#[inline(always)]
pub fn header<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Header> {
    let spi_i = frame.read(offset)?;
    let spi_r = frame.read(offset + 8)?;
    let rest: [u8; 8] = frame.read(offset + 16)?;
    let [next, _version, exchange, flags, id @ ..] = rest;
    Some(Header {
        spi_i,
        spi_r,
        next,
        exchange,
        flags,
        id: u32::from_be_bytes(id),
    })
}

/// The number of the fragment that a message is, whose header at `offset` says that it is one (RFC 7383 §2.5); 1 if the
/// frame ends before it.
#[inline(always)]
pub fn fragment_number<F: Frame + ?Sized>(frame: &F, offset: usize) -> u16 {
    let number = frame.read(offset + HEADER_LEN + PAYLOAD_HEADER);
    u16::from_be_bytes(number.unwrap_or([0, 1]))
}

/// The notify by which an IKE_SA_INIT response refuses or asks for another way: an error, COOKIE or REDIRECT. 0 if its
/// payloads, the first at `offset` and of the type `next`, accept, or go on for too long.
#[inline(always)]
pub fn refusal<F: Frame + ?Sized>(frame: &F, offset: usize, next: u8) -> u16 {
    let mut offset = offset;
    let mut next = next;
    for _ in 0..PAYLOADS {
        if next == PAYLOAD_SA || next == 0 {
            return 0;
        }
        let payload = frame.read::<8>(offset).unwrap_or([0; 8]);
        let [following, _flags, l0, l1, _protocol, _spi_size, t0, t1] = payload;
        let kind = u16::from_be_bytes([t0, t1]);
        let refuses = kind < NOTIFY_STATUS || kind == NOTIFY_COOKIE || kind == NOTIFY_REDIRECT;
        if next == PAYLOAD_NOTIFY && refuses {
            return kind;
        }
        let len = u16::from_be_bytes([l0, l1]) as usize;
        if len < PAYLOAD_HEADER {
            return 0;
        }
        offset = frame.forget(offset + len, OFFSET_MASK);
        next = following;
    }
    0
}

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
