//! The agent's life: reload under traffic, one agent an instance, pins of a newer
//! build, wrong configurations.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::{Agent, agent_binary, next_abi_binary};
use wificall_tests::lab::{EF, EPDG4, LIMIT, Lab, MARKED, PHONE4, Watch};
use wificall_tests::netns::Netns;
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, NATT, Stream};

const CS5: u8 = 40;

fn interfaces(method: &str) -> String {
    format!("[interfaces]\naccess = [\"lan\"]\nuplink = [\"wan\"]\ntc = \"{method}\"\n")
}

/// Ways to reload, and what each changes: not one packet is left alone meanwhile.
#[test]
fn reload_leaves_no_packet_unclassified() -> Result<()> {
    for method in ["tcx", "clsact"] {
        let lab = Lab::new()?;
        let as_ef = format!("{}{MARKED}", interfaces(method));
        let as_cs5 = format!("{as_ef}dscp = \"CS5\"\n");
        let mut agent = Agent::run(&lab.router, &as_ef)?;
        lab.wait_treated(PHONE4, EPDG4)?;
        let before = agent.metrics()?.packets(&[]);

        let watch = Watch::start(&lab.far)?;
        let socket = send::udp(&lab.phone, "0.0.0.0:4500")?;
        let stream = Stream::start(socket, send::address(EPDG4, NATT)?, 2_000, 160);
        for round in 1..=5 {
            for (configuration, dscp, by_signal) in [(&as_cs5, CS5, true), (&as_ef, EF, false)] {
                agent.configure(configuration)?;
                if by_signal {
                    agent.running()?.signal(libc::SIGHUP)?;
                } else {
                    agent.ask(&["reload"])?;
                }
                wait_for("the new DSCP", LIMIT, || {
                    // Any packet of the stream shows it.
                    let seen = last_of_stream(&lab)?;
                    ensure!(seen == dscp, "DSCP {seen}, not {dscp}");
                    Ok(())
                })
                .with_context(|| format!("{method}, round {round}\n{}", agent.log()))?;
            }
        }
        // A configuration with a mistake is refused, and the old one stays.
        agent.configure("[interfaces]\naccess = 7\n")?;
        let refused = agent.call(&["reload"])?;
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{text}");
        ensure!(
            text.contains("access"),
            "it says where the mistake is: {text}"
        );

        watch.wait(watch.arrived() + 500)?;
        let sent = u64::from(stream.finish()?);
        watch.wait(sent)?;
        let arrivals = watch.finish()?;
        let untreated: Vec<_> = arrivals
            .iter()
            .filter(|arrival| !arrival.marked || ![EF, CS5].contains(&arrival.dscp))
            .collect();
        ensure!(
            untreated.is_empty(),
            "{method}: {} of {sent}: {untreated:?}",
            untreated.len()
        );
        ensure!(
            arrivals.last().map(|arrival| arrival.dscp) == Some(EF),
            "the old one stays"
        );
        assert_eq!(
            agent.metrics()?.packets(&[]) - before,
            sent,
            "{method}: counted, sent"
        );
        agent.configure(&as_ef)?;
        agent.finish()?;
    }
    Ok(())
}

/// The DSCP of the stream's packet that arrives next.
fn last_of_stream(lab: &Lab) -> Result<u8> {
    let watch = Watch::start(&lab.far)?;
    watch.wait(1)?;
    Ok(watch.finish()?.last().context("nothing arrives")?.dscp)
}

#[test]
fn a_second_agent_of_the_instance_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::run(&lab.router, &format!("{}{MARKED}", interfaces("auto")))?;
    let second = agent.call(&["run"])?;
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{text}");
    ensure!(
        text.contains(wificall_tests::agent::INSTANCE),
        "it names the instance: {text}"
    );
    // `detach` would pull the programs from under the running agent.
    let detach = agent.call(&["detach"])?;
    ensure!(
        !detach.status.success(),
        "detach beside a running agent was accepted"
    );
    agent.running()?.check_running()?;
    ensure!(lab.probe(PHONE4, EPDG4)?.is_treated(), "the first goes on");
    agent.finish()
}

