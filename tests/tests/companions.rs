//! Companion names: port 443 of their addresses takes the exit of the client's policy, and nothing else does.
//!
//! ```text
//!  phone  ── lan   router  wan  ── far   main table
//!  second ── lan2          exit ── far   exit `abroad`
//! ```

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map};
use aya::programs::{SchedClassifier, TcAttachType};
use wificall_tests::agent::Agent;
use wificall_tests::capture::Capture;
use wificall_tests::dns::{Dns, Record};
use wificall_tests::lab::{DNS, LIMIT, Lab, PHONE4, PHONE6, ROUTER_DNS, neighbours};
use wificall_tests::netns::{Netns, veth};
use wificall_tests::process::wait_for;
use wificall_tests::send;
use wificall_tests::view::View;

const NAME: &str = "entitlement.example.net";
const SECOND: [&str; 2] = ["10.78.0.2", "fd78::2"];
/// What the name has at first, and what it has later.
const BEFORE: [&str; 2] = ["198.18.50.1", "2001:db8:50::1"];
const AFTER: [&str; 2] = ["198.18.50.2", "2001:db8:50::2"];
/// What it never has.
const OTHER: [&str; 2] = ["198.18.50.9", "2001:db8:50::9"];
const HTTPS: u16 = 443;
const HTTP: u16 = 80;
/// How long a packet may take that does not come.
const SHORT: Duration = Duration::from_millis(300);

const EXIT: &str = r#"
[[exit]]
name = "abroad"
gateways = ["198.19.255.6", "fd00:2::2"]
table = 1065
mark = "0x65/0xff"
"#;
const POLICY: &str = r#"
[[policy]]
name = "one-phone"
clients = ["10.77.0.2", "fd77::2"]
exit = "abroad"
companions = ["entitlement.example.net"]
"#;

fn configuration(interfaces: &str, more: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan", "lan2"]
{interfaces}
[discovery]
resolvers = ["{ROUTER_DNS}"]
refresh_min = "1s"
timeout = "500ms"
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
{more}"#
    )
}

struct Scene {
    lab: Lab,
    second: Netns,
}

impl Scene {
    fn new() -> Result<Self> {
        let scene = Self {
            lab: Lab::new()?,
            second: Netns::new("second")?,
        };
        let Self { lab, second } = &scene;
        let Lab { router, far, .. } = lab;
        veth((second, "eth0"), (router, "lan2"))?;
        second.address("eth0", &["10.78.0.2/24", "fd78::2/64"])?;
        router.address("lan2", &["10.78.0.1/24", "fd78::1/64"])?;
        neighbours(
            (second, "eth0", &SECOND),
            (router, "lan2", &["10.78.0.1", "fd78::1"]),
        )?;
        second.ip("route add default via 10.78.0.1")?;
        second.ip("route add default via fd78::1")?;
        second.forward()?;
        far.ip("route add 10.78.0.0/24 via 198.19.255.1")?;
        far.ip("route add fd78::/64 via fd00:1::1")?;
        far.address("lo", &[BEFORE, AFTER, OTHER].concat())?;
        // The agent makes its own.
        for family in ["-4", "-6"] {
            router.ip(&format!("{family} rule del fwmark 0x65/0xff"))?;
        }
        Ok(scene)
    }
}

/// Answers over TCP on a port of the far side, as long as the test runs.
fn serve(far: &Netns, port: u16) -> Result<()> {
    let listener = far.enter(|| TcpListener::bind(("::", port)))?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 5];
            let heard = stream.read_exact(&mut bytes);
            let _ = heard.and_then(|()| stream.write_all(&bytes));
        }
    });
    Ok(())
}

/// The ways out of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Main,
    Exit,
}

/// By which ways a client's packets to this port of an address arrive.
struct Watch(Vec<(Way, Capture<()>)>);

