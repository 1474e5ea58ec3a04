//! When to ask which question. Pure: the time is an argument.
//!
//! After an answer the next question is due:
//!
//! | what came of it | after |
//! |---|---|
//! | addresses, NAPTR records | the TTL, within `refresh_min` and `refresh_max` |
//! | no such name, no such record | the SOA's minimum (RFC 2308 §5), within the same bounds, `refresh_max` without one; doubled each time in a row, up to `absent_max` |
//! | SERVFAIL, REFUSED, nonsense | 30 s, doubled each time in a row, up to 5 min for a name that has ever answered, up to `refresh_max` for others |
//! | no answer, no connection, TLS refused | 5 s, doubled each time in a row, up to 5 min; at once when the server answers again |
//!
//! All delays are varied by a tenth within these bounds, and no failure waits longer than
//! `refresh_max`. A name that
//! does not exist has no AAAA record either (RFC 8020 §2), so AAAA is asked after A, and only if A
//! did not say so.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::resolver::{Answer, RouteIndex};
use super::{Failure, Family, Outcome};

/// Nobody answered: likely lost, or a server that is being restarted.
const SILENCE_FIRST: Duration = Duration::from_secs(5);

/// The server answered that it does not know. RFC 9520 §3.2 asks for a pause that grows.
const REFUSAL_FIRST: Duration = Duration::from_secs(30);

/// A box whose uplink comes back after a night should not wait for long.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// No bound counts beyond this, so that sums with it stay within what a clock can tell.
const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Delays are varied by up to this part of themselves, so that names that were asked together
/// (and boxes that started together) do not stay together.
const JITTER: f64 = 0.1;

/// What is asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Addresses of a family.
    Addresses(Family),
    /// The names that stand for a name (RFC 3403).
    Naptr,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::Addresses(Family::V4),
        Self::Addresses(Family::V6),
        Self::Naptr,
    ];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses(family) => family.as_str(),
            Self::Naptr => "naptr",
        }
    }
}

impl From<Family> for Kind {
    fn from(family: Family) -> Self {
        Self::Addresses(family)
    }
}

/// How much a name matters when more is due than may be asked.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// It has addresses, which may be in use.
    Known,
    /// It is configured.
    #[default]
    Configured,
    /// It is one of the world's.
    World,
}

/// A name to ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The name.
    pub name: Arc<str>,
    /// Whether for NAPTR records rather than addresses.
    pub naptr: bool,
    /// How much it matters, unless it has answered before.
    pub rank: Rank,
    /// Whom to ask.
    pub route: RouteIndex,
}

/// A name and what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name.
    pub name: Arc<str>,
    /// What is asked for.
    pub kind: Kind,
    /// Whom to ask.
    pub route: RouteIndex,
}

/// The bounds of the delays.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Floor of an answer's TTL.
    pub min: Duration,
    /// Ceiling of an answer's TTL.
    pub max: Duration,
    /// How long at most a name that does not exist is not asked for.
    pub absent_max: Duration,
}

impl Refresh {
    /// The bounds in order, and within what a clock can tell.
    fn sane(self) -> Self {
        let min = self.min.min(DELAY_MAX);
        let max = self.max.clamp(min, DELAY_MAX);
        Self {
            min,
            max,
            absent_max: self.absent_max.clamp(max, DELAY_MAX),
        }
    }
}

/// Milliseconds since the schedule began.
type Time = u64;

/// Index of a name, doubled; and 1 for the second question.
type Id = u32;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// It may be asked since its time.
    Ready,
    Asking,
    /// Waits for what comes of the first question.
    Second,
}

/// A question's place in the schedule. There are two for each of thousands of names: they are
/// small.
#[derive(Copy, Clone, Debug)]
struct Ask {
    due: Time,
    state: State,
    /// Failures in a row.
    failures: u8,
    /// Answers in a row that there is no such name or record.
    absences: u8,
    /// Whether it has ever been answered with what was asked for.
    answered: bool,
    /// Wanted while it was being asked.
    again: bool,
}

