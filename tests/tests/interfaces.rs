//! Interfaces and qdiscs that come, go and change under a running agent.

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::{Agent, get, tcx};
use wificall_tests::lab::{Arrival, EPDG4, EPDG6, Lab, MARKED, PHONE4, Watch};
use wificall_tests::netns::veth;
use wificall_tests::send::{self, NATT};

/// The phone's second interface: address and gateway.
const SECOND: (&str, &str) = ("10.78.0.2", "10.78.0.1");

/// Connects the phone a second time, to the router's interface `ap0`.
fn plug(lab: &Lab) -> Result<()> {
    veth((&lab.phone, "eth1"), (&lab.router, "ap0"))?;
    lab.router.address("ap0", &[&format!("{}/24", SECOND.1)])?;
    lab.phone.address("eth1", &[&format!("{}/24", SECOND.0)])?;
    lab.phone
        .ip(&format!("route add default via {} table 78", SECOND.1))?;
    Ok(())
}

#[test]
fn interfaces_that_appear_vanish_and_return_are_attended_to() -> Result<()> {
    let lab = Lab::new()?;
    lab.phone
        .ip(&format!("rule add from {} lookup 78", SECOND.0))?;
    lab.far.ip(&format!(
        "route add 10.78.0.0/24 via 198.19.255.1 src {EPDG4}"
    ))?;
    for method in ["tcx", "clsact"] {
        let interfaces = format!("access = [\"lan\", \"ap*\"]\ntc = \"{method}\"");
        let agent = Agent::run(
            &lab.router,
            &format!("[interfaces]\n{interfaces}\n{MARKED}"),
        )?;
        agent.wait_hooks("lan", 2)?;
        let mut sent = 0;
        for round in 1..=3 {
            plug(&lab)?;
            agent
                .wait_hooks("ap0", 2)
                .with_context(|| format!("{method}, round {round}"))?;
            for address in [SECOND.0, PHONE4] {
                let arrival = lab.probe(address, EPDG4)?;
                sent += 1;
                ensure!(arrival.is_treated(), "{method}, round {round}: {arrival:?}");
            }
            lab.router.ip("link del ap0")?;
            agent
                .wait_hooks("ap0", 0)
                .with_context(|| format!("{method}, round {round}"))?;
        }
        assert_eq!(agent.metrics()?.packets(&[]), sent);
        agent.finish()?;
    }
    Ok(())
}

/// Re-created faster than the agent may look: the name is the same, the device not.
#[test]
fn an_interface_replaced_in_one_go_is_attached_anew() -> Result<()> {
    let lab = Lab::new()?;
    lab.phone
        .ip(&format!("rule add from {} lookup 78", SECOND.0))?;
    let mut agent = Agent::new(
        &lab.router,
        &format!("[interfaces]\naccess = [\"ap0\"]\n{MARKED}"),
    )?;
    plug(&lab)?;
    agent.start()?;
    lab.wait_treated(SECOND.0, EPDG4)?;
    lab.router.ip("link del ap0")?;
    plug(&lab)?;
    lab.wait_treated(SECOND.0, EPDG4)?;

    // And while no agent runs, which leaves the pins of links to a device that is gone.
    agent.kill()?;
    lab.router.ip("link del ap0")?;
    plug(&lab)?;
    agent.start()?;
    lab.wait_treated(SECOND.0, EPDG4)?;
    agent.finish()
}

#[test]
fn a_renamed_interface_is_attended_to_by_its_new_name() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(
        &lab.router,
        &format!("[interfaces]\naccess = [\"lan\"]\n{MARKED}"),
    )?;
    agent.wait_hooks("lan", 2)?;
    lab.router.ip("link set lan name spare")?;
    agent.wait_hooks("lan", 0)?;
    let arrival = lab.probe(PHONE4, EPDG4)?;
    ensure!(
        !arrival.marked && arrival.dscp == 0,
        "no access interface any more: {arrival:?}"
    );
    lab.router.ip("link set spare name lan")?;
    agent.wait_hooks("lan", 2)?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.finish()
}

/// Someone's script deletes the qdisc, and our filters with it.
#[test]
fn a_deleted_qdisc_is_repaired() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(
        &lab.router,
        &format!("[interfaces]\naccess = [\"lan\"]\ntc = \"clsact\"\n{MARKED}"),
    )?;
    agent.wait_hooks("lan", 2)?;
    for _ in 0..3 {
        lab.router.run("tc", "qdisc del dev lan clsact")?;
        lab.wait_treated(PHONE4, EPDG4)?;
    }
    lab.router.run("tc", "filter del dev lan ingress")?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.wait_hooks("lan", 2)?;
    agent.finish()
}

