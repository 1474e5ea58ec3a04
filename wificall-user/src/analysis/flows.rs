//! The kernel's tables of flows, over a file: the rules by which a flow enters are those of the programs, and a test of the
//! labs holds the two side by side. The bounds are others: a file brings no flood that others would suffer from, so there
//! is no rate, and who was quiet longest goes.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use wificall_common::abi::{Candidate, Flow, FlowKey, FlowNote, SpiSlot};
use wificall_common::classify::{Match, tunnel_ends};
use wificall_common::flow::{Changes, Message, Sight};
use wificall_common::frame::Frame as _;
use wificall_common::wire::{PROTOCOL_ESP, PROTOCOL_UDP, natt, udp};
use wificall_common::{Class, Direction};

/// Flows that are kept at once.
pub const FLOWS_MAX: usize = 16_384;
/// Candidates that are kept at once, as in the kernel.
pub const CANDIDATES_MAX: usize = 4_096;
/// Of a full table, one part in so many goes at once.
const EVICTED_PART: usize = 16;
/// Gaps of a flow that are kept one by one; of more only the numbers.
pub const GAPS_MAX: usize = 512;
/// A late packet closes a gap among the last so many.
const GAPS_OPEN: usize = 16;

/// What a packet brings to its flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) key: FlowKey,
    pub(super) direction: Direction,
    pub(super) sight: Sight,
    pub(super) message: Option<Message>,
    /// Of the endpoint's entry.
    pub(super) slot: u32,
}

impl Subject {
    /// What the matching `frame` brings, of which only the first `captured` bytes are real. `None` if it has no flow (a later
    /// fragment tells no port), or what counts was not captured.
    pub(super) fn of(
        frame: &[u8],
        captured: usize,
        found: &Match,
        direction: Direction,
        now: u64,
    ) -> Option<Self> {
        let frame = frame.get(..captured)?;
        if matches!(found.class, Class::Fragment) {
            return None;
        }
        let (client, endpoint) = tunnel_ends(frame, &found.packet, direction)?;
        let is_esp = matches!(found.class, Class::Esp);
        let mut port = 0;
        let mut is_natt = false;
        let mut payload = found.payload;
        if is_esp {
            payload -= udp::HEADER_LEN;
        } else {
            let header = udp::parse(frame, payload - udp::HEADER_LEN).ok()?;
            let (near, far) = match direction {
                Direction::Up => (header.source, header.destination),
                Direction::Down => (header.destination, header.source),
            };
            port = near;
            is_natt = far == udp::PORT_NATT;
        }
        let mut esp = [0; 2];
        let mut message = None;
        match found.class {
            Class::Esp | Class::EspUdp => {
                let [spi @ .., n0, n1, n2, n3] = frame.read::<8>(payload)?;
                esp = [
                    u32::from_be_bytes(spi),
                    u32::from_be_bytes([n0, n1, n2, n3]),
                ];
            }
            Class::Ike => {
                let marker = if is_natt { natt::MARKER_LEN } else { 0 };
                message = Some(Message::read(frame, payload + marker, is_natt)?);
            }
            Class::Keepalive | Class::Fragment => {}
        }
        Some(Self {
            key: FlowKey {
                client: client.to_be_bytes(),
                endpoint: endpoint.to_be_bytes(),
                port,
                protocol: if is_esp { PROTOCOL_ESP } else { PROTOCOL_UDP },
                reserved: [0; 5],
            },
            direction,
            sight: Sight {
                now,
                bytes: found.packet.total_len as u64,
                segments: 1,
                class: found.class,
                esp,
            },
            message,
            slot: found.endpoint.slot,
        })
    }

    fn asks(&self) -> Option<&Message> {
        let asked = |message: &&Message| !message.response && !message.continues;
        let message = self.message.as_ref().filter(asked)?;
        matches!(self.direction, Direction::Up).then_some(message)
    }
}

/// Numbers that did not come, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it was seen, in nanoseconds.
    pub at: u64,
    /// Where it was.
    pub direction: Direction,
    /// How many numbers.
    pub lost: u32,
    /// How long no ESP came in this direction, in nanoseconds.
    pub silence: u64,
}

/// A flow of a file.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    /// As the kernel would have it, but that its group is the slot of the endpoint's entry.
    pub flow: Flow,
    /// What is missing, in order.
    pub gaps: Vec<Gap>,
    /// Gaps that are not among them: there were too many.
    pub gaps_left_out: u64,
}

/// Numbers of a direction that did not come so far.
#[must_use]
pub fn lost(flow: &Flow, direction: Direction) -> u32 {
    let way = match direction {
        Direction::Up => &flow.up,
        Direction::Down => &flow.down,
    };
    let missing = way.spis.iter().map(SpiSlot::missing);
    missing.fold(way.lost, u32::wrapping_add)
}

impl Tracked {
    fn see(&mut self, subject: &Subject) -> u32 {
        let direction = subject.direction;
        let before = lost(&self.flow, direction);
        let esp_seen = self.flow.sides(direction).way.esp_seen;
        let changes = self.flow.see(direction, &subject.sight);
        let more = lost(&self.flow, direction)
            .wrapping_sub(before)
            .cast_signed();
        if more > 0 {
            let gap = Gap {
                at: subject.sight.now,
                direction,
                lost: more.unsigned_abs(),
                silence: subject.sight.now.saturating_sub(esp_seen),
            };
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push(gap);
            } else {
                self.gaps_left_out += 1;
            }
        } else if more < 0 {
            self.close(direction);
        }
        changes
    }

    /// A packet was late, and not lost: which gap it was of is not known, so the last one that is there.
    fn close(&mut self, direction: Direction) {
        let from = self.gaps.len().saturating_sub(GAPS_OPEN);
        let open = self.gaps[from..]
            .iter()
            .rposition(|gap| gap.direction == direction);
        if let Some(index) = open {
            let gap = &mut self.gaps[from + index];
            gap.lost -= 1;
            if gap.lost == 0 {
                self.gaps.remove(from + index);
            }
        }
    }
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: HashMap<FlowKey, Tracked>,
    /// Flows that are over, in order.
    finished: Vec<(FlowKey, Tracked)>,
    candidates: HashMap<FlowKey, Candidate>,
    /// Flows that had to go.
    pub(super) evicted: u64,
    /// Candidates that had to go.
    pub(super) forgotten: u64,
}

