use std::vec::Vec;

use super::*;
use crate::abi::SpiSlot;
use crate::wire::ike::NOTIFY_COOKIE;

const MS: u64 = 1_000_000;
const START: u64 = 1_000 * MS;
const SPI: u32 = 0xc0ff_ee01;

fn esp(now: u64, spi: u32, sequence: u32) -> Sight {
    Sight {
        now,
        bytes: 144,
        segments: 1,
        class: Class::EspUdp,
        esp: [spi, sequence],
    }
}

/// Sends numbers up, 20 ms apart, while the other direction talks too.
fn talk(flow: &mut Flow, sequences: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut now = flow.up.seen.max(START);
    let mut changes = Vec::new();
    for sequence in sequences {
        now += 20 * MS;
        let _ = flow.see(Direction::Down, &esp(now, 7, 0));
        changes.push(flow.see(Direction::Up, &esp(now, SPI, sequence)));
    }
    changes
}

/// Lost, late, duplicate, stray, anchored, once the window has gone by.
fn told(flow: &Flow) -> [u32; 5] {
    let way = &flow.up;
    let missing: u32 = way.spis.iter().map(SpiSlot::missing).sum();
    let lost = way.lost + missing;
    [
        lost,
        way.late,
        way.duplicate,
        way.stray,
        way.anchored.into(),
    ]
}

#[track_caller]
fn tells(sequences: impl IntoIterator<Item = u32>, expected: [u32; 5]) {
    let mut flow = Flow::default();
    let _ = talk(&mut flow, sequences);
    assert_eq!(told(&flow), expected);
}

#[test]
fn a_whole_stream_lacks_nothing() {
    tells(1..1000, [0; 5]);
    tells((u32::MAX - 100..=u32::MAX).chain(0..100), [0; 5]);
}

#[test]
fn what_does_not_come_is_lost_whether_alone_or_in_a_row() {
    tells((1..1000).filter(|n| n % 10 != 0), [99, 0, 0, 0, 0]);
    for burst in [1, 2, 62, 63, 64, 65, 66, 500, DROPOUT - 1] {
        let after = 200 + burst;
        tells((1..200).chain(after..after + 200), [burst, 0, 0, 0, 0]);
    }
}

#[test]
fn what_comes_late_is_late_and_not_lost() {
    tells([1, 2, 4, 3, 5, 6], [0, 1, 0, 0, 0]);
    let far = (1..100).chain(101..160).chain([100]).chain(160..400);
    tells(far, [0, 1, 0, 0, 0]);
}

#[test]
fn what_comes_twice_is_a_duplicate() {
    tells([1, 2, 3, 3, 4, 2, 5], [0, 0, 2, 0, 0]);
}

#[test]
fn a_forged_number_counts_as_nothing_but_stray() {
    for forged in [5_000, 500, 0x8000_0000, 4_000_000_000] {
        let numbers = (1..200).chain([forged]).chain(200..400);
        tells(numbers, [0, 0, 0, 1, 0]);
    }
}

#[test]
fn two_forged_numbers_in_a_row_are_two_strays() {
    tells(
        (1..200).chain([5_000, 90_000]).chain(200..400),
        [0, 0, 0, 2, 0],
    );
}

#[test]
fn a_jump_too_far_is_an_anchor() {
    let after = 200 + DROPOUT + 1;
    tells((1..200).chain(after..after + 200), [0, 0, 0, 0, 1]);
    // A failover of the endpoint that begins anew.
    tells((100_000..100_200).chain(1..200), [0, 0, 0, 0, 1]);
}

#[test]
fn a_jump_whose_first_two_packets_changed_places_is_the_same_jump() {
    let after = (1..200).chain([701, 700]).chain(702..900);
    tells(after, [500, 0, 0, 0, 0]);
}

#[test]
fn silence_of_both_directions_and_then_a_jump_is_no_loss() {
    for away in [10, 60, 64, 65, 200, 2_000] {
        let mut flow = Flow::default();
        let _ = talk(&mut flow, 1..200);
        flow.up.seen += 3_000 * MS;
        let changes = talk(&mut flow, 200 + away..600 + away);
        assert_eq!(told(&flow), [0, 0, 0, 0, 1], "{away}");
        assert!(changes.iter().any(|change| change & Changes::ANCHORED != 0));
    }
}

#[test]
fn silence_of_one_direction_and_then_a_jump_is_loss() {
    for away in [60, 150] {
        let mut flow = Flow::default();
        let _ = talk(&mut flow, 1..200);
        for _ in 0..150 {
            flow.up.seen += 20 * MS;
            let _ = flow.see(Direction::Down, &esp(flow.up.seen, 7, 0));
        }
        let _ = talk(&mut flow, 200 + away..600 + away);
        assert_eq!(told(&flow), [away, 0, 0, 0, 0]);
    }
}

