use super::*;

fn plmn(text: &str) -> Plmn {
    text.parse().unwrap()
}

fn texts(names: impl IntoIterator<Item = EpdgName>) -> Vec<String> {
    names.into_iter().map(|name| name.name).collect()
}

#[test]
fn names_of_a_two_digit_operator() {
    assert_eq!(
        texts(standard(plmn("262-01"))),
        [
            "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
            "sos.epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
            "n3iwf.5gc.mnc001.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mnc01.mcc262.pub.3gppnetwork.org",
        ]
    );
    assert_eq!(
        texts(on_demand(plmn("262-01"))),
        [
            "sos.n3iwf.5gc.mnc001.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mnc001.mcc262.3gppnetwork.org",
            "sos.epdg.epc.mnc001.mcc262.3gppnetwork.org",
            "n3iwf.5gc.mnc001.mcc262.3gppnetwork.org",
            "sos.epdg.epc.mnc01.mcc262.pub.3gppnetwork.org",
            "n3iwf.5gc.mnc01.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mnc01.mcc262.3gppnetwork.org",
        ]
    );
}

/// An MNC of three digits, also one that begins with 0, is written in one way only.
#[test]
fn names_of_a_three_digit_operator() {
    for text in ["310-260", "310-026"] {
        assert_eq!(texts(standard(plmn(text))).len(), 3);
        assert_eq!(texts(on_demand(plmn(text))).len(), 4);
    }
}

#[test]
fn names_of_a_country() {
    assert_eq!(
        texts(visited_country(1)),
        [
            "epdg.epc.mcc001.visited-country.pub.3gppnetwork.org",
            "sos.epdg.epc.mcc001.visited-country.pub.3gppnetwork.org",
            "n3iwf.5gc.mcc001.visited-country.pub.3gppnetwork.org",
            "sos.n3iwf.5gc.mcc001.visited-country.pub.3gppnetwork.org",
        ]
    );
}

#[test]
fn what_is_made_is_read_back() {
    for text in ["262-01", "310-260", "001-01", "405-045"] {
        for name in standard(plmn(text)).chain(on_demand(plmn(text))) {
            let parsed = parse(&name.name).unwrap();
            assert_eq!(
                (parsed.kind, parsed.plmn, parsed.mcc),
                (name.kind, Some(plmn(text)), plmn(text).mcc()),
                "{}",
                name.name
            );
        }
    }
    for name in visited_country(262) {
        let parsed = parse(&name.name).unwrap();
        assert_eq!(
            (parsed.kind, parsed.plmn, parsed.mcc),
            (name.kind, None, 262)
        );
    }
}

#[test]
fn names_are_read_in_all_their_forms() {
    for (name, kind, operator) in [
        // Phones that mix cases against spoofing (0x20) get the same answer.
        (
            "ePdG.EPC.mNc001.MCC262.PUB.3GppNetwork.ORG",
            NameKind::Operator,
            Some("262-01"),
        ),
        (
            "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org.",
            NameKind::Operator,
            Some("262-01"),
        ),
        (
            "epdg.epc.mnc10.mcc219.pub.3gppnetwork.org",
            NameKind::Unpadded,
            Some("219-10"),
        ),
        (
            "epdg.epc.mnc004.mcc643.3gppnetwork.org",
            NameKind::Operator,
            Some("643-04"),
        ),
        (
            "tac-lb21.tac-hb1A.tac.epdg.epc.mnc012.mcc345.pub.3gppnetwork.org",
            NameKind::Area,
            Some("345-12"),
        ),
        (
            "tac-lb21.tac-hb1a.tac.sos.epdg.epc.mnc012.mcc345.pub.3gppnetwork.org",
            NameKind::AreaEmergency,
            Some("345-12"),
        ),
        (
            "tac-lb21.tac-mb1a.tac-hb0b.5gstac.epdg.epc.mnc012.mcc345.pub.3gppnetwork.org",
            NameKind::Area,
            Some("345-12"),
        ),
        (
            "tac-lb21.tac-mb1a.tac-hb0b.5gstac.n3iwf.5gc.mnc012.mcc345.pub.3gppnetwork.org",
            NameKind::Area,
            Some("345-12"),
        ),
        (
            "lac0b1f.epdg.epc.mnc012.mcc345.pub.3gppnetwork.org",
            NameKind::Area,
            Some("345-12"),
        ),
        (
            "ss.epdg.epc.geo.mnc260.mcc310.pub.3gppnetwork.org",
            NameKind::Carrier,
            Some("310-260"),
        ),
        (
            "epdg01.epc.mnc006.mcc456.pub.3gppnetwork.org",
            NameKind::Carrier,
            Some("456-06"),
        ),
        (
            "sos.epdg.ims.mnc003.mcc712.pub.3gppnetwork.org",
            NameKind::CarrierEmergency,
            Some("712-03"),
        ),
        (
            "sos.n3iwf.5gc.mcc262.visited-country.pub.3gppnetwork.org",
            NameKind::VisitedCountryEmergency,
            None,
        ),
    ] {
        let parsed = parse(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            (parsed.kind, parsed.plmn),
            (kind, operator.map(plmn)),
            "{name}"
        );
    }
}

