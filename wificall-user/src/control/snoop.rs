//! What clients' packets tell, taken in by the loop.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tracing::{debug, info, warn};
use wificall_common::{
    abi::{Bucket, EventKind},
    wire::dns,
};

use super::{agent::Agent, world::World};
use crate::{
    catalogue::{Catalogue, NameKind},
    config::SnoopIke,
    discover::{
        Applied, Sighting,
        snoop::{Answered, Context, Found, Origins},
    },
    kernel::{self, ktime},
    net,
    telemetry::view::Step,
};

/// Events taken in at once: between two batches, whatever else waits has its turn.
const BATCH: usize = 256;
/// Below this the programs know every name.
const DOMAIN: &str = ".3gppnetwork.org";

impl World {
    /// Where answers may come in.
    pub(super) fn origins(&self) -> Origins {
        let interfaces = &self.config.interfaces;
        let indices = |globs| -> BTreeSet<u32> {
            let selected = net::select(globs, &self.links);
            selected.iter().map(|link| link.index).collect()
        };
        Origins::new(
            &self.links,
            &indices(&interfaces.access),
            &indices(&interfaces.uplink),
            !interfaces.uplink.is_empty(),
            &self.ways_out,
        )
    }
}

impl Agent {
    /// Opens the reading end of what the programs tell, or closes it, as the configuration says. To be called with every
    /// load of the programs, before they are attached.
    pub(super) fn listen(&mut self) -> Result<()> {
        let config = &self.world.config;
        let names = if config.snoop.names {
            names_to_know(&config.catalogue, &self.world)
        } else {
            BTreeSet::new()
        };
        let left_out = self.plane.set_names(&names)?;
        if left_out > 0 {
            warn!(
                left_out,
                "more names than the programs have room for: clients that ask for them are not seen"
            );
        }
        self.events = None;
        if config.hears() {
            self.events = Some(self.plane.events()?);
        }
        Ok(())
    }

    /// Takes in what the programs have told.
    pub(super) async fn hear(&mut self) -> Result<()> {
        let mut events = Vec::new();
        let mut flows = false;
        for _ in 0..BATCH {
            let Some(event) = self.events.as_mut().and_then(kernel::Events::take) else {
                break;
            };
            match event {
                Some(event) if event.kind == EventKind::Flow => {
                    self.note_flow(&event);
                    flows = true;
                }
                event => events.push(event),
            }
        }
        let now = SystemTime::now();
        // A phone has its answer before it sets up: so it is told.
        let observed = self.observe(events, now);
        if flows {
            self.follow_flows()?;
        }
        self.take_observed(observed, now).await
    }

