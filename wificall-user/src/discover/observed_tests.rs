//! What clients were told, and what it is worth.

use super::*;
use crate::discover::{Family, Filter, Outcome};
use crate::discover::{Visited, store};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const REAL: &str = "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org";
const PHONE: &str = "10.0.0.2";
const THIEF: &str = "10.0.0.66";

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A memory of the configured name "a" with 8.8.0.1, and what is observed as by default.
fn memory() -> Memory {
    let mut memory = Memory::new(Duration::from_secs(24 * 3600), Bounds::default());
    let owner = Owner {
        plmn: "262-01".parse().ok(),
        country: "DE".parse().ok(),
    };
    memory.set_targets(&[Target {
        name: "a".into(),
        owners: Arc::new([owner].into()),
    }]);
    memory.set_observed(Observed::default(), 20);
    answer(&mut memory, "a", &["8.8.0.1"], start());
    memory
}

fn answer(memory: &mut Memory, name: &str, addresses: &[&str], at: SystemTime) -> Applied {
    let outcome = if addresses.is_empty() {
        Outcome::NxDomain
    } else {
        Outcome::Addresses {
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            ttl: MINUTE,
        }
    };
    let update = Update {
        name: name.into(),
        family: Family::V4,
        outcome,
        at,
    };
    memory.apply(&update, &Filter::default())
}

fn told(memory: &mut Memory, client: &str, name: &str, address: &str, at: SystemTime) -> Applied {
    let sighting = Sighting {
        name: name.into(),
        addresses: vec![ip(address)],
        client: ip(client),
        at,
    };
    memory.observe(&sighting, &Filter::default())
}

/// Address, tier and the operators it is counted for.
fn known(memory: &Memory) -> Vec<String> {
    let filter = Filter::default();
    let known = memory.known(&filter);
    known
        .map(|known| {
            let owners: Vec<_> = known
                .owners
                .iter()
                .map(|o| o.plmn.unwrap().to_string())
                .collect();
            format!("{} {} {}", known.address, known.tier, owners.join("+"))
        })
        .collect()
}

fn to_confirm(memory: &Memory) -> Vec<String> {
    memory
        .to_confirm()
        .iter()
        .map(|target| target.name.to_string())
        .collect()
}

const CONFIGURED: &str = "8.8.0.1 authoritative 262-01";

#[test]
fn observed_at_once_and_corroborated_by_our_resolver() {
    let mut memory = memory();
    let applied = told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    assert!(applied.counts && applied.to_confirm);
    assert_eq!(applied.added, [ip("9.0.0.1")]);
    assert_eq!(known(&memory), [CONFIGURED, "9.0.0.1 observed 505-01"]);
    assert_eq!(to_confirm(&memory), [REAL]);

    answer(&mut memory, REAL, &["9.0.0.1", "9.0.0.2"], start() + SECOND);
    let expected = [
        CONFIGURED,
        "9.0.0.1 corroborated 505-01",
        "9.0.0.2 corroborated 505-01",
    ];
    assert_eq!(known(&memory), expected);
    let both = memory.known(&Filter::default()).nth(1).unwrap();
    assert_eq!(
        both.sources,
        [
            (Source::Confirmed, start() + SECOND),
            (Source::Client, start())
        ]
        .into()
    );
    // It stays like anything our resolver says, and is asked again.
    memory.expire(start() + MINUTE * 60 * 23);
    assert_eq!(known(&memory), expected);
    assert_eq!(to_confirm(&memory), [REAL]);
    // Once it is configured, it is as good as any.
    let owner = Owner::of(catalogue(), "505-01".parse().unwrap());
    memory.set_targets(&[Target {
        name: REAL.into(),
        owners: Arc::new([owner].into()),
    }]);
    assert_eq!(
        known(&memory),
        [
            "9.0.0.1 authoritative 505-01",
            "9.0.0.2 authoritative 505-01"
        ]
    );
    assert!(to_confirm(&memory).is_empty());
}

