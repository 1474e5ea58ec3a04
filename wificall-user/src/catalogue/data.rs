//! Reads the files of `data/`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use thiserror::Error;

use super::{Catalogue, Country, Dialled, Operator, Plmn};

/// A tab-separated file: a comment line, a header line, rows.
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

macro_rules! file {
    ($name:literal) => {
        File {
            name: $name,
            text: include_str!(concat!("../../../data/", $name)),
        }
    };
}

pub(super) struct Files {
    pub(super) operators: File,
    pub(super) resolving: File,
    pub(super) nonstandard: File,
    pub(super) mccs: File,
    pub(super) countries: File,
}

pub(super) const FILES: Files = Files {
    operators: file!("operators_aosp.tsv"),
    resolving: file!("epdg_resolving_plmns_2025-02.tsv"),
    nonstandard: file!("epdg_nonstandard.tsv"),
    mccs: file!("mcc_country.tsv"),
    countries: file!("country_names.tsv"),
};

/// A row of a data file that cannot be read.
#[derive(Debug, Error)]
#[error("data/{file}:{line}: {problem}")]
pub struct DataError {
    file: &'static str,
    line: usize,
    problem: &'static str,
}

impl File {
    /// The rows, each with its line number and exactly `N` fields.
    pub(super) fn rows<const N: usize>(
        &self,
    ) -> impl Iterator<Item = Result<(usize, [&'static str; N]), DataError>> {
        let lines = self.text.lines().enumerate();
        // The header is the first line that is no comment.
        lines
            .filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
            .skip(1)
            .map(|(index, line)| {
                let line_number = index + 1;
                let mut fields = line.split('\t');
                let mut row = [""; N];
                for field in &mut row {
                    *field = fields
                        .next()
                        .map(str::trim)
                        .ok_or_else(|| self.error(line_number, "too few fields"))?;
                }
                match fields.next() {
                    None => Ok((line_number, row)),
                    Some(_) => Err(self.error(line_number, "too many fields")),
                }
            })
    }

    fn error(&self, line: usize, problem: &'static str) -> DataError {
        DataError {
            file: self.name,
            line,
            problem,
        }
    }

    fn plmn(&self, line: usize, mcc: &str, mnc: &str) -> Result<Plmn, DataError> {
        format!("{mcc}-{mnc}")
            .parse()
            .map_err(|_| self.error(line, "not an MCC and MNC"))
    }
}

pub(super) fn parse(files: &Files) -> Result<Catalogue, DataError> {
    let (mccs, countries) = countries(files)?;
    let (operators, dialled) = operators(files)?;
    Ok(Catalogue {
        operators,
        mccs,
        countries,
        dialled,
        configured: BTreeMap::new(),
    })
}

type Countries = (Vec<(u16, Box<[Country]>)>, Vec<(Country, &'static str)>);

/// In `mcc_country.tsv` a comma separates countries, which have as many names separated by
/// semicolons; a slash separates the members of a group, whose one name is that of the group
/// (`AU/CC/CX`: Australia). `GE-AB` is a subdivision (ISO 3166-2) of `GE` and names no country.
fn countries(files: &Files) -> Result<Countries, DataError> {
    let mut names: BTreeMap<Country, &'static str> = BTreeMap::new();
    for row in files.countries.rows() {
        let (line, [code, name]) = row?;
        let country = Country::from_letters(code)
            .ok_or_else(|| files.countries.error(line, "not a country code"))?;
        names.insert(country, name);
    }
    let mut mccs: BTreeMap<u16, Box<[Country]>> = BTreeMap::new();
    for row in files.mccs.rows() {
        let (line, [mcc, codes, row_names]) = row?;
        let mcc = (mcc.len() == 3)
            .then(|| mcc.parse().ok())
            .flatten()
            .ok_or_else(|| files.mccs.error(line, "not an MCC"))?;
        let mut served = Vec::new();
        let mut row_names = row_names.split("; ");
        for group in codes.split(',') {
            let name = row_names.next();
            for (position, code) in group.split('/').enumerate() {
                let (code, subdivision) = match code.split_once('-') {
                    Some((code, _)) => (code, true),
                    None => (code, false),
                };
                let country = Country::from_letters(code)
                    .ok_or_else(|| files.mccs.error(line, "not a country code"))?;
                if !served.contains(&country) {
                    served.push(country);
                }
                let name = name.filter(|_| position == 0 && !subdivision);
                let known = names.entry(country).or_default();
                if known.is_empty() {
                    *known = name.unwrap_or_default();
                }
            }
        }
        if mccs.insert(mcc, served.into()).is_some() {
            return Err(files.mccs.error(line, "MCC given twice"));
        }
    }
    Ok((mccs.into_iter().collect(), names.into_iter().collect()))
}

type Operators = (Vec<Operator>, Vec<(Plmn, Dialled)>);

fn operators(files: &Files) -> Result<Operators, DataError> {
    let mut operators: BTreeMap<Plmn, Operator> = BTreeMap::new();
    for row in files.operators.rows() {
        let (line, [mcc, mnc, name]) = row?;
        let plmn = files.operators.plmn(line, mcc, mnc)?;
        operators.entry(plmn).or_insert(Operator { plmn, name });
    }
    let digits = mnc_digits(operators.keys());
    let mut add = |padded: Plmn, name| match operators.entry(padded) {
        Entry::Occupied(known) => known.get().plmn,
        Entry::Vacant(vacant) => {
            let plmn = as_written(padded, &digits);
            vacant.insert(Operator { plmn, name }).plmn
        }
    };
    let mut dialled = Vec::new();
    for row in files.nonstandard.rows() {
        let (line, [mcc, mnc, carrier, target, _source]) = row?;
        let plmn = add(files.nonstandard.plmn(line, mcc, mnc)?, carrier);
        let target = match target.parse::<IpAddr>() {
            Ok(address) => Dialled::Address(address),
            Err(_) => Dialled::Name(target),
        };
        dialled.push((plmn, target));
    }
    for row in files.resolving.rows() {
        let (line, [mcc, mnc]) = row?;
        add(files.resolving.plmn(line, mcc, mnc)?, "");
    }
    // Stable: an operator's names stay in the order of the file.
    dialled.sort_by_key(|(plmn, _)| *plmn);
    Ok((operators.into_values().collect(), dialled))
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

/// Files with padded MNCs do not say how the operator writes its own: as its neighbours do.
fn as_written(padded: Plmn, digits: &BTreeMap<u16, u8>) -> Plmn {
    let digits = digits.get(&padded.mcc()).copied().unwrap_or(2);
    Plmn::new(padded.mcc(), padded.mnc(), digits).unwrap_or(padded)
}
