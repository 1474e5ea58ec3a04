//! `wificall probe` against real strongSwan gateways: one that agrees, one that refuses, one that wants another group, one
//! under attack that asks for a cookie; a silent address and a closed port. Redirects come from a responder of our own,
//! for strongSwan has none before IKE_AUTH.

mod redirect;

use std::process::Output;

use anyhow::{Context, Result, ensure};
use redirect::Redirector;
use serde_json::Value;
use wificall_tests::agent::Agent;
use wificall_tests::capture::Capture;
use wificall_tests::dns::{Dns, EPDG};
use wificall_tests::lab::{DNS, EPDG4, EPDG4_BESIDE, EPDG6, Lab};
use wificall_tests::netns::{Netns, veth};
use wificall_tests::swan::Swan;
use wificall_tests::view::View;

/// Offers only what we have not.
const REFUSING: &str = "198.18.0.11";
/// Wants MODP-1024.
const OLD: &str = "198.18.0.12";
/// Drops what comes.
const SILENT: &str = "198.18.0.13";
/// Wants AES-GCM and Curve25519.
const NEW: &str = "198.18.0.17";
/// As [`NEW`], over IPv6.
const NEW6: &str = "2001:db8:18::17";
/// Nobody listens there.
const CLOSED: &str = "198.18.1.14";
/// As above, IPv6.
const CLOSED6: &str = "2001:db8:1::14";
/// Send on to [`EPDG4`], and to the one that does.
const REDIRECTING: &str = "198.18.1.15";
const REDIRECTING_TWICE: &str = "198.18.1.16";
/// Sends on to an address of nobody's concern.
const REDIRECTING_HOME: &str = "198.18.1.17";

/// Sends on by name, over IPv4 and IPv6; and from the one to the other.
const REDIRECTING_BY_NAME: &str = "198.18.1.18";
const REDIRECTING_BY_NAME6: &str = "2001:db8:1::18";
const REDIRECTING_TO6: &str = "198.18.1.19";
const GATEWAY: &str = "gateway.epdg.epc.mnc001.mcc001.pub.3gppnetwork.org";
/// Answers late. In the order of addresses it is the first.
const SLOW: &str = "198.18.0.5";
/// Another operator's.
const EPDG_OTHER: &str = "epdg.epc.mnc002.mcc001.pub.3gppnetwork.org";

/// Several probes from one address are no attack here.
const PATIENT: &str = "dos_protection = no\n  send_vendor_id = yes";

struct Gateways {
    lab: Lab,
    other: Netns,
}

impl Gateways {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let far: Vec<String> = [REFUSING, OLD, SILENT, NEW]
            .map(|a| format!("{a}/32"))
            .into();
        let far: Vec<&str> = far.iter().map(String::as_str).chain([NEW6]).collect();
        lab.far.address("lo", &far)?;
        let other = Netns::new("other")?;
        veth((&lab.router, "side"), (&other, "eth0"))?;
        lab.router
            .address("side", &["198.19.254.1/30", "fd00:3::1/64"])?;
        other.address("eth0", &["198.19.254.2/30", "fd00:3::2/64"])?;
        other.address(
            "lo",
            &[
                CLOSED,
                CLOSED6,
                REDIRECTING,
                REDIRECTING_TWICE,
                REDIRECTING_HOME,
                REDIRECTING_BY_NAME,
                REDIRECTING_BY_NAME6,
                REDIRECTING_TO6,
                SLOW,
            ],
        )?;
        lab.router
            .ip(&format!("route add {SLOW}/32 via 198.19.254.2"))?;
        lab.router.ip("route add 198.18.1.0/24 via 198.19.254.2")?;
        lab.router.ip("route add 2001:db8:1::/64 via fd00:3::2")?;
        other.ip("route add default via 198.19.254.1")?;
        other.ip("route add default via fd00:3::1")?;
        for rule in [
            "add table inet lab",
            "add chain inet lab in { type filter hook input priority 0 ; }",
        ] {
            lab.far.run("nft", rule)?;
        }
        lab.far.run(
            "nft",
            &format!("add rule inet lab in ip daddr {SILENT} drop"),
        )?;
        Ok(Self { lab, other })
    }
}

