//! A real IPsec peer: strongSwan as phone and as ePDG, a NAT and the agent between
//! them, names from unbound, and neighbours' traffic beside it. Every packet of
//! tshark's captures on both sides of the router is accounted for.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::dns::{self, Dns};
use wificall_tests::lab::{
    DNS, EPDG4, EPDG6, LIMIT, Lab, OTHER4, OTHER6, PHONE4, PHONE6, ROUTER_DNS,
};
use wificall_tests::metrics::Metrics;
use wificall_tests::process::{wait_for, wait_until};
use wificall_tests::send::{self, RawIp};
use wificall_tests::swan::{self, Connection, Swan};
use wificall_tests::tshark::{self, Packet, Tshark};

const EF: &str = "46";
const ESP: u8 = 50;
/// What ends both captures.
const LAST: &[u8] = b"the last packet of this test";

/// Packets and octets by class and direction.
type Account = BTreeMap<(String, String), (u64, u64)>;

#[test]
fn every_packet_of_a_real_tunnel_is_accounted_for() -> Result<()> {
    let lab = Lab::new()?;
    lab.masquerade()?;
    for (namespace, device) in [(&lab.phone, "eth0"), (&lab.far, "eth0")] {
        // One segment a packet, or the two captures would cut the stream differently.
        namespace.ip(&format!("link set {device} gso_max_segs 1"))?;
    }
    // Large packets of the phone leave in fragments.
    lab.phone
        .ip("route change default via 10.77.0.1 mtu 1280")?;
    for inside in ["10.98.0.1/32", "10.98.0.2/32", "10.98.0.3/32"] {
        lab.far.ip(&format!("addr add {inside} dev lo"))?;
    }
    let records: &[dns::Record<'_>] = &[(dns::EPDG, &[EPDG4, EPDG6])];
    let _dns = Dns::start(&lab.far, &[DNS, ROUTER_DNS], 3600, records)?;

    let agent = Agent::run(
        &lab.router,
        &format!(
            r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[discovery]
operators = ["001-01"]
resolvers = ["{ROUTER_DNS}"]
widen = "exact"
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
"#
        ),
    )?;
    wait_for("the ePDG's addresses", LIMIT, || {
        let known = agent.status()?["discovery"]["addresses"].clone();
        ensure!(known == 2, "{known} addresses, not 2");
        Ok(())
    })?;

    let directory = tempfile::TempDir::with_prefix("wificall-capture-")?;
    let near = Tshark::start(&lab.phone, "eth0", directory.path(), "near")?;
    let far = Tshark::start(&lab.far, "eth0", directory.path(), "far")?;
    thread::scope(|scope| {
        let neighbours = scope.spawn(|| neighbours(&lab));
        let tunnels = tunnels(&lab, &agent);
        neighbours
            .join()
            .map_err(|_| anyhow!("the neighbours' thread panicked"))??;
        tunnels
    })?;
    native_esp(&lab)?;
    last_packet(&lab)?;
    let (near, far) = (near.finish(LAST)?, far.finish(LAST)?);
    let metrics = agent.metrics()?;

    let near = read(&near)?;
    let far = read(&far)?;
    let expected = account(&near);
    println!("class      direction  packets   octets");
    for ((class, direction), (packets, octets)) in &expected {
        println!("{class:<10} {direction:<9} {packets:>8} {octets:>8}");
    }
    assert_complete(&expected);
    assert_eq!(
        counted(&metrics),
        expected,
        "the agent (left) against tshark (right)"
    );
    assert_labels(&metrics);
    assert_eq!(account(&far), expected, "far (left), near (right)");
    assert_treated(&near, &far);
    assert_neighbours_untouched(&near, &far);
    agent.finish()
}

/// Two tunnels to the ePDG and one to a company's VPN gateway, which is none: set-up,
/// traffic of a call's size both ways, large packets, a rekey, keepalives, the end.
fn tunnels(lab: &Lab, agent: &Agent<'_>) -> Result<()> {
    const CONNECTIONS: [Connection<'_>; 3] = [
        Connection {
            name: "four",
            local: PHONE4,
            remote: dns::EPDG,
            inside: "10.98.0.1",
        },
        Connection {
            name: "six",
            local: PHONE6,
            remote: dns::EPDG,
            inside: "10.98.0.2",
        },
        Connection {
            name: "office",
            local: PHONE4,
            remote: OTHER4,
            inside: "10.98.0.3",
        },
    ];
    let _epdg = Swan::start(&lab.far, &swan::epdg(), None)?;
    let phone = Swan::start(&lab.phone, &swan::phone(&CONNECTIONS), Some(DNS))?;
    for Connection { name, inside, .. } in CONNECTIONS {
        phone.initiate(name)?;
        lab.phone
            .run("ping", &format!("-q -c100 -i0.004 -s80 -W5 {inside}"))?;
    }
    lab.phone
        .run("ping", "-q -c5 -i0.01 -s1350 -W5 10.98.0.1")?;
    phone.rekey("four")?;
    lab.phone
        .run("ping", "-q -c20 -i0.004 -s80 -W5 10.98.0.1")?;
    // The agent under test only says when to go on; what is right, tshark tells.
    agent.wait_metrics("keepalives", |metrics| {
        let keepalives = metrics.packets(&[("class", "keepalive")]);
        ensure!(keepalives >= 2, "{keepalives} keepalives");
        Ok(())
    })?;
    for Connection { name, .. } in CONNECTIONS {
        phone.terminate(name)?;
    }
    Ok(())
}

/// Traffic that must not be touched, some of it to the ePDG itself.
fn neighbours(lab: &Lab) -> Result<()> {
    const ECHO: [(&str, u16); 4] = [(OTHER4, 8080), (OTHER6, 8080), (EPDG4, 4500), (EPDG6, 443)];
    for (address, port) in ECHO {
        tcp_echo(lab, (address, port)).with_context(|| format!("TCP to {address} {port}"))?;
    }
    const UDP: [(&str, u16); 4] = [(OTHER4, 7), (OTHER6, 7), (EPDG4, 4501), (EPDG6, 5060)];
    for (address, port) in UDP {
        udp_echo(lab, (address, port)).with_context(|| format!("UDP to {address} {port}"))?;
    }
    for address in [EPDG4, OTHER4, EPDG6, OTHER6] {
        // AF41 and ECT(0): both must stay.
        lab.phone
            .run("ping", &format!("-q -c20 -i0.01 -W5 -Q 0x8a {address}"))?;
    }
    Ok(())
}

fn tcp_echo(lab: &Lab, to: (&str, u16)) -> Result<()> {
    const LENGTH: usize = 100_000;
    let to = send::address(to.0, to.1)?;
    let listener = lab.far.enter(|| TcpListener::bind(to))?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = vec![0; LENGTH];
            stream.read_exact(&mut bytes)?;
            stream.write_all(&bytes)?;
            // The client closes first, and this side sees it.
            ensure!(stream.read(&mut bytes)? == 0, "more than was sent");
            Ok(())
        });
        let mut stream = lab.phone.enter(|| TcpStream::connect_timeout(&to, LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let bytes: Vec<u8> = (0..LENGTH).map(|number| number as u8).collect();
        stream.write_all(&bytes)?;
        let mut back = vec![0; LENGTH];
        stream.read_exact(&mut back)?;
        ensure!(bytes == back, "the echo differs");
        drop(stream);
        server.join().map_err(|_| anyhow!("the server panicked"))?
    })
}

