//! Flows made tunnels of, and which of them to read when.

mod notes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use wificall_common::{
    abi::{Flow, FlowKey, Way},
    flow::{Milestone, VOICE_RUN},
    wire::PROTOCOL_ESP,
};

use super::{
    leg::{Leg, Mark},
    setup::{Outcome, Setup},
    totals::{Clients, JITTER_BOUNDS, SETUP_BOUNDS, Totals, Whose},
    tunnel::{Change, Settled, Tunnel},
    view::{State, Step},
};

const SECOND: u64 = 1_000_000_000;
/// How often flows of live tunnels are read, in nanoseconds: each second, by a clock that may tick a little early.
const LIVE: u64 = 900_000_000;
/// Likewise of others.
const QUIET: u64 = 15 * SECOND;
/// Likewise of those that are gone.
const LONG_QUIET: u64 = 60 * SECOND;
/// A flow is read no more often than that, whatever the programs tell, in nanoseconds.
const CLOSEST: u64 = 100_000_000;
/// How long a tunnel is remembered after its last packet, in nanoseconds.
const REMEMBERED: u64 = 1_800 * SECOND;
/// How long one is whose endpoint never answered, likewise.
const REMEMBERED_ASKED: u64 = 120 * SECOND;
/// Set-ups at once to endpoints that have not answered.
const ASKED_MOST: usize = 1_024;
/// Minutes that are kept.
const MINUTES: usize = 15;
const MINUTE: u64 = 60 * SECOND;

/// Number of a tunnel, in the order in which they were found.
pub type Id = u64;

/// What has happened, and to which tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// The tunnel.
    pub tunnel: Id,
    /// Its phone's address.
    pub client: [u8; 16],
    /// Its endpoint's.
    pub endpoint: [u8; 16],
    /// Whose that is.
    pub whose: Arc<Whose>,
    /// What.
    pub change: Change,
}

/// A minute of all calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    /// When it began, in nanoseconds of the monotonic clock.
    pub began: u64,
    /// What came.
    pub legs: [Leg; 2],
    /// The most calls at once.
    pub calls: u64,
}

/// What is kept of a flow from one look to the next: there may be very many.
struct Tracked {
    before: Box<Before>,
    tunnel: Id,
    due: When,
    read: u64,
}

/// A flow as it was read last.
#[derive(Clone, Copy, Default)]
struct Before {
    ways: [Mark; 2],
    /// When its last set-up began.
    began: u64,
    /// When its last packet was seen.
    seen: u64,
    /// When a second packet has confirmed another SPI since then, from the phone and to it; 0: none has.
    confirmed: [u64; 2],
}

impl Before {
    fn of(flow: &Flow) -> Self {
        Self {
            ways: [Mark::of(&flow.up), Mark::of(&flow.down)],
            began: flow.control.began,
            seen: flow.up.seen.max(flow.down.seen),
            confirmed: [0; 2],
        }
    }
}

/// When a flow is due to be read.
#[derive(Clone, Copy, Default)]
struct When {
    at: u64,
    /// Whether it cannot wait: of calls and set-ups a second is told from the next.
    soon: bool,
}

/// Flows by when they are due. Those that cannot wait are apart, so that an agent that comes to too little reads them.
#[derive(Default)]
struct Due {
    soon: BTreeSet<(u64, FlowKey)>,
    others: BTreeSet<(u64, FlowKey)>,
}

impl Due {
    fn of(&mut self, when: When) -> &mut BTreeSet<(u64, FlowKey)> {
        if when.soon {
            &mut self.soon
        } else {
            &mut self.others
        }
    }

    fn insert(&mut self, when: When, key: FlowKey) {
        self.of(when).insert((when.at, key));
    }

    fn remove(&mut self, when: When, key: FlowKey) {
        self.of(when).remove(&(when.at, key));
    }

    /// The next that is due by `now`.
    fn take(&mut self, now: u64) -> Option<FlowKey> {
        let due =
            |queue: &BTreeSet<(u64, FlowKey)>| queue.first().is_some_and(|(at, _)| *at <= now);
        let queue = [&mut self.soon, &mut self.others]
            .into_iter()
            .find(|queue| due(queue))?;
        queue.pop_first().map(|(_, key)| key)
    }

