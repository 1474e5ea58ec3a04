//! Exits and policies by client, by the scripts alone: no agent has ever run on the router. And by the kernel's own
//! programs, on the same packets.

use std::net::UdpSocket;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use wificall_tests::agent::Agent;
use wificall_tests::lab::{EF, Lab, PHONE4, PHONE6, Watch};
use wificall_tests::netns::Netns;
use wificall_tests::send::{self, NATT};

use super::{Tools, export, same};

/// Where the lab's own rules for marks lead nowhere.
fn configuration(phone: &str, table: u32) -> String {
    format!(
        r#"
[interfaces]
access = ["lan", "wlan*"]
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[discovery]
prefixes = ["198.18.0.0/26", "198.18.0.64/26", "198.18.0.128/26", "198.18.3.3/32", "2001:db8:18::/64", "2001:db8:18:1::/64", "2001:db8:18:2::/64", "198.18.3.4/32", "2001:db8:18:3::/64"]
[[exit]]
name = "far"
gateways = ["198.19.255.6", {{ address = "fd00:2::2", device = "exit" }}, "{GATEWAY4}", "{GATEWAY6}"]
table = {table}
mark = "0x6600/0xff00"
[[exit]]
name = "without-ipv6"
gateways = ["198.19.255.6"]
table = 3065
mark = "0x6700/0xff00"
when_none = "block"
[[policy]]
name = "other-client"
clients = ["10.77.9.0/24", "02:00:00:00:99:99", "fd77:9::/64"]
drop = true
[[policy]]
name = "other-interface"
interfaces = ["wlan*"]
drop = true
[[policy]]
name = "network"
clients = ["10.77.0.0/24"]
prefixes = ["198.18.0.0/26"]
exit = "far"
[[policy]]
name = "station"
clients = ["{phone}"]
prefixes = ["198.18.0.64/26", "2001:db8:18:1::/64"]
exit = "far"
dscp = "CS5"
[[policy]]
name = "interface"
clients = ["fd77::2"]
interfaces = ["la*"]
prefixes = ["2001:db8:18::/64"]
exit = "far"
[[policy]]
name = "dropped"
prefixes = ["198.18.3.3/32"]
drop = true
[[policy]]
name = "blocked"
prefixes = ["198.18.3.4/32", "2001:db8:18:3::/64"]
exit = "without-ipv6"
[[policy]]
name = "left"
prefixes = ["198.18.0.128/26"]
keep = true
"#
    )
}

/// A gateway of an exit on the phones' network, which only its own traffic makes matter.
const GATEWAY4: &str = "10.77.0.9";
const GATEWAY6: &str = "fd77::9";
/// A phone in a network whose packets are dropped.
const OTHER_CLIENT: &str = "10.77.9.2";

/// The lab, and the gateway with a link-layer address of its own.
fn lab() -> Result<(Lab, Netns)> {
    let lab = Lab::new()?;
    let gateway = Netns::new("gateway")?;
    lab.phone.ip(&format!(
        "link add link eth0 name gw0 netns {} type macvlan mode bridge",
        gateway.name()
    ))?;
    gateway.address(
        "gw0",
        &[&format!("{GATEWAY4}/24"), &format!("{GATEWAY6}/64")],
    )?;
    gateway.ip("route add default via 10.77.0.1")?;
    gateway.ip("route add default via fd77::1")?;
    lab.phone
        .address("eth0", &[&format!("{OTHER_CLIENT}/24")])?;
    lab.router.ip("route add 10.77.9.0/24 dev lan")?;
    Ok((lab, gateway))
}

/// What arrives: its DSCP, and whether by the exit; `None`: nothing.
type Outcome = Option<(u8, bool)>;

/// From, to, and what comes of it.
const PACKETS: [(&str, &str, Outcome); 20] = [
    (PHONE4, "198.18.0.10", Some((EF, true))),
    (PHONE4, "198.18.0.70", Some((40, true))),
    (PHONE6, "2001:db8:18:1::10", Some((40, true))),
    (PHONE6, "2001:db8:18::10", Some((EF, true))),
    (PHONE4, "198.18.3.3", None),
    (PHONE4, "198.18.0.140", Some((0, false))),
    (PHONE6, "2001:db8:18:2::10", Some((EF, false))),
    (PHONE4, "198.18.3.4", Some((EF, true))),
    // There is no gateway, and it is not to leak.
    (PHONE6, "2001:db8:18:3::10", None),
    (OTHER_CLIENT, "198.18.0.10", None),
    (OTHER_CLIENT, "198.18.0.140", None),
    // Marked, it would come back to the gateway.
    (GATEWAY4, "198.18.0.10", Some((0, false))),
    (GATEWAY4, "198.18.0.70", Some((0, false))),
    (GATEWAY6, "2001:db8:18:1::10", Some((0, false))),
    (GATEWAY6, "2001:db8:18::10", Some((0, false))),
    (GATEWAY4, "198.18.3.4", Some((0, false))),
    (GATEWAY6, "2001:db8:18:3::10", Some((0, false))),
    // No exit is in play.
    (GATEWAY4, "198.18.3.3", None),
    (GATEWAY6, "2001:db8:18:2::10", Some((EF, false))),
    // No endpoint.
    (PHONE4, "203.0.113.10", Some((0, false))),
];

