//! `[catch_all]`: IPsec to addresses that nothing names goes by their country.
//!
//! ```text
//!  phone ── lan  router  wan   ── far   main table
//!                        exit  ── far   exit `country`, mark 0x65
//!                        third ── far   exit `first`, mark 0x66
//! ```

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map};
use wificall_tests::agent::Agent;
use wificall_tests::capture::Capture;
use wificall_tests::lab::{LIMIT, Lab, PHONE4, PHONE6, neighbours};
use wificall_tests::netns::veth;
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, IKE, NATT};
use wificall_tests::swan::{self, Connection, Swan};
use wificall_tests::view::View;

/// In GB by the database, as the addresses up to .223.
const BRITAIN: &str = "2.125.160.216";
/// In JP.
const JAPAN6: &str = "2001:218::1";
/// In SE, for which no policy is.
const SWEDEN: &str = "89.160.20.112";
/// A host near by, which is nobody's business.
const NEIGHBOUR: &str = "198.19.255.2";
/// A VPN peer of the box's owner, in GB.
const PEER: &str = "2.125.160.223";
/// The phones' second address.
const SECOND4: &str = "10.77.0.3";
/// AOSP's first retransmission of IKE.
const RETRANSMISSION: Duration = Duration::from_millis(500);

fn database(name: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    data.join(name).display().to_string()
}

fn configuration(geoip: &str, catch_all: &str, more: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
[snoop]
events_per_second = 10000
[observed]
mark = true
[geoip]
database = "{}"
[catch_all]
enabled = true
{catch_all}
{more}
"#,
        database(geoip)
    )
}

const BY_MARK: &str = r#"
[other_ipsec]
peers = ["2.125.160.223"]
[[policy]]
name = "abroad"
countries = ["GB", "JP"]
mark = "0x65/0xff"
"#;

const BY_EXIT: &str = r#"
[[exit]]
name = "country"
gateways = ["198.19.255.6", "fd00:2::2"]
table = 1065
mark = "0x65/0xff"
[[exit]]
name = "first"
gateways = ["198.19.255.10", "fd00:3::2"]
table = 1066
mark = "0x66/0xff"
[[policy]]
name = "abroad"
countries = ["GB", "JP"]
exit = "country"
"#;

/// The lab, with a third way and addresses that the databases know.
fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    let Lab { phone, router, far } = &lab;
    veth((router, "third"), (far, "third0"))?;
    router.address("third", &["198.19.255.9/30", "fd00:3::1/64"])?;
    far.address("third0", &["198.19.255.10/30", "fd00:3::2/64"])?;
    neighbours(
        (router, "third", &["198.19.255.9", "fd00:3::1"]),
        (far, "third0", &["198.19.255.10", "fd00:3::2"]),
    )?;
    phone.address("eth0", &[&format!("{SECOND4}/24")])?;
    router.ip(&format!(
        "neigh replace {SECOND4} lladdr {} dev lan nud permanent",
        phone.mac("eth0")?
    ))?;
    far.ip("route add local 2.0.0.0/8 dev lo")?;
    far.ip(&format!("addr add {SWEDEN}/32 dev lo"))?;
    far.ip(&format!("addr add {JAPAN6}/128 dev lo nodad"))?;
    Ok(lab)
}

/// The ways out of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Main,
    Country,
    First,
}

const WAYS: [(&str, Way); 3] = [
    ("eth0", Way::Main),
    ("exit0", Way::Country),
    ("third0", Way::First),
];

/// A packet to IPsec's ports that has arrived.
#[derive(Clone, Debug)]
struct Arrival {
    way: Way,
    to: IpAddr,
    dscp: u8,
    /// The last four octets, by which the tests number what they send.
    tag: [u8; 4],
    at: Duration,
}

struct Watch(Vec<Capture<Arrival>>);

impl Watch {
    fn start(lab: &Lab) -> Result<Self> {
        let captures = WAYS.map(|(device, way)| {
            Capture::start(&lab.far, device, move |frame| {
                let view = View::of(frame)?;
                if frame.outgoing || ![IKE, NATT].contains(&view.ports?.1) {
                    return None;
                }
                Some(Arrival {
                    way,
                    to: view.destination,
                    dscp: view.dscp(),
                    tag: *view.payload.last_chunk()?,
                    at: frame.time,
                })
            })
        });
        Ok(Self(captures.into_iter().collect::<Result<_>>()?))
    }

    fn arrived(&self) -> u64 {
        self.0.iter().map(Capture::kept).sum()
    }

    fn finish(self) -> Result<Vec<Arrival>> {
        let mut all = Vec::new();
        for capture in self.0 {
            all.extend(capture.finish()?);
        }
        all.sort_by_key(|arrival| arrival.at);
        Ok(all)
    }
}

