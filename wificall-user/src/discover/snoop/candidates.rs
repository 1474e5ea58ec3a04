//! Addresses that answered an IKE_SA_INIT and that nothing else says to be an ePDG.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::catalogue::Country;

/// Candidates that are remembered.
const CANDIDATES: usize = 256;
/// How long one stays after its last exchange.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// An address that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is, by the GeoIP database.
    pub country: Option<Country>,
    /// When it answered first.
    pub first: SystemTime,
    /// When it answered last.
    pub last: SystemTime,
    /// How many exchanges were seen.
    pub exchanges: u64,
}

/// The candidates.
#[derive(Debug, Default)]
pub struct Candidates(BTreeMap<IpAddr, Candidate>);

impl Candidates {
    /// Notes an exchange; whether the address is new.
    pub(super) fn note(
        &mut self,
        address: IpAddr,
        country: impl FnOnce() -> Option<Country>,
        now: SystemTime,
    ) -> bool {
        if let Some(known) = self.0.get_mut(&address) {
            known.last = now;
            known.exchanges += 1;
            return false;
        }
        if self.0.len() >= CANDIDATES {
            let oldest = self.0.iter().min_by_key(|(_, candidate)| candidate.last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.0.remove(&oldest);
            }
        }
        let candidate = Candidate {
            country: country(),
            first: now,
            last: now,
            exchanges: 1,
        };
        self.0.insert(address, candidate);
        true
    }

    pub(super) fn expire(&mut self, now: SystemTime) {
        // A time in the future (the clock was wrong once) counts as just now.
        self.0.retain(|_, candidate| {
            now.duration_since(candidate.last)
                .map_or(true, |age| age < KEEP)
        });
    }

    /// All, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Candidate)> {
        self.0
            .iter()
            .map(|(address, candidate)| (*address, candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_counted_bounded_and_forgotten() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut candidates = Candidates::default();
        for number in 0..1000_u32 {
            let now = start + Duration::from_secs(number.into());
            assert!(candidates.note(number.to_be_bytes().into(), || None, now));
        }
        assert_eq!(candidates.iter().count(), CANDIDATES);
        let last: IpAddr = 999_u32.to_be_bytes().into();
        assert!(!candidates.note(last, || unreachable!(), start + Duration::from_secs(2000)));
        // The clock is set back for a moment.
        candidates.expire(start - KEEP);
        assert_eq!(candidates.iter().count(), CANDIDATES);
        candidates.expire(start + Duration::from_secs(1500) + KEEP);
        let left: Vec<_> = candidates.iter().collect();
        assert_eq!((left.len(), left[0].0, left[0].1.exchanges), (1, last, 2));
    }
}
