use super::*;
use wificall_common::wire::ike::EXCHANGE_SA_INIT;

fn esp(client: u32, direction: Direction, number: u32, now: u64) -> Subject {
    let mut key = FlowKey {
        port: 4500,
        protocol: PROTOCOL_UDP,
        ..FlowKey::default()
    };
    key.client[12..].copy_from_slice(&client.to_be_bytes());
    Subject {
        key,
        direction,
        sight: Sight {
            now,
            bytes: 144,
            segments: 1,
            class: Class::EspUdp,
            esp: [0x1001, number],
        },
        message: None,
        slot: 0,
    }
}

fn enter(flows: &mut Flows, client: u32, now: u64) {
    assert_eq!(flows.see(&esp(client, Direction::Up, 1, now)), None);
    let note = flows.see(&esp(client, Direction::Down, 1, now)).unwrap();
    assert_ne!(note.changes & Changes::ENTERED, 0);
}

#[test]
fn whom_only_one_end_is_heard_of_is_no_flow() {
    let mut flows = Flows::default();
    for number in 1..100 {
        assert_eq!(flows.see(&esp(1, Direction::Up, number, 5)), None);
    }
    assert_eq!((flows.all().count(), flows.unanswered()), (0, 1));
}

#[test]
fn a_request_without_an_answer_is_told() {
    let mut flows = Flows::default();
    let mut ask = esp(1, Direction::Up, 0, 5);
    ask.sight.class = Class::Ike;
    ask.message = Some(Message {
        spi_i: [7; 8],
        exchange: EXCHANGE_SA_INIT,
        ..Message::default()
    });
    for _ in 0..3 {
        let note = flows.see(&ask).unwrap();
        assert_eq!((note.changes, note.spi_i), (Changes::ASKED, [7; 8]));
    }
    let mut answer = ask;
    answer.direction = Direction::Down;
    answer.sight.now = 1_000_005;
    if let Some(message) = &mut answer.message {
        message.response = true;
        message.spi_r = [8; 8];
    }
    let note = flows.see(&answer).unwrap();
    assert_ne!(note.changes & Changes::MILESTONE, 0);
    let (_, tracked) = flows.all().next().unwrap();
    assert_eq!(tracked.flow.control.requests[0].at, 0);
    assert_eq!(
        tracked.flow.control.round_trip,
        [0, 0],
        "it was asked three times"
    );
}

#[test]
fn the_tables_never_grow_beyond_their_bounds_and_keep_who_speaks() {
    let mut flows = Flows::default();
    enter(&mut flows, 0, 1);
    let many = FLOWS_MAX as u32 + 1_000;
    for client in 1..many {
        enter(&mut flows, client, client.into());
        // It goes on talking.
        let _ = flows.see(&esp(0, Direction::Up, client + 1, client.into()));
        assert!(flows.flows.len() <= FLOWS_MAX);
    }
    assert!(flows.evicted > 0);
    assert_eq!(flows.flows.len() as u64 + flows.evicted, u64::from(many));
    assert!(flows.flows.contains_key(&esp(0, Direction::Up, 0, 0).key));
    for client in many..many + 2 * CANDIDATES_MAX as u32 {
        let _ = flows.see(&esp(client, Direction::Up, 1, client.into()));
        assert!(flows.candidates.len() <= CANDIDATES_MAX);
    }
    assert!(flows.forgotten > 0);
}

#[test]
fn gaps_are_where_numbers_are_missing_and_close_when_they_come() {
    let mut flows = Flows::default();
    enter(&mut flows, 1, 1_000);
    let mut now = 1_000;
    for number in [2, 3, 6, 7, 9, 8, 10, 20] {
        now += 20_000_000;
        let _ = flows.see(&esp(1, Direction::Up, number, now));
        let _ = flows.see(&esp(1, Direction::Down, number, now));
    }
    let (_, tracked) = flows.all().next().unwrap();
    let gaps: Vec<_> = tracked
        .gaps
        .iter()
        .filter(|gap| gap.direction == Direction::Up)
        .map(|gap| (gap.lost, gap.silence))
        .collect();
    assert_eq!(gaps, [(2, 20_000_000), (9, 20_000_000)]);
    assert_eq!(lost(&tracked.flow, Direction::Up), 11);
}

#[test]
fn gaps_beyond_the_bound_are_counted_only() {
    let mut flows = Flows::default();
    enter(&mut flows, 1, 1);
    // The first of them begins the count.
    for number in 1..=GAPS_MAX as u32 + 10 {
        let _ = flows.see(&esp(1, Direction::Up, 1 + 2 * number, u64::from(number)));
    }
    let (_, tracked) = flows.all().next().unwrap();
    assert_eq!((tracked.gaps.len(), tracked.gaps_left_out), (GAPS_MAX, 9));
}
