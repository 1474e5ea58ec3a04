//! Whether a gateway is up, by its answers.

use std::time::{Duration, Instant};

/// What is known of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// It has not been asked often enough to tell.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers, IKE through it has failed, and it is its turn: only being in use shows whether it works again.
    Due,
    /// It does not.
    Down,
}

/// How many answers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Down after so many unanswered in a row.
    pub down_after: u32,
    /// Up again after so many answered in a row.
    pub up_after: u32,
}

/// A gateway's answers to ARP or neighbour solicitations, or its link's state.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    state: State,
    hits: u32,
    misses: u32,
    last: Option<Instant>,
}

impl Answers {
    /// What they say.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When the last one came.
    #[must_use]
    pub const fn last(&self) -> Option<Instant> {
        self.last
    }

    /// It has answered. The first answer of all is enough; after an outage it takes several.
    pub fn hit(&mut self, patience: Patience, now: Instant) {
        self.misses = 0;
        self.last = Some(now);
        self.hits = self.hits.saturating_add(1);
        match self.state {
            State::Unknown => self.state = State::Up,
            State::Down if self.hits >= patience.up_after => self.state = State::Up,
            State::Up | State::Due | State::Down => {}
        }
    }

    /// It has not answered in time.
    pub fn miss(&mut self, patience: Patience) {
        self.hits = 0;
        self.misses = self.misses.saturating_add(1);
        if self.misses >= patience.down_after {
            self.state = State::Down;
        }
    }

    /// It cannot answer: its link is down.
    pub fn lose(&mut self) {
        self.hits = 0;
        self.state = State::Down;
    }

    /// Its link is up, and that is all that is asked of it.
    pub fn assume(&mut self, now: Instant) {
        self.state = State::Up;
        self.last = Some(now);
    }

    /// Nothing stands in its way any more; it has yet to answer.
    pub fn forgive(&mut self) {
        *self = Self {
            last: self.last,
            ..Self::default()
        };
    }
}

/// What IKE through a gateway has shown. Only the gateway in use can be tried so: one that has failed is out until it is
/// its turn again, each time after a longer while.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    misses: u32,
    failures: u32,
    out_until: Option<Instant>,
}

/// How long a gateway is out after its first failure; twice as long after each other.
pub const OUT_FIRST: Duration = Duration::from_secs(30);
/// And at most.
pub const OUT_MAX: Duration = Duration::from_secs(1800);

impl Trials {
    /// An ePDG has answered through it.
    pub fn hit(&mut self) {
        *self = Self::default();
    }

    /// None has. After an outage one is enough.
    pub fn miss(&mut self, patience: Patience, now: Instant) {
        self.misses = self.misses.saturating_add(1);
        if self.failures > 0 || self.misses >= patience.down_after {
            let doubled = OUT_FIRST.saturating_mul(1 << self.failures.min(16));
            self.out_until = Some(now + doubled.min(OUT_MAX));
            self.failures = self.failures.saturating_add(1);
            self.misses = 0;
        }
    }

    /// Until when it is not to be used, if that is to come.
    #[must_use]
    pub fn out_until(&self, now: Instant) -> Option<Instant> {
        self.out_until.filter(|until| *until > now)
    }

    /// The state of a gateway of which its answers say `state`: where IKE has failed, an answer to ARP is not enough.
    #[must_use]
    pub fn judge(&self, state: State, now: Instant) -> State {
        match state {
            State::Up if self.out_until(now).is_some() => State::Down,
            State::Up if self.failures > 0 => State::Due,
            state => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        down_after: 3,
        up_after: 2,
    };

    #[test]
    fn down_after_so_many_in_a_row_and_up_again_after_so_many() {
        let now = Instant::now();
        let mut answers = Answers::default();
        assert_eq!(answers.state(), State::Unknown);
        answers.hit(PATIENCE, now);
        assert_eq!(answers.state(), State::Up);
        for _ in 0..2 {
            answers.miss(PATIENCE);
            answers.miss(PATIENCE);
            assert_eq!(answers.state(), State::Up);
            answers.hit(PATIENCE, now);
        }
        for _ in 0..3 {
            assert_eq!(answers.state(), State::Up);
            answers.miss(PATIENCE);
        }
        assert_eq!(answers.state(), State::Down);
        answers.hit(PATIENCE, now);
        answers.miss(PATIENCE);
        answers.hit(PATIENCE, now);
        assert_eq!(answers.state(), State::Down, "two in a row");
        answers.hit(PATIENCE, now);
        assert_eq!((answers.state(), answers.last()), (State::Up, Some(now)));
    }

    #[test]
    fn one_never_heard_of_is_down_after_as_many() {
        let mut answers = Answers::default();
        answers.miss(PATIENCE);
        answers.miss(PATIENCE);
        assert_eq!(answers.state(), State::Unknown);
        answers.miss(PATIENCE);
        assert_eq!(answers.state(), State::Down);
    }

    #[test]
    fn a_link_that_goes_takes_its_gateway_along_at_once() {
        let mut answers = Answers::default();
        answers.hit(PATIENCE, Instant::now());
        answers.lose();
        assert_eq!(answers.state(), State::Down);
        answers.forgive();
        assert_eq!(answers.state(), State::Unknown);
        assert!(answers.last().is_some());
    }

    #[test]
    fn ike_that_fails_puts_a_gateway_out_for_ever_longer() {
        let mut now = Instant::now();
        let mut trials = Trials::default();
        for _ in 0..2 {
            trials.miss(PATIENCE, now);
            assert_eq!(trials.judge(State::Up, now), State::Up);
        }
        trials.miss(PATIENCE, now);
        for seconds in [30, 60, 120, 240, 480, 960, 1800, 1800] {
            let until = now + Duration::from_secs(seconds);
            assert_eq!(trials.out_until(now), Some(until));
            assert_eq!(trials.judge(State::Up, now), State::Down);
            now = until;
            assert_eq!(trials.judge(State::Up, now), State::Due, "its turn");
            assert_eq!(trials.judge(State::Down, now), State::Down, "no ARP");
            trials.miss(PATIENCE, now);
        }
        trials.hit();
        assert_eq!(trials.judge(State::Up, now), State::Up);
    }
}
