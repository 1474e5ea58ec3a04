//! Countries (ISO 3166-1 alpha-2).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::catalogue;

/// A country that has a mobile country code, by its ISO 3166-1 alpha-2 code.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Two upper-case letters, whether or not a country has them. Only data files are read so;
    /// everything else goes by [`FromStr`], which knows the countries.
    pub(super) fn from_letters(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self(letters))
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

/// A text that is no country with a mobile country code.
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
            .filter(|country| catalogue().country_exists(*country))
            .ok_or_else(|| CountryError {
                found: text.to_owned(),
                suggestion: suggest(text),
            })
    }
}

/// Codes in common use that are not those of ISO 3166-1 alpha-2.
const ALIASES: &[(&str, Country)] = &[
    ("UK", Country(*b"GB")),
    ("GBR", Country(*b"GB")),
    ("EN", Country(*b"GB")),
    // The European Union's code for Greece.
    ("EL", Country(*b"GR")),
    ("USA", Country(*b"US")),
    ("UAE", Country(*b"AE")),
];

/// Below this similarity (Jaro-Winkler) of names, silence is more helpful than a guess.
const SIMILAR: f64 = 0.85;

/// Shorter texts are codes, and codes that look alike have nothing to do with each other.
const SHORTEST_NAME: usize = 4;

fn suggest(text: &str) -> Option<Country> {
    let upper = text.trim().to_uppercase();
    if let Some(country) = Country::from_letters(&upper)
        && catalogue().country_exists(country)
    {
        return Some(country);
    }
    if let Some((_, country)) = ALIASES.iter().find(|(alias, _)| *alias == upper) {
        return Some(*country);
    }
    if upper.chars().count() < SHORTEST_NAME {
        return None;
    }
    catalogue()
        .countries()
        .map(|(country, name)| (country, strsim::jaro_winkler(&name.to_uppercase(), &upper)))
        .filter(|(_, similarity)| *similarity >= SIMILAR)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(country, _)| country)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for text in ["AU", "GB", "NF", "XK"] {
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