/// What a phone sends.
#[derive(Clone, Copy, Debug)]
enum Message {
    Init,
    Auth,
    Esp,
}

impl Message {
    fn bytes(self, tag: u32) -> (Vec<u8>, u16) {
        /// Exchange type of IKE_AUTH, and where it stands behind the marker (RFC 7296 §3.1).
        const AUTH: u8 = 35;
        const EXCHANGE: usize = 4 + 18;
        let (mut bytes, port) = match self {
            Self::Init => (send::ike_sa_init(300), IKE),
            Self::Auth => {
                let mut bytes = send::ike_behind_marker(300);
                bytes[EXCHANGE] = AUTH;
                bytes[4 + 8..4 + 16].fill(0x44);
                (bytes, NATT)
            }
            Self::Esp => (send::esp(tag, 100), NATT),
        };
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&tag.to_be_bytes());
        (bytes, port)
    }
}

/// A phone, at an address.
struct Phone {
    socket: UdpSocket,
    tag: u32,
}

impl Phone {
    fn new(lab: &Lab, from: &str) -> Result<Self> {
        Ok(Self {
            socket: lab.phone.enter(|| UdpSocket::bind((from, 0)))?,
            tag: 0,
        })
    }

    fn send(&mut self, message: Message, to: IpAddr) -> Result<[u8; 4]> {
        self.tag += 1;
        let (bytes, port) = message.bytes(self.tag);
        self.socket.send_to(&bytes, (to, port))?;
        Ok(self.tag.to_be_bytes())
    }

    /// Sends one, and gives the way that it takes; `None` if it does not arrive.
    fn way(&mut self, lab: &Lab, message: Message, to: &str) -> Result<Option<Way>> {
        let watch = Watch::start(lab)?;
        self.send(message, to.parse()?)?;
        let start = Instant::now();
        while watch.arrived() == 0 && start.elapsed() < Duration::from_millis(200) {
            thread::sleep(Duration::from_millis(2));
        }
        Ok(watch.finish()?.first().map(|arrival| arrival.way))
    }
}

fn exits(agent: &Agent<'_>, exit: &str) -> Result<u64> {
    Ok(agent
        .metrics()?
        .sum("wificall_exits_total", &[("exit", exit)]))
}

#[test]
fn the_first_packet_is_held_and_the_next_goes_by_its_country() -> Result<()> {
    let lab = lab()?;
    for more in ["", "xdp = [\"lan\"]\nxdp_mode = \"generic\""] {
        let text = configuration("GeoLite2-Country-Test.mmdb", "", BY_MARK)
            .replace("access = [\"lan\"]", &format!("access = [\"lan\"]\n{more}"));
        let agent = Agent::run(&lab.router, &text)?;
        let mut slowest = Duration::ZERO;
        for (held, (from, to)) in (1..).zip([
            (PHONE4, BRITAIN),
            (PHONE4, "2.125.160.217"),
            (PHONE4, "2.125.160.218"),
            (PHONE6, JAPAN6),
        ]) {
            let mut phone = Phone::new(&lab, from)?;
            let watch = Watch::start(&lab)?;
            let first = phone.send(Message::Init, to.parse()?)?;
            let start = Instant::now();
            // ESP is never held: it shows when the endpoint is known.
            let known = loop {
                let tag = phone.send(Message::Esp, to.parse()?)?;
                let took = start.elapsed();
                thread::sleep(Duration::from_millis(1));
                if watch.0[1].kept() > 0 {
                    break (tag, took);
                }
                ensure!(took < LIMIT, "{to} never goes by its country");
            };
            thread::sleep(RETRANSMISSION.saturating_sub(start.elapsed()));
            let again = phone.send(Message::Init, to.parse()?)?;
            wait_for("the retransmission", LIMIT, || {
                let arrived = watch.0[1].kept();
                ensure!(arrived >= 2, "{arrived}");
                Ok(())
            })?;
            let arrived = watch.finish()?;
            ensure!(
                arrived.iter().all(|arrival| arrival.tag != first),
                "the first packet to {to} was not held"
            );
            let retransmission = arrived.iter().find(|arrival| arrival.tag == again);
            let way = retransmission.context("no retransmission")?.way;
            ensure!(way == Way::Country, "{to}: {way:?}");
            slowest = slowest.max(known.1);
            ensure!(known.1 < RETRANSMISSION, "{to}: {:?}", known.1);
            ensure!(exits(&agent, "held")? == held, "{}", exits(&agent, "held")?);
        }
        println!(
            "at most {:.1} ms from a held packet to its endpoint in the table",
            slowest.as_secs_f64() * 1e3
        );
        agent.finish()?;
    }
    Ok(())
}

