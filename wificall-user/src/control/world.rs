//! What the agent knows, apart from the kernel's tables; and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use wificall_common::{
    abi::{Features, PREF64S},
    wire::nat64::Pref64,
};

use super::{
    compile::{Around, Compiler},
    country::Geo,
    desired::{self, Claim, Wanted},
    hooks, other, policy,
};
use crate::{
    config::{Client, Config, First, SnoopIke},
    discover::{
        self, Filter, Found, Memory, Names, Owner, Rank, Stats, Target, Targets, Tier, Update,
        Visited,
        nat64::{self, Nat64},
        targets,
    },
    kernel::{Key, Settings},
    net::{self, Family, Link},
    probe::{
        Source,
        background::{Settings as ProbeSettings, Wanted as ProbeWanted},
        plan::Admission,
    },
};

/// Addresses, and what is said of them.
type Hosts = Vec<(IpAddr, Claim)>;
/// Networks, and whose they are.
type Prefixes = Vec<(IpNet, BTreeSet<Owner>)>;

/// The world as the agent knows it.
pub(super) struct World {
    pub config: Config,
    pub memory: Memory,
    pub targets: Targets,
    pub visited: Visited,
    pub links: Vec<Link>,
    /// Addresses of the box, each with the length of its network's prefix.
    pub local: Vec<IpNet>,
    /// The interfaces that packets to the Internet leave by, if that is asked for.
    pub ways_out: BTreeSet<u32>,
    /// Where addresses are.
    pub geo: Geo,
    /// What exits say of policies.
    pub steering: Steering,
}

/// What the state of the exits means for policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steering {
    /// The tables of exits that block, by family.
    pub blocked: BTreeSet<(u32, Family)>,
    /// Gateways that are neighbours of phones: what they forward comes from their link-layer address, by the way that
    /// phones' packets come.
    pub own: Vec<Client>,
    /// Whether an exit is on another gateway than the one it prefers.
    pub failed_over: bool,
}

impl World {
    /// Takes a configuration as the one in force.
    pub(super) fn configure(&mut self, config: Config) {
        self.config = config;
        let selection = self.config.discovery.selection();
        self.visited.select(&self.config.catalogue, &selection);
        self.memory.set_catalogue(self.config.catalogue.clone());
        self.select();
        let discovery = &self.config.discovery;
        self.memory.set_keep(discovery.keep);
        self.memory
            .set_observed(self.config.observed, discovery.queries_per_second);
        self.memory
            .companions_mut()
            .select(self.config.companions());
        self.follow_nat64();
    }

    /// Puts back what NAPTR records had said, as far as it is still asked for and believed: without their names,
    /// addresses would have no owners until the records have been asked for again.
    pub fn restore(&mut self, found: &[Found]) {
        let Config {
            catalogue,
            discovery,
            ..
        } = &self.config;
        self.visited.select(catalogue, &discovery.selection());
        for found in found {
            self.visited.take(found, catalogue, &Stats::default());
        }
    }

    /// What NAPTR records said. Returns whether there are more names to look up.
    pub(super) fn take_found(&mut self, found: &Found, stats: &Stats) -> bool {
        let is_new = self.visited.take(found, &self.config.catalogue, stats);
        if is_new {
            self.select();
        }
        is_new
    }

    /// Makes the targets of the configuration and of what was found.
    fn select(&mut self) {
        self.targets = targets(&self.config.catalogue, &self.config.discovery.selection());
        let names = &mut self.targets.names;
        for found in self.visited.targets() {
            if let Err(place) = names.binary_search_by(|t| t.name.cmp(&found.name)) {
                names.insert(place, found);
            }
        }
        self.memory.set_targets(&self.targets.names);
    }

    /// What to look up, and in which order.
    pub(super) fn names(&self) -> Names {
        let answered: BTreeSet<_> = self
            .memory
            .known(&self.filter())
            // What a client was told must not put its name before others.
            .filter(|known| known.tier > Tier::Observed)
            .flat_map(|known| known.names)
            .collect();
        // What only the world asks for comes after what somebody has asked for by itself.
        let mut narrow = self.config.discovery.selection();
        narrow.world = false;
        let configured = match self.config.discovery.world {
            true => targets(&self.config.catalogue, &narrow).names,
            false => Vec::new(),
        };
        let rank = |target: &Target| {
            let by_name = |other: &Target| other.name.cmp(&target.name);
            if answered.contains(&target.name) {
                Rank::Known
            } else if self.config.discovery.world && configured.binary_search_by(by_name).is_err() {
                Rank::World
            } else {
                Rank::Configured
            }
        };
        let routes = &self.config.discovery.routes;
        // What clients asked for, and the NAT64 prefix, come before the world too.
        let mut further = self.memory.to_confirm();
        if self.config.discovery.nat64_prefix == Nat64::Auto {
            further.push(nat64::target());
        }
        further.extend(self.memory.companions().targets());
        let targets = self.targets.names.iter().chain(&further);
        let rank = |target: &Target| match rank(target) {
            Rank::World if further.iter().any(|other| other.name == target.name) => {
                Rank::Configured
            }
            rank => rank,
        };
        Names::new(targets, rank, self.visited.names(), routes)
    }

