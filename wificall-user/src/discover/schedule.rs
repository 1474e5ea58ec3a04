//! When to ask which question. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Family, Outcome};

/// A failed question is asked again after this, then after twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// And at least this often, or `refresh_max` if that is less: a box whose uplink comes back after
/// a night should not wait for long.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// No bound counts beyond this, so that sums with it stay within what a clock can tell.
const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Delays are varied by up to this part of themselves, so that names that were asked together
/// (and boxes that started together) do not stay together.
const JITTER: f64 = 0.1;

/// A name and a family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name.
    pub name: Arc<str>,
    /// Which addresses.
    pub family: Family,
}

#[derive(Debug, Default)]
struct Entry {
    /// When the question is due; `None` while it is being asked.
    due: Option<Instant>,
    failures: u32,
    /// Asked for while it was being asked.
    again: bool,
}

/// The questions, and when each is due.
#[derive(Debug)]
pub struct Schedule {
    refresh_min: Duration,
    refresh_max: Duration,
    entries: BTreeMap<Question, Entry>,
    /// The same, by time: of each entry with a time exactly one.
    due: BTreeSet<(Instant, Question)>,
    random: RandomState,
    draws: u64,
}

impl Schedule {
    /// A schedule without questions.
    #[must_use]
    pub fn new(refresh_min: Duration, refresh_max: Duration) -> Self {
        let (refresh_min, refresh_max) = bounds(refresh_min, refresh_max);
        Self {
            refresh_min,
            refresh_max,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            random: RandomState::new(),
            draws: 0,
        }
    }

    /// Changes the bounds of the delays. What is due later than the new bounds allow is brought
    /// forward.
    pub fn set_refresh(&mut self, min: Duration, max: Duration, now: Instant) {
        (self.refresh_min, self.refresh_max) = bounds(min, max);
        let late: Vec<_> = self
            .due
            .range((now + self.longest(), first_question())..)
            .map(|(_, question)| question.clone())
            .collect();
        for question in late {
            let at = now + self.vary(self.refresh_max);
            self.set_due(&question, at);
        }
    }

    /// Replaces the names. The schedule of names that stay is unchanged; new names are due now.
    pub fn replace<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>, now: Instant) {
        let mut old = std::mem::take(&mut self.entries);
        for name in names {
            for family in Family::ALL {
                let name = name.clone();
                let question = Question { name, family };
                let entry = old.remove(&question).unwrap_or_else(|| {
                    self.due.insert((now, question.clone()));
                    Entry {
                        due: Some(now),
                        ..Entry::default()
                    }
                });
                self.entries.insert(question, entry);
            }
        }
        for (question, entry) in old {
            if let Some(due) = entry.due {
                self.due.remove(&(due, question));
            }
        }
    }

    /// Makes every question due now.
    pub fn refresh_now(&mut self, now: Instant) {
        self.due.clear();
        for (question, entry) in &mut self.entries {
            if entry.due.is_some() {
                entry.due = Some(now);
                self.due.insert((now, question.clone()));
            } else {
                entry.again = true;
            }
        }
    }

    /// When the next question is due, if any waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the question that is due longest, to be [`finish`](Self::finish)ed.
    pub fn take_due(&mut self, now: Instant) -> Option<Question> {
        if self.next_due()? > now {
            return None;
        }
        let (_, question) = self.due.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&question) {
            entry.due = None;
        }
        Some(question)
    }

    /// Says what came of a question, which settles when to ask again. One whose name is gone is
    /// forgotten.
    pub fn finish(&mut self, question: &Question, outcome: &Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(question) else {
            return;
        };
        entry.failures = match outcome {
            Outcome::Failed(_) => entry.failures.saturating_add(1),
            _ => 0,
        };
        let failures = entry.failures;
        if std::mem::take(&mut entry.again) {
            self.set_due(question, now);
            return;
        }
        let delay = match outcome {
            Outcome::Addresses { ttl, .. } => (*ttl).clamp(self.refresh_min, self.refresh_max),
            // A name without addresses rarely gets some, and there are many such names.
            Outcome::NoData | Outcome::NxDomain => self.refresh_max,
            Outcome::Failed(_) => {
                let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
                let limit = RETRY_MAX.min(self.refresh_max);
                RETRY_FIRST.saturating_mul(doubled).min(limit)
            }
        };
        let at = now + self.vary(delay);
        self.set_due(question, at);
    }

    /// How many names there are.
    #[must_use]
    pub fn names(&self) -> usize {
        self.entries.len() / Family::ALL.len()
    }

    fn set_due(&mut self, question: &Question, at: Instant) {
        if let Some(entry) = self.entries.get_mut(question) {
            if let Some(old) = entry.due.replace(at) {
                self.due.remove(&(old, question.clone()));
            }
            self.due.insert((at, question.clone()));
        }
    }

    fn longest(&self) -> Duration {
        self.refresh_max.mul_f64(1.0 + JITTER)
    }

    /// `delay`, give or take [`JITTER`]. The randomness is that of the hasher's keys: enough to
    /// spread load, and nobody gains by guessing it.
    fn vary(&mut self, delay: Duration) -> Duration {
        self.draws = self.draws.wrapping_add(1);
        let draw = self.random.hash_one(self.draws);
        let unit = draw as f64 / u64::MAX as f64;
        delay.mul_f64(1.0 + JITTER * (2.0 * unit - 1.0))
    }
}