impl Watch {
    fn start(far: &Netns, from: &str, to: &str, port: u16) -> Result<Self> {
        let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
        let captures = [("eth0", Way::Main), ("exit0", Way::Exit)].map(|(device, way)| {
            let capture = Capture::start(far, device, move |frame| {
                let view = View::of(frame)?;
                let is_it = !frame.outgoing
                    && (view.source, view.destination) == (from, to)
                    && view.ports?.1 == port;
                is_it.then_some(())
            })?;
            anyhow::Ok((way, capture))
        });
        Ok(Self(captures.into_iter().collect::<Result<_>>()?))
    }

    /// The one way that they have taken.
    fn way(self) -> Result<Way> {
        let start = Instant::now();
        while self.0.iter().all(|(_, capture)| capture.kept() == 0) && start.elapsed() < SHORT {
            thread::sleep(Duration::from_millis(1));
        }
        let mut ways = Vec::new();
        for (way, capture) in self.0 {
            if !capture.finish()?.is_empty() {
                ways.push(way);
            }
        }
        let [way] = ways[..] else {
            anyhow::bail!("they went by {ways:?}");
        };
        Ok(way)
    }
}

fn udp(lab: &Lab, phone: &Netns, from: &str, to: &str, port: u16) -> Result<Way> {
    let watch = Watch::start(&lab.far, from, to, port)?;
    let socket = phone.enter(|| UdpSocket::bind((from, 0)))?;
    socket.send_to(b"hello", (to, port))?;
    watch
        .way()
        .with_context(|| format!("UDP {from} to {to} {port}"))
}

/// A whole connection, with something said both ways.
fn tcp(lab: &Lab, phone: &Netns, from: &str, to: &str, port: u16) -> Result<Way> {
    let watch = Watch::start(&lab.far, from, to, port)?;
    let address: SocketAddr = send::address(to, port)?;
    let mut stream = phone.enter(|| TcpStream::connect_timeout(&address, LIMIT))?;
    ensure!(stream.local_addr()?.ip() == from.parse::<IpAddr>()?);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"hello")?;
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes)?;
    drop(stream);
    watch
        .way()
        .with_context(|| format!("TCP {from} to {to} {port}"))
}

/// Both families and protocols of the first phone take this way to port 443.
fn wait_https(lab: &Lab, to: [&str; 2], way: Way) -> Result<()> {
    wait_for(&format!("{to:?} by {way:?}"), LIMIT, || {
        for (from, to) in [PHONE4, PHONE6].into_iter().zip(to) {
            for found in [
                udp(lab, &lab.phone, from, to, HTTPS)?,
                tcp(lab, &lab.phone, from, to, HTTPS)?,
            ] {
                ensure!(found == way, "{from} to {to}: {found:?}");
            }
        }
        Ok(())
    })
}

fn hosts(agent: &Agent<'_>) -> Result<Vec<IpAddr>> {
    let map = Map::HashMap(agent.map("COMPANION_HOSTS")?);
    let map: HashMap<_, [u8; 16], [u8; 16]> = HashMap::try_from(map)?;
    let keys = map.keys().map(|key| Ok(IpAddr::from(key?).to_canonical()));
    let mut keys: Vec<IpAddr> = keys.collect::<Result<_>>()?;
    keys.sort();
    Ok(keys)
}

/// Bytes of what the verifier has left of the program that phones' packets go through.
fn program_size(router: &Netns) -> Result<u32> {
    let (_, found) = router.enter(|| SchedClassifier::query_tcx("lan", TcAttachType::Ingress))?;
    let program = found.first().context("no program")?;
    program.size_translated().context("its size is not told")
}

fn records<'a>(addresses: &'a [&'a str]) -> [Record<'a>; 1] {
    [(NAME, addresses)]
}

