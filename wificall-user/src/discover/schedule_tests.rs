use super::*;
use crate::discover::FailureKind;

const MIN: Duration = Duration::from_secs(60);
const MAX: Duration = Duration::from_secs(3600);
const REFRESH: Refresh = Refresh {
    min: MIN,
    max: MAX,
    absent_max: Duration::from_secs(24 * 3600),
};

fn wanted(names: &[&str]) -> Vec<Wanted> {
    let wanted = |name: &&str| Wanted {
        name: Arc::from(*name),
        naptr: false,
        rank: Rank::Configured,
        route: 0,
    };
    names.iter().map(wanted).collect()
}

fn schedule(names: &[&str], now: Instant) -> Schedule {
    let mut schedule = Schedule::new(REFRESH, now);
    schedule.replace(wanted(names), now);
    schedule
}

fn answer(outcome: Outcome) -> Answer {
    Answer::of(outcome)
}

fn addresses(ttl: u64) -> Answer {
    answer(Outcome::Addresses {
        addresses: Vec::new(),
        ttl: Duration::from_secs(ttl),
    })
}

fn absent(outcome: Outcome, seconds: Option<u64>) -> Answer {
    Answer {
        absent_for: seconds.map(Duration::from_secs),
        ..answer(outcome)
    }
}

fn failed(kind: FailureKind) -> Answer {
    answer(Outcome::Failed(Failure {
        kind,
        detail: String::new(),
    }))
}

fn take(schedule: &mut Schedule, now: Instant) -> Option<Question> {
    schedule.take_due(now, |_| false)
}

fn take_all(schedule: &mut Schedule, now: Instant) -> Vec<Question> {
    std::iter::from_fn(|| take(schedule, now)).collect()
}

/// Takes what is due until nothing is, and answers it.
fn answer_all(schedule: &mut Schedule, now: Instant, answer: impl Fn(&Question) -> Answer) {
    while let Some(question) = take(schedule, now) {
        schedule.finish(&question, &answer(&question), now);
    }
}

/// Asserts that the next question is due `seconds` from `now`, give or take the jitter.
fn due_in(schedule: &Schedule, now: Instant, seconds: u64) {
    let delay = (schedule.next_due().unwrap() - now).as_secs_f64();
    let seconds = seconds as f64;
    assert!(
        (seconds * 0.899..=seconds * 1.101).contains(&delay),
        "{delay} for {seconds}"
    );
}

fn v4(name: &str) -> Question {
    Question {
        name: name.into(),
        kind: Kind::Addresses(Family::V4),
        route: 0,
    }
}

fn v6(name: &str) -> Question {
    Question {
        kind: Kind::Addresses(Family::V6),
        ..v4(name)
    }
}

#[test]
fn new_names_are_due_at_once_and_aaaa_after_a() {
    let now = Instant::now();
    let mut schedule = schedule(&["b", "a"], now);
    assert_eq!((schedule.names(), schedule.unasked()), (2, 2));
    let mut taken = take_all(&mut schedule, now);
    taken.sort();
    assert_eq!(taken, [v4("a"), v4("b")]);
    // Being asked: not due again, however long it takes.
    assert_eq!(schedule.next_due(), None);
    assert!(take_all(&mut schedule, now + MAX * 2).is_empty());
    assert_eq!(schedule.finish(&v4("a"), &addresses(60), now), None);
    assert_eq!(take_all(&mut schedule, now), [v6("a")]);
    assert_eq!(schedule.unasked(), 1);
    // Also if A failed.
    let refused = failed(FailureKind::ServFail);
    assert_eq!(schedule.finish(&v4("b"), &refused, now), None);
    assert_eq!(take_all(&mut schedule, now), [v6("b")]);
    assert_eq!(schedule.unasked(), 0);
}

