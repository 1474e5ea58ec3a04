//! An exit that blocks does not block emergency calls.

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{Bypass, Country, DE, DIRECT, FAST, basis, wan};
use wificall_tests::dns::Dns;
use wificall_tests::lab::LIMIT;
use wificall_tests::process::wait_for;

use crate::call::{Calls, FAMILIES, begins};

const NAME: &str = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
/// In the networks of all ePDGs of Germany, and known as one for emergency calls by its name alone.
const SOS: Country = Country {
    epdg: ["198.18.1.112", "2001:db8:1801::112"],
    ..*DE
};

#[test]
fn an_exit_that_blocks_lets_emergency_calls_pass() -> Result<()> {
    let scene = Bypass::new()?;
    scene.internet.address("lo", &SOS.epdg)?;
    let [server, _] = wan(DIRECT, 2);
    let sos = format!("sos.{NAME}");
    let _dns = Dns::start(
        &scene.internet,
        &[&server],
        3600,
        &[(NAME, &DE.epdg), (&sos, &SOS.epdg)],
    )?;
    let keys = format!("{FAST}\nwhen_down = \"block\"");
    let names = format!("[discovery]\noperators = [\"262-01\"]\nresolvers = [\"{server}\"]\n");
    let configuration = basis().replace("[discovery]\n", &names) + &DE.exit(&keys) + &DE.by(DE);
    let agent = Agent::run(&scene.router, &configuration)?;
    wait_for("the names", LIMIT, || {
        let known = agent.status()?["discovery"]["addresses"].clone();
        ensure!(known == 4, "{known} addresses, not 4");
        Ok(())
    })?;
    Bypass::wait_gateways(&agent, 0)?;
    // While there is a gateway, emergency calls go by it like all.
    let calls = Calls::start(&scene, &SOS, 0)?;
    scene.kill(0)?;
    calls
        .watch
        .wait_more(DIRECT, 100)
        .context("the emergency call")?;
    Bypass::wait_gateways(&agent, 2)?;
    for (phone, place) in [(0, None), (1, None)] {
        for epdg in DE.epdg {
            let at = begins(&scene, phone, epdg)?;
            ensure!(at == place, "{epdg} goes to {at:?}, although it is blocked");
        }
    }
    for epdg in SOS.epdg {
        let at = begins(&scene, 1, epdg)?;
        ensure!(
            at == Some(DIRECT),
            "another emergency call to {epdg}: {at:?}"
        );
    }
    calls
        .watch
        .wait_more(DIRECT, 50)
        .context("the emergency call goes on")?;
    for (family, ended) in FAMILIES.iter().zip(calls.finish()?) {
        println!(
            "emergency call, {family}: {:?}, {} ms without a packet, {} lost up, {} down",
            ended.way(),
            ended.gap(0)?.as_millis(),
            ended.lost_up,
            ended.lost_down
        );
        let way: Vec<_> = ended.way().iter().map(|(name, _)| *name).collect();
        ensure!(way == ["de1", "direct"], "{way:?}");
    }
    scene.revive(0)?;
    Bypass::wait_gateways(&agent, 0)?;
    for epdg in DE.epdg {
        ensure!(begins(&scene, 1, epdg)? == Some(0), "{epdg}");
    }
    agent.finish()
}
