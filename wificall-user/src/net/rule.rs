//! Policy rules (`ip rule`): which table a packet's route is looked up in (`linux/fib_rules.h`).

use std::fmt;
use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::netlink::{attribute, attributes, dump, set, u32_at};
use super::{Family, PROTOCOL};
use crate::config::Mark;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
/// Bytes of `struct fib_rule_hdr`.
const FIB_RULE_HDR: usize = 12;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_NOP: u8 = 3;
const FIB_RULE_INVERT: u32 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TUN_ID: u16 = 12;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;

/// A rule, ours or another's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The family whose packets it is for.
    pub family: Family,
    /// Its place: the lowest comes first.
    pub priority: u32,
    /// The mark that packets have under [`mask`](Self::mask).
    pub mark: u32,
    /// 0: whatever mark they have.
    pub mask: u32,
    /// The table that it leads to; 0 for a rule that leads to none.
    pub table: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// It is for the packets that do *not* match.
    #[serde(default)]
    pub inverted: bool,
    /// It has conditions beside the mark, so that it is not for all packets with it.
    #[serde(default)]
    pub narrowed: bool,
    /// It passes over routes of its table that are shorter than some length, a default route foremost.
    #[serde(default)]
    pub suppressing: bool,
    /// It does nothing with its packets.
    #[serde(default)]
    pub idle: bool,
}

