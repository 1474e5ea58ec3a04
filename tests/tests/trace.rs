//! `wificall trace` of a real phone (strongSwan), whose set-up stalls at each step in turn. What is printed is what
//! docs/trace.md shows.

use std::{net::UdpSocket, process::Command, thread};

use anyhow::{Context, Result, ensure};
use wificall_tests::{
    agent::Agent,
    dns::{self, Dns},
    lab::{DNS, EPDG4, EPDG4_BESIDE, LIMIT, Lab, PHONE4},
    netns::Netns,
    process::{Process, wait_for},
    send,
    swan::{self, Connection, Swan},
};

const PHONE: Connection<'_> = Connection {
    name: "four",
    local: PHONE4,
    remote: EPDG4,
    inside: "10.98.0.1",
};

/// The gateways of the exit, in its order: by `exit`, and by `wan`.
const GATEWAYS: [&str; 2] = ["198.19.255.6", "198.19.255.2"];

/// An exit that has those, and a policy that sends the operator by it.
fn by_exit() -> String {
    format!(
        r#"
[[exit]]
name = "au"
gateways = {GATEWAYS:?}
table = 1066
mark = "0x100/0x100"
interval = "100ms"
[[policy]]
name = "abroad"
operators = ["001-01"]
exit = "au"
"#
    )
}

fn configuration(names: bool) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[snoop]
names = {names}
[[prefix]]
prefix = "{EPDG4}/32"
operator = "001-01"
[[prefix]]
prefix = "{EPDG4_BESIDE}/32"
operator = "001-01"
[lab]
admit = ["198.18.0.0/15"]
"#
    )
}

/// `wificall trace`, as long as it lives.
struct Tracing {
    process: Process,
    _directory: tempfile::TempDir,
}

impl Tracing {
    fn start(agent: &Agent<'_>, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::TempDir::with_prefix("wificall-trace-")?;
        let arguments: Vec<&str> = ["trace"].iter().chain(arguments).copied().collect();
        let process = Process::spawn(agent.command(&arguments), "trace", directory.path())?;
        let tracing = Self {
            process,
            _directory: directory,
        };
        // It follows once it has said anything.
        wait_for("the beginning of the trace", LIMIT, || {
            ensure!(!tracing.process.log().is_empty());
            Ok(())
        })?;
        Ok(tracing)
    }

    /// Waits until this was printed.
    fn wait(&self, what: &str) -> Result<()> {
        wait_for(what, LIMIT, || {
            let log = self.process.log();
            ensure!(log.contains(what), "not there:\n{log}");
            Ok(())
        })
    }

    /// Ends it as Ctrl-C does; all that it has printed.
    fn finish(mut self, title: &str) -> Result<String> {
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait_exit(LIMIT)?;
        let log = self.process.log();
        ensure!(status.success(), "{status}\n{log}");
        println!("== {title} ==\n{log}");
        Ok(log)
    }
}

/// The lab with an ePDG, an agent, a phone and a trace of it.
struct Scene<'a> {
    lab: &'a Lab,
    agent: Agent<'a>,
    _epdg: Swan,
    phone: Swan,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, epdg: &str, phone: &str, resolver: Option<&str>) -> Result<Self> {
        Self::with(
            lab,
            (epdg, phone, resolver),
            &configuration(resolver.is_some()),
        )
    }

    /// With the settings of the ePDG, of the phone, and the phone's resolver.
    fn with(
        lab: &'a Lab,
        (epdg, phone, resolver): (&str, &str, Option<&str>),
        configuration: &str,
    ) -> Result<Self> {
        lab.masquerade()?;
        lab.far.ip("addr add 10.98.0.1/32 dev lo")?;
        let agent = Agent::run(&lab.router, configuration)?;
        agent.wait_hooks("lan", 2)?;
        Ok(Self {
            lab,
            agent,
            _epdg: Swan::start(&lab.far, epdg, None)?,
            phone: Swan::start(&lab.phone, phone, resolver)?,
        })
    }

    /// The trace of a phone that begins, and of what `then` does, until `end` is printed.
    fn trace(
        self,
        title: &str,
        end: &str,
        then: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<String> {
        let tracing = Tracing::start(&self.agent, &[PHONE4])?;
        let printed = thread::scope(|scope| {
            // It fails where that is the point.
            scope.spawn(|| self.phone.begin(PHONE.name));
            then(self.lab)?;
            tracing.wait(end)
        });
        let log = tracing.finish(title)?;
        printed.with_context(|| format!("{log}\n{}", self.phone.log()))?;
        self.agent.finish()?;
        Ok(log)
    }
}

