//! Every address around the borders of the set, with what matches and what does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, ensure};
use wificall_tests::capture::Capture;
use wificall_tests::lab::{EF, EPDG4, LIMIT, Lab, OTHER4, PHONE4, PHONE6};
use wificall_tests::process::wait_until;
use wificall_tests::send::{self, IKE, NATT, RawIp};
use wificall_tests::view::View;

/// What is sent: to a UDP port, or ESP.
type Kind = Option<u16>;
/// A port that is nobody's.
const STRANGER: u16 = 4501;
const ESP: u8 = 50;
const KINDS: [Kind; 4] = [Some(IKE), Some(NATT), Some(STRANGER), None];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treated {
    pub dscp: u8,
    pub marked: bool,
}

pub type Table = BTreeMap<(IpAddr, Kind), Treated>;

/// Addresses on both sides of all borders, and single ones.
fn addresses() -> Vec<IpAddr> {
    let first = u32::from(Ipv4Addr::new(198, 17, 255, 252));
    let v4 = (first..first + 140).map(|number| IpAddr::from(Ipv4Addr::from(number)));
    let others = [
        "198.18.0.255",
        "198.18.1.77",
        "198.18.3.2",
        "198.18.3.3",
        "198.18.3.4",
        "203.0.113.10",
        "2001:db8:17:ffff:ffff:ffff:ffff:ffff",
        "2001:db8:18::",
        "2001:db8:18::6",
        "2001:db8:18::7",
        "2001:db8:18::8",
        "2001:db8:18:0:ffff:ffff:ffff:ffff",
        "2001:db8:18:1::",
    ];
    v4.chain(others.map(|address| address.parse().unwrap()))
        .collect()
}

/// What the configuration says, said once more and otherwise.
pub fn expected() -> Table {
    let mut table = Table::new();
    for address in addresses() {
        let text = address.to_string();
        let last = text
            .rsplit('.')
            .next()
            .and_then(|last| last.parse::<u8>().ok());
        let other = ["198.18.0.77", "198.18.3.3", "2001:db8:18::7"].contains(&text.as_str());
        let marked = match address {
            IpAddr::V4(_) => text.starts_with("198.18.0.") && last.is_some_and(|last| last < 128),
            IpAddr::V6(v6) => v6.segments()[..4] == [0x2001, 0xdb8, 0x18, 0],
        };
        for kind in KINDS.into_iter().filter(|kind| *kind != Some(STRANGER)) {
            let treated = match (other, kind) {
                (true, Some(IKE)) => Treated {
                    dscp: 48,
                    marked: false,
                },
                (true, _) => Treated {
                    dscp: 34,
                    marked: false,
                },
                (false, _) if marked => Treated {
                    dscp: EF,
                    marked: true,
                },
                (false, _) => continue,
            };
            table.insert((address, kind), treated);
        }
    }
    table
}

/// Sends everything from the phone, and compares what arrives: what `expected` does not say is untouched.
pub fn compare(lab: &Lab, expected: &Table) -> Result<()> {
    let watch = |device: &str, marked| {
        Capture::start(&lab.far, device, move |frame| {
            let view = View::of(frame)?;
            let kind = match (view.protocol, view.ports) {
                (ESP, _) => None,
                (_, Some((_, port))) if KINDS.contains(&Some(port)) => Some(port),
                _ => return None,
            };
            let treated = Treated {
                dscp: view.dscp(),
                marked,
            };
            (!frame.outgoing).then_some(((view.destination, kind), treated))
        })
    };
    let (wan, exit) = (watch("eth0", false)?, watch("exit0", true)?);
    let bind = |address: &str| lab.phone.enter(|| UdpSocket::bind((address, 0)));
    let sockets = [bind(PHONE4)?, bind(PHONE6)?];
    let raw = [
        RawIp::new(&lab.phone, false, ESP)?,
        RawIp::new(&lab.phone, true, ESP)?,
    ];
    let mut sent = 0;
    for address in addresses() {
        let family = usize::from(address.is_ipv6());
        for kind in KINDS {
            let socket = &sockets[family];
            match kind {
                Some(IKE) => {
                    socket.send_to(&send::ike_sa_init(100), (address, IKE))?;
                }
                Some(port) => {
                    socket.send_to(&send::esp(1, 100), (address, port))?;
                }
                None => raw[family].send(&send::esp(1, 100), address)?,
            }
            sent += 1;
        }
        // Nothing may be lost in a queue.
        wait_until("the packets", LIMIT, || {
            (wan.kept() + exit.kept() >= sent).then_some(())
        })
        .with_context(|| format!("to {address}"))?;
    }
    let mut arrived: Table = wan.finish()?.into_iter().collect();
    arrived.extend(exit.finish()?);
    ensure!(arrived.len() as u64 == sent, "each once");
    for (key, treated) in &arrived {
        let said = expected.get(key).copied().unwrap_or_default();
        ensure!(*treated == said, "{key:?}: {treated:?}, expected {said:?}");
    }
    let down = |address: &str, port| down(lab, address, port);
    let set = !expected.is_empty();
    ensure!(
        down(EPDG4, NATT)? == if set { EF } else { 0 },
        "what comes back"
    );
    ensure!(
        down(EPDG4, STRANGER)? == 0,
        "what comes back from another port"
    );
    ensure!(down(OTHER4, NATT)? == 0, "what comes from elsewhere");
    Ok(())
}

/// The DSCP of a packet that comes from a port of an address.
fn down(lab: &Lab, address: &str, port: u16) -> Result<u8> {
    let from: IpAddr = address.parse()?;
    let capture = Capture::start(&lab.phone, "eth0", move |frame| {
        let view = View::of(frame)?;
        (view.source == from && !frame.outgoing).then(|| view.dscp())
    })?;
    let socket = lab.far.enter(|| UdpSocket::bind((address, port)))?;
    socket.send_to(&send::esp(1, 100), (PHONE4, 40_000))?;
    wait_until("the answer", LIMIT, || (capture.kept() > 0).then_some(()))?;
    capture.finish()?.pop().context("nothing came back")
}
