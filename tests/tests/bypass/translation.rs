//! The router translates addresses towards its gateways: a call that moves is translated for the gateway it moves to.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{AU, Bypass, DIRECT, FAST, PHONES, ROUTER, basis, masquerade, nft};
use wificall_tests::stolen::on_time;

use crate::call::{Calls, Ended, FAMILIES};

/// Another network of the same LAN, with the second gateway in it: who sends there has another address.
const SECOND: [&str; 2] = ["10.78.0.1", "10.78.0.22"];

/// The first gateway dies; what comes to the other place then bears these addresses, IPv4 and IPv6.
fn moves(
    keys: &str,
    to: usize,
    from: [&str; 2],
    translate: impl Fn(&Bypass) -> Result<()>,
) -> Result<()> {
    on_time(|| moves_once(keys, to, from, &translate))
}

fn moves_once(
    keys: &str,
    to: usize,
    from: [&str; 2],
    translate: impl Fn(&Bypass) -> Result<()>,
) -> Result<()> {
    let scene = Bypass::new()?;
    for (host, device, address) in [
        (&scene.router, "lan", SECOND[0]),
        (&scene.gateways[3], "eth0", SECOND[1]),
    ] {
        host.address(device, &[&format!("{address}/24")])?;
    }
    translate(&scene)?;
    let [first, second] = AU.gateways;
    let exit = AU.exit_by(&[first[0], SECOND[1], first[1], second[1]], keys);
    let agent = Agent::run(&scene.router, &(basis() + &exit + &AU.by(AU)))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, AU, 2)?;
    scene.kill(2)?;
    calls.watch.wait_more(to, 50)?;
    Bypass::wait_gateways(&agent, 2)?;
    calls.watch.wait_more(to, 50)?;
    let calls = calls.finish()?;
    hold(calls, to, from).with_context(|| agent.log())?;
    agent.finish()
}

/// What has arrived and how it was translated.
fn hold(calls: [Ended; 2], to: usize, from: [&str; 2]) -> Result<()> {
    for ((family, ended), from) in FAMILIES.iter().zip(calls).zip(from) {
        let (before, after) = (ended.up.first(), ended.up.last());
        let (before, after) = before.zip(after).context("nothing arrived")?;
        println!(
            "{family}: from {} to {}, {} ms, {} lost up, {} down",
            before.from,
            after.from,
            ended.gap(2)?.as_millis(),
            ended.lost_up,
            ended.lost_down
        );
        let from: IpAddr = from.parse()?;
        let moved = ended.up.iter().filter(|it| it.place == to);
        let wrong = moved.filter(|it| it.from != from).count();
        // Some come between the change of the route and the end of the old translation.
        println!("{family}: {wrong} still as before");
        ensure!(wrong <= 25, "{family}: {wrong} still as before");
        ensure!(after.from == from, "{family}: {}, not {from}", after.from);
        ensure!(ended.lost_down < ended.lost_up + 25, "{family}: no answers");
        ensure!(
            ended.silence < Duration::from_secs(2),
            "{family}: {:?}",
            ended.silence
        );
    }
    Ok(())
}

#[test]
fn the_next_gateway_is_given_packets_from_the_routers_address_on_its_network() -> Result<()> {
    moves(FAST, 3, [SECOND[0], ROUTER[1]], |scene| {
        masquerade(&scene.router, "lan")
    })
}

#[test]
fn what_goes_on_directly_has_the_phones_own_address() -> Result<()> {
    let keys = format!("{FAST}\nwhen_down = \"direct\"");
    // Not by masquerading, of which the kernel itself forgets what leaves by another device.
    moves(&keys, DIRECT, PHONES[0], |scene| {
        let [v4, v6] = ROUTER;
        let commands = [
            "add table inet nat",
            "add chain inet nat post { type nat hook postrouting priority 100 ; }",
            &format!("add rule inet nat post oifname lan meta nfproto ipv4 snat ip to {v4}"),
            &format!("add rule inet nat post oifname lan meta nfproto ipv6 snat ip6 to {v6}"),
        ];
        nft(&scene.router, &commands)
    })
}