/// Sends and hears something in the tunnel, as soon as there is one. From the address that the ePDG has given: what has the
/// phone's own goes there without a tunnel too.
fn talk(lab: &Lab) -> Result<()> {
    wait_for("the tunnel", LIMIT, || {
        lab.phone
            .run("ping", "-q -c5 -i0.1 -W1 -I 10.99.0.1 10.98.0.1")
    })
    .map(drop)
}

/// What the router does not forward.
fn drop_forwarded(lab: &Lab, rule: &str) -> Result<()> {
    drop_at(&lab.router, "forward", rule)
}

/// What the phone does not send.
fn drop_sent(lab: &Lab, rule: &str) -> Result<()> {
    drop_at(&lab.phone, "output", rule)
}

fn drop_at(host: &Netns, hook: &str, rule: &str) -> Result<()> {
    let chain = format!("{{ type filter hook {hook} priority 0 ; }}");
    for command in [
        "add table inet lab".to_owned(),
        format!("add chain inet lab drops {chain}"),
        format!("add rule inet lab drops {rule} drop"),
    ] {
        host.run("nft", &command)?;
    }
    Ok(())
}

/// The lab and the phone's resolver there.
fn with_names<'a>(lab: &'a Lab, records: &[dns::Record<'_>]) -> Result<Dns<'a>> {
    Dns::start(&lab.far, &[DNS], 3600, records)
}

/// A phone that asks for its ePDG by name.
fn by_name() -> String {
    swan::phone(&[Connection {
        remote: dns::EPDG,
        ..PHONE
    }])
}

/// What the name is in DNS.
const NAMED: &[dns::Record<'_>] = &[(dns::EPDG, &[EPDG4])];

/// A trace's lines with their times of day, in milliseconds, and how long after the set-up's beginning, if they say so.
fn times(log: &str) -> Vec<(u64, Option<u64>, &str)> {
    let time = |line: &str| {
        let (clock, millis) = line.get(..12)?.split_once('.')?;
        let parts: Vec<u64> = (clock.split(':').map(str::parse).collect::<Result<_, _>>()).ok()?;
        let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
        Some(seconds * 1_000 + millis.parse::<u64>().ok()?)
    };
    let after = |line: &str| {
        let (_, after) = line.split_once(" +")?;
        after.split_once(" ms")?.0.parse().ok()
    };
    log.lines()
        .filter_map(|line| Some((time(line)?, after(line), line)))
        .collect()
}

/// Times do not fall from line to line, and those since the beginning agree with them.
fn assert_times(log: &str) {
    let times = times(log);
    assert!(times.is_sorted_by_key(|(at, ..)| at), "{log}");
    let offsets = (times.iter()).filter_map(|(at, after, line)| Some((at - (*after)?, line)));
    let offsets: Vec<_> = offsets.collect();
    assert!(offsets.len() >= 4, "{log}");
    for (began, line) in &offsets {
        // Each is rounded for itself.
        assert!(began.abs_diff(offsets[0].0) <= 1, "{line}\n{log}");
    }
}

fn assert_in_order(log: &str, steps: &[&str]) {
    let mut rest = log;
    for step in steps {
        let Some((_, after)) = rest.split_once(step) else {
            panic!("`{step}` is missing or in another order:\n{log}");
        };
        rest = after;
    }
}

#[test]
fn every_step_of_a_set_up_that_succeeds_is_printed_in_its_order() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = with_names(&lab, NAMED)?;
    let scene = Scene::new(&lab, &swan::epdg(), &by_name(), Some(DNS))?;
    let json = Tracing::start(&scene.agent, &["--any", "--json"])?;
    // By its link-layer address, and somebody else's.
    let by_mac = Tracing::start(&scene.agent, &[&lab.phone.mac("eth0")?])?;
    let other = Tracing::start(&scene.agent, &["02:00:00:00:00:99"])?;
    let log = scene.trace("success", "TUNNEL UP", |lab| {
        talk(lab)?;
        // The agent ends with the trace, and these then.
        by_mac.wait("TUNNEL UP")?;
        json.wait("\"step\":\"up\"")
    })?;
    let steps = [
        "airplane mode on",
        "DNS asked",
        dns::EPDG,
        "DNS answered",
        EPDG4,
        "IKE_SA_INIT sent",
        "IKE_SA_INIT answered",
        "IKE_AUTH sent",
        "IKE_AUTH answered",
        "ESP from the phone",
        "exit taken",
        "none, by the ordinary route",
        "TUNNEL UP",
    ];
    assert_in_order(&log, &steps);
    for step in ["moved to port 4500", "ESP from the ePDG"] {
        assert!(log.contains(step), "{step}:\n{log}");
    }
    assert!(!log.contains("STALLS"), "{log}");
    assert_times(&log);
    let by_mac = by_mac.process.log();
    assert_in_order(&by_mac, &["DNS asked", "IKE_SA_INIT sent", "TUNNEL UP"]);
    let other = other.process.log();
    assert!(
        !other.contains("DNS asked") && !other.contains("TUNNEL UP"),
        "{other}"
    );
    // The same as JSON, a line each. The agent is gone, which is told.
    let lines = json.process.log();
    let kinds: Vec<_> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| format!("{} {}", line["kind"], line["step"]))
        .collect();
    for kind in [
        "\"following\" null",
        "\"event\" \"dns_asked\"",
        "\"event\" \"esp_down\"",
        "\"event\" \"up\"",
    ] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}: {lines}");
    }
    Ok(())
}

