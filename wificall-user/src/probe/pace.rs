//! When exchanges may begin.

use std::time::{Duration, Instant};

/// Spaces exchanges: never faster than the rate, and not to the beat of a clock. Nothing is saved up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    spacing: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// At least `spacing` between two, and up to a quarter more.
    #[must_use]
    pub const fn new(spacing: Duration) -> Self {
        Self {
            spacing,
            next: None,
        }
    }

    /// `per_second` exchanges a second at most; 0 is taken as 1.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        Self::new(Duration::from_secs(1) / per_second.max(1))
    }

    /// Changes the spacing, from the slot after the next on.
    pub const fn set_spacing(&mut self, spacing: Duration) {
        self.spacing = spacing;
    }

    /// When the next slot is; `None` if at once.
    #[must_use]
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes the next slot: when it is. `random` decides how much later the one after it comes.
    pub fn slot(&mut self, now: Instant, random: u8) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        let jitter = self.spacing / 4 * u32::from(random) / 255;
        self.next = Some(at + self.spacing + jitter);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_never_closer_than_the_rate_and_never_saved_up() {
        let start = Instant::now();
        let mut pace = Pace::per_second(10);
        let mut last = pace.slot(start, 0);
        assert_eq!(last, start);
        for random in 0..=255 {
            let slot = pace.slot(start, random);
            let pause = slot - last;
            assert!((100..=125).contains(&pause.as_millis()), "{pause:?}");
            last = slot;
        }
        let later = last + Duration::from_secs(60);
        assert_eq!(pace.slot(later, 255), later);
        assert_eq!(pace.slot(later, 0), later + Duration::from_millis(125));
    }
}
