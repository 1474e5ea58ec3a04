//! A limit on the rate of queries.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The timer wakes us up to a millisecond late. Above this rate slots are so close that being late
/// is made up for, a little.
const FINE: u32 = 100;

/// How far behind is made up for.
const SLACK: Duration = Duration::from_millis(4);

/// Slots are that much longer than the rate asks for: what leaves evenly arrives less so (4 ms are
/// kept for that), and no tenth of a second is to see more than its share.
const LONGER: f64 = 1.04;

/// With the slack there are 104 ms worth of slots in 100 ms, and one for the border; 7 ms are kept.
const FINE_LONGER: f64 = 1.12;

/// Gives out slots, evenly spaced. Nothing is saved up: a burst after a pause is what the servers
/// of the carriers should be spared.
#[derive(Debug)]
pub(super) struct Pacer {
    /// In nanoseconds.
    interval: AtomicU64,
    /// In nanoseconds.
    slack: AtomicU64,
    /// When the next slot is. The lock is held while waiting for it, so that two slots are never
    /// closer than the interval even if the timer wakes us late (but for the slack).
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    /// `per_second` slots a second; 0 is taken as 1.
    pub(super) fn new(per_second: u32) -> Self {
        let pacer = Self {
            interval: AtomicU64::default(),
            slack: AtomicU64::default(),
            next: Mutex::new(None),
        };
        pacer.set_rate(per_second);
        pacer
    }

    /// Changes the rate, from the slot after the next on.
    pub(super) fn set_rate(&self, per_second: u32) {
        let interval = 1_000_000_000_u64.div_ceil(per_second.max(1).into());
        let (longer, slack) = if per_second > FINE {
            (FINE_LONGER, SLACK)
        } else {
            (LONGER, Duration::ZERO)
        };
        let interval = (interval as f64 * longer) as u64;
        let slack = slack.as_nanos() as u64;
        self.interval.store(interval, Relaxed);
        self.slack.store(slack, Relaxed);
    }

    /// Waits for a slot. Who waits longest is next.
    pub(super) async fn slot(&self) {
        let mut next = self.next.lock().await;
        let slack = Duration::from_nanos(self.slack.load(Relaxed));
        let mut now = Instant::now();
        let mut slot = now;
        if let Some(at) = *next {
            if at > now {
                sleep_until(at).await;
                now = Instant::now();
            }
            // What was missed by less than the slack still counts from where it was due.
            slot = at.max(now.checked_sub(slack).unwrap_or(now));
        }
        let interval = Duration::from_nanos(self.interval.load(Relaxed));
        *next = Some(slot + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slots_are_spaced_and_not_saved_up() {
        let pacer = Pacer::new(20);
        let start = Instant::now();
        for slot in 0..40 {
            pacer.slot().await;
            assert!(start.elapsed() >= Duration::from_millis(50) * slot);
        }
        assert!(start.elapsed() < Duration::from_millis(54 * 40));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        pacer.slot().await;
        assert!(start.elapsed() < Duration::from_millis(2));
        pacer.slot().await;
        assert!(start.elapsed() >= Duration::from_millis(50));
        pacer.set_rate(1);
        pacer.slot().await;
        let start = Instant::now();
        pacer.slot().await;
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    /// However late we are woken, and however long nobody asked: no window of 100 ms and none of a
    /// second has more than the rate allows, and the rate is nearly reached.
    #[tokio::test(start_paused = true)]
    async fn no_window_has_more_than_the_rate() {
        for rate in [20_u32, 50, 100, 300, 1000, 2500, 10_000] {
            let pacer = Pacer::new(rate);
            let mut slots = Vec::new();
            let mut late = 7_u64;
            let mut away = Duration::ZERO;
            for n in 0..rate * 3 {
                pacer.slot().await;
                slots.push(Instant::now());
                // A scheduler that takes us off the CPU now and then.
                late = late.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let absence = match n {
                    n if n % 1013 == 1012 => Duration::from_millis(150),
                    n if n % 97 == 0 => Duration::from_micros(late >> 50),
                    _ => continue,
                };
                away += absence;
                tokio::time::advance(absence).await;
            }
            for (window, allowed) in [
                (Duration::from_millis(100), rate / 10),
                (Duration::from_secs(1), rate),
            ] {
                let most = most_within(&slots, window);
                assert!(
                    most <= allowed.max(1) as usize,
                    "{rate}: {most} in {window:?}"
                );
            }
            // tokio's timer counts whole milliseconds.
            let elapsed = slots[slots.len() - 1] - slots[0] - away;
            assert!(
                elapsed < Duration::from_millis(3000 * 5 / 4),
                "{rate}: three seconds' worth in {elapsed:?}"
            );
        }
    }

    fn most_within(slots: &[Instant], window: Duration) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, at) in slots.iter().enumerate() {
            while *at - slots[first] >= window {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }
}
