use super::*;
use crate::discover::{Failure, FailureKind, Family, Filter, Outcome};

const HOUR: Duration = Duration::from_secs(3600);
const KEEP: Duration = Duration::from_secs(24 * 3600);
const TTL: Duration = Duration::from_secs(60);

/// Some hours after a start long after 1970.
fn at(hours: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + HOUR * hours
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(name: &str, operators: &[&str]) -> Target {
    let owner = |plmn: &&str| Owner {
        plmn: plmn.parse().ok(),
        country: None,
    };
    Target {
        name: name.into(),
        owners: Arc::new(operators.iter().map(owner).collect()),
    }
}

fn memory(bounds: Bounds, targets: &[Target]) -> Memory {
    let mut memory = Memory::new(KEEP, bounds);
    memory.set_targets(targets);
    memory
}

/// A memory of the names "a" and "b".
fn two_names() -> Memory {
    let targets = [target("a", &["262-01"]), target("b", &["505-01"])];
    memory(Bounds::default(), &targets)
}

fn update(name: &str, outcome: Outcome, hours: u32) -> Update {
    let v6 = matches!(&outcome, Outcome::Addresses { addresses, .. }
        if addresses.iter().any(IpAddr::is_ipv6));
    Update {
        name: name.into(),
        family: if v6 { Family::V6 } else { Family::V4 },
        outcome,
        at: at(hours),
    }
}

fn answer(memory: &mut Memory, name: &str, addresses: &[&str], hours: u32) -> Applied {
    let outcome = Outcome::Addresses {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ttl: TTL,
    };
    memory.apply(&update(name, outcome, hours), &Filter::default())
}

fn failed() -> Outcome {
    Outcome::Failed(Failure {
        kind: FailureKind::ServFail,
        detail: "192.0.2.53:53: SERVFAIL".into(),
    })
}

fn known(memory: &Memory) -> Vec<String> {
    let filter = Filter::default();
    let known = memory.known(&filter);
    known.map(|known| known.address.to_string()).collect()
}

#[test]
fn answers_add_up() {
    let mut memory = two_names();
    assert_eq!(
        answer(&mut memory, "a", &["8.0.0.1"], 0).added,
        [ip("8.0.0.1")]
    );
    assert_eq!(
        answer(&mut memory, "a", &["8.0.0.2"], 1).added,
        [ip("8.0.0.2")]
    );
    assert_eq!(
        answer(&mut memory, "a", &["8.0.0.1"], 2).added,
        [] as [IpAddr; 0]
    );
    assert_eq!(known(&memory), ["8.0.0.1", "8.0.0.2"]);
    let first = memory.known(&Filter::default()).next().unwrap();
    assert_eq!((first.first_seen, first.last_answer), (at(0), at(2)));
    assert_eq!(first.last_traffic, None);
}

#[test]
fn absence_and_failure_take_nothing_away() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    for (hours, outcome) in [(1, failed()), (2, Outcome::NxDomain), (3, Outcome::NoData)] {
        let applied = memory.apply(&update("a", outcome, hours), &Filter::default());
        assert_eq!(applied, Applied::default());
    }
    answer(&mut memory, "a", &[], 4);
    // For years: nothing says what there is instead.
    let empty = update("a", Outcome::NoData, 20_000);
    memory.apply(&empty, &Filter::default());
    assert!(memory.expire(at(20_000)).is_empty());
    assert_eq!(known(&memory), ["8.0.0.1"]);
}

#[test]
fn state_of_a_name() {
    let mut memory = two_names();
    let state = |memory: &Memory| {
        let (name, state) = memory.names().next().unwrap();
        assert_eq!(&**name, "a");
        state.clone()
    };
    assert_eq!(state(&memory).last_success(), None);
    answer(&mut memory, "a", &["8.0.0.1", "127.0.0.1"], 1);
    for hours in [2, 3] {
        memory.apply(&update("a", failed(), hours), &Filter::default());
    }
    let expected = Asked {
        last_attempt: Some(at(3)),
        last_success: Some(at(1)),
        result: Some("servfail"),
        error: Some("192.0.2.53:53: SERVFAIL".into()),
        ttl: Some(TTL),
        failures: 2,
        refused: 1,
    };
    assert_eq!(state(&memory).asked(Family::V4), expected);
    assert_eq!(state(&memory).asked(Family::V6), Asked::default());
    memory.apply(&update("a", Outcome::NxDomain, 4), &Filter::default());
    let asked = state(&memory).asked(Family::V4);
    assert_eq!(
        (asked.result, asked.error, asked.failures),
        (Some("nx_domain"), None, 0)
    );
    assert_eq!(state(&memory).last_success(), Some(at(1)));
}

