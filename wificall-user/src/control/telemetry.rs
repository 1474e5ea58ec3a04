//! Tunnels and calls: flows read when they are due, and what has happened told.

use std::{
    collections::BTreeMap,
    hash::RandomState,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use tracing::{debug, warn};
use wificall_common::{
    abi::{EventFate, EventKind, Flow, FlowKey},
    wire::nat64::Pref64,
};

use super::{agent::Agent, desired::Desired, label::Label, ways::Ways};
use crate::{
    catalogue::Catalogue,
    config::LabelProfile,
    kernel::{Event, Key, Place, ktime},
    net::{self, UdpTimeouts},
    observe,
    telemetry::{
        note::Note,
        select::{Found, Wanted},
        show::Show,
        totals::Whose,
        tracker::{Happened, Id, Tracker},
        view::{Clients, Overview, Tunnels, WayOut},
    },
};

/// How often what is due is read although no event said so.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How soon it goes on where more was due than is read at once.
pub(super) const SOON: Duration = Duration::from_millis(25);
/// Passes over the whole table are at least so far apart, in nanoseconds: where events are lost all the time, as in a flood,
/// each would be followed by the next.
const APART: u64 = 10_000_000_000;
/// Flows read at once: between two such, whatever else waits has its turn.
const MOST: usize = 2_048;
/// Slices of a pass over the whole table at once.
const SLICES: usize = 4;

/// What is known of tunnels.
pub(super) struct Telemetry {
    pub tracker: Tracker,
    limit: u32,
    /// When it began to look, in nanoseconds of the monotonic clock.
    began: u64,
    /// How far a pass over the whole table has come; `None`: there is none.
    pass: Option<Place>,
    /// When the last one began, in nanoseconds of the monotonic clock.
    passed: u64,
    /// Whether more was due than was read.
    behind: bool,
    /// Events that were lost, as counted when it was looked last.
    dropped: u64,
    /// Likewise, when the last pass began.
    read_for: Option<u64>,
    /// By which way out tunnels go, as was told.
    pub ways: Ways,
    nat: Option<UdpTimeouts>,
}

/// Whose endpoints are.
#[derive(Default)]
pub(super) struct Owners {
    labels: BTreeMap<Key, Arc<Whose>>,
    /// Value and mask of the mark of those whose policies set one, whoever the client is.
    marks: BTreeMap<Key, (u32, u32)>,
    /// Lengths of prefixes, longest first.
    lengths: Vec<u8>,
    pref64: Vec<Pref64>,
    nobody: Arc<Whose>,
}

impl Owners {
    pub(super) fn new(desired: &Desired, pref64: Vec<Pref64>) -> Self {
        let mut known: BTreeMap<&Label, Arc<Whose>> = BTreeMap::new();
        let (mut labels, mut marks) = (BTreeMap::new(), BTreeMap::new());
        for (key, entry) in desired {
            let Some(meaning) = &entry.meaning else {
                continue;
            };
            let label = &meaning.label;
            let whose = known.entry(label).or_insert_with(|| {
                Arc::new(Whose {
                    operator: label.operator.clone(),
                    country: label.country.clone(),
                })
            });
            labels.insert(*key, whose.clone());
            let row = &meaning.row;
            if row.mask != 0 && meaning.choices.is_empty() {
                marks.insert(*key, (row.mark, row.mask));
            }
        }
        let mut lengths: Vec<u8> = labels
            .keys()
            .filter_map(|key| match key {
                Key::Prefix(len, _) => Some(*len),
                _ => None,
            })
            .collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let none = || "none".to_owned();
        Self {
            labels,
            marks,
            lengths,
            pref64,
            nobody: Arc::new(Whose {
                operator: none(),
                country: none(),
            }),
        }
    }

    /// Whose an address is, as it stands in a packet.
    fn of(&self, address: [u8; 16]) -> Arc<Whose> {
        let known = self.key(address).and_then(|key| self.labels.get(&key));
        known.unwrap_or(&self.nobody).clone()
    }

    /// Value and mask of the mark that goes to it whoever the client is; no bits if there is none.
    pub(super) fn mark(&self, address: [u8; 16]) -> (u32, u32) {
        let known = self.key(address).and_then(|key| self.marks.get(&key));
        known.copied().unwrap_or_default()
    }

    /// The entry that an address falls into.
    fn key(&self, address: [u8; 16]) -> Option<Key> {
        let translated = self
            .pref64
            .iter()
            .find_map(|prefix| prefix.extract(&address));
        let address = translated.map_or(address, |[a, b, c, d]| {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        });
        let [first @ .., _, _, _, _, _, _, _, _] = address;
        let block4 = match address {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, _] => [a, b, c, 0],
            _ => [0; 4],
        };
        let mut keys = vec![Key::Host(address)];
        if block4 == [0; 4] {
            keys.push(Key::Block6(first));
        } else {
            keys.push(Key::Block4(block4));
        }
        let prefixes = self.lengths.iter().map(|len| {
            let hidden = 128 - u32::from(*len);
            let network = u128::MAX.checked_shl(hidden).unwrap_or(0);
            Key::Prefix(*len, (u128::from_be_bytes(address) & network).to_be_bytes())
        });
        keys.into_iter()
            .chain(prefixes)
            .find(|key| self.labels.contains_key(key))
    }
}

