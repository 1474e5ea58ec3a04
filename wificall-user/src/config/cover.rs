//! Whether a policy, or several, take everything that another could match.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Action, Client, Glob, NamePattern, Policy};
use crate::catalogue::OperatorPattern;
use crate::discover::Tier;

/// Parts of a policy that are looked at one by one: lists with more combinations are not gone through.
const PARTS: usize = 1_024;

/// Earlier policies, by their place, that together match every packet that `policy` matches; `treated` are the interfaces
/// that packets are treated at. `None`: none do, or it cannot be told.
pub(super) fn covering(
    policy: &Policy,
    earlier: &[(usize, &Policy)],
    treated: &[Glob],
) -> Option<Vec<usize>> {
    let mut whole = earlier.iter();
    if let Some((index, _)) = whole.find(|(_, other)| covers(other, policy, treated)) {
        return Some(vec![*index]);
    }
    let others: Vec<_> = earlier
        .iter()
        .filter(|(_, other)| meets(other, policy))
        .copied()
        .collect();
    if others.len() < 2 {
        return None;
    }
    let mut used = BTreeSet::new();
    for part in parts(policy, &others, treated)? {
        used.extend(cover_part(&part, &others, treated)?);
    }
    Some(used.into_iter().collect())
}

/// Whether `first` matches every packet that `second` matches.
pub(super) fn covers(first: &Policy, second: &Policy, treated: &[Glob]) -> bool {
    covers_but_clients(first, second, treated) && covers_clients(&first.clients, &second.clients)
}

/// Likewise, clients aside.
fn covers_but_clients(first: &Policy, second: &Policy, treated: &[Glob]) -> bool {
    // Emergency calls are exempt from every drop.
    (first.action != Action::Drop || second.emergency == Some(false))
        // Companions are not taken by a policy for endpoints.
        && (second.companions.is_empty() || first.leaves_alone())
        // The endpoint's owners, names and the rest each meet a condition by themselves, so the conditions may be looked
        // at one by one.
        && each(&first.operators, &second.operators, covers_pattern)
        && each(&first.countries, &second.countries, |wide, narrow| {
            wide == narrow
        })
        && each(&first.names, &second.names, covers_name)
        && (first.emergency.is_none() || first.emergency == second.emergency)
        // An endpoint is a network, and matches if one prefix has all of it: two halves are not the whole. Of both families
        // it has one.
        && (is_everything(&first.prefixes)
            || each(&first.prefixes, &second.prefixes, |wide, narrow| {
                wide.contains(narrow)
            }))
        && (Tier::ALL.iter().all(|tier| first.tiers.contains(tier))
            || each(&first.tiers, &second.tiers, |wide, narrow| wide == narrow))
        && covers_interfaces(first, second, treated)
}

/// Whether there may be packets that both match: cheap, and enough to leave most policies aside.
fn meets(first: &Policy, second: &Policy) -> bool {
    fn any<T>(one: &[T], other: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
        let meets = |one| {
            other
                .iter()
                .any(|other| same(one, other) || same(other, one))
        };
        one.is_empty() || other.is_empty() || one.iter().any(meets)
    }
    any(&first.operators, &second.operators, covers_pattern)
        && any(&first.countries, &second.countries, PartialEq::eq)
        && any(&first.prefixes, &second.prefixes, |wide, narrow| {
            wide.contains(narrow)
        })
}

/// The policies, one or more that differ in their clients, that have a part of a policy.
fn cover_part(part: &Policy, others: &[(usize, &Policy)], treated: &[Glob]) -> Option<Vec<usize>> {
    let own = others
        .iter()
        .filter(|(_, other)| covers_but_clients(other, part, treated));
    let mut clients = Vec::new();
    let mut used = Vec::new();
    for (index, other) in own {
        if covers_clients(&other.clients, &part.clients) {
            return Some(vec![*index]);
        }
        clients.extend(other.clients.iter().copied());
        used.push(*index);
    }
    (!clients.is_empty() && covers_clients(&clients, &part.clients)).then_some(used)
}

