//! Explains what is done with a packet, of what the agent knows. It is classified by the code of the programs, over the table
//! that they are given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Result;
use ipnet::IpNet;
use wificall_common::{
    Class, Direction,
    abi::{Hook, Policy as Row},
    classify::{Link, Match, classify, fragment_key, network},
    endpoint,
    exit::Exit,
    rewrite,
};

use super::{
    country::written,
    desired::{self, Claim, Desired, Known},
    explain_why::Refusal,
    hooks::{Role, Selected, Selection},
    policy::row_of,
    policy_match::{self, Origin, Reason, Subject},
    report::owners,
    tables::Tables,
    world::World,
};
use crate::{
    config::{Action, Config, Policy, SnoopIke},
    discover::Tier,
    explanation::{Client, Endpoint, Explanation, Mac, Packet, Parsed, Treated, Tried, dissect},
    export::set::{self, Text},
    kernel::Key,
    net::Kind,
};

/// Values of a condition, names and addresses that are listed.
const LISTED: usize = 8;
/// What cfg80211 reads as user priority 6, voice.
const PRIORITY_WIRELESS_VOICE: u32 = 256 + 6;
/// TC_PRIO_INTERACTIVE.
const PRIORITY_INTERACTIVE: u32 = 6;

/// What is done with a packet, of the state on disk and the configuration: as an agent would at its start.
///
/// # Errors
///
/// If the state cannot be read, or the network of the box.
pub async fn explain_offline(config: Config, packet: &Packet) -> Result<Explanation> {
    let world = World::offline(config).await?;
    let interfaces = &world.config.interfaces;
    let selection = super::hooks::selection(interfaces, &world.links, crate::kernel::has_tcx());
    let desired = world.desired();
    Ok(world.explain(packet, &desired, &selection, set::Origin::Offline))
}

/// What the classifier says of a packet that goes one way.
struct Judged {
    direction: Direction,
    result: Result<Match, Exit>,
    /// The far end, of what has one.
    far: Option<IpAddr>,
    /// Where that is in the table.
    found: Option<Key>,
}

impl World {
    /// What is done with a packet where `desired` is the table and `selection` says what runs where.
    pub(super) fn explain(
        &self,
        packet: &Packet,
        desired: &Desired,
        selection: &Selection,
        origin: set::Origin,
    ) -> Explanation {
        let at = self.interface(packet, selection);
        let link = match (packet.link, at) {
            (Some(link), _) => link.into(),
            (None, Some(at)) if at.link.kind == Kind::NoLinkHeader => Link::Bare,
            (None, _) => Link::Ethernet,
        };
        let frame = &packet.frame.0.0[..];
        let parsed = dissect(frame, link);
        let mut tables = Tables::new(desired);
        tables.pref64 = self.pref64().collect();
        tables.snoops_names = self.config.snoop.names;
        tables.snoops_ike = self.config.snoop.ike != SnoopIke::Off;
        let judged = self.judge(packet, link, &parsed, &mut tables);
        let known = self.known();
        let mut explanation = Explanation {
            origin,
            direction: Some(judged.direction.into()),
            matches: judged.result.is_ok(),
            exit: judged.result.err().unwrap_or(Exit::Matched).name().into(),
            class: None,
            treated_as: None,
            why: String::new(),
            hints: Vec::new(),
            endpoint: None,
            policies: Vec::new(),
            policy: None,
            client: self.client(packet, &parsed, judged.direction, link, at),
            hooks: Vec::new(),
            notes: Vec::new(),
            parsed,
        };
        let claimed = judged
            .far
            .zip(judged.found)
            .map(|(address, key)| self.endpoint(address, key, &known, desired));
        if let Some((endpoint, _)) = &claimed {
            explanation.endpoint = Some(endpoint.clone());
        } else if packet.direction.is_none() {
            explanation.direction = None;
        }
        match judged.result {
            Ok(found) => {
                explanation.class = Some(found.class.name().into());
                explanation.treated_as = Some(found.treat_as.name().into());
                explanation.why = "an endpoint, and IPsec".into();
                let net = claimed.and_then(|(_, net)| net);
                self.treat(&mut explanation, &found, judged.direction, net, &known);
                self.act(
                    &mut explanation,
                    &judged,
                    found.treat_as,
                    desired,
                    selection,
                    at,
                    packet,
                );
            }
            Err(exit) => {
                let refusal = Refusal {
                    exit,
                    parsed: &explanation.parsed,
                    direction: judged.direction,
                    far: judged.far,
                    world: self,
                    known: &known,
                };
                (explanation.why, explanation.hints) = refusal.told();
            }
        }
        explanation
    }