fn udp_echo(lab: &Lab, to: (&str, u16)) -> Result<()> {
    let to = send::address(to.0, to.1)?;
    let server = send::udp(&lab.far, &to.to_string())?;
    let client = send::udp(
        &lab.phone,
        if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" },
    )?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let mut buffer = [0; 2048];
    for number in 0..50 {
        // The shape of ESP: only its port says that it is none.
        client.send_to(&send::esp(number, 150), to)?;
        let (length, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..length], from)?;
        client.recv_from(&mut buffer)?;
    }
    Ok(())
}

/// ESP as IP protocol 50, which strongSwan in user space cannot send.
fn native_esp(lab: &Lab) -> Result<()> {
    const COUNT: u32 = 25;
    // Open on all sides, or a kernel would answer that nobody speaks this protocol.
    let phone4 = RawIp::new(&lab.phone, false, ESP)?;
    let phone6 = RawIp::new(&lab.phone, true, ESP)?;
    let _far4 = RawIp::new(&lab.far, false, ESP)?;
    let far6 = RawIp::new(&lab.far, true, ESP)?;
    for number in 0..COUNT {
        phone4.send(&send::esp(number, 120), EPDG4.parse()?)?;
        phone6.send(&send::esp(number, 120), EPDG6.parse()?)?;
        far6.send(&send::esp(number, 120), PHONE6.parse()?)?;
    }
    Ok(())
}

