use std::collections::{BTreeMap, BTreeSet};

use super::data::FILES;
use super::*;

fn plmn(text: &str) -> Plmn {
    text.parse().unwrap()
}

fn names(text: &str) -> Vec<String> {
    let names = catalogue().names(plmn(text));
    names.into_iter().map(|n| n.name).collect()
}

fn countries(mcc: u16) -> Vec<String> {
    let countries = catalogue().countries_of(mcc).iter();
    countries.map(Country::to_string).collect()
}

#[test]
fn standard_names_pad_the_mnc() {
    let expected = [
        "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
        "sos.epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
        "n3iwf.5gc.mnc001.mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc01.mcc262.pub.3gppnetwork.org",
    ];
    assert_eq!(names("262-01"), expected);
    assert_eq!(names("262-001"), expected);
    // No operator of the catalogue: the names follow from the number all the same.
    assert_eq!(catalogue().operator(plmn("262-98")), None);
    assert_eq!(names("262-98").len(), 4);
    assert_eq!(
        names("001-01")[0],
        "epdg.epc.mnc001.mcc001.pub.3gppnetwork.org"
    );
}

#[test]
fn carriers_have_names_of_their_own() {
    assert_eq!(names("311-480")[3..], ["wo.vzwwo.com"]);
    assert_eq!(
        names("405-840")[3..],
        ["internationalvowifi.jio.com", "vowifi.jio.com"]
    );
    assert_eq!(names("310-260").len(), 6);
    // A carrier's own name that is the standard one adds nothing.
    assert!(catalogue().operators().all(|o| {
        let names = catalogue().names(o.plmn);
        names.iter().collect::<BTreeSet<_>>().len() == names.len()
    }));
}

