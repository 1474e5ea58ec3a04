use super::super::sample;
use super::*;
use crate::config::Mark;

fn here() -> Box {
    let exit = sample::exit();
    let plain = |priority, table| Rule {
        mark: 0,
        mask: 0,
        protocol: 2,
        ..Rule::own(Family::V4, priority, exit.mark, table)
    };
    Box {
        network: sample::network(),
        rules: vec![plain(0, 255), plain(32766, 254), plain(32767, 253)],
        uplinks: vec![3],
        ..Box::default()
    }
}

fn with(priority: u32, mark: u32, mask: u32, table: u32) -> Rule {
    Rule {
        protocol: 3,
        ..Rule::own(Family::V4, priority, Mark { value: mark, mask }, table)
    }
}

/// Errors and warnings against one more rule.
fn against(rule: Rule) -> Findings {
    let mut here = here();
    here.rules.push(rule);
    check(&[sample::exit()], &here)
}

#[test]
fn a_box_of_its_own_has_nothing_against_an_exit() {
    assert_eq!(check(&[sample::exit()], &here()), Findings::default());
    // Nor have our own rules and routes.
    let exit = sample::exit();
    let mut here = here();
    for family in Family::ALL {
        here.rules
            .push(Rule::own(family, exit.priority, exit.mark, exit.table));
        here.routes
            .push(Route::own(family, exit.table, Hop::Unreachable));
    }
    assert_eq!(
        check(std::slice::from_ref(&exit), &here),
        Findings::default()
    );
    // Nor those of a configuration before, which are about to be removed.
    let before = Rule::own(Family::V4, 7, exit.mark, 7);
    here.rules.push(before.clone());
    here.record.rules.insert(before);
    assert_eq!(check(&[exit], &here), Findings::default());
}

#[test]
fn a_rule_that_takes_our_packets_first_is_an_error() {
    let findings = against(with(999, 0x65, 0xff, 7));
    assert_eq!((findings.errors.len(), findings.warnings.len()), (1, 0));
    assert!(findings.errors[0].contains("ipv4 999: from all fwmark 0x65/0xff lookup 7"));
    assert!(findings.errors[0].contains("`priority` below 999"));
    // As well with the same priority, or with a mask that is part of ours.
    assert_eq!(against(with(1000, 0x5, 0xf, 7)).errors.len(), 1);
    // One that comes later takes nothing, and one with further conditions not all.
    for rule in [
        with(1001, 0x65, 0xff, 7),
        Rule {
            narrowed: true,
            ..with(999, 0x65, 0xff, 7)
        },
        with(999, 0x165, 0xfff, 7),
    ] {
        let findings = against(rule.clone());
        assert_eq!(
            (findings.errors.len(), findings.warnings.len()),
            (0, 1),
            "{rule}"
        );
    }
}

#[test]
fn programs_that_mark_are_named() {
    for (rule, name) in [
        (with(2001, 0x100, 0x3f00, 1), "mwan3"),
        (with(30000, 0x01_0000, 0x00ff_0000, 256), "pbr"),
        (with(5210, 0x8_0000, 0xff_0000, 254), "Tailscale"),
        (with(32764, 0xca6c, u32::MAX, 51820), "wg-quick"),
        (with(100, 0x6d6f_6c65, u32::MAX, 0x6d6f_6c65), "Mullvad"),
    ] {
        let mut exit = sample::exit();
        // Bits that they use.
        exit.mark = Mark {
            value: rule.mark & 0xff_ffff & !1 | 2,
            mask: rule.mask & 0xff_ffff | 0xff,
        };
        let mut here = here();
        here.rules.push(rule);
        let findings = check(&[exit], &here);
        let all = [findings.errors, findings.warnings].concat();
        assert!(
            all.iter().any(|text| text.contains(name)),
            "{name}: {all:?}"
        );
    }
    // With bits of its own nobody is in the way.
    assert_eq!(
        against(with(5210, 0x8_0000, 0xff_0000, 254)),
        Findings::default()
    );
}

#[test]
fn a_rule_for_all_but_a_mark_takes_ours() {
    let wg = |priority| Rule {
        inverted: true,
        ..with(priority, 0xca6c, u32::MAX, 51820)
    };
    assert_eq!(against(wg(999)).errors.len(), 1);
    assert_eq!(against(wg(32764)).errors.len(), 0);
    let ours_alone = Rule {
        inverted: true,
        ..with(999, 0x65, 0xff, 7)
    };
    assert_eq!(against(ours_alone).errors.len(), 0);
}

#[test]
fn a_rule_for_all_packets_before_ours_is_told() {
    let all = |priority, table| with(priority, 0, 0, table);
    assert_eq!(
        against(all(999, 254)).errors.len(),
        1,
        "main has a default route"
    );
    assert_eq!(against(all(999, 52)).warnings.len(), 1);
    assert_eq!(against(all(1001, 254)), Findings::default());
    let suppressing = Rule {
        suppressing: true,
        ..all(999, 254)
    };
    assert_eq!(against(suppressing), Findings::default());
}

#[test]
fn a_table_of_others_is_an_error() {
    assert_eq!(
        against(with(7, 0x100, 0xf00, 1065)).errors.len(),
        1,
        "another's rule"
    );
    let mut here = here();
    here.routes.push(Route {
        protocol: 4,
        length: 24,
        ..Route::own(Family::V4, 1065, Hop::Unreachable)
    });
    assert_eq!(
        check(&[sample::exit()], &here).errors.len(),
        1,
        "another's route"
    );
}

#[test]
fn an_exit_of_another_instance_is_an_error() {
    let exit = sample::exit();
    let record = |table: u32, mark: u32| Record {
        rules: [Rule::own(
            Family::V4,
            7,
            Mark {
                value: mark,
                mask: 0xff,
            },
            table,
        )]
        .into(),
        tables: [table].into(),
        ..Record::default()
    };
    for (record, errors) in [
        (record(1065, 1), 1),
        (record(7, 0x65), 1),
        (record(7, 1), 0),
    ] {
        let mut here = here();
        here.others = vec![("lab".to_owned(), record)];
        assert_eq!(
            check(std::slice::from_ref(&exit), &here).errors.len(),
            errors
        );
    }
}

#[test]
fn gateways_that_are_not_on_link_and_small_devices_are_told() {
    let mut exit = sample::exit();
    exit.gateways[0].address = [203, 0, 113, 1].into();
    let findings = check(std::slice::from_ref(&exit), &here());
    assert!(
        findings.errors[0].contains("203.0.113.1 is not on-link"),
        "{findings:?}"
    );
    exit.gateways.clear();
    exit.device = Some("wg".to_owned());
    let findings = check(std::slice::from_ref(&exit), &here());
    assert!(findings.errors.is_empty());
    assert!(findings.warnings[0].contains("`wg` takes packets of 1420 bytes, `wan` of 1500"));
    exit.device = Some("later".to_owned());
    assert_eq!(check(&[exit], &here()).warnings.len(), 1);
}