#[test]
fn a_name_that_does_not_exist_has_no_aaaa() {
    let now = Instant::now();
    let mut schedule = schedule(&["a"], now);
    let gone = absent(Outcome::NxDomain, Some(600));
    take_all(&mut schedule, now);
    assert_eq!(schedule.finish(&v4("a"), &gone, now), Some(v6("a")));
    due_in(&schedule, now, 600);
    // It comes to be.
    let later = now + Duration::from_secs(700);
    assert_eq!(take_all(&mut schedule, later), [v4("a")]);
    schedule.finish(&v4("a"), &addresses(600), later);
    assert_eq!(take_all(&mut schedule, later), [v6("a")]);
    schedule.finish(&v6("a"), &addresses(900), later);
    // Servers that deny a name for one type only are believed for that type.
    let last = later + Duration::from_secs(700);
    assert_eq!(take_all(&mut schedule, last), [v4("a")]);
    assert_eq!(schedule.finish(&v4("a"), &gone, last), None);
    due_in(&schedule, later, 900);
}

#[test]
fn jitter_stays_within_the_bounds_and_spreads() {
    let start = Instant::now();
    for (ttl, least, most) in [(0, 60, 66), (600, 540, 660), (1 << 30, 3240, 3600)] {
        let mut schedule = schedule(&["a"], start);
        let mut delays = Vec::new();
        let mut now = start;
        for _ in 0..100 {
            // One name, so that the second question is not before it.
            let question = take(&mut schedule, now).unwrap();
            schedule.finish(&question, &addresses(ttl), now);
            let second = take(&mut schedule, now);
            if let Some(second) = second {
                schedule.finish(&second, &absent(Outcome::NoData, Some(1 << 30)), now);
            }
            if question == v4("a") {
                delays.push(schedule.next_due().unwrap() - now);
            }
            now += MAX * 48;
        }
        let (from, to) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
        assert!(from >= Duration::from_secs(least), "{from:?} for {ttl}");
        assert!(to <= Duration::from_secs(most), "{to:?} for {ttl}");
        let spread = Duration::from_secs((most - least) / 2);
        assert!(to - from > spread, "{from:?} to {to:?} for {ttl}");
    }
}

#[test]
fn ttl_has_a_floor_and_a_ceiling() {
    let now = Instant::now();
    for (ttl, expected) in [
        (0, 60),
        (59, 60),
        (300, 300),
        (3600, 3600),
        (86_400, 3600),
        (u64::MAX, 3600),
    ] {
        let mut schedule = schedule(&["a"], now);
        answer_all(&mut schedule, now, |_| addresses(ttl));
        due_in(&schedule, now, expected);
    }
}

#[test]
fn delays_are_spread() {
    let now = Instant::now();
    let many: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut schedule = schedule(&many, now);
    answer_all(&mut schedule, now, |_| addresses(1000));
    assert!(take_all(&mut schedule, now + Duration::from_secs(899)).is_empty());
    let early = take_all(&mut schedule, now + Duration::from_secs(1000)).len();
    assert!(
        (350..650).contains(&early),
        "{early} of 1000 before the mean"
    );
    take_all(&mut schedule, now + Duration::from_secs(1101));
    assert_eq!(schedule.next_due(), None);
}

/// The table at the head of the module.
#[test]
fn each_outcome_has_its_own_delays() {
    let silence = || failed(FailureKind::Timeout);
    let refusal = || failed(FailureKind::ServFail);
    let gone = |seconds| absent(Outcome::NxDomain, seconds);
    for (answer, delays) in [
        // The SOA's minimum, doubled up to a day.
        (
            gone(Some(900)),
            vec![
                900, 1800, 3600, 7200, 14_400, 28_800, 57_600, 86_400, 86_400,
            ],
        ),
        (gone(Some(5)), vec![60, 120, 240]),
        (gone(Some(1_000_000)), vec![3600, 7200]),
        (gone(None), vec![3600, 7200, 14_400]),
        (absent(Outcome::NoData, Some(900)), vec![900, 1800]),
        (silence(), vec![5, 10, 20, 40, 80, 160, 300, 300]),
        (failed(FailureKind::Unreachable), vec![5, 10]),
        (failed(FailureKind::Tls), vec![5, 10]),
        (
            refusal(),
            vec![30, 60, 120, 240, 480, 960, 1920, 3600, 3600],
        ),
        (failed(FailureKind::Refused), vec![30, 60]),
        (failed(FailureKind::Bogus), vec![30, 60]),
    ] {
        let mut now = Instant::now();
        let mut schedule = schedule(&["a"], now);
        // AAAA is out of the way.
        let question = take(&mut schedule, now).unwrap();
        schedule.finish(&question, &gone(Some(60)), now);
        schedule.rows[0].asks[0].absences = 0;
        schedule.rebuild();
        for delay in delays {
            now = schedule.next_due().unwrap();
            let question = take(&mut schedule, now).unwrap();
            assert_eq!(question, v4("a"));
            schedule.finish(&question, &answer, now);
            // The second question of a name that may exist is asked, too.
            schedule.rows[0].asks[1].state = State::Second;
            schedule.rebuild();
            due_in(&schedule, now, delay);
        }
    }
}

