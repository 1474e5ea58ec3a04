//! The exits as a state machine: what gateways answer and the time in, the ways to take out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::choice::{Way, choose};
use super::health::{Answers, Patience, State, Trials};
use super::place::{self, Network, Nowhere, Place};
use super::plan::Desired;
use super::{Exit, Gateway, Health};
use crate::net::{Family, Hop, Route, Rule};

/// How often a gateway is asked at least that IKE is tried through.
const IKE_NEIGHBOUR: Duration = Duration::from_secs(1);

/// A gateway of an exit, or its device.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// `None`: the device itself.
    pub gateway: Option<Gateway>,
    /// Where it is.
    pub place: Result<Place, Nowhere>,
    /// What it answers.
    pub answers: Answers,
    /// What IKE through it has shown.
    pub trials: Trials,
    /// Its Ethernet address, as it says.
    pub address: Option<[u8; 6]>,
}

impl Candidate {
    /// What is known of it.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        self.trials.judge(self.answers.state(), now)
    }

    /// Its name: its address, or its device's name.
    #[must_use]
    pub fn name(&self, exit: &Exit) -> String {
        match &self.gateway {
            Some(gateway) => gateway.address.to_string(),
            None => exit.device.clone().unwrap_or_default(),
        }
    }

    fn hop(&self) -> Option<Hop> {
        let ifindex = self.place.as_ref().ok()?.ifindex;
        Some(match &self.gateway {
            Some(gateway) => Hop::Gateway {
                address: gateway.address,
                ifindex,
            },
            None => Hop::Device { ifindex },
        })
    }

    /// Takes in where it is by now.
    fn follow(&mut self, exit: &Exit, family: Family, network: &Network, now: Instant) {
        let before = std::mem::replace(
            &mut self.place,
            match &self.gateway {
                Some(gateway) => place::of_gateway(exit, gateway, network),
                None => place::of_device(exit, family, network),
            },
        );
        let running = |place: &Result<Place, Nowhere>| place.as_ref().is_ok_and(|p| p.running);
        match &self.place {
            Ok(place) if place.running => {
                if asked(exit, place, self.gateway.as_ref()).is_none() {
                    self.answers.assume(now);
                } else if !running(&before) && self.answers.last().is_some() {
                    self.answers.forgive();
                }
            }
            _ => self.answers.lose(),
        }
    }
}

/// The address to ask ARP or neighbour discovery for; `None` where nobody can be asked, or is to be.
fn asked(exit: &Exit, place: &Place, gateway: Option<&Gateway>) -> Option<IpAddr> {
    let asks = exit.health != Health::None && place.own.is_some();
    gateway.map(|gateway| gateway.address).filter(|_| asks)
}

/// One family of an exit.
#[derive(Clone, Debug)]
pub struct Side {
    /// The family.
    pub family: Family,
    /// In order of preference.
    pub candidates: Vec<Candidate>,
    /// The way in use; `None` before the first choice.
    pub way: Option<Way>,
    /// How often it has changed because the one in use was down.
    pub failovers: u64,
}

impl Side {
    /// The name of a way.
    #[must_use]
    pub fn name(&self, exit: &Exit, way: Way) -> String {
        match way {
            Way::By(index) => match self.candidates.get(index) {
                Some(candidate) => candidate.name(exit),
                None => "none".to_owned(),
            },
            Way::Direct => "direct".to_owned(),
            Way::Block => "block".to_owned(),
        }
    }

    fn in_use(&self) -> Option<&Candidate> {
        match self.way {
            Some(Way::By(index)) => self.candidates.get(index),
            _ => None,
        }
    }
}

/// An exit and how it is.
#[derive(Clone, Debug)]
pub struct Running {
    /// As configured.
    pub exit: Exit,
    /// IPv4 and IPv6.
    pub sides: Vec<Side>,
}

/// That an exit takes another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The exit's name.
    pub exit: String,
    /// Its table.
    pub table: u32,
    /// The family.
    pub family: Family,
    /// The way before; `None` at a start.
    pub from: Option<String>,
    /// The way now.
    pub to: String,
    /// Why.
    pub reason: &'static str,
    /// How long ago the one before had answered last.
    pub unanswered: Option<Duration>,
    /// Whether tunnels moved along: not at a start.
    pub failover: bool,
}

