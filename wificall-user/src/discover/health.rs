//! Whether a server answers. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// So many questions in a row without any answer, and a server is taken to be down. A few are lost
/// datagrams, or names whose own servers are dead.
const FAILURES: u32 = 8;

/// A server that is down is tried again after this, then after twice as long each time.
const FIRST: Duration = Duration::from_secs(1);

/// And at least this often.
const LONGEST: Duration = Duration::from_secs(30);

/// What is known of a server.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Questions in a row that brought no answer.
    failures: u32,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    /// When it is tried next.
    next: Instant,
    wait: Duration,
}

impl Health {
    /// Whether to ask it. Of a server that is down this is true once for each time that it is to
    /// be tried: one question finds out, and the others need not wait for it.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        match &mut self.down {
            None => true,
            Some(down) if now >= down.next => {
                down.wait = (down.wait * 2).min(LONGEST);
                down.next = now + down.wait;
                true
            }
            Some(_) => false,
        }
    }

    /// When it may be asked, if that is later.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.down
            .as_ref()
            .map(|down| down.next)
            .filter(|next| *next > now)
    }

    /// For how long it has been down.
    pub(super) fn down_for(&self, now: Instant) -> Option<Duration> {
        let down = self.down.as_ref()?;
        Some(now.saturating_duration_since(down.since))
    }

    /// It answered, whatever it said. Returns whether it had been down.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.down.take().is_some()
    }

    /// It did not. Returns whether it is down from now on.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let is_new = self.failures >= FAILURES && self.down.is_none();
        if is_new {
            self.down = Some(Down {
                since: now,
                next: now + FIRST,
                wait: FIRST,
            });
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_server_is_left_alone_and_tried_ever_more_rarely() {
        let start = Instant::now();
        let mut health = Health::default();
        for _ in 1..FAILURES {
            assert!(health.may_ask(start) && !health.failed(start));
        }
        // An answer in between: it is alive.
        assert!(!health.answered());
        for _ in 1..FAILURES {
            assert!(!health.failed(start));
        }
        assert!(health.failed(start));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(!health.may_ask(now));
            let next = health.blocked_until(now).unwrap();
            waits.push((next - now).as_secs());
            now = next;
            assert!(health.may_ask(now));
            // Others do not wait for the one that tries.
            assert!(!health.may_ask(now));
            assert!(!health.failed(now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(health.down_for(now), Some(now - start));
        assert!(health.answered() && health.may_ask(now));
        assert_eq!(
            (health.down_for(now), health.blocked_until(now)),
            (None, None)
        );
    }
}
