//! Which addresses of an answer are refused, and why.
//!
//! Carriers do publish loopback and private addresses, and an answer that named the box itself or
//! its network would hand voice priority to anybody. So an endpoint must be global unicast, by
//! the IANA special-purpose registries (RFC 6890; iana-ipv4-special-registry,
//! iana-ipv6-special-registry), and in no network of the box.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An address of this box. No switch admits it.
    Own,
    /// In a network that this box is connected to.
    Local,
    /// `0.0.0.0/8`, `::` (RFC 1122 §3.2.1.3, RFC 4291 §2.5.2).
    Unspecified,
    /// `127.0.0.0/8`, `::1` (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
    Loopback,
    /// RFC 1918.
    Private,
    /// `100.64.0.0/10`, carrier-grade NAT (RFC 6598).
    Shared,
    /// `169.254.0.0/16`, `fe80::/10` (RFC 3927, RFC 4291 §2.5.6).
    LinkLocal,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// `198.18.0.0/15`, `2001:2::/48` (RFC 2544, RFC 5180).
    Benchmarking,
    /// RFC 5771, RFC 4291 §2.7.
    Multicast,
    /// `255.255.255.255` (RFC 919).
    Broadcast,
    /// `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// An IPv4 address in IPv6 clothes that no packet carries: `::ffff:0:0/96`, `::/96`
    /// (RFC 4291 §2.5.5).
    V4Mapped,
    /// Made by a tunnel from somebody's IPv4 address: Teredo, 6to4 and its relays (RFC 4380,
    /// RFC 3056, RFC 7526). No carrier runs an ePDG behind one, and the address says little about
    /// who answers.
    Tunnel,
    /// Given to a protocol rather than to a host (RFC 2928, RFC 6890 §2.1, RFC 6666, RFC 8215,
    /// RFC 9602, AS112 of RFC 7534 and RFC 7535, AMT of RFC 7450).
    Protocol,
    /// Not assigned to anybody: `240.0.0.0/4`, IPv6 outside `2000::/3` (RFC 1112 §4, RFC 4291
    /// §2.4).
    Reserved,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 16] = [
        Self::Own,
        Self::Local,
        Self::Unspecified,
        Self::Loopback,
        Self::Private,
        Self::Shared,
        Self::LinkLocal,
        Self::Documentation,
        Self::Benchmarking,
        Self::Multicast,
        Self::Broadcast,
        Self::UniqueLocal,
        Self::V4Mapped,
        Self::Tunnel,
        Self::Protocol,
        Self::Reserved,
    ];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Local => "local",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link_local",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::UniqueLocal => "unique_local",
            Self::V4Mapped => "v4_mapped",
            Self::Tunnel => "tunnel",
            Self::Protocol => "protocol",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The filter of one moment: the box's addresses change, and the filter is made anew with them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    own: BTreeSet<IpAddr>,
    local: Vec<IpNet>,
    admit: Vec<IpNet>,
}

impl Filter {
    /// Makes a filter. `addresses` are those of the box's interfaces, each with the length of its
    /// network's prefix; `admit` are networks let through although they are not global or are
    /// local, for labs.
    #[must_use]
    pub fn new(
        addresses: impl IntoIterator<Item = IpNet>,
        admit: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let local: Vec<IpNet> = addresses.into_iter().collect();
        Self {
            own: local.iter().map(IpNet::addr).collect(),
            local: local.iter().map(IpNet::trunc).collect(),
            admit: admit.into_iter().collect(),
        }
    }

    /// Whether `address` may be an endpoint.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Reason> {
        if self.own.contains(&address) {
            return Err(Reason::Own);
        }
        if self.admit.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        if let Some(reason) = special(address) {
            return Err(reason);
        }
        if self.local.iter().any(|net| net.contains(&address)) {
            return Err(Reason::Local);
        }
        Ok(())
    }
}

/// Why `address` is not global unicast; `None` if it is.
#[must_use]
pub fn special(address: IpAddr) -> Option<Reason> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Reason> {
    let bits = address.to_bits();
    V4.iter()
        .find(|(net, length, _)| (bits ^ net.to_bits()) >> (32 - length) == 0)
        .map(|(_, _, reason)| *reason)
}

fn special_v6(address: Ipv6Addr) -> Option<Reason> {
    let bits = address.to_bits();
    if let Some((_, _, reason)) = V6
        .iter()
        .find(|(net, length, _)| (bits ^ net.to_bits()) >> (128 - length) == 0)
    {
        return Some(*reason);
    }
    // An IPv4 address as DNS64 gives it (RFC 6052 §2.1): as good as that address (§3.1).
    if bits >> 32 == NAT64.to_bits() >> 32 {
        let [.., a, b, c, d] = address.octets();
        return special_v4(Ipv4Addr::new(a, b, c, d));
    }
    // IANA assigns global unicast from 2000::/3 only (RFC 4291 §2.4).
    (bits >> 125 != 0b001).then_some(Reason::Reserved)
}

