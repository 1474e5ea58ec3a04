use std::net::Ipv4Addr;

use wificall_common::{
    Class, Direction,
    abi::{Candidate, FlowNote},
    flow::{Changes, Message, Sight},
    wire::{
        PROTOCOL_UDP,
        ike::{EXCHANGE_AUTH, EXCHANGE_SA_INIT},
    },
};

use super::*;
use crate::telemetry::{
    note::Note,
    show::Show,
    view::{Cause, Trouble, Voice},
};

const MS: u64 = 1_000_000;
const EPDG: [u8; 4] = [192, 0, 2, 1];

fn address(octets: [u8; 4]) -> [u8; 16] {
    Ipv4Addr::from(octets).to_ipv6_mapped().octets()
}

fn key(client: u8, port: u16) -> FlowKey {
    FlowKey {
        client: address([10, 0, 0, client]),
        endpoint: address(EPDG),
        port,
        protocol: if port == 0 {
            PROTOCOL_ESP
        } else {
            PROTOCOL_UDP
        },
        reserved: [0; 5],
    }
}

fn whose(_: [u8; 16]) -> Arc<Whose> {
    Arc::new(Whose {
        operator: "001-01".into(),
        country: "none".into(),
    })
}

/// A kernel's table, and a tracker that reads it when it says so.
struct Lab {
    tracker: Tracker,
    table: BTreeMap<FlowKey, Flow>,
    now: u64,
    reads: u64,
}

impl Lab {
    fn new() -> Self {
        Self {
            tracker: Tracker::new(64),
            table: BTreeMap::new(),
            now: 1_000 * SECOND,
            reads: 0,
        }
    }

    fn note(&mut self, key: FlowKey, changes: u32, spi_i: u8) {
        self.note_of(key, changes, spi_i, Direction::Up, 0);
    }

    fn note_of(
        &mut self,
        key: FlowKey,
        changes: u32,
        spi_i: u8,
        direction: Direction,
        exchange: u8,
    ) {
        let data = FlowNote {
            changes,
            spi_i: [spi_i; 8],
            direction: direction as u8,
            exchange,
            ..FlowNote::default()
        };
        let at = self.now;
        self.tracker.note(&Note { at, key, data }, &whose);
    }

    /// What the agent does.
    fn follow(&mut self) {
        for key in self.tracker.due(self.now, 1_000) {
            let flow = self.table.get(&key).copied();
            self.tracker.read(key, flow.as_ref(), self.now, &whose);
            self.reads += 1;
        }
        self.tracker.settle(self.now);
        for key in self.tracker.take_over() {
            self.table.remove(&key);
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.follow();
        }
    }

    fn ike(&mut self, key: FlowKey, direction: Direction, spi_i: u8, exchange: u8, id: u32) {
        let message = Message {
            spi_i: [spi_i; 8],
            spi_r: if exchange == EXCHANGE_SA_INIT && direction == Direction::Up {
                [0; 8]
            } else {
                [9; 8]
            },
            exchange,
            id,
            response: direction == Direction::Down,
            natt: exchange != EXCHANGE_SA_INIT,
            ..Message::default()
        };
        let flow = self.table.entry(key).or_default();
        let sight = Sight {
            now: self.now,
            bytes: 400,
            segments: 1,
            class: Class::Ike,
            esp: [0; 2],
        };
        let changes = flow.see(direction, &sight) | flow.message(direction, &message, self.now);
        self.note_of(key, changes, spi_i, direction, exchange);
    }

    /// The candidate's first packet was IKE_SA_INIT, which is answered now.
    fn answered(&mut self, key: FlowKey, spi_i: u8) {
        self.begun(key, spi_i, EXCHANGE_SA_INIT, self.now - 40 * MS);
        self.ike(key, Direction::Down, spi_i, EXCHANGE_SA_INIT, 0);
    }

