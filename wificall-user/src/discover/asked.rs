//! What became of the questions for a name. There may be thirty thousand names, most of which do
//! not exist: this is kept small.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{FailureKind, Family, Outcome, Owner};

/// Texts of failures that are told apart; what comes beyond shows its kind only.
const ERRORS_MAX: usize = 64;

/// What became of the questions for one family of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When an answer, or none, came last.
    pub last_attempt: Option<SystemTime>,
    /// When an answer with addresses came last.
    pub last_success: Option<SystemTime>,
    /// What the last attempt brought: [`Outcome::as_str`].
    pub result: Option<&'static str>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// TTL of the last answer with addresses.
    pub ttl: Option<Duration>,
    /// Failed attempts since the last answer of any kind.
    pub failures: u32,
    /// Addresses of the last answer that the filter refused.
    pub refused: usize,
}

/// A time in eight bytes: milliseconds since 1970, 0 for none.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Time(u64);

impl Time {
    fn get(self) -> Option<SystemTime> {
        (self.0 != 0).then(|| UNIX_EPOCH + Duration::from_millis(self.0))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        // What a state file may claim must stay within what a clock can tell.
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self(millis.clamp(1, 1 << 52))
    }
}

/// [`Asked`], packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Packed {
    last_attempt: Time,
    last_success: Time,
    /// A thin pointer, and shared: when DNS is down, all names fail alike.
    error: Option<Arc<String>>,
    ttl: u32,
    failures: u16,
    refused: u16,
    result: Option<Result>,
}

/// An [`Outcome`] without its contents.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Result {
    Addresses,
    NoData,
    NxDomain,
    Failed(FailureKind),
}

impl Result {
    const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Addresses { .. } => Self::Addresses,
            Outcome::NoData => Self::NoData,
            Outcome::NxDomain => Self::NxDomain,
            Outcome::Failed(failure) => Self::Failed(failure.kind),
        }
    }

    /// As [`Outcome::as_str`].
    const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::NoData => "no_data",
            Self::NxDomain => "nx_domain",
            Self::Failed(kind) => kind.as_str(),
        }
    }
}

/// A name that is looked up, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameState {
    /// Whose it is; empty for a name no longer configured. Names share their sets.
    pub owners: Arc<BTreeSet<Owner>>,
    asked: [Packed; 2],
}

impl NameState {
    /// A name that nobody was asked about yet.
    #[must_use]
    pub fn of(owners: Arc<BTreeSet<Owner>>) -> Self {
        Self {
            owners,
            ..Self::default()
        }
    }

    /// The questions for one family.
    #[must_use]
    pub fn asked(&self, family: Family) -> Asked {
        let packed = &self.asked[family as usize];
        Asked {
            last_attempt: packed.last_attempt.get(),
            last_success: packed.last_success.get(),
            result: packed.result.map(Result::as_str),
            error: packed.error.as_deref().cloned(),
            ttl: (packed.last_success != Time::default())
                .then(|| Duration::from_secs(packed.ttl.into())),
            failures: packed.failures.into(),
            refused: packed.refused.into(),
        }
    }

    /// When an answer with addresses of a family came last.
    #[must_use]
    pub(super) fn success(&self, family: Family) -> Option<SystemTime> {
        self.asked[family as usize].last_success.get()
    }

    /// When an answer with addresses came last, of either family.
    #[must_use]
    pub fn last_success(&self) -> Option<SystemTime> {
        self.asked.iter().filter_map(|a| a.last_success.get()).max()
    }

    /// Whether the last attempt failed for every family that ever answered with addresses; `None`
    /// if none did. A server that cannot say one thing of a name still says the other.
    #[must_use]
    pub fn failing(&self) -> Option<bool> {
        let answered = |asked: &&Packed| asked.last_success != Time::default();
        let failed = |asked: &Packed| matches!(asked.result, Some(Result::Failed(_)));
        let failing = self.asked.iter().filter(answered).all(failed);
        self.last_success().map(|_| failing)
    }

    /// Whether both families were asked for and the last answers to both denied that there is any
    /// address.
    pub(super) fn denied(&self) -> bool {
        self.asked
            .iter()
            .all(|asked| matches!(asked.result, Some(Result::NoData | Result::NxDomain)))
    }

    pub(super) fn configured(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Notes what came of a question. `refused` addresses of the answer did not pass the filter.
    pub(super) fn note(
        &mut self,
        family: Family,
        outcome: &Outcome,
        at: SystemTime,
        refused: usize,
        errors: &mut Errors,
    ) {
        let asked = &mut self.asked[family as usize];
        asked.last_attempt = at.into();
        asked.result = Some(Result::of(outcome));
        asked.error = None;
        match outcome {
            Outcome::Addresses { ttl, .. } => {
                asked.failures = 0;
                asked.last_success = at.into();
                asked.ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
                asked.refused = u16::try_from(refused).unwrap_or(u16::MAX);
            }
            Outcome::NoData | Outcome::NxDomain => asked.failures = 0,
            Outcome::Failed(failure) => {
                asked.failures = asked.failures.saturating_add(1);
                asked.error = Some(errors.share(failure.to_string(), failure.kind.as_str()));
            }
        }
    }

    /// Puts back what was kept on disk.
    pub(super) fn restore(&mut self, family: Family, success: SystemTime, ttl: Duration) {
        let asked = &mut self.asked[family as usize];
        asked.last_success = success.into();
        asked.ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    }
}

/// The texts of failures, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors(HashSet<Arc<String>>);

impl Errors {
    fn share(&mut self, text: String, kind: &'static str) -> Arc<String> {
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        if self.0.len() >= ERRORS_MAX {
            self.0.retain(|text| Arc::strong_count(text) > 1);
        }
        let text = if self.0.len() < ERRORS_MAX {
            text
        } else {
            kind.to_owned()
        };
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        let text = Arc::new(text);
        self.0.insert(text.clone());
        text
    }
}
