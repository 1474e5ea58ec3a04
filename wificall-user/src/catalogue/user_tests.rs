use super::super::catalogue;
use super::*;

fn with(text: &str) -> Result<Catalogue, Vec<RowError>> {
    let mut catalogue = catalogue().clone();
    catalogue.add_file("f", text).map(|()| catalogue)
}

fn plmn(text: &str) -> Plmn {
    text.parse().unwrap()
}

fn dialled(catalogue: &Catalogue, operator: &str) -> Vec<String> {
    let dialled = catalogue.dialled(plmn(operator));
    dialled
        .map(|dialled| format!("{} {}", dialled.target, dialled.source))
        .collect()
}

#[test]
fn rows_add() {
    let catalogue = with(
        "\u{feff}# comment\n\n\
         operator\t262-97\tDE AT\tCampus\tCampus Netz GmbH\tcampus; Netz\r\n\
         name\t262-97\tePDG.Campus.example.\n\
         prefix\t262-97\t109.237.187.0/24\n\
         prefix\t262-97\t109.237.188.1\t\t\n\
         name\t262-01\tepdg.telekom.example\n\
         name\t888-01\tepdg.nowhere.example\n\
         operator\t001-02\t-\tOur lab\n",
    )
    .unwrap();
    let campus = catalogue.operator(plmn("262-97")).unwrap();
    assert_eq!(
        (
            campus.name,
            campus.company,
            campus.aliases().collect::<Vec<_>>()
        ),
        ("Campus", "Campus Netz GmbH", vec!["campus", "Netz"])
    );
    assert_eq!(
        campus
            .countries
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["DE", "AT"]
    );
    assert_eq!(
        dialled(&catalogue, "262-97"),
        [
            "epdg.campus.example f:4",
            "109.237.187.0/24 f:5",
            "109.237.188.1 f:6"
        ]
    );
    assert_eq!(dialled(&catalogue, "262-01"), ["epdg.telekom.example f:7"]);
    // Named by a row and nowhere else, it can be selected all the same.
    assert_eq!(catalogue.operator(plmn("888-01")).unwrap().name, "");
    assert!(
        catalogue
            .operator(plmn("001-02"))
            .unwrap()
            .countries
            .is_empty()
    );
    let (_, owners) = catalogue.owner_of_name("epdg.campus.example").unwrap();
    assert_eq!(owners.len(), 1);
    let operators: Vec<Plmn> = catalogue.operators().map(|o| o.plmn).collect();
    assert!(operators.is_sorted());
    assert_eq!(
        operators.len(),
        super::super::catalogue().operators().count() + 3
    );
}

#[test]
fn rows_override() {
    let jio = |catalogue: &Catalogue| dialled(catalogue, "405-840");
    assert_eq!(jio(catalogue()).len(), 2);
    let changed = with(
        "operator\t262-001\tCH\tNot Telekom\n\
         name\t405-840\tnone\n\
         name\t405-840\tepdg.jio.example\n\
         prefix\t655-01\tnone\n\
         mcc\t888\tAU NZ\n\
         mcc\t262\t-\n",
    )
    .unwrap();
    let telekom = changed.operator(plmn("262-01")).unwrap();
    assert_eq!((telekom.name, telekom.company), ("Not Telekom", ""));
    assert_eq!(changed.country_of(plmn("262-01")), "CH".parse().ok());
    // What it says nothing of stays.
    assert!(telekom.resolves);
    assert_eq!(jio(&changed), ["epdg.jio.example f:3"]);
    assert!(dialled(&changed, "655-01").is_empty());
    assert_eq!(changed.country_of(plmn("888-99")), "AU".parse().ok());
    assert!(changed.countries_of(262).is_empty());
    // A second file overrides the first.
    let mut twice = changed;
    twice
        .add_file("g", "operator\t262-01\tDE\tTelekom again\n")
        .unwrap();
    assert_eq!(
        twice.operator(plmn("262-01")).unwrap().name,
        "Telekom again"
    );
    assert_eq!(
        catalogue().operator(plmn("262-01")).unwrap().name,
        "Telekom"
    );
}

