//! A tunnel as a state machine.

use std::{collections::VecDeque, sync::Arc};

use wificall_common::{
    abi::{Flow, FlowKey},
    flow::Milestone,
};

use super::{
    call::{Call, Detector, Look, Turn},
    leg::Leg,
    setup::{Outcome, Setup},
    totals::Whose,
    view::{State, Step, Voice},
};

const SECOND: u64 = 1_000_000_000;
/// Without ESP for so long a tunnel is idle, in nanoseconds.
const IDLE: u64 = 60 * SECOND;
/// Without any packet for so long it is gone, in nanoseconds: phones ask whether their gateway is alive every 120 s (AOSP).
/// One that does so more rarely comes back.
const GONE: u64 = 300 * SECOND;
/// Looks further apart than that tell no rate, in nanoseconds.
const LOOK_MOST: u64 = 3 * SECOND;
/// Nor do those that are closer together.
const LOOK_LEAST: u64 = 800_000_000;
/// After packets of a voice frame's size began, flows are read each second for so long, in nanoseconds.
const WATCH: u64 = 10 * SECOND;
/// Both directions of a tunnel that comes back do so within this.
const RETURN: u64 = 2 * SECOND;
/// Calls of a tunnel that are kept.
const CALLS: usize = 4;

/// A tunnel. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The phone's address, as its last packet had it.
    pub client: [u8; 16],
    /// The ePDG's.
    pub endpoint: [u8; 16],
    /// Whose that is.
    pub whose: Arc<Whose>,
    /// SPI of the IKE SA's initiator; zero: not known.
    pub spi_i: [u8; 8],
    /// Its flows.
    pub flows: Vec<FlowKey>,
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: u64,
    /// When it was first seen.
    pub began: u64,
    /// When its last packet was seen.
    pub seen: u64,
    /// When ESP was seen last, from the phone and to it; 0: never.
    pub esp_seen: [u64; 2],
    /// The last set-up that was seen.
    pub setup: Option<Setup>,
    /// What it carried since it was first read.
    pub legs: [Leg; 2],
    /// Jitter of both directions, in nanoseconds.
    pub jitter: [u32; 2],
    /// Round trips of the network's side and the client's, in microseconds; 0: unknown.
    pub round_trip: [u32; 2],
    /// Shortest interval between keepalives of the quiet tunnel, in milliseconds; 0: unknown.
    pub keepalive: u32,
    /// Changes of address or port, and returns.
    pub roamed: u64,
    /// When it came back last; 0: never.
    returned: u64,
    /// Calls that ended, the last first.
    pub calls: VecDeque<Call>,
    /// Looks for calls.
    pub detector: Detector,
    /// Read each second until then.
    watch: u64,
    /// What came since the last look.
    pending: [Leg; 2],
    looked: u64,
}

/// What has happened to a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: u64,
    /// What.
    pub step: Step,
    /// More of it, for people.
    pub detail: String,
    /// After the set-up began, in nanoseconds.
    pub after: Option<u64>,
    /// The phone's address before, if it is another now.
    pub from: Option<[u8; 16]>,
}

impl Change {
    /// A change that needs no more words.
    #[must_use]
    pub fn new(at: u64, step: Step) -> Self {
        Self {
            at,
            step,
            detail: String::new(),
            after: None,
            from: None,
        }
    }
}

/// What a settled tunnel has to tell, for the sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// How a set-up ended, and how long it took, in nanoseconds.
    pub setup: Option<(Outcome, Option<u64>)>,
    /// A second of a call.
    pub look: Option<Look>,
    /// A call began.
    pub began: bool,
    /// A call has become one-way.
    pub one_way: bool,
    /// How long a call lasted that ended, in nanoseconds.
    pub ended: Option<u64>,
    /// In order.
    pub changes: Vec<Change>,
}