    /// A flow whose candidate's first packet was a request.
    fn begun(&mut self, key: FlowKey, spi_i: u8, exchange: u8, at: u64) {
        let mut candidate = Candidate::begin(Direction::Up, at);
        let question = Message {
            spi_i: [spi_i; 8],
            exchange,
            natt: exchange != EXCHANGE_SA_INIT,
            ..Message::default()
        };
        candidate.ask(&question, at);
        let mut flow = Flow::default();
        flow.begin(&candidate, 1, 1);
        self.table.insert(key, flow);
    }

    fn esp(&mut self, key: FlowKey, direction: Direction, sequence: u32) {
        self.esp_of(0xabc, key, direction, sequence);
    }

    fn esp_of(&mut self, spi: u32, key: FlowKey, direction: Direction, sequence: u32) {
        let flow = self.table.entry(key).or_default();
        let sight = Sight {
            now: self.now,
            bytes: 144,
            segments: 1,
            class: Class::EspUdp,
            esp: [spi, sequence],
        };
        let changes = flow.see(direction, &sight);
        if changes != 0 {
            self.note_of(key, changes, 0, direction, 0);
        }
    }

    fn set_up(&mut self, client: u8, spi_i: u8) {
        self.sets_up(client, spi_i);
        self.follow();
        self.pass(2);
    }

    /// Up to the first ESP both ways, which nobody has read yet.
    fn sets_up(&mut self, client: u8, spi_i: u8) {
        let (ike, natt) = (key(client, 500), key(client, 4500));
        self.note(ike, Changes::ASKED, spi_i);
        self.now += 40 * MS;
        self.answered(ike, spi_i);
        self.follow();
        self.now += 20 * MS;
        self.begun(natt, spi_i, EXCHANGE_AUTH, self.now);
        self.now += 100 * MS;
        self.ike(natt, Direction::Down, spi_i, EXCHANGE_AUTH, 1);
        self.now += 500 * MS;
        self.esp(natt, Direction::Up, 1);
        self.now += 10 * MS;
        self.esp(natt, Direction::Down, 1);
    }

    /// Talks both ways; each `hole`th packet up is lost. The number that comes next.
    fn talk(&mut self, key: FlowKey, from: u32, seconds: u32, hole: u32) -> u32 {
        for n in 0..seconds * 50 {
            self.now += 20 * MS;
            if (n + 1) % hole != 0 {
                self.esp(key, Direction::Up, from + n);
            }
            self.esp(key, Direction::Down, from + n);
            if n % 50 == 49 {
                self.follow();
            }
        }
        from + seconds * 50
    }

    fn only(&self) -> &Tunnel {
        assert_eq!(self.tracker.tunnels().len(), 1);
        self.tracker.tunnels().next().unwrap().1
    }

    fn setups(&self) -> BTreeMap<Outcome, u64> {
        let mut all = Totals::default();
        for (_, totals) in self.tracker.totals() {
            all.merge(totals);
        }
        all.setups
    }

    fn steps(&mut self) -> Vec<Step> {
        let happened = self.tracker.take_happened();
        happened.iter().map(|one| one.change.step).collect()
    }
}

#[test]
fn two_ports_of_one_set_up_are_one_tunnel() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let tunnel = lab.only();
    assert_eq!(
        (tunnel.state, tunnel.flows.len(), tunnel.roamed),
        (State::Up, 2, 0)
    );
    let took = tunnel.setup.as_ref().unwrap().took().unwrap();
    assert_eq!(took / MS, 40 + 20 + 100 + 510);
    assert_eq!(lab.setups(), BTreeMap::from([(Outcome::Ok, 1)]));
    use Step::*;
    let expected = [
        InitSent,
        InitAnswered,
        Natt,
        AuthSent,
        AuthAnswered,
        EspUp,
        EspDown,
        Up,
    ];
    assert_eq!(lab.steps(), expected);
}

