//! Policies that name clients and interfaces, and what happens to packets while they change.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::lab::{EF, EPDG4, EPDG6, LIMIT, Lab, PHONE4, PHONE6, Watch};
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, NATT, Stream};

/// More of the phone's addresses.
const SECOND4: &str = "10.77.0.3";
const THIRD4: &str = "10.77.0.130";
const SECOND6: &str = "fd77::3";

const ENDPOINTS: &str = r#"
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
[[prefix]]
prefix = "2001:db8:18::/64"
operator = "001-02"
"#;

fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    let more = [
        &format!("{SECOND4}/24"),
        &format!("{THIRD4}/24"),
        &format!("{SECOND6}/64"),
    ];
    lab.phone.address("eth0", &more.map(String::as_str))?;
    let mac = lab.phone.mac("eth0")?;
    for address in [SECOND4, THIRD4, SECOND6] {
        lab.router.ip(&format!(
            "neigh replace {address} lladdr {mac} dev lan nud permanent"
        ))?;
    }
    Ok(lab)
}

/// A policy, by its conditions and actions; `mark` leads to the exit.
fn policy(name: &str, rest: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\n{rest}\n")
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Marked,
    Plain,
    /// Neither marked nor with another DSCP than it had.
    Untouched,
    Dropped,
}

