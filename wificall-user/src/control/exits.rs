//! The exits of the agent: what gateways say goes in, rules and routes come out.
//!
//! The steps in which anything is installed: it is written to the record, then done; what is removed is done, then taken
//! out of the record. So a record never has less than there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use tracing::{info, warn};

use super::world::Steering;
use crate::config::{Client, Config, Interfaces};
use crate::net::{self, Family, Link, Route, Rule, Sysctl};
use crate::steer::check::{self, Findings};
use crate::steer::choice::Way;
use crate::steer::machine::{Machine, Moved, Running};
use crate::steer::place::{Network, Place};
use crate::steer::prober::{Heard, Prober};
use crate::steer::record::{Changed, Record};
use crate::steer::sysctls;

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

    /// Makes the rules and routes what they should be.
    ///
    /// # Errors
    ///
    /// What could not be done; the rest is done.
    pub(super) async fn put_in_force(&mut self, because: Because) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let result = self.try_put_in_force(because).await;
        self.problem = result.as_ref().err().map(|error| format!("{error:#}"));
        result
    }

    async fn try_put_in_force(&mut self, because: Because) -> Result<()> {
        let desired = self.machine.desired();
        let tables: BTreeSet<u32> = desired
            .tables()
            .union(&self.record.tables)
            .copied()
            .collect();
        let rules = net::rules().await.context("read the policy rules")?;
        let routes = read_routes(&tables).await?;
        let plan = crate::steer::plan::plan(&desired, &rules, &routes, &self.record);
        let before = self.record.clone();
        self.record.rules.extend(desired.rules.iter().cloned());
        self.record.tables.extend(desired.tables());
        if self.record != before {
            self.record.save(&self.path)?;
        }
        let mut failures = Failures::default();
        for route in &plan.set {
            failures.note(net::replace_route(route).await, || {
                format!(
                    "set the default route of table {} ({})",
                    route.table, route.family
                )
            });
        }
        for rule in &plan.add {
            failures.note(net::add_rule(rule).await, || {
                format!("add the {} rule `{rule}`", rule.family)
            });
        }
        let put_back = (plan.set.len() + plan.add.len()) as u64;
        if because == Because::Looking && put_back > 0 {
            self.repairs += put_back;
            warn!(
                rules = plan.add.len(),
                routes = plan.set.len(),
                "somebody has removed or changed what exits need: it is back"
            );
        }
        failures.note_all(self.follow_sysctls(because));
        if because != Because::Adding {
            for rule in &plan.remove {
                failures.note(net::remove_rule(rule).await, || {
                    format!("remove the {} rule `{rule}`", rule.family)
                });
            }
            for route in &plan.clear {
                failures.note(net::remove_route(route).await, || {
                    format!(
                        "remove the default route of table {} ({})",
                        route.table, route.family
                    )
                });
            }
            if failures.is_empty()
                && (self.record.rules != desired.rules || self.record.tables != desired.tables())
            {
                self.record.rules.clone_from(&desired.rules);
                self.record.tables = desired.tables();
                self.record.save(&self.path)?;
            }
        }
        self.learn_addresses().await;
        failures.into_result()
    }

    /// Has sysctls as the exits that may change them need them, and those of exits that went as they were before, once
    /// nothing goes there any more. What may not be written, as under systemd's `ProtectKernelTunables=`, is a problem and
    /// no failure: exits work without, or not all of them do.
    fn follow_sysctls(&mut self, because: Because) -> Result<()> {
        let mut unset = Vec::new();
        let result = self.try_follow_sysctls(because, &mut unset);
        for problem in unset.iter().filter(|it| !self.unset.contains(it)) {
            warn!("{problem}");
        }
        self.unset = unset;
        result
    }

    fn try_follow_sysctls(&mut self, because: Because, unset: &mut Vec<String>) -> Result<()> {
        let read = |sysctl: Sysctl, device: &str| sysctl.read(device).ok().flatten();
        let mut wanted = BTreeSet::new();
        let mut changes = BTreeSet::new();
        self.advice.clear();
        for running in self.machine.exits() {
            let places = ipv4_places(running);
            let needs = sysctls::needs(&places, &self.network.access, read);
            if running.exit.manage_sysctls {
                wanted.extend(sysctls::governed(&places, &self.network.access));
                changes.extend(needs.into_iter().map(|need| need.change));
            } else {
                let texts = needs
                    .iter()
                    .map(|need| format!("exit `{}`: {}", running.exit.name, need.text()));
                self.advice.extend(texts);
            }
        }
        let is_of = |changed: &Changed, (sysctl, device): (Sysctl, &str)| {
            changed.sysctl == sysctl && changed.device == device
        };
        for change in changes {
            let (sysctl, device) = (change.sysctl, change.device.clone());
            let known = self
                .record
                .sysctls
                .iter()
                .any(|it| is_of(it, (sysctl, &device)));
            if !known {
                self.record.sysctls.insert(change.clone());
                self.record.save(&self.path)?;
            }
            if let Err(error) = sysctl.write(&device, change.value) {
                let (name, value) = (sysctl.name(), change.value);
                unset.push(format!(
                    "set net.ipv4.conf.{device}.{name} to {value}: {error}\n  hint: `sysctl -w \
                     net.ipv4.conf.{device}.{name}={value}`, or a drop-in with ProtectKernelTunables=no for the systemd unit"
                ));
                continue;
            }
            info!(
                device,
                sysctl = sysctl.name(),
                from = change.before,
                to = change.value,
                "sysctl set for an exit"
            );
        }
        if because == Because::Adding {
            return Ok(());
        }
        let outlived: Vec<_> = self
            .record
            .sysctls
            .iter()
            .filter(|changed| !wanted.contains(&(changed.sysctl, changed.device.clone())))
            .cloned()
            .collect();
        for changed in outlived {
            if let Err(error) = restore(&changed) {
                unset.push(format!("{error:#}"));
                continue;
            }
            self.record.sysctls.remove(&changed);
            self.record.save(&self.path)?;
        }
        Ok(())
    }

    /// Of gateways that nobody asks, the kernel may know the Ethernet address.
    async fn learn_addresses(&mut self) {
        for (table, gateway, ifindex) in self.machine.unasked() {
            if let Ok(address) = net::neighbour(ifindex, gateway).await {
                self.machine.note_address(table, gateway, address);
            }
        }
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

    /// What is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let now = Instant::now();
        let mut problems: Vec<String> = self.problem.iter().cloned().collect();
        for running in self.machine.exits() {
            for side in &running.sides {
                let name = &running.exit.name;
                let none_of_family = side.candidates.is_empty();
                if let Some(way @ (Way::Direct | Way::Block)) = side.way
                    && !none_of_family
                {
                    let what = match way {
                        Way::Block => "its traffic is refused",
                        _ => "its traffic goes the box's own way",
                    };
                    problems.push(format!(
                        "exit `{name}`: no {} gateway is up: {what}",
                        side.family
                    ));
                }
                for candidate in &side.candidates {
                    let problem = candidate
                        .place
                        .as_ref()
                        .err()
                        .map(|nowhere| nowhere.text().to_owned());
                    let down = candidate.state(now) == crate::steer::health::State::Down;
                    problems.extend(problem.or_else(|| {
                        down.then(|| {
                            format!("exit `{name}`: {} is down", candidate.name(&running.exit))
                        })
                    }));
                }
            }
        }
        problems.extend(self.warnings.iter().cloned());
        problems.extend(self.advice.iter().cloned());
        problems.extend(self.unset.iter().cloned());
        problems.extend(self.untried.iter().map(|name| {
            format!(
                "exit `{name}`: IKE is tried with nobody: policies send no ePDG there whose address is known\n  hint: give \
                 `probe` in the exit"
            )
        }));
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        problems
    }
}

