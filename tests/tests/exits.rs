//! Exits: the real agent beside two gateways on the phones' own network, one-arm, IPv4 and IPv6.
//!
//! ```text
//!  phone ─┐
//!  gw1 ───┼── switch ── lan  router  wan ── far
//!  gw2 ───┘
//! ```

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::{Agent, agent_binary};
use wificall_tests::capture::Capture;
use wificall_tests::home::Home;
use wificall_tests::lab::LIMIT;
use wificall_tests::netns::{Netns, veth};
use wificall_tests::process::{Process, wait_for};
use wificall_tests::send::{self, NATT};
use wificall_tests::view::View;

const EPDG4: &str = "198.18.0.10";
const EPDG6: &str = "2001:db8:18::10";
const PHONE: [&str; 2] = ["10.77.0.2", "fd77::2"];
const ROUTER: [&str; 2] = ["10.77.0.1", "fd77::1"];
const GATEWAYS: [[&str; 2]; 2] = [["10.77.0.11", "fd77::11"], ["10.77.0.12", "fd77::12"]];
const BOTH: [&str; 2] = [EPDG4, EPDG6];
/// How long a dead gateway may take to be found out, at 100 ms and three in a row, on a machine that does other things too.
const SOON: Duration = Duration::from_millis(1500);

struct Scene {
    phone: Netns,
    router: Netns,
    far: Netns,
    gateways: [Netns; 2],
    /// Connects the others.
    switch: Netns,
}

impl Scene {
    fn new() -> Result<Self> {
        let switch = Netns::new("switch")?;
        let scene = Self {
            phone: Netns::new("phone")?,
            router: Netns::new("router")?,
            far: Netns::new("far")?,
            gateways: [Netns::new("gw1")?, Netns::new("gw2")?],
            switch,
        };
        let Self {
            phone,
            router,
            far,
            gateways: [first, second],
            switch,
        } = &scene;
        let ports = [
            (phone, "eth0", "p0"),
            (router, "lan", "p1"),
            (first, "eth0", "p2"),
            (second, "eth0", "p3"),
        ];
        for (host, device, port) in ports {
            veth((host, device), (switch, port))?;
        }
        switch.bridge("br0", &ports.map(|(_, _, port)| port))?;
        veth((router, "wan"), (far, "eth0"))?;
        router.forward()?;
        let with = |addresses: [&str; 2]| {
            [
                format!("{}/24", addresses[0]),
                format!("{}/64", addresses[1]),
            ]
        };
        for (host, device, addresses) in [
            (phone, "eth0", PHONE),
            (router, "lan", ROUTER),
            (first, "eth0", GATEWAYS[0]),
            (second, "eth0", GATEWAYS[1]),
        ] {
            let [v4, v6] = with(addresses);
            host.address(device, &[&v4, &v6])?;
        }
        router.address("wan", &["198.19.255.1/30", "fd00:1::1/64"])?;
        far.address("eth0", &["198.19.255.2/30", "fd00:1::2/64"])?;
        for address in ROUTER {
            phone.ip(&format!("route add default via {address}"))?;
        }
        router.ip("route add default via 198.19.255.2")?;
        router.ip("route add default via fd00:1::2")?;
        Ok(scene)
    }

    /// Nothing comes from a gateway any more, as if its power had gone; nobody else's link changes.
    fn kill(&self, gateway: usize) -> Result<()> {
        self.switch
            .ip(&format!("link set p{} down", gateway + 2))
            .map(drop)
    }

    fn revive(&self, gateway: usize) -> Result<()> {
        self.switch
            .ip(&format!("link set p{} up", gateway + 2))
            .map(drop)
    }

    fn rules(&self) -> Result<Vec<String>> {
        let mut rules = Vec::new();
        for family in ["-4", "-6"] {
            let all = self.router.ip(&format!("{family} rule show"))?;
            rules.extend(
                all.lines()
                    .filter(|line| line.contains("fwmark"))
                    .map(|line| line.trim().to_owned()),
            );
        }
        Ok(rules)
    }

