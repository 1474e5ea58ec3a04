//! What a `[[policy]]` says.

use ipnet::IpNet;

use super::{Glob, Treatment};
use crate::catalogue::{Country, OperatorPattern, Owner};
use crate::discover::Tier;

/// A treatment for some endpoints and clients. All conditions must hold; of the values of one condition any.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Unique among the policies.
    pub name: String,
    /// Any of these; empty = any operator.
    pub operators: Vec<OperatorPattern>,
    /// Any of these; empty = any country.
    pub countries: Vec<Country>,
    /// The endpoint is an answer to any of these; empty = any name, or none.
    pub names: Vec<NamePattern>,
    /// Whether the endpoint is an answer to a name for emergency calls (`sos.`); `None` = either.
    pub emergency: Option<bool>,
    /// The endpoint lies in any of these; empty = anywhere.
    pub prefixes: Vec<IpNet>,
    /// The endpoint is of any of these tiers; empty = of any.
    pub tiers: Vec<Tier>,
    /// The client is any of these; empty = any client.
    pub clients: Vec<Client>,
    /// The packet is treated at any of these interfaces; empty = at any.
    pub interfaces: Vec<Glob>,
    /// Whether it is treated at all.
    pub action: Action,
    /// The exit that its packets leave by, by name. Its mark is that of the treatment.
    pub exit: Option<String>,
    /// Names whose port 443 takes the same exit, for these clients.
    pub companions: Vec<String>,
    /// What is done.
    pub treatment: Treatment,
}

/// Whether packets are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They get the treatment.
    Treat,
    /// They are counted, and left as they came.
    Keep,
    /// They are dropped.
    Drop,
}

/// A client, as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// By address.
    Network(IpNet),
    /// By link-layer address; seen at access interfaces that have those.
    Mac([u8; 6]),
}

/// A name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// In lower case and without a final dot.
    Exact(String),
    /// `*.` and this, likewise.
    Below(String),
}

impl NamePattern {
    /// Whether it names `name`, which is in lower case and without a final dot.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Below(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

impl Policy {
    /// Whether it is for some endpoints of an owner only: by name, emergency, prefix or tier.
    #[must_use]
    pub fn chooses_endpoints(&self) -> bool {
        !self.names.is_empty()
            || self.emergency.is_some()
            || !self.prefixes.is_empty()
            || !self.tiers.is_empty()
    }

    /// Whether it is for all endpoints of an owner and all their clients.
    #[must_use]
    pub fn is_for_whole_owners(&self) -> bool {
        !self.chooses_endpoints() && self.clients.is_empty() && self.interfaces.is_empty()
    }

    /// Whether it leaves its clients alone wherever their packets go.
    #[must_use]
    pub fn leaves_alone(&self) -> bool {
        let is_for_all = self.operators.is_empty() && self.countries.is_empty();
        self.action == Action::Keep && is_for_all && !self.chooses_endpoints()
    }

    /// Whether its operators and countries are those of this owner of an endpoint. Both conditions must hold of the same
    /// owner; an empty one always does.
    #[must_use]
    pub fn matches(&self, owner: &Owner) -> bool {
        let operator = self.operators.is_empty()
            || owner
                .plmn
                .is_some_and(|plmn| self.operators.iter().any(|known| known.matches(&plmn)));
        let country = self.countries.is_empty()
            || owner
                .country
                .is_some_and(|country| self.countries.contains(&country));
        operator && country
    }
}
