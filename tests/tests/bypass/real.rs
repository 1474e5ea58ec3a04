//! A real phone and a real ePDG (strongSwan), with a call inside their tunnel.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::bypass::{Bypass, DE, FAST, PHONES, Watch, configuration};
use wificall_tests::capture::Capture;
use wificall_tests::lab::LIMIT;
use wificall_tests::process::wait_for;
use wificall_tests::send;
use wificall_tests::stolen::on_time;
use wificall_tests::swan::{self, Connection, Swan};
use wificall_tests::view::View;

use crate::call::{FAMILIES, Talk, begins, missed};

/// Asks whether the peer is alive after a second without a packet from it, and every second again: a phone does so after
/// tens of seconds.
const IMPATIENT: &str =
    "retransmit_timeout = 1.0\n  retransmit_base = 1.0\n  retransmit_tries = 20";

/// Both gateways translate addresses: for the ePDG, the phone comes from another one all at once.
///
/// What the ePDG sends goes on to the old address here: `kernel-libipsec` makes either end believe that it is itself behind
/// a NAT, and who is does not follow the other's address (RFC 7296 §2.23). So only what goes up is judged in the old tunnel.
#[test]
fn an_ike_sa_survives_the_next_gateway() -> Result<()> {
    on_time(survives_the_next_gateway)
}

fn survives_the_next_gateway() -> Result<()> {
    let scene = Bypass::new()?;
    let agent = Agent::run(&scene.router, &configuration(FAST))?;
    Bypass::wait_gateways(&agent, 0)?;
    let inside = ["10.98.0.1", "10.98.0.2"];
    for address in inside {
        scene
            .internet
            .ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let names = ["four", "six"];
    let connection = |family: usize| Connection {
        name: names[family],
        local: PHONES[0][family],
        remote: DE.epdg[family],
        inside: inside[family],
    };
    let settings = swan::phone(&[connection(0), connection(1)]);
    let settings = settings.replace("version = 2", "version = 2\n    dpd_delay = 1s");
    let epdg = Swan::start(&scene.internet, &swan::epdg(), None)?;
    let phone = Swan::start_with(&scene.phones[0], &settings, None, IMPATIENT)?;
    let watch = Watch::start(&scene)?;
    let mut talks = Vec::new();
    for (name, address) in names.iter().zip(inside) {
        phone.initiate(name)?;
        let to = send::address(address, 7000)?;
        let near = scene.phones[0].enter(|| UdpSocket::bind("0.0.0.0:0"))?;
        let far = scene.internet.enter(|| UdpSocket::bind(to))?;
        talks.push(Talk::start(near, to, far));
    }
    let before = sas(&phone, names)?;
    watch.wait_more(0, 100)?;
    scene.kill(0)?;
    watch.wait_more(1, 50)?;
    // The phone asks whether the ePDG is alive, and is answered by the other gateway.
    let answers = Capture::start(&scene.gateways[1], "eth0", |frame| {
        let view = View::of(frame)?;
        let from = view.source.to_string();
        let family = DE.epdg.iter().position(|epdg| from == *epdg)?;
        (frame.outgoing && view.payload.starts_with(&[0; 4])).then_some(family)
    })?;
    wait_for("answers by the other gateway", LIMIT, || {
        ensure!(answers.kept() >= 6, "{}", answers.kept());
        Ok(())
    })
    .with_context(|| format!("the phone:\n{}\nthe ePDG:\n{}", phone.log(), epdg.log()))?;
    let answers = answers.finish()?;
    for (family, name) in FAMILIES.iter().enumerate() {
        ensure!(answers.contains(&family), "no answers in {name}");
    }
    let after = sas(&phone, names)?;
    println!("| family | up: ms without a packet | lost | IKE SA |");
    for (index, (talk, family)) in talks.into_iter().zip(FAMILIES).enumerate() {
        let [near, far] = talk.finish()?;
        let (lost, silence) = missed(&near, &far)?;
        let same = before[index] == after[index];
        let which = if same { "the same" } else { "another" };
        println!("| {family} | {} | {lost} | {which} |", silence.as_millis());
        ensure!(same, "{before:?}, then {after:?}");
        ensure!(silence < Duration::from_secs(2), "{silence:?}");
    }
    // What is set up anew works in both directions.
    for (name, address) in names.iter().zip(inside) {
        phone.terminate(name)?;
        phone.initiate(name)?;
        scene.phones[0].run("ping", &format!("-q -c5 -i0.02 -W5 {address}"))?;
    }
    let old = watch.at(0);
    ensure!(begins(&scene, 1, DE.epdg[0])? == Some(1) && watch.at(0) == old);
    agent.finish()
}

/// The established IKE SAs of these connections, by their SPIs.
fn sas(phone: &Swan, names: [&str; 2]) -> Result<[String; 2]> {
    let all = phone.sas()?;
    let of = |name: &str| {
        let head = format!("{name}: #");
        let line = all.lines().find(|line| line.starts_with(&head));
        let line = line.filter(|line| line.contains("ESTABLISHED"));
        Ok::<_, anyhow::Error>(
            line.with_context(|| format!("no SA {name}: {all}"))?
                .to_owned(),
        )
    };
    Ok([of(names[0])?, of(names[1])?])
}
