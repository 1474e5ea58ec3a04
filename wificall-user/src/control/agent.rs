//! The loop: it alone holds the data plane and the memory, and does one thing at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tracing::{debug, error, info, warn};
use wificall_common::abi::{Features, Hook};
use wificall_common::wire::nat64::Pref64;

use super::{
    Refused,
    desired::{self, Desired},
    hooks::{self, Selection},
    label::Label,
    plan::{Actual, LeftOut, Plan, plan},
    policy,
};
use crate::{
    catalogue::catalogue,
    config::Config,
    discover::{
        Bounds, Command, Filter, Memory, Owner, Reason, Refresher, Settings, Stats, Targets,
        Update, store, targets,
    },
    kernel::{self, Attachment, Key, Pins, Plane, Settings as LoadSettings},
    net::{self, Link},
};

/// Writing the state for every answer would wear flash out; losing this much of it costs a few refreshes.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What runs at a hook: interface, method, program and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub attachment: Attachment,
    pub program_id: u32,
}

/// The state of the loop.
pub(super) struct Agent {
    pub path: PathBuf,
    pub config: Config,
    pub started: SystemTime,
    pub plane: Plane,
    pub memory: Memory,
    pub targets: Targets,
    pub stats: Arc<Stats>,
    pub links: Vec<Link>,
    pub local: Vec<IpNet>,
    pub selection: Selection,
    pub attached: BTreeMap<(Hook, u32), Attached>,
    /// Why an attachment failed, by interface index.
    pub failed: BTreeMap<u32, String>,
    /// What went wrong in the last pass over the tables.
    pub table_problem: Option<String>,
    pub state_problem: Option<String>,
    pub left_out: LeftOut,
    pub refused: BTreeMap<Reason, u64>,
    pub reloads_done: u64,
    pub reloads_refused: u64,
    pub reload_problem: Option<String>,
    pub repairs: u64,
    activity: BTreeMap<Key, u32>,
    /// Entries found in the kernel at a start without state.
    recovered: BTreeSet<Key>,
    unsaved: bool,
    saved: SystemTime,
    tcx: bool,
}

impl Agent {
    /// Brings the last known good into the kernel and attaches, before any query leaves.
    pub(super) async fn start(path: PathBuf, config: Config) -> Result<Self> {
        let loaded = store::load(
            &config.agent.state_path(),
            config.discovery.keep,
            Bounds::default(),
        );
        if let Some(warning) = &loaded.warning {
            warn!("{warning}");
        }
        let mut memory = loaded.memory;
        let targets = targets(
            catalogue(),
            &config.discovery.operators,
            &config.discovery.countries,
        );
        memory.set_targets(&targets.names);
        let (links, local) = network().await?;
        let settings = LoadSettings {
            features: hooks::features(&config.interfaces),
            pref64: pref64(&config),
        };
        let plane = Plane::open(Pins::new(config.agent.pin_dir()), settings, config.limits)?;
        let now = SystemTime::now();
        let mut agent = Self {
            path,
            config,
            started: now,
            plane,
            memory,
            targets,
            stats: Arc::default(),
            links,
            local,
            selection: Selection::default(),
            attached: BTreeMap::new(),
            failed: BTreeMap::new(),
            table_problem: None,
            state_problem: loaded.warning,
            left_out: LeftOut::default(),
            refused: BTreeMap::new(),
            reloads_done: 0,
            reloads_refused: 0,
            reload_problem: None,
            repairs: 0,
            activity: BTreeMap::new(),
            recovered: BTreeSet::new(),
            unsaved: false,
            saved: now,
            tcx: kernel::has_tcx(),
        };
        agent.recover()?;
        agent.reconcile(now, true)?;
        agent.plane.finish_migration()?;
        Ok(agent)
    }

    /// If the state on disk is lost but the kernel still has a table, that is the last known good: what it holds stays
    /// for as long as an address is kept without an answer.
    fn recover(&mut self) -> Result<()> {
        if self.memory.is_empty() && !self.targets.names.is_empty() {
            self.recovered = self.plane.entries()?.into_keys().collect();
            if !self.recovered.is_empty() {
                warn!(
                    entries = self.recovered.len(),
                    "no remembered addresses on disk: what the kernel still holds is kept"
                );
            }
        }
        Ok(())
    }

