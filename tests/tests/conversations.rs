//! What was sent against what is measured: conversations with known faults, through `wificall analyze` and through the
//! kernel's programs.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, MapData};
use serde_json::Value;
use wificall_common::abi::{Features, Flow, FlowKey, SpiSlot};
use wificall_tests::agent::{Agent, agent_binary};
use wificall_tests::conversation::{self, Conversation, Truth, Way};
use wificall_tests::lab::{EPDG4, Lab, PHONE4};
use wificall_tests::process::output;
use wificall_tests::programs::Kernel;
use wificall_tests::send::{self, NATT};
use wificall_tests::tshark::Tshark;
use wificall_tests::vectors::{Setup, contents};

/// An endpoint of the vectors' table, and a phone.
const EPDG: &str = "203.0.113.1";
const PHONE: &str = "198.18.0.2";

/// What `analyze` may be off by, in microseconds: the average has not settled to the last digit.
const JITTER_TOLERANCE: u64 = 10;

/// A line of the table.
fn row(by: &str, name: &str, way: Way, sent: &Truth, measured: &Truth) -> String {
    let direction = ["up", "down"][way as usize];
    let pair = |sent: u64, measured: u64| format!("{sent}/{measured}");
    format!(
        "{name:<24} {by:<8} {direction:<5}{:>12}{:>10}{:>8}{:>8}{:>7}{:>9}{:>8}{:>14}",
        pair(sent.received, measured.received),
        pair(sent.lost, measured.lost),
        pair(sent.late, measured.late),
        pair(sent.duplicate, measured.duplicate),
        pair(sent.stray, measured.stray),
        pair(sent.anchored, measured.anchored),
        pair(sent.pause, measured.pause),
        pair(sent.jitter, measured.jitter),
    )
}

fn heading() -> String {
    format!(
        "{:<24} {:<8} {:<5}{:>12}{:>10}{:>8}{:>8}{:>7}{:>9}{:>8}{:>14}",
        "sent/measured",
        "by",
        "way",
        "received",
        "lost",
        "late",
        "twice",
        "stray",
        "anchored",
        "pauses",
        "jitter us"
    )
}

/// What `wificall analyze --json` says of the flow that carries ESP.
fn analyzed(conversation: &Conversation) -> Result<(Value, [Truth; 2])> {
    let directory = tempfile::TempDir::with_prefix("wificall-conversation-")?;
    let path = directory.path().join("conversation.pcap");
    let mut file = File::create(&path)?;
    conversation.write(&mut file, PHONE, EPDG)?;
    drop(file);
    let mut command = Command::new(agent_binary()?);
    let json = output(command.arg("analyze").arg("--json").arg(&path))?;
    let analysis: Value = serde_json::from_str(&json)?;
    let flows = analysis["flows"].as_array().context("no flows")?;
    let carries = |flow: &&Value| flow["client_to_us"]["received"] != 0;
    let flow = flows.iter().find(carries).context("no flow has ESP")?;
    let truth = legs(flow);
    Ok((analysis, truth))
}

/// What a flow of an analysis says.
fn legs(flow: &Value) -> [Truth; 2] {
    ["client_to_us", "network_to_us"].map(|leg| {
        let leg = &flow[leg];
        let count = |key: &str| leg[key].as_u64().unwrap_or(u64::MAX);
        Truth {
            received: count("received"),
            lost: count("lost"),
            late: count("late"),
            duplicate: count("duplicate"),
            stray: count("stray"),
            anchored: count("anchored"),
            pause: count("pause"),
            jitter: (leg["jitter_ms"].as_f64().unwrap_or(0.0) * 1_000.0) as u64,
        }
    })
}

/// How often an analysis tells of new keys, of a phone that was away, and of a call that only the phone is heard in.
fn told_of(analysis: &Value) -> [usize; 3] {
    let all = analysis["timeline"].as_array().into_iter().flatten();
    let all: Vec<_> = all.collect();
    let steps = |step: &str| all.iter().filter(|it| it["step"] == step).count();
    let one_way = all.iter().filter(|it| it["detail"] == "one_way_up");
    [steps("rekeyed"), steps("roamed"), one_way.count()]
}

fn expected_of(name: &str) -> [usize; 3] {
    match name {
        "rekeys (4 each way)" => [8, 0, 0],
        "away and back" => [0, 2, 0],
        "one direction silent" => [0, 0, 1],
        _ => [0; 3],
    }
}

/// Without what only time tells.
fn timeless(truth: &Truth) -> Truth {
    Truth {
        pause: 0,
        jitter: 0,
        ..*truth
    }
}

