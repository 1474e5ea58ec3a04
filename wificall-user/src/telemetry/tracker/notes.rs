//! What the programs tell as it happens.

use std::{collections::BTreeMap, sync::Arc};

use wificall_common::{
    Direction,
    abi::FlowKey,
    flow::{Changes, Milestone},
    wire::ike::{EXCHANGE_AUTH, EXCHANGE_SA_INIT},
};

use super::{
    super::{
        note::Note,
        notify,
        setup::Setup,
        totals::{ROUND_TRIP_BOUNDS, Whose},
        tunnel::Change,
        view::Step,
    },
    ASKED_MOST, CLOSEST, Id, Tracked, Tracker, When,
};

impl Tracker {
    /// Takes in what the programs tell. `whose` says whose an endpoint is.
    pub fn note(&mut self, note: &Note, whose: &dyn Fn([u8; 16]) -> Arc<Whose>) {
        if note.tells(Changes::ASKED) {
            self.asked(note, whose);
            return;
        }
        if note.tells(Changes::ROUND_TRIP)
            && let Some(direction) = note.direction()
        {
            // A response that goes down answers the phone: the round trip is the network's side's.
            let side = usize::from(direction == Direction::Up);
            let totals = self.totals.entry(whose(note.key.endpoint)).or_default();
            let seconds = f64::from(note.data.round_trip) / 1e6;
            totals.round_trip[side].add(&ROUND_TRIP_BOUNDS, seconds);
        }
        match self.flows.get_mut(&note.key) {
            Some(tracked) => {
                let due = note.at.max(tracked.read + CLOSEST);
                let soon = !can_wait(note);
                if due < tracked.due.at || (soon && !tracked.due.soon) {
                    self.due.remove(tracked.due, note.key);
                    tracked.due = When {
                        at: due.min(tracked.due.at),
                        soon: soon || tracked.due.soon,
                    };
                    self.due.insert(tracked.due, note.key);
                }
                if note.tells(Changes::SPI)
                    && let Some(direction) = note.direction()
                {
                    tracked.before.confirmed[direction as usize] = note.at;
                }
                if let Some(tunnel) = self.tunnels.get_mut(&tracked.tunnel) {
                    if note.tells(Changes::VOICE) {
                        tunnel.watch(note.at);
                    }
                    if note.tells(Changes::NOTIFY) {
                        let mut change = Change::new(note.at, Step::Notify);
                        change.detail = notify::name(note.data.notify);
                        self.tell(tracked_id(&self.flows, &note.key), change);
                    } else if note.tells(Changes::RETRANSMITTED) && tunnel.sets_up() {
                        let change = Change::new(note.at, Step::Retransmitted);
                        self.tell(tracked_id(&self.flows, &note.key), change);
                    } else if note.tells(Changes::ANCHORED) && tunnel.returns(note.at) {
                        let mut change = Change::new(note.at, Step::Roamed);
                        "its numbers go on elsewhere, as after an absence"
                            .clone_into(&mut change.detail);
                        self.tell(tracked_id(&self.flows, &note.key), change);
                    } else if note.tells(Changes::IKE_SA) && rekeys(note, tunnel.spi_i) {
                        let mut change = Change::new(note.at, Step::Rekeyed);
                        "IKE".clone_into(&mut change.detail);
                        self.tell(tracked_id(&self.flows, &note.key), change);
                    }
                }
            }
            None => {
                let when = When {
                    at: note.at,
                    soon: true,
                };
                self.due.insert(when, note.key);
                self.unanswered(note);
            }
        }
    }

    /// Takes in what is told of a flow that is not known yet: a refusal, or a request to which nobody has answered there.
    fn unanswered(&mut self, note: &Note) {
        let spi_i = note.data.spi_i;
        let Some(id) = self.by_spi.get(&spi_i).copied() else {
            return;
        };
        if note.tells(Changes::NOTIFY) {
            let mut change = Change::new(note.at, Step::Notify);
            change.detail = notify::name(note.data.notify);
            self.tell(Some(id), change);
            return;
        }
        let asks = note.data.exchange == EXCHANGE_AUTH && note.direction() == Some(Direction::Up);
        let Some(tunnel) = self.tunnels.get_mut(&id).filter(|_| asks) else {
            return;
        };
        let Some(setup) = (tunnel.setup.as_mut()).filter(|setup| setup.spi_i == spi_i) else {
            return;
        };
        // One that has moved: IKE_SA_INIT was answered where it came from, which may not have been read yet.
        let from_elsewhere = |port: u16| port != note.key.port;
        let moved = if tunnel.flows.is_empty() {
            setup.asked_from.is_some_and(from_elsewhere)
        } else {
            tunnel.flows.iter().all(|flow| from_elsewhere(flow.port))
        };
        tunnel.seen = tunnel.seen.max(note.at);
        setup.seen = setup.seen.max(note.at);
        setup.waits = true;
        self.touched.insert(id);
        let began = setup.began;
        let is_new = setup.reach(Milestone::AuthSent, note.at);
        if !is_new {
            setup.retransmitted += 1;
            self.tell(Some(id), Change::new(note.at, Step::Retransmitted));
            return;
        }
        if moved && setup.reach(Milestone::Natt, note.at) {
            self.tell_milestone(id, Milestone::Natt, note.at, began);
        }
        self.tell_milestone(id, Milestone::AuthSent, note.at, began);
    }

    fn asked(&mut self, note: &Note, whose: &dyn Fn([u8; 16]) -> Arc<Whose>) {
        let spi_i = note.data.spi_i;
        if let Some(id) = self.by_spi.get(&spi_i).copied() {
            if let Some(tunnel) = self.tunnels.get_mut(&id) {
                tunnel.seen = tunnel.seen.max(note.at);
                if let Some(setup) = &mut tunnel.setup
                    && setup.spi_i == spi_i
                {
                    setup.seen = note.at;
                    setup.retransmitted += 1;
                    self.touched.insert(id);
                }
            }
            self.tell(Some(id), Change::new(note.at, Step::Retransmitted));
            return;
        }
        // The same phone's next try, if the last one came to nothing.
        let ends = (note.key.client, note.key.endpoint);
        let before = self.by_ends.get(&ends).copied();
        let id = match before.filter(|id| self.flowless.contains(id)) {
            Some(id) => id,
            None => {
                if self.flowless.len() >= ASKED_MOST
                    && let Some(oldest) = self.flowless.first().copied()
                {
                    self.forget(oldest);
                }
                let id = self.create(&note.key, whose(note.key.endpoint), note.at);
                self.flowless.insert(id);
                id
            }
        };
        self.begin(id, Setup::asked(spi_i, note.key.port, note.at), note.at);
        self.touched.insert(id);
    }
}

/// Whether what is told is seen as well some seconds later.
fn can_wait(note: &Note) -> bool {
    const LATER: u32 = Changes::SPI | Changes::IKE_SA | Changes::ROUND_TRIP;
    note.data.changes & !LATER == 0
}

/// Whether a message has other IKE SPIs than these, and sets nothing up.
fn rekeys(note: &Note, before: [u8; 8]) -> bool {
    let sets_up = matches!(note.data.exchange, EXCHANGE_SA_INIT | EXCHANGE_AUTH);
    before != [0; 8] && note.data.spi_i != before && !sets_up
}

fn tracked_id(flows: &BTreeMap<FlowKey, Tracked>, key: &FlowKey) -> Option<Id> {
    flows.get(key).map(|tracked| tracked.tunnel)
}
