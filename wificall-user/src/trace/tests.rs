use super::*;
use crate::trace::{line, stall as stall_text};

const PHONE: &str = "192.0.2.7";
const EPDG: &str = "198.51.100.1";

fn event(at: u64, step: Step) -> TraceEvent {
    let names = matches!(step, Step::DnsAsked | Step::DnsAnswered);
    TraceEvent {
        at,
        tunnel: if names { "" } else { "1a" }.into(),
        client: PHONE.into(),
        endpoint: if names { "" } else { EPDG }.into(),
        step,
        detail: if names { "epdg.example" } else { "" }.into(),
        ..TraceEvent::default()
    }
}

/// Likewise of another tunnel of the same phone.
fn event_of(tunnel: &str, endpoint: &str, at: u64, step: Step) -> TraceEvent {
    TraceEvent {
        tunnel: tunnel.into(),
        endpoint: endpoint.into(),
        ..event(at, step)
    }
}

/// What DNS is asked (`None`) or says.
fn dns(at: u64, answer: Option<&str>) -> TraceEvent {
    match answer {
        None => event(at, Step::DnsAsked),
        Some(answer) => TraceEvent {
            detail: format!("epdg.example: {answer}"),
            ..event(at, Step::DnsAnswered)
        },
    }
}

fn notify(at: u64, name: &str) -> TraceEvent {
    TraceEvent {
        detail: name.into(),
        ..event(at, Step::Notify)
    }
}

/// Of each, what it waits for and where.
fn of(stalls: &[Stall]) -> Vec<(Wait, &str)> {
    stalls
        .iter()
        .map(|stall| (stall.waits_for, &*stall.endpoint))
        .collect()
}

/// What is waited for after these steps, one a second, once that is late.
fn waits(steps: &[Step]) -> Option<Wait> {
    let mut follow = Follow::default();
    let mut at = 0;
    for step in steps {
        at += 1_000;
        assert_eq!(follow.take(event(at, *step)).len(), 1, "{step:?}");
        assert_eq!(follow.late(at + 999), [], "{step:?} is not late yet");
    }
    let late = follow.late(at + LATE_ESP);
    assert!(late.len() <= 1);
    assert_eq!(follow.late(at + 10 * LATE_ESP), [], "it is said once");
    late.first().map(|stall| stall.waits_for)
}

#[test]
fn each_step_that_does_not_come_is_named() {
    use Step::{
        AuthAnswered, AuthSent, DnsAnswered, DnsAsked, EspDown, EspUp, InitAnswered, InitSent,
        Natt, Notify, Retransmitted, Up,
    };
    let until = |count: usize| {
        let all = [
            DnsAsked,
            DnsAnswered,
            InitSent,
            InitAnswered,
            Natt,
            AuthSent,
            AuthAnswered,
            EspUp,
            EspDown,
        ];
        waits(&all[..count])
    };
    assert_eq!(until(0), None);
    assert_eq!(until(1), Some(Wait::DnsAnswer));
    assert_eq!(until(2), Some(Wait::Init));
    assert_eq!(until(3), Some(Wait::InitAnswer));
    assert_eq!(until(4), Some(Wait::Auth));
    assert_eq!(until(5), Some(Wait::Auth));
    assert_eq!(until(6), Some(Wait::AuthAnswer));
    assert_eq!(until(7), Some(Wait::Esp));
    assert_eq!(until(8), Some(Wait::EspDown));
    assert_eq!(until(9), None);
    assert_eq!(
        waits(&[InitSent, InitAnswered, AuthSent, AuthAnswered, EspDown]),
        Some(Wait::EspUp)
    );
    assert_eq!(waits(&[InitSent, Notify]), Some(Wait::Refused));
    // A refusal that is followed by an answer was none.
    assert_eq!(waits(&[InitSent, Notify, InitAnswered]), Some(Wait::Auth));
    // What is told late sets nothing back.
    assert_eq!(
        waits(&[InitSent, AuthSent, InitAnswered]),
        Some(Wait::AuthAnswer)
    );
    // To ask again is not to get on, nor is what DNS says meanwhile.
    assert_eq!(waits(&[InitSent, Retransmitted]), Some(Wait::InitAnswer));
    assert_eq!(waits(&[InitSent, DnsAsked]), Some(Wait::InitAnswer));
    assert_eq!(waits(&[InitSent, Up]), None);
}

