//! The endpoint set as others may have it: what the table holds, by network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use anyhow::{Result, anyhow};
use ipnet::IpNet;

use super::{
    compile::Around,
    country::Geo,
    desired::{endpoint, tiers},
    policy::row,
    policy_match::Endpoint,
    report::seconds,
    world::{Steering, World, network},
};
use crate::{
    config::Config,
    discover::{self, Bounds, Targets, Tier, Visited, store},
    export::{
        Set, Text, partition,
        set::{Entry, HostName, Name, Origin, Owner, Treatment},
        steering::{self, Choice, Exit},
        view::Meaning,
    },
    net::Family,
};

/// The set as it is without an agent: of the state on disk and of the configuration.
///
/// # Errors
///
/// If the state cannot be read, or the network of the box.
pub async fn offline_endpoints(config: Config) -> Result<Set> {
    World::offline(config).await?.endpoints(Origin::Offline)
}

impl World {
    /// What an agent would know at its start: the state on disk and the configuration. Changes nothing.
    pub(super) async fn offline(config: Config) -> Result<Self> {
        let path = config.agent.state_path();
        let loaded = store::peek(&path, config.discovery.keep, Bounds::default())
            .map_err(|problem| anyhow!("{} {problem}", path.display()))?;
        let (links, local) = network().await?;
        let mut world = Self {
            config: config.clone(),
            memory: loaded.memory,
            targets: Targets::default(),
            visited: Visited::default(),
            links,
            local,
            ways_out: BTreeSet::new(),
            geo: Geo::default(),
            steering: Steering::default(),
        };
        world.restore(&loaded.found);
        world.configure(config);
        world.follow_geoip();
        world.memory.expire(SystemTime::now());
        Ok(world)
    }

    /// The endpoint set.
    pub(super) fn endpoints(&self, origin: Origin) -> Result<Set> {
        let known = self.known();
        // What the scripts block: they have no other gateway to take.
        let blocked = steering::blocked(&self.config.exits);
        let meanings: BTreeMap<IpNet, _> = tiers(&known)
            .into_iter()
            .filter_map(|(net, tier)| {
                let claim = known.get(&net)?;
                let tier = tier?;
                let meaning = meaning(&self.config, &endpoint(&net, claim, tier), &blocked);
                Some((net, (tier, owned(&claim.owners), meaning)))
            })
            .collect();
        // Joins what a host has cut from the block that it says nothing else than.
        let mut alike: BTreeMap<(Tier, Vec<Owner>, Meaning), Vec<IpNet>> = BTreeMap::new();
        for (net, meaning) in partition(&meanings, &self.excluded()) {
            alike.entry(meaning).or_default().push(net);
        }
        let mut entries: Vec<Entry> = alike
            .into_iter()
            .flat_map(|((tier, owners, meaning), nets)| {
                let nets = IpNet::aggregate(&nets).into_iter();
                nets.map(move |net| Entry {
                    net: Text(net),
                    tier: Text(tier),
                    owners: owners.clone(),
                    treatment: meaning.treatment,
                    choices: meaning.choices.clone(),
                })
            })
            .collect();
        entries.sort_by_key(|entry| entry.net);
        let policies = self.config.policies.iter().map(|policy| {
            let said = steering::Policy::of(policy);
            said.ok_or_else(|| anyhow!("the name of policy {:?} has other characters", policy.name))
        });
        let policies = policies.collect::<Result<_>>()?;
        let instance = self.config.agent.instance.parse();
        Ok(Set {
            instance: Text(instance.map_err(anyhow::Error::msg)?),
            origin,
            at: seconds(SystemTime::now()),
            entries,
            names: self.named(),
            policies,
            exits: self.config.exits.iter().filter_map(Exit::of).collect(),
        })
    }

    /// Names that are looked up, and those that clients asked for which have addresses.
    fn named(&self) -> Vec<Name> {
        let mut names: BTreeMap<HostName, Name> = BTreeMap::new();
        let mut add = |name: &str, tier, owners: &BTreeSet<discover::Owner>, address| {
            // A name that a format could not hold is left out.
            let Ok(name) = name.parse::<HostName>() else {
                return;
            };
            let entry = names.entry(name.clone()).or_insert_with(|| Name {
                name: Text(name),
                tier: Text(tier),
                owners: owned(owners),
                addresses: Vec::new(),
            });
            match tier.cmp(&entry.tier.0) {
                std::cmp::Ordering::Less => return,
                std::cmp::Ordering::Greater => {
                    entry.tier = Text(tier);
                    entry.addresses.clear();
                }
                std::cmp::Ordering::Equal => {}
            }
            entry.addresses.extend(address);
        };
        for target in &self.targets.names {
            add(&target.name, Tier::Authoritative, &target.owners, None);
        }
        let filter = self.filter();
        for known in self.memory.known(&filter) {
            for name in &known.names {
                let owners = self.config.catalogue.owner_of_name(name);
                let owners = owners.map_or_else(|| (*known.owners).clone(), |(_, owners)| owners);
                add(name, known.tier, &owners, Some(Text(known.address)));
            }
        }
        let mut names: Vec<Name> = names.into_values().collect();
        for name in &mut names {
            name.addresses.sort_unstable();
            name.addresses.dedup();
        }
        names
    }
}

/// What the packets of an endpoint get, and what those of some clients get instead: the policies for all of its packets
/// end the list.
fn meaning(config: &Config, endpoint: &Endpoint, blocked: &BTreeSet<(u32, Family)>) -> Meaning {
    let around = Around {
        blocked: Some(blocked),
        ..Around::default()
    };
    let treatment = |policy| Treatment::from(&row(config, policy, endpoint, around));
    let mut choices = Vec::new();
    for (index, policy) in config.policies.iter().enumerate() {
        if !policy.takes(endpoint) {
            continue;
        }
        let treatment = treatment(Some(policy));
        if policy.clients.is_empty() && policy.interfaces.is_empty() {
            return Meaning { treatment, choices };
        }
        choices.push(Choice {
            policy: index,
            treatment,
        });
    }
    Meaning {
        treatment: treatment(None),
        choices,
    }
}

fn owned(owners: &BTreeSet<discover::Owner>) -> Vec<Owner> {
    let owners: BTreeSet<Owner> = owners.iter().map(Owner::from).collect();
    owners.into_iter().collect()
}