/// What an attacker could get somebody to resolve, and names of other services.
#[test]
fn other_names_are_none() {
    let long = format!(
        "{}epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
        "a.".repeat(120)
    );
    for name in [
        "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org.evil.example",
        "epdg.epc.mnc001.mcc262.pub.3gppnetwork.com",
        "epdg.epc.mnc001.mcc262.pub.evil-3gppnetwork.org",
        "epdg.epc.mnc001.mcc262.pub3gppnetwork.org",
        "epdg.epc.mnc001.mcc262.pub.evil.3gppnetwork.org",
        "epdg.epc.mnc001.mcc262.pub.pub.3gppnetwork.org",
        "epdg.epc.mnc001.mcc262.visited-country.pub.3gppnetwork.org",
        "ims.mnc001.mcc262.pub.3gppnetwork.org",
        "xcap.ims.mnc001.mcc262.pub.3gppnetwork.org",
        "mnc001.mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc1.mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc0001.mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc+01.mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc001.mcc000.pub.3gppnetwork.org",
        "epdg.epc.mnc001.mcc26.pub.3gppnetwork.org",
        "epdg.epc.mcc262.pub.3gppnetwork.org",
        "n3iwf.epc.mcc262.visited-country.pub.3gppnetwork.org",
        "epdg.epc.mnc001..mcc262.pub.3gppnetwork.org",
        "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org..",
        "epdg .epc.mnc001.mcc262.pub.3gppnetwork.org",
        ".epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
        "3gppnetwork.org",
        ".3gppnetwork.org",
        "",
        &long,
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
}

#[test]
fn areas_are_checked() {
    for labels in [
        "tac-lb2.tac-hb1a.tac",
        "tac-lb21.tac-hb1g.tac",
        "tac-hb1a.tac-lb21.tac",
        "tac-lb21.tac-mb1a.tac-hb0b.tac",
        "lac0b1",
        "anything",
    ] {
        let name = format!("{labels}.epdg.epc.mnc012.mcc345.pub.3gppnetwork.org");
        // It is below the operator's own domain all the same.
        assert_eq!(parse(&name).unwrap().kind, NameKind::Carrier, "{name}");
    }
}

#[test]
fn what_is_no_name_gets_a_suggestion() {
    for (text, suggestion) in [
        ("", None),
        ("epdg", None),
        ("192.0.2.1", None),
        ("epdg.example.1", None),
        ("2001:db8::1", None),
        ("epdg..example.net", Some("epdg.example.net")),
        (".epdg.example.net", Some("epdg.example.net")),
        (" epdg.example.net ", Some("epdg.example.net")),
        (
            "https://EPDG.example.net:500/path",
            Some("epdg.example.net"),
        ),
        ("admin@epdg.example.net", Some("epdg.example.net")),
        ("my epdg.example.net", Some("my-epdg.example.net")),
        ("épdg.example.net", None),
        (
            "epdg.epc.mnc1.mcc262.pub.3gppnetwork.org",
            Some("epdg.epc.mnc001.mcc262.pub.3gppnetwork.org"),
        ),
        (
            "sos.epdg.epc.mnc0260.mcc310.3gppnetwork.org",
            Some("sos.epdg.epc.mnc260.mcc310.3gppnetwork.org"),
        ),
    ] {
        let error = host_name(text).unwrap_err();
        assert_eq!(error.found, text);
        assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
    }
    for (text, name) in [
        ("WO.vzwwo.com", "wo.vzwwo.com"),
        ("epdg.example.net.", "epdg.example.net"),
        ("_epdg.example.net", "_epdg.example.net"),
        (
            "epdg.epc.mnc01.mcc262.pub.3gppnetwork.org",
            "epdg.epc.mnc01.mcc262.pub.3gppnetwork.org",
        ),
        (
            "epdg.example.3gppnetwork.org",
            "epdg.example.3gppnetwork.org",
        ),
    ] {
        assert_eq!(host_name(text).as_deref(), Ok(name));
    }
}
