//! Who goes where, each by one packet of each kind.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{
    Arrival, Bypass, COUNTRIES, DE, DIRECT, FAST, NAMES, OTHER, PHONES, ROUTER, Watch, by_place,
    configuration, settle,
};
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EF, LIMIT};
use wificall_tests::netns::Netns;
use wificall_tests::process::wait_until;
use wificall_tests::send::{self, IKE, KEEPALIVE, NATT, RawFrames, RawIp};
use wificall_tests::view::View;

use crate::call::FAMILIES;

const ESP: u8 = 50;
const UDP: u8 = 17;
/// What a phone sends of its tunnel: to which port (0: native ESP) and what.
const KINDS: [&str; 5] = [
    "IKE on 500",
    "IKE on 4500",
    "ESP in UDP",
    "keepalive",
    "native ESP",
];

fn packet(kind: usize) -> (u16, Vec<u8>) {
    match kind {
        0 => (IKE, send::ike_sa_init(300)),
        1 => (NATT, send::ike_behind_marker(300)),
        2 => (NATT, send::esp(1, 160)),
        3 => (NATT, KEEPALIVE.to_vec()),
        _ => (0, send::esp(1, 160)),
    }
}

/// Gives back what comes to an address of the Internet, as often as `count`, on a thread.
fn echo(
    scene: &Bypass,
    to: &str,
    port: u16,
    count: usize,
) -> Result<thread::JoinHandle<Result<()>>> {
    let to = send::address(to, port)?;
    let socket = scene
        .internet
        .enter(|| UdpSocket::bind(to))
        .with_context(|| format!("bind {to}"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(thread::spawn(move || {
        let mut buffer = [0; 8192];
        for number in 0..count {
            let heard = socket.recv_from(&mut buffer);
            let (length, from) = heard.with_context(|| format!("packet {number} to {to}"))?;
            socket.send_to(&buffer[..length], from)?;
        }
        Ok(())
    }))
}

fn join(thread: thread::JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Sends from a phone and waits for the same to come back.
fn there_and_back(socket: &UdpSocket, bytes: &[u8], to: (IpAddr, u16)) -> Result<()> {
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send_to(bytes, to)?;
    let mut buffer = [0; 8192];
    let heard = socket.recv_from(&mut buffer);
    let (length, from) = heard.with_context(|| format!("the answer of {to:?}"))?;
    ensure!(buffer[..length] == *bytes && (from.ip(), from.port()) == to);
    Ok(())
}

fn any(ip: IpAddr) -> (&'static str, u16) {
    (if ip.is_ipv4() { "0.0.0.0" } else { "::" }, 0)
}

#[test]
fn tunnels_leave_by_their_countrys_first_gateway_and_only_there() -> Result<()> {
    let scene = Bypass::new()?;
    let agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    scene.count_marks()?;
    let watch = Watch::start(&scene)?;
    // Or the Internet would say that nobody there speaks ESP.
    let _ears = [
        RawIp::new(&scene.internet, false, ESP)?,
        RawIp::new(&scene.internet, true, ESP)?,
    ];
    let mut echoes = Vec::new();
    for epdg in COUNTRIES.iter().flat_map(|country| country.epdg) {
        echoes.push(echo(&scene, epdg, IKE, PHONES.len())?);
        echoes.push(echo(&scene, epdg, NATT, 3 * PHONES.len())?);
    }
    let mut sent = 0;
    for (phone, own) in scene.phones.iter().zip(PHONES) {
        for epdg in COUNTRIES.iter().flat_map(|country| country.epdg) {
            let to: IpAddr = epdg.parse()?;
            let from: IpAddr = own[usize::from(to.is_ipv6())].parse()?;
            for (kind, name) in KINDS.iter().enumerate() {
                let (port, bytes) = packet(kind);
                if port == 0 {
                    RawIp::new(phone, to.is_ipv6(), ESP)?.send(&bytes, to)?;
                } else {
                    let socket = phone.enter(|| UdpSocket::bind((from, 0)))?;
                    there_and_back(&socket, &bytes, (to, port)).context(*name)?;
                }
                sent += 1;
            }
        }
    }
    settle(&watch, sent)?;
    echoes.into_iter().try_for_each(join)?;
    ensure!(
        scene.marks()? == sent,
        "{} of {sent} marked",
        scene.marks()?
    );
    let arrivals = watch.finish()?;
    println!("| | | {} |", NAMES.join(" | "));
    for (index, country) in COUNTRIES.iter().enumerate() {
        for (family, epdg) in FAMILIES.iter().zip(country.epdg) {
            let to: IpAddr = epdg.parse()?;
            for (kind, name) in KINDS.iter().enumerate() {
                let (port, bytes) = packet(kind);
                let is_kind = |it: &&Arrival| match it.ports {
                    None => port == 0 && it.protocol == ESP,
                    Some((_, to)) if to != NATT || port != NATT => to == port,
                    // Of those on port 4500, ESP alone has a number.
                    Some(_) => it.number.is_some() == (kind == 2) && it.length == bytes.len(),
                };
                let all = arrivals.iter().filter(|it| it.to == to);
                let of_kind: Vec<_> = all.filter(is_kind).copied().collect();
                let counts = by_place(&of_kind);
                let text = counts.map(|count| count.to_string()).join(" | ");
                println!("| {} {family} | {name} | {text} |", country.name);
                let mut expected = [0; NAMES.len()];
                expected[2 * index] = PHONES.len() as u64;
                ensure!(
                    counts == expected,
                    "{} {family} {name}: {counts:?}",
                    country.name
                );
                ensure!(of_kind.iter().all(|it| it.dscp == EF), "{of_kind:?}");
            }
        }
    }
    ensure!(arrivals.len() as u64 == sent);
    agent.finish()
}

#[test]
fn fragments_follow_their_first() -> Result<()> {
    const LENGTH: usize = 4_000;
    // 4,000 and a UDP header, in pieces of at most 1,480 (IPv6: 1,448) octets.
    const PIECES: u64 = 3;
    /// Next header of a fragment (RFC 8200 §4.5).
    const FRAGMENT: u8 = 44;
    let scene = Bypass::new()?;
    let agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    scene.count_marks()?;
    for gateway in &scene.gateways {
        // Who translates puts pieces together and cuts them again, in the very memory that the capture has not read yet.
        gateway.run("nft", "flush ruleset")?;
    }
    for (index, country) in COUNTRIES.iter().enumerate() {
        for epdg in country.epdg {
            for round in 1..=2 {
                let watch = Watch::start(&scene)?;
                let before = scene.marks()?;
                let back = echo(&scene, epdg, NATT, 1)?;
                let to: IpAddr = epdg.parse()?;
                let socket = scene.phones[0].enter(|| UdpSocket::bind(any(to)))?;
                there_and_back(&socket, &send::esp(round, LENGTH), (to, NATT))?;
                settle(&watch, PIECES).with_context(|| epdg)?;
                join(back)?;
                let pieces = watch.finish()?;
                let mut expected = [0; NAMES.len()];
                expected[2 * index] = PIECES;
                ensure!(by_place(&pieces) == expected, "{epdg}: {pieces:?}");
                ensure!(
                    scene.marks()? - before == PIECES,
                    "{epdg}: not all are marked"
                );
                let in_pieces = pieces
                    .iter()
                    .all(|it| it.protocol == FRAGMENT || it.ports.is_none() || it.number.is_some());
                ensure!(in_pieces, "{epdg}: {pieces:?}");
            }
        }
    }
    agent.finish()
}

/// An Ethernet frame with an ESP packet in UDP in it.
fn frame(ethernet: [&str; 2], from: &str, to: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for address in [ethernet[1], ethernet[0]] {
        for octet in address.split(':') {
            bytes.push(u8::from_str_radix(octet, 16)?);
        }
    }
    let payload = send::esp(1, 100);
    let length = u16::try_from(payload.len() + 8)?;
    match (from.parse()?, to.parse()?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let words = header
                .chunks(2)
                .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
            let sum: u32 = words.sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([8, 0]);
            bytes.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([UDP, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => return Err(anyhow!("{from} and {to} are of two families")),
    }
    bytes.extend(NATT.to_be_bytes());
    bytes.extend(NATT.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    // No checksum, which nobody on the way looks at.
    bytes.extend([0, 0]);
    bytes.extend(payload);
    Ok(bytes)
}

/// TCP from a phone, there and back.
fn tcp(scene: &Bypass, phone: &Netns, to: (IpAddr, u16)) -> Result<()> {
    let listener = scene.internet.enter(|| TcpListener::bind(to))?;
    let server = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
        Ok(())
    });
    let mut stream = phone.enter(|| TcpStream::connect_timeout(&to.into(), LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"hello")?;
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes)?;
    ensure!(bytes == *b"hello");
    drop(stream);
    join(server)
}

#[test]
fn everything_else_is_as_ever() -> Result<()> {
    let scene = Bypass::new()?;
    let agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    scene.count_marks()?;
    let [phone, other] = &scene.phones;

    // Other ports and protocols of the ePDGs, and IPsec to who is none.
    let watch = Watch::start(&scene)?;
    let endpoints = COUNTRIES.iter().flat_map(|country| country.epdg);
    let targets = endpoints.flat_map(|epdg| [(epdg, 53), (epdg, 4501)]);
    let others = OTHER
        .iter()
        .flat_map(|other| [(*other, NATT), (*other, IKE)]);
    for (to, port) in targets.chain(others) {
        let back = echo(&scene, to, port, 1)?;
        let to: IpAddr = to.parse()?;
        let socket = phone.enter(|| UdpSocket::bind(any(to)))?;
        there_and_back(&socket, &send::esp(1, 160), (to, port))?;
        join(back)?;
    }
    for to in DE.epdg {
        for port in [443, NATT] {
            tcp(&scene, phone, (to.parse()?, port))?;
        }
        phone.run("ping", &format!("-q -c3 -i0.01 -W5 {to}"))?;
    }
    thread::sleep(Duration::from_millis(50));
    let arrivals = watch.finish()?;
    let counts = by_place(&arrivals);
    println!(
        "other traffic of a phone: {counts:?}, {} marked",
        scene.marks()?
    );
    ensure!(
        counts[DIRECT] > 40 && counts[..DIRECT] == [0; DIRECT],
        "{counts:?}"
    );
    ensure!(
        arrivals.iter().all(|it| it.dscp == 0),
        "its DSCP is another"
    );

    // From phone to router, and from phone to phone by the router's addresses.
    for (own, router) in PHONES[1].iter().zip(ROUTER) {
        phone.ip(&format!("route add {own} via {router}"))?;
    }
    let seen = Capture::start(&scene.router, "lan", |frame| {
        let view = View::of(frame)?;
        let is_it = view.ports?.1 == NATT && view.payload == send::esp(7, 160);
        is_it.then_some((frame.outgoing, view.dscp()))
    })?;
    for (host, addresses) in [(&scene.router, ROUTER), (other, PHONES[1])] {
        for to in addresses {
            let ear = send::udp(host, &send::address(to, NATT)?.to_string())?;
            ear.set_read_timeout(Some(LIMIT))?;
            let to: IpAddr = to.parse()?;
            let mouth = phone.enter(|| UdpSocket::bind(any(to)))?;
            mouth.send_to(&send::esp(7, 160), (to, NATT))?;
            ear.recv_from(&mut [0; 200])
                .with_context(|| format!("{to} hears nothing"))?;
        }
    }
    // Four come in, and those to the other phone go out again.
    wait_until("six frames", LIMIT, || (seen.kept() == 6).then_some(()))?;
    ensure!(seen.finish()?.iter().all(|(_, dscp)| *dscp == 0));
    ensure!(scene.marks()? == 0);

    // What gateways send themselves to an ePDG, and forward for others, with the router as their next hop.
    for (place, gateway) in scene.gateways.iter().enumerate() {
        let country = &COUNTRIES[place / 2];
        let own = country.gateways[place % 2];
        let ethernet = [gateway.mac("eth0")?, scene.router.mac("lan")?];
        let ethernet = [&*ethernet[0], &*ethernet[1]];
        let out = RawFrames::new(gateway, "eth0")?;
        let watch = Watch::of(&scene, |it| it.ports.is_some_and(|(_, to)| to == NATT))?;
        let mut sent = 0;
        for (family, foreign) in ["10.88.0.5", "fd88::5"].iter().enumerate() {
            for from in [own[family], foreign] {
                for country in &COUNTRIES {
                    out.send(&frame(ethernet, from, country.epdg[family])?)?;
                    sent += 1;
                }
            }
        }
        settle(&watch, sent)?;
        let arrivals = watch.finish()?;
        let counts = by_place(&arrivals);
        println!(
            "{}'s own: {counts:?}, {} marked",
            NAMES[place],
            scene.marks()?
        );
        ensure!(counts[DIRECT] == sent, "{}: {arrivals:?}", NAMES[place]);
        ensure!(arrivals.iter().all(|it| it.dscp == 0), "{arrivals:?}");
        ensure!(scene.marks()? == 0);
    }
    // The same frames of a phone go to the gateways: it is the sender that counts.
    let ethernet = [phone.mac("eth0")?, scene.router.mac("lan")?];
    let ethernet = [&*ethernet[0], &*ethernet[1]];
    let out = RawFrames::new(phone, "eth0")?;
    for (from, epdg) in PHONES[0].iter().zip(DE.epdg) {
        let watch = Watch::start(&scene)?;
        out.send(&frame(ethernet, from, epdg)?)?;
        settle(&watch, 1)?;
        ensure!(by_place(&watch.finish()?)[0] == 1);
    }
    ensure!(scene.marks()? == 2);
    agent.finish()
}
