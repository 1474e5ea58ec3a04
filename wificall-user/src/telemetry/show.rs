//! Tunnels and calls as others see them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::Arc,
};

use wificall_common::{abi::FlowKey, flow::Milestone, wire::PROTOCOL_ESP};

use super::{
    call::Call,
    leg::Leg,
    notify,
    setup::{Outcome, Setup},
    sides::{self, Evidence},
    totals::{Totals, Whose},
    tracker::{Happened, Id, Tracker},
    tunnel::Tunnel,
    view::{self, HalfLeg, Received, Sample, State, Voice},
};
use crate::observe::{TelemetryLeg, TelemetryRow};

const MILLISECOND: u64 = 1_000_000;
/// Tunnels that were seen within this say on whose side trouble is, in nanoseconds: that of the last minutes.
const RECENT: u64 = sides::MINUTES as u64 * 60_000 * MILLISECOND;

/// How things are shown.
pub struct Show<'a> {
    /// Now, in nanoseconds of the monotonic clock.
    pub now: u64,
    /// Now, in milliseconds since 1970-01-01 UTC.
    pub wall: u64,
    /// Whether clients' addresses are shown.
    pub clients: bool,
    /// The key of what is shown instead, and of tunnels' names.
    pub key: &'a RandomState,
    /// An operator's name, by its PLMN.
    pub operator: &'a dyn Fn(&str) -> Option<String>,
    /// A tunnel's way out, if that is known.
    pub exit: &'a dyn Fn(Id) -> Option<view::WayOut>,
    /// Time after which this host's NAT forgets a mapping, in seconds.
    pub nat_timeout: Option<u64>,
}

/// Rounds that make a tunnel's name of its number.
const ROUNDS: [u8; 4] = [0, 1, 2, 3];

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
fn halves(whole: u64) -> (u32, u32) {
    ((whole >> 32) as u32, whole as u32)
}

/// An address as it is written.
#[must_use]
pub fn address(octets: [u8; 16]) -> IpAddr {
    IpAddr::from(octets).to_canonical()
}

/// What is shown instead of a client's address.
#[must_use]
pub fn stands_for(key: &RandomState, client: [u8; 16]) -> String {
    format!("client-{:016x}", key.hash_one(("client", client)))
}

