//! From configured treatments to rows of the policy table.

use std::num::NonZeroU32;

use wificall_common::abi::{
    DSCP_DEMOTE, DSCP_IF_DEFAULT, DSCP_KEEP, Features, Policy as Row, RULES, TIER_CORROBORATED,
    TIER_OBSERVED, TIER_TRUSTED,
};

use super::{compile::Around, policy_match::Endpoint};
use crate::{
    config::{Action as PolicyAction, Config, DscpMode, MarkUse, Policy, Priority, Treatment},
    discover::{Action, Tier},
    net::Family,
};

impl Policy {
    /// Whether it decides what is done with an endpoint's packets, as far as that follows from the endpoint. Emergency
    /// calls are not dropped: where they can be told apart, a policy that would is passed over.
    #[must_use]
    pub(super) fn takes(&self, endpoint: &Endpoint) -> bool {
        let spared = self.action == PolicyAction::Drop && endpoint.emergency;
        !spared && self.endpoint_mismatch(endpoint).is_none()
    }
}

/// The row of a policy (`None`: of the defaults) for an endpoint: as much of it as the endpoint's tier may have. An exit
/// that blocks does not take emergency calls, and no cap holds for them.
#[must_use]
pub(super) fn row(
    config: &Config,
    policy: Option<&Policy>,
    endpoint: &Endpoint,
    around: Around<'_>,
) -> Row {
    let treatment = policy.map_or(&config.defaults, |policy| &policy.treatment);
    let mut own = own_row(endpoint.tier);
    own.passes |= u8::from(endpoint.emergency);
    match policy.map(|policy| policy.action) {
        None | Some(PolicyAction::Treat) => {}
        Some(PolicyAction::Keep) => return own,
        Some(PolicyAction::Drop) => {
            return Row { drop: 1, ..own };
        }
    }
    let mut row = treated(config, treatment, endpoint.tier);
    row.passes = own.passes;
    let exit = policy.and_then(|policy| policy.exit.as_ref());
    let exit = exit.and_then(|name| config.exits.iter().find(|exit| exit.name == *name));
    if let Some(exit) = exit.filter(|_| row.mask != 0) {
        row.exit = exit.table;
        let own = Family::from(endpoint.net.addr());
        // An IPv4 endpoint behind a NAT64 is gone to by IPv6.
        let others = Family::ALL.into_iter().filter(|_| around.nat64);
        let mut families = others.chain([own]);
        let blocks = |family| {
            around
                .blocked
                .is_some_and(|all| all.contains(&(exit.table, family)))
        };
        if endpoint.emergency && families.any(blocks) {
            (row.exit, row.mark, row.mask) = (0, 0, 0);
        }
    }
    if endpoint.emergency {
        row.interval = 0;
    }
    row
}

/// The row of what a gateway sends itself, or forwards: it goes its own way.
#[must_use]
pub(super) fn gateway_row(tier: Tier) -> Row {
    Row {
        own: 1,
        passes: 1,
        ..own_row(tier)
    }
}

/// The row of a policy's companions: its mark alone.
#[must_use]
pub(super) fn companion_row(config: &Config, policy: &Policy) -> Row {
    let mark = policy.treatment.mark;
    let exit = policy.exit.as_ref();
    let exit = exit.and_then(|name| config.exits.iter().find(|exit| exit.name == *name));
    Row {
        mark: mark.map_or(0, |mark| mark.value),
        mask: mark.map_or(0, |mark| mark.mask),
        exit: exit.map_or(0, |exit| exit.table),
        ..own_row(Tier::Authoritative)
    }
}

/// The row of what is counted and otherwise left as it came.
#[must_use]
pub(super) fn own_row(tier: Tier) -> Row {
    Row {
        dscp: [[DSCP_KEEP; RULES]; 2],
        valid: 1,
        tier: abi_tier(tier),
        passes: u8::from(tier == Tier::Authoritative),
        ..Row::default()
    }
}

fn abi_tier(tier: Tier) -> u8 {
    match tier {
        Tier::Authoritative => TIER_TRUSTED,
        Tier::Corroborated => TIER_CORROBORATED,
        Tier::Observed => TIER_OBSERVED,
    }
}

