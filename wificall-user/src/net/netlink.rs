//! One netlink request and its whole answer; messages and attributes as bytes (RFC 3549 §2.3, `linux/netlink.h`).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlaBuffer, NlasIterator, parse_ip,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// Bytes of a netlink message header.
const HEADER: usize = 16;
/// The kernel sends at most 32 KiB in a datagram (Linux 4.9, commit d35c99ff77ec).
const DATAGRAM: usize = 32 * 1024;
/// A dump that the kernel marks as inconsistent is asked again this many times.
const DUMP_ATTEMPTS: usize = 8;

/// One message of an answer: its type and what follows its header.
pub(super) struct Message {
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// Asks for all objects of a kind.
///
/// A table that changes while the kernel walks it gives an inconsistent dump (`NLM_F_DUMP_INTR`); it is asked again.
///
/// # Errors
///
/// The kernel's answer as an OS error; `Interrupted` if the table never held still.
pub(super) async fn dump(protocol: isize, kind: u16, payload: &[u8]) -> io::Result<Vec<Message>> {
    dumped(protocol, kind, payload, false).await
}

/// Asks for those objects of a kind that agree with the request (`NETLINK_GET_STRICT_CHK`, Linux 4.20): without it, the
/// kernel ignores the request's attributes and sends all there are.
///
/// # Errors
///
/// As [`dump`].
pub(super) async fn dump_strictly(
    protocol: isize,
    kind: u16,
    payload: &[u8],
) -> io::Result<Vec<Message>> {
    dumped(protocol, kind, payload, true).await
}

async fn dumped(
    protocol: isize,
    kind: u16,
    payload: &[u8],
    strict: bool,
) -> io::Result<Vec<Message>> {
    for _ in 0..DUMP_ATTEMPTS {
        if let Answer::Whole(messages) = ask(protocol, kind, NLM_F_DUMP, payload, strict).await? {
            return Ok(messages);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the kernel's table changed during every dump of it",
    ))
}

/// Asks for a change, with the `NLM_F_*` that say what may be there already.
///
/// # Errors
///
/// The kernel's answer as an OS error.
pub(super) async fn set(protocol: isize, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
    ask(protocol, kind, NLM_F_ACK | flags, payload, false)
        .await
        .map(drop)
}

/// Asks for one object.
///
/// # Errors
///
/// The kernel's answer as an OS error.
pub(super) async fn get(protocol: isize, kind: u16, payload: &[u8]) -> io::Result<Vec<Message>> {
    match ask(protocol, kind, NLM_F_ACK, payload, false).await? {
        Answer::Whole(messages) | Answer::Interrupted(messages) => Ok(messages),
    }
}

enum Answer {
    Whole(Vec<Message>),
    Interrupted(Vec<Message>),
}

async fn ask(
    protocol: isize,
    kind: u16,
    flags: u16,
    payload: &[u8],
    strict: bool,
) -> io::Result<Answer> {
    // A socket for each request: what arrives on it is the answer to that request and nothing else.
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    if strict {
        socket.socket_ref().set_netlink_get_strict_chk(true)?;
    }

    let mut request = vec![0; HEADER];
    request.extend_from_slice(payload);
    let mut header = NetlinkBuffer::new(request.as_mut_slice());
    header.set_length((HEADER + payload.len()) as u32);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    header.set_sequence_number(1);
    socket.send_to(&request, &SocketAddr::new(0, 0)).await?;

    let mut answer = Vec::new();
    let mut interrupted = false;
    loop {
        for part in parts(&receive(&socket).await?)? {
            interrupted |= part.flags & NLM_F_DUMP_INTR != 0;
            match part.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    // Both begin with an error number, negated; 0 is an acknowledgement.
                    return match i32_at(part.payload, 0).unwrap_or(0) {
                        0 if interrupted => Ok(Answer::Interrupted(answer)),
                        0 => Ok(Answer::Whole(answer)),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                kind => answer.push(Message {
                    kind,
                    payload: part.payload.to_vec(),
                }),
            }
        }
    }
}

/// The next datagram from the kernel; one from another process is dropped.
///
/// # Errors
///
/// `ENOBUFS` when messages were lost because nobody read them in time.
pub(super) async fn receive(socket: &TokioSocket) -> io::Result<Vec<u8>> {
    loop {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        if socket.recv_from(&mut datagram).await?.port_number() == 0 {
            return Ok(datagram);
        }
    }
}

/// A message as it lies in its datagram.
pub(super) struct Part<'a> {
    pub kind: u16,
    flags: u16,
    pub payload: &'a [u8],
}

/// The messages in a datagram.
///
/// # Errors
///
/// `InvalidData` if a length does not fit.
pub(super) fn parts(datagram: &[u8]) -> io::Result<Vec<Part<'_>>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let message = NetlinkBuffer::new_checked(rest).map_err(invalid)?;
        // The check has compared the length with what is there, but not with the size of the header.
        let length = message.length() as usize;
        let payload = rest.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        found.push(Part {
            kind: message.message_type(),
            flags: message.flags(),
            payload,
        });
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(found)
}

/// The attributes that follow a fixed header of `skip` bytes, up to the first one that is malformed.
pub(super) fn attributes(payload: &[u8], skip: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(skip..).unwrap_or_default()).map_while(Result::ok)
}

/// An attribute with its header and padding, to append to a request.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// A NUL-terminated string.
pub(super) fn string(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// An address of four or sixteen bytes.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    parse_ip(value).ok()
}

/// An address as an attribute has it.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_datagram_of_two_messages_and_their_padding() {
        let mut datagram = message(18, &[1, 2, 0, 0]);
        datagram.extend(message(16, &[]));
        let found: Vec<_> = parts(&datagram)
            .unwrap()
            .iter()
            .map(|part| part.payload.to_vec())
            .collect();
        assert_eq!(found, [vec![1, 2], vec![]]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for datagram in [
            message(17, &[]),
            message(0, &[]),
            message(15, &[]),
            message(u32::MAX, &[]),
            vec![0; 3],
        ] {
            assert!(parts(&datagram).is_err(), "{datagram:?}");
        }
    }

    #[test]
    fn attributes_stop_at_the_first_malformed_one() {
        let mut payload = vec![9; 4];
        payload.extend(attribute(3, b"lan0\0"));
        payload.extend([200, 0, 4, 0]);
        let found: Vec<_> = attributes(&payload, 4)
            .map(|attribute| (attribute.kind(), string(attribute.value())))
            .collect();
        assert_eq!(found, [(3, "lan0".to_owned())]);
        assert_eq!(attributes(&payload, 100).count(), 0);
    }
}