    fn next(&self) -> Option<u64> {
        let first = |queue: &BTreeSet<(u64, FlowKey)>| queue.first().map(|(at, _)| *at);
        (first(&self.soon).into_iter())
            .chain(first(&self.others))
            .min()
    }
}

/// All tunnels.
pub struct Tracker {
    limit: usize,
    serial: Id,
    /// Boxed, for a tree whose keys ascend is half empty.
    tunnels: BTreeMap<Id, Box<Tunnel>>,
    flows: BTreeMap<FlowKey, Tracked>,
    by_spi: HashMap<[u8; 8], Id>,
    by_ends: HashMap<([u8; 16], [u8; 16]), Id>,
    due: Due,
    /// Tunnels without a flow: only the question was seen, or the flow made room for another.
    flowless: BTreeSet<Id>,
    touched: BTreeSet<Id>,
    calls: BTreeSet<Id>,
    /// Tunnels that are gone or failed: they make room first.
    ended: BTreeSet<Id>,
    totals: BTreeMap<Arc<Whose>, Totals>,
    clients: Clients,
    minutes: VecDeque<Minute>,
    happened: Vec<Happened>,
    over: Vec<FlowKey>,
    /// Whether what is found has been there before.
    adopting: bool,
    /// Flows that found no room.
    pub left_out: u64,
}