/// The lines of the agent's log that tell of events.
fn logged(agent: &Agent<'_>) -> Vec<String> {
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains("wificall::events"));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_exit_is_told_from_the_first_packet_and_when_it_is_another() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = with_names(&lab, NAMED)?;
    let configuration = configuration(true) + &by_exit();
    let settings = (&*swan::epdg(), &*by_name(), Some(DNS));
    let scene = Scene::with(&lab, settings, &configuration)?;
    wait_for("the first gateway", LIMIT, || {
        let route = lab.router.ip("route show table 1066")?;
        ensure!(route.contains(GATEWAYS[0]), "{route}");
        Ok(())
    })?;
    let json = Tracing::start(&scene.agent, &[PHONE4, "--json"])?;
    let tracing = Tracing::start(&scene.agent, &[PHONE4])?;
    let followed = thread::scope(|scope| {
        scope.spawn(|| scene.phone.begin(PHONE.name));
        talk(&lab)?;
        tracing.wait("TUNNEL UP")?;
        let by_exit = sent(&lab, "exit")?;
        ensure!(by_exit > 5, "{by_exit} packets by the exit");
        lab.far.ip("link set exit0 down")?;
        tracing.wait(&format!(
            "au, by gateway {} on wan, mark 0x100/0x100",
            GATEWAYS[1]
        ))
    });
    let log = tracing.finish("by an exit")?;
    followed.with_context(|| {
        let (phone, agent) = (scene.phone.log(), scene.agent.log());
        format!("{log}\nthe phone:\n{phone}\nthe agent:\n{agent}")
    })?;
    let first = format!("au, by gateway {} on exit, mark 0x100/0x100", GATEWAYS[0]);
    let second = format!("au, by gateway {} on wan, mark 0x100/0x100", GATEWAYS[1]);
    // The whole chain, in its order.
    let steps = [
        "DNS asked",
        "DNS answered",
        "IKE_SA_INIT sent",
        &*first,
        "IKE_SA_INIT answered",
        "IKE_AUTH answered",
        "ESP from the phone",
        "exit taken",
        &*first,
        "TUNNEL UP",
        "exit taken",
        &*second,
    ];
    assert_in_order(&log, &steps);
    assert!(!log.contains("STALLS"), "{log}");
    let lines = json.process.log();
    let exits: Vec<serde_json::Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["step"] == "exit")
        .map(|line| line["exit"].clone())
        .collect();
    let exit = |gateway: &str, device: &str| {
        serde_json::json!({
            "exit": "au", "way": "gateway", "gateway": gateway, "device": device, "mark": "0x100/0x100"
        })
    };
    let (before, after) = (exit(GATEWAYS[0], "exit"), exit(GATEWAYS[1], "wan"));
    assert_eq!(exits, [before.clone(), before, after.clone()], "{lines}");
    // The API has it beside the tunnel.
    let tunnels: serde_json::Value =
        serde_json::from_str(&scene.agent.ask(&["tunnels", "--json"])?)?;
    assert_eq!(tunnels["tunnels"][0]["exit"], after, "{tunnels}");
    // The log has the same, and not the phone's address.
    let lines = logged(&scene.agent);
    for words in [
        "event=\"dns_asked\"",
        "event=\"auth_answered\"",
        "event=\"up\"",
        "exit=\"au\" gateway=\"198.19.255.2\" device=\"wan\"",
        "client=\"client-",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(words)),
            "{words}: {lines:#?}"
        );
    }
    assert!(
        lines.iter().all(|line| !line.contains(PHONE4)),
        "{lines:#?}"
    );
    scene.agent.finish()
}