impl Flows {
    /// Takes a packet in; what the programs would tell of it, if it is worth telling.
    pub(super) fn see(&mut self, subject: &Subject) -> Option<FlowNote> {
        let changes = if let Some(tracked) = self.flows.get_mut(&subject.key) {
            let mut changes = tracked.see(subject);
            if let Some(message) = &subject.message {
                changes |= tracked
                    .flow
                    .message(subject.direction, message, subject.sight.now);
            }
            changes
        } else {
            self.enter(subject)
        };
        (changes != 0).then(|| self.note(subject, changes))
    }

    /// Lets the flow into the table whose ends have both spoken.
    fn enter(&mut self, subject: &Subject) -> u32 {
        let (key, now) = (subject.key, subject.sight.now);
        if self.candidates.len() >= CANDIDATES_MAX && !self.candidates.contains_key(&key) {
            let latest = |it: &Candidate| it.first.max(it.asked);
            self.forgotten += evict(&mut self.candidates, latest).len() as u64;
        }
        let candidate = match self.candidates.entry(key) {
            Slot::Vacant(slot) => slot.insert(Candidate::begin(subject.direction, now)),
            Slot::Occupied(slot) if slot.get().is_answered_by(subject.direction) => {
                let candidate = slot.remove();
                return self.admit(subject, &candidate);
            }
            Slot::Occupied(slot) => slot.into_mut(),
        };
        let Some(message) = subject.asks() else {
            return 0;
        };
        candidate.ask(message, now);
        if message.is_first(subject.direction) {
            Changes::ASKED
        } else {
            Changes::MESSAGE
        }
    }

    fn admit(&mut self, subject: &Subject, candidate: &Candidate) -> u32 {
        if self.flows.len() >= FLOWS_MAX {
            let latest = |it: &Tracked| it.flow.up.seen.max(it.flow.down.seen);
            self.evicted += evict(&mut self.flows, latest).len() as u64;
        }
        let mut tracked = Tracked::default();
        tracked.flow.begin(candidate, subject.slot, 0);
        let mut changes = Changes::ENTERED | tracked.see(subject);
        if let Some(message) = &subject.message {
            changes |= tracked
                .flow
                .message(subject.direction, message, subject.sight.now);
        }
        self.flows.insert(subject.key, tracked);
        changes
    }

    fn note(&self, subject: &Subject, changes: u32) -> FlowNote {
        let message = subject.message.unwrap_or_default();
        let mut note = FlowNote {
            changes,
            spi: subject.sight.esp[0],
            id: message.id,
            exchange: message.exchange,
            direction: subject.direction as u8,
            class: subject.sight.class as u8,
            protocol: subject.key.protocol,
            ..FlowNote::default()
        };
        match self.flows.get(&subject.key) {
            Some(Tracked { flow, .. }) => {
                note.spi_i = flow.control.spi_i;
                note.spi_r = flow.control.spi_r;
                note.notify = flow.control.notify;
                note.milestones = flow.control.milestones;
                // The request of a response went the other way.
                note.round_trip = match subject.direction {
                    Direction::Up => flow.control.round_trip[1],
                    Direction::Down => flow.control.round_trip[0],
                };
            }
            None => note.spi_i = message.spi_i,
        }
        note
    }

    /// A flow that is in the table.
    pub(super) fn get(&self, key: &FlowKey) -> Option<&Tracked> {
        self.flows.get(key)
    }

    /// Takes a flow out of the table that is over: what comes now is another.
    pub(super) fn finish(&mut self, key: &FlowKey) {
        if let Some(tracked) = self.flows.remove(key) {
            if self.finished.len() < FLOWS_MAX {
                self.finished.push((*key, tracked));
            } else {
                self.evicted += 1;
            }
        }
    }

    /// Those that are in the table.
    pub(super) fn current(&self) -> impl Iterator<Item = (&FlowKey, &Tracked)> {
        self.flows.iter()
    }

    /// All that are known, those that are over among them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&FlowKey, &Tracked)> {
        let finished = self.finished.iter().map(|(key, tracked)| (key, tracked));
        finished.chain(&self.flows)
    }

    /// Candidates whose other end was never heard.
    pub(super) fn unanswered(&self) -> usize {
        self.candidates.len()
    }
}

/// Removes those that were quiet longest; which.
fn evict<V>(table: &mut HashMap<FlowKey, V>, latest: impl Fn(&V) -> u64) -> Vec<FlowKey> {
    let mut keys: Vec<_> = table
        .iter()
        .map(|(key, value)| (latest(value), *key))
        .collect();
    let part = (keys.len() / EVICTED_PART).max(1).min(keys.len());
    if part < keys.len() {
        keys.select_nth_unstable(part);
    }
    keys.truncate(part);
    for (_, key) in &keys {
        table.remove(key);
    }
    keys.into_iter().map(|(_, key)| key).collect()
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
