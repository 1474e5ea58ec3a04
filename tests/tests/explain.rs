//! `wificall explain`: what it says of a packet is what becomes of it.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wificall_tests::agent::Agent;
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EPDG4, EPDG6, LIMIT, Lab, OTHER4, OTHER6, PHONE4, PHONE6};
use wificall_tests::netns::{Netns, veth};
use wificall_tests::packet::Packet;
use wificall_tests::process::wait_until;
use wificall_tests::send::RawFrames;

/// Two networks of two operators; three policies, of which two match.
const CONFIGURATION: &str = r#"
[interfaces]
access = ["lan"]
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
[[prefix]]
prefix = "198.18.1.0/28"
operator = "999-01"
[[prefix]]
prefix = "2001:db8:18::/64"
operator = "001-01"
[[policy]]
name = "australia"
countries = ["AU"]
mark = "0x99/0xff"
[[policy]]
name = "marked"
operators = ["001-01"]
mark = "0x65/0xff"
dscp = { up = { default = "EF", ike = "CS6" } }
[[policy]]
name = "kind"
operators = ["999-01"]
dscp = { mode = "if-default", up = "AF41", down = "keep" }
"#;

/// An address of the second operator.
const SECOND: &str = "198.18.1.5";
/// Beside it, and no endpoint.
const BESIDE: &str = "198.18.1.20";

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn explain(agent: &Agent, arguments: &[&str]) -> Result<Value> {
    let text = agent.ask(&[&["explain", "--json"], arguments].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

/// What became of a packet: whether it left by the marked way, and its DSCP; `None` if it did not leave at all.
type Fate = (bool, u8);

/// Packets as they leave the router: of IPv4 the identification, of IPv6 the flow label tells which.
struct Router<'a> {
    lab: &'a Lab,
    frames: RawFrames,
}

impl<'a> Router<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            lab,
            frames: RawFrames::new(&lab.phone, "eth0")?,
        })
    }

    /// Sends frames from the phone, addressed to the router, and says what became of the last.
    fn send(&self, frames: &[Vec<u8>], tag: u16) -> Result<Fate> {
        let watch = |device: &str| {
            Capture::start(&self.lab.far, device, move |frame| {
                (!frame.outgoing).then(|| tagged(frame.bytes)).flatten()
            })
        };
        let (wan, exit) = (watch("eth0")?, watch("exit0")?);
        let router = self.lab.router.mac("lan")?;
        let phone = self.lab.phone.mac("eth0")?;
        for frame in frames {
            let mut frame = frame.clone();
            frame[..6].copy_from_slice(&bytes(&router)?);
            frame[6..12].copy_from_slice(&bytes(&phone)?);
            self.frames.send(&frame)?;
        }
        wait_until("the packets on the far side", LIMIT, || {
            (wan.kept() + exit.kept() >= frames.len() as u64).then_some(())
        })?;
        let of_tag = |found: Vec<(u16, u8)>, marked: bool| {
            found
                .into_iter()
                .rev()
                .find(|(found, _)| *found == tag)
                .map(|(_, dscp)| (marked, dscp))
        };
        let (wan, exit) = (of_tag(wan.finish()?, false), of_tag(exit.finish()?, true));
        wan.or(exit).context("the packet did not arrive")
    }
}

fn bytes(mac: &str) -> Result<Vec<u8>> {
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
    Ok(bytes.collect::<Result<_, _>>()?)
}

/// Tag and DSCP of a packet from the phone. Read here anew: the tests do not judge the agent by its own parser.
fn tagged(frame: &[u8]) -> Option<(u16, u8)> {
    let ip = frame.get(14..)?;
    match ip.first()? >> 4 {
        4 if ip.get(12..16)? == [10, 77, 0, 2] => {
            Some((u16::from_be_bytes([ip[4], ip[5]]), ip[1] >> 2))
        }
        6 if ip.get(8..10)? == [0xfd, 0x77] => {
            let class = ip[0] << 4 | ip[1] >> 4;
            Some((u16::from_be_bytes([ip[2], ip[3]]), class >> 2))
        }
        _ => None,
    }
}