#[test]
fn what_is_nobodys_business_is_not_held_and_what_nobody_knows_once() -> Result<()> {
    let lab = lab()?;
    let text = configuration("GeoLite2-Country-Test.mmdb", "", BY_MARK);
    let agent = Agent::run(&lab.router, &text)?;
    let mut phone = Phone::new(&lab, PHONE4)?;
    for to in [NEIGHBOUR, PEER] {
        let way = phone.way(&lab, Message::Init, to)?;
        ensure!(way == Some(Way::Main), "{to}: {way:?}");
    }
    ensure!(exits(&agent, "held")? == 0);
    // To the box itself.
    phone.send(Message::Init, "10.77.0.1".parse()?)?;
    let watch = Watch::start(&lab)?;
    phone.send(Message::Init, SWEDEN.parse()?)?;
    thread::sleep(RETRANSMISSION);
    ensure!(watch.arrived() == 0, "the first packet is held");
    ensure!(exits(&agent, "held")? == 1, "and no other");
    for _ in 0..3 {
        phone.send(Message::Init, SWEDEN.parse()?)?;
    }
    wait_for("what comes after it", LIMIT, || {
        ensure!(watch.arrived() == 3, "{}", watch.arrived());
        Ok(())
    })?;
    // Another phone too: it is the address that is known to be unknown.
    let way = Phone::new(&lab, SECOND4)?.way(&lab, Message::Init, SWEDEN)?;
    ensure!(way == Some(Way::Main), "{way:?}");
    let arrived = watch.finish()?;
    ensure!(
        arrived.iter().all(|it| it.way == Way::Main && it.dscp == 0),
        "{arrived:?}"
    );
    agent.finish()
}

#[test]
fn a_flood_is_held_so_far_and_fills_nothing() -> Result<()> {
    const PER_SECOND: u64 = 5;
    const ADDRESSES: u32 = 1000;
    /// Observed addresses that one client may bring.
    const OF_A_CLIENT: u64 = 64;
    let lab = lab()?;
    let policy = "[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"0x65/0xff\"\n";
    let text = |rate| configuration("flat-2-AU.mmdb", &format!("per_second = {rate}"), policy);
    let agent = Agent::run(&lab.router, &text(PER_SECOND))?;
    let mut phone = Phone::new(&lab, PHONE4)?;
    let watch = Watch::start(&lab)?;
    let start = Instant::now();
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0200_0000 + 256 * n + 7));
    for n in 0..ADDRESSES {
        phone.send(Message::Init, address(n))?;
        thread::sleep(Duration::from_millis(2));
    }
    let took = start.elapsed();
    let held = exits(&agent, "held")?;
    // A second's worth at once, and the rate.
    let most = PER_SECOND + 1 + (took.as_secs_f64() * PER_SECOND as f64).ceil() as u64;
    println!("{held} of {ADDRESSES} held in {took:?}, at most {most}");
    ensure!((PER_SECOND..=most).contains(&held), "{held}, not {most}");
    wait_for("the rest", LIMIT, || {
        let arrived = watch.arrived();
        ensure!(arrived == u64::from(ADDRESSES) - held, "{arrived}");
        Ok(())
    })?;
    let arrived = watch.finish()?;
    ensure!(
        arrived.iter().all(|it| it.way == Way::Main && it.dscp == 0),
        "what is not held passes untouched"
    );
    let observed = || -> Result<u64> {
        let metrics = agent.metrics()?;
        Ok(metrics.sum("wificall_known_addresses", &[("tier", "observed")]))
    };
    let found = observed()?;
    println!("{found} of them are endpoints");
    ensure!((1..=most).contains(&found), "{found}, not {most}");
    // However fast it may be, the pool is the bound.
    agent.configure(&text(10_000))?;
    agent.ask(&["reload"])?;
    for n in ADDRESSES..2 * ADDRESSES {
        phone.send(Message::Init, address(n))?;
        thread::sleep(Duration::from_millis(1));
    }
    wait_for("a full pool", LIMIT, || {
        let found = observed()?;
        ensure!(found == OF_A_CLIENT, "{found}");
        Ok(())
    })?;
    agent.finish()
}

#[test]
fn a_phone_comes_up_in_spite_of_it() -> Result<()> {
    let lab = lab()?;
    lab.far.ip(&format!("addr add {BRITAIN}/32 dev lo"))?;
    lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
    let text = configuration("GeoLite2-Country-Test.mmdb", "", BY_MARK);
    let agent = Agent::run(&lab.router, &text)?;
    let _epdg = Swan::start(&lab.far, &swan::epdg(), None)?;
    // Retransmits as AOSP does.
    let phone = Swan::start_with(
        &lab.phone,
        &swan::phone(&[Connection {
            name: "four",
            local: PHONE4,
            remote: BRITAIN,
            inside: "10.98.0.1",
        }]),
        None,
        "retransmit_timeout = 0.5",
    )?;
    let watch = Watch::start(&lab)?;
    let start = Instant::now();
    phone.initiate("four")?;
    println!("up after {} ms", start.elapsed().as_millis());
    lab.phone.run("ping", "-c5 -i0.01 -W5 10.98.0.1")?;
    ensure!(exits(&agent, "held")? == 1, "{}", exits(&agent, "held")?);
    let arrived = watch.finish()?;
    ensure!(arrived.len() >= 7, "{arrived:?}");
    ensure!(
        arrived.iter().all(|arrival| arrival.way == Way::Country),
        "{arrived:?}"
    );
    phone.terminate("four")?;
    agent.finish()
}

