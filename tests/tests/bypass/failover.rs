//! A gateway dies in a call.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{Bypass, DE, DIRECT, FAST, NAMES, configuration};
use wificall_tests::capture::Capture;
use wificall_tests::lab::LIMIT;
use wificall_tests::process::{wait_for, wait_until};
use wificall_tests::stolen::on_time;
use wificall_tests::view::View;

use crate::call::{Calls, Ended, FAMILIES, begins};

const FIRST: usize = 0;
const SECOND: usize = 1;

/// How a gateway goes.
#[derive(Clone, Copy)]
enum Death {
    /// Its port in the switch goes down.
    Port,
    /// Somebody removes its addresses.
    Addresses,
}

impl Death {
    const fn text(self) -> &'static str {
        match self {
            Self::Port => "switch port down",
            Self::Addresses => "addresses removed",
        }
    }

    fn strike(self, scene: &Bypass) -> Result<()> {
        match self {
            Self::Port => scene.kill(FIRST),
            Self::Addresses => {
                for address in DE.gateways[0] {
                    let length = if address.contains(':') { 64 } else { 24 };
                    scene.gateways[FIRST].ip(&format!("addr del {address}/{length} dev eth0"))?;
                }
                Ok(())
            }
        }
    }

    fn undo(self, scene: &Bypass) -> Result<()> {
        match self {
            Self::Port => scene.revive(FIRST),
            Self::Addresses => {
                let [v4, v6] = DE.gateways[0];
                scene.gateways[FIRST].address("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")])
            }
        }
    }
}

fn print(exit: &str, death: Death, calls: &[Ended; 2], gaps: [Duration; 2]) {
    println!(
        "| exit | what goes | family | up: ms without a packet | lost | down: ms without a packet | lost |"
    );
    for ((family, ended), gap) in FAMILIES.iter().zip(calls).zip(gaps) {
        println!(
            "| {exit} | {} | {family} | {} | {} | {} | {} |",
            death.text(),
            gap.as_millis(),
            ended.lost_up,
            ended.silence.as_millis(),
            ended.lost_down
        );
    }
}

fn gaps(calls: &[Ended; 2]) -> Result<[Duration; 2]> {
    Ok([calls[0].gap(FIRST)?, calls[1].gap(FIRST)?])
}

/// Waits until the exit's routes are through these, IPv4 and IPv6.
pub fn wait_routes(scene: &Bypass, via: [&str; 2], limit: Duration) -> Result<()> {
    wait_for("the exit's routes", limit, || {
        for (family, via) in ["-4", "-6"].iter().zip(via) {
            let table = DE.table;
            let routes = scene
                .router
                .ip(&format!("{family} route show table {table}"))?;
            ensure!(routes.contains(&format!("via {via} ")), "{routes}");
        }
        Ok(())
    })
}

/// The first gateway dies in a call, another way takes over, the gateway returns. The way of the call is then `way`: with
/// another gateway it stays there, and only when nobody calls any more the first is used again.
fn a_call_survives(
    keys: &str,
    exit: &str,
    death: Death,
    way: &[usize],
    limit: Duration,
) -> Result<()> {
    on_time(|| a_call_survives_once(keys, exit, death, way, limit))
}

fn a_call_survives_once(
    keys: &str,
    exit: &str,
    death: Death,
    way: &[usize],
    limit: Duration,
) -> Result<()> {
    let scene = Bypass::new()?;
    let agent = Agent::run(&scene.router, &configuration(keys))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, DE, FIRST)?;
    death.strike(&scene)?;
    calls.watch.wait_more(way[1], 50).context("the other way")?;
    death.undo(&scene)?;
    Bypass::wait_gateways(&agent, 0).context("the gateway returns")?;
    let last = way[way.len() - 1];
    calls
        .watch
        .wait_more(last, 100)
        .context("the call after it returned")?;
    let ended = calls.finish()?;
    let gaps = gaps(&ended)?;
    print(exit, death, &ended, gaps);
    let expected: Vec<_> = way.iter().map(|place| NAMES[*place]).collect();
    for (ended, gap) in ended.iter().zip(gaps) {
        let way: Vec<_> = ended.way().iter().map(|(name, _)| *name).collect();
        ensure!(way == expected, "{:?}\n{}", ended.way(), agent.log());
        ensure!(gap < limit, "{gap:?}");
        // What is lost is what was sent in the time between.
        let most = gap.as_millis() / 20 + 2;
        ensure!(ended.lost_up as u128 <= most, "{} of {most}", ended.lost_up);
    }
    if last != FIRST {
        // As nobody carries anything for half a minute.
        wait_routes(&scene, DE.gateways[0], 3 * LIMIT).context("the call is over")?;
    }
    for epdg in DE.epdg {
        ensure!(begins(&scene, 0, epdg)? == Some(FIRST), "{epdg}");
    }
    agent.finish()
}

