//! What an analysis found, as `wificall analyze --json` prints it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use wificall_common::Direction;
use wificall_common::abi::{FlowKey, Way};
use wificall_common::wire::PROTOCOL_ESP;

use super::endpoints::{Known, Source};
use super::flows::{Tracked, lost};
use super::follow::Follower;
use super::{Analyzer, Guesses, whose};
use crate::telemetry::view::{self, HalfLeg, TraceEvent, Tunnel};

/// Addresses that are named where there is no endpoint.
const BUSIEST: usize = 5;
/// Of so many packets of a direction, one in two that came again is no network's doing.
const TWICE_FROM: u64 = 20;
const NANOS_PER_MS: u64 = 1_000_000;

/// What an analysis found. Times of day are milliseconds since 1970-01-01 UTC, as the file has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Analysis {
    /// Frames that were read.
    pub frames: u64,
    /// When the first of them was captured; left out if none says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Likewise the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Why the file could not be read to its end, and where; left out if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// What is to be known about the figures, for people.
    pub notes: Vec<String>,
    /// Packets to and from endpoints by their class.
    pub matched: BTreeMap<String, Both>,
    /// The other frames, by the classifier's way out.
    pub other: BTreeMap<String, u64>,
    /// Endpoints that packets went to or came from.
    pub endpoints: Vec<Endpoint>,
    /// Tunnels as they were at the end of the file.
    pub tunnels: Vec<Tunnel>,
    /// What happened, in order.
    pub timeline: Vec<TraceEvent>,
    /// What the tunnels consist of, and what of them is missing.
    pub flows: Vec<FlowReport>,
}

/// What went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Both {
    /// From phones.
    pub up: Passed,
    /// To phones.
    pub down: Passed,
}

/// Packets of one kind and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    /// How many.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: String,
    /// The network by which it is known.
    pub network: String,
    /// How it is known.
    pub source: Source,
    /// Whose it is by the catalogue, as `262-01`.
    pub owners: Vec<String>,
    /// Packets to and from it.
    pub packets: u64,
}

impl Endpoint {
    pub(super) fn new(address: [u8; 16], known: &Known) -> Self {
        let owners = known.owners.iter().filter_map(|owner| owner.plmn);
        Self {
            address: address_text(address),
            network: known.net.to_string(),
            source: known.source,
            owners: owners.map(|plmn| plmn.to_string()).collect(),
            packets: 1,
        }
    }
}

/// A flow: what one NAT mapping of a phone carries to and from an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowReport {
    /// The phone's address.
    pub client: String,
    /// Its UDP port; 0 for native ESP.
    pub port: u16,
    /// `udp` or `esp`.
    pub protocol: String,
    /// The ePDG's address.
    pub endpoint: String,
    /// When the first packet was seen of the set-up, or of what is older.
    pub began: u64,
    /// When the last one was.
    pub seen: u64,
    /// From the phone to where the file was captured.
    pub client_to_us: Leg,
    /// From the network to there.
    pub network_to_us: Leg,
    /// Where numbers are missing, in order.
    pub gaps: Vec<GapReport>,
    /// Gaps that are not among them, of a flow that has very many.
    pub gaps_left_out: u64,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leg {
    /// Packets of all kinds.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// ESP.
    #[serde(flatten)]
    pub esp: HalfLeg,
    /// ESP packets whose number nothing confirmed: forged, or far too late.
    pub stray: u64,
    /// How often counting began anew, since what was missed went elsewhere or cannot be known.
    pub anchored: u64,
    /// Intervals of a talker, and of comfort noise.
    pub talk: u64,
    /// Intervals of comfort noise.
    pub pause: u64,
}

/// Numbers that did not come, in a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GapReport {
    /// When it was seen.
    pub at: u64,
    /// `client_to_us` or `network_to_us`.
    pub half_leg: String,
    /// How many.
    pub lost: u32,
    /// How long nothing came, in milliseconds.
    pub silence_ms: u64,
}

impl Leg {
    fn of(way: &Way, lost: u32) -> Self {
        let received = view::Received::new(way.esp.into(), lost.into());
        #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
        let jitter_ms = (way.talk > 0).then(|| f64::from(way.jitter) / NANOS_PER_MS as f64);
        Self {
            packets: way.packets,
            bytes: way.bytes,
            esp: HalfLeg {
                received: received.received,
                lost: received.lost,
                loss_percent: received.loss_percent,
                late: way.late.into(),
                duplicate: way.duplicate.into(),
                jitter_ms,
            },
            stray: way.stray.into(),
            anchored: way.anchored.into(),
            talk: way.talk.into(),
            pause: way.pause.into(),
        }
    }
}

/// The name of a direction's half-leg.
pub(super) const fn half_leg(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "client_to_us",
        Direction::Down => "network_to_us",
    }
}

/// An address of a key, which has IPv4 as `::ffff:a.b.c.d`.
pub(super) fn address_text(address: [u8; 16]) -> String {
    Ipv6Addr::from(address).to_canonical().to_string()
}

/// `udp` or `esp`.
pub(super) const fn protocol_text(key: &FlowKey) -> &'static str {
    if key.protocol == PROTOCOL_ESP {
        "esp"
    } else {
        "udp"
    }
}