/// Whom to ask whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The exit's table.
    pub table: u32,
    /// The gateway.
    pub gateway: IpAddr,
    /// Where it is.
    pub place: Place,
    /// How often.
    pub interval: Duration,
}

/// Through whom to try IKE.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    /// The exit's table.
    pub table: u32,
    /// The family of the gateway.
    pub family: Family,
    /// The one in use.
    pub gateway: String,
    /// The mark that leads there.
    pub mark: u32,
    /// Whom to send to; `None`: whom policies send there.
    pub to: Option<IpAddr>,
    /// How often.
    pub interval: Duration,
}

/// All exits.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    exits: Vec<Running>,
    active: BTreeSet<u32>,
}

impl Machine {
    /// The exits.
    #[must_use]
    pub fn exits(&self) -> &[Running] {
        &self.exits
    }

    /// Takes other exits. What is known of gateways that stay is kept, and the way in use of exits that stay.
    pub fn configure(&mut self, exits: &[Exit], families: &[Family]) {
        let mut before = std::mem::take(&mut self.exits);
        self.exits = exits
            .iter()
            .map(|exit| {
                let old = before
                    .iter()
                    .position(|running| running.exit.table == exit.table)
                    .map(|index| before.swap_remove(index));
                Running {
                    sides: families
                        .iter()
                        .map(|family| side(exit, *family, old.as_ref()))
                        .collect(),
                    exit: exit.clone(),
                }
            })
            .collect();
    }

    /// Takes in the links and addresses.
    pub fn follow(&mut self, network: &Network, now: Instant) {
        for Running { exit, sides } in &mut self.exits {
            for side in sides {
                for candidate in &mut side.candidates {
                    candidate.follow(exit, side.family, network, now);
                }
            }
        }
    }

    /// Takes over the ways that the kernel has, at a start: what is in use stays in use until it is found to be down, and
    /// where nothing was, as our rule without a route says, until something is found to be up.
    pub fn adopt(&mut self, rules: &[Rule], routes: &[Route]) {
        for Running { exit, sides } in &mut self.exits {
            for side in sides {
                let own = routes.iter().find(|route| {
                    route.table == exit.table && route.family == side.family && route.is_own()
                });
                let rule = Rule::own(side.family, exit.priority, exit.mark, exit.table);
                side.way = match own.map(|route| route.hop) {
                    Some(Hop::Unreachable) => Some(Way::Block),
                    Some(used) => {
                        let mut hops = side.candidates.iter().map(Candidate::hop);
                        hops.position(|hop| hop == Some(used)).map(Way::By)
                    }
                    None => rules.contains(&rule).then_some(Way::Direct),
                };
            }
        }
    }

    /// Takes in whether a gateway has answered.
    pub fn hear(
        &mut self,
        table: u32,
        gateway: IpAddr,
        answer: Option<Option<[u8; 6]>>,
        now: Instant,
    ) {
        for Running { exit, sides } in &mut self.exits {
            if exit.table != table {
                continue;
            }
            let patience = patience(exit);
            let candidates = sides.iter_mut().flat_map(|side| &mut side.candidates);
            for candidate in candidates {
                let running = candidate.place.as_ref().is_ok_and(|place| place.running);
                let is_it = candidate
                    .gateway
                    .as_ref()
                    .is_some_and(|g| g.address == gateway);
                if !running || !is_it {
                    continue;
                }
                match answer {
                    Some(address) => {
                        candidate.address = address.or(candidate.address);
                        candidate.answers.hit(patience, now);
                    }
                    None => candidate.answers.miss(patience),
                }
            }
        }
    }

    /// Takes in whether IKE was answered through the gateway in use.
    pub fn tried(&mut self, trial: &Trial, answered: bool, now: Instant) {
        for Running { exit, sides } in &mut self.exits {
            if exit.table != trial.table {
                continue;
            }
            let patience = patience(exit);
            for side in sides.iter_mut().filter(|side| side.family == trial.family) {
                let candidates = side.candidates.iter_mut();
                for candidate in candidates.filter(|it| it.name(exit) == trial.gateway) {
                    if answered {
                        candidate.trials.hit();
                    } else {
                        candidate.trials.miss(patience, now);
                    }
                }
            }
        }
    }

    /// Takes in in which exits (by table) tunnels are active.
    pub fn note_active(&mut self, tables: BTreeSet<u32>) {
        self.active = tables;
    }

