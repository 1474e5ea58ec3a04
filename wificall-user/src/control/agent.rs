//! The loop: it alone holds the data plane and the memory, and does one thing at a time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use ipnet::IpNet;
use tracing::{debug, info, warn};
use wificall_common::abi::{Hook, TIER_OBSERVED};

use super::{
    country::Geo,
    desired::{self, Desired},
    exits::Exits,
    hooks::Selection,
    label::Label,
    other::Arming,
    plan::{Actual, LeftOut, Plan, plan},
    surroundings::Around,
    telemetry::{Owners, Telemetry},
    trace::Traces,
    tunnels::{Keeping, Notes},
    world::{Steering, World, network, ways_out},
};
use crate::{
    config::Config,
    discover::{
        Bounds, Command, Found, Outcome, Reason, Refresher, Settings, Stats, Targets, Update,
        Visited, nat64, snoop::Snoop, store,
    },
    explain::explain,
    explanation::{Explanation, Packet},
    kernel::{self, Attachment, Key, Pins, Plane},
    probe::background::Prober,
};

/// Writing the state for every answer would wear flash out; losing this much of it costs a few refreshes.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How long a program may take that began before an entry was replaced: less than a microsecond, and room for a slow box.
const GRACE: Duration = Duration::from_millis(2);

/// What runs at a hook: interface, method, program and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub attachment: Attachment,
    pub program_id: u32,
}

/// The state of the loop.
pub(super) struct Agent {
    pub path: PathBuf,
    pub world: World,
    pub started: SystemTime,
    pub plane: Plane,
    pub stats: Arc<Stats>,
    pub prober: Prober,
    pub selection: Selection,
    pub attached: BTreeMap<(Hook, u32), Attached>,
    /// Why an attachment failed, by interface index.
    pub failed: BTreeMap<u32, String>,
    /// What went wrong in the last pass over the tables.
    pub table_problem: Option<String>,
    pub state_problem: Option<String>,
    pub left_out: LeftOut,
    /// Whether other IPsec is dropped.
    pub arming: Arming,
    pub refused: BTreeMap<Reason, u64>,
    pub reloads_done: u64,
    pub reloads_refused: u64,
    pub reload_problem: Option<String>,
    pub repairs: u64,
    pub activity: BTreeMap<Key, u32>,
    /// What was found in the kernel at a start without state.
    pub recovered: Desired,
    /// Whether our resolver is to be asked about other names than before.
    pub questions_changed: bool,
    /// What clients' packets have told.
    pub snoop: Snoop,
    /// The reading end of that; `None` if nothing is looked at.
    pub events: Option<kernel::Events>,
    /// When the next unknown address may become an endpoint for its country ([`Bucket`](wificall_common::abi::Bucket)).
    pub catch_due: u64,
    pub exits: Exits,
    pub around: Around,
    unsaved: bool,
    saved: SystemTime,
    pub tcx: bool,
    /// How the exits of tunnels are kept.
    pub keeping: Keeping,
    pub notes: Option<Notes>,
    /// Tunnels and calls; `None` if they are not tracked.
    pub telemetry: Option<Telemetry>,
    /// Whoever follows what happens.
    pub traces: Traces,
    /// Whose endpoints are, for that.
    pub owners: Owners,
    /// Why the metrics could not be written to a file.
    pub textfile_problem: Option<String>,
}

impl Agent {
    /// Brings the last known good into the kernel and attaches, before any query leaves.
    pub(super) async fn start(path: PathBuf, config: Config) -> Result<Self> {
        let mut exits = Exits::load(config.agent.exits_path());
        let warnings = super::steer::checked(&exits, &config).await?;
        exits.note_warnings(warnings);
        exits.adopt(&config).await?;
        let loaded = store::load(
            &config.agent.state_path(),
            config.discovery.keep,
            Bounds::default(),
        );
        if let Some(warning) = &loaded.warning {
            warn!("{warning}");
        }
        let (links, local) = network().await?;
        let ways_out = ways_out(&config).await?;
        let mut world = World {
            config: config.clone(),
            memory: loaded.memory,
            targets: Targets::default(),
            visited: Visited::default(),
            links,
            local,
            ways_out,
            steering: Steering::default(),
            geo: Geo::default(),
        };
        world.restore(&loaded.found);
        world.configure(config);
        world.follow_geoip();
        // What has had its time while nothing ran is not to be an endpoint again, unless it was in use.
        world.memory.resume(SystemTime::now());
        world.memory.expire(SystemTime::now());
        let settings = world.settings(&world.desired(), false);
        let plane = Plane::open(
            Pins::new(world.config.agent.pin_dir()),
            settings,
            world.config.sizes(),
        )?;
        let now = SystemTime::now();
        let mut agent = Self {
            path,
            world,
            started: now,
            plane,
            stats: Arc::default(),
            prober: Prober::spawn(),
            selection: Selection::default(),
            attached: BTreeMap::new(),
            failed: BTreeMap::new(),
            table_problem: None,
            state_problem: loaded.warning,
            left_out: LeftOut::default(),
            arming: Arming::default(),
            refused: BTreeMap::new(),
            reloads_done: 0,
            reloads_refused: 0,
            reload_problem: None,
            repairs: 0,
            activity: BTreeMap::new(),
            recovered: Desired::new(),
            questions_changed: false,
            snoop: Snoop::new(kernel::ktime()),
            events: None,
            catch_due: 0,
            exits,
            around: Around::default(),
            unsaved: false,
            saved: now,
            tcx: kernel::has_tcx(),
            keeping: Keeping::default(),
            telemetry: None,
            traces: Traces::default(),
            textfile_problem: None,
            owners: Owners::default(),
            notes: None,
        };
        agent.hold_all()?;
        agent.recover()?;
        agent.steer_first().await?;
        agent.reconcile(now, true).await?;
        agent.steer_last().await?;
        agent.follow_probes();
        Ok(agent)
    }