    /// Makes the kernel agree with the configuration, the memory and the network. With `reattach`, every program is
    /// replaced even where one of ours runs.
    pub(super) fn reconcile(&mut self, now: SystemTime, reattach: bool) -> Result<()> {
        let desired = self.desired();
        let actual = self.actual()?;
        let mut plan = plan(&desired, &actual, self.plane.limits());
        let keep = self.config.discovery.keep;
        if now
            .duration_since(self.started)
            .is_ok_and(|age| age >= keep)
        {
            self.recovered.clear();
        }
        plan.remove.retain(|key| !self.recovered.contains(key));
        self.left_out = plan.left_out;
        let settings = self.settings(&desired);
        self.set(&plan)?;
        // Between setting and removing: a program that looks into the trie must run before blocks move there.
        let changed = settings != self.plane.settings();
        if changed {
            self.plane.reconfigure(settings)?;
        }
        if changed || reattach {
            self.plane.start_log();
        }
        self.hook(changed || reattach)?;
        for key in &plan.remove {
            self.plane.remove_entry(*key)?;
            self.activity.remove(key);
        }
        if !plan.is_empty() {
            debug!(
                set = plan.set.len(),
                removed = plan.remove.len(),
                "endpoint table brought up to date"
            );
        }
        self.save(now);
        Ok(())
    }

    fn desired(&self) -> Desired {
        let filter = self.filter();
        let literal = self
            .targets
            .addresses
            .iter()
            .filter(|(address, _)| filter.check(*address).is_ok())
            .cloned();
        let hosts: Vec<(IpAddr, BTreeSet<Owner>)> = self
            .memory
            .known(&filter)
            .map(|known| (known.address, known.owners))
            .chain(literal)
            .collect();
        let prefixes = self.config.prefixes.iter().map(|prefix| {
            let country = prefix
                .country
                .or_else(|| catalogue().country_of(prefix.operator?));
            let owner = Owner {
                plmn: prefix.operator,
                country,
            };
            let owners = if owner.plmn.is_none() && owner.country.is_none() {
                BTreeSet::new()
            } else {
                BTreeSet::from([owner])
            };
            (prefix.prefix, owners)
        });
        let known = desired::known(&self.config, hosts, prefixes);
        desired::desired(&self.config, &known, &self.excluded())
    }

    /// Networks and addresses that are never endpoints: the box's own addresses, and its networks unless a lab admits
    /// them.
    fn excluded(&self) -> Vec<IpNet> {
        let admit = &self.config.lab.admit;
        let own = self.local.iter().map(|net| IpNet::from(net.addr()));
        let networks = self
            .local
            .iter()
            .map(IpNet::trunc)
            .filter(|net| !admit.iter().any(|admitted| admitted.contains(net)));
        own.chain(networks).collect()
    }

    pub(super) fn filter(&self) -> Filter {
        Filter::new(
            self.local.iter().copied(),
            self.config.lab.admit.iter().copied(),
        )
    }

    fn actual(&self) -> Result<Actual> {
        let labels = self.plane.labels()?;
        Ok(Actual {
            entries: self.plane.entries()?,
            policies: self.plane.policies()?,
            labels: labels
                .iter()
                .map(|(index, label)| (*index, Label::from_abi(label)))
                .collect(),
        })
    }

    fn settings(&self, desired: &Desired) -> LoadSettings {
        let rows = desired
            .values()
            .filter_map(|entry| entry.meaning.as_ref())
            .map(|meaning| &meaning.row);
        let trie = desired.keys().any(|key| matches!(key, Key::Prefix(..)));
        LoadSettings {
            features: hooks::features(&self.config.interfaces)
                | policy::features(rows)
                | if trie { Features::PREFIXES } else { 0 },
            pref64: pref64(&self.config),
        }
    }

