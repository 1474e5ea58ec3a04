use super::*;
use crate::trace::{line, stall as stall_text};

const PHONE: &str = "192.0.2.7";
const EPDG: &str = "198.51.100.1";

fn event(at: u64, step: Step) -> TraceEvent {
    let names = matches!(step, Step::DnsAsked | Step::DnsAnswered);
    TraceEvent {
        at,
        client: PHONE.into(),
        endpoint: if names { "" } else { EPDG }.into(),
        step,
        detail: if names { "epdg.example" } else { "" }.into(),
        ..TraceEvent::default()
    }
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
    let late = follow.late(at + LATE_INIT);
    assert!(late.len() <= 1);
    assert_eq!(follow.late(at + 10 * LATE_INIT), [], "it is said once");
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
    let text = stall_text(stall, false);
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
fn an_answer_without_addresses_still_waits_for_one_with() {
    let mut follow = Follow::default();
    follow.take(event(0, Step::DnsAsked));
    let mut empty = event(10, Step::DnsAnswered);
    empty.detail = "epdg.example: no address".into();
    follow.take(empty);
    assert_eq!(follow.late(LATE + 10)[0].waits_for, Wait::DnsAnswer);
}

#[test]
fn phones_are_told_apart_and_bounded() {
    let mut follow = Follow::default();
    for number in 0..PHONES as u64 + 50 {
        let mut asks = event(number, Step::InitSent);
        asks.client = format!("phone-{number}");
        follow.take(asks);
    }
    let late = follow.late(60_000);
    assert_eq!(late.len(), PHONES);
    assert!(late.iter().all(|stall| stall.client != "phone-0"));
}

#[test]
fn lines_have_the_time_and_what_matters() {
    let mut sent = event(45_296_789, Step::InitSent);
    sent.after_ms = Some(0.0);
    assert_eq!(
        line(&sent, true),
        "12:34:56.789  192.0.2.7            +0 ms  IKE_SA_INIT sent      to 198.51.100.1\n"
    );
    let asked = event(45_296_789, Step::DnsAsked);
    assert_eq!(
        line(&asked, false),
        "12:34:56.789             DNS asked             epdg.example\n"
    );
}
