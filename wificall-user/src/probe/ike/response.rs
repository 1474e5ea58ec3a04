//! What a responder says. Anybody on the way may have sent it: every length is checked against what is there, nothing is
//! allocated by what a field says, and the number of payloads is bounded by their least length.

use std::net::{Ipv4Addr, Ipv6Addr};

use wificall_common::wire::ike::{EXCHANGE_SA_INIT, HEADER_LEN};

use super::{
    Gateway, INITIATOR, KE, KEY_LENGTH, NONCE, NOTIFY, PAYLOAD_HEADER, PROTOCOL_IKE, RESPONSE, SA,
    VENDOR_ID, VERSION,
};
use crate::catalogue::names::host_name;
use crate::probe::transform::Suite;

/// The critical bit of a payload (§3.2).
pub(super) const CRITICAL: u8 = 0x80;
/// Those that RFC 7296 defines: the critical bit means nothing there.
const KNOWN: std::ops::RangeInclusive<u8> = 33..=48;

/// A notify of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Its type.
    pub kind: u16,
    /// Its data.
    pub data: &'a [u8],
}

/// A response to our request, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// The responder's SPI; zero if it keeps no state.
    pub spi: [u8; 8],
    /// What it chose.
    pub suite: Option<Suite>,
    /// The group of its public value.
    pub group: Option<u16>,
    /// Whether there is a nonce.
    pub nonce: bool,
    /// Its notifies.
    pub notifies: Vec<Notify<'a>>,
    /// Its vendor ids.
    pub vendor_ids: Vec<&'a [u8]>,
}

/// A datagram that is no answer to our request, as far as one can tell: whoever sent it, we go on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

/// An answer with something wrong in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Whether the `message` (without marker) is a response to our IKE_SA_INIT with this SPI; its major version.
///
/// # Errors
///
/// If it is anything else.
pub fn answers(message: &[u8], spi: [u8; 8]) -> Result<u8, NotOurs> {
    let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(NotOurs)?;
    if header[..8] != spi {
        return Err(NotOurs);
    }
    let (version, exchange, flags) = (header[17] >> 4, header[18], header[19]);
    if version != VERSION >> 4 {
        // The rest of the header means something else there.
        return Ok(version);
    }
    let is_response = flags & RESPONSE != 0 && flags & INITIATOR == 0;
    let message_id = &header[20..24];
    if exchange == EXCHANGE_SA_INIT && is_response && message_id == [0; 4] {
        Ok(version)
    } else {
        Err(NotOurs)
    }
}

/// Takes a response apart that [`answers`] has recognised.
///
/// # Errors
///
/// What is wrong with it.
pub fn response(message: &[u8]) -> Result<Response<'_>, Malformed> {
    let (header, rest) = message
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Malformed("shorter than an IKE header"))?;
    let [.., a, b, c, d] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let body = length
        .checked_sub(HEADER_LEN)
        .and_then(|length| rest.get(..length))
        .ok_or(Malformed("a length that the datagram does not have"))?;
    let mut response = Response::default();
    response.spi.copy_from_slice(&header[8..16]);
    let mut next = header[16];
    let mut rest = body;
    while next != 0 {
        let kind = next;
        let payload;
        (next, payload, rest) = split_payload(kind, rest)?;
        match kind {
            SA => response.suite = Some(suite(payload)?),
            KE => {
                let [a, b, _, _, ..] = *payload else {
                    return Err(Malformed("a short KE payload"));
                };
                response.group = Some(u16::from_be_bytes([a, b]));
            }
            NONCE => {
                if !(16..=256).contains(&payload.len()) {
                    return Err(Malformed("a nonce of a forbidden length"));
                }
                response.nonce = true;
            }
            NOTIFY => response.notifies.push(notify_of(payload)?),
            VENDOR_ID => response.vendor_ids.push(payload),
            _ => {}
        }
    }
    if rest.is_empty() {
        Ok(response)
    } else {
        Err(Malformed("bytes behind the last payload"))
    }
}

/// The type of the next payload, the body of this one, and what is behind it.
pub(super) fn split_payload(kind: u8, rest: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let [next, flags, a, b, ..] = *rest else {
        return Err(Malformed("a payload without its header"));
    };
    if flags & CRITICAL != 0 && !KNOWN.contains(&kind) {
        return Err(Malformed("a critical payload that nobody knows"));
    }
    let length = usize::from(u16::from_be_bytes([a, b]));
    if length < PAYLOAD_HEADER || length > rest.len() {
        return Err(Malformed("a payload length that the message does not have"));
    }
    let (payload, rest) = rest.split_at(length);
    Ok((next, &payload[PAYLOAD_HEADER..], rest))
}

