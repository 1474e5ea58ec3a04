//! Other IPsec: what the programs are told of it, and whether `drop` drops.
//!
//! A firewall that knows no ePDG would cut every phone off: `drop` acts while the table has enough endpoints, and counts
//! otherwise.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing::{info, warn};
use wificall_common::{
    abi::{Features, TIER_TRUSTED},
    exit::Exit,
    rewrite::Mark,
    wire::nat64::Pref64,
};

use super::{agent::Agent, country::written, desired::Desired, plan::LeftOut, world::World};
use crate::{
    config::{OtherAction, Trust},
    explanation::Step,
    kernel::{Key, ktime},
    observe::{Destination, OtherIpsec},
};

/// Once armed, `drop` drops until the number of endpoints falls below so many tenths of `arm_at`.
const STAYS: u64 = 8;
/// Destinations in a report.
const TOP: usize = 20;

/// Destinations that are local wherever we are.
const LOCAL: [IpNet; 7] = [
    // Link-local (RFC 3927), multicast, limited broadcast, loopback.
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v4([127, 0, 0, 0], 8),
    // Likewise.
    v6(0xfe80, 0, 10),
    v6(0xff00, 0, 8),
    v6(0, 1, 128),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(first: u16, last: u16, len: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last);
    IpNet::V6(Ipv6Net::new_assert(address, len))
}

/// Whether `drop` drops, and what that follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arming {
    pub armed: bool,
    /// Entries of the table that are endpoints of the authoritative tier.
    pub endpoints: u64,
    /// Endpoints, and networks to be spared, that found no room.
    pub left_out: u64,
}

impl Arming {
    /// Arms as soon as there are enough endpoints, and disarms well below that: a few that come and go change nothing.
    /// What found no room may be anybody's, so then nothing is dropped.
    #[must_use]
    pub fn next(self, action: OtherAction, endpoints: u64, left_out: u64) -> Self {
        let armed = match action {
            OtherAction::Pass | OtherAction::Mark(_) | OtherAction::Audit => false,
            OtherAction::Drop { arm_at } => {
                let arm_at = u64::from(arm_at.get());
                let enough = match self.armed {
                    true => endpoints * 10 >= arm_at * STAYS,
                    false => endpoints >= arm_at,
                };
                enough && left_out == 0
            }
        };
        Self {
            armed,
            endpoints,
            left_out,
        }
    }
}

/// The load-time features.
#[must_use]
pub(super) fn features(action: OtherAction, trust: Trust, armed: bool) -> u32 {
    let other = match action {
        OtherAction::Pass => 0,
        OtherAction::Mark(_) => Features::OTHER_MARK,
        OtherAction::Drop { .. } if armed => Features::OTHER_DROP,
        OtherAction::Audit | OtherAction::Drop { .. } => Features::OTHER_AUDIT,
    };
    let bleach = if trust.bleach { Features::BLEACH } else { 0 };
    other | bleach
}

/// Value and mask of the mark.
#[must_use]
pub(super) fn mark(action: OtherAction) -> [u32; 2] {
    match action {
        OtherAction::Mark(mark) => [mark.value, mark.mask],
        OtherAction::Pass | OtherAction::Audit | OtherAction::Drop { .. } => [0; 2],
    }
}

/// The networks that other IPsec may go to: the box's own, those that it is in, local ones and the configured peers, IPv4
/// peers also as a NAT64 shows them. `local` are the box's addresses, each with the length of its network's prefix.
#[must_use]
pub(super) fn spared(local: &[IpNet], peers: &[IpNet], pref64: &[Pref64]) -> BTreeSet<IpNet> {
    let own = local.iter().map(|net| IpNet::from(net.addr()));
    let behind = peers.iter().flat_map(|peer| {
        let peer = match peer {
            IpNet::V4(peer) => Some(*peer),
            IpNet::V6(_) => None,
        };
        pref64
            .iter()
            .filter_map(move |pref64| Some(IpNet::V6(embed(pref64, peer?)?)))
    });
    own.chain(local.iter().map(IpNet::trunc))
        .chain(LOCAL)
        .chain(peers.iter().copied())
        .chain(behind)
        .collect()
}

