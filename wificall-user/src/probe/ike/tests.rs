use std::net::Ipv6Addr;

use wificall_common::wire::ike::HEADER_LEN;

use super::request::{Builder, proposals};
use super::response::{CRITICAL, split_payload, suite};
use super::*;
use crate::probe::transform::{self, PROPOSALS};
use crate::probe::{Group, Keys, system_random};

const SPI: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn ends() -> (SocketAddr, SocketAddr) {
    (
        "198.18.0.1:40000".parse().unwrap(),
        "[2001:db8::1]:500".parse().unwrap(),
    )
}

fn request(group: Group, cookie: Option<&[u8]>, redirected_from: Option<IpAddr>) -> Vec<u8> {
    let (local, remote) = ends();
    Request {
        spi: SPI,
        group,
        public: Keys::new(system_random).public(group),
        nonce: &[7; 32],
        cookie,
        local,
        remote,
        redirected_from,
    }
    .build()
}

/// Our own request, read as if it were a response: all but its proposals (a response has one).
fn payloads(message: &[u8]) -> Vec<(u8, &[u8])> {
    let mut next = message[16];
    let mut rest = &message[HEADER_LEN..];
    let mut payloads = Vec::new();
    while next != 0 {
        let kind = next;
        let payload;
        (next, payload, rest) = split_payload(kind, rest).unwrap();
        payloads.push((kind, payload));
    }
    assert!(rest.is_empty());
    payloads
}

/// A response of these payloads, as a responder would send it.
pub(in crate::probe) fn respond(
    spi: [u8; 8],
    spi_r: [u8; 8],
    payloads: &[(u8, Vec<u8>)],
) -> Vec<u8> {
    let mut builder = Builder::new(spi);
    builder.message[8..16].copy_from_slice(&spi_r);
    builder.message[19] = RESPONSE;
    for (kind, body) in payloads {
        builder.payload(*kind, body);
    }
    builder.finish()
}

/// The body of a notify.
pub(in crate::probe) fn notify_body(kind: u16, data: &[u8]) -> (u8, Vec<u8>) {
    (NOTIFY, [&[0, 0], &kind.to_be_bytes()[..], data].concat())
}

/// The payloads of a responder that agrees to AES-CBC-256 with SHA2-256 in this group.
pub(in crate::probe) fn agreement(group: Group) -> Vec<(u8, Vec<u8>)> {
    let [_, dh] = group.id().to_be_bytes();
    let sa = [
        &[0, 0, 0, 44, 2, 1, 0, 4][..],
        &[3, 0, 0, 12, ENCR_TYPE, 0, 0, 12, 0x80, 14, 1, 0],
        &[3, 0, 0, 8, PRF_TYPE, 0, 0, 5],
        &[3, 0, 0, 8, INTEG_TYPE, 0, 0, 12],
        &[0, 0, 0, 8, DH_TYPE, 0, 0, dh],
    ];
    let key = [&[0, dh, 0, 0][..], &vec![9; group.public_len()]].concat();
    vec![(SA, sa.concat()), (KE, key), (NONCE, vec![3; 32])]
}

const ENCR_TYPE: u8 = transform::ENCR;
const PRF_TYPE: u8 = transform::PRF;
const INTEG_TYPE: u8 = transform::INTEG;
const DH_TYPE: u8 = transform::DH;

#[test]
fn a_request_says_all_that_it_should() {
    let message = request(Group::Modp2048, None, None);
    assert_eq!(message[..8], SPI);
    assert_eq!(message[8..16], [0; 8]);
    assert_eq!(message[17..24], [0x20, 34, 0x08, 0, 0, 0, 0]);
    assert_eq!(
        message[24..28],
        u32::try_from(message.len()).unwrap().to_be_bytes()
    );
    let kinds: Vec<u8> = payloads(&message).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [SA, KE, NONCE, NOTIFY, NOTIFY, NOTIFY]);
    // The least that every IPv6 path carries, headers and marker included (RFC 8200 §5): no fragments.
    for group in Group::ALL {
        let message = request(group, Some(&[1; 64]), Some("2001:db8::2".parse().unwrap()));
        assert!(
            message.len() + 4 + 8 + 40 <= 1280,
            "{group}: {}",
            message.len()
        );
    }
}

#[test]
fn the_cookie_comes_first_and_the_old_gateway_is_named() {
    let message = request(
        Group::X25519,
        Some(&[9; 20]),
        Some("198.18.0.7".parse().unwrap()),
    );
    let payloads = payloads(&message);
    let (kind, body) = payloads[0];
    assert_eq!((kind, &body[..4]), (NOTIFY, &[0, 0, 0x40, 0x06][..]));
    assert_eq!(body[4..], [9; 20]);
    let (_, last) = payloads.last().unwrap();
    assert_eq!(**last, [0, 0, 0x40, 0x18, 1, 4, 198, 18, 0, 7]);
}

