//! Routed, bridged, one-arm, and XDP: each packet is counted once, treated once, and
//! marked only on its way up. Prints one table.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::capture::{Capture, Frame};
use wificall_tests::lab::{EF, EPDG4, LIMIT, Lab, MARK, MARKED, PHONE4, neighbours};
use wificall_tests::netns::{Netns, veth};
use wificall_tests::process::wait_until;
use wificall_tests::send::{self, IKE, KEEPALIVE, NATT, RawFrames, RawIp};
use wificall_tests::view::View;

const ESP: u8 = 50;
/// What `Ends::send` sends each way, by class.
const SENT: [(&str, u64); 5] = [
    ("esp", 20),
    ("esp_udp", 105),
    ("fragment", 10),
    ("ike", 70),
    ("keepalive", 10),
];

fn sent() -> u64 {
    SENT.iter().map(|(_, count)| count).sum()
}

#[test]
fn each_packet_is_counted_once_and_marked_only_upwards() -> Result<()> {
    let mut table = Table::new();
    let both = "access = [\"lan\"]\nuplink = [\"wan\"]";
    let native = format!("{both}\nxdp = [\"lan\"]\nxdp_mode = \"native\"");
    let generic = format!("{both}\nxdp = [\"lan\"]\nxdp_mode = \"generic\"");
    for (name, interfaces, marks) in [
        ("routed", both, true),
        ("routed, clsact", &format!("{both}\ntc = \"clsact\""), true),
        ("routed, access only", "access = [\"lan\"]", true),
        // Behind the routing decision a mark would have no use.
        ("routed, uplink only", "uplink = [\"wan\"]", false),
        (
            "uplink only, native XDP",
            "uplink = [\"wan\"]\nxdp = [\"wan\"]",
            false,
        ),
        ("routed, native XDP", &native, true),
        ("routed, generic XDP", &generic, true),
    ] {
        routed(&mut table, name, interfaces, marks).context(name)?;
    }
    bridged(&mut table).context("bridged")?;
    one_arm(&mut table).context("one-arm")?;
    println!("{}", table.text);
    assert_eq!(table.wrong, 0, "rows are wrong, see the table");
    Ok(())
}

fn routed(table: &mut Table, name: &str, interfaces: &str, marks: bool) -> Result<()> {
    let lab = Lab::new()?;
    // The mark is looked at, but decides nothing here.
    lab.router
        .ip(&format!("rule del fwmark {MARK} lookup 101"))?;
    let agent = agent(&lab.router, interfaces)?;
    let marked = Marks::count(&lab.router, "inet", "iifname lan", "iifname wan")?;
    let ends = Ends {
        phone: &lab.phone,
        far: &lab.far,
    };
    let seen = ends.exchange()?;
    table.add(
        name,
        &agent,
        &seen,
        &marked,
        if marks { sent() } else { 0 },
        1,
    )?;
    agent.finish()
}

/// The router is a bridge without an address of its own; then the same frames once
/// more with a VLAN tag, which the receiving device takes out.
fn bridged(table: &mut Table) -> Result<()> {
    let (phone, router, far) = (
        Netns::new("phone")?,
        Netns::new("bridge")?,
        Netns::new("far")?,
    );
    veth((&phone, "eth0"), (&router, "ap0"))?;
    veth((&router, "up0"), (&far, "eth0"))?;
    router.bridge("br0", &["ap0", "up0"])?;
    one_network(&phone, &far)?;
    phone.ip("route add default via 10.77.0.1")?;

    let agent = agent(&router, "access = [\"ap*\"]\nuplink = [\"up0\"]")?;
    let marked = Marks::count(&router, "bridge", "iifname ap0", "iifname up0")?;
    let ends = Ends {
        phone: &phone,
        far: &far,
    };
    let up = Capture::start(&phone, "eth0", outgoing)?;
    let down = Capture::start(&far, "eth0", outgoing)?;
    let seen = ends.exchange()?;
    let (up, down) = (up.finish()?, down.finish()?);
    table.add("bridged", &agent, &seen, &marked, sent(), 1)?;

    let watch = ends.watch(|frame| frame.vlan == Some(VLAN))?;
    for (namespace, frames) in [(&phone, &up), (&far, &down)] {
        let port = RawFrames::new(namespace, "eth0")?;
        for frame in frames {
            port.send(&tagged(frame))?;
        }
    }
    let seen = watch.finish()?;
    table.add("then tagged, in all", &agent, &seen, &marked, 2 * sent(), 2)?;
    agent.finish()
}

