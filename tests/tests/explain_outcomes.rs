//! `wificall explain` of what is no match, of tiers and of tunnels: what it says is what the programs do, by where the packets
//! arrive, with which DSCP, and by the exits that are counted.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wificall_tests::agent::{Agent, INSTANCE};
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EPDG4, LIMIT, Lab, OTHER4, OTHER6, PHONE4, PHONE6};
use wificall_tests::packet::Packet;
use wificall_tests::process::wait_until;
use wificall_tests::send::RawFrames;

/// Another client behind the same link.
const SECOND4: &str = "10.77.0.3";
/// An endpoint of another operator.
const SECOND_EPDG: &str = "198.18.1.5";
/// Only told of to a client.
const OBSERVED: &str = "198.18.7.7";
const PEER: &str = "203.0.113.77";
/// In the network between the router and the far side.
const NEIGHBOUR: &str = "198.19.255.2";
/// Identification of the packet that is sent after each and always arrives.
const LAST: u16 = 65_001;

/// Of a packet: whether it left by the marked way, and its DSCP; `None` if it did not leave.
type Fate = Option<(bool, u8)>;

struct Road<'a> {
    lab: &'a Lab,
    frames: RawFrames,
    ends: [Vec<u8>; 2],
}

impl<'a> Road<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        for address in [SECOND_EPDG, OBSERVED, PEER] {
            lab.far.ip(&format!("addr add {address}/32 dev lo"))?;
        }
        let bytes = |mac: String| -> Result<Vec<u8>> {
            let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
            Ok(bytes.collect::<Result<_, _>>()?)
        };
        Ok(Self {
            lab,
            frames: RawFrames::new(&lab.phone, "eth0")?,
            ends: [
                bytes(lab.router.mac("lan")?)?,
                bytes(lab.phone.mac("eth0")?)?,
            ],
        })
    }

    /// A frame from the phone to the router, of a packet in which `TAG` stands for its identification or flow label.
    fn frame(&self, text: &str, tag: u16) -> Result<Vec<u8>> {
        let text = text.replace("TAG", &tag.to_string());
        let mut frame = text.parse::<Packet>()?.bytes();
        frame[..12].copy_from_slice(&self.ends.concat());
        Ok(frame)
    }

    /// Sends it, and says what became of it.
    fn send(&self, frame: &[u8], tag: u16) -> Result<Fate> {
        let watch = |device: &str| {
            Capture::start(&self.lab.far, device, move |frame| {
                (!frame.outgoing).then(|| tagged(frame.bytes)).flatten()
            })
        };
        let (wan, exit) = (watch("eth0")?, watch("exit0")?);
        self.frames.send(frame)?;
        let last = format!("eth / ip4 {PHONE4} > {OTHER4} id=TAG / udp 9 > 9 / bytes 20");
        let before = wan.kept() + exit.kept();
        self.frames.send(&self.frame(&last, LAST)?)?;
        wait_until("the last packet", LIMIT, || {
            (wan.kept() + exit.kept() > before).then_some(())
        })?;
        // On another way the one before may be a little later.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (wan, exit) = (wan.finish()?, exit.finish()?);
        ensure!(
            wan.iter().any(|(found, _)| *found == LAST),
            "{wan:?} {exit:?}"
        );
        let of = |found: &[(u16, u8)], marked: bool| {
            let mine = found.iter().find(|(found, _)| *found == tag);
            mine.map(|(_, dscp)| (marked, *dscp))
        };
        Ok(of(&wan, false).or(of(&exit, true)))
    }
}

/// Tag and DSCP of a packet of a client. Read here anew: the tests do not judge the agent by its own parser.
fn tagged(frame: &[u8]) -> Option<(u16, u8)> {
    let ip = frame.get(14..)?;
    match ip.first()? >> 4 {
        4 if ip.get(12..15)? == [10, 77, 0] => {
            Some((u16::from_be_bytes([ip[4], ip[5]]), ip[1] >> 2))
        }
        6 if ip.get(8..10)? == [0xfd, 0x77] => {
            let class = ip[0] << 4 | ip[1] >> 4;
            Some((u16::from_be_bytes([ip[2], ip[3]]), class >> 2))
        }
        _ => None,
    }
}

fn explain(agent: &Agent, frame: &[u8]) -> Result<Value> {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = agent.ask(&["explain", "--json", &hex])?;
    serde_json::from_str(&text).with_context(|| text)
}