#[test]
fn every_proposal_has_all_groups() {
    let mut rest = &proposals()[..];
    for number in 1..=PROPOSALS.len() {
        let [more, _, a, b, this, protocol, spi_len, count, ..] = *rest else {
            panic!()
        };
        assert_eq!(more, if number < PROPOSALS.len() { 2 } else { 0 });
        assert_eq!((usize::from(this), protocol, spi_len), (number, 1, 0));
        let length = usize::from(u16::from_be_bytes([a, b]));
        let mut transforms = &rest[8..length];
        let mut groups = Vec::new();
        for left in (0..count).rev() {
            let length = usize::from(transforms[3]);
            assert_eq!(transforms[0] == 3, left > 0);
            if transforms[4] == transform::DH {
                groups.push(u16::from(transforms[7]));
            }
            transforms = &transforms[length..];
        }
        assert!(transforms.is_empty());
        assert_eq!(groups, Group::ALL.map(Group::id));
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
}

/// SHA-1 of 0102030405060708 0000000000000000 c6120001 9c40, by sha1sum.
#[test]
fn the_hash_is_over_spis_address_and_port() {
    let (local, _) = ends();
    let hex: String = address_hash(SPI, [0; 8], local)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, HASH);
}

const HASH: &str = "97bc92bfe7983b645a299f9ab82935faa681b0a1";

#[test]
fn responses_are_taken_apart() {
    let mut payloads = agreement(Group::Ecp256);
    payloads.push(notify_body(notify::NAT_DETECTION_SOURCE_IP, &[5; 20]));
    payloads.push((VENDOR_ID, b"vendor".to_vec()));
    // One that we do not know, and need not.
    payloads.push((200, vec![1, 2, 3]));
    let message = respond(SPI, [8; 8], &payloads);
    assert_eq!(answers(&message, SPI), Ok(2));
    let response = response(&message).unwrap();
    assert_eq!(
        response.suite.unwrap().to_string(),
        "aes-cbc-256 hmac-sha2-256-128 prf-hmac-sha2-256 ecp256"
    );
    assert_eq!(
        (response.group, response.nonce, response.spi),
        (Some(19), true, [8; 8])
    );
    assert_eq!(response.notifies.len(), 1);
    assert_eq!(response.notifies[0].data, [5; 20]);
    assert_eq!(response.vendor_ids, [b"vendor"]);
}

#[test]
fn only_answers_to_us_are_answers() {
    let good = respond(SPI, [8; 8], &[]);
    let with = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        answers(&message, SPI)
    };
    assert_eq!(with(0, 1), Ok(2));
    assert_eq!(with(0, 9), Err(NotOurs), "another SPI");
    assert_eq!(with(17, 0x10), Ok(1), "IKEv1");
    assert_eq!(with(18, 37), Err(NotOurs), "another exchange");
    assert_eq!(with(19, 0x08), Err(NotOurs), "a request");
    assert_eq!(with(19, 0x28), Err(NotOurs), "from an initiator");
    assert_eq!(with(23, 1), Err(NotOurs), "another message");
    assert_eq!(answers(&good[..27], SPI), Err(NotOurs));
    assert_eq!(answers(&[], SPI), Err(NotOurs));
}

