//! From configured treatments to rows of the policy table.

use std::collections::BTreeSet;

use wificall_common::abi::{DSCP_IF_DEFAULT, DSCP_KEEP, Features, Policy as Row, RULES};

use crate::{
    config::{Config, DscpMode, Priority, Treatment},
    discover::Owner,
};

/// The row that an endpoint of these owners gets: that of the first policy that one of them matches, else the defaults.
#[must_use]
pub fn row_for(config: &Config, owners: &BTreeSet<Owner>) -> Row {
    let policy = config
        .policies
        .iter()
        .find(|policy| owners.iter().any(|owner| policy.matches(owner)));
    row(policy.map_or(&config.defaults, |policy| &policy.treatment))
}

fn row(treatment: &Treatment) -> Row {
    let Treatment {
        dscp,
        priority,
        mark,
    } = treatment;
    let rules = |values: &[Option<u8>; RULES]| {
        values.map(|value| match (dscp.mode, value) {
            (DscpMode::Keep, _) | (_, None) => DSCP_KEEP,
            (DscpMode::Set, Some(value)) => value,
            (DscpMode::IfDefault, Some(value)) => value | DSCP_IF_DEFAULT,
        })
    };
    Row {
        mark: mark.map_or(0, |mark| mark.value),
        mask: mark.map_or(0, |mark| mark.mask),
        dscp: [rules(&dscp.up), rules(&dscp.down)],
        voice: [u8::from(*priority == Priority::Voice); 2],
        valid: 1,
        reserved: [0; 5],
    }
}

/// The load-time features that the rows in use need.
#[must_use]
pub fn features<'a>(rows: impl Iterator<Item = &'a Row>) -> u32 {
    rows.fold(0, |features, row| {
        let dscp = row.dscp.iter().flatten().any(|rule| rule & DSCP_KEEP == 0);
        features
            | if dscp { Features::DSCP } else { 0 }
            | if row.mask != 0 { Features::MARK } else { 0 }
            | if row.voice != [0; 2] {
                Features::PRIORITY
            } else {
                0
            }
    })
}
