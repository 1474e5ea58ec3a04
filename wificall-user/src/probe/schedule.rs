//! When the agent probes what: each address and port once an interval, one at a time, well spaced. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::pace::Pace;

/// An address and a port.
pub type Key = (IpAddr, u16);

/// The schedule.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    pace: Pace,
    due: BTreeMap<Key, Instant>,
    running: bool,
}

impl Schedule {
    /// Each key is due once an `interval`; exchanges are at least `spacing` apart. Where both do not fit, the interval
    /// grows.
    #[must_use]
    pub const fn new(interval: Duration, spacing: Duration) -> Self {
        Self {
            interval,
            pace: Pace::new(spacing),
            due: BTreeMap::new(),
            running: false,
        }
    }

    /// Changes the interval and the spacing. What is due earlier stays so.
    pub fn configure(&mut self, interval: Duration, spacing: Duration, now: Instant) {
        self.interval = interval;
        self.pace.set_spacing(spacing);
        for due in self.due.values_mut() {
            *due = (*due).min(now + interval);
        }
    }

    /// Probes these from now on; new ones are due at once.
    pub fn replace(&mut self, keys: &BTreeSet<Key>, now: Instant) {
        self.due.retain(|key, _| keys.contains(key));
        for key in keys {
            self.due.entry(*key).or_insert(now);
        }
    }

    /// When [`take`](Self::take) gives something; `None` while an exchange runs, or with nothing to do.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        if self.running {
            return None;
        }
        let due = self.due.values().min()?;
        Some(self.pace.next().map_or(*due, |next| next.max(*due)))
    }

    /// The key to probe now: the one that waits longest. `random` spreads the next.
    pub fn take(&mut self, now: Instant, random: u8) -> Option<Key> {
        if self.wake()? > now {
            return None;
        }
        let (key, _) = self.due.iter().min_by_key(|(_, due)| **due)?;
        let key = *key;
        self.pace.slot(now, random);
        self.running = true;
        Some(key)
    }

    /// The exchange is over; the next with this key comes an interval later, and up to an eighth more.
    pub fn finish(&mut self, key: Key, now: Instant, random: u8) {
        self.running = false;
        if let Some(due) = self.due.get_mut(&key) {
            *due = now + self.interval + self.interval / 8 * u32::from(random) / 255;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SPACING: Duration = Duration::from_secs(10);

    fn keys(count: u8) -> BTreeSet<Key> {
        (0..count)
            .flat_map(|n| [500, 4500].map(|port| (IpAddr::from([198, 18, 0, n]), port)))
            .collect()
    }

    /// Runs the schedule; each exchange takes `lasts`. When each key was probed.
    fn run(
        schedule: &mut Schedule,
        start: Instant,
        length: Duration,
        lasts: Duration,
    ) -> Vec<(Duration, Key)> {
        let mut now = start;
        let mut probed = Vec::new();
        while let Some(wake) = schedule.wake() {
            now = now.max(wake);
            if now >= start + length {
                break;
            }
            let random = (probed.len() * 37 % 256) as u8;
            let key = schedule.take(now, random).expect("it is time");
            assert_eq!(
                (schedule.take(now, 0), schedule.wake()),
                (None, None),
                "one at a time"
            );
            probed.push((now - start, key));
            now += lasts;
            schedule.finish(key, now, random);
        }
        probed
    }

    #[test]
    fn each_key_once_an_interval_and_never_in_a_hurry() {
        let start = Instant::now();
        let mut schedule = Schedule::new(6 * HOUR, SPACING);
        assert_eq!(schedule.wake(), None);
        schedule.replace(&keys(20), start);
        let probed = run(&mut schedule, start, 24 * HOUR, Duration::from_secs(5));
        let first: BTreeSet<Key> = probed[..40].iter().map(|(_, key)| *key).collect();
        assert_eq!(first, keys(20));
        for pair in probed.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= SPACING);
        }
        // Four rounds less what jitter takes.
        assert!(
            (3 * 40..=4 * 40).contains(&probed.len()),
            "{}",
            probed.len()
        );
    }

    #[test]
    fn too_many_for_the_interval_make_it_longer_and_starve_nobody() {
        let start = Instant::now();
        let mut schedule = Schedule::new(HOUR, SPACING);
        schedule.replace(&keys(250), start);
        let probed = run(&mut schedule, start, 6 * HOUR, Duration::from_secs(1));
        assert!(probed.len() <= 6 * 360);
        for key in keys(250) {
            let times = probed.iter().filter(|(_, probed)| *probed == key).count();
            assert!(times >= 3, "{key:?}: {times}");
        }
    }

    #[test]
    fn changes_keep_what_stays() {
        let start = Instant::now();
        let mut schedule = Schedule::new(6 * HOUR, SPACING);
        schedule.replace(&keys(1), start);
        let probed = run(&mut schedule, start, HOUR, Duration::from_secs(1));
        assert_eq!(probed.len(), 2);
        let later = start + HOUR;
        schedule.replace(&keys(2), later);
        // The new ones at once, the old ones when they would have been.
        let probed = run(&mut schedule, later, HOUR, Duration::from_secs(1));
        let new: BTreeSet<Key> = probed.into_iter().map(|(_, key)| key).collect();
        assert_eq!(new, &keys(2) - &keys(1));
        let much_later = later + HOUR;
        schedule.configure(HOUR / 2, SPACING, much_later);
        assert!(schedule.wake().unwrap() <= much_later + HOUR / 2);
        // One that goes while it is probed is forgotten.
        let key = schedule.take(much_later + HOUR, 0).unwrap();
        schedule.replace(&BTreeSet::new(), much_later + HOUR);
        schedule.finish(key, much_later + HOUR, 0);
        assert_eq!(schedule.wake(), None);
    }
}