    /// The interface that the packet is seen at, if it is one of ours.
    fn interface<'s>(&self, packet: &Packet, selection: &'s Selection) -> Option<&'s Selected> {
        let mut interfaces = selection.interfaces.iter();
        match &packet.interface {
            Some(name) => interfaces.find(|selected| selected.link.name == *name),
            // The only one that anything runs at.
            None => {
                let mut running = interfaces.filter(|selected| !selected.attachments.is_empty());
                running.next().filter(|_| running.next().is_none())
            }
        }
    }

    /// Classifies the packet the way that it goes; if nobody says which, the one in which it matches, else the one whose far
    /// end is an endpoint.
    fn judge(&self, packet: &Packet, link: Link, parsed: &Parsed, tables: &mut Tables) -> Judged {
        let frame = &packet.frame.0.0[..];
        let ways = match packet.direction {
            Some(way) => vec![Direction::from(way)],
            None => Direction::ALL.to_vec(),
        };
        let mut all: Vec<Judged> = ways
            .into_iter()
            .map(|direction| {
                tables.first = packet
                    .first_fragment
                    .as_ref()
                    .and_then(|first| first_of(&first.0.0, link, direction, tables));
                let result = classify(frame, tables, link, direction);
                let far = match direction {
                    Direction::Up => parsed.destination,
                    Direction::Down => parsed.source,
                };
                let far = far.map(|far| far.0);
                let found = far.and_then(|far| lookup(tables, far));
                let found = found.and_then(|found| tables.key(found.slot));
                Judged {
                    direction,
                    result,
                    far,
                    found,
                }
            })
            .collect();
        let best = all
            .iter()
            .position(|judged| judged.result.is_ok())
            .or_else(|| all.iter().position(|judged| judged.found.is_some()));
        all.swap_remove(best.unwrap_or(0))
    }

    /// What is known of the endpoint, and the network that it is known as, if that is not only left over in the kernel.
    fn endpoint(
        &self,
        address: IpAddr,
        key: Key,
        known: &Known,
        desired: &Desired,
    ) -> (Endpoint, Option<IpNet>) {
        let address = self.plain(address);
        let (found_as, within) = key_network(key);
        let mut endpoint = Endpoint {
            address: Some(Text(address)),
            found_as: found_as.into(),
            network: written(within),
            geoip: self.geo.country(address).map(|country| country.to_string()),
            ..Endpoint::default()
        };
        if let Some(meaning) = desired.get(&key).and_then(|entry| entry.meaning.as_ref()) {
            endpoint
                .counted_operator
                .clone_from(&meaning.label.operator);
            endpoint.counted_country.clone_from(&meaning.label.country);
        }
        let tiers = desired::tiers(known);
        let Some((net, claim, tier)) = most_specific(address, known, &tiers) else {
            return (endpoint, None);
        };
        endpoint.network = written(net);
        endpoint.found_as = match found_as {
            // A host in a block that says nothing else than the block has no entry of its own.
            "block" if net.prefix_len() == net.max_prefix_len() => "host",
            "block" if net.prefix_len() != within.prefix_len() => "prefix",
            found_as => found_as,
        }
        .into();
        endpoint.tier = Some(tier.as_str().into());
        (endpoint.operators, endpoint.countries) = owners(&claim.owners);
        let named = self.known_in(net);
        endpoint.names = few(named.names.iter());
        endpoint.addresses = few(named.addresses.iter());
        endpoint.sources = named.sources.into_iter().map(Into::into).collect();
        endpoint.emergency = named.emergency;
        (endpoint, Some(net))
    }

    /// Tries the policies, in order.
    fn treat(
        &self,
        explanation: &mut Explanation,
        found: &Match,
        direction: Direction,
        net: Option<IpNet>,
        known: &Known,
    ) {
        let _ = (found, direction);
        let tiers = desired::tiers(known);
        let claimed = net.and_then(|net| {
            let claim = known.get(&net)?;
            Some((net, claim, tiers.get(&net).copied().flatten()?))
        });
        let Some((net, claim, tier)) = claimed else {
            explanation.notes.push(
                "the endpoint is left from an agent before, whose state is lost: what is done with it is what that said"
                    .into(),
            );
            return;
        };
        let named = self.known_in(net);
        let client = &explanation.client;
        let subject = Subject {
            endpoint: policy_match::Endpoint {
                owners: &claim.owners,
                names: &named.names,
                emergency: named.emergency,
                net,
                tier,
            },
            origin: Origin {
                address: client.address.map(|address| address.0),
                mac: client.mac.map(|mac| mac.0.0),
                interface: client.interface.as_deref(),
            },
        };
        let mut tried = Vec::new();
        for policy in &self.config.policies {
            let result = try_policy(policy, &subject);
            let matched = result.matched;
            tried.push(result);
            if matched {
                explanation.policy = Some(policy.name.clone());
                break;
            }
        }
        explanation.policies = tried;
    }

    /// Says what each hook does that sees the packet.
    #[expect(clippy::too_many_arguments, reason = "what a decision is made of")]
    fn act(
        &self,
        explanation: &mut Explanation,
        judged: &Judged,
        class: Class,
        desired: &Desired,
        selection: &Selection,
        at: Option<&Selected>,
        packet: &Packet,
    ) {
        let meaning = judged
            .found
            .and_then(|key| desired.get(&key)?.meaning.as_ref());
        let policies = &self.config.policies;
        let matched = explanation.policy.as_ref();
        let matched = matched.and_then(|name| policies.iter().find(|policy| policy.name == *name));
        let tier = explanation.endpoint.as_ref().and_then(|e| e.tier.as_ref());
        let row = match (tier.and_then(|tier| tier.parse().ok()), meaning) {
            (Some(tier), _) => row_of(&self.config, matched, tier),
            (None, Some(meaning)) => meaning.row,
            (None, None) => return,
        };
        let by_endpoint = policies
            .iter()
            .all(|policy| policy.clients.is_empty() && policy.interfaces.is_empty());
        if by_endpoint && meaning.is_some_and(|meaning| meaning.row != row) {
            explanation.notes.push(
                "the table has another policy for it: somebody changes the configuration now"
                    .into(),
            );
        }
        let current =
            explanation.parsed.dscp.unwrap_or(0) << 2 | explanation.parsed.ecn.unwrap_or(0);
        let case = Case {
            row,
            direction: judged.direction,
            dscp: rewrite::traffic_class(current, rewrite::rule(&row, judged.direction, class))
                .map(|class| class >> 2),
        };
        let interfaces: Vec<&Selected> = match (&packet.interface, at) {
            (Some(_), at) => at.into_iter().collect(),
            (None, _) => selection.interfaces.iter().collect(),
        };
        if let (Some(name), None) = (&packet.interface, at) {
            explanation.notes.push(format!(
                "`{name}` is no interface of the configuration: no program runs there"
            ));
        }
        for selected in interfaces {
            if let Some(problem) = &selected.problem {
                explanation.notes.push(problem.clone());
            }
            explanation.hooks.extend(case.at(selected));
        }
        if selection.interfaces.is_empty() {
            explanation
                .notes
                .push("none of the configured interfaces exists here".into());
        }
    }

    /// Whose packet it is, as policies see it.
    fn client(
        &self,
        packet: &Packet,
        parsed: &Parsed,
        direction: Direction,
        link: Link,
        at: Option<&Selected>,
    ) -> Client {
        let (address, mac) = match direction {
            Direction::Up => (parsed.source, parsed.source_mac),
            Direction::Down => (parsed.destination, parsed.destination_mac),
        };
        // At an uplink it would be a router's.
        let faces_clients = at.is_none_or(|at| at.role == Role::Access);
        let mac = mac.filter(|mac| link == Link::Ethernet && faces_clients && mac.0 != Mac([0; 6]));
        let only = at.map(|at| at.link.name.clone());
        Client {
            address,
            mac: packet.client_mac.or(mac),
            interface: packet.interface.clone().or(only),
        }
    }

    /// The names and addresses in a network that is known; of a single address, its own.
    fn known_in(&self, net: IpNet) -> Named {
        let filter = self.filter();
        let mut named = Named::default();
        let single = net.prefix_len() == net.max_prefix_len();
        for known in self.memory.known(&filter) {
            let address = self.plain(known.address);
            if !net.contains(&address) {
                continue;
            }
            named.addresses.insert(address);
            named
                .sources
                .extend(known.sources.keys().map(|source| source.as_str()));
            let emergency = |name: &Arc<str>| {
                let owner = self.config.catalogue.owner_of_name(name);
                owner.is_some_and(|(kind, _)| kind.is_emergency())
            };
            // What else is in a block is not known to be for emergency calls, and a client's word makes nothing so.
            named.emergency |=
                single && known.tier > Tier::Observed && known.names.iter().any(emergency);
            named.names.extend(known.names);
        }
        let prefixes = self.config.prefixes.iter();
        if prefixes.clone().any(|prefix| prefix.prefix.contains(&net)) {
            named.sources.insert("static");
        }
        let catalogued = &self.targets;
        if catalogued
            .networks
            .iter()
            .any(|(other, _)| other.contains(&net))
            || catalogued
                .addresses
                .iter()
                .any(|(other, _)| net.contains(other))
        {
            named.sources.insert("catalogue");
        }
        named
    }

    /// An address as it is looked up: behind NAT64, the one that it stands for.
    pub(super) fn plain(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(v6) = address else {
            return address;
        };
        let inner = self
            .pref64()
            .find_map(|pref64| pref64.extract(&v6.octets()));
        inner.map_or(address, IpAddr::from)
    }
}

