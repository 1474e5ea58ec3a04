use super::*;
use crate::discover::filter::special;

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
    assert_eq!(catalogue().operator(plmn("262-97")), None);
    assert_eq!(names("262-97").len(), 4);
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
fn names_have_sources() {
    let catalogue = catalogue()
        .clone()
        .with_names([("epdg.example.net".to_owned(), Owner::UNKNOWN)]);
    for (name, expected) in [
        ("EPDG.epc.mnc001.mcc262.pub.3gppnetwork.org.", "standard"),
        (
            "epdg.epc.mnc260.mcc310.pub.3gppnetwork.org",
            "carrier-settings standard",
        ),
        (
            "ss.epdg.epc.geo.mnc260.mcc310.pub.3gppnetwork.org",
            "domain rule-list",
        ),
        ("epdg99.epc.mnc260.mcc310.pub.3gppnetwork.org", "domain"),
        ("wo.vzwwo.com", "carrier-settings handset-profile"),
        ("epdg.example.net", "configuration"),
        ("www.example.net", ""),
    ] {
        let sources: Vec<_> = catalogue.sources_of_name(name).into_iter().collect();
        assert_eq!(sources.join(" "), expected, "{name}");
    }
}

#[test]
fn some_carriers_dial_an_address() {
    let networks = catalogue().networks(plmn("655-01"));
    assert_eq!(networks, ["41.1.162.233/32".parse::<IpNet>().unwrap()]);
    assert_eq!(names("655-01").len(), 4);
    assert!(catalogue().networks(plmn("262-01")).is_empty());
}

#[test]
fn operators_are_found_by_any_padding() {
    let operator = catalogue().operator(plmn("262-001")).unwrap();
    assert_eq!(operator.plmn.to_string(), "262-01");
    assert_eq!(operator.name, "Telekom");
    assert_eq!(operator.company, "Telekom Deutschland GmbH");
    assert_eq!(operator.status, Status::Operational);
    assert!(operator.resolves);
    assert!(catalogue().operator(plmn("262-97")).is_none());
}

/// Each source has operators that the others lack.
#[test]
fn operators_of_all_sources_are_known() {
    for text in [
        "208-01", "222-10", "234-15", "302-220", "901-39", "311-589", "405-045",
    ] {
        let operator = catalogue().operator(plmn(text)).unwrap();
        assert_eq!(operator.plmn.to_string(), text);
    }
    let sprint = catalogue().operator(plmn("310-120")).unwrap();
    assert!(sprint.aliases().count() > 0, "{sprint:?}");
}

#[test]
fn mccs_serve_none_one_or_several_countries() {
    assert_eq!(countries(262), ["DE"]);
    assert_eq!(countries(289), ["GE"]);
    assert_eq!(countries(505), ["AU", "CC", "CX", "NF"]);
    assert_eq!(countries(340), ["GP", "MQ", "GF", "BL", "MF"]);
    for mcc in [1, 901, 902, 991, 995, 999] {
        assert!(countries(mcc).is_empty(), "{mcc}");
    }
}

/// An operator of an MCC that serves several countries has its own.
#[test]
fn operators_have_countries_of_their_own() {
    for (text, expected) in [
        ("234-15", "GB"),
        ("234-50", "JE GG"),
        ("234-55", "GG JE"),
        ("234-58", "IM"),
        ("310-260", "US PR VI"),
        ("310-032", "GU"),
        ("311-780", "AS"),
        ("338-05", "JM KY MS LC"),
        ("338-050", "BM TC"),
        ("340-20", "GP MQ GF BL MF"),
        ("425-05", "PS"),
        ("425-01", "IL"),
        ("505-01", "AU CC CX"),
        ("505-10", "NF"),
        ("270-99", "LU"),
        ("901-39", ""),
        // Not catalogued: all that its MCC serves.
        ("234-97", "GB IM JE GG"),
    ] {
        let served = catalogue().countries_served(plmn(text)).iter();
        let served: Vec<_> = served.map(ToString::to_string).collect();
        assert_eq!(served.join(" "), expected, "{text}");
    }
    assert_eq!(catalogue().country_of(plmn("234-50")), "JE".parse().ok());
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
        ("AX", "Åland Islands"),
    ] {
        assert_eq!(code.parse::<Country>().unwrap().name(), name);
    }
    assert_eq!(Country::all().count(), 250);
}

/// What the generator promises, and what only the agent can check.
#[test]
fn the_table_is_consistent() {
    let catalogue = catalogue();
    assert!(catalogue.operators.is_sorted_by(|a, b| a.plmn() < b.plmn()));
    assert!(catalogue.mccs.is_sorted_by(|a, b| a.0 < b.0));
    assert!(catalogue.dialled.is_sorted_by(|a, b| a.plmn() <= b.plmn()));
    assert!(table::COUNTRIES.is_sorted_by(|a, b| a.0 < b.0));
    for operator in catalogue.operators() {
        let of_mcc = catalogue.countries_of(operator.plmn.mcc());
        assert!(
            operator
                .countries
                .iter()
                .all(|country| of_mcc.contains(country)),
            "{operator:?}"
        );
        // Whoever can have a country has one.
        assert_eq!(
            operator.countries.is_empty(),
            of_mcc.is_empty(),
            "{operator:?}"
        );
        let names = catalogue.names(operator.plmn);
        let distinct: BTreeSet<_> = names.iter().map(|name| &name.name).collect();
        assert_eq!(distinct.len(), names.len(), "{operator:?}");
        for text in [operator.name, operator.company]
            .into_iter()
            .chain(operator.aliases())
        {
            assert!(!text.contains('\n') && text.trim() == text, "{operator:?}");
        }
        for dialled in catalogue.dialled(operator.plmn) {
            assert!(!dialled.source.is_empty());
            match dialled.target {
                DialledTarget::Name(name) => {
                    assert_eq!(names::host_name(name).as_deref(), Ok(name));
                }
                DialledTarget::Network(net) => {
                    assert!(is_endpoint_network(&net), "{net}");
                    for address in [net.network(), net.broadcast()] {
                        assert_eq!(special(address), None, "{net} is not global unicast");
                    }
                }
            }
        }
    }
    for row in catalogue.dialled.iter() {
        assert!(catalogue.operator(row.plmn()).is_some(), "{row:?}");
    }
    for country in Country::all() {
        assert_eq!(country.as_str().parse(), Ok(country));
        assert!(!country.name().is_empty() && country.iso3().len() == 3);
    }
    for row in catalogue.mccs.iter() {
        for country in catalogue.countries_of(row.0) {
            assert!(country.exists(), "{country}");
        }
    }
}

/// How much there is: an import that loses half of it should not pass.
#[test]
fn the_table_is_large() {
    let operators = catalogue().operators().count();
    let resolving = catalogue().operators().filter(|o| o.resolves).count();
    let countries: BTreeSet<_> = catalogue().operators().flat_map(|o| o.countries).collect();
    assert!(operators >= 3_200, "{operators}");
    assert_eq!(resolving, 499);
    assert!(countries.len() >= 230, "{}", countries.len());
    assert!(catalogue().dialled.len() >= 104);
}
