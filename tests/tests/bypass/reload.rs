//! Policies change in a call: it stays where it is, and who comes anew goes by the new ones.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{
    AU, Bypass, COUNTRIES, DE, DIRECT, FAST, NAMES, US, basis, configuration,
};
use wificall_tests::lab::LIMIT;

use crate::call::{Calls, FAMILIES, begins};
use crate::failover::wait_routes;

/// What takes a tunnel's ESP for silence, and more.
const LONGER: Duration = Duration::from_secs(35);

/// As [`configuration`], but Germany goes by the exit of another country.
fn germany_by(exit: &wificall_tests::bypass::Country) -> String {
    let exits = COUNTRIES.map(|country| country.exit(FAST)).concat();
    basis() + &exits + &DE.by(exit) + &AU.by(AU) + &US.by(US)
}

/// The call has taken one way only, and nothing of it was lost in either direction.
fn nothing_lost(what: &str, calls: Calls, place: usize) -> Result<()> {
    for (family, ended) in FAMILIES.iter().zip(calls.finish()?) {
        let way = ended.way();
        println!(
            "| {what} | {family} | {way:?} | {} lost up, {} down | {} ms at most between two |",
            ended.lost_up,
            ended.lost_down,
            ended.silence.as_millis()
        );
        ensure!(
            way.len() == 1 && way[0].0 == NAMES[place],
            "{family}: {way:?}"
        );
        ensure!(ended.lost_up == 0 && ended.lost_down == 0, "{family}: lost");
    }
    Ok(())
}

fn all_begin(scene: &Bypass, phone: usize, place: usize) -> Result<()> {
    for epdg in DE.epdg {
        let at = begins(scene, phone, epdg)?;
        ensure!(
            at == Some(place),
            "phone {phone} to {epdg}: {at:?}, not {}",
            NAMES[place]
        );
    }
    Ok(())
}

#[test]
fn a_call_stays_where_it_is_when_its_policy_changes() -> Result<()> {
    let scene = Bypass::new()?;
    let mut agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, DE, 0)?;
    agent.configure(&germany_by(US))?;
    agent.ask(&["reload"])?;
    calls.watch.wait_more(0, 50)?;
    all_begin(&scene, 1, 4).context("after a reload")?;
    // A crash, and the next agent.
    agent.kill()?;
    calls.watch.wait_more(0, 50)?;
    agent.start()?;
    calls.watch.wait_more(0, 50)?;
    all_begin(&scene, 1, 4).context("after a crash")?;
    // And to another again.
    agent.configure(&germany_by(AU))?;
    agent.ask(&["reload"])?;
    calls.watch.wait_more(0, 50)?;
    // The other phone has begun anew: it is the third exit's now.
    all_begin(&scene, 1, 2).context("after another reload")?;
    nothing_lost("another exit", calls, 0)?;
    // The phone that has called begins a tunnel anew.
    all_begin(&scene, 0, 2)?;
    agent.finish()
}

#[test]
fn a_call_goes_on_directly_when_there_are_exits_for_the_first_time() -> Result<()> {
    let scene = Bypass::new()?;
    let before = basis() + "[[policy]]\nname = \"de\"\ncountries = [\"DE\"]\n";
    let mut agent = Agent::run(&scene.router, &before)?;
    let calls = Calls::start(&scene, DE, DIRECT)?;
    agent.configure(&configuration(FAST))?;
    agent.ask(&["reload"])?;
    calls.watch.wait_more(DIRECT, 50)?;
    all_begin(&scene, 1, 0).context("after a reload")?;
    agent.kill()?;
    calls.watch.wait_more(DIRECT, 50)?;
    agent.start()?;
    calls.watch.wait_more(DIRECT, 50)?;
    all_begin(&scene, 1, 0).context("after a crash")?;
    nothing_lost("the first exits", calls, DIRECT)?;
    all_begin(&scene, 0, 0)?;
    agent.finish()
}

#[test]
fn a_call_stays_where_it_is_while_the_agent_is_replaced() -> Result<()> {
    let scene = Bypass::new()?;
    let mut agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, DE, 0)?;
    agent.kill()?;
    // What is read at the start is another policy at once.
    agent.configure(&germany_by(US))?;
    agent.start()?;
    calls.watch.wait_more(0, 50)?;
    all_begin(&scene, 1, 4)?;
    agent.stop()?;
    calls.watch.wait_more(0, 50)?;
    agent.start()?;
    calls.watch.wait_more(0, 50)?;
    nothing_lost("a crash and another exit", calls, 0)?;
    agent.finish()
}

/// An exit has one gateway at a time: who begins meanwhile goes by the call's, and all by the preferred one when nobody
/// calls.
#[test]
fn a_preferred_gateway_that_a_reload_adds_waits_until_nobody_calls() -> Result<()> {
    let scene = Bypass::new()?;
    let by = |gateways: &[[&str; 2]]| {
        let others = [AU, US].map(|country| country.exit(FAST)).concat();
        let policies = COUNTRIES.map(|country| country.by(&country)).concat();
        basis() + &DE.exit_by(&gateways.concat(), FAST) + &others + &policies
    };
    let agent = Agent::run(&scene.router, &by(&DE.gateways[1..]))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, DE, 1)?;
    agent.configure(&by(&DE.gateways))?;
    agent.ask(&["reload"])?;
    Bypass::wait_gateways(&agent, 0).context("the new gateway")?;
    thread::sleep(LONGER);
    all_begin(&scene, 1, 1).context("in the call")?;
    nothing_lost("a preferred gateway", calls, 1)?;
    wait_routes(&scene, DE.gateways[0], 3 * LIMIT).context("the call is over")?;
    for phone in [0, 1] {
        all_begin(&scene, phone, 0).context("after the call")?;
    }
    agent.finish()
}
