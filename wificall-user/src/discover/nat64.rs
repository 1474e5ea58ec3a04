//! The prefixes under which a NAT64 shows IPv4 hosts: configured, or found by RFC 7050.
//!
//! A DNS64 answers for `ipv4only.arpa`, which has IPv4 addresses only, with IPv6 addresses made of
//! its prefix and these. What it says is kept like anything else that DNS says: it outlives the
//! answer, for phones go on using what they were told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv6Net};
use wificall_common::abi::PREF64S;
use wificall_common::wire::nat64::Pref64;

use super::{Outcome, Target, Update};

/// The name that has IPv4 addresses only, always the same two (RFC 7050 §2.2, §8.2).
pub const NAME: &str = "ipv4only.arpa";
const WELL_KNOWN: [[u8; 4]; 2] = [[192, 0, 0, 170], [192, 0, 0, 171]];

/// Lengths that a prefix may have (RFC 6052 §2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// `nat64_prefix`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Nat64 {
    /// Whatever DNS says.
    Auto,
    /// This.
    Prefix(Ipv6Net),
    /// There is no NAT64.
    Off,
}

/// The question to ask.
#[must_use]
pub fn target() -> Target {
    Target {
        name: NAME.into(),
        owners: Default::default(),
    }
}

/// The prefixes that DNS has named, each with the time of its last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub(super) prefixes: BTreeMap<Ipv6Net, SystemTime>,
}

impl Found {
    /// Takes in what came of a question. Returns whether the prefixes changed.
    pub fn apply(&mut self, update: &Update) -> bool {
        let Outcome::Addresses { addresses, .. } = &update.outcome else {
            return false;
        };
        let mut changed = false;
        for prefix in prefixes(addresses) {
            let last = self.prefixes.entry(prefix);
            changed |= matches!(last, std::collections::btree_map::Entry::Vacant(_));
            last.and_modify(|at| *at = (*at).max(update.at))
                .or_insert(update.at);
        }
        // The kernel holds a few. Those that are answered now go before those of yesterday.
        while self.prefixes.len() > PREF64S {
            let oldest = self.prefixes.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(prefix, _)| *prefix) else {
                break;
            };
            self.prefixes.remove(&oldest);
        }
        changed
    }

    /// Forgets what no answer named for `keep`. Returns whether anything went. What DNS has not
    /// replaced stays, as addresses do.
    pub fn expire(&mut self, now: SystemTime, keep: Duration) -> bool {
        let before = self.prefixes.len();
        let newest = self.prefixes.values().max().copied();
        self.prefixes.retain(|_, at| {
            let over = |now: SystemTime| at.checked_add(keep).is_some_and(|end| now >= end);
            !(over(now) && newest.is_some_and(|newest| newest > *at))
        });
        before != self.prefixes.len()
    }

    /// The prefixes, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = Ipv6Net> {
        self.prefixes.keys().copied()
    }
}

/// As the classifier takes it. `None` for a length that RFC 6052 does not have.
#[must_use]
pub fn pref64(net: Ipv6Net) -> Option<Pref64> {
    LENGTHS.contains(&net.prefix_len()).then(|| Pref64 {
        prefix: net.network().octets(),
        len: net.prefix_len(),
    })
}

/// The IPv4 addresses that an IPv6 address would stand for behind a NAT64, by the length of its prefix.
pub fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = address.octets();
    LENGTHS.into_iter().filter_map(move |len| {
        let prefix = octets;
        Pref64 { prefix, len }.extract(&octets).map(Ipv4Addr::from)
    })
}

/// The prefixes of an answer for `ipv4only.arpa` (RFC 7050 §3): a prefix ends where one of the two
/// well-known addresses begins. If that may be at several places, the one counts at which the
/// answer has the other address too.
fn prefixes(addresses: &[IpAddr]) -> Vec<Ipv6Net> {
    let addresses: Vec<Ipv6Addr> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        })
        .collect();
    let candidates = |address: Ipv6Addr| {
        LENGTHS.into_iter().filter_map(move |len| {
            let net = Ipv6Net::new(address, len).ok()?.trunc();
            let inner = pref64(net)?.extract(&address.octets())?;
            let index = WELL_KNOWN.iter().position(|known| *known == inner)?;
            plausible(net).then_some((net, index))
        })
    };
    let mut found: Vec<Ipv6Net> = Vec::new();
    for address in &addresses {
        let mut possible: Vec<_> = candidates(*address).collect();
        if possible.len() > 1 {
            possible.retain(|(net, index)| {
                let other = (*net, 1 - *index);
                addresses
                    .iter()
                    .any(|a| candidates(*a).any(|found| found == other))
            });
        }
        if let [(net, _)] = possible[..]
            && !found.contains(&net)
        {
            found.push(net);
        }
    }
    found
}

/// Global unicast, unique local, or one of the two blocks set aside for it (RFC 6052 §2.1,
/// RFC 8215). Anything else would take packets for what they are not.
fn plausible(net: Ipv6Net) -> bool {
    let [first, second, ..] = net.network().segments();
    first >> 13 == 0b001 || first & 0xfe00 == 0xfc00 || (first, second) == (0x64, 0xff9b)
}

/// Where the addresses of an IPv4 network lie behind the prefixes. Beside those of the network,
/// a range may have addresses that no NAT64 makes.
pub(super) fn behind(net: IpNet, prefixes: &[Pref64]) -> Vec<RangeInclusive<IpAddr>> {
    let IpNet::V4(net) = net else {
        return Vec::new();
    };
    prefixes
        .iter()
        .map(|prefix| {
            let first = embed(prefix, net.network());
            let last = embed(prefix, net.broadcast());
            // What follows the embedded address is zero by RFC 6052, and need not be.
            let bits = match prefix.len {
                96 => 0,
                len => 128 - u32::from(len) - 32 - 8,
            };
            let last = last.to_bits() | ((1_u128 << bits) - 1);
            IpAddr::V6(first)..=IpAddr::V6(last.into())
        })
        .collect()
}