    fn routes(&self, table: u32) -> Result<Vec<String>> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            // Of a table that does not exist there are none.
            let all = self
                .router
                .ip(&format!("{family} route show table {table}"))
                .unwrap_or_default();
            routes.extend(all.lines().map(|line| line.trim().to_owned()));
        }
        Ok(routes)
    }
}

fn configuration(when: &str, gateways: &str) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
uplink = ["wan"]
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
[[prefix]]
prefix = "2001:db8:18::/64"
operator = "001-01"
[[exit]]
name = "test"
gateways = [{gateways}]
table = 1065
mark = "0x65/0xff"
{when}
interval = "100ms"
[[policy]]
name = "test"
operators = ["001-01"]
exit = "test"
"#
    )
}

const ALL: &str = r#""10.77.0.11", "10.77.0.12", "fd77::11", "fd77::12""#;

/// A packet that arrived somewhere, and where: 0 and 1 are the gateways, 2 is the far side.
type Arrival = (u32, usize, Duration);

/// Watches where the packets to port 4500 of an address arrive.
struct Watch(Vec<Capture<Arrival>>);

impl Watch {
    fn start(scene: &Scene, to: &str) -> Result<Self> {
        let [first, second] = &scene.gateways;
        let places = [first, second, &scene.far];
        let captures = places.into_iter().enumerate().map(|(index, place)| {
            let to = send::address(to, NATT)?.ip();
            // A switch that does not know a host any more floods what is for it.
            let own = place.mac("eth0")?;
            Capture::start(place, "eth0", move |frame| {
                let view = View::of(frame)?;
                // What IKE sends is not counted.
                if view.payload.starts_with(&[0; 4]) {
                    return None;
                }
                let octets: Vec<_> = frame.bytes[..6]
                    .iter()
                    .map(|it| format!("{it:02x}"))
                    .collect();
                if octets.join(":") != own
                    || frame.outgoing
                    || view.ports?.1 != NATT
                    || view.destination != to
                {
                    return None;
                }
                Some((send::esp_sequence(view.payload)?, index, frame.time))
            })
        });
        Ok(Self(captures.collect::<Result<_>>()?))
    }

    fn at(&self, place: usize) -> u64 {
        self.0[place].kept()
    }

    fn finish(self) -> Result<Vec<Arrival>> {
        let mut all = Vec::new();
        for capture in self.0 {
            all.extend(capture.finish()?);
        }
        all.sort();
        Ok(all)
    }
}