/// Packets that the router has sent by a link.
fn sent(lab: &Lab, link: &str) -> Result<u64> {
    let links = lab.router.run("cat", "/proc/net/dev")?;
    let mut lines = links.lines().map(str::trim_start);
    let counts = lines.find_map(|line| line.strip_prefix(link)?.strip_prefix(':'));
    // Eight columns of what was received: bytes and packets of what was sent follow.
    let packets = counts.and_then(|counts| counts.split_whitespace().nth(9));
    Ok(packets.context("no such link")?.parse()?)
}

/// What is printed of a phone whose resolver is there or not, until `end` is.
fn of_names(lab: &Lab, title: &str, end: &str) -> Result<String> {
    let agent = Agent::run(&lab.router, &configuration(true))?;
    agent.wait_hooks("lan", 2)?;
    let tracing = Tracing::start(&agent, &["--any"])?;
    // What a phone's resolver sends.
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in dns::EPDG.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
    socket.send_to(&question, (DNS, 53))?;
    let printed = tracing.wait(end);
    let log = tracing.finish(title)?;
    printed?;
    agent.finish()?;
    Ok(log)
}

#[test]
fn dns_that_does_not_answer_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let log = of_names(&lab, "no answer of DNS", "for the answer of DNS")?;
    assert_in_order(&log, &["DNS asked", dns::EPDG, "STALLS", "try: "]);
    Ok(())
}

#[test]
fn dns_that_has_no_address_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = with_names(&lab, &[])?;
    let log = of_names(&lab, "no address in DNS", "that has an address")?;
    let steps = [
        "DNS asked",
        "DNS answered",
        "no address",
        "STALLS",
        "The phone's resolver answers, and has no address",
        &format!("try: `wificall resolve {}`", dns::EPDG),
    ];
    assert_in_order(&log, &steps);
    Ok(())
}

#[test]
fn a_phone_that_does_not_begin_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = with_names(&lab, NAMED)?;
    drop_sent(&lab, "udp dport 500")?;
    let scene = Scene::new(&lab, &swan::epdg(), &by_name(), Some(DNS))?;
    let log = scene.trace("no IKE_SA_INIT", "for IKE_SA_INIT to one", |_| Ok(()))?;
    let steps = [
        "DNS answered",
        EPDG4,
        "STALLS",
        "does not begin",
        "Wi-Fi calling on",
    ];
    assert_in_order(&log, &steps);
    assert!(!log.contains("IKE_SA_INIT sent"), "{log}");
    Ok(())
}

#[test]
fn an_epdg_that_does_not_answer_is_named() -> Result<()> {
    let lab = Lab::new()?;
    drop_forwarded(&lab, "udp dport 500")?;
    let scene = Scene::new(&lab, &swan::epdg(), &swan::phone(&[PHONE]), None)?;
    let log = scene.trace("no reply to IKE_SA_INIT", "STALLS", |_| Ok(()))?;
    assert!(log.contains("[snoop] names is off"), "{log}");
    let steps = [
        "IKE_SA_INIT sent",
        "exit taken",
        "none, by the ordinary route",
        "STALLS",
        "for the reply to IKE_SA_INIT",
        "Exit taken: none, by the ordinary route.",
    ];
    assert_in_order(&log, &steps);
    assert!(
        log.contains(&format!("try: `wificall probe {EPDG4}`")),
        "{log}"
    );
    Ok(())
}

