//! What to look for: the names of the configured operators, and whose they are.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use crate::catalogue::Owner;
use crate::catalogue::{Catalogue, Country, OperatorPattern, Plmn};
use crate::config::ExtraName;

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, in lower case and without a final dot.
    pub name: Arc<str>,
    /// Whose addresses it has. Names share their sets: there may be thirty thousand.
    pub owners: Arc<BTreeSet<Owner>>,
}

/// Everything to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Names, sorted, each once.
    pub names: Vec<Target>,
    /// Addresses that carriers give their handsets in place of a name, sorted, each once. They
    /// need no DNS and do not expire.
    pub addresses: Vec<(IpAddr, BTreeSet<Owner>)>,
    /// Networks that carriers' ePDGs are known to be in, sorted, each once; likewise.
    pub networks: Vec<(IpNet, BTreeSet<Owner>)>,
}

/// What to look for, as a configuration or a command line says it.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Selection<'a> {
    /// All catalogued operators.
    pub world: bool,
    /// Operators, catalogued or not, and all catalogued ones of an MCC.
    pub operators: &'a [OperatorPattern],
    /// All catalogued operators of countries.
    pub countries: &'a [Country],
    /// Further names.
    pub names: &'a [ExtraName],
}

impl Selection<'_> {
    /// The operators that are selected, as the catalogue writes them, and whom each counts as.
    ///
    /// An operator's country is the main one that it serves, unless it was selected by another
    /// and not by that.
    #[must_use]
    pub fn operators(&self, catalogue: &Catalogue) -> BTreeMap<Plmn, Owner> {
        let mut selected = BTreeMap::new();
        for operator in catalogue.operators() {
            let listed = |country: &&Country| self.countries.contains(country);
            let main = operator.countries.first();
            let by_itself = self.world || self.operators.iter().any(|o| o.matches(&operator.plmn));
            let country = if by_itself || main.as_ref().is_some_and(listed) {
                main
            } else if let Some(country) = operator.countries.iter().find(listed) {
                Some(country)
            } else {
                continue;
            };
            let owner = Owner {
                plmn: Some(operator.plmn),
                country: country.copied(),
            };
            selected.insert(operator.plmn, owner);
        }
        for pattern in self.operators {
            if let OperatorPattern::Exact(plmn) = *pattern {
                // Those that the catalogue has are there as it writes them.
                let owner = || Owner::of(catalogue, plmn);
                selected.entry(plmn).or_insert_with(owner);
            }
        }
        selected
    }

    /// All owners that what is selected has.
    #[must_use]
    pub fn owners(&self, catalogue: &Catalogue) -> BTreeSet<Owner> {
        let operators = self.operators(catalogue).into_values();
        let names = self.names.iter();
        let names = names.map(|name| Owner::configured(catalogue, name.operator, name.country));
        operators.chain(names).collect()
    }
}

