use super::*;
use crate::probe::best::best;
use crate::probe::{Finding, Suite, Verdict};

fn owners(operators: &[&str]) -> BTreeSet<Owner> {
    let owner = |operator: &&str| Owner {
        plmn: Some(operator.parse().unwrap()),
        country: None,
    };
    operators.iter().map(owner).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn lab() -> Admission {
    Admission::new(Filter::new([], ["198.18.0.0/15".parse().unwrap()]), false)
}

#[test]
fn only_global_addresses_are_probed_unless_told_otherwise() {
    let own = Filter::new(["198.51.100.1/24".parse().unwrap()], []);
    let check = |allow, address: &str| {
        Admission::new(own.clone(), allow)
            .check(address.parse().unwrap())
            .is_ok()
    };
    for (address, by_default, allowed) in [
        ("8.8.8.8", true, true),
        ("2a02::1", true, true),
        ("10.0.0.1", false, true),
        ("127.0.0.1", false, true),
        ("198.51.100.1", false, true),
        ("fd00::1", false, true),
        ("fe80::1", false, true),
        ("224.0.0.1", false, false),
        ("255.255.255.255", false, false),
        ("0.0.0.0", false, false),
        ("ff02::1", false, false),
        ("::ffff:8.8.8.8", false, false),
    ] {
        assert_eq!(check(false, address), by_default, "{address}");
        assert_eq!(
            check(true, address),
            allowed,
            "{address} with --allow-local"
        );
    }
}

#[test]
fn addresses_are_probed_once_and_bounded() {
    let mut plan = Plan::default();
    let name: Arc<str> = "epdg.example.org".into();
    let many = (0..=255_u8)
        .flat_map(|a| [a, a])
        .map(|a| IpAddr::from([198, 18, 0, a]));
    let first: Vec<_> = many.clone().step_by(2).collect();
    plan.add(first, Some(&name), &owners(&["262-01"]), &lab());
    assert_eq!(plan.places.len(), ADDRESSES_PER_NAME_MAX);
    assert_eq!(plan.left_out, 256 - ADDRESSES_PER_NAME_MAX);
    plan.add(
        addresses(&["198.18.0.1", "10.0.0.1", "10.0.0.1"]),
        None,
        &owners(&["262-02"]),
        &lab(),
    );
    assert_eq!(plan.places.len(), ADDRESSES_PER_NAME_MAX);
    assert_eq!(plan.refused.len(), 1);
    let place = &plan.places[&"198.18.0.1".parse().unwrap()];
    assert_eq!(place.owners, owners(&["262-01", "262-02"]));
    plan.add(
        (0..100).map(|a| IpAddr::from([10, 0, 0, a])),
        None,
        &owners(&[]),
        &lab(),
    );
    assert_eq!(plan.refused.len(), 100, "one of them again");
}

#[test]
fn operators_without_an_epdg_count_only_if_named_themselves() {
    let mut plan = Plan::default();
    let operator = |plmn: &str| AskedFor::Operator(plmn.parse().unwrap());
    for (plmn, by_itself) in [
        ("262-01", false),
        ("262-02", false),
        ("262-03", true),
        ("262-04", false),
    ] {
        plan.ask(operator(plmn), by_itself);
    }
    let name: Arc<str> = "epdg.example.org".into();
    plan.ask(AskedFor::Name(name.clone()), true);
    plan.fail(
        &"other.example.org".into(),
        &owners(&["262-04"]),
        "timed out",
    );
    plan.add(
        addresses(&["198.18.0.1", "198.18.0.2"]),
        Some(&name),
        &owners(&["262-01"]),
        &lab(),
    );
    let place = &plan.places[&"198.18.0.2".parse().unwrap()];
    let suite = Suite {
        encr: (20, Some(128)),
        integ: None,
        prf: 5,
        dh: 31,
    };
    let probed = [Probed {
        address: place.address,
        port: 500,
        owners: place.owners.clone(),
        names: place.names.clone(),
        finding: Finding {
            verdict: Verdict::Reachable(suite),
            ..Finding::failed(String::new())
        },
    }];
    let summaries = plan.summary(&probed, &best(&probed));
    let shown: Vec<_> = summaries
        .iter()
        .map(|s| {
            (
                s.asked.as_str(),
                s.addresses,
                s.reachable,
                s.problem.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("262-01", 2, 1, None),
            ("262-03", 0, 0, None),
            ("262-04", 0, 0, Some("timed out")),
            ("epdg.example.org", 2, 1, None),
        ]
    );
    assert_eq!(summaries[0].best, Some(place.address));
}
