//! What the agent tells of tunnels and calls, against charon's own log, tshark, and what was sent.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wificall::telemetry::view::{Overview, Tunnel, Tunnels, Voice};
use wificall_tests::{
    agent::{Agent, get},
    lab::{EPDG4, LIMIT, Lab, OTHER4, PHONE4},
    process::wait_for,
    send,
    stolen::on_time,
    swan::{self, Connection, Swan},
    tshark::{self, Tshark},
};

const LAST: &[u8] = b"the last packet of this test";

fn configuration() -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[telemetry]
labels = "full"
[[prefix]]
prefix = "{EPDG4}/32"
operator = "001-01"
[lab]
admit = ["198.18.0.0/15"]
"#
    )
}

fn tunnels(agent: &Agent<'_>) -> Result<Tunnels> {
    Ok(serde_json::from_str(&agent.ask(&["tunnels", "--json"])?)?)
}

/// The only tunnel, once it is as `is` wants it.
fn tunnel(agent: &Agent<'_>, what: &str, is: impl Fn(&Tunnel) -> bool) -> Result<Tunnel> {
    wait_for(what, LIMIT, || {
        let mut all = tunnels(agent)?.tunnels;
        ensure!(all.len() == 1, "{} tunnels: {all:?}", all.len());
        let tunnel = all.remove(0);
        ensure!(is(&tunnel), "{tunnel:?}");
        Ok(tunnel)
    })
    .with_context(|| agent.log())
}

/// How long the ePDG waits before it sends anything, in milliseconds: what a carrier far away costs. No time of another kind
/// is so long here, so one is not taken for the other.
const FAR: u64 = 60;
/// How far we and tshark, who see the same packets, may be apart, in milliseconds.
const SAME: f64 = 1.0;
/// Charon writes its line before it sends, and after it has worked on what came.
const WORK: f64 = 20.0;

/// When charon wrote the lines that contain `what`, in milliseconds: they begin with seconds since 1970 and thousandths.
fn written(log: &str, what: &str) -> Result<Vec<f64>> {
    let lines = log.lines().filter(|line| line.contains(what));
    let times = lines.map(|line| {
        let time = line.split_whitespace().next().unwrap_or_default();
        let seconds: f64 = (time.parse()).with_context(|| format!("the time of `{line}`"))?;
        Ok(seconds * 1e3)
    });
    let times = times.collect::<Result<Vec<_>>>()?;
    ensure!(!times.is_empty(), "`{what}` is not in charon's log:\n{log}");
    Ok(times)
}

/// Milliseconds from the first line of charon's log with `from` to the first with `to`.
fn between(log: &str, from: &str, to: &str) -> Result<f64> {
    Ok(written(log, to)?[0] - written(log, from)?[0])
}

/// The round trips of the phone's liveness checks by its own log, in milliseconds.
fn dpd_of_charon(log: &str) -> Vec<f64> {
    (2..)
        .map_while(|id| {
            let request = format!("generating INFORMATIONAL request {id} ");
            let response = format!("parsed INFORMATIONAL response {id} ");
            between(log, &request, &response).ok()
        })
        .collect()
}

#[test]
fn a_real_tunnel_has_the_times_that_charon_and_tshark_have() -> Result<()> {
    on_time(has_the_times_of_charon_and_tshark)
}

