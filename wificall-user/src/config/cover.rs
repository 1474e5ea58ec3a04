//! Whether a policy takes everything that another could match.

use ipnet::IpNet;

use super::{Client, Glob, NamePattern, Policy};
use crate::catalogue::OperatorPattern;
use crate::discover::Tier;

/// Whether `first` matches every packet that `second` matches; `treated` are the interfaces that packets are treated at.
pub(super) fn covers(first: &Policy, second: &Policy, treated: &[Glob]) -> bool {
    // The endpoint's owners, names and the rest each meet a condition by themselves, so the conditions may be looked at
    // one by one.
    each(&first.operators, &second.operators, covers_pattern)
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
        && covers_clients(&first.clients, &second.clients)
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
