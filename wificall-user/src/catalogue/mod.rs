//! Operators, countries and the names of ePDGs: data compiled in, no I/O.
//!
//! The tables lie in `data/`, whose README has the source and licence of each. They are parsed
//! once, at the first use, and borrow their texts from the executable.

mod country;
mod data;
pub mod names;
mod owner;
mod plmn;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

pub use country::{Country, CountryError};
pub use data::DataError;
pub use names::{EpdgName, NameError, NameKind, ParsedName};
pub use owner::Owner;
pub use plmn::{OperatorPattern, Plmn, PlmnError};

/// A mobile network operator.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its number, with as many MNC digits as the operator writes.
    pub plmn: Plmn,
    /// Its name; empty if no source has one.
    pub name: &'static str,
}

/// What a carrier's handsets are configured to dial instead of, or beside, the standard name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Dialled {
    Name(&'static str),
    Address(IpAddr),
}

/// The compiled-in tables, [`catalogue`], or these and what a configuration adds to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// Sorted by PLMN, each once.
    operators: Vec<Operator>,
    /// Sorted by MCC, each once.
    mccs: Vec<(u16, Box<[Country]>)>,
    /// Sorted by country, each once; with a name, empty if the data has none.
    countries: Vec<(Country, &'static str)>,
    /// Sorted by PLMN.
    dialled: Vec<(Plmn, Dialled)>,
    /// Names that the configuration lists, in lower case.
    configured: BTreeMap<String, BTreeSet<Owner>>,
}

/// The catalogue.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        data::parse(&data::FILES).expect("the compiled-in data parses: a test reads all of it")
    });
    &CATALOGUE
}

impl Catalogue {
    /// The operator of this number.
    #[must_use]
    pub fn operator(&self, plmn: Plmn) -> Option<&Operator> {
        let index = self
            .operators
            .binary_search_by_key(&plmn, |operator| operator.plmn)
            .ok()?;
        self.operators.get(index)
    }

    /// All operators, in the order of their numbers.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.operators.iter()
    }

    /// The operators of a mobile country code, in the order of their numbers.
    pub fn operators_of(&self, mcc: u16) -> impl Iterator<Item = &Operator> {
        let start = self.operators.partition_point(|o| o.plmn.mcc() < mcc);
        self.operators[start..]
            .iter()
            .take_while(move |o| o.plmn.mcc() == mcc)
    }

    /// The countries that a mobile country code serves, the main one first. Empty for codes of no
    /// country (test networks, satellites, 901) and for unassigned ones.
    #[must_use]
    pub fn countries_of(&self, mcc: u16) -> &[Country] {
        match self.mccs.binary_search_by_key(&mcc, |(mcc, _)| *mcc) {
            Ok(index) => &self.mccs[index].1,
            Err(_) => &[],
        }
    }

    /// The country that stands for an operator where there can be only one: the main one of its
    /// MCC.
    #[must_use]
    pub fn country_of(&self, plmn: Plmn) -> Option<Country> {
        self.countries_of(plmn.mcc()).first().copied()
    }

    /// The countries that an operator serves, its main one first. Empty for operators of no
    /// country.
    #[must_use]
    pub fn countries_served(&self, plmn: Plmn) -> &[Country] {
        self.countries_of(plmn.mcc())
    }

    /// The mobile country codes that serve a country.
    pub fn mccs_of(&self, country: Country) -> impl Iterator<Item = u16> {
        self.mccs
            .iter()
            .filter(move |(_, countries)| countries.contains(&country))
            .map(|(mcc, _)| *mcc)
    }

    /// All countries with a mobile country code, and their names.
    pub fn countries(&self) -> impl Iterator<Item = (Country, &'static str)> {
        self.countries.iter().copied()
    }

    /// The English name of a country.
    #[must_use]
    pub fn country_name(&self, country: Country) -> Option<&'static str> {
        let index = self.countries.binary_search_by_key(&country, |(c, _)| *c);
        index.ok().map(|index| self.countries[index].1)
    }

    /// Whether a mobile country code serves this country.
    #[must_use]
    pub fn country_exists(&self, country: Country) -> bool {
        self.country_name(country).is_some()
    }

    /// The names that are looked up for an operator: the standard ones, which every number has
    /// whether catalogued or not, then the carrier's own.
    #[must_use]
    pub fn names(&self, plmn: Plmn) -> Vec<EpdgName> {
        let mut names: Vec<_> = names::standard(self.as_written(plmn)).collect();
        for dialled in self.dialled(plmn) {
            if let Dialled::Name(name) = *dialled
                && names.iter().all(|known| known.name != name)
            {
                names.push(EpdgName {
                    name: name.into(),
                    kind: names::parse(name).map_or(NameKind::Carrier, |parsed| parsed.kind),
                });
            }
        }
        names
    }

    /// The names that an operator may have besides [`names`](Self::names), which are looked up
    /// only when somebody asks for all forms.
    #[must_use]
    pub fn further_names(&self, plmn: Plmn) -> Vec<EpdgName> {
        let usual = self.names(plmn);
        names::on_demand(self.as_written(plmn))
            .filter(|name| usual.iter().all(|known| known.name != name.name))
            .collect()
    }

    /// The operator's number with as many digits as it writes.
    fn as_written(&self, plmn: Plmn) -> Plmn {
        self.operator(plmn).map_or(plmn, |operator| operator.plmn)
    }

    /// The operators whose handsets are configured with this name, in lower case.
    fn users_of_name(&self, name: &str) -> impl Iterator<Item = Plmn> {
        self.dialled
            .iter()
            .filter(move |(_, dialled)| matches!(dialled, Dialled::Name(known) if *known == name))
            .map(|(plmn, _)| *plmn)
    }

    /// The same catalogue, which also knows names that the configuration lists. They are in lower
    /// case.
    #[must_use]
    pub fn with_names(mut self, names: impl IntoIterator<Item = (String, Owner)>) -> Self {
        for (name, owner) in names {
            self.configured.entry(name).or_default().insert(owner);
        }
        self
    }

    fn configured_owners(&self, name: &str) -> impl Iterator<Item = Owner> {
        self.configured.get(name).into_iter().flatten().copied()
    }

    /// The addresses that the carrier's handsets are configured with.
    #[must_use]
    pub fn addresses(&self, plmn: Plmn) -> Vec<IpAddr> {
        self.dialled(plmn)
            .filter_map(|dialled| match dialled {
                Dialled::Address(address) => Some(*address),
                Dialled::Name(_) => None,
            })
            .collect()
    }

    fn dialled(&self, plmn: Plmn) -> impl Iterator<Item = &Dialled> {
        let start = self.dialled.partition_point(|(p, _)| *p < plmn);
        self.dialled[start..]
            .iter()
            .take_while(move |(p, _)| *p == plmn)
            .map(|(_, dialled)| dialled)
    }
}

#[cfg(test)]
mod tests;