/// RFC 6052 §2.2: the address follows the prefix and leaves out bits 64 to 71.
fn embed(prefix: &Pref64, address: Ipv4Addr) -> Ipv6Addr {
    let mut bytes = prefix.prefix;
    let mut at = usize::from(prefix.len / 8);
    for byte in address.octets() {
        if at == 8 {
            at += 1;
        }
        bytes[at] = byte;
        at += 1;
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv6Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn found(texts: &[&str]) -> Vec<Ipv6Net> {
        let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        prefixes(&addresses)
    }

    fn update(addresses: &[&str], at: u64) -> Update {
        Update {
            name: NAME.into(),
            family: super::super::Family::V6,
            outcome: Outcome::Addresses {
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
                ttl: Duration::from_secs(60),
            },
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
        }
    }

    #[test]
    fn prefixes_of_every_length_are_found() {
        let well_known = ["64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"];
        assert_eq!(found(&well_known), nets(&["64:ff9b::/96"]));
        for net in [
            "2a00:1::/32",
            "2a00:1:ab00::/40",
            "2a00:1:abcd::/48",
            "2a00:1:abcd:ef00::/56",
            "2a00:1:abcd:ef12::/64",
            "2a00:1:abcd:ef12::/96",
            "fd00:1:abcd:ef12::/96",
            "64:ff9b:1:ffff::/64",
        ] {
            let net: Ipv6Net = net.parse().unwrap();
            let pref64 = pref64(net).unwrap();
            let both = WELL_KNOWN.map(|known| IpAddr::V6(embed(&pref64, known.into())));
            assert_eq!(prefixes(&both), [net]);
            assert_eq!(prefixes(&both[1..]), [net], "one of them is enough");
            let inner: Ipv4Addr = "203.0.114.9".parse().unwrap();
            let outer = embed(&pref64, inner);
            assert_eq!(pref64.extract(&outer.octets()), Some(inner.octets()));
        }
    }

    #[test]
    fn several_prefixes_and_what_is_none() {
        assert_eq!(
            found(&[
                "64:ff9b::192.0.0.170",
                "2a00:1::192.0.0.171",
                "2a00:1::192.0.0.170"
            ]),
            nets(&["64:ff9b::/96", "2a00:1::/96"])
        );
        assert_eq!(
            found(&["192.0.0.170", "2a00:1::1", "2a00:1::192.0.0.172"]),
            []
        );
        // An IPv4-mapped address is no NAT64's, whoever answers it.
        assert_eq!(
            found(&["::ffff:192.0.0.170", "::192.0.0.171", "ff02::192.0.0.170"]),
            []
        );
    }

    #[test]
    fn an_ambiguous_place_is_settled_by_the_other_address() {
        // 192.0.0.170 lies in it behind 32 bits and behind 96.
        let twice = "2a00:1:c000:aa::192.0.0.170";
        assert_eq!(found(&[twice]), []);
        assert_eq!(
            found(&[twice, "2a00:1:c000:aa::192.0.0.171"]),
            nets(&["2a00:1:c000:aa::/96"])
        );
    }

    #[test]
    fn what_was_found_outlives_its_answer() {
        const KEEP: Duration = Duration::from_secs(100);
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut found = Found::default();
        assert!(found.apply(&update(&["64:ff9b::192.0.0.170"], 1)));
        assert!(!found.apply(&update(&["64:ff9b::192.0.0.171"], 2)));
        assert!(!found.apply(&update(&["2a00:1::1"], 3)));
        // Nothing says what there is instead.
        assert!(!found.expire(time(10_000), KEEP));
        assert!(found.apply(&update(&["2a00:1::192.0.0.170"], 10_000)));
        assert_eq!(found.prefixes().count(), 2);
        assert!(found.expire(time(10_001), KEEP));
        assert!(found.prefixes().eq(nets(&["2a00:1::/96"])));
        // No more than the kernel holds, and the newest.
        for n in 2..=20 {
            found.apply(&update(&[&format!("2a00:{n:x}::192.0.0.170")], 10_000 + n));
        }
        assert_eq!(found.prefixes().count(), PREF64S);
        assert!(
            found
                .prefixes()
                .any(|net| net == nets(&["2a00:14::/96"])[0])
        );
    }

    #[test]
    fn networks_behind_a_prefix() {
        let prefixes = nets(&["64:ff9b::/96", "2a00:1::/32", "2a00:1:abcd:ef00::/56"]);
        let prefixes: Vec<_> = prefixes.into_iter().filter_map(pref64).collect();
        let ranges = behind("203.0.114.0/24".parse().unwrap(), &prefixes);
        for (prefix, range) in prefixes.iter().zip(&ranges) {
            for (inner, inside) in [
                ("203.0.113.255", false),
                ("203.0.114.0", true),
                ("203.0.114.77", true),
                ("203.0.114.255", true),
                ("203.0.115.0", false),
            ] {
                let outer = IpAddr::V6(embed(prefix, inner.parse().unwrap()));
                assert_eq!(
                    range.contains(&outer),
                    inside,
                    "{inner} behind /{}",
                    prefix.len
                );
            }
        }
        assert!(behind("2a00::/32".parse().unwrap(), &prefixes).is_empty());
    }
}