/// What could not be done.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, result: std::io::Result<()>, what: impl FnOnce() -> String) {
        if let Err(error) = result {
            self.0.push(format!("{}: {error}", what()));
        }
    }

    fn note_all(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{error:#}"));
        }
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(anyhow!("{}", self.0.join("; ")))
    }
}

/// Checks a configuration against this box. Changes nothing.
///
/// # Errors
///
/// If the box cannot be read.
pub(crate) async fn check(config: &Config) -> Result<Findings> {
    let path = config.agent.exits_path();
    check_with(config, &Record::load(&path).unwrap_or_default(), &path).await
}

async fn check_with(config: &Config, record: &Record, path: &Path) -> Result<Findings> {
    if config.exits.is_empty() {
        return Ok(Findings::default());
    }
    let network = network(&config.interfaces).await?;
    let uplinks = net::select(&config.interfaces.uplink, &network.links);
    let here = check::Box {
        uplinks: uplinks.iter().map(|link| link.index).collect(),
        network,
        rules: net::rules().await.context("read the policy rules")?,
        routes: read_routes(&config.exits.iter().map(|exit| exit.table).collect()).await?,
        record: record.clone(),
        others: Record::of_others(path),
    };
    Ok(check::check(&config.exits, &here))
}

async fn network(interfaces: &Interfaces) -> Result<Network> {
    let links = net::links().await.context("read the links over netlink")?;
    let addresses = net::addresses()
        .await
        .context("read the addresses over netlink")?;
    let index = |link: &Link| link.index;
    Ok(Network {
        access: net::select(&interfaces.access, &links)
            .iter()
            .map(|link| link.index)
            .collect(),
        ipv6: links
            .iter()
            .filter(|link| net::has_ipv6(&link.name))
            .map(index)
            .collect(),
        links,
        addresses,
    })
}