#[test]
fn a_refusal_is_named_with_its_notify() -> Result<()> {
    let lab = Lab::new()?;
    let proposals = |text: String, proposal: &str| {
        text.replace(
            "version = 2",
            &format!("version = 2\n    proposals = {proposal}"),
        )
    };
    let scene = Scene::new(
        &lab,
        &proposals(swan::epdg(), "aes256-sha384-ecp384"),
        &proposals(swan::phone(&[PHONE]), "aes128-sha256-ecp256"),
        None,
    )?;
    let log = scene.trace("refused", "STALLS", |_| Ok(()))?;
    let steps = [
        "IKE_SA_INIT sent",
        "NO_PROPOSAL_CHOSEN",
        "STALLS",
        "for a try that is not refused",
        "It says NO_PROPOSAL_CHOSEN",
    ];
    assert_in_order(&log, &steps);
    Ok(())
}

#[test]
fn a_phone_that_does_not_go_on_to_port_4500_is_named() -> Result<()> {
    let lab = Lab::new()?;
    drop_sent(&lab, "udp dport 4500")?;
    let scene = Scene::new(&lab, &swan::epdg(), &swan::phone(&[PHONE]), None)?;
    let log = scene.trace("no IKE_AUTH", "for IKE_AUTH\n", |_| Ok(()))?;
    let steps = ["IKE_SA_INIT answered", "STALLS", "does not go on"];
    assert_in_order(&log, &steps);
    assert!(!log.contains("IKE_AUTH sent"), "{log}");
    Ok(())
}

/// Several A records, or one of each family: the first is silent, the next stalls elsewhere.
#[test]
fn two_epdgs_of_one_phone_are_told_apart() -> Result<()> {
    let lab = Lab::new()?;
    drop_forwarded(&lab, &format!("ip daddr {EPDG4} udp dport 500"))?;
    lab.router
        .run("nft", "add rule inet lab drops udp dport 4500 drop")?;
    let other = Connection {
        name: "other",
        remote: EPDG4_BESIDE,
        ..PHONE
    };
    let phone = swan::phone(&[PHONE, other]);
    let scene = Scene::new(&lab, &swan::epdg(), &phone, None)?;
    let tracing = Tracing::start(&scene.agent, &[PHONE4])?;
    let (first, second) = (
        format!("STALLS at {EPDG4}: "),
        format!("STALLS at {EPDG4_BESIDE}: "),
    );
    let printed = thread::scope(|scope| {
        for name in [PHONE.name, other.name] {
            let phone = &scene.phone;
            scope.spawn(move || phone.begin(name));
        }
        tracing.wait(&first)?;
        tracing.wait(&second)
    });
    let log = tracing.finish("two ePDGs")?;
    printed?;
    let waits = |at: &str| {
        let (_, stall) = log.split_once(at).unwrap_or_default();
        stall.lines().next().unwrap_or_default().to_owned()
    };
    let first = waits(&first);
    assert!(first.ends_with("for the reply to IKE_SA_INIT"), "{log}");
    assert!(
        waits(&second).ends_with("for the reply to IKE_AUTH"),
        "{log}"
    );
    assert!(log.contains(&format!("`wificall probe {EPDG4}`")), "{log}");
    assert!(
        log.contains(&format!("`wificall probe {EPDG4_BESIDE}`")),
        "{log}"
    );
    scene.agent.finish()
}

#[test]
fn port_4500_that_is_blocked_is_named() -> Result<()> {
    let lab = Lab::new()?;
    drop_forwarded(&lab, "udp dport 4500")?;
    let scene = Scene::new(&lab, &swan::epdg(), &swan::phone(&[PHONE]), None)?;
    let log = scene.trace("port 4500 blocked", "for the reply to IKE_AUTH", |_| Ok(()))?;
    let steps = [
        "IKE_SA_INIT answered",
        "moved to port 4500",
        "IKE_AUTH sent",
        "STALLS",
        "UDP 4500 is blocked",
    ];
    assert_in_order(&log, &steps);
    Ok(())
}