#[test]
fn a_name_that_has_answered_is_never_left_alone_for_long() {
    let now = Instant::now();
    let mut schedule = schedule(&["a"], now);
    answer_all(&mut schedule, now, |_| addresses(60));
    let mut at = now;
    for _ in 0..40 {
        let next = schedule.next_due().unwrap();
        assert!(next - at <= Duration::from_secs(331), "{:?}", next - at);
        at = next;
        answer_all(&mut schedule, at, |_| failed(FailureKind::ServFail));
    }
    // And no failure waits longer than a success would.
    let refresh = Refresh {
        min: Duration::from_secs(1),
        max: Duration::from_secs(7),
        absent_max: Duration::from_secs(7),
    };
    schedule.set_refresh(refresh, at);
    for _ in 0..5 {
        at = schedule.next_due().unwrap();
        answer_all(&mut schedule, at, |_| failed(FailureKind::ServFail));
        assert!(schedule.next_due().unwrap() - at <= Duration::from_millis(7701));
    }
    // One answer, and it is as if nothing had been.
    at = schedule.next_due().unwrap() + Duration::from_secs(8);
    answer_all(&mut schedule, at, |_| addresses(5));
    due_in(&schedule, at, 5);
}

#[test]
fn what_matters_most_is_asked_first() {
    let now = Instant::now();
    let mut schedule = Schedule::new(REFRESH, now);
    let rank = |n: usize| [Rank::World, Rank::Configured, Rank::Known][n % 3];
    let names: Vec<String> = (0..90).map(|n| format!("n{n:02}")).collect();
    let mut all = wanted(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (n, wanted) in all.iter_mut().enumerate() {
        wanted.rank = rank(n);
    }
    schedule.replace(all, now);
    let order: Vec<_> = take_all(&mut schedule, now)
        .iter()
        .map(|q| q.name.to_string())
        .collect();
    let ranks: Vec<_> = order
        .iter()
        .map(|name| rank(name[1..].parse().unwrap()))
        .collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    // Neighbours in name, so likely on the same servers, are not asked in a row.
    let known: Vec<_> = order[..30].to_vec();
    assert!(!known.is_sorted());
    // What has answered matters most.
    schedule.finish(&v4("n00"), &addresses(60), now);
    assert_eq!(schedule.row(0).rank(), Rank::Known);
}

/// While no server answers, only the names that matter fail, so that this is seen.
#[test]
fn what_is_blocked_waits() {
    let now = Instant::now();
    let mut schedule = Schedule::new(REFRESH, now);
    let mut all = wanted(&["a", "b", "c"]);
    (all[0].rank, all[2].route) = (Rank::Known, 1);
    schedule.replace(all, now);
    let blocked = |route| route == 0;
    let taken: Vec<_> = std::iter::from_fn(|| schedule.take_due(now, blocked)).collect();
    let names: Vec<_> = taken.iter().map(|q| &*q.name).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!((schedule.backlog(), schedule.next_new()), (1, None));
    assert_eq!(take_all(&mut schedule, now), [v4("b")]);
}

#[test]
fn what_nobody_answered_is_due_when_a_server_is_back() {
    let now = Instant::now();
    let mut schedule = schedule(&["a", "b"], now);
    answer_all(&mut schedule, now, |question| match &*question.name {
        "a" => failed(FailureKind::Timeout),
        _ => addresses(600),
    });
    schedule.retry_failed(now);
    answer_all(&mut schedule, now, |question| {
        assert_eq!(&*question.name, "a");
        addresses(600)
    });
    due_in(&schedule, now, 600);
}

#[test]
fn replacing_keeps_the_schedule_of_names_that_stay() {
    let now = Instant::now();
    let mut schedule = schedule(&["a", "b", "c"], now);
    take_all(&mut schedule, now);
    // "a" waits, "b" and "c" are being asked.
    schedule.finish(&v4("a"), &addresses(600), now);
    take_all(&mut schedule, now);
    schedule.finish(&v6("a"), &addresses(600), now);
    let waiting = schedule.next_due();

    let later = now + Duration::from_secs(1);
    schedule.replace(wanted(&["a", "b", "d"]), later);
    assert_eq!((schedule.names(), schedule.unasked()), (3, 2));
    assert_eq!(take_all(&mut schedule, later), [v4("d")]);
    assert_eq!(schedule.next_due(), waiting);
    // "c" comes back from its last question and is forgotten; "b" goes on.
    assert_eq!(
        schedule.finish(&v4("c"), &absent(Outcome::NxDomain, None), later),
        None
    );
    schedule.finish(&v4("b"), &addresses(60), later);
    assert_eq!(take_all(&mut schedule, later), [v6("b")]);
    due_in(&schedule, later, 60);
    // A name that waited and is gone leaves nothing due.
    schedule.replace([], later);
    assert_eq!((schedule.next_due(), schedule.names()), (None, 0));
}

#[test]
fn naptr_is_one_question() {
    let now = Instant::now();
    let mut schedule = Schedule::new(REFRESH, now);
    let mut all = wanted(&["a"]);
    all[0].naptr = true;
    schedule.replace(all, now);
    let question = take(&mut schedule, now).unwrap();
    assert_eq!(question.kind, Kind::Naptr);
    let names = Answer {
        replacements: Some((vec!["b".to_owned()], Duration::from_secs(600))),
        ..answer(Outcome::NoData)
    };
    assert_eq!(schedule.finish(&question, &names, now), None);
    due_in(&schedule, now, 600);
    let later = now + Duration::from_secs(700);
    assert_eq!(take_all(&mut schedule, later).len(), 1);
    assert_eq!(
        schedule.finish(&question, &absent(Outcome::NxDomain, None), later),
        None
    );
}

#[test]
fn refresh_now_reaches_also_what_is_being_asked() {
    let now = Instant::now();
    let mut schedule = schedule(&["a"], now);
    answer_all(&mut schedule, now, |_| addresses(600));
    schedule.refresh_now(now);
    let question = take(&mut schedule, now).unwrap();
    schedule.refresh_now(now);
    take_all(&mut schedule, now);
    schedule.finish(&question, &addresses(600), now);
    assert_eq!(take_all(&mut schedule, now), [question]);
}

#[test]
fn absurd_bounds_do_not_overflow() {
    let now = Instant::now();
    for (min, max) in [
        (Duration::MAX, Duration::ZERO),
        (Duration::ZERO, Duration::MAX),
    ] {
        let mut schedule = schedule(&["a"], now);
        let refresh = Refresh {
            min,
            max,
            absent_max: Duration::ZERO,
        };
        schedule.set_refresh(refresh, now);
        answer_all(&mut schedule, now, |_| addresses(u64::MAX));
        due_in(&schedule, now, 30 * 24 * 3600);
    }
}

#[test]
fn a_lower_ceiling_brings_forward() {
    let now = Instant::now();
    let mut schedule = schedule(&["a"], now);
    answer_all(&mut schedule, now, |_| absent(Outcome::NxDomain, None));
    let refresh = Refresh {
        min: MIN,
        max: Duration::from_secs(120),
        absent_max: Duration::from_secs(120),
    };
    schedule.set_refresh(refresh, now);
    due_in(&schedule, now, 120);
}

/// What the world costs here; everything else about it is the memory's.
#[test]
fn a_question_is_small() {
    assert!(size_of::<Row>() <= 56, "{}", size_of::<Row>());
}
