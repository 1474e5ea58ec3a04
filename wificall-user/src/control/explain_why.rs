//! Why a packet does not match, in words.

use std::net::IpAddr;

use ipnet::IpNet;
use wificall_common::{
    Direction,
    exit::Exit,
    wire::{ipv6, vlan},
};

use super::{country::written, desired::Known, report::owners, world::World};
use crate::{
    config::First,
    discover::Reason,
    explanation::{Parsed, protocol_name},
};

/// A packet that passes untouched.
pub(super) struct Refusal<'r> {
    pub exit: Exit,
    pub parsed: &'r Parsed,
    pub direction: Direction,
    /// The end that is looked up.
    pub far: Option<IpAddr>,
    pub world: &'r World,
    pub known: &'r Known,
}

impl Refusal<'_> {
    /// Why, and what to do about it.
    pub(super) fn told(&self) -> (String, Vec<String>) {
        let parsed = self.parsed;
        let mut hints = Vec::new();
        let why = match self.exit {
            Exit::NotIp => match parsed.ethertype {
                Some(ethertype) if parsed.pppoe_session.is_none() => {
                    format!("EtherType {ethertype:#06x} is neither IPv4 nor IPv6")
                }
                _ => "it is neither IPv4 nor IPv6".into(),
            },
            Exit::OtherProtocol => match parsed.protocol {
                Some(protocol) => format!("{}: neither UDP nor ESP", protocol_name(protocol)),
                None => "neither UDP nor ESP".into(),
            },
            Exit::OtherPort | Exit::Dns => self.other_port(),
            Exit::NotEndpoint | Exit::NewIke => self.no_endpoint(&mut hints),
            Exit::NotIpsec => {
                let payload = parsed.payload.as_deref().unwrap_or("the payload");
                format!("{payload}: neither IKEv2, nor ESP, nor a NAT keepalive")
            }
            Exit::UnknownFragment => {
                hints.push(
                    "give the first fragment with --first-fragment to see what follows from it"
                        .into(),
                );
                "a later fragment goes as its first one, which is not known here, or did not match"
                    .into()
            }
            Exit::Truncated => format!(
                "the frame of {} bytes ends before its headers say it does",
                parsed.frame_bytes
            ),
            Exit::Malformed => "a header contradicts itself or its standard".into(),
            Exit::VlanDepth => format!("it has more than {} VLAN tags", vlan::MAX_TAGS),
            Exit::ExtensionDepth => format!(
                "it has more than {} IPv6 extension headers",
                ipv6::MAX_EXTENSIONS
            ),
            // The classifier has no other.
            exit @ (Exit::Matched
            | Exit::ByXdp
            | Exit::RewriteFailed
            | Exit::NoPolicy
            | Exit::NoMetadata
            | Exit::Dropped
            | Exit::OtherMarked
            | Exit::OtherAudited
            | Exit::OtherDropped
            | Exit::Held
            | Exit::CaughtFirst
            | Exit::Companion) => exit.name().into(),
        };
        (why, hints)
    }

    fn other_port(&self) -> String {
        let port = match self.direction {
            Direction::Up => self.parsed.destination_port,
            Direction::Down => self.parsed.source_port,
        };
        let port = port.map_or("a port".to_owned(), |port| port.to_string());
        let preposition = match self.direction {
            Direction::Up => "to",
            Direction::Down => "from",
        };
        let looked_at = match self.exit {
            Exit::Dns => "; it is looked at for the name that is asked for",
            _ => "",
        };
        format!("UDP {preposition} {port}: not 500 or 4500{looked_at}")
    }

    fn no_endpoint(&self, hints: &mut Vec<String>) -> String {
        let Some(address) = self.far else {
            return "the far end is no endpoint".into();
        };
        let address = self.world.plain(address);
        let seen = match self.exit {
            Exit::NewIke => "; it is an IKE_SA_INIT, and looked at",
            _ => "",
        };
        let excluded = self.world.excluded();
        if let Some(own) = excluded.iter().find(|own| own.contains(&address)) {
            return format!(
                "{address} is no endpoint: it is this box, or in its network {}{seen}",
                written(*own)
            );
        }
        if let Err(reason) = self.world.filter().check(address) {
            return format!(
                "{address} is no endpoint: {} addresses are none{seen}",
                described(reason)
            );
        }
        let catch_all = &self.world.config.catch_all;
        let seen = match (self.exit, catch_all.first) {
            (Exit::NewIke, First::Hold) if catch_all.enabled => {
                "; it is an IKE_SA_INIT: the first to an address is held back ([catch_all])"
            }
            (Exit::NewIke, First::Mark) if catch_all.enabled => {
                "; it is an IKE_SA_INIT: its tunnel takes the exit of [catch_all]"
            }
            _ => seen,
        };
        match nearest(address, self.known) {
            Some(net) => {
                let claim = self.known.get(&net);
                let (operators, countries) =
                    claim.map_or_else(Default::default, |claim| owners(&claim.owners));
                let whose = match (&operators[..], &countries[..]) {
                    ([], []) => String::new(),
                    ([], countries) => format!(" ({})", countries.join(", ")),
                    (operators, _) => format!(" ({})", operators.join(", ")),
                };
                let asked = operators
                    .first()
                    .map_or_else(String::new, |o| format!(" {o}"));
                hints.push(format!(
                    "`wificall resolve{asked}` shows what DNS says; a [[prefix]] makes an endpoint of it"
                ));
                format!(
                    "{address} is no endpoint: nearest known is {}{whose}{seen}",
                    written(net)
                )
            }
            None => {
                let there = self.world.geo.country(address);
                let asked = there.map_or_else(String::new, |country| format!(" {country}"));
                hints.push(format!(
                    "`wificall resolve{asked}` shows what DNS says; a [[prefix]] makes an endpoint of it"
                ));
                let place = there.map_or_else(String::new, |country| {
                    format!("; by address it is in {country}")
                });
                format!("{address} is no endpoint, and nothing near it is known{place}{seen}")
            }
        }
    }
}

