//! No input makes a parser panic, overflow or look outside the packet: every prefix of a set of frames, and frames with
//! bytes changed. Runs under Miri as well.

use wificall_common::{
    Class, Direction,
    abi::{
        Block4, Block6, BucketKey, CLIENT_IPV4, CLIENT_IPV6, CLIENT_MAC, Cell, EndpointRef,
        FLAG_WHOLE, FragmentKey, Members,
    },
    classify::{Link, Match, Tables, bucket_key, classify, fragment_key, network},
    endpoint::Table,
    exit::Exit,
    frame::Frame,
    rewrite,
    wire::{Version, nat64::Pref64},
};

/// Frames that between them take every way through the parsers, in hexadecimal.
const FRAMES: [(&str, &str); 13] = [
    // eth / ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / esp 16
    (
        "esp_udp4",
        "02000000000202000000000108004500002cbeef00004011b9bbc6120002cb0071019c4011940018c2bec0ffee010000\
         0001721728cde6bb5c71",
    ),
    // eth / ip6 2001:db8:ffff::2 > 2001:db8:1::1 / udp 40000 > 4500 / esp 16
    (
        "esp_udp6",
        "02000000000202000000000186dd600123450018114020010db8ffff0000000000000000000220010db8000100000000\
         0000000000019c4011940018695fc0ffee0100000001721728cde6bb5c71",
    ),
    // eth / ip4 198.18.0.2 > 203.0.113.1 / udp 500 > 500 / ike 32
    (
        "ike4",
        "02000000000202000000000108004500003cbeef00004011b9abc6120002cb00710101f401f40028b5a50123456789ab\
         cdef0000000000000000212022080000000000000020566b0c21",
    ),
    // eth / ip6 2001:db8:ffff::2 > 2001:db8:1::1 / udp 4500 > 4500 / marker / ike 32
    (
        "marked6",
        "02000000000202000000000186dd60012345002c114020010db8ffff0000000000000000000220010db8000100000000\
         00000000000111941194002c3cfe000000000123456789abcdef0000000000000000212022080000000000000020566b\
         0c21",
    ),
    // eth / ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / hex ff / pad 17
    (
        "keepalive",
        "02000000000202000000000108004500001dbeef00004011b9cac6120002cb0071019c401194000950f0ff0000000000\
         000000000000000000000000",
    ),
    // eth / svlan 8 / vlan 7 / ip4 198.18.0.2 > 203.0.113.1 opts=8 / esp 16
    (
        "esp_options",
        "02000000000202000000000188a800088100000708004700002cbeef00004032b396c6120002cb007101010101010101\
         0101c0ffee0100000001721728cde6bb5c71",
    ),
    // eth / vlan 7 / pppoe / ip4 198.18.0.2 > 203.0.113.1 / esp 16
    (
        "pppoe",
        "020000000002020000000001810000078864110000090026002145000024beef00004032b9a2c6120002cb007101c0ff\
         ee0100000001721728cde6bb5c71",
    ),
    // eth / ip6 2001:db8:ffff::2 > 2001:db8:1::1 / hop / dst / route / frag / dst / udp 40000 > 4500 / esp 16
    (
        "chain",
        "02000000000202000000000186dd600123450040004020010db8ffff0000000000000000000220010db8000100000000\
         0000000000013c000104000000002b000104000000002c000104000000003c0000001234567811000104000000009c40\
         11940018695fc0ffee0100000001721728cde6bb5c71",
    ),
    // eth / ip6 2001:db8:ffff::2 > 2001:db8:1::1 / frag mf / udp 40000 > 4500 len=200 / esp 48
    (
        "first6",
        "02000000000202000000000186dd6001234500402c4020010db8ffff0000000000000000000220010db8000100000000\
         00000000000111000001123456789c40119400c83088c0ffee0100000001721728cde6bb5c710a2fc0e5be53740922c7\
         98bd566b0c21fa9fb0556e0324f992b7486d06dbfc91",
    ),
    // eth / ip4 198.18.0.2 > 203.0.113.1 off=7 proto=17 / bytes 24
    (
        "later4",
        "02000000000202000000000108004500002cbeef00074011b9b4c6120002cb0071015a7f1035cee38459721728cde6bb\
         5c710a2fc0e5be537409",
    ),
    // eth / ip6 2001:db8:ffff::2 > 64:ff9b::203.0.113.1 / esp 16
    (
        "nat64",
        "02000000000202000000000186dd600123450010324020010db8ffff000000000000000000020064ff9b000000000000\
         0000cb007101c0ffee0100000001721728cde6bb5c71",
    ),
    // ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / esp 16
    (
        "bare4",
        "4500002cbeef00004011b9bbc6120002cb0071019c4011940018c2bec0ffee0100000001721728cde6bb5c71",
    ),
    // ip6 2001:db8:ffff::2 > 2001:db8:1::1 / esp 16
    (
        "bare6",
        "600123450010324020010db8ffff0000000000000000000220010db8000100000000000000000001c0ffee0100000001\
         721728cde6bb5c71",
    ),
];

/// Changed copies of each frame; a test under Miri takes hundreds of times as long.
const CHANGES: usize = if cfg!(miri) { 4 } else { 20_000 };

/// Tables in which every address is an endpoint: nothing is turned away before it is parsed.
struct Everything {
    block4: Block4,
    block6: Block6,
}

