//! A thousand policies and ten thousand endpoints: how long a reload takes, and that no packet goes without its mark
//! meanwhile.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::lab::{LIMIT, Lab, Watch};
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, NATT, Stream};

const POLICIES: u32 = 1_000;
const ENDPOINTS: u32 = 10_000;
const RATE: u32 = 5_000;
const RELOADS: u32 = 5;

/// The address that packets are sent to, of the last policy.
const TO: &str = "11.39.15.7";
const FROM: &str = "10.77.0.2";

/// Every policy has its operator, ten blocks, and a mark that leads to the exit; each third is for a client only, and its
/// endpoints are left alone for others.
fn configuration(dscp: &str) -> String {
    let mut text = format!(
        "[interfaces]\naccess = [\"lan\"]\n[lab]\n[limits]\nprefixes = {ENDPOINTS}\npolicies = {}\nclients = {POLICIES}\n",
        4 * POLICIES
    );
    for index in 0..ENDPOINTS {
        let (a, b) = (index >> 8, index & 0xff);
        let _ = writeln!(
            text,
            "[[prefix]]\nprefix = \"11.{a}.{b}.0/24\"\noperator = \"001-{:03}\"",
            index % POLICIES
        );
    }
    for index in 0..POLICIES {
        let mark = index << 8 | 0x65;
        let _ = writeln!(
            text,
            "[[policy]]\nname = \"p{index}\"\noperators = [\"001-{index:03}\"]\ndscp = \"{dscp}\"\nmark = \"{mark:#x}/0xffffff\""
        );
        if index.is_multiple_of(3) {
            let _ = writeln!(
                text,
                "clients = [\"10.77.0.0/24\", \"10.{}.{}.0/24\"]",
                78 + (index >> 8),
                index & 0xff
            );
        }
    }
    text
}

#[test]
fn a_reload_of_a_thousand_policies_leaves_no_packet_without_its_mark() -> Result<()> {
    let lab = Lab::new()?;
    lab.far.ip("route add local 11.0.0.0/8 dev lo")?;
    let mut agent = Agent::new(&lab.router, &configuration("EF"))?;
    agent.log_less();
    agent.start()?;
    // Endpoint 9,999 of policy 999, which is for a client.
    let block = "11.39.15.0/24";
    ensure!(
        ENDPOINTS - 1 == 39 << 8 | 15 && (POLICIES - 1).is_multiple_of(3),
        "{block} is the last"
    );
    lab.wait_treated(FROM, TO)
        .context("before the first reload")?;
    let watch = Watch::start(&lab.far)?;
    let socket = send::udp(&lab.phone, &format!("{FROM}:4500"))?;
    let stream = Stream::start(socket, send::address(TO, NATT)?, RATE, 100);
    let mut times = Vec::new();
    for round in 0..RELOADS {
        agent.configure(&configuration(if round.is_multiple_of(2) {
            "VA"
        } else {
            "EF"
        }))?;
        let start = Instant::now();
        agent.ask(&["reload"])?;
        times.push(start.elapsed().as_millis());
    }
    let sent = stream.finish()?;
    watch.wait(sent.into())?;
    let arrived = watch.finish()?;
    let unmarked = arrived.iter().filter(|arrival| !arrival.marked).count();
    let voice = [44, 46];
    let other = arrived
        .iter()
        .filter(|arrival| !voice.contains(&arrival.dscp));
    let other = other.count();
    println!(
        "{POLICIES} policies, {ENDPOINTS} endpoints: reloads took {times:?} ms; of {sent} packets {unmarked} had no mark, \
         {other} another DSCP"
    );
    ensure!(
        arrived.len() == sent as usize,
        "{} of {sent} arrived",
        arrived.len()
    );
    ensure!(unmarked == 0 && other == 0);
    ensure!(
        arrived.iter().any(|arrival| arrival.dscp == 44),
        "a reload came in force"
    );
    // A loaded machine takes its time for the tables.
    wait_for("the agent's metrics", LIMIT, || {
        let metrics = agent.metrics()?;
        ensure!(metrics.sum("wificall_policies_left_out", &[]) == 0);
        ensure!(metrics.sum("wificall_choices_left_out", &[]) == 0);
        Ok(())
    })?;
    agent.finish()
}
