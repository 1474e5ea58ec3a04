//! Finding what somebody means, however it is written.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::{Catalogue, Country, Operator, Plmn, PlmnError};

/// A text without the differences that people do not see or do not type: case, accents, what
/// stands between words.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let letters = text.nfkd().filter(|c| !is_combining_mark(*c));
    for c in letters.flat_map(char::to_lowercase) {
        match c {
            // Letters of their own, which do not decompose.
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'ı' => folded.push('i'),
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            '\'' | '’' | '.' => {}
            c if c.is_alphanumeric() || c == '&' || c == '+' => folded.push(c),
            _ if folded.ends_with(' ') || folded.is_empty() => {}
            _ => folded.push(' '),
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// The one of `known` that `found` is probably meant to be: at most a third of it is wrong.
#[must_use]
pub fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let found = fold(found);
    let best = known
        .iter()
        .min_by_key(|word| strsim::damerau_levenshtein(&found, &fold(word)))?;
    let distance = strsim::damerau_levenshtein(&found, &fold(best));
    (distance <= best.chars().count().max(3) / 3).then_some(*best)
}

impl Catalogue {
    /// The operators with `query` in their number, in one of their names, or in a name or address
    /// that they are known to use; in the order of their numbers. Case and accents make no
    /// difference.
    #[must_use]
    pub fn search(&self, query: &str) -> Vec<Operator<'_>> {
        let folded = fold(query);
        let number: String = query.chars().filter(char::is_ascii_digit).collect();
        let is_number = !number.is_empty()
            && query
                .chars()
                .all(|c| c.is_ascii_digit() || "-/_. ".contains(c));
        let target = query.trim().trim_end_matches('.').to_ascii_lowercase();
        self.operators()
            .filter(|operator| {
                (is_number && is_numbered(operator.plmn, &number))
                    || (!folded.is_empty()
                        && names(operator).any(|name| fold(name).contains(&folded)))
                    || (target.contains('.')
                        && self
                            .dialled(operator.plmn)
                            .any(|dialled| dialled.target.to_string().contains(&target)))
            })
            .collect()
    }

    /// An operator's or a country's name that is like `query`.
    #[must_use]
    pub fn nearest_name(&self, query: &str) -> Option<String> {
        /// Below this similarity (Jaro-Winkler), silence is more helpful than a guess.
        const SIMILAR: f64 = 0.8;
        let query = fold(query);
        if query.is_empty() {
            return None;
        }
        let operators = self.operators();
        operators
            .flat_map(|operator| names(&operator).collect::<Vec<_>>())
            .map(|name| (name, strsim::jaro_winkler(&fold(name), &query)))
            .filter(|(_, similarity)| *similarity >= SIMILAR)
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(name, _)| name.to_owned())
    }

    /// What a text that is no operator's number probably means: with a digit too many, the nearest
    /// number.
    #[must_use]
    pub fn meant(&self, error: &PlmnError) -> Option<String> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let too_long = || {
            let (mcc, mnc) = error.found.split_once('-')?;
            let is = digits(mcc) && digits(mnc) && (mcc.len() > 3 || mnc.len() > 3);
            is.then(|| self.nearest_operator(&error.found))?
        };
        let nearest = || too_long().map(|plmn| plmn.to_string());
        error.suggestion.clone().or_else(nearest)
    }

    /// The operator whose number is written most like `number`, with two differences at most. Of
    /// several, one that begins like it.
    #[must_use]
    pub fn nearest_operator(&self, number: &str) -> Option<Plmn> {
        let difference = |plmn: &Plmn| {
            let other = plmn.to_string();
            let alike = number.bytes().zip(other.bytes());
            let alike = alike.take_while(|(one, other)| one == other).count();
            let distance = strsim::damerau_levenshtein(number, &other);
            (distance, std::cmp::Reverse(alike))
        };
        self.operators()
            .map(|operator| operator.plmn)
            .min_by_key(difference)
            .filter(|plmn| difference(plmn).0 <= 2)
    }

    /// The operator that a name in place of a number probably means: one that is called just
    /// that, in service if there is one.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<Operator<'_>> {
        let name = fold(name);
        if name.is_empty() {
            return None;
        }
        self.operators()
            .filter(|operator| names(operator).any(|known| fold(known) == name))
            .min_by_key(|operator| {
                (
                    operator.status != super::Status::Operational,
                    !operator.resolves,
                )
            })
    }
}

/// All names of an operator.
fn names<'a>(operator: &Operator<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    [operator.name, operator.company]
        .into_iter()
        .chain(operator.aliases())
        .filter(|name| !name.is_empty())
}

