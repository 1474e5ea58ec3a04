//! Exits, and what leads to them.

use super::*;

/// Files that are refused, and how.
const BAD: &[(&str, &str)] = &[
    (
        r#"
[[exit]]
[[exit]]
name = "au exit"
gateways = []
table = 254
mark = "none"
priority = 32766
when_down = "other"
when_non = "direct"
[[exit]]
name = "de"
gateways = ["192.168.1.2/24", "fe80::1%lan", "224.0.0.1", "127.0.0.1", "::", "255.255.255.255", "::ffff:192.0.2.1", "router", 1, "ff02::1"]
device = "wg*"
table = 0
mark = "0x65"
priority = 0
[[exit]]
name = "nz"
gateways = ["fe80::1", "192.168.1.2", "192.168.1.2", { address = "192.168.1.3" }, { address = "192.168.1.3", device = "lan" }, { device = "lan" }, { address = "x" , via = 1}]
table = 4294967296
mark = "0/0xff"
"#,
        r#"
f:1:1: exit[0]: found no `name`, expected a name such as name = "au"
f:1:1: exit[0]: found no `gateways` or `device`, expected where packets leave, such as gateways = ["192.168.1.2"] or device = "wg-au"
f:1:1: exit[0]: found no `table`, expected a routing table that nothing else uses, such as table = 1065
f:1:1: exit[0]: found no `mark`, expected the mark that leads here, such as mark = "0x65/0xff"
f:2:1: exit[1]: found no `gateways` or `device`, expected where packets leave, such as gateways = ["192.168.1.2"] or device = "wg-au"
f:3:8: exit[1].name: found "au exit", expected a name of 1 to 64 characters out of a-z, A-Z, 0-9, _, - and .
f:5:9: exit[1].table: found 254, expected a routing table that nothing else uses
  hint: table 254 is the kernel's own (main); tables have numbers up to 4294967295
f:6:8: exit[1].mark: found "none", expected a mark such as "0x65/0xff" (value/mask)
f:7:12: exit[1].priority: found 32766, expected a number from 1 to 32765
f:8:13: exit[1].when_down: found "other", expected "next", "direct" or "block"
f:9:1: exit[1].when_non: found an unknown key, expected one of the keys name, device, gateways, table, mark, health, when_down, when_none, priority, interval, down_after, up_after, probe, manage_sysctls
  hint: did you mean `when_none`?
f:12:13: exit[2] "de": gateways[0]: found "192.168.1.2/24", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: a gateway has no prefix: write "192.168.1.2"
f:12:31: exit[2] "de": gateways[1]: found "fe80::1%lan", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: write { address = "fe80::1", device = "lan" }
f:12:46: exit[2] "de": gateways[2]: found "224.0.0.1", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: 224.0.0.1 is a multicast address
f:12:59: exit[2] "de": gateways[3]: found "127.0.0.1", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: 127.0.0.1 is this box itself
f:12:72: exit[2] "de": gateways[4]: found "::", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: :: is the unspecified address
f:12:78: exit[2] "de": gateways[5]: found "255.255.255.255", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: 255.255.255.255 is the broadcast address
f:12:97: exit[2] "de": gateways[6]: found "::ffff:192.0.2.1", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: write "192.0.2.1"
f:12:117: exit[2] "de": gateways[7]: found "router", expected a router's address, such as "192.168.1.2" or "fd00::2"
f:12:127: exit[2] "de": gateways[8]: found 1, expected a router's address, such as "192.168.1.2" or "fd00::2"
f:12:130: exit[2] "de": gateways[9]: found "ff02::1", expected a router's address, such as "192.168.1.2" or "fd00::2"
  hint: ff02::1 is a multicast address
f:13:10: exit[2] "de": device: found "wg*", expected the name of one interface, of at most 15 characters, such as "wg-au"
f:14:9: exit[2] "de": table: found 0, expected a number from 1 to 4294967295
f:16:12: exit[2] "de": priority: found 0, expected a number from 1 to 32765
f:19:13: exit[3] "nz": gateways[0]: found "fe80::1" alone, expected a device beside a link-local address
  hint: write { address = "fe80::1", device = "lan" }: such addresses are on every link
f:19:39: exit[3] "nz": gateways[2]: found "192.168.1.2", expected each gateway once
f:19:128: exit[3] "nz": gateways[5]: found no `address`, expected an address such as address = "192.168.1.2"
f:19:160: exit[3] "nz": gateways[6].address: found "x", expected a router's address, such as "192.168.1.2" or "fd00::2"
f:19:166: exit[3] "nz": gateways[6].via: found an unknown key, expected one of the keys address, device
f:20:9: exit[3] "nz": table: found 4294967296, expected a number from 1 to 4294967295
f:21:8: exit[3] "nz": mark: found "0/0xff", expected a value above 0
  hint: a rule for 0 would take all packets that have no mark
"#,
    ),
    (
        r#"
[[exit]]
name = "au"
gateways = ["192.168.1.2", { address = "192.168.1.2", device = "lan" }, "fe80::2", { address = "fe80::2", device = "lan" }, { address = "fe80::2", device = "lan2" }]
device = "lan"
table = 1065
mark = "0x65/0xff"
interval = "50ms"
down_after = 0
up_after = 101
probe = "192.0.2.1"
[[exit]]
name = "au"
device = "wg-au"
table = 1065
mark = "0x165/0x1ff"
when_down = "block"
when_none = "direct"
manage_sysctls = "true"
[[exit]]
name = "de"
device = "wg-de"
table = 1066
mark = "0x1000/0xf000"
health = "ike"
interval = "1s"
probe = "ff02::1"
"#,
        r#"
f:3:28: exit[0] "au": gateways[1]: found a table, expected each gateway once
f:3:84: exit[0] "au": gateways[3]: found a table, expected each gateway once
f:7:12: exit[0] "au": interval: found "50ms", expected a duration from 100ms to 1h, such as "30s"
f:8:14: exit[0] "au": down_after: found 0, expected a number from 1 to 100
f:9:12: exit[0] "au": up_after: found 101, expected a number from 1 to 100
f:10:9: exit[0] "au": probe: found "192.0.2.1", expected no `probe` without health = "ike", which is who sends it
f:12:8: exit[1].name: found "au", expected a name of its own
  hint: exit[0] has the same name
f:14:9: exit[1] "au": table: found 1065, expected a table of its own
  hint: exit[0] "au" has the same table
f:15:8: exit[1] "au": mark: found "0x165/0x1ff", expected a mark that leads to no other exit
  hint: exit[0] "au" has 0x65/0xff, and a packet may have both: give them one mask and different values
f:17:13: exit[1] "au": when_none: found "direct", expected no `when_none` without when_down = "next"
  hint: `when_down` already says what happens
f:18:18: exit[1] "au": manage_sysctls: found "true", expected true or false
  hint: without quotes
f:23:8: exit[2] "de": mark: found "0x1000/0xf000", expected a mark that leads to no other exit
  hint: exit[0] "au" has 0x65/0xff, and a packet may have both: give them one mask and different values
f:23:8: exit[2] "de": mark: found "0x1000/0xf000", expected a mark that leads to no other exit
  hint: exit[1] "au" has 0x165/0x1ff, and a packet may have both: give them one mask and different values
f:25:12: exit[2] "de": interval: found "1s", expected a duration from 5s to 1h, such as "30s"
f:26:9: exit[2] "de": probe: found "ff02::1", expected the address of an ePDG, such as "192.0.2.1"
  hint: ff02::1 is a multicast address
"#,
    ),
    (
        r#"
[[policy]]
name = "au"
countries = ["AU"]
exit = "uk"
"#,
        r#"
f:4:8: policy[0] "au": exit: found "uk", expected the name of an [[exit]]
  hint: there is no [[exit]]
"#,
    ),
    (
        r#"
[[exit]]
name = "au"
device = "wg-au"
table = 1065
mark = "0x65/0xff"
[[policy]]
name = "au"
countries = ["AU"]
exit = "aus"
mark = "0x65/0xff"
mark_use = "route"
[[policy]]
name = "b"
countries = ["DE"]
exit = 3
[[policy]]
name = "c"
countries = ["NZ"]
exit = "germany"
[[policy]]
name = "d"
clients = ["192.168.1.5"]
mark = "0x165/0xfff"
[defaults]
mark = "101"
"#,
        r#"
f:9:8: policy[0] "au": exit: found "aus", expected the name of an [[exit]]
  hint: did you mean "au"?
f:10:8: policy[0] "au": mark: found "0x65/0xff", expected no `mark` beside an exit
  hint: packets get the mark of the exit
f:11:12: policy[0] "au": mark_use: found "route", expected no `mark_use` beside an exit
  hint: packets get the mark of the exit
f:15:8: policy[1] "b": exit: found 3, expected the name of an exit
f:19:8: policy[2] "c": exit: found "germany", expected the name of an [[exit]]
  hint: there are au
f:23:8: policy[3] "d": mark: found "0x165/0xfff", expected a mark that does not lead to exit "au", whose is 0x65/0xff
  hint: a policy whose packets are to go there says exit = "au"
f:25:8: defaults.mark: found "101", expected a mark that does not lead to exit "au", whose is 0x65/0xff
  hint: a policy whose packets are to go there says exit = "au"
"#,
    ),
    (
        r#"
[interfaces]
uplink = ["wan"]
[[exit]]
name = "au"
device = "wg-au"
table = 1065
mark = "0x65/0xff"
[[policy]]
name = "a"
countries = ["AU"]
exit = "au"
[catch_all]
enabled = true
"#,
        r#"
f:11:8: policy[0] "a": exit: found "au", expected `access` in [interfaces], where there are exits
  hint: at an uplink interface packets have been routed already
f:12:1: catch_all: found no database, expected `database` in [geoip], by which countries are told
f:12:1: catch_all: found only `uplink`, expected `access` in [interfaces], where phones' packets come in
"#,
    ),
    (
        r#"
[catch_all]
enabled = true
first = "mark"
per_second = 0
"#,
        r#"
f:1:1: catch_all: found no `exit`, expected the exit that first packets take, such as exit = "au"
f:1:1: catch_all: found no database, expected `database` in [geoip], by which countries are told
f:4:14: catch_all.per_second: found 0, expected a number from 1 to 10000
"#,
    ),
    (
        r#"
[catch_all]
enabled = "true"
first = "drop"
exit = "au"
per_sec = 5
"#,
        r#"
f:2:11: catch_all.enabled: found "true", expected true or false
  hint: without quotes
f:3:9: catch_all.first: found "drop", expected "hold" or "mark"
f:4:8: catch_all.exit: found "au", expected the name of an [[exit]]
  hint: there is no [[exit]]
f:5:1: catch_all.per_sec: found an unknown key, expected one of the keys enabled, first, exit, per_second
  hint: did you mean `per_second`?
"#,
    ),
    (
        r#"
[catch_all]
enabled = true
exit = "au"
[geoip]
database = "/usr/share/country.mmdb"
[[exit]]
name = "au"
device = "wg-au"
table = 1065
mark = "0x65/0xff"
"#,
        r#"
f:3:8: catch_all.exit: found "au", expected no `exit` where first packets are held
  hint: first = "mark" sends them by this exit until their country is known
"#,
    ),
];