#[test]
fn a_call_has_the_loss_that_was_sent() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let natt = key(2, 4500);
    lab.pass(40);
    let next = lab.talk(natt, 2, 20, 10);
    assert_eq!(lab.only().state, State::Call);
    lab.pass(10);
    let tunnel = lab.only();
    assert_eq!(tunnel.state, State::Up);
    let call = &tunnel.calls[0];
    assert_eq!((call.legs[0].received, call.legs[0].missing), (900, 99));
    assert_eq!((call.legs[1].received, call.legs[1].missing), (1_000, 0));
    assert!(
        (18..=20).contains(&(call.lasted(lab.now) / SECOND)),
        "{}",
        call.lasted(lab.now)
    );
    assert_eq!(next, 1_002);
    let steps = lab.steps();
    assert_eq!(steps[8..], [Step::CallBegan, Step::CallEnded]);
}

#[test]
fn a_phone_that_moves_keeps_its_tunnel() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let moved = key(3, 4500);
    lab.ike(moved, Direction::Up, 1, 37, 5);
    lab.ike(moved, Direction::Down, 1, 37, 5);
    lab.pass(2);
    let tunnel = lab.only();
    assert_eq!((tunnel.roamed, tunnel.client), (1, moved.client));
    assert_eq!(lab.setups(), BTreeMap::from([(Outcome::Ok, 1)]));
    let happened = lab.tracker.take_happened();
    let last = &happened.last().unwrap().change;
    assert_eq!(last.step, Step::Roamed);
    assert_eq!(last.from, Some(key(2, 4500).client));
    assert_eq!(
        lab.tracker.by_ends.len(),
        1,
        "its old address is nobody's now"
    );
}

#[test]
fn a_tunnel_is_up_when_esp_has_come_from_both_ends_whenever_that_is_found() {
    let mut lab = Lab::new();
    let start = lab.now;
    lab.sets_up(2, 1);
    lab.now += 700 * MS;
    lab.follow();
    let happened = lab.tracker.take_happened();
    let up = happened.last().unwrap();
    assert_eq!(up.change.step, Step::Up);
    assert_eq!(up.change.at - start, (40 + 20 + 100 + 510) * MS);
    let in_order = happened.is_sorted_by_key(|one| one.change.at);
    assert!(in_order, "{happened:#?}");
    for one in happened {
        assert_eq!(one.change.after, Some(one.change.at - start), "{one:?}");
    }
}

#[test]
fn a_rekeyed_ike_sa_is_no_set_up() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    for spi in [7, 8] {
        lab.ike(key(2, 4500), Direction::Up, spi, 37, 0);
        lab.pass(2);
    }
    assert_eq!(lab.only().spi_i, [8; 8]);
    assert_eq!(lab.only().state, State::Up);
    assert_eq!(lab.setups(), BTreeMap::from([(Outcome::Ok, 1)]));
}

#[test]
fn a_question_nobody_answers_is_one_failure_of_one_client() {
    let mut lab = Lab::new();
    for wait in [0, 1, 2, 4, 8] {
        lab.pass(wait);
        lab.note(key(2, 500), Changes::ASKED, 1);
    }
    assert_eq!(lab.only().state, State::SettingUp);
    lab.pass(31);
    let failed = Outcome::Failed(Cause::NoAnswer);
    assert_eq!(lab.setups(), BTreeMap::from([(failed, 1)]));
    // Again, in a try of its own.
    lab.note(key(2, 500), Changes::ASKED, 2);
    lab.pass(31);
    assert_eq!(lab.only().state, State::Failed);
    assert_eq!(lab.setups(), BTreeMap::from([(failed, 2)]));
    let clients: Vec<u64> = lab.tracker.clients().count(lab.now).into_values().collect();
    assert_eq!(clients, [1]);
    lab.pass(121);
    assert_eq!(lab.tracker.tunnels().len(), 0);
}