    /// Takes in what clients ask for and are told, and what they send IPsec to.
    fn observe(&mut self, events: Vec<Option<kernel::Event>>, now: SystemTime) -> Vec<Applied> {
        if events.is_empty() {
            return Vec::new();
        }
        let filter = self.world.filter();
        let origins = self.world.origins();
        let catalogue = self.world.config.catalogue.clone();
        let observe_ike = self.world.config.snoop.ike == SnoopIke::Observe;
        let reports_ike = self.world.config.snoop.ike != SnoopIke::Off;
        let catches = self.world.config.catch_all.enabled;
        let watched: BTreeSet<u32> = self.attached.keys().map(|(_, ifindex)| *ifindex).collect();
        let geo = &self.world.geo;
        let context = Context {
            origins: &origins,
            filter: &filter,
            watched: &|ifindex| watched.contains(&ifindex),
            owners: &|name| catalogue.owner_of_name(name).map(|(_, owners)| owners),
            country: &|address| geo.country(address),
            clients: !self.world.config.interfaces.access.is_empty(),
            ktime: ktime(),
            now,
        };
        let settings = self.plane.settings();
        let mut catch_due = self.catch_due;
        let mut all = Vec::new();
        for event in events {
            let memory = &mut self.world.memory;
            let ago = event
                .as_ref()
                .map_or(0, |event| context.ktime.saturating_sub(event.at));
            let at = now - Duration::from_nanos(ago);
            match self.snoop.take(event.as_ref(), &context) {
                None => {}
                Some(Found::Query { name, client }) => {
                    let settings = &self.world.config.telemetry;
                    self.traces
                        .name(settings, at, Step::DnsAsked, client, &name, None);
                }
                Some(Found::Empty { name, client }) => {
                    let settings = &self.world.config.telemetry;
                    self.traces
                        .name(settings, at, Step::DnsAnswered, client, &name, Some(&[]));
                }
                Some(Found::Answer(answered)) => {
                    let Answered {
                        name,
                        addresses,
                        client,
                        ..
                    } = &answered;
                    let settings = &self.world.config.telemetry;
                    self.traces.name(
                        settings,
                        at,
                        Step::DnsAnswered,
                        *client,
                        name,
                        Some(addresses),
                    );
                    let sighting = Sighting {
                        name: answered.name,
                        addresses: answered.addresses,
                        client: answered.client,
                        at: now,
                    };
                    let applied = memory.observe(&sighting, &filter);
                    if !applied.added.is_empty() {
                        info!(name = &*sighting.name, added = ?applied.added, "a client was told of new endpoints");
                    }
                    all.push(applied);
                }
                Some(Found::Asked { address, client }) => {
                    // Nothing follows from where no policy is for its country: it stays unknown.
                    let country = geo.country(address);
                    let is_for = |country| self.world.config.is_for(country);
                    if catches && country.is_some_and(is_for) {
                        // As the programs do: what comes faster passes untouched.
                        let next = Bucket::take(catch_due, context.ktime, settings.catch_gap(), 1);
                        if next == 0 {
                            continue;
                        }
                        catch_due = next;
                        let applied = memory.catch(address, client, now, &filter);
                        if !applied.added.is_empty() {
                            let country = country.map(|country| country.to_string());
                            info!(%address, country, "IPsec to an unlisted address: its country decides");
                        }
                        all.push(applied);
                    }
                }
                Some(Found::Peer { address, client }) => {
                    if reports_ike && self.snoop.note_candidate(address, &context) {
                        let country = geo.country(address);
                        let country = country.map_or("unknown".to_owned(), |c| c.to_string());
                        info!(%address, country, "an unknown address answers IKE: it may be an ePDG");
                    }
                    if observe_ike {
                        all.push(memory.learn(address, client, now, &filter));
                    }
                }
            }
        }
        self.catch_due = catch_due;
        all
    }

    async fn take_observed(&mut self, all: Vec<Applied>, now: SystemTime) -> Result<()> {
        let mut added = false;
        for applied in all {
            for (address, reason) in &applied.refused {
                *self.refused.entry(*reason).or_default() += 1;
                debug!(%address, %reason, "address refused");
            }
            self.questions_changed |= applied.to_confirm;
            added |= !applied.added.is_empty();
            self.note_unsaved();
        }
        if added {
            self.reconcile(now, false).await?;
        }
        Ok(())
    }
}

/// The hashes of the names outside of `3gppnetwork.org` that count: those of the catalogue, and those configured.
fn names_to_know(catalogue: &Catalogue, world: &World) -> BTreeSet<u64> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for operator in catalogue.operators() {
        for name in catalogue.names(operator.plmn) {
            if name.kind == NameKind::Carrier {
                names.insert(name.name);
            }
        }
    }
    for target in &world.targets.names {
        names.insert(target.name.to_string());
    }
    names
        .iter()
        .filter(|name| !name.ends_with(DOMAIN))
        .filter_map(|name| {
            let hash = dns::hash(name);
            if hash.is_none() {
                warn!(
                    name,
                    "too long a name: clients that ask for it are not seen"
                );
            }
            hash
        })
        .collect()
}

/// Waits until the programs may have told something; for ever if nobody listens.
pub(super) async fn heard(events: &mut Option<kernel::Events>) -> std::io::Result<()> {
    match events {
        Some(events) => events.ready().await,
        None => std::future::pending().await,
    }
}
