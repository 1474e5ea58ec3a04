//! Operators, countries and the names of ePDGs: data compiled in, no I/O.
//!
//! The table is made of `data/`, whose README has the source and licence of each file, by
//! `cargo xtask catalogue`. A configuration may add to it and override it.

mod country;
pub mod names;
mod owner;
mod plmn;
mod row;
pub mod search;
mod user;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

pub use country::{Country, CountryError};
pub use names::{EpdgName, NameError, NameKind, ParsedName};
pub use owner::Owner;
pub use plmn::{OperatorPattern, Plmn, PlmnError};
pub use user::RowError;
pub(crate) use user::is_endpoint_network;

use row::{CountryRow, DialledRow, MccRow, OperatorRow, RESOLVES, Set, Text};

/// The compiled table.
mod table {
    use super::Country as K;
    use super::row::{CountryRow as C, DialledRow as D, MccRow as M, OperatorRow as O};

    pub(super) static TEXT: &str = include_str!("table.txt");

    include!("table.rs");
}

/// A mobile network operator.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Operator<'a> {
    /// Its number, with as many MNC digits as the operator writes.
    pub plmn: Plmn,
    /// The name that it is known by; empty if no source has one.
    pub name: &'a str,
    /// The name of the company; may be empty.
    pub company: &'a str,
    /// The countries that it serves, its main one first.
    pub countries: &'a [Country],
    /// Whether it is in service.
    pub status: Status,
    /// Whether its standard name was seen to resolve.
    pub resolves: bool,
    aliases: &'a str,
}

impl<'a> Operator<'a> {
    /// Other names.
    pub fn aliases(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        list(self.aliases)
    }
}

/// Whether an operator is in service, as far as the source knows.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody says.
    Unknown,
    /// In service.
    Operational,
    /// Not yet.
    Planned,
    /// For tests.
    Testing,
    /// No longer.
    Closed,
}

impl Status {
    /// The numbers are those of `cargo xtask catalogue`.
    const fn of(number: u8) -> Self {
        match number & !RESOLVES {
            1 => Self::Operational,
            2 => Self::Planned,
            3 => Self::Testing,
            4 => Self::Closed,
            _ => Self::Unknown,
        }
    }

    /// A stable name, for tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Operational => "operational",
            Self::Planned => "planned",
            Self::Testing => "testing",
            Self::Closed => "closed",
        }
    }
}

/// What a carrier's handsets are configured with, and who says so.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Dialled<'a> {
    /// A name, in lower case, or a network.
    pub target: DialledTarget<'a>,
    /// Where this is from: a source that `data/README.md` describes, or a file and its line.
    pub source: &'a str,
}

/// What handsets dial.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DialledTarget<'a> {
    /// A name.
    Name(&'a str),
    /// An address, or a network that its ePDGs are in.
    Network(IpNet),
}

impl fmt::Display for DialledTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.pad(name),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// The compiled-in tables, [`catalogue`], or these and what a configuration adds to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    text: Cow<'static, str>,
    /// Sorted by PLMN, each once.
    operators: Cow<'static, [OperatorRow]>,
    /// Sorted by PLMN.
    dialled: Cow<'static, [DialledRow]>,
    /// Sorted by MCC, each once.
    mccs: Cow<'static, [MccRow]>,
    /// What sets are of.
    members: Cow<'static, [Country]>,
    /// Names that the configuration lists, in lower case.
    configured: BTreeMap<String, BTreeSet<Owner>>,
}

/// The catalogue.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue {
        text: table::TEXT.into(),
        operators: (&table::OPERATORS[..]).into(),
        dialled: (&table::DIALLED[..]).into(),
        mccs: (&table::MCCS[..]).into(),
        members: (&table::MEMBERS[..]).into(),
        configured: BTreeMap::new(),
    });
    &CATALOGUE
}