    fn set(&mut self, plan: &Plan) -> Result<()> {
        for (index, label) in &plan.labels {
            self.plane.set_label(*index, label.to_abi())?;
        }
        for (index, row) in &plan.policies {
            self.plane.set_policy(*index, *row)?;
        }
        for (key, entry) in &plan.set {
            self.plane.set_entry(*key, entry)?;
        }
        Ok(())
    }

    /// Attaches what is missing, replaces everything if `all`, removes what should not be.
    fn hook(&mut self, all: bool) -> Result<()> {
        self.selection = hooks::selection(&self.config.interfaces, &self.links, self.tcx);
        self.failed.clear();
        let mut wanted = BTreeSet::new();
        for selected in self.selection.interfaces.clone() {
            for attachment in selected.attachments {
                let key = (attachment.hook, attachment.ifindex);
                wanted.insert(key);
                if !all
                    && self
                        .attached
                        .get(&key)
                        .is_some_and(|present| present.attachment == attachment)
                {
                    continue;
                }
                match self.plane.attach(&attachment) {
                    Ok(kernel::Attached { program_id, .. }) => {
                        if !self.attached.contains_key(&key) {
                            info!(
                                interface = attachment.interface,
                                hook = attachment.hook.name(),
                                method = attachment.method.name(),
                                "attached"
                            );
                        }
                        self.attached.insert(
                            key,
                            Attached {
                                attachment,
                                program_id,
                            },
                        );
                    }
                    Err(problem) => {
                        let message = chain(&problem);
                        error!("{message}");
                        self.attached.remove(&key);
                        self.failed.insert(attachment.ifindex, message);
                    }
                }
            }
        }
        self.unhook(&wanted)
    }

    /// Removes our programs from all hooks but these.
    fn unhook(&mut self, wanted: &BTreeSet<(Hook, u32)>) -> Result<()> {
        let present = self.plane.hooks()?;
        let names: BTreeMap<u32, String> = self
            .links
            .iter()
            .map(|link| (link.index, link.name.clone()))
            .collect();
        let keys: BTreeSet<(Hook, u32)> = present
            .links
            .iter()
            .copied()
            .chain(present.filters.keys().copied())
            .collect();
        for key in keys.difference(wanted) {
            let (hook, ifindex) = *key;
            let name = names.get(&ifindex).map(String::as_str);
            self.plane.detach(hook, ifindex, name)?;
            self.attached.remove(key);
            info!(
                interface = name.unwrap_or("(gone)"),
                hook = hook.name(),
                "detached"
            );
        }
        Ok(())
    }

    /// Puts back what someone removed. A link is updated to the program that it has, which makes it anew if its interface
    /// was; a filter is looked for.
    pub(super) async fn repair(&mut self) -> Result<()> {
        let present = self.plane.hooks()?;
        for (key, attached) in self.attached.clone() {
            let (hook, ifindex) = key;
            let lost = match present.filters.get(&key) {
                Some(filter) => {
                    let state = net::clsact_state(ifindex).await?;
                    !state.filters.iter().any(|found| {
                        found.ingress == (hook == Hook::TcIngress)
                            && found.priority == filter.priority
                            && found.handle == filter.handle
                    })
                }
                None if !present.links.contains(&key) => true,
                None => match self.plane.attach(&attached.attachment) {
                    Ok(kernel::Attached { made: false, .. }) => false,
                    Ok(kernel::Attached { made: true, .. }) => {
                        self.count_repair(&attached.attachment);
                        false
                    }
                    // Said when it is attached again below.
                    Err(_) => true,
                },
            };
            if lost {
                self.count_repair(&attached.attachment);
                self.attached.remove(&key);
            }
        }
        Ok(())
    }

    fn count_repair(&mut self, attachment: &Attachment) {
        self.repairs += 1;
        warn!(
            interface = attachment.interface,
            hook = attachment.hook.name(),
            "someone removed our program; putting it back"
        );
    }

