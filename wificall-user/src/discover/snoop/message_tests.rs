use super::*;

const NAME: &str = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

/// A message: header, a question for type 1 or 28, and records as bytes.
fn message(flags: u16, name: &str, kind: u16, counts: [u16; 3], records: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    counts
        .iter()
        .for_each(|count| bytes.extend(count.to_be_bytes()));
    bytes.extend(wire(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(records);
    bytes
}

/// A record; `owner` in wire form, possibly a pointer.
fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The name asked for, by pointer.
const ASKED: [u8; 2] = [0xc0, 12];
const RESPONSE: u16 = 0x8180;

fn said(kind: u16, records: &[Vec<u8>]) -> Result<Said, Bad> {
    let counts = [records.len() as u16, 0, 0];
    let bytes = message(RESPONSE, NAME, kind, counts, &records.concat());
    answer(&bytes).map(|answer| answer.said)
}

fn told(addresses: &[&str], ttl: u64) -> Result<Said, Bad> {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Ok(Said::Addresses(addresses, Duration::from_secs(ttl)))
}

#[test]
fn a_query_says_what_it_asks() {
    // With EDNS, as Android and unbound ask.
    let edns = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    let mixed = "EpDg.epc.mnc001.mcc262.pub.3gppNETWORK.org";
    let asked = query(&message(0x0100, mixed, 28, [0, 0, 1], &edns)).unwrap();
    assert_eq!(
        (asked.id, &*asked.name, asked.family),
        (0x1234, NAME, Family::V6)
    );
    assert_eq!(asked.wire, [wire(mixed), vec![0, 28, 0, 1]].concat());
    // NAPTR, and an answer.
    assert_eq!(
        query(&message(0x0100, NAME, 35, [0; 3], &[])),
        Err(Bad::Other)
    );
    assert_eq!(
        query(&message(RESPONSE, NAME, 1, [0; 3], &[])),
        Err(Bad::Other)
    );
    assert_eq!(
        answer(&message(0x0100, NAME, 1, [0; 3], &[])),
        Err(Bad::Other)
    );
    assert_eq!(
        query(&message(0x0100, NAME, 1, [0; 3], &[])[..30]),
        Err(Bad::Malformed)
    );
}

#[test]
fn addresses_of_the_name_asked_for() {
    let one = record(&ASKED, 1, 120, &[203, 0, 113, 1]);
    let two = record(&wire(&NAME.to_uppercase()), 1, 60, &[203, 0, 113, 2]);
    assert_eq!(
        said(1, &[one.clone(), two, one.clone()]),
        told(&["203.0.113.1", "203.0.113.2"], 60)
    );
    let six = record(
        &ASKED,
        28,
        5,
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    );
    assert_eq!(
        said(28, &[six.clone(), one.clone()]),
        told(&["2001:db8::1"], 5)
    );
    // Of the other family only; of another name only.
    assert_eq!(said(1, &[six]), Ok(Said::None));
    let other = record(&wire("evil.example"), 1, 60, &[203, 0, 113, 66]);
    assert_eq!(said(1, std::slice::from_ref(&other)), Ok(Said::None));
    assert_eq!(said(1, &[other, one]), told(&["203.0.113.1"], 120));
    assert_eq!(said(1, &[]), Ok(Said::None));
}

#[test]
fn addresses_at_the_end_of_aliases() {
    let (a, b) = ("a.carrier.example", "b.carrier.example");
    let to_a = record(&ASKED, 5, 300, &wire(a));
    let to_b = record(&wire(a), 5, 20, &wire(b));
    let end = record(&wire(b), 1, 60, &[203, 0, 113, 1]);
    assert_eq!(
        said(1, &[to_a.clone(), to_b.clone(), end.clone()]),
        told(&["203.0.113.1"], 20)
    );
    // In any order; and a chain that does not reach an address tells none.
    assert_eq!(
        said(1, &[end.clone(), to_b.clone(), to_a.clone()]),
        told(&["203.0.113.1"], 20)
    );
    assert_eq!(said(1, &[to_a.clone(), end.clone()]), Ok(Said::None));
    // Loops, an alias with other data, two aliases.
    let back = record(&wire(b), 5, 60, &ASKED);
    assert_eq!(
        said(1, &[to_a.clone(), to_b.clone(), back]),
        Err(Bad::Malformed)
    );
    let own = record(&ASKED, 1, 60, &[203, 0, 113, 9]);
    assert_eq!(said(1, &[to_a.clone(), own]), Err(Bad::Malformed));
    let also = record(&ASKED, 5, 60, &wire(b));
    assert_eq!(said(1, &[to_a, also]), Err(Bad::Malformed));
}

#[test]
fn answers_without_addresses() {
    for (flags, expected) in [
        (0x8183, Said::None),
        (0x8182, Said::None),
        (0x8380, Said::Truncated),
    ] {
        let got = answer(&message(flags, NAME, 1, [0; 3], &[])).unwrap();
        assert_eq!(got.said, expected, "{flags:#x}");
        assert_eq!(got.question.name, NAME);
    }
}

/// Pointers forwards, to themselves, out of the message; counts that lie; nothing panics, and an address is only ever told
/// if the bytes of it are there.
#[test]
fn no_damage_makes_it_panic() {
    for owner in [[0xc0, 0xff], [0xff, 0xff], [0xc0, 60]] {
        let bad = record(&owner, 1, 60, &[203, 0, 113, 1]);
        assert_eq!(said(1, &[bad]), Err(Bad::Malformed));
    }
    let chain = [
        record(&ASKED, 5, 300, &wire("a.example")),
        record(&wire("a.example"), 1, 60, &[203, 0, 113, 1]),
    ];
    let whole = message(RESPONSE, NAME, 1, [2, 0, 0], &chain.concat());
    // Marsaglia's xorshift64, with a seed that is fixed.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % bound
    };
    let mut parsed = 0;
    for _ in 0..50_000 {
        let mut bytes = whole.clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            bytes[at] = below(256) as u8;
        }
        if below(4) == 0 {
            bytes.truncate(below(bytes.len()));
        }
        let _ = query(&bytes);
        if let Ok(answer) = answer(&bytes) {
            parsed += 1;
            assert!(
                bytes
                    .windows(answer.question.wire.len())
                    .any(|w| w == answer.question.wire)
            );
            if let Said::Addresses(addresses, _) = answer.said {
                for address in addresses {
                    let IpAddr::V4(address) = address else {
                        panic!("asked for IPv4")
                    };
                    assert!(bytes.windows(4).any(|w| w == address.octets()));
                }
            }
        }
    }
    assert!(parsed > 1000, "{parsed}");
    for len in 0..whole.len() {
        assert!(answer(&whole[..len]).is_err());
    }
}