impl FlowReport {
    fn of(key: &FlowKey, tracked: &Tracked) -> Self {
        let flow = &tracked.flow;
        let gaps = tracked.gaps.iter().map(|gap| GapReport {
            at: gap.at / NANOS_PER_MS,
            half_leg: half_leg(gap.direction).to_owned(),
            lost: gap.lost,
            silence_ms: gap.silence / NANOS_PER_MS,
        });
        Self {
            client: address_text(key.client),
            port: key.port,
            protocol: protocol_text(key).to_owned(),
            endpoint: address_text(key.endpoint),
            began: flow.control.began / NANOS_PER_MS,
            seen: flow.up.seen.max(flow.down.seen) / NANOS_PER_MS,
            client_to_us: Leg::of(&flow.up, lost(flow, Direction::Up)),
            network_to_us: Leg::of(&flow.down, lost(flow, Direction::Down)),
            gaps: gaps.collect(),
            gaps_left_out: tracked.gaps_left_out,
        }
    }
}

impl Analyzer {
    pub(super) fn finish(mut self, guesses: &Guesses) -> Analysis {
        let follower = std::mem::replace(&mut self.follower, Follower::new());
        let owners = |address| whose(&self.endpoints, address);
        let (tunnels, timeline, left_out) = follower.finish(self.now, &mut self.flows, &owners);
        let mut notes = self.notes(guesses);
        if left_out > 0 {
            notes.push(format!(
                "{left_out} events or tunnels are left out: there are more than are kept"
            ));
        }
        let mut flows: Vec<_> = self.flows.all().collect();
        flows.sort_by_key(|(key, tracked)| (tracked.flow.control.began, **key));
        let matched = self.passed.iter().map(|(class, [up, down])| {
            let both = Both {
                up: *up,
                down: *down,
            };
            (class.name().to_owned(), both)
        });
        let other = self.exits.iter();
        Analysis {
            frames: self.frames,
            first: self.first.map(|at| at / NANOS_PER_MS),
            last: self.first.map(|_| self.now / NANOS_PER_MS),
            notes,
            matched: matched.collect(),
            other: other
                .map(|(exit, count)| (exit.name().to_owned(), *count))
                .collect(),
            endpoints: self.seen.values().cloned().collect(),
            tunnels,
            timeline,
            flows: flows
                .into_iter()
                .map(|(key, tracked)| FlowReport::of(key, tracked))
                .collect(),
            stopped: self.stopped,
        }
    }

    /// What is to be known about the figures.
    fn notes(&self, guesses: &Guesses) -> Vec<String> {
        let mut notes = Vec::new();
        for (link, count) in &self.foreign {
            notes.push(format!(
                "{count} frames are of {link}, which cannot be read: Ethernet, raw IP and Linux cooked captures can be"
            ));
        }
        if self.passed.is_empty() {
            notes.push(self.why_nothing(guesses));
        }
        if self.timeless > 0 {
            notes.push(format!(
                "{} frames have no time: they are taken to have come with the one before",
                self.timeless
            ));
        }
        if self.backward > 0 {
            notes.push(format!(
                "{} frames are older than the one before them, and taken to have come with it; `reordercap` sorts a capture",
                self.backward
            ));
        }
        if self.short > 0 {
            notes.push(format!(
                "{} packets of tunnels are in no flow: the capture ends before their ESP or IKE header (snapshot length)",
                self.short
            ));
        }
        let flows = &self.flows;
        if flows.unanswered() > 0 {
            notes.push(format!(
                "{} flows were seen from one end only, and are not among the flows",
                flows.unanswered()
            ));
        }
        if flows.evicted > 0 || flows.forgotten > 0 || guesses.overflow {
            notes.push(format!(
                "there is more than is kept: {} flows and {} candidates that were quiet longest are left out{}",
                flows.evicted,
                flows.forgotten,
                if guesses.overflow {
                    ", and some addresses that speak IKE"
                } else {
                    ""
                }
            ));
        }
        if self.is_twice() {
            notes.push(
                "most packets are in the capture twice, as at two interfaces of a router: of such a file, analyze one \
                 interface (`tshark -r FILE -Y 'frame.interface_id == 0' -w ONE`)"
                    .to_owned(),
            );
        }
        notes
    }

    fn why_nothing(&self, guesses: &Guesses) -> String {
        let busiest = guesses.busiest(BUSIEST);
        if busiest.is_empty() && self.endpoints.is_empty() {
            return "nothing here speaks IKE or ESP".to_owned();
        }
        if busiest.is_empty() {
            return "no packet goes to or comes from an endpoint that is known".to_owned();
        }
        let speakers = busiest
            .iter()
            .map(|(address, count)| format!("{address} ({count} packets)"));
        format!(
            "no packet goes to or comes from an endpoint that is known, and no IKE_SA_INIT is in the capture to guess one \
             by: name it with --endpoint. Most of what looks like IPsec is sent by {}",
            Vec::from_iter(speakers).join(", ")
        )
    }

    /// Whether one ESP packet in two is a duplicate.
    fn is_twice(&self) -> bool {
        let ways = self.flows.all().flat_map(|(_, tracked)| {
            let flow = &tracked.flow;
            [&flow.up, &flow.down].map(|way| (u64::from(way.esp), u64::from(way.duplicate)))
        });
        let (esp, duplicate) = ways.fold((0, 0), |sum, way| (sum.0 + way.0, sum.1 + way.1));
        esp >= TWICE_FROM && duplicate * 5 >= esp * 2
    }
}
