//! The exits of the agent: what gateways say goes in, rules and routes come out.
//!
//! The steps in which anything is installed: it is written to the record, then done; what is removed is done, then taken
//! out of the record. So a record never has less than there is.

mod force;
mod problems;
mod remove;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result};
use tracing::{info, warn};

pub(crate) use self::remove::remove;
pub(crate) use self::survey::check;
use self::survey::{check_with, families, network, read_routes};
use super::world::Steering;
use crate::config::{Client, Config, Interfaces};
use crate::net::{self, Family};
use crate::steer::check::Findings;
use crate::steer::machine::{Machine, Moved, Running};
use crate::steer::place::Network;
use crate::steer::prober::{Heard, Prober};
use crate::steer::record::Record;

/// Why the rules and routes are compared with what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// The configuration or a gateway is another, and only to add: what is no longer wanted goes when nothing leads there.
    Adding,
    /// The configuration or a gateway is another.
    Moving,
    /// Somebody may have changed them.
    Looking,
}

/// The exits, and what is known of them.
pub(super) struct Exits {
    path: PathBuf,
    record: Record,
    machine: Machine,
    prober: Prober,
    network: Network,
    since: BTreeMap<(u32, Family), SystemTime>,
    /// What the configuration meets on this box.
    warnings: Vec<String>,
    /// Sysctls that should be others.
    advice: Vec<String>,
    /// Sysctls that could not be set, or set back.
    unset: Vec<String>,
    /// Exits whose IKE is tried with nobody, by name.
    untried: BTreeSet<String>,
    /// What can be asked by each exit (by table), as policies are; `None`: they may have changed since.
    pub epdgs: Option<BTreeMap<(u32, Family), IpAddr>>,
    /// What went wrong the last time.
    problem: Option<String>,
    /// Rules and routes put back after somebody removed them.
    pub repairs: u64,
    /// Exits whose tunnels have moved and whose tracked connections are still to be forgotten.
    moved: BTreeSet<u32>,
    /// Whether an exit has taken another way, or is another, since tunnels' ways out were looked at.
    pub ways_changed: bool,
    /// When it was looked at last which exits have tunnels.
    pub looked: Option<Instant>,
    followed: (BTreeSet<u32>, BTreeSet<IpAddr>),
}

/// What is known of the exits of a configuration, to go on with if the next one is refused.
pub(super) struct Kept {
    machine: Machine,
    since: BTreeMap<(u32, Family), SystemTime>,
}

impl Exits {
    /// Reads what an agent before has installed. Nothing is done yet.
    pub(super) fn load(path: PathBuf) -> Self {
        let (record, problem) = match Record::load(&path) {
            Ok(record) => (record, None),
            Err(error) => (Record::default(), Some(format!("{error:#}"))),
        };
        if let Some(problem) = &problem {
            warn!("{problem}");
        }
        Self {
            path,
            record,
            machine: Machine::default(),
            prober: Prober::default(),
            network: Network::default(),
            since: BTreeMap::new(),
            warnings: Vec::new(),
            advice: Vec::new(),
            unset: Vec::new(),
            untried: BTreeSet::new(),
            epdgs: None,
            problem,
            repairs: 0,
            moved: BTreeSet::new(),
            ways_changed: false,
            looked: None,
            followed: Default::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.machine.exits().is_empty() && self.record.is_empty()
    }

    /// Checks a configuration against this box. Changes nothing.
    pub(super) async fn check(&self, config: &Config) -> Result<Findings> {
        check_with(config, &self.record, &self.path).await
    }

    /// Takes over what the kernel has, at a start.
    pub(super) async fn adopt(&mut self, config: &Config) -> Result<()> {
        self.configure(config).await?;
        if self.is_idle() {
            return Ok(());
        }
        let rules = net::rules().await.context("read the policy rules")?;
        let routes = read_routes(&self.machine.desired().tables()).await?;
        self.machine.adopt(&rules, &routes);
        Ok(())
    }

    /// Takes the exits of a configuration that has been checked. Nothing is installed yet.
    pub(super) async fn configure(&mut self, config: &Config) -> Result<()> {
        self.machine.configure(&config.exits, &families());
        self.ways_changed = true;
        if self.is_idle() {
            self.follow_machine();
            return Ok(());
        }
        self.follow(&config.interfaces).await
    }

    /// What is known of the exits, before others are taken.
    pub(super) fn keep(&self) -> Kept {
        Kept {
            machine: self.machine.clone(),
            since: self.since.clone(),
        }
    }

    /// Goes on with the exits as they were: which gateways are up, and the ways in use. Nothing is installed yet.
    pub(super) fn put_back(&mut self, kept: Kept) {
        Kept {
            machine: self.machine,
            since: self.since,
        } = kept;
    }

    /// What was found by checking a configuration that is in force now.
    pub(super) fn note_warnings(&mut self, warnings: Vec<String>) {
        for warning in &warnings {
            warn!("{warning}");
        }
        self.warnings = warnings;
    }

    /// Reads links and addresses again.
    pub(super) async fn follow(&mut self, interfaces: &Interfaces) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        self.network = network(interfaces).await?;
        self.machine.follow(&self.network, Instant::now());
        self.follow_machine();
        Ok(())
    }

