//! Explains what is done with a packet, of what the agent knows. It is classified by the code of the programs, over the table
//! that they are given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use wificall_common::{
    Class, Direction,
    abi::FragmentKey,
    classify::{Link, Match, classify, fragment_key, network},
    endpoint,
    exit::Exit,
};

use super::{
    desired::{self, Desired},
    explain_act::Case,
    explain_why::Refusal,
    hooks::{self, Role, Selected, Selection},
    tables::Tables,
    world::World,
};
use crate::{
    config::{Config, SnoopIke},
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
    Ok(world.explain(packet, &desired, &selection, Origin::Offline))
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
        origin: Origin,
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
            origin,
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
            leaves_by: None,
            client: client(packet, &parsed, judged.direction, link, at),
            hooks: Vec::new(),
            notes: Vec::new(),
            parsed,
        };
        if found.is_none() && packet.direction.is_none() {
            explanation.direction = None;
        }
        match (judged.result, &found) {
            (Ok(matched), Some(found)) => {
                explanation.class = Some(matched.class.name().into());
                explanation.treated_as = Some(matched.treat_as.name().into());
                explanation.why = "an endpoint, and IPsec".into();
                let case = Case {
                    world: self,
                    found,
                    direction: judged.direction,
                    class: matched.treat_as,
                };
                case.act(&mut explanation, packet, selection, at);
            }
            (result, _) => {
                let refusal = Refusal {
                    exit: result.err().unwrap_or(Exit::NotEndpoint),
                    parsed: &explanation.parsed,
                    direction: judged.direction,
                    far,
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
    fn judge(&self, packet: &Packet, link: Link, parsed: &Parsed, desired: &Desired) -> Judged {
        let mut tables = Tables::new(desired);
        tables.pref64 = self.pref64().collect();
        tables.snoops_names = self.config.snoop.names;
        tables.snoops_ike = self.config.snoop.ike != SnoopIke::Off;
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
        all.swap_remove(best.unwrap_or(0))
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
