//! What to look for: the names of the configured operators, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Country, OperatorPattern, Plmn};

/// Whose an endpoint is. An endpoint has a set of owners: many ePDGs serve several operators, and
/// some several countries.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Owner {
    /// The operator; `None` where only the country is known.
    pub plmn: Option<Plmn>,
    /// The country. Of an operator it is the main one of its MCC, for nothing in its names tells
    /// more; `None` for operators of no country.
    pub country: Option<Country>,
}

impl Owner {
    /// The operator as the catalogue writes it, and its country.
    #[must_use]
    pub fn of(catalogue: &Catalogue, plmn: Plmn) -> Self {
        Self {
            plmn: Some(catalogue.operator(plmn).map_or(plmn, |o| o.plmn)),
            country: catalogue.country_of(plmn),
        }
    }
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, in lower case and without a final dot.
    pub name: Arc<str>,
    /// Whose addresses it has.
    pub owners: BTreeSet<Owner>,
}

/// Everything to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Names, sorted, each once.
    pub names: Vec<Target>,
    /// Addresses that carriers give their handsets in place of a name, sorted, each once. They
    /// need no DNS and do not expire.
    pub addresses: Vec<(IpAddr, BTreeSet<Owner>)>,
}

/// The names and addresses of all operators that a pattern names or that belong to a country.
///
/// A pattern of one operator counts whether catalogued or not; `262-*` and a country stand for
/// the catalogued operators.
#[must_use]
pub fn targets(
    catalogue: &Catalogue,
    operators: &[OperatorPattern],
    countries: &[Country],
) -> Targets {
    let mut names: BTreeMap<Arc<str>, BTreeSet<Owner>> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, BTreeSet<Owner>> = BTreeMap::new();
    for plmn in plmns(catalogue, operators, countries) {
        let owner = Owner::of(catalogue, plmn);
        for name in catalogue.names(plmn) {
            names.entry(name.name.into()).or_default().insert(owner);
        }
        for address in catalogue.addresses(plmn) {
            addresses.entry(address).or_default().insert(owner);
        }
    }
    Targets {
        names: names
            .into_iter()
            .map(|(name, owners)| Target { name, owners })
            .collect(),
        addresses: addresses.into_iter().collect(),
    }
}

fn plmns(
    catalogue: &Catalogue,
    operators: &[OperatorPattern],
    countries: &[Country],
) -> BTreeSet<Plmn> {
    let mut plmns = BTreeSet::new();
    let mut mccs = BTreeSet::new();
    for pattern in operators {
        match *pattern {
            OperatorPattern::Exact(plmn) => {
                plmns.insert(plmn);
            }
            OperatorPattern::AllOf { mcc } => {
                mccs.insert(mcc);
            }
        }
    }
    for country in countries {
        mccs.extend(catalogue.mccs_of(*country));
    }
    for mcc in mccs {
        plmns.extend(catalogue.operators_of(mcc).map(|operator| operator.plmn));
    }
    plmns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    fn find(operators: &[&str], countries: &[&str]) -> Targets {
        let operators: Vec<_> = operators.iter().map(|o| o.parse().unwrap()).collect();
        let countries: Vec<_> = countries.iter().map(|c| c.parse().unwrap()).collect();
        targets(catalogue(), &operators, &countries)
    }

    fn owners(target: &Target) -> Vec<String> {
        let owners = target.owners.iter();
        owners
            .map(|o| format!("{} {}", o.plmn.unwrap(), o.country.unwrap()))
            .collect()
    }

    #[test]
    fn one_operator_catalogued_or_not() {
        assert_eq!(find(&["262-01"], &[]).names.len(), 3);
        let unknown = find(&["262-98"], &[]);
        assert_eq!(unknown.names.len(), 3);
        assert_eq!(owners(&unknown.names[0]), ["262-98 DE"]);
        // Written otherwise, shown as the operator writes it.
        assert_eq!(owners(&find(&["262-001"], &[]).names[0]), ["262-01 DE"]);
        assert_eq!(find(&[], &[]), Targets::default());
    }

    #[test]
    fn a_name_of_several_operators_has_all_of_them() {
        let targets = find(&["310-004", "311-480", "204-04"], &[]);
        let shared = targets.names.iter().find(|t| &*t.name == "wo.vzwwo.com");
        assert_eq!(
            owners(shared.unwrap()),
            ["204-04 NL", "310-004 US", "311-480 US"]
        );
    }

    #[test]
    fn a_country_has_the_operators_of_all_its_mccs() {
        let targets = find(&["505-*", "262-*"], &["AU", "US"]);
        let mccs: BTreeSet<_> = targets
            .names
            .iter()
            .flat_map(|t| &t.owners)
            .map(|o| o.plmn.unwrap().mcc())
            .collect();
        assert_eq!(mccs, [262, 310, 311, 312, 313, 314, 315, 316, 505].into());
        assert!(targets.names.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn addresses_need_no_name() {
        let targets = find(&["338-180", "342-600"], &[]);
        let (address, owners) = &targets.addresses[0];
        assert_eq!(address.to_string(), "69.79.196.12");
        assert_eq!(owners.len(), 2);
        assert_eq!(targets.addresses.len(), 1);
    }
}
