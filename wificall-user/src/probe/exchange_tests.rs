use super::*;
use crate::probe::ike::tests::{agreement, notify_body, respond};
use crate::probe::{VerdictKind, system_random};

const SPI_R: [u8; 8] = [8; 8];

struct Bench {
    exchange: Exchange,
    start: Instant,
    /// The last datagram that was to be sent.
    sent: Vec<u8>,
}

fn bench(port: u16, timing: Timing) -> Bench {
    let start = Instant::now();
    let setup = Setup {
        local: "198.18.0.1:40000".parse().unwrap(),
        remote: SocketAddr::new("198.18.0.10".parse().unwrap(), port),
        group: Group::X25519,
        timing,
        redirected_from: None,
    };
    let (exchange, sent) = Exchange::new(setup, Arc::new(Keys::new(system_random)), start);
    Bench {
        exchange,
        start,
        sent,
    }
}

impl Bench {
    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn spi(&self) -> [u8; 8] {
        self.exchange.spi
    }

    /// A response of these payloads comes.
    fn answer(&mut self, ms: u64, payloads: &[(u8, Vec<u8>)]) -> Step {
        let message = respond(self.spi(), SPI_R, payloads);
        let message = match self.exchange.setup.remote.port() {
            NATT_PORT => [&MARKER[..], &message].concat(),
            _ => message,
        };
        let now = self.at(ms);
        let step = self.exchange.datagram(&message, now);
        if let Step::Send(datagram) = &step {
            self.sent.clone_from(datagram);
        }
        step
    }

    fn notify(&mut self, ms: u64, kind: u16, data: &[u8]) -> Step {
        self.answer(ms, &[notify_body(kind, data)])
    }

    /// The group of the KE payload that was sent last.
    fn group(&self) -> u16 {
        let mut next = self.sent[16];
        let mut at = 28;
        loop {
            let length = usize::from(u16::from_be_bytes([self.sent[at + 2], self.sent[at + 3]]));
            if next == 34 {
                return u16::from_be_bytes([self.sent[at + 4], self.sent[at + 5]]);
            }
            next = self.sent[at];
            at += length;
        }
    }
}