/// What is said to become of a packet that comes in at `lan`.
fn foretold(explanation: &Value, dscp: u8) -> Result<Fate> {
    let hooks = explanation["hooks"].as_array().context("hooks")?;
    let [hook] = &hooks[..] else {
        ensure!(hooks.is_empty(), "{explanation:#}");
        return Ok((false, dscp));
    };
    let marked = match hook["mark"].as_str() {
        None => false,
        Some(mark) => {
            ensure!(mark == "0x65/0xff", "{mark}");
            true
        }
    };
    let set = hook["dscp"].as_u64().map(u8::try_from).transpose()?;
    Ok((marked, set.unwrap_or(dscp)))
}

/// Packets that a router forwards: sent through the real programs, each is treated as was foretold.
#[test]
fn what_is_said_is_what_the_programs_do() -> Result<()> {
    let lab = Lab::new()?;
    for address in [SECOND, BESIDE] {
        lab.far.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let agent = Agent::run(&lab.router, CONFIGURATION)?;
    let router = Router::new(&lab)?;
    let v4 = |to: &str, fields: &str, rest: &str| {
        (format!("eth / ip4 {PHONE4} > {to} {fields} / {rest}"), 4)
    };
    let v6 = |to: &str, fields: &str, rest: &str| {
        (format!("eth / ip6 {PHONE6} > {to} {fields} / {rest}"), 6)
    };
    let first =
        "eth / ip4 10.77.0.2 > 198.18.0.10 mf=1 id=ID / udp 40000 > 4500 len=2000 / esp 1008";
    let first6 = "eth / ip6 fd77::2 > 2001:db8:18::10 flow=ID / frag mf=1 id=7 / udp 40000 > 4500 len=2000 / esp 1008";
    // Packet, the first fragment before it, DSCP that it has, what it must be: class or way out, policy.
    let table = [
        (
            v4(EPDG4, "", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "esp_udp",
            "marked",
        ),
        (
            v4(EPDG4, "tos=3", "udp 40000 > 500 / ike 300"),
            None,
            0,
            "ike",
            "marked",
        ),
        (
            v4(EPDG4, "", "udp 40000 > 4500 / marker / ike 300"),
            None,
            0,
            "ike",
            "marked",
        ),
        (
            v4(EPDG4, "", "udp 40000 > 4500 / hex ff"),
            None,
            0,
            "keepalive",
            "marked",
        ),
        (v4(EPDG4, "tos=0x28", "esp 100"), None, 10, "esp", "marked"),
        (
            v4(EPDG4, "opts=8", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "esp_udp",
            "marked",
        ),
        (
            v4(SECOND, "", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "esp_udp",
            "kind",
        ),
        (
            v4(SECOND, "tos=0x28", "udp 40000 > 4500 / esp 100"),
            None,
            10,
            "esp_udp",
            "kind",
        ),
        (
            v4(BESIDE, "", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "not_endpoint",
            "",
        ),
        (
            v4(OTHER4, "tos=0xb8", "udp 40000 > 4500 / esp 100"),
            None,
            46,
            "not_endpoint",
            "",
        ),
        (
            v4(EPDG4, "", "udp 40000 > 443 / bytes 100"),
            None,
            0,
            "other_port",
            "",
        ),
        (
            v4(EPDG4, "", "udp 4500 > 40000 / esp 100"),
            None,
            0,
            "other_port",
            "",
        ),
        (
            v4(EPDG4, "", "tcp 40000 > 4500 / bytes 100"),
            None,
            0,
            "other_protocol",
            "",
        ),
        (
            v4(EPDG4, "", "udp 40000 > 4500 / bytes 5"),
            None,
            0,
            "not_ipsec",
            "",
        ),
        (
            v4(EPDG4, "off=127 id=ID proto=17", "bytes 100"),
            Some(first),
            0,
            "fragment",
            "marked",
        ),
        (
            v6(EPDG6, "", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "esp_udp",
            "marked",
        ),
        (
            v6(
                EPDG6,
                "tc=0x2b",
                "dst 0 / dst 1 / udp 40000 > 500 / ike 300",
            ),
            None,
            10,
            "ike",
            "marked",
        ),
        (
            v6(
                EPDG6,
                "",
                "dst 0 / dst 0 / dst 0 / dst 0 / dst 0 / dst 0 / udp 1 > 500 / ike 300",
            ),
            None,
            0,
            "extension_depth",
            "",
        ),
        (
            v6(EPDG6, "", "frag off=127 id=7 proto=17 / bytes 100"),
            Some(first6),
            0,
            "fragment",
            "marked",
        ),
        (
            v6(OTHER6, "", "udp 40000 > 4500 / esp 100"),
            None,
            0,
            "not_endpoint",
            "",
        ),
    ];
    for (tag, ((text, version), first, dscp, what, policy)) in (1000..).zip(table) {
        let named = |text: &str| text.replace("ID", &tag.to_string());
        let field = if version == 4 { "id" } else { "flow" };
        let text = if text.contains("id=ID") {
            named(&text)
        } else {
            // The tag is the last field of the IP layer.
            let mut layers: Vec<String> = text.split(" / ").map(str::to_owned).collect();
            layers[1] += &format!(" {field}={tag}");
            layers.join(" / ")
        };
        let frame = text.parse::<Packet>()?.bytes();
        let first = first
            .map(|first| Ok::<_, anyhow::Error>(named(first).parse::<Packet>()?.bytes()))
            .transpose()?;
        let packet = hex(&frame);
        let mut arguments = vec![packet.as_str()];
        let first_hex = first.as_ref().map(|first| hex(first));
        if let Some(first) = &first_hex {
            arguments.extend(["--first-fragment", first]);
        }
        let explanation = explain(&agent, &arguments)?;
        let said = explanation["class"]
            .as_str()
            .or(explanation["exit"].as_str());
        assert_eq!(said, Some(what), "{text}: {explanation:#}");
        let chosen = explanation["policy"].as_str().unwrap_or_default();
        assert_eq!(chosen, policy, "{text}");
        let foretold = foretold(&explanation, dscp)?;
        let frames: Vec<Vec<u8>> = first.into_iter().chain([frame]).collect();
        let fate = router
            .send(&frames, tag)
            .with_context(|| format!("{text}: {explanation:#}"))?;
        assert_eq!(fate, foretold, "{text}: {explanation:#}");
    }
    agent.finish()
}

/// Identification and DSCP of an IPv4 packet, or flow label and DSCP, behind tags and a PPPoE header.
fn tagged_inside(frame: &[u8]) -> Option<(u16, u8)> {
    let mut at = 12;
    loop {
        let ip = match frame.get(at..at + 2)? {
            [0x81, 0] | [0x88, 0xa8] => {
                at += 4;
                continue;
            }
            [0x88, 0x64] => frame.get(at + 2 + 8..)?,
            [8, 0] | [0x86, 0xdd] => frame.get(at + 2..)?,
            _ => return None,
        };
        return match ip.first()? >> 4 {
            4 => Some((u16::from_be_bytes([ip[4], ip[5]]), ip[1] >> 2)),
            6 => {
                let class = ip[0] << 4 | ip[1] >> 4;
                Some((u16::from_be_bytes([ip[2], ip[3]]), class >> 2))
            }
            _ => None,
        };
    }
}

/// What a bridge forwards, tags and PPPoE sessions included, both ways: by the frames on its other side, and by a counter of
/// marks on it.
#[test]
fn tags_sessions_and_the_way_down() -> Result<()> {
    let (phone, bridge, far) = (
        Netns::new("phone")?,
        Netns::new("bridge")?,
        Netns::new("far")?,
    );
    veth((&phone, "eth0"), (&bridge, "lan"))?;
    veth((&bridge, "out"), (&far, "eth0"))?;
    bridge.ip("link add br0 type bridge")?;
    bridge.ip("link set br0 up")?;
    for port in ["lan", "out"] {
        bridge.ip(&format!("link set {port} master br0 up"))?;
    }
    for end in [&phone, &far] {
        end.ip("link set eth0 up")?;
    }
    bridge.run("nft", "add table bridge marks")?;
    bridge.run("nft", "add counter bridge marks seen")?;
    bridge.run(
        "nft",
        "add chain bridge marks forward { type filter hook forward priority 0 ; }",
    )?;
    bridge.run(
        "nft",
        "add rule bridge marks forward meta mark 0x65 counter name seen",
    )?;
    let marks = || -> Result<u64> {
        let text = bridge.run("nft", "list counter bridge marks seen")?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets");
        Ok(words[at.context("packets")? + 1].parse()?)
    };
    let agent = Agent::run(&bridge, CONFIGURATION)?;
    let ip = |to: &str| format!("ip4 {PHONE4} > {to}");
    let esp = "udp 40000 > 4500 / esp 100";
    let down = "udp 4500 > 40000 / esp 100";
    let table = [
        (
            true,
            format!("eth / vlan 7 / {} id=ID / {esp}", ip(EPDG4)),
            "esp_udp",
        ),
        (
            true,
            format!("eth / svlan 7 / vlan 9 / {} id=ID / {esp}", ip(EPDG4)),
            "esp_udp",
        ),
        (
            true,
            format!(
                "eth / svlan 7 / vlan 9 / vlan 3 / {} id=ID / {esp}",
                ip(EPDG4)
            ),
            "vlan_depth",
        ),
        (
            true,
            format!("eth / pppoe / {} id=ID / {esp}", ip(EPDG4)),
            "esp_udp",
        ),
        (
            true,
            format!("eth / vlan 7 / pppoe / {} id=ID / {esp}", ip(OTHER4)),
            "not_endpoint",
        ),
        (
            true,
            format!("eth / pppoe / ip6 {PHONE6} > {EPDG6} flow=ID / esp 100"),
            "esp",
        ),
        (
            false,
            format!("eth / ip4 {EPDG4} > {PHONE4} id=ID / {down}"),
            "esp_udp",
        ),
        (
            false,
            format!("eth / vlan 7 / ip4 {SECOND} > {PHONE4} id=ID / {down}"),
            "esp_udp",
        ),
        (
            false,
            format!("eth / pppoe / ip6 {EPDG6} > {PHONE6} flow=ID / esp 100"),
            "esp",
        ),
        (
            false,
            format!("eth / ip4 {EPDG4} > {PHONE4} id=ID / {esp}"),
            "other_port",
        ),
    ];
    for (tag, (up, text, what)) in (2000..).zip(table) {
        let frame = text
            .replace("ID", &tag.to_string())
            .parse::<Packet>()?
            .bytes();
        let explanation = explain(&agent, &[&hex(&frame)])?;
        let said = explanation["class"]
            .as_str()
            .or(explanation["exit"].as_str());
        // Three tags: of those, the outer one is taken out by the kernel before any program sees the frame.
        assert_eq!(said, Some(what), "{text}: {explanation:#}");
        if what == "vlan_depth" {
            continue;
        }
        let way = if up { "up" } else { "down" };
        if explanation["matches"] == true {
            assert_eq!(explanation["direction"], way, "{text}");
        }
        let (from, to) = if up { (&phone, &far) } else { (&far, &phone) };
        let watch = Capture::start(to, "eth0", move |frame| {
            let found = (!frame.outgoing).then(|| tagged_inside(frame.bytes))??;
            (found.0 == tag).then_some(found.1)
        })?;
        let before = marks()?;
        RawFrames::new(from, "eth0")?.send(&frame)?;
        wait_until("the frame", LIMIT, || (watch.kept() > 0).then_some(()))
            .with_context(|| text.clone())?;
        let dscp = watch.finish()?[0];
        let fate = (marks()? > before, dscp);
        assert_eq!(fate, foretold(&explanation, 0)?, "{text}: {explanation:#}");
    }
    agent.finish()
}

/// Each policy before the one that matched says why it did not; and what is no endpoint, what is near.
#[test]
fn why_not_is_said() -> Result<()> {
    let lab = Lab::new()?;
    let more = r#"
[[policy]]
name = "rest"
operators = ["310-*"]
"#;
    let agent = Agent::run(&lab.router, &format!("{CONFIGURATION}{more}"))?;
    let flow = |to: &'static str, rest: &'static str| {
        let mut words = vec![PHONE4, to];
        words.extend(rest.split_whitespace());
        words
    };
    let explanation = explain(&agent, &flow(SECOND, "udp 40000 4500"))?;
    let tried = explanation["policies"].as_array().context("policies")?;
    let told: Vec<_> = tried
        .iter()
        .map(|tried| {
            (
                tried["policy"].as_str(),
                tried["condition"].as_str(),
                &tried["found"],
            )
        })
        .collect();
    let found = |text: &str| serde_json::json!([text]);
    let (none, second) = (serde_json::json!([]), found("999-01"));
    assert_eq!(
        told,
        [
            (Some("australia"), Some("countries"), &none),
            (Some("marked"), Some("operators"), &second),
            (Some("kind"), None, &none),
        ]
    );
    let endpoint = &explanation["endpoint"];
    assert_eq!(endpoint["network"], "198.18.1.0/28");
    assert_eq!(endpoint["tier"], "authoritative");
    assert_eq!(endpoint["sources"], serde_json::json!(["static"]));
    assert_eq!(explanation["client"]["interface"], "lan");

    for (packet, expected) in [
        (
            flow(BESIDE, "udp 40000 4500"),
            "198.18.1.20 is no endpoint: nearest known is 198.18.1.0/28 (999-01)",
        ),
        (flow(BESIDE, "udp 40000 4500"), "`wificall resolve 999-01`"),
        (
            flow("10.77.0.1", "udp 40000 4500"),
            "10.77.0.1 is no endpoint: it is this box",
        ),
        (
            flow("192.168.5.5", "esp"),
            "192.168.5.5 is no endpoint: private addresses are none",
        ),
        (
            flow("8.8.8.8", "udp 1 4500"),
            "8.8.8.8 is no endpoint, and nothing near it is known",
        ),
        (flow(EPDG4, "udp 40000 443"), "UDP to 443: not 500 or 4500"),
        (
            flow(EPDG4, "udp 40000 443"),
            "198.18.0.10 is an endpoint by the block 198.18.0.0/24",
        ),
        (flow(EPDG4, "tcp 40000 4500"), "TCP: neither UDP nor ESP"),
        (
            flow(EPDG4, "udp 40000 4500 --interface wan"),
            "`wan` is no interface of the configuration",
        ),
        (
            flow(EPDG4, "udp 40000 4500"),
            "lan tc_ingress: DSCP 46 (EF), mark 0x65/0xff",
        ),
        (
            flow(EPDG4, "udp 500 500"),
            "lan tc_ingress: DSCP 48 (CS6), mark 0x65/0xff",
        ),
        (
            flow(EPDG4, "udp 4500 4500 --class keepalive"),
            "it matches: keepalive",
        ),
        (
            flow(EPDG4, "udp 4500 40000 --direction down"),
            "UDP from 4500",
        ),
    ] {
        let text = agent.ask(&[&["explain"], &packet[..]].concat())?;
        if packet.contains(&"down") {
            // The phone's address is what is looked up then.
            ensure!(text.contains("10.77.0.2 is no endpoint"), "{text}");
            continue;
        }
        ensure!(text.contains(expected), "{packet:?}: {text}");
    }
    for (arguments, code, expected) in [
        (&["explain"][..], 2, "required"),
        (&["explain", "0g"], 1, "'g' is no hexadecimal digit"),
        (&["explain", PHONE4, EPDG4], 1, "expected SOURCE"),
        (
            &["explain", PHONE4, EPDG4, "udp", "1", "x"],
            1,
            "\"x\" is no port",
        ),
        (&["explain", "--frame", "1"], 2, "--pcap"),
        (
            &["explain", "--pcap", "/nonexistent", "--frame", "1"],
            1,
            "open /nonexistent",
        ),
    ] {
        let output = agent.call(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        ensure!(error.contains(expected), "{error}");
    }
    agent.finish()
}

/// A classic capture of these frames, of a link type.
fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    for word in [0x0004_0002, 0, 0, 65_535, link] {
        file.extend(u32::to_le_bytes(word));
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [1_700_000_000, 0, len, len] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(frame);
    }
    file
}

/// Frames of captures in the formats that other programs write: editcap converts, so both are judged by Wireshark. A later
/// fragment finds its first one. And all of it by what an agent left on disk.
#[test]
fn frames_of_captures_with_and_without_an_agent() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(&lab.router, CONFIGURATION)?;
    let directory = tempfile::tempdir()?;
    let frames: Vec<Vec<u8>> = [
        "eth / ip4 10.77.0.2 > 203.0.113.10 / udp 40000 > 4500 / esp 100",
        "eth / ip4 10.77.0.2 > 198.18.0.10 mf=1 id=5 / udp 40000 > 500 len=2000 / ike 1008 len=1992",
        "eth / ip4 10.77.0.2 > 198.18.0.10 off=127 id=5 proto=17 / bytes 100",
        "eth / ip4 10.77.0.2 > 198.18.0.10 off=127 id=6 proto=17 / bytes 100",
    ]
    .into_iter()
    .map(|text| Ok(text.parse::<Packet>()?.bytes()))
    .collect::<Result<_>>()?;
    let bare = frames.iter().map(|frame| frame[14..].to_vec());
    let cooked = frames.iter().map(|frame| {
        let head = [0, 0, 0, 1, 0, 6];
        [&head[..], &frame[6..12], &[0, 0], &frame[12..]].concat()
    });
    let (bare, cooked): (Vec<_>, Vec<_>) = (bare.collect(), cooked.collect());
    let mut files = Vec::new();
    for (name, link, frames) in [
        ("ethernet", 1, &frames),
        ("raw", 101, &bare),
        ("cooked", 113, &cooked),
    ] {
        let classic = directory.path().join(format!("{name}.pcap"));
        fs::write(&classic, pcap(link, frames))?;
        let ng = directory.path().join(format!("{name}.pcapng"));
        let convert = format!("-F pcapng {} {}", classic.display(), ng.display());
        lab.phone.run("editcap", &convert)?;
        ensure!(fs::read(&ng)?.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
        files.extend([classic, ng]);
    }
    let expect = |explanation: &Value, number: u64| {
        let said = explanation["class"]
            .as_str()
            .or(explanation["exit"].as_str());
        let expected = ["not_endpoint", "ike", "fragment", "unknown_fragment"][number as usize - 1];
        assert_eq!(said, Some(expected), "frame {number}: {explanation:#}");
        if number == 3 {
            assert_eq!(explanation["treated_as"], "ike");
            assert_eq!(explanation["hooks"][0]["dscp"], 48);
        }
    };
    for file in &files {
        let file = file.display().to_string();
        for number in 1..=4 {
            let explanation = explain(&agent, &["--pcap", &file, "--frame", &number.to_string()])?;
            expect(&explanation, number);
            let mac = &explanation["client"]["mac"];
            assert_eq!(mac.is_null(), file.contains("raw"), "{file}: {mac}");
        }
        let output = agent.call(&["explain", "--pcap", &file, "--frame", "5"])?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            error.contains("there is no frame 5: the capture has 4"),
            "{error}"
        );
    }
    // Cut in the frame before: what stands before is good.
    let torn = directory.path().join("torn.pcap");
    let whole = fs::read(&files[0])?;
    fs::write(&torn, &whole[..whole.len() - 1])?;
    let torn = torn.display().to_string();
    expect(&explain(&agent, &["--pcap", &torn, "--frame", "3"])?, 3);
    let output = agent.call(&["explain", "--pcap", &torn, "--frame", "4"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(error.contains("ends in the middle of frame 4"), "{error}");

    let flow = [PHONE4, EPDG4, "udp", "40000", "4500"];
    let mut running = explain(&agent, &flow)?;
    let mut agent = agent;
    agent.stop()?;
    let output = agent.call(&[&["explain"], &flow[..]].concat())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1) && error.contains("--offline"),
        "{error}"
    );
    let offline = explain(&agent, &[&flow[..], &["--offline"]].concat())?;
    assert_eq!(offline["origin"], "offline");
    running["origin"] = "offline".into();
    assert_eq!(offline, running);
    agent.finish()
}
