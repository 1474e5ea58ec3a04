//! From the list of policies to what the kernel holds. Pure.
//!
//! What a policy says of endpoints is decided here, once for each endpoint: it gets the row of the first policy that says
//! nothing of clients, and before that row, where there are policies that do, a set of choices by class of client. Clients
//! and interfaces that no policy tells apart are one class. So a packet's cost does not grow with the number of policies.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

use ipnet::IpNet;
use wificall_common::abi::Policy as Row;

use super::{
    policy::{companion_row, gateway_row, own_row, row},
    policy_match::Endpoint,
};
use crate::{
    config::{Client, Config, Policy},
    discover::{Owner, Tier},
    net::{Family, Link},
};

/// What policies depend on besides the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The links that there are.
    pub links: &'a [Link],
    /// The tables of exits that block, by family: emergency calls do not take them.
    pub blocked: Option<&'a BTreeSet<(u32, Family)>>,
    /// Whether IPv4 endpoints are gone to by IPv6, too.
    pub nat64: bool,
    /// The gateways of exits on access links, whose own traffic is left alone.
    pub own: &'a [Client],
    /// The addresses of companion names, each with those.
    pub companions: Option<&'a BTreeMap<IpAddr, BTreeSet<&'a str>>>,
}

/// For which class of interfaces and which of clients a choice is; 0 is everybody who is of no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Of the interface.
    pub interface: u32,
    /// Of the client.
    pub client: u32,
}

/// What a class of clients gets instead of an endpoint's row: the place of the policy in the list, and its row. Sorted.
///
/// One compiler gives out equal ones as one: comparing them costs nothing then.
#[derive(Clone, Debug, Default)]
pub struct Choices(Arc<Vec<(Class, u32, Row)>>);

impl Choices {
    /// Sorted choices.
    #[must_use]
    pub fn new(choices: Vec<(Class, u32, Row)>) -> Self {
        Self(Arc::new(choices))
    }

    /// Whether all clients are treated alike.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Class, u32, Row)> {
        self.0.iter()
    }
}

impl Ord for Choices {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Choices {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Choices {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Choices {}

/// The numbering of clients and interfaces, as the kernel is to have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// What tells this numbering from others; 0: there are no classes.
    pub epoch: u32,
    /// Networks.
    pub networks: BTreeMap<IpNet, u32>,
    /// Link-layer addresses.
    pub stations: BTreeMap<[u8; 6], u32>,
    /// Indices of interfaces.
    pub interfaces: BTreeMap<u32, u32>,
}

/// A policy with its place, and the classes that it is for.
struct Placed<'a> {
    order: u32,
    /// `None`: the exits' own gateways are left alone.
    policy: Option<&'a Policy>,
    /// `None`: all interfaces.
    interfaces: Option<Vec<u32>>,
    /// `None`: all clients.
    clients: Option<Vec<u32>>,
}

/// Everything about an endpoint that a policy may ask.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked<'a> {
    owners: &'a BTreeSet<Owner>,
    names: &'a BTreeSet<Arc<str>>,
    emergency: bool,
    tier: Tier,
    family: Family,
    /// Which of the policies' prefixes it lies in.
    prefixes: Vec<usize>,
}

/// Compiles one configuration.
pub struct Compiler<'a> {
    config: &'a Config,
    around: Around<'a>,
    policies: Vec<Placed<'a>>,
    clients: Clients,
    /// The prefixes of all policies, each once.
    prefixes: Vec<IpNet>,
    known: HashMap<Asked<'a>, (Row, Choices)>,
    /// Those given out.
    choices: BTreeSet<Choices>,
}

impl<'a> Compiler<'a> {
    /// Numbers the clients and interfaces.
    #[must_use]
    pub fn new(config: &'a Config, around: Around<'a>) -> Self {
        let (clients, policies) = number(config, around);
        let prefixes: BTreeSet<IpNet> = config
            .policies
            .iter()
            .flat_map(|policy| policy.prefixes.iter().copied())
            .collect();
        Self {
            config,
            around,
            policies,
            clients,
            prefixes: prefixes.into_iter().collect(),
            known: HashMap::new(),
            choices: BTreeSet::from([Choices::default()]),
        }
    }

