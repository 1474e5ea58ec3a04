use super::super::{WhenDown, WhenNone, sample};
use super::*;

const FIRST: &str = "192.168.1.2";
const SECOND: &str = "192.168.1.3";
const SIX: &str = "fd00::2";

struct Scene {
    machine: Machine,
    network: Network,
    now: Instant,
}

impl Scene {
    fn new(exit: &Exit) -> Self {
        let mut scene = Self {
            machine: Machine::default(),
            network: sample::network(),
            now: Instant::now(),
        };
        scene.configure(exit);
        scene
    }

    fn configure(&mut self, exit: &Exit) {
        self.machine
            .configure(std::slice::from_ref(exit), &Family::ALL);
        self.machine.follow(&self.network, self.now);
    }

    fn hear(&mut self, gateway: &str, answered: bool) {
        let answer = answered.then_some(Some([2; 6]));
        self.machine
            .hear(1065, gateway.parse().unwrap(), answer, self.now);
    }

    /// A second passes, in which these answer and the others do not; what moved in IPv4, as `from > to`.
    fn second(&mut self, answering: &[&str]) -> Vec<String> {
        self.now += Duration::from_secs(1);
        for gateway in [FIRST, SECOND, SIX] {
            self.hear(gateway, answering.contains(&gateway));
        }
        self.moved()
    }

    fn moved(&mut self) -> Vec<String> {
        let moved = self.machine.choose(self.now).into_iter();
        let moved = moved.filter(|moved| moved.family == Family::V4);
        moved
            .map(|it| format!("{} > {}", it.from.unwrap_or_default(), it.to))
            .collect()
    }

    fn hop(&self, family: Family) -> Option<Hop> {
        self.machine.desired().routes[&(1065, family)]
    }
}

fn by(gateway: &str) -> Option<Hop> {
    Some(Hop::Gateway {
        address: gateway.parse().unwrap(),
        ifindex: 2,
    })
}

#[test]
fn a_gateway_that_dies_in_a_call_is_replaced_and_returns_after_it() {
    let mut scene = Scene::new(&sample::exit());
    assert_eq!(scene.moved(), [format!(" > {FIRST}")], "at once, untried");
    assert_eq!(
        (scene.hop(Family::V4), scene.hop(Family::V6)),
        (by(FIRST), by(SIX))
    );
    let all = [FIRST, SECOND, SIX];
    assert!(scene.second(&all).is_empty());
    scene.machine.note_active([1065].into());
    assert!(scene.second(&[SECOND, SIX]).is_empty());
    assert!(scene.second(&[SECOND, SIX]).is_empty());
    assert_eq!(
        scene.second(&[SECOND, SIX]),
        [format!("{FIRST} > {SECOND}")]
    );
    assert_eq!(
        (scene.hop(Family::V4), scene.hop(Family::V6)),
        (by(SECOND), by(SIX))
    );
    for _ in 0..10 {
        assert!(scene.second(&all).is_empty(), "a call is not moved");
    }
    assert!(scene.machine.failed_over());
    assert_eq!(scene.machine.waiting(scene.now), [1065].into());
    scene.machine.note_active(BTreeSet::new());
    assert_eq!(scene.second(&all), [format!("{SECOND} > {FIRST}")]);
    assert!(!scene.machine.failed_over() && scene.machine.waiting(scene.now).is_empty());
    let side = &scene.machine.exits()[0].sides[0];
    assert_eq!(
        (side.failovers, side.candidates[0].address),
        (1, Some([2; 6]))
    );
}

#[test]
fn what_moved_says_why_and_since_when() {
    let mut scene = Scene::new(&sample::exit());
    let moved = scene.machine.choose(scene.now);
    assert!(
        moved
            .iter()
            .all(|moved| !moved.failover && moved.reason == "start")
    );
    scene.second(&[FIRST, SECOND, SIX]);
    scene.second(&[SECOND, SIX]);
    scene.second(&[SECOND, SIX]);
    scene.now += Duration::from_secs(1);
    scene.hear(FIRST, false);
    let moved = scene.machine.choose(scene.now);
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].unanswered, Some(Duration::from_secs(3)));
    assert_eq!(
        (moved[0].reason, moved[0].failover),
        ("the gateway is down", true)
    );
}

#[test]
fn a_family_without_a_gateway_takes_the_way_of_none() {
    let mut exit = sample::exit();
    exit.gateways.truncate(2);
    let mut scene = Scene::new(&exit);
    scene.moved();
    assert_eq!(scene.hop(Family::V6), None);
    assert!(scene.machine.blocked().is_empty());
    exit.when_none = WhenNone::Block;
    scene.configure(&exit);
    scene.moved();
    assert_eq!(scene.hop(Family::V6), Some(Hop::Unreachable));
    assert_eq!(scene.machine.blocked(), [(1065, Family::V6)].into());
}

#[test]
fn a_link_that_goes_down_takes_its_gateways_at_once() {
    let exit = Exit {
        when_down: WhenDown::Block,
        ..sample::exit()
    };
    let mut scene = Scene::new(&exit);
    scene.second(&[FIRST, SECOND, SIX]);
    scene.network.links[0].running = false;
    scene.machine.follow(&scene.network, scene.now);
    assert_eq!(scene.moved(), [format!("{FIRST} > block")]);
    assert!(scene.machine.questions().is_empty());
    scene.hear(FIRST, true);
    assert!(scene.moved().is_empty(), "an answer that was under way");
    scene.network.links[0].running = true;
    scene.machine.follow(&scene.network, scene.now);
    assert_eq!(scene.machine.questions().len(), 3);
    assert!(scene.moved().is_empty(), "it has yet to answer");
    scene.hear(FIRST, true);
    assert_eq!(scene.moved(), [format!("block > {FIRST}")]);
}