/// A datagram there and back, after everything else.
fn last_packet(lab: &Lab) -> Result<()> {
    let server = send::udp(&lab.far, &format!("{OTHER4}:9"))?;
    let client = send::udp(&lab.phone, "0.0.0.0:0")?;
    client.send_to(LAST, (OTHER4, 9))?;
    server.set_read_timeout(Some(LIMIT))?;
    client.set_read_timeout(Some(LIMIT))?;
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer[..length], from)?;
    wait_until("the last packet", LIMIT, || {
        client.recv_from(&mut buffer).ok()
    })
    .map(drop)
}

/// A packet and what tshark's dissection says of it.
struct Seen {
    packet: Packet,
    up: bool,
    /// None: no traffic of an ePDG.
    class: Option<&'static str>,
    dscp: String,
    header_checksum: String,
}

fn read(file: &Path) -> Result<Vec<Seen>> {
    const FIELDS: [&str; 9] = [
        "frame.protocols",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "ip.dsfield.dscp",
        "ipv6.tclass.dscp",
        "ip.frag_offset",
        "ip.checksum.status",
    ];
    // Leaves out what kernels say to their neighbours (ARP, ND, MLD).
    const FILTER: &str = "(ip || ipv6) && !(icmpv6.type >= 130 && icmpv6.type <= 143)";
    let packets = tshark::packets(file, FILTER, &FIELDS)?;
    let seen = packets.into_iter().map(|packet| {
        let field = |name: &str| {
            let index = FIELDS.iter().position(|field| *field == name);
            index
                .and_then(|index| packet.fields.get(index))
                .map_or("", String::as_str)
        };
        let either = |four: &str, six: &str| format!("{}{}", field(four), field(six));
        let endpoints = [EPDG4, EPDG6].map(str::to_owned);
        let (source, destination) = (either("ip.src", "ipv6.src"), either("ip.dst", "ipv6.dst"));
        let phones = [PHONE4, PHONE6, "198.19.255.1"].map(str::to_owned);
        let of_epdg = endpoints.contains(&source) || endpoints.contains(&destination);
        let fragment = field("ip.frag_offset").parse().unwrap_or(0) > 0;
        let class = of_epdg
            .then(|| class(field("frame.protocols"), fragment))
            .flatten();
        Seen {
            up: phones.contains(&source),
            class,
            dscp: either("ip.dsfield.dscp", "ipv6.tclass.dscp"),
            header_checksum: field("ip.checksum.status").to_owned(),
            packet,
        }
    });
    Ok(seen.collect())
}

/// The class by the names of tshark's dissectors, such as `eth:ethertype:ip:udp:isakmp`.
fn class(protocols: &str, later_fragment: bool) -> Option<&'static str> {
    let has = |name: &str| protocols.split(':').any(|protocol| protocol == name);
    match () {
        () if later_fragment => Some("fragment"),
        () if has("isakmp") => Some("ike"),
        () if has("udpencap") && has("esp") => Some("esp_udp"),
        () if has("udpencap") => Some("keepalive"),
        () if has("esp") => Some("esp"),
        () => None,
    }
}