/// The router has one interface, in the phones' network, and so has the gateway.
fn one_arm(table: &mut Table) -> Result<()> {
    let (phone, router, far) = (
        Netns::new("phone")?,
        Netns::new("onearm")?,
        Netns::new("far")?,
    );
    let switch = Netns::new("switch")?;
    for (namespace, port) in [(&phone, "port1"), (&router, "port2"), (&far, "port3")] {
        veth((namespace, "eth0"), (&switch, port))?;
    }
    switch.bridge("br0", &["port1", "port2", "port3"])?;
    router.forward()?;
    one_network(&phone, &far)?;
    router.address("eth0", &["10.77.0.5/24"])?;
    let arm: &[&str] = &["10.77.0.5"];
    neighbours((&phone, "eth0", &[PHONE4]), (&router, "eth0", arm))?;
    neighbours((&far, "eth0", &["10.77.0.1"]), (&router, "eth0", arm))?;
    phone.ip("route add default via 10.77.0.5")?;
    router.ip("route add default via 10.77.0.1")?;
    far.ip(&format!("route add {PHONE4}/32 via 10.77.0.5 src {EPDG4}"))?;

    let agent = agent(&router, "access = [\"eth0\"]")?;
    let (up, down) = (format!("ip daddr {EPDG4}"), format!("ip saddr {EPDG4}"));
    let marked = Marks::count(&router, "inet", &up, &down)?;
    let seen = Ends {
        phone: &phone,
        far: &far,
    }
    .exchange()?;
    table.add("one-arm", &agent, &seen, &marked, sent(), 1)?;
    agent.finish()
}

/// Phone and gateway in one network, the ePDG behind the gateway.
fn one_network(phone: &Netns, far: &Netns) -> Result<()> {
    phone.address("eth0", &[&format!("{PHONE4}/24")])?;
    far.address("eth0", &["10.77.0.1/24"])?;
    far.address("lo", &[&format!("{EPDG4}/32")])?;
    far.ip(&format!("route replace 10.77.0.0/24 dev eth0 src {EPDG4}"))?;
    neighbours((phone, "eth0", &[PHONE4]), (far, "eth0", &["10.77.0.1"]))
}

fn agent<'a>(router: &'a Netns, interfaces: &str) -> Result<Agent<'a>> {
    Agent::run(router, &format!("[interfaces]\n{interfaces}\n{MARKED}"))
}

/// Who talks.
struct Ends<'a> {
    phone: &'a Netns,
    far: &'a Netns,
}

/// The DSCP of what arrived at the far side and at the phone.
struct Seen {
    up: Vec<u8>,
    down: Vec<u8>,
}

struct EndsWatch {
    far: Capture<u8>,
    phone: Capture<u8>,
}

impl EndsWatch {
    fn finish(self) -> Result<Seen> {
        for (what, capture) in [("packets up", &self.far), ("packets down", &self.phone)] {
            wait_until(what, LIMIT, || (capture.kept() >= sent()).then_some(()))
                .with_context(|| format!("{} of {} arrived", capture.kept(), sent()))?;
        }
        Ok(Seen {
            up: self.far.finish()?,
            down: self.phone.finish()?,
        })
    }
}

impl Ends<'_> {
    /// Watches for the ePDG's packets arriving at both ends in frames that `accept` does.
    fn watch(&self, accept: fn(&Frame<'_>) -> bool) -> Result<EndsWatch> {
        let start = |namespace| {
            Capture::start(namespace, "eth0", move |frame| {
                let view = of_epdg(frame)?;
                (!frame.outgoing && accept(frame)).then(|| view.dscp())
            })
        };
        Ok(EndsWatch {
            far: start(self.far)?,
            phone: start(self.phone)?,
        })
    }

    fn exchange(&self) -> Result<Seen> {
        let watch = self.watch(|_| true)?;
        self.send()?;
        watch.finish()
    }

    /// Sends [`SENT`] both ways.
    fn send(&self) -> Result<()> {
        let ike = [
            send::udp(self.phone, &format!("{PHONE4}:{IKE}"))?,
            send::udp(self.far, &format!("{EPDG4}:{IKE}"))?,
        ];
        let natt = [
            send::udp(self.phone, &format!("{PHONE4}:{NATT}"))?,
            send::udp(self.far, &format!("{EPDG4}:{NATT}"))?,
        ];
        let esp = [
            RawIp::new(self.phone, false, ESP)?,
            RawIp::new(self.far, false, ESP)?,
        ];
        for (end, to) in [EPDG4, PHONE4].into_iter().enumerate() {
            for _ in 0..40 {
                ike[end].send_to(&send::ike_sa_init(300), (to, IKE))?;
            }
            for _ in 0..30 {
                natt[end].send_to(&send::ike_behind_marker(300), (to, NATT))?;
            }
            for number in 0..100 {
                natt[end].send_to(&send::esp(number, 160), (to, NATT))?;
            }
            for _ in 0..10 {
                natt[end].send_to(&KEEPALIVE, (to, NATT))?;
            }
            for number in 0..5 {
                // Three fragments each, the first of which is ESP in UDP.
                natt[end].send_to(&send::esp(number, 3_500), (to, NATT))?;
            }
            for number in 0..20 {
                esp[end].send(&send::esp(number, 160), to.parse()?)?;
            }
        }
        Ok(())
    }
}

