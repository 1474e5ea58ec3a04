//! Reads `[other_ipsec]` and `[trust]`.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::exits::{self, Placed};
use super::reader::{Item, Section};
use super::report::Mismatch;
use super::{Config, First, Interfaces, Limits, Mark, SnoopIke, checks, treatment, values};

/// `[other_ipsec]`: what is done with clients' IPsec to other addresses than ePDGs'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherIpsec {
    /// What.
    pub action: OtherAction,
    /// Own VPN peers: never marked, counted or dropped.
    pub peers: Vec<IpNet>,
}

/// What is done with other IPsec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherAction {
    /// Nothing: it is not looked at.
    #[default]
    Pass,
    /// It gets this mark.
    Mark(Mark),
    /// It is counted, with where it goes.
    Audit,
    /// It is dropped while the table has at least so many endpoints of the authoritative tier, and audited otherwise.
    Drop {
        /// From how many on.
        arm_at: NonZeroU32,
    },
}

impl OtherAction {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Mark(_) => "mark",
            Self::Audit => "audit",
            Self::Drop { .. } => "drop",
        }
    }
}

/// `[trust]`: what clients' own words are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether EF and VA that clients set on what is no match are reset.
    pub bleach: bool,
}

/// The largest number of `peers`: the programs have room for a few thousand networks, the box's own among them.
const MOST_PEERS: usize = 2048;

pub(super) fn other_ipsec(section: Section, config: &Config, exits: &[Placed]) -> OtherIpsec {
    let Config {
        interfaces,
        snoop,
        limits,
        catch_all,
        ..
    } = config;
    let name = section.value("action", "pass", |item| {
        item.choice(&["pass", "mark", "audit", "drop"].map(|name| (name, name)))
    });
    let mark = section
        .item("mark")
        .and_then(|item| item.read(|item| mark(item)));
    let arm_at = section.item("arm_at").and_then(|item| {
        item.read(|item| arm_at(item, limits))
            .and_then(NonZeroU32::new)
    });
    let peers = section.list("peers", "an array of networks and addresses", peer);
    checks::no_duplicates(&peers, "peer");
    if let Some((item, _)) = peers.get(MOST_PEERS) {
        item.refuse(
            Mismatch::expected(format!("at most {MOST_PEERS} peers"))
                .hint("name the networks that they are in"),
        );
    }
    for (key, user) in [("mark", "mark"), ("arm_at", "drop")] {
        if name != user
            && let Some(item) = section.item(key)
        {
            item.warn(
                Mismatch::expected(format!("`action = \"{user}\"` beside it"))
                    .hint("without it the key has no effect"),
            );
        }
    }
    if name != "pass" && interfaces.access.is_empty() {
        section.refuse(
            Mismatch::expected("interfaces.access, where clients' packets come in")
                .found(format!("`action = \"{name}\"` without one"))
                .hint("other IPsec is looked at where it comes in from clients only"),
        );
    }
    for (learns, found, expected) in [
        (
            snoop.ike == SnoopIke::Observe,
            "snoop.ike = \"observe\"",
            "snoop.ike = \"report\" or \"off\"",
        ),
        (
            catch_all.enabled,
            "catch_all.enabled = true",
            "catch_all.enabled = false",
        ),
    ] {
        if name == "drop" && learns {
            section.warn(
                Mismatch::expected(expected)
                    .found(format!("`action = \"drop\"` with {found}"))
                    .hint(
                        "while it is armed, IKE with unknown addresses is dropped and nothing is learnt of it; what was \
                         learnt before is dropped too",
                    ),
            );
        }
    }
    if name == "mark" {
        exits::foreign_mark(
            &section,
            exits,
            "by an exit goes what [catch_all] takes, with",
        );
        beside_first(&section, mark, config, exits);
    }
    let action = match (name, mark, arm_at) {
        ("mark", Some(mark), _) => OtherAction::Mark(mark),
        ("audit", ..) => OtherAction::Audit,
        ("drop", _, Some(arm_at)) => OtherAction::Drop { arm_at },
        _ => OtherAction::Pass,
    };
    if name == "mark" && section.lacks("mark") {
        section.require("mark", "a mark such as mark = \"0x200/0xf00\"");
    }
    if name == "drop" && section.lacks("arm_at") {
        section.require(
            "arm_at",
            "how many endpoints must be known before anything is dropped, such as arm_at = 100: half of what \
             `wificall status` counts as authoritative is a good number",
        );
    }
    section.finish();
    OtherIpsec {
        action,
        peers: peers.into_iter().map(|(_, peer)| peer).collect(),
    }
}

/// That packets do not get both this mark and that of the exit of [`First::Mark`]: the first to an unknown address are
/// other IPsec too.
fn beside_first(section: &Section, mark: Option<Mark>, config: &Config, exits: &[Placed]) {
    let catch_all = &config.catch_all;
    let marks = catch_all.enabled && catch_all.first == First::Mark;
    let named = |placed: &&Placed| catch_all.exit.as_ref() == Some(&placed.exit.name);
    if let Some(Placed { exit, .. }) = exits.iter().find(named).filter(|_| marks)
        && let Some(item) = section.item("mark")
        && let Some(mark) = mark.filter(|mark| mark.mask & exit.mark.mask != 0)
    {
        let Mark { value, mask } = exit.mark;
        let bits = mark.mask & mask;
        item.refuse(
            Mismatch::expected(format!(
                "a mask without bits of {value:#x}/{mask:#x}, the mark of exit {:?} that catch_all.first = \"mark\" sets",
                exit.name
            ))
            .hint(format!(
                "first packets to unknown addresses get both marks, which share the bits {bits:#x}"
            )),
        );
    }
}

pub(super) fn trust(section: Section, interfaces: &Interfaces) -> Trust {
    let trust = Trust {
        bleach: section.value("bleach", false, Item::flag),
    };
    if trust.bleach && interfaces.access.is_empty() {
        section.refuse(
            Mismatch::expected("interfaces.access, where clients' packets come in")
                .found("`bleach = true` without one"),
        );
    }
    section.finish();
    trust
}

/// Reads a mark that is there.
fn mark(item: &Item) -> Result<Mark, Mismatch> {
    treatment::read_mark(item)?
        .ok_or_else(|| Mismatch::expected(r#"a mark such as "0x200/0xf00" (value/mask)"#))
}

/// Reads a number of endpoints that the table has room for.
fn arm_at(item: &Item, limits: &Limits) -> Result<u32, Mismatch> {
    let room = limits
        .blocks
        .saturating_mul(2)
        .saturating_add(limits.hosts)
        .saturating_add(limits.prefixes);
    item.number(1..=room)
}

/// Reads a network, or a single address.
fn peer(item: &Item) -> Result<IpNet, Mismatch> {
    const EXPECTED: &str = r#"a network or an address such as "10.0.0.0/8" or "198.51.100.7""#;
    let text = item.string(EXPECTED)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => values::network(item),
    }
}

#[cfg(test)]
#[path = "other_tests.rs"]
mod tests;
