//! What stands in the way of exits: rules and routes of others, other instances, devices that are too small.

use super::place::Network;
use super::record::Record;
use super::{Exit, place};
use crate::net::{Family, Hop, PROTOCOL, Route, Rule};

/// What is wrong, each a sentence with a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// It cannot work.
    pub errors: Vec<String>,
    /// It may not work.
    pub warnings: Vec<String>,
}

/// The box as it is.
#[derive(Clone, Debug, Default)]
pub struct Box {
    /// Links and addresses.
    pub network: Network,
    /// All rules.
    pub rules: Vec<Rule>,
    /// The routes of the exits' tables.
    pub routes: Vec<Route>,
    /// What we have installed.
    pub record: Record,
    /// What other instances have, by instance.
    pub others: Vec<(String, Record)>,
    /// Indices of the interfaces towards the Internet.
    pub uplinks: Vec<u32>,
}

const TABLE_DEFAULT: u32 = 253;
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

/// Checks exits against the box, before anything is changed.
#[must_use]
pub fn check(exits: &[Exit], here: &Box) -> Findings {
    let mut findings = Findings::default();
    for exit in exits {
        places(exit, here, &mut findings);
        for rule in &here.rules {
            against_rule(exit, rule, here, &mut findings);
        }
        against_routes(exit, here, &mut findings);
        for (instance, record) in &here.others {
            let table = record.tables.contains(&exit.table);
            let mark = record
                .rules
                .iter()
                .any(|rule| meets(exit, rule) == Meeting::All);
            if table || mark {
                let (what, key) = if table {
                    (format!("table {}", exit.table), "table")
                } else {
                    (
                        format!("mark {:#x}/{:#x}", exit.mark.value, exit.mark.mask),
                        "mark",
                    )
                };
                findings.errors.push(format!(
                    "exit `{}`: {what} is that of an exit of instance `{instance}`\n  hint: give one of them another `{key}`",
                    exit.name
                ));
            }
        }
    }
    findings.warnings.dedup();
    findings
}

fn places(exit: &Exit, here: &Box, findings: &mut Findings) {
    let mut found = Vec::new();
    for gateway in &exit.gateways {
        match place::of_gateway(exit, gateway, &here.network) {
            Ok(place) => found.push(place),
            Err(place::Nowhere::Wrong(text)) => findings.errors.push(text),
            Err(place::Nowhere::Awaited(text)) => findings.warnings.push(text),
        }
    }
    if exit.gateways.is_empty() {
        match place::of_device(exit, Family::V4, &here.network) {
            Ok(place) => found.push(place),
            Err(nowhere) => findings.warnings.push(nowhere.text().to_owned()),
        }
    }
    found.sort_by_key(|place| place.ifindex);
    found.dedup_by_key(|place| place.ifindex);
    for place in found {
        mtu(exit, &place, here, findings);
    }
}