fn of_epdg<'a>(frame: &Frame<'a>) -> Option<View<'a>> {
    const ICMP: u8 = 1;
    let view = View::of(frame)?;
    let ends = [view.source.to_string(), view.destination.to_string()];
    (ends.contains(&EPDG4.to_owned()) && view.protocol != ICMP).then_some(view)
}

fn outgoing(frame: &Frame<'_>) -> Option<Vec<u8>> {
    (frame.outgoing && of_epdg(frame).is_some()).then(|| frame.bytes.to_vec())
}

/// Priority 3, VLAN 42.
const VLAN: u16 = 3 << 13 | 42;

/// The frame with a VLAN tag between its addresses and its type.
fn tagged(frame: &[u8]) -> Vec<u8> {
    const ADDRESSES: usize = 12;
    let (addresses, rest) = frame.split_at(ADDRESSES);
    [addresses, &[0x81, 0x00], &VLAN.to_be_bytes(), rest].concat()
}

/// Counts marked packets where the router forwards.
struct Marks<'a> {
    router: &'a Netns,
    family: &'static str,
}

impl<'a> Marks<'a> {
    fn count(router: &'a Netns, family: &'static str, up: &str, down: &str) -> Result<Self> {
        let (value, mask) = MARK.split_once('/').context("a mark without a mask")?;
        router.run("nft", &format!("add table {family} lab"))?;
        router.run(
            "nft",
            &format!("add chain {family} lab forward {{ type filter hook forward priority 0 ; }}"),
        )?;
        for (name, which) in [("up", up), ("down", down)] {
            router.run("nft", &format!("add counter {family} lab {name}"))?;
            router.run(
                "nft",
                &format!(
                    "add rule {family} lab forward {which} meta mark & {mask} == {value} \
                     counter name {name}"
                ),
            )?;
        }
        Ok(Self { router, family })
    }

    fn read(&self, name: &str) -> Result<u64> {
        let text = self.router.run(
            "nft",
            &format!("-j list counter {} lab {name}", self.family),
        )?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        json["nftables"]
            .as_array()
            .and_then(|items| {
                items
                    .iter()
                    .find_map(|item| item["counter"]["packets"].as_u64())
            })
            .with_context(|| format!("no counter {name}: {text}"))
    }
}

struct Table {
    text: String,
    wrong: u32,
}

impl Table {
    fn new() -> Self {
        let mut table = Self {
            text: String::new(),
            wrong: 0,
        };
        table.line("", "sent", ["up", "", "", "down", "", ""]);
        let columns = ["counted", "marked", "EF", "counted", "marked", "EF"];
        table.line("role", "each way", columns);
        table
    }

    fn line(&mut self, role: &str, sent: &str, columns: [&str; 6]) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{role:<22}{sent:>9}");
        for column in columns {
            let _ = write!(self.text, "{column:>9}");
        }
        self.text.push('\n');
    }

    /// A row: what was `seen` just now, and what the counters say after `rounds` such
    /// exchanges, of whose packets up `marks` have been marked in all.
    fn add(
        &mut self,
        name: &str,
        agent: &Agent<'_>,
        seen: &Seen,
        marked: &Marks<'_>,
        marks: u64,
        rounds: u64,
    ) -> Result<()> {
        let metrics = agent.metrics()?;
        let mut right = true;
        for direction in ["up", "down"] {
            for (class, count) in SENT {
                let counted = metrics.packets(&[("class", class), ("direction", direction)]);
                if counted != rounds * count {
                    right = false;
                    let _ = writeln!(
                        self.text,
                        "  {class} {direction}: {counted}, not {}",
                        rounds * count
                    );
                }
            }
        }
        let counted = |direction| metrics.packets(&[("direction", direction)]);
        let ef = |seen: &[u8]| seen.iter().filter(|dscp| **dscp == EF).count() as u64;
        let row = [
            counted("up"),
            marked.read("up")?,
            ef(&seen.up),
            counted("down"),
            marked.read("down")?,
            ef(&seen.down),
        ];
        let all = rounds * sent();
        right &= row == [all, marks, sent(), all, 0, sent()];
        let columns = row.map(|number| number.to_string());
        self.line(
            name,
            &sent().to_string(),
            columns.each_ref().map(String::as_str),
        );
        if !right {
            self.wrong += 1;
        }
        ensure!(
            seen.up.len() as u64 == sent() && seen.down.len() as u64 == sent(),
            "doubled"
        );
        Ok(())
    }
}
