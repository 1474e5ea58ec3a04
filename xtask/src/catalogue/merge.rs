//! Reads the files of `data/`, finds what is wrong with them, and makes one catalogue of them.

mod operators;

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;

use super::{
    plmn::Plmn,
    tsv::{File, Problem, Row},
};

pub const WIKIPEDIA: &str = "operators_wikipedia.tsv";

/// Where rows of `epdg_nonstandard.tsv` may come from; `data/README.md` describes each.
const SOURCES: [&str; 3] = ["carrier-settings", "handset-profile", "rule-list"];

/// A country's two letters.
pub type Iso = [u8; 2];

/// Numbers of `Status` in `wificall-user/src/catalogue/row.rs`, by the source's words.
const STATUSES: &[(&str, u8)] = &[
    ("Operational", 1),
    ("Temporary operational", 1),
    ("Ongoing", 1),
    ("Planned", 2),
    ("Upcoming", 2),
    ("Implement / Design", 2),
    ("Allocated", 2),
    ("Reserved", 2),
    ("Testing", 3),
    ("Test Network", 3),
    ("Not operational", 4),
    ("Returned spare", 4),
    ("Unknown", 0),
    ("", 0),
];

#[derive(Debug, Default)]
pub struct Operator {
    /// The main one first.
    pub countries: Vec<Iso>,
    pub brand: String,
    pub company: String,
    pub aliases: Vec<String>,
    pub status: u8,
    /// Whether its standard name was seen to resolve.
    pub resolves: bool,
}

#[derive(Debug)]
pub struct Country {
    pub iso3: String,
    pub name: String,
    pub aliases: Vec<String>,
}

/// Everything, in order.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub operators: BTreeMap<Plmn, Operator>,
    pub countries: BTreeMap<Iso, Country>,
    pub mccs: BTreeMap<u16, Vec<Iso>>,
    /// Names and networks that handsets are configured with, each with its source.
    pub dialled: BTreeMap<Plmn, Vec<(String, String)>>,
    pub problems: Vec<Problem>,
    /// What is odd but has been so for long.
    pub notes: Vec<String>,
}

/// The files.
pub struct Files {
    pub wikipedia: File,
    pub aosp: File,
    pub operator_country: File,
    pub mcc_country: File,
    pub countries: File,
    pub nonstandard: File,
    pub resolving: File,
}

pub fn read(data: &Path) -> Result<Catalogue> {
    Ok(merge(&Files {
        wikipedia: File::read(data, WIKIPEDIA)?,
        aosp: File::read(data, "operators_aosp.tsv")?,
        operator_country: File::read(data, "operator_country.tsv")?,
        mcc_country: File::read(data, "mcc_country.tsv")?,
        countries: File::read(data, "countries.tsv")?,
        nonstandard: File::read(data, "epdg_nonstandard.tsv")?,
        resolving: File::read(data, "epdg_resolving_plmns_2025-02.tsv")?,
    }))
}

pub fn merge(files: &Files) -> Catalogue {
    let mut catalogue = Catalogue::default();
    catalogue.read_countries(&files.countries);
    catalogue.read_mccs(&files.mcc_country);
    let decided = catalogue.read_decided(&files.operator_country);
    catalogue.read_wikipedia(&files.wikipedia, &decided);
    catalogue.read_aosp(&files.aosp);
    let digits = mnc_digits(catalogue.operators.keys());
    catalogue.read_nonstandard(&files.nonstandard, &digits);
    catalogue.read_resolving(&files.resolving, &digits);
    catalogue
}

impl Catalogue {
    fn read_countries(&mut self, file: &File) {
        for row in file.rows(&mut self.problems) {
            let [iso, iso3, name, aliases] = row.fields;
            let Some(letters) = letters(iso) else {
                self.problems
                    .push(row.problem(format!("{iso}: not two capitals")));
                continue;
            };
            let country = Country {
                iso3: iso3.to_owned(),
                name: name.to_owned(),
                aliases: list(aliases),
            };
            if iso3.len() != 3 || !iso3.bytes().all(|b| b.is_ascii_uppercase()) || name.is_empty() {
                self.problems
                    .push(row.problem(format!("{iso}: three capitals and a name are needed")));
            }
            if self.countries.insert(letters, country).is_some() {
                self.problems.push(row.problem(format!("{iso} twice")));
            }
        }
    }

