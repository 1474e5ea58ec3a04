//! Desired − actual: which rules and routes to add, which to change, which to remove.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Record;
use crate::net::{Family, Hop, Route, Rule};

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Our rules.
    pub rules: BTreeSet<Rule>,
    /// The default route of each of our tables, by family; `None`: there is to be none.
    pub routes: BTreeMap<(u32, Family), Option<Hop>>,
}

impl Desired {
    /// The tables.
    #[must_use]
    pub fn tables(&self) -> BTreeSet<u32> {
        self.routes.keys().map(|(table, _)| *table).collect()
    }
}

/// How to get there, in this order: a rule never leads to a table that is not filled yet, or not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Routes to put in the place of others, or where there were none.
    pub set: Vec<Route>,
    /// Rules to add.
    pub add: Vec<Rule>,
    /// Rules to remove.
    pub remove: Vec<Rule>,
    /// Routes to remove.
    pub clear: Vec<Route>,
}

/// Compares what should be there with the box's rules and with the routes of our tables. Ours are the rules that the
/// record has, and the default routes of its tables that have our protocol number.
#[must_use]
pub fn plan(desired: &Desired, rules: &[Rule], routes: &[Route], record: &Record) -> Plan {
    let mut plan = Plan::default();
    for (&(table, family), &hop) in &desired.routes {
        let Some(hop) = hop else { continue };
        let route = Route::own(family, table, hop);
        if !routes.contains(&route) {
            plan.set.push(route);
        }
    }
    let missing = desired.rules.iter().filter(|rule| !rules.contains(rule));
    plan.add = missing.cloned().collect();
    let outlived = record.rules.difference(&desired.rules);
    plan.remove = outlived
        .filter(|rule| rules.contains(rule))
        .cloned()
        .collect();
    let own = routes.iter().filter(|route| {
        let ours = record.tables.contains(&route.table) || desired.tables().contains(&route.table);
        ours && route.is_own()
    });
    plan.clear = own
        .filter(|route| {
            // One in the wrong place is replaced rather than removed; what is left of it then is another's loss.
            let wanted = desired.routes.get(&(route.table, route.family));
            !matches!(wanted, Some(Some(_)))
        })
        .cloned()
        .collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const UNREACHABLE: Hop = Hop::Unreachable;

    fn rule(family: Family) -> Rule {
        let exit = sample::exit();
        Rule::own(family, exit.priority, exit.mark, exit.table)
    }

    fn desired(hop: Option<Hop>) -> Desired {
        Desired {
            rules: Family::ALL.map(rule).into(),
            routes: Family::ALL.map(|family| ((1065, family), hop)).into(),
        }
    }

    fn record() -> Record {
        Record {
            rules: Family::ALL.map(rule).into(),
            tables: [1065].into(),
            ..Record::default()
        }
    }

    fn route(family: Family, hop: Hop) -> Route {
        Route::own(family, 1065, hop)
    }

    #[test]
    fn what_is_missing_is_added_and_what_agrees_is_left() {
        let gateway = Hop::Device { ifindex: 3 };
        let desired = desired(Some(gateway));
        let all = plan(&desired, &[], &[], &record());
        assert_eq!((all.set.len(), all.add.len()), (2, 2));
        assert!(all.remove.is_empty() && all.clear.is_empty());
        let rules = Family::ALL.map(rule);
        let routes = Family::ALL.map(|family| route(family, gateway));
        assert_eq!(plan(&desired, &rules, &routes, &record()), Plan::default());
        let one = plan(&desired, &rules[1..], &routes[..1], &record());
        assert_eq!(one.add, [rule(Family::V4)]);
        assert_eq!(one.set, [route(Family::V6, gateway)]);
    }

    #[test]
    fn another_hop_replaces_and_none_removes() {
        let rules = Family::ALL.map(rule);
        let routes = Family::ALL.map(|family| route(family, UNREACHABLE));
        let gateway = Hop::Device { ifindex: 3 };
        let moved = plan(&desired(Some(gateway)), &rules, &routes, &record());
        assert_eq!(moved.set.len(), 2);
        assert!(
            moved.clear.is_empty(),
            "a moment without a route is one by the wrong exit"
        );
        let direct = plan(&desired(None), &rules, &routes, &record());
        assert_eq!(direct.clear, routes);
        assert!(direct.set.is_empty() && direct.add.is_empty() && direct.remove.is_empty());
    }

    #[test]
    fn only_what_the_record_has_is_removed() {
        let mut others = rule(Family::V4);
        others.priority = 7;
        let static_route = Route {
            protocol: 4,
            ..route(Family::V4, UNREACHABLE)
        };
        let elsewhere = Route::own(Family::V4, 99, UNREACHABLE);
        let rules = [rule(Family::V4), others];
        let routes = [route(Family::V4, UNREACHABLE), static_route, elsewhere];
        let gone = plan(&Desired::default(), &rules, &routes, &record());
        assert_eq!(gone.remove, [rule(Family::V4)]);
        assert_eq!(gone.clear, [route(Family::V4, UNREACHABLE)]);
        let nothing = plan(&Desired::default(), &rules, &routes, &Record::default());
        assert_eq!(nothing, Plan::default());
    }
}