/// Files that get warnings.
const ODD: &[(&str, &str)] = &[(
    r#"
[[exit]]
name = "au"
device = "wg-au"
table = 1065
mark = "0x65/0xff"
[[policy]]
name = "a"
countries = ["AU"]
mark = "0x100/0xf00"
[[policy]]
name = "b"
countries = ["DE"]
mark = "0x66/0xff"
[[policy]]
name = "c"
clients = ["192.168.1.5"]
mark = "0x166/0xfff"
[defaults]
mark = "none"
"#,
    r#"
f:2:8: warning: exit[0].name: found "au", expected an exit that a policy or [catch_all] names
  hint: nothing takes this exit: write exit = "au" in a [[policy]]
f:17:8: warning: policy[2] "c": mark: found "0x166/0xfff", expected the mask of exit "au", whose mark is 0x65/0xff, or one without bits of it
  hint: the masks overlap: each takes bits that are the other's
"#,
)];

#[test]
fn what_exits_cannot_be_is_refused() {
    get_their_errors(BAD);
    get_their_warnings(ODD);
}

#[test]
fn an_exit_has_the_documented_defaults() {
    let config = complete(
        "[[exit]]\nname = \"au\"\ndevice = \"wg-au\"\ntable = 1065\nmark = \"0x65/0xff\"\n\
         [[exit]]\nname = \"de\"\ngateways = [\"192.168.1.2\"]\ntable = 252\nmark = \"0x66/0xff\"\nhealth = \"ike\"\n\
         when_down = \"block\"\n",
    )
    .unwrap()
    .config;
    let mark = |value| Mark { value, mask: 0xff };
    let expected = Exit {
        name: "au".to_owned(),
        gateways: vec![],
        device: Some("wg-au".to_owned()),
        table: 1065,
        priority: 1000,
        mark: mark(0x65),
        when_down: WhenDown::Next,
        when_none: WhenNone::Direct,
        health: Health::Neighbour,
        interval: Duration::from_secs(1),
        down_after: 3,
        up_after: 3,
        probe: None,
        manage_sysctls: false,
    };
    let gateway = Gateway {
        address: "192.168.1.2".parse().unwrap(),
        device: None,
    };
    let germany = Exit {
        name: "de".to_owned(),
        gateways: vec![gateway],
        device: None,
        table: 252,
        priority: 1001,
        mark: mark(0x66),
        when_down: WhenDown::Block,
        when_none: WhenNone::Block,
        health: Health::Ike,
        interval: Duration::from_secs(30),
        ..expected.clone()
    };
    assert_eq!(config.exits, [expected, germany]);
}