/// Where one packet goes; nowhere if it does not arrive.
fn goes(scene: &Scene, to: &str) -> Result<Option<usize>> {
    let watch = Watch::start(scene, to)?;
    let socket = phone(scene, to)?;
    socket.send(&send::esp(1, 100))?;
    let start = Instant::now();
    loop {
        let at = (0..3).find(|place| watch.at(*place) > 0);
        if at.is_some() || start.elapsed() > Duration::from_millis(300) {
            return Ok(at);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn wait_goes(scene: &Scene, to: &str, place: Option<usize>) -> Result<Duration> {
    let start = Instant::now();
    wait_for(&format!("packets to {to} at {place:?}"), LIMIT, || {
        let at = goes(scene, to)?;
        ensure!(at == place, "they go to {at:?}");
        Ok(())
    })?;
    Ok(start.elapsed())
}

fn phone(scene: &Scene, to: &str) -> Result<UdpSocket> {
    let from = if to.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = send::udp(&scene.phone, from)?;
    socket.connect(send::address(to, NATT)?)?;
    Ok(socket)
}

/// Sends a hundred packets a second to both ePDGs while `during` runs, and then for a while; gives what arrived where.
fn while_calling(scene: &Scene, during: impl FnOnce() -> Result<()>) -> Result<[Vec<Arrival>; 2]> {
    let watches = [Watch::start(scene, EPDG4)?, Watch::start(scene, EPDG6)?];
    let sockets = [phone(scene, EPDG4)?, phone(scene, EPDG6)?];
    let stop = std::sync::atomic::AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sequence = 0;
            for socket in &sockets {
                let _ = socket.send(&send::ike_behind_marker(200));
            }
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                sequence += 1;
                for socket in &sockets {
                    // An ICMP error that came back is told once.
                    let _ = socket.send(&send::esp(sequence, 100));
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let result = during();
        stop.store(true, std::sync::atomic::Ordering::Release);
        sender.join().ok().context("the sender panicked")?;
        result
    });
    result?;
    thread::sleep(Duration::from_millis(50));
    let [four, six] = watches;
    Ok([four.finish()?, six.finish()?])
}

/// The time between the last packet at one place and the first at another after it.
fn gap(arrivals: &[Arrival], from: usize, to: usize) -> Result<Duration> {
    let last = arrivals
        .iter()
        .filter(|(_, place, _)| *place == from)
        .map(|it| it.2)
        .max();
    let last = last.with_context(|| format!("nothing at {from}"))?;
    let first = arrivals
        .iter()
        .filter(|(_, place, at)| *place == to && *at > last)
        .map(|it| it.2)
        .min();
    Ok(first.with_context(|| format!("nothing at {to} after it"))? - last)
}

fn wait_down(agent: &Agent, count: u64) -> Result<()> {
    agent
        .wait_metrics("gateways that are down", |metrics| {
            let all = metrics.sum("wificall_exit_gateway_up", &[]);
            ensure!(all == 4 - count, "{all} are up");
            Ok(())
        })
        .map(drop)
}

#[test]
fn the_next_gateway_takes_over_and_the_first_returns() -> Result<()> {
    let scene = Scene::new()?;
    let agent = Agent::run(&scene.router, &configuration("", ALL))?;
    for to in BOTH {
        wait_goes(&scene, to, Some(0))?;
    }
    wait_down(&agent, 0)?;
    let arrived = while_calling(&scene, || {
        thread::sleep(Duration::from_millis(500));
        scene.kill(0)?;
        thread::sleep(SOON + Duration::from_millis(500));
        Ok(())
    })?;
    for (family, arrived) in ["IPv4", "IPv6"].iter().zip(&arrived) {
        let gap = gap(arrived, 0, 1)?;
        println!(
            "next, {family}: {} ms from the last packet at the first gateway",
            gap.as_millis()
        );
        ensure!(gap < SOON, "{gap:?}");
        ensure!(
            arrived.iter().all(|it| it.1 != 2),
            "packets by the main table"
        );
    }
    let metrics = agent.metrics()?;
    ensure!(metrics.sum("wificall_exit_failovers_total", &[("exit", "test")]) == 2);
    ensure!(agent.status()?["steering"][0]["gateway"] == GATEWAYS[1][0]);

    // It returns in a call: that stays where it is, until there it is down too.
    let arrived = while_calling(&scene, || {
        scene.revive(0)?;
        wait_down(&agent, 0)?;
        thread::sleep(SOON);
        scene.kill(1)?;
        thread::sleep(SOON + Duration::from_millis(500));
        Ok(())
    })?;
    for arrived in &arrived {
        let gap = gap(arrived, 1, 0)?;
        println!("and back when the second is down: {} ms", gap.as_millis());
        ensure!(gap < SOON, "{gap:?}");
        let mut places: Vec<_> = arrived.iter().map(|it| it.1).collect();
        ensure!(
            places.is_sorted_by(|a, b| a >= b),
            "moved and moved back: {places:?}"
        );
        places.dedup();
        let lost = arrived
            .windows(2)
            .filter(|pair| pair[0].0 + 1 != pair[1].0)
            .count();
        ensure!(places == [1, 0] && lost <= 1, "{places:?}, {lost} gaps");
    }
    let log = agent.log();
    ensure!(
        log.contains("exit takes another way") && log.contains("unanswered_ms"),
        "{log}"
    );
    agent.finish()?;
    ensure!(scene.rules()?.is_empty() && scene.routes(1065)?.is_empty());
    Ok(())
}

#[test]
fn direct_and_block_do_what_they_say() -> Result<()> {
    for (when, place) in [
        ("when_down = \"direct\"", Some(2)),
        ("when_down = \"block\"", None),
    ] {
        let scene = Scene::new()?;
        let agent = Agent::run(
            &scene.router,
            &configuration(when, r#""10.77.0.11", "fd77::11""#),
        )?;
        for to in BOTH {
            wait_goes(&scene, to, Some(0))?;
        }
        let start = Instant::now();
        scene.kill(0)?;
        for to in BOTH {
            wait_goes(&scene, to, place)?;
            println!("{when}: {to} after {} ms", start.elapsed().as_millis());
        }
        if place.is_none() {
            wait_for("the routes that refuse", LIMIT, || {
                ensure!(
                    scene
                        .routes(1065)?
                        .iter()
                        .filter(|it| it.contains("unreachable"))
                        .count()
                        == 2
                );
                Ok(())
            })?;
            // The phone is told at once, rather than left to wait.
            for to in BOTH {
                let told = Capture::start(&scene.phone, "eth0", |frame| {
                    let view = View::of(frame)?;
                    // ICMP destination unreachable (RFC 792, RFC 4443 §3.1).
                    let unreachable = match view.protocol {
                        1 => 3,
                        58 => 1,
                        _ => return None,
                    };
                    (!frame.outgoing && view.payload.first() == Some(&unreachable)).then_some(())
                })?;
                phone(&scene, to)?.send(&send::esp(1, 100))?;
                wait_for("ICMP unreachable", LIMIT, || {
                    ensure!(told.kept() > 0, "none came");
                    Ok(())
                })?;
            }
        } else {
            ensure!(scene.routes(1065)?.is_empty(), "{:?}", scene.routes(1065)?);
        }
        scene.revive(0)?;
        for to in BOTH {
            wait_goes(&scene, to, Some(0))?;
        }
        agent.finish()?;
    }
    Ok(())
}

#[test]
fn what_somebody_removes_is_back_at_once() -> Result<()> {
    let scene = Scene::new()?;
    let agent = Agent::run(&scene.router, &configuration("", ALL))?;
    wait_goes(&scene, EPDG4, Some(0))?;
    let (rules, routes) = (scene.rules()?, scene.routes(1065)?);
    ensure!(
        rules.len() == 2 && routes.len() == 2,
        "{rules:?} {routes:?}"
    );
    for tampering in [
        "-4 rule del fwmark 0x65/0xff",
        "-6 rule del fwmark 0x65/0xff",
        "-4 route flush table 1065",
        "-6 route flush table 1065",
        "-4 route replace default via 10.77.0.12 table 1065",
        "-4 route replace unreachable default table 1065",
    ] {
        let start = Instant::now();
        scene.router.ip(tampering)?;
        wait_for(tampering, LIMIT, || {
            ensure!(scene.rules()? == rules && scene.routes(1065)? == routes);
            Ok(())
        })?;
        println!("{tampering}: back after {} ms", start.elapsed().as_millis());
        // Sooner than by the resync, which is every two seconds in these labs.
        ensure!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
    ensure!(agent.metrics()?.sum("wificall_exit_repairs_total", &[]) >= 6);
    agent.finish()
}

#[test]
fn stop_kill_restart_and_detach_leave_what_the_configuration_says() -> Result<()> {
    let scene = Scene::new()?;
    scene
        .router
        .ip("rule add fwmark 0x100/0x100 lookup 77 priority 500")?;
    let foreign = scene.rules()?;
    let mut agent = Agent::run(&scene.router, &configuration("", ALL))?;
    let (rules, routes) = (scene.rules()?, scene.routes(1065)?);
    ensure!(
        rules.len() == 3 && routes.len() == 2,
        "{rules:?} {routes:?}"
    );
    let unchanged = || -> Result<()> {
        ensure!(scene.rules()? == rules && scene.routes(1065)? == routes);
        for to in BOTH {
            ensure!(goes(&scene, to)? == Some(0), "{to}");
        }
        Ok(())
    };
    agent.stop()?;
    unchanged().context("after a stop")?;
    agent.start()?;
    unchanged().context("after a restart")?;
    agent.kill()?;
    unchanged().context("after a crash")?;
    // The gateway in use stays in use, although it is not the preferred one.
    agent.start()?;
    scene.kill(0)?;
    wait_goes(&scene, EPDG4, Some(1))?;
    agent.kill()?;
    agent.start()?;
    ensure!(
        goes(&scene, EPDG4)? == Some(1),
        "after a restart on the second"
    );
    scene.revive(0)?;
    agent.kill()?;
    // Another configuration: the rules of the one before go.
    agent.configure(&configuration("priority = 700", ALL).replace("1065", "1066"))?;
    agent.start()?;
    ensure!(scene.routes(1065)?.is_empty(), "{:?}", scene.routes(1065)?);
    let rules = scene.rules()?;
    ensure!(
        rules.len() == 3 && rules.iter().filter(|it| it.starts_with("700:")).count() == 2,
        "{rules:?}"
    );
    // By a reload likewise, down to none.
    agent.configure(&configuration("", ALL))?;
    agent.ask(&["reload"])?;
    ensure!(scene.routes(1066)?.is_empty() && scene.routes(1065)?.len() == 2);
    let without = configuration("", ALL);
    let (head, tail) = without.split_once("[[exit]]").context("an exit")?;
    let policy = tail.split_once("[[policy]]").context("a policy")?.1;
    let policy = policy.replace("exit = \"test\"", "dscp = \"EF\"");
    agent.configure(&format!("{head}[[policy]]{policy}"))?;
    agent.ask(&["reload"])?;
    ensure!(
        scene.rules()? == foreign && scene.routes(1065)?.is_empty(),
        "{:?}",
        scene.rules()?
    );
    ensure!(goes(&scene, EPDG4)? == Some(2));
    // Without a running agent too.
    agent.configure(&configuration("", ALL))?;
    agent.ask(&["reload"])?;
    agent.kill()?;
    let removed = agent.ask(&["detach"])?;
    ensure!(
        removed.contains("removed the rule ipv4 1000: from all fwmark 0x65/0xff lookup 1065"),
        "{removed}"
    );
    ensure!(
        scene.rules()? == foreign && scene.routes(1065)?.is_empty(),
        "{:?}",
        scene.rules()?
    );
    agent.finish()
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_changed() -> Result<()> {
    let scene = Scene::new()?;
    let mut agent = Agent::new(&scene.router, &configuration("", r#""203.0.113.1""#))?;
    let error = agent.start().err().context("it has started")?;
    let text = format!("{error:#}\n{}", agent.log());
    ensure!(text.contains("203.0.113.1 is not on-link"), "{text}");
    ensure!(scene.rules()?.is_empty() && agent.left_behind()?.is_empty());

    agent.configure(&configuration("", ALL))?;
    agent.start()?;
    let (rules, routes) = (scene.rules()?, scene.routes(1065)?);
    let same = || -> Result<()> {
        ensure!(
            scene.rules()? == rules && scene.routes(1065)? == routes,
            "{:?}",
            scene.rules()?
        );
        ensure!(scene.routes(1066)?.is_empty());
        for to in BOTH {
            ensure!(goes(&scene, to)? == Some(0), "{to}");
        }
        Ok(())
    };
    let other = |gateways: &str| configuration("priority = 700", gateways).replace("1065", "1066");
    agent.configure(&other(r#""10.77.0.11", "203.0.113.1""#))?;
    let output = agent.call(&["reload"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && text.contains("203.0.113.1 is not on-link"),
        "{text}"
    );
    same()?;
    // A rule that takes the packets first, a table that is another's.
    for (add, remove, says) in [
        (
            "rule add fwmark 0x5/0xf lookup 9 priority 600",
            "rule del priority 600",
            "would be taken by another rule",
        ),
        (
            "route add 203.0.113.0/24 via 198.19.255.2 table 1066",
            "route flush table 1066",
            "has routes of another",
        ),
    ] {
        scene.router.ip(add)?;
        agent.configure(&other(ALL))?;
        let output = agent.call(&["reload"])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && text.contains(says), "{text}");
        let notes = agent.ask(&["check"])?;
        ensure!(notes.contains(says), "{notes}");
        scene.router.ip(remove)?;
        same().context(says)?;
    }
    agent.ask(&["reload"])?;
    ensure!(scene.routes(1066)?.len() == 2 && scene.routes(1065)?.is_empty());
    agent.finish()
}

#[test]
fn two_instances_do_not_touch_each_others() -> Result<()> {
    let scene = Scene::new()?;
    let agent = Agent::run(&scene.router, &configuration("", ALL))?;
    let (rules, routes) = (scene.rules()?, scene.routes(1065)?);
    let home = Home::new()?;
    let path = home.path().join("two.toml");
    // In the same directories, as two instances on one box are.
    let text = std::fs::read_to_string(agent.config_path())?
        .replace("instance = \"lab\"", "instance = \"two\"")
        .replace(":9817", ":9818")
        .replace("access = [\"lan\"]", "access = [\"wan\"]")
        .replace("uplink = [\"wan\"]", "uplink = [\"lan\"]");
    let call = |arguments: &[&str]| {
        let mut command = scene.router.command(agent_binary().unwrap());
        command.args(arguments).arg("--config").arg(&path);
        command
    };
    // The same table and mark are refused.
    std::fs::write(&path, &text)?;
    let output = call(&["run"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("that of an exit of instance `lab`"),
        "{said}"
    );
    ensure!(scene.rules()? == rules && scene.routes(1065)? == routes);

    std::fs::write(
        &path,
        text.replace("1065", "1067")
            .replace("0x65/0xff", "0x66/0xff"),
    )?;
    let mut two = Process::spawn(call(&["run"]), "two", home.path())?;
    wait_for("the rules of both", LIMIT, || {
        two.check_running()?;
        ensure!(scene.rules()?.len() == 4 && scene.routes(1067)?.len() == 2);
        Ok(())
    })?;
    two.kill()?;
    let output = call(&["detach"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(scene.rules()? == rules && scene.routes(1065)? == routes);
    ensure!(scene.routes(1067)?.is_empty());
    agent.finish()
}

#[test]
fn sysctls_are_told_of_or_set_and_set_back() -> Result<()> {
    let scene = Scene::new()?;
    let keys = [
        "all.rp_filter",
        "lan.rp_filter",
        "all.send_redirects",
        "lan.send_redirects",
    ];
    let set = |values: [&str; 4]| -> Result<()> {
        for (key, value) in keys.iter().zip(values) {
            scene
                .router
                .sysctl(&format!("net.ipv4.conf.{key}"), value)?;
        }
        Ok(())
    };
    let get = || -> Result<Vec<String>> {
        let read = |key: &str| -> Result<String> {
            let path = format!("/proc/sys/net/ipv4/conf/{}", key.replace('.', "/"));
            Ok(scene
                .router
                .enter(|| std::fs::read_to_string(path))?
                .trim()
                .to_owned())
        };
        keys.iter().map(|key| read(key)).collect()
    };
    set(["0", "1", "1", "1"])?;
    let mut agent = Agent::run(&scene.router, &configuration("", ALL))?;
    ensure!(get()? == ["0", "1", "1", "1"], "not ours to change");
    let problems = agent.status()?["problems"].to_string();
    for key in ["lan.rp_filter", "all.send_redirects", "lan.send_redirects"] {
        ensure!(problems.contains(key), "{problems}");
    }
    agent.configure(&configuration("manage_sysctls = true", ALL))?;
    agent.ask(&["reload"])?;
    ensure!(get()? == ["0", "2", "0", "0"], "{:?}", get()?);
    ensure!(
        !agent.status()?["problems"]
            .to_string()
            .contains("rp_filter")
    );
    // The exit goes, the agent crashes, detach: each time they are as before.
    agent.configure(&configuration("", ALL))?;
    agent.ask(&["reload"])?;
    ensure!(get()? == ["0", "1", "1", "1"], "{:?}", get()?);
    agent.configure(&configuration("manage_sysctls = true", ALL))?;
    agent.ask(&["reload"])?;
    agent.kill()?;
    ensure!(get()? == ["0", "2", "0", "0"], "{:?}", get()?);
    // What somebody has changed since is theirs.
    scene
        .router
        .sysctl("net.ipv4.conf.all.send_redirects", "1")?;
    agent.ask(&["detach"])?;
    ensure!(get()? == ["0", "1", "1", "1"], "{:?}", get()?);
    agent.finish()
}