impl Telemetry {
    fn new(limit: u32) -> Self {
        Self {
            tracker: Tracker::new(limit as usize),
            limit,
            began: ktime(),
            pass: Some(Place::default()),
            passed: ktime(),
            behind: false,
            dropped: 0,
            ways: Ways::default(),
            read_for: None,
            nat: None,
        }
    }

    fn read(&mut self, key: FlowKey, flow: Option<&Flow>, now: u64, owners: &Owners) {
        let is_new = !self.tracker.knows(&key);
        let older = flow.is_some_and(|flow| flow.control.began < self.began);
        self.tracker.adopt(is_new && older);
        self.tracker
            .read(key, flow, now, &|endpoint| owners.of(endpoint));
        self.tracker.adopt(false);
    }
}

/// How things are shown, of this.
fn show<'a>(
    telemetry: &'a Telemetry,
    key: &'a RandomState,
    clients: bool,
    operator: &'a dyn Fn(&str) -> Option<String>,
    exit: &'a dyn Fn(Id) -> Option<WayOut>,
) -> Show<'a> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Show {
        now: ktime(),
        wall: wall.map_or(0, |wall| wall.as_millis() as u64),
        clients,
        key,
        operator,
        exit,
        nat_timeout: telemetry.nat.map(|nat| nat.stream),
    }
}

/// The name of an operator that is written as metrics have it.
pub(super) fn operator_name(catalogue: &Catalogue, plmn: &str) -> Option<String> {
    let operator = catalogue.operator(plmn.parse().ok()?)?;
    (!operator.name.is_empty()).then(|| operator.name.to_owned())
}