/// What is known of a network.
#[derive(Default)]
struct Named {
    names: BTreeSet<Arc<str>>,
    addresses: BTreeSet<IpAddr>,
    sources: BTreeSet<&'static str>,
    emergency: bool,
}

/// What is done with a packet.
struct Case {
    row: Row,
    direction: Direction,
    /// The DSCP that it gets.
    dscp: Option<u8>,
}

impl Case {
    /// What the programs of an interface do, in the order in which they see the packet.
    fn at(&self, selected: &Selected) -> Vec<Treated> {
        let Row {
            mark,
            mask,
            interval,
            ..
        } = self.row;
        let comes_in = match (selected.role, self.direction) {
            (Role::Access, Direction::Up) | (Role::Uplink, Direction::Down) => true,
            (Role::Access, Direction::Down) | (Role::Uplink, Direction::Up) => false,
        };
        let mut attachments: Vec<_> = selected
            .attachments
            .iter()
            .filter(|attachment| (attachment.hook != Hook::TcEgress) == comes_in)
            .collect();
        attachments.sort_by_key(|attachment| attachment.hook != Hook::Xdp);
        let by_xdp = attachments
            .iter()
            .any(|attachment| attachment.hook == Hook::Xdp);
        let mut treated = Vec::new();
        for attachment in attachments {
            let hook = attachment.hook;
            // What XDP has done, TC does only where the driver cannot tell it so.
            let first = hook == Hook::Xdp || !by_xdp;
            let marks = hook == Hook::TcIngress && self.direction == Direction::Up && mask != 0;
            let voice = hook == Hook::TcEgress && self.row.voice[self.direction as usize] != 0;
            let priority = if selected.wireless {
                PRIORITY_WIRELESS_VOICE
            } else {
                PRIORITY_INTERACTIVE
            };
            let dropped = self.row.drop != 0;
            treated.push(Treated {
                interface: selected.link.name.clone(),
                role: selected.role.name().into(),
                hook: hook.name().into(),
                program: attachment.program.into(),
                dropped,
                dscp: self.dscp.filter(|_| first && !dropped),
                mark: (marks && !dropped).then(|| format!("{mark:#x}/{mask:#x}")),
                priority: (voice && !dropped).then_some(priority),
                cap: 1_000_000_000_u32
                    .checked_div(interval)
                    .filter(|_| first && !dropped),
            });
            if dropped {
                break;
            }
        }
        treated
    }
}