impl Rule {
    /// Ours, which leads packets with a mark to a table.
    #[must_use]
    pub fn own(family: Family, priority: u32, mark: Mark, table: u32) -> Self {
        Self {
            family,
            priority,
            mark: mark.value,
            mask: mark.mask,
            table,
            protocol: PROTOCOL,
            inverted: false,
            narrowed: false,
            suppressing: false,
            idle: false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.inverted { "not " } else { "" };
        write!(f, "{}: {not}from all", self.priority)?;
        if self.mask != 0 {
            write!(f, " fwmark {:#x}/{:#x}", self.mark, self.mask)?;
        }
        if self.narrowed {
            write!(f, " …")?;
        }
        match self.table {
            0 => Ok(()),
            table => write!(f, " lookup {table}"),
        }
    }
}

/// All rules of both families.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn rules() -> io::Result<Vec<Rule>> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let mut request = vec![0; FIB_RULE_HDR];
        request[0] = family.number();
        match dump(NETLINK_ROUTE, RTM_GETRULE, &request).await {
            Ok(answer) => found.extend(
                answer
                    .iter()
                    .filter(|message| message.kind == RTM_NEWRULE)
                    .filter_map(|message| parse(&message.payload)),
            ),
            Err(error) if super::is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Adds a rule. One that is there already stays.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn add_rule(rule: &Rule) -> io::Result<()> {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    match set(NETLINK_ROUTE, RTM_NEWRULE, flags, &request(rule)).await {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Removes a rule, unless it is gone.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn remove_rule(rule: &Rule) -> io::Result<()> {
    match set(NETLINK_ROUTE, RTM_DELRULE, 0, &request(rule)).await {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) if super::is_unsupported(&error) => Ok(()),
        result => result,
    }
}

fn request(rule: &Rule) -> Vec<u8> {
    let mut request = vec![0; FIB_RULE_HDR];
    request[0] = rule.family.number();
    request[7] = FR_ACT_TO_TBL;
    for (kind, value) in [
        (FRA_PRIORITY, rule.priority),
        (FRA_FWMARK, rule.mark),
        (FRA_FWMASK, rule.mask),
        (FRA_TABLE, rule.table),
    ] {
        request.extend(attribute(kind, &value.to_ne_bytes()));
    }
    request.extend(attribute(FRA_PROTOCOL, &[rule.protocol]));
    request
}

/// Reads an `RTM_NEWRULE` message. `None` if its header is cut short or it is of another family.
pub(super) fn parse(payload: &[u8]) -> Option<Rule> {
    let [family, dst_len, src_len, tos, table, _, _, action] = *payload.first_chunk()?;
    let inverted = u32_at(payload, 8)? & FIB_RULE_INVERT != 0;
    let mut rule = Rule {
        family: Family::of(family)?,
        priority: 0,
        mark: 0,
        mask: 0,
        table: table.into(),
        protocol: 0,
        inverted,
        narrowed: dst_len != 0 || src_len != 0 || tos != 0,
        suppressing: false,
        idle: action == FR_ACT_NOP,
    };
    for attribute in attributes(payload, FIB_RULE_HDR) {
        let number = u32_at(attribute.value(), 0);
        match (attribute.kind(), number) {
            (FRA_PRIORITY, Some(number)) => rule.priority = number,
            (FRA_FWMARK, Some(number)) => rule.mark = number,
            (FRA_FWMASK, Some(number)) => rule.mask = number,
            (FRA_TABLE, Some(number)) => rule.table = number,
            // −1: nothing is passed over.
            (FRA_SUPPRESS_PREFIXLEN, Some(number)) => rule.suppressing = number != u32::MAX,
            (FRA_PROTOCOL, _) => {
                rule.protocol = attribute.value().first().copied().unwrap_or_default();
            }
            // What a VRF device's table is, is not said here.
            (FRA_L3MDEV, _) => rule.narrowed |= attribute.value().first() != Some(&0),
            (FRA_IP_PROTO, _) => rule.narrowed |= attribute.value().first() != Some(&0),
            (
                FRA_IIFNAME | FRA_OIFNAME | FRA_TUN_ID | FRA_UID_RANGE | FRA_SPORT_RANGE
                | FRA_DPORT_RANGE,
                _,
            ) => rule.narrowed = true,
            _ => {}
        }
    }
    if action != FR_ACT_TO_TBL {
        rule.table = 0;
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, ip};
    use super::*;

    #[test]
    fn a_message_cut_short_is_no_rule() {
        let whole = request(&own(Family::V4));
        assert_eq!(parse(&whole), Some(own(Family::V4)));
        for length in 0..FIB_RULE_HDR {
            assert_eq!(parse(&whole[..length]), None);
        }
    }

    fn own(family: Family) -> Rule {
        let mark = Mark {
            value: 0x65,
            mask: 0xff,
        };
        Rule::own(family, 1000, mark, 1065)
    }

    #[test]
    fn root_rules_are_added_told_and_removed() {
        in_namespace(|runtime| {
            runtime.block_on(async {
                for family in Family::ALL {
                    add_rule(&own(family)).await.unwrap();
                    add_rule(&own(family)).await.unwrap();
                }
                ip("rule add not fwmark 0xca6c lookup 51820 priority 32764");
                ip("rule add iif lo fwmark 0x100/0x3f00 lookup 1 priority 2001");
                ip("rule add lookup main suppress_prefixlength 0 priority 32763");
                ip("rule add from 192.0.2.0/24 blackhole priority 7");
                let found = rules().await.unwrap();
                for family in Family::ALL {
                    let ours = found.iter().filter(|rule| **rule == own(family));
                    assert_eq!(ours.count(), 1, "{found:?}");
                }
                let at = |priority| found.iter().find(|rule| rule.priority == priority).unwrap();
                let (wg, mwan) = (at(32764), at(2001));
                assert!(wg.inverted && wg.mark == 0xca6c && wg.mask == u32::MAX && !wg.narrowed);
                assert!(mwan.narrowed && (mwan.mark, mwan.mask) == (0x100, 0x3f00));
                assert!(at(32763).suppressing && !at(32766).suppressing);
                assert!(at(7).narrowed && at(7).table == 0);
                assert_eq!((at(0).table, at(0).mask, at(0).narrowed), (255, 0, false));
                assert_eq!(
                    wg.to_string(),
                    "32764: not from all fwmark 0xca6c/0xffffffff lookup 51820"
                );
                // Somebody else's of the same content but for who made it is not removed in the place of ours.
                ip("rule del priority 1000 protocol 87");
                ip("rule add fwmark 0x65/0xff lookup 1065 priority 1000 protocol 99");
                for family in Family::ALL {
                    remove_rule(&own(family)).await.unwrap();
                    remove_rule(&own(family)).await.unwrap();
                }
                let left = rules().await.unwrap();
                assert_eq!(left.iter().filter(|rule| rule.priority == 1000).count(), 1);
            });
        });
    }
}