/// What is said to become of a packet with this DSCP, where these marks lead to the other way.
fn foretold(explanation: &Value, dscp: u8, away: &[&str]) -> Result<Fate> {
    let mut fate = (false, dscp);
    for hook in explanation["hooks"].as_array().context("hooks")? {
        if hook["dropped"] == true {
            return Ok(None);
        }
        if let Some(mark) = hook["mark"].as_str() {
            fate.0 = away.contains(&mark);
        }
        if let Some(dscp) = hook["dscp"].as_u64() {
            fate.1 = u8::try_from(dscp)?;
        }
    }
    Ok(Some(fate))
}

/// The exits that are said to be counted, by hook.
fn exits(explanation: &Value) -> Vec<(String, String)> {
    let hooks = explanation["hooks"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    hooks
        .map(|hook| (text(&hook["hook"]), text(&hook["exit"])))
        .collect()
}

fn counted(agent: &Agent, exits: &[(String, String)]) -> Result<Vec<u64>> {
    let metrics = agent.metrics()?;
    let count = |(hook, exit): &(String, String)| {
        metrics.sum("wificall_exits_total", &[("hook", hook), ("exit", exit)])
    };
    Ok(exits.iter().map(count).collect())
}

/// Explains a packet and sends it; the explanation, which is right.
fn agree(road: &Road, agent: &Agent, text: &str, tag: u16, away: &[&str]) -> Result<Value> {
    let frame = road.frame(text, tag)?;
    let explanation = explain(agent, &frame)?;
    let exits = exits(&explanation);
    ensure!(!exits.is_empty(), "{text}: {explanation:#}");
    let before = counted(agent, &exits)?;
    let dscp = match frame[14] >> 4 {
        4 => frame[15] >> 2,
        _ => (frame[14] << 4 | frame[15] >> 4) >> 2,
    };
    let fate = road.send(&frame, tag)?;
    let expected = foretold(&explanation, dscp, away)?;
    ensure!(
        fate == expected,
        "{text}: {fate:?}, not {expected:?}: {explanation:#}"
    );
    for ((before, after), exit) in before.iter().zip(counted(agent, &exits)?).zip(&exits) {
        ensure!(
            after > *before,
            "{text}: {exit:?} is not counted: {explanation:#}"
        );
    }
    Ok(explanation)
}

fn configuration(interfaces: &str, more: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
{interfaces}
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32", "203.0.113.0/24"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
[[prefix]]
prefix = "198.18.1.0/24"
operator = "999-01"
{more}
"#
    )
}

/// Gives an agent that does not run yet a state in which a client was told of an ePDG, and a companion's name has an address.
fn remember(agent: &Agent<'_>) -> Result<()> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() - 5;
    let state = serde_json::json!({
        "format": "wificall addresses", "version": 2,
        "names": {}, "addresses": {}, "seen": {}, "nat64": {},
        "companions": { "entitlement.example.com": { OTHER4: at } },
        "observed": { OBSERVED: {
            "first_seen": at, "last_seen": at, "last_traffic": null, "client": PHONE4,
            "names": { "epdg.epc.mnc002.mcc001.pub.3gppnetwork.org": at }, "ike": null
        } },
    });
    let path = agent.config_path().with_file_name("state").join(INSTANCE);
    fs::create_dir_all(&path)?;
    fs::write(path.join("state.json"), state.to_string())?;
    Ok(())
}

fn v4(from: &str, to: &str, fields: &str, rest: &str) -> String {
    format!("eth / ip4 {from} > {to} id=TAG {fields} / {rest}")
}

/// What a configuration is called, its text, and packets with what becomes of each.
type Case = (&'static str, String, Vec<(String, &'static str)>);