/// An IPv4 network behind a NAT64 prefix (RFC 6052 §2.2): bits 64 to 71 are left out.
fn embed(pref64: &Pref64, net: Ipv4Net) -> Option<Ipv6Net> {
    let mut octets = pref64.prefix;
    let mut at = usize::from(pref64.len / 8);
    let mut len = pref64.len;
    for (index, octet) in (0..).zip(net.network().octets()) {
        if at == 8 {
            at += 1;
            len += if index * 8 < net.prefix_len() { 8 } else { 0 };
        }
        *octets.get_mut(at)? = octet;
        at += 1;
    }
    Ipv6Net::new(octets.into(), len + net.prefix_len()).ok()
}

/// As the map has it: IPv4 as `::ffff:a.b.c.d`, 96 bits longer.
fn key(net: &IpNet) -> (u32, [u8; 16]) {
    match net {
        IpNet::V4(net) => {
            let address = net.network().to_ipv6_mapped().octets();
            (u32::from(net.prefix_len()) + 96, address)
        }
        IpNet::V6(net) => (net.prefix_len().into(), net.network().octets()),
    }
}

/// Endpoints of the authoritative tier, counted as the table has them: networks and addresses.
fn authoritative(desired: &Desired) -> u64 {
    let endpoints = desired.iter();
    let endpoints = endpoints.filter(|(key, _)| !matches!(key, Key::Companion(_)));
    let meanings = endpoints.filter_map(|(_, entry)| entry.meaning.as_ref());
    let trusted = meanings.filter(|meaning| meaning.row.tier == TIER_TRUSTED);
    trusted.count() as u64
}

/// Endpoints that are not in the table for want of room.
const fn missing(left_out: &LeftOut) -> u64 {
    let LeftOut {
        ipv4_blocks,
        ipv6_blocks,
        hosts,
        prefixes,
        // They are endpoints, counted under another name.
        groups: _,
        policies,
        // Likewise, treated alike for all clients.
        choices: _,
        // No endpoints.
        companions: _,
    } = left_out;
    *ipv4_blocks + *ipv6_blocks + *hosts + *prefixes + *policies
}

/// Why what is configured to be dropped is not; `None` if it is, or nothing is to be.
fn unarmed(action: OtherAction, arming: Arming) -> Option<String> {
    let OtherAction::Drop { arm_at } = action else {
        return None;
    };
    let Arming {
        armed,
        endpoints,
        left_out,
    } = arming;
    if armed {
        return None;
    }
    Some(if left_out > 0 {
        format!(
            "{left_out} endpoints or spared networks found no room: raise [limits], or list fewer peers"
        )
    } else {
        format!("{endpoints} authoritative endpoints are known, and arm_at is {arm_at}")
    })
}

impl World {
    /// Whether an agent that starts with this table would drop other IPsec.
    pub(super) fn arming_of(&self, desired: &Desired) -> Arming {
        let action = self.config.other_ipsec.action;
        Arming::default().next(action, authoritative(desired), 0)
    }

    /// The mark of other IPsec.
    pub(super) fn other_mark(&self) -> Mark {
        let [value, mask] = mark(self.config.other_ipsec.action);
        Mark { value, mask }
    }

    /// What becomes of IPsec to an address (IPv4 mapped) that is no endpoint, or one that may not pass a firewall, where
    /// something is configured: the way out, if that is one of other IPsec's, and why.
    pub(super) fn other_step(&self, to: u128, arming: Arming) -> (Option<Exit>, Step) {
        const PART: &str = "other_ipsec";
        if let Some(why) = self.sparing(to) {
            return (None, Step::new(PART, "spared", why));
        }
        let action = self.config.other_ipsec.action;
        let (exit, result, why) = match action {
            OtherAction::Pass => return (None, Step::new(PART, "passes", "nothing is done")),
            OtherAction::Mark(_) => (
                Exit::OtherMarked,
                "marked",
                "other IPsec gets its mark".to_owned(),
            ),
            OtherAction::Audit => (
                Exit::OtherAudited,
                "audited",
                "other IPsec passes and is counted: `drop` would drop it".to_owned(),
            ),
            OtherAction::Drop { .. } => match unarmed(action, arming) {
                None => (
                    Exit::OtherDropped,
                    "dropped",
                    "other IPsec is dropped".to_owned(),
                ),
                Some(why) => (
                    Exit::OtherAudited,
                    "not_armed",
                    format!("other IPsec would be dropped, but is only counted: {why}"),
                ),
            },
        };
        (Some(exit), Step::new(PART, result, why))
    }

