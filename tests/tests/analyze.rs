//! `wificall analyze` over a real tunnel: strongSwan as phone and as ePDG behind a NAT, captured by tshark, whose
//! dissection is what the analysis is held against.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use wificall_tests::agent::agent_binary;
use wificall_tests::lab::{EPDG4, LIMIT, Lab, PHONE4};
use wificall_tests::process::{output, wait_until};
use wificall_tests::send;
use wificall_tests::swan::{self, Connection, Swan};
use wificall_tests::tshark::{self, Tshark};

const LAST: &[u8] = b"the last packet of this capture";
/// What a time may be off by, in milliseconds: tshark's has nanoseconds, the analysis' microseconds.
const TOLERANCE: f64 = 0.01;

/// A phone's whole stay: set-up, what looks like a call, a rekey, some quiet with keepalives, the end.
fn capture(lab: &Lab, directory: &Path) -> Result<PathBuf> {
    lab.masquerade()?;
    lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
    let capture = Tshark::start(&lab.router, "lan", directory, "lan")?;
    let _epdg = Swan::start(&lab.far, &swan::epdg(), None)?;
    let connection = Connection {
        name: "four",
        local: PHONE4,
        remote: EPDG4,
        inside: "10.98.0.1",
    };
    let phone = Swan::start(&lab.phone, &swan::phone(&[connection]), None)?;
    phone.initiate("four")?;
    // 50 packets a second each way, of a voice frame's size.
    lab.phone
        .run("ping", "-q -c400 -i0.02 -s80 -W5 10.98.0.1")?;
    phone.rekey("four")?;
    lab.phone
        .run("ping", "-q -c100 -i0.02 -s80 -W5 10.98.0.1")?;
    thread::sleep(Duration::from_secs(4));
    phone.terminate("four")?;
    wait_until("the end", LIMIT, || {
        let sas = phone.sas().ok()?;
        (!sas.contains("ESTABLISHED")).then_some(())
    })?;
    let socket = send::udp(&lab.phone, "0.0.0.0:0")?;
    socket.send_to(LAST, (EPDG4, 9))?;
    capture.finish(LAST)
}

fn analyze(arguments: &[&str], file: &Path) -> Result<String> {
    let mut command = Command::new(agent_binary()?);
    output(command.arg("analyze").args(arguments).arg(file))
}

/// The times of packets, in seconds.
fn times(file: &Path, filter: &str) -> Result<Vec<f64>> {
    let packets = tshark::packets(file, filter, &["frame.time_epoch"])?;
    let time = |packet: tshark::Packet| Ok(packet.fields[0].parse()?);
    packets.into_iter().map(time).collect()
}