    /// The numbering.
    #[must_use]
    pub fn into_clients(self) -> Clients {
        self.clients
    }

    /// What the packets of an endpoint get: a row, and what some clients get instead.
    pub fn rows(&mut self, endpoint: &Endpoint<'a>) -> (Row, Choices) {
        let prefixes = self.prefixes.iter().enumerate();
        let asked = Asked {
            owners: endpoint.owners,
            names: endpoint.names,
            emergency: endpoint.emergency,
            tier: endpoint.tier,
            family: Family::from(endpoint.net.addr()),
            prefixes: prefixes
                .filter(|(_, prefix)| prefix.contains(&endpoint.net))
                .map(|(index, _)| index)
                .collect(),
        };
        if let Some(rows) = self.known.get(&asked) {
            return rows.clone();
        }
        let (row, choices) = self.compile(endpoint);
        let choices = self.given_out(choices);
        self.known.insert(asked, (row, choices.clone()));
        (row, choices)
    }

    /// Equal ones that were given out before, if there are: they take room once, and are found equal at a glance.
    fn given_out(&mut self, choices: Choices) -> Choices {
        if let Some(equal) = self.choices.get(&choices) {
            return equal.clone();
        }
        self.choices.insert(choices.clone());
        choices
    }

    /// What port 443 of an address gets that these companion names have: nothing, and the exits of the policies that name
    /// them for their clients. Who is left alone by a policy before those is so here too.
    pub fn companion(&mut self, names: &BTreeSet<&str>) -> (Row, Choices) {
        let mut choices: BTreeMap<Class, (u32, Row)> = BTreeMap::new();
        for placed in &self.policies {
            let row = match placed.policy {
                None => gateway_row(Tier::Authoritative),
                Some(policy) if policy.leaves_alone() => {
                    if placed.interfaces.is_none() && placed.clients.is_none() {
                        break;
                    }
                    own_row(Tier::Authoritative)
                }
                Some(policy) => {
                    let mut own = policy.companions.iter();
                    if !own.any(|name| names.contains(name.as_str())) {
                        continue;
                    }
                    companion_row(self.config, policy)
                }
            };
            for class in self.classes(placed) {
                choices.entry(class).or_insert((placed.order, row));
            }
        }
        let choices = choices.into_iter();
        let choices = choices.map(|(class, (order, row))| (class, order, row));
        let row = Row {
            epoch: self.clients.epoch,
            ..own_row(Tier::Authoritative)
        };
        (row, self.given_out(Choices::new(choices.collect())))
    }

    fn compile(&self, endpoint: &Endpoint) -> (Row, Choices) {
        let mut choices: BTreeMap<Class, (u32, Row)> = BTreeMap::new();
        let mut rest = row(self.config, None, endpoint, self.around);
        let mut steered = rest.exit != 0;
        for placed in &self.policies {
            let own = match placed.policy {
                None => gateway_row(endpoint.tier),
                Some(policy) if policy.takes(endpoint) => {
                    let own = row(self.config, Some(policy), endpoint, self.around);
                    if placed.interfaces.is_none() && placed.clients.is_none() {
                        rest = own;
                        steered |= rest.exit != 0;
                        break;
                    }
                    steered |= own.exit != 0;
                    own
                }
                Some(_) => continue,
            };
            for class in self.classes(placed) {
                choices.entry(class).or_insert((placed.order, own));
            }
        }
        if !steered {
            // Nobody's traffic goes anywhere: gateways need no exception.
            choices.retain(|_, (order, _)| *order != OWN);
        }
        if !choices.is_empty() {
            rest.epoch = self.clients.epoch;
        }
        let choices = choices.into_iter();
        let choices = choices.map(|(class, (order, row))| (class, order, row));
        (rest, Choices::new(choices.collect()))
    }

    /// The classes that a policy with clients or interfaces is for. Of all clients is looked up as class 0, and only where
    /// the interface has a class.
    fn classes(&self, placed: &Placed) -> Vec<Class> {
        let all = || (0..=self.clients.interfaces.values().copied().max().unwrap_or(0)).collect();
        let interfaces: Vec<u32> = placed.interfaces.clone().unwrap_or_else(all);
        let clients = placed.clients.as_deref().unwrap_or(&[0]);
        let of_interface = |interface: u32| {
            clients
                .iter()
                .map(move |&client| Class { interface, client })
        };
        interfaces.into_iter().flat_map(of_interface).collect()
    }
}

