//! The agent's tracker over a file: it is told what the programs would tell, and reads flows when it would, by the file's
//! clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::sync::Arc;

use wificall_common::abi::FlowKey;

use super::flows::{FLOWS_MAX, Flows, Told};
use super::report::{address_text, protocol_text};
use crate::catalogue::catalogue;
use crate::telemetry::note::Note;
use crate::telemetry::show::Show;
use crate::telemetry::totals::Whose;
use crate::telemetry::tracker::{Id, Tracker};
use crate::telemetry::view::{self, Step, TraceEvent};

/// Events of the timeline.
pub const EVENTS_MAX: usize = 50_000;
/// Tunnels that are over and still shown.
const GONE_MAX: usize = 16_384;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// Steps of one pause of the file: after that everything is forgotten that can be.
const STEPS_MAX: u32 = 100_000;
/// Flows that are read at once.
const READ_MOST: usize = 1_024;

/// Says whose an endpoint is.
pub(super) type Owners<'a> = &'a dyn Fn([u8; 16]) -> Arc<Whose>;

/// What a flow is known by in the views: client, port, protocol, endpoint.
type Ends = (String, u16, String, String);

pub(super) struct Follower {
    tracker: Tracker,
    clock: u64,
    timeline: Vec<(Event, TraceEvent)>,
    gone: BTreeMap<Id, view::Tunnel>,
    /// Events and tunnels that there was no room for.
    pub(super) left_out: u64,
    key: RandomState,
}

/// Whose an event is: a tunnel's by its number, or by one of its flows.
enum Event {
    Tunnel(Id),
    Flow(FlowKey),
}

/// How the views are made: everything is shown, for it is the reader's own file.
fn show(now: u64, key: &RandomState) -> Show<'_> {
    Show {
        now,
        wall: now / MILLISECOND,
        clients: true,
        key,
        operator: &|plmn| {
            let operator = catalogue().operator(plmn.parse().ok()?)?;
            Some(operator.name.to_owned()).filter(|name| !name.is_empty())
        },
        exit: &|_| None,
        nat_timeout: None,
    }
}

impl Follower {
    pub(super) fn new() -> Self {
        Self {
            tracker: Tracker::new(FLOWS_MAX),
            clock: 0,
            timeline: Vec::new(),
            gone: BTreeMap::new(),
            left_out: 0,
            key: RandomState::new(),
        }
    }

    /// Goes on to `now`, before the packets of that time: reads what becomes due on the way.
    pub(super) fn advance(&mut self, now: u64, flows: &mut Flows, owners: Owners<'_>) {
        if self.clock == 0 {
            self.clock = now;
        }
        for _ in 0..STEPS_MAX {
            if self.tracker.tunnels().len() == 0 && self.tracker.next_due().is_none() {
                break;
            }
            let tick = self.clock + SECOND;
            let due = self.tracker.next_due().unwrap_or(u64::MAX).max(self.clock);
            let next = tick.min(due);
            if next > now {
                return;
            }
            self.clock = next;
            self.step(flows, owners);
        }
        self.clock = now;
    }

    /// Reads what is due by the clock.
    fn step(&mut self, flows: &mut Flows, owners: Owners<'_>) {
        let now = self.clock;
        for key in self.tracker.due(now, READ_MOST) {
            let flow = flows.get(&key).map(|tracked| &tracked.flow);
            self.tracker.read(key, flow, now, owners);
        }
        self.tracker.settle(now);
        self.gather(flows);
    }

    /// Takes in what a packet has changed.
    pub(super) fn tell(&mut self, now: u64, key: FlowKey, told: &Told, owners: Owners<'_>) {
        let note = Note {
            at: now,
            key,
            data: told.note,
        };
        self.tracker.note(&note, owners);
        if let Some(what) = told.rekeyed {
            let event = TraceEvent {
                at: now / MILLISECOND,
                client: address_text(key.client),
                endpoint: address_text(key.endpoint),
                step: Step::Rekeyed,
                detail: what.to_owned(),
                ..TraceEvent::default()
            };
            self.put(Event::Flow(key), event);
        }
    }

    fn put(&mut self, whose: Event, event: TraceEvent) {
        if self.timeline.len() < EVENTS_MAX {
            self.timeline.push((whose, event));
        } else {
            self.left_out += 1;
        }
    }

    /// Takes what has happened, and lets go of what is over.
    fn gather(&mut self, flows: &mut Flows) {
        let happened = self.tracker.take_happened();
        for happened in &happened {
            let event = show(self.clock, &self.key).event(happened);
            if event.step == Step::Gone {
                self.keep(happened.tunnel);
            }
            self.put(Event::Tunnel(happened.tunnel), event);
        }
        for key in self.tracker.take_over() {
            flows.finish(&key);
        }
    }

    /// Keeps a tunnel as it is now: the tracker forgets it later.
    fn keep(&mut self, id: Id) {
        let tunnel = self.tracker.tunnels().find(|(other, _)| *other == id);
        let Some((_, tunnel)) = tunnel else {
            return;
        };
        if self.gone.len() < GONE_MAX || self.gone.contains_key(&id) {
            let shown = show(self.clock, &self.key).tunnel(&self.tracker, id, tunnel);
            self.gone.insert(id, shown);
        } else {
            self.left_out += 1;
        }
    }

    /// The tunnels as they are after the last packet, in the order in which they began, and the timeline.
    pub(super) fn finish(
        mut self,
        now: u64,
        flows: &mut Flows,
        owners: Owners<'_>,
    ) -> (Vec<view::Tunnel>, Vec<TraceEvent>, u64) {
        self.clock = now;
        // What the last packets have changed is read now, and not when it would have been due.
        let keys: Vec<_> = flows.current().map(|(key, _)| *key).collect();
        for key in keys {
            let flow = flows.get(&key).map(|tracked| &tracked.flow);
            self.tracker.read(key, flow, now, owners);
        }
        self.tracker.settle(now);
        self.gather(flows);
        let mut tunnels = std::mem::take(&mut self.gone);
        let show = show(now, &self.key);
        for (id, tunnel) in self.tracker.tunnels() {
            tunnels.insert(id, show.tunnel(&self.tracker, id, tunnel));
        }
        let mut ids: HashMap<Ends, String> = HashMap::new();
        for (id, tunnel) in &mut tunnels {
            tunnel.id = id.to_string();
            for flow in &tunnel.flows {
                let ends = (
                    flow.client.clone(),
                    flow.port,
                    flow.protocol.clone(),
                    tunnel.endpoint.clone(),
                );
                ids.insert(ends, tunnel.id.clone());
            }
        }
        let events = std::mem::take(&mut self.timeline).into_iter();
        let mut timeline: Vec<_> = events
            .map(|(whose, mut event)| {
                event.tunnel = match whose {
                    Event::Tunnel(id) => id.to_string(),
                    Event::Flow(key) => {
                        let ends = (
                            address_text(key.client),
                            key.port,
                            protocol_text(&key).to_owned(),
                            address_text(key.endpoint),
                        );
                        ids.get(&ends).cloned().unwrap_or_default()
                    }
                };
                event
            })
            .collect();
        // What a reading finds happened before it.
        timeline.sort_by_key(|event| event.at);
        (tunnels.into_values().collect(), timeline, self.left_out)
    }
}
