//! What fuzzing begins with: small captures, frames and histories of flows, and what was found once.

use anyhow::Result;

use crate::conversation::{self, Sent, Way};

const PHONE: &str = "198.18.0.2";
const EPDG: &str = "203.0.113.1";
/// Packets of a capture: the set-up and some ESP.
const PACKETS: usize = 24;

/// Inputs of a target of `fuzz/src/targets.rs`, with a name each.
///
/// # Errors
///
/// If a packet cannot be built.
pub fn seeds(target: &str) -> Result<Vec<(String, Vec<u8>)>> {
    match target {
        "capture" | "analysis" => captures(),
        "ike" => frames(),
        _ => Ok(flows()),
    }
}

fn captures() -> Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for conversation in conversation::all() {
        let mut frames = Vec::new();
        // The beginning, and a part in which something is wrong.
        let all = conversation.packets.len();
        let interesting = conversation.packets[..PACKETS]
            .iter()
            .chain(&conversation.packets[all / 2..all / 2 + PACKETS]);
        for packet in interesting {
            frames.push((packet.at.as_nanos() as u64, packet.frame(PHONE, EPDG)?));
        }
        let name = conversation
            .name
            .replace(|c: char| !c.is_alphanumeric(), "-");
        seeds.push((format!("{name}.pcap"), classic(&frames, 1)));
        seeds.push((format!("{name}.pcapng"), next_generation(&frames, 1)));
    }
    let set_up: Vec<_> = conversation::all()[0].packets[..PACKETS].to_vec();
    for link in [101, 113, 276] {
        let mut frames = Vec::new();
        for packet in &set_up {
            let frame = packet.frame(PHONE, EPDG)?.split_off(14);
            let frame = [cooked(link, packet), frame].concat();
            frames.push((packet.at.as_nanos() as u64, frame));
        }
        seeds.push((format!("link-{link}.pcap"), classic(&frames, link)));
        seeds.push((
            format!("link-{link}.pcapng"),
            next_generation(&frames, link),
        ));
    }
    Ok(seeds)
}

/// The header of a cooked capture (draft-ietf-opsawg-pcaplinktype), of an Ethernet device.
fn cooked(link: u32, packet: &Sent) -> Vec<u8> {
    let kind = match packet.way {
        Way::Up => 0,
        Way::Down => 4,
    };
    match link {
        113 => vec![0, kind, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0],
        276 => vec![
            8, 0, 0, 0, 0, 0, 0, 2, 0, 1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0,
        ],
        _ => Vec::new(),
    }
}

fn classic(frames: &[(u64, Vec<u8>)], link: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, link] {
        file.extend(word.to_le_bytes());
    }
    for (at, frame) in frames {
        let (seconds, nanos) = (1_800_000_000 + at / 1_000_000_000, at % 1_000_000_000);
        let len = frame.len() as u32;
        for word in [seconds as u32, nanos as u32, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// draft-ietf-opsawg-pcapng, of microseconds.
fn next_generation(frames: &[(u64, Vec<u8>)], link: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let len = (12 + padded) as u32;
        file.extend(kind.to_le_bytes());
        file.extend(len.to_le_bytes());
        file.extend(body);
        file.resize(file.len() + padded - body.len(), 0);
        file.extend(len.to_le_bytes());
    };
    let section: Vec<u8> = [0x1a2b_3c4d_u32, 1, u32::MAX, u32::MAX]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    block(0x0a0d_0d0a, &section);
    let interface: Vec<u8> = [link, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    block(1, &interface);
    for (at, frame) in frames {
        let at = 1_800_000_000_000_000 + at / 1_000;
        let len = frame.len() as u32;
        let head = [0, (at >> 32) as u32, at as u32, len, len];
        let mut body: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(frame);
        block(6, &body);
    }
    file
}

fn frames() -> Result<Vec<(String, Vec<u8>)>> {
    let set_up = &conversation::all()[0].packets[..PACKETS];
    let mut seeds = Vec::new();
    for (index, packet) in set_up.iter().enumerate() {
        seeds.push((format!("frame-{index}"), packet.frame(PHONE, EPDG)?));
    }
    for words in [
        "eth / vlan 7 / ip6 2001:db8::1 > 2001:db8:1::1 / udp 40000 > 500 / ike 300",
        "eth / ip6 2001:db8::1 > 2001:db8:1::1 / hop 0 / frag mf=1 / udp 40000 > 500 / ike 300",
        "eth / pppoe / ip4 10.0.0.1 > 192.0.2.1 opts=8 / udp 500 > 500 / ike 300 flags=0x20 next=41 notify=14",
        "ip4 10.0.0.1 > 192.0.2.1 / udp 4500 > 4500 / marker / ike 200 next=53 exchange=35",
        "ip6 2001:db8::1 > 2001:db8:1::1 / esp 100",
    ] {
        let packet: crate::packet::Packet = words.parse()?;
        seeds.push((format!("frame-{}", seeds.len()), packet.bytes()));
    }
    Ok(seeds)
}

/// Steps of eight bytes: what, two of time, four of a number, an identification.
fn flows() -> Vec<(String, Vec<u8>)> {
    // 20 ms: 153 << 17.
    let esp = |way: u8, how: u8, number: u8| [way | how << 4, 17, 153, 0, 0, 50, number, 0];
    let mut talk = Vec::new();
    let mut rekey = Vec::new();
    let mut loss = Vec::new();
    for step in 0..60_u8 {
        for way in [0, 1] {
            talk.extend(esp(way, 0, 0));
            rekey.extend(esp(way | (step / 20) << 1, 0, 0));
            loss.extend(esp(way, step % 3, step % 5));
        }
    }
    let mut aggregates = Vec::new();
    let mut messages = Vec::new();
    for step in 0..40_u8 {
        aggregates.extend([step & 1, 17, 153, 0, 0, step, 0, 0xff]);
        messages.extend([
            0x80 | step & 1,
            19,
            3,
            step & 3,
            step >> 1 & 3,
            step & 1,
            0,
            step & 3,
        ]);
    }
    [
        ("talk", talk),
        ("rekey", rekey),
        ("loss", loss),
        ("aggregates", aggregates),
        ("messages", messages),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}