impl Ask {
    const fn new(state: State, due: Time) -> Self {
        Self {
            due,
            state,
            failures: 0,
            absences: 0,
            answered: false,
            again: false,
        }
    }

    /// Whether nothing has come of it yet.
    const fn is_new(&self) -> bool {
        !self.answered && self.absences == 0 && self.failures == 0
    }
}

#[derive(Debug)]
struct Row {
    wanted: Wanted,
    asks: [Ask; 2],
}

impl Row {
    fn rank(&self) -> Rank {
        if self.asks.iter().any(|ask| ask.answered) {
            Rank::Known
        } else {
            self.wanted.rank
        }
    }

    /// How many of its questions there are.
    fn questions(&self) -> usize {
        if self.wanted.naptr { 1 } else { 2 }
    }
}

/// The questions, and when each is due.
#[derive(Debug)]
pub struct Schedule {
    refresh: Refresh,
    began: Instant,
    /// Sorted by name, each once.
    rows: Vec<Row>,
    /// Those that wait, by time.
    waiting: BTreeSet<(Time, Id)>,
    /// Those whose time has come, by what matters most, then in an order that has nothing to do
    /// with the names: neighbours are on the same servers, which need not get them all at once.
    ready: BTreeSet<(Rank, u32, Id)>,
    /// Names of whose first question nothing has come yet.
    unasked: usize,
    random: RandomState,
    draws: u64,
}

impl Schedule {
    /// A schedule without questions.
    #[must_use]
    pub fn new(refresh: Refresh, now: Instant) -> Self {
        Self {
            refresh: refresh.sane(),
            began: now,
            rows: Vec::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            unasked: 0,
            random: RandomState::new(),
            draws: 0,
        }
    }

    /// Changes the bounds of the delays. What is due later than the new bounds allow is brought
    /// forward.
    pub fn set_refresh(&mut self, refresh: Refresh, now: Instant) {
        self.refresh = refresh.sane();
        let now = self.time(now);
        for id in self.ids() {
            let ask = *self.ask(id);
            let longest = if ask.absences > 0 {
                self.refresh.absent_max
            } else {
                self.refresh.max
            };
            if ask.state == State::Waiting && ask.due > now + millis(longest) {
                let delay = self.vary(longest, Duration::ZERO, longest);
                self.set_due(id, now + millis(delay));
            }
        }
    }

    /// Replaces the names. The schedule of names that stay is unchanged; new names are due now.
    pub fn replace(&mut self, wanted: impl IntoIterator<Item = Wanted>, now: Instant) {
        let now = self.time(now);
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.dedup_by(|a, b| a.name == b.name);
        let old = std::mem::take(&mut self.rows);
        let mut old = old.into_iter().peekable();
        self.rows.reserve_exact(wanted.len());
        for wanted in wanted {
            while old.next_if(|row| row.wanted.name < wanted.name).is_some() {}
            let stays = old
                .next_if(|row| row.wanted.name == wanted.name && row.wanted.naptr == wanted.naptr);
            let asks = stays.map_or(
                [Ask::new(State::Waiting, now), Ask::new(State::Second, now)],
                |row| row.asks,
            );
            self.rows.push(Row { wanted, asks });
        }
        self.rebuild();
    }

    /// Makes every question due now.
    pub fn refresh_now(&mut self, now: Instant) {
        let now = self.time(now);
        for id in self.ids() {
            let ask = self.ask_mut(id);
            match ask.state {
                State::Waiting | State::Ready => ask.due = now,
                State::Asking => ask.again = true,
                State::Second => {}
            }
        }
        self.rebuild();
    }

    /// Makes the questions due now that nobody answered: a server answers again.
    pub fn retry_failed(&mut self, now: Instant) {
        let now = self.time(now);
        for id in self.ids() {
            let ask = self.ask_mut(id);
            if ask.state == State::Waiting && ask.failures > 0 {
                ask.due = now;
            }
        }
        self.rebuild();
    }