/// A forged answer for a name that exists.
#[test]
fn a_confirmed_name_does_not_launder_a_forged_address() {
    let mut memory = memory();
    told(&mut memory, THIEF, REAL, "9.9.9.9", start());
    answer(&mut memory, REAL, &["9.0.0.1"], start() + SECOND);
    let expected = [
        CONFIGURED,
        "9.0.0.1 corroborated 505-01",
        "9.9.9.9 observed 505-01",
    ];
    assert_eq!(known(&memory), expected);
    memory.expire(start() + MINUTE * 10);
    assert_eq!(known(&memory), expected[..2]);
}

#[test]
fn a_client_changes_nothing_about_what_is_trusted() {
    let mut memory = memory();
    // The address of a configured name under another name, and a configured name elsewhere.
    told(&mut memory, THIEF, REAL, "8.8.0.1", start() + SECOND);
    assert_eq!(known(&memory), [CONFIGURED]);
    told(&mut memory, THIEF, "a", "9.9.9.9", start() + SECOND);
    assert_eq!(known(&memory), [CONFIGURED, "9.9.9.9 observed 262-01"]);
    assert_eq!(
        to_confirm(&memory),
        [REAL],
        "what is configured is asked anyway"
    );
    // Nothing that a client says is an answer of DNS.
    let first = memory.known(&Filter::default()).next().unwrap();
    assert_eq!(first.last_answer, start());
}

#[test]
fn names_that_are_no_epdg_count_nothing() {
    let mut memory = memory();
    for name in [
        "www.example",
        "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org.example",
    ] {
        let applied = told(&mut memory, PHONE, name, "9.0.0.1", start());
        assert_eq!(applied, Applied::default());
    }
    let bogus = told(&mut memory, PHONE, REAL, "127.0.0.1", start());
    assert_eq!(bogus.refused, [(ip("127.0.0.1"), Reason::Loopback)]);
    assert_eq!(known(&memory), [CONFIGURED]);
}

/// 20,000 made-up names from one client, then from hundreds.
#[test]
fn a_flood_of_names_is_bounded_and_slow() {
    let mut memory = memory();
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    answer(&mut memory, REAL, &["9.0.0.1"], start() + SECOND);
    let waiting = "epdg.epc.mnc002.mcc505.pub.3gppnetwork.org";
    told(&mut memory, PHONE, waiting, "9.0.0.2", start() + SECOND);
    let made_up = |n: u32| {
        let (mcc, mnc) = (600 + n / 1000 % 100, n % 1000);
        format!("epdg.epc.mnc{mnc:03}.mcc{mcc}.pub.3gppnetwork.org")
    };
    let mut asked = BTreeSet::new();
    let mut at = start() + SECOND * 2;
    for n in 0..20_000 {
        at += Duration::from_millis(3);
        told(&mut memory, THIEF, &made_up(n), "9.9.9.9", at);
        asked.extend(to_confirm(&memory));
    }
    // 60 s at a quarter of 20 queries a second, two to a name.
    assert!(
        (100..=170).contains(&asked.len()),
        "{} names in 60 s",
        asked.len()
    );
    assert!(
        asked.contains(waiting),
        "a name of somebody else waits no longer than a moment"
    );
    let names: BTreeSet<_> = memory
        .seen_names()
        .map(|(name, _)| name.to_string())
        .collect();
    assert!(names.contains(REAL) && names.contains(waiting));
    assert!(names.len() <= 2 + 8, "{} names of one client", names.len());

    for n in 0..20_000 {
        let client = format!("10.1.{}.{}", n / 250 % 250, n % 250);
        told(&mut memory, &client, &made_up(n), "9.9.9.9", at);
    }
    let names: Vec<_> = memory.seen_names().map(|(name, _)| &**name).collect();
    assert!(names.contains(&REAL), "what was confirmed stays");
    assert!(names.len() <= 65, "{} names", names.len());
    assert!(memory.displaced() > 30_000);
}

