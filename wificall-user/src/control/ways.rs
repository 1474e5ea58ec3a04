//! The way out of each tunnel: by the exit that the kernel has noted for it, and what that exit does now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use wificall_common::abi::{Tunnel, TunnelKey};

use super::{agent::Agent, telemetry::Telemetry};
use crate::{
    net::Family,
    steer::{choice::Way, machine::Running},
    telemetry::{
        tracker::{Happened, Id},
        tunnel::{self, Change},
        view::{State, Step, WayKind, WayOut},
    },
};

/// What the kernel has noted may be that old where a change is looked for.
const LOOK: Duration = Duration::from_millis(900);

/// What was told of tunnels' ways out.
#[derive(Default)]
pub(super) struct Ways {
    known: BTreeMap<Id, Arc<WayOut>>,
    /// Each way once: thousands of tunnels share a few.
    all: BTreeSet<Arc<WayOut>>,
}

impl Ways {
    pub(super) fn get(&self, id: Id) -> Option<&WayOut> {
        self.known.get(&id).map(|way| &**way)
    }

    /// Notes a tunnel's way; whether that is another than before, if one was known.
    fn note(&mut self, id: Id, way: WayOut) -> bool {
        let way = match self.all.get(&way) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(way);
                self.all.insert(Arc::clone(&new));
                new
            }
        };
        let before = self.known.insert(id, Arc::clone(&way));
        before.is_some_and(|before| before != way)
    }

    /// Forgets the tunnels that are no more, and the ways that none has.
    fn keep(&mut self, is_there: impl Fn(Id) -> bool) {
        self.known.retain(|id, _| is_there(*id));
        self.all.retain(|way| Arc::strong_count(way) > 1);
    }
}

/// What an exit does with packets of a family now.
fn by(running: &Running, family: Family) -> WayOut {
    let exit = &running.exit;
    let side = running.sides.iter().find(|side| side.family == family);
    let way = side.and_then(|side| Some((side, side.way?)));
    let mut out = WayOut {
        exit: Some(exit.name.clone()),
        mark: mark(exit.mark.value, exit.mark.mask),
        ..WayOut::default()
    };
    match way {
        Some((side, Way::By(index))) => {
            let candidate = side.candidates.get(index);
            let gateway = candidate.and_then(|candidate| candidate.gateway.as_ref());
            let place = candidate.and_then(|candidate| candidate.place.as_ref().ok());
            out.way = match gateway {
                Some(_) => WayKind::Gateway,
                None => WayKind::Device,
            };
            out.gateway = gateway.map(|gateway| gateway.address.to_string());
            out.device = place
                .map(|place| place.device.clone())
                .or_else(|| exit.device.clone());
        }
        Some((_, Way::Block)) => out.way = WayKind::Block,
        Some((_, Way::Direct)) | None => {}
    }
    out
}

fn mark(value: u32, mask: u32) -> Option<String> {
    (mask != 0).then(|| format!("{value:#x}/{mask:#x}"))
}

impl Agent {
    /// The way out of what a client sends to an endpoint, both as they stand in packets.
    fn way_out(&self, client: [u8; 16], endpoint: [u8; 16]) -> Result<WayOut> {
        let note = match self.world.config.exits.is_empty() {
            true => None,
            false => self.plane.tunnel(TunnelKey { client, endpoint })?,
        };
        Ok(match note {
            Some(note) => self.noted(&note, endpoint),
            None => self.unnoted(endpoint),
        })
    }

    /// Of a tunnel that the programs have noted nothing of: where there are exits, it takes none.
    fn unnoted(&self, endpoint: [u8; 16]) -> WayOut {
        let (value, mask) = match self.world.config.exits.is_empty() {
            true => self.owners.mark(endpoint),
            false => (0, 0),
        };
        WayOut {
            mark: mark(value, mask),
            ..WayOut::default()
        }
    }

