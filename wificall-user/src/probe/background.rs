//! The agent's slow round: whether the known ePDGs still answer, before a user finds out.
//!
//! A task of its own, which sends one exchange at a time and shares nothing with the agent's loop but the results. What
//! it computes is one public value a group and process, and a few hundred bytes a probe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::exchange::Timing;
use super::keys::{Group, Keys};
use super::outcome::{Finding, VerdictKind};
use super::plan::Admission;
use super::schedule::{Key, Schedule};
use super::socket::Source;
use super::sweep::{Follow, Options, exchange};
use super::system_random;
use crate::discover::{Owner, Resolver};

/// More addresses are not probed. All ePDGs of the world are about 800.
pub const ADDRESSES_MAX: usize = 2048;

/// How to probe.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often each address and port.
    pub interval: Duration,
    /// The least time between two exchanges.
    pub spacing: Duration,
    /// The ports.
    pub ports: Vec<u16>,
    /// What may be probed.
    pub admission: Admission,
}

/// What to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is.
    pub owners: Arc<BTreeSet<Owner>>,
    /// Where the probe is sent from: the way that its phones' packets take.
    pub source: Source,
}

impl Wanted {
    /// The operators whose address it is.
    pub fn operators(&self) -> BTreeSet<String> {
        let plmns = self.owners.iter().filter_map(|owner| owner.plmn);
        plmns.map(|plmn| plmn.to_string()).collect()
    }
}

/// What came of the last exchange with an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// How it ended.
    pub kind: VerdictKind,
    /// More of it, for people.
    pub detail: String,
    /// Its round-trip time.
    pub rtt: Option<Duration>,
}

/// The results, and what they are results of.
#[derive(Debug, Default)]
pub struct State {
    /// Whether probing is on.
    pub enabled: bool,
    /// The ports that each is probed at.
    pub ports: Vec<u16>,
    /// What is probed.
    pub wanted: BTreeMap<IpAddr, Wanted>,
    /// Addresses beyond [`ADDRESSES_MAX`].
    pub left_out: usize,
    /// The last result of each.
    pub last: BTreeMap<Key, Last>,
    /// When an address agreed to a suite last, by operator.
    pub last_success: BTreeMap<String, SystemTime>,
    /// Exchanges by how they ended, in the order of [`VerdictKind::ALL`].
    pub exchanges: [u64; VerdictKind::ALL.len()],
    /// Who resolves redirects by name.
    pub resolver: Option<Current>,
}

impl State {
    fn add(&mut self, key: Key, finding: &Finding, now: SystemTime) {
        let kind = finding.verdict.kind();
        self.exchanges[kind as usize] += 1;
        let Some(wanted) = self.wanted.get(&key.0) else {
            return;
        };
        if kind == VerdictKind::Reachable {
            for operator in wanted.operators() {
                self.last_success.insert(operator, now);
            }
        }
        let last = Last {
            kind,
            detail: finding.verdict.detail(),
            rtt: finding.rtt,
        };
        self.last.insert(key, last);
    }

    fn replace(&mut self, settings: Option<&Settings>, wanted: BTreeMap<IpAddr, Wanted>) {
        self.enabled = settings.is_some();
        self.ports = settings.map_or(Vec::new(), |settings| settings.ports.clone());
        let ports = &self.ports;
        self.left_out = wanted.len().saturating_sub(ADDRESSES_MAX);
        self.wanted = wanted.into_iter().take(ADDRESSES_MAX).collect();
        let wanted = &self.wanted;
        self.last
            .retain(|(address, port), _| wanted.contains_key(address) && ports.contains(port));
        let operators: BTreeSet<_> = wanted.values().flat_map(Wanted::operators).collect();
        self.last_success
            .retain(|operator, _| operators.contains(operator));
    }
}

/// The resolver in force: who resolves a redirect by name.
pub type Current = watch::Receiver<Arc<Resolver>>;
type Shared = Arc<Mutex<State>>;
type Order = Option<Settings>;

/// The running task. It ends when this is dropped.
#[derive(Debug)]
pub struct Prober {
    state: Shared,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts the task on the current tokio runtime. It does nothing until it is told to.
    #[must_use]
    pub fn spawn() -> Self {
        let state = Shared::default();
        let (orders, ordered) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(state.clone(), ordered));
        Self {
            state,
            orders,
            task,
        }
    }

    /// Probes these addresses from now on; without settings, none. What stays keeps its time and its result.
    pub fn follow(&self, settings: Option<Settings>, wanted: BTreeMap<IpAddr, Wanted>) {
        let mut state = lock(&self.state);
        if settings.is_none() && !state.enabled {
            return;
        }
        state.replace(settings.as_ref(), wanted);
        drop(state);
        if self.orders.send(settings).is_err() {
            warn!("the task that probes has ended");
        }
    }

    /// Asks for the names of gateways in redirects there. Before, such redirects are not followed.
    pub fn resolve_by(&self, resolver: Current) {
        lock(&self.state).resolver = Some(resolver);
    }

    /// The results so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(state: Shared, mut orders: mpsc::UnboundedReceiver<Order>) {
    let keys = Arc::new(Keys::new(system_random));
    let mut schedule = Schedule::new(Duration::MAX, Duration::MAX);
    let mut settings: Order = None;
    let mut first = true;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(order) => {
                    let now = Instant::now();
                    if let Some(new) = &order {
                        if first {
                            schedule = Schedule::new(new.interval, new.spacing);
                            first = false;
                        } else {
                            schedule.configure(new.interval, new.spacing, now);
                        }
                    }
                    schedule.replace(&wanted(&lock(&state), order.as_ref()), now);
                    settings = order;
                }
            },
            () = wait_until(schedule.wake()) => {
                let Some(settings) = &settings else { continue };
                let Some(key) = schedule.take(Instant::now(), random()) else { continue };
                let finding = one(key, settings, &state, &keys).await;
                schedule.finish(key, Instant::now(), random());
                lock(&state).add(key, &finding, SystemTime::now());
            }
        }
    }
}

