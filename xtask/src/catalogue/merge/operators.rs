//! The operators: of the lists, and of the files that add to what these have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Catalogue, Iso, Operator, SOURCES, STATUSES, WIKIPEDIA};
use crate::catalogue::{
    names::{self, NameKind},
    plmn::Plmn,
    tsv::{File, Row},
};

impl Catalogue {
    pub(super) fn read_wikipedia(&mut self, file: &File, decided: &BTreeMap<Plmn, Vec<Iso>>) {
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

    pub(super) fn read_aosp(&mut self, file: &File) {
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

    pub(super) fn read_nonstandard(&mut self, file: &File, digits: &BTreeMap<u16, u8>) {
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

    pub(super) fn read_resolving(&mut self, file: &File, digits: &BTreeMap<u16, u8>) {
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
