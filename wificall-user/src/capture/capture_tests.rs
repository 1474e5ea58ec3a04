use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use wificall_common::classify::Link;

use super::*;

/// A writer of numbers in one byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self.0 {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.0 {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| self.u32(*word)).collect()
    }

    /// A classic file's head.
    fn head(self, magic: u32, link: u32) -> Vec<u8> {
        [
            self.u32(magic).to_vec(),
            self.u16(2).to_vec(),
            self.u16(4).to_vec(),
            self.words(&[0, 0, 65_535, link]),
        ]
        .concat()
    }

    /// A pcapng block.
    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let len = padded.len() as u32 + 12;
        [self.words(&[kind, len]), padded, self.words(&[len])].concat()
    }

    fn section(self) -> Vec<u8> {
        let body = [
            self.words(&[0x1a2b_3c4d]),
            self.u16(1).to_vec(),
            self.u16(0).to_vec(),
            vec![0xff; 8],
        ];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    fn interface(self, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
        let body = [
            self.u16(link).to_vec(),
            vec![0; 2],
            self.words(&[snaplen]),
            options.to_vec(),
        ];
        self.block(1, &body.concat())
    }

    fn enhanced(self, interface: u32, time: u64, len: u32, bytes: &[u8]) -> Vec<u8> {
        let (high, low) = ((time >> 32) as u32, time as u32);
        let head = self.words(&[interface, high, low, bytes.len() as u32, len]);
        self.block(6, &[head, bytes.to_vec()].concat())
    }
}

fn frames(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    Frames::new(file)?.collect()
}

fn error(file: &[u8]) -> String {
    frames(file).unwrap_err().to_string()
}

fn at(seconds: u64, nanoseconds: u32) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}

#[test]
fn classic_files_in_both_orders_and_units() {
    for order in [Order(true), Order(false)] {
        for (magic, fraction, nanoseconds) in
            [(0xa1b2_c3d4, 250_000, 250_000_000), (0xa1b2_3c4d, 7, 7)]
        {
            // The upper bits are about frame check sequences.
            let head = order.head(magic, 0x2400_0000 | 101);
            let frame = order.words(&[1_700_000_000, fraction, 3, 1500]);
            let file = [head, frame.clone(), b"abc".to_vec(), frame, b"def".to_vec()].concat();
            let found = frames(&file).unwrap();
            assert_eq!(
                found[0],
                Frame {
                    number: 1,
                    at: at(1_700_000_000, nanoseconds),
                    link: LinkType::Raw,
                    bytes: b"abc".to_vec(),
                    len: 1500,
                }
            );
            assert_eq!((found[1].number, &found[1].bytes[..]), (2, &b"def"[..]));
            assert_eq!(found.len(), 2);
        }
    }
}

#[test]
fn pcapng_with_several_sections_and_interfaces() {
    let (little, big) = (Order(true), Order(false));
    let resolution = |order: Order, unit: u8| {
        [
            order.u16(9).to_vec(),
            order.u16(1).to_vec(),
            vec![unit, 0, 0, 0],
            vec![0; 4],
        ]
        .concat()
    };
    let offset = [
        little.u16(14).to_vec(),
        little.u16(8).to_vec(),
        1_600_000_000_i64.to_le_bytes().to_vec(),
    ]
    .concat();
    let file = [
        little.section(),
        little.interface(1, 0, &resolution(little, 9)),
        little.interface(113, 4, &offset),
        // A block of a kind that nobody knows, and name resolution.
        little.block(0xbad, b"something"),
        little.block(4, &[0; 4]),
        little.enhanced(0, 1_700_000_000_000_000_005, 60, b"ethernet"),
        little.enhanced(1, 3_000_002, 4, b"sll1"),
        big.section(),
        big.interface(276, 3, &resolution(big, 0x80 | 1)),
        big.enhanced(0, 7, 4, b"sll2"),
        // Simple, and cut to the snapshot length; obsolete.
        big.block(3, &[big.words(&[900]), b"cut".to_vec()].concat()),
        big.block(
            2,
            &[
                &big.u16(0)[..],
                &big.u16(9),
                &big.words(&[0, 4, 3, 3]),
                b"old",
            ]
            .concat(),
        ),
    ];
    let found = frames(&file.concat()).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|frame| (frame.link, &frame.bytes[..], frame.len, frame.at))
        .collect();
    assert_eq!(
        found,
        [
            (
                LinkType::Ethernet,
                &b"ethernet"[..],
                60,
                at(1_700_000_000, 5)
            ),
            (LinkType::Cooked1, b"sll1", 4, at(1_600_000_003, 2000)),
            (LinkType::Cooked2, b"sll2", 4, at(3, 500_000_000)),
            (LinkType::Cooked2, b"cut", 900, None),
            (LinkType::Cooked2, b"old", 3, at(2, 0)),
        ]
    );
}