fn has_the_times_of_charon_and_tshark() -> Result<()> {
    let lab = Lab::new()?;
    lab.masquerade()?;
    lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
    let agent = Agent::run(&lab.router, &configuration())?;
    agent.wait_hooks("lan", 2)?;
    let directory = tempfile::TempDir::with_prefix("wificall-telemetry-")?;
    let capture = Tshark::start(&lab.router, "lan", directory.path(), "lan")?;
    let log = directory.path().join("phone.log");
    let logging = format!(
        "filelog {{\n    phone {{\n      path = {}\n      time_format = %s\n      time_add_ms = yes\n      \
         flush_line = yes\n      default = 1\n    }}\n  }}",
        log.display()
    );
    let far = format!("send_delay = {FAR}");
    let _epdg = Swan::start_with(&lab.far, &swan::epdg(), None, &far)?;
    let connection = Connection {
        name: "four",
        local: PHONE4,
        remote: EPDG4,
        inside: "10.98.0.1",
    };
    let phone =
        swan::phone(&[connection]).replace("version = 2", "version = 2\n    dpd_delay = 4s");
    let phone = Swan::start_with(&lab.phone, &phone, None, &logging)?;
    phone.initiate("four")?;
    lab.phone.run("ping", "-q -c5 -i0.1 -s80 -W5 10.98.0.1")?;
    let seen = tunnel(
        &agent,
        "the set-up, a keepalive's interval and a DPD",
        |tunnel| {
            let setup = tunnel.setup.as_ref();
            setup.is_some_and(|setup| setup.result.as_deref() == Some("ok"))
                && tunnel.keepalive_ms.is_some()
                && tunnel.seen > tunnel.began + 9_000
        },
    )?;
    send_last(&lab)?;
    let capture = capture.finish(LAST)?;

    assert_eq!((&*seen.client, &*seen.endpoint), (PHONE4, EPDG4));
    assert_eq!(seen.owners, ["001-01"]);
    let setup = seen.setup.as_ref().context("no set-up")?;
    let after: BTreeMap<&str, f64> = (setup.milestones.iter())
        .map(|milestone| (&*milestone.name, milestone.after_ms))
        .collect();
    assert_eq!(after.len(), 7, "{after:?}");

    let log = fs::read_to_string(&log)?;
    let sent = "generating IKE_SA_INIT request 0";
    let milestones = [
        ("init_answered", "parsed IKE_SA_INIT response 0"),
        ("auth_sent", "generating IKE_AUTH request 1"),
        ("auth_answered", "parsed IKE_AUTH response 1"),
    ];
    println!("milestone      wificall   charon   tshark (ms)");
    let wire = milestones_on_the_wire(&capture)?;
    for (name, line) in milestones {
        let (ours, charon, tshark) = (after[name], between(&log, sent, line)?, wire[name]);
        println!("{name:<14} {ours:>8.1} {charon:>8.1} {tshark:>8.1}");
        let close = (ours - tshark).abs() < SAME && (ours - charon).abs() < WORK;
        ensure!(close, "{name}: {ours}, charon {charon}, tshark {tshark}");
    }
    ensure!(after["init_answered"] >= FAR as f64, "{after:?}");

    let keepalive = keepalives(&capture)?;
    let sent = written(&log, "sending keep alive to")?;
    let sent = (sent.windows(2).map(|pair| pair[1] - pair[0])).fold(f64::INFINITY, f64::min);
    let ours = seen.keepalive_ms.context("no keepalives")? as f64;
    println!("keepalive      {ours:>8.1} {sent:>8.1} {keepalive:>8.1}");
    // Ours is in whole milliseconds.
    let close = (ours - keepalive).abs() < 1.0 + SAME && (ours - sent).abs() < WORK;
    ensure!(
        close,
        "keepalive: {ours}, charon {sent}, tshark {keepalive}"
    );

    // The last one that there was when the agent was asked.
    let ours = seen.round_trip_network_ms.context("no round trip")?;
    let pairs: Vec<_> = dpd_of_charon(&log)
        .into_iter()
        .zip(dpd(&capture)?)
        .collect();
    for (charon, tshark) in &pairs {
        println!("DPD            {ours:>8.1} {charon:>8.1} {tshark:>8.1}");
    }
    let is_one = pairs.iter().any(|(charon, tshark)| {
        (ours - tshark).abs() < SAME && (0.0..WORK).contains(&(charon - ours))
    });
    ensure!(is_one && ours >= FAR as f64, "DPD: {ours}, of {pairs:?}");
    agent.wait_metrics("the set-up", |metrics| {
        let labels = [("operator", "001-01"), ("result", "ok")];
        ensure!(metrics.sum("wificall_setups_total", &labels) == 1);
        ensure!(metrics.sum("wificall_setup_clients", &labels) == 1);
        ensure!(metrics.sum("wificall_setup_seconds_count", &[]) == 1);
        Ok(())
    })?;
    assert!(agent.log().contains("tunnel set up"), "{}", agent.log());
    agent.finish()
}