#[test]
fn analyze_measures_what_was_sent() -> Result<()> {
    println!("{}", heading());
    for conversation in conversation::all() {
        let (analysis, measured) = analyzed(&conversation)?;
        assert_eq!(told_of(&analysis), expected_of(conversation.name));
        for way in Way::BOTH {
            let sent = conversation.truth[way as usize];
            let mut measured = measured[way as usize];
            println!(
                "{}",
                row("analyze", conversation.name, way, &sent, &measured)
            );
            if conversation.timed {
                let off = sent.jitter.abs_diff(measured.jitter);
                assert!(
                    sent.jitter == 0 || off <= JITTER_TOLERANCE,
                    "{}: {measured:?}",
                    conversation.name
                );
                measured.jitter = sent.jitter;
                assert_eq!(measured, sent, "{} {way:?}", conversation.name);
            } else {
                assert_eq!(
                    timeless(&measured),
                    timeless(&sent),
                    "{} {way:?}",
                    conversation.name
                );
            }
        }
    }
    Ok(())
}

/// A type of the ABI as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);
// SAFETY: integers without padding.
unsafe impl Pod for Raw<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Flow> {}

/// What a flow of the kernel's says.
fn told(flow: &Flow) -> [Truth; 2] {
    [&flow.up, &flow.down].map(|way| {
        let missing: u32 = way.spis.iter().map(SpiSlot::missing).sum();
        Truth {
            received: way.esp.into(),
            lost: (way.lost + missing).into(),
            late: way.late.into(),
            duplicate: way.duplicate.into(),
            stray: way.stray.into(),
            anchored: way.anchored.into(),
            pause: way.pause.into(),
            jitter: u64::from(way.jitter) / 1_000,
        }
    })
}

/// Test runs go as fast as they can, by the real clock: a conversation passes in milliseconds. So what depends on time
/// alone is not shown here, but by [`the_kernel_measures_what_time_tells`].
#[test]
fn the_kernel_measures_what_was_sent() -> Result<()> {
    println!("{}", heading());
    let untimed = conversation::all().into_iter().filter(|it| !it.timed);
    for conversation in untimed {
        let setup = Setup {
            features: Features::COUNT_ACCESS | Features::FLOWS,
            pref64: None,
        };
        let mut kernel = Kernel::load(&setup)?;
        kernel.fill(&contents()?)?;
        // What the agent does.
        let room = kernel.ebpf.map_mut("FLOW_ROOM").context("no FLOW_ROOM")?;
        Array::<_, u64>::try_from(room)?.set(0, 1_000, 0)?;
        for packet in &conversation.packets {
            let program = match packet.way {
                Way::Up => "in_up",
                Way::Down => "out_down",
            };
            let frame = packet.frame(PHONE, EPDG)?;
            ensure!(kernel.run(program, &frame, 0)?.is_some(), "refused");
        }
        let flows = kernel.ebpf.take_map("FLOWS").context("no map FLOWS")?;
        let flows: HashMap<MapData, Raw<FlowKey>, Raw<Flow>> = flows.try_into()?;
        let mut found = Vec::new();
        for entry in flows.iter() {
            let (_, Raw(flow)) = entry?;
            if flow.up.esp != 0 {
                found.push(told(&flow));
            }
        }
        let [measured] = &found[..] else {
            panic!("{}: {found:?}", conversation.name);
        };
        for way in Way::BOTH {
            let sent = timeless(&conversation.truth[way as usize]);
            let measured = timeless(&measured[way as usize]);
            println!(
                "{}",
                row("kernel", conversation.name, way, &sent, &measured)
            );
            assert_eq!(measured, sent, "{} {way:?}", conversation.name);
        }
    }
    Ok(())
}

/// What the jitter may be off by where the same packets are timed by their sender, by the programs and by a capture, in
/// microseconds: a loaded machine may stop a sender between its look at the clock and its packet.
const CLOCK_TOLERANCE: u64 = 1_000;
/// Likewise intervals of comfort noise.
const PAUSE_TOLERANCE: u64 = 1;
const LAST: &[u8] = b"the last packet of the conversations";

/// When ESP packets of a direction left, after the conversation began.
type Left = [Vec<Duration>; 2];

/// Sends a conversation at about its times, each packet from its own end; when they left.
fn say(lab: &Lab, conversation: &Conversation, far: &[UdpSocket; 2]) -> Result<Left> {
    let mut left = Left::default();
    let mut near: BTreeMap<u16, UdpSocket> = BTreeMap::new();
    let mut packets = Vec::new();
    for packet in &conversation.packets {
        if let Entry::Vacant(free) = near.entry(packet.near) {
            free.insert(send::udp(&lab.phone, &format!("{PHONE4}:{}", packet.near))?);
        }
        packets.push((packet, packet.payload()?));
    }
    let start = Instant::now();
    for (packet, payload) in packets {
        thread::sleep(packet.at.saturating_sub(start.elapsed()));
        if packet.words.starts_with("esp") {
            left[packet.way as usize].push(start.elapsed());
        }
        match packet.way {
            Way::Up => near[&packet.near].send_to(&payload, (EPDG4, packet.far))?,
            Way::Down => {
                let socket = &far[usize::from(packet.far == NATT)];
                socket.send_to(&payload, (PHONE4, packet.near))?
            }
        };
    }
    Ok(left)
}

