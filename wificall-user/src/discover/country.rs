//! The country of an endpoint: that of its operators' mobile country codes, and where those have none, or leave open which,
//! that of its address by the GeoIP database. Pure.

use std::collections::BTreeSet;

use super::Owner;
use crate::catalogue::{Catalogue, Country, Plmn};

/// The owners of an endpoint whose address is in `geoip`, each with a country. Nobody in particular becomes somebody there.
#[must_use]
pub fn located(owners: &BTreeSet<Owner>, catalogue: &Catalogue, geoip: Country) -> BTreeSet<Owner> {
    if owners.is_empty() {
        return BTreeSet::from([Owner {
            country: Some(geoip),
            ..Owner::UNKNOWN
        }]);
    }
    let located = |owner: &Owner| match owner.country {
        None => Some(geoip),
        by_mcc if is_open(owner, catalogue, geoip) => by_mcc.map(|_| geoip),
        by_mcc => by_mcc,
    };
    owners
        .iter()
        .map(|owner| Owner {
            country: located(owner),
            ..*owner
        })
        .collect()
}

/// Whether an address in `geoip` is in none of the countries of its operators' codes. Not where they have none.
#[must_use]
pub fn contradicts(owners: &BTreeSet<Owner>, catalogue: &Catalogue, geoip: Country) -> bool {
    let serves = |plmn: Plmn| catalogue.countries_served(plmn).contains(&geoip);
    owners.iter().any(|owner| owner.country.is_some())
        && !owners
            .iter()
            .any(|owner| owner.country == Some(geoip) || owner.plmn.is_some_and(serves))
}

/// Whether the owner has its country only for being the main one of a code that serves this one too: nothing is known of an
/// operator that is not catalogued.
fn is_open(owner: &Owner, catalogue: &Catalogue, geoip: Country) -> bool {
    owner.plmn.is_some_and(|plmn| {
        catalogue.operator(plmn).is_none()
            && owner.country == catalogue.country_of(plmn)
            && catalogue.countries_of(plmn.mcc()).contains(&geoip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    fn country(code: &str) -> Country {
        code.parse().unwrap()
    }

    fn of(operators: &[&str]) -> BTreeSet<Owner> {
        let plmns = operators.iter().map(|text| text.parse().unwrap());
        plmns.map(|plmn| Owner::of(catalogue(), plmn)).collect()
    }

    /// Owners by operator, the address's country, and the countries that follow.
    #[test]
    fn geoip_says_what_the_code_does_not() {
        // 647 serves Réunion and Mayotte; 647-99 is nobody's.
        assert!(catalogue().countries_of(647).len() > 1);
        assert!(catalogue().operator("647-99".parse().unwrap()).is_none());
        let table: [(&[&str], &str, &[&str]); 6] = [
            (&[], "FR", &["FR"]),
            (&["901-28"], "CH", &["CH"]),
            (&["262-01"], "AT", &["DE"]),
            (&["262-01", "901-28"], "AT", &["AT", "DE"]),
            (&["647-99"], "YT", &["YT"]),
            (&["647-99"], "FR", &["RE"]),
        ];
        for (operators, geoip, expected) in table {
            let owners = located(&of(operators), catalogue(), country(geoip));
            let countries: BTreeSet<_> = owners.iter().filter_map(|owner| owner.country).collect();
            let expected: BTreeSet<_> = expected.iter().map(|code| country(code)).collect();
            assert_eq!(countries, expected, "{operators:?} in {geoip}");
            let operators_of = |owners: &BTreeSet<Owner>| -> BTreeSet<_> {
                owners.iter().filter_map(|owner| owner.plmn).collect()
            };
            assert_eq!(operators_of(&owners), operators_of(&of(operators)));
        }
    }

    #[test]
    fn a_configured_country_stays() {
        let owner = Owner {
            country: Some(country("FR")),
            ..Owner::of(catalogue(), "647-99".parse().unwrap())
        };
        let owners = located(&[owner].into(), catalogue(), country("YT"));
        assert_eq!(owners, [owner].into());
    }

    #[test]
    fn only_another_country_than_all_contradicts() {
        // 340 serves the French Antilles; its operators several of them.
        let served = catalogue()
            .operators()
            .find(|operator| catalogue().countries_served(operator.plmn).len() > 1);
        let served = served.unwrap().plmn;
        let second = catalogue().countries_served(served)[1];
        assert!(!contradicts(
            &[Owner::of(catalogue(), served)].into(),
            catalogue(),
            second
        ));
        for (operators, geoip, expected) in [
            (&["262-01"][..], "DE", false),
            (&["262-01"], "AT", true),
            (&["262-01", "232-03"], "AT", false),
            (&["262-01", "232-03"], "CH", true),
            (&["901-28"], "CH", false),
            (&[], "CH", false),
        ] {
            let differs = contradicts(&of(operators), catalogue(), country(geoip));
            assert_eq!(differs, expected, "{operators:?} in {geoip}");
        }
    }
}