/// A policy as parts that have one value of each list, or of what an empty one stands for, clients aside; together they
/// match what it does. `None`: they are too many.
fn parts(policy: &Policy, others: &[(usize, &Policy)], treated: &[Glob]) -> Option<Vec<Policy>> {
    let asks = |what: fn(&Policy) -> bool| others.iter().any(|(_, other)| what(other));
    let mut parts = vec![policy.clone()];
    split(&mut parts, &policy.operators, |part, one| {
        part.operators = one;
    })?;
    split(&mut parts, &policy.countries, |part, one| {
        part.countries = one;
    })?;
    split(&mut parts, &policy.names, |part, one| part.names = one)?;
    let families = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let prefixes = match policy.prefixes.is_empty() && asks(|other| !other.prefixes.is_empty()) {
        true => &families[..],
        false => &policy.prefixes,
    };
    split(&mut parts, prefixes, |part, one| part.prefixes = one)?;
    let tiers = match policy.tiers.is_empty() && asks(|other| !other.tiers.is_empty()) {
        true => &Tier::ALL[..],
        false => &policy.tiers,
    };
    split(&mut parts, tiers, |part, one| part.tiers = one)?;
    let interfaces =
        match policy.interfaces.is_empty() && asks(|other| !other.interfaces.is_empty()) {
            true => treated,
            false => &policy.interfaces,
        };
    split(&mut parts, interfaces, |part, one| part.interfaces = one)?;
    if policy.emergency.is_none() && asks(|other| other.emergency.is_some()) {
        split(&mut parts, &[true, false], |part, one| {
            part.emergency = one.first().copied();
        })?;
    }
    Some(parts)
}

/// Makes of each part one for each value; `None`: too many.
fn split<T: Clone>(
    parts: &mut Vec<Policy>,
    values: &[T],
    set: impl Fn(&mut Policy, Vec<T>),
) -> Option<()> {
    if values.is_empty() {
        return Some(());
    }
    if parts.len().saturating_mul(values.len()) > PARTS {
        return None;
    }
    let with = |part: &Policy, value: &T| {
        let mut part = part.clone();
        set(&mut part, vec![value.clone()]);
        part
    };
    *parts = parts
        .iter()
        .flat_map(|part| values.iter().map(move |value| with(part, value)))
        .collect();
    Some(())
}

/// Whether one condition takes what another does: it is empty, or for each of the narrow values it has one as wide.
fn each<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let covered = |narrow| wide.iter().any(|wide| covers(wide, narrow));
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(covered))
}

fn covers_pattern(wide: &OperatorPattern, narrow: &OperatorPattern) -> bool {
    match narrow {
        OperatorPattern::Exact(plmn) => wide.matches(plmn),
        OperatorPattern::AllOf { .. } => wide == narrow,
    }
}

fn covers_name(wide: &NamePattern, narrow: &NamePattern) -> bool {
    match narrow {
        NamePattern::Exact(name) => wide.matches(name),
        NamePattern::Below(suffix) => wide == narrow || is_below(wide, suffix),
    }
}

/// Whether a pattern is for all names below this one, because it is for all below one that this is itself below.
fn is_below(wide: &NamePattern, suffix: &str) -> bool {
    matches!(wide, NamePattern::Below(_)) && wide.matches(suffix)
}

/// A policy that names no interface matches at all that are treated.
fn covers_interfaces(first: &Policy, second: &Policy, treated: &[Glob]) -> bool {
    let narrow = if second.interfaces.is_empty() {
        treated
    } else {
        &second.interfaces
    };
    each(&first.interfaces, narrow, Glob::covers)
}

fn covers_clients(wide: &[Client], narrow: &[Client]) -> bool {
    if wide.is_empty() || each_client(wide, narrow) {
        return true;
    }
    // Two halves are the whole: a client is one address.
    let networks: Vec<IpNet> = wide.iter().filter_map(network).collect();
    let whole = IpNet::aggregate(&networks);
    let all = is_everything(&whole);
    let joined: Vec<Client> = whole.into_iter().map(Client::Network).collect();
    all || (joined.len() < networks.len()
        && !narrow.is_empty()
        && narrow.iter().all(|client| {
            each_client(&joined, std::slice::from_ref(client)) || wide.contains(client)
        }))
}

/// Whether all IPv4 and all IPv6 are among the networks.
fn is_everything(networks: &[IpNet]) -> bool {
    let has = |ipv4| {
        let mut whole = networks.iter().filter(|net| net.prefix_len() == 0);
        whole.any(|net| net.addr().is_ipv4() == ipv4)
    };
    has(true) && has(false)
}

fn each_client(wide: &[Client], narrow: &[Client]) -> bool {
    each(wide, narrow, |wide, narrow| match (wide, narrow) {
        (Client::Network(wide), Client::Network(narrow)) => wide.contains(narrow),
        _ => wide == narrow,
    })
}

fn network(client: &Client) -> Option<IpNet> {
    match client {
        Client::Network(net) => Some(*net),
        Client::Mac(_) => None,
    }
}