    /// The exits (by table) that wait for a better gateway until they have no tunnels.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> BTreeSet<u32> {
        let waits = |running: &&Running| {
            running.sides.iter().any(|side| {
                let states: Vec<_> = side.candidates.iter().map(|it| it.state(now)).collect();
                let [busy, idle] =
                    [true, false].map(|it| choose(&running.exit, &states, side.way, it));
                busy != idle
            })
        };
        let waiting = self.exits.iter().filter(waits);
        waiting.map(|running| running.exit.table).collect()
    }

    /// Whether an exit is on another gateway than the one that it prefers.
    #[must_use]
    pub fn failed_over(&self) -> bool {
        let mut sides = self.exits.iter().flat_map(|running| &running.sides);
        sides.any(|side| matches!(side.way, Some(Way::By(place)) if place > 0))
    }

    /// Chooses the ways; tells of those that changed.
    pub fn choose(&mut self, now: Instant) -> Vec<Moved> {
        let mut moved = Vec::new();
        for Running { exit, sides } in &mut self.exits {
            let active = self.active.contains(&exit.table);
            for side in sides {
                let states: Vec<_> = side.candidates.iter().map(|it| it.state(now)).collect();
                let way = choose(exit, &states, side.way, active);
                if side.way == Some(way) {
                    continue;
                }
                let before = side.way;
                let last = side.in_use().and_then(|used| used.answers.last());
                let was_down = match before {
                    Some(Way::By(index)) => states.get(index) == Some(&State::Down),
                    _ => false,
                };
                let reason = match (before, way) {
                    (None, _) => "start",
                    (Some(_), Way::Direct | Way::Block) => "no gateway is up",
                    (Some(Way::By(_)), Way::By(_)) if was_down => "the gateway is down",
                    (Some(Way::By(_)), Way::By(_)) => "a preferred gateway is up",
                    (Some(Way::Direct | Way::Block), Way::By(_)) => "a gateway is up",
                };
                side.failovers += u64::from(was_down);
                moved.push(Moved {
                    exit: exit.name.clone(),
                    table: exit.table,
                    family: side.family,
                    from: before.map(|before| side.name(exit, before)),
                    to: side.name(exit, way),
                    reason,
                    unanswered: last.filter(|_| was_down).map(|last| now - last),
                    failover: before.is_some(),
                });
                side.way = Some(way);
            }
        }
        moved
    }

    /// The rules and routes that should be there.
    #[must_use]
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        for Running { exit, sides } in &self.exits {
            for side in sides {
                let rule = Rule::own(side.family, exit.priority, exit.mark, exit.table);
                desired.rules.insert(rule);
                let hop = match side.way {
                    Some(Way::By(_)) => side.in_use().and_then(Candidate::hop),
                    Some(Way::Block) => Some(Hop::Unreachable),
                    Some(Way::Direct) | None => None,
                };
                desired.routes.insert((exit.table, side.family), hop);
            }
        }
        desired
    }

    /// Whom to ask.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        for Running { exit, sides } in &self.exits {
            for candidate in sides.iter().flat_map(|side| &side.candidates) {
                let Ok(place) = &candidate.place else {
                    continue;
                };
                if let Some(gateway) = asked(exit, place, candidate.gateway.as_ref())
                    && place.running
                {
                    questions.push(Question {
                        table: exit.table,
                        gateway,
                        place: place.clone(),
                        // IKE is tried rarely; that a gateway is there at all can be asked more often.
                        interval: match exit.health {
                            Health::Ike => exit.interval.min(IKE_NEIGHBOUR),
                            Health::Neighbour | Health::None => exit.interval,
                        },
                    });
                }
            }
        }
        questions
    }

    /// The gateways that have a place and are not asked: exit's table, address, link.
    #[must_use]
    pub fn unasked(&self) -> Vec<(u32, IpAddr, u32)> {
        let mut unasked = Vec::new();
        for Running { exit, sides } in &self.exits {
            for candidate in sides.iter().flat_map(|side| &side.candidates) {
                if let (Ok(place), Some(gateway)) = (&candidate.place, &candidate.gateway)
                    && asked(exit, place, Some(gateway)).is_none()
                {
                    unasked.push((exit.table, gateway.address, place.ifindex));
                }
            }
        }
        unasked
    }

    /// Takes in a gateway's Ethernet address.
    pub fn note_address(&mut self, table: u32, gateway: IpAddr, address: Option<[u8; 6]>) {
        let exits = self
            .exits
            .iter_mut()
            .filter(|running| running.exit.table == table);
        let sides = exits.flat_map(|running| &mut running.sides);
        for candidate in sides.flat_map(|side| &mut side.candidates) {
            if candidate
                .gateway
                .as_ref()
                .is_some_and(|it| it.address == gateway)
            {
                candidate.address = address.or(candidate.address);
            }
        }
    }

    /// All gateways that have a place, with their Ethernet addresses where they are known.
    pub fn places(&self) -> impl Iterator<Item = (IpAddr, &Place, Option<[u8; 6]>)> {
        let sides = self.exits.iter().flat_map(|running| &running.sides);
        sides
            .flat_map(|side| &side.candidates)
            .filter_map(|candidate| {
                let gateway = candidate.gateway.as_ref()?.address;
                Some((gateway, candidate.place.as_ref().ok()?, candidate.address))
            })
    }

    /// Through whom to try IKE.
    #[must_use]
    pub fn trials(&self) -> BTreeSet<Trial> {
        let mut trials = BTreeSet::new();
        for Running { exit, sides } in &self.exits {
            for side in sides.iter().filter(|_| exit.health == Health::Ike) {
                let to_family = exit.probe.is_none_or(|to| Family::from(to) == side.family);
                if let Some(candidate) = side.in_use()
                    && to_family
                {
                    trials.insert(Trial {
                        table: exit.table,
                        family: side.family,
                        gateway: candidate.name(exit),
                        mark: exit.mark.value,
                        to: exit.probe,
                        interval: exit.interval,
                    });
                }
            }
        }
        trials
    }

    /// When something changes by time alone: a gateway that was out has its turn.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let sides = self.exits.iter().flat_map(|running| &running.sides);
        let candidates = sides.flat_map(|side| &side.candidates);
        candidates.filter_map(|it| it.trials.out_until(now)).min()
    }

    /// The tables of the exits that block, both or one of their families.
    #[must_use]
    pub fn blocked(&self) -> BTreeSet<(u32, Family)> {
        let sides = |running: &Running| {
            let table = running.exit.table;
            let blocked = running
                .sides
                .iter()
                .filter(|side| side.way == Some(Way::Block));
            blocked.map(|side| (table, side.family)).collect::<Vec<_>>()
        };
        self.exits.iter().flat_map(sides).collect()
    }
}