/// A gateway's connections: each at its addresses, with its proposals.
fn connections(rows: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("connections {\n");
    for (name, addresses, proposals) in rows {
        text += &format!(
            "  {name} {{\n    version = 2\n    local_addrs = {addresses}\n    proposals = {proposals}\n    \
             local {{\n      auth = psk\n      id = epdg@lab\n    }}\n    remote {{\n      auth = psk\n    }}\n  }}\n"
        );
    }
    text + "}\nsecrets {\n  ike-all { secret = \"not a secret\" }\n}\n"
}

fn gateways(lab: &Lab) -> Result<Swan> {
    let new = format!("{NEW},{NEW6}");
    let both = format!("{EPDG4},{EPDG6}");
    let rows = [
        ("agrees", both.as_str(), "aes256-sha256-modp2048"),
        ("refuses", REFUSING, "aes256-sha256-ecp521"),
        ("old", OLD, "aes128-sha1-modp1024"),
        ("new", &new, "aes128gcm16-prfsha256-curve25519"),
    ];
    Swan::start_with(&lab.far, &connections(&rows), None, PATIENT)
}

fn configuration(interface: &str, resolver: &str) -> String {
    format!(
        "[interfaces]\naccess = [\"{interface}\"]\n[discovery]\noperators = [\"001-01\"]\n\
         resolvers = [\"{resolver}\"]\ntimeout = \"2s\"\n\
         [lab]\nadmit = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n\
         [[policy]]\nname = \"marked\"\noperators = [\"001-01\"]\nmark = \"0x65/0xff\"\n"
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout)
        .with_context(|| text(&output.stdout) + &text(&output.stderr))
}

/// The row of an address and port.
fn row<'a>(found: &'a Value, address: &str, port: u16) -> Result<&'a Value> {
    let rows = found["probed"].as_array().context("no `probed`")?;
    rows.iter()
        .find(|row| row["address"] == address && row["port"] == port)
        .with_context(|| format!("no {address} {port} in {found:#}"))
}

