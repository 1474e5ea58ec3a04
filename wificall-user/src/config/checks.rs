//! What can be wrong although each key by itself is right.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::hash::Hash;
use std::time::Duration;

use super::reader::{Item, Section};
use super::report::Mismatch;
use super::{Client, Config, Discovery, ExtraName, Glob, Snoop, SnoopIke, StaticPrefix, values};
use crate::catalogue::{Catalogue, Country, OperatorPattern, is_endpoint_network};
use crate::discover::Observed;
use wificall_common::wire::dns;

/// Something listed twice in one array. There may be thousands.
pub(super) fn no_duplicates<T: Eq + Hash>(placed: &[(Item, T)], what: &str) {
    let mut seen = HashSet::new();
    for (item, value) in placed {
        if !seen.insert(value) {
            item.refuse(Mismatch::expected(format!("each {what} once")));
        }
    }
}

pub(super) fn interfaces(
    section: &Section,
    access: &[(Item, Glob)],
    uplink: &[(Item, Glob)],
    xdp: &[(Item, Glob)],
) {
    if section.lacks("access") && section.lacks("uplink") {
        section.refuse(
            Mismatch::expected("`access`, `uplink` or both in [interfaces]")
                .found("no interface")
                .hint("name the interfaces towards phones: access = [\"wlan*\"]"),
        );
    }
    for (item, glob) in uplink {
        if access.iter().any(|(_, other)| name_the_same(other, glob)) {
            item.refuse(
                Mismatch::expected("an interface that `access` does not also name")
                    .hint("on a box with one interface for both ways, that is `access`"),
            );
        }
    }
    for (item, glob) in xdp {
        let used = access
            .iter()
            .chain(uplink)
            .any(|(_, other)| name_the_same(other, glob));
        if glob.is_literal() && !used {
            item.refuse(Mismatch::expected(
                "an interface that is also in `access` or `uplink`",
            ));
        }
    }
}

/// Whether two globs name one interface, as far as that can be told without the interfaces.
fn name_the_same(one: &Glob, other: &Glob) -> bool {
    one == other
        || (one.is_literal() && other.matches(one.as_str()))
        || (other.is_literal() && one.matches(other.as_str()))
}

/// Operators that the catalogue does not have.
pub(super) fn known_operators(operators: &[(Item, OperatorPattern)], catalogue: &Catalogue) {
    for (item, pattern) in operators {
        if catalogue
            .operators()
            .any(|operator| pattern.matches(&operator.plmn))
        {
            continue;
        }
        item.warn(match pattern {
            OperatorPattern::Exact(plmn) => {
                let nearest = catalogue.nearest_operator(&plmn.to_string());
                let nearest = nearest.and_then(|plmn| catalogue.operator(plmn));
                let meant = nearest.map_or(String::new(), |operator| {
                    format!("did you mean {} ({})? ", operator.plmn, operator.name)
                });
                Mismatch::expected("an operator that the catalogue has").hint(format!(
                    "{meant}It is used all the same: its standard name may exist"
                ))
            }
            OperatorPattern::AllOf { .. } => {
                Mismatch::expected("an MCC of which the catalogue has operators")
                    .hint("this resolves nothing: name its operators one by one")
            }
        });
    }
}

/// Countries of which the catalogue has no operators.
pub(super) fn known_countries(countries: &[(Item, Country)], catalogue: &Catalogue) {
    for (item, country) in countries {
        if !catalogue
            .operators()
            .any(|operator| catalogue.countries_served(operator.plmn).contains(country))
        {
            item.warn(
                Mismatch::expected("a country of which the catalogue has operators")
                    .hint("this resolves nothing: name its operators in `operators`"),
            );
        }
    }
}

/// How long an address is kept, and the bounds of the refresh interval.
pub(super) fn durations(section: &Section, discovery: &Discovery, in_lab: bool, floor: Duration) {
    if let Some(item) = section.item("keep")
        && discovery.keep < floor
        && !in_lab
    {
        item.refuse(
            Mismatch::expected(format!("at least {}", values::show(floor))).hint(
                "carriers rotate their answers while tunnels to the old addresses live on; \
             a test set-up may have less once there is a [lab] section",
            ),
        );
    }
    if discovery.absent_max < discovery.refresh_max
        && let Some(item) = section.item("absent_max")
    {
        let max = values::show(discovery.refresh_max);
        item.refuse(Mismatch::expected(format!(
            "not below `refresh_max` ({max})"
        )));
    }
    if discovery.refresh_max < discovery.refresh_min
        && let Some(item) = section
            .item("refresh_max")
            .or_else(|| section.item("refresh_min"))
    {
        let (min, max) = (
            values::show(discovery.refresh_min),
            values::show(discovery.refresh_max),
        );
        item.refuse(Mismatch::expected(format!(
            "`refresh_min` ({min}) not above `refresh_max` ({max})"
        )));
    }
}

