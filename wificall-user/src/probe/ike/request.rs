//! Our request: built, never read.

use std::net::{IpAddr, SocketAddr};

use wificall_common::wire::ike::{EXCHANGE_SA_INIT, HEADER_LEN};

use super::{
    INITIATOR, KE, KEY_LENGTH, NONCE, NOTIFY, PAYLOAD_HEADER, PROTOCOL_IKE, SA, VERSION,
    address_hash, notify,
};
use crate::probe::keys::Group;
use crate::probe::transform::{self, PROPOSALS};

/// What a request says.
#[derive(Debug)]
pub struct Request<'a> {
    /// Our SPI, not zero.
    pub spi: [u8; 8],
    /// The group of `public`.
    pub group: Group,
    /// Our public value in it.
    pub public: &'a [u8],
    /// 16 to 256 bytes (§2.10).
    pub nonce: &'a [u8],
    /// What the responder wants back.
    pub cookie: Option<&'a [u8]>,
    /// Our end of the path, as far as we know it.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Who redirected us here.
    pub redirected_from: Option<IpAddr>,
}

impl Request<'_> {
    /// The message, without the non-ESP marker.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut message = Builder::new(self.spi);
        if let Some(cookie) = self.cookie {
            // §2.6: in front of all other payloads.
            message.notify(notify::COOKIE, cookie);
        }
        message.payload(SA, &proposals());
        let mut key = Vec::with_capacity(4 + self.public.len());
        key.extend(self.group.id().to_be_bytes());
        key.extend([0, 0]);
        key.extend(self.public);
        message.payload(KE, &key);
        message.payload(NONCE, self.nonce);
        // The responder's SPI is still unknown (§2.23).
        for (kind, end) in [
            (notify::NAT_DETECTION_SOURCE_IP, self.local),
            (notify::NAT_DETECTION_DESTINATION_IP, self.remote),
        ] {
            message.notify(kind, &address_hash(self.spi, [0; 8], end));
        }
        match self.redirected_from {
            None => message.notify(notify::REDIRECT_SUPPORTED, &[]),
            Some(gateway) => message.notify(notify::REDIRECTED_FROM, &identity(gateway)),
        }
        message.finish()
    }
}

/// A gateway's identity in a notify (RFC 5685 §7.3): its type, its length, itself.
fn identity(gateway: IpAddr) -> Vec<u8> {
    match gateway {
        IpAddr::V4(address) => [&[1, 4][..], &address.octets()].concat(),
        IpAddr::V6(address) => [&[2, 16][..], &address.octets()].concat(),
    }
}

/// The body of our SA payload (§3.3).
pub(super) fn proposals() -> Vec<u8> {
    let mut body = Vec::new();
    for (index, proposal) in PROPOSALS.iter().enumerate() {
        let groups = Group::ALL.map(|group| (transform::DH, group.id(), None));
        let transforms: Vec<_> = proposal.iter().copied().chain(groups).collect();
        let mut encoded = Vec::new();
        for (at, (kind, id, bits)) in transforms.iter().enumerate() {
            // §3.3.2: 3 if another transform follows.
            let more = if at + 1 < transforms.len() { 3 } else { 0 };
            let length: u8 = if bits.is_some() { 12 } else { 8 };
            encoded.extend([more, 0, 0, length, *kind, 0]);
            encoded.extend(id.to_be_bytes());
            if let Some(bits) = bits {
                encoded.extend(KEY_LENGTH.to_be_bytes());
                encoded.extend(bits.to_be_bytes());
            }
        }
        // §3.3.1: 2 if another proposal follows.
        let more = if index + 1 < PROPOSALS.len() { 2 } else { 0 };
        body.extend([more, 0]);
        body.extend(length(8 + encoded.len()).to_be_bytes());
        body.extend([byte(index + 1), PROTOCOL_IKE, 0, byte(transforms.len())]);
        body.extend(encoded);
    }
    body
}

/// Lengths of what we build ourselves are far below the limits of their fields.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("our messages fit into a datagram")
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).expect("few proposals of few transforms")
}

/// A message under construction.
pub(super) struct Builder {
    pub message: Vec<u8>,
    /// Where the type of the next payload belongs.
    next: usize,
}

impl Builder {
    pub fn new(spi: [u8; 8]) -> Self {
        let mut message = vec![0; HEADER_LEN];
        message[..8].copy_from_slice(&spi);
        message[17] = VERSION;
        message[18] = EXCHANGE_SA_INIT;
        message[19] = INITIATOR;
        Self { message, next: 16 }
    }

    pub fn payload(&mut self, kind: u8, body: &[u8]) {
        self.message[self.next] = kind;
        self.next = self.message.len();
        self.message.extend([0, 0]);
        self.message
            .extend(length(PAYLOAD_HEADER + body.len()).to_be_bytes());
        self.message.extend(body);
    }

    fn notify(&mut self, kind: u16, data: &[u8]) {
        // No SPI: it concerns the IKE SA that is being made (§3.10).
        let mut body = vec![0, 0];
        body.extend(kind.to_be_bytes());
        body.extend(data);
        self.payload(NOTIFY, &body);
    }

    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::from(length(self.message.len()));
        self.message[24..28].copy_from_slice(&length.to_be_bytes());
        self.message
    }
}
