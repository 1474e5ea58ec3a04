use std::fs;
use std::path::Path;

use super::set::{HostName, Set, sample};
use super::*;
use crate::discover::Tier;

const FORMATS: [(&str, Format); 21] = [
    ("nft", Format::Nft),
    ("nft-script", Format::NftScript),
    ("ipset", Format::Ipset),
    ("iptables", Format::Iptables),
    ("iptables-script", Format::IptablesScript),
    ("dnsmasq-nftset", Format::Dnsmasq(Dnsmasq::Nftset)),
    ("dnsmasq-ipset", Format::Dnsmasq(Dnsmasq::Ipset)),
    ("dnsmasq-address", Format::Dnsmasq(Dnsmasq::Address)),
    ("hosts", Format::Hosts),
    ("unbound", Format::Unbound),
    ("junos", Format::Junos),
    ("cisco-ios", Format::CiscoIos),
    ("cisco-asa", Format::CiscoAsa),
    ("mikrotik", Format::Mikrotik),
    ("surge", Format::Surge),
    ("clash", Format::Clash),
    ("sing-box", Format::SingBox),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("plain", Format::Plain),
    ("empty-nft", Format::Nft),
];

fn rendered(format: Format, set: &Set, selection: &Selection) -> String {
    let mut text = Vec::new();
    format.write(&View::new(set, selection), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// What each format looks like is in `golden/`. `WIFICALL_GOLDEN=write` writes it anew; the diff is to be read.
#[test]
fn formats_read_like_this() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/golden");
    for (name, format) in FORMATS {
        let selection = match name.strip_prefix("empty-") {
            Some(_) => Selection {
                countries: vec!["NZ".parse().unwrap()],
                ..Selection::default()
            },
            None => Selection::default(),
        };
        // The version changes with each release, and with nothing else.
        let version = concat!("wificall ", env!("CARGO_PKG_VERSION"), ":");
        let json = concat!("\"wificall\": \"", env!("CARGO_PKG_VERSION"), "\"");
        let text = rendered(format, &sample(), &selection)
            .replace(version, "wificall VERSION:")
            .replace(json, "\"wificall\": \"VERSION\"");
        let file = directory.join(name);
        if std::env::var_os("WIFICALL_GOLDEN").is_some_and(|what| what == "write") {
            fs::write(&file, &text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "{name}");
    }
}

#[test]
fn nothing_but_the_time_varies() {
    let mut later = sample();
    later.at += 3600;
    for (name, format) in FORMATS {
        let text = |set: &Set| rendered(format, set, &Selection::default());
        let (one, other) = (text(&sample()), text(&later));
        assert!(same_but_time(one.as_bytes(), other.as_bytes()), "{name}");
        let has_time = !matches!(name, "csv" | "sing-box");
        assert_eq!(one != other, has_time, "{name}");
        let mut less = sample();
        less.entries.remove(1);
        less.names.remove(0);
        // The rules of iptables name sets, and hold no networks.
        let same = same_but_time(one.as_bytes(), text(&less).as_bytes());
        assert_eq!(same, name == "iptables", "{name}");
    }
}

#[test]
fn selections_choose() {
    let plain = |selection: &Selection| {
        let text = rendered(Format::Plain, &sample(), selection);
        let nets = text.lines().filter(|line| !line.starts_with('#'));
        nets.collect::<Vec<_>>().join(" ")
    };
    let all = Selection::default();
    for (selection, expected) in [
        (
            all.clone(),
            "198.51.100.0/24 203.0.113.9/32 2001:db8::5/128 2001:db8:0:1::/64",
        ),
        (
            Selection {
                ipv4: false,
                ..all.clone()
            },
            "2001:db8::5/128 2001:db8:0:1::/64",
        ),
        (
            Selection {
                tier: Tier::Authoritative,
                ipv6: false,
                ..all.clone()
            },
            "198.51.100.0/25 203.0.113.9/32",
        ),
        (
            Selection {
                tier: Tier::Observed,
                ipv6: false,
                ..all.clone()
            },
            "192.0.2.7/32 198.51.100.0/24 203.0.113.9/32",
        ),
        (
            Selection {
                countries: vec!["GB".parse().unwrap()],
                ..all.clone()
            },
            "203.0.113.9/32 2001:db8:0:1::/64",
        ),
        (
            // Of one owner, not of two.
            Selection {
                countries: vec!["GB".parse().unwrap()],
                operators: vec!["262-01".parse().unwrap()],
                ..all.clone()
            },
            "",
        ),
        (
            Selection {
                operators: vec!["262-*".parse().unwrap()],
                ipv6: false,
                ..all
            },
            "198.51.100.0/24 203.0.113.9/32",
        ),
    ] {
        assert_eq!(plain(&selection), expected, "{selection}");
    }
}

/// Whoever answers DNS chooses names; whoever answers on the socket might choose anything.
#[test]
fn nothing_hostile_gets_as_far_as_a_renderer() {
    for name in [
        "a.example'; reboot; '",
        "$(reboot).example",
        "a.example\nEOF\nreboot",
        "a b.example",
        "a.example/1#2",
        "a,b.example",
        "-a.example",
        "a-.example",
        "a_b.example",
        "\u{e4}.example",
        "a..example",
        "example",
        "192.0.2.1",
        "",
        "\"a\".example",
        "`a`.example",
    ] {
        assert!(name.parse::<HostName>().is_err(), "{name:?}");
    }
    assert_eq!(
        "EPDG.Example.".parse::<HostName>().unwrap().to_string(),
        "epdg.example"
    );
    let long = format!("{}.example", "a".repeat(64));
    assert!(long.parse::<HostName>().is_err());

    let json = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Set>(&json).unwrap(), sample());
    for (from, to) in [
        ("\"lab\"", "\"lab\\nreboot\""),
        ("\"198.51.100.0/25\"", "\"198.51.100.0/25 }; reboot\""),
        ("\"198.51.100.0/25\"", "\"198.51.100.0\""),
        ("\"198.51.100.1\"", "\"198.51.100.1;\""),
        ("\"wo.example.net\"", "\"wo.example.net'\""),
        ("\"corroborated\"", "\"root\""),
        ("\"262-01\"", "\"262-01\\n\""),
        ("\"DE\"", "\"D;\""),
        ("\"mark\":101", "\"mark\":\"101\""),
        ("[46,", "[460,"),
    ] {
        assert!(json.contains(from), "{from}");
        let hostile = json.replacen(from, to, 1);
        assert!(serde_json::from_str::<Set>(&hostile).is_err(), "{to}");
    }
}

#[test]
fn a_server_is_an_address() {
    let shown = |text: &str| text.parse::<Server>().map(|server| server.to_string()).ok();
    assert_eq!(shown("192.0.2.53").unwrap(), "192.0.2.53#53");
    assert_eq!(shown("2001:db8::53#5353").unwrap(), "2001:db8::53#5353");
    for wrong in [
        "",
        "a",
        "192.0.2.53#",
        "192.0.2.53#0",
        "192.0.2.53#53@x",
        "192.0.2.53:53",
    ] {
        assert_eq!(shown(wrong), None, "{wrong}");
    }
}

/// Formats whose programs are not at hand, against a strict reading of their manuals.
#[test]
fn grammars_are_kept() {
    for (name, format, check) in [
        (
            "junos",
            Format::Junos,
            grammar::junos as fn(&str) -> grammar::Checked,
        ),
        ("cisco-ios", Format::CiscoIos, grammar::cisco_ios),
        ("cisco-asa", Format::CiscoAsa, grammar::cisco_asa),
        ("mikrotik", Format::Mikrotik, grammar::mikrotik),
        ("surge", Format::Surge, grammar::surge),
        ("clash", Format::Clash, grammar::clash),
        ("sing-box", Format::SingBox, grammar::sing_box),
    ] {
        let all = [
            "198.51.100.0/24",
            "203.0.113.9/32",
            "2001:db8::5/128",
            "2001:db8:0:1::/64",
        ];
        let said = check(&rendered(format, &sample(), &Selection::default()));
        let said: Vec<String> = said.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(said, all, "{name}");
        let nothing = Selection {
            operators: vec!["530-01".parse().unwrap()],
            ..Selection::default()
        };
        assert_eq!(
            check(&rendered(format, &sample(), &nothing)),
            Ok(vec![]),
            "{name}"
        );
    }
}