fn done(step: Step) -> Finding {
    match step {
        Step::Done(finding) => *finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_agreement_ends_it() {
    for port in [500, 4500] {
        let mut bench = bench(port, Timing::default());
        assert_eq!(bench.sent.starts_with(&MARKER), port == 4500);
        let found = done(bench.answer(30, &agreement(Group::X25519)));
        let Verdict::Reachable(suite) = found.verdict else {
            panic!("{found:?}")
        };
        assert_eq!(suite.dh, 31);
        assert_eq!(
            (found.rtt, found.sent),
            (Some(Duration::from_millis(30)), 1)
        );
        assert_eq!(found.nat, None, "the responder did not tell");
    }
}

#[test]
fn on_4500_an_answer_without_marker_is_none() {
    let mut bench = bench(4500, Timing::default());
    let message = respond(bench.spi(), SPI_R, &agreement(Group::X25519));
    assert_eq!(bench.exchange.datagram(&message, bench.at(1)), Step::Wait);
    let found = done(bench.answer(2, &agreement(Group::X25519)));
    assert_eq!(found.ignored, 1);
}

#[test]
fn silence_is_asked_again_after_half_a_second_one_and_two() {
    let mut bench = bench(500, Timing::default());
    let mut sent_at = vec![0];
    loop {
        let due = bench.exchange.due();
        assert_eq!(
            bench.exchange.timeout(due - Duration::from_millis(1)),
            Step::Wait
        );
        match bench.exchange.timeout(due) {
            Step::Send(datagram) => {
                assert_eq!(datagram, bench.sent);
                sent_at.push((due - bench.start).as_millis());
            }
            Step::Done(found) => {
                assert_eq!((found.verdict.kind(), found.sent), (VerdictKind::Silent, 4));
                assert_eq!(due - bench.start, Duration::from_secs(5));
                break;
            }
            Step::Wait => panic!(),
        }
    }
    assert_eq!(sent_at, [0, 500, 1500, 3500]);
}

#[test]
fn patience_is_as_told() {
    for (timeout, retries, sent, ends) in [(200, 3, 1, 200), (5000, 0, 1, 5000), (1000, 6, 2, 1000)]
    {
        let timing = Timing {
            timeout: Duration::from_millis(timeout),
            retries,
        };
        let mut bench = bench(500, timing);
        let found = loop {
            let due = bench.exchange.due();
            if let Step::Done(found) = bench.exchange.timeout(due) {
                assert_eq!((due - bench.start).as_millis(), ends);
                break found;
            }
        };
        assert_eq!(found.sent, sent);
    }
}

/// Karn: of a request that was sent twice nobody knows which was answered.
#[test]
fn a_retransmitted_request_has_no_round_trip_time() {
    let mut one = bench(500, Timing::default());
    assert!(matches!(one.exchange.timeout(one.at(500)), Step::Send(_)));
    assert_eq!(done(one.answer(510, &agreement(Group::X25519))).rtt, None);
    // But the request after it may have one.
    let mut other = bench(500, Timing::default());
    assert!(matches!(
        other.exchange.timeout(other.at(500)),
        Step::Send(_)
    ));
    assert!(matches!(
        other.notify(510, notify::COOKIE, &[1; 20]),
        Step::Send(_)
    ));
    let found = done(other.answer(550, &agreement(Group::X25519)));
    assert_eq!(found.rtt, Some(Duration::from_millis(40)));
    assert_eq!((found.sent, found.followed), (3, vec![Followed::Cookie]));
}

/// What it takes to compute a public value is not the path's.
#[test]
fn the_time_runs_from_when_the_datagram_leaves() {
    let mut bench = bench(500, Timing::default());
    bench.exchange.left(bench.at(200));
    let found = done(bench.answer(230, &agreement(Group::X25519)));
    assert_eq!(found.rtt, Some(Duration::from_millis(30)));
}

#[test]
fn another_group_is_given_once() {
    let mut bench = bench(500, Timing::default());
    assert_eq!(bench.group(), 31);
    assert!(matches!(
        bench.notify(10, notify::INVALID_KE_PAYLOAD, &[0, 2]),
        Step::Send(_)
    ));
    assert_eq!(bench.group(), 2);
    let found = done(bench.answer(30, &agreement(Group::Modp1024)));
    assert_eq!(found.followed, [Followed::Group(2)]);
    assert_eq!(found.rtt, Some(Duration::from_millis(10)));
    assert_eq!(found.verdict.kind(), VerdictKind::Reachable);
}

#[test]
fn a_group_that_we_have_not_is_a_refusal() {
    for (data, wanted) in [
        (&[0, 1][..], Some(1)),
        (&[0, 31], Some(31)),
        (&[], None),
        (&[1], None),
    ] {
        let mut bench = bench(500, Timing::default());
        let found = done(bench.notify(10, notify::INVALID_KE_PAYLOAD, data));
        assert_eq!(found.verdict, Verdict::Refused(17, wanted));
    }
}

#[test]
fn a_cookie_is_kept_over_a_change_of_group() {
    let mut bench = bench(500, Timing::default());
    assert!(matches!(
        bench.notify(10, notify::COOKIE, &[5; 20]),
        Step::Send(_)
    ));
    let cookie_first = |datagram: &[u8]| datagram[16] == 41 && datagram[36..56] == [5; 20];
    assert!(cookie_first(&bench.sent));
    assert!(matches!(
        bench.notify(20, notify::INVALID_KE_PAYLOAD, &[0, 19]),
        Step::Send(_)
    ));
    assert!(cookie_first(&bench.sent));
    let found = done(bench.answer(30, &agreement(Group::Ecp256)));
    assert_eq!(found.followed, [Followed::Cookie, Followed::Group(19)]);
}

#[test]
fn a_responder_cannot_keep_us_busy() {
    let mut cookies = bench(500, Timing::default());
    for round in 0..COOKIES_MAX as u8 {
        assert!(matches!(
            cookies.notify(10, notify::COOKIE, &[round; 20]),
            Step::Send(_)
        ));
    }
    let found = done(cookies.notify(10, notify::COOKIE, &[99; 20]));
    assert_eq!(found.verdict.detail(), "asks for one cookie after another");
    // The same one again, although it was sent.
    let mut same = bench(500, Timing::default());
    assert!(matches!(
        same.notify(10, notify::COOKIE, &[1; 20]),
        Step::Send(_)
    ));
    let found = done(same.notify(20, notify::COOKIE, &[1; 20]));
    assert_eq!(found.verdict.kind(), VerdictKind::Invalid);

    let mut groups = bench(500, Timing::default());
    assert!(matches!(
        groups.notify(10, notify::INVALID_KE_PAYLOAD, &[0, 2]),
        Step::Send(_)
    ));
    assert!(matches!(
        groups.notify(10, notify::INVALID_KE_PAYLOAD, &[0, 14]),
        Step::Send(_)
    ));
    let found = done(groups.notify(10, notify::INVALID_KE_PAYLOAD, &[0, 2]));
    assert_eq!(found.verdict, Verdict::Refused(17, Some(2)));
    for length in [0, 65] {
        let mut bench = bench(500, Timing::default());
        let found = done(bench.notify(10, notify::COOKIE, &vec![1; length]));
        assert_eq!(found.verdict.kind(), VerdictKind::Invalid);
    }
}

/// The answers to a request and to its retransmission: the second says nothing new.
#[test]
fn a_late_answer_is_not_taken_for_another() {
    let mut bench = bench(500, Timing::default());
    assert!(matches!(
        bench.exchange.timeout(bench.at(500)),
        Step::Send(_)
    ));
    assert!(matches!(
        bench.notify(510, notify::INVALID_KE_PAYLOAD, &[0, 2]),
        Step::Send(_)
    ));
    assert_eq!(
        bench.notify(520, notify::INVALID_KE_PAYLOAD, &[0, 2]),
        Step::Wait
    );
    let found = done(bench.answer(530, &agreement(Group::Modp1024)));
    assert_eq!(
        (found.verdict.kind(), found.ignored),
        (VerdictKind::Reachable, 1)
    );
}

#[test]
fn errors_are_refusals() {
    let mut one = bench(500, Timing::default());
    let found = done(one.notify(10, notify::NO_PROPOSAL_CHOSEN, &[]));
    assert_eq!(found.verdict.detail(), "NO_PROPOSAL_CHOSEN");
    assert_eq!(found.verdict.kind(), VerdictKind::Refused);
    let mut other = bench(500, Timing::default());
    let found = done(other.notify(10, 8193, &[]));
    assert_eq!(found.verdict.detail(), "MAX_CONNECTION_REACHED");
}

#[test]
fn redirects_need_our_nonce() {
    let mut bench = bench(500, Timing::default());
    let redirect = |nonce: &[u8]| [&[1, 4, 198, 18, 0, 9][..], nonce].concat();
    assert_eq!(
        bench.notify(10, notify::REDIRECT, &redirect(&[0; 32])),
        Step::Wait
    );
    let nonce = bench.exchange.nonce;
    let found = done(bench.notify(20, notify::REDIRECT, &redirect(&nonce)));
    assert_eq!(found.verdict.detail(), "to 198.18.0.9, not followed");
    assert_eq!(found.ignored, 1);
}

/// Types and bodies.
type Payloads = Vec<(u8, Vec<u8>)>;

#[test]
fn an_agreement_must_be_to_what_was_proposed() {
    let invalid = |change: &dyn Fn(&mut Payloads)| {
        let mut payloads = agreement(Group::X25519);
        change(&mut payloads);
        let mut bench = bench(500, Timing::default());
        let found = done(bench.answer(10, &payloads));
        assert_eq!(found.verdict.kind(), VerdictKind::Invalid, "{found:?}");
        found.verdict.detail()
    };
    assert!(invalid(&|payloads| drop(payloads.remove(0))).contains("nothing"));
    assert!(invalid(&|payloads| drop(payloads.remove(1))).contains("group"));
    assert!(invalid(&|payloads| drop(payloads.remove(2))).contains("nonce"));
    // 3DES, which nobody asked for.
    assert!(invalid(&|payloads| payloads[0].1[15] = 3).contains("not proposed: encr-3-256"));
    assert!(invalid(&|payloads| payloads[1].1[1] = 14).contains("group"));
    let mut bench = bench(500, Timing::default());
    let found = done(bench.answer(10, &agreement(Group::Ecp256)));
    assert!(
        found.verdict.detail().contains("group"),
        "another than that of our value"
    );
}

#[test]
fn hashes_tell_of_nats() {
    for (here, there) in [(false, false), (true, false), (false, true)] {
        let mut bench = bench(500, Timing::default());
        let end = |nat: bool, end: SocketAddr| match nat {
            true => SocketAddr::new("198.18.7.7".parse().unwrap(), 1024),
            false => end,
        };
        let setup = bench.exchange.setup.clone();
        let mut payloads = agreement(Group::X25519);
        for (kind, end) in [
            (notify::NAT_DETECTION_SOURCE_IP, end(there, setup.remote)),
            (notify::NAT_DETECTION_DESTINATION_IP, end(here, setup.local)),
        ] {
            payloads.push(notify_body(
                kind,
                &ike::address_hash(bench.spi(), SPI_R, end),
            ));
        }
        let found = done(bench.answer(10, &payloads));
        assert_eq!(found.nat, Some(Nat { here, there }));
    }
}

#[test]
fn icmp_errors_end_it_or_explain_the_silence() {
    let icmp = |kind, code| Icmp {
        v6: false,
        kind,
        code,
        from: None,
    };
    let mut closed = bench(500, Timing::default());
    let found = done(closed.exchange.icmp(icmp(3, 3)));
    assert_eq!(found.verdict.detail(), "ICMP: port unreachable");
    // A host that wakes up.
    let mut asleep = bench(500, Timing::default());
    assert_eq!(asleep.exchange.icmp(icmp(3, 1)), Step::Wait);
    assert!(matches!(
        asleep.exchange.timeout(asleep.at(500)),
        Step::Send(_)
    ));
    assert_eq!(
        done(asleep.answer(510, &agreement(Group::X25519)))
            .verdict
            .kind(),
        VerdictKind::Reachable
    );
    // One that does not; and an error of size is none of these.
    let mut dead = bench(
        500,
        Timing {
            retries: 0,
            ..Timing::default()
        },
    );
    assert_eq!(dead.exchange.icmp(icmp(3, 1)), Step::Wait);
    assert_eq!(dead.exchange.icmp(icmp(3, 4)), Step::Wait);
    let found = done(dead.exchange.timeout(dead.at(5000)));
    assert_eq!(found.verdict.detail(), "ICMP: host unreachable");
}

#[test]
fn an_old_or_broken_responder_is_invalid() {
    let mut old = bench(500, Timing::default());
    let mut message = respond(old.spi(), SPI_R, &[]);
    message[17] = 0x10;
    let found = done(old.exchange.datagram(&message, old.at(1)));
    assert_eq!(found.verdict.detail(), "answers with IKE version 1");
    let mut broken = bench(500, Timing::default());
    let mut message = respond(broken.spi(), SPI_R, &agreement(Group::X25519));
    message.pop();
    let found = done(broken.exchange.datagram(&message, broken.at(1)));
    assert_eq!(
        found.verdict.detail(),
        "a length that the datagram does not have"
    );
}

#[test]
fn vendor_ids_are_bounded() {
    let mut bench = bench(500, Timing::default());
    let mut payloads = agreement(Group::X25519);
    payloads.extend((0..40).map(|_| (43, vec![b'x'; 100])));
    let found = done(bench.answer(1, &payloads));
    assert_eq!(
        found.vendor_ids,
        vec![vec![b'x'; vendor::LENGTH_MAX]; vendor::COUNT_MAX]
    );
}