async fn read_routes(tables: &BTreeSet<u32>) -> Result<Vec<Route>> {
    net::routes(tables)
        .await
        .context("read the routes of the exits' tables")
}

/// The families that this kernel has.
fn families() -> Vec<Family> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    let families = Family::ALL.into_iter();
    families
        .filter(|family| *family == Family::V4 || has_ipv6)
        .collect()
}

fn ipv4_places(running: &Running) -> Vec<&Place> {
    let sides = running
        .sides
        .iter()
        .filter(|side| side.family == Family::V4);
    let candidates = sides.flat_map(|side| &side.candidates);
    candidates
        .filter_map(|candidate| candidate.place.as_ref().ok())
        .collect()
}

/// Sets a sysctl back to what it was, unless somebody has changed it since.
fn restore(changed: &Changed) -> Result<bool> {
    let Changed {
        sysctl,
        device,
        before,
        value,
    } = changed;
    let name = format!("net.ipv4.conf.{device}.{}", sysctl.name());
    let now = sysctl
        .read(device)
        .with_context(|| format!("read {name}"))?;
    if now != Some(*value) {
        return Ok(false);
    }
    sysctl
        .write(device, *before)
        .with_context(|| format!("set {name} back to {before}"))?;
    info!(
        device,
        sysctl = sysctl.name(),
        to = before,
        "sysctl set back"
    );
    Ok(true)
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

/// What [`remove`] has removed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Rules.
    pub rules: Vec<Rule>,
    /// Default routes.
    pub routes: Vec<Route>,
    /// Sysctls that were set back.
    pub sysctls: Vec<Changed>,
}

/// Removes what the record at `path` says, and the record.
///
/// # Errors
///
/// What could not be removed; the record then stays.
pub(crate) async fn remove(path: &Path) -> Result<Removed> {
    let record = Record::load(path)?;
    let mut removed = Removed::default();
    if record.is_empty() {
        return Ok(removed);
    }
    let rules = net::rules().await.context("read the policy rules")?;
    let routes = read_routes(&record.tables).await?;
    for rule in record.rules.iter().filter(|rule| rules.contains(rule)) {
        net::remove_rule(rule)
            .await
            .with_context(|| format!("remove the {} rule `{rule}`", rule.family))?;
        removed.rules.push(rule.clone());
    }
    for route in routes.into_iter().filter(Route::is_own) {
        net::remove_route(&route).await.with_context(|| {
            format!(
                "remove the default route of table {} ({})",
                route.table, route.family
            )
        })?;
        removed.routes.push(route);
    }
    // Those of a device before that of `all`: together they come into force.
    for changed in record.sysctls.iter().rev() {
        if restore(changed)? {
            removed.sysctls.push(changed.clone());
        }
    }
    Record::default().save(path)?;
    Ok(removed)
}

#[cfg(test)]
#[path = "exits_tests.rs"]
mod tests;
