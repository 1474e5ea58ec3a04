//! What to probe, and whether those who were asked for can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::best::Choice;
use super::outcome::{Probed, VerdictKind};
use crate::catalogue::Plmn;
use crate::discover::filter::special;
use crate::discover::{Filter, Owner, Reason};

/// More addresses of one name are not probed: an answer with thousands of them would make us a flood.
pub const ADDRESSES_PER_NAME_MAX: usize = 32;

/// Which addresses may be probed.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    filter: Filter,
    allow_local: bool,
}

impl Admission {
    /// What `filter` lets through; with `allow_local` every address that a host can have.
    #[must_use]
    pub const fn new(filter: Filter, allow_local: bool) -> Self {
        Self {
            filter,
            allow_local,
        }
    }

    /// Whether `address` may be probed.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Reason> {
        let nobody = |reason: &Reason| {
            matches!(
                reason,
                Reason::Unspecified
                    | Reason::Multicast
                    | Reason::Broadcast
                    | Reason::Reserved
                    | Reason::V4Mapped
            )
        };
        if self.allow_local {
            special(address).filter(nobody).map_or(Ok(()), Err)
        } else {
            self.filter.check(address)
        }
    }
}

/// An address to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub owners: BTreeSet<Owner>,
    /// Names that led to it.
    pub names: BTreeSet<Arc<str>>,
}

/// What an address has to be reached for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedFor {
    /// An operator.
    Operator(Plmn),
    /// A name.
    Name(Arc<str>),
    /// An address.
    Address(IpAddr),
}

impl AskedFor {
    fn has(&self, place: &Place) -> bool {
        match self {
            Self::Operator(plmn) => place.owners.iter().any(|owner| owner.plmn == Some(*plmn)),
            Self::Name(name) => place.names.contains(name),
            Self::Address(address) => place.address == *address,
        }
    }
}

impl std::fmt::Display for AskedFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator(plmn) => plmn.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is asked of an operator, name or address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whether it was named itself. An operator that only belongs to a country or a pattern counts if it has addresses,
    /// or if DNS failed for it: most operators have no ePDG.
    pub by_itself: bool,
    /// Why DNS gave no answer for one of its names.
    pub problem: Option<String>,
}

/// An address that is not probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub reason: Reason,
}

/// What to probe.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The addresses.
    pub places: BTreeMap<IpAddr, Place>,
    /// What was asked for.
    pub asked: BTreeMap<AskedFor, Asked>,
    /// Addresses that are not probed.
    pub refused: Vec<Refused>,
    /// Addresses left out because their name has too many.
    pub left_out: usize,
}

impl Plan {
    /// Notes that something was asked for.
    pub fn ask(&mut self, what: AskedFor, by_itself: bool) {
        self.asked.entry(what).or_default().by_itself |= by_itself;
    }

    /// Notes that DNS gave no answer for a name of these owners.
    pub fn fail(&mut self, name: &Arc<str>, owners: &BTreeSet<Owner>, why: &str) {
        for (what, asked) in &mut self.asked {
            let concerned = match what {
                AskedFor::Operator(plmn) => owners.iter().any(|owner| owner.plmn == Some(*plmn)),
                AskedFor::Name(other) => other == name,
                AskedFor::Address(_) => false,
            };
            if concerned {
                asked.problem.get_or_insert_with(|| why.to_owned());
            }
        }
    }

    /// Adds addresses, the addresses of `name` if there is one.
    pub fn add(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        name: Option<&Arc<str>>,
        owners: &BTreeSet<Owner>,
        admission: &Admission,
    ) {
        let mut taken = 0;
        for address in addresses {
            if let Err(reason) = admission.check(address) {
                let refused = Refused { address, reason };
                if !self.refused.contains(&refused) {
                    self.refused.push(refused);
                }
                continue;
            }
            if taken == ADDRESSES_PER_NAME_MAX {
                self.left_out += 1;
                continue;
            }
            taken += 1;
            let place = self.places.entry(address).or_insert_with(|| Place {
                address,
                owners: BTreeSet::new(),
                names: BTreeSet::new(),
            });
            place.owners.extend(owners);
            place.names.extend(name.cloned());
        }
    }

    /// How each of those asked for came off.
    #[must_use]
    pub fn summary(&self, probed: &[Probed], choice: &Choice) -> Vec<Summary> {
        let reachable: BTreeSet<IpAddr> = probed
            .iter()
            .filter(|probe| probe.finding.verdict.kind() == VerdictKind::Reachable)
            .map(|probe| probe.address)
            .collect();
        let mut summaries = Vec::new();
        for (what, asked) in &self.asked {
            let addresses: Vec<IpAddr> = self
                .places
                .values()
                .filter(|place| what.has(place))
                .map(|place| place.address)
                .collect();
            if addresses.is_empty() && !asked.by_itself && asked.problem.is_none() {
                continue;
            }
            let name = what.to_string();
            let answering = addresses.iter().filter(|a| reachable.contains(a)).count();
            summaries.push(Summary {
                best: choice.operators.get(&name).map(|best| best.address),
                asked: name,
                addresses: addresses.len(),
                reachable: answering,
                problem: asked.problem.clone(),
            });
        }
        summaries
    }
}

/// How one of those asked for came off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// An operator, a name or an address.
    pub asked: String,
    /// Addresses that were probed for it.
    pub addresses: usize,
    /// Those that agreed to a suite on a port at least.
    pub reachable: usize,
    /// The best of an operator.
    pub best: Option<IpAddr>,
    /// Why DNS gave no answer for one of its names.
    pub problem: Option<String>,
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