impl Catalogue {
    /// The operator of this number.
    #[must_use]
    pub fn operator(&self, plmn: Plmn) -> Option<Operator<'_>> {
        let index = self.operator_index(plmn).ok()?;
        Some(self.view(&self.operators[index]))
    }

    /// All operators, in the order of their numbers.
    pub fn operators(&self) -> impl Iterator<Item = Operator<'_>> {
        self.operators.iter().map(|row| self.view(row))
    }

    /// The countries that a mobile country code serves, the main one first. Empty for codes of no
    /// country (test networks, satellites, 901) and for unassigned ones.
    #[must_use]
    pub fn countries_of(&self, mcc: u16) -> &[Country] {
        match self.mccs.binary_search_by_key(&mcc, |row| row.0) {
            Ok(index) => self.set(self.mccs[index].countries()),
            Err(_) => &[],
        }
    }

    /// The mobile country codes that serve a country, in the order of their numbers.
    pub fn mccs_of(&self, country: Country) -> impl Iterator<Item = u16> {
        self.mccs
            .iter()
            .filter(move |row| self.set(row.countries()).contains(&country))
            .map(|row| row.0)
    }

    /// The country that stands for an operator where there can be only one: the main one that it
    /// serves, or that its MCC does if it is not catalogued.
    #[must_use]
    pub fn country_of(&self, plmn: Plmn) -> Option<Country> {
        self.countries_served(plmn).first().copied()
    }

    /// The countries that an operator serves, its main one first; those of its MCC if it is not
    /// catalogued. Empty for operators of no country.
    #[must_use]
    pub fn countries_served(&self, plmn: Plmn) -> &[Country] {
        match self.operator_index(plmn) {
            Ok(index) => self.set(self.operators[index].countries()),
            Err(_) => self.countries_of(plmn.mcc()),
        }
    }

    /// The names that are looked up for an operator: the standard ones, which every number has
    /// whether catalogued or not, then the carrier's own.
    #[must_use]
    pub fn names(&self, plmn: Plmn) -> Vec<EpdgName> {
        let mut names: Vec<_> = names::standard(self.as_written(plmn)).collect();
        for dialled in self.dialled(plmn) {
            if let DialledTarget::Name(name) = dialled.target
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

    /// The networks that the carrier's ePDGs are known to be in, single addresses among them.
    #[must_use]
    pub fn networks(&self, plmn: Plmn) -> Vec<IpNet> {
        self.dialled(plmn)
            .filter_map(|dialled| match dialled.target {
                DialledTarget::Network(net) => Some(net),
                DialledTarget::Name(_) => None,
            })
            .collect()
    }

    /// What the carrier's handsets are configured with instead of, or beside, the standard name.
    pub fn dialled(&self, plmn: Plmn) -> impl Iterator<Item = Dialled<'_>> {
        let start = self.dialled.partition_point(|row| row.plmn() < plmn);
        self.dialled[start..]
            .iter()
            .take_while(move |row| row.plmn() == plmn)
            .map(|row| {
                let target = self.text(row.3);
                Dialled {
                    target: network(target)
                        .map_or(DialledTarget::Name(target), DialledTarget::Network),
                    source: self.text(row.4),
                }
            })
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

    /// The operators whose handsets are configured with this name, in lower case.
    fn users_of_name(&self, name: &str) -> impl Iterator<Item = Plmn> {
        self.dialled
            .iter()
            .filter(move |row| self.text(row.3) == name)
            .map(DialledRow::plmn)
    }

    /// Who says that handsets are configured with this name, in lower case, or address.
    pub fn sources_of_target(&self, target: &str) -> impl Iterator<Item = &str> {
        self.dialled
            .iter()
            .filter(move |row| self.text(row.3) == target)
            .map(|row| self.text(row.4))
    }

    /// The operator's number with as many digits as it writes.
    fn as_written(&self, plmn: Plmn) -> Plmn {
        match self.operator_index(plmn) {
            Ok(index) => self.operators[index].plmn(),
            Err(_) => plmn,
        }
    }

    fn operator_index(&self, plmn: Plmn) -> Result<usize, usize> {
        self.operators
            .binary_search_by_key(&plmn, OperatorRow::plmn)
    }

    fn view(&self, row: &OperatorRow) -> Operator<'_> {
        let (brand, company, aliases) = (self.text(row.6), self.text(row.7), self.text(row.8));
        let other = || list(aliases).next().unwrap_or_default();
        let name = [brand, company].into_iter().find(|name| !name.is_empty());
        Operator {
            plmn: row.plmn(),
            name: name.unwrap_or_else(other),
            company,
            countries: self.set(row.countries()),
            status: Status::of(row.3),
            resolves: row.3 & RESOLVES != 0,
            aliases,
        }
    }

    fn set(&self, (at, len): Set) -> &[Country] {
        let at = usize::from(at);
        self.members
            .get(at..at + usize::from(len))
            .unwrap_or_default()
    }

    fn text(&self, place: Text) -> &str {
        row::text(&self.text, place)
    }
}

/// All countries, by their codes.
fn countries() -> impl Iterator<Item = &'static CountryRow> {
    table::COUNTRIES.iter()
}

/// Texts with tabs between them.
fn list(texts: &str) -> impl Iterator<Item = &str> {
    texts.split('\t').filter(|text| !text.is_empty())
}

/// A network, or an address, which is a network of one.
fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests;