#[test]
fn port_443_of_a_companion_takes_the_exit_of_its_client_and_nothing_else_does() -> Result<()> {
    let scene = Scene::new()?;
    let Scene { lab, second } = &scene;
    for port in [HTTPS, HTTP] {
        serve(&lab.far, port)?;
    }
    for interfaces in ["", "xdp = [\"lan\"]\nxdp_mode = \"generic\""] {
        let mut dns = Dns::start_whole(&lab.far, &[DNS, ROUTER_DNS], 1, &records(&BEFORE))?;
        let with = configuration(interfaces, &format!("{EXIT}{POLICY}"));
        let mut agent = Agent::run(&lab.router, &with)?;
        wait_https(lab, BEFORE, Way::Exit)?;
        for (index, from) in [PHONE4, PHONE6].into_iter().enumerate() {
            let main = [
                (&lab.phone, from, BEFORE[index], HTTP),
                (&lab.phone, from, OTHER[index], HTTPS),
                (second, SECOND[index], BEFORE[index], HTTPS),
                (second, SECOND[index], BEFORE[index], HTTP),
            ];
            for (phone, from, to, port) in main {
                let ways = [
                    udp(lab, phone, from, to, port)?,
                    tcp(lab, phone, from, to, port)?,
                ];
                ensure!(ways == [Way::Main; 2], "{from} to {to} {port}: {ways:?}");
            }
        }
        ensure!(
            agent
                .metrics()?
                .sum("wificall_exits_total", &[("exit", "companion")])
                > 0
        );
        let on = program_size(&lab.router)?;

        // Another answer: what it had is steered all the same, for connections last.
        dns.set(&records(&AFTER))?;
        wait_https(lab, AFTER, Way::Exit)?;
        wait_https(lab, BEFORE, Way::Exit)?;
        ensure!(hosts(&agent)?.len() == 4, "{:?}", hosts(&agent)?);

        // From the state file alone.
        agent.stop()?;
        agent.ask(&["detach"])?;
        dns.stop()?;
        wait_https(lab, BEFORE, Way::Main)?;
        agent.start()?;
        for addresses in [BEFORE, AFTER] {
            for (from, to) in [PHONE4, PHONE6].into_iter().zip(addresses) {
                let way = udp(lab, &lab.phone, from, to, HTTPS)?;
                ensure!(way == Way::Exit, "{to} at once after a restart: {way:?}");
            }
        }

        // Without it, nothing of it is left, and nothing is asked of any packet.
        let policy = POLICY.replace("companions", "names");
        agent.configure(&configuration(interfaces, &format!("{EXIT}{policy}")))?;
        agent.ask(&["reload"])?;
        wait_https(lab, BEFORE, Way::Main)?;
        wait_for("no companions", LIMIT, || {
            ensure!(hosts(&agent)?.is_empty(), "{:?}", hosts(&agent)?);
            Ok(())
        })?;
        let off = program_size(&lab.router)?;
        println!("{off} bytes of program without companions, {on} with them");
        ensure!(off < on);
        agent.finish()?;
    }
    Ok(())
}

/// What a gateway on the phones' side forwards comes back by the same link, from it: it does not go round.
#[test]
fn a_gateways_own_traffic_is_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    let Scene { lab, second } = &scene;
    let _dns = Dns::start_whole(&lab.far, &[DNS, ROUTER_DNS], 1, &records(&BEFORE))?;
    let exit = EXIT.replace(
        "\"198.19.255.6\", \"fd00:2::2\"",
        "\"10.78.0.2\", \"fd78::2\"",
    );
    let policy = POLICY.replace(
        "clients = [\"10.77.0.2\", \"fd77::2\"]",
        "interfaces = [\"lan*\"]",
    );
    let agent = Agent::run(&lab.router, &configuration("", &format!("{exit}{policy}")))?;
    for (index, from) in [PHONE4, PHONE6].into_iter().enumerate() {
        let to: IpAddr = BEFORE[index].parse()?;
        wait_for("the phone's packets at the gateway", LIMIT, || {
            let capture = Capture::start(second, "eth0", move |frame| {
                let view = View::of(frame)?;
                (!frame.outgoing && view.destination == to).then_some(())
            })?;
            // It comes back from there and leaves by the main table.
            let way = udp(lab, &lab.phone, from, BEFORE[index], HTTPS)?;
            ensure!(way == Way::Main && capture.finish()?.len() == 1, "{way:?}");
            Ok(())
        })?;
        let way = udp(lab, second, SECOND[index], BEFORE[index], HTTPS)?;
        ensure!(way == Way::Main, "its own: {way:?}");
    }
    agent.finish()
}