const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// The first match counts.
const V4: &[(Ipv4Addr, u32, Reason)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Reason::Unspecified),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Reason::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Reason::Shared),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Reason::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Reason::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Reason::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Reason::Protocol),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Reason::Documentation),
    (Ipv4Addr::new(192, 31, 196, 0), 24, Reason::Protocol),
    (Ipv4Addr::new(192, 52, 193, 0), 24, Reason::Protocol),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Reason::Tunnel),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Reason::Private),
    (Ipv4Addr::new(192, 175, 48, 0), 24, Reason::Protocol),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Reason::Benchmarking),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Reason::Documentation),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Reason::Documentation),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reason::Multicast),
    (Ipv4Addr::BROADCAST, 32, Reason::Broadcast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Reason::Reserved),
];

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// The first match counts.
const V6: &[(Ipv6Addr, u32, Reason)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Reason::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, Reason::Loopback),
    (Ipv6Addr::UNSPECIFIED, 96, Reason::V4Mapped),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
        Reason::V4Mapped,
    ),
    (v6(0x64, 0xff9b, 1), 48, Reason::Protocol),
    (v6(0x100, 0, 0), 63, Reason::Protocol),
    (v6(0x2001, 0, 0), 32, Reason::Tunnel),
    (v6(0x2001, 2, 0), 48, Reason::Benchmarking),
    (v6(0x2001, 0, 0), 23, Reason::Protocol),
    (v6(0x2001, 0xdb8, 0), 32, Reason::Documentation),
    (v6(0x2002, 0, 0), 16, Reason::Tunnel),
    (v6(0x2620, 0x4f, 0x8000), 48, Reason::Protocol),
    (v6(0x3fff, 0, 0), 20, Reason::Documentation),
    (v6(0x5f00, 0, 0), 16, Reason::Protocol),
    (v6(0xfc00, 0, 0), 7, Reason::UniqueLocal),
    (v6(0xfe80, 0, 0), 10, Reason::LinkLocal),
    (v6(0xff00, 0, 0), 8, Reason::Multicast),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// First and last address of each block, and the global neighbours.
    #[test]
    fn special_addresses_have_a_reason() {
        let table = [
            ("0.0.0.0 0.255.255.255 ::", "unspecified"),
            ("127.0.0.1 127.0.0.9 127.255.255.255 ::1", "loopback"),
            (
                "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255",
                "private",
            ),
            ("192.168.0.0 192.168.255.255", "private"),
            ("100.64.0.0 100.127.255.255", "shared"),
            (
                "169.254.0.0 169.254.255.255 fe80:: febf:ffff::1",
                "link_local",
            ),
            ("192.0.2.1 198.51.100.1 203.0.113.255", "documentation"),
            ("2001:db8::1 3fff::1 3fff:fff:ffff::1", "documentation"),
            ("198.18.0.0 198.19.255.255 2001:2::1", "benchmarking"),
            ("224.0.0.1 239.255.255.255 ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            (
                "240.0.0.0 255.255.255.254 400::1 6000::1 fec0::1",
                "reserved",
            ),
            ("fc00::1 fdff:ffff::1", "unique_local"),
            ("::ffff:1.2.3.4 ::1.2.3.4", "v4_mapped"),
            (
                "2001::1 2001:0:ffff::1 2002::1 2002:102:304::1 192.88.99.1",
                "tunnel",
            ),
            (
                "192.0.0.1 192.31.196.1 192.52.193.1 192.175.48.1",
                "protocol",
            ),
            (
                "64:ff9b:1::1 100::1 100:0:0:1::1 2001:1::1 2001:20::1",
                "protocol",
            ),
            ("2001:1ff::1 2620:4f:8000::1 5f00::1", "protocol"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b::10.0.0.1", "private"),
        ];
        for (addresses, reason) in table {
            for address in addresses.split(' ') {
                let found = special(ip(address)).map(Reason::as_str);
                assert_eq!(found, Some(reason), "{address}");
            }
        }
        let global = "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
             128.0.0.0 169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 \
             198.17.255.255 198.20.0.0 223.255.255.255 109.237.187.195 \
             2000::1 2001:200::1 2001:4860::1 2003::1 3ffe::1 2a02::1 64:ff9b::8.8.8.8";
        for address in global.split_whitespace() {
            assert_eq!(special(ip(address)), None, "{address}");
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn local_networks_are_refused() {
        let filter = Filter::new(
            nets(&["109.237.187.1/24", "2a02:1::1/64", "8.8.4.4/32"]),
            [],
        );
        for (address, expected) in [
            ("109.237.187.1", Err(Reason::Own)),
            ("109.237.187.2", Err(Reason::Local)),
            ("109.237.188.2", Ok(())),
            ("2a02:1::1", Err(Reason::Own)),
            ("2a02:1::ffff", Err(Reason::Local)),
            ("2a02:1:0:1::1", Ok(())),
            ("8.8.4.4", Err(Reason::Own)),
            ("8.8.4.5", Ok(())),
            ("10.0.0.1", Err(Reason::Private)),
        ] {
            assert_eq!(filter.check(ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn labs_admit_their_networks_and_no_other() {
        let filter = Filter::new(
            nets(&["198.18.0.1/24", "10.1.0.1/16"]),
            nets(&["198.18.0.0/15", "fd00:1::/32"]),
        );
        for (address, expected) in [
            ("198.18.0.1", Err(Reason::Own)),
            ("198.18.0.2", Ok(())),
            ("198.19.3.4", Ok(())),
            ("198.51.100.1", Err(Reason::Documentation)),
            ("10.1.0.2", Err(Reason::Private)),
            ("fd00:1::9", Ok(())),
            ("fd00:2::9", Err(Reason::UniqueLocal)),
            ("8.8.8.8", Ok(())),
        ] {
            assert_eq!(filter.check(ip(address)), expected, "{address}");
        }
    }
}
