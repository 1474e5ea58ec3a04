//! Explains what is done with a packet, of what the agent knows. It is classified by the code of the programs, over the table
//! that they are given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use wificall_common::{
    Class, Direction,
    abi::{Features, FragmentKey},
    classify::{Link, Match, classify, fragment_key, network},
    endpoint,
    exit::Exit,
};

use super::{
    desired::{self, Desired},
    explain_act::Case,
    explain_aside::Aside,
    explain_hooks::{Deed, Entry},
    explain_live::Live,
    explain_why::Refusal,
    hooks::{self, Role, Selected, Selection},
    tables::Tables,
    world::{World, snoop_features},
};
use crate::{
    config::Config,
    explanation::{Client, Explanation, Mac, Packet, Parsed, dissect},
    export::set::Origin,
    kernel::{self, Key},
    net::Kind,
};

/// What is done with a packet, of the state on disk and the configuration: as an agent would at its start.
///
/// # Errors
///
/// If the state cannot be read, or the network of the box.
pub async fn explain_offline(config: Config, packet: &Packet) -> Result<Explanation> {
    let world = World::offline(config).await?;
    let interfaces = &world.config.interfaces;
    let selection = hooks::selection(interfaces, &world.links, kernel::has_tcx());
    let desired = world.desired().entries;
    Ok(world.explain(packet, &desired, &selection, None))
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
    /// What is done with a packet where `desired` is the table and `selection` says what runs where. `live`: what the agent
    /// knows that runs.
    pub(super) fn explain(
        &self,
        packet: &Packet,
        desired: &Desired,
        selection: &Selection,
        live: Option<&Live>,
    ) -> Explanation {
        let at = self.interface(packet, selection);
        let link = match (packet.link, at) {
            (Some(link), _) => link.into(),
            (None, Some(at)) if at.link.kind == Kind::NoLinkHeader => Link::Bare,
            (None, _) => Link::Ethernet,
        };
        let parsed = dissect(&packet.frame.0.0, link);
        let judged = self.judge(packet, link, &parsed, desired);
        let known = self.known();
        let tiers = desired::tiers(&known);
        let far = judged.far.map(|far| self.plain(far));
        let found = far
            .zip(judged.found)
            .map(|(far, key)| self.found(far, key, desired, &known, &tiers));
        let mut explanation = Explanation {
            origin: live.map_or(Origin::Offline, |_| Origin::Agent),
            direction: Some(judged.direction.into()),
            matches: judged.result.is_ok(),
            exit: judged.result.err().unwrap_or(Exit::Matched).name().into(),
            class: None,
            treated_as: None,
            why: String::new(),
            hints: Vec::new(),
            endpoint: found.as_ref().map(|found| self.endpoint(found)),
            policies: Vec::new(),
            policy: None,
            steps: Vec::new(),
            leaves_by: None,
            ways: Vec::new(),
            client: client(packet, &parsed, judged.direction, link, at),
            hooks: Vec::new(),
            notes: Vec::new(),
            parsed,
        };
        if found.is_none() && packet.direction.is_none() && judged.direction == Direction::Up {
            explanation.direction = None;
        }
        let enters = judged.direction == Direction::Up
            && !self.config.interfaces.access.is_empty()
            && at.is_none_or(|at| at.role == Role::Access)
            && (at.is_some() || packet.interface.is_none());
        let arming = live.map_or_else(|| self.arming_of(desired), |live| live.arming);
        let frame = &packet.frame.0.0[..];
        let deed = match (judged.result, &found) {
            (Ok(matched), Some(found)) => {
                explanation.class = Some(matched.class.name().into());
                explanation.treated_as = Some(matched.treat_as.name().into());
                explanation.why = "an endpoint, and IPsec".into();
                let case = Case {
                    world: self,
                    live,
                    arming,
                    frame,
                    found,
                    direction: judged.direction,
                    matched,
                    enters,
                };
                case.act(&mut explanation)
            }
            (result, _) => {
                let exit = result.err().unwrap_or(Exit::NotEndpoint);
                let refusal = Refusal {
                    exit,
                    parsed: &explanation.parsed,
                    direction: judged.direction,
                    far,
                    world: self,
                    known: &known,
                };
                (explanation.why, explanation.hints) = refusal.told();
                let aside = Aside {
                    world: self,
                    live,
                    arming,
                    frame,
                    link,
                    exit,
                };
                let entry = if enters {
                    aside.act(&mut explanation)
                } else {
                    Entry::default()
                };
                Some(Deed::aside(judged.direction, exit, entry))
            }
        };
        if let Some(deed) = deed {
            tell_hooks(&mut explanation, packet, selection, at, &deed);
        }
        if let (Some(live), Some(exit)) = (live, &explanation.leaves_by) {
            let ways = live.steering.iter().filter(|way| way.exit == *exit);
            explanation.ways = ways.cloned().collect();
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
    fn judge(&self, packet: &Packet, link: Link, parsed: &Parsed, desired: &Desired) -> Judged {
        let mut tables = Tables::new(desired);
        tables.pref64 = self.pref64().collect();
        tables.snoops_names = self.config.snoop.names;
        tables.snoops_ike = snoop_features(&self.config) & Features::SNOOP_IKE != 0;
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
                    .and_then(|first| first_of(&first.0.0, link, direction, &tables));
                let result = classify(frame, &tables, link, direction);
                let far = match direction {
                    Direction::Up => parsed.destination,
                    Direction::Down => parsed.source,
                };
                let far = far.map(|far| far.0);
                let found = far.and_then(|far| lookup(&tables, far));
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
        // Of neither: what goes to a network of ours comes from outside.
        let to_us = || {
            let is_own = |address: IpAddr| self.local.iter().any(|own| own.contains(&address));
            let (from, to) = (parsed.source?.0, parsed.destination?.0);
            let is_down = |judged: &Judged| judged.direction == Direction::Down;
            let comes = is_own(to) && !is_own(from);
            all.iter().position(is_down).filter(|_| comes)
        };
        let best = best.or_else(to_us).unwrap_or(0);
        all.swap_remove(best)
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

/// What each hook does that sees the packet.
fn tell_hooks(
    explanation: &mut Explanation,
    packet: &Packet,
    selection: &Selection,
    at: Option<&Selected>,
    deed: &Deed,
) {
    if let (Some(name), None) = (&packet.interface, at) {
        explanation.notes.push(format!(
            "`{name}` is no interface of the configuration: no program runs there"
        ));
        return;
    }
    let seen = selection.interfaces.iter().filter(|selected| {
        packet
            .interface
            .as_ref()
            .is_none_or(|name| selected.link.name == *name)
    });
    for selected in seen {
        explanation.notes.extend(selected.problem.clone());
        explanation.hooks.extend(deed.at(selected));
    }
    if selection.interfaces.is_empty() {
        explanation
            .notes
            .push("none of the configured interfaces exists here".into());
    }
}

/// Whose packet it is, as policies see it.
fn client(
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

/// The class under which the later fragments of this one's datagram go.
fn first_of(
    frame: &[u8],
    link: Link,
    direction: Direction,
    tables: &Tables,
) -> Option<(FragmentKey, Class)> {
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

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "explain_aside_tests.rs"]
mod aside_tests;