fn treated(config: &Config, treatment: &Treatment, tier: Tier) -> Row {
    let observed = &config.observed;
    let Treatment {
        dscp,
        priority,
        mark,
        mark_use,
        cap,
    } = treatment;
    let allows = |action| observed.allows(tier, action);
    let may_set_dscp = allows(Action::Dscp);
    // What may not have the policy's DSCP has no better right to voice's than what is no match.
    let left = if config.trust.bleach {
        DSCP_DEMOTE
    } else {
        DSCP_KEEP
    };
    let rules = |values: &[Option<u8>; RULES], denied: u8| {
        values.map(|value| match (dscp.mode, value) {
            _ if !may_set_dscp => denied,
            (DscpMode::Keep, _) | (_, None) => DSCP_KEEP,
            (DscpMode::Set, Some(value)) => value,
            (DscpMode::IfDefault, Some(value)) => value | DSCP_IF_DEFAULT,
        })
    };
    let purpose = match mark_use {
        MarkUse::Route => Action::Route,
        MarkUse::Passage => Action::FirewallPassage,
    };
    let mark = mark.filter(|_| allows(Action::Mark) && allows(purpose));
    let voice = *priority == Priority::Voice && allows(Action::Priority);
    let cap = [*cap, observed.cap(tier)].into_iter().flatten().min();
    Row {
        mark: mark.map_or(0, |mark| mark.value),
        mask: mark.map_or(0, |mark| mark.mask),
        dscp: [rules(&dscp.up, left), rules(&dscp.down, DSCP_KEEP)],
        voice: [u8::from(voice); 2],
        interval: cap.map_or(0, interval),
        ..own_row(tier)
    }
}

/// Nanoseconds between packets that come at this rate.
fn interval(per_second: NonZeroU32) -> u32 {
    1_000_000_000 / per_second
}

/// The rows that endpoints learnt from clients may get. Programs are made ready for them from the start: the first phone
/// would have to wait until others are loaded.
#[must_use]
pub fn rows_for_clients(config: &Config) -> Vec<Row> {
    let treatments = config.policies.iter().map(|policy| &policy.treatment);
    treatments
        .chain([&config.defaults])
        .flat_map(|treatment| {
            let tiers = [Tier::Observed, Tier::Corroborated];
            tiers.map(|tier| treated(config, treatment, tier))
        })
        .collect()
}