#[test]
fn wrong_rows_are_told_all_at_once_with_their_places() {
    let long = format!("operator\t262-01\tDE\t{}", "x".repeat(256));
    for (row, column, found, expected, hint) in [
        (
            "operater\t262-01",
            1,
            "\"operater\"",
            "`operator`",
            Some("did you mean operator?"),
        ),
        (
            "operator 262-01 DE X",
            1,
            "\"operator 262-01 DE X\"",
            "`operator`",
            Some("one tab"),
        ),
        (
            "operator\t26201\tDE\tX",
            10,
            "\"26201\"",
            "MCC-MNC",
            Some("262-01"),
        ),
        (
            "operator\t262-01\tUK\tX",
            17,
            "\"UK\"",
            "countries",
            Some("GB"),
        ),
        (
            "operator\t262-01\tDE Germany\tX",
            17,
            "\"Germany\"",
            "countries",
            Some("DE"),
        ),
        (
            "operator\t262-01\tDE",
            19,
            "nothing",
            "the operator's name",
            None,
        ),
        ("operator\t262-01\t\tX", 17, "nothing", "countries", None),
        (
            "operator\t262-01\tDE\tX\tY\tZ\tZZ",
            26,
            "\"ZZ\"",
            "the end of the line",
            None,
        ),
        (&long, 20, "", "at most 255 bytes", None),
        ("name\t262-01\tepdg", 13, "\"epdg\"", "a DNS name", None),
        (
            "name\t262-01\tepdg..example",
            13,
            "\"epdg..example\"",
            "a DNS name",
            Some("epdg.example"),
        ),
        ("name\t262-01", 12, "nothing", "a DNS name", None),
        (
            "name\t262-01\t a b.example",
            14,
            "\"a b.example\"",
            "a DNS name",
            Some("a-b.example"),
        ),
        (
            "prefix\t262-01\t10.0.0.1/8",
            15,
            "\"10.0.0.1/8\"",
            "without bits",
            Some("10.0.0.0/8"),
        ),
        (
            "prefix\t262-01\t0.0.0.0/0",
            15,
            "\"0.0.0.0/0\"",
            "unicast",
            None,
        ),
        (
            "prefix\t262-01\t127.0.0.1",
            15,
            "\"127.0.0.1\"",
            "unicast",
            None,
        ),
        (
            "prefix\t262-01\tepdg.example",
            15,
            "\"epdg.example\"",
            "a network",
            None,
        ),
        ("mcc\t1000\tDE", 5, "\"1000\"", "001 to 999", None),
        ("mcc\t000\tDE", 5, "\"000\"", "001 to 999", None),
        ("mcc\t+26\tDE", 5, "\"+26\"", "001 to 999", None),
        (
            "mcc\t262\tDE\tAT",
            12,
            "\"AT\"",
            "the end of the line",
            None,
        ),
        ("mcc\t262\tÉÉ", 9, "\"ÉÉ\"", "countries", None),
    ] {
        let [error] = &with(&format!("# x\n{row}\n")).unwrap_err()[..] else {
            panic!("{row}");
        };
        assert_eq!((error.line, error.column), (2, column), "{row}: {error:?}");
        assert!(error.found.starts_with(found), "{row}: {error:?}");
        assert!(error.expected.contains(expected), "{row}: {error:?}");
        match hint {
            None => assert_eq!(error.hint, None, "{row}"),
            Some(hint) => assert!(
                error.hint.as_deref().unwrap().contains(hint),
                "{row}: {error:?}"
            ),
        }
    }
    let errors = with(
        "operator\t262-01\tDE\tX\nname\tx\ty\noperator\t262-001\tDE\tX\nmcc\t262\tDE\nmcc\t262\tAT\n",
    )
    .unwrap_err();
    let places: Vec<_> = errors
        .iter()
        .map(|error| (error.line, error.column))
        .collect();
    assert_eq!(places, [(2, 6), (3, 10), (5, 5)]);
    assert_eq!(errors[1].hint.as_deref(), Some("line 1 has it too"));
}

#[test]
fn no_damage_makes_it_panic() {
    let text = "operator\t262-97\tDE AT\tCampus\tC\ta; b\nname\t262-97\tepdg.example\nprefix\t262-97\t2001:db8::/32\nmcc\t262\tDE\n";
    for (at, _) in text.char_indices() {
        let _ = with(&text[..at]);
        for damage in ["\t", "\n", "é", "-", "none"] {
            let _ = with(&format!("{}{damage}{}", &text[..at], &text[at + 1..]));
        }
    }
}