#[test]
fn pins_of_a_newer_abi_are_refused_with_the_way_out() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, &format!("{}{MARKED}", interfaces("auto")))?;
    agent.use_binary(next_abi_binary()?);
    agent.start()?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.stop()?;

    agent.use_binary(agent_binary()?);
    let older = agent.call(&["run"])?;
    let text = String::from_utf8_lossy(&older.stderr);
    assert_eq!(older.status.code(), Some(1), "{text}");
    ensure!(
        text.contains("ABI") && text.contains("detach"),
        "what is wrong, and the way out: {text}"
    );
    ensure!(
        lab.probe(PHONE4, EPDG4)?.is_treated(),
        "the newer one's programs go on"
    );

    // The way out, with the newer build.
    agent.use_binary(next_abi_binary()?);
    agent.finish()
}

/// All mistakes of a file at once, with their places, before anything is touched.
#[test]
fn a_wrong_configuration_touches_nothing() -> Result<()> {
    let router = Netns::new("router")?;
    let agent = Agent::new(
        &router,
        "[interfaces]\naccess = [\"lan\"]\ntc = \"qdisc\"\n[discovery]\ncountries = [\"UK\"]\n\
         operators = [\"1-1\"]\ncolour = \"green\"\n",
    )?;
    for command in ["run", "check"] {
        let refused = agent.call(&[command])?;
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{command}: {text}");
        let file = agent.config_path();
        let lines = fs::read_to_string(&file)?;
        for wrong in ["tc =", "countries =", "operators =", "colour ="] {
            let line = lines
                .lines()
                .position(|line| line.starts_with(wrong))
                .context(wrong)?
                + 1;
            let place = format!("{}:{line}", file.display());
            ensure!(
                text.contains(&place),
                "{command} does not name {place}: {text}"
            );
        }
        ensure!(text.contains("GB"), "{command} does not suggest GB: {text}");
    }
    let left = agent.left_behind()?;
    ensure!(left.is_empty(), "{left:?}");
    let home = agent
        .config_path()
        .parent()
        .context("a directory")?
        .to_owned();
    for directory in ["run", "state"] {
        let entries = fs::read_dir(home.join(directory))?.count();
        ensure!(entries == 0, "there is something in {directory}");
    }
    Ok(())
}

/// From exec to ready. DESIGN's budget of 100 ms to attached is for a release build on a
/// quiet machine; this catches a start that waits for something.
#[test]
fn a_start_takes_little_time() -> Result<()> {
    const ENOUGH: Duration = Duration::from_secs(2);
    let lab = Lab::new()?;
    let mut agent = Agent::run(&lab.router, &format!("{}{MARKED}", interfaces("auto")))?;
    let mut times = Vec::new();
    for _ in 0..5 {
        agent.kill()?;
        let start = Instant::now();
        agent.start()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("exec to ready: {median:?} (median of {})", times.len());
    ensure!(median < ENOUGH, "{times:?}");
    agent.finish()
}

/// Agents of two instances on one machine do not meet: each in its own namespace, with
/// its own bpffs.
#[test]
fn agents_side_by_side_do_not_meet() -> Result<()> {
    thread::scope(|scope| {
        let one = || -> Result<()> {
            let lab = Lab::new()?;
            let agent = Agent::run(&lab.router, &format!("{}{MARKED}", interfaces("auto")))?;
            ensure!(lab.probe(PHONE4, EPDG4)?.is_treated(), "untreated");
            assert_eq!(agent.metrics()?.packets(&[]), 1);
            agent.finish()
        };
        let agents = [scope.spawn(one), scope.spawn(one)];
        agents
            .into_iter()
            .try_for_each(|agent| agent.join().map_err(|_| anyhow::anyhow!("panicked"))?)
    })
}