/// Tries one policy.
fn try_policy(policy: &Policy, subject: &Subject) -> Tried {
    let name = policy.name.clone();
    let (condition, contrast) = match policy.mismatch(subject) {
        Some(reason) => (reason.key(), policy.contrast(reason, subject)),
        // Where they can be told apart.
        None if policy.action == Action::Drop && subject.endpoint.emergency => {
            let contrast = policy.contrast(Reason::Emergency, subject);
            ("drop", contrast)
        }
        None => {
            return Tried {
                policy: name,
                matched: true,
                condition: None,
                wanted: Vec::new(),
                found: Vec::new(),
            };
        }
    };
    Tried {
        policy: name,
        matched: false,
        condition: Some(condition.into()),
        wanted: few(contrast.wanted.iter()),
        found: few(contrast.found.iter()),
    }
}

/// The first few of many.
fn few(values: impl ExactSizeIterator<Item = impl ToString>) -> Vec<String> {
    let more = values.len().saturating_sub(LISTED);
    let mut texts: Vec<String> = values.take(LISTED).map(|value| value.to_string()).collect();
    if more > 0 {
        texts.push(format!("… {more} more"));
    }
    texts
}

/// The class under which the later fragments of this one's datagram go.
fn first_of(
    frame: &[u8],
    link: Link,
    direction: Direction,
    tables: &Tables,
) -> Option<(wificall_common::abi::FragmentKey, Class)> {
    let class = classify(frame, tables, link, direction).ok()?.treat_as;
    let packet = network(frame, link).ok()?;
    Some((fragment_key(frame, &packet)?, class))
}

fn lookup(tables: &Tables, address: IpAddr) -> Option<endpoint::Endpoint> {
    match address {
        IpAddr::V4(address) => endpoint::lookup4(tables, Ipv4Addr::to_bits(address)),
        IpAddr::V6(address) => endpoint::lookup6(tables, Ipv6Addr::to_bits(address)),
    }
}

/// What a key is called, and the network that it stands for.
fn key_network(key: Key) -> (&'static str, IpNet) {
    let net = super::agent::net_of(key).unwrap_or_default();
    match key {
        Key::Host(_) => ("host", net),
        Key::Prefix(..) => ("prefix", net),
        Key::Block4(_) | Key::Block6(_) => ("block", net),
    }
}

/// What is most specific of all that is known of an address, as the table has it.
pub(super) fn most_specific<'k>(
    address: IpAddr,
    known: &'k Known,
    tiers: &BTreeMap<IpNet, Option<Tier>>,
) -> Option<(IpNet, &'k Claim, Tier)> {
    known
        .iter()
        .filter(|(net, _)| net.contains(&address))
        .filter_map(|(net, claim)| Some((*net, claim, tiers.get(net).copied().flatten()?)))
        .max_by_key(|(net, ..)| net.prefix_len())
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
