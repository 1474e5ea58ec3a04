//! Reads `[[discovery.upstream]]`: other resolvers for some operators and countries.

use std::collections::BTreeSet;

use super::reader::Section;
use super::report::Mismatch;
use super::sections::{COUNTRIES, OPERATORS, resolvers, unplaced};
use super::{Config, MarkUse, Policy, Treatment, checks, values};
use crate::catalogue::Owner;
use crate::discover::{Route, Selection};

pub(super) fn read(section: Section, config: &Config) -> Route {
    let operators = section.list("operators", OPERATORS, values::operator_pattern);
    let countries = section.list("countries", COUNTRIES, values::country);
    checks::no_duplicates(&operators, "operator");
    checks::no_duplicates(&countries, "country");
    if section.lacks("operators") && section.lacks("countries") {
        section.require("operators` or `countries", "one of them, or both");
    }
    if section.lacks("resolvers") {
        section.require(
            "resolvers",
            "the resolvers to ask, such as resolvers = [\"192.0.2.53\"]",
        );
    }
    let mut route = Route {
        operators: unplaced(operators),
        countries: unplaced(countries),
        upstreams: resolvers(&section),
        mark: None,
    };
    route.mark = if section.lacks("mark") {
        policies_mark(&route, &section, config)
    } else {
        section.value("mark", None, values::socket_mark)
    };
    section.finish();
    route
}

/// The mark by which the traffic of a route's operators leaves, so that their names are asked for by the same way.
fn policies_mark(route: &Route, section: &Section, config: &Config) -> Option<u32> {
    let mut owners = config.discovery.selection().owners(&config.catalogue);
    owners.retain(|owner| route.is_for([owner]));
    if owners.is_empty() {
        // Those that only clients ask for.
        let selection = Selection {
            operators: &route.operators,
            countries: &route.countries,
            ..Selection::default()
        };
        owners = selection.owners(&config.catalogue);
    }
    let marks: BTreeSet<Option<u32>> = owners
        .iter()
        .flat_map(|owner| marks_of(owner, config))
        .collect();
    if marks.len() > 1 {
        section.warn(
            Mismatch::expected("operators whose policies have one mark, or `mark`")
                .found("several marks")
                .hint("these questions are sent without a mark: give `mark`, or an upstream for each policy"),
        );
        return None;
    }
    marks.into_iter().next().flatten()
}

/// The marks that phones' packets to endpoints of this owner get: that of the first policy for all of them. A policy that
/// asks for more than operators and countries is an exception, and counts where there is no other.
fn marks_of(owner: &Owner, config: &Config) -> BTreeSet<Option<u32>> {
    let mut matching = config
        .policies
        .iter()
        .filter(|policy| policy.matches(owner));
    if let Some(policy) = matching.clone().find(|policy| policy.is_for_whole_owners()) {
        return [mark(&policy.treatment)].into();
    }
    let constrains_owners =
        |policy: &Policy| !policy.operators.is_empty() || !policy.countries.is_empty();
    let exceptions: BTreeSet<Option<u32>> = matching
        .by_ref()
        .filter(|policy| constrains_owners(policy) || !policy.chooses_endpoints())
        .map(|policy| mark(&policy.treatment))
        .filter(Option::is_some)
        .collect();
    if exceptions.is_empty() {
        [mark(&config.defaults)].into()
    } else {
        exceptions
    }
}

/// The mark that leads packets somewhere.
fn mark(treatment: &Treatment) -> Option<u32> {
    let leads = treatment.mark_use == MarkUse::Route;
    let mark = treatment.mark.filter(|_| leads).map(|mark| mark.value);
    mark.filter(|mark| *mark != 0)
}