    /// The NAT64 prefixes in force, written.
    pub(super) fn nat64_prefixes(&self) -> Vec<String> {
        self.pref64()
            .map(|Pref64 { prefix, len }| format!("{}/{len}", Ipv6Addr::from(prefix)))
            .collect()
    }

    /// Takes in what DNS said of the NAT64 prefix. Returns whether another is in force now.
    pub(super) fn learn_nat64(&mut self, update: &Update) -> bool {
        let auto = self.config.discovery.nat64_prefix == Nat64::Auto;
        let changed = auto && self.memory.apply_nat64(update);
        self.follow_nat64();
        changed
    }

    /// Tells the memory which NAT64 prefixes are in force.
    pub(super) fn follow_nat64(&mut self) {
        self.memory.set_pref64(self.pref64().collect());
    }

    /// The NAT64 prefixes in force.
    pub(super) fn pref64(&self) -> impl Iterator<Item = Pref64> {
        let configured = match self.config.discovery.nat64_prefix {
            Nat64::Prefix(net) => Some(net),
            Nat64::Auto | Nat64::Off => None,
        };
        let auto = self.config.discovery.nat64_prefix == Nat64::Auto;
        let found = self.memory.nat64().prefixes().filter(move |_| auto);
        configured
            .into_iter()
            .chain(found)
            .filter_map(nat64::pref64)
    }

    /// Reads links and addresses again.
    pub(super) async fn look_around(&mut self) -> Result<()> {
        (self.links, self.local) = network().await?;
        self.ways_out = ways_out(&self.config).await?;
        Ok(())
    }

    /// What the endpoint table should hold.
    pub(super) fn desired(&self) -> Wanted {
        let known = self.known();
        let companions = self.memory.companions().addresses();
        let around = Around {
            companions: Some(&companions),
            ..self.around()
        };
        desired::desired(&self.config, around, &known, &self.excluded())
    }

    /// The keys by which the programs know gateways on access links: addresses mapped, link-layer addresses at the end.
    pub(super) fn gateways(&self) -> BTreeSet<[u8; 16]> {
        let own = self.steering.own.iter();
        own.map(|client| match client {
            Client::Network(IpNet::V4(net)) => net.addr().to_ipv6_mapped().octets(),
            Client::Network(IpNet::V6(net)) => net.addr().octets(),
            Client::Mac(mac) => {
                let mut key = [0; 16];
                key[10..].copy_from_slice(mac);
                key
            }
        })
        .collect()
    }