impl Everything {
    const fn new() -> Self {
        Self {
            block4: Block4 {
                group: 1,
                policy: 1,
                slot: 1,
                flags: 0,
                members: [u32::MAX; 8],
            },
            block6: Block6 {
                group: 1,
                policy: 1,
                slot: 1,
                flags: FLAG_WHOLE,
            },
        }
    }
}

impl Table for Everything {
    fn block4(&self, key: u32) -> Cell {
        Cell::of4(key, &self.block4)
    }

    fn members(&self, _: u32) -> Option<&Members> {
        Some(&self.block4.members)
    }

    fn block6(&self, key: u64) -> Cell {
        Cell::of6(key, &self.block6)
    }

    fn host(&self, _: u128) -> Option<&EndpointRef> {
        None
    }

    fn prefix(&self, _: u128) -> Option<&EndpointRef> {
        None
    }

    fn pref64(&self, _index: usize) -> Option<Pref64> {
        Some(Pref64 {
            prefix: [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            len: 96,
        })
    }
}

impl Tables for Everything {
    fn first_fragment(&self, _: &FragmentKey) -> Option<Class> {
        Some(Class::EspUdp)
    }
}

/// The same bytes, read in the plain shape only.
struct Plain<'a>(&'a [u8]);

impl Frame for Plain<'_> {
    const PLAIN: bool = true;

    fn size(&self) -> usize {
        self.0.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }
}

/// Classifies every way and checks what must hold of any frame.
fn check(bytes: &[u8]) -> usize {
    const { assert!(DSCP < 64) };
    const DSCP: u8 = 46;
    let tables = Everything::new();
    let mut matches = 0;
    for link in [Link::Ethernet, Link::Bare] {
        for direction in Direction::ALL {
            let whole = classify(bytes, &tables, link, direction);
            match classify(&Plain(bytes), &tables, link, direction) {
                Err(Exit::Truncated) => {}
                decided => assert_eq!(decided, whole, "the plain shape decides alike"),
            }
            let Ok(found) = whole else { continue };
            matches += 1;
            inside(bytes, &found);
            let at = &bytes[found.packet.offset..];
            let changed = match found.packet.version {
                Version::V4 => rewrite::ipv4(*at.first_chunk().unwrap(), DSCP).map(|head| head[1]),
                Version::V6 => rewrite::ipv6(*at.first_chunk().unwrap(), DSCP)
                    .map(|[a, b, ..]| a << 4 | b >> 4),
            };
            assert!(changed.is_none_or(|octet| octet >> 2 == DSCP));
        }
    }
    matches
}

/// What the programs rely on when they write and count.
fn inside(bytes: &[u8], found: &Match) {
    let packet = &found.packet;
    assert!(packet.header_len <= packet.total_len, "{packet:?}");
    assert!(
        packet.offset + packet.total_len <= bytes.len(),
        "{packet:?}"
    );
    assert!(found.segment_headers <= packet.total_len, "{found:?}");
    assert!(found.treat_as != Class::Fragment, "{found:?}");
    assert!(fragment_key(bytes, packet).is_some(), "{packet:?}");
}

fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    FRAMES.iter().map(|(name, digits)| {
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        (*name, bytes)
    })
}

#[test]
fn every_frame_is_a_match() {
    for (name, bytes) in frames() {
        assert_ne!(check(&bytes), 0, "{name}");
    }
}

/// By link-layer address where there is one of the client's, else by address or /64.
#[test]
fn whose_cap_a_packet_counts_towards() {
    const MACS: [u64; 2] = [0x0200_0000_0001, 0x0200_0000_0002];
    let frame = |name| frames().find(|(other, _)| *other == name).unwrap().1;
    for (name, addresses, kind) in [
        ("esp_udp4", [0xc612_0002, 0xcb00_7101], CLIENT_IPV4),
        (
            "esp_udp6",
            [0x2001_0db8_ffff_0000, 0x2001_0db8_0001_0000],
            CLIENT_IPV6,
        ),
    ] {
        let frame = frame(name);
        for (direction, end) in [(Direction::Up, 0), (Direction::Down, 1)] {
            let key = |frame: &[u8], link, faces_clients| {
                let packet = network(frame, link).unwrap();
                bucket_key(frame, &packet, link, faces_clients, direction, 1).unwrap()
            };
            let expected = |client, kind| BucketKey {
                client,
                kind,
                tier: 1,
                direction: direction as u16,
            };
            let by_mac = expected(MACS[end], CLIENT_MAC);
            let by_address = expected(addresses[end], kind);
            assert_eq!(key(&frame, Link::Ethernet, true), by_mac, "{name}");
            assert_eq!(key(&frame, Link::Ethernet, false), by_address, "{name}");
            for faces_clients in [true, false] {
                assert_eq!(
                    key(&frame[14..], Link::Bare, faces_clients),
                    by_address,
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn every_prefix() {
    for (_, bytes) in frames() {
        for end in 0..bytes.len() {
            check(&bytes[..end]);
        }
    }
}

/// A few bytes changed at a time, mostly in the headers, by a generator whose seed is fixed.
#[test]
fn changed_bytes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let mut matches = 0;
    for (_, original) in frames() {
        for _ in 0..CHANGES {
            let mut bytes = original.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len().min(96));
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(bytes.len() - random(4) / 3 * random(bytes.len()));
            matches += check(&bytes);
        }
    }
    assert!(
        cfg!(miri) || matches > CHANGES,
        "most changes hit the headers"
    );
}