#[test]
fn an_ike_auth_that_nobody_answers_is_seen_where_it_was_sent() {
    let mut lab = Lab::new();
    lab.note(key(2, 500), Changes::ASKED, 1);
    lab.now += 40 * MS;
    lab.answered(key(2, 500), 1);
    lab.follow();
    lab.steps();
    // On port 4500, where nothing was answered: no flow is in the table.
    let auth = |spi_i: u8, at| Note {
        at,
        key: key(2, 4500),
        data: FlowNote {
            changes: Changes::MESSAGE,
            spi_i: [spi_i; 8],
            exchange: EXCHANGE_AUTH,
            ..FlowNote::default()
        },
    };
    for (after, expected) in [
        (20, &[Step::Natt, Step::AuthSent][..]),
        (500, &[Step::Retransmitted]),
    ] {
        lab.now += after * MS;
        lab.tracker.note(&auth(1, lab.now), &whose);
        lab.follow();
        assert_eq!(lab.steps(), expected);
    }
    // Of an SA that nobody knows, it is nothing.
    lab.tracker.note(&auth(7, lab.now), &whose);
    lab.follow();
    assert_eq!(lab.steps(), []);
    let setup = lab.only().setup.clone().unwrap();
    assert_eq!(setup.next(), Some(Milestone::AuthAnswered));
    assert_eq!(setup.retransmitted, 1);
    lab.pass(31);
    let failed = Outcome::Failed(Cause::AuthenticationStalled);
    assert_eq!(lab.setups(), BTreeMap::from([(failed, 1)]));
}

/// The phone goes on at once, and the agent reads the flow on port 500 a moment later.
#[test]
fn a_move_to_port_4500_is_seen_before_the_flow_on_500_was_read() {
    let mut lab = Lab::new();
    lab.note(key(2, 500), Changes::ASKED, 1);
    lab.follow();
    lab.steps();
    let data = FlowNote {
        changes: Changes::MESSAGE,
        spi_i: [1; 8],
        exchange: EXCHANGE_AUTH,
        ..FlowNote::default()
    };
    let (at, key) = (lab.now + 6 * MS, key(2, 4500));
    lab.tracker.note(&Note { at, key, data }, &whose);
    lab.now = at;
    lab.follow();
    assert_eq!(lab.steps(), [Step::Natt, Step::AuthSent]);
}

#[test]
fn a_refusal_that_comes_with_the_first_answer_is_told() {
    let mut lab = Lab::new();
    lab.note(key(2, 500), Changes::ASKED, 1);
    lab.follow();
    lab.steps();
    let data = FlowNote {
        changes: Changes::ENTERED | Changes::NOTIFY,
        spi_i: [1; 8],
        notify: 14,
        direction: Direction::Down as u8,
        ..FlowNote::default()
    };
    let (at, key) = (lab.now, key(2, 500));
    lab.tracker.note(&Note { at, key, data }, &whose);
    let happened = lab.tracker.take_happened();
    let told = (happened[0].change.step, &*happened[0].change.detail);
    assert_eq!(told, (Step::Notify, "NO_PROPOSAL_CHOSEN"));
}

#[test]
fn an_agent_that_starts_in_a_call_sees_it_and_no_loss_of_before() {
    let mut lab = Lab::new();
    let natt = key(2, 4500);
    for n in 1..500 {
        lab.now += 20 * MS;
        if n % 5 != 0 {
            lab.esp(natt, Direction::Up, n);
        }
        lab.esp(natt, Direction::Down, n);
    }
    lab.tracker = Tracker::new(64);
    lab.tracker.adopt(true);
    let flow = lab.table[&natt];
    lab.tracker.read(natt, Some(&flow), lab.now, &whose);
    lab.tracker.settle(lab.now);
    lab.tracker.adopt(false);
    assert_eq!(lab.only().state, State::Up);
    assert_eq!(lab.only().legs, [Leg::default(); 2]);
    // The programs tell of voice when a run begins, which was long ago; the next look finds it.
    let _ = lab.talk(natt, 500, 40, 1_000_000);
    let tunnel = lab.only();
    assert_eq!(tunnel.state, State::Call);
    let call = tunnel.detector.call.as_ref().unwrap();
    assert_eq!(call.voice, Voice::Talking);
    // What was in the window then is not known to be lost before.
    assert_eq!(call.legs[0].missing, 0);
    assert!(lab.setups().is_empty());
}