#[test]
fn refused_addresses_are_reported_and_forgotten() {
    let mut memory = two_names();
    let applied = answer(&mut memory, "a", &["127.0.0.9", "8.0.0.1", "10.0.0.1"], 0);
    assert_eq!(applied.added, [ip("8.0.0.1")]);
    let refused = [
        (ip("127.0.0.9"), Reason::Loopback),
        (ip("10.0.0.1"), Reason::Private),
    ];
    assert_eq!(applied.refused, refused);
    assert_eq!(memory.len(), 1);
    // A network that becomes ours later takes its addresses out, and gives them back.
    let local = Filter::new(["8.0.0.254/24".parse().unwrap()], []);
    assert_eq!(memory.known(&local).count(), 0);
    assert_eq!(known(&memory), ["8.0.0.1"]);
}

#[test]
fn an_address_has_the_owners_of_all_its_names() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    answer(&mut memory, "b", &["8.0.0.1"], 1);
    let owners = |memory: &Memory| {
        let known = memory.known(&Filter::default()).next().unwrap();
        let owners = known.owners.iter();
        owners
            .map(|o| o.plmn.unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&memory), ["262-01", "505-01"]);
    // One name still answers with it, the other has moved on.
    answer(&mut memory, "a", &["8.0.0.1"], 30);
    answer(&mut memory, "b", &["8.0.0.2"], 30);
    assert!(memory.expire(at(30)).is_empty());
    assert_eq!(owners(&memory), ["262-01"]);
}

#[test]
fn an_address_goes_when_dns_and_traffic_have_left_it() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    answer(&mut memory, "a", &["8.0.0.2"], 23);
    assert!(memory.expire(at(23)).is_empty());
    // 24 hours have passed, but the last answer was before that.
    assert!(memory.expire(at(25)).is_empty());
    answer(&mut memory, "a", &["8.0.0.2"], 25);
    assert_eq!(memory.expire(at(25)), [ip("8.0.0.1")]);
    assert_eq!(known(&memory), ["8.0.0.2"]);
}

#[test]
fn the_other_family_proves_nothing() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    answer(&mut memory, "a", &["2a02::1"], 48);
    assert!(memory.expire(at(48)).is_empty());
}

#[test]
fn traffic_keeps_a_block() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1", "8.0.0.255", "8.0.1.0"], 0);
    answer(&mut memory, "a", &["2a02::1", "2a02:0:0:1::1"], 0);
    let block = "8.0.0.77/24".parse().unwrap();
    assert_eq!(memory.note_traffic(block, at(40)), 2);
    assert_eq!(memory.note_traffic("2a02::/64".parse().unwrap(), at(40)), 1);
    assert_eq!(memory.note_traffic("9.0.0.0/8".parse().unwrap(), at(40)), 0);
    // An older mark does not undo a newer one.
    memory.note_traffic(block, at(2));
    answer(&mut memory, "a", &["8.0.2.1"], 50);
    answer(&mut memory, "a", &["2a02:0:0:2::1"], 50);
    assert_eq!(memory.expire(at(50)), [ip("8.0.1.0"), ip("2a02:0:0:1::1")]);
    answer(&mut memory, "a", &["8.0.2.1"], 64);
    answer(&mut memory, "a", &["2a02:0:0:2::1"], 64);
    assert_eq!(memory.expire(at(63)).len(), 0);
    assert_eq!(memory.expire(at(64)).len(), 3);
}

/// The agent was away for two days, and a call goes on over the one of two addresses that had traffic.
#[test]
fn what_was_in_use_outlives_a_pause() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1", "8.0.1.1"], 0);
    memory.note_traffic(ip("8.0.0.1").into(), at(20));
    answer(&mut memory, "a", &["8.0.2.1"], 21);
    memory.resume(at(69));
    answer(&mut memory, "a", &["8.0.2.1"], 69);
    assert_eq!(memory.expire(at(69)), [ip("8.0.1.1")]);
    // 20 hours were used up of 24 at the pause's begin; without traffic the rest goes on.
    assert_eq!(memory.expire(at(91)).len(), 0);
    assert_eq!(memory.expire(at(92)), [ip("8.0.0.1")]);
}

/// What was not in use any more when the pause began gains nothing by it.
#[test]
fn what_was_over_stays_over() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    memory.note_traffic(ip("8.0.0.1").into(), at(1));
    answer(&mut memory, "a", &["8.0.2.1"], 30);
    memory.resume(at(40));
    assert_eq!(memory.expire(at(40)), [ip("8.0.0.1")]);
}