/// Packets that the exit's device does not take are dropped with ICMP "too big", or in pieces.
fn mtu(exit: &Exit, place: &place::Place, here: &Box, findings: &mut Findings) {
    let own = here
        .network
        .by_index(place.ifindex)
        .map_or(0, |link| link.mtu);
    let others = here.network.access.iter().chain(&here.uplinks);
    let largest = others
        .filter_map(|index| here.network.by_index(*index))
        .map(|link| (link.mtu, &link.name))
        .max();
    if let Some((mtu, name)) = largest
        && own != 0
        && own < mtu
    {
        findings.warnings.push(format!(
            "exit `{}`: `{}` takes packets of {own} bytes, `{name}` of {mtu}: larger ones are cut in pieces or refused\n  \
             hint: have the TCP and IKE ends know, or lower the MTU that phones are told",
            exit.name, place.device
        ));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meeting {
    /// It is not for packets with our mark.
    None,
    /// It is for some of them.
    Some,
    /// It is for all of them.
    All,
    /// It does not look at marks.
    Unmarked,
}

/// How a rule's mark meets an exit's. Of a packet with the exit's mark only the bits under its mask are known.
fn meets(exit: &Exit, rule: &Rule) -> Meeting {
    let mark = exit.mark;
    if rule.mask == 0 {
        return Meeting::Unmarked;
    }
    // A packet may have both marks, each in bits of its own: nobody is in the way.
    if rule.mask & mark.mask == 0 {
        return if rule.inverted {
            Meeting::Unmarked
        } else {
            Meeting::None
        };
    }
    let differs = (rule.mark ^ mark.value) & rule.mask & mark.mask != 0;
    let decided = rule.mask & !mark.mask == 0;
    match (differs, decided, rule.inverted) {
        (true, _, false) | (false, true, true) => Meeting::None,
        (true, _, true) | (false, true, false) => Meeting::All,
        (false, false, _) => Meeting::Some,
    }
}

fn against_rule(exit: &Exit, rule: &Rule, here: &Box, findings: &mut Findings) {
    let is_own = here.record.rules.contains(rule)
        || *rule == Rule::own(rule.family, exit.priority, exit.mark, exit.table);
    let name = &exit.name;
    if is_own || rule.idle || (rule.table == TABLE_LOCAL && rule.mask == 0) {
        return;
    }
    if rule.table == exit.table {
        findings.errors.push(format!(
            "exit `{name}`: table {} is the target of another rule ({} {rule}){}\n  hint: give the exit a table of its own",
            exit.table,
            rule.family,
            owner(rule)
        ));
        return;
    }
    let first = rule.priority <= exit.priority;
    let meeting = meets(exit, rule);
    let mark = format!("{:#x}/{:#x}", exit.mark.value, exit.mark.mask);
    let by = owner(rule);
    match (meeting, first) {
        (Meeting::All, true) if !rule.narrowed && !rule.suppressing => {
            findings.errors.push(format!(
                "exit `{name}`: its packets (mark {mark}) would be taken by another rule that comes before its own \
                 ({} {rule}){by}\n  hint: give the exit another `mark`, or a `priority` below {}",
                rule.family, rule.priority
            ));
        }
        // One for all but somebody's own packets, where ours have gone their way already.
        (_, false) if rule.inverted => {}
        (Meeting::All | Meeting::Some, _) => findings.warnings.push(format!(
            "exit `{name}`: its mark {mark} meets that of another rule ({} {rule}){by}: one may take the other's packets\n  \
             hint: choose a `mark` whose mask shares no bit with {:#x}",
            rule.family, rule.mask
        )),
        // The mask alone: our mark lies in bits that another uses, though with another value.
        (Meeting::None, _) if rule.mask & exit.mark.mask != 0 && rule.protocol != PROTOCOL => {
            findings.warnings.push(format!(
                "exit `{name}`: its mark {mark} shares bits with that of another rule ({} {rule}){by}: who marks last wins\n  \
                 hint: choose a `mark` whose mask shares no bit with {:#x}",
                rule.family, rule.mask
            ));
        }
        (Meeting::Unmarked, true) if !rule.narrowed && !rule.suppressing => {
            let text = format!(
                "exit `{name}`: another rule for all packets comes before its own ({} {rule}){by}",
                rule.family
            );
            let hint = format!("  hint: give the exit a `priority` below {}", rule.priority);
            let list = match rule.table {
                TABLE_MAIN | 0 => &mut findings.errors,
                _ => &mut findings.warnings,
            };
            list.push(format!("{text}\n{hint}"));
        }
        (Meeting::None | Meeting::Unmarked, _) => {}
    }
}

fn against_routes(exit: &Exit, here: &Box, findings: &mut Findings) {
    // Of ours there is one in each family; others with our number are another instance's.
    let mut others = here
        .routes
        .iter()
        .filter(|route| route.table == exit.table && !(route.is_own() && route.hop != Hop::Other));
    if let Some(route) = others.next() {
        findings.errors.push(format!(
            "exit `{}`: table {} has routes of another (protocol {}, {} of {} bits)\n  hint: give the exit a table of its own",
            exit.name, exit.table, route.protocol, route.family, route.length
        ));
    }
}

/// Whose a rule most likely is.
fn owner(rule: &Rule) -> &'static str {
    match (rule.mark, rule.mask, rule.table) {
        (_, _, TABLE_DEFAULT | TABLE_MAIN) if rule.mask == 0 => "",
        (_, 0x3f00, _) => ", most likely of mwan3",
        (_, 0x00ff_0000, 52) | (0x8_0000, 0xff_0000, _) => ", most likely of Tailscale",
        (_, 0x00ff_0000, _) => ", most likely of pbr",
        (0xca6c, ..) | (_, _, 51_820) => ", most likely of wg-quick",
        (0x6d6f_6c65, ..) | (_, _, 0x6d6f_6c65) => ", most likely of Mullvad",
        (_, _, 52) => ", most likely of Tailscale",
        _ if rule.protocol == PROTOCOL => ", of another instance of wificall or of one before",
        _ => "",
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
