//! What the agent knows, apart from the kernel's tables; and what follows from it.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use wificall_common::{abi::Features, wire::nat64::Pref64};

use super::{
    desired::{self, Desired},
    hooks, policy,
};
use crate::{
    config::{Config, SnoopIke},
    discover::{Filter, Memory, Owner, Targets, targets},
    kernel::{Key, Settings},
    net::{self, Link},
};

/// The world as the agent knows it.
pub(super) struct World {
    pub config: Config,
    pub memory: Memory,
    pub targets: Targets,
    pub links: Vec<Link>,
    /// Addresses of the box, each with the length of its network's prefix.
    pub local: Vec<IpNet>,
}

impl World {
    /// Takes a configuration as the one in force.
    pub(super) fn configure(&mut self, config: Config) {
        self.config = config;
        self.targets = targets(&self.config.catalogue, &self.config.discovery.selection());
        self.memory.set_targets(&self.targets.names);
        self.memory.set_keep(self.config.discovery.keep);
    }

    /// Reads links and addresses again.
    pub(super) async fn look_around(&mut self) -> Result<()> {
        (self.links, self.local) = network().await?;
        Ok(())
    }

    /// What the endpoint table should hold.
    pub(super) fn desired(&self) -> Desired {
        let filter = self.filter();
        let literal = self
            .targets
            .addresses
            .iter()
            .filter(|(address, _)| filter.check(*address).is_ok())
            .cloned();
        // An answer of DNS64 stands for an IPv4 host, and that is how the classifier looks it up.
        let pref64 = pref64(&self.config);
        let plain = |address: IpAddr| match (address, pref64) {
            (IpAddr::V6(v6), Some(pref64)) => {
                pref64.extract(&v6.octets()).map_or(address, IpAddr::from)
            }
            _ => address,
        };
        let hosts: Vec<(IpAddr, BTreeSet<Owner>)> = self
            .memory
            .known(&filter)
            .map(|known| (known.address, known.owners))
            .chain(literal)
            .map(|(address, owners)| (plain(address), owners))
            .filter(|(address, _)| filter.check(*address).is_ok())
            .collect();
        let prefixes = self.config.prefixes.iter().map(|prefix| {
            let owner = Owner::configured(&self.config.catalogue, prefix.operator, prefix.country);
            let owners = if owner == Owner::UNKNOWN {
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

    /// Which addresses may be endpoints.
    pub(super) fn filter(&self) -> Filter {
        Filter::new(
            self.local.iter().copied(),
            self.config.lab.admit.iter().copied(),
        )
    }

    /// The load-time settings that a table of this content needs.
    pub(super) fn settings(&self, desired: &Desired) -> Settings {
        let rows = desired
            .values()
            .filter_map(|entry| entry.meaning.as_ref())
            .map(|meaning| &meaning.row);
        let trie = desired.keys().any(|key| matches!(key, Key::Prefix(..)));
        Settings {
            features: hooks::features(&self.config.interfaces)
                | snoop_features(&self.config)
                | policy::features(rows)
                | if trie { Features::PREFIXES } else { 0 },
            pref64: pref64(&self.config),
            events_per_second: self.config.snoop.events_per_second,
        }
    }
}

fn snoop_features(config: &Config) -> u32 {
    let names = if config.snoop.names {
        Features::SNOOP_NAMES
    } else {
        0
    };
    let ike = match config.snoop.ike {
        SnoopIke::Off => 0,
        SnoopIke::Report | SnoopIke::Observe => Features::SNOOP_IKE,
    };
    names | ike
}

fn pref64(config: &Config) -> Option<Pref64> {
    config.discovery.nat64_prefix.map(|net| Pref64 {
        prefix: net.network().octets(),
        len: net.prefix_len(),
    })
}

/// Links, and addresses with their networks' prefix lengths.
pub(super) async fn network() -> Result<(Vec<Link>, Vec<IpNet>)> {
    let links = net::links().await.context("read the links over netlink")?;
    let addresses = net::addresses()
        .await
        .context("read the addresses over netlink")?;
    Ok((
        links,
        addresses.into_iter().map(|(_, address)| address).collect(),
    ))
}