#[test]
fn a_rekey_loses_nothing_though_both_spis_mix() {
    let mut flow = Flow::default();
    let mut now = START;
    let old = (100..200).map(|number| (SPI, number));
    let mixed = [
        (SPI + 1, 1),
        (SPI, 200),
        (SPI + 1, 2),
        (SPI, 201),
        (SPI + 1, 3),
    ];
    let new = (4..200).map(|number| (SPI + 1, number));
    let mut told_of = 0;
    for (spi, number) in old.chain(mixed).chain(new) {
        now += 20 * MS;
        let changes = flow.see(Direction::Up, &esp(now, spi, number));
        told_of += u32::from(changes & Changes::SPI != 0);
    }
    assert_eq!(told(&flow), [0; 5]);
    assert_eq!(
        told_of, 2,
        "each SPI once, when a second packet has confirmed it"
    );
}

#[test]
fn a_forged_spi_costs_the_stream_nothing() {
    let mut flow = Flow::default();
    let _ = talk(&mut flow, 1..100);
    let now = flow.up.seen + MS;
    let changes = flow.see(Direction::Up, &esp(now, 0xbad, 77));
    assert_eq!(changes & Changes::SPI, 0);
    let _ = talk(&mut flow, 100..300);
    assert_eq!(told(&flow), [0; 5]);
}

#[test]
fn an_aggregate_stands_for_consecutive_packets() {
    let mut flow = Flow::default();
    let mut now = START;
    for first in (1..3_000).step_by(10) {
        now += MS;
        let sight = Sight {
            segments: 10,
            bytes: 1_440,
            ..esp(now, SPI, first)
        };
        let _ = flow.see(Direction::Up, &sight);
    }
    assert_eq!(told(&flow), [0; 5]);
    assert_eq!((flow.up.packets, flow.up.esp), (3_000, 3_000));
}

#[test]
fn jitter_is_the_deviation_from_the_interval_of_voice() {
    let mut flow = Flow::default();
    let mut now = START;
    for number in 1..2_000_u32 {
        now += if number % 2 == 0 { 25 * MS } else { 15 * MS };
        let _ = flow.see(Direction::Up, &esp(now, SPI, number));
    }
    let error = u64::from(flow.up.jitter).abs_diff(5 * MS);
    assert!(error < MS / 100, "{}", flow.up.jitter);
    assert_eq!(flow.up.talk, 1_998);
}

#[test]
fn comfort_noise_is_a_pause_and_no_jitter() {
    let mut flow = Flow::default();
    let mut now = START;
    for number in 1..100 {
        now += 160 * MS;
        let _ = flow.see(Direction::Up, &esp(now, SPI, number));
    }
    assert_eq!((flow.up.talk, flow.up.pause, flow.up.jitter), (0, 98, 0));
}

#[test]
fn voice_is_told_once_a_run() {
    let mut flow = Flow::default();
    let count = |changes: Vec<u32>| {
        let voice = changes
            .iter()
            .filter(|change| *change & Changes::VOICE != 0);
        voice.count()
    };
    assert_eq!(count(talk(&mut flow, 1..200)), 1);
    flow.up.seen += 2_000 * MS;
    assert_eq!(count(talk(&mut flow, 200..400)), 1);
}

fn message(exchange: u8, id: u32, response: bool) -> Message {
    Message {
        spi_i: [1; 8],
        spi_r: [2; 8],
        exchange,
        id,
        response,
        natt: true,
        ..Message::default()
    }
}

fn init(response: bool) -> Message {
    Message {
        spi_r: if response { [2; 8] } else { [0; 8] },
        natt: false,
        ..message(EXCHANGE_SA_INIT, 0, response)
    }
}

#[test]
fn a_set_up_reaches_its_milestones_with_their_times() {
    use Direction::{Down, Up};
    let mut flow = Flow::default();
    let mut candidate = Candidate::begin(Up, START);
    candidate.ask(&init(false), START);
    assert!(candidate.is_answered_by(Down) && !candidate.is_answered_by(Up));
    flow.begin(&candidate, 3, 4);
    let at = |ms: u64| START + ms * MS;
    let _ = flow.message(Down, &init(true), at(40));
    assert_eq!(flow.control.round_trip, [40_000, 0]);
    let _ = flow.message(Up, &message(EXCHANGE_AUTH, 1, false), at(60));
    let changes = flow.message(Down, &message(EXCHANGE_AUTH, 1, true), at(500));
    assert_eq!(
        changes & Changes::ROUND_TRIP,
        0,
        "IKE_AUTH waits for the SIM"
    );
    let _ = flow.see(Up, &esp(at(600), SPI, 1));
    let _ = flow.see(Down, &esp(at(650), SPI, 1));
    assert_eq!(flow.control.milestones, 0x7f);
    let reached = flow.control.reached.map(|micros| micros / 1_000);
    assert_eq!(reached, [0, 40, 60, 60, 500, 600, 650]);
}