/// The load-time features that the rows in use need.
#[must_use]
pub fn features<'a>(rows: impl Iterator<Item = &'a Row>) -> u32 {
    rows.fold(0, |features, row| {
        // What is over a cap loses voice's.
        let writes = |rule: &u8| *rule & DSCP_DEMOTE != DSCP_KEEP;
        let dscp = row.interval != 0 || row.dscp.iter().flatten().any(writes);
        features
            | if row.drop != 0 { Features::DROP } else { 0 }
            | if dscp { Features::DSCP } else { 0 }
            | if row.mask != 0 { Features::MARK } else { 0 }
            | if row.interval != 0 { Features::CAP } else { 0 }
            | if row.voice != [0; 2] {
                Features::PRIORITY
            } else {
                0
            }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        config,
        control::compile::{Around, Compiler},
        discover::Source,
    };

    /// The row of an endpoint of nobody.
    fn row_for(config: &Config, owners: &BTreeSet<crate::discover::Owner>, tier: Tier) -> Row {
        let endpoint = Endpoint {
            owners,
            names: &BTreeSet::new(),
            emergency: false,
            net: "192.0.2.0/24".parse().unwrap(),
            tier,
        };
        Compiler::new(config, Around::default()).rows(&endpoint).0
    }

    fn config(rest: &str) -> Config {
        let source = format!(
            "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"262-01\"]\n\
             [defaults]\nmark = \"0x65/0xff\"\n{rest}"
        );
        config::parse(&source, "test.toml".as_ref()).unwrap().config
    }

    /// By source: DSCP, priority, mark for a route, mark for a firewall, packets a second.
    #[test]
    fn what_the_kernel_is_told_by_source() {
        let table = [
            (Source::Static, [true, true, true, true], 0),
            (Source::Catalogue, [true, true, true, true], 0),
            (Source::Resolver, [true, true, true, true], 0),
            (Source::Confirmed, [true, true, true, false], 0),
            (Source::Client, [true, true, false, false], 150),
            (Source::Ike, [true, true, false, false], 150),
        ];
        let steering = config("");
        let firewall = config("mark_use = \"passage\"\n");
        for (source, expected, cap) in table {
            let row = row_for(&steering, &BTreeSet::new(), source.tier());
            let passage = row_for(&firewall, &BTreeSet::new(), source.tier());
            let got = [
                row.dscp == [[46; RULES]; 2],
                row.voice == [1; 2],
                (row.mark, row.mask) == (0x65, 0xff),
                (passage.mark, passage.mask) == (0x65, 0xff),
            ];
            assert_eq!(got, expected, "{source}");
            let rate = 1_000_000_000_u32.checked_div(row.interval).unwrap_or(0);
            assert_eq!(rate, cap, "{source}");
            let observed = row.tier == TIER_OBSERVED;
            assert_eq!(observed, source.tier() == Tier::Observed);
            let passes = source.tier() == Tier::Authoritative;
            assert_eq!(row.passes != 0, passes, "{source}");
            assert_eq!(features([row].iter()) & Features::CAP != 0, observed);
        }
    }

    /// Whatever the policy does, and however little the endpoint is trusted.
    #[test]
    fn an_emergency_call_is_no_other_ipsec() {
        for policy in [None, Some(PolicyAction::Treat), Some(PolicyAction::Keep)] {
            let mut config = config("[[policy]]\nname = \"all\"\noperators = [\"262-01\"]\n");
            if let Some(action) = policy {
                config.policies[0].action = action;
            }
            for tier in Tier::ALL {
                for emergency in [false, true] {
                    let endpoint = Endpoint {
                        owners: &BTreeSet::new(),
                        names: &BTreeSet::new(),
                        emergency,
                        net: "192.0.2.1/32".parse().unwrap(),
                        tier,
                    };
                    let policy = policy.map(|_| &config.policies[0]);
                    let row = row(&config, policy, &endpoint, Around::default());
                    let passes = emergency || tier == Tier::Authoritative;
                    assert_eq!(row.passes != 0, passes, "{policy:?} {tier:?} {emergency}");
                }
            }
        }
    }

    #[test]
    fn the_observed_tier_gets_what_the_configuration_says_and_never_passage() {
        let generous = "[observed]\nmark = true\ncap = \"none\"\n";
        let row = row_for(&config(generous), &BTreeSet::new(), Tier::Observed);
        assert_eq!((row.mark, row.mask, row.interval), (0x65, 0xff, 0));
        let firewall = config(&format!("mark_use = \"passage\"\n{generous}"));
        let row = row_for(&firewall, &BTreeSet::new(), Tier::Observed);
        assert_eq!((row.mark, row.mask), (0, 0));
        let nothing = config("[observed]\ndscp = false\npriority = false\n");
        let row = row_for(&nothing, &BTreeSet::new(), Tier::Observed);
        assert_eq!((row.dscp, row.voice), ([[DSCP_KEEP; RULES]; 2], [0; 2]));
        // What is over the cap loses what its client set.
        assert_eq!(features([row].iter()), Features::DSCP | Features::CAP);
    }

    /// A client chooses what is observed: without the DSCP of a policy it is bleached as what is no match.
    #[test]
    fn observed_endpoints_without_dscp_are_bleached_where_clients_are() {
        let observed = "[observed]\ndscp = false\n[trust]\nbleach = true\n";
        let keeps = format!("dscp = \"keep\"\n{observed}");
        for text in [observed, &keeps] {
            let config = config(text);
            let row = row_for(&config, &BTreeSet::new(), Tier::Observed);
            assert_eq!(row.dscp, [[DSCP_DEMOTE; RULES], [DSCP_KEEP; RULES]]);
            assert_ne!(features([row].iter()) & Features::DSCP, 0);
        }
        // By its policy, what is trusted keeps what it has.
        let row = row_for(&config(&keeps), &BTreeSet::new(), Tier::Authoritative);
        assert_eq!(row.dscp, [[DSCP_KEEP; RULES]; 2]);
        assert_eq!(features([row].iter()) & Features::DSCP, 0);
        let allowed = config("[trust]\nbleach = true\n");
        let row = row_for(&allowed, &BTreeSet::new(), Tier::Observed);
        assert_eq!(row.dscp, [[46; RULES]; 2]);
    }
}