    fn read_mccs(&mut self, file: &File) {
        for row in file.rows(&mut self.problems) {
            let [mcc, iso, _note] = row.fields;
            let Some(number) = Plmn::new(mcc.parse().unwrap_or(0), 0, 2).filter(|_| mcc.len() == 3)
            else {
                self.problems
                    .push(row.problem(format!("{mcc}: not an MCC")));
                continue;
            };
            let countries = self.countries_of(&row, if iso == "-" { "" } else { iso });
            if iso.is_empty() {
                self.problems
                    .push(row.problem(format!("{mcc}: no country is written -")));
            }
            if self.mccs.insert(number.mcc(), countries).is_some() {
                self.problems.push(row.problem(format!("{mcc} twice")));
            }
        }
    }

    /// Countries of a field; unknown ones are problems.
    fn countries_of<const N: usize>(&mut self, row: &Row<N>, field: &str) -> Vec<Iso> {
        let mut countries = Vec::new();
        for code in field.split_whitespace() {
            match letters(code).filter(|letters| self.countries.contains_key(letters)) {
                Some(letters) if countries.contains(&letters) => {
                    self.problems.push(row.problem(format!("{code} twice")));
                }
                Some(letters) => countries.push(letters),
                None => self
                    .problems
                    .push(row.problem(format!("{code}: not a country of countries.tsv"))),
            }
        }
        countries
    }

    /// The number of a row; none is a problem, and so is an MCC that `mcc_country.tsv` lacks.
    fn plmn<const N: usize>(&mut self, row: &Row<N>, mcc: &str, mnc: &str) -> Option<Plmn> {
        match format!("{mcc}-{mnc}").parse::<Plmn>() {
            Ok(plmn) if self.mccs.contains_key(&plmn.mcc()) => Some(plmn),
            Ok(_) => {
                self.problems
                    .push(row.problem(format!("MCC {mcc} is not in mcc_country.tsv")));
                None
            }
            Err(error) => {
                self.problems.push(row.problem(error.to_string()));
                None
            }
        }
    }

    fn read_decided(&mut self, file: &File) -> BTreeMap<Plmn, Vec<Iso>> {
        let mut decided = BTreeMap::new();
        for row in file.rows(&mut self.problems) {
            let [mcc, mnc, iso, why] = row.fields;
            let countries = self.countries_of(&row, iso);
            let Some(plmn) = self.plmn(&row, mcc, mnc) else {
                continue;
            };
            if countries.is_empty() || why.is_empty() {
                self.problems
                    .push(row.problem("a country and a reason are needed"));
            }
            self.check_countries(&row, plmn, &countries);
            if decided.insert(plmn, countries).is_some() {
                self.problems.push(row.problem(format!("{plmn} twice")));
            }
        }
        decided
    }

    fn check_countries<const N: usize>(&mut self, row: &Row<N>, plmn: Plmn, countries: &[Iso]) {
        let of_mcc = self.mccs.get(&plmn.mcc()).cloned().unwrap_or_default();
        for country in countries.iter().filter(|country| !of_mcc.contains(country)) {
            let country = String::from_utf8_lossy(country);
            self.problems.push(row.problem(format!(
                "{plmn}: {country} is not among the countries of its MCC in mcc_country.tsv"
            )));
        }
    }
}

/// How many digits most operators of an MCC write their MNC with.
fn mnc_digits<'a>(plmns: impl Iterator<Item = &'a Plmn>) -> BTreeMap<u16, u8> {
    let mut balance: BTreeMap<u16, i32> = BTreeMap::new();
    for plmn in plmns {
        *balance.entry(plmn.mcc()).or_default() += if plmn.mnc_digits() == 3 { 1 } else { -1 };
    }
    let digits = |balance| if balance > 0 { 3 } else { 2 };
    balance
        .into_iter()
        .map(|(mcc, balance)| (mcc, digits(balance)))
        .collect()
}

fn letters(code: &str) -> Option<Iso> {
    let letters: Iso = code.as_bytes().try_into().ok()?;
    letters
        .iter()
        .all(u8::is_ascii_uppercase)
        .then_some(letters)
}

fn list(field: &str) -> Vec<String> {
    field
        .split(';')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