    /// Of a tunnel of which they have this note.
    fn noted(&self, note: &Tunnel, endpoint: [u8; 16]) -> WayOut {
        let mut exits = self.exits.running().map(|(running, _)| running);
        match exits.find(|running| note.exit != 0 && running.exit.table == note.exit) {
            Some(running) => by(running, family(endpoint)),
            None => WayOut {
                mark: mark(note.mark, note.mask),
                ..WayOut::default()
            },
        }
    }

    /// Puts between what has happened by which way out tunnels go: when a set-up begins, before it is up, and when a phone
    /// has moved to where that is another.
    pub(super) fn with_ways(
        &mut self,
        happened: Vec<Happened>,
    ) -> Result<Vec<(Happened, Option<WayOut>)>> {
        let mut all = Vec::with_capacity(happened.len());
        for one in happened {
            let step = one.change.step;
            let known = |telemetry: &Telemetry| telemetry.ways.get(one.tunnel).is_some();
            let asks = matches!(step, Step::InitSent | Step::Up | Step::Roamed);
            if !asks && self.telemetry.as_ref().is_some_and(known) {
                all.push((one, None));
                continue;
            }
            let way = self.way_out(one.client, one.endpoint)?;
            let Some(telemetry) = &mut self.telemetry else {
                break;
            };
            let changed = telemetry.ways.note(one.tunnel, way.clone());
            let told = exit_of(&one, &way);
            match step {
                // ESP was the last step before.
                Step::Up => all.extend([(told, Some(way)), (one, None)]),
                Step::InitSent => all.extend([(one, None), (told, Some(way))]),
                _ if changed => all.extend([(one, None), (told, Some(way))]),
                _ => all.push((one, None)),
            }
        }
        Ok(all)
    }

    /// Finds the ways of all tunnels, for whoever asks: those that were there at a start have not begun since.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn find_ways(&mut self, now: u64) -> Result<()> {
        let notes: BTreeMap<TunnelKey, Tunnel> = match self.world.config.exits.is_empty() {
            true => BTreeMap::new(),
            false => (self.notes_since(Instant::now() - LOOK)?.iter().copied()).collect(),
        };
        for one in self.present(now) {
            let (client, endpoint) = (one.client, one.endpoint);
            let way = match notes.get(&TunnelKey { client, endpoint }) {
                Some(note) => self.noted(note, endpoint),
                None => self.unnoted(endpoint),
            };
            if let Some(telemetry) = &mut self.telemetry {
                telemetry.ways.note(one.tunnel, way);
            }
        }
        Ok(())
    }

    /// The tunnels whose way out is another than was told.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn moved_ways(&mut self, now: u64) -> Result<Vec<(Happened, Option<WayOut>)>> {
        let mut looked: Vec<(Happened, WayOut)> = Vec::new();
        if self.world.config.exits.is_empty() {
            let live = self.present(now).into_iter();
            let ways = live.map(|one| (self.unnoted(one.endpoint), one));
            looked.extend(ways.map(|(way, one)| (one, way)));
        } else {
            // Who is not noted now is with the next packet that asks. Notes are thousands, and of a few kinds.
            let mut kinds: BTreeMap<_, WayOut> = BTreeMap::new();
            let notes = self.notes_since(Instant::now() - LOOK)?;
            for (key, note) in notes.iter() {
                let tracker = self.telemetry.as_ref().map(|telemetry| &telemetry.tracker);
                let found = tracker.and_then(|tracker| tracker.between(key.client, key.endpoint));
                let Some((id, tunnel)) = found.filter(|(_, tunnel)| lives(tunnel)) else {
                    continue;
                };
                let kind = (note.exit, note.mark, note.mask, family(key.endpoint));
                let way = kinds
                    .entry(kind)
                    .or_insert_with(|| self.noted(note, key.endpoint));
                looked.push((exit_at(id, tunnel, now), way.clone()));
            }
        }
        let Some(telemetry) = &mut self.telemetry else {
            return Ok(Vec::new());
        };
        let is_moved =
            |(one, way): &(Happened, WayOut)| telemetry.ways.note(one.tunnel, way.clone());
        Ok(looked
            .into_iter()
            .filter(is_moved)
            .map(|(one, way)| (exit_of(&one, &way), Some(way)))
            .collect())
    }

    /// The tunnels that are there.
    fn present(&self, now: u64) -> Vec<Happened> {
        let Some(telemetry) = &self.telemetry else {
            return Vec::new();
        };
        let tunnels = telemetry.tracker.tunnels();
        tunnels
            .filter(|(_, tunnel)| lives(tunnel))
            .map(|(id, tunnel)| exit_at(id, tunnel, now))
            .collect()
    }
}

