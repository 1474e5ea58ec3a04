//! Countries (ISO 3166-1 alpha-2).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::row::CountryRow;
use super::{countries, list, row, search, table};

/// A country, by its ISO 3166-1 alpha-2 code (or `XK`, the code in use for Kosovo).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(pub(super) [u8; 2]);

impl Country {
    /// Two upper-case letters, whether or not a country has them.
    pub(super) fn from_letters(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self(letters))
    }

    /// All countries, in the order of their codes.
    pub fn all() -> impl Iterator<Item = Self> {
        countries().map(|row| row.0)
    }

    pub(super) fn exists(self) -> bool {
        self.row().is_some()
    }

    /// Its English name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row::text(table::TEXT, row.2))
    }

    /// Its ISO 3166-1 alpha-3 code.
    #[must_use]
    pub fn iso3(self) -> &'static str {
        self.row().map_or("", |row| row::text(table::TEXT, row.1))
    }

    /// Its name, then others that people use.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let aliases = self.row().map_or("", |row| row::text(table::TEXT, row.3));
        std::iter::once(self.name()).chain(list(aliases))
    }

    fn row(self) -> Option<&'static CountryRow> {
        let rows = &table::COUNTRIES;
        let index = rows.binary_search_by_key(&self, |row| row.0).ok()?;
        rows.get(index)
    }

    /// The code, two upper-case letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor has checked for ASCII letters.
        str::from_utf8(&self.0).unwrap_or("??")
    }

    /// The code as bytes, the form that map labels have.
    #[must_use]
    pub const fn letters(self) -> [u8; 2] {
        self.0
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({})", self.as_str())
    }
}

impl serde::Serialize for Country {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A text that is no country.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{found}` is not a country: expected {}", Self::EXPECTED)]
pub struct CountryError {
    /// The text as it was given.
    pub found: String,
    /// What was probably meant.
    pub suggestion: Option<Country>,
}

impl CountryError {
    /// The form that is accepted.
    pub const EXPECTED: &str = "an ISO 3166-1 alpha-2 code in capitals, such as AU";
}

impl FromStr for Country {
    type Err = CountryError;

    fn from_str(text: &str) -> Result<Self, CountryError> {
        Self::from_letters(text)
            .filter(|country| country.exists())
            .ok_or_else(|| CountryError {
                found: text.to_owned(),
                suggestion: search::country(text),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for text in ["AU", "GB", "NF", "XK", "AX"] {
            let country: Country = text.parse().unwrap();
            assert_eq!(country.to_string(), text);
            assert_eq!(&country.letters(), text.as_bytes());
        }
    }

    #[test]
    fn refuses_with_a_suggestion() {
        for (found, suggestion) in [
            ("UK", Some("GB")),
            ("uk", Some("GB")),
            ("au", Some("AU")),
            (" DE", Some("DE")),
            ("Germny", Some("DE")),
            ("australia", Some("AU")),
            ("Austria", Some("AT")),
            ("USA", Some("US")),
            ("DEU", Some("DE")),
            ("gbr", Some("GB")),
            ("Germany", Some("DE")),
            ("Deutschland", Some("DE")),
            ("Turkiye", Some("TR")),
            ("Turkey", Some("TR")),
            ("cote d\u{2019}ivoire", Some("CI")),
            ("Holland", Some("NL")),
            ("South Corea", Some("KR")),
            ("Swizerland", Some("CH")),
            ("EL", Some("GR")),
            ("XX", None),
            ("", None),
            ("Q", None),
            ("no such place", None),
        ] {
            let error = found.parse::<Country>().unwrap_err();
            assert_eq!(error.found, found);
            let suggested = error.suggestion.map(|c| c.to_string());
            assert_eq!(suggested.as_deref(), suggestion, "{found}");
        }
    }
}