    /// If the state on disk is lost but the kernel still has a table, that is the last known good: what it holds stays
    /// for as long as an address is kept without an answer.
    fn recover(&mut self) -> Result<()> {
        if self.world.memory.is_empty() && !self.world.targets.names.is_empty() {
            let actual = self.actual()?;
            self.recovered = actual
                .entries
                .iter()
                .filter_map(|(key, entry)| Some((*key, actual.meaning(entry)?)))
                // What nobody had confirmed is not good for that long.
                .filter(|(_, entry)| {
                    let meaning = entry.meaning.as_ref();
                    meaning.is_none_or(|meaning| meaning.row.tier != TIER_OBSERVED)
                })
                .collect();
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
    pub(super) async fn reconcile(&mut self, now: SystemTime, reattach: bool) -> Result<()> {
        let keep = self.world.config.discovery.keep;
        if now
            .duration_since(self.started)
            .is_ok_and(|age| age >= keep)
        {
            self.recovered.clear();
        }
        let mut wanted = self.world.desired();
        self.exits.epdgs = None;
        wanted.entries = desired::with_recovered(wanted.entries, &self.recovered);
        self.owners = Owners::new(&wanted.entries, self.world.pref64().collect());
        let actual = self.actual()?;
        let plan = plan(&wanted, &actual, self.plane.limits());
        self.left_out = plan.left_out;
        let arming = self.arming(&wanted.entries, &plan.left_out)?;
        let settings = self.world.settings(&wanted, arming.armed);
        self.hold_for(&plan, &actual)?;
        self.plane.set_gateways(&self.world.gateways())?;
        // What rows may now ask for is known to the programs before there are such rows.
        let before = self.plane.settings();
        let more = kernel::Settings {
            features: before.features | settings.features,
            ..before
        };
        // Not over maps that are empty yet.
        if more != before && !reattach {
            self.plane.reconfigure(more)?;
            self.hook(true).await?;
        }
        self.set(&plan)?;
        // Between setting and removing: a program that looks into the trie must run before blocks move there.
        let changed = settings != self.plane.settings();
        if changed {
            self.plane.reconfigure(settings)?;
        }
        if changed || reattach {
            self.plane.start_log();
            self.listen()?;
        }
        self.hook(changed || reattach).await?;
        self.note_arming(arming);
        for key in &plan.remove {
            self.plane.remove_entry(*key)?;
            self.activity.remove(key);
        }
        if !plan.old_choices.is_empty() || !plan.old_clients.is_empty() {
            // Packets that have read a row before it was replaced still look for what it names.
            tokio::time::sleep(GRACE).await;
            for key in &plan.old_choices {
                self.plane.remove_choice(*key)?;
            }
            for key in &plan.old_clients {
                self.plane.forget(*key)?;
            }
        }
        if !plan.is_empty() {
            debug!(
                set = plan.set.len(),
                removed = plan.remove.len(),
                "endpoint table brought up to date"
            );
        }
        self.save(now);
        // What could not be attached still counts in the data plane before; its counters are carried when nothing does.
        if self.failed.is_empty() {
            self.plane.finish_migration()?;
        }
        Ok(())
    }

    /// Explains what is done with a packet.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn explain(&self, packet: &Packet) -> Result<Explanation> {
        let desired = desired::with_recovered(self.world.desired().entries, &self.recovered);
        let live = self.live()?;
        let mut explanation = self
            .world
            .explain(packet, &desired, &self.selection, Some(&live));
        if self.left_out != LeftOut::default() {
            explanation.notes.push(
                "the kernel's tables are full: this may be one of those left out (`wificall status`)"
                    .into(),
            );
        }
        Ok(explanation)
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
            choices: self.plane.choices()?,
            clients: self.plane.numbered()?,
        })
    }

    fn set(&mut self, plan: &Plan) -> Result<()> {
        for (index, label) in &plan.labels {
            self.plane.set_label(*index, label.to_abi())?;
        }
        for (index, row) in &plan.policies {
            self.plane.set_policy(*index, *row)?;
        }
        for (key, class) in &plan.clients {
            self.plane.number(*key, *class)?;
        }
        for (key, choice) in &plan.choices {
            self.plane.set_choice(*key, *choice)?;
        }
        for (key, entry) in &plan.set {
            self.plane.set_entry(*key, entry)?;
        }
        Ok(())
    }

    /// Reads links and addresses again and follows.
    pub(super) async fn follow_network(&mut self) -> Result<()> {
        self.world.look_around().await?;
        // A name or an index that is used again is another interface.
        let links = &self.world.links;
        self.attached.retain(|(_, ifindex), attached| {
            links
                .iter()
                .any(|link| link.index == *ifindex && link.name == attached.attachment.interface)
        });
        // One that went and came back under its name and index has lost what ran there.
        self.repair().await?;
        self.reconcile(SystemTime::now(), false).await?;
        self.steer_by_network().await
    }

    /// Looks after a filter when its interface's qdiscs change.
    pub(super) async fn follow_qdisc(&mut self, ifindex: u32) -> Result<()> {
        if !self.attached.keys().any(|(_, known)| *known == ifindex) {
            return Ok(());
        }
        self.repair().await?;
        self.hook(false).await
    }

    /// Takes in what DNS said.
    pub(super) async fn learn(&mut self, updates: &[Update]) -> Result<()> {
        let filter = self.world.filter();
        let mut answered = false;
        for update in updates {
            if &*update.name == nat64::NAME {
                if self.world.learn_nat64(update) {
                    info!(prefixes = ?self.world.nat64_prefixes(), "NAT64 found");
                    answered = true;
                }
                self.unsaved = true;
                continue;
            }
            if self.world.memory.companions().has(&update.name) {
                answered |= self.world.memory.companions_mut().apply(update, &filter);
                self.unsaved = true;
                // It may be a name of an ePDG too.
            }
            let applied = self.world.memory.apply(update, &filter);
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
            }
            // Also without a new address: a known one may have got another name, and with it another owner.
            answered |= matches!(update.outcome, Outcome::Addresses { .. });
            self.unsaved = true;
            self.questions_changed |= applied.to_confirm;
        }
        if answered {
            self.reconcile(SystemTime::now(), false).await?;
        }
        Ok(())
    }

    /// Takes in what NAPTR records said.
    pub(super) fn find(&mut self, found: &Found, refresher: &Refresher) {
        if self.world.take_found(found, refresher.stats()) {
            refresher.command(Command::Replace(self.world.names()));
        }
    }

    /// What is to be done every so often although no event said so.
    pub(super) async fn resync(&mut self, now: SystemTime) -> Result<()> {
        self.world.look_around().await?;
        self.note_activity(now)?;
        let gone = self.world.memory.expire(now);
        if !gone.is_empty() {
            info!(?gone, "endpoints that had their time");
            self.unsaved = true;
            self.questions_changed = true;
        }
        self.world.follow_nat64();
        self.questions_changed |= self.world.memory.admit(now);
        self.follow_probes();
        self.snoop.expire(now);
        self.world.follow_geoip();
        self.repair().await?;
        self.follow_tunnels().await?;
        self.reconcile(now, false).await?;
        self.steer_by_network().await
    }

    /// Tells the task that probes what is known by now.
    pub(super) fn follow_probes(&self) {
        let settings = self.world.probe_settings();
        let wanted = match settings {
            Some(_) => self.world.probe_targets(),
            None => BTreeMap::new(),
        };
        self.prober.follow(settings, wanted);
    }

    pub(super) fn note_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// Tells the memory which entries had traffic since the last time.
    fn note_activity(&mut self, now: SystemTime) -> Result<()> {
        for (key, entry) in self.plane.entries()? {
            let last = self.plane.activity(entry.slot)?;
            let before = self.activity.insert(key, last);
            // The first look after a start has nothing to compare with; a call that goes on shows at the next.
            if before.is_some_and(|before| before != last)
                && let Some(net) = net_of(key)
                && self.world.memory.note_traffic(net, now) > 0
            {
                self.unsaved = true;
            }
        }
        Ok(())
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
        let path = self.world.config.agent.state_path();
        match store::save(&path, &self.world.memory, &self.world.visited) {
            Ok(()) => {
                self.unsaved = false;
                self.saved = now;
                self.state_problem = None;
            }
            Err(problem) => {
                let message = explain(&problem);
                warn!("{message}");
                self.state_problem = Some(message);
            }
        }
    }
}

/// The network that an entry stands for, as the memory knows addresses.
pub(super) fn net_of(key: Key) -> Option<IpNet> {
    let (address, len) = match key {
        // Its traffic is nobody's call.
        Key::Companion(_) => return None,
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

/// How discovery is to ask.
pub(crate) fn discovery(config: &Config) -> Settings {
    let discovery = &config.discovery;
    Settings {
        upstreams: discovery.resolvers.clone(),
        mark: None,
        routes: discovery.routes.clone(),
        ca_file: discovery.ca_file.clone(),
        timeout: discovery.timeout,
        refresh_min: discovery.refresh_min,
        refresh_max: discovery.refresh_max,
        absent_max: discovery.absent_max,
        queries_per_second: discovery.queries_per_second,
        concurrency: discovery.concurrency,
    }
}
