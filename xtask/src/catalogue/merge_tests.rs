use super::*;

const COUNTRIES: &str = "iso\tiso3\tname\taliases\nDE\tDEU\tGermany\tDeutschland\nGB\tGBR\tUnited Kingdom\tUK; Britain\nJE\tJEY\tJersey\t\n";
const MCCS: &str = "mcc\tiso\tnote\n001\t-\ttests\n234\tGB JE\t\n262\tDE\t\n";
const WIKIPEDIA_ROWS: &str = "mcc\tmnc\tiso\tbrand\toperator\tstatus\n\
     001\t001\t\tTEST\tTest network\t\n\
     001\t01\t\tTEST\tTest network\t\n\
     234\t15\tGB\tVodafone\tVodafone Ltd\tOperational\n\
     234\t50\tGB\tJT\tJT Group Limited\tOperational\n\
     234\t50\tJE\tJT Jersey\tJT Group Limited\tOperational\n\
     262\t01\tDE\tTelekom\tTelekom Deutschland GmbH\tOperational\n\
     262\t05\tDE\t\tOld GmbH\tNot operational\n";
const AOSP: &str = "mcc\tmnc\tcarrier\n262\t01\tT-Mobile\n262\t05\told gmbh\n262\t77\tAOSP only\n";
const DECIDED: &str = "mcc\tmnc\tiso\twhy\n234\t50\tJE\tits own\n";
const NONSTANDARD: &str = "mcc\tmnc3\tcarrier\tepdg\tsource\n262\t001\tx\tepdg.example.net\trule-list\n262\t088\tid_de\t192.0.2.1\thandset-profile\n";
const RESOLVING: &str = "mcc\tmnc3\n262\t001\n262\t099\n";

/// The files, with one of them replaced.
fn merged(changed: &str, text: &str) -> Catalogue {
    let file = |name: &'static str, original: &str| {
        File::of(name, if name == changed { text } else { original })
    };
    merge(&Files {
        wikipedia: file("wikipedia", WIKIPEDIA_ROWS),
        aosp: file("aosp", AOSP),
        operator_country: file("decided", DECIDED),
        mcc_country: file("mccs", MCCS),
        countries: file("countries", COUNTRIES),
        nonstandard: file("nonstandard", NONSTANDARD),
        resolving: file("resolving", RESOLVING),
    })
}

fn operator<'a>(catalogue: &'a Catalogue, plmn: &str) -> (String, &'a Operator) {
    let (plmn, operator) = catalogue
        .operators
        .get_key_value(&plmn.parse().unwrap())
        .unwrap();
    (plmn.to_string(), operator)
}