#[test]
fn an_authentication_that_fails_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let phone = swan::phone(&[PHONE]).replace("not a secret", "another one");
    let scene = Scene::new(&lab, &swan::epdg(), &phone, None)?;
    let log = scene.trace("authentication fails", "STALLS", |_| Ok(()))?;
    let steps = ["IKE_AUTH sent", "IKE_AUTH answered", "STALLS", "for ESP\n"];
    assert_in_order(&log, &steps);
    Ok(())
}

/// Packets into the tunnel, which nobody answers, as soon as there is one and for as long as it is looked at.
fn speak(host: &Netns, arguments: &str) -> Result<Process> {
    let mut ping: Command = host.command("sh");
    ping.args([
        "-c",
        &format!("while :; do ping -q -c1 -W1 {arguments}; sleep 0.1; done"),
    ]);
    let directory = tempfile::TempDir::with_prefix("wificall-ping-")?;
    Process::spawn(ping, "ping", directory.path())
}

/// A step that is missing for that is no stall that anybody should believe.
#[test]
fn events_that_the_programs_do_not_tell_are_told_as_lost() -> Result<()> {
    let lab = Lab::new()?;
    let few = configuration(false) + "[telemetry]\nevents_per_second = 8\n";
    let agent = Agent::run(&lab.router, &few)?;
    agent.wait_hooks("lan", 2)?;
    let tracing = Tracing::start(&agent, &[PHONE4])?;
    let socket = lab.phone.enter(|| UdpSocket::bind((PHONE4, 0)))?;
    let question = send::ike_sa_init(200);
    // Each is told, as far as the rate allows.
    let printed = wait_for("lost events", LIMIT, || {
        for _ in 0..50 {
            socket.send_to(&question, (EPDG4, send::IKE))?;
        }
        let log = tracing.process.log();
        ensure!(log.contains("events of all phones were lost"), "{log}");
        Ok(())
    });
    let log = tracing.finish("lost")?;
    printed?;
    let steps = [
        "IKE_SA_INIT sent",
        "were lost: ",
        "telemetry.events_per_second",
    ];
    assert_in_order(&log, &steps);
    agent.finish()
}

/// The word behind the UDP header is 0 in IKE, and an SPI in ESP (RFC 3948 §2).
const ESP_OF_EPDG: &str = "udp sport 4500 @th,64,32 != 0";
const ESP_OF_PHONE: &str = "udp dport 4500 @th,64,32 != 0";

#[test]
fn esp_that_comes_from_the_epdg_only_is_named() -> Result<()> {
    let lab = Lab::new()?;
    drop_sent(&lab, ESP_OF_PHONE)?;
    let scene = Scene::new(&lab, &swan::epdg(), &swan::phone(&[PHONE]), None)?;
    // The phone's address in the tunnel, from the ePDG's.
    let _ping = speak(&lab.far, "-I 10.98.0.1 10.99.0.1")?;
    let log = scene.trace("ESP down only", "for ESP from the phone", |_| Ok(()))?;
    let steps = ["IKE_AUTH answered", "ESP from the ePDG", "STALLS", "try: "];
    assert_in_order(&log, &steps);
    assert!(!log.contains("TUNNEL UP"), "{log}");
    Ok(())
}

#[test]
fn esp_that_comes_from_the_phone_only_is_named() -> Result<()> {
    let lab = Lab::new()?;
    drop_forwarded(&lab, ESP_OF_EPDG)?;
    let scene = Scene::new(&lab, &swan::epdg(), &swan::phone(&[PHONE]), None)?;
    let _ping = speak(&lab.phone, "10.98.0.1")?;
    let log = scene.trace("ESP up only", "for ESP from the ePDG", |_| Ok(()))?;
    let steps = ["IKE_AUTH answered", "ESP from the phone", "STALLS", "try: "];
    assert_in_order(&log, &steps);
    assert!(!log.contains("TUNNEL UP"), "{log}");
    Ok(())
}