    fn follow_machine(&mut self) {
        self.prober.ask(self.machine.questions());
    }

    /// Whether IKE is to be tried with ePDGs that policies send by exits.
    pub(super) fn asks_for_epdgs(&self) -> bool {
        self.machine.trials().iter().any(|trial| trial.to.is_none())
    }

    /// Tries IKE with the ePDG that is configured, or else with one that can be asked by the exit.
    pub(super) fn attempt(&mut self, epdgs: &BTreeMap<(u32, Family), IpAddr>) {
        let mut untried: BTreeSet<u32> = BTreeSet::new();
        let mut trials = BTreeSet::new();
        for trial in self.machine.trials() {
            match trial
                .to
                .or_else(|| epdgs.get(&(trial.table, trial.family)).copied())
            {
                Some(to) => drop(trials.insert((trial, to))),
                None => drop(untried.insert(trial.table)),
            }
        }
        // One family is enough to say that there is a way.
        for (trial, _) in &trials {
            untried.remove(&trial.table);
        }
        let exits = self.machine.exits().iter().map(|running| &running.exit);
        self.untried = exits
            .filter(|exit| untried.contains(&exit.table))
            .map(|exit| exit.name.clone())
            .collect();
        self.prober.attempt(trials);
    }

    /// Waits until something is heard of a gateway, or has its turn. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        let due = self.machine.due(Instant::now());
        let turn = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = self.prober.next() => Some(heard),
            () = turn => None,
        }
    }

    /// Takes in what was heard.
    pub(super) fn hear(&mut self, heard: Option<Heard>) {
        let now = Instant::now();
        match heard {
            Some(Heard::Gateway {
                table,
                gateway,
                answer,
            }) => {
                self.machine.hear(table, gateway, answer, now);
            }
            Some(Heard::Tried { trial, answered }) => self.machine.tried(&trial, answered, now),
            None => {}
        }
    }

    /// Takes in which exits (by table) have active tunnels: those are not moved to a better gateway.
    pub(super) fn note_active(&mut self, tables: BTreeSet<u32>) {
        self.machine.note_active(tables);
    }

    /// Chooses the ways. Returns whether any is another: then they are to be put in force.
    pub(super) fn choose(&mut self) -> bool {
        let moved = self.machine.choose(Instant::now());
        self.ways_changed |= !moved.is_empty();
        for one in &moved {
            tell(one);
            self.since
                .insert((one.table, one.family), SystemTime::now());
            if one.failover {
                self.moved.insert(one.table);
            }
        }
        !moved.is_empty()
    }

    /// The exits whose tunnels have moved since this was asked last.
    pub(super) fn take_moved(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.moved)
    }

    /// What the subscription to the network's changes is to follow, if that is something else than before.
    pub(super) fn newly_followed(&mut self) -> Option<(BTreeSet<u32>, BTreeSet<IpAddr>)> {
        let exits = self.machine.exits().iter();
        let gateways = exits.flat_map(|running| &running.exit.gateways);
        let wanted = (
            self.machine.desired().tables(),
            gateways.map(|gateway| gateway.address).collect(),
        );
        (wanted != self.followed).then(|| {
            self.followed = wanted.clone();
            wanted
        })
    }

    /// What all this means for policies.
    pub(super) fn steering(&self) -> Steering {
        let access = &self.network.access;
        let places = self.machine.places();
        let neighbours = places.filter(|(_, place, _)| access.contains(&place.ifindex));
        let own: BTreeSet<Client> = neighbours
            .flat_map(|(address, _, ethernet)| {
                let by_address = Client::Network(address.into());
                [Some(by_address), ethernet.map(Client::Mac)]
            })
            .flatten()
            .collect();
        Steering {
            blocked: self.machine.blocked(),
            own: own.into_iter().collect(),
            failed_over: self.machine.failed_over(),
        }
    }

    /// The exits (by table) that are to return to a better gateway when they have no tunnels.
    pub(super) fn waiting(&self, now: Instant) -> BTreeSet<u32> {
        self.machine.waiting(now)
    }

    /// The exits, and since when they take the way that they take.
    pub(super) fn running(
        &self,
    ) -> impl Iterator<Item = (&Running, &BTreeMap<(u32, Family), SystemTime>)> {
        self.machine
            .exits()
            .iter()
            .map(|running| (running, &self.since))
    }
}

fn tell(moved: &Moved) {
    let Moved {
        exit,
        family,
        from,
        to,
        reason,
        unanswered,
        ..
    } = moved;
    let unanswered_ms = unanswered.map(|unanswered| unanswered.as_millis() as u64);
    if from.is_none() {
        // What an exit without gateways of a family does is no surprise.
        info!(exit, %family, way = to, "exit takes its first way");
        return;
    }
    let from = from.as_deref();
    if to == "direct" || to == "block" {
        warn!(exit, %family, from, to, reason, unanswered_ms, "exit takes another way");
    } else {
        info!(exit, %family, from, to, reason, unanswered_ms, "exit takes another way");
    }
}

#[cfg(test)]
#[path = "exits_tests.rs"]
mod tests;
