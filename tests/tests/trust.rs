//! How far an endpoint is trusted decides what its packets get; and what is known is there before
//! anybody is asked.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use wificall_common::abi::ABI_VERSION;
use wificall_tests::agent::{Agent, INSTANCE};
use wificall_tests::dns::{Dns, EPDG};
use wificall_tests::lab::{
    Arrival, EF, EPDG4, EPDG4_BESIDE, EPDG6, LIMIT, Lab, PHONE4, PHONE6, ROUTER_DNS, Watch,
};
use wificall_tests::netns::Netns;
use wificall_tests::process::wait_for;
use wificall_tests::send::{self, NATT};

/// A name of an operator that no test configures.
const OTHER_EPDG: &str = "epdg.epc.mnc002.mcc001.pub.3gppnetwork.org";
const PHONE4_OTHER: &str = "10.77.0.3";
/// Where the phone's other addresses are from; all of 10.77.0.0/24 and fd77::/64 is behind the router's `lan`.
const OTHERS4: std::ops::Range<u8> = 100..200;

fn configuration(more: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
[lab]
admit = ["198.18.0.0/16", "2001:db8::/32"]
[defaults]
mark = "0x65/0xff"
[discovery]
operators = ["001-01"]
resolvers = ["{ROUTER_DNS}"]
refresh_min = "1s"
timeout = "500ms"
{more}"#
    )
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Gives an agent that does not run yet a state in which a client was told that the ePDG of another
/// operator is at `addresses`, `ago` seconds ago.
fn told(agent: &Agent<'_>, addresses: &[&str], ago: u64) -> Result<()> {
    let at = now()? - ago;
    let entry = serde_json::json!({
        "first_seen": at, "last_seen": at, "last_traffic": null, "client": PHONE4,
        "names": { OTHER_EPDG: at }, "ike": null
    });
    let observed: BTreeMap<_, _> = addresses.iter().map(|address| (address, &entry)).collect();
    let state = serde_json::json!({
        "format": "wificall addresses",
        "version": 2,
        "names": {},
        "addresses": {},
        "seen": {},
        "observed": observed,
        "nat64": {},
    });
    let path = agent.config_path().with_file_name("state").join(INSTANCE);
    fs::create_dir_all(&path)?;
    fs::write(path.join("state.json"), state.to_string())?;
    Ok(())
}

/// Sends `count` packets at once from an address of the phone, and gives what arrived.
fn burst(lab: &Lab, from: &str, count: u32) -> Result<Vec<Arrival>> {
    let socket = lab.phone.enter(|| UdpSocket::bind((from, 0)))?;
    burst_from(lab, &[socket], EPDG4, count)
}

/// Sends `count` packets at once, each from the next of the sockets.
fn burst_from(lab: &Lab, from: &[UdpSocket], to: &str, count: u32) -> Result<Vec<Arrival>> {
    let watch = Watch::start(&lab.far)?;
    for (sequence, socket) in (0..count).zip(from.iter().cycle()) {
        socket.send_to(&send::esp(sequence, 100), (to, NATT))?;
        if sequence % 50 == 49 {
            // What is sent must not overrun the captures.
            watch.wait(u64::from(sequence) + 1)?;
        }
    }
    watch.wait(count.into())?;
    watch.finish()
}

fn with_ef(arrivals: &[Arrival]) -> usize {
    arrivals.iter().filter(|arrival| arrival.dscp == EF).count()
}