#[test]
fn quiet_tunnels_are_read_rarely_and_gone_ones_forgotten() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    lab.pass(30);
    let before = lab.reads;
    lab.pass(60);
    assert!(
        (6..=14).contains(&(lab.reads - before)),
        "{}",
        lab.reads - before
    );
    assert_eq!(lab.only().state, State::Idle);
    lab.pass(300);
    assert_eq!(lab.only().state, State::Gone);
    lab.pass(1_900);
    assert_eq!(lab.tracker.tunnels().len(), 0);
    assert_eq!((lab.tracker.flows(), lab.table.len()), (0, 0));
    assert!(lab.tracker.next_due().is_none());
}

#[test]
fn native_esp_belongs_to_the_tunnel_of_its_ends() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    lab.esp(key(2, 0), Direction::Up, 1);
    lab.esp(key(2, 0), Direction::Down, 1);
    lab.note(key(2, 0), Changes::ENTERED, 0);
    lab.pass(1);
    assert_eq!(lab.only().flows.len(), 3);
    assert_eq!(lab.only().roamed, 0);
}

#[test]
fn a_flood_is_bounded() {
    let mut lab = Lab::new();
    for n in 0..5_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let flood = FlowKey {
            client: address([10, 9, high, low]),
            ..key(2, 500)
        };
        let data = FlowNote {
            changes: Changes::ASKED,
            spi_i: u64::from(n + 1).to_be_bytes(),
            ..FlowNote::default()
        };
        let note = Note {
            at: lab.now,
            key: flood,
            data,
        };
        lab.tracker.note(&note, &whose);
        let port = FlowKey {
            port: 4500,
            ..flood
        };
        lab.tracker
            .read(port, Some(&Flow::default()), lab.now, &whose);
    }
    assert_eq!(lab.tracker.flows(), 80);
    assert!(lab.tracker.tunnels().len() <= ASKED_MOST + 80);
    assert!(lab.tracker.left_out > 4_000);
    lab.pass(200);
    assert!(lab.tracker.tunnels().len() <= 80);
}

#[test]
fn where_flows_find_no_room_those_that_are_over_give_way() {
    let mut lab = Lab::new();
    lab.set_up(1, 1);
    for client in 2..60 {
        lab.now += MS;
        lab.answered(key(client, 500), client);
        lab.follow();
    }
    // Their set-ups have come to nothing; the first one's tunnel is up.
    lab.pass(40);
    assert_eq!(lab.tracker.flows(), 60);
    lab.tracker.relieve();
    let gone = lab.tracker.take_over();
    assert_eq!(gone, [2, 3, 4, 5, 6].map(|client| key(client, 500)));
    assert_eq!(lab.tracker.flows(), 55);
    lab.tracker.relieve();
    assert_eq!(lab.tracker.flows(), 55, "there is room");
    assert!(lab.tracker.tunnels().any(|(_, one)| one.state == State::Up));
}

#[test]
fn a_call_goes_on_when_its_flow_turns_out_to_be_another_tunnels() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    // The NAT before us gives the phone another port in a call: until there is IKE, nobody knows whose flow it is.
    let moved = key(2, 4501);
    let next = lab.talk(moved, 2, 10, 1_000);
    assert_eq!(lab.tracker.tunnels().len(), 2);
    lab.ike(moved, Direction::Up, 1, 37, 5);
    lab.pass(1);
    assert_eq!(lab.only().state, State::Call);
    lab.talk(moved, next, 5, 1_000);
    lab.pass(10);
    let tunnel = lab.only();
    assert_eq!((tunnel.state, tunnel.calls.len()), (State::Up, 1));
    let lasted = tunnel.calls[0].lasted(lab.now) / SECOND;
    assert!((14..=15).contains(&lasted), "{lasted}");
    let calls: Vec<Step> = (lab.steps().into_iter())
        .filter(|step| matches!(step, Step::CallBegan | Step::CallEnded))
        .collect();
    assert_eq!(calls, [Step::CallBegan, Step::CallEnded]);
}

#[test]
fn both_directions_come_back_once() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let natt = key(2, 4500);
    lab.note(natt, Changes::ANCHORED, 1);
    lab.now += 20 * MS;
    lab.note(natt, Changes::ANCHORED, 1);
    assert_eq!(lab.only().roamed, 1);
    lab.now += 60 * SECOND;
    lab.note(natt, Changes::ANCHORED, 1);
    assert_eq!(lab.only().roamed, 2);
}

