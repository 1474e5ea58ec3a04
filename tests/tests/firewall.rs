//! Other IPsec, clients' own DSCPs and caps, on the wire: what gets through to the far side is the proof.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::{Agent, INSTANCE};
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EF, EPDG4, LIMIT, Lab, OTHER4, OTHER6, PHONE4, PHONE6, Watch};
use wificall_tests::netns::Netns;
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, IKE, NATT, RawIp};
use wificall_tests::view::View;

const UDP: u8 = 17;
const ESP: u8 = 50;
/// An address in the network between router and far side, which is the router's own network.
const NEIGHBOUR: &str = "198.19.255.2";
const ROUTER: &str = "10.77.0.1";
/// Told of to a client, confirmed by nobody.
const OBSERVED: &str = "198.18.7.7";
/// A port that is not IPsec's.
const SIP: u16 = 5060;

/// Endpoints `198.18.0.0/24`, `198.18.1.0/24`, …, so many of them.
fn configuration(interfaces: &str, endpoints: usize, more: &str) -> String {
    let prefixes: String = (0..endpoints)
        .map(|n| format!("[[prefix]]\nprefix = \"198.18.{n}.0/24\"\noperator = \"001-01\"\n"))
        .collect();
    format!(
        "[interfaces]\naccess = [\"lan\"]\n{interfaces}\n[lab]\nadmit = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n{prefixes}\
         {more}"
    )
}

/// What of the phone's arrived on the far side, how often: where to, protocol, port, whether marked.
type Arrived = BTreeMap<(IpAddr, u8, u16, bool), usize>;

/// A phone that sends one of each, and what arrives of it.
struct Phone<'a> {
    lab: &'a Lab,
    esp: [RawIp; 2],
}

impl<'a> Phone<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let esp = [
            RawIp::new(&lab.phone, false, ESP)?,
            RawIp::new(&lab.phone, true, ESP)?,
        ];
        Ok(Self { lab, esp })
    }

    /// Sends IKE, ESP in UDP and native ESP to each address, then something that always arrives.
    fn send_to(&self, addresses: &[&str]) -> Result<Arrived> {
        let ended = Arc::new(AtomicBool::new(false));
        let wan = capture(&self.lab.far, "eth0", false, &ended)?;
        let exit = capture(&self.lab.far, "exit0", true, &ended)?;
        for to in addresses {
            let v6 = to.contains(':');
            let from = if v6 { PHONE6 } else { PHONE4 };
            let socket = self.lab.phone.enter(|| UdpSocket::bind((from, 0)))?;
            socket.send_to(&send::ike_sa_init(300), (*to, IKE))?;
            socket.send_to(&send::ike_behind_marker(300), (*to, NATT))?;
            socket.send_to(&send::esp(1, 100), (*to, NATT))?;
            self.esp[usize::from(v6)].send(&send::esp(1, 100), to.parse()?)?;
        }
        let socket = self.lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
        socket.send_to(b"last", (OTHER4, SIP))?;
        let last = (OTHER4.parse()?, UDP, SIP, false);
        wait_for("the last packet", LIMIT, || {
            ensure!(ended.load(Ordering::Acquire), "it has not arrived");
            Ok(())
        })?;
        // What was sent before it is in the captures by now, or never comes.
        std::thread::sleep(Duration::from_millis(200));
        let mut arrived = Arrived::new();
        for key in wan.finish()?.into_iter().chain(exit.finish()?) {
            *arrived.entry(key).or_default() += 1;
        }
        ensure!(arrived.remove(&last) == Some(1), "{arrived:?}");
        Ok(arrived)
    }
}

fn capture(
    far: &Netns,
    device: &str,
    marked: bool,
    ended: &Arc<AtomicBool>,
) -> Result<Capture<(IpAddr, u8, u16, bool)>> {
    let ended = Arc::clone(ended);
    let phones: [IpAddr; 2] = [PHONE4.parse()?, PHONE6.parse()?];
    Capture::start(far, device, move |frame| {
        let view = View::of(frame)?;
        let port = view.ports.map_or(0, |(_, port)| port);
        let ours = phones.contains(&view.source) && !frame.outgoing;
        let kind =
            view.protocol == ESP || (view.protocol == UDP && [IKE, NATT, SIP].contains(&port));
        if ours && port == SIP {
            ended.store(true, Ordering::Release);
        }
        (ours && kind).then_some((view.destination, view.protocol, port, marked))
    })
}