#[test]
fn sources_are_merged() {
    let catalogue = merged("", "");
    assert_eq!(catalogue.problems, []);
    assert_eq!(
        catalogue.notes,
        ["001-01 is also written with other padding"]
    );
    assert_eq!(catalogue.operators.len(), 8);
    // Written as most rows do, or with two digits.
    assert_eq!(operator(&catalogue, "001-01").0, "001-01");
    let (_, telekom) = operator(&catalogue, "262-01");
    assert_eq!(
        (&*telekom.brand, &*telekom.company, &telekom.aliases[..]),
        (
            "Telekom",
            "Telekom Deutschland GmbH",
            &["T-Mobile".to_owned()][..]
        )
    );
    assert!(telekom.resolves && telekom.status == 1);
    // Listed twice: the decision counts, and the row of that country names it.
    let (_, jt) = operator(&catalogue, "234-50");
    assert_eq!(
        (&*jt.brand, &jt.countries[..]),
        ("JT Jersey", &[*b"JE"][..])
    );
    assert_eq!(jt.aliases, ["JT"]);
    // The same name in other letters is no other name.
    assert!(operator(&catalogue, "262-05").1.aliases.is_empty());
    assert_eq!(operator(&catalogue, "262-77").1.aliases, ["AOSP only"]);
    // Of padded files: written as the neighbours are, of the country that stands for the MCC.
    let (written, only_dialled) = operator(&catalogue, "262-088");
    assert_eq!(
        (&*written, &only_dialled.aliases[..]),
        ("262-88", &["id_de".to_owned()][..])
    );
    assert_eq!(only_dialled.countries, [*b"DE"]);
    assert_eq!(operator(&catalogue, "262-99").0, "262-99");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (file, text, problem) in [
        (
            "wikipedia",
            "h\n262\t01\tDE\tA\tB\tOperational\n262\t01\tDE\tA\tB\tOperational\n".to_owned(),
            "data/wikipedia:3: 262-01 twice in DE",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}234\t15\tJE\tVodafone\tVodafone Ltd\tOperational\n"),
            "data/wikipedia:4: 234-15 is listed under several countries: say in operator_country.tsv which are its own",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}999\t99\t\tA\tB\t\n"),
            "data/wikipedia:9: MCC 999 is not in mcc_country.tsv",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}262\t02\tFR\tA\tB\t\n"),
            "data/wikipedia:9: FR: not a country of countries.tsv",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}262\t02\tJE\tA\tB\t\n"),
            "data/wikipedia:9: 262-02: JE is not among the countries of its MCC in mcc_country.tsv",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}262\t02\tDE\tA\tB\tBankrupt\n"),
            "data/wikipedia:9: status \"Bankrupt\" is new",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}262\t2\tDE\tA\tB\t\n"),
            "data/wikipedia:9: `262-2` is not an operator: expected MCC-MNC with three and two or three digits, such as 262-01",
        ),
        (
            "wikipedia",
            format!("{WIKIPEDIA_ROWS}262\t02\tDE\tA\n"),
            "data/wikipedia:9: 4 fields, expected 6",
        ),
        (
            "aosp",
            format!("{AOSP}262\t01\tagain\n"),
            "data/aosp:5: 262-01 twice",
        ),
        (
            "aosp",
            format!("{AOSP}262\t02\tspace \n"),
            "data/aosp:5: a field with white space around it",
        ),
        (
            "countries",
            format!("{COUNTRIES}DE\tDEU\tGermany\t\n"),
            "data/countries:5: DE twice",
        ),
        (
            "mccs",
            format!("{MCCS}262\tDE\t\n"),
            "data/mccs:5: 262 twice",
        ),
        (
            "decided",
            format!("{DECIDED}234\t15\tGB\t\n"),
            "data/decided:3: a country and a reason are needed",
        ),
        (
            "nonstandard",
            format!("{NONSTANDARD}262\t01\tx\tepdg.example\trule-list\n"),
            "data/nonstandard:4: 262-01: this file pads the MNC to three digits",
        ),
        (
            "nonstandard",
            format!("{NONSTANDARD}262\t001\tx\tepdg.example\t\n"),
            "data/nonstandard:4: epdg.example: a source is needed, one of carrier-settings, handset-profile, rule-list",
        ),
        (
            "nonstandard",
            format!("{NONSTANDARD}262\t001\tx\tims.mnc001.mcc262.pub.3gppnetwork.org\trule-list\n"),
            "data/nonstandard:4: ims.mnc001.mcc262.pub.3gppnetwork.org: no name of an ePDG that phones could ask for",
        ),
        (
            "nonstandard",
            format!("{NONSTANDARD}262\t001\tx\tEPDG.example\trule-list\n"),
            "data/nonstandard:4: EPDG.example: write epdg.example",
        ),
        (
            "resolving",
            format!("{RESOLVING}262\t001\n"),
            "data/resolving:4: 262-001 twice",
        ),
    ] {
        let problems: Vec<_> = merged(file, &text)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            problems.contains(&problem.to_owned()),
            "{problem}\n{problems:#?}"
        );
    }
}

/// Numbers that only padding tells apart are one; which ones there are is known.
#[test]
fn padding_is_noted() {
    let rows = format!("{AOSP}262\t001\tTelekom\n");
    assert_eq!(
        merged("aosp", &rows).notes[1..],
        ["262-01 and 262-001 are one number in operators_aosp.tsv"]
    );
}

/// The files of this repository.
#[test]
fn the_data_is_right() {
    let catalogue = read(&crate::workspace::root().join("data")).unwrap();
    assert_eq!(catalogue.problems, []);
    let one_number = [
        "250-050", "310-026", "405-045", "450-006", "708-001", "708-002", "708-040", "738-002",
    ];
    let mut expected = vec!["001-01 is also written with other padding".to_owned()];
    expected.extend(one_number.map(|padded| {
        let plmn: Plmn = padded.parse().unwrap();
        let short = Plmn::new(plmn.mcc(), plmn.mnc(), 2).unwrap();
        format!("{plmn} and {short} are one number in operators_aosp.tsv")
    }));
    assert_eq!(catalogue.notes, expected);
}