impl Show<'_> {
    /// A time of day, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn time(&self, at: u64) -> u64 {
        let ago = self.now.saturating_sub(at) / MILLISECOND;
        self.wall.saturating_sub(ago)
    }

    /// What a tunnel is called: its number under the key, which says nothing of how many there are, and means nothing after a
    /// start of the agent.
    #[must_use]
    pub fn id(&self, id: Id) -> String {
        let (mut left, mut right) = halves(id);
        for round in ROUNDS {
            (left, right) = (right, left ^ self.mix(round, right));
        }
        format!("{left:08x}{right:08x}")
    }

    /// The number of what is called so; whether there is such a tunnel is another question.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<Id> {
        let is_name =
            name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (mut left, mut right) = halves(u64::from_str_radix(name, 16).ok().filter(|_| is_name)?);
        for round in ROUNDS.into_iter().rev() {
            (left, right) = (right ^ self.mix(round, left), left);
        }
        Some(u64::from(left) << 32 | u64::from(right))
    }

    /// What a round of a Feistel network takes of a half.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of a hash is one, too"
    )]
    fn mix(&self, round: u8, half: u32) -> u32 {
        self.key.hash_one(("tunnel", round, half)) as u32
    }

    /// A client's address, or what stands for it.
    #[must_use]
    pub fn client(&self, client: [u8; 16]) -> String {
        if self.clients {
            address(client).to_string()
        } else {
            stands_for(self.key, client)
        }
    }

    /// Whether this host's NAT forgets a tunnel's mapping before its next keepalive.
    #[must_use]
    pub fn nat_is_shorter(&self, tunnel: &Tunnel) -> bool {
        let timeout = self.nat_timeout.map(|seconds| seconds * 1_000);
        tunnel.keepalive != 0 && timeout.is_some_and(|ms| ms <= tunnel.keepalive.into())
    }

    /// A tunnel.
    #[must_use]
    pub fn tunnel(&self, tracker: &Tracker, id: Id, tunnel: &Tunnel) -> view::Tunnel {
        let ms = |micros: u32| (micros != 0).then(|| f64::from(micros) / 1e3);
        let [network, client] = tunnel.round_trip;
        let [up, down] = tunnel.legs;
        let whose = &*tunnel.whose;
        let ongoing = tunnel.detector.call.as_deref();
        view::Tunnel {
            id: self.id(id),
            client: self.client(tunnel.client),
            endpoint: address(tunnel.endpoint).to_string(),
            owners: plmns(whose).map(str::to_owned).collect(),
            operator: self.operator(whose),
            country: country(whose),
            state: tunnel.state,
            since: self.time(tunnel.since),
            began: self.time(tunnel.began),
            seen: self.time(tunnel.seen),
            setup: tunnel.setup.as_ref().map(|setup| self.setup(setup)),
            flows: (tunnel.flows.iter())
                .map(|key| self.flow(tracker, key))
                .collect(),
            keepalive_ms: (tunnel.keepalive != 0).then_some(tunnel.keepalive.into()),
            nat_timeout_shorter: self.nat_is_shorter(tunnel),
            round_trip_client_ms: ms(client),
            round_trip_network_ms: ms(network),
            packets_up: up.packets,
            packets_down: down.packets,
            bytes_up: up.bytes,
            bytes_down: down.bytes,
            roamed: tunnel.roamed,
            exit: (self.exit)(id),
            calls: (ongoing.into_iter().chain(&tunnel.calls))
                .map(|call| self.call(call, tunnel.round_trip))
                .collect(),
        }
    }

    fn flow(&self, tracker: &Tracker, key: &FlowKey) -> view::Flow {
        let seen = tracker.seen(key);
        view::Flow {
            client: self.client(key.client),
            port: key.port,
            protocol: if key.protocol == PROTOCOL_ESP {
                "esp"
            } else {
                "udp"
            }
            .into(),
            seen: seen.map_or(0, |seen| self.time(seen)),
        }
    }

    fn setup(&self, setup: &Setup) -> view::Setup {
        let goes_on = setup.outcome.is_none();
        let failed = matches!(setup.outcome, Some(Outcome::Failed(_)));
        let next = setup.next().filter(|_| goes_on || failed);
        let reached = |milestone| Some((milestone, setup.at(milestone)?));
        view::Setup {
            began: self.time(setup.began),
            milestones: (Milestone::ALL.into_iter().filter_map(reached))
                .map(|(milestone, at)| view::Milestone {
                    name: milestone.name().into(),
                    after_ms: millis(at.saturating_sub(setup.began)),
                })
                .collect(),
            stalled: next.map(|next| next.name().into()),
            stalled_ms: next.map(|_| self.now.saturating_sub(last(setup)) / MILLISECOND),
            result: setup.outcome.map(|outcome| outcome.name().into()),
            notify: (setup.notify != 0).then(|| notify::name(setup.notify)),
            took_ms: setup.took().map(millis),
            auth_responses: setup.auth_responses.into(),
            retransmitted: setup.retransmitted.into(),
        }
    }

    fn call(&self, call: &Call, round_trip: [u32; 2]) -> view::Call {
        let mos = call.mos(round_trip);
        let leg = |n: usize| half_leg(&call.legs[n], call.jitter[n]);
        view::Call {
            state: call.voice,
            since: self.time(call.began),
            ended: call.ended.map(|ended| self.time(ended)),
            seconds: call.lasted(self.now) / 1_000_000_000,
            client_to_us: leg(0),
            network_to_us: leg(1),
            mos: mos.ok(),
            mos_missing: mos.err().map(str::to_owned),
            history: (call.history.iter())
                .map(|look| Sample {
                    at: self.time(look.at),
                    up: small(look.legs[0].received),
                    up_lost: small(missing(&look.legs[0])),
                    down: small(look.legs[1].received),
                    down_lost: small(missing(&look.legs[1])),
                })
                .collect(),
        }
    }

    /// Something that happened.
    #[must_use]
    pub fn event(&self, happened: &Happened) -> view::TraceEvent {
        view::TraceEvent {
            at: self.time(happened.change.at),
            tunnel: self.id(happened.tunnel),
            client: self.client(happened.client),
            endpoint: address(happened.endpoint).to_string(),
            step: happened.change.step,
            detail: happened.change.detail.clone(),
            after_ms: happened.change.after.map(millis),
            exit: None,
            from: happened.change.from.map(|from| self.client(from)),
        }
    }

    /// All but the health.
    #[must_use]
    pub fn overview(&self, tracker: &Tracker) -> view::Overview {
        let mut overview = view::Overview {
            now: self.wall,
            enabled: true,
            tunnels: State::ALL.into_iter().map(|state| (state, 0)).collect(),
            ..view::Overview::default()
        };
        let mut rows: BTreeMap<&Whose, view::Operator> = BTreeMap::new();
        for (whose, tunnels) in self.by_owner(tracker) {
            let row = rows.entry(whose).or_default();
            for (state, count) in State::ALL.into_iter().zip(tunnels.states) {
                *overview.tunnels.entry(state).or_default() += count;
                if !matches!(state, State::Gone | State::Failed) {
                    row.tunnels += count;
                }
            }
            row.calls += tunnels.calls;
            overview.calls_active += tunnels.calls;
            overview.calls_one_way += tunnels.one_way;
            overview.health.nat_timeout_shorter += tunnels.nat_timeout_shorter;
        }
        for (whose, totals) in tracker.totals() {
            overview.calls_total += totals.calls;
            let row = rows.entry(whose).or_default();
            results(row, totals);
        }
        for ((whose, outcome), count) in tracker.clients().count(self.now) {
            let row = rows.entry(whose).or_default();
            match outcome {
                Outcome::Ok => row.clients_ok += count,
                Outcome::Failed(_) => row.clients_failed += count,
                Outcome::Detour => {}
            }
        }
        overview.operators = (rows.into_iter())
            .map(|(whose, row)| view::Operator {
                name: self.operator(whose),
                plmn: match plmns(whose).collect::<Vec<_>>()[..] {
                    [plmn] => plmn.into(),
                    _ => String::new(),
                },
                country: country(whose),
                ..row
            })
            .collect();
        overview.operators.sort_by_key(|row| u64::MAX - row.tunnels);
        overview.minutes = (tracker.minutes(self.now).iter())
            .map(|minute| view::Minute {
                at: self.time(minute.began),
                client_to_us: received(&minute.legs[0]),
                network_to_us: received(&minute.legs[1]),
                calls: minute.calls,
            })
            .collect();
        let evidence = self.all_evidence(tracker);
        overview.sides = sides::judge(&overview.minutes, &evidence);
        overview.health.flows = tracker.flows() as u64;
        overview.health.nat_timeout_seconds = self.nat_timeout;
        overview
    }

    /// What the report has of it, by owner, or by country alone.
    #[must_use]
    pub fn rows(&self, tracker: &Tracker, full: bool) -> Vec<TelemetryRow> {
        let label = |whose: &Whose| {
            let operator = if full {
                whose.operator.clone()
            } else {
                String::new()
            };
            (operator, whose.country.clone())
        };
        let mut all: BTreeMap<(String, String), Row> = BTreeMap::new();
        for (whose, totals) in tracker.totals() {
            all.entry(label(whose)).or_default().totals.merge(totals);
        }
        for (whose, tunnels) in self.by_owner(tracker) {
            let row = all.entry(label(whose)).or_default();
            for (state, count) in State::ALL.into_iter().zip(tunnels.states) {
                *row.tunnels.entry(state).or_default() += count;
            }
            row.calls += tunnels.calls;
            row.one_way += tunnels.one_way;
            row.nat_timeout_shorter += tunnels.nat_timeout_shorter;
        }
        for ((whose, outcome), count) in tracker.clients().count(self.now) {
            let row = all.entry(label(whose)).or_default();
            *row.clients.entry(outcome).or_default() += count;
        }
        let rows = all.into_iter();
        rows.map(|((operator, country), row)| row.shown(operator, country))
            .collect()
    }

    /// What tunnels say of the sides. Those that are just up say the same for each owner: once.
    fn all_evidence(&self, tracker: &Tracker) -> Vec<Evidence> {
        let recent = |tunnel: &Tunnel| self.now.saturating_sub(tunnel.seen) < RECENT;
        let mut up: HashSet<*const Whose> = HashSet::new();
        let mut all = Vec::new();
        for (_, tunnel) in tracker.tunnels().filter(|(_, tunnel)| recent(tunnel)) {
            let is_plain = matches!(tunnel.state, State::Up | State::Idle)
                && self.last_call(tunnel).is_none()
                && !self.nat_is_shorter(tunnel);
            // What goes on or is over says nothing.
            let says = !matches!(tunnel.state, State::SettingUp | State::Gone);
            if says && (!is_plain || up.insert(Arc::as_ptr(&tunnel.whose))) {
                all.push(self.evidence(tunnel));
            }
        }
        all
    }

    /// The call that goes on, or that ended within the minutes that count.
    fn last_call<'t>(&self, tunnel: &'t Tunnel) -> Option<&'t Call> {
        let ended = |call: &Call| call.ended.unwrap_or_default();
        let before = tunnel.calls.front();
        let before = before.filter(|call| self.now.saturating_sub(ended(call)) < RECENT);
        tunnel.detector.call.as_deref().or(before)
    }

    fn evidence(&self, tunnel: &Tunnel) -> Evidence {
        let voice = tunnel.detector.call.as_ref().map(|call| call.voice);
        let call = self.last_call(tunnel);
        let setup = tunnel.setup.as_ref();
        let cause = setup.and_then(|setup| match setup.outcome? {
            Outcome::Failed(cause) => Some((cause, setup.next())),
            Outcome::Ok | Outcome::Detour => None,
        });
        Evidence {
            owner: self.operator(&tunnel.whose),
            works: matches!(tunnel.state, State::Up | State::Call | State::Idle),
            failed: cause.filter(|_| tunnel.state == State::Failed),
            voice,
            network_to_us: call.map_or_else(Received::default, |call| received(&call.legs[1])),
            nat_timeout_shorter: self.nat_is_shorter(tunnel),
        }
    }

    /// Counts the tunnels by owner. Tunnels are many, and share their owners: these are told apart by where they are, so that
    /// one may come twice.
    fn by_owner<'t>(&self, tracker: &'t Tracker) -> impl Iterator<Item = (&'t Whose, Tunnels)> {
        let mut all: HashMap<*const Whose, (&Whose, Tunnels)> = HashMap::new();
        for (_, tunnel) in tracker.tunnels() {
            let whose = &tunnel.whose;
            let entry = all.entry(Arc::as_ptr(whose));
            let (_, tunnels) = entry.or_insert_with(|| (whose, Tunnels::default()));
            tunnels.states[tunnel.state as usize] += 1;
            if let Some(call) = &tunnel.detector.call {
                tunnels.calls += 1;
                tunnels.one_way += u64::from(is_one_way(call));
            }
            tunnels.nat_timeout_shorter += u64::from(self.nat_is_shorter(tunnel));
        }
        all.into_values()
    }

    pub(super) fn operator(&self, whose: &Whose) -> String {
        let mut owners = plmns(whose);
        match (owners.next(), owners.next()) {
            (Some(plmn), None) => (self.operator)(plmn).unwrap_or_else(|| plmn.into()),
            (Some(_), Some(_)) => "several".into(),
            _ => "unknown".into(),
        }
    }
}