/// Of each configuration: packets, and the exit that each leaves the last hook by.
fn cases() -> Vec<Case> {
    let esp = "udp 40000 > 4500 / esp 100";
    let to = |to: &str| v4(PHONE4, to, "", esp);
    let others = |exit: &'static str| {
        vec![
            (to(OTHER4), exit),
            (v4(PHONE4, OTHER4, "", "udp 40000 > 500 / ike 300"), exit),
            (v4(PHONE4, OTHER4, "tos=0x28", "esp 100"), exit),
            (
                format!("eth / ip6 {PHONE6} > {OTHER6} flow=TAG / {esp}"),
                exit,
            ),
            (to(PEER), "not_endpoint"),
            (to(NEIGHBOUR), "not_endpoint"),
            (
                v4(PHONE4, OTHER4, "off=127 proto=17", "bytes 100"),
                "not_endpoint",
            ),
            (
                v4(PHONE4, OTHER4, "", "udp 1 > 443 / bytes 50"),
                "other_port",
            ),
        ]
    };
    let other = |action: &str| format!("[other_ipsec]\n{action}\npeers = [\"{PEER}\"]\n");
    let mark = "mark = \"0x65/0xff\"\n";
    let policy = |rest: &str| format!("[[policy]]\nname = \"p\"\n{rest}\n");
    let with = |mut cases: Vec<(String, &'static str)>, observed: &'static str| {
        cases.push((to(OBSERVED), observed));
        cases.push((to(EPDG4), "matched"));
        cases
    };
    vec![
        (
            "mark",
            other(&format!("action = \"mark\"\n{mark}")),
            with(others("other_marked"), "other_marked"),
        ),
        (
            "audit",
            other("action = \"audit\""),
            with(others("other_audited"), "other_audited"),
        ),
        (
            "drop",
            other("action = \"drop\"\narm_at = 2"),
            with(others("other_dropped"), "other_dropped"),
        ),
        (
            "drop, not armed",
            other("action = \"drop\"\narm_at = 100"),
            with(others("other_audited"), "other_audited"),
        ),
        (
            "bleach",
            "[trust]\nbleach = true\n".to_owned(),
            vec![
                (
                    v4(PHONE4, OTHER4, "tos=0xb9", "udp 1 > 5060 / bytes 50"),
                    "other_port",
                ),
                (
                    v4(PHONE4, OTHER4, "tos=0xb0", "tcp 1 > 80 / bytes 50"),
                    "other_protocol",
                ),
                (
                    v4(PHONE4, OTHER4, "tos=0x88", "udp 1 > 5060 / bytes 50"),
                    "other_port",
                ),
                (v4(PHONE4, OTHER4, "tos=0xb8", esp), "not_endpoint"),
                (
                    format!(
                        "eth / ip6 {PHONE6} > {OTHER6} tc=0xb8 flow=TAG / udp 1 > 5060 / bytes 50"
                    ),
                    "other_port",
                ),
                (v4(PHONE4, EPDG4, "tos=0xb8", esp), "matched"),
            ],
        ),
        (
            "bleach and mark",
            other(&format!("action = \"mark\"\n{mark}")) + "[trust]\nbleach = true\n",
            vec![(v4(PHONE4, OTHER4, "tos=0xb8", esp), "other_marked")],
        ),
        (
            "companions",
            policy(&format!(
                "clients = [\"{PHONE4}\"]\n{mark}companions = [\"entitlement.example.com\"]"
            )),
            vec![
                (
                    v4(PHONE4, OTHER4, "", "tcp 1 > 443 / bytes 50"),
                    "companion",
                ),
                (
                    v4(PHONE4, OTHER4, "", "udp 1 > 443 / bytes 50"),
                    "companion",
                ),
                (
                    v4(PHONE4, OTHER4, "", "tcp 1 > 80 / bytes 50"),
                    "other_protocol",
                ),
                (
                    v4(PHONE4, PEER, "", "tcp 1 > 443 / bytes 50"),
                    "other_protocol",
                ),
                (
                    v4(SECOND4, OTHER4, "", "tcp 1 > 443 / bytes 50"),
                    "other_protocol",
                ),
            ],
        ),
        (
            "catch_all",
            format!(
                "[geoip]\ndatabase = \"{}/data/GeoLite2-Country-Test.mmdb\"\n[catch_all]\nenabled = true\n",
                env!("CARGO_MANIFEST_DIR")
            ),
            vec![
                (v4(PHONE4, PEER, "", "udp 500 > 500 / ike 300"), "held"),
                (
                    v4(PHONE4, OTHER4, "", "udp 40000 > 4500 / marker / ike 300"),
                    "held",
                ),
                (to(OTHER4), "not_endpoint"),
                (v4(PHONE4, OTHER4, "", "esp 100"), "not_endpoint"),
                (
                    v4(PHONE4, NEIGHBOUR, "", "udp 500 > 500 / ike 300"),
                    "new_ike",
                ),
                (v4(PHONE4, EPDG4, "", "udp 500 > 500 / ike 300"), "matched"),
            ],
        ),
        (
            "a policy that drops",
            policy("operators = [\"001-01\"]\ndrop = true"),
            vec![(to(EPDG4), "dropped"), (to(SECOND_EPDG), "matched")],
        ),
        (
            "a policy for a client",
            policy(&format!("clients = [\"{SECOND4}\"]\n{mark}")),
            vec![
                (v4(SECOND4, EPDG4, "", esp), "matched"),
                (to(EPDG4), "matched"),
            ],
        ),
    ]
}