fn bounds(min: Duration, max: Duration) -> (Duration, Duration) {
    let min = min.min(DELAY_MAX);
    (min, max.clamp(min, DELAY_MAX))
}

/// Sorts before every question of a name.
fn first_question() -> Question {
    Question {
        name: Arc::from(""),
        family: Family::V4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::{Failure, FailureKind};

    const MIN: Duration = Duration::from_secs(60);
    const MAX: Duration = Duration::from_secs(3600);

    fn names(texts: &[&str]) -> Vec<Arc<str>> {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    fn schedule(texts: &[&str], now: Instant) -> Schedule {
        let mut schedule = Schedule::new(MIN, MAX);
        schedule.replace(&names(texts), now);
        schedule
    }

    fn addresses(ttl: u64) -> Outcome {
        Outcome::Addresses {
            addresses: Vec::new(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Failure {
            kind: FailureKind::Timeout,
            detail: String::new(),
        })
    }

    fn take_all(schedule: &mut Schedule, now: Instant) -> Vec<Question> {
        std::iter::from_fn(|| schedule.take_due(now)).collect()
    }

    /// Asserts that the one question is due `seconds` from `now`, give or take the jitter.
    fn due_in(schedule: &Schedule, now: Instant, seconds: u64) {
        let delay = (schedule.next_due().unwrap() - now).as_secs_f64();
        let seconds = seconds as f64;
        assert!(
            (seconds * 0.9..=seconds * 1.1).contains(&delay),
            "{delay} for {seconds}"
        );
    }

    #[test]
    fn new_names_are_due_at_once() {
        let now = Instant::now();
        let mut schedule = schedule(&["b", "a"], now);
        assert_eq!(schedule.names(), 2);
        let taken = take_all(&mut schedule, now);
        let taken: Vec<_> = taken.iter().map(|q| (&*q.name, q.family)).collect();
        let expected = [
            ("a", Family::V4),
            ("a", Family::V6),
            ("b", Family::V4),
            ("b", Family::V6),
        ];
        assert_eq!(taken, expected);
        // Being asked: not due again, however long it takes.
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.take_due(now + MAX * 2), None);
    }

    #[test]
    fn ttl_has_a_floor_and_a_ceiling() {
        let now = Instant::now();
        for (ttl, expected) in [(0, 60), (59, 60), (300, 300), (3600, 3600), (86_400, 3600)] {
            let mut schedule = schedule(&["a"], now);
            let questions = take_all(&mut schedule, now);
            schedule.finish(&questions[0], &addresses(ttl), now);
            due_in(&schedule, now, expected);
        }
    }

    #[test]
    fn delays_are_spread() {
        let now = Instant::now();
        let many: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut schedule = schedule(&many, now);
        for question in take_all(&mut schedule, now) {
            schedule.finish(&question, &addresses(1000), now);
        }
        assert!(take_all(&mut schedule, now + Duration::from_secs(899)).is_empty());
        let early = take_all(&mut schedule, now + Duration::from_secs(1000)).len();
        assert!(
            (350..650).contains(&early),
            "{early} of 1000 before the mean"
        );
        take_all(&mut schedule, now + Duration::from_secs(1101));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn absence_waits_longest() {
        let now = Instant::now();
        for outcome in [Outcome::NoData, Outcome::NxDomain] {
            let mut schedule = schedule(&["a"], now);
            let questions = take_all(&mut schedule, now);
            schedule.finish(&questions[0], &outcome, now);
            due_in(&schedule, now, 3600);
        }
    }

    #[test]
    fn failures_back_off_and_recover() {
        let mut now = Instant::now();
        let mut schedule = schedule(&["a"], now);
        take_all(&mut schedule, now);
        let question = Question {
            name: "a".into(),
            family: Family::V4,
        };
        for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
            schedule.finish(&question, &failed(), now);
            due_in(&schedule, now, expected);
            now = schedule.next_due().unwrap();
            assert!(schedule.take_due(now).is_some());
        }
        for _ in 0..100 {
            schedule.finish(&question, &failed(), now);
            take_all(&mut schedule, now + MAX);
        }
        schedule.finish(&question, &addresses(100), now);
        due_in(&schedule, now, 100);
        take_all(&mut schedule, now + MAX);
        schedule.finish(&question, &failed(), now);
        due_in(&schedule, now, 5);
        // No failure waits longer than a success would.
        schedule.set_refresh(Duration::from_secs(1), Duration::from_secs(7), now);
        for _ in 0..5 {
            take_all(&mut schedule, now + MAX);
            schedule.finish(&question, &failed(), now);
        }
        due_in(&schedule, now, 7);
    }

    #[test]
    fn replacing_keeps_the_schedule_of_names_that_stay() {
        let now = Instant::now();
        let mut schedule = schedule(&["a", "b", "c"], now);
        let taken = take_all(&mut schedule, now);
        // "a" waits, "b" and "c" are being asked.
        schedule.finish(&taken[0], &addresses(600), now);
        schedule.finish(&taken[1], &addresses(600), now);
        let waiting = schedule.next_due();

        let later = now + Duration::from_secs(1);
        schedule.replace(&names(&["a", "b", "d"]), later);
        assert_eq!(schedule.names(), 3);
        let new = take_all(&mut schedule, later);
        assert!(new.iter().all(|q| &*q.name == "d") && new.len() == 2);
        assert_eq!(schedule.next_due(), waiting);
        // "c" comes back from its last question and is forgotten; "b" goes on.
        schedule.finish(&taken[4], &addresses(60), later);
        schedule.finish(&taken[2], &addresses(60), later);
        due_in(&schedule, later, 60);
        // A name that waited and is gone leaves nothing due.
        schedule.replace(&[], later);
        assert_eq!((schedule.next_due(), schedule.names()), (None, 0));
    }

    #[test]
    fn refresh_now_reaches_also_what_is_being_asked() {
        let now = Instant::now();
        let mut schedule = schedule(&["a"], now);
        let taken = take_all(&mut schedule, now);
        schedule.finish(&taken[0], &addresses(600), now);
        schedule.refresh_now(now);
        assert_eq!(take_all(&mut schedule, now), taken[..1]);
        schedule.finish(&taken[1], &Outcome::NoData, now);
        assert_eq!(take_all(&mut schedule, now), taken[1..]);
    }

    #[test]
    fn absurd_bounds_do_not_overflow() {
        let now = Instant::now();
        let mut schedule = schedule(&["a"], now);
        for (min, max) in [
            (Duration::MAX, Duration::ZERO),
            (Duration::ZERO, Duration::MAX),
        ] {
            schedule.set_refresh(min, max, now);
            schedule.refresh_now(now);
            for question in take_all(&mut schedule, now) {
                schedule.finish(&question, &addresses(u64::MAX), now);
            }
            due_in(&schedule, now, 30 * 24 * 3600);
        }
    }

    #[test]
    fn a_lower_ceiling_brings_forward() {
        let now = Instant::now();
        let mut schedule = schedule(&["a"], now);
        for question in take_all(&mut schedule, now) {
            schedule.finish(&question, &Outcome::NxDomain, now);
        }
        schedule.set_refresh(MIN, Duration::from_secs(120), now);
        due_in(&schedule, now, 120);
        assert_eq!(
            take_all(&mut schedule, now + Duration::from_secs(132)).len(),
            2
        );
    }
}