#[test]
fn an_exit_with_every_key_means_what_it_says() {
    let config = parse(FULL, Path::new("f")).unwrap().config;
    let gateway = |address: &str, device: Option<&str>| Gateway {
        address: address.parse().unwrap(),
        device: device.map(str::to_owned),
    };
    let expected = Exit {
        name: "au".to_owned(),
        gateways: vec![
            gateway("192.168.1.2", None),
            gateway("fd00::2", None),
            gateway("fe80::1", Some("br-lan")),
        ],
        device: Some("lan".to_owned()),
        table: 1065,
        priority: 7,
        mark: Mark {
            value: 0x65_0000,
            mask: 0xff_0000,
        },
        when_down: WhenDown::Next,
        when_none: WhenNone::Block,
        health: Health::Ike,
        interval: Duration::from_millis(200),
        down_after: 2,
        up_after: 5,
        probe: "2001:db8::1".parse().ok(),
        manage_sysctls: true,
    };
    assert_eq!(config.exits[0], expected);
    let germany = &config.exits[1];
    assert_eq!(
        (germany.when_down, germany.when_none, germany.table),
        (WhenDown::Direct, WhenNone::Direct, u32::MAX)
    );
    let catch_all = CatchAll {
        enabled: true,
        first: First::Mark,
        exit: Some("de".to_owned()),
        per_second: 5,
    };
    assert_eq!(config.catch_all, catch_all);
}