fn is_one_way(call: &Call) -> bool {
    matches!(call.voice, Voice::OneWayUp | Voice::OneWayDown)
}

/// What an owner's tunnels do.
#[derive(Default)]
struct Tunnels {
    /// In the order of [`State::ALL`].
    states: [u64; State::ALL.len()],
    calls: u64,
    one_way: u64,
    nat_timeout_shorter: u64,
}

/// What adds up to a row of the report.
#[derive(Default)]
struct Row {
    totals: Totals,
    tunnels: BTreeMap<State, u64>,
    clients: BTreeMap<Outcome, u64>,
    calls: u64,
    one_way: u64,
    nat_timeout_shorter: u64,
}

impl Row {
    fn shown(self, operator: String, country: String) -> TelemetryRow {
        let totals = self.totals;
        let legs = ["client_to_us", "network_to_us"].into_iter();
        let legs = legs.zip(totals.legs).zip(totals.jitter);
        TelemetryRow {
            operator,
            country,
            tunnels: (State::ALL.into_iter())
                .map(|state| {
                    let count = self.tunnels.get(&state).copied();
                    (state.name().to_owned(), count.unwrap_or_default())
                })
                .collect(),
            calls: self.calls,
            one_way: self.one_way,
            calls_total: totals.calls,
            one_way_total: totals.one_way,
            call_seconds: totals.call_ns / 1_000_000_000,
            legs: legs
                .map(|((name, leg), jitter)| TelemetryLeg {
                    half_leg: name.to_owned(),
                    received: leg.received,
                    lost: leg.lost,
                    late: leg.late,
                    duplicate: leg.duplicate,
                    stray: leg.stray,
                    jitter,
                })
                .collect(),
            setups: by_name(&totals.setups),
            setup_clients: by_name(&self.clients),
            setup_seconds: totals.setup_seconds,
            round_trip: totals.round_trip,
            nat_timeout_shorter: self.nat_timeout_shorter,
        }
    }
}

