//! Operators' numbers: MCC and MNC (ITU-T E.212, 3GPP TS 23.003 §2.2).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

/// A mobile network: country code (MCC) and network code (MNC).
///
/// Two values are equal if they give the same ePDG name. Names pad the MNC to three digits
/// (TS 23.003 §19.2), so the number of digits is kept for display and is no part of the identity.
#[derive(Copy, Clone, Debug)]
pub struct Plmn {
    mcc: u16,
    mnc: u16,
    mnc_digits: u8,
}

impl Plmn {
    /// Makes a PLMN. `None` if `mcc` is not 1..=999, `mnc_digits` is not 2 or 3, or `mnc` has more
    /// digits than that.
    #[must_use]
    pub const fn new(mcc: u16, mnc: u16, mnc_digits: u8) -> Option<Self> {
        let mnc_limit = match mnc_digits {
            2 => 100,
            3 => 1000,
            _ => return None,
        };
        if mcc == 0 || mcc > 999 || mnc >= mnc_limit {
            return None;
        }
        Some(Self {
            mcc,
            mnc,
            mnc_digits,
        })
    }

    /// Mobile country code, 1..=999.
    #[must_use]
    pub const fn mcc(self) -> u16 {
        self.mcc
    }

    /// Mobile network code, 0..=999.
    #[must_use]
    pub const fn mnc(self) -> u16 {
        self.mnc
    }

    /// How many digits the operator writes its MNC with: 2 or 3.
    #[must_use]
    pub const fn mnc_digits(self) -> u8 {
        self.mnc_digits
    }

    const fn key(self) -> (u16, u16) {
        (self.mcc, self.mnc)
    }
}

impl PartialEq for Plmn {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Plmn {}

impl Hash for Plmn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Plmn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Plmn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Plmn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = usize::from(self.mnc_digits);
        f.pad(&format!("{:03}-{:0width$}", self.mcc, self.mnc))
    }
}

impl serde::Serialize for Plmn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no operator (or no pattern of operators).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{found}` is not an operator: expected {}", Self::EXPECTED)]
pub struct PlmnError {
    /// The text as it was given.
    pub found: String,
    /// What was probably meant, in the form that is accepted.
    pub suggestion: Option<String>,
}

impl PlmnError {
    /// The form that is accepted.
    pub const EXPECTED: &str = "MCC-MNC with three and two or three digits, such as 262-01";

    fn new(found: &str) -> Self {
        Self {
            found: found.to_owned(),
            suggestion: suggest(found),
        }
    }
}

/// `26201`, `262/01`, `262 01` and `262-1` can only mean one thing each, and `262-0001` too many
/// zeros.
fn suggest(found: &str) -> Option<String> {
    if let Some((mcc, mnc)) = found.split_once('-')
        && (mcc.len() > 3 || mnc.len() > 3)
    {
        let (mcc, mnc) = (parse_mcc(mcc)?, parse_digits(mnc)?);
        let digits = if mnc > 99 { 3 } else { 2 };
        return Plmn::new(mcc, mnc, digits).map(|plmn| plmn.to_string());
    }
    let digits: String = found.chars().filter(char::is_ascii_digit).collect();
    if found
        .chars()
        .any(|c| !c.is_ascii_digit() && !"-/_. ".contains(c))
    {
        return None;
    }
    let (mcc, mnc) = digits
        .split_at_checked(3)
        .filter(|(_, mnc)| !mnc.is_empty())?;
    parse(&format!("{mcc}-{mnc:0>2}")).map(|plmn| plmn.to_string())
}

fn parse(text: &str) -> Option<Plmn> {
    let (mcc, mnc) = text.split_once('-')?;
    let mnc_digits = u8::try_from(mnc.len()).ok()?;
    Plmn::new(parse_mcc(mcc)?, parse_digits(mnc)?, mnc_digits)
}

fn parse_mcc(text: &str) -> Option<u16> {
    (text.len() == 3).then(|| parse_digits(text)).flatten()
}

/// Digits only: `u16::from_str` alone would also take a sign.
fn parse_digits(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

impl FromStr for Plmn {
    type Err = PlmnError;

    fn from_str(text: &str) -> Result<Self, PlmnError> {
        parse(text).ok_or_else(|| PlmnError::new(text))
    }
}

/// One operator, or all of a country code.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorPattern {
    /// Written `262-01`.
    Exact(Plmn),
    /// Written `505-*`.
    AllOf {
        /// The country code.
        mcc: u16,
    },
}

impl OperatorPattern {
    /// Whether `plmn` is meant.
    #[must_use]
    pub fn matches(&self, plmn: &Plmn) -> bool {
        match self {
            Self::Exact(exact) => exact == plmn,
            Self::AllOf { mcc } => *mcc == plmn.mcc,
        }
    }
}

impl fmt::Display for OperatorPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(plmn) => plmn.fmt(f),
            Self::AllOf { mcc } => f.pad(&format!("{mcc:03}-*")),
        }
    }
}

impl FromStr for OperatorPattern {
    type Err = PlmnError;

    fn from_str(text: &str) -> Result<Self, PlmnError> {
        match text.strip_suffix("-*") {
            Some(mcc) => match parse_mcc(mcc) {
                Some(mcc) if mcc > 0 => Ok(Self::AllOf { mcc }),
                _ => Err(PlmnError::new(text)),
            },
            None => text.parse().map(Self::Exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plmn(text: &str) -> Plmn {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes() {
        for text in ["262-01", "310-260", "001-01", "405-045"] {
            assert_eq!(plmn(text).to_string(), text);
        }
        assert_eq!(format!("{:>8}", plmn("262-01")), "  262-01");
    }

    #[test]
    fn padding_is_no_difference() {
        assert_eq!(plmn("262-01"), plmn("262-001"));
        assert_ne!(plmn("262-01"), plmn("262-10"));
        assert!(plmn("262-99") < plmn("262-100"));
        let set: std::collections::HashSet<_> = ["310-26", "310-026"].map(plmn).into();
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn refuses_with_a_suggestion() {
        for (found, suggestion) in [
            ("26201", Some("262-01")),
            ("310260", Some("310-260")),
            ("262/01", Some("262-01")),
            ("262-1", Some("262-01")),
            ("", None),
            ("262", None),
            ("262-", None),
            ("26-201", Some("262-01")),
            ("262-01*", None),
            ("262-1000", None),
            ("1262-01", None),
            ("+62-01", None),
            ("000-01", None),
            ("262-0001", Some("262-01")),
            ("262-x1", None),
            ("DE", None),
            ("262-٠١", None),
        ] {
            let error = found.parse::<Plmn>().unwrap_err();
            assert_eq!(error.found, found);
            assert_eq!(error.suggestion.as_deref(), suggestion, "{found}");
        }
    }

    #[test]
    fn patterns() {
        let all: OperatorPattern = "505-*".parse().unwrap();
        assert!(all.matches(&plmn("505-01")) && !all.matches(&plmn("506-01")));
        assert_eq!(all.to_string(), "505-*");
        let one: OperatorPattern = "310-26".parse().unwrap();
        assert!(one.matches(&plmn("310-026")));
        assert!(!one.matches(&plmn("310-260")));
        for bad in ["*", "*-*", "50-*", "505*", "505-0*", "000-*"] {
            assert!(bad.parse::<OperatorPattern>().is_err(), "{bad}");
        }
    }
}
