//! A gateway whose own way out is the router: what it forwards has the phone's address and comes in where phones are.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{
    AU, Bypass, COUNTRIES, DE, DIRECT, FAST, PHONES, ROUTER, US, Watch, basis, by_place,
    configuration, settle,
};
use wificall_tests::send::{self, NATT};

use crate::call::begins;

/// It does not translate addresses.
const GATEWAY: usize = 4;
const PACKETS: u32 = 20;

/// A phone's tunnel goes by the gateway, and from there once more through the router, which sends it out: not back to the
/// gateway, and nothing of it is taken for the phone's.
#[test]
fn what_a_gateway_forwards_goes_its_own_way_and_the_tunnel_keeps_its_exit() -> Result<()> {
    let scene = Bypass::new()?;
    for via in ROUTER {
        scene.gateways[GATEWAY].ip(&format!("route replace default via {via} dev eth0"))?;
    }
    let agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    let sockets = US.epdg.map(|epdg| -> Result<_> {
        let to: IpAddr = epdg.parse()?;
        let from = send::address(PHONES[0][usize::from(to.is_ipv6())], 0)?;
        Ok((send::udp(&scene.phones[0], &from.to_string())?, to))
    });
    let [four, six] = sockets;
    let sockets = [four?, six?];
    let say = |what: &str| -> Result<()> {
        for (socket, to) in &sockets {
            let to = *to;
            let watch = Watch::of(&scene, move |it| it.to == to && it.number.is_some())?;
            for number in 0..PACKETS {
                socket.send_to(&send::esp(number, 160), (to, NATT))?;
            }
            settle(&watch, 2 * u64::from(PACKETS)).with_context(|| format!("{what}, to {to}"))?;
            let mut expected = [0; DIRECT + 1];
            expected[GATEWAY] = PACKETS.into();
            expected[DIRECT] = PACKETS.into();
            let places = by_place(&watch.finish()?);
            ensure!(places == expected, "{what}, to {to}: {places:?}");
        }
        Ok(())
    };
    for (socket, to) in &sockets {
        socket.send_to(&send::ike_behind_marker(300), (*to, NATT))?;
    }
    say("as it begins")?;
    // From now on it goes by what was noted when it began.
    let exits = COUNTRIES.map(|country| country.exit(FAST)).concat();
    agent.configure(&(basis() + &exits + &DE.by(DE) + &AU.by(AU) + &US.by(DE)))?;
    agent.ask(&["reload"])?;
    say("after a reload")?;
    for epdg in US.epdg {
        ensure!(
            begins(&scene, 1, epdg)? == Some(0),
            "another phone, to {epdg}"
        );
    }
    say("after another phone's")?;
    agent.finish()
}