    /// What policies depend on besides the configuration.
    pub(super) fn around(&self) -> Around<'_> {
        Around {
            links: &self.links,
            blocked: Some(&self.steering.blocked),
            own: &self.steering.own,
            nat64: self.pref64().next().is_some(),
            companions: None,
        }
    }

    /// Opens or reads again the GeoIP database.
    pub(super) fn follow_geoip(&mut self) {
        self.geo.follow(&self.config.geoip);
    }

    /// What is known, by network.
    pub(super) fn known(&self) -> desired::Known {
        let (mut hosts, mut prefixes) = self.claims();
        let catalogue = &self.config.catalogue;
        for (address, claim) in &mut hosts {
            let net = IpNet::from(*address);
            self.geo.locate(&mut claim.owners, catalogue, net);
        }
        for (net, owners) in &mut prefixes {
            self.geo.locate(owners, catalogue, *net);
        }
        desired::known(&self.config, hosts, prefixes)
    }

    /// The addresses and networks that are known, with their owners by name and configuration alone.
    pub(super) fn claims(&self) -> (Hosts, Prefixes) {
        let filter = self.filter();
        let literal = self
            .targets
            .addresses
            .iter()
            .filter(|(address, _)| filter.check(*address).is_ok())
            .map(|(address, owners)| (*address, Claim::from(owners.clone())));
        // An answer of DNS64 stands for an IPv4 host, and that is how the classifier looks it up.
        let hosts = self
            .memory
            .known(&filter)
            .map(|known| (known.address, self.claim(known)))
            .chain(literal)
            .map(|(address, claim)| (self.plain(address), claim))
            .filter(|(address, _)| filter.check(*address).is_ok())
            .collect();
        (hosts, self.prefixes())
    }

    /// Networks that are configured or catalogued.
    fn prefixes(&self) -> Prefixes {
        let prefixes = self.config.prefixes.iter().map(|prefix| {
            let owner = Owner::configured(&self.config.catalogue, prefix.operator, prefix.country);
            let owners = if owner == Owner::UNKNOWN {
                BTreeSet::new()
            } else {
                BTreeSet::from([owner])
            };
            (prefix.prefix, owners)
        });
        prefixes
            .chain(self.targets.networks.iter().cloned())
            .collect()
    }

    /// What is said of a remembered address.
    fn claim(&self, known: discover::Known) -> Claim {
        // The names of the whole world are a megabyte.
        let asks_names = self.config.policies.iter().any(|p| !p.names.is_empty());
        // What a client was told makes no emergency call.
        let mut resolved = known.names.iter().chain(&known.further);
        let emergency = known.tier > Tier::Observed && resolved.any(|name| self.is_emergency(name));
        Claim {
            tier: known.tier,
            owners: Arc::unwrap_or_clone(known.owners),
            names: if asks_names {
                known.names
            } else {
                BTreeSet::new()
            },
            emergency,
        }
    }

    /// Whether phones ask for a name to make an emergency call.
    fn is_emergency(&self, name: &str) -> bool {
        // Most are not, and are told apart cheaply.
        name.contains("sos")
            && self
                .config
                .catalogue
                .owner_of_name(name)
                .is_some_and(|(kind, _)| kind.is_emergency())
    }

    /// How the agent is to probe; `None` if it is not to.
    pub(super) fn probe_settings(&self) -> Option<ProbeSettings> {
        let probe = &self.config.probe;
        probe.enabled.then(|| ProbeSettings {
            interval: probe.interval,
            spacing: probe.spacing,
            ports: probe.ports.clone(),
            admission: Admission::new(self.filter(), false),
        })
    }

    /// The addresses that may be sent to: those that names and the catalogue give.
    fn probed(&self) -> Hosts {
        let filter = self.filter();
        let literal = self.targets.addresses.iter().cloned();
        let literal = literal.map(|(address, owners)| (address, Claim::from(owners)));
        let mut hosts: Hosts = self
            .memory
            .known(&filter)
            // What a client was told must not make us send anything to anybody.
            .filter(|known| known.tier > Tier::Observed)
            .map(|known| (known.address, self.claim(known)))
            .chain(literal)
            .filter(|(address, _)| filter.check(*address).is_ok())
            .collect();
        for (address, claim) in &mut hosts {
            let catalogue = &self.config.catalogue;
            self.geo
                .locate(&mut claim.owners, catalogue, (*address).into());
        }
        hosts
    }

    /// For each exit (by table) that policies send ePDGs by, be it of some clients only, the first that may be asked.
    pub(super) fn steered(&self) -> BTreeMap<(u32, Family), IpAddr> {
        let filter = self.filter();
        let mut hosts = self.probed();
        // A network of one address is an ePDG that somebody has configured.
        for (net, mut owners) in self.prefixes() {
            let is_single = net.prefix_len() == net.max_prefix_len();
            if is_single && filter.check(net.addr()).is_ok() {
                self.geo
                    .locate(&mut owners, &self.config.catalogue, net.addr().into());
                hosts.push((net.addr(), Claim::from(owners)));
            }
        }
        let mut compiler = Compiler::new(&self.config, self.around());
        let mut steered = BTreeMap::new();
        for (address, claim) in &hosts {
            let net = IpNet::from(*address);
            let (row, choices) = compiler.rows(&desired::endpoint(&net, claim, claim.tier));
            let rows = choices.iter().map(|(_, _, row)| row).chain([&row]);
            for row in rows.filter(|row| row.exit != 0) {
                let exit = (row.exit, Family::from(*address));
                let first = steered.entry(exit).or_insert(*address);
                *first = (*first).min(*address);
            }
        }
        steered
    }

    /// What it is to probe: the addresses that may be sent to, each from where its phones' packets leave.
    pub(super) fn probe_targets(&self) -> BTreeMap<IpAddr, ProbeWanted> {
        let hosts = self.probed();
        let mut compiler = Compiler::new(&self.config, self.around());
        hosts
            .iter()
            .map(|(address, claim)| {
                let net = IpNet::from(*address);
                let (row, _) = compiler.rows(&desired::endpoint(&net, claim, claim.tier));
                let wanted = ProbeWanted {
                    owners: Arc::new(claim.owners.clone()),
                    source: Source {
                        mark: (row.mask != 0).then_some(row.mark),
                    },
                };
                (*address, wanted)
            })
            .collect()
    }

    /// Networks and addresses that are never endpoints: the box's own addresses, and its networks unless a lab admits
    /// them.
    pub(super) fn excluded(&self) -> Vec<IpNet> {
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

    /// The load-time settings that a table of this content needs. `armed`: other IPsec may be dropped.
    pub(super) fn settings(&self, wanted: &Wanted, armed: bool) -> Settings {
        let on = |feature, on: bool| if on { feature } else { 0 };
        let other = self.config.other_ipsec.action;
        let awaited = if self.config.listens() {
            policy::rows_for_clients(&self.config)
        } else {
            Vec::new()
        };
        let features = policy::features(wanted.rows().chain(&awaited));
        let mut meanings = wanted.entries.values().filter_map(|e| e.meaning.as_ref());
        let by_client = self.config.listens() || meanings.any(|m| !m.choices.is_empty());
        let clients = &wanted.clients;
        let trie = wanted
            .entries
            .keys()
            .any(|key| matches!(key, Key::Prefix(..)));
        let mut pref64 = [None; PREF64S];
        for (slot, prefix) in pref64.iter_mut().zip(self.pref64()) {
            *slot = Some(prefix);
        }
        Settings {
            features: hooks::features(&self.config.interfaces)
                | snoop_features(&self.config)
                | features
                | other::features(other, self.config.trust, armed)
                | on(Features::PREFIXES, trie)
                | on(Features::CLIENTS, by_client && !clients.networks.is_empty())
                | on(
                    Features::STATIONS,
                    by_client && !clients.stations.is_empty(),
                )
                | on(
                    Features::INTERFACES,
                    by_client && !clients.interfaces.is_empty(),
                )
                // Tunnels keep the mark that they began with, whatever policies say now.
                | on(Features::FLOWS, self.config.telemetry.enabled)
                | on(Features::GATEWAYS, !self.steering.own.is_empty())
                | on(Features::EXITS | Features::MARK, !self.config.exits.is_empty())
                | on(
                    Features::COMPANIONS,
                    self.config.companions().next().is_some(),
                ),
            pref64,
            events_per_second: self.config.snoop.events_per_second,
            other_mark: other::mark(other),
            catch_per_second: self.config.catch_all.per_second,
            catch_exit: catch_exit(&self.config),
            flows_per_second: self.config.telemetry.flows_per_second,
            flow_events_per_second: self.config.telemetry.events_per_second,
        }
    }
}