fn send_last(lab: &Lab) -> Result<()> {
    let client = send::udp(&lab.phone, "0.0.0.0:0")?;
    client.send_to(LAST, (OTHER4, 9))?;
    Ok(())
}

/// Of an IKE message: time in seconds, exchange, message ID, whether it is a response, source address.
type Message = (f64, String, String, bool, String);

/// The IKE messages of a capture.
fn messages(file: &Path) -> Result<Vec<Message>> {
    const FIELDS: [&str; 5] = [
        "frame.time_epoch",
        "isakmp.exchangetype",
        "isakmp.messageid",
        "isakmp.flag_r",
        "ip.src",
    ];
    let packets = tshark::packets(file, "isakmp && !icmp", &FIELDS)?;
    let messages = packets.into_iter().map(|packet| {
        let [time, exchange, id, response, source] = &packet.fields[..] else {
            anyhow::bail!("{packet:?}");
        };
        let response = matches!(response.as_str(), "1" | "True");
        let time = time.parse().with_context(|| format!("the time {time}"))?;
        Ok((time, exchange.clone(), id.clone(), response, source.clone()))
    });
    messages.collect()
}

fn milestones_on_the_wire(file: &Path) -> Result<BTreeMap<&'static str, f64>> {
    let messages = messages(file)?;
    let at = |exchange: &str, response: bool| -> Result<f64> {
        let found = messages
            .iter()
            .find(|(_, found, _, way, _)| found == exchange && *way == response);
        let found = found.with_context(|| format!("no exchange {exchange}: {messages:?}"))?;
        Ok(found.0)
    };
    let began = at("34", false)?;
    Ok(BTreeMap::from([
        ("init_answered", (at("34", true)? - began) * 1e3),
        ("auth_sent", (at("35", false)? - began) * 1e3),
        ("auth_answered", (at("35", true)? - began) * 1e3),
    ]))
}

/// The shortest interval between keepalives without ESP between them, in milliseconds.
fn keepalives(file: &Path) -> Result<f64> {
    let packets = tshark::packets(
        file,
        "udp.dstport == 4500",
        &["frame.time_epoch", "udp.length"],
    )?;
    let mut before = None;
    let mut shortest = f64::INFINITY;
    for packet in packets {
        let time: f64 = packet.fields[0].parse()?;
        let is_keepalive = packet.fields[1] == "9";
        let is_ike = packet.bytes.get(28..32) == Some(&[0; 4]);
        if is_keepalive {
            if let Some(before) = before.replace(time) {
                shortest = shortest.min((time - before) * 1e3);
            }
        } else if !is_ike {
            before = None;
        }
    }
    ensure!(shortest.is_finite(), "no two keepalives");
    Ok(shortest)
}

/// The round trips of the phone's liveness checks, in milliseconds.
fn dpd(file: &Path) -> Result<Vec<f64>> {
    let messages = messages(file)?;
    let asked = messages
        .iter()
        .filter(|(_, exchange, _, response, source)| {
            exchange == "37" && !response && source == PHONE4
        });
    let round_trips = asked.filter_map(|(asked, _, id, ..)| {
        let answer = messages
            .iter()
            .find(|(_, exchange, other, response, _)| exchange == "37" && other == id && *response);
        answer.map(|(answered, ..)| (answered - asked) * 1e3)
    });
    Ok(round_trips.collect())
}