fn all_agree(interfaces: &str) -> Result<()> {
    let lab = Lab::new()?;
    let road = Road::new(&lab)?;
    let behind_xdp = interfaces.contains("xdp");
    let mut tag = 1000;
    for (name, more, packets) in cases() {
        let mut agent = Agent::new(&lab.router, &configuration(interfaces, &more))?;
        remember(&agent)?;
        agent.start()?;
        for (text, exit) in packets {
            tag += 1;
            let explanation = agree(&road, &agent, &text, tag, &["0x65/0xff"])
                .with_context(|| name.to_owned())?;
            let exits = exits(&explanation);
            let expected = match exit {
                "matched" if behind_xdp => "by_xdp",
                exit => exit,
            };
            let (_, last) = exits.last().context("a hook")?;
            assert_eq!(last, expected, "{name}: {text}: {explanation:#}");
            let drops = ["dropped", "other_dropped"].contains(&exit);
            assert_eq!(exits.len(), if behind_xdp && !drops { 2 } else { 1 });
        }
        agent.finish()?;
    }
    Ok(())
}

#[test]
fn what_tc_does_is_what_is_said() -> Result<()> {
    all_agree("")
}

#[test]
fn what_xdp_and_tc_do_is_what_is_said() -> Result<()> {
    all_agree("xdp = [\"lan\"]\nxdp_mode = \"generic\"")
}

/// Two exits, of which one is the marked way of the lab and the other its unmarked one; `now` is what the policy says.
fn exits_of(now: &str) -> String {
    let exits = r#"
[[exit]]
name = "away"
gateways = ["198.19.255.6"]
table = 1065
mark = "0x71/0xff"
when_down = "next"
[[exit]]
name = "home"
gateways = ["198.19.255.2"]
table = 1066
mark = "0x72/0xff"
when_down = "next"
"#;
    let policy = format!("[[policy]]\nname = \"p\"\noperators = [\"001-01\"]\nexit = \"{now}\"\n");
    configuration("", &format!("{exits}{policy}"))
}

/// A tunnel that is up when the policy changes: which exit it keeps, until it begins anew.
#[test]
fn a_tunnel_keeps_the_exit_that_is_said() -> Result<()> {
    let lab = Lab::new()?;
    let road = Road::new(&lab)?;
    let agent = Agent::run(&lab.router, &exits_of("away"))?;
    let esp = v4(PHONE4, EPDG4, "", "udp 40000 > 4500 / esp 100");
    let init = v4(PHONE4, EPDG4, "", "udp 40000 > 4500 / marker / ike 300");
    let mut tag = 2000;
    let mut step = |text: &str| -> Result<(String, String)> {
        tag += 1;
        let explanation = agree(&road, &agent, text, tag, &["0x71/0xff"])?;
        let steps = explanation["steps"].as_array().context("steps")?;
        let tunnel = steps.iter().find(|step| step["part"] == "tunnel");
        let result = &tunnel.context("a tunnel")?["result"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(result), text(&explanation["leaves_by"])))
    };
    let is = |result: &str, exit: &str| (result.to_owned(), exit.to_owned());
    assert_eq!(step(&init)?, is("begins", "away"));
    assert_eq!(step(&esp)?, is("agrees", "away"));
    agent.configure(&exits_of("home"))?;
    agent.ask(&["reload"])?;
    assert_eq!(step(&esp)?, is("kept", "away"));
    assert_eq!(step(&init)?, is("renewed", "home"));
    assert_eq!(step(&esp)?, is("agrees", "home"));

    // The exit, and the gateway that it takes.
    wait_until("the gateways' answers", LIMIT, || {
        let text = agent
            .ask(&["explain", PHONE4, EPDG4, "udp", "40000", "4500"])
            .ok()?;
        let says = text.contains("home: IPv4 by 198.19.255.2 (up); IPv6 direct");
        says.then_some(())
    })?;
    let flow = [
        "explain",
        "--offline",
        PHONE4,
        EPDG4,
        "udp",
        "40000",
        "4500",
    ];
    let offline = agent.ask(&flow)?;
    ensure!(
        offline.contains("home: which gateway is in use is not known"),
        "{offline}"
    );
    agent.finish()
}