fn notify_of(payload: &[u8]) -> Result<Notify<'_>, Malformed> {
    let [_protocol, spi_len, a, b, ref rest @ ..] = *payload else {
        return Err(Malformed("a short notify"));
    };
    let data = rest
        .get(usize::from(spi_len)..)
        .ok_or(Malformed("a notify without the SPI that it announces"))?;
    Ok(Notify {
        kind: u16::from_be_bytes([a, b]),
        data,
    })
}

/// The one proposal of a response, with one transform of each type (§3.3.6).
pub(super) fn suite(payload: &[u8]) -> Result<Suite, Malformed> {
    const BAD: Malformed = Malformed("a proposal whose lengths disagree");
    let [
        more,
        _,
        a,
        b,
        _number,
        protocol,
        spi_len,
        count,
        ref rest @ ..,
    ] = *payload
    else {
        return Err(Malformed("a short proposal"));
    };
    if more != 0 {
        return Err(Malformed("more than one proposal"));
    }
    if usize::from(u16::from_be_bytes([a, b])) != payload.len() {
        return Err(BAD);
    }
    if protocol != PROTOCOL_IKE {
        return Err(Malformed("a proposal that is not for IKE"));
    }
    let mut rest = rest.get(usize::from(spi_len)..).ok_or(BAD)?;
    let mut chosen: [Option<(u16, Option<u16>)>; 5] = [None; 5];
    for left in (0..count).rev() {
        let [more, _, a, b, kind, _, c, d, ..] = *rest else {
            return Err(BAD);
        };
        let length = usize::from(u16::from_be_bytes([a, b]));
        if length < 8 || length > rest.len() || (more == 3) != (left > 0) {
            return Err(BAD);
        }
        let (transform, behind) = rest.split_at(length);
        rest = behind;
        let slot = chosen
            .get_mut(usize::from(kind))
            .ok_or(Malformed("a transform of an unknown type"))?;
        if slot.is_some() {
            return Err(Malformed("two transforms of one type"));
        }
        *slot = Some((u16::from_be_bytes([c, d]), key_length(&transform[8..])?));
    }
    if !rest.is_empty() {
        return Err(BAD);
    }
    let [_, encr, prf, integ, dh] = chosen;
    let missing = Malformed("a proposal without encryption, PRF or group");
    Ok(Suite {
        encr: encr.ok_or(missing)?,
        // 0 is NONE, which some say in words (§3.3.3).
        integ: integ.map(|(id, _)| id).filter(|id| *id != 0),
        prf: prf.ok_or(missing)?.0,
        dh: dh.ok_or(missing)?.0,
    })
}

/// The key length among a transform's attributes (§3.3.5).
fn key_length(attributes: &[u8]) -> Result<Option<u16>, Malformed> {
    match *attributes {
        [] => Ok(None),
        [a, b, c, d] if u16::from_be_bytes([a, b]) == KEY_LENGTH => {
            Ok(Some(u16::from_be_bytes([c, d])))
        }
        _ => Err(Malformed("a transform attribute that nobody knows")),
    }
}

/// The gateway of a REDIRECT (RFC 5685 §7.2), and the nonce behind it.
///
/// # Errors
///
/// If it names none.
pub fn gateway(data: &[u8]) -> Result<(Gateway, &[u8]), Malformed> {
    const BAD: Malformed = Malformed("a redirect that leads nowhere");
    let [kind, length, ref rest @ ..] = *data else {
        return Err(BAD);
    };
    let (identity, nonce) = rest.split_at_checked(usize::from(length)).ok_or(BAD)?;
    let gateway = match kind {
        1 => Gateway::Address(
            <[u8; 4]>::try_from(identity)
                .map(Ipv4Addr::from)
                .map_err(|_| BAD)?
                .into(),
        ),
        2 => Gateway::Address(
            <[u8; 16]>::try_from(identity)
                .map(Ipv6Addr::from)
                .map_err(|_| BAD)?
                .into(),
        ),
        3 => {
            let name = std::str::from_utf8(identity).map_err(|_| BAD)?;
            let name = host_name(name).map_err(|_| BAD)?;
            Gateway::Name(name)
        }
        _ => return Err(BAD),
    };
    Ok((gateway, nonce))
}