impl Tracker {
    /// An empty one, for at most so many flows.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            serial: 0,
            tunnels: BTreeMap::new(),
            flows: BTreeMap::new(),
            by_spi: HashMap::new(),
            by_ends: HashMap::new(),
            due: Due::default(),
            flowless: BTreeSet::new(),
            touched: BTreeSet::new(),
            calls: BTreeSet::new(),
            ended: BTreeSet::new(),
            totals: BTreeMap::new(),
            clients: Clients::default(),
            minutes: VecDeque::new(),
            happened: Vec::new(),
            over: Vec::new(),
            adopting: false,
            left_out: 0,
        }
    }

    /// Whether flows that are found now have been there before: what they have counted so far is not news.
    pub fn adopt(&mut self, adopting: bool) {
        self.adopting = adopting;
    }

    /// Tunnels by number.
    pub fn tunnels(&self) -> impl ExactSizeIterator<Item = (Id, &Tunnel)> {
        self.tunnels.iter().map(|(id, tunnel)| (*id, &**tunnel))
    }

    /// The tunnel between a client and an endpoint: of several, the one that a flow joined last.
    #[must_use]
    pub fn between(&self, client: [u8; 16], endpoint: [u8; 16]) -> Option<(Id, &Tunnel)> {
        let id = *self.by_ends.get(&(client, endpoint))?;
        Some((id, self.tunnels.get(&id)?))
    }

    /// The tunnel of this number.
    #[must_use]
    pub fn tunnel(&self, id: Id) -> Option<&Tunnel> {
        self.tunnels.get(&id).map(|tunnel| &**tunnel)
    }

    /// Whether there is a tunnel of this number.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.tunnels.contains_key(&id)
    }

    /// Whether this flow is known.
    #[must_use]
    pub fn knows(&self, key: &FlowKey) -> bool {
        self.flows.contains_key(key)
    }

    /// When a flow's last packet was seen, as it was read last; `None`: it is not known.
    #[must_use]
    pub fn seen(&self, key: &FlowKey) -> Option<u64> {
        self.flows.get(key).map(|tracked| tracked.before.seen)
    }

    /// How many flows are known.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Sums by owner.
    pub fn totals(&self) -> impl Iterator<Item = (&Whose, &Totals)> {
        self.totals.iter().map(|(whose, totals)| (&**whose, totals))
    }

    /// Which clients succeeded and which did not.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The last minutes until `now`, oldest first, from the first of them with a call on; those without one are empty.
    #[must_use]
    pub fn minutes(&self, now: u64) -> Vec<Minute> {
        let age = |minute: &Minute| (now.saturating_sub(minute.began) / MINUTE) as usize;
        let recent = || self.minutes.iter().filter(|minute| age(minute) < MINUTES);
        let Some(oldest) = recent().map(age).max() else {
            return Vec::new();
        };
        let empty = |age| Minute {
            began: now.saturating_sub((age as u64 + 1) * MINUTE) + 1,
            ..Minute::default()
        };
        let mut all: Vec<_> = (0..=oldest).rev().map(empty).collect();
        for minute in recent() {
            // They begin a minute apart at least.
            all[oldest - age(minute)] = minute.clone();
        }
        all
    }

    /// What has happened since this was asked last, in the order in which it did: what an event tells is known before what
    /// the flows do that are read after it.
    pub fn take_happened(&mut self) -> Vec<Happened> {
        let mut happened = std::mem::take(&mut self.happened);
        happened.sort_by_key(|one| (one.change.at, one.change.step));
        happened
    }

    /// Flows that are over, to be removed from the kernel's table.
    pub fn take_over(&mut self) -> Vec<FlowKey> {
        std::mem::take(&mut self.over)
    }

    /// Flows that are due to be read, at most so many: those first that cannot wait.
    pub fn due(&mut self, now: u64, most: usize) -> Vec<FlowKey> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(key) = self.due.take(now)
        {
            keys.push(key);
        }
        keys
    }

    /// When the next flow is due, in nanoseconds of the monotonic clock.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.next()
    }

    fn create(&mut self, key: &FlowKey, whose: Arc<Whose>, now: u64) -> Id {
        self.serial += 1;
        let id = self.serial;
        let tunnel = Tunnel::new(key, whose, now);
        self.tunnels.insert(id, Box::new(tunnel));
        self.by_ends.insert((key.client, key.endpoint), id);
        id
    }

    fn begin(&mut self, id: Id, setup: Setup, now: u64) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            let before = tunnel.spi_i;
            self.by_spi.remove(&before);
            self.by_spi.insert(setup.spi_i, id);
            let settled = tunnel.begin(setup);
            self.add_up(id, settled, now);
        }
    }

    /// Takes in a flow as it is in the table; `None`: it is not there any more.
    pub fn read(
        &mut self,
        key: FlowKey,
        flow: Option<&Flow>,
        now: u64,
        whose: &dyn Fn([u8; 16]) -> Arc<Whose>,
    ) {
        let Some(flow) = flow else {
            self.lose(&key);
            return;
        };
        let after = Before::of(flow);
        let before = match self.flows.get(&key) {
            // Begun anew after it had made room for another. Less of the same one is the work of CPUs that raced.
            Some(Tracked { before, .. })
                if after.ways[0].packets < before.ways[0].packets
                    && after.began != before.began =>
            {
                Before::default()
            }
            Some(tracked) => *tracked.before,
            None if self.flows.len() >= self.limit + self.limit / 4 => {
                self.left_out += 1;
                return;
            }
            None if self.adopting => after,
            None => Before::default(),
        };
        let is_new = !self.flows.contains_key(&key);
        let id = self.whose_flow(&key, flow, now, whose);
        let legs = [0, 1].map(|way| Leg::between(&before.ways[way], &after.ways[way]));
        if is_new {
            self.join(id, &key, flow);
        }
        self.follow_setup(id, flow, &before, &legs, is_new, now);
        let Some(tunnel) = self.tunnels.get_mut(&id) else {
            return;
        };
        tunnel.take(flow, legs);
        // A run that began before anybody looked, or whose event was lost, is told by nothing else.
        let talks = |way: &Way| way.run >= VOICE_RUN && now.saturating_sub(way.esp_seen) < SECOND;
        if !tunnel.is_live(now) && (talks(&flow.up) || talks(&flow.down)) {
            tunnel.watch(now);
        }
        let totals = self.totals.entry(tunnel.whose.clone()).or_default();
        for (sum, leg) in totals.legs.iter_mut().zip(&legs) {
            sum.add(leg);
        }
        self.touched.insert(id);
        for change in rekeyed(before.confirmed, flow) {
            self.tell(Some(id), change);
        }
        if let Some(tracked) = self.flows.get_mut(&key) {
            self.due.remove(tracked.due, key);
            *tracked.before = after;
            tracked.tunnel = id;
            tracked.read = now;
            return;
        }
        let tracked = Tracked {
            before: Box::new(after),
            tunnel: id,
            due: When::default(),
            read: now,
        };
        self.flows.insert(key, tracked);
    }

    /// The tunnel that a flow belongs to.
    fn whose_flow(
        &mut self,
        key: &FlowKey,
        flow: &Flow,
        now: u64,
        whose: &dyn Fn([u8; 16]) -> Arc<Whose>,
    ) -> Id {
        let spi = flow.control.spi_i;
        let by_spi = (spi != [0; 8])
            .then(|| self.by_spi.get(&spi).copied())
            .flatten();
        let mine = self.flows.get(key).map(|tracked| tracked.tunnel);
        if let (Some(mine), Some(other)) = (mine, by_spi)
            && mine != other
        {
            // What was thought to be a tunnel of its own, for want of IKE, is a flow of another.
            self.leave(mine, key, other);
            self.join(other, key, flow);
            return other;
        }
        let beside = self.by_ends.get(&(key.client, key.endpoint)).copied();
        if let (Some(mine), Some(beside)) = (mine, beside)
            && mine != beside
            && key.protocol == PROTOCOL_ESP
            && self
                .tunnels
                .get(&mine)
                .is_some_and(|tunnel| tunnel.spi_i == [0; 8])
        {
            self.leave(mine, key, beside);
            self.join(beside, key, flow);
            return beside;
        }
        if let Some(id) = by_spi.or(mine) {
            return id;
        }
        if let Some(id) = beside {
            // Native ESP has no IKE; and an SA that was rekeyed before we looked has other SPIs than its first flow.
            let tunnel = self.tunnels.get(&id);
            let lonely = tunnel.is_some_and(|tunnel| tunnel.esp_seen == [0; 2]);
            if key.protocol == PROTOCOL_ESP || (self.adopting && lonely) {
                return id;
            }
        }
        let id = self.create(key, whose(key.endpoint), now);
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            let first = flow.control.began;
            if first != 0 {
                tunnel.began = first;
            }
        }
        id
    }

    fn join(&mut self, id: Id, key: &FlowKey, flow: &Flow) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else {
            return;
        };
        if tunnel.flows.contains(key) {
            return;
        }
        // From 500 to 4500 it moves while it is set up; later, it is the phone or its NAT that moved.
        let moved = tunnel.client != key.client
            || (!tunnel.flows.is_empty() && !tunnel.sets_up() && key.protocol != PROTOCOL_ESP);
        // Mostly one or two, for as long as the tunnel lasts.
        tunnel.flows.reserve_exact(1);
        tunnel.flows.push(*key);
        self.flowless.remove(&id);
        self.by_ends.insert((key.client, key.endpoint), id);
        if moved && !self.adopting {
            tunnel.roamed += 1;
            let change = Change {
                detail: format!("to port {}", key.port),
                from: Some(tunnel.client).filter(|client| *client != key.client),
                ..Change::new(flow.up.seen, Step::Roamed)
            };
            let ends = (tunnel.client, tunnel.endpoint);
            tunnel.client = key.client;
            self.forget_ends(id, ends);
            self.by_ends.insert((key.client, key.endpoint), id);
            self.tell(Some(id), change);
        }
    }

    /// A flow is another tunnel's, and so are the calls of one that has none left.
    fn leave(&mut self, id: Id, key: &FlowKey, other: Id) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else {
            return;
        };
        tunnel.flows.retain(|other| other != key);
        if !tunnel.flows.is_empty() {
            return;
        }
        let (calls, detector) = tunnel.leave_calls();
        self.forget(id);
        if let Some(heir) = self.tunnels.get_mut(&other) {
            heir.inherit(calls, detector);
        }
    }

    /// What a flow tells of a set-up, or of a rekey.
    fn follow_setup(
        &mut self,
        id: Id,
        flow: &Flow,
        before: &Before,
        legs: &[Leg; 2],
        is_new: bool,
        now: u64,
    ) {
        let control = &flow.control;
        let Some(tunnel) = self.tunnels.get_mut(&id) else {
            return;
        };
        let seen = flow.up.seen.max(flow.down.seen);
        if control.spi_i != [0; 8] && control.spi_i != tunnel.spi_i {
            let old = tunnel.setup.as_ref();
            let is_other = old.is_none_or(|old| old.spi_i != control.spi_i);
            // A rekey changes the SPIs and nothing else.
            let began_anew = is_new || control.began != before.began;
            let is_later = old.is_none_or(|old| control.began > old.began);
            if Setup::is_told_by(control) && is_other && began_anew && is_later {
                let mut setup = Setup::default();
                let _ = setup.take(control, seen);
                if self.adopting
                    && setup
                        .judge(now)
                        .is_none_or(|outcome| outcome != Outcome::Ok)
                {
                    // How it went nobody saw; it may go on.
                    setup.seen = setup.seen.max(now);
                } else if self.adopting {
                    setup.outcome = Some(Outcome::Ok);
                }
                let reached = setup.reached;
                let setup_began = setup.began;
                self.begin(id, setup, now);
                for milestone in Milestone::ALL {
                    if let Some(at) = reached[milestone as usize]
                        && milestone != Milestone::InitSent
                        && !self.adopting
                    {
                        self.tell_milestone(id, milestone, at, setup_began);
                    }
                }
                return;
            }
            if is_later || is_new {
                self.by_spi.remove(&tunnel.spi_i);
                tunnel.spi_i = control.spi_i;
                self.by_spi.insert(control.spi_i, id);
            }
        }
        let Some(setup) = &mut tunnel.setup else {
            return;
        };
        if setup.outcome.is_some() {
            return;
        }
        let mut new = if setup.spi_i == control.spi_i && Setup::is_told_by(control) {
            setup.take(control, seen)
        } else {
            Vec::new()
        };
        for (milestone, way, leg) in [
            (Milestone::EspUp, &flow.up, &legs[0]),
            (Milestone::EspDown, &flow.down, &legs[1]),
        ] {
            if leg.received > 0 && setup.carries(milestone, way.esp_seen) {
                new.push(milestone);
            }
        }
        let began = setup.began;
        let reached = setup.reached;
        for milestone in new {
            if let Some(at) = reached[milestone as usize] {
                self.tell_milestone(id, milestone, at, began);
            }
        }
    }

    fn tell_milestone(&mut self, id: Id, milestone: Milestone, at: u64, began: u64) {
        let step = match milestone {
            Milestone::InitSent => Step::InitSent,
            Milestone::InitAnswered => Step::InitAnswered,
            Milestone::Natt => Step::Natt,
            Milestone::AuthSent => Step::AuthSent,
            Milestone::AuthAnswered => Step::AuthAnswered,
            Milestone::EspUp => Step::EspUp,
            Milestone::EspDown => Step::EspDown,
        };
        let change = Change {
            after: Some(at.saturating_sub(began)),
            ..Change::new(at, step)
        };
        self.tell(Some(id), change);
    }

    fn tell(&mut self, id: Option<Id>, change: Change) {
        let Some((id, tunnel)) = id.and_then(|id| Some((id, self.tunnels.get(&id)?))) else {
            return;
        };
        self.happened.push(Happened {
            tunnel: id,
            client: tunnel.client,
            endpoint: tunnel.endpoint,
            whose: tunnel.whose.clone(),
            change,
        });
    }

    fn lose(&mut self, key: &FlowKey) {
        let Some(tracked) = self.flows.remove(key) else {
            return;
        };
        self.due.remove(tracked.due, *key);
        if let Some(tunnel) = self.tunnels.get_mut(&tracked.tunnel) {
            tunnel.flows.retain(|other| other != key);
            if tunnel.flows.is_empty() {
                self.flowless.insert(tracked.tunnel);
            }
        }
    }

    fn forget(&mut self, id: Id) {
        self.flowless.remove(&id);
        self.touched.remove(&id);
        self.calls.remove(&id);
        self.ended.remove(&id);
        let Some(tunnel) = self.tunnels.remove(&id) else {
            return;
        };
        if self.by_spi.get(&tunnel.spi_i) == Some(&id) {
            self.by_spi.remove(&tunnel.spi_i);
        }
        self.forget_ends(id, (tunnel.client, tunnel.endpoint));
        for key in tunnel.flows {
            self.forget_ends(id, (key.client, key.endpoint));
            if let Some(tracked) = self.flows.remove(&key) {
                self.due.remove(tracked.due, key);
                self.over.push(key);
            }
        }
    }

    /// Takes back that a tunnel is the one between these ends, if it is.
    fn forget_ends(&mut self, id: Id, ends: ([u8; 16], [u8; 16])) {
        if self.by_ends.get(&ends) == Some(&id) {
            self.by_ends.remove(&ends);
        }
    }

    /// Where flows are about to find no room, forgets tunnels that are gone or failed, those first that were quiet longest.
    pub fn relieve(&mut self) {
        if self.flows.len() < self.limit - self.limit / 8 {
            return;
        }
        let seen = |id: &Id| Some((self.tunnels.get(id)?.seen, *id));
        let mut over: Vec<(u64, Id)> = self.ended.iter().filter_map(seen).collect();
        over.sort_unstable();
        for (_, id) in over.into_iter().take(1 + self.limit / 16) {
            self.forget(id);
        }
    }

    /// To be called after flows were read, and each second: brings the states of their tunnels up to date, and says when
    /// they are read next.
    pub fn settle(&mut self, now: u64) {
        let mut ids = std::mem::take(&mut self.touched);
        ids.extend(&self.flowless);
        for id in ids {
            let Some(tunnel) = self.tunnels.get_mut(&id) else {
                continue;
            };
            let settled = tunnel.settle(now);
            let quiet = now.saturating_sub(tunnel.seen);
            let long = if tunnel.flows.is_empty() {
                REMEMBERED_ASKED
            } else {
                REMEMBERED
            };
            let over = quiet >= long && !tunnel.sets_up();
            let every = if tunnel.is_live(now) {
                LIVE
            } else if tunnel.state == State::Gone {
                LONG_QUIET
            } else {
                QUIET
            };
            // Spread, so that tunnels of one start are not read at once ever after.
            let spread = if every == LIVE {
                0
            } else {
                id % 64 * (every / 256)
            };
            for key in &tunnel.flows {
                if let Some(tracked) = self.flows.get_mut(key) {
                    self.due.remove(tracked.due, *key);
                    tracked.due = When {
                        at: tracked.read + every - spread,
                        soon: every == LIVE,
                    };
                    self.due.insert(tracked.due, *key);
                }
            }
            if tunnel.detector.call.is_some() {
                self.calls.insert(id);
            } else {
                self.calls.remove(&id);
            }
            if matches!(tunnel.state, State::Gone | State::Failed) {
                self.ended.insert(id);
            } else {
                self.ended.remove(&id);
            }
            self.add_up(id, settled, now);
            if over {
                self.forget(id);
            }
        }
    }

    fn add_up(&mut self, id: Id, settled: Settled, now: u64) {
        let Some(tunnel) = self.tunnels.get(&id) else {
            return;
        };
        let (client, whose) = (tunnel.client, tunnel.whose.clone());
        let jitter = tunnel.jitter;
        let totals = self.totals.entry(whose.clone()).or_default();
        if let Some((outcome, took)) = settled.setup {
            *totals.setups.entry(outcome).or_default() += 1;
            if let Some(took) = took {
                #[expect(clippy::cast_precision_loss, reason = "seconds of a histogram")]
                totals.setup_seconds.add(&SETUP_BOUNDS, took as f64 / 1e9);
            }
            self.clients.note(client, &whose, outcome, now, self.limit);
        }
        totals.calls += u64::from(settled.began);
        totals.one_way += u64::from(settled.one_way);
        totals.call_ns += settled.ended.unwrap_or_default();
        if let Some(look) = settled.look {
            for ((histogram, jitter), leg) in totals.jitter.iter_mut().zip(jitter).zip(look.legs) {
                if leg.talk > 0 {
                    histogram.add(&JITTER_BOUNDS, f64::from(jitter) / 1e9);
                }
            }
            let calls = self.calls.len().max(1) as u64;
            let minute = self.minute(now);
            minute.calls = minute.calls.max(calls);
            for (sum, leg) in minute.legs.iter_mut().zip(&look.legs) {
                sum.add(leg);
            }
        }
        for change in settled.changes {
            self.tell(Some(id), change);
        }
    }

    fn minute(&mut self, now: u64) -> &mut Minute {
        let goes_on =
            (self.minutes.back()).is_some_and(|last| now.saturating_sub(last.began) < MINUTE);
        if !goes_on {
            if self.minutes.len() == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Minute {
                began: now,
                ..Minute::default()
            });
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last]
    }
}

/// What of a flow has new keys since a second packet has `confirmed` another SPI: where one was used before.
fn rekeyed(confirmed: [u64; 2], flow: &Flow) -> impl Iterator<Item = Change> {
    let ways = [
        (&flow.up, "ESP from the phone"),
        (&flow.down, "ESP to the phone"),
    ];
    let confirmed = confirmed.into_iter().zip(ways);
    confirmed.filter_map(|(at, (way, what))| {
        let before = &way.spis[usize::from(way.current & 1 ^ 1)];
        // One packet under another SPI shows no key: anybody could have sent it.
        let was_used = before.spi != 0 && before.highest != before.anchor;
        (at != 0 && was_used).then(|| Change {
            detail: what.to_owned(),
            ..Change::new(at, Step::Rekeyed)
        })
    })
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