fn wanted(state: &State, settings: Option<&Settings>) -> BTreeSet<Key> {
    let ports = settings.map_or(&[][..], |settings| &settings.ports);
    let addresses = state.wanted.keys();
    addresses
        .flat_map(|address| ports.iter().map(|port| (*address, *port)))
        .collect()
}

async fn one(key: Key, settings: &Settings, state: &Shared, keys: &Arc<Keys>) -> Finding {
    let (address, port) = key;
    let (source, owners, resolver) = {
        let state = lock(state);
        let wanted = state.wanted.get(&address);
        let resolver = state.resolver.as_ref().map(|it| it.borrow().clone());
        (
            wanted.map_or_else(Source::default, |wanted| wanted.source),
            wanted
                .map(|wanted| wanted.owners.clone())
                .unwrap_or_default(),
            resolver,
        )
    };
    let options = Options {
        ports: Vec::new(),
        per_second: 1,
        timing: Timing::default(),
        group: Group::Modp2048,
        source,
    };
    let follow = Follow {
        admission: &settings.admission,
        resolver: resolver.as_deref(),
    };
    let remote = SocketAddr::new(address, port);
    let finding = exchange(remote, &owners, &options, follow, keys).await;
    let result = finding.verdict.kind().as_str();
    debug!(%address, port, result, detail = finding.verdict.detail(), "probed");
    finding
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn random() -> u8 {
    let mut random = [0];
    system_random(&mut random);
    random[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Filter;

    fn settings(ports: &[u16]) -> Settings {
        Settings {
            interval: Duration::from_secs(3600),
            spacing: Duration::from_millis(1),
            ports: ports.to_vec(),
            admission: Admission::new(Filter::default(), true),
        }
    }

    fn wanted(addresses: &[&str]) -> BTreeMap<IpAddr, Wanted> {
        let wanted = Wanted {
            owners: Arc::default(),
            source: Source::default(),
        };
        let addresses = addresses.iter().map(|a| a.parse().unwrap());
        addresses.map(|address| (address, wanted.clone())).collect()
    }

    async fn until(prober: &Prober, what: impl Fn(&State) -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !what(&prober.state()) {
            assert!(Instant::now() < patience, "{:?}", prober.state());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn it_probes_what_it_is_told_until_it_is_told_otherwise() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let prober = Prober::spawn();
        prober.follow(None, wanted(&["127.0.0.1"]));
        assert!(prober.state().wanted.is_empty(), "nothing without settings");
        prober.follow(Some(settings(&[port])), wanted(&["127.0.0.1", "127.0.0.2"]));
        until(&prober, |state| state.last.len() == 2).await;
        {
            let state = prober.state();
            for last in state.last.values() {
                assert_eq!(last.kind, VerdictKind::Unreachable, "{last:?}");
            }
            assert_eq!(state.exchanges[VerdictKind::Unreachable as usize], 2);
            assert!(state.last_success.is_empty());
        }
        prober.follow(Some(settings(&[port])), wanted(&["127.0.0.2"]));
        assert_eq!(prober.state().last.len(), 1);
        prober.follow(None, BTreeMap::new());
        assert!(!prober.state().enabled && prober.state().last.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut state = State::default();
        let many = (0..3000_u32)
            .map(|n| {
                (
                    IpAddr::from(n.to_be_bytes()),
                    wanted(&["127.0.0.1"]).into_values().next().unwrap(),
                )
            })
            .collect();
        state.replace(Some(&settings(&[500])), many);
        assert_eq!(
            (state.wanted.len(), state.left_out),
            (ADDRESSES_MAX, 3000 - ADDRESSES_MAX)
        );
        // A result of what is no longer wanted is counted and not kept.
        let gone = (IpAddr::from([255, 0, 0, 1]), 500);
        state.add(gone, &Finding::failed("x".to_owned()), SystemTime::now());
        assert!(state.last.is_empty());
        assert_eq!(state.exchanges.iter().sum::<u64>(), 1);
    }
}