#[test]
fn the_next_gateway_takes_over_a_call() -> Result<()> {
    let limit = Duration::from_millis(1_500);
    a_call_survives(
        FAST,
        "next, 100 ms × 3",
        Death::Port,
        &[FIRST, SECOND],
        limit,
    )
}

#[test]
fn the_next_gateway_takes_over_a_call_when_the_address_goes() -> Result<()> {
    let limit = Duration::from_millis(1_500);
    a_call_survives(
        FAST,
        "next, 100 ms × 3",
        Death::Addresses,
        &[FIRST, SECOND],
        limit,
    )
}

#[test]
fn the_next_gateway_takes_over_a_call_by_default() -> Result<()> {
    let limit = Duration::from_secs(6);
    a_call_survives(
        "",
        "next, 1 s × 3 (default)",
        Death::Port,
        &[FIRST, SECOND],
        limit,
    )
}

#[test]
fn a_call_goes_on_directly() -> Result<()> {
    let keys = format!("{FAST}\nwhen_down = \"direct\"");
    let limit = Duration::from_millis(1_500);
    a_call_survives(
        &keys,
        "direct, 100 ms × 3",
        Death::Port,
        &[FIRST, DIRECT, FIRST],
        limit,
    )
}

#[test]
fn a_call_is_refused_until_its_gateway_returns() -> Result<()> {
    on_time(refused_until_it_returns)
}

fn refused_until_it_returns() -> Result<()> {
    let scene = Bypass::new()?;
    let keys = format!("{FAST}\nwhen_down = \"block\"");
    let agent = Agent::run(&scene.router, &configuration(&keys))?;
    Bypass::wait_gateways(&agent, 0)?;
    let calls = Calls::start(&scene, DE, FIRST)?;
    // ICMP destination unreachable (RFC 792, RFC 4443 §3.1).
    let refused = Capture::start(&scene.phones[0], "eth0", |frame| {
        let view = View::of(frame)?;
        let family = match (view.protocol, view.payload.first()) {
            (1, Some(3)) => 0,
            (58, Some(1)) => 1,
            _ => return None,
        };
        (!frame.outgoing).then_some((family, frame.time))
    })?;
    scene.kill(FIRST)?;
    wait_until("refusals", LIMIT, || (refused.kept() > 2).then_some(()))?;
    Bypass::wait_gateways(&agent, 1 + 1)?;
    scene.revive(FIRST)?;
    calls
        .watch
        .wait_more(FIRST, 100)
        .context("the call after the gateway returned")?;
    let ended = calls.finish()?;
    let refused = refused.finish()?;
    let mut gaps = [Duration::ZERO; 2];
    for (family, (gap, ended)) in gaps.iter_mut().zip(&ended).enumerate() {
        ensure!(ended.way().len() == 1, "{:?}", ended.way());
        let first = refused.iter().find(|it| it.0 == family);
        let (_, at) = first.with_context(|| format!("no refusal: {}", FAMILIES[family]))?;
        let before = ended.up.iter().rfind(|it| it.time < *at);
        *gap = *at - before.context("no packet before")?.time;
        ensure!(*gap < Duration::from_millis(1_500), "{gap:?}");
    }
    print(
        "block (until refused), 100 ms × 3",
        Death::Port,
        &ended,
        gaps,
    );
    agent.finish()
}