/// The place of the exception for exits' own gateways: before every policy.
const OWN: u32 = 0;

fn number<'a>(config: &'a Config, around: Around<'_>) -> (Clients, Vec<Placed<'a>>) {
    let steers = !config.exits.is_empty() && !around.own.is_empty();
    // By place: 0 is the gateways' exception.
    let listed = |place: usize| match place.checked_sub(1) {
        None if steers => around.own,
        None => &[],
        Some(index) => config.policies[index].clients.as_slice(),
    };
    let places = 0..=config.policies.len();
    let mut networks: BTreeMap<IpNet, BTreeSet<usize>> = BTreeMap::new();
    let mut stations: BTreeMap<[u8; 6], BTreeSet<usize>> = BTreeMap::new();
    for place in places.clone() {
        for client in listed(place) {
            match client {
                Client::Network(net) => networks.entry(net.trunc()).or_default().insert(place),
                Client::Mac(mac) => stations.entry(*mac).or_default().insert(place),
            };
        }
    }
    // What holds of a network holds of those in it, which the kernel finds first.
    let own = networks.clone();
    for (net, places) in &mut networks {
        for len in 0..net.prefix_len() {
            let around = IpNet::new(net.addr(), len).ok().map(|wider| wider.trunc());
            places.extend(
                around
                    .and_then(|wider| own.get(&wider))
                    .into_iter()
                    .flatten(),
            );
        }
    }
    let mut interfaces: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    for (place, policy) in (1..).zip(&config.policies) {
        for link in around.links {
            if policy
                .interfaces
                .iter()
                .any(|glob| glob.matches(&link.name))
            {
                interfaces.entry(link.index).or_default().insert(place);
            }
        }
    }
    let client_classes = Classes::of(networks.values().chain(stations.values()));
    let interface_classes = Classes::of(interfaces.values());
    let policies = places
        .filter(|place| *place != 0 || steers)
        .map(|place| {
            let policy = place.checked_sub(1).map(|index| &config.policies[index]);
            let at = policy.is_some_and(|policy| !policy.interfaces.is_empty());
            Placed {
                order: u32::try_from(place).unwrap_or(u32::MAX - 1),
                policy,
                interfaces: at.then(|| interface_classes.with(place)),
                clients: (!listed(place).is_empty()).then(|| client_classes.with(place)),
            }
        })
        .collect();
    let mut clients = Clients {
        epoch: 0,
        networks: client_classes.number(networks),
        stations: client_classes.number(stations),
        interfaces: interface_classes.number(interfaces),
    };
    clients.epoch = epoch(&clients);
    (clients, policies)
}

/// A number that another numbering does not have. Only of the numbering: the next agent comes to the same.
fn epoch(clients: &Clients) -> u32 {
    if (clients.networks.is_empty() && clients.stations.is_empty()) && clients.interfaces.is_empty()
    {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (&clients.networks, &clients.stations, &clients.interfaces).hash(&mut hasher);
    NonZeroU32::new(hasher.finish() as u32).map_or(1, NonZeroU32::get)
}

/// The classes of things by the places of the policies that name them.
struct Classes(BTreeMap<BTreeSet<usize>, u32>);

impl Classes {
    fn of<'s>(sets: impl Iterator<Item = &'s BTreeSet<usize>>) -> Self {
        let sets: BTreeSet<&BTreeSet<usize>> = sets.collect();
        Self(sets.into_iter().cloned().zip(1..).collect())
    }

    /// Those that the policy at this place names.
    fn with(&self, place: usize) -> Vec<u32> {
        let named = self.0.iter().filter(|(places, _)| places.contains(&place));
        named.map(|(_, class)| *class).collect()
    }

    fn number<K: Ord>(&self, things: BTreeMap<K, BTreeSet<usize>>) -> BTreeMap<K, u32> {
        things
            .into_iter()
            .filter_map(|(thing, places)| Some((thing, *self.0.get(&places)?)))
            .collect()
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