/// The exit of tunnels to unknown addresses, as the programs have it; none: zeroes.
fn catch_exit(config: &Config) -> [u32; 3] {
    let name = config.catch_all.exit.as_deref();
    let exit = config
        .exits
        .iter()
        .find(|exit| Some(exit.name.as_str()) == name);
    exit.map_or([0; 3], |exit| [exit.table, exit.mark.value, exit.mark.mask])
}

/// The load-time features of what is looked at a second time.
pub(super) fn snoop_features(config: &Config) -> u32 {
    let names = if config.snoop.names {
        Features::SNOOP_NAMES
    } else {
        0
    };
    let ike = match config.snoop.ike {
        SnoopIke::Off => 0,
        SnoopIke::Report | SnoopIke::Observe => Features::SNOOP_IKE,
    };
    let caught = match (config.catch_all.enabled, config.catch_all.first) {
        (false, _) => 0,
        (true, First::Hold) => Features::SNOOP_IKE | Features::CATCH_HOLD,
        (true, First::Mark) => Features::SNOOP_IKE | Features::CATCH_MARK | Features::MARK,
    };
    names | ike | caught
}

/// The interfaces that packets to the Internet leave by. Not asked for where nothing follows from it.
pub(super) async fn ways_out(config: &Config) -> Result<BTreeSet<u32>> {
    if !config.listens() || !config.interfaces.uplink.is_empty() {
        return Ok(BTreeSet::new());
    }
    let indices = net::ways_out()
        .await
        .context("read the routes over netlink")?;
    Ok(indices.into_iter().collect())
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