/// Each hostile body with what is said about it.
#[test]
fn hostile_lengths_are_named() {
    let notify = |body: &[u8]| (NOTIFY, body.to_vec());
    let sa = |body: &[u8]| (SA, body.to_vec());
    let proposal = agreement(Group::X25519).swap_remove(0).1;
    let changed = |at: usize, byte: u8| {
        let mut proposal = proposal.clone();
        proposal[at] = byte;
        (SA, proposal)
    };
    for (payload, expected) in [
        (notify(&[0, 0, 64]), "a short notify"),
        (notify(&[0, 5, 64, 6, 1, 2, 3, 4]), "without the SPI"),
        (notify(&[0, 255, 64, 6]), "without the SPI"),
        ((KE, vec![0, 14, 0]), "a short KE"),
        ((NONCE, vec![0; 15]), "a nonce"),
        ((NONCE, vec![0; 257]), "a nonce"),
        (sa(&[]), "a short proposal"),
        (sa(&[0, 0, 0, 8, 1, 1, 0, 0]), "without encryption"),
        (sa(&[0, 0, 0, 8, 1, 1, 200, 0]), "lengths disagree"),
        (sa(&[0, 0, 255, 255, 1, 1, 0, 0]), "lengths disagree"),
        (sa(&[0, 0, 0, 8, 1, 1, 0, 255]), "lengths disagree"),
        (changed(0, 2), "more than one proposal"),
        (changed(5, 3), "not for IKE"),
        (changed(7, 3), "lengths disagree"),
        (changed(8, 0), "lengths disagree"),
        // A transform of no length would never end.
        (changed(11, 0), "lengths disagree"),
        (changed(11, 7), "lengths disagree"),
        (changed(10, 255), "lengths disagree"),
        (changed(12, 5), "an unknown type"),
        (changed(12, 2), "two transforms"),
        (changed(17, 15), "attribute that nobody knows"),
    ] {
        let message = respond(SPI, [8; 8], std::slice::from_ref(&payload));
        let Err(Malformed(what)) = response(&message) else {
            panic!("{payload:?} is taken")
        };
        assert!(what.contains(expected), "{payload:?}: {what}");
    }
    let mut message = respond(SPI, [8; 8], &agreement(Group::X25519));
    for (at, byte, expected) in [
        (27, 27, "a length that"),
        (24, 255, "a length that"),
        (16, 0, "behind the last"),
        (31, 3, "a payload length"),
        (30, 255, "a payload length"),
    ] {
        let mut changed = message.clone();
        changed[at] = byte;
        let Err(Malformed(what)) = response(&changed) else {
            panic!("{at}: {byte} is taken")
        };
        assert!(what.contains(expected), "{at}: {what}");
    }
    // An unknown payload with the critical bit.
    message[16] = 200;
    message[HEADER_LEN + 1] = CRITICAL;
    assert_eq!(
        response(&message),
        Err(Malformed("a critical payload that nobody knows"))
    );
}

/// A million small changes and cuts of good messages, and as many random ones: nothing panics, nothing takes long, and
/// what is taken is bounded by what came.
#[test]
fn nothing_that_comes_does_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut redirect = vec![3, 9];
    redirect.extend(b"gw.ex.org");
    redirect.extend([7; 32]);
    let mut full = agreement(Group::Ecp384);
    full.push(notify_body(notify::COOKIE, &[1; 32]));
    full.push((VENDOR_ID, vec![1; 20]));
    let seeds = [
        respond(SPI, [8; 8], &agreement(Group::Modp2048)),
        respond(SPI, [8; 8], &full),
        respond(SPI, [0; 8], &[notify_body(notify::REDIRECT, &redirect)]),
        respond(
            SPI,
            [0; 8],
            &[notify_body(notify::INVALID_KE_PAYLOAD, &[0, 19])],
        ),
    ];
    let rounds = std::env::var("WIFICALL_FUZZ_ROUNDS").map_or(50_000, |r| r.parse().unwrap());
    let (mut taken, mut refused) = (0, 0);
    for round in 0..rounds {
        let mut message = seeds[round % seeds.len()].clone();
        for _ in 0..=random() % 4 {
            let at = (random() % message.len() as u64) as usize;
            message[at] = match random() % 4 {
                0 => 0,
                1 => 0xff,
                2 => message[at].wrapping_add(1),
                _ => random() as u8,
            };
        }
        if random() % 4 == 0 {
            message.truncate((random() % (message.len() as u64 + 1)) as usize);
        }
        let _ = answers(&message, SPI);
        match response(&message) {
            Ok(response) => {
                taken += 1;
                let data: usize = response.notifies.iter().map(|n| n.data.len() + 8).sum();
                let vendors: usize = response.vendor_ids.iter().map(|id| id.len() + 4).sum();
                assert!(data + vendors <= message.len());
                for notify in &response.notifies {
                    let _ = gateway(notify.data);
                }
            }
            Err(Malformed(_)) => refused += 1,
        }
        let noise: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let _ = (
            answers(&noise, SPI),
            response(&noise),
            gateway(&noise),
            suite(&noise),
        );
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}

#[test]
fn redirects_lead_to_addresses_and_names() {
    let read =
        |data: &[u8]| gateway(data).map(|(gateway, nonce)| (gateway.to_string(), nonce.len()));
    assert_eq!(
        read(&[1, 4, 198, 18, 0, 9, 5, 5]),
        Ok(("198.18.0.9".into(), 2))
    );
    let mut six = vec![2, 16];
    six.extend("2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(read(&six), Ok(("2001:db8::9".into(), 0)));
    assert_eq!(read(b"\x03\x0aGW.ex.org.x"), Ok(("gw.ex.org".into(), 1)));
    for bad in [
        &b""[..],
        &[1],
        &[1, 3, 1, 2, 3],
        &[1, 4, 1, 2, 3],
        &[2, 4, 1, 2, 3, 4],
        &[3, 0],
        &[3, 4, b'a', b'.', b'.', b'b'],
        &[3, 3, 0x1b, b'[', b'm'],
        &[4, 1, 1],
        &[3, 255],
    ] {
        assert!(gateway(bad).is_err(), "{bad:?}");
    }
}