#[test]
fn a_tunnel_keeps_the_exit_that_it_began_with() -> Result<()> {
    use Message::{Auth, Esp, Init};
    let lab = lab()?;
    for family in ["", "-6"] {
        lab.router
            .ip(&format!("{family} rule del fwmark 0x65/0xff"))?;
    }
    let catch = "first = \"mark\"\nexit = \"first\"";
    let text = configuration("GeoLite2-Country-Test.mmdb", catch, BY_EXIT);
    let mut agent = Agent::run(&lab.router, &text)?;
    wait_for("the exits", LIMIT, || {
        for table in ["1065", "1066"] {
            let routes = lab.router.ip(&format!("route show table {table}"))?;
            ensure!(routes.contains("default"), "{table}: {routes}");
        }
        Ok(())
    })?;
    let mut phone = Phone::new(&lab, PHONE4)?;
    let goes = |phone: &mut Phone, message, to: &str, way| -> Result<()> {
        let found = phone.way(&lab, message, to)?;
        ensure!(
            found == Some(way),
            "{message:?} to {to}: {found:?}, not {way:?}"
        );
        Ok(())
    };
    // As if the agent's start were long ago, and ESP went by policy again.
    let mut keep: Array<_, u32> = Map::Array(agent.map("KEEP")?).try_into()?;
    keep.set(0, 0, 0)?;
    // ESP of a tunnel that nobody has seen begin.
    goes(&mut phone, Esp, BRITAIN, Way::Main)?;
    let mut six = Phone::new(&lab, PHONE6)?;
    for (phone, to) in [(&mut phone, BRITAIN), (&mut six, JAPAN6)] {
        goes(phone, Init, to, Way::First)?;
        for _ in 0..20 {
            goes(phone, Auth, to, Way::First)?;
            goes(phone, Esp, to, Way::First)?;
        }
        // It is known meanwhile.
        let listed = agent.status()?["discovery"]["known"].to_string();
        ensure!(listed.contains(to), "{to} is no endpoint: {listed}");
    }
    ensure!(exits(&agent, "caught_first")? >= 2);
    // Another phone's, and a new one of the same.
    let mut second = Phone::new(&lab, SECOND4)?;
    for message in [Init, Auth, Esp] {
        goes(&mut second, message, BRITAIN, Way::Country)?;
    }
    goes(&mut phone, Esp, BRITAIN, Way::First)?;
    // Where no policy is for, it stays.
    for message in [Init, Auth, Esp, Esp] {
        goes(&mut phone, message, SWEDEN, Way::First)?;
    }
    // A restart of the agent, and a reload, move nobody.
    agent.stop()?;
    goes(&mut phone, Esp, BRITAIN, Way::First)?;
    agent.start()?;
    agent.ask(&["reload"])?;
    for (to, way) in [(BRITAIN, Way::First), (SWEDEN, Way::First)] {
        goes(&mut phone, Esp, to, way)?;
    }
    goes(&mut second, Esp, BRITAIN, Way::Country)?;
    // A new tunnel of the first phone takes its country's exit.
    for message in [Init, Auth, Esp] {
        goes(&mut phone, message, BRITAIN, Way::Country)?;
    }
    agent.finish()
}

#[test]
fn a_firewall_that_is_armed_lets_nothing_through_for_it() -> Result<()> {
    let lab = lab()?;
    let armed = "[[prefix]]\nprefix = \"1.2.3.0/24\"\noperator = \"001-01\"\n[other_ipsec]\naction = \"drop\"\narm_at = 1\n\
                 [[policy]]\nname = \"abroad\"\ncountries = [\"GB\"]\nmark = \"0x65/0xff\"\n";
    let text = configuration("GeoLite2-Country-Test.mmdb", "", armed);
    let agent = Agent::run(&lab.router, &text)?;
    let mut phone = Phone::new(&lab, PHONE4)?;
    for to in [BRITAIN, SWEDEN] {
        for message in [Message::Init, Message::Init, Message::Esp] {
            let way = phone.way(&lab, message, to)?;
            ensure!(way.is_none(), "{message:?} to {to}: {way:?}");
        }
    }
    ensure!(exits(&agent, "held")? == 0);
    ensure!(exits(&agent, "other_dropped")? == 6);
    agent.finish()
}