    /// Reads links and addresses again and follows.
    pub(super) async fn follow_network(&mut self) -> Result<()> {
        let (links, local) = network().await?;
        // An index that is used again is another interface.
        let gone: Vec<_> = self
            .attached
            .iter()
            .filter(|((_, ifindex), attached)| {
                !links.iter().any(|link| {
                    link.index == *ifindex && link.name == attached.attachment.interface
                })
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.attached.remove(&key);
        }
        self.links = links;
        self.local = local;
        self.reconcile(SystemTime::now(), false)
    }

    /// Looks after a filter when its interface's qdiscs change.
    pub(super) async fn follow_qdisc(&mut self, ifindex: u32) -> Result<()> {
        if !self.attached.keys().any(|(_, known)| *known == ifindex) {
            return Ok(());
        }
        self.repair().await?;
        self.hook(false)
    }

    /// Takes in what DNS said.
    pub(super) fn learn(&mut self, updates: &[Update]) -> Result<()> {
        let filter = self.filter();
        let mut grown = false;
        for update in updates {
            let applied = self.memory.apply(update, &filter);
            for (address, reason) in &applied.refused {
                *self.refused.entry(*reason).or_default() += 1;
                debug!(name = &*update.name, %address, %reason, "address refused");
            }
            if applied.overflow > 0 {
                warn!(
                    name = &*update.name,
                    overflow = applied.overflow,
                    "more addresses than are remembered"
                );
            }
            if !applied.added.is_empty() {
                info!(name = &*update.name, added = ?applied.added, "new endpoints");
                grown = true;
            }
            self.unsaved = true;
        }
        if grown {
            self.reconcile(SystemTime::now(), false)?;
        }
        Ok(())
    }

    /// What is to be done every so often although no event said so.
    pub(super) async fn resync(&mut self, now: SystemTime) -> Result<()> {
        let (links, local) = network().await?;
        self.links = links;
        self.local = local;
        self.note_activity(now)?;
        let gone = self.memory.expire(now);
        if !gone.is_empty() {
            info!(?gone, "endpoints that had their time");
            self.unsaved = true;
        }
        self.repair().await?;
        self.reconcile(now, false)
    }

    /// Tells the memory which entries had traffic since the last time.
    fn note_activity(&mut self, now: SystemTime) -> Result<()> {
        for (key, entry) in self.plane.entries()? {
            let last = self.plane.activity(entry.slot)?;
            let before = self.activity.insert(key, last);
            // The first look after a start has nothing to compare with; a call that goes on shows at the next.
            if before.is_some_and(|before| before != last)
                && let Some(net) = net_of(key)
                && self.memory.note_traffic(net, now) > 0
            {
                self.unsaved = true;
            }
        }
        Ok(())
    }

    /// Reads the configuration again and puts it in force, or leaves everything as it is.
    pub(super) async fn reload(&mut self, refresher: &Refresher) -> Result<(), Refused> {
        let result = self.try_reload(refresher).await;
        match &result {
            Ok(()) => {
                self.reloads_done += 1;
                self.reload_problem = None;
                info!("configuration reloaded");
            }
            Err(refused) => {
                self.reloads_refused += 1;
                self.reload_problem = Some(refused.message.clone());
                error!("configuration not reloaded: {}", refused.message);
            }
        }
        result
    }

    async fn try_reload(&mut self, refresher: &Refresher) -> Result<(), Refused> {
        let parsed = crate::config::load(&self.path).map_err(|errors| Refused {
            message: errors.to_string(),
            configuration: true,
        })?;
        let config = parsed.config;
        if config.agent != self.config.agent {
            return Err(Refused {
                message: "[agent] cannot change while the agent runs: restart it; the kernel goes on meanwhile".into(),
                configuration: true,
            });
        }
        let kernel = |error: anyhow::Error| Refused {
            message: format!("{error:#}"),
            configuration: false,
        };
        (self.links, self.local) = network().await.map_err(kernel)?;
        let before = std::mem::replace(&mut self.config, config);
        self.retarget();
        if let Err(error) = self.put_in_force(&before) {
            // What was in force is put back; what the kernel refused to take it never had.
            let message = format!("{error:#}");
            self.config = before.clone();
            self.retarget();
            if let Err(error) = self.put_in_force(&before) {
                warn!("the configuration before could not be put back whole: {error:#}");
            }
            return Err(kernel(anyhow::anyhow!(message)));
        }
        self.recovered.clear();
        if self.config.discovery.keep != before.discovery.keep {
            self.memory.set_keep(self.config.discovery.keep);
        }
        refresher.command(Command::Configure(discovery(&self.config)));
        refresher.command(Command::Replace(self.targets.names.clone()));
        if self.config.discovery.resolvers != before.discovery.resolvers {
            refresher.command(Command::RefreshNow);
        }
        Ok(())
    }

    fn retarget(&mut self) {
        self.targets = targets(
            catalogue(),
            &self.config.discovery.operators,
            &self.config.discovery.countries,
        );
        self.memory.set_targets(&self.targets.names);
    }

    /// The kernel's side of a reload. Other sizes need other maps: those are filled, then the links move over.
    fn put_in_force(&mut self, before: &Config) -> Result<()> {
        if *self.plane.limits() != self.config.limits {
            let settings = self.plane.settings();
            self.plane = Plane::open(
                Pins::new(self.config.agent.pin_dir()),
                settings,
                self.config.limits,
            )?;
            self.activity.clear();
            self.reconcile(SystemTime::now(), true)?;
            return Ok(self.plane.finish_migration()?);
        }
        // Another way of attaching leaves the old one in place until the new one runs.
        let reattach = self.config.interfaces != before.interfaces;
        self.reconcile(SystemTime::now(), reattach)
    }

    /// Writes the memory to disk if there is something new and the last time is long enough ago.
    fn save(&mut self, now: SystemTime) {
        let due = now
            .duration_since(self.saved)
            .is_ok_and(|age| age >= SAVE_EVERY);
        let first = self.saved == self.started;
        if self.unsaved && (due || first) {
            self.save_now(now);
        }
    }

    /// Writes the memory to disk.
    pub(super) fn save_now(&mut self, now: SystemTime) {
        if !self.unsaved {
            return;
        }
        match store::save(&self.config.agent.state_path(), &self.memory) {
            Ok(()) => {
                self.unsaved = false;
                self.saved = now;
                self.state_problem = None;
            }
            Err(problem) => {
                let message = chain(&problem);
                warn!("{message}");
                self.state_problem = Some(message);
            }
        }
    }
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        next = source.source();
    }
    message
}

