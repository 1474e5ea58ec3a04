//! Which policy matches, and why another does not. Pure.
//!
//! An endpoint's conditions (operators, countries, names, emergency, prefixes, tiers) are apart from those of whose packet
//! it is (clients, interfaces): the first are known when the table is made, the others when a packet comes.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    config::{Client, Glob, NamePattern, Policy},
    discover::{Owner, Tier},
};

/// An endpoint, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Whose it is.
    pub owners: &'a BTreeSet<Owner>,
    /// The names that it is an answer to, in lower case and without a final dot.
    pub names: &'a BTreeSet<Arc<str>>,
    /// Whether one of those is for emergency calls.
    pub emergency: bool,
    /// The network that it is known as: an address, or the block around one, or a prefix.
    pub net: IpNet,
    /// How far it is trusted.
    pub tier: Tier,
}

/// Whose packet it is, and where it is treated; `None`: not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The interface.
    pub interface: Option<&'a str>,
}

/// A packet, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The endpoint that it goes to or comes from.
    pub endpoint: Endpoint<'a>,
    /// Where else it belongs.
    pub origin: Origin<'a>,
}

/// The condition of a policy that does not hold. The first in this order, which is that of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No owner is one of its operators.
    Operators,
    /// No owner is of one of its countries.
    Countries,
    /// Some owners are of its operators, others of its countries, and none of both.
    Owner,
    /// None of its names is one of the endpoint's.
    Names,
    /// The endpoint is for emergency calls and should not be, or the reverse.
    Emergency,
    /// The endpoint is in none of its prefixes.
    Prefixes,
    /// The endpoint's tier is none of its tiers.
    Tiers,
    /// The client is none of its clients, or not known.
    Clients,
    /// The interface is none of its interfaces, or not known.
    Interfaces,
}

impl Reason {
    /// The key of the configuration; of [`Owner`](Self::Owner), both.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Operators => "operators",
            Self::Countries => "countries",
            Self::Owner => "operators and countries",
            Self::Names => "names",
            Self::Emergency => "emergency",
            Self::Prefixes => "prefixes",
            Self::Tiers => "tiers",
            Self::Clients => "clients",
            Self::Interfaces => "interfaces",
        }
    }
}

/// What a condition asks for, and what it met; neither is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// What the policy names.
    pub wanted: Vec<String>,
    /// What the packet has; empty if that is nothing, or not known.
    pub found: Vec<String>,
}

impl Policy {
    /// The first condition that does not hold of the packet; `None` if it matches.
    #[must_use]
    pub fn mismatch(&self, subject: &Subject) -> Option<Reason> {
        self.endpoint_mismatch(&subject.endpoint)
            .or_else(|| self.origin_mismatch(&subject.origin))
    }

    /// The first condition that does not hold of the endpoint.
    #[must_use]
    pub fn endpoint_mismatch(&self, endpoint: &Endpoint) -> Option<Reason> {
        let owned = |matches: &dyn Fn(&Owner) -> bool| endpoint.owners.iter().any(matches);
        let constrains_owners = !self.operators.is_empty() || !self.countries.is_empty();
        if constrains_owners && !owned(&|owner| self.matches(owner)) {
            let operator = self.operators.is_empty() || owned(&|owner| self.names_operator(owner));
            let country = self.countries.is_empty() || owned(&|owner| self.names_country(owner));
            return Some(match (operator, country) {
                (false, _) => Reason::Operators,
                (true, false) => Reason::Countries,
                (true, true) => Reason::Owner,
            });
        }
        let named = |pattern: &NamePattern| endpoint.names.iter().any(|name| pattern.matches(name));
        if !self.names.is_empty() && !self.names.iter().any(named) {
            return Some(Reason::Names);
        }
        if self
            .emergency
            .is_some_and(|wanted| wanted != endpoint.emergency)
        {
            return Some(Reason::Emergency);
        }
        let covers = |prefix: &IpNet| prefix.contains(&endpoint.net);
        if !self.prefixes.is_empty() && !self.prefixes.iter().any(covers) {
            return Some(Reason::Prefixes);
        }
        if !self.tiers.is_empty() && !self.tiers.contains(&endpoint.tier) {
            return Some(Reason::Tiers);
        }
        None
    }

    /// The first condition that does not hold of whose packet it is and where. One that is not known holds of nothing.
    #[must_use]
    pub fn origin_mismatch(&self, origin: &Origin) -> Option<Reason> {
        let is_client = |client: &Client| match client {
            Client::Network(net) => origin.address.is_some_and(|address| net.contains(&address)),
            Client::Mac(mac) => origin.mac == Some(*mac),
        };
        if !self.clients.is_empty() && !self.clients.iter().any(is_client) {
            return Some(Reason::Clients);
        }
        let is_here = |name: &str| self.interfaces.iter().any(|glob| glob.matches(name));
        if !self.interfaces.is_empty() && !origin.interface.is_some_and(is_here) {
            return Some(Reason::Interfaces);
        }
        None
    }

    fn names_operator(&self, owner: &Owner) -> bool {
        let plmn = owner.plmn;
        plmn.is_some_and(|plmn| self.operators.iter().any(|known| known.matches(&plmn)))
    }

    fn names_country(&self, owner: &Owner) -> bool {
        let country = owner.country;
        country.is_some_and(|country| self.countries.contains(&country))
    }

    /// What the condition of `reason` asks for, and what it met.
    #[must_use]
    pub fn contrast(&self, reason: Reason, subject: &Subject) -> Contrast {
        let Subject { endpoint, origin } = subject;
        let operators = || endpoint.owners.iter().filter_map(|owner| owner.plmn);
        let countries = || endpoint.owners.iter().filter_map(|owner| owner.country);
        let (wanted, found) = match reason {
            Reason::Operators => (texts(&self.operators), once(operators())),
            Reason::Countries => (texts(&self.countries), once(countries())),
            Reason::Owner => (
                [texts(&self.operators), texts(&self.countries)].concat(),
                texts(endpoint.owners.iter().map(pair)),
            ),
            Reason::Names => (texts(&self.names), texts(endpoint.names)),
            Reason::Emergency => (texts(self.emergency), texts([endpoint.emergency])),
            Reason::Prefixes => (texts(&self.prefixes), texts([endpoint.net])),
            Reason::Tiers => (texts(&self.tiers), texts([endpoint.tier])),
            Reason::Clients => {
                let mac = origin.mac.map(|mac| Client::Mac(mac).to_string());
                let address = origin.address.map(|address| address.to_string());
                (texts(&self.clients), texts(address.into_iter().chain(mac)))
            }
            Reason::Interfaces => {
                let globs = self.interfaces.iter().map(Glob::as_str);
                (texts(globs), texts(origin.interface))
            }
        };
        Contrast { wanted, found }
    }
}

fn pair(owner: &Owner) -> String {
    let operator = owner
        .plmn
        .map_or("none".to_owned(), |plmn| plmn.to_string());
    let country = owner.country.map_or("none".to_owned(), |c| c.to_string());
    format!("{operator} ({country})")
}

fn texts(values: impl IntoIterator<Item = impl Display>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

/// In order, each once.
fn once(values: impl Iterator<Item = impl Display + Ord>) -> Vec<String> {
    texts(values.collect::<BTreeSet<_>>())
}

#[cfg(test)]
#[path = "policy_match_tests.rs"]
mod tests;
