//! What is fuzzed, and what must hold of it on any input. Each of `src/bin` gives one to libFuzzer; the integration tests
//! run them all over seeds and their mutations (`tests/tests/fuzz.rs`).

use std::io::Cursor;

use wificall::analysis::{Options, analyze_frames};
use wificall::capture::{FRAME_MAX, Frames};
use wificall_common::abi::{Cell, EndpointRef, Flow, FragmentKey, Members};
use wificall_common::classify::{self, Link, classify};
use wificall_common::endpoint::Table;
use wificall_common::flow::{DROPOUT, Message, Sight, WINDOW};
use wificall_common::wire::nat64::Pref64;
use wificall_common::{Class, Direction};

/// One: panics if what must hold does not.
pub type Target = fn(&[u8]);

/// All, by name.
pub const ALL: [(&str, Target); 4] = [
    ("capture", capture),
    ("analysis", analysis),
    ("ike", ike),
    ("flow", flow),
];

/// Captures are read to their end or to an error, and no frame has more than the file.
pub fn capture(data: &[u8]) {
    let Ok(mut frames) = Frames::new(Cursor::new(data)) else {
        return;
    };
    let mut bytes = 0;
    let mut number = 0;
    for frame in frames.by_ref() {
        number += 1;
        let Ok(frame) = frame else { break };
        assert_eq!(frame.number, number);
        bytes += frame.bytes.len();
        assert!(frame.bytes.len() <= FRAME_MAX as usize);
        assert!(frame.len as usize >= frame.bytes.len());
        if let Some(packet) = frame.packet() {
            assert!(packet.missing <= FRAME_MAX);
            assert!(packet.bytes.len() >= packet.missing as usize);
        }
    }
    assert!(bytes <= data.len());
    assert!(
        frames.next().is_none(),
        "nothing follows an end or an error"
    );
}

/// A file is analyzed, and every frame of it is counted once.
pub fn analysis(data: &[u8]) {
    let open = || Frames::new(Cursor::new(data));
    let Ok(analysis) = analyze_frames(open, &Options::default()) else {
        return;
    };
    let matched = analysis.matched.values();
    let matched: u64 = matched
        .map(|both| both.up.packets + both.down.packets)
        .sum();
    let other: u64 = analysis.other.values().sum();
    assert!(matched + other <= analysis.frames);
    for flow in &analysis.flows {
        for leg in [&flow.client_to_us, &flow.network_to_us] {
            assert!(leg.esp.received <= leg.packets && leg.packets <= matched);
        }
    }
    for tunnel in &analysis.tunnels {
        assert!(tunnel.packets_up + tunnel.packets_down <= matched);
        assert!(tunnel.began <= analysis.last.unwrap_or(0));
    }
    assert!(!analysis.text().is_empty());
    let json = serde_json::to_string(&analysis).expect("it has a JSON form");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
}

/// Everything is an endpoint.
struct Everything;

impl Table for Everything {
    fn block4(&self, _: u32) -> Cell {
        Cell::NONE
    }
    fn members(&self, _: u32) -> Option<&Members> {
        None
    }
    fn block6(&self, _: u64) -> Cell {
        Cell::NONE
    }
    fn host(&self, _: u128) -> Option<&EndpointRef> {
        None
    }
    fn prefix(&self, _: u128) -> Option<&EndpointRef> {
        const ENDPOINT: EndpointRef = EndpointRef {
            group: 1,
            policy: 1,
            slot: 1,
            reserved: 0,
        };
        Some(&ENDPOINT)
    }
    fn pref64(&self, _: usize) -> Option<Pref64> {
        None
    }
}

impl classify::Tables for Everything {
    fn first_fragment(&self, _: &FragmentKey) -> Option<Class> {
        Some(Class::Ike)
    }
}

/// What matches as IKE can be read as IKE, from Ethernet, bare IP and by itself.
pub fn ike(data: &[u8]) {
    for link in [Link::Ethernet, Link::Bare] {
        for direction in Direction::ALL {
            let Ok(found) = classify(data, &Everything, link, direction) else {
                continue;
            };
            if found.class == Class::Ike {
                let at = found.payload;
                let marker = data[at..].starts_with(&[0; 4]);
                let message = Message::read(data, at + if marker { 4 } else { 0 }, marker);
                assert!(message.is_some_and(|it| it.spi_i != [0; 8]));
            }
        }
    }
    for offset in 0..data.len().min(8) {
        let _ = Message::read(data, offset, false);
    }
}

/// Flows take anything in: counts stay what they say they are.
pub fn flow(data: &[u8]) {
    let mut flow = Flow::default();
    let mut now = 1_u64;
    let mut sent = [0_u64; 2];
    let mut spread = [0_u64; 2];
    let mut numbers = [[0_u32; 4]; 2];
    for step in data.chunks_exact(8) {
        let [what, time, t1, n0, n1, n2, n3, id] = *step else {
            return;
        };
        let direction = Direction::ALL[usize::from(what & 1)];
        // From nanoseconds to minutes.
        now += u64::from(t1) << (time % 30);
        let spi = usize::from(what >> 1 & 3);
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        if what & 0x80 != 0 {
            let message = Message {
                spi_i: [1 + (id & 1); 8],
                spi_r: [id >> 1 & 1; 8],
                exchange: 34 + (n0 & 3),
                id: u32::from(n1 & 3),
                response: n2 & 1 != 0,
                continues: n2 & 14 == 14,
                natt: n2 & 16 != 0,
                notify: if n2 & 32 != 0 { 14 } else { 0 },
            };
            let _ = flow.message(direction, &message, now);
            continue;
        }
        // Mostly the next, or one near it.
        let last = &mut numbers[direction as usize][spi];
        *last = match what >> 4 & 3 {
            0 => last.wrapping_add(1),
            1 => last.wrapping_add(u32::from(n3 & 7)),
            2 => last.wrapping_sub(u32::from(n3)),
            _ => number,
        };
        let segments = if id == 0xff {
            2 + u32::from(n2 & 63)
        } else {
            1
        };
        let sight = Sight {
            now,
            bytes: u64::from(n2) + 90,
            segments,
            class: if id == 0xfe {
                Class::Keepalive
            } else {
                Class::EspUdp
            },
            esp: [1 + spi as u32, *last],
        };
        if sight.class == Class::EspUdp {
            sent[direction as usize] += u64::from(segments);
            *last = last.wrapping_add(segments - 1);
            // Of each packet, no more can be lost before it than is believed.
            spread[direction as usize] += u64::from(DROPOUT + 2 * WINDOW);
        }
        let _ = flow.see(direction, &sight);
    }
    for (way, (sent, spread)) in [&flow.up, &flow.down]
        .into_iter()
        .zip(sent.iter().zip(spread))
    {
        assert_eq!(u64::from(way.esp), *sent);
        let told = u64::from(way.late) + u64::from(way.duplicate) + u64::from(way.stray);
        assert!(told <= *sent, "{way:?}");
        assert!(u64::from(way.talk) + u64::from(way.pause) <= u64::from(way.voice));
        let missing: u64 = way.spis.iter().map(|slot| u64::from(slot.missing())).sum();
        assert!(u64::from(way.lost) + missing <= spread, "{way:?}");
        for slot in way.spis.iter().filter(|slot| slot.spi != 0) {
            assert_eq!(slot.window & 1, 1, "the highest came: {slot:?}");
        }
        assert!(way.spis[0].spi == 0 || way.spis[0].spi != way.spis[1].spi);
    }
}
