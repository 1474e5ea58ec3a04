//! The lab most tests use: a phone, a router, and everything far away.
//!
//! ```text
//!  phone                router                 far
//!  eth0 ──────────── lan      wan ──────────── eth0   main table
//!  10.77.0.2              198.19.255.1    .2          lo: ePDG, DNS, neighbours
//!                         exit ─────────────── exit0  packets marked MARK
//! ```
//!
//! A packet's mark is seen by where it goes: the router sends marked packets out
//! of `exit`, others out of `wan`, so one packet without its mark is a frame on
//! the wrong interface.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::capture::Capture;
use crate::netns::{Netns, veth};
use crate::process::{wait_for, wait_until};
use crate::send::{self, NATT};
use crate::view::View;

/// The ePDG's addresses. None in the lab is global unicast: see `[lab] admit`.
pub const EPDG4: &str = "198.18.0.10";
/// As above, IPv6.
pub const EPDG6: &str = "2001:db8:18::10";
/// A host beside it in the same /24, thus classified where addresses are widened.
pub const EPDG4_BESIDE: &str = "198.18.0.200";
/// A far host that is no ePDG.
pub const OTHER4: &str = "203.0.113.10";
/// As above, IPv6.
pub const OTHER6: &str = "2001:db8:113::10";
/// Where phones find the DNS server.
pub const DNS: &str = "198.19.255.2";
/// Where the router finds it, off the phones' path, so that the agent's own queries
/// are not among the packets that a test counts.
pub const ROUTER_DNS: &str = "198.19.255.6";
/// The phone's addresses.
pub const PHONE4: &str = "10.77.0.2";
/// As above, IPv6.
pub const PHONE6: &str = "fd77::2";
/// The mark whose packets leave by `exit`, under its mask.
pub const MARK: &str = "0x65/0xff";
/// Expedited forwarding, the agent's default for all that it recognises (RFC 3246).
pub const EF: u8 = 46;
/// Configuration that knows the ePDG's blocks as operator 001-01 and marks what goes
/// there; the rest is as by default.
pub const MARKED: &str = r#"
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/24"
operator = "001-01"
[[prefix]]
prefix = "2001:db8:18::/64"
operator = "001-01"
[[policy]]
name = "marked"
operators = ["001-01"]
mark = "0x65/0xff"
"#;
/// How long anything in a lab may take. Generous: a loaded machine is slow, and
/// only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The three namespaces, connected and routing.
pub struct Lab {
    /// The phone; interface `eth0`.
    pub phone: Netns,
    /// The router; interfaces `lan`, `wan`, `exit`.
    pub router: Netns,
    /// The carrier, its DNS, and the rest of the Internet; `eth0`, `exit0`.
    pub far: Netns,
}

impl Lab {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// If not root.
    pub fn new() -> Result<Self> {
        let lab = Self {
            phone: Netns::new("phone")?,
            router: Netns::new("router")?,
            far: Netns::new("far")?,
        };
        let Self { phone, router, far } = &lab;
        router.forward()?;
        far.forward()?;
        veth((phone, "eth0"), (router, "lan"))?;
        veth((router, "wan"), (far, "eth0"))?;
        veth((router, "exit"), (far, "exit0"))?;

        phone.address("eth0", &[&format!("{PHONE4}/24"), &format!("{PHONE6}/64")])?;
        router.address("lan", &["10.77.0.1/24", "fd77::1/64"])?;
        router.address("wan", &["198.19.255.1/30", "fd00:1::1/64"])?;
        router.address("exit", &["198.19.255.5/30", "fd00:2::1/64"])?;
        far.address("eth0", &["198.19.255.2/30", "fd00:1::2/64"])?;
        far.address("exit0", &["198.19.255.6/30", "fd00:2::2/64"])?;
        let hosts = [EPDG4, EPDG4_BESIDE, OTHER4, EPDG6, OTHER6];
        far.address("lo", &hosts)?;

        phone.ip("route add default via 10.77.0.1")?;
        phone.ip("route add default via fd77::1")?;
        router.ip("route add default via 198.19.255.2")?;
        router.ip("route add default via fd00:1::2")?;
        router.ip("route add default via 198.19.255.6 table 101")?;
        router.ip("route add default via fd00:2::2 table 101")?;
        router.ip(&format!("rule add fwmark {MARK} lookup 101"))?;
        router.ip(&format!("-6 rule add fwmark {MARK} lookup 101"))?;
        // What the far side sends of itself comes from the ePDG's addresses.
        far.ip(&format!(
            "route add 10.77.0.0/24 via 198.19.255.1 src {EPDG4}"
        ))?;
        far.ip(&format!("route add fd77::/64 via fd00:1::1 src {EPDG6}"))?;
        neighbours(
            (phone, "eth0", &[PHONE4, PHONE6]),
            (router, "lan", &["10.77.0.1", "fd77::1"]),
        )?;
        neighbours(
            (router, "wan", &["198.19.255.1", "fd00:1::1"]),
            (far, "eth0", &["198.19.255.2", "fd00:1::2"]),
        )?;
        neighbours(
            (router, "exit", &["198.19.255.5", "fd00:2::1"]),
            (far, "exit0", &["198.19.255.6", "fd00:2::2"]),
        )?;
        Ok(lab)
    }