/// Real names, which our resolver confirms as fast as they come.
#[test]
fn names_in_use_make_room_for_nobody() {
    let mut memory = memory();
    let real = |n: u32| {
        let (mcc, mnc) = (310 + n / 200, n % 200);
        format!("epdg.epc.mnc{mnc:03}.mcc{mcc}.pub.3gppnetwork.org")
    };
    let confirm = |memory: &mut Memory, client: &str, n: u32, at| {
        let address = format!("9.1.{}.{}", n / 250, n % 250);
        told(memory, client, &real(n), &address, at);
        answer(memory, &real(n), &[&address], at);
    };
    let holds =
        |memory: &Memory, name: &str| memory.seen_names().any(|(known, _)| **known == *name);
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    answer(&mut memory, REAL, &["9.0.0.1"], start());
    let mut at = start();
    for n in 0..250 {
        at += SECOND;
        confirm(&mut memory, THIEF, n, at);
    }
    assert_eq!(memory.seen_names().count(), 1 + 32, "one client's share");
    assert!(known(&memory).contains(&"9.0.0.1 corroborated 505-01".to_owned()));
    // Another client still has its own, and neither gives way to the many that come then.
    confirm(&mut memory, "10.0.0.3", 300, at);
    for n in 0..400 {
        at += SECOND;
        confirm(&mut memory, &format!("10.1.0.{}", n % 20), 400 + n, at);
    }
    assert_eq!(memory.seen_names().count(), 256);
    for name in [REAL.to_owned(), real(0), real(31), real(300)] {
        assert!(holds(&memory, &name), "{name}");
    }
    let late = real(1000);
    told(&mut memory, "10.0.0.4", &late, "9.2.0.1", at);
    assert!(!holds(&memory, &late), "no room");
    assert!(known(&memory).contains(&"9.2.0.1 observed 315-000".to_owned()));

    // A day after they were last asked for there is room again, although our resolver still has answers; what has had
    // traffic stays.
    at += MINUTE * 60 * 23;
    answer(&mut memory, &real(0), &["9.1.0.0"], at);
    memory.note_traffic(ip("9.0.0.1").into(), at);
    at += MINUTE * 60;
    let gone = memory.expire(at);
    assert!(gone.contains(&ip("9.1.0.0")) && !gone.contains(&ip("9.0.0.1")));
    assert!(holds(&memory, REAL) && !holds(&memory, &real(0)));
    told(&mut memory, "10.0.0.4", &late, "9.2.0.1", at);
    assert!(holds(&memory, &late));
}

#[test]
fn what_our_resolver_denies_is_not_asked_again_soon() {
    let mut memory = memory();
    let mut at = start();
    told(&mut memory, PHONE, REAL, "9.9.9.9", at);
    let denied = |family| Update {
        name: REAL.into(),
        family,
        outcome: Outcome::NxDomain,
        at: start(),
    };
    assert!(
        !memory
            .apply(&denied(Family::V4), &Filter::default())
            .to_confirm
    );
    assert!(
        memory
            .apply(&denied(Family::V6), &Filter::default())
            .to_confirm
    );
    assert!(to_confirm(&memory).is_empty());
    for _ in 0..59 {
        at += MINUTE;
        assert!(!told(&mut memory, PHONE, REAL, "9.9.9.9", at).to_confirm);
    }
    at += MINUTE;
    assert!(told(&mut memory, PHONE, REAL, "9.9.9.9", at).to_confirm);
}

#[test]
fn a_flood_of_addresses_has_its_own_room() {
    let mut memory = memory();
    let learn = |memory: &mut Memory, client: &str, n: u32, at| {
        let address = IpAddr::from([9, 0, (n >> 8) as u8, n as u8]);
        memory.learn(address, ip(client), at, &Filter::default())
    };
    let call = IpAddr::from([9, 1, 0, 0]);
    memory.learn(call, ip(PHONE), start(), &Filter::default());
    memory.note_traffic(call.into(), start() + SECOND);
    for n in 0..5000 {
        learn(&mut memory, THIEF, n, start() + SECOND * 2);
    }
    let count = |memory: &Memory| known(memory).len();
    assert_eq!(count(&memory), 1 + 1 + 64, "one client's share");
    for n in 0..20_000 {
        learn(
            &mut memory,
            &format!("10.1.{}.{}", n / 250, n % 250),
            n,
            start() + SECOND * 3,
        );
    }
    assert_eq!(count(&memory), 1 + observed::ADDRESSES_MAX);
    let all = known(&memory);
    assert!(all.contains(&CONFIGURED.to_owned()) && all.contains(&"9.1.0.0 observed ".to_owned()));
    assert_eq!(
        memory.len(),
        1,
        "no room of our resolver's answers was taken"
    );
}

