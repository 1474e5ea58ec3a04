use super::*;
use crate::config::{self, Glob};

fn owner(plmn: &str, country: &str) -> Owner {
    Owner {
        plmn: plmn.parse().ok(),
        country: country.parse().ok(),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A policy without conditions.
fn open() -> Policy {
    let source = "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"262-01\"]\n\
                  [[policy]]\nname = \"p\"\noperators = [\"262-01\"]\ndscp = \"EF\"\n";
    let parsed = config::parse(source, "test.toml".as_ref()).unwrap();
    let mut policy = parsed.config.policies.into_iter().next().unwrap();
    policy.operators.clear();
    policy
}

/// What [`Subject`] borrows from.
struct Packet {
    owners: BTreeSet<Owner>,
    names: BTreeSet<Arc<str>>,
    emergency: bool,
    net: IpNet,
    tier: Tier,
    address: Option<IpAddr>,
    mac: Option<[u8; 6]>,
    interface: Option<&'static str>,
}

impl Packet {
    /// To an ePDG of two operators, from a client on `wlan0`.
    fn new() -> Self {
        Self {
            owners: [owner("262-01", "DE"), owner("505-01", "AU")].into(),
            names: ["epdg.example.net".into()].into(),
            emergency: false,
            net: net("192.0.2.0/24"),
            tier: Tier::Corroborated,
            address: Some("10.1.2.3".parse().unwrap()),
            mac: Some([2, 0, 0, 0, 0, 0xab]),
            interface: Some("wlan0"),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            endpoint: Endpoint {
                owners: &self.owners,
                names: &self.names,
                emergency: self.emergency,
                net: self.net,
                tier: self.tier,
            },
            origin: Origin {
                address: self.address,
                mac: self.mac,
                interface: self.interface,
            },
        }
    }
}

/// Each condition, once as it holds and once as it does not; `None` where it holds.
#[test]
fn every_condition_decides_alone() {
    let operators = |policy: &mut Policy, of: &[&str]| {
        policy.operators = of.iter().map(|text| text.parse().unwrap()).collect();
    };
    let countries = |policy: &mut Policy, of: &[&str]| {
        policy.countries = of.iter().map(|text| text.parse().unwrap()).collect();
    };
    let exact = |name: &str| NamePattern::Exact(name.to_owned());
    let below = |name: &str| NamePattern::Below(name.to_owned());
    let mac = |last| Client::Mac([2, 0, 0, 0, 0, last]);
    let glob = |text: &str| Glob::new(text).unwrap();
    type Set<'a> = Box<dyn Fn(&mut Policy) + 'a>;
    let table: Vec<(&str, Set, Option<Reason>)> = vec![
        ("no condition", Box::new(|_| ()), None),
        (
            "operator",
            Box::new(|p| operators(p, &["310-260", "505-*"])),
            None,
        ),
        (
            "other operator",
            Box::new(|p| operators(p, &["262-02"])),
            Some(Reason::Operators),
        ),
        ("country", Box::new(|p| countries(p, &["NZ", "DE"])), None),
        (
            "other country",
            Box::new(|p| countries(p, &["NZ"])),
            Some(Reason::Countries),
        ),
        (
            "both of one owner",
            Box::new(|p| {
                operators(p, &["262-01"]);
                countries(p, &["DE"]);
            }),
            None,
        ),
        (
            "both, of two owners",
            Box::new(|p| {
                operators(p, &["262-01"]);
                countries(p, &["AU"]);
            }),
            Some(Reason::Owner),
        ),
        (
            "operator, other country",
            Box::new(|p| {
                operators(p, &["262-01"]);
                countries(p, &["NZ"]);
            }),
            Some(Reason::Countries),
        ),
        (
            "name",
            Box::new(|p| p.names = vec![exact("epdg.example.net")]),
            None,
        ),
        (
            "name below",
            Box::new(|p| p.names = vec![exact("a.b"), below("example.net")]),
            None,
        ),
        (
            "the parent itself",
            Box::new(|p| p.names = vec![below("epdg.example.net")]),
            Some(Reason::Names),
        ),
        (
            "part of a label",
            Box::new(|p| p.names = vec![below("ample.net")]),
            Some(Reason::Names),
        ),
        (
            "not emergency",
            Box::new(|p| p.emergency = Some(false)),
            None,
        ),
        (
            "emergency",
            Box::new(|p| p.emergency = Some(true)),
            Some(Reason::Emergency),
        ),
        (
            "prefix around",
            Box::new(|p| p.prefixes = vec![net("192.0.0.0/16")]),
            None,
        ),
        (
            "the same prefix",
            Box::new(|p| p.prefixes = vec![net("192.0.2.0/24")]),
            None,
        ),
        (
            "prefix inside",
            Box::new(|p| p.prefixes = vec![net("192.0.2.0/25")]),
            Some(Reason::Prefixes),
        ),
        (
            "other family",
            Box::new(|p| p.prefixes = vec![net("::/0")]),
            Some(Reason::Prefixes),
        ),
        (
            "tier",
            Box::new(|p| p.tiers = vec![Tier::Observed, Tier::Corroborated]),
            None,
        ),
        (
            "better tier",
            Box::new(|p| p.tiers = vec![Tier::Authoritative]),
            Some(Reason::Tiers),
        ),
        (
            "network",
            Box::new(|p| p.clients = vec![mac(1), Client::Network(net("10.1.0.0/16"))]),
            None,
        ),
        (
            "other network",
            Box::new(|p| p.clients = vec![Client::Network(net("10.2.0.0/16"))]),
            Some(Reason::Clients),
        ),
        ("station", Box::new(|p| p.clients = vec![mac(0xab)]), None),
        (
            "other station",
            Box::new(|p| p.clients = vec![mac(0xac)]),
            Some(Reason::Clients),
        ),
        (
            "interface",
            Box::new(|p| p.interfaces = vec![glob("eth0"), glob("wlan*")]),
            None,
        ),
        (
            "other interface",
            Box::new(|p| p.interfaces = vec![glob("eth*")]),
            Some(Reason::Interfaces),
        ),
        (
            "the first that fails is told",
            Box::new(|p| {
                p.interfaces = vec![glob("eth*")];
                p.tiers = vec![Tier::Observed];
            }),
            Some(Reason::Tiers),
        ),
    ];
    let packet = Packet::new();
    for (what, set, expected) in table {
        let mut policy = open();
        set(&mut policy);
        assert_eq!(policy.mismatch(&packet.subject()), expected, "{what}");
    }
}

#[test]
fn what_is_not_known_holds_of_nothing() {
    let mut packet = Packet::new();
    (packet.address, packet.mac, packet.interface) = (None, None, None);
    packet.owners.clear();
    packet.names.clear();
    assert_eq!(open().mismatch(&packet.subject()), None);
    type Set = fn(&mut Policy);
    let table: [(Set, Reason); 5] = [
        (
            |p| p.operators = vec!["262-*".parse().unwrap()],
            Reason::Operators,
        ),
        (
            |p| p.countries = vec!["DE".parse().unwrap()],
            Reason::Countries,
        ),
        (
            |p| p.names = vec![NamePattern::Below("net".into())],
            Reason::Names,
        ),
        (
            |p| p.clients = vec![Client::Network(net("0.0.0.0/0"))],
            Reason::Clients,
        ),
        (
            |p| p.interfaces = vec![Glob::new("*").unwrap()],
            Reason::Interfaces,
        ),
    ];
    for (set, expected) in table {
        let mut policy = open();
        set(&mut policy);
        assert_eq!(policy.mismatch(&packet.subject()), Some(expected));
        let contrast = policy.contrast(expected, &packet.subject());
        assert_eq!(contrast.found, Vec::<String>::new());
        assert_eq!(contrast.wanted.len(), 1);
    }
}

#[test]
fn both_sides_of_a_contrast_are_written_as_the_configuration_has_them() {
    let packet = Packet::new();
    let mut policy = open();
    policy.operators = vec!["262-01".parse().unwrap()];
    policy.countries = vec!["AU".parse().unwrap()];
    policy.names = vec![NamePattern::Below("example.org".into())];
    policy.clients = vec![
        Client::Mac([2, 0, 0, 0, 0, 1]),
        Client::Network(net("10.9.0.1/32")),
    ];
    policy.emergency = Some(true);
    let told = |reason| {
        let Contrast { wanted, found } = policy.contrast(reason, &packet.subject());
        format!("{} / {}", wanted.join(" "), found.join(" "))
    };
    assert_eq!(told(Reason::Operators), "262-01 / 262-01 505-01");
    assert_eq!(told(Reason::Owner), "262-01 AU / 262-01 (DE) 505-01 (AU)");
    assert_eq!(told(Reason::Names), "*.example.org / epdg.example.net");
    assert_eq!(
        told(Reason::Clients),
        "02:00:00:00:00:01 10.9.0.1 / 10.1.2.3 02:00:00:00:00:ab"
    );
    assert_eq!(told(Reason::Emergency), "true / false");
}