/// All that was sent to these addresses.
fn all_to(addresses: &[&str], marked: bool) -> Arrived {
    let of = |to: &&str| {
        let to: IpAddr = to.parse().expect("an address");
        [
            ((to, UDP, IKE, marked), 1),
            ((to, UDP, NATT, marked), 2),
            ((to, ESP, 0, marked), 1),
        ]
    };
    addresses.iter().flat_map(of).collect()
}

fn frames(agent: &Agent<'_>, exit: &str) -> Result<u64> {
    Ok(agent
        .metrics()?
        .sum("wificall_exits_total", &[("exit", exit)]))
}

fn armed(agent: &Agent<'_>) -> Result<u64> {
    Ok(agent.metrics()?.sum("wificall_other_ipsec_armed", &[]))
}

fn reload(agent: &Agent<'_>, text: &str) -> Result<()> {
    agent.configure(text)?;
    agent.ask(&["reload"])?;
    Ok(())
}

/// Each action with TCX, with clsact and behind XDP. To endpoints all passes, to peers and local networks likewise.
#[test]
fn other_ipsec_is_marked_audited_or_dropped() -> Result<()> {
    let lab = Lab::new()?;
    let phone = Phone::new(&lab)?;
    let passes = [EPDG4, NEIGHBOUR, "203.0.113.77", "2001:db8:113::77"];
    lab.far
        .address("lo", &["203.0.113.77/32", "2001:db8:113::77/128"])?;
    let others = [OTHER4, OTHER6];
    let everywhere = [&passes[..], &others[..]].concat();
    let peers = "peers = [\"203.0.113.77\", \"2001:db8:113::77/128\"]\n";
    for interfaces in [
        "tc = \"auto\"",
        "tc = \"clsact\"",
        "xdp = [\"lan\"]\nxdp_mode = \"generic\"",
    ] {
        let text = |action: &str| {
            configuration(interfaces, 3, &format!("[other_ipsec]\n{action}\n{peers}"))
        };
        let mut agent = Agent::run(&lab.router, &text("action = \"pass\""))?;
        let untouched = all_to(&everywhere, false);
        ensure!(
            phone.send_to(&everywhere)? == untouched,
            "pass: {interfaces}"
        );

        // Sent to the ends of the lab, as the mark leads.
        reload(&agent, &text("action = \"mark\"\nmark = \"0x65/0xff\""))?;
        let mut marked = all_to(&passes, false);
        marked.extend(all_to(&others, true));
        let arrived = phone.send_to(&everywhere)?;
        ensure!(arrived == marked, "mark: {interfaces}: {arrived:?}");
        assert_eq!(frames(&agent, "other_marked")?, 8);

        reload(&agent, &text("action = \"audit\""))?;
        let arrived = phone.send_to(&everywhere)?;
        ensure!(arrived == untouched, "audit: {interfaces}: {arrived:?}");
        assert_eq!(frames(&agent, "other_audited")?, 8);
        assert_eq!(armed(&agent)?, 0);

        reload(&agent, &text("action = \"drop\"\narm_at = 3"))?;
        assert_eq!(armed(&agent)?, 1);
        let arrived = phone.send_to(&everywhere)?;
        let expected = all_to(&passes, false);
        ensure!(arrived == expected, "drop: {interfaces}: {arrived:?}");
        assert_eq!(frames(&agent, "other_dropped")?, 8);
        // To the box itself, which nobody looks at.
        phone.send_to(&[ROUTER])?;
        assert_eq!(frames(&agent, "other_dropped")?, 8);

        // Where it went, and nothing of who sent it.
        let status = agent.status()?;
        let listed = status["other_ipsec"]["destinations"].to_string();
        for other in others {
            ensure!(listed.contains(other), "{listed}");
        }
        for hidden in [PHONE4, PHONE6, "203.0.113.77", NEIGHBOUR, ROUTER, EPDG4] {
            ensure!(!listed.contains(hidden), "{listed}");
        }
        let packets: u64 = status["other_ipsec"]["destinations"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|row| row["packets"].as_u64())
            .sum();
        assert_eq!(packets, 24);
        ensure!(agent.ask(&["status"])?.contains("drop, armed"));

        // The kernel goes on without an agent, and detach ends it.
        agent.stop()?;
        let arrived = phone.send_to(&everywhere)?;
        ensure!(
            arrived == expected,
            "without an agent: {interfaces}: {arrived:?}"
        );
        agent.ask(&["detach"])?;
        // The kernel takes a link whose pin is gone away when it finds the time.
        wait_for("the end of the programs", LIMIT, || {
            let arrived = phone.send_to(&everywhere)?;
            ensure!(arrived == untouched, "{interfaces}: {arrived:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Too few endpoints, or endpoints that found no room: nothing is dropped, and it is said.
#[test]
fn drop_is_armed_by_the_number_of_endpoints() -> Result<()> {
    let lab = Lab::new()?;
    let phone = Phone::new(&lab)?;
    let text = |endpoints, more: &str| {
        let drop = format!("[other_ipsec]\naction = \"drop\"\narm_at = 10\n{more}");
        configuration("", endpoints, &drop)
    };
    let agent = Agent::run(&lab.router, &text(9, ""))?;
    for (endpoints, drops) in [
        (9, false),
        (10, true),
        (8, true),
        (7, false),
        (9, false),
        (20, true),
        (1, false),
    ] {
        reload(&agent, &text(endpoints, ""))?;
        assert_eq!(armed(&agent)?, u64::from(drops), "{endpoints}");
        let before = frames(
            &agent,
            if drops {
                "other_dropped"
            } else {
                "other_audited"
            },
        )?;
        let expected = if drops { Vec::new() } else { vec![OTHER4] };
        let arrived = phone.send_to(&[OTHER4])?;
        ensure!(
            arrived == all_to(&expected, false),
            "{endpoints}: {arrived:?}"
        );
        let after = frames(
            &agent,
            if drops {
                "other_dropped"
            } else {
                "other_audited"
            },
        )?;
        assert_eq!(after - before, 4, "{endpoints}");
        // Endpoints are served meanwhile.
        assert_eq!(lab.probe(PHONE4, EPDG4)?.dscp, EF);
        let problems = agent.status()?["problems"].to_string();
        ensure!(
            problems.contains("other IPsec is not dropped") != drops,
            "{problems}"
        );
    }
    let log = agent.log();
    assert_eq!(
        log.matches("armed: other IPsec is dropped").count(),
        2,
        "{log}"
    );
    assert_eq!(
        log.matches("not armed: other IPsec passes").count(),
        3,
        "{log}"
    );

    // Twenty endpoints are wanted, and twelve have room.
    reload(&agent, &text(20, "[limits]\nblocks = 12\n"))?;
    assert_eq!(armed(&agent)?, 0);
    ensure!(phone.send_to(&[OTHER4])? == all_to(&[OTHER4], false));
    let problems = agent.status()?["problems"].to_string();
    ensure!(
        problems.contains("8 endpoints or spared networks"),
        "{problems}"
    );
    reload(&agent, &text(12, "[limits]\nblocks = 12\n"))?;
    assert_eq!(armed(&agent)?, 1);
    agent.finish()
}

/// The network of an interface that comes later is spared as soon as it is there.
#[test]
fn a_network_that_comes_is_spared() -> Result<()> {
    let lab = Lab::new()?;
    let phone = Phone::new(&lab)?;
    let drop = "[other_ipsec]\naction = \"drop\"\narm_at = 1\n";
    let agent = Agent::run(&lab.router, &configuration("", 1, drop))?;
    ensure!(phone.send_to(&[OTHER4])?.is_empty());
    lab.router
        .ip("address add 203.0.113.1/24 dev wan noprefixroute")?;
    wait_for("its new network to be spared", LIMIT, || {
        let arrived = phone.send_to(&[OTHER4])?;
        ensure!(arrived == all_to(&[OTHER4], false), "{arrived:?}");
        Ok(())
    })?;
    agent.finish()
}

/// What only a client was told of gets its DSCP, and does not pass a firewall.
#[test]
fn observed_endpoints_do_not_pass() -> Result<()> {
    let lab = Lab::new()?;
    let phone = Phone::new(&lab)?;
    lab.far.address("lo", &["198.18.7.7/32"])?;
    for interfaces in ["", "xdp = [\"lan\"]\nxdp_mode = \"generic\""] {
        let text =
            |action: &str| configuration(interfaces, 2, &format!("[other_ipsec]\n{action}\n"));
        let mut agent = Agent::new(&lab.router, &text("action = \"audit\""))?;
        told(&agent, OBSERVED)?;
        agent.start()?;
        assert_eq!(lab.probe(PHONE4, OBSERVED)?.dscp, EF);
        assert_eq!(frames(&agent, "other_audited")?, 1);
        reload(&agent, &text("action = \"mark\"\nmark = \"0x65/0xff\""))?;
        let arrival = lab.probe(PHONE4, OBSERVED)?;
        assert_eq!((arrival.dscp, arrival.marked), (EF, true));
        reload(&agent, &text("action = \"drop\"\narm_at = 2"))?;
        assert_eq!(armed(&agent)?, 1);
        let arrived = phone.send_to(&[OBSERVED, EPDG4])?;
        ensure!(
            arrived == all_to(&[EPDG4], false),
            "{interfaces}: {arrived:?}"
        );
        assert_eq!(frames(&agent, "other_dropped")?, 4);
        agent.finish()?;
    }
    Ok(())
}

/// Gives an agent that does not run yet a state in which a client was told of an ePDG at `address`.
fn told(agent: &Agent<'_>, address: &str) -> Result<()> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() - 5;
    let state = serde_json::json!({
        "format": "wificall addresses", "version": 2,
        "names": {}, "addresses": {}, "seen": {}, "nat64": {},
        "observed": { address: {
            "first_seen": at, "last_seen": at, "last_traffic": null, "client": PHONE4,
            "names": { "epdg.epc.mnc002.mcc001.pub.3gppnetwork.org": at }, "ike": null
        } },
    });
    let path = agent.config_path().with_file_name("state").join(INSTANCE);
    fs::create_dir_all(&path)?;
    fs::write(path.join("state.json"), state.to_string())?;
    Ok(())
}

/// What the box sends itself, and what comes in elsewhere, is none of our business.
#[test]
fn nothing_is_looked_at_where_nothing_is_attached() -> Result<()> {
    let lab = Lab::new()?;
    let drop = "[other_ipsec]\naction = \"drop\"\narm_at = 1\n[trust]\nbleach = true\n";
    let agent = Agent::run(&lab.router, &configuration("", 1, drop))?;
    assert_eq!(armed(&agent)?, 1);
    // The router's own VPN.
    let far = lab.far.enter(|| UdpSocket::bind((OTHER4, IKE)))?;
    far.set_read_timeout(Some(LIMIT))?;
    let own = lab
        .router
        .enter(|| UdpSocket::bind(("198.19.255.1", IKE)))?;
    own.set_read_timeout(Some(LIMIT))?;
    own.send_to(&send::ike_sa_init(300), (OTHER4, IKE))?;
    let mut bytes = [0; 512];
    let (length, from) = far.recv_from(&mut bytes)?;
    assert_eq!(length, 300);
    far.send_to(&bytes[..length], from)?;
    assert_eq!(own.recv(&mut bytes)?, 300);
    // To a client, from outside.
    let phone = lab.phone.enter(|| UdpSocket::bind((PHONE4, IKE)))?;
    phone.set_read_timeout(Some(LIMIT))?;
    far.send_to(&send::ike_sa_init(200), (PHONE4, IKE))?;
    assert_eq!(phone.recv(&mut bytes)?, 200);
    assert_eq!(frames(&agent, "other_dropped")?, 0);
    agent.finish()
}

/// EF that a client sets on something else is gone when it arrives, its ECN and its checksums are right, and nobody else's
/// EF is touched.
#[test]
fn clients_own_ef_is_reset() -> Result<()> {
    const VA: u8 = 44;
    const AF41: u8 = 34;
    const ECT1: u8 = 1;
    let lab = Lab::new()?;
    for interfaces in [
        "",
        "tc = \"clsact\"",
        "xdp = [\"lan\"]\nxdp_mode = \"generic\"",
    ] {
        let text = |more| configuration(interfaces, 1, more);
        let agent = Agent::run(&lab.router, &text("[trust]\nbleach = true\n"))?;
        let mut bleached = 0;
        for (to, from, router) in [
            (OTHER4, PHONE4, "198.19.255.1"),
            (OTHER6, PHONE6, "fd00:1::1"),
        ] {
            for (dscp, expected) in [(EF, 0), (VA, 0), (AF41, AF41), (0, 0)] {
                let tos = arrives_with(&lab, &lab.phone, from, to, dscp << 2 | ECT1)?;
                assert_eq!(tos, expected << 2 | ECT1, "{from}, {dscp}: {interfaces}");
                bleached += u64::from(expected != dscp);
            }
            // The box's own.
            let tos = arrives_with(&lab, &lab.router, router, to, EF << 2 | ECT1)?;
            assert_eq!(tos, EF << 2 | ECT1);
        }
        let count = agent.metrics()?.sum("wificall_bleached_packets_total", &[]);
        assert_eq!(count, bleached);
        // A call.
        assert_eq!(lab.probe(PHONE4, EPDG4)?.dscp, EF);
        reload(&agent, &text(""))?;
        assert_eq!(
            arrives_with(&lab, &lab.phone, PHONE4, OTHER4, EF << 2)?,
            EF << 2
        );
        agent.finish()?;
    }
    Ok(())
}

/// The traffic class with which a datagram arrives that was sent with `class`. Its receiver is a socket, which a wrong
/// checksum would keep it from.
fn arrives_with(lab: &Lab, from: &Netns, source: &str, to: &str, class: u8) -> Result<u8> {
    let far = lab.far.enter(|| UdpSocket::bind((to, SIP)))?;
    far.set_read_timeout(Some(LIMIT))?;
    let source: IpAddr = source.parse()?;
    let watch = Capture::start(&lab.far, "eth0", move |frame| {
        let view = View::of(frame)?;
        (view.source == source && view.ports?.1 == SIP).then_some(view.tos)
    })?;
    let socket = from.enter(|| UdpSocket::bind((source, 0)))?;
    send::traffic_class(&socket, class)?;
    socket.send_to(b"voice?", (to, SIP))?;
    let mut bytes = [0; 64];
    assert_eq!(far.recv(&mut bytes)?, 6);
    wait_for("the capture", LIMIT, || {
        ensure!(watch.kept() > 0, "nothing");
        Ok(())
    })?;
    watch.finish()?.pop().context("nothing was captured")
}

/// A policy's cap holds for trusted endpoints too: what is over it has neither DSCP nor priority, and its mark.
#[test]
fn a_policys_cap_demotes_and_drops_nothing() -> Result<()> {
    const CAP: usize = 20;
    let lab = Lab::new()?;
    for interfaces in ["", "xdp = [\"lan\"]\nxdp_mode = \"generic\""] {
        for capped in [
            format!("[defaults]\nmark = \"0x65/0xff\"\ncap = {CAP}\n"),
            format!(
                "[[policy]]\nname = \"capped\"\noperators = [\"001-01\"]\nmark = \"0x65/0xff\"\ncap = {CAP}\n"
            ),
        ] {
            let agent = Agent::run(&lab.router, &configuration(interfaces, 1, &capped))?;
            let watch = Watch::start(&lab.far)?;
            let socket = lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
            for sequence in 0..300 {
                socket.send_to(&send::esp(sequence, 100), (EPDG4, NATT))?;
                if sequence % 50 == 49 {
                    watch.wait(u64::from(sequence) + 1)?;
                }
            }
            watch.wait(300)?;
            let arrivals = watch.finish()?;
            assert_eq!(arrivals.len(), 300, "nothing is dropped");
            let ef = arrivals.iter().filter(|a| a.dscp == EF).count();
            // A second's worth at once, and what the cap gave while they were sent.
            ensure!(
                (CAP..CAP * 4).contains(&ef),
                "{ef} of 300 with EF: {interfaces}"
            );
            ensure!(
                arrivals
                    .iter()
                    .all(|a| a.marked && (a.dscp == EF || a.dscp == 0))
            );
            let metrics = agent.metrics()?;
            let over = metrics.sum("wificall_demoted_packets_total", &[("direction", "up")]);
            assert_eq!(over, 300 - ef as u64);
            assert_eq!(metrics.packets(&[("direction", "up")]), 300);
            agent.finish()?;
        }
    }
    // Without one all have EF.
    let agent = Agent::run(
        &lab.router,
        &configuration("", 1, "[defaults]\ncap = \"none\"\n"),
    )?;
    for _ in 0..50 {
        assert_eq!(lab.probe(PHONE4, EPDG4)?.dscp, EF);
    }
    agent.finish()
}