/// A cap takes privilege and nothing else, and from nobody else.
#[test]
fn a_client_gets_ef_up_to_its_cap() -> Result<()> {
    const CAP: usize = 20;
    let lab = Lab::new()?;
    // A station of its own on the same link.
    let station = Netns::new("station")?;
    lab.phone
        .ip("link add link eth0 name other type macvlan mode bridge")?;
    lab.phone
        .ip(&format!("link set other netns {}", station.name()))?;
    station.address("other", &[&format!("{PHONE4_OTHER}/24")])?;
    station.ip("route add default via 10.77.0.1")?;
    let other = station.enter(|| UdpSocket::bind((PHONE4_OTHER, 0)))?;
    let capped = format!("[observed]\ncap = {CAP}\n");
    let mut agent = Agent::new(&lab.router, &configuration(&capped))?;
    told(&agent, &[EPDG4], 5)?;
    agent.start()?;

    let arrivals = burst(&lab, PHONE4, 300)?;
    ensure!(arrivals.len() == 300, "{} arrived", arrivals.len());
    let ef = with_ef(&arrivals);
    // A second's worth at once, and what the cap gave while they were sent.
    ensure!((CAP..CAP * 4).contains(&ef), "{ef} of 300 with EF");
    ensure!(
        !arrivals.iter().any(|a| a.marked),
        "no mark for what is only observed"
    );
    ensure!(
        arrivals.iter().all(|a| a.dscp == EF || a.dscp == 0),
        "{arrivals:?}"
    );
    let demoted = |direction| -> Result<u64> {
        let metrics = agent.metrics()?;
        Ok(metrics.sum(
            "wificall_demoted_packets_total",
            &[("direction", direction)],
        ))
    };
    assert_eq!(demoted("up")?, 300 - ef as u64);
    assert_eq!(demoted("down")?, 0);
    let metrics = agent.metrics()?;
    assert_eq!(
        metrics.packets(&[("operator", "observed"), ("direction", "up")]),
        300
    );

    // Another client, at the same moment.
    let others = burst_from(&lab, &[other], EPDG4, 10)?;
    assert_eq!(with_ef(&others), 10);
    // And the first, once it has been quiet.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(with_ef(&burst(&lab, PHONE4, 10)?), 10);

    // Marks come without a cap, and only if they are asked for.
    agent.configure(&configuration(&format!("{capped}mark = true\n")))?;
    agent.ask(&["reload"])?;
    let arrivals = burst(&lab, PHONE4, 300)?;
    assert!(arrivals.iter().all(|arrival| arrival.marked));
    let ef = with_ef(&arrivals);
    ensure!((1..CAP * 4).contains(&ef), "{ef} of 300 with EF");

    // What our own resolver says has no cap.
    let _dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4])])?;
    lab.wait_treated(PHONE4, EPDG4)?;
    wait_for("an address that is trusted", LIMIT, || {
        let metrics = agent.metrics()?;
        let trusted = metrics.sum("wificall_known_addresses", &[("tier", "authoritative")]);
        ensure!(trusted == 1, "{trusted} trusted addresses");
        Ok(())
    })?;
    assert_eq!(with_ef(&burst(&lab, PHONE4, 300)?), 300);
    agent.finish()
}

/// A client is its link-layer address: whatever IP addresses it takes share one cap.
#[test]
fn other_addresses_of_a_client_gain_nothing() -> Result<()> {
    const CAP: usize = 20;
    let lab = Lab::new()?;
    let mut addresses = Vec::new();
    for number in OTHERS4 {
        addresses.push((format!("10.77.0.{number}"), 24));
        addresses.push((format!("fd77::{number:x}:1"), 64));
    }
    let with_length: Vec<_> = addresses.iter().map(|(a, l)| format!("{a}/{l}")).collect();
    let with_length: Vec<_> = with_length.iter().map(String::as_str).collect();
    lab.phone.address("eth0", &with_length)?;
    let sockets = |of4: bool| -> Result<Vec<UdpSocket>> {
        let of_family = addresses.iter().filter(|(a, _)| a.contains('.') == of4);
        of_family
            .map(|(address, _)| Ok(lab.phone.enter(|| UdpSocket::bind((&**address, 0)))?))
            .collect()
    };
    let (sockets4, sockets6) = (sockets(true)?, sockets(false)?);
    for more in ["", "xdp = [\"lan\"]\n"] {
        let text = configuration(&format!("[observed]\ncap = {CAP}\n"));
        let text = text.replace(
            "access = [\"lan\"]\n",
            &format!("access = [\"lan\"]\n{more}"),
        );
        let mut agent = Agent::new(&lab.router, &text)?;
        told(&agent, &[EPDG4, EPDG6], 5)?;
        agent.start()?;
        let mut ef = with_ef(&burst_from(&lab, &sockets4, EPDG4, 300)?);
        ensure!((CAP..CAP * 4).contains(&ef), "{ef} of 300 with EF: {more}");
        ef += with_ef(&burst_from(&lab, &sockets6, EPDG6, 300)?);
        ensure!((CAP..CAP * 6).contains(&ef), "{ef} of 600 with EF: {more}");
        // The other way all go to one link-layer address.
        let far = lab.far.enter(|| UdpSocket::bind((EPDG4, NATT)))?;
        for (number, to) in (0..300).zip(sockets4.iter().cycle()) {
            far.send_to(&send::esp(number, 100), to.local_addr()?)?;
        }
        agent.wait_metrics("packets down over the cap", |metrics| {
            let over = metrics.sum("wificall_demoted_packets_total", &[("direction", "down")]);
            ensure!((300 - CAP as u64 * 4..300).contains(&over), "{over} of 300");
            Ok(())
        })?;
        agent.finish()?;
    }
    Ok(())
}

