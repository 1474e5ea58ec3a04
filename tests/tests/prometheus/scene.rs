//! A lab in which everything that a dashboard shows happens.

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::dns::{self, Dns};
use wificall_tests::lab::{EPDG4, Lab, PHONE4, ROUTER_DNS};
use wificall_tests::prometheus::get;
use wificall_tests::send;
use wificall_tests::swan::{self, Connection, Swan};

/// Where the agent listens, in the router.
pub const TARGET: &str = "127.0.0.1:9817";
/// How long ago the scene may have begun.
pub const SECONDS: u32 = 90;
/// What is sent in a call, in frames of 20 ms.
const FRAMES: u32 = 600;

/// Gives the lab an ePDG's inside, and a DNS that names it.
pub fn carrier(lab: &Lab) -> Result<Dns<'_>> {
    lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
    let records: &[dns::Record<'_>] = &[(dns::EPDG, &[EPDG4])];
    Dns::start(&lab.far, &[ROUTER_DNS], 3600, records)
}

/// An agent in it that does all that has a metric.
pub fn agent(lab: &Lab) -> Result<Agent<'_>> {
    let configuration = format!(
        r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[discovery]
operators = ["001-01"]
resolvers = ["{ROUTER_DNS}"]
[telemetry]
labels = "full"
[probe]
enabled = true
interval = "2s"
spacing = "100ms"
[trust]
bleach = true
[other_ipsec]
action = "audit"
[lab]
admit = ["198.18.0.0/15"]
[[exit]]
name = "home"
gateways = ["198.19.255.6"]
device = "exit"
table = 1066
mark = "0x66/0xff"
[[policy]]
name = "home"
operators = ["001-01"]
exit = "home"
"#
    );
    Agent::run(&lab.router, &configuration)
}

/// A tunnel that is set up twice, so that counters are seen to grow, and a call with loss in both directions.
pub fn two_set_ups_and_a_call(lab: &Lab, agent: &Agent<'_>) -> Result<()> {
    agent.wait_metrics("an ePDG and a gateway", |metrics| {
        ensure!(
            metrics.sum("wificall_known_addresses", &[]) >= 1,
            "no address"
        );
        let up = metrics.sum("wificall_exit_gateway_up", &[]);
        ensure!(up >= 1, "no gateway is up");
        Ok(())
    })?;
    // Both ends ask whether the other is there, so that both sides' round trips are seen.
    let checking = |text: String| text.replace("version = 2", "version = 2\n    dpd_delay = 2s");
    let epdg = Swan::start(&lab.far, &checking(swan::epdg()), None)?;
    let connection = Connection {
        name: "four",
        local: PHONE4,
        remote: EPDG4,
        inside: "10.98.0.1",
    };
    let phone = checking(swan::phone(&[connection]));
    let phone = Swan::start(&lab.phone, &phone, None)?;
    for round in 1..=2 {
        phone.initiate("four")?;
        lab.phone.run("ping", "-q -c5 -i0.1 -s80 -W5 10.98.0.1")?;
        agent.wait_metrics("a set-up", |metrics| {
            let ok = metrics.sum("wificall_setups_total", &[("result", "ok")]);
            ensure!(ok == round, "{ok} set-ups, not {round}");
            Ok(())
        })?;
        // Time for the liveness checks, and for Prometheus to see what was before.
        thread::sleep(Duration::from_secs(5));
        phone.terminate("four")?;
    }
    drop((phone, epdg));
    call(lab)?;
    agent.wait_metrics("the end of the call", |metrics| {
        let seconds = metrics.sum("wificall_call_seconds_total", &[]);
        ensure!(seconds > 5, "calls of {seconds} s");
        Ok(())
    })?;
    // The last scrape of it.
    thread::sleep(Duration::from_secs(3));
    Ok(())
}

/// Voice frames both ways, of which each tenth is not sent up and each 25th not down.
fn call(lab: &Lab) -> Result<()> {
    // IP and UDP headers make it 144.
    const LENGTH: usize = 116;
    let phone = send::udp(&lab.phone, &format!("{PHONE4}:4500"))?;
    let epdg = send::udp(&lab.far, &format!("{EPDG4}:4500"))?;
    let send = |socket: &UdpSocket, number: u32, to: (&str, u16)| -> Result<()> {
        socket.send_to(&send::esp(number, LENGTH), to)?;
        Ok(())
    };
    let start = Instant::now();
    for number in 1..=FRAMES {
        if number % 10 != 0 {
            send(&phone, number, (EPDG4, 4500))?;
        }
        if number % 25 != 0 {
            send(&epdg, number, (PHONE4, 4500))?;
        }
        let due = start + Duration::from_millis(20) * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// The metrics in the format before OpenMetrics.
pub fn classic(lab: &Lab) -> Result<String> {
    let text = get(&lab.router, TARGET, "/metrics", "text/plain;version=0.0.4")?;
    ensure!(!text.contains("# EOF"), "that is OpenMetrics:\n{text}");
    Ok(text)
}

/// `promtool check metrics`, which must find nothing to say.
pub fn check_by_promtool(text: &str) -> Result<()> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool\nhint: `cargo xtask test` installs what the tests need")?;
    let mut stdin = child.stdin.take().context("promtool has no input")?;
    stdin.write_all(text.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "promtool: {said}"
    );
    Ok(())
}