impl Tunnel {
    /// A new one.
    #[must_use]
    pub fn new(key: &FlowKey, whose: Arc<Whose>, now: u64) -> Self {
        Self {
            client: key.client,
            endpoint: key.endpoint,
            whose,
            spi_i: [0; 8],
            flows: Vec::new(),
            state: State::SettingUp,
            since: now,
            began: now,
            seen: now,
            esp_seen: [0; 2],
            setup: None,
            legs: Default::default(),
            jitter: [0; 2],
            round_trip: [0; 2],
            keepalive: 0,
            roamed: 0,
            returned: 0,
            calls: VecDeque::new(),
            detector: Detector::default(),
            watch: 0,
            pending: Default::default(),
            looked: now,
        }
    }

    /// Whether its flows are to be read each second.
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        self.detector.is_busy() || self.watch > now || self.sets_up()
    }

    /// Whether a set-up goes on.
    #[must_use]
    pub fn sets_up(&self) -> bool {
        let setup = self.setup.as_ref();
        setup.is_some_and(|setup| setup.outcome.is_none())
    }

    /// Packets of a voice frame's size have begun.
    pub fn watch(&mut self, now: u64) {
        self.watch = now + WATCH;
    }

    /// It came back, or its numbers say so: whether that is news. Both directions say it, each for itself.
    pub fn returns(&mut self, now: u64) -> bool {
        let is_news = now.saturating_sub(self.returned) >= RETURN;
        if is_news {
            self.returned = now;
            self.roamed += 1;
        }
        is_news
    }

    /// Its calls, for the tunnel that it turns out to be.
    pub fn leave_calls(&mut self) -> (VecDeque<Call>, Detector) {
        (
            std::mem::take(&mut self.calls),
            std::mem::take(&mut self.detector),
        )
    }

    /// Takes over the calls of what turns out to be this tunnel.
    pub fn inherit(&mut self, calls: VecDeque<Call>, detector: Detector) {
        if self.detector.call.is_none() {
            self.detector = detector;
        }
        self.calls.extend(calls);
        self.calls.truncate(CALLS);
    }

    /// Takes in one of its flows: `more` is what came since it was read before.
    pub fn take(&mut self, flow: &Flow, more: [Leg; 2]) {
        for (sum, leg) in self.legs.iter_mut().zip(&more) {
            sum.add(leg);
        }
        for (sum, leg) in self.pending.iter_mut().zip(&more) {
            sum.add(leg);
        }
        for (n, way) in [&flow.up, &flow.down].into_iter().enumerate() {
            self.seen = self.seen.max(way.seen);
            if way.esp_seen > self.esp_seen[n] {
                self.esp_seen[n] = way.esp_seen;
                self.jitter[n] = way.jitter;
            }
        }
        let control = &flow.control;
        for (known, new) in self.round_trip.iter_mut().zip(control.round_trip) {
            if new != 0 {
                *known = new;
            }
        }
        if control.keepalive_interval != 0 {
            self.keepalive = control.keepalive_interval;
        }
    }

    /// Begins a set-up; how the one before ended, if it had not.
    pub fn begin(&mut self, setup: Setup) -> Settled {
        let mut settled = Settled::default();
        self.spi_i = setup.spi_i;
        if let Some(before) = &mut self.setup
            && before.outcome.is_none()
        {
            let outcome = before.superseded();
            before.outcome = Some(outcome);
            settled.setup = Some((outcome, None));
            settled
                .changes
                .extend(failure(before, outcome, setup.began));
        }
        let mut change = Change::new(setup.began, Step::InitSent);
        change.after = Some(0);
        if setup.at(Milestone::InitSent).is_some() {
            settled.changes.push(change);
        }
        self.setup = Some(setup);
        settled
    }

    /// Brings its state up to date, and has a look at what came, if it is time.
    pub fn settle(&mut self, now: u64) -> Settled {
        let mut settled = Settled::default();
        self.look(now, &mut settled);
        if let Some(setup) = &mut self.setup
            && setup.outcome.is_none()
            && let Some(outcome) = setup.judge(now)
        {
            setup.outcome = Some(outcome);
            settled.setup = Some((outcome, setup.took()));
            if outcome == Outcome::Ok {
                // When it was, not when it is found.
                let mut change = Change::new(setup.up().unwrap_or(now), Step::Up);
                change.after = setup.took();
                settled.changes.push(change);
            } else {
                settled.changes.extend(failure(setup, outcome, now));
            }
        }
        let state = self.judge(now);
        if state != self.state {
            self.state = state;
            // A call is one only after some seconds of it.
            let call = self.detector.call.as_ref();
            let call = call.filter(|_| state == State::Call);
            self.since = call.map_or(now, |call| call.began);
            match state {
                State::Idle => settled.changes.push(Change::new(now, Step::Idle)),
                State::Gone => settled.changes.push(Change::new(now, Step::Gone)),
                _ => {}
            }
        }
        settled
    }

    fn look(&mut self, now: u64, settled: &mut Settled) {
        let length = now.saturating_sub(self.looked);
        if length < LOOK_LEAST {
            return;
        }
        self.looked = now;
        let legs = std::mem::take(&mut self.pending);
        if length > LOOK_MOST && !self.detector.is_busy() {
            self.detector.before(legs);
            return;
        }
        let look = Look {
            at: now,
            length,
            legs,
        };
        let turn = self.detector.look(look, self.jitter);
        if self.detector.call.is_some() {
            settled.look = Some(look);
        }
        let voice = self.detector.call.as_ref().map(|call| call.voice);
        match turn {
            Some(Turn::Began) => {
                settled.began = true;
                settled.changes.push(Change::new(now, Step::CallBegan));
            }
            Some(Turn::Changed) => {
                settled.one_way = matches!(voice, Some(Voice::OneWayUp | Voice::OneWayDown));
                let mut change = Change::new(now, Step::CallChanged);
                change.detail = voice.unwrap_or_default().name().to_owned();
                settled.changes.push(change);
            }
            Some(Turn::Ended) => self.end_call(now, settled),
            None => {}
        }
    }

    fn end_call(&mut self, now: u64, settled: &mut Settled) {
        let Some(call) = self.detector.end() else {
            return;
        };
        let lasted = call.lasted(now);
        settled.ended = Some(lasted);
        let mut change = Change::new(call.ended.unwrap_or(now), Step::CallEnded);
        let [up, down] = call.legs.map(|leg| (leg.missing.max(0), leg.received));
        change.detail = format!(
            "{} s; lost {} of {} from the phone, {} of {} from the network",
            lasted / SECOND,
            up.0,
            up.0.cast_unsigned() + up.1,
            down.0,
            down.0.cast_unsigned() + down.1,
        );
        settled.changes.push(change);
        self.calls.truncate(CALLS - 1);
        self.calls.push_front(call);
    }

    fn judge(&self, now: u64) -> State {
        let esp = self.esp_seen.into_iter().max().unwrap_or_default();
        if self.sets_up() {
            return State::SettingUp;
        }
        if self.detector.call.is_some() {
            return State::Call;
        }
        if let Some(setup) = &self.setup
            && matches!(setup.outcome, Some(Outcome::Failed(_) | Outcome::Detour))
            // Unless it came to something after all, or the tunnel of before goes on.
            && (esp <= setup.seen || self.esp_seen.contains(&0))
        {
            return State::Failed;
        }
        if now.saturating_sub(self.seen) >= GONE {
            State::Gone
        } else if !self.esp_seen.contains(&0) && now.saturating_sub(esp) < IDLE {
            State::Up
        } else {
            State::Idle
        }
    }
}

fn failure(setup: &Setup, outcome: Outcome, now: u64) -> Option<Change> {
    let Outcome::Failed(cause) = outcome else {
        return None;
    };
    let mut detail = cause.name().to_owned();
    if setup.notify != 0 {
        detail = format!("{detail}: {}", super::notify::name(setup.notify));
    }
    if let Some(next) = setup.next() {
        detail = format!("{detail}, waited for {}", next.name());
    }
    Some(Change {
        at: now,
        step: Step::Failed,
        detail,
        after: Some(now.saturating_sub(setup.began)),
        from: None,
    })
}