/// What only a client was told is not widened, and has its time after minutes, also when nothing
/// ran meanwhile.
#[test]
fn what_is_observed_is_narrow_and_short() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, &configuration("[observed]\nkeep = \"8s\"\n"))?;
    told(&agent, &[EPDG4], 0)?;
    agent.start()?;
    assert_eq!(lab.probe(PHONE4, EPDG4)?.dscp, EF);
    assert_eq!(lab.probe(PHONE4, EPDG4_BESIDE)?.dscp, 0);
    // What a client sends is no sign of life of it: only an answer is.
    let active = || -> Result<bool> {
        let slots =
            MapData::from_pin(agent.pin_dir().join(format!("abi{ABI_VERSION}-0/ACTIVITY")))?;
        let slots: Array<_, u32> = Map::Array(slots).try_into()?;
        Ok(slots.iter().any(|last| last.is_ok_and(|last| last != 0)))
    };
    ensure!(!active()?, "active by what a client sent");
    let answer = lab.far.enter(|| UdpSocket::bind((EPDG4, NATT)))?;
    answer.send_to(&send::esp(1, 100), (PHONE4, 40_000))?;
    wait_for("activity by an answer", LIMIT, || {
        ensure!(active()?, "not active");
        Ok(())
    })?;
    wait_for("the end of its time", LIMIT, || {
        let arrival = lab.probe(PHONE4, EPDG4)?;
        ensure!(arrival.dscp == 0, "{arrival:?}");
        Ok(())
    })?;
    agent.stop()?;
    told(&agent, &[EPDG4], 3600)?;
    agent.start()?;
    assert_eq!(lab.probe(PHONE4, EPDG4)?.dscp, 0);
    agent.finish()
}

/// At the moment of the first query after a restart, what was known is in the kernel and programs
/// are attached.
#[test]
fn the_last_known_good_is_there_before_the_first_query() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4])])?;
    let mut agent = Agent::run(&lab.router, &configuration(""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.stop()?;
    agent.ask(&["detach"])?;
    dns.stop()?;

    let silent = send::udp(&lab.far, &format!("{ROUTER_DNS}:53"))?;
    silent.set_read_timeout(Some(LIMIT))?;
    agent.spawn()?;
    silent.recv_from(&mut [0; 512]).context("the first query")?;
    let lines = MapData::from_pin(agent.pin_dir().join(format!("abi{ABI_VERSION}-0/BLOCKS4")))?;
    let lines: Array<_, [u64; 8]> = Map::Array(lines).try_into()?;
    let block = u32::from_be_bytes([198, 18, 0, 0]);
    let mut keys = lines.iter().flatten().flatten();
    assert!(
        keys.any(|key| (key >> 32) as u32 == block),
        "not in the table yet"
    );
    ensure!(lab.probe(PHONE4, EPDG4)?.is_treated(), "not attached yet");
    agent.finish()
}

/// A state that cannot be read is set aside and said so, and no reason not to work.
#[test]
fn a_torn_state_is_set_aside() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4])])?;
    let mut agent = Agent::run(&lab.router, &configuration(""))?;
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.stop()?;
    agent.ask(&["detach"])?;
    let directory = agent.config_path().with_file_name("state").join(INSTANCE);
    let state = directory.join("state.json");
    let whole = fs::read(&state)?;
    let torn = &whole[..whole.len() / 2];
    fs::write(&state, torn)?;

    agent.start()?;
    let log = agent.log();
    ensure!(
        log.contains("is torn") && log.contains("it was set aside as"),
        "{log}"
    );
    ensure!(fs::read(directory.join("state.json.unreadable-1"))? == torn);
    lab.wait_treated(PHONE4, EPDG4)?;
    agent.stop()?;
    let again: serde_json::Value = serde_json::from_slice(&fs::read(&state)?)?;
    ensure!(again["addresses"][EPDG4].is_object(), "{again:#}");
    agent.finish()
}

