use super::*;
use crate::catalogue::catalogue;
use crate::net::{Kind, Link};

const NAME: &str = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
const SECOND: u64 = 1_000_000_000;
const LAN: u32 = 3;
const WAN: u32 = 2;

fn start() -> u64 {
    1000 * SECOND
}

struct Lab {
    snoop: Snoop,
    origins: Origins,
    filter: Filter,
}

impl Lab {
    fn new() -> Self {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            kind: Kind::Ethernet,
            wireless: false,
            master: None,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: None,
        };
        let links = [link(WAN, "wan"), link(LAN, "lan")];
        let set = |index| BTreeSet::from([index]);
        Self {
            snoop: Snoop::new(start()),
            origins: Origins::new(&links, &set(LAN), &BTreeSet::new(), false, &set(WAN)),
            filter: Filter::default(),
        }
    }

    fn take_at(&mut self, ktime: u64, event: &Event) -> (Fate, Option<Found>) {
        let before: BTreeMap<_, _> = self.snoop.fates().map(|(k, f, n)| ((k, f), n)).collect();
        let context = Context {
            origins: &self.origins,
            filter: &self.filter,
            watched: &|ifindex| ifindex == LAN,
            owners: &|name| catalogue().owner_of_name(name).map(|(_, owners)| owners),
            country: &|_| None,
            clients: true,
            ktime,
            now: SystemTime::UNIX_EPOCH + Duration::from_nanos(ktime),
        };
        let found = self.snoop.take(Some(event), &context);
        let grown = self
            .snoop
            .fates()
            .find(|(k, f, n)| before.get(&(*k, *f)) != Some(n));
        (grown.unwrap().1, found)
    }

    fn take(&mut self, event: &Event) -> (Fate, Option<Found>) {
        self.take_at(event.at, event)
    }
}

