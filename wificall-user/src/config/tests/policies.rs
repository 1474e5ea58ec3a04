//! Policies: what they may say, and which can never match.

use super::*;

/// Files that are refused, and how.
const BAD: &[(&str, &str)] = &[
    (
        r#"
[[policy]]
name = "keep"
countries = ["AU"]
keep = true
dscp = { up = "EF" }
priority = "voice"
mark = "1"
mark_use = "route"
cap = 5
exit = "x"
companions = ["a.example"]
drop = true
[[policy]]
name = "drop"
emergency = true
drop = true
dscp = "EF"
[[policy]]
name = "flags"
countries = ["DE"]
keep = "yes"
drop = 1
emergency = "true"
cap = 0
[[policy]]
name = "tier"
emergency = true
tiers = ["observed"]
"#,
        r#"
f:5:8: policy[0] "keep": dscp: found a table, expected no `dscp` beside keep = true
  hint: packets are left as they came
f:6:12: policy[0] "keep": priority: found "voice", expected no `priority` beside keep = true
  hint: packets are left as they came
f:7:8: policy[0] "keep": mark: found "1", expected no `mark` beside keep = true
  hint: packets are left as they came
f:8:12: policy[0] "keep": mark_use: found "route", expected no `mark_use` beside keep = true
  hint: packets are left as they came
f:9:7: policy[0] "keep": cap: found 5, expected no `cap` beside keep = true
  hint: packets are left as they came
f:10:8: policy[0] "keep": exit: found "x", expected the name of an [[exit]]
  hint: there is no [[exit]]
f:10:8: policy[0] "keep": exit: found "x", expected no `exit` beside keep = true
  hint: packets are left as they came
f:11:14: policy[0] "keep": companions: found an array, expected no `companions` beside keep = true
  hint: packets are left as they came
f:12:8: policy[0] "keep": drop: found true, expected no `drop` beside keep = true
  hint: packets are left as they came
f:15:13: policy[1] "drop": emergency: found true, expected no emergency calls where packets are dropped
  hint: endpoints for emergency calls are exempt from every drop
f:17:8: policy[1] "drop": dscp: found "EF", expected no `dscp` beside drop = true
  hint: packets are dropped
f:21:8: policy[2] "flags": keep: found "yes", expected true or false
f:22:8: policy[2] "flags": drop: found 1, expected true or false
f:23:13: policy[2] "flags": emergency: found "true", expected true or false
  hint: without quotes
f:24:7: policy[2] "flags": cap: found 0, expected a number from 1 to 1000000
f:28:9: policy[3] "tier": tiers: found only "observed", expected a tier that endpoints for emergency calls can have
  hint: they are known from our own resolver
"#,
    ),
    (
        r#"
[interfaces]
access = ["wlan*"]
[[policy]]
name = "values"
names = ["epdg", "*", "*.net", "epdg.*.example", "192.0.2.1", "*.epdg..example", "epdg.example.net", "ePDG.example.net.", 3]
prefixes = ["192.0.2.1", "224.0.0.0/4", "127.0.0.0/8", "0.0.0.0/8", "0.0.0.0/0", "::/0", "::/0", "ff00::/8"]
tiers = ["authorative", "observed", "observed"]
clients = ["192.168.1.1/24", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02-00-00-00-00-0A", "02:00:00:00:00:0a", "02:00:00:00:00:0A", "fe80::/10", "ff02::1", "laptop", "02:00:00:00:01", "192.168.1.0/24", "192.168.1.0/24", "127.0.0.1", 1]
interfaces = ["eth0", "wlan0", "wlan0", "wlan*", "a b"]
companions = ["a", "a.example", "A.example."]
emergency = 1
"#,
        r#"
f:5:10: policy[0] "values": names[0]: found "epdg", expected a name such as "epdg.example.net", or "*.example.net" for all below
f:5:18: policy[0] "values": names[1]: found "*", expected a name such as "epdg.example.net", or "*.example.net" for all below
  hint: `*` stands for whole labels at the beginning
f:5:23: policy[0] "values": names[2]: found "*.net", expected a name such as "epdg.example.net", or "*.example.net" for all below
f:5:32: policy[0] "values": names[3]: found "epdg.*.example", expected a name such as "epdg.example.net", or "*.example.net" for all below
  hint: `*` stands for whole labels at the beginning
f:5:50: policy[0] "values": names[4]: found "192.0.2.1", expected a name such as "epdg.example.net", or "*.example.net" for all below
  hint: an address is no name: write "192.0.2.1/32" in `prefixes`
f:5:63: policy[0] "values": names[5]: found "*.epdg..example", expected a name such as "epdg.example.net", or "*.example.net" for all below
  hint: did you mean "*.epdg.example"?
f:5:102: policy[0] "values": names[7]: found "ePDG.example.net.", expected each name once
f:5:123: policy[0] "values": names[8]: found 3, expected a name such as "epdg.example.net", or "*.example.net" for all below
f:6:13: policy[0] "values": prefixes[0]: found "192.0.2.1", expected a network such as "192.0.2.0/24" or "2001:db8::/64"
  hint: a single address is "192.0.2.1/32"
f:6:26: policy[0] "values": prefixes[1]: found "224.0.0.0/4", expected a network of unicast addresses, in which endpoints can be
f:6:41: policy[0] "values": prefixes[2]: found "127.0.0.0/8", expected a network of unicast addresses, in which endpoints can be
f:6:56: policy[0] "values": prefixes[3]: found "0.0.0.0/8", expected a network of unicast addresses, in which endpoints can be
f:6:90: policy[0] "values": prefixes[6]: found "::/0", expected each prefix once
f:6:98: policy[0] "values": prefixes[7]: found "ff00::/8", expected a network of unicast addresses, in which endpoints can be
f:7:10: policy[0] "values": tiers[0]: found "authorative", expected "observed", "corroborated" or "authoritative"
  hint: did you mean "authoritative"?
f:7:37: policy[0] "values": tiers[2]: found "observed", expected each tier once
f:8:12: policy[0] "values": clients[0]: found "192.168.1.1/24", expected a network, without bits after the first 24
  hint: write "192.168.1.0/24" for the network, "192.168.1.1/32" for the address
f:8:30: policy[0] "values": clients[1]: found "01:00:5e:00:00:01", expected the link-layer address of one client
  hint: this one is a group's: the lowest bit of its first byte is set
f:8:51: policy[0] "values": clients[2]: found "00:00:00:00:00:00", expected the link-layer address of one client
f:8:72: policy[0] "values": clients[3]: found "02-00-00-00-00-0A", expected a network, an address or a link-layer address, such as "192.168.1.0/24" or "02:00:00:00:00:01"
  hint: write "02:00:00:00:00:0a"
f:8:114: policy[0] "values": clients[5]: found "02:00:00:00:00:0A", expected each client once
f:8:135: policy[0] "values": clients[6]: found "fe80::/10", expected a network of unicast addresses, from which clients can reach endpoints
f:8:148: policy[0] "values": clients[7]: found "ff02::1", expected a network of unicast addresses, from which clients can reach endpoints
f:8:159: policy[0] "values": clients[8]: found "laptop", expected a network, an address or a link-layer address, such as "192.168.1.0/24" or "02:00:00:00:00:01"
f:8:169: policy[0] "values": clients[9]: found "02:00:00:00:01", expected a network, an address or a link-layer address, such as "192.168.1.0/24" or "02:00:00:00:00:01"
f:8:205: policy[0] "values": clients[11]: found "192.168.1.0/24", expected each client once
f:8:223: policy[0] "values": clients[12]: found "127.0.0.1", expected a network of unicast addresses, from which clients can reach endpoints
f:8:236: policy[0] "values": clients[13]: found 1, expected a network, an address or a link-layer address, such as "192.168.1.0/24" or "02:00:00:00:00:01"
f:9:15: policy[0] "values": interfaces[0]: found "eth0", expected an interface that `access` in [interfaces] can also name
f:9:32: policy[0] "values": interfaces[2]: found "wlan0", expected each interface once
f:9:50: policy[0] "values": interfaces[4]: found "a b", expected an interface name of at most 15 characters, such as "eth0" or "wlan*"
f:10:14: policy[0] "values": companions: found companions, expected an `exit` or a `mark` beside them, by which they go
f:10:15: policy[0] "values": companions[0]: found "a", expected a DNS name such as epdg.example.net: two labels or more, of 1 to 63 letters, digits, - and _, and 253 characters at most
f:10:33: policy[0] "values": companions[2]: found "A.example.", expected each name once
f:11:13: policy[0] "values": emergency: found 1, expected true or false
"#,
    ),
    (
        r#"
[interfaces]
access = ["wlan*", "br-lan"]
uplink = ["wan", "ppp*"]
[[policy]]
name = "a"
interfaces = ["wan", "wlan", "eth?", "?lan0", "br-*", "ppp0"]
"#,
        r#"
f:6:15: policy[0] "a": interfaces[0]: found "wan", expected an interface that `access` in [interfaces] can also name
  hint: with an access side, nothing is done at the uplink
f:6:30: policy[0] "a": interfaces[2]: found "eth?", expected an interface that `access` in [interfaces] can also name
f:6:55: policy[0] "a": interfaces[5]: found "ppp0", expected an interface that `access` in [interfaces] can also name
  hint: with an access side, nothing is done at the uplink
"#,
    ),
    (
        r#"
[interfaces]
uplink = ["wan"]
[[policy]]
name = "a"
clients = ["02:00:00:00:00:0a"]
[[policy]]
name = "b"
clients = ["02:00:00:00:00:0b", "192.168.1.0/24"]
[[policy]]
name = "c"
interfaces = ["lan"]
"#,
        r#"
f:11:15: policy[2] "c": interfaces[0]: found "lan", expected an interface that `uplink` in [interfaces] can also name
"#,
    ),
    (
        r#"
[[policy]]
name = "alone"
countries = ["AU"]
companions = ["entitlement.example.com"]
[[policy]]
name = "passage"
clients = ["192.168.1.0/24"]
companions = ["entitlement.example.com"]
mark = "0x100/0x100"
mark_use = "passage"
[[policy]]
name = "good"
clients = ["192.168.2.0/24"]
companions = ["entitlement.example.com"]
mark = "0x100/0x100"
"#,
        r#"
f:4:14: policy[0] "alone": companions: found companions, expected `clients` or `interfaces` beside them
  hint: whole addresses of others are steered: say for whom
f:4:14: policy[0] "alone": companions: found companions, expected an `exit` or a `mark` beside them, by which they go
f:8:14: policy[1] "passage": companions: found companions, expected mark_use = "route" beside them
  hint: they are ordinary web servers: a firewall is not opened to them
"#,
    ),
    (
        r#"
[limits]
clients = 1
[[policy]]
name = "a"
clients = ["192.168.2.0/24", "192.168.3.0/24", "02:00:00:00:00:0a"]
[[policy]]
name = "b"
clients = ["192.168.2.0/24", "192.168.4.0/24", "02:00:00:00:00:0a"]
"#,
        r#"
f:2:11: limits.clients: found 1, expected at least 3, which this file needs
"#,
    ),
    (
        r#"
[interfaces]
access = ["wlan0"]
[[policy]]
name = "half"
clients = ["192.168.0.0/24", "192.168.1.0/24"]
[[policy]]
name = "whole"
clients = ["192.168.0.0/23"]
[[policy]]
name = "unread"
countries = ["AU", "UK"]
[[policy]]
name = "not-refused-for-unread"
countries = ["AU"]
names = ["*.example.net"]
[[policy]]
name = "everywhere"
interfaces = ["wlan0"]
tiers = ["authoritative"]
[[policy]]
name = "anywhere"
tiers = ["authoritative"]
countries = ["DE"]
"#,
        r#"
f:6:1: policy[1] "whole": found only what policy[0] "half" takes first, expected a policy that can match
  hint: the first match wins: remove one of them
f:11:20: policy[2] "unread": countries[1]: found "UK", expected an ISO 3166-1 alpha-2 code in capitals, such as AU
  hint: did you mean "GB"?
f:20:1: policy[5] "anywhere": found only what policy[4] "everywhere" takes first, expected a policy that can match
  hint: the first match wins: put the narrower one first
"#,
    ),
];

/// Files that get warnings.
const ODD: &[(&str, &str)] = &[(
    r#"
[interfaces]
uplink = ["wan"]
[[policy]]
name = "a"
clients = ["02:00:00:00:00:0a"]
[[policy]]
name = "b"
clients = ["02:00:00:00:00:0b", "192.168.1.0/24"]
[[policy]]
name = "names"
names = ["epdg.example.net"]
[[policy]]
name = "good-names"
names = ["*.mnc001.mcc262.pub.3gppnetwork.org"]
[[policy]]
name = "tiers"
tiers = ["corroborated", "observed"]
"#,
    r#"
f:5:11: warning: policy[0] "a": clients: found link-layer addresses, expected `access` in [interfaces], where link-layer addresses are seen
  hint: this policy matches nothing: name networks
f:11:9: warning: policy[2] "names": names: found only others, expected names that [discovery] resolves
  hint: this policy matches nothing: add them to `names` in [discovery]
f:17:9: warning: policy[4] "tiers": tiers: found only others, expected tiers that endpoints of this file can have
  hint: this policy matches nothing: [snoop] finds endpoints of these tiers
"#,
)];

#[test]
fn what_policies_cannot_say_is_refused() {
    get_their_errors(BAD);
    get_their_warnings(ODD);
}

#[test]
fn a_policy_with_every_condition_means_what_it_says() {
    let config = parse(FULL, Path::new("f")).unwrap().config;
    let policy = &config.policies[3];
    assert_eq!(
        policy.names,
        [
            NamePattern::Exact("epdg.example.net".to_owned()),
            NamePattern::Below("pub.3gppnetwork.org".to_owned()),
        ]
    );
    assert_eq!(
        policy.prefixes,
        ["109.237.187.0/24", "::/0"].map(|net| net.parse().unwrap())
    );
    assert_eq!(policy.tiers, [Tier::Authoritative, Tier::Corroborated]);
    let network = |net: &str| Client::Network(net.parse().unwrap());
    assert_eq!(
        policy.clients,
        [
            network("192.168.1.0/24"),
            network("192.168.2.9/32"),
            network("fd00::/64"),
            Client::Mac([2, 0, 0, 0, 0, 0xab]),
        ]
    );
    assert_eq!(
        policy.interfaces,
        ["wlan0", "wlan1*"].map(|glob| Glob::new(glob).unwrap())
    );
    assert_eq!(policy.companions, ["entitlement.example.com"]);
    assert_eq!((policy.emergency, policy.action), (None, Action::Treat));
    assert_eq!(policy.treatment.cap, NonZeroU32::new(150));
    let rest: Vec<_> = config.policies[4..]
        .iter()
        .map(|policy| (policy.emergency, policy.action, policy.exit.as_deref()))
        .collect();
    assert_eq!(
        rest,
        [
            (Some(true), Action::Keep, None),
            (None, Action::Drop, None),
            (Some(false), Action::Treat, Some("au")),
        ]
    );
}

/// Two policies, and whether the second can still match.
#[test]
fn a_policy_that_an_earlier_one_covers_can_never_match() {
    let table = [
        // One kind of condition.
        (
            "countries = [\"AU\", \"NZ\"]",
            "countries = [\"NZ\"]",
            false,
        ),
        ("countries = [\"AU\"]", "countries = [\"AU\", \"NZ\"]", true),
        ("operators = [\"505-*\"]", "operators = [\"505-01\"]", false),
        ("operators = [\"505-01\"]", "operators = [\"505-*\"]", true),
        (
            "names = [\"*.example.net\"]",
            "names = [\"a.example.net\"]",
            false,
        ),
        (
            "names = [\"*.example.net\"]",
            "names = [\"*.b.example.net\"]",
            false,
        ),
        (
            "names = [\"*.example.net\"]",
            "names = [\"*.example.net\"]",
            false,
        ),
        (
            "names = [\"*.example.net\"]",
            "names = [\"example.net\"]",
            true,
        ),
        (
            "names = [\"*.b.example.net\"]",
            "names = [\"*.example.net\"]",
            true,
        ),
        (
            "names = [\"b.example.net\"]",
            "names = [\"*.b.example.net\"]",
            true,
        ),
        ("emergency = true", "emergency = true", false),
        ("emergency = true", "emergency = false", true),
        (
            "prefixes = [\"109.237.0.0/16\"]",
            "prefixes = [\"109.237.187.0/24\"]",
            false,
        ),
        (
            "prefixes = [\"109.237.187.0/24\"]",
            "prefixes = [\"109.237.0.0/16\"]",
            true,
        ),
        (
            "prefixes = [\"0.0.0.0/0\"]",
            "prefixes = [\"2001:db8::/32\"]",
            true,
        ),
        // An endpoint that is a block may be in neither half.
        (
            "prefixes = [\"109.237.187.0/25\", \"109.237.187.128/25\"]",
            "prefixes = [\"109.237.187.0/24\"]",
            true,
        ),
        (
            "tiers = [\"authoritative\", \"observed\"]",
            "tiers = [\"observed\"]",
            false,
        ),
        (
            "tiers = [\"observed\"]",
            "tiers = [\"authoritative\", \"observed\"]",
            true,
        ),
        (
            "clients = [\"192.168.0.0/16\"]",
            "clients = [\"192.168.1.7\"]",
            false,
        ),
        (
            "clients = [\"192.168.1.7\"]",
            "clients = [\"192.168.0.0/16\"]",
            true,
        ),
        (
            "clients = [\"192.168.0.0/24\", \"192.168.1.0/24\", \"02:00:00:00:00:01\"]",
            "clients = [\"192.168.0.0/23\", \"02:00:00:00:00:01\"]",
            false,
        ),
        (
            "clients = [\"192.168.0.0/24\", \"192.168.1.0/24\"]",
            "clients = [\"192.168.0.0/23\", \"02:00:00:00:00:01\"]",
            true,
        ),
        (
            "clients = [\"0.0.0.0/0\"]",
            "clients = [\"02:00:00:00:00:01\"]",
            true,
        ),
        (
            "clients = [\"0.0.0.0/0\", \"::/0\"]",
            "clients = [\"02:00:00:00:00:01\"]",
            false,
        ),
        (
            "clients = [\"0.0.0.0/0\", \"::/0\"]",
            "countries = [\"AU\"]",
            false,
        ),
        (
            "interfaces = [\"wlan*\"]",
            "interfaces = [\"wlan0\"]",
            false,
        ),
        ("interfaces = [\"wlan0\"]", "interfaces = [\"wlan*\"]", true),
        // Packets are treated at these interfaces only.
        ("interfaces = [\"wlan*\"]", "countries = [\"AU\"]", true),
        (
            "interfaces = [\"wlan*\", \"br-lan\"]",
            "countries = [\"AU\"]",
            false,
        ),
        ("interfaces = [\"*\"]", "countries = [\"AU\"]", false),
        // All that there is.
        (
            "tiers = [\"observed\", \"authoritative\", \"corroborated\"]",
            "countries = [\"AU\"]",
            false,
        ),
        (
            "prefixes = [\"0.0.0.0/0\", \"::/0\"]",
            "countries = [\"AU\"]",
            false,
        ),
        (
            "prefixes = [\"::/0\", \"0.0.0.0/0\"]",
            "prefixes = [\"198.51.100.0/24\"]",
            false,
        ),
        (
            "clients = [\"0.0.0.0/0\", \"::/0\"]",
            "countries = [\"AU\"]",
            false,
        ),
        ("prefixes = [\"0.0.0.0/0\"]", "countries = [\"AU\"]", true),
        // Several kinds: a further condition leaves something.
        (
            "countries = [\"AU\"]",
            "countries = [\"AU\"]\nclients = [\"192.168.1.7\"]",
            false,
        ),
        (
            "countries = [\"AU\"]\nclients = [\"192.168.1.7\"]",
            "countries = [\"AU\"]",
            true,
        ),
        (
            "countries = [\"AU\"]\nemergency = false",
            "countries = [\"AU\"]",
            true,
        ),
        (
            "countries = [\"AU\"]\nnames = [\"a.example\"]",
            "countries = [\"AU\"]",
            true,
        ),
        (
            "countries = [\"AU\"]\ntiers = [\"observed\"]",
            "countries = [\"AU\"]",
            true,
        ),
        (
            "countries = [\"AU\"]\nprefixes = [\"::/0\"]",
            "countries = [\"AU\"]",
            true,
        ),
        (
            "countries = [\"AU\"]\nclients = [\"192.168.0.0/16\"]",
            "countries = [\"AU\"]\nclients = [\"192.168.1.7\"]\ntiers = [\"observed\"]",
            false,
        ),
        (
            "countries = [\"AU\"]\nclients = [\"192.168.1.7\"]",
            "countries = [\"NZ\"]\nclients = [\"192.168.1.7\"]",
            true,
        ),
    ];
    for (first, second, can_match) in table {
        let source = format!(
            "[interfaces]\naccess = [\"wlan*\", \"br-lan\"]\n[snoop]\nnames = true\n\
             [[policy]]\nname = \"a\"\n{first}\n[[policy]]\nname = \"b\"\n{second}\n"
        );
        let said = parse(&source, Path::new("f")).map_err(|errors| errors.to_string());
        match (said, can_match) {
            (Ok(_), true) => {}
            (Err(errors), false) => assert!(
                errors.contains("policy[1] \"b\": found only what policy[0] \"a\" takes first")
                    && errors.lines().count() == 2,
                "{source}: {errors}"
            ),
            (Ok(_), false) => panic!("accepted: {source}"),
            (Err(errors), true) => panic!("{source}: {errors}"),
        }
    }
}

/// What several policies take together: their names, or `None` where something is left.
#[test]
fn several_policies_can_take_all_of_another() {
    let table: &[(&[&str], &str, Option<&str>)] = &[
        (
            &["countries = [\"AU\"]", "countries = [\"NZ\", \"DE\"]"],
            "countries = [\"AU\", \"NZ\"]",
            Some("policy[0] \"p0\" and policy[1] \"p1\" takes first"),
        ),
        (
            &["countries = [\"AU\"]", "countries = [\"DE\"]"],
            "countries = [\"AU\", \"NZ\"]",
            None,
        ),
        (
            &["operators = [\"505-01\"]", "operators = [\"262-*\"]"],
            "operators = [\"505-01\", \"262-01\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        // There may be operators that the catalogue does not have.
        (
            &["operators = [\"505-01\"]", "operators = [\"505-02\"]"],
            "operators = [\"505-*\"]",
            None,
        ),
        // Both conditions hold of one owner, so each combination counts.
        (
            &[
                "operators = [\"505-01\"]\ncountries = [\"AU\"]",
                "operators = [\"262-01\"]\ncountries = [\"DE\"]",
            ],
            "operators = [\"505-01\", \"262-01\"]\ncountries = [\"AU\", \"DE\"]",
            None,
        ),
        (
            &["operators = [\"505-01\"]", "countries = [\"AU\"]"],
            "operators = [\"505-01\", \"262-01\"]\ncountries = [\"AU\"]",
            Some("policy[1] \"p1\" takes first"),
        ),
        (
            &[
                "prefixes = [\"198.51.100.0/24\"]",
                "prefixes = [\"2001:db8::/32\"]",
            ],
            "prefixes = [\"198.51.100.0/25\", \"2001:db8:1::/48\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        // An endpoint lies in one prefix as a whole, or not.
        (
            &[
                "prefixes = [\"198.51.100.0/25\"]",
                "prefixes = [\"198.51.100.128/25\"]",
            ],
            "prefixes = [\"198.51.100.0/24\"]",
            None,
        ),
        (
            &["prefixes = [\"0.0.0.0/0\"]", "prefixes = [\"::/0\"]"],
            "countries = [\"AU\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        (
            &["emergency = true", "emergency = false"],
            "countries = [\"AU\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        (
            &["tiers = [\"authoritative\"]", "tiers = [\"corroborated\"]"],
            "countries = [\"AU\"]",
            None,
        ),
        (
            &[
                "tiers = [\"authoritative\"]",
                "tiers = [\"corroborated\"]",
                "tiers = [\"observed\"]",
            ],
            "countries = [\"AU\"]",
            Some("policy[0] \"p0\" and policy[1] \"p1\" and policy[2]"),
        ),
        (
            &["interfaces = [\"wlan*\"]", "interfaces = [\"br-lan\"]"],
            "countries = [\"AU\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        (
            &[
                "clients = [\"192.168.0.0/24\"]",
                "countries = [\"AU\"]\nclients = [\"192.168.1.0/24\"]",
            ],
            "countries = [\"AU\"]\nclients = [\"192.168.0.0/23\"]",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        (
            &[
                "clients = [\"192.168.0.0/24\"]",
                "countries = [\"NZ\"]\nclients = [\"192.168.1.0/24\"]",
            ],
            "countries = [\"AU\", \"NZ\"]\nclients = [\"192.168.0.0/23\"]",
            None,
        ),
        // Emergency calls are exempt, and companions are something else.
        (
            &["countries = [\"AU\"]\ndrop = true", "countries = [\"NZ\"]"],
            "countries = [\"AU\", \"NZ\"]\nemergency = true",
            None,
        ),
        (
            &["countries = [\"AU\"]\ndrop = true", "countries = [\"NZ\"]"],
            "countries = [\"AU\", \"NZ\"]\nemergency = false",
            Some("policy[0] \"p0\" and policy[1]"),
        ),
        (
            &["countries = [\"AU\"]"],
            "countries = [\"AU\"]\nclients = [\"192.168.0.0/24\"]\nmark = \"0x1/0xff\"\ncompanions = [\"a.example.com\"]",
            None,
        ),
    ];
    for (earlier, last, expected) in table {
        let mut source =
            "[interfaces]\naccess = [\"wlan*\", \"br-lan\"]\n[snoop]\nnames = true\n".to_owned();
        for (index, policy) in earlier.iter().chain([last]).enumerate() {
            source += &format!("[[policy]]\nname = \"p{index}\"\n{policy}\n");
        }
        let said = parse(&source, Path::new("f")).map_err(|errors| errors.to_string());
        match (said, expected) {
            (Ok(_), None) => {}
            (Err(errors), Some(expected)) => assert!(
                errors.contains(expected) && errors.lines().count() == 2,
                "{source}: {errors}"
            ),
            (Ok(_), Some(_)) => panic!("accepted: {source}"),
            (Err(errors), None) => panic!("{source}: {errors}"),
        }
    }
}

#[test]
fn who_only_gets_emergency_calls_is_told() {
    let warned = |policies: &str| {
        let source = format!("[interfaces]\naccess = [\"lan\"]\n[snoop]\nnames = true\n{policies}");
        let parsed = parse(&source, Path::new("f")).unwrap_or_else(|errors| panic!("{errors}"));
        parsed
            .warnings
            .to_string()
            .contains("more than emergency calls")
    };
    let drop = "[[policy]]\nname = \"no\"\ncountries = [\"AU\"]\ndrop = true\n";
    let rest = "[[policy]]\nname = \"au\"\ncountries = [\"AU\"]\n";
    assert!(warned(&format!("{drop}{rest}")));
    assert!(!warned(&format!("{drop}{rest}emergency = true\n")));
    assert!(!warned(&format!("{drop}{}", rest.replace("AU", "NZ"))));
    let calls = "[[policy]]\nname = \"no\"\ncountries = [\"AU\"]\nemergency = false\n";
    assert!(!warned(&format!("{calls}{rest}")), "it is meant so");
}

/// What is neither operator nor country of its own is an exception, and names are asked for by the rule.
#[test]
fn questions_go_by_the_exit_of_the_operator() {
    let mark = |policies: &str| {
        let source = format!(
            "[interfaces]\naccess = [\"lan\"]\n[discovery]\ncountries = [\"AU\"]\n\
             [[discovery.upstream]]\ncountries = [\"AU\"]\nresolvers = [\"192.0.2.53\"]\n\
             [[exit]]\nname = \"au\"\ndevice = \"wg-au\"\ntable = 1065\nmark = \"0x65/0xff\"\n\
             [[exit]]\nname = \"nz\"\ndevice = \"wg-nz\"\ntable = 1066\nmark = \"0x66/0xff\"\n\
             [defaults]\nmark = \"0x70/0xff\"\n{policies}"
        );
        let parsed = parse(&source, Path::new("f")).unwrap_or_else(|errors| panic!("{errors}"));
        let warned = parsed.warnings.to_string().contains("several marks");
        (parsed.config.discovery.routes[0].mark, warned)
    };
    let policy = |name: &str, rest: &str| format!("[[policy]]\nname = \"{name}\"\n{rest}\n");
    let au = policy("au", "countries = [\"AU\"]\nexit = \"au\"");
    let one_phone = policy("phone", "clients = [\"02:00:00:00:00:01\"]\nexit = \"nz\"");
    let sos = policy("sos", "emergency = true\nkeep = true");
    let name = policy("name", "names = [\"epdg.example.net\"]\nexit = \"nz\"");
    let own = policy(
        "own",
        "countries = [\"AU\"]\nclients = [\"192.168.1.0/24\"]\nexit = \"au\"",
    );
    assert_eq!(mark(&au), (Some(0x65), false));
    assert_eq!(
        mark(&format!("{sos}{one_phone}{name}{au}")),
        (Some(0x65), false)
    );
    assert_eq!(mark(""), (Some(0x70), false));
    assert_eq!(mark(&name), (Some(0x70), false));
    // There is no other rule for Australia.
    assert_eq!(mark(&own), (Some(0x65), false));
    assert_eq!(mark(&format!("{own}{one_phone}")), (None, true));
    let keep = policy("keep", "countries = [\"AU\"]\nkeep = true");
    assert_eq!(mark(&format!("{one_phone}{keep}")), (None, false));
}

/// A thousand policies are checked against each other in no time that a user would notice.
#[test]
fn many_policies_are_read() {
    use std::fmt::Write as _;
    let mut source = "[limits]\npolicies = 2000\n".to_owned();
    for n in 0..1000 {
        let (high, low) = (n / 250, n % 250);
        let _ = writeln!(
            source,
            "[[policy]]\nname = \"p{n}\"\ncountries = [\"AU\", \"DE\"]\nclients = [\"10.{high}.{low}.0/24\"]"
        );
    }
    assert_eq!(complete(&source).unwrap().config.policies.len(), 1000);
}

/// An endpoint is one for emergency calls by its name.
#[test]
fn emergency_calls_by_other_names_are_never_matched() {
    let said = |names: &str| {
        let source = format!(
            "[snoop]\nnames = true\n[interfaces]\naccess = [\"lan\"]\n[[policy]]\nname = \"p\"\nemergency = true\nnames = [{names}]\n"
        );
        parse(&source, Path::new("f")).map_err(|errors| errors.to_string())
    };
    for names in [
        "\"epdg.epc.mnc001.mcc505.pub.3gppnetwork.org\"",
        "\"*.example.net\", \"sos.example.net\"",
    ] {
        let errors = said(names).unwrap_err();
        assert!(
            errors.contains(
                "policy[0] \"p\": names: found only others, expected names that phones ask for"
            ),
            "{errors}"
        );
    }
    for names in [
        "\"sos.epdg.epc.mnc001.mcc505.pub.3gppnetwork.org\"",
        "\"*.example.net\", \"*.mcc505.pub.3gppnetwork.org\"",
        "\"*.3gppnetwork.org\"",
    ] {
        assert!(said(names).is_ok(), "{names}: {said:?}", said = said(names));
    }
}