/// Sends `seconds` of voice frames both ways, 20 ms apart, from number `from` on; each `holes.0`th up and `holes.1`th down is
/// not sent.
fn talk(
    sockets: (&UdpSocket, &UdpSocket),
    to_phone: std::net::SocketAddr,
    numbers: std::ops::Range<u32>,
    holes: (u32, u32),
) -> Result<()> {
    // IP and UDP headers make it 144.
    const LENGTH: usize = 116;
    let start = Instant::now();
    let first = numbers.start;
    for number in numbers {
        if number % holes.0 != 0 {
            sockets
                .0
                .send_to(&send::esp(number, LENGTH), (EPDG4, 4500))?;
        }
        if number % holes.1 != 0 {
            sockets.1.send_to(&send::esp(number, LENGTH), to_phone)?;
        }
        let due = start + Duration::from_millis(20) * (number - first + 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

#[test]
fn a_call_is_seen_with_the_loss_that_was_sent_also_by_an_agent_that_starts_in_it() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::run(&lab.router, &configuration())?;
    agent.wait_hooks("lan", 2)?;
    let phone = send::udp(&lab.phone, &format!("{PHONE4}:4500"))?;
    let epdg = send::udp(&lab.far, &format!("{EPDG4}:4500"))?;
    let to_phone = send::address(PHONE4, 4500)?;
    thread::scope(|scope| -> Result<()> {
        let talking = scope.spawn(|| talk((&phone, &epdg), to_phone, 1..602, (10, 25)));
        let live = tunnel(&agent, "a call", |tunnel| !tunnel.calls.is_empty())?;
        assert_eq!(live.state.name(), "call");
        assert_eq!(live.calls[0].state, Voice::Talking);
        assert_eq!(live.calls[0].ended, None);
        talking.join().expect("the sender does not panic")
    })?;
    let ended = |tunnel: &Tunnel| {
        tunnel
            .calls
            .first()
            .is_some_and(|call| call.ended.is_some())
    };
    let seen = tunnel(&agent, "the call's end", ended)?;
    let call = &seen.calls[0];
    println!("{call:?}");
    // Of what went up, the first packet alone made no flow.
    let up = (call.client_to_us.received, call.client_to_us.lost);
    let down = (call.network_to_us.received, call.network_to_us.lost);
    assert_eq!((up, down), ((540, 60), (577, 24)));
    assert!((10..=14).contains(&call.seconds), "{} s", call.seconds);
    assert_eq!(call.mos_missing.as_deref(), Some("no round trip is known"));
    let log = agent.log();
    assert!(
        log.contains("call began") && log.contains("call ended"),
        "{log}"
    );

    // The page's API has the same; beside it, what there is at a glance.
    let api: Tunnels = serde_json::from_str(&get(&lab.router, "/api/v1/tunnels")?)?;
    assert_eq!(api.tunnels[0].calls[0].client_to_us, call.client_to_us);
    let path = format!("/api/v1/tunnels/{}", seen.id);
    let one: Value = serde_json::from_str(&get(&lab.router, &path)?)?;
    assert_eq!(one["client"], PHONE4);
    let overview: Overview = serde_json::from_str(&get(&lab.router, "/api/v1/overview")?)?;
    assert_eq!((overview.calls_total, overview.calls_active), (1, 0));
    assert_eq!(overview.operators[0].plmn, "001-01");
    let metrics = agent.metrics()?;
    assert_eq!(
        metrics.sum("wificall_calls_total", &[("operator", "001-01")]),
        1
    );
    let lost = |half_leg| metrics.sum("wificall_esp_lost_packets_total", &[("half_leg", half_leg)]);
    // Those of the last 64 numbers may yet come late.
    assert!(
        (53..=60).contains(&lost("client_to_us")),
        "{}",
        lost("client_to_us")
    );
    assert!(
        (21..=24).contains(&lost("network_to_us")),
        "{}",
        lost("network_to_us")
    );

    // Another agent in the next call: nothing of before is its loss.
    thread::scope(|scope| -> Result<()> {
        let talking =
            scope.spawn(|| talk((&phone, &epdg), to_phone, 602..1_502, (u32::MAX, u32::MAX)));
        thread::sleep(Duration::from_secs(4));
        agent.stop()?;
        agent.start()?;
        let live = tunnel(&agent, "the call that goes on", |tunnel| {
            tunnel.calls.first().is_some_and(|call| call.seconds >= 6)
        })?;
        assert_eq!(live.calls[0].state, Voice::Talking, "not one-way");
        assert_eq!(live.calls[0].client_to_us.lost, 0);
        assert_eq!(live.calls[0].network_to_us.lost, 0);
        talking.join().expect("the sender does not panic")
    })?;
    agent.finish()
}