#[test]
fn a_real_tunnel_is_analyzed_as_tshark_dissects_it() -> Result<()> {
    let lab = Lab::new()?;
    let directory = TempDir::with_prefix("wificall-analyze-")?;
    let file = capture(&lab, directory.path())?;
    let text = analyze(&[], &file)?;
    println!("{text}");
    let analysis: Value = serde_json::from_str(&analyze(&["--json"], &file)?)?;

    assert_eq!(analysis["endpoints"][0]["address"], EPDG4);
    assert_eq!(analysis["endpoints"][0]["source"], "answered");
    assert_eq!(analysis["notes"], serde_json::json!([]));
    for (class, filter) in [
        ("ike", "isakmp"),
        ("esp_udp", "udpencap && esp"),
        ("keepalive", "udpencap.nat_keepalive"),
    ] {
        for (way, end) in [("up", "src"), ("down", "dst")] {
            let filter = format!("{filter} && ip.{end} == {PHONE4}");
            let packets = times(&file, &filter)?.len();
            let counted = analysis["matched"][class][way]["packets"].as_u64();
            assert_eq!(counted, Some(packets as u64), "{class} {way}");
        }
    }

    let tunnels = analysis["tunnels"].as_array().context("no tunnels")?;
    let [tunnel] = &tunnels[..] else {
        panic!("one tunnel: {tunnels:#?}");
    };
    let setup = &tunnel["setup"];
    assert_eq!(setup["result"], "ok", "{setup:#}");
    let up = |what: &str| format!("{what} && ip.src == {PHONE4}");
    let down = |what: &str| format!("{what} && ip.dst == {PHONE4}");
    let first = |filter: &str| -> Result<f64> {
        let all = times(&file, filter)?;
        all.first().copied().with_context(|| filter.to_owned())
    };
    let began = first(&up("isakmp.exchangetype == 34"))?;
    let milestones = setup["milestones"].as_array().context("no milestones")?;
    for (name, filter) in [
        ("init_sent", up("isakmp.exchangetype == 34")),
        ("init_answered", down("isakmp.exchangetype == 34")),
        ("natt", up("isakmp && udp.dstport == 4500")),
        ("auth_sent", up("isakmp.exchangetype == 35")),
        ("auth_answered", down("isakmp.exchangetype == 35")),
        ("esp_up", up("udpencap && esp")),
        ("esp_down", down("udpencap && esp")),
    ] {
        let seen = milestones.iter().find(|it| it["name"] == name);
        let seen = seen.with_context(|| format!("{name} is not in {milestones:?}"))?;
        let after = seen["after_ms"].as_f64().context("no time")?;
        let expected = (first(&filter)? - began) * 1e3;
        assert!(
            (after - expected).abs() <= TOLERANCE,
            "{name} after {after} ms, by tshark {expected}"
        );
    }

    let timeline = analysis["timeline"].as_array().context("no timeline")?;
    let count = |step: &str| timeline.iter().filter(|it| it["step"] == step).count();
    assert_eq!(count("rekeyed"), 2, "ESP each way: {timeline:#?}");
    assert_eq!((count("up"), count("failed")), (1, 0));
    assert!(count("call_began") >= 1);
    let calls = tunnel["calls"].as_array().context("no calls")?;
    let call = calls.last().context("no call")?;
    for leg in ["client_to_us", "network_to_us"] {
        let sent = call[leg]["received"].as_u64().unwrap_or(0);
        ensure!(sent > 300, "{leg}: {sent} packets\n{call:#}");
    }
    let flows = analysis["flows"].as_array().context("no flows")?;
    for leg in ["client_to_us", "network_to_us"] {
        let sum = |key: &str| -> u64 {
            let all = flows.iter().filter_map(|flow| flow[leg][key].as_u64());
            all.sum()
        };
        assert_eq!(
            (sum("lost"), sum("late"), sum("duplicate"), sum("stray")),
            (0, 0, 0, 0),
            "{leg}: nothing is lost between namespaces"
        );
    }
    // strongSwan's phone is told to send one a second.
    let keepalive = tunnel["keepalive_ms"].as_u64().context("no keepalives")?;
    assert!((900..=1_200).contains(&keepalive), "{keepalive} ms");
    Ok(())
}

#[test]
fn what_is_no_capture_fails_and_what_is_cut_does_not() -> Result<()> {
    let directory = TempDir::with_prefix("wificall-analyze-")?;
    let run = |bytes: &[u8]| -> Result<Output> {
        let file = directory.path().join("file");
        fs::write(&file, bytes)?;
        let mut command = Command::new(agent_binary()?);
        Ok(command.arg("analyze").arg(&file).output()?)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let refused = run(b"GIF89a is no capture")?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("this is no capture"));

    let mut capture = Vec::new();
    let conversation = &wificall_tests::conversation::all()[0];
    conversation.write(&mut capture, PHONE4, EPDG4)?;
    let cut = run(&capture[..capture.len() - 7])?;
    assert_eq!(cut.status.code(), Some(0), "{}", text(&cut.stderr));
    let place = format!("at byte {}", capture.len() - 7);
    for output in [&cut.stdout, &cut.stderr] {
        assert!(text(output).contains(&place), "{}", text(output));
    }
    assert!(text(&cut.stdout).contains("tunnel 1: 10.77.0.2 to 198.18.0.10"));

    // The first record claims more than any frame has.
    let mut damaged = capture.clone();
    damaged[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    let damaged = run(&damaged)?;
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged.stderr).contains("the capture is damaged"));
    Ok(())
}