#[test]
fn requests_that_are_sent_again_do_not_put_the_stall_off() {
    let mut follow = Follow::default();
    follow.take(event(0, Step::InitSent));
    for at in [500, 1_500, 2_900] {
        follow.take(event(at, Step::Retransmitted));
    }
    let late = follow.late(LATE);
    assert_eq!(late[0].for_ms, LATE);
    assert!(late[0].advice.tries[0].contains(EPDG), "{:?}", late[0]);
}

#[test]
fn a_failure_that_comes_first_is_explained_with_it() {
    let mut follow = Follow::default();
    follow.take(event(0, Step::InitSent));
    let mut notify = event(20, Step::Notify);
    notify.detail = "NO_PROPOSAL_CHOSEN".into();
    follow.take(notify);
    let mut failed = event(1_000, Step::Failed);
    failed.detail = "refused: NO_PROPOSAL_CHOSEN".into();
    let seen = follow.take(failed.clone());
    let [Seen::Event(_), Seen::Stall(stall)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(stall.waits_for, Wait::Refused);
    let text = stall_text(stall);
    assert!(
        text.contains("It says NO_PROPOSAL_CHOSEN: the ePDG takes none"),
        "{text}"
    );
    assert_eq!(follow.late(60_000), []);
    // What was said as it was late is not said again.
    follow.take(event(100_000, Step::InitSent));
    assert_eq!(follow.late(104_000).len(), 1);
    failed.at = 130_000;
    assert_eq!(follow.take(failed).len(), 1);
}

#[test]
fn two_epdgs_of_a_phone_are_told_apart() {
    const OTHER: &str = "198.51.100.2";
    let mut follow = Follow::default();
    // One is silent; the phone tries the other, which answers, and asks the first again meanwhile.
    follow.take(event(0, Step::InitSent));
    follow.take(event_of("2b", OTHER, 2_000, Step::InitSent));
    follow.take(event_of("2b", OTHER, 2_050, Step::InitAnswered));
    follow.take(event_of("2b", OTHER, 2_060, Step::AuthSent));
    follow.take(event(2_500, Step::Retransmitted));
    assert_eq!(of(&follow.late(3_000)), [(Wait::InitAnswer, EPDG)]);
    let late = follow.late(5_100);
    assert_eq!(of(&late), [(Wait::AuthAnswer, OTHER)]);
    assert!(stall_text(&late[0]).contains(&format!(" STALLS at {OTHER}: waits 3.0 s")));
    // The end of the first is no news, and nothing of the second.
    let mut failed = event(30_000, Step::Failed);
    failed.detail = "no_answer, waited for init_answered".into();
    assert_eq!(follow.take(failed).len(), 1);
    follow.take(event_of("2b", OTHER, 31_000, Step::AuthAnswered));
    assert_eq!(of(&follow.late(31_000 + LATE_ESP)), [(Wait::Esp, OTHER)]);
}

#[test]
fn a_failure_is_of_its_own_tunnel_also_where_the_trace_began_later() {
    let mut follow = Follow::default();
    follow.take(event_of("2b", "198.51.100.2", 29_000, Step::Up));
    let mut failed = event(30_000, Step::Failed);
    failed.after_ms = Some(28_000.0);
    failed.detail = "refused: PLMN_NOT_ALLOWED, waited for init_answered".into();
    let seen = follow.take(failed);
    let [Seen::Event(_), Seen::Stall(stall)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((stall.waits_for, &*stall.endpoint), (Wait::Refused, EPDG));
    assert_eq!(stall.for_ms, 28_000);
    assert_eq!(stall.notify.as_deref(), Some("PLMN_NOT_ALLOWED"));
    assert!(stall.advice.tries[1].contains(EPDG), "{stall:?}");
}

#[test]
fn a_phone_that_begins_anew_has_given_up_what_was_before() {
    let mut follow = Follow::default();
    follow.take(event(0, Step::InitSent));
    follow.take(event_of("2b", EPDG, 1_000, Step::InitSent));
    follow.take(event_of("2b", EPDG, 1_100, Step::Up));
    assert_eq!(follow.late(60_000), []);
    assert_eq!(follow.take(event(31_000, Step::Failed)).len(), 1);
}

#[test]
fn a_tunnel_stays_the_same_when_its_phone_roams() {
    let mut follow = Follow::default();
    follow.take(event(0, Step::AuthAnswered));
    let mut esp = event(1_000, Step::EspUp);
    esp.client = "192.0.2.9".into();
    follow.take(esp);
    let late = follow.late(1_000 + LATE);
    assert_eq!((late.len(), &*late[0].client), (1, "192.0.2.9"));
}

#[test]
fn an_answer_of_dns_without_addresses_has_a_word_of_its_own() {
    let mut follow = Follow::default();
    follow.take(dns(0, None));
    follow.take(dns(10, Some("no address")));
    let late = follow.late(LATE + 10);
    assert_eq!(late[0].waits_for, Wait::DnsAddress);
    assert!(
        late[0].advice.tries[0].starts_with("`wificall resolve epdg.example`"),
        "{late:?}"
    );
    // The resolver is asked again, and says the same.
    follow.take(dns(6_000, None));
    follow.take(dns(6_010, Some("no address")));
    assert_eq!(follow.late(9_500), [], "it was said");
    // Another try is another stall.
    follow.take(dns(60_000, None));
    assert_eq!(follow.late(60_000 + LATE)[0].waits_for, Wait::DnsAnswer);
}

#[test]
fn one_family_without_an_address_beside_one_with_is_ordinary() {
    const A: Option<&str> = Some("198.51.100.1");
    const NONE: Option<&str> = Some("no address");
    // A and AAAA, in each order, asked at once or one after the other.
    for round in [
        [None, None, A, NONE],
        [None, None, NONE, A],
        [None, A, None, NONE],
        [None, NONE, None, A],
    ] {
        let mut follow = Follow::default();
        for (at, answer) in (0..).zip(round) {
            follow.take(dns(at * 10, answer));
        }
        assert_eq!(follow.late(LATE + 40), [], "{round:?}");
        let late = follow.late(LATE_INIT + 40);
        assert_eq!(of(&late), [(Wait::Init, "")], "{round:?}");
    }
    // It begins, and that is that.
    let mut follow = Follow::default();
    for (at, answer) in [(0, None), (10, A), (20, NONE)] {
        follow.take(dns(at, answer));
    }
    follow.take(event(30, Step::InitSent));
    follow.take(event(90, Step::Up));
    assert_eq!(follow.late(60_000), []);
    // Who is up asks again for what it knows.
    follow.take(dns(70_000, None));
    follow.take(dns(70_010, A));
    follow.take(dns(70_020, NONE));
    assert_eq!(follow.late(100_000), []);
}

#[test]
fn what_asks_for_another_way_is_no_refusal() {
    for name in ["COOKIE", "INVALID_KE_PAYLOAD", "REDIRECT"] {
        let mut follow = Follow::default();
        follow.take(event(0, Step::InitSent));
        follow.take(notify(20, name));
        let late = follow.late(20 + LATE);
        assert_eq!(of(&late), [(Wait::Detour, EPDG)], "{name}");
        assert_eq!(late[0].notify.as_deref(), Some(name));
    }
    // It asks again, with the cookie; nobody answers that.
    let mut follow = Follow::default();
    follow.take(event(0, Step::InitSent));
    follow.take(notify(20, "COOKIE"));
    follow.take(event(30, Step::Retransmitted));
    assert_eq!(of(&follow.late(30 + LATE)), [(Wait::InitAnswer, EPDG)]);
    // It goes where it was sent to.
    let mut follow = Follow::default();
    follow.take(event(0, Step::InitSent));
    follow.take(notify(20, "REDIRECT"));
    follow.take(event_of("2b", "198.51.100.2", 40, Step::InitSent));
    follow.take(event_of("2b", "198.51.100.2", 90, Step::Up));
    assert_eq!(follow.late(60_000), []);
}

#[test]
fn a_notify_that_is_late_or_forged_sets_nobody_back() {
    use Step::{AuthAnswered, AuthSent, EspDown, EspUp, InitAnswered, InitSent};
    for (steps, expected) in [
        (&[InitSent, InitAnswered][..], Some(Wait::Auth)),
        (&[InitSent, InitAnswered, AuthSent], Some(Wait::AuthAnswer)),
        (&[InitSent, AuthSent, AuthAnswered], Some(Wait::Esp)),
        (&[InitSent, AuthAnswered, EspUp], Some(Wait::EspDown)),
        (&[InitSent, AuthAnswered, EspUp, EspDown], None),
    ] {
        let mut follow = Follow::default();
        for step in steps {
            follow.take(event(0, *step));
        }
        for name in ["NO_PROPOSAL_CHOSEN", "COOKIE"] {
            follow.take(notify(20, name));
        }
        let late = follow.late(LATE_ESP);
        let waits = late.first().map(|stall| stall.waits_for);
        assert_eq!(waits, expected, "{steps:?}");
    }
}

#[test]
fn what_may_have_been_lost_is_said_of_a_stall() {
    let mut follow = Follow::default();
    follow.lost(500);
    follow.take(event(1_000, Step::InitSent));
    let late = follow.clone().late(4_000);
    assert!(!late[0].lost, "before it began");
    follow.lost(1_500);
    let late = follow.late(4_000);
    assert!(late[0].lost);
    assert!(stall_text(&late[0]).contains("Events were lost meanwhile"));
}

#[test]
fn phones_are_told_apart_and_bounded() {
    let mut follow = Follow::default();
    for number in 0..MOST as u64 + 50 {
        let mut asks = event(number, Step::InitSent);
        asks.client = format!("phone-{number}");
        asks.tunnel = format!("{number}");
        follow.take(asks);
        let mut names = dns(number, None);
        names.client = format!("asks-{number}");
        follow.take(names);
    }
    let late = follow.late(60_000);
    assert_eq!(late.len(), 2 * MOST);
    let oldest = ["phone-0", "asks-0"];
    assert!(late.iter().all(|stall| !oldest.contains(&&*stall.client)));
}

#[test]
fn lines_have_the_time_and_what_matters() {
    let mut sent = event(45_296_789, Step::InitSent);
    sent.after_ms = Some(0.0);
    assert_eq!(
        line(&sent),
        "12:34:56.789  192.0.2.7            +0 ms  IKE_SA_INIT sent      to 198.51.100.1\n"
    );
    let asked = event(45_296_789, Step::DnsAsked);
    assert_eq!(
        line(&asked),
        "12:34:56.789  192.0.2.7                   DNS asked             epdg.example\n"
    );
    let ends = |step, detail: &str, end: &str| {
        let told = TraceEvent {
            detail: detail.into(),
            from: (step == Step::Roamed).then(|| "192.0.2.6".into()),
            ..event(45_296_789, step)
        };
        let line = line(&told);
        assert!(line.ends_with(end), "{line}");
    };
    ends(
        Step::Retransmitted,
        "",
        "sent again            to 198.51.100.1\n",
    );
    ends(Step::Up, "", "TUNNEL UP             with 198.51.100.1\n");
    ends(
        Step::Failed,
        "no_answer",
        "with 198.51.100.1: no answer to IKE_SA_INIT\n",
    );
    ends(
        Step::Roamed,
        "to port 4500",
        "from 192.0.2.6 to port 4500\n",
    );
}