#[test]
fn a_device_is_up_while_its_link_is() {
    let exit = Exit {
        gateways: Vec::new(),
        device: Some("wg".to_owned()),
        ..sample::exit()
    };
    let mut scene = Scene::new(&exit);
    scene.moved();
    let device = Some(Hop::Device { ifindex: 4 });
    assert_eq!(
        (scene.hop(Family::V4), scene.hop(Family::V6)),
        (device, None),
        "no IPv6 there"
    );
    assert!(scene.machine.questions().is_empty());
    scene.network.links.retain(|link| link.name != "wg");
    scene.machine.follow(&scene.network, scene.now);
    assert_eq!(scene.moved(), ["wg > direct"]);
}

#[test]
fn a_restart_goes_on_with_what_the_kernel_has() {
    let mut scene = Scene::new(&sample::exit());
    let route = |hop| Route::own(Family::V4, 1065, hop);
    scene.machine.adopt(&[], &[route(by(SECOND).unwrap())]);
    assert!(scene.second(&[SECOND]).is_empty());
    assert_eq!(scene.hop(Family::V4), by(SECOND));
    scene.machine.adopt(&[], &[route(Hop::Unreachable)]);
    assert_eq!(scene.moved(), [format!("block > {SECOND}")]);
}

#[test]
fn a_restart_while_no_gateway_is_up_waits_for_one_that_is() {
    let exit = sample::exit();
    let rules = Family::ALL.map(|family| Rule::own(family, exit.priority, exit.mark, exit.table));
    let unreachable = Route::own(Family::V4, exit.table, Hop::Unreachable);
    let blocks = Exit {
        when_none: WhenNone::Block,
        ..exit.clone()
    };
    for (exit, routes, name) in [
        (exit, Vec::new(), "direct"),
        (blocks, vec![unreachable], "block"),
    ] {
        let mut scene = Scene::new(&exit);
        scene.machine.adopt(&rules, &routes);
        for _ in 0..2 {
            assert_eq!(scene.second(&[]), [""; 0], "not into one that is dead");
        }
        assert_eq!(scene.second(&[SECOND]), [format!("{name} > {SECOND}")]);
    }
    // Without a rule nothing was in force: the first is taken, untried.
    let mut scene = Scene::new(&sample::exit());
    scene.machine.adopt(&[], &[]);
    assert_eq!(scene.moved(), [format!(" > {FIRST}")]);
}

#[test]
fn a_reload_keeps_the_way_of_a_gateway_that_stays() {
    let mut exit = sample::exit();
    let mut scene = Scene::new(&exit);
    scene.moved();
    for _ in 0..3 {
        scene.second(&[SECOND, SIX]);
    }
    scene.machine.note_active([1065].into());
    exit.gateways.swap(0, 1);
    exit.priority += 1;
    scene.configure(&exit);
    assert!(scene.moved().is_empty(), "the one in use is the first now");
    assert_eq!(scene.hop(Family::V4), by(SECOND));
    exit.gateways.remove(0);
    scene.configure(&exit);
    assert_eq!(
        scene.moved(),
        [" > direct"],
        "the one in use is gone, the other is down"
    );
}

#[test]
fn ike_that_fails_through_the_one_in_use_moves_to_the_next() {
    let exit = Exit {
        health: Health::Ike,
        ..sample::exit()
    };
    let mut scene = Scene::new(&exit);
    let all = [FIRST, SECOND, SIX];
    scene.second(&all);
    let trial = |scene: &Scene| {
        let trials = scene.machine.trials();
        trials
            .into_iter()
            .find(|trial| trial.family == Family::V4)
            .unwrap()
    };
    assert_eq!(trial(&scene).gateway, FIRST);
    for _ in 0..2 {
        let trial = trial(&scene);
        scene.machine.tried(&trial, false, scene.now);
        assert!(scene.moved().is_empty());
    }
    let first = trial(&scene);
    scene.machine.tried(&first, false, scene.now);
    assert_eq!(scene.moved(), [format!("{FIRST} > {SECOND}")]);
    assert_eq!(trial(&scene).gateway, SECOND);
    let due = scene.machine.due(scene.now).unwrap();
    assert_eq!(due - scene.now, super::super::health::OUT_FIRST);
    // Though its turn comes, there is no need of it; ARP alone does not bring it back.
    scene.now = due;
    assert!(scene.second(&all).is_empty());
    let second = trial(&scene);
    for _ in 0..3 {
        scene.machine.tried(&second, false, scene.now);
    }
    assert_eq!(
        scene.moved(),
        [format!("{SECOND} > {FIRST}")],
        "tried again after the other"
    );
    // A result that was under way for the one before counts for that one.
    scene.machine.tried(&second, true, scene.now);
    let first = trial(&scene);
    scene.machine.tried(&first, false, scene.now);
    assert_eq!(
        scene.moved(),
        [format!("{FIRST} > {SECOND}")],
        "one failure is enough now"
    );
}