#[test]
fn names_come_and_go() {
    let mut memory = two_names();
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    answer(&mut memory, "b", &["8.0.0.2"], 0);
    memory.set_targets(&[target("b", &["262-02"])]);
    assert_eq!(known(&memory), ["8.0.0.2"]);
    // A late answer for a name that is gone changes nothing.
    assert_eq!(
        answer(&mut memory, "a", &["8.0.0.3"], 1),
        Applied::default()
    );
    assert!(memory.expire(at(23)).is_empty());
    memory.set_targets(&[target("a", &["262-01"]), target("b", &["262-02"])]);
    assert_eq!(known(&memory), ["8.0.0.1", "8.0.0.2"]);
    // Nobody asks for it any more: time alone decides.
    memory.set_targets(&[target("b", &["262-02"])]);
    assert_eq!(memory.expire(at(24)), [ip("8.0.0.1")]);
    assert_eq!(memory.names.len(), 1);
}

#[test]
fn a_rotating_name_loses_nothing_in_use_and_stays_bounded() {
    let mut memory = two_names();
    let call = ip("8.0.0.0");
    answer(&mut memory, "a", &["8.0.0.0"], 0);
    for hours in 1..2000 {
        let address = format!("8.0.{}.{}", hours / 200, hours % 200);
        answer(&mut memory, "a", &[&address], hours);
        memory.note_traffic(call.into(), at(hours));
        memory.expire(at(hours));
        assert!(
            memory
                .known(&Filter::default())
                .any(|known| known.address == call)
        );
        assert!(memory.len() <= 25 + 1);
    }
    assert_eq!(memory.overflow(), 0);
}

#[test]
fn an_answer_too_large_is_cut_and_said_so() {
    let bounds = Bounds {
        per_name: 3,
        total: 5,
        corroborated: 0,
    };
    let mut memory = memory(
        bounds,
        &[target("a", &["262-01"]), target("b", &["262-02"])],
    );
    let first = ["8.0.0.1", "8.0.0.2", "8.0.0.3", "8.0.0.4", "8.0.0.5"];
    let second = ["8.0.1.1", "8.0.1.2", "8.0.1.3", "8.0.1.4", "8.0.1.5"];
    let applied = answer(&mut memory, "a", &first, 0);
    assert_eq!((applied.added.len(), applied.overflow), (3, 2));
    // What is known stays and is refreshed; the total holds too.
    let applied = answer(&mut memory, "a", &first, 0);
    assert_eq!((applied.added.len(), applied.overflow), (0, 2));
    let applied = answer(&mut memory, "b", &second, 0);
    assert_eq!((applied.added.len(), applied.overflow), (2, 3));
    assert_eq!(memory.overflow(), 7);
    assert_eq!(memory.len(), 5);
}

/// More addresses than a name may have, in turn: the newest is always there, and what is in use.
#[test]
fn a_large_rotation_pushes_out_what_was_named_longest_ago() {
    let bounds = Bounds {
        per_name: 4,
        ..Bounds::default()
    };
    let mut memory = memory(
        bounds,
        &[target("a", &["262-01"]), target("b", &["262-02"])],
    );
    answer(&mut memory, "b", &["8.0.0.1"], 0);
    for turn in 0..40 {
        let newest = format!("8.0.0.{turn}");
        let applied = answer(&mut memory, "a", &[&newest], turn);
        assert_eq!((applied.overflow, memory.overflow()), (0, 0), "{newest}");
        assert!(memory.addresses.contains_key(&ip(&newest)), "{newest}");
        assert!(memory.count_of("a") <= 4);
        // A call at the first one.
        memory.note_traffic("8.0.0.0/32".parse().unwrap(), at(turn));
    }
    let left: Vec<_> = memory.addresses.keys().map(ToString::to_string).collect();
    // One made room in the rotation and still is another name's.
    let expected = ["8.0.0.0", "8.0.0.1", "8.0.0.37", "8.0.0.38", "8.0.0.39"];
    assert_eq!(left, expected);
    assert_eq!(memory.displaced(), 36);
    // All in use: what is new finds no room.
    memory.note_traffic("8.0.0.0/24".parse().unwrap(), at(40));
    assert_eq!(answer(&mut memory, "a", &["8.0.0.40"], 40).overflow, 1);
    // And nothing of the same answer goes for another of it.
    let many: Vec<_> = (1..=6).map(|n| format!("8.0.1.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let applied = answer(&mut memory, "a", &many, 90);
    assert_eq!((applied.added.len(), applied.overflow), (4, 2));
}

#[test]
fn a_clock_that_was_wrong_costs_no_address() {
    let mut memory = two_names();
    // Answered in 1970, before the clock was set; in use, and not answered since.
    answer(&mut memory, "a", &["8.0.0.1"], 0);
    assert!(memory.expire(at(400_000)).is_empty());
    // The clock goes back: ages are negative.
    assert!(memory.expire(SystemTime::UNIX_EPOCH).is_empty());
    assert_eq!(memory.len(), 1);
}