const fn patience(exit: &Exit) -> Patience {
    Patience {
        down_after: exit.down_after,
        up_after: exit.up_after,
    }
}

fn side(exit: &Exit, family: Family, old: Option<&Running>) -> Side {
    let gateways: Vec<Option<&Gateway>> = if exit.gateways.is_empty() {
        vec![None]
    } else {
        let of_family = exit
            .gateways
            .iter()
            .filter(|g| Family::from(g.address) == family);
        of_family.map(Some).collect()
    };
    let old = old.and_then(|old| {
        let side = old.sides.iter().find(|side| side.family == family)?;
        Some((&old.exit, side))
    });
    let candidates: Vec<Candidate> = gateways
        .into_iter()
        .map(|gateway| {
            // A device by another name is another one; so is a gateway behind one.
            let kept = old.and_then(|(before, side)| {
                let same = before.device == exit.device;
                let mut candidates = side.candidates.iter();
                candidates
                    .find(|it| same && it.gateway.as_ref() == gateway)
                    .cloned()
            });
            kept.unwrap_or_else(|| Candidate {
                gateway: gateway.cloned(),
                place: Err(Nowhere::Awaited(String::new())),
                answers: Answers::default(),
                trials: Trials::default(),
                address: None,
            })
        })
        .collect();
    let way = old.and_then(|(before, side)| match side.way? {
        Way::By(index) => {
            let used = side.candidates.get(index)?;
            let mut candidates = candidates.iter();
            let same = before.device == exit.device;
            candidates
                .position(|it| same && it.gateway == used.gateway)
                .map(Way::By)
        }
        way => Some(way),
    });
    Side {
        family,
        candidates,
        way,
        failovers: old.map_or(0, |(_, side)| side.failovers),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