fn dns(id: u16, name: &str, response: bool, records: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(if response { [0x81, 0x80] } else { [1, 0] });
    bytes.extend([0, 1, 0, u8::from(!records.is_empty()), 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes.extend(records);
    bytes
}

const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 109, 237, 187, 1];

fn query(name: &str) -> Event {
    Event {
        at: start() + SECOND,
        kind: EventKind::NameQuery,
        ifindex: LAN,
        ingress_ifindex: LAN,
        vlan: 0,
        client: "10.0.0.2".parse().unwrap(),
        client_port: 40_000,
        far: "9.9.9.9".parse().unwrap(),
        far_port: 53,
        data: dns(7, name, false, &[]),
    }
}

fn answer(name: &str) -> Event {
    Event {
        at: start() + SECOND + 20_000_000,
        kind: EventKind::NameAnswer,
        ingress_ifindex: WAN,
        data: dns(7, name, true, &RECORD),
        ..query(name)
    }
}

fn ike(response: bool) -> Event {
    let mut data = vec![1, 2, 3, 4, 5, 6, 7, 8];
    data.extend([u8::from(response); 8]);
    data.extend([0; 12]);
    Event {
        at: start() + SECOND,
        kind: if response {
            EventKind::IkeResponse
        } else {
            EventKind::IkeRequest
        },
        ingress_ifindex: if response { WAN } else { LAN },
        far: "109.237.187.9".parse().unwrap(),
        far_port: 500,
        data,
        ..query(NAME)
    }
}

#[test]
fn what_a_client_asked_and_was_told() {
    let mut lab = Lab::new();
    let asks = Found::Query {
        name: NAME.into(),
        client: query(NAME).client,
    };
    assert_eq!(lab.take(&query(NAME)), (Fate::Waiting, Some(asks)));
    let (fate, found) = lab.take(&answer(NAME));
    assert_eq!(fate, Fate::Taken);
    let expected = Answered {
        name: NAME.into(),
        addresses: vec!["109.237.187.1".parse().unwrap()],
        ttl: Duration::from_secs(60),
        client: "10.0.0.2".parse().unwrap(),
    };
    assert_eq!(found, Some(Found::Answer(expected)));
    let owners = lab.snoop.clients().owners("10.0.0.2".parse().unwrap());
    let plmns: Vec<_> = owners
        .iter()
        .filter_map(|o| o.plmn)
        .map(|p| p.to_string())
        .collect();
    assert_eq!(plmns, ["262-01"]);
    // By the box's own resolver.
    let own = Event {
        ingress_ifindex: 0,
        ..answer(NAME)
    };
    assert_eq!(lab.take(&own).0, Fate::Taken);
}

#[test]
fn an_answer_without_addresses_is_told_as_such() {
    let mut lab = Lab::new();
    lab.take(&query(NAME));
    let mut none = answer(NAME);
    none.data = dns(7, NAME, true, &[]);
    let found = Found::Empty {
        name: NAME.into(),
        client: none.client,
    };
    assert_eq!(lab.take(&none), (Fate::Empty, Some(found)));
}

/// Each row differs from a good answer in one thing.
#[test]
fn what_does_not_count() {
    type Change = fn(&mut Event);
    let table: [(&str, Change, Fate); 13] = [
        (
            "from another client's interface",
            |e| e.ingress_ifindex = LAN,
            Fate::Spoofed,
        ),
        (
            "from a port that nobody named",
            |e| e.ingress_ifindex = 9,
            Fate::Spoofed,
        ),
        ("another id", |e| e.data[1] ^= 1, Fate::Unasked),
        (
            "another server",
            |e| e.far = "9.9.9.10".parse().unwrap(),
            Fate::Unasked,
        ),
        (
            "another client",
            |e| e.client = "10.0.0.3".parse().unwrap(),
            Fate::Unasked,
        ),
        ("another port", |e| e.client_port += 1, Fate::Unasked),
        ("another VLAN", |e| e.vlan = 7, Fate::Unasked),
        ("another interface", |e| e.ifindex = 4, Fate::Elsewhere),
        ("too late", |e| e.at += 6 * SECOND, Fate::Unasked),
        (
            "another name",
            |e| e.data = dns(7, &NAME.replace("262", "505"), true, &RECORD),
            Fate::Unasked,
        ),
        (
            "another spelling",
            |e| e.data = dns(7, &NAME.replace("epdg", "ePdg"), true, &RECORD),
            Fate::Respelled,
        ),
        (
            "a name that looks right",
            |e| e.data = dns(7, &format!("{NAME}.evil.example"), true, &RECORD),
            Fate::Other,
        ),
        ("torn", |e| e.data.truncate(70), Fate::Malformed),
    ];
    for (name, change, fate) in table {
        let mut lab = Lab::new();
        lab.take(&query(NAME));
        let mut event = answer(NAME);
        change(&mut event);
        assert_eq!(lab.take(&event), (fate, None), "{name}");
        if fate != Fate::Unasked || name != "too late" {
            assert_eq!(
                lab.take(&answer(NAME)).0,
                Fate::Taken,
                "the real one after {name}"
            );
        }
    }
    let mut lab = Lab::new();
    assert_eq!(lab.take(&answer(NAME)).0, Fate::Unasked);
    for name in ["ims.mnc001.mcc262.pub.3gppnetwork.org", "www.example.com"] {
        assert_eq!(lab.take(&query(name)).0, Fate::Other, "{name}");
    }
    assert_eq!(lab.snoop.clients().iter().count(), 0);
}

#[test]
fn events_that_waited_too_long_are_stale() {
    let mut lab = Lab::new();
    let event = query(NAME);
    assert_eq!(lab.take_at(event.at + 3 * SECOND, &event).0, Fate::Stale);
    let before = Event {
        at: start() - 1,
        ..event
    };
    assert_eq!(lab.take_at(start(), &before).0, Fate::Stale);
    let context_free = lab.snoop.fates().map(|(_, _, n)| n).sum::<u64>();
    assert_eq!(context_free, 2);
}

/// Forged answers do not keep the real one out, whether they come first or in numbers.
#[test]
fn a_forged_answer_does_not_keep_the_real_one_out() {
    let mut lab = Lab::new();
    lab.take(&query(NAME));
    // With the right id, from outside: nothing tells it from the real one.
    assert_eq!(lab.take(&answer(NAME)).0, Fate::Taken);
    for id in 0..5000_u16 {
        let mut forged = answer(NAME);
        forged.data[..2].copy_from_slice(&(id + 100).to_be_bytes());
        assert_eq!(lab.take(&forged).0, Fate::Unasked);
    }
    assert_eq!(lab.take(&answer(NAME)).0, Fate::Taken);
}

#[test]
fn floods_leave_bounded_tables_and_the_next_phone_through() {
    let mut lab = Lab::new();
    for number in 0..100_000_u32 {
        let mut flood = query(&format!(
            "epdg.epc.mnc{:03}.mcc262.pub.3gppnetwork.org",
            number % 1000
        ));
        flood.at += u64::from(number);
        flood.client = IpAddr::from((0x0a00_0000 | number).to_be_bytes());
        lab.take(&flood);
    }
    assert!(lab.snoop.waiting() <= WAITING);
    assert!(lab.snoop.clients().iter().count() <= 4096);
    assert!(lab.snoop.displaced() > 90_000);
    let mut phone = query(NAME);
    phone.at += SECOND / 2;
    let mut told = answer(NAME);
    told.at += SECOND / 2;
    lab.take(&phone);
    assert_eq!(lab.take(&told).0, Fate::Taken);
}

#[test]
fn an_address_that_answers_ike_with_its_spi_is_a_peer() {
    let mut lab = Lab::new();
    assert_eq!(lab.take(&ike(true)).0, Fate::Unasked);
    let (fate, found) = lab.take(&ike(false));
    assert_eq!(fate, Fate::Waiting);
    assert!(matches!(found, Some(Found::Asked { address, .. }) if address == ike(false).far));
    let mut other_spi = ike(true);
    other_spi.data[0] ^= 1;
    assert_eq!(lab.take(&other_spi).0, Fate::Unasked);
    let mut inside = ike(true);
    inside.ingress_ifindex = LAN;
    assert_eq!(lab.take(&inside).0, Fate::Spoofed);
    let (fate, found) = lab.take(&ike(true));
    assert_eq!(fate, Fate::Taken);
    assert!(matches!(found, Some(Found::Peer { address, .. }) if address == ike(true).far));
    let mut local = ike(false);
    local.far = "192.168.1.1".parse().unwrap();
    assert_eq!(lab.take(&local).0, Fate::Refused);
}