#[test]
fn a_repeated_request_gives_no_round_trip() {
    use Direction::{Down, Up};
    let mut flow = Flow::default();
    let dpd = |response| message(37, 9, response);
    let _ = flow.message(Down, &dpd(false), START);
    assert_eq!(
        flow.message(Down, &dpd(false), START + MS) & Changes::RETRANSMITTED,
        Changes::RETRANSMITTED
    );
    assert_eq!(
        flow.message(Up, &dpd(true), START + 2 * MS) & Changes::ROUND_TRIP,
        0
    );
    assert_eq!(flow.control.retransmitted, [0, 1]);
    let next = |response| message(37, 10, response);
    let _ = flow.message(Down, &next(false), START + 5 * MS);
    let changes = flow.message(Up, &next(true), START + 9 * MS);
    assert_ne!(changes & Changes::ROUND_TRIP, 0);
    assert_eq!(flow.control.round_trip, [0, 4_000], "the client's side");
}

#[test]
fn a_detour_is_told_and_forgotten_when_the_set_up_goes_on() {
    use Direction::{Down, Up};
    let mut flow = Flow::default();
    let _ = flow.message(Up, &init(false), START);
    let cookie = Message {
        notify: NOTIFY_COOKIE,
        spi_r: [0; 8],
        ..init(true)
    };
    assert_ne!(flow.message(Down, &cookie, START + MS) & Changes::NOTIFY, 0);
    let again = flow.message(Up, &init(false), START + 2 * MS);
    assert_eq!(again & (Changes::BEGAN | Changes::RETRANSMITTED), 0);
    let _ = flow.message(Down, &init(true), START + 3 * MS);
    assert_eq!((flow.control.notify, flow.control.setups), (0, 1));
}

#[test]
fn an_answer_to_another_question_tells_nothing() {
    use Direction::{Down, Up};
    let mut flow = Flow::default();
    let _ = flow.message(Up, &init(false), START);
    let forged = Message {
        spi_i: [9; 8],
        notify: 14,
        ..init(true)
    };
    assert_eq!(flow.message(Down, &forged, START + MS), 0);
    assert_eq!(flow.control.notify, 0);
}

#[test]
fn the_interval_of_keepalives_is_that_of_a_quiet_tunnel() {
    let mut flow = Flow::default();
    let mut keep = |ms: u64| {
        let sight = Sight {
            bytes: 29,
            class: Class::Keepalive,
            ..esp(START + ms * MS, 0, 0)
        };
        let _ = flow.see(Direction::Up, &sight);
        flow.control.keepalive_interval
    };
    assert_eq!(keep(0), 0);
    assert_eq!(keep(20_000), 20_000);
    assert_eq!(keep(20_003), 20_000, "there were two of it");
    assert_eq!(keep(60_003), 22_500, "one was lost, perhaps");
    let _ = flow.see(
        Direction::Down,
        &Sight {
            bytes: 29,
            class: Class::Keepalive,
            ..esp(START + 61_000 * MS, 0, 0)
        },
    );
    assert_eq!(flow.control.keepalive_interval, 22_500);
    let _ = flow.see(Direction::Up, &esp(START + 70_000 * MS, SPI, 1));
    let mut keep = |ms: u64| {
        let sight = Sight {
            bytes: 29,
            class: Class::Keepalive,
            ..esp(START + ms * MS, 0, 0)
        };
        let _ = flow.see(Direction::Up, &sight);
        flow.control.keepalive_interval
    };
    assert_eq!(keep(75_000), 22_500, "ESP was between");
    assert_eq!(keep(85_000), 10_000);
}

#[test]
fn a_refusal_is_found_behind_other_payloads_and_not_behind_an_acceptance() {
    let read = |first: u8, payloads: &[&[u8]]| {
        let mut frame = std::vec![1; 16];
        frame.extend([first, 0x20, EXCHANGE_SA_INIT, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]);
        frame.extend(payloads.concat());
        Message::read(&frame[..], 0, false).unwrap().notify
    };
    let vendor = |next: u8| [next, 0, 0, 9, 1, 2, 3, 4, 5];
    let notify = |next: u8, kind: u16| {
        let [high, low] = kind.to_be_bytes();
        [next, 0, 0, 8, 0, 0, high, low]
    };
    const STATUS: u16 = 16_388;
    assert_eq!(read(41, &[&notify(0, 14)]), 14);
    assert_eq!(
        read(43, &[&vendor(41), &notify(41, STATUS), &notify(0, 17)]),
        17
    );
    assert_eq!(read(41, &[&notify(0, STATUS)]), 0);
    assert_eq!(
        read(33, &[&[41, 0, 0, 8, 0, 0, 0, 0], &notify(0, 14)]),
        0,
        "accepted"
    );
    assert_eq!(
        read(43, &[&[41, 0, 0, 2], &notify(0, 14)]),
        0,
        "a length that cannot be"
    );
    assert_eq!(read(41, &[]), 0, "cut short");
}