#[test]
fn traffic_prolongs_and_does_not_perpetuate() {
    let mut memory = memory();
    let expected = [CONFIGURED, "9.0.0.1 observed 505-01"];
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    let mut at = start();
    while at < start() + MINUTE * 239 {
        at += MINUTE;
        memory.note_traffic(ip("9.0.0.1").into(), at);
        memory.expire(at);
        assert_eq!(known(&memory), expected);
    }
    // Four hours: over, whatever it says, and however often it is observed.
    while at < start() + MINUTE * 479 {
        at += MINUTE;
        memory.note_traffic(ip("9.0.0.1").into(), at);
        let applied = told(&mut memory, PHONE, REAL, "9.0.0.1", at);
        assert_eq!(applied.spent, 1);
        memory.expire(at);
        assert_eq!(known(&memory), expected[..1]);
    }
    memory.expire(at + MINUTE);
    assert_eq!(
        told(&mut memory, PHONE, REAL, "9.0.0.1", at + MINUTE * 2).added,
        [ip("9.0.0.1")]
    );
    assert_eq!(known(&memory), expected);
}

#[test]
fn a_call_outlives_a_pause_of_the_agent() {
    let mut memory = memory();
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    told(&mut memory, PHONE, REAL, "9.0.0.2", start());
    memory.note_traffic(ip("9.0.0.1").into(), start() + MINUTE * 5);
    memory.resume(start() + MINUTE * 65);
    memory.expire(start() + MINUTE * 65);
    assert_eq!(known(&memory), [CONFIGURED, "9.0.0.1 observed 505-01"]);
    // Without traffic from here it has what it has without a pause.
    memory.expire(start() + MINUTE * 75);
    assert_eq!(known(&memory), [CONFIGURED]);
}

#[test]
fn corroborated_addresses_have_their_own_room() {
    let mut memory = memory();
    memory.bounds.corroborated = 3;
    memory.bounds.total = 2;
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    let many = ["9.0.0.1", "9.0.0.2", "9.0.0.3", "9.0.0.4"];
    assert_eq!(answer(&mut memory, REAL, &many, start()).overflow, 1);
    assert_eq!(answer(&mut memory, "a", &["8.8.0.2"], start()).overflow, 0);
    assert_eq!(answer(&mut memory, "a", &["8.8.0.3"], start()).overflow, 1);
}

/// DNS is down for an hour, and the agent is restarted in the middle of it.
#[test]
fn an_hour_without_dns_and_a_restart_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let mut memory = memory();
    told(&mut memory, PHONE, REAL, "9.0.0.1", start());
    answer(&mut memory, REAL, &["9.0.0.1"], start());
    memory.learn(ip("9.5.0.1"), ip(PHONE), start(), &Filter::default());
    let before = known(&memory);
    let targets: Vec<Target> = memory
        .names()
        .map(|(name, state)| Target {
            name: name.clone(),
            owners: state.owners.clone(),
        })
        .collect();
    for second in (30..=3600).step_by(30) {
        let at = start() + SECOND * second;
        for name in ["a", REAL] {
            for family in Family::ALL {
                let update = Update {
                    name: name.into(),
                    family,
                    outcome: Outcome::Failed(crate::discover::Failure {
                        kind: crate::discover::FailureKind::Timeout,
                        detail: "192.0.2.53:53: timed out".into(),
                    }),
                    at,
                };
                memory.apply(&update, &Filter::default());
            }
        }
        // A tunnel to what is only observed goes on.
        memory.note_traffic(ip("9.5.0.1").into(), at);
        assert!(memory.expire(at).is_empty());
        assert_eq!(known(&memory), before, "after {second} s");
        if second % 1800 == 0 {
            store::save(&path, &memory, &Visited::default()).unwrap();
            let loaded = store::load(&path, memory.keep, Bounds::default());
            assert_eq!(loaded.warning, None);
            memory = loaded.memory;
            memory.set_targets(&targets);
            memory.set_observed(Observed::default(), 20);
            assert_eq!(known(&memory), before, "after a restart at {second} s");
            assert_eq!(to_confirm(&memory), [REAL], "asked at once");
        }
    }
    let (_, state) = memory.names().next().unwrap();
    assert_eq!(state.last_success(), Some(start()), "its age shows");
}