fn fate(lab: &Lab, from: &str) -> Result<Fate> {
    let to = if from.contains(':') { EPDG6 } else { EPDG4 };
    let watch = Watch::start(&lab.far)?;
    let socket = lab.phone.enter(|| UdpSocket::bind((from, 0)))?;
    socket.send_to(&send::esp(1, 100), (to, NATT))?;
    // What is not dropped comes after it: nobody has a policy for this one.
    let after = lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
    after.send_to(&send::esp(2, 100), (wificall_tests::lab::OTHER4, NATT))?;
    wait_for("the packet after it", LIMIT, || {
        ensure!(watch.arrived() >= 1);
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(20));
    let arrived = watch.finish()?;
    let Some(first) = arrived.iter().find(|arrival| arrival.sequence == 1) else {
        return Ok(Fate::Dropped);
    };
    Ok(match (first.marked, first.dscp) {
        (true, EF) => Fate::Marked,
        (false, EF) => Fate::Plain,
        (false, 0) => Fate::Untouched,
        other => anyhow::bail!("{other:?}"),
    })
}

#[test]
fn clients_go_their_own_way() -> Result<()> {
    use Fate::{Dropped, Marked, Plain, Untouched};
    const MARK: &str = "mark = \"0x65/0xff\"";
    let lab = lab()?;
    let mac = lab.phone.mac("eth0")?;
    let clients = |list: &[&str], action: &str| format!("clients = {list:?}\n{action}");
    // The fates of PHONE4, SECOND4, THIRD4, PHONE6, SECOND6.
    let rows: &[(&str, String, [Fate; 5])] = &[
        (
            "an address",
            policy("a", &clients(&[SECOND4, SECOND6], MARK)),
            [Plain, Marked, Plain, Plain, Marked],
        ),
        (
            "a network, and one in it that is left alone",
            policy("keep", &clients(&["10.77.0.0/30"], "keep = true"))
                + &policy("a", &clients(&["10.77.0.0/25", "fd77::/126"], MARK)),
            [Untouched, Untouched, Plain, Marked, Marked],
        ),
        (
            "the same the other way round",
            policy("a", &clients(&["10.77.0.0/31", "10.77.0.3"], MARK))
                + &policy(
                    "keep",
                    &clients(&["10.77.0.0/24", "fd77::3"], "keep = true"),
                ),
            [Untouched, Marked, Untouched, Plain, Untouched],
        ),
        (
            "a link-layer address",
            policy("a", &clients(&[&mac], MARK)),
            [Marked; 5],
        ),
        (
            "another link-layer address",
            policy("a", &clients(&["02:00:00:00:00:99"], MARK)),
            [Plain; 5],
        ),
        (
            "an address before a link-layer address",
            policy("keep", &clients(&[SECOND4], "keep = true"))
                + &policy("a", &clients(&[&mac], MARK)),
            [Marked, Untouched, Marked, Marked, Marked],
        ),
        (
            "an interface",
            policy("a", &format!("interfaces = [\"lan\"]\n{MARK}")),
            [Marked; 5],
        ),
        (
            "another interface",
            policy("a", &format!("interfaces = [\"other\"]\n{MARK}")),
            [Plain; 5],
        ),
        (
            "a client of one operator at an interface",
            policy(
                "a",
                &format!(
                    "operators = [\"001-01\"]\ninterfaces = [\"lan\"]\nclients = [\"{SECOND4}\", \"{SECOND6}\"]\n{MARK}"
                ),
            ),
            [Plain, Marked, Plain, Plain, Plain],
        ),
        (
            "a drop for one client",
            policy("no", &clients(&[THIRD4, PHONE6], "drop = true")),
            [Plain, Plain, Dropped, Dropped, Plain],
        ),
        (
            "a drop for all",
            policy("no", "operators = [\"001-01\"]\ndrop = true"),
            [Dropped, Dropped, Dropped, Plain, Plain],
        ),
    ];
    for interfaces in [
        "access = [\"lan\", \"other\"]",
        "access = [\"lan\", \"other\"]\nxdp = [\"lan\"]\nxdp_mode = \"generic\"",
    ] {
        let configuration =
            |policies: &str| format!("[interfaces]\n{interfaces}\n{ENDPOINTS}{policies}");
        let agent = Agent::run(&lab.router, &configuration(""))?;
        for (name, policies, expected) in rows {
            agent.configure(&configuration(policies))?;
            agent.ask(&["reload"]).context(*name)?;
            for (from, expected) in [PHONE4, SECOND4, THIRD4, PHONE6, SECOND6]
                .iter()
                .zip(expected)
            {
                let found = fate(&lab, from)?;
                ensure!(
                    found == *expected,
                    "{name}: {from}: {found:?}, not {expected:?}"
                );
            }
        }
        agent.finish()?;
    }
    Ok(())
}

/// The numbering of clients changes with each reload; the policy of one of them does not.
#[test]
fn no_packet_sees_half_a_reload() -> Result<()> {
    const RATE: u32 = 10_000;
    const RELOADS: u32 = 60;
    let lab = lab()?;
    let configuration = |round: u32| {
        let others: Vec<String> = (0..round % 7 * 5)
            .map(|n| format!("10.77.{}.0/{}", n + 1, 24 + n % 8))
            .collect();
        let mut policies = String::new();
        if !others.is_empty() {
            policies += &policy("others", &format!("clients = {others:?}\nkeep = true"));
        }
        if round.is_multiple_of(2) {
            policies += &policy("more", "clients = [\"10.77.0.0/31\"]\nkeep = true");
        }
        policies += &policy(
            "a",
            &format!("clients = [\"{SECOND4}\"]\nmark = \"0x65/0xff\""),
        );
        policies += &policy("rest", "operators = [\"001-01\"]\nkeep = true");
        format!("[interfaces]\naccess = [\"lan\"]\n{ENDPOINTS}{policies}")
    };
    let agent = Agent::run(&lab.router, &configuration(0))?;
    lab.wait_treated(SECOND4, EPDG4)?;
    let watch = Watch::start(&lab.far)?;
    let socket = send::udp(&lab.phone, &format!("{SECOND4}:4500"))?;
    let stream = Stream::start(socket, send::address(EPDG4, NATT)?, RATE, 100);
    for round in 1..=RELOADS {
        agent.configure(&configuration(round))?;
        agent.ask(&["reload"])?;
    }
    let sent = stream.finish()?;
    watch.wait(sent.into())?;
    let arrived = watch.finish()?;
    let wrong = arrived
        .iter()
        .filter(|arrival| !arrival.is_treated())
        .count();
    println!("{RELOADS} reloads, {sent} packets, {wrong} treated otherwise");
    ensure!(
        arrived.len() == sent as usize && wrong == 0,
        "{wrong} of {}",
        arrived.len()
    );
    agent.finish()
}

/// Programs without clients go by what is left of an endpoint's policies when nobody is told apart, and those are not always
/// what a client had before: so they are replaced before rows ask for clients, and the other way round.
#[test]
fn no_packet_goes_by_neither_policy_while_programs_are_swapped() -> Result<()> {
    const RATE: u32 = 5_000;
    const ROUNDS: u32 = 3;
    const VA: u8 = 44;
    const MARK: &str = "mark = \"0x65/0xff\"";
    let lab = lab()?;
    let mac = lab.phone.mac("eth0")?;
    let all = policy("all", &format!("operators = [\"001-01\"]\n{MARK}"));
    // Each needs a program that the one before did without.
    let features = [
        format!("clients = [\"{SECOND4}\"]"),
        format!("clients = [\"{mac}\"]"),
        "interfaces = [\"lan\"]".to_owned(),
    ];
    for interfaces in [
        "access = [\"lan\", \"other\"]",
        "access = [\"lan\", \"other\"]\nxdp = [\"lan\"]\nxdp_mode = \"generic\"",
    ] {
        let configuration =
            |policies: &str| format!("[interfaces]\n{interfaces}\n{ENDPOINTS}{policies}");
        let agent = Agent::run(&lab.router, &configuration(&all))?;
        lab.wait_treated(SECOND4, EPDG4)?;
        let watch = Watch::start(&lab.far)?;
        let socket = send::udp(&lab.phone, &format!("{SECOND4}:4500"))?;
        let stream = Stream::start(socket, send::address(EPDG4, NATT)?, RATE, 100);
        let mut reloads = 0;
        for _ in 0..ROUNDS {
            for who in &features {
                let own = policy("own", &format!("{who}\ndscp = \"VA\"\n{MARK}"));
                let rest = policy("rest", "operators = [\"001-01\"]\nkeep = true");
                for policies in [&(own + &rest), &all] {
                    agent.configure(&configuration(policies))?;
                    agent.ask(&["reload"])?;
                    reloads += 1;
                }
            }
        }
        let sent = stream.finish()?;
        watch.wait(sent.into())?;
        let arrived = watch.finish()?;
        let with = |dscp| {
            arrived
                .iter()
                .filter(move |it| it.marked && it.dscp == dscp)
        };
        let [before, after] = [EF, VA].map(|dscp| with(dscp).count());
        println!("{reloads} reloads, {sent} packets: {before} with EF, {after} with VA");
        ensure!(
            before + after == sent as usize,
            "{} of {sent} arrived, {before} with EF and {after} with VA: {interfaces}",
            arrived.len()
        );
        ensure!(before > 0 && after > 0, "{before} and {after}");
        agent.finish()?;
    }
    Ok(())
}