/// All outcomes, those too that have not come yet: of a counter that begins with 1, Prometheus sees no increase.
fn by_name(counts: &BTreeMap<Outcome, u64>) -> Vec<(String, u64)> {
    let outcomes = Outcome::ALL.into_iter();
    outcomes
        .map(|outcome| {
            let count = counts.get(&outcome).copied();
            (outcome.name().to_owned(), count.unwrap_or_default())
        })
        .collect()
}

fn results(row: &mut view::Operator, totals: &Totals) {
    for (outcome, count) in &totals.setups {
        match outcome {
            Outcome::Ok => row.setups_ok += count,
            Outcome::Failed(cause) => *row.setups_failed.entry(*cause).or_default() += count,
            Outcome::Detour => {}
        }
    }
}

/// When the last milestone was reached.
fn last(setup: &Setup) -> u64 {
    let reached = setup.reached.into_iter().flatten();
    reached.max().unwrap_or(setup.began)
}

/// The PLMNs of an owner's label: other words in it are none.
pub(super) fn plmns(whose: &Whose) -> impl Iterator<Item = &str> {
    let is_plmn = |part: &&str| part.starts_with(|c: char| c.is_ascii_digit());
    whose.operator.split('+').filter(is_plmn)
}

pub(super) fn country(whose: &Whose) -> String {
    let is_one = whose.country.len() == 2;
    if is_one {
        whose.country.clone()
    } else {
        String::new()
    }
}

fn missing(leg: &Leg) -> u64 {
    leg.missing.max(0).cast_unsigned()
}

pub(super) fn received(leg: &Leg) -> Received {
    Received::new(leg.received, missing(leg))
}

fn half_leg(leg: &Leg, jitter: u32) -> HalfLeg {
    let Received {
        received,
        lost,
        loss_percent,
    } = received(leg);
    HalfLeg {
        received,
        lost,
        loss_percent,
        late: leg.late,
        duplicate: leg.duplicate,
        jitter_ms: (leg.talk > 0).then(|| f64::from(jitter) / 1e6),
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
fn millis(nanos: u64) -> f64 {
    (nanos / 1_000) as f64 / 1e3
}