/// IPv4 endpoints behind a NAT64 that nobody configured (RFC 7050).
#[test]
fn a_nat64_prefix_is_found() -> Result<()> {
    const BEHIND: &str = "64:ff9b::c612:a";
    const DNS64: &[&str] = &["64:ff9b::c000:aa", "64:ff9b::c000:ab"];
    let lab = Lab::new()?;
    lab.far.address("lo", &[BEHIND])?;
    let records: &[(&str, &[&str])] = &[(EPDG, &[EPDG4])];
    let mut dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, records)?;
    let agent = Agent::run(
        &lab.router,
        &configuration("refresh_max = \"1s\"\nabsent_max = \"1s\"\n"),
    )?;
    lab.wait_treated(PHONE4, EPDG4)?;
    ensure!(
        !lab.probe(PHONE6, BEHIND)?.is_treated(),
        "there is no NAT64 yet"
    );
    dns.set(&[records[0], ("ipv4only.arpa", DNS64)])?;
    lab.wait_treated(PHONE6, BEHIND)?;
    let status = agent.status()?;
    assert_eq!(
        status["discovery"]["nat64"],
        serde_json::json!(["64:ff9b::/96"])
    );
    agent.configure(&configuration("nat64_prefix = \"none\"\n"))?;
    agent.ask(&["reload"])?;
    ensure!(
        !lab.probe(PHONE6, BEHIND)?.is_treated(),
        "it was switched off"
    );
    agent.finish()
}

/// Seconds between the steps in which the kernel tells activity apart: 2^13 jiffies.
fn activity_step() -> Result<u64> {
    let jiffies = || -> Result<u64> {
        let text = fs::read_to_string("/proc/timer_list").context("read /proc/timer_list")?;
        let line = text.lines().find_map(|line| line.strip_prefix("jiffies: "));
        Ok(line.context("no jiffies")?.parse()?)
    };
    let (start, before) = (Instant::now(), jiffies()?);
    std::thread::sleep(Duration::from_millis(500));
    let tick = start.elapsed().as_secs_f64() / (jiffies()? - before) as f64;
    Ok((8192.0 * tick).ceil() as u64)
}

/// Answers rotate every second: no address in use is ever dropped, the others are, and the table
/// stays bounded. `WIFICALL_SOAK_SECONDS` says for how long.
#[test]
fn rotating_answers_never_drop_what_is_in_use() -> Result<()> {
    // Shorter, and what is in use would not be seen to be.
    let keep = activity_step()? + 6;
    let seconds: u64 = match std::env::var("WIFICALL_SOAK_SECONDS") {
        Ok(seconds) => seconds.parse().context("WIFICALL_SOAK_SECONDS")?,
        Err(_) => keep + 12,
    };
    let lab = Lab::new()?;
    let mut dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4])])?;
    let agent = Agent::run(
        &lab.router,
        &configuration(&format!("widen = \"exact\"\nkeep = \"{keep}s\"\n")),
    )?;
    lab.wait_treated(PHONE4, EPDG4)?;
    dns.set(&[(EPDG, &[EPDG4_BESIDE])])?;
    lab.wait_treated(PHONE4, EPDG4_BESIDE)?;

    let start = Instant::now();
    let (mut rotations, mut most, mut last) = (0_u64, 0, BTreeMap::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        rotations += 1;
        let next = format!("198.18.{}.{}", 1 + rotations / 250, 1 + rotations % 250);
        dns.set(&[(EPDG, &[&next])])?;
        for used in [EPDG4, EPDG4_BESIDE] {
            let arrival = lab.probe(PHONE4, used)?;
            ensure!(
                arrival.is_treated(),
                "{used} after {rotations} rotations: {arrival:?}"
            );
        }
        let metrics = agent.metrics()?;
        let known = metrics.sum("wificall_known_addresses", &[("tier", "authoritative")]);
        let entries = metrics.sum("wificall_endpoints", &[]);
        most = most.max(known);
        last = BTreeMap::from([("addresses", known), ("entries", entries)]);
        // One a second, each for as long as it is kept, and the time until a resync looks.
        ensure!(
            known <= keep + 2 + 6,
            "{known} addresses after {rotations} rotations"
        );
        std::thread::sleep(
            Duration::from_millis(1000).saturating_sub(
                start
                    .elapsed()
                    .saturating_sub(Duration::from_secs(rotations - 1)),
            ),
        );
    }
    println!(
        "{rotations} rotations in {:?}: at most {most} addresses, last {last:?}",
        start.elapsed()
    );
    ensure!(
        most > rotations.min(keep) / 2,
        "the agent followed: {most} addresses"
    );
    if seconds > keep + 10 {
        let gone = agent.log().contains("endpoints that had their time");
        ensure!(
            gone && last["addresses"] < rotations,
            "{rotations} rotations, {last:?}"
        );
    }
    agent.finish()
}