fn compare((lab, gateway): &(Lab, Netns), set_up: bool) -> Result<()> {
    let watch = Watch::start(&lab.far)?;
    let mut expected = Vec::new();
    for (sequence, (from, to, arrival)) in (1..).zip(PACKETS) {
        let arrival = if set_up { arrival } else { Some((0, false)) };
        expected.extend(arrival.map(|(dscp, exit)| (sequence, dscp, exit)));
        let sender = match from {
            GATEWAY4 | GATEWAY6 => gateway,
            _ => &lab.phone,
        };
        let socket = sender.enter(|| UdpSocket::bind((from, 0)))?;
        socket.send_to(&send::esp(sequence, 100), (to, NATT))?;
    }
    watch.wait(expected.len() as u64)?;
    let mut arrived: Vec<_> = watch
        .finish()?
        .iter()
        .map(|arrival| (arrival.sequence, arrival.dscp, arrival.marked))
        .collect();
    arrived.sort_unstable();
    ensure!(arrived == expected, "{arrived:?}, expected {expected:?}");
    Ok(())
}

fn state(lab: &Lab, tools: &Tools) -> Result<String> {
    let routing = "for f in 4 6; do ip -$f rule; ip -$f route show table all; done";
    Ok(tools.state(&lab.router)? + &tools.run(&lab.router, routing)?)
}

fn script(format: &str, tools: &Tools) -> Result<()> {
    let both = lab()?;
    let lab = &both.0;
    let router = &lab.router;
    let agent = Agent::new(router, &configuration(&lab.phone.mac("eth0")?, 2065))?;
    let directory = TempDir::new()?;
    // Somebody else's, in the same places.
    router.ip("rule add fwmark 0x1/0xf lookup 2065 priority 999")?;
    router.ip("route add 192.0.2.0/24 dev wan table 2065")?;
    tools.run(
        router,
        "for p in iptables ip6tables; do $p -t mangle -N OTHER; $p -t mangle -A PREROUTING -j OTHER; done",
    )?;
    let before = state(lab, tools)?;
    compare(&both, false)?;
    let run = |file: &Path, what: &str| tools.script(router, file, what).map(drop);
    let file = export(&agent, &[format, "--offline"], directory.path())?;
    run(&file, "up")?;
    compare(&both, true)?;
    let up = state(lab, tools)?;
    run(&file, "up")?;
    same(&state(lab, tools)?, &up).context("up twice")?;

    // Another table: of the first one nothing is left.
    agent.configure(&configuration(&lab.phone.mac("eth0")?, 2066))?;
    let other = export(&agent, &[format, "--offline"], directory.path())?;
    run(&other, "up")?;
    compare(&both, true)?;
    let moved = up.replace("2065", "2066");
    let theirs = |text: String| {
        text.replace("0x1/0xf lookup 2066", "0x1/0xf lookup 2065")
            .replace(
                "192.0.2.0/24 dev wan table 2066",
                "192.0.2.0/24 dev wan table 2065",
            )
    };
    let sorted = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    same(&sorted(&state(lab, tools)?), &sorted(&theirs(moved))).context("another table")?;

    for _ in 0..2 {
        run(&other, "down")?;
        same(&state(lab, tools)?, &before).context("down")?;
    }
    compare(&both, false)
}

#[test]
fn the_nft_script_steers() -> Result<()> {
    script("nft-script", &Tools::new("nft", &["busybox", "sh"])?)
}

#[test]
fn the_iptables_script_steers() -> Result<()> {
    script("iptables-script", &Tools::new("nft", &["busybox", "sh"])?)
}

#[test]
fn the_iptables_script_steers_with_the_legacy_programs() -> Result<()> {
    script("iptables-script", &Tools::new("legacy", &["sh"])?)
}

/// The kernel's own programs and an agent's exits.
#[test]
fn the_data_plane_steers_alike() -> Result<()> {
    let both = lab()?;
    let (lab, _) = &both;
    let mut agent = Agent::new(&lab.router, &configuration(&lab.phone.mac("eth0")?, 2065))?;
    compare(&both, false)?;
    agent.start()?;
    compare(&both, true)?;
    agent.finish()
}