    /// Why IPsec to an address (IPv4 mapped) is nobody's business, if it is.
    pub(super) fn sparing(&self, to: u128) -> Option<String> {
        let is_in = |(len, network): &(u32, [u8; 16])| {
            (to ^ u128::from_be_bytes(*network)).leading_zeros() >= *len
        };
        let spared = self.spared().iter().any(is_in);
        let address = Ipv6Addr::from(to).to_canonical();
        let shown = self.plain(address);
        spared.then(|| {
            let has = |net: &&IpNet| net.contains(&address) || net.contains(&shown);
            if let Some(peer) = self.config.other_ipsec.peers.iter().find(has) {
                format!("{shown} is in other_ipsec.peers ({})", written(*peer))
            } else if self.local.iter().any(|own| own.addr() == address) {
                format!("{address} is this box")
            } else if let Some(own) = self.local.iter().find(has) {
                format!("{address} is in this box's network {}", own.trunc())
            } else {
                format!("{address} is local everywhere")
            }
        })
    }

    fn spared(&self) -> BTreeSet<(u32, [u8; 16])> {
        let other = &self.config.other_ipsec;
        if other.action == OtherAction::Pass && !self.config.catch_all.enabled {
            return BTreeSet::new();
        }
        let pref64: Vec<Pref64> = self.pref64().collect();
        let networks = spared(&self.local, &other.peers, &pref64);
        networks.iter().map(key).collect()
    }
}

impl Agent {
    /// Tells the programs whom to spare, and decides whether what is left may be dropped.
    pub(super) fn arming(&mut self, desired: &Desired, left_out: &LeftOut) -> Result<Arming> {
        let unspared = self.plane.set_spared(&self.world.spared())?;
        Ok(self.arming.next(
            self.world.config.other_ipsec.action,
            authoritative(desired),
            missing(left_out) + unspared as u64,
        ))
    }

    /// Notes what is in force now, and says if that is something else than before.
    pub(super) fn note_arming(&mut self, now: Arming) {
        let Arming {
            armed,
            endpoints,
            left_out,
        } = now;
        if let OtherAction::Drop { arm_at } = self.world.config.other_ipsec.action {
            let first = self.arming == Arming::default();
            if armed && !self.arming.armed {
                info!(endpoints, arm_at, "armed: other IPsec is dropped");
            } else if !armed && (self.arming.armed || first) {
                warn!(
                    endpoints,
                    arm_at, left_out, "not armed: other IPsec passes and is counted"
                );
            }
        }
        self.arming = now;
    }

    /// Why what is configured to be dropped is not.
    pub(super) fn arming_problem(&self) -> Option<String> {
        let why = unarmed(self.world.config.other_ipsec.action, self.arming)?;
        Some(format!("other IPsec is not dropped: {why}"))
    }

    pub(super) fn other_report(&self) -> Result<OtherIpsec> {
        let action = self.world.config.other_ipsec.action;
        let all = match action {
            OtherAction::Pass => Vec::new(),
            _ => self.plane.others()?,
        };
        let (now, ktime) = (SystemTime::now(), ktime());
        let seconds = |at: u64| {
            let ago = Duration::from_nanos(ktime.saturating_sub(at));
            let at = now.checked_sub(ago).unwrap_or(UNIX_EPOCH);
            at.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        };
        let destinations = all.iter().map(|(address, counted)| {
            let address = IpAddr::from(*address).to_canonical();
            (address, counted.packets, counted.bytes, counted.last)
        });
        let more = all.len().saturating_sub(TOP) as u64;
        Ok(OtherIpsec {
            action: action.name().into(),
            armed: self.arming.armed,
            endpoints: self.arming.endpoints,
            arm_at: match action {
                OtherAction::Drop { arm_at } => Some(arm_at.get()),
                _ => None,
            },
            destinations: top(destinations)
                .into_iter()
                .map(|(address, packets, bytes, last)| Destination {
                    address: address.to_string(),
                    packets,
                    bytes,
                    last: seconds(last),
                })
                .collect(),
            more,
        })
    }
}

/// Those with most packets, most first.
fn top<T>(all: impl Iterator<Item = (IpAddr, u64, u64, T)>) -> Vec<(IpAddr, u64, u64, T)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(address, packets, ..)| (Reverse(*packets), *address));
    all.truncate(TOP);
    all
}

#[cfg(test)]
#[path = "other_tests.rs"]
mod tests;