    /// Sends one ESP-in-UDP packet from the phone's address `from` to `to`, and gives
    /// what arrived.
    ///
    /// # Errors
    ///
    /// If it does not arrive.
    pub fn probe(&self, from: &str, to: &str) -> Result<Arrival> {
        let watch = Watch::start(&self.far)?;
        let socket = self.phone.enter(|| UdpSocket::bind((from, 0)))?;
        socket.send_to(&send::esp(1, 100), (to, NATT))?;
        watch.wait(1)?;
        watch.finish()?.pop().context("nothing arrived")
    }

    /// Waits until such packets are treated.
    ///
    /// # Errors
    ///
    /// If they still are not after [`LIMIT`].
    pub fn wait_treated(&self, from: &str, to: &str) -> Result<()> {
        wait_for("treated packets", LIMIT, || {
            let arrival = self.probe(from, to)?;
            ensure!(arrival.is_treated(), "{from} to {to}: {arrival:?}");
            Ok(())
        })
    }

    /// Masquerades what leaves by `wan` or `exit`, as a home router does.
    ///
    /// # Errors
    ///
    /// If nftables is missing.
    pub fn masquerade(&self) -> Result<()> {
        self.router.run("nft", "add table ip nat")?;
        self.router.run(
            "nft",
            "add chain ip nat post { type nat hook postrouting priority 100 ; }",
        )?;
        self.router.run(
            "nft",
            "add rule ip nat post oifname { wan, exit } masquerade",
        )?;
        Ok(())
    }
}

/// An ESP-in-UDP packet that arrived on the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, see [`send::esp`].
    pub sequence: u32,
    /// Its DSCP.
    pub dscp: u8,
    /// Whether the router saw the mark.
    pub marked: bool,
}

impl Arrival {
    /// Whether it got what the tests' policies give: EF and the mark.
    #[must_use]
    pub fn is_treated(&self) -> bool {
        self.marked && self.dscp == EF
    }
}

/// Watches what arrives on the far side for port 4500.
pub struct Watch {
    wan: Capture<Arrival>,
    exit: Capture<Arrival>,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    ///
    /// If AF_PACKET is not permitted.
    pub fn start(far: &Netns) -> Result<Self> {
        let watch = |device: &str, marked| {
            Capture::start(far, device, move |frame| {
                let view = View::of(frame)?;
                if frame.outgoing || view.ports?.1 != NATT {
                    return None;
                }
                let sequence = send::esp_sequence(view.payload)?;
                Some(Arrival {
                    sequence,
                    dscp: view.dscp(),
                    marked,
                })
            })
        };
        Ok(Self {
            wan: watch("eth0", false)?,
            exit: watch("exit0", true)?,
        })
    }

    /// How many have arrived.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.wan.kept() + self.exit.kept()
    }

    /// Waits until `count` have arrived in all.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub fn wait(&self, count: u64) -> Result<()> {
        wait_until(&format!("{count} packets"), LIMIT, || {
            (self.arrived() >= count).then_some(())
        })
        .with_context(|| format!("{} arrived", self.arrived()))
    }

    /// What has arrived, first what was not marked.
    ///
    /// # Errors
    ///
    /// If a capture lost a frame.
    pub fn finish(self) -> Result<Vec<Arrival>> {
        let mut arrivals = self.wan.finish()?;
        arrivals.extend(self.exit.finish()?);
        Ok(arrivals)
    }
}

/// Tells two ends of a link about each other's addresses, so that nobody resolves
/// them during a test: those packets would be counted as well.
///
/// # Errors
///
/// If an interface does not exist.
pub fn neighbours(a: (&Netns, &str, &[&str]), b: (&Netns, &str, &[&str])) -> Result<()> {
    for ((host, device, _), (peer, peer_device, addresses)) in [(a, b), (b, a)] {
        let mac = peer.mac(peer_device)?;
        for address in addresses {
            host.ip(&format!(
                "neigh replace {address} lladdr {mac} dev {device} nud permanent"
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::Stream;

    /// Without an agent: nothing is marked, nothing changed, nothing lost.
    #[test]
    fn carries_ten_thousand_packets_a_second() -> Result<()> {
        let lab = Lab::new()?;
        let watch = Watch::start(&lab.far)?;
        let socket = send::udp(&lab.phone, "0.0.0.0:4500")?;
        let stream = Stream::start(socket, send::address(EPDG4, NATT)?, 10_000, 100);
        watch.wait(5_000)?;
        let sent = stream.finish()?;
        watch.wait(sent.into())?;
        let expected = (1..=sent).map(|sequence| Arrival {
            sequence,
            dscp: 0,
            marked: false,
        });
        assert!(watch.finish()?.into_iter().eq(expected));
        Ok(())
    }

    /// The mark decides the way, which the tests rely on.
    #[test]
    fn a_marked_packet_leaves_by_the_other_interface() -> Result<()> {
        let lab = Lab::new()?;
        for rule in [
            "add table inet lab",
            "add chain inet lab pre { type filter hook prerouting priority -300 ; }",
            "add rule inet lab pre udp dport 4500 meta mark set 0x65",
        ] {
            lab.router.run("nft", rule)?;
        }
        for (from, to) in [(PHONE4, EPDG4), (PHONE6, EPDG6)] {
            assert_eq!(
                lab.probe(from, to)?,
                Arrival {
                    sequence: 1,
                    dscp: 0,
                    marked: true
                }
            );
        }
        Ok(())
    }
}
