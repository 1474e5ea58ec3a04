//! A limit on the rate of queries.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Gives out slots, evenly spaced. Nothing is saved up: a burst after a pause is what the servers
/// of the carriers should be spared.
#[derive(Debug)]
pub(super) struct Pacer {
    /// In nanoseconds.
    interval: AtomicU64,
    /// When the next slot is. The lock is held while waiting for it, so that two slots are never
    /// closer than the interval even if the timer wakes us late.
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    /// `per_second` slots a second; 0 is taken as 1.
    pub(super) fn new(per_second: u32) -> Self {
        let pacer = Self {
            interval: AtomicU64::default(),
            next: Mutex::new(None),
        };
        pacer.set_rate(per_second);
        pacer
    }

    /// Changes the rate, from the slot after the next on.
    pub(super) fn set_rate(&self, per_second: u32) {
        let interval = 1_000_000_000_u64.div_ceil(per_second.max(1).into());
        self.interval.store(interval, Relaxed);
    }

    /// Waits for a slot. Who waits longest is next.
    pub(super) async fn slot(&self) {
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            sleep_until(at).await;
        }
        let interval = Duration::from_nanos(self.interval.load(Relaxed));
        *next = Some(Instant::now() + interval);
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
        assert!(start.elapsed() < Duration::from_millis(52 * 40));
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
}