fn account(seen: &[Seen]) -> Account {
    let mut account = Account::new();
    for Seen {
        packet, up, class, ..
    } in seen
    {
        if let Some(class) = class {
            let direction = if *up { "up" } else { "down" };
            let entry = account
                .entry(((*class).to_owned(), direction.to_owned()))
                .or_default();
            entry.0 += 1;
            // The agent counts IP packets without their link-layer header.
            entry.1 += packet.bytes.len() as u64;
        }
    }
    account
}

/// What the agent counted, in the same form.
fn counted(metrics: &Metrics) -> Account {
    let mut account = Account::new();
    for (name, octets) in [
        ("wificall_packets_total", false),
        ("wificall_bytes_total", true),
    ] {
        for (labels, value) in metrics.select(name, &[]) {
            let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
            let entry = account
                .entry((label("class"), label("direction")))
                .or_default();
            *(if octets { &mut entry.1 } else { &mut entry.0 }) += value as u64;
        }
    }
    account.retain(|_, counts| *counts != (0, 0));
    account
}

/// The test proves nothing about what did not occur.
fn assert_complete(account: &Account) {
    let occurred: Vec<_> = account
        .keys()
        .map(|(class, direction)| format!("{class} {direction}"))
        .collect();
    let all = [
        "esp down",
        "esp up",
        "esp_udp down",
        "esp_udp up",
        "fragment up",
        "ike down",
        "ike up",
        "keepalive up",
    ];
    assert_eq!(occurred, all);
}

fn assert_labels(metrics: &Metrics) {
    let all = metrics.packets(&[]);
    let labelled = metrics.packets(&[("operator", "001-01"), ("country", "none")]);
    assert_eq!(
        labelled, all,
        "every packet belongs to operator 001-01, which has no country"
    );
}

/// Beyond the router, in each direction, every packet of the tunnels is EF and its
/// header is intact.
fn assert_treated(near: &[Seen], far: &[Seen]) {
    for (seen, up) in [(far, true), (near, false)] {
        for seen in seen
            .iter()
            .filter(|seen| seen.up == up && seen.class.is_some())
        {
            assert_eq!(seen.dscp, EF, "up {up}: {:?}", seen.packet.fields);
        }
    }
    for seen in near.iter().chain(far) {
        // 1: good; empty: IPv6 has none.
        assert!(
            matches!(&*seen.header_checksum, "" | "1"),
            "{:?}",
            seen.packet.fields
        );
    }
}

/// The neighbours' packets are the same on both sides, but for what a router and a
/// NAT must change.
fn assert_neighbours_untouched(near: &[Seen], far: &[Seen]) {
    let neighbours = |seen: &[Seen]| {
        let mut packets: Vec<_> = seen
            .iter()
            .filter(|seen| seen.class.is_none())
            .map(|seen| (seen.up, without_what_routers_change(&seen.packet.bytes)))
            .collect();
        packets.sort();
        packets
    };
    let (near, far) = (neighbours(near), neighbours(far));
    println!("{} packets of neighbours", near.len());
    assert!(near.len() > 1_000, "neighbours there were: {}", near.len());
    for (near, far) in near.iter().zip(&far) {
        assert_eq!(
            near, far,
            "a neighbour's packet, near (left) and far (right)"
        );
    }
    assert_eq!(near.len(), far.len());
}

/// An IP packet with zeroes for hop limit, addresses, and checksums (of which those
/// that a sender leaves to its device are not there yet).
fn without_what_routers_change(packet: &[u8]) -> Vec<u8> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMPV6: u8 = 58;
    let mut packet = packet.to_vec();
    let (header, protocol) = if packet[0] >> 4 == 4 {
        packet[8] = 0;
        packet[10..20].fill(0);
        (usize::from(packet[0] & 0x0f) * 4, packet[9])
    } else {
        packet[7..40].fill(0);
        (40, packet[6])
    };
    let checksum = match protocol {
        ICMP | ICMPV6 => Some(2),
        UDP => Some(6),
        TCP => Some(16),
        _ => None,
    };
    if let Some(offset) = checksum {
        packet[header + offset..header + offset + 2].fill(0);
    }
    packet
}