fn described(reason: Reason) -> String {
    reason.as_str().replace('_', " ")
}

/// What is known next to an address, no further away than the size of a provider's usual network.
fn nearest(address: IpAddr, known: &Known) -> Option<IpNet> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let furthest = match address {
        IpAddr::V4(_) => 1 << (32 - 16),
        IpAddr::V6(_) => 1 << (128 - 32),
    };
    let distance = |net: &IpNet| {
        let (address, first) = (number(address), number(net.network()));
        let last = number(net.broadcast());
        first
            .saturating_sub(address)
            .max(address.saturating_sub(last))
    };
    known
        .keys()
        .filter(|net| net.addr().is_ipv4() == address.is_ipv4())
        .map(|net| (distance(net), *net))
        .filter(|(distance, _)| *distance <= furthest)
        .min()
        .map(|(_, net)| net)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::control::desired::Claim;

    #[test]
    fn what_is_near() {
        let known: Known = [
            "192.0.2.0/28",
            "192.0.2.64/26",
            "192.0.4.1/32",
            "2001:db8:1::/64",
        ]
        .map(|net| (net.parse().unwrap(), Claim::from(BTreeSet::new())))
        .into();
        for (address, expected) in [
            ("192.0.2.20", Some("192.0.2.0/28")),
            ("192.0.2.130", Some("192.0.2.64/26")),
            ("192.0.5.1", Some("192.0.4.1/32")),
            ("193.1.2.1", None),
            ("2001:db8:1:1::1", Some("2001:db8:1::/64")),
            ("2001:dbb::1", None),
        ] {
            let found = nearest(address.parse().unwrap(), &known);
            assert_eq!(
                found.map(|net| net.to_string()).as_deref(),
                expected,
                "{address}"
            );
        }
    }
}