/// A file that ends early is good up to there, wherever it ends.
#[test]
fn a_torn_file_says_where() {
    let order = Order(true);
    let classic = [
        order.head(0xa1b2_c3d4, 1),
        order.words(&[1, 0, 3, 3]),
        b"abc".to_vec(),
        order.words(&[1, 0, 3, 3]),
        b"def".to_vec(),
    ]
    .concat();
    let ng = [
        order.section(),
        order.interface(1, 0, &[]),
        order.enhanced(0, 1, 3, b"abc"),
        order.enhanced(0, 1, 3, b"def"),
    ]
    .concat();
    for (file, whole) in [(&classic, vec![24, 43, 62]), (&ng, vec![28, 48, 84, 120])] {
        assert_eq!(*whole.last().unwrap(), file.len());
        for len in 0..file.len() {
            let torn = &file[..len];
            match frames(torn) {
                Ok(found) => {
                    assert!(whole.contains(&len), "{len} bytes");
                    assert!(found.len() < 2);
                }
                Err(problem) => {
                    assert!(!whole.contains(&len), "{len} bytes: {problem}");
                    let text = problem.to_string();
                    if len == 0 {
                        assert!(text.contains("is empty"), "{text}");
                        continue;
                    }
                    assert!(text.contains("in the middle of"), "{len} bytes: {text}");
                    assert!(text.contains(&format!("at byte {len}\n")), "{text}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused_before_it_costs_anything() {
    let order = Order(true);
    let classic = [
        order.head(0xa1b2_c3d4, 1),
        order.words(&[1, 0, u32::MAX, 3]),
    ]
    .concat();
    assert!(error(&classic).contains("frame 1 has 4294967295 bytes"));
    let open = [order.section(), order.interface(1, 0, &[])].concat();
    let ng = |block: &[u8]| error(&[&open[..], block].concat());
    let block = |kind: u32, len: u32| order.words(&[kind, len]);
    let enhanced = |words: &[u32]| order.block(6, &order.words(words));
    for (file, expected) in [
        (ng(&block(6, 7)), "has 7 bytes"),
        (ng(&block(6, 30)), "has 30 bytes"),
        (ng(&block(6, 12)), "in a block of 0 bytes"),
        (
            ng(&enhanced(&[0, 0, 0, 5, 5])),
            "frame 1 has 5 bytes in a block of 20",
        ),
        (
            ng(&enhanced(&[0, 0, 0, u32::MAX, 5])),
            "frame 1 has 4294967295 bytes",
        ),
        (
            ng(&enhanced(&[1, 0, 0, 0, 0])),
            "interface 1, and there are 1",
        ),
        (
            ng(&block(0xbad, 0xffff_fffc)),
            "in the middle of the block before frame 1",
        ),
        (ng(&order.block(1, &[])), "an interface of 0 bytes"),
        (
            error(&order.block(0x0a0d_0d0a, &[0; 16])),
            "no known byte order",
        ),
        (
            error(&order.block(0x0a0d_0d0a, &order.words(&[0x1a2b_3c4d, 2]))),
            "version 2",
        ),
        (error(b"\x1f\x8b\x08\x00"), "gzip"),
        (
            error(b"%PDF"),
            "this is no capture: it starts with 25 50 44 46",
        ),
        (error(b""), "the file is empty"),
        (
            error(b"\xd4\xc3\xb2\xa1\x02"),
            "in the middle of the file's head, at byte 5",
        ),
    ] {
        assert!(file.contains(expected), "{file}");
    }
    let many = [order.section(), order.interface(1, 0, &[]).repeat(4097)].concat();
    assert!(error(&many).contains("more than 4096 interfaces"));
    // Options and units that make no sense are left out.
    for options in [
        &[9, 0, 1, 0, 0x7f, 0, 0, 0][..],
        &[9, 0, 0xff, 0xff],
        &[1, 2, 3],
    ] {
        let mut padded = options.to_vec();
        padded.resize(padded.len().next_multiple_of(4), 0);
        let file = [
            order.section(),
            order.interface(1, 0, &padded),
            order.enhanced(0, 2_000_000, 1, b"a"),
        ];
        assert_eq!(frames(&file.concat()).unwrap()[0].at, at(2, 0));
    }
}

/// Whatever stands in a file, reading it ends, and takes no more memory than a frame.
#[test]
fn no_file_breaks_the_reader() {
    let order = Order(true);
    let good = [
        order.section(),
        order.interface(1, 0, &[9, 0, 1, 0, 6, 0, 0, 0]),
        order.enhanced(0, 1, 3, b"abc"),
        order.block(3, &[order.words(&[3]), b"abc".to_vec()].concat()),
    ]
    .concat();
    let classic = [
        order.head(0xa1b2_c3d4, 1),
        order.words(&[1, 0, 3, 3]),
        b"abc".to_vec(),
    ]
    .concat();
    for good in [good, classic] {
        for place in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = good.clone();
                file[place] = value;
                if let Ok(frames) = Frames::new(&file[..]) {
                    for frame in frames.flatten() {
                        let _ = frame.packet();
                    }
                }
            }
        }
    }
}

fn frame(link: LinkType, bytes: &[u8], len: u32) -> Frame {
    Frame {
        number: 1,
        at: None,
        link,
        bytes: bytes.to_vec(),
        len,
    }
}

#[test]
fn packets_are_what_the_classifier_reads() {
    let ethernet = frame(LinkType::Ethernet, b"whole", 5);
    assert_eq!(
        ethernet.packet().unwrap(),
        Packet {
            link: Link::Ethernet,
            bytes: Cow::Borrowed(b"whole"),
            missing: 0
        }
    );
    let cut = frame(LinkType::Raw, b"cut", 5);
    let packet = cut.packet().unwrap();
    assert_eq!((packet.link, packet.missing), (Link::Bare, 2));
    assert_eq!(&*packet.bytes, b"cut\0\0");
    assert_eq!(frame(LinkType::Other(9), b"ppp", 3).packet(), None);
    assert_eq!(frame(LinkType::Cooked1, &[0; 15], 15).packet(), None);
    assert_eq!(frame(LinkType::Cooked2, &[0; 19], 19).packet(), None);

    // From tcpdump -i any: outgoing, ARPHRD_ETHER, an address of six bytes, IPv4.
    let mac = [2, 0, 0, 0, 0, 1];
    let cooked1 = |hardware: u8, protocol: [u8; 2]| {
        let head = [0, 4, 0, hardware, 0, 6];
        [&head[..], &mac, &[0, 0], &protocol, b"payload"].concat()
    };
    let cooked2 = |hardware: u8, protocol: [u8; 2]| {
        let head = [
            protocol[0],
            protocol[1],
            0,
            0,
            0,
            0,
            0,
            2,
            0,
            hardware,
            4,
            6,
        ];
        [&head[..], &mac, &[0, 0], b"payload"].concat()
    };
    for (link, head_len, cooked) in [
        (
            LinkType::Cooked1,
            16,
            &cooked1 as &dyn Fn(u8, [u8; 2]) -> Vec<u8>,
        ),
        (LinkType::Cooked2, 20, &cooked2),
    ] {
        let bytes = cooked(1, [8, 0]);
        let frame = frame(link, &bytes, bytes.len() as u32);
        assert_eq!(frame.bytes.len(), head_len + 7);
        let packet = frame.packet().unwrap();
        assert_eq!(packet.link, Link::Ethernet, "{link}");
        let made = [&[0; 6][..], &mac, &[8, 0], b"payload"].concat();
        assert_eq!(*packet.bytes, made[..], "{link}");
        // A tun device has no addresses; a tag is not IP.
        for (hardware, protocol, expected) in [
            (0xfe, [0x86, 0xdd], Link::Bare),
            (0xfe, [0x81, 0], Link::Ethernet),
        ] {
            let bytes = cooked(hardware, protocol);
            let frame = Frame {
                bytes,
                ..frame.clone()
            };
            assert_eq!(frame.packet().unwrap().link, expected, "{link}");
        }
    }
}