/// A qdisc and a filter that others made stay as they are, and ours are not kept from
/// their packets. (The kernel chooses the filter's priority, as it mostly does.)
#[test]
fn a_foreign_qdisc_and_its_filters_survive() -> Result<()> {
    const FILTER: &str = "filter add dev lan ingress protocol all u32 match u32 0 0 flowid 1:7";
    for method in ["tcx", "clsact"] {
        let lab = Lab::new()?;
        lab.router.run("tc", "qdisc add dev lan clsact")?;
        lab.router.run("tc", FILTER)?;
        let show = || -> Result<[String; 3]> {
            Ok([
                lab.router.run("tc", "qdisc show dev lan")?,
                lab.router.run("tc", "filter show dev lan ingress")?,
                lab.router.run("tc", "filter show dev lan egress")?,
            ])
        };
        let before = show()?;
        let mut agent = Agent::run(
            &lab.router,
            &format!("[interfaces]\naccess = [\"lan\"]\ntc = \"{method}\"\n{MARKED}"),
        )?;
        agent.wait_hooks("lan", 2)?;
        lab.wait_treated(PHONE4, EPDG4)?;
        // Also with a start in between, after which the qdisc is still not ours.
        agent.kill()?;
        agent.start()?;
        lab.wait_treated(PHONE4, EPDG4)?;
        agent.stop()?;
        agent.ask(&["detach"])?;
        assert_eq!(show()?, before, "{method}");
        let programs = tcx(&lab.router, "lan")?;
        ensure!(programs.is_empty(), "{method}: {programs:?}");
        let arrival = lab.probe(PHONE4, EPDG4)?;
        ensure!(
            !arrival.marked && arrival.dscp == 0,
            "{method}: {arrival:?}"
        );
    }
    Ok(())
}

/// A bridge and its port see the same packets, which would be counted twice: neither is
/// used, the agent says why, and attends to the others.
#[test]
fn stacked_interfaces_are_refused() -> Result<()> {
    let lab = Lab::new()?;
    lab.router.bridge("br0", &["exit"])?;
    let access = "access = [\"br0\", \"exit\", \"lan\"]";
    let mut agent = Agent::new(&lab.router, &format!("[interfaces]\n{access}\n{MARKED}"))?;
    agent.spawn()?;
    agent.wait_hooks("lan", 2)?;
    for interface in ["br0", "exit"] {
        agent.wait_hooks(interface, 0)?;
    }
    ensure!(get(&lab.router, "/readyz").is_err(), "ready all the same");
    let status = agent.status()?;
    let said = status["problems"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|problem| {
            let text = problem.as_str().unwrap_or_default();
            text.contains("br0") && text.contains("exit")
        });
    ensure!(said, "the status does not say it: {status:#}");
    agent.finish()
}

/// A prefix that nothing will match because the box is in it: nobody would look for that.
#[test]
fn a_prefix_of_the_boxs_own_network_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let configuration =
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\nprefixes = [\"10.77.0.0/28\"]\n";
    let agent = Agent::run(&lab.router, configuration)?;
    let said = agent.ask(&["status"])?;
    ensure!(
        said.contains("the prefix 10.77.0.0/28 is no endpoint: it is in 10.77.0.0/"),
        "{said}"
    );
    agent.finish()
}

/// A packet that will leave as several (GSO) counts as several, and each is treated.
#[test]
fn the_segments_of_a_large_packet_are_counted() -> Result<()> {
    const SEGMENTS: usize = 20;
    const SEGMENT: usize = 160;
    let lab = Lab::new()?;
    // Cut on the way out of the router, after all hooks.
    for device in ["wan", "exit"] {
        lab.router
            .ip(&format!("link set {device} gso_max_segs 1"))?;
    }
    let agent = Agent::run(
        &lab.router,
        &format!("[interfaces]\naccess = [\"lan\"]\n{MARKED}"),
    )?;
    for (from, to) in [("10.77.0.2:0", EPDG4), ("[fd77::2]:0", EPDG6)] {
        let before = agent.metrics()?.packets(&[]);
        let watch = Watch::start(&lab.far)?;
        let socket = send::udp(&lab.phone, from)?;
        send::segmented(&socket, SEGMENT)?;
        let segments: Vec<u8> = (1..=SEGMENTS as u32)
            .flat_map(|number| send::esp(number, SEGMENT))
            .collect();
        socket.send_to(&segments, (to, NATT))?;
        watch.wait(SEGMENTS as u64)?;
        let arrivals = watch.finish()?;
        ensure!(arrivals.iter().all(Arrival::is_treated), "{arrivals:?}");
        let counted = agent.metrics()?.packets(&[("direction", "up")]) - before;
        assert_eq!(counted, SEGMENTS as u64, "{to}");
    }
    agent.finish()
}