    /// When the next question is due, if any waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let due = match self.ready.first() {
            Some((_, _, id)) => self.ask(*id).due,
            None => self.waiting.first()?.0,
        };
        Some(self.began + Duration::from_millis(due))
    }

    /// When the next question becomes due that is not due yet.
    #[must_use]
    pub fn next_new(&self) -> Option<Instant> {
        let (due, _) = self.waiting.first()?;
        Some(self.began + Duration::from_millis(*due))
    }

    /// Takes the question that is due and matters most, to be [`finish`](Self::finish)ed. Of a
    /// route that is blocked, only questions are taken whose failure says something: those of
    /// names that have addresses.
    pub fn take_due(
        &mut self,
        now: Instant,
        blocked: impl Fn(RouteIndex) -> bool,
    ) -> Option<Question> {
        let now = self.time(now);
        while let Some(&(due, id)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            self.ask_mut(id).state = State::Ready;
            let place = self.place(id);
            self.ready.insert(place);
        }
        let takes = |(rank, _, id): &&(Rank, u32, Id)| {
            *rank == Rank::Known || !blocked(self.row(*id).wanted.route)
        };
        let place = *self.ready.iter().find(takes)?;
        self.ready.remove(&place);
        let id = place.2;
        self.ask_mut(id).state = State::Asking;
        Some(self.question(id))
    }

    /// Says what came of a question, which settles when to ask again. One whose name is gone is
    /// forgotten. The question that is returned was answered by the same: there is no such name.
    pub fn finish(
        &mut self,
        question: &Question,
        answer: &Answer,
        now: Instant,
    ) -> Option<Question> {
        let id = self.find(question)?;
        let now = self.time(now);
        let found = answer.found();
        if id % 2 == 0 && self.ask(id).is_new() {
            self.unasked -= 1;
        }
        let ask = self.ask_mut(id);
        match &answer.outcome {
            Outcome::Failed(_) => ask.failures = ask.failures.saturating_add(1),
            _ if found => (ask.failures, ask.absences, ask.answered) = (0, 0, true),
            _ => (ask.failures, ask.absences) = (0, ask.absences.saturating_add(1)),
        }
        let again = std::mem::take(&mut ask.again);
        ask.state = State::Waiting;
        let delay = self.delay(id, answer);
        let at = if again { now } else { now + millis(delay) };
        self.set_due(id, at);
        self.settle_second(id, &answer.outcome, now)
    }

    /// The second question after the first.
    fn settle_second(&mut self, id: Id, outcome: &Outcome, now: Time) -> Option<Question> {
        if !id.is_multiple_of(2) || self.row(id).questions() < 2 {
            return None;
        }
        let second = id + 1;
        let ask = *self.ask(second);
        match outcome {
            // Some servers say so of one type only (RFC 4074 §4.2): what has answered is asked.
            Outcome::NxDomain if !ask.answered && ask.state != State::Asking => {
                self.unplace(second);
                self.ask_mut(second).state = State::Second;
                Some(self.question(second))
            }
            Outcome::NxDomain => None,
            _ => {
                if ask.state == State::Second {
                    self.ask_mut(second).state = State::Waiting;
                    self.set_due(second, now);
                }
                None
            }
        }
    }

    fn delay(&mut self, id: Id, answer: &Answer) -> Duration {
        let Refresh {
            min,
            max,
            absent_max,
        } = self.refresh;
        let ask = *self.ask(id);
        let doubled = |times: u8| 2_u32.saturating_pow(u32::from(times.saturating_sub(1)));
        let (delay, least, most) = match &answer.outcome {
            Outcome::Addresses { ttl, .. } => (*ttl, min, max),
            Outcome::NoData | Outcome::NxDomain => match &answer.replacements {
                Some((_, ttl)) => (*ttl, min, max),
                None => {
                    let first = answer.absent_for.unwrap_or(max).clamp(min, max);
                    let delay = first.saturating_mul(doubled(ask.absences));
                    (delay, min, absent_max)
                }
            },
            Outcome::Failed(Failure { kind, .. }) => {
                let (first, limit) = if kind.is_silence() {
                    (SILENCE_FIRST, RETRY_MAX)
                } else if self.row(id).rank() == Rank::Known {
                    (REFUSAL_FIRST, RETRY_MAX)
                } else {
                    (REFUSAL_FIRST, max)
                };
                let delay = first.saturating_mul(doubled(ask.failures));
                (delay, Duration::ZERO, limit.min(max))
            }
        };
        self.vary(delay, least, most)
    }

    /// How many names there are.
    #[must_use]
    pub fn names(&self) -> usize {
        self.rows.len()
    }

    /// How many questions are due and not asked yet.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.ready.len()
    }

    /// How many names have not been asked for yet.
    #[must_use]
    pub fn unasked(&self) -> usize {
        self.unasked
    }

    fn time(&self, now: Instant) -> Time {
        millis(now.saturating_duration_since(self.began))
    }

    fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        let rows: Vec<usize> = self.rows.iter().map(Row::questions).collect();
        rows.into_iter().enumerate().flat_map(|(row, questions)| {
            (0..questions).map(move |question| (row * 2 + question) as Id)
        })
    }

    fn row(&self, id: Id) -> &Row {
        &self.rows[id as usize / 2]
    }

    fn ask(&self, id: Id) -> &Ask {
        &self.rows[id as usize / 2].asks[id as usize % 2]
    }

    fn ask_mut(&mut self, id: Id) -> &mut Ask {
        &mut self.rows[id as usize / 2].asks[id as usize % 2]
    }

    fn question(&self, id: Id) -> Question {
        let wanted = &self.row(id).wanted;
        Question {
            name: wanted.name.clone(),
            kind: match (wanted.naptr, id % 2) {
                (true, _) => Kind::Naptr,
                (false, 0) => Kind::Addresses(Family::V4),
                (false, _) => Kind::Addresses(Family::V6),
            },
            route: wanted.route,
        }
    }

    fn find(&self, question: &Question) -> Option<Id> {
        let row = self
            .rows
            .binary_search_by(|row| row.wanted.name.cmp(&question.name))
            .ok()?;
        let second = question.kind == Kind::Addresses(Family::V6);
        let id = Id::try_from(row * 2).ok()? + Id::from(second);
        let same = self.question(id).kind == question.kind;
        (same && self.ask(id).state == State::Asking).then_some(id)
    }

    fn place(&self, id: Id) -> (Rank, u32, Id) {
        (self.row(id).rank(), self.random.hash_one(id / 2) as u32, id)
    }

    fn unplace(&mut self, id: Id) {
        let ask = *self.ask(id);
        match ask.state {
            State::Waiting => drop(self.waiting.remove(&(ask.due, id))),
            State::Ready => self.ready.retain(|(_, _, other)| *other != id),
            State::Asking | State::Second => {}
        }
    }

    /// Of a question that is not being asked.
    fn set_due(&mut self, id: Id, at: Time) {
        self.unplace(id);
        let ask = self.ask_mut(id);
        (ask.due, ask.state) = (at, State::Waiting);
        self.waiting.insert((at, id));
    }

    /// Places all questions anew.
    fn rebuild(&mut self) {
        self.waiting.clear();
        self.ready.clear();
        self.unasked = self.rows.iter().filter(|row| row.asks[0].is_new()).count();
        for id in self.ids() {
            let ask = self.ask_mut(id);
            if matches!(ask.state, State::Waiting | State::Ready) {
                ask.state = State::Waiting;
                let due = ask.due;
                self.waiting.insert((due, id));
            }
        }
    }

    /// `delay` within bounds, give or take [`JITTER`] as far as the bounds allow. The randomness is
    /// that of the hasher's keys: enough to spread load, and nobody gains by guessing it.
    fn vary(&mut self, delay: Duration, least: Duration, most: Duration) -> Duration {
        self.draws = self.draws.wrapping_add(1);
        let draw = self.random.hash_one(self.draws);
        let unit = draw as f64 / u64::MAX as f64;
        let delay = delay.clamp(least, most);
        let from = delay.mul_f64(1.0 - JITTER).max(least);
        let to = delay.mul_f64(1.0 + JITTER).min(most);
        from + to.saturating_sub(from).mul_f64(unit)
    }
}

fn millis(duration: Duration) -> Time {
    duration.as_millis() as Time
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