/// What these times are to be measured as: intervals of comfort noise, and the jitter in microseconds, as RFC 3550 section
/// 6.4.1 has it, with the 20 ms of voice frames as the interval that is meant. Nothing is lost or late here.
fn timed(left: &[Duration]) -> (u64, u64) {
    let mut pauses = 0;
    let mut jitter = 0.0;
    for pair in left.windows(2) {
        let interval = (pair[1] - pair[0]).as_secs_f64() * 1e6;
        if interval < 100_000.0 {
            jitter += ((interval - 20_000.0).abs() - jitter) / 16.0;
        } else if interval < 240_000.0 {
            pauses += 1;
        }
    }
    (pauses, jitter as u64)
}

/// In a lab, at the times that they say, through an agent's programs and into a capture: what only time tells.
#[test]
fn the_kernel_measures_what_time_tells() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(
        &lab.router,
        r#"
[interfaces]
access = ["lan"]
[telemetry]
enabled = true
[lab]
admit = ["198.18.0.0/15"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
"#,
    )?;
    agent.wait_hooks("lan", 2)?;
    let directory = tempfile::TempDir::with_prefix("wificall-conversations-")?;
    let capture = Tshark::start(&lab.router, "lan", directory.path(), "lan")?;
    let far = [500, NATT].map(|port| send::udp(&lab.far, &format!("{EPDG4}:{port}")));
    let [ike, natt] = far;
    let far = [ike?, natt?];
    let mut conversations = conversation::all();
    conversations.retain(|conversation| conversation.timed);
    for (conversation, by) in conversations.iter_mut().zip((0..).step_by(10)) {
        conversation.move_ports(by);
    }
    let left = thread::scope(|scope| {
        let all: Vec<_> = conversations
            .iter()
            .map(|conversation| scope.spawn(|| say(&lab, conversation, &far)))
            .collect();
        all.into_iter()
            .map(|one| one.join().expect("a sender does not panic"))
            .collect::<Result<Vec<Left>>>()
    })?;
    let flows: HashMap<MapData, Raw<FlowKey>, Raw<Flow>> =
        aya::maps::Map::LruHashMap(agent.map("FLOWS")?).try_into()?;
    let mut kernel = BTreeMap::new();
    for entry in flows.iter() {
        let (Raw(key), Raw(flow)) = entry?;
        if flow.up.esp != 0 {
            kernel.insert(u64::from(key.port), told(&flow));
        }
    }
    far[0].send_to(LAST, (PHONE4, 9))?;
    let file = capture.finish(LAST)?;
    let mut command = Command::new(agent_binary()?);
    let json = output(command.arg("analyze").arg("--json").arg(&file))?;
    let analysis: Value = serde_json::from_str(&json)?;
    println!("{}", heading());
    for (conversation, left) in conversations.iter().zip(&left) {
        let name = conversation.name;
        let port = u64::from(conversation.packets.last().context("no packets")?.near);
        let kernel = kernel
            .get(&port)
            .with_context(|| format!("{name}: no flow"))?;
        let flows = analysis["flows"].as_array().context("no flows")?;
        let captured = flows
            .iter()
            .find(|flow| flow["port"] == port)
            .with_context(|| format!("{name}: no flow in the capture"))?;
        let captured = legs(captured);
        for way in Way::BOTH {
            let mut sent = conversation.truth[way as usize];
            (sent.pause, sent.jitter) = timed(&left[way as usize]);
            let sent = &sent;
            let (kernel, captured) = (&kernel[way as usize], &captured[way as usize]);
            println!("{}", row("kernel", name, way, sent, kernel));
            println!("{}", row("capture", name, way, sent, captured));
            assert_eq!(timeless(kernel), timeless(sent), "{name} {way:?}");
            assert_eq!(timeless(captured), timeless(sent), "{name} {way:?}");
            for measured in [kernel, captured] {
                assert!(
                    measured.pause.abs_diff(sent.pause) <= PAUSE_TOLERANCE
                        && measured.jitter.abs_diff(sent.jitter) <= CLOCK_TOLERANCE,
                    "{name} {way:?}: {measured:?}, not {sent:?}"
                );
            }
        }
    }
    agent.finish()
}
