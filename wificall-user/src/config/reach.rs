//! Whether a policy can match anything at all: what earlier ones leave, and what the rest of the file leads to.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::conditions::treated;
use super::reader::Section;
use super::report::Mismatch;
use super::{Action, Client, Config, NamePattern, Policy, SnoopIke, cover};
use crate::catalogue::{Owner, names::DOMAIN};
use crate::discover::{Tier, targets};

/// Whether policies can match anything, and anything that no policy before them takes.
pub(super) struct Reach<'c> {
    config: &'c Config,
    /// All owners that an endpoint can have.
    owners: BTreeSet<Owner>,
    /// All names that are looked up; many, and needed by few.
    names: OnceCell<Vec<String>>,
}

impl<'c> Reach<'c> {
    pub fn new(config: &'c Config) -> Self {
        let mut owners = config.discovery.selection().owners(&config.catalogue);
        let prefixes = config.prefixes.iter();
        owners.extend(
            prefixes
                .map(|known| Owner::configured(&config.catalogue, known.operator, known.country)),
        );
        Self {
            config,
            owners,
            names: OnceCell::new(),
        }
    }

    pub fn check(&self, section: &Section, policy: &Policy, earlier: &[Policy], known: &[usize]) {
        let treated = treated(self.config);
        let known: Vec<_> = known
            .iter()
            .map(|index| (*index, &earlier[*index]))
            .collect();
        if let Some(covering) = cover::covering(policy, &known, treated) {
            let by_one = |index: &usize| cover::covers(policy, &earlier[*index], treated);
            let hint = match covering.as_slice() {
                [one] if by_one(one) => "remove one of them",
                [_] => "put the narrower one first",
                _ => "together these take all of it: put the narrower ones first",
            };
            section.refuse(
                Mismatch::expected("a policy that can match")
                    .found(format!(
                        "only what {} takes first",
                        listed(&covering, earlier)
                    ))
                    .hint(format!("the first match wins: {hint}")),
            );
            return;
        }
        self.only_emergency(section, policy, &known);
        self.endpoints(section, policy);
        if let Some(item) = section.item("clients")
            && self.config.interfaces.access.is_empty()
            && policy
                .clients
                .iter()
                .all(|client| matches!(client, Client::Mac(_)))
            && !policy.clients.is_empty()
            && !treated.is_empty()
        {
            item.warn(
                Mismatch::expected("`access` in [interfaces], where link-layer addresses are seen")
                    .found("link-layer addresses")
                    .hint("this policy matches nothing: name networks"),
            );
        }
    }

    /// What is left where all else is dropped before.
    fn only_emergency(&self, section: &Section, policy: &Policy, known: &[(usize, &Policy)]) {
        let drops = |other: &Policy| other.action == Action::Drop;
        let is_asked = policy.emergency.is_none() && policy.companions.is_empty();
        if !is_asked || !known.iter().any(|(_, other)| drops(other)) {
            return;
        }
        let others = Policy {
            emergency: Some(false),
            ..policy.clone()
        };
        let Some(covering) = cover::covering(&others, known, treated(self.config)) else {
            return;
        };
        let mut covering = known.iter().filter(|(index, _)| covering.contains(index));
        if covering.any(|(_, other)| drops(other)) {
            section.warn(
                Mismatch::expected("a policy that matches more than emergency calls")
                    .found("only those, which are exempt from a drop before it")
                    .hint("the first match wins: put the narrower one first, or say `emergency = true`"),
            );
        }
    }

    /// Endpoints that nothing in the file leads to.
    fn endpoints(&self, section: &Section, policy: &Policy) {
        let Config {
            snoop, catch_all, ..
        } = self.config;
        let constrains_owners = !policy.operators.is_empty() || !policy.countries.is_empty();
        let is_owned = || self.owners.iter().any(|owner| policy.matches(owner));
        if constrains_owners && !snoop.names && !is_owned() && !self.by_place(policy) {
            section.warn(
                Mismatch::expected("operators or countries that [discovery] or a [[prefix]] has")
                    .found("only others")
                    .hint("this policy matches nothing: add them to [discovery]"),
            );
        }
        if let Some(item) = section.item("names")
            && !snoop.names
            && !policy.names.is_empty()
            && !self.resolves(&policy.names)
        {
            item.warn(
                Mismatch::expected("names that [discovery] resolves")
                    .found("only others")
                    .hint("this policy matches nothing: add them to `names` in [discovery]"),
            );
        }
        if let Some(item) = section.item("names")
            && policy.emergency == Some(true)
            && !policy.names.is_empty()
            && !policy.names.iter().any(|name| self.may_be_emergency(name))
        {
            item.refuse(
                Mismatch::expected("names that phones ask for to make emergency calls")
                    .found("only others")
                    .hint("they have the label `sos` and are below 3gppnetwork.org (TS 23.003 §19.4.2.9A)"),
            );
        }
        if let Some(item) = section.item("tiers") {
            let observes = snoop.names || snoop.ike == SnoopIke::Observe || catch_all.enabled;
            let possible = |tier: &Tier| match tier {
                Tier::Authoritative => true,
                Tier::Corroborated => snoop.names,
                Tier::Observed => observes,
            };
            if policy.emergency == Some(true) && policy.tiers == [Tier::Observed] {
                item.refuse(
                    Mismatch::expected("a tier that endpoints for emergency calls can have")
                        .found("only \"observed\"")
                        .hint("they are known from our own resolver"),
                );
            } else if !policy.tiers.is_empty() && !policy.tiers.iter().any(possible) {
                item.warn(
                    Mismatch::expected("tiers that endpoints of this file can have")
                        .found("only others")
                        .hint(
                            "this policy matches nothing: [snoop] finds endpoints of these tiers",
                        ),
                );
            }
        }
    }

    /// Whether endpoints may be of a country although no owner is, because of where their address is.
    fn by_place(&self, policy: &Policy) -> bool {
        let found = self.config.catch_all.enabled || self.config.snoop.ike == SnoopIke::Observe;
        let unplaced = || self.owners.iter().any(|owner| owner.country.is_none());
        policy.operators.is_empty() && self.config.geoip.database.is_some() && (found || unplaced())
    }

    /// Whether a name of this pattern can be one for emergency calls, which are all below 3gppnetwork.org.
    fn may_be_emergency(&self, pattern: &NamePattern) -> bool {
        match pattern {
            NamePattern::Exact(name) => {
                let owner = self.config.catalogue.owner_of_name(name);
                owner.is_some_and(|(kind, _)| kind.is_emergency())
            }
            NamePattern::Below(suffix) => {
                let is_below =
                    |one: &str, other: &str| format!(".{one}").ends_with(&format!(".{other}"));
                is_below(suffix, DOMAIN) || is_below(DOMAIN, suffix)
            }
        }
    }

    /// Whether one of the names is looked up.
    fn resolves(&self, patterns: &[NamePattern]) -> bool {
        let names = self.names.get_or_init(|| {
            let targets = targets(&self.config.catalogue, &self.config.discovery.selection());
            let names = targets.names.iter();
            names.map(|target| (*target.name).to_owned()).collect()
        });
        names
            .iter()
            .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

/// Policies by place and name; of many, the first.
fn listed(places: &[usize], policies: &[Policy]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = places
        .iter()
        .take(SHOWN)
        .map(|index| format!("policy[{index}] {:?}", policies[*index].name))
        .collect();
    match places.len() - shown.len() {
        0 => shown.join(" and "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