/// How long observed endpoints stay.
pub(super) fn observed(section: &Section, observed: &Observed) {
    if observed.longest < observed.keep
        && let Some(item) = section.item("longest").or_else(|| section.item("keep"))
    {
        let (keep, longest) = (values::show(observed.keep), values::show(observed.longest));
        item.refuse(Mismatch::expected(format!(
            "`keep` ({keep}) not above `longest` ({longest})"
        )));
    }
}

/// That a static prefix is one of hosts, and not of everybody.
pub(super) fn prefix(item: &Item, prefix: &StaticPrefix) {
    if !is_endpoint_network(&prefix.prefix) {
        item.refuse(Mismatch::expected(
            "a network of unicast addresses, not wider than /8 (IPv6: /16)",
        ));
    }
}

/// Static prefixes beside each other: one prefix may have several owners, but each of them once.
pub(super) fn prefixes_once(prefixes: &[(Item, StaticPrefix)]) {
    let mut seen = HashMap::new();
    for (index, (item, prefix)) in prefixes.iter().enumerate() {
        match seen.entry(prefix) {
            Entry::Vacant(entry) => drop(entry.insert(index)),
            Entry::Occupied(earlier) => item.refuse(
                Mismatch::expected("each prefix once").hint(format!(
                    "prefix[{}] is the same; one prefix may have several owners, but not one of them twice",
                    earlier.get()
                )),
            ),
        }
    }
}

/// That there is anything to classify.
pub(super) fn sources(root: &Section, section: &Section, config: &Config) {
    let Config {
        snoop, catch_all, ..
    } = config;
    // What clients ask for is something to classify; an IKE peer that is only reported is not.
    if snoop.names || snoop.ike == SnoopIke::Observe || catch_all.enabled {
        return;
    }
    let nothing = ["operators", "countries", "names", "prefixes"]
        .into_iter()
        .all(|key| section.lacks(key));
    if nothing && !config.discovery.world && root.lacks("prefix") {
        section.refuse(
            Mismatch::expected(
                "`countries`, `operators`, `world = true`, `names` or `prefixes` in [discovery], or a [[prefix]]",
            )
            .found("nothing to classify")
            .hint(
                "name the countries of your guests' carriers: countries = [\"AU\"]; or all: world = true; or learn from \
                 what guests ask for: names = true in [snoop]",
            ),
        );
    }
}

/// Names that the programs follow no client's question to the end of.
pub(super) fn names_to_see(section: &Section, discovery: &Discovery, snoop: &Snoop) {
    let Some(item) = section.item("names").filter(|_| snoop.names) else {
        return;
    };
    for ExtraName { name, .. } in &discovery.names {
        if dns::hash(name).is_none() {
            item.warn(
                Mismatch::expected(format!(
                    "names of at most {} characters, where [snoop] looks for them",
                    dns::NAME_MAX - 2
                ))
                .found(format!("{name:?}"))
                .hint("it is resolved all the same; clients that ask for it are not seen"),
            );
        }
    }
}

/// That what the file itself lists fits the sizes that it gives.
pub(super) fn sizes(limits: &Section, config: &Config) {
    let clients: HashSet<&Client> = config
        .policies
        .iter()
        .flat_map(|policy| &policy.clients)
        .collect();
    let macs = clients
        .iter()
        .filter(|client| matches!(client, Client::Mac(_)))
        .count();
    let networks = clients.len() - macs;
    for (key, used, limit) in [
        ("prefixes", config.prefixes.len(), config.limits.prefixes),
        // One entry is for the treatment of [defaults].
        (
            "policies",
            config.policies.len() + 1,
            config.limits.policies,
        ),
        ("clients", macs.max(networks), config.limits.clients),
    ] {
        if used > limit as usize {
            let mismatch = Mismatch::expected(format!("at least {used}, which this file needs"));
            match limits.item(key) {
                Some(item) => item.refuse(mismatch),
                None => limits.refuse(mismatch.found(format!("{key} = {limit} (the default)"))),
            }
        }
    }
}
