//! What was sent and what arrived: captures at the phone, the far side and the DNS server, read
//! without any of the agent's code.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use wificall_tests::capture::{Capture, Frame};
use wificall_tests::send::{IKE, NATT};
use wificall_tests::view::View;

use crate::scene::{OPERATORS, Scene, is_phone, operator};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const ETHERNET: u64 = 14;

/// Which way, seen from the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the phone.
    Up,
    /// To the phone.
    Down,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// As the metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// Wi-Fi Calling: the operator's number in the scene, and the class as the metrics call it.
    Call(usize, &'static str),
    /// Anything else, by name.
    Other(&'static str),
}

/// Packets, and the bytes of them from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// Counts more.
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} packets ({} B)", self.packets, self.bytes)
    }
}

/// One flow in one direction.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// What left its sender.
    pub sent: Count,
    /// What reached its receiver.
    pub arrived: Count,
    /// Packets that left with a DSCP already.
    pub sent_with_dscp: u64,
    /// Packets that arrived, by DSCP.
    pub dscp: BTreeMap<u8, u64>,
    /// Packets that arrived, by the mark that the router routed them by; 0 for none.
    pub mark: BTreeMap<u32, u64>,
    /// Packets that arrived and are IPv6.
    pub ipv6: u64,
}

/// All flows, and all frames of the link between phone and router.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The flows.
    pub ways: BTreeMap<(Flow, Direction), Way>,
    /// Frames of any kind that left the phone, and those that reached it.
    pub frames: BTreeMap<Direction, u64>,
}

impl Tally {
    /// A flow in a direction; empty if there was none.
    pub fn way(&self, flow: Flow, direction: Direction) -> Way {
        self.ways
            .get(&(flow, direction))
            .cloned()
            .unwrap_or_default()
    }

    /// Frames on the phone's link.
    pub fn frames(&self, direction: Direction) -> u64 {
        self.frames.get(&direction).copied().unwrap_or_default()
    }

    /// Whether nothing is on its way.
    pub fn settled(&self) -> bool {
        self.ways
            .values()
            .all(|way| way.arrived.packets >= way.sent.packets)
    }

    fn take(&mut self, frame: &Frame<'_>, place: Place) {
        if let Place::Phone = place {
            let direction = if frame.outgoing {
                Direction::Up
            } else {
                Direction::Down
            };
            *self.frames.entry(direction).or_default() += 1;
        }
        let Some(view) = View::of(frame).filter(View::is_traffic) else {
            return;
        };
        let Some((flow, direction)) = read(&view) else {
            return;
        };
        let count = Count {
            packets: 1,
            bytes: frame.bytes.len() as u64 - ETHERNET,
        };
        let at_sender = match place {
            Place::Phone => direction == Direction::Up,
            Place::Far { .. } => direction == Direction::Down,
        };
        if at_sender != frame.outgoing {
            return;
        }
        let way = self.ways.entry((flow, direction)).or_default();
        if at_sender {
            way.sent.add(count);
            way.sent_with_dscp += u64::from(view.dscp() != 0);
            return;
        }
        way.arrived.add(count);
        *way.dscp.entry(view.dscp()).or_default() += 1;
        // A marked packet would have been routed to an exit, away from the phone.
        let mark = match place {
            Place::Phone => 0,
            Place::Far { mark } => mark,
        };
        *way.mark.entry(mark).or_default() += 1;
        way.ipv6 += u64::from(view.source.is_ipv6());
    }
}

/// Where a capture is.
#[derive(Clone, Copy)]
enum Place {
    Phone,
    /// Behind the router, where packets of one mark arrive.
    Far {
        mark: u32,
    },
}

/// The running captures.
pub struct Watch {
    tally: Arc<Mutex<Tally>>,
    captures: Vec<Capture<()>>,
}

