//! A real IPsec peer: strongSwan as phone and as ePDG, a NAT and the agent between
//! them, names from unbound, and neighbours' traffic beside it. Every packet of
//! tshark's captures on both sides of the router is accounted for.

mod traffic;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::dns::{self, Dns};
use wificall_tests::lab::{DNS, EPDG4, EPDG6, LIMIT, Lab, PHONE4, PHONE6, ROUTER_DNS};
use wificall_tests::metrics::Metrics;
use wificall_tests::process::wait_for;
use wificall_tests::tshark::{self, Packet, Tshark};

const EF: &str = "46";

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
    let (near, far, before) = capture(&lab, &agent, directory.path())?;
    thread::scope(|scope| {
        let neighbours = scope.spawn(|| traffic::neighbours(&lab));
        let tunnels = traffic::tunnels(&lab, &agent);
        neighbours
            .join()
            .map_err(|_| anyhow!("the neighbours' thread panicked"))??;
        tunnels
    })?;
    traffic::native_esp(&lab)?;
    traffic::last_packet(&lab)?;
    let (near, far) = (near.finish(traffic::LAST)?, far.finish(traffic::LAST)?);
    let metrics = agent.metrics()?;

    assert_every_frame_has_its_exit(&lab, &near, &before, &metrics)?;
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

/// Starts both captures and takes the counters before them, nothing having passed in
/// between.
fn capture(lab: &Lab, agent: &Agent<'_>, directory: &Path) -> Result<(Tshark, Tshark, Metrics)> {
    wait_for("a quiet moment", LIMIT, || {
        let before = agent.metrics()?;
        let near = Tshark::start(&lab.phone, "eth0", directory, "near")?;
        let far = Tshark::start(&lab.far, "eth0", directory, "far")?;
        let frames = |metrics: &Metrics| metrics.sum("wificall_exits_total", &[]);
        ensure!(frames(&agent.metrics()?) == frames(&before), "frames pass");
        Ok((near, far, before))
    })
}

/// Each frame to and from the phone, of whatever kind, took one way out of one hook.
fn assert_every_frame_has_its_exit(
    lab: &Lab,
    near: &Path,
    before: &Metrics,
    after: &Metrics,
) -> Result<()> {
    let phone = lab.phone.mac("eth0")?;
    for (hook, is) in [("tc_ingress", "=="), ("tc_egress", "!=")] {
        let frames = tshark::packets(near, &format!("eth.src {is} {phone}"), &["frame.number"])?;
        let frames = u64::try_from(frames.len())?;
        let exits = |metrics: &Metrics| metrics.sum("wificall_exits_total", &[("hook", hook)]);
        println!("{frames} frames at {hook}");
        assert_eq!(
            exits(after) - exits(before),
            frames,
            "exits (left), frames at {hook} (right)"
        );
    }
    Ok(())
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
