use std::num::NonZeroU32;
use std::path::Path;

use super::OtherAction;
use crate::config::{Errors, Parsed, parse};

const ACCESS: &str = "access = [\"lan\"]";

fn read(interfaces: &str, rest: &str) -> Result<Parsed, Errors> {
    let source = format!(
        "{rest}\n[interfaces]\n{interfaces}\n[discovery]\noperators = [\"262-01\"]\n[limits]\nblocks = 1000\n"
    );
    parse(&source, Path::new("f"))
}

fn refused(interfaces: &str, rest: &str) -> String {
    match read(interfaces, rest) {
        Ok(parsed) => panic!("accepted: {rest}: {parsed:?}"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn drop_needs_a_number_that_can_be_reached() {
    let section = "[other_ipsec]\naction = \"drop\"";
    let error = refused(ACCESS, section);
    assert!(
        error.contains("f:1:1: other_ipsec: found no `arm_at`"),
        "{error}"
    );
    for arm_at in ["0", "10193", "-1", "\"100\""] {
        let error = refused(ACCESS, &format!("{section}\narm_at = {arm_at}"));
        // Two families of blocks, hosts and prefixes.
        let expected = format!(
            "f:3:10: other_ipsec.arm_at: found {arm_at}, expected a number from 1 to 10192"
        );
        assert_eq!(error, expected);
    }
    let parsed = read(ACCESS, &format!("{section}\narm_at = 100")).unwrap();
    assert_eq!(parsed.warnings.warnings, []);
    let arm_at = NonZeroU32::new(100).unwrap();
    assert_eq!(
        parsed.config.other_ipsec.action,
        OtherAction::Drop { arm_at }
    );
}

#[test]
fn a_mark_is_needed_and_lies_inside_its_mask() {
    let section = "[other_ipsec]\naction = \"mark\"";
    let error = refused(ACCESS, section);
    assert!(error.contains("other_ipsec: found no `mark`"), "{error}");
    for mark in ["0x200/0xff", "none", "0x200/0"] {
        let error = refused(ACCESS, &format!("{section}\nmark = \"{mark}\""));
        assert!(error.contains("f:3:8: other_ipsec.mark"), "{error}");
    }
}

/// Whoever says it means to be protected by it.
#[test]
fn without_an_access_interface_nothing_can_act() {
    let uplink = "uplink = [\"wan\"]";
    for section in [
        "[other_ipsec]\naction = \"drop\"\narm_at = 5",
        "[other_ipsec]\naction = \"audit\"",
        "[trust]\nbleach = true",
    ] {
        let error = refused(uplink, section);
        assert!(error.contains("interfaces.access"), "{error}");
        assert!(read(ACCESS, section).is_ok());
    }
    let pass = "[other_ipsec]\naction = \"pass\"\n[trust]\nbleach = false";
    assert_eq!(read(uplink, pass).unwrap().warnings.warnings, []);
}

#[test]
fn what_has_no_effect_is_said() {
    let warnings = |rest: &str| read(ACCESS, rest).unwrap().warnings.to_string();
    let odd = warnings("[other_ipsec]\naction = \"audit\"\nmark = \"1\"\narm_at = 5");
    assert!(odd.contains("f:3:8: warning: other_ipsec.mark"), "{odd}");
    assert!(odd.contains("f:4:10: warning: other_ipsec.arm_at"), "{odd}");
    let race = "[other_ipsec]\naction = \"drop\"\narm_at = 5\n[snoop]\nike = ";
    let odd = warnings(&format!("{race}\"observe\""));
    assert!(odd.contains("with snoop.ike = \"observe\""), "{odd}");
    assert_eq!(warnings(&format!("{race}\"report\"")), "");
}

#[test]
fn peers_are_networks_and_addresses() {
    let section = |peers: &str| format!("[other_ipsec]\naction = \"audit\"\npeers = [{peers}]");
    let parsed = read(ACCESS, &section("\"10.0.0.0/8\", \"2001:db8::1\"")).unwrap();
    let peers: Vec<_> = parsed
        .config
        .other_ipsec
        .peers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(peers, ["10.0.0.0/8", "2001:db8::1/128"]);
    for wrong in [
        "\"10.0.0.1/8\"",
        "\"peer.example.net\"",
        "7",
        "\"10.0.0.1\", \"10.0.0.1\"",
    ] {
        let error = refused(ACCESS, &section(wrong));
        assert!(error.contains("other_ipsec.peers["), "{error}");
    }
    let many: Vec<_> = (0..2049)
        .map(|n| format!("\"10.0.{}.{}\"", n / 256, n % 256))
        .collect();
    let error = refused(ACCESS, &section(&many.join(", ")));
    assert!(error.contains("at most 2048 peers"), "{error}");
}

const EXIT: &str = "[[exit]]\nname = \"au\"\ngateways = [\"192.168.1.2\"]\ntable = 1065\nmark = \"0x65/0xff\"\n[[policy]]\nname = \"au\"\n\
     countries = [\"AU\"]\nexit = \"au\"\n";

#[test]
fn a_mark_leads_to_no_exit() {
    let section =
        |mark: &str| format!("[other_ipsec]\naction = \"mark\"\nmark = \"{mark}\"\n{EXIT}");
    let error = refused(ACCESS, &section("0x65/0xff"));
    assert!(
        error.contains("f:3:8: other_ipsec.mark: found \"0x65/0xff\", expected a mark that does not lead to exit \"au\""),
        "{error}"
    );
    let overlapping = read(ACCESS, &section("0x3/0xf")).unwrap().warnings;
    assert!(overlapping.to_string().contains("other_ipsec.mark"));
    let apart = read(ACCESS, &section("0x300/0xf00")).unwrap().warnings;
    assert!(!apart.to_string().contains("other_ipsec"), "{apart}");
}

/// The first packet to an unknown address gets both.
#[test]
fn a_mark_shares_no_bits_with_that_of_first_packets() {
    let section = |mark: &str, first: &str| {
        format!(
            "[other_ipsec]\naction = \"mark\"\nmark = \"{mark}\"\n[geoip]\ndatabase = \"/x.mmdb\"\n[catch_all]\nenabled = true\n\
             {first}\n{EXIT}"
        )
    };
    let marked = "first = \"mark\"\nexit = \"au\"";
    let error = refused(ACCESS, &section("0x3/0xf", marked));
    assert!(
        error.contains("expected a mask without bits of 0x65/0xff")
            && error.contains("share the bits 0xf"),
        "{error}"
    );
    assert!(read(ACCESS, &section("0x300/0xf00", marked)).is_ok());
    assert!(read(ACCESS, &section("0x3/0xf", "first = \"hold\"")).is_ok());
}