/// The names and addresses of all operators that are selected, and the further names.
///
/// A pattern of one operator counts whether catalogued or not; `262-*`, a country and the world
/// stand for the catalogued operators.
#[must_use]
pub fn targets(catalogue: &Catalogue, selection: &Selection) -> Targets {
    let mut names: BTreeMap<Arc<str>, Arc<BTreeSet<Owner>>> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, BTreeSet<Owner>> = BTreeMap::new();
    let mut networks: BTreeMap<IpNet, BTreeSet<Owner>> = BTreeMap::new();
    for (plmn, owner) in selection.operators(catalogue) {
        let alone = Arc::new(BTreeSet::from([owner]));
        for name in catalogue.names(plmn) {
            match names.entry(name.name.into()) {
                Entry::Vacant(entry) => drop(entry.insert(alone.clone())),
                Entry::Occupied(mut entry) => drop(Arc::make_mut(entry.get_mut()).insert(owner)),
            }
        }
        for net in catalogue.networks(plmn) {
            if net.prefix_len() == net.max_prefix_len() {
                addresses.entry(net.addr()).or_default().insert(owner);
            } else {
                networks.entry(net).or_default().insert(owner);
            }
        }
    }
    for extra in selection.names {
        let owner = Owner::configured(catalogue, extra.operator, extra.country);
        let owners = names.entry(extra.name.as_str().into()).or_default();
        // Nobody in particular adds nothing to somebody.
        if owner != Owner::UNKNOWN || owners.is_empty() {
            Arc::make_mut(owners).insert(owner);
        }
    }
    Targets {
        names: names
            .into_iter()
            .map(|(name, owners)| Target { name, owners })
            .collect(),
        addresses: addresses.into_iter().collect(),
        networks: networks.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    fn find(operators: &[&str], countries: &[&str]) -> Targets {
        let operators: Vec<_> = operators.iter().map(|o| o.parse().unwrap()).collect();
        let countries: Vec<_> = countries.iter().map(|c| c.parse().unwrap()).collect();
        targets(
            catalogue(),
            &Selection {
                operators: &operators,
                countries: &countries,
                ..Selection::default()
            },
        )
    }

    fn owners(target: &Target) -> Vec<String> {
        let owners = target.owners.iter();
        owners
            .map(|o| format!("{} {}", o.plmn.unwrap(), o.country.unwrap()))
            .collect()
    }

    #[test]
    fn one_operator_catalogued_or_not() {
        assert_eq!(find(&["262-01"], &[]).names.len(), 4);
        let unknown = find(&["262-97"], &[]);
        assert_eq!(unknown.names.len(), 4);
        assert_eq!(owners(&unknown.names[0]), ["262-97 DE"]);
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
            .flat_map(|t| &*t.owners)
            .map(|o| o.plmn.unwrap().mcc())
            .collect();
        assert_eq!(mccs, [262, 310, 311, 312, 313, 314, 315, 316, 505].into());
        assert!(targets.names.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn the_world_has_everybody() {
        let world = Selection {
            world: true,
            ..Selection::default()
        };
        let names = targets(catalogue(), &world).names;
        let operators: BTreeSet<_> = names.iter().flat_map(|t| &*t.owners).collect();
        assert_eq!(operators.len(), catalogue().operators().count());
        assert!(names.len() > 3 * operators.len());
    }

    #[test]
    fn further_names_are_somebody_s_or_nobody_s() {
        let extra = |name: &str, operator: Option<&str>, country: Option<&str>| ExtraName {
            name: name.to_owned(),
            operator: operator.map(|o| o.parse().unwrap()),
            country: country.map(|c| c.parse().unwrap()),
        };
        let standard = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
        let extras = [
            extra("a.example", None, None),
            extra("b.example", Some("262-01"), None),
            extra("c.example", Some("262-01"), Some("AT")),
            extra(standard, None, None),
        ];
        let selection = Selection {
            operators: &["262-01".parse().unwrap()],
            names: &extras,
            ..Selection::default()
        };
        let targets = targets(catalogue(), &selection);
        let owners = |name: &str| {
            let target = targets.names.iter().find(|t| &*t.name == name).unwrap();
            BTreeSet::clone(&target.owners)
        };
        assert_eq!(owners("a.example"), [Owner::UNKNOWN].into());
        let telekom = Owner::of(catalogue(), "262-01".parse().unwrap());
        assert_eq!(owners("b.example"), [telekom].into());
        assert_eq!(owners(standard), [telekom].into());
        let in_austria = Owner {
            country: "AT".parse().ok(),
            ..telekom
        };
        assert_eq!(owners("c.example"), [in_austria].into());
        assert_eq!(targets.names.len(), 7);
    }

    /// An operator that serves several countries counts as the one that it was selected by.
    #[test]
    fn a_territory_has_its_own_operators() {
        let countries = |operators: &[&str], countries: &[&str], plmn: &str| {
            let targets = find(operators, countries);
            let owners: BTreeSet<_> = targets.names.iter().flat_map(|t| &*t.owners).collect();
            let country = |owner: &&Owner| owner.plmn == plmn.parse().ok();
            let owner = owners.into_iter().find(country)?;
            owner.country.map(|country| country.to_string())
        };
        for (operators, selected, plmn, country) in [
            (&[][..], &["JE"][..], "234-50", Some("JE")),
            (&[], &["JE"], "234-15", None),
            (&[], &["GG"], "234-50", Some("GG")),
            (&[], &["GG", "JE"], "234-50", Some("JE")),
            (&["234-*"], &["GG"], "234-50", Some("JE")),
            (&[], &["CX"], "505-01", Some("CX")),
            (&[], &["CX", "AU"], "505-01", Some("AU")),
            (&[], &["GB"], "234-50", None),
        ] {
            let found = countries(operators, selected, plmn);
            assert_eq!(
                found.as_deref(),
                country,
                "{operators:?} {selected:?} {plmn}"
            );
        }
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