#[test]
fn every_answer_is_told_apart() -> Result<()> {
    let Gateways { lab, other: _other } = Gateways::new()?;
    lab.masquerade()?;
    let all = [
        EPDG4,
        REFUSING,
        OLD,
        SILENT,
        NEW,
        CLOSED,
        EPDG6,
        NEW6,
        CLOSED6,
        "127.0.0.9",
    ];
    let _dns = Dns::start(&lab.far, &[DNS], 60, &[(EPDG, &all)])?;
    let _swan = gateways(&lab)?;
    let phone = Agent::new(&lab.phone, &configuration("eth0", DNS))?;
    let arguments = ["probe", "001-01", "--rate", "50", "--timeout", "1s"];
    let output = phone.call(&[&arguments[..], &["--json"]].concat())?;
    let found = json(&output)?;
    ensure!(output.status.code() == Some(0), "{found:#}");

    for port in [500, 4500] {
        for (address, encr, dh, followed) in [
            (EPDG4, "aes-cbc-256", "modp2048", vec![]),
            (EPDG6, "aes-cbc-256", "modp2048", vec![]),
            (OLD, "aes-cbc-128", "modp1024", vec!["group modp1024"]),
            (NEW, "aes-gcm-16-128", "x25519", vec!["group x25519"]),
            (NEW6, "aes-gcm-16-128", "x25519", vec!["group x25519"]),
        ] {
            let row = row(&found, address, port)?;
            ensure!(row["result"] == "reachable", "{row:#}");
            ensure!(
                row["suite"]["encr"]
                    .as_str()
                    .is_some_and(|e| e.starts_with(encr)),
                "{row:#}"
            );
            ensure!(row["suite"]["dh"] == dh, "{row:#}");
            ensure!(row["followed"] == serde_json::json!(followed), "{row:#}");
            ensure!(
                row["nat"]["here"] == !address.contains(':'),
                "behind the NAT of IPv4 only: {row:#}"
            );
            ensure!(row["vendor_ids"][0] == "strongSwan", "{row:#}");
            ensure!(
                row["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0),
                "{row:#}"
            );
            ensure!(
                row["operators"][0] == "001-01" && row["names"][0] == EPDG,
                "{row:#}"
            );
        }
        let refused = row(&found, REFUSING, port)?;
        ensure!(refused["result"] == "refused", "{refused:#}");
        ensure!(refused["notify"] == "NO_PROPOSAL_CHOSEN", "{refused:#}");
        let silent = row(&found, SILENT, port)?;
        ensure!(silent["result"] == "silent", "{silent:#}");
        ensure!(silent["datagrams_sent"] == 2, "at 0 and 0.5 s: {silent:#}");
        ensure!(silent["rtt_ms"].is_null(), "{silent:#}");
        for closed in [CLOSED, CLOSED6] {
            let row = row(&found, closed, port)?;
            ensure!(row["result"] == "unreachable", "{row:#}");
            let icmp = row["icmp"].as_str().unwrap_or_default();
            ensure!(
                icmp.ends_with(&format!("port unreachable, says {closed}")),
                "{row:#}"
            );
        }
    }
    ensure!(found["refused"][0]["reason"] == "loopback", "{found:#}");
    ensure!(found["asked"][0]["reachable"] == 5, "{found:#}");

    // As people see it; not a terminal, so without colours.
    let table = text(&phone.call(&arguments)?.stdout);
    println!("{table}");
    ensure!(!table.contains('\x1b'), "{table}");
    ensure!(
        table.contains("001-01: 5 of 9 addresses reachable; best "),
        "{table}"
    );

    let best = phone.call(&["probe", EPDG4, OLD, "--best", "--json"])?;
    ensure!(
        json(&best)?["operators"] == serde_json::json!({}),
        "nobody's addresses"
    );
    Ok(())
}

/// Of two that answer, the faster; the slower comes first by address and in the answer of DNS.
#[test]
fn the_best_is_the_fastest() -> Result<()> {
    const DELAY_MS: f64 = 60.0;
    let Gateways { lab, other } = Gateways::new()?;
    let _dns = Dns::start(&lab.far, &[DNS], 60, &[(EPDG, &[SLOW, EPDG4])])?;
    let _swan = gateways(&lab)?;
    let slow = [("slow", SLOW, "aes256-sha256-modp2048")];
    let late = format!("{PATIENT}\n  receive_delay = {DELAY_MS}");
    let _slow = Swan::start_with(&other, &connections(&slow), None, &late)?;
    let router = Agent::new(&lab.router, &configuration("lan", DNS))?;
    let found = json(&router.call(&["probe", "001-01", "--json"])?)?;
    for port in [500, 4500] {
        let rtt = |address| -> Result<f64> {
            let row = row(&found, address, port)?;
            row["rtt_ms"].as_f64().with_context(|| format!("{row:#}"))
        };
        let (slow, fast) = (rtt(SLOW)?, rtt(EPDG4)?);
        ensure!(slow >= DELAY_MS && fast < slow, "{fast} and {slow} ms");
    }
    ensure!(found["asked"][0]["best"] == EPDG4, "{:#}", found["asked"]);
    let best = json(&router.call(&["probe", "001-01", "--best", "--json"])?)?;
    ensure!(best["operators"]["001-01"]["address"] == EPDG4, "{best:#}");
    let of_name = &best["names"][EPDG]["ipv4"];
    ensure!(of_name["address"] == EPDG4, "{best:#}");
    Ok(())
}

/// The exit code is what a script asks for.
#[test]
fn whoever_asks_is_told_whether_it_can_be_reached() -> Result<()> {
    let Gateways { lab, other: _other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let router = Agent::new(&lab.router, &configuration("lan", DNS))?;
    let quick = ["--timeout", "300ms", "--ports", "500", "--rate", "50"];
    let code = |targets: &[&str]| -> Result<i32> {
        let output = router.call(&[&["probe"], targets, &quick].concat())?;
        output.status.code().context("killed")
    };
    ensure!(code(&[EPDG4])? == 0);
    ensure!(code(&[EPDG6, EPDG4])? == 0);
    ensure!(
        code(&[EPDG4, REFUSING])? == 1,
        "a refusal is no answer for a phone"
    );
    ensure!(code(&[SILENT])? == 1);
    ensure!(code(&[CLOSED6])? == 1);
    ensure!(code(&["10.0.0.1"])? == 1, "not probed");
    ensure!(code(&[EPDG6, "-4"])? == 1, "nothing left to probe");
    ensure!(code(&[EPDG4, "--policy", "none"])? == 2);
    ensure!(code(&["UK"])? == 2);
    Ok(())
}

#[test]
fn a_gateway_under_attack_gets_its_cookie_back() -> Result<()> {
    let Gateways { lab, other: _other } = Gateways::new()?;
    let rows = [("busy", EPDG4, "aes256-sha256-modp2048")];
    let settings = "block_threshold = 0\n  cookie_threshold = 1";
    let _swan = Swan::start_with(&lab.far, &connections(&rows), None, settings)?;
    let router = Agent::new(&lab.router, &configuration("lan", DNS))?;
    let followed = |port: &str| -> Result<Value> {
        let output = router.call(&["probe", EPDG4, "--ports", port, "--json"])?;
        let found = json(&output)?;
        let row = row(&found, EPDG4, port.parse()?)?;
        ensure!(row["result"] == "reachable", "{row:#}");
        Ok(row["followed"].clone())
    };
    ensure!(followed("500")? == serde_json::json!([]));
    // The half-open SA of the first is what frightens it.
    ensure!(followed("4500")? == serde_json::json!(["cookie"]));
    Ok(())
}

#[test]
fn redirects_are_followed_once() -> Result<()> {
    let Gateways { lab, other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let _once = Redirector::start(&other, REDIRECTING, 500, EPDG4)?;
    let _twice = Redirector::start(&other, REDIRECTING_TWICE, 500, REDIRECTING)?;
    let _home = Redirector::start(&other, REDIRECTING_HOME, 500, "10.77.0.1")?;
    let router = Agent::new(&lab.router, &configuration("lan", DNS))?;
    let targets = [REDIRECTING, REDIRECTING_TWICE, REDIRECTING_HOME];
    let output =
        router.call(&[&["probe"], &targets[..], &["--ports", "500", "--json"]].concat())?;
    let found = json(&output)?;
    let once = row(&found, REDIRECTING, 500)?;
    ensure!(once["result"] == "reachable", "{once:#}");
    ensure!(
        once["followed"][0] == format!("redirect to {EPDG4}"),
        "{once:#}"
    );
    let twice = row(&found, REDIRECTING_TWICE, 500)?;
    ensure!(twice["result"] == "redirected", "{twice:#}");
    ensure!(
        twice["detail"] == format!("to {EPDG4}, not followed"),
        "{twice:#}"
    );
    ensure!(twice["datagrams_sent"] == 2, "{twice:#}");
    let home = row(&found, REDIRECTING_HOME, 500)?;
    ensure!(home["detail"] == "to 10.77.0.1, not followed", "{home:#}");
    Ok(())
}

/// By name, to the other family, on both ports.
#[test]
fn redirects_lead_by_name_and_to_ipv6() -> Result<()> {
    let Gateways { lab, other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let _dns = Dns::start(&lab.far, &[DNS], 60, &[(GATEWAY, &[EPDG4, EPDG6])])?;
    let nobody = "nobody.epdg.epc.mnc001.mcc001.pub.3gppnetwork.org";
    let rows = [
        (REDIRECTING_BY_NAME, GATEWAY, format!("{GATEWAY} ({EPDG4})")),
        (
            REDIRECTING_BY_NAME6,
            GATEWAY,
            format!("{GATEWAY} ({EPDG6})"),
        ),
        (REDIRECTING_TO6, EPDG6, EPDG6.to_owned()),
        (REDIRECTING, nobody, String::new()),
    ];
    let mut responders = Vec::new();
    for (address, gateway, _) in &rows {
        for port in [500, 4500] {
            responders.push(Redirector::start(&other, address, port, gateway)?);
        }
    }
    let router = Agent::new(&lab.router, &configuration("lan", DNS))?;
    let targets = rows.each_ref().map(|(address, ..)| *address);
    let output = router.call(&[&["probe", "--json"], &targets[..]].concat())?;
    let found = json(&output)?;
    for port in [500, 4500] {
        for (address, gateway, led) in &rows {
            let row = row(&found, address, port)?;
            if led.is_empty() {
                ensure!(row["result"] == "redirected", "{row:#}");
                ensure!(
                    row["detail"] == format!("to {gateway}, not followed"),
                    "{row:#}"
                );
            } else {
                ensure!(row["result"] == "reachable", "{row:#}");
                ensure!(
                    row["followed"] == serde_json::json!([format!("redirect to {led}")]),
                    "{row:#}"
                );
            }
        }
    }
    Ok(())
}

/// With a mark, probes and DNS questions take the marked packets' way.
#[test]
fn a_mark_decides_the_way() -> Result<()> {
    let Gateways { lab, other: _other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let _dns = Dns::start(&lab.far, &[EPDG4_BESIDE], 60, &[(EPDG, &[EPDG4, EPDG6])])?;
    let router = Agent::new(&lab.router, &configuration("lan", EPDG4_BESIDE))?;
    for (options, device) in [
        (&[][..], "eth0"),
        (&["--mark", "0x65"], "exit0"),
        (&["--policy", "marked"], "exit0"),
    ] {
        let watch = |device: &str| {
            Capture::start(&lab.far, device, |frame| {
                let port = View::of(frame)?.ports?.1;
                (!frame.outgoing && [53, 500, 4500].contains(&port)).then_some(port)
            })
        };
        let (eth0, exit0) = (watch("eth0")?, watch("exit0")?);
        let output = router.call(&[&["probe", "001-01", "--json"], options].concat())?;
        ensure!(
            output.status.code() == Some(0),
            "{options:?}: {}",
            text(&output.stderr)
        );
        let (eth0, exit0) = (eth0.finish()?, exit0.finish()?);
        let (used, unused) = if device == "eth0" {
            (eth0, exit0)
        } else {
            (exit0, eth0)
        };
        for port in [53, 500, 4500] {
            ensure!(
                used.contains(&port),
                "{options:?}: nothing to {port} by {device}"
            );
        }
        ensure!(
            unused.is_empty(),
            "{options:?}: {unused:?} by the other way"
        );
    }
    Ok(())
}

/// The agent probes what it has resolved, and says so before anybody calls: in metrics, in `status`, as a problem.
#[test]
fn a_blocked_epdg_shows_before_anybody_calls() -> Result<()> {
    let Gateways { lab, other: _other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let _dns = Dns::start(&lab.far, &[EPDG4_BESIDE], 60, &[(EPDG, &[EPDG4, EPDG6])])?;
    let round = "[probe]\nenabled = true\ninterval = \"1s\"\nspacing = \"50ms\"\nports = [4500]\n";
    let configuration = configuration("lan", EPDG4_BESIDE) + round;
    // With the mark of the policy, so by the other interface.
    let exit = Capture::start(&lab.far, "exit0", |frame| {
        let port = View::of(frame)?.ports?.1;
        (!frame.outgoing && port == 4500).then_some(())
    })?;
    let agent = Agent::run(&lab.router, &configuration)?;
    let of = |result| [("operator", "001-01"), ("port", "4500"), ("result", result)];
    let metrics = agent.wait_metrics("probed addresses", |metrics| {
        let reachable = metrics.sum("wificall_probe_addresses", &of("reachable"));
        ensure!(reachable == 2, "{reachable} reachable");
        Ok(())
    })?;
    ensure!(exit.kept() > 0, "by the policy's way");
    ensure!(
        metrics.sum("wificall_probe_last_success_timestamp_seconds", &[]) > 0,
        "its time"
    );
    let rtt = metrics.select("wificall_probe_rtt_seconds", &[]).next();
    ensure!(
        rtt.is_some_and(|(_, rtt)| rtt > 0.0 && rtt < 1.0),
        "{rtt:?}"
    );
    let status = agent.status()?;
    ensure!(status["problems"] == serde_json::json!([]), "{status:#}");

    lab.far
        .run("nft", "add rule inet lab in udp dport 4500 drop")?;
    agent.wait_metrics("silence", |metrics| {
        let silent = metrics.sum("wificall_probe_addresses", &of("silent"));
        ensure!(silent == 2, "{silent} silent");
        let labels = of("reachable");
        let reachable: Vec<_> = metrics
            .select("wificall_probe_addresses", &labels)
            .collect();
        ensure!(
            reachable.len() == 1 && reachable[0].1 == 0.0,
            "{reachable:?}"
        );
        Ok(())
    })?;
    let status = agent.status()?;
    let problem = status["problems"][0].as_str().unwrap_or_default();
    ensure!(
        problem.starts_with("no ePDG of 001-01 answers probes"),
        "{status:#}"
    );
    ensure!(
        status["ready"] == true,
        "what is classified is classified all the same"
    );
    ensure!(agent.ask(&["status"])?.contains("port 4500 silent"));
    agent.finish()
}

/// An ePDG that sends on to another, by name, is reachable if that is; one that refuses everything is there. Neither is a
/// problem.
#[test]
fn who_answers_the_agent_is_no_problem() -> Result<()> {
    let Gateways { lab, other } = Gateways::new()?;
    let _swan = gateways(&lab)?;
    let _sends_on = Redirector::start(&other, REDIRECTING_BY_NAME, 4500, GATEWAY)?;
    let records: &[(&str, &[&str])] = &[
        (EPDG, &[REDIRECTING_BY_NAME]),
        (EPDG_OTHER, &[REFUSING]),
        (GATEWAY, &[EPDG4]),
    ];
    let _dns = Dns::start(&lab.far, &[DNS], 60, records)?;
    let configuration = format!(
        "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"001-01\", \"001-02\"]\n\
         resolvers = [\"{DNS}\"]\n[lab]\nadmit = [\"198.18.0.0/15\"]\n\
         [probe]\nenabled = true\ninterval = \"1s\"\nspacing = \"50ms\"\nports = [4500]\n"
    );
    let agent = Agent::run(&lab.router, &configuration)?;
    let of = |operator, result| [("operator", operator), ("port", "4500"), ("result", result)];
    agent.wait_metrics("answers", |metrics| {
        let addresses = |of: &[(&str, &str)]| metrics.sum("wificall_probe_addresses", of);
        let reachable = addresses(&of("001-01", "reachable"));
        let refused = addresses(&of("001-02", "refused"));
        ensure!((reachable, refused) == (1, 1), "{reachable} and {refused}");
        Ok(())
    })?;
    let status = agent.status()?;
    ensure!(status["problems"] == serde_json::json!([]), "{status:#}");
    let text = agent.ask(&["status"])?;
    let refusal = format!("answers: {REFUSING} port 4500 refused: NO_PROPOSAL_CHOSEN");
    ensure!(text.contains(&refusal), "{text}");
    agent.finish()
}