/// Whether a number begins with these digits, written with two digits of MNC or with three.
fn is_numbered(plmn: Plmn, digits: &str) -> bool {
    let written = plmn.to_string().replace('-', "");
    let padded = format!("{:03}{:03}", plmn.mcc(), plmn.mnc());
    // `26201` is 262-01 and not also 262-010.
    written.starts_with(digits) && (digits.len() <= 3 || written == digits) || padded == digits
}

/// Below this similarity (Jaro-Winkler) of names, silence is more helpful than a guess.
const SIMILAR: f64 = 0.85;

/// Shorter texts are codes, and codes that look alike have nothing to do with each other.
const SHORTEST_NAME: usize = 4;

/// The country that somebody means by a code or a name that is none.
#[must_use]
pub fn country(text: &str) -> Option<Country> {
    let upper = text.trim().to_uppercase();
    if let Some(country) = Country::from_letters(&upper).filter(|country| country.exists()) {
        return Some(country);
    }
    let folded = fold(text);
    if folded.is_empty() {
        return None;
    }
    let named = |country: &Country| {
        country.iso3() == upper || country.names().any(|name| fold(name) == folded)
    };
    if let Some(country) = Country::all().find(named) {
        return Some(country);
    }
    if folded.chars().count() < SHORTEST_NAME {
        return None;
    }
    Country::all()
        .flat_map(|country| country.names().map(move |name| (country, name)))
        .map(|(country, name)| (country, strsim::jaro_winkler(&fold(name), &folded)))
        .filter(|(_, similarity)| *similarity >= SIMILAR)
        // The first of equals: the table has names before aliases.
        .reduce(|best, other| if other.1 > best.1 { other } else { best })
        .map(|(country, _)| country)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    #[test]
    fn folding() {
        for (text, folded) in [
            ("Telekom", "telekom"),
            ("Türk  Telekom", "turk telekom"),
            ("Côte d'Ivoire", "cote divoire"),
            ("Ålcom", "alcom"),
            ("Łódź", "lodz"),
            ("Straße", "strasse"),
            ("AT&T", "at&t"),
            ("T-Mobile", "t mobile"),
            ("МТС", "мтс"),
            (" - ", ""),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn operators_are_found_by_names_numbers_and_what_they_use() {
        let found = |query: &str| -> Vec<String> {
            let operators = catalogue().search(query).into_iter();
            operators
                .map(|operator| operator.plmn.to_string())
                .collect()
        };
        assert!(found("telekom").contains(&"262-01".to_owned()));
        assert!(found("TÉLÉKOM").contains(&"262-01".to_owned()));
        assert_eq!(found("telekom deutschland"), found("Telekom-Deutschland"));
        for query in ["262-01", "26201", "262001", "262-001"] {
            assert_eq!(found(query), ["262-01"], "{query}");
        }
        assert!(found("262").len() > 20);
        assert_eq!(found("epdg.telco.telenet-ops.be"), ["206-05", "206-20"]);
        assert_eq!(found("69.79.196.12"), ["338-180", "342-600", "364-39"]);
        assert_eq!(found("no such operator"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
    }

    #[test]
    fn what_is_not_found_has_something_near() {
        for (query, name) in [
            ("telekon", Some("Telekom")),
            ("vodafnoe", Some("Vodafone")),
            ("qqqqqqqq", None),
            ("", None),
        ] {
            assert_eq!(catalogue().nearest_name(query).as_deref(), name, "{query}");
        }
        let called = |name| catalogue().called(name).map(|o| o.plmn.to_string());
        assert_eq!(called("telstra").as_deref(), Some("505-01"));
        assert_eq!(called("no such operator"), None);
    }

    #[test]
    fn a_digit_too_many_means_the_nearest_operator() {
        for (text, meant) in [
            ("262-1000", Some("262-10")),
            ("1262-01", Some("262-01")),
            ("2622-001", Some("262-01")),
            ("262-1", Some("262-01")),
            ("12345-678", None),
            ("1262-x1", None),
            ("1262-", None),
            ("262", None),
        ] {
            let error = text.parse::<Plmn>().unwrap_err();
            assert_eq!(catalogue().meant(&error).as_deref(), meant, "{text}");
        }
        let nearest = |number: &str| catalogue().nearest_operator(number);
        assert_eq!(nearest("262-01"), "262-01".parse().ok());
        assert_eq!(nearest("208-85"), "208-86".parse().ok());
        assert_eq!(nearest("7"), None);
    }
}