#[test]
fn counts_that_a_race_has_undone_are_no_new_flow() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let natt = key(2, 4500);
    lab.talk(natt, 2, 5, 1_000);
    let before = lab.only().legs[0].packets;
    lab.table.get_mut(&natt).unwrap().up.packets -= 1;
    lab.pass(20);
    assert_eq!(lab.only().legs[0].packets, before);
}

/// An agent that can read one flow where many are due reads that of a call.
#[test]
fn what_cannot_wait_is_read_first() {
    let mut lab = Lab::new();
    for client in 1..30 {
        lab.set_up(client, client);
    }
    lab.pass(60);
    // All are quiet, and overdue.
    lab.now += 120 * SECOND;
    lab.note(key(7, 4500), Changes::SPI, 7);
    assert_ne!(lab.tracker.due(lab.now, 1), [key(7, 4500)]);
    lab.note(key(7, 4500), Changes::VOICE, 7);
    assert_eq!(lab.tracker.due(lab.now, 1), [key(7, 4500)]);
}

#[test]
fn new_keys_are_told_once_a_second_packet_has_confirmed_them() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let natt = key(2, 4500);
    let _ = lab.steps();
    let spis = [
        0xabc, 0xabc, 0xabc, 0xbad, 0xabc, 0xdef, 0xdef, 0xdef, 0xdef,
    ];
    for (number, spi) in (2..).zip(spis) {
        lab.esp_of(spi, natt, Direction::Down, number);
        lab.pass(1);
    }
    lab.ike(natt, Direction::Up, 1, 36, 9);
    lab.ike(natt, Direction::Up, 7, 37, 0);
    let happened = lab.tracker.take_happened();
    let told: Vec<_> = (happened.iter())
        .filter(|one| one.change.step == Step::Rekeyed)
        .map(|one| one.change.detail.as_str())
        .collect();
    assert_eq!(told, ["ESP to the phone", "IKE"]);
}

/// The minutes that count have its loss, and whoever says that the way is bad says whose it may be as well.
#[test]
fn a_call_that_is_over_speaks_of_the_carrier_as_long_as_of_the_way() {
    let mut lab = Lab::new();
    lab.set_up(2, 1);
    let ends = key(2, 4500);
    for n in 1..=1_000 {
        lab.now += 20 * MS;
        lab.esp(ends, Direction::Up, n);
        if n % 10 != 0 {
            lab.esp(ends, Direction::Down, n);
        }
        if n % 50 == 49 {
            lab.follow();
        }
    }
    let hash = std::hash::RandomState::new();
    let sides = |lab: &Lab| {
        let show = Show {
            now: lab.now,
            wall: lab.now / MS,
            clients: true,
            key: &hash,
            operator: &|_| None,
            exit: &|_| None,
            nat_timeout: None,
        };
        let sides = show.overview(&lab.tracker).sides;
        [sides.network.trouble, sides.carrier.trouble]
    };
    let both = [Trouble::Bad, Trouble::Some];
    assert_eq!(sides(&lab), both);
    lab.pass(60);
    assert_eq!(lab.only().detector.call, None);
    assert_eq!(sides(&lab), both, "the call is over");
    let began = |lab: &Lab| {
        (lab.tracker.minutes(lab.now).iter())
            .map(|one| one.began)
            .collect()
    };
    let minutes: Vec<u64> = began(&lab);
    assert_eq!(minutes.len(), 2);
    lab.pass(400);
    assert_eq!(sides(&lab), [Trouble::Unknown; 2], "long over");
    let later: Vec<u64> = began(&lab);
    assert_eq!((later.len(), later[0]), (8, minutes[0]));
    assert!(later.windows(2).all(|pair| pair[1] > pair[0]), "{later:?}");
    lab.pass(1_000);
    assert_eq!(lab.tracker.minutes(lab.now), []);
}
