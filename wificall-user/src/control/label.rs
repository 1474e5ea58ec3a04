//! Labels: what a group's counters are counted under.

use std::collections::BTreeSet;

use wificall_common::abi::{GroupLabel, LABEL_LEN};

use crate::discover::Owner;

/// Members of a set that a label names; the rest is a number.
const NAMED: usize = 8;
/// What stands for an empty set.
const NONE: &str = "none";
/// What stands for the operators of endpoints that are not confirmed.
const OBSERVED: &str = "observed";

/// The operators and countries of an endpoint, as metrics show them.
///
/// An endpoint has a set of owners. The label joins their operators, and their countries, with `+`, in order; past eight
/// the rest is counted (`…+3 more`). So each packet is counted once, under all that it may belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Operators, such as `262-01` or `505-01+505-71`, or `none`.
    pub operator: String,
    /// Countries, such as `DE`, or `none`.
    pub country: String,
}

impl Label {
    /// The label of a set of owners.
    #[must_use]
    pub fn of(owners: &BTreeSet<Owner>) -> Self {
        let operators: BTreeSet<_> = owners.iter().filter_map(|owner| owner.plmn).collect();
        let countries: BTreeSet<_> = owners.iter().filter_map(|owner| owner.country).collect();
        Self {
            operator: join(operators.iter().map(ToString::to_string)),
            country: join(countries.iter().map(ToString::to_string)),
        }
    }

    /// The label of an endpoint that nobody of ours has confirmed. Groups are given out for good, and names can be made
    /// up by the thousand: so there is one group a country, and no combinations.
    #[must_use]
    pub fn observed(owners: &BTreeSet<Owner>) -> Self {
        let countries: BTreeSet<_> = owners.iter().map(|owner| owner.country).collect();
        let country = match countries.first() {
            Some(Some(country)) if countries.len() == 1 => country.to_string(),
            _ => NONE.into(),
        };
        Self {
            operator: OBSERVED.into(),
            country,
        }
    }

    /// What the addresses of companion names stand under: nothing is counted there.
    #[must_use]
    pub fn companion() -> Self {
        Self {
            operator: "companion".into(),
            country: NONE.into(),
        }
    }

    /// Where everything goes that finds no group any more.
    #[must_use]
    pub fn overflow() -> Self {
        Self {
            operator: "other".into(),
            country: "other".into(),
        }
    }

    /// As the kernel keeps it.
    #[must_use]
    pub fn to_abi(&self) -> GroupLabel {
        let mut bytes = [0; LABEL_LEN];
        let text = format!("{}\0{}", self.operator, self.country);
        // The last byte stays zero.
        let len = text.len().min(LABEL_LEN - 1);
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        GroupLabel { bytes }
    }

    /// As the kernel kept it.
    #[must_use]
    pub fn from_abi(label: &GroupLabel) -> Self {
        let text = String::from_utf8_lossy(&label.bytes);
        let mut parts = text.split('\0');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Self {
            operator: next(),
            country: next(),
        }
    }
}

fn join(members: impl Iterator<Item = String>) -> String {
    let members: Vec<_> = members.collect();
    if members.is_empty() {
        return NONE.into();
    }
    let named = members[..members.len().min(NAMED)].join("+");
    match members.len().saturating_sub(NAMED) {
        0 => named,
        rest => format!("{named}+{rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(plmn: &str, country: &str) -> Owner {
        Owner {
            plmn: plmn.parse().ok(),
            country: country.parse().ok(),
        }
    }

    #[test]
    fn sets_are_joined_in_order() {
        let label = Label::of(&[owner("505-02", "AU"), owner("505-01", "AU")].into());
        assert_eq!((&*label.operator, &*label.country), ("505-01+505-02", "AU"));
        let label = Label::of(&BTreeSet::new());
        assert_eq!((&*label.operator, &*label.country), ("none", "none"));
    }

    #[test]
    fn what_is_made_up_has_few_labels() {
        let one = Label::observed(&[owner("505-02", "AU"), owner("505-01", "AU")].into());
        assert_eq!((&*one.operator, &*one.country), ("observed", "AU"));
        for owners in [
            BTreeSet::new(),
            BTreeSet::from([owner("505-02", "AU"), owner("262-01", "DE")]),
            BTreeSet::from([owner("999-99", "")]),
        ] {
            let label = Label::observed(&owners);
            assert_eq!((&*label.operator, &*label.country), ("observed", "none"));
        }
    }

    #[test]
    fn the_kernel_knows_what_is_left_over_by_the_same_name() {
        let label = Label::overflow().to_abi();
        assert!(label.bytes.starts_with(crate::kernel::OTHER));
    }

    #[test]
    fn the_longest_label_fits_and_comes_back() {
        let owners = (10..40).map(|mnc| owner(&format!("310-0{mnc}"), "US"));
        let label = Label::of(&owners.collect());
        assert!(label.operator.ends_with("+22 more"), "{}", label.operator);
        assert_eq!(Label::from_abi(&label.to_abi()), label);
    }
}