impl Watch {
    /// Starts capturing.
    ///
    /// # Errors
    ///
    /// If AF_PACKET is not permitted.
    pub fn start(scene: &Scene) -> Result<Self> {
        let far = &scene.lab.far;
        let mut places = vec![
            (&scene.lab.phone, "eth0", Place::Phone),
            (far, "eth0", Place::Far { mark: 0 }),
            (&scene.dns, "eth0", Place::Far { mark: 0 }),
        ];
        places.extend(OPERATORS.iter().map(|operator| {
            let mark = operator.mark;
            (far, operator.exit, Place::Far { mark })
        }));
        let tally = Arc::<Mutex<Tally>>::default();
        let captures = places
            .into_iter()
            .map(|(namespace, device, place)| {
                let tally = Arc::clone(&tally);
                Capture::start(namespace, device, move |frame| {
                    lock(&tally).take(frame, place);
                    None
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { tally, captures })
    }

    /// Begins anew.
    pub fn forget(&self) {
        *lock(&self.tally) = Tally::default();
    }

    /// What was seen so far.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Ends the captures; what was seen.
    ///
    /// # Errors
    ///
    /// If a capture lost a frame.
    pub fn finish(self) -> Result<Tally> {
        for capture in self.captures {
            capture.finish()?;
        }
        Ok(lock(&self.tally).clone())
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // A capture that panicked says so itself when it is finished.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which flow a packet of the phone belongs to, and which way it goes.
fn read(view: &View<'_>) -> Option<(Flow, Direction)> {
    if is_phone(view.source) {
        let port = view.ports.map(|(_, far)| far);
        Some((flow(view, view.destination, port), Direction::Up))
    } else if is_phone(view.destination) {
        let port = view.ports.map(|(far, _)| far);
        Some((flow(view, view.source, port), Direction::Down))
    } else {
        None
    }
}

fn flow(view: &View<'_>, far: IpAddr, port: Option<u16>) -> Flow {
    match (operator(far), view.protocol, port) {
        (Some(operator), ESP, _) => Flow::Call(operator, "esp"),
        (Some(operator), UDP, _) if view.later_fragment => Flow::Call(operator, "fragment"),
        (Some(operator), UDP, Some(IKE)) => Flow::Call(operator, "ike"),
        (Some(operator), UDP, Some(NATT)) => Flow::Call(
            operator,
            match view.payload {
                [0xff] => "keepalive",
                [0, 0, 0, 0, ..] => "ike",
                _ => "esp_udp",
            },
        ),
        (Some(_), UDP, _) => Flow::Other("UDP 443 to an ePDG"),
        (None, UDP, Some(NATT)) => Flow::Other("UDP 4500, no ePDG"),
        (None, UDP, Some(443)) => Flow::Other("QUIC (UDP 443)"),
        (None, UDP, Some(53)) => Flow::Other("DNS"),
        (None, TCP, _) => Flow::Other("TCP"),
        _ => Flow::Other("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wificall_tests::lab::{EPDG4, OTHER4, PHONE4};
    use wificall_tests::send;

    fn view<'a>(source: &str, destination: &str, ports: (u16, u16), payload: &'a [u8]) -> View<'a> {
        View {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tos: 0,
            protocol: UDP,
            later_fragment: false,
            ports: Some(ports),
            payload,
        }
    }

    #[test]
    fn flows_are_told_apart() {
        let (esp, ike) = (send::esp(1, 100), send::ike_behind_marker(100));
        let up = |to, port, payload| read(&view(PHONE4, to, (NATT, port), payload));
        let call = |class| Some((Flow::Call(0, class), Direction::Up));
        assert_eq!(up(EPDG4, NATT, &esp), call("esp_udp"));
        assert_eq!(up(EPDG4, NATT, &ike), call("ike"));
        assert_eq!(up(EPDG4, NATT, &[0xff]), call("keepalive"));
        assert_eq!(
            up(OTHER4, NATT, &esp),
            Some((Flow::Other("UDP 4500, no ePDG"), Direction::Up))
        );
        assert_eq!(
            up(EPDG4, 443, &esp),
            Some((Flow::Other("UDP 443 to an ePDG"), Direction::Up))
        );
        // The port that counts is the ePDG's.
        assert_eq!(
            read(&view(EPDG4, PHONE4, (NATT, 61_000), &esp)),
            Some((Flow::Call(0, "esp_udp"), Direction::Down))
        );
        assert_eq!(read(&view(EPDG4, OTHER4, (NATT, NATT), &esp)), None);
    }
}