fn lives(tunnel: &tunnel::Tunnel) -> bool {
    !matches!(tunnel.state, State::Gone | State::Failed)
}

fn exit_at(id: Id, tunnel: &tunnel::Tunnel, now: u64) -> Happened {
    Happened {
        tunnel: id,
        client: tunnel.client,
        endpoint: tunnel.endpoint,
        whose: tunnel.whose.clone(),
        change: Change::new(now, Step::Exit),
    }
}

fn family(address: [u8; 16]) -> Family {
    Family::from(IpAddr::from(address).to_canonical())
}

impl Telemetry {
    /// Forgets the ways of tunnels that are forgotten.
    pub(super) fn tidy_ways(&mut self) {
        let tracker = &self.tracker;
        if self.ways.known.len() > tracker.tunnels().len() {
            self.ways.keep(|id| tracker.has(id));
        }
    }
}

fn exit_of(one: &Happened, way: &WayOut) -> Happened {
    Happened {
        change: Change {
            step: Step::Exit,
            detail: way.to_string(),
            from: None,
            ..one.change.clone()
        },
        ..one.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_another_is_told_once() {
        let mut ways = Ways::default();
        let by = |gateway: &str| WayOut {
            exit: Some("au".into()),
            way: WayKind::Gateway,
            gateway: Some(gateway.into()),
            ..WayOut::default()
        };
        assert!(!ways.note(1, by("192.0.2.1")), "the first is no change");
        assert!(!ways.note(2, by("192.0.2.1")));
        assert_eq!(ways.all.len(), 1, "they share it");
        assert!(!ways.note(1, by("192.0.2.1")));
        assert!(ways.note(1, by("192.0.2.2")));
        assert_eq!(ways.get(1), Some(&by("192.0.2.2")));
        ways.keep(|id| id == 1);
        assert_eq!((ways.known.len(), ways.all.len()), (1, 1));
        assert_eq!(ways.get(2), None);
    }

    #[test]
    fn a_way_is_said_with_gateway_device_and_mark() {
        let mut way = WayOut {
            exit: Some("au".into()),
            way: WayKind::Gateway,
            gateway: Some("192.0.2.1".into()),
            device: Some("lan".into()),
            mark: mark(0x66, 0xff),
        };
        assert_eq!(
            way.to_string(),
            "au, by gateway 192.0.2.1 on lan, mark 0x66/0xff"
        );
        way.way = WayKind::Device;
        assert_eq!(way.to_string(), "au, by device lan, mark 0x66/0xff");
        way.way = WayKind::Block;
        assert_eq!(
            way.to_string(),
            "au, no gateway is up: it blocks, mark 0x66/0xff"
        );
        way.way = WayKind::Direct;
        assert_eq!(
            way.to_string(),
            "au, no gateway is up: by the ordinary route, mark 0x66/0xff"
        );
        let none = WayOut::default();
        assert_eq!(none.to_string(), "none, by the ordinary route");
        let marked = WayOut {
            mark: mark(0x65, 0xff),
            ..none
        };
        assert_eq!(
            marked.to_string(),
            "none, by this host's routes for mark 0x65/0xff"
        );
        assert_eq!(mark(0x65, 0), None);
    }
}
