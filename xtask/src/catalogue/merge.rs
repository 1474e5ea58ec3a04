//! Reads the files of `data/`, finds what is wrong with them, and makes one catalogue of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use anyhow::Result;

use super::{
    names::{self, NameKind},
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

    fn read_wikipedia(&mut self, file: &File, decided: &BTreeMap<Plmn, Vec<Iso>>) {
        struct Listed<'a> {
            row: Row<'a, 6>,
            written: Plmn,
            countries: Vec<Iso>,
            status: u8,
        }
        let mut listed: BTreeMap<Plmn, Vec<Listed>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for row in file.rows(&mut self.problems) {
            let [mcc, mnc, iso, brand, company, status] = row.fields;
            let Some(plmn) = self.plmn(&row, mcc, mnc) else {
                continue;
            };
            if !seen.insert((mcc, mnc, iso, brand, company)) {
                self.problems
                    .push(row.problem(format!("{plmn} twice in {iso}")));
            }
            let countries = self.countries_of(&row, iso);
            self.check_countries(&row, plmn, &countries);
            let status = match STATUSES.iter().find(|(word, _)| *word == status) {
                Some((_, number)) => *number,
                None => {
                    self.problems
                        .push(row.problem(format!("status {status:?} is new")));
                    0
                }
            };
            listed.entry(plmn).or_default().push(Listed {
                row,
                written: plmn,
                countries,
                status,
            });
        }
        for unused in decided.keys().filter(|plmn| !listed.contains_key(plmn)) {
            self.notes.push(format!(
                "{unused} of operator_country.tsv is not in {WIKIPEDIA}"
            ));
        }
        for mut rows in listed.into_values() {
            // As most rows write it; if that is undecided, with two digits.
            let of = |digits| {
                rows.iter()
                    .filter(|l| l.written.mnc_digits() == digits)
                    .count()
            };
            let (two, three) = (of(2), of(3));
            let digits = if three > two { 3 } else { 2 };
            let Some(plmn) = rows
                .iter()
                .map(|l| l.written)
                .find(|p| p.mnc_digits() == digits)
            else {
                continue;
            };
            if two > 0 && three > 0 {
                self.notes
                    .push(format!("{plmn} is also written with other padding"));
            }
            let mut countries: Vec<Iso> = Vec::new();
            for country in rows.iter().flat_map(|listed| &listed.countries) {
                if !countries.contains(country) {
                    countries.push(*country);
                }
            }
            if let Some(own) = decided.get(&plmn) {
                countries.clone_from(own);
            } else if rows
                .windows(2)
                .any(|pair| pair[0].countries != pair[1].countries)
            {
                self.problems.push(rows[0].row.problem(format!(
                    "{plmn} is listed under several countries: say in operator_country.tsv which are its own"
                )));
            } else {
                // In the order of the MCC: the one that stands for it comes first.
                let order = self.mccs.get(&plmn.mcc()).cloned().unwrap_or_default();
                countries.sort_by_key(|country| order.iter().position(|known| known == country));
            }
            // The row of the main country names the operator, one in service before a closed one.
            rows.sort_by_key(|listed| {
                let main = listed.countries.first() == countries.first();
                (listed.status != 1, !main)
            });
            let [_, _, _, brand, company, _] = rows[0].row.fields;
            let mut operator = Operator {
                countries,
                brand: brand.to_owned(),
                company: company.to_owned(),
                status: rows[0].status,
                ..Operator::default()
            };
            for listed in &rows[1..] {
                let [_, _, _, brand, company, _] = listed.row.fields;
                operator.also(brand);
                operator.also(company);
            }
            self.operators.insert(plmn, operator);
        }
    }

    fn read_aosp(&mut self, file: &File) {
        let mut written: BTreeMap<Plmn, Plmn> = BTreeMap::new();
        for row in file.rows(&mut self.problems) {
            let [mcc, mnc, name] = row.fields;
            let Some(plmn) = self.plmn(&row, mcc, mnc) else {
                continue;
            };
            if let Some(other) = written.insert(plmn, plmn) {
                if other.mnc_digits() == plmn.mnc_digits() {
                    self.problems.push(row.problem(format!("{plmn} twice")));
                } else {
                    self.notes.push(format!(
                        "{other} and {plmn} are one number in operators_aosp.tsv"
                    ));
                }
            }
            let main = self.main_country(plmn);
            self.operators
                .entry(plmn)
                .or_insert_with(|| Operator {
                    countries: main,
                    ..Operator::default()
                })
                .also(name);
        }
    }

    fn main_country(&self, plmn: Plmn) -> Vec<Iso> {
        let countries = self.mccs.get(&plmn.mcc()).into_iter().flatten();
        countries.take(1).copied().collect()
    }

    fn read_nonstandard(&mut self, file: &File, digits: &BTreeMap<u16, u8>) {
        let mut seen = BTreeSet::new();
        for row in file.rows(&mut self.problems) {
            let [mcc, mnc, carrier, target, source] = row.fields;
            let Some(padded) = self.padded(&row, mcc, mnc) else {
                continue;
            };
            if !seen.insert((padded, target)) {
                self.problems
                    .push(row.problem(format!("{target} twice for {padded}")));
            }
            if !SOURCES.contains(&source) {
                self.problems.push(row.problem(format!(
                    "{target}: a source is needed, one of {}",
                    SOURCES.join(", ")
                )));
            }
            if let Some(problem) = wrong_target(target) {
                self.problems.push(row.problem(problem));
            }
            let plmn = self.add(padded, digits);
            if let Some(operator) = self.operators.get_mut(&plmn)
                && operator.brand.is_empty()
                && operator.company.is_empty()
            {
                operator.also(carrier);
            }
            self.dialled
                .entry(plmn)
                .or_default()
                .push((target.to_owned(), source.to_owned()));
        }
    }

    fn read_resolving(&mut self, file: &File, digits: &BTreeMap<u16, u8>) {
        let mut seen = BTreeSet::new();
        for row in file.rows(&mut self.problems) {
            let [mcc, mnc] = row.fields;
            let Some(padded) = self.padded(&row, mcc, mnc) else {
                continue;
            };
            if !seen.insert(padded) {
                self.problems.push(row.problem(format!("{padded} twice")));
            }
            let plmn = self.add(padded, digits);
            if let Some(operator) = self.operators.get_mut(&plmn) {
                operator.resolves = true;
            }
        }
    }

    /// The number of a row in a file that pads all MNCs.
    fn padded<const N: usize>(&mut self, row: &Row<N>, mcc: &str, mnc: &str) -> Option<Plmn> {
        if mnc.len() != 3 {
            self.problems.push(row.problem(format!(
                "{mcc}-{mnc}: this file pads the MNC to three digits"
            )));
            return None;
        }
        self.plmn(row, mcc, mnc)
    }

    /// An operator of a file that does not say how it writes its number: as its neighbours do.
    fn add(&mut self, padded: Plmn, digits: &BTreeMap<u16, u8>) -> Plmn {
        if let Some((known, _)) = self.operators.get_key_value(&padded) {
            return *known;
        }
        let digits = digits.get(&padded.mcc()).copied().unwrap_or(2);
        let plmn = Plmn::new(padded.mcc(), padded.mnc(), digits).unwrap_or(padded);
        let operator = Operator {
            countries: self.main_country(plmn),
            ..Operator::default()
        };
        self.operators.insert(plmn, operator);
        plmn
    }
}

impl Operator {
    /// Another name for it, unless it is one that it has.
    fn also(&mut self, name: &str) {
        let known = [&self.brand, &self.company]
            .into_iter()
            .chain(&self.aliases)
            .any(|known| known.to_lowercase() == name.to_lowercase());
        if !known {
            self.aliases.push(name.to_owned());
        }
    }
}

/// What is wrong with a name or an address that handsets dial.
fn wrong_target(target: &str) -> Option<String> {
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    match names::host_name(target) {
        Err(error) => Some(error.to_string()),
        Ok(name) if name != target => Some(format!("{target}: write {name}")),
        Ok(name) if !name.ends_with("3gppnetwork.org") => None,
        Ok(name) => match names::parse(&name) {
            Some(parsed) if parsed.kind != NameKind::VisitedCountry => None,
            _ => Some(format!(
                "{name}: no name of an ePDG that phones could ask for"
            )),
        },
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