/// The network that an entry stands for, as the memory knows addresses.
fn net_of(key: Key) -> Option<IpNet> {
    let (address, len) = match key {
        Key::Host(address) => (IpAddr::from(address).to_canonical(), None),
        Key::Prefix(len, address) => {
            let address = IpAddr::from(address).to_canonical();
            let len = if address.is_ipv4() { len - 96 } else { len };
            (address, Some(len))
        }
        Key::Block4(block) => (IpAddr::from(block), Some(24)),
        Key::Block6(block) => {
            let mut address = [0; 16];
            address[..8].copy_from_slice(&block);
            (IpAddr::from(address), Some(64))
        }
    };
    match len {
        None => Some(IpNet::from(address)),
        Some(len) => IpNet::new(address, len).ok(),
    }
}

fn pref64(config: &Config) -> Option<Pref64> {
    config.discovery.nat64_prefix.map(|net| Pref64 {
        prefix: net.network().octets(),
        len: net.prefix_len(),
    })
}

/// How discovery is to ask.
pub(super) fn discovery(config: &Config) -> Settings {
    let discovery = &config.discovery;
    Settings {
        upstreams: discovery.resolvers.clone(),
        timeout: discovery.timeout,
        refresh_min: discovery.refresh_min,
        refresh_max: discovery.refresh_max,
        queries_per_second: discovery.queries_per_second,
        concurrency: discovery.concurrency,
    }
}

/// Links, and addresses with their networks' prefix lengths.
async fn network() -> Result<(Vec<Link>, Vec<IpNet>)> {
    let links = net::links().await.context("read the links over netlink")?;
    let addresses = net::addresses()
        .await
        .context("read the addresses over netlink")?;
    Ok((
        links,
        addresses.into_iter().map(|(_, address)| address).collect(),
    ))
}