#[test]
fn names_have_owners() {
    let catalogue = catalogue().clone().with_names([
        ("epdg.example.net".to_owned(), Owner::UNKNOWN),
        (
            "vowifi.jio.com".to_owned(),
            Owner::configured(catalogue(), None, "BT".parse().ok()),
        ),
    ]);
    let owner = |owner: &Owner| {
        let text = |part: Option<String>| part.unwrap_or_else(|| "?".to_owned());
        format!(
            "{} {}",
            text(owner.plmn.map(|p| p.to_string())),
            text(owner.country.map(|c| c.to_string()))
        )
    };
    for (name, kind, owners) in [
        (
            "EPDG.epc.mnc001.mcc262.pub.3gppnetwork.org.",
            NameKind::Operator,
            &["262-01 DE"][..],
        ),
        // Dialled by others too.
        (
            "epdg.epc.mnc008.mcc240.pub.3gppnetwork.org",
            NameKind::Operator,
            &["240-06 SE", "240-08 SE"],
        ),
        (
            "ss.epdg.epc.geo.mnc260.mcc310.pub.3gppnetwork.org",
            NameKind::Carrier,
            &["310-260 US"],
        ),
        (
            "tac-lb01.tac-hb02.tac.sos.epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
            NameKind::AreaEmergency,
            &["262-01 DE"],
        ),
        (
            "epdg.epc.mcc262.visited-country.pub.3gppnetwork.org",
            NameKind::VisitedCountry,
            &["? DE"],
        ),
        (
            "epdg.epc.mcc901.visited-country.pub.3gppnetwork.org",
            NameKind::VisitedCountry,
            &["? ?"],
        ),
        (
            "epdg.THREE.ie",
            NameKind::Carrier,
            &["272-02 IE", "272-05 IE"],
        ),
        ("epdg.example.net", NameKind::Carrier, &["? ?"]),
    ] {
        let (found, found_owners) = catalogue.owner_of_name(name).unwrap();
        let found_owners: Vec<_> = found_owners.iter().map(owner).collect();
        assert_eq!(
            (found, &*found_owners),
            (
                kind,
                &owners.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{name}"
        );
    }
    let (_, owners) = catalogue.owner_of_name("vowifi.jio.com").unwrap();
    assert!(owners.iter().map(owner).any(|owner| owner == "? BT"));
    assert!(owners.len() > 5);
    for name in [
        "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org.evil.example",
        "evil-vowifi.jio.com",
        "vowifi.jio.com.evil.example",
        "www.example.net",
        "",
    ] {
        assert_eq!(catalogue.owner_of_name(name), None, "{name}");
    }
}

#[test]
fn some_carriers_dial_an_address() {
    let addresses = catalogue().addresses(plmn("655-01"));
    assert_eq!(addresses, ["41.1.162.233".parse::<IpAddr>().unwrap()]);
    assert_eq!(names("655-01").len(), 4);
    assert!(catalogue().addresses(plmn("262-01")).is_empty());
}

#[test]
fn operators_are_found_by_any_padding() {
    let operator = catalogue().operator(plmn("262-001")).unwrap();
    assert_eq!(operator.plmn.to_string(), "262-01");
    assert_eq!(operator.name, "Telekom");
    let germany: Vec<_> = catalogue().operators_of(262).collect();
    assert!(germany.len() > 5 && germany.iter().all(|o| o.plmn.mcc() == 262));
    assert_eq!(catalogue().operators_of(999).count(), 0);
}

/// The name list has the largest carriers only by their virtual operators; the list of names that
/// resolve brings them in, written as their neighbours are.
#[test]
fn operators_without_a_name_are_known() {
    for text in ["208-01", "222-10", "234-15", "302-220", "901-39"] {
        let operator = catalogue().operator(plmn(text)).unwrap();
        assert_eq!(operator.plmn.to_string(), text);
    }
}

#[test]
fn mccs_serve_none_one_or_several_countries() {
    assert_eq!(countries(262), ["DE"]);
    assert_eq!(countries(289), ["GE"]);
    assert_eq!(countries(505), ["AU", "CC", "CX", "NF"]);
    assert_eq!(countries(340), ["BL", "GF", "GP", "MF", "MQ"]);
    for mcc in [1, 901, 902, 991, 995, 999] {
        assert!(countries(mcc).is_empty(), "{mcc}");
    }
    let us: Vec<_> = catalogue().mccs_of("US".parse().unwrap()).collect();
    assert!(us.contains(&310) && us.contains(&316));
    assert_eq!(catalogue().country_of(plmn("234-15")), "GB".parse().ok());
    assert_eq!(catalogue().country_of(plmn("901-39")), None);
}

#[test]
fn countries_have_names() {
    for (code, name) in [
        ("DE", "Germany"),
        ("AU", "Australia"),
        ("CX", "Christmas Island"),
        ("MQ", "Martinique"),
        ("NF", "Norfolk Island"),
    ] {
        let country = code.parse().unwrap();
        assert_eq!(catalogue().country_name(country), Some(name));
    }
    for (country, name) in catalogue().countries() {
        assert!(!name.is_empty(), "{country}");
    }
}

/// Rows are unique as written and sorted; those that only padding makes equal are these and no
/// others; every MCC with an operator is one of a country or known to be of none.
#[test]
fn data_is_consistent() {
    let mut by_plmn: BTreeMap<Plmn, Vec<String>> = BTreeMap::new();
    let mut written = BTreeSet::new();
    for row in FILES.operators.rows() {
        let (line, [mcc, mnc, name]) = row.unwrap();
        assert!(!name.is_empty(), "line {line}");
        assert!(written.insert(format!("{mcc}-{mnc}")), "line {line}");
        by_plmn
            .entry(plmn(&format!("{mcc}-{mnc}")))
            .or_default()
            .push(format!("{mcc}-{mnc}"));
    }
    let twice: Vec<_> = by_plmn.values().filter(|v| v.len() > 1).flatten().collect();
    let expected = [
        "250-050", "250-50", "310-026", "310-26", "405-045", "405-45", "450-006", "450-06",
        "708-001", "708-01", "708-002", "708-02", "708-040", "708-40", "738-002", "738-02",
    ];
    assert_eq!(twice, expected);

    for file in [&FILES.nonstandard, &FILES.resolving] {
        for row in file.text.lines().skip(2) {
            let mnc = row.split('\t').nth(1).unwrap();
            assert_eq!(mnc.len(), 3, "{}: {row}", file.name);
        }
    }
    let mut seen = BTreeSet::new();
    for row in FILES.resolving.rows() {
        let (line, [mcc, mnc]) = row.unwrap();
        assert!(seen.insert((mcc, mnc)), "line {line}");
    }
    let mut seen = BTreeSet::new();
    for row in FILES.nonstandard.rows() {
        let (line, [mcc, mnc, carrier, target, source]) = row.unwrap();
        assert!(seen.insert((mcc, mnc, target)), "line {line}");
        assert!(!carrier.is_empty() && !source.is_empty(), "line {line}");
        let is_name = target.split('.').count() >= 3
            && target.split('.').all(|label| {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                (1..=63).contains(&label.len()) && label.bytes().all(inner)
            });
        assert!(is_name || target.parse::<IpAddr>().is_ok(), "line {line}");
    }

    for operator in catalogue().operators() {
        let mcc = operator.plmn.mcc();
        let none = [1, 901].contains(&mcc);
        assert_eq!(catalogue().countries_of(mcc).is_empty(), none, "{mcc}");
    }
    for row in FILES.countries.rows() {
        let (line, [code, _name]) = row.unwrap();
        let country = code.parse::<Country>().unwrap();
        assert!(catalogue().mccs_of(country).next().is_some(), "line {line}");
    }
}

#[test]
fn bad_rows_are_refused_with_their_place() {
    let bad = |operators: &'static str| {
        let files = data::Files {
            operators: data::File {
                name: "operators.tsv",
                text: operators,
            },
            ..FILES
        };
        data::parse(&files).unwrap_err().to_string()
    };
    assert_eq!(
        bad("# comment\nmcc\tmnc\tcarrier\n262\t01\tA\n262\t1\tB\n"),
        "data/operators.tsv:4: not an MCC and MNC"
    );
    assert_eq!(
        bad("mcc\tmnc\tcarrier\n262\t01\n"),
        "data/operators.tsv:2: too few fields"
    );
}