impl Agent {
    /// Takes in an event of a flow.
    pub(super) fn note_flow(&mut self, event: &Event) {
        let Some(telemetry) = &mut self.telemetry else {
            return;
        };
        // What an agent before has left unread is in the flows by now.
        if event.at < telemetry.began {
            return;
        }
        let octets = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        };
        let (client, endpoint) = (octets(event.client), octets(event.far));
        let note = Note::new(event.at, client, endpoint, event.client_port, &event.data);
        if let Some(note) = note {
            let owners = &self.owners;
            telemetry
                .tracker
                .note(&note, &|endpoint| owners.of(endpoint));
        }
    }

    /// Whether flows are tracked, or were until now.
    pub(super) fn tracks(&self) -> bool {
        self.world.config.telemetry.enabled || self.telemetry.is_some()
    }

    /// Begins to look, or ends it, as the configuration says.
    fn follow_telemetry(&mut self) {
        if !self.world.config.telemetry.enabled {
            self.telemetry = None;
            return;
        }
        let limit = self.plane.limits().flows;
        let same = |telemetry: &Telemetry| telemetry.limit == limit;
        if !self.telemetry.as_ref().is_some_and(same) {
            self.telemetry = Some(Telemetry::new(limit));
        }
    }

    /// Reads the flows that are due, and settles what they mean.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn follow_flows(&mut self) -> Result<()> {
        self.follow_telemetry();
        let Some(telemetry) = &mut self.telemetry else {
            return Ok(());
        };
        let now = ktime();
        let due = telemetry.tracker.due(now, MOST);
        telemetry.behind = due.len() == MOST;
        for key in due {
            let flow = self.plane.flow(&key)?;
            telemetry.read(key, flow.as_ref(), now, &self.owners);
        }
        telemetry.tracker.settle(now);
        for key in telemetry.tracker.take_over() {
            self.plane.remove_flow(key)?;
        }
        self.tell_flows()
    }

    /// Once a second: begins a pass over the whole table after events were lost, and reads on.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn tick_flows(&mut self) -> Result<()> {
        self.follow_telemetry();
        let Some(telemetry) = &mut self.telemetry else {
            return Ok(());
        };
        telemetry.nat = self.around.tracks().then(net::udp_timeouts).flatten();
        let dropped: u64 = (self.plane.event_counts()?.into_iter())
            .filter(|(kind, fate, _)| *kind == EventKind::Flow && *fate != EventFate::Sent)
            .map(|(.., count)| count)
            .sum();
        // What was lost before it looked is no news.
        if telemetry.read_for.is_some() {
            self.traces.lost(dropped.saturating_sub(telemetry.dropped));
        }
        let now = ktime();
        let may_pass = telemetry.pass.is_none() && now.saturating_sub(telemetry.passed) >= APART;
        // What was lost before it began, the first pass finds.
        let read_for = telemetry.read_for.get_or_insert(dropped);
        if dropped != *read_for && may_pass {
            debug!(dropped, "events of flows were lost: all flows are read");
            telemetry.pass = Some(Place::default());
            telemetry.passed = now;
            *read_for = dropped;
        }
        telemetry.dropped = dropped;
        telemetry.tracker.relieve();
        telemetry.tidy_ways();
        self.follow_ways(now)?;
        self.read_on()
    }

    /// Whether there is more to read than is read at once: then the next second is too late for calls among it.
    pub(super) fn lags(&self) -> bool {
        let lags = |telemetry: &Telemetry| telemetry.behind || telemetry.pass.is_some();
        self.telemetry.as_ref().is_some_and(lags)
    }

    /// Goes on with a pass over the whole table, if there is one, and with the flows that are due.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn read_on(&mut self) -> Result<()> {
        let Some(telemetry) = &mut self.telemetry else {
            return Ok(());
        };
        let now = ktime();
        let passed = telemetry.pass.is_some();
        for _ in 0..SLICES {
            let Some(place) = telemetry.pass else { break };
            let (flows, next) = self.plane.flows(place)?;
            for (key, flow) in flows {
                telemetry.read(key, Some(&flow), now, &self.owners);
            }
            telemetry.pass = next;
        }
        let settled = telemetry.pass.is_none();
        self.follow_flows()?;
        if passed && settled {
            self.find_ways(now)?;
        }
        // Until all are known that are there, what was granted before holds. While events get lost without end, that is at
        // the end of each pass.
        if let Some(telemetry) = &self.telemetry
            && settled
            && (passed || telemetry.read_for == Some(telemetry.dropped))
        {
            let (limit, used) = (telemetry.limit as usize, telemetry.tracker.flows());
            // CPUs that race let more in than there is room for; so does the time until the agent knows of one.
            let kept_back = limit / 16;
            let room = limit.saturating_sub(used + kept_back);
            self.plane.set_flow_room(room as u64)?;
        }
        Ok(())
    }

    /// Tells what has happened.
    fn tell_flows(&mut self) -> Result<()> {
        let Some(telemetry) = &mut self.telemetry else {
            return Ok(());
        };
        let happened = telemetry.tracker.take_happened();
        if happened.is_empty() {
            return Ok(());
        }
        let happened = self.with_ways(happened)?;
        self.tell_all(&happened);
        Ok(())
    }

    /// Tells of tunnels whose way out is another now.
    fn follow_ways(&mut self, now: u64) -> Result<()> {
        let changed = std::mem::take(&mut self.exits.ways_changed);
        if changed || self.may_move() {
            let moved = self.moved_ways(now)?;
            self.tell_all(&moved);
        }
        self.traces.tell_left_out(&self.world.config.telemetry);
        Ok(())
    }

    fn tell_all(&mut self, happened: &[(Happened, Option<WayOut>)]) {
        let Some(telemetry) = &self.telemetry else {
            return;
        };
        let key = self.traces.key.clone();
        let show = show(telemetry, &key, true, &|_| None, &|_| None);
        for (one, way) in happened {
            let whose = (&*one.whose.operator, &*one.whose.country);
            let step = one.change.step;
            let settings = &self.world.config.telemetry;
            self.traces.tell(settings, step, whose, || {
                let mut event = show.event(one);
                event.exit.clone_from(way);
                event
            });
        }
    }

    /// What the report says of tunnels and calls.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn telemetry_report(&self) -> Result<observe::Telemetry> {
        let Some(telemetry) = &self.telemetry else {
            return Ok(observe::Telemetry::default());
        };
        let full = self.world.config.telemetry.labels == LabelProfile::Full;
        let show = show(telemetry, &self.traces.key, false, &|_| None, &|_| None);
        let fates = self.plane.flow_counts()?.into_iter();
        Ok(observe::Telemetry {
            enabled: true,
            rows: show.rows(&telemetry.tracker, full),
            fates: fates
                .map(|(fate, count)| (fate.name().to_owned(), count))
                .collect(),
            events_dropped: telemetry.dropped,
            flows: telemetry.tracker.flows() as u64,
            left_out: telemetry.tracker.left_out,
        })
    }

    /// Writes the metrics for node_exporter.
    pub(super) fn write_textfile(&mut self) {
        let Some(path) = self.world.config.telemetry.textfile.clone() else {
            return;
        };
        let written = self.report().and_then(|report| {
            observe::textfile::write(&path, report)
                .with_context(|| format!("write the metrics to {}", path.display()))
        });
        let problem = written.err().map(|problem| format!("{problem:#}"));
        if let Some(problem) = &problem
            && self.textfile_problem.as_ref() != Some(problem)
        {
            warn!("{problem}");
        }
        self.textfile_problem = problem;
    }

    /// The numbers of all tunnels, by activity.
    pub(super) fn tunnel_ids(&self) -> Vec<Id> {
        let Some(telemetry) = &self.telemetry else {
            return Vec::new();
        };
        show(telemetry, &self.traces.key, false, &|_| None, &|_| None).ids(&telemetry.tracker)
    }

    /// The tunnels that are asked for.
    pub(super) fn tunnels_view(&self, wanted: &Wanted, clients: bool) -> Tunnels {
        let Some(telemetry) = &self.telemetry else {
            return Tunnels::default();
        };
        let catalogue = &self.world.config.catalogue;
        let name = |plmn: &str| operator_name(catalogue, plmn);
        let exit = |id| telemetry.ways.get(id).cloned();
        let show = show(telemetry, &self.traces.key, clients, &name, &exit);
        let Found { found, tunnels } = show.wanted(&telemetry.tracker, wanted);
        Tunnels {
            now: show.wall,
            enabled: true,
            clients: if clients {
                Clients::Shown
            } else {
                Clients::Hashed
            },
            total: telemetry.tracker.tunnels().len() as u64,
            found: found as u64,
            tunnels,
        }
    }

    /// What there is at a glance.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn overview(&self) -> Result<Overview> {
        let report = self.report()?;
        let mut overview = match &self.telemetry {
            Some(telemetry) => {
                let catalogue = &self.world.config.catalogue;
                let name = |plmn: &str| operator_name(catalogue, plmn);
                show(telemetry, &self.traces.key, false, &name, &|_| None)
                    .overview(&telemetry.tracker)
            }
            None => Overview {
                now: report.at * 1_000,
                ..Overview::default()
            },
        };
        let started = report.started.unwrap_or(report.at);
        overview.uptime_seconds = report.at.saturating_sub(started);
        let health = &mut overview.health;
        health.ready = report.ready;
        health.problems = report.problems;
        health.dns = report.discovery.name_states.into_iter().collect();
        health.flows_limit = self.plane.limits().flows.into();
        health.events_dropped = self.telemetry.as_ref().map_or(0, |t| t.dropped);
        health.hooks_missing = (report.interfaces.iter())
            .filter(|interface| interface.problem.is_some())
            .count() as u64;
        for interface in report.interfaces {
            let hooks = interface.hooks.iter();
            let names = hooks.map(|hook| format!("{} {}", interface.name, hook.hook));
            health.hooks.extend(names);
        }
        Ok(overview)
    }
}
