//! Names that a country's operators have, as the country itself says: what a phone asks abroad.
//!
//! A visited country has a name with NAPTR records, whose replacements are names of ePDGs there
//! (TS 23.003 §19.4.2.9.5, §28.3.2.2.4; RFC 3403). Whoever answers for that name can thus give us
//! names to resolve, so they are believed only as far as they must be: names of ePDGs and N3IWFs
//! of operators of that country.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, info};

use super::answer::Lie;
use super::run::Found;
use super::{Owner, Selection, Stats, Target};
use crate::catalogue::{Catalogue, Country, names};

/// No more names are found than this. No country has a hundred operators with an ePDG.
const NAMES_MAX: usize = 512;

/// The names of the visited countries, and what was found at them.
#[derive(Debug, Default)]
pub struct Visited {
    /// The names to ask for, and the countries that each is for.
    asked: BTreeMap<Arc<str>, BTreeSet<Country>>,
    found: BTreeMap<Arc<str>, Place>,
}

#[derive(Debug)]
struct Place {
    owners: BTreeSet<Owner>,
    /// The name at which it was found first.
    at: Arc<str>,
}

impl Visited {
    /// The countries that are selected from now on. What was found in others is forgotten.
    pub fn select(&mut self, catalogue: &Catalogue, selection: &Selection) {
        self.asked.clear();
        for operator in catalogue.operators() {
            let served = catalogue.countries_served(operator.plmn);
            for country in served.iter().filter(|c| selection.countries.contains(c)) {
                for name in names::visited_country(operator.plmn.mcc()) {
                    let countries = self.asked.entry(name.name.into()).or_default();
                    countries.insert(*country);
                }
            }
        }
        let asked = &self.asked;
        self.found.retain(|_, place| asked.contains_key(&place.at));
    }

    /// The names to ask for, each with the countries that it is for.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, BTreeSet<Owner>)> {
        self.asked.iter().map(|(name, countries)| {
            let owner = |country: &Country| Owner {
                plmn: None,
                country: Some(*country),
            };
            (name, countries.iter().map(owner).collect())
        })
    }

    /// What was found, as it was told: for the state on disk.
    pub fn found(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.found.iter().map(|(name, place)| (name, &place.at))
    }

    /// The names that were found, as something to look up.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.found.iter().map(|(name, place)| Target {
            name: name.clone(),
            owners: Arc::new(place.owners.clone()),
        })
    }

    /// At which name a name was found.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&str> {
        self.found.get(name).map(|place| &*place.at)
    }

    /// Takes in what was found. Returns whether there is a new name. A name that is not given any
    /// more stays: it is the addresses that have their time.
    pub fn take(&mut self, found: &Found, catalogue: &Catalogue, stats: &Stats) -> bool {
        let Some(countries) = self.asked.get(&found.at) else {
            return false;
        };
        let mut is_new = false;
        for name in &found.names {
            let owners = owners(name, countries, catalogue);
            if owners.is_empty() || self.found.len() >= NAMES_MAX {
                stats.add_lie(Lie::Replacement, 1);
                debug!(at = %found.at, %name, "not a name of an ePDG of that country: ignored");
            } else if !self.found.contains_key(&**name) {
                info!(at = %found.at, %name, "new name");
                let at = found.at.clone();
                self.found
                    .insert(name.as_str().into(), Place { owners, at });
                is_new = true;
            }
        }
        is_new
    }
}

/// Whose a replacement is: the owners in one of these countries of a name that is an ePDG's.
fn owners(name: &str, countries: &BTreeSet<Country>, catalogue: &Catalogue) -> BTreeSet<Owner> {
    let Some((_, owners)) = catalogue.owner_of_name(name) else {
        return BTreeSet::new();
    };
    let there = owners.into_iter().filter(|owner| {
        let served = |plmn| {
            let served = catalogue.countries_served(plmn).iter();
            served.copied().any(|country| countries.contains(&country))
        };
        owner.plmn.is_some_and(served)
    });
    there.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    fn visited(countries: &[&str]) -> Visited {
        let countries: Vec<_> = countries.iter().map(|c| c.parse().unwrap()).collect();
        let mut visited = Visited::default();
        select(&mut visited, &countries);
        visited
    }

    fn select(visited: &mut Visited, countries: &[Country]) {
        let selection = Selection {
            countries,
            ..Selection::default()
        };
        visited.select(catalogue(), &selection);
    }

    fn found(mcc: u16, names: &[&str]) -> Found {
        Found {
            at: format!("epdg.epc.mcc{mcc:03}.visited-country.pub.3gppnetwork.org").into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn countries_have_names_for_each_of_their_codes() {
        let visited = visited(&["DE", "US"]);
        let names: Vec<_> = visited.names().map(|(name, _)| &**name).collect();
        for name in [
            "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org",
            "sos.epdg.epc.mcc310.visited-country.pub.3gppnetwork.org",
            "n3iwf.5gc.mcc316.visited-country.pub.3gppnetwork.org",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert_eq!(visited.targets().count(), 0);
    }

    #[test]
    fn only_names_of_epdgs_of_that_country_are_believed() {
        let mut visited = visited(&["DE", "US"]);
        let stats = Stats::default();
        let good = "epdg.epc.mnc098.mcc262.pub.3gppnetwork.org";
        let given = [
            good,
            // Another country's, somebody else's domain, no ePDG, a visited country again, nonsense.
            "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org",
            "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org.evil.example",
            "evil.example",
            "ims.mnc001.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org",
            "",
        ];
        assert!(visited.take(&found(262, &given), catalogue(), &stats));
        assert_eq!(stats.lies(Lie::Replacement), 6);
        let targets: Vec<_> = visited.targets().collect();
        assert_eq!(targets.len(), 1);
        assert_eq!(&*targets[0].name, good);
        let owner = targets[0].owners.first().unwrap();
        assert_eq!(owner.plmn, "262-98".parse().ok());
        assert_eq!(owner.country.unwrap().to_string(), "DE");
        assert!(
            visited
                .source(good)
                .unwrap()
                .contains("mcc262.visited-country")
        );
        // Nothing new the second time; and an answer without it takes nothing away.
        assert!(!visited.take(&found(262, &[good]), catalogue(), &stats));
        assert!(!visited.take(&found(262, &[]), catalogue(), &stats));
        assert_eq!(visited.targets().count(), 1);
        // A country that was not asked for says nothing.
        let other = found(505, &["epdg.epc.mnc001.mcc505.pub.3gppnetwork.org"]);
        assert!(!visited.take(&other, catalogue(), &stats));
        select(&mut visited, &["US".parse().unwrap()]);
        assert_eq!(visited.targets().count(), 0);
    }

    #[test]
    fn a_country_cannot_fill_the_memory() {
        let mut visited = visited(&["DE"]);
        let stats = Stats::default();
        for mnc in 0..1000 {
            let name = format!("epdg.epc.mnc{mnc:03}.mcc262.pub.3gppnetwork.org");
            visited.take(&found(262, &[&name]), catalogue(), &stats);
        }
        assert_eq!(visited.targets().count(), NAMES_MAX);
        assert_eq!(stats.lies(Lie::Replacement), 1000 - NAMES_MAX as u64);
    }
}
