//! One router and its two links.

use std::{io::Write as _, process::Command};

use anyhow::{Context as _, Result};

use super::{marks::Probe, sink::Sink, traffic::Direction};
use crate::{
    lab::{PHONE4, PHONE6},
    netns::Netns,
    process::output,
};

/// Link-layer addresses: the same on every road, so that one list of headers serves all. As `packet` builds frames.
const ROUTER: &str = "02:00:00:00:00:02";
const OUTSIDE: &str = "02:00:00:00:00:01";
/// The router's next hops.
const GATEWAY4: &str = "198.19.255.2";
const GATEWAY6: &str = "fd00:1::2";

/// A router between its near end, where phones would be, and its far end.
pub struct Road {
    // Before the namespace: what is attached goes before the interface.
    near: End,
    far: End,
    /// The namespace; interfaces `lan` and `wan`.
    pub router: Netns,
}

struct End {
    ifindex: u32,
    sink: Sink,
}

impl Road {
    pub(super) fn build(outer: &Netns, number: usize, label: &str, cpus: &[usize]) -> Result<Self> {
        let router = Netns::new(label)?;
        router.forward()?;
        let near = format!("near{number}");
        let far = format!("far{number}");
        for (inner, end) in [("lan", &near), ("wan", &far)] {
            let queues = cpus.iter().max().context("no CPU")? + 1;
            let queues = queues.to_string();
            link((&router, inner, ROUTER), (outer, end, OUTSIDE), &queues)?;
            // Whatever NAPI is: without it a veth cannot be sent frames that are no skbs. It is as on most NICs.
            router.run("ethtool", &format!("-K {inner} gro on"))?;
            for cpu in cpus {
                // The default would be a queue by the hash of addresses and ports, on whatever CPU.
                let file = format!("/sys/class/net/{inner}/queues/tx-{cpu}/xps_cpus");
                write_in(&router, &file, &format!("{:x}", 1u64 << cpu))?;
            }
            outer.ip(&format!("link set {end} up"))?;
        }
        router.address("lan", &["10.77.0.1/24", "fd77::1/64"])?;
        router.address("wan", &["198.19.255.1/30", "fd00:1::1/64"])?;
        for (device, address) in [
            ("lan", PHONE4),
            ("lan", PHONE6),
            ("wan", GATEWAY4),
            ("wan", GATEWAY6),
        ] {
            router.ip(&format!(
                "neigh replace {address} lladdr {OUTSIDE} dev {device} nud permanent"
            ))?;
        }
        router.ip(&format!("route add default via {GATEWAY4}"))?;
        router.ip(&format!("route add default via {GATEWAY6}"))?;
        let end = |name: &str| -> Result<End> {
            let ifindex = outer.index(name)?;
            let sink = Sink::attach(outer, ifindex)?;
            Ok(End { ifindex, sink })
        };
        Ok(Self {
            near: end(&near)?,
            far: end(&far)?,
            router,
        })
    }

    /// The interface, in the outer namespace, that frames go in by, and where they arrive.
    #[must_use]
    pub fn ends(&self, direction: Direction) -> (u32, &Sink) {
        match direction {
            Direction::Up => (self.near.ifindex, &self.far.sink),
            Direction::Down => (self.far.ifindex, &self.near.sink),
        }
    }

    /// Gives the router a ruleset of nftables.
    ///
    /// # Errors
    ///
    /// If `nft` is missing or refuses it.
    pub fn nft(&self, text: &str) -> Result<()> {
        self.with_file("nft", "-f", text)
    }

    /// Runs a program in the router with these options and a file of `text`.
    ///
    /// # Errors
    ///
    /// If it is missing or fails.
    pub fn with_file(&self, program: &str, options: &str, text: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        let path = file.path().display();
        self.router
            .run(program, &format!("{options} {path}"))
            .map(drop)
    }

    pub(super) fn probe(&self, direction: Direction) -> Result<Probe> {
        let device = match direction {
            Direction::Up => "wan",
            Direction::Down => "lan",
        };
        Probe::attach(&self.router, self.router.index(device)?)
    }
}

/// A veth pair without addresses of its own, which would send packets nobody asked for.
fn link(a: (&Netns, &str, &str), b: (&Netns, &str, &str), queues: &str) -> Result<()> {
    let mut command = Command::new("ip");
    for (words, (namespace, name, address)) in [("link add", a), ("type veth peer", b)] {
        command.args(words.split(' '));
        command.args(["name", name, "netns", namespace.name(), "address", address]);
        command.args(["numrxqueues", queues, "numtxqueues", queues]);
    }
    output(&mut command)?;
    for (namespace, name, _) in [a, b] {
        namespace.ip(&format!("link set {name} addrgenmode none"))?;
    }
    Ok(())
}

/// Writes to a file of sysfs as the namespace has it.
fn write_in(namespace: &Netns, path: &str, text: &str) -> Result<()> {
    // Unlike `Netns::command`, with the namespace's own /sys.
    output(
        Command::new("ip")
            .args(["netns", "exec", namespace.name(), "sh", "-c"])
            .arg(format!("echo {text} > {path}")),
    )
    .map(drop)
}