/// Nothing has to be discovered where addresses go by their country.
#[test]
fn catching_all_is_something_to_classify() {
    let text = |enabled: bool| {
        format!(
            "[interfaces]\naccess = [\"lan\"]\n[geoip]\ndatabase = \"/x.mmdb\"\n[catch_all]\nenabled = {enabled}\n\
             [[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nmark = \"0x65/0xff\"\n"
        )
    };
    let config = parse(&text(true), Path::new("f")).unwrap().config;
    assert!(config.is_for("AU".parse().unwrap()) && !config.is_for("DE".parse().unwrap()));
    let errors = parse(&text(false), Path::new("f")).unwrap_err().to_string();
    assert!(errors.contains("nothing to classify"), "{errors}");
}

/// The mark of a policy with an exit is the exit's, whatever `[defaults]` says.
#[test]
fn an_exit_is_taken_by_its_mark() {
    let config = complete(
        "[defaults]\nmark = \"0x100/0x100\"\nmark_use = \"passage\"\n\
         [[exit]]\nname = \"au\"\ndevice = \"wg-au\"\ntable = 1065\nmark = \"0x65/0xff\"\n\
         [[policy]]\nname = \"au\"\ncountries = [\"AU\"]\nexit = \"au\"\n\
         [[policy]]\nname = \"others\"\nclients = [\"192.168.1.9\"]\nkeep = true\n\
         [[policy]]\nname = \"none\"\ntiers = [\"authoritative\"]\ndrop = true\n\
         [[policy]]\nname = \"rest\"\ncountries = [\"DE\"]\ninterfaces = [\"wlan0\"]\n\
         [interfaces]\naccess = [\"wlan*\"]\n",
    )
    .unwrap_or_else(|errors| panic!("{errors}"))
    .config;
    let got: Vec<_> = config
        .policies
        .iter()
        .map(|policy| {
            let treatment = &policy.treatment;
            let mark = treatment.mark.map(|mark| (mark.value, mark.mask));
            (
                policy.exit.as_deref(),
                policy.action,
                mark,
                treatment.mark_use,
            )
        })
        .collect();
    assert_eq!(
        got[0],
        (
            Some("au"),
            Action::Treat,
            Some((0x65, 0xff)),
            MarkUse::Route
        )
    );
    // What is not treated gets nothing, whoever looks at the treatment alone.
    for (policy, action) in [(1, Action::Keep), (2, Action::Drop)] {
        assert_eq!(got[policy], (None, action, None, MarkUse::Route));
        let treatment = config.policies[policy].treatment;
        assert_eq!(
            (treatment.dscp, treatment.priority, treatment.cap),
            (Dscp::KEEP, Priority::None, None)
        );
    }
}
