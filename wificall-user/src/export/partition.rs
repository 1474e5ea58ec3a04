//! From nested networks, of which the most specific says, to disjoint ones. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Disjoint networks that say the same, in order; none overlaps a network that is excluded.
#[must_use]
pub fn partition<T: Clone>(nets: &BTreeMap<IpNet, T>, excluded: &[IpNet]) -> Vec<(IpNet, T)> {
    let mut all: BTreeMap<IpNet, Option<&T>> = nets
        .iter()
        .filter(|(net, _)| !excluded.iter().any(|own| own.contains(*net)))
        .map(|(net, value)| (*net, Some(value)))
        .collect();
    all.extend(excluded.iter().map(|net| (net.trunc(), None)));
    let mut found = Vec::new();
    for v4 in [true, false] {
        // A network comes before those in it.
        let nets = all.iter().filter(|(net, _)| net.addr().is_ipv4() == v4);
        let mut sweep = Sweep {
            v4,
            open: Vec::new(),
            next: None,
            found: &mut found,
        };
        for (net, value) in nets {
            sweep.enter(number(net.network()), number(net.broadcast()), *value);
        }
        sweep.close(None);
    }
    found
}

struct Sweep<'a, T> {
    v4: bool,
    /// The last address and the value of each network around the place, the widest first.
    open: Vec<(u128, Option<&'a T>)>,
    /// The first address that was not yet said anything of.
    next: Option<u128>,
    found: &'a mut Vec<(IpNet, T)>,
}

impl<'a, T: Clone> Sweep<'a, T> {
    fn enter(&mut self, first: u128, last: u128, value: Option<&'a T>) {
        self.close(Some(first));
        if let Some((_, around)) = self.open.last()
            && let Some(before) = first.checked_sub(1)
        {
            self.say(before, *around);
        }
        self.next = Some(first);
        self.open.push((last, value));
    }

    /// Ends the networks that end before an address, or all.
    fn close(&mut self, before: Option<u128>) {
        while let Some((last, value)) = self.open.last().copied()
            && before.is_none_or(|before| last < before)
        {
            self.say(last, value);
            self.open.pop();
        }
    }

    /// Says this of all addresses up to the last.
    fn say(&mut self, last: u128, value: Option<&T>) {
        let Some(first) = self.next.filter(|first| *first <= last) else {
            return;
        };
        self.next = last.checked_add(1);
        let Some(value) = value else { return };
        let v4 = |number| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
        if self.v4 {
            let nets = Ipv4Subnets::new(v4(first), v4(last), 0);
            (self.found).extend(nets.map(|net| (net.into(), value.clone())));
        } else {
            let nets = Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0);
            (self.found).extend(nets.map(|net| (net.into(), value.clone())));
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(nets: &[(&str, char)], excluded: &[&str]) -> String {
        let nets = (nets.iter())
            .map(|(net, value)| (net.parse().unwrap(), *value))
            .collect();
        let excluded: Vec<IpNet> = excluded.iter().map(|net| net.parse().unwrap()).collect();
        let found = partition(&nets, &excluded);
        let found: Vec<_> = (found.iter())
            .map(|(net, value)| format!("{net}{value}"))
            .collect();
        found.join(" ")
    }

    #[test]
    fn the_most_specific_says() {
        for (nets, excluded, expected) in [
            (&[][..], &[][..], ""),
            (&[("198.51.100.0/24", 'a')], &[], "198.51.100.0/24a"),
            (
                &[("198.51.100.0/24", 'a'), ("198.51.100.0/32", 'b')],
                &[],
                "198.51.100.0/32b 198.51.100.1/32a 198.51.100.2/31a 198.51.100.4/30a 198.51.100.8/29a \
                 198.51.100.16/28a 198.51.100.32/27a 198.51.100.64/26a 198.51.100.128/25a",
            ),
            (
                &[
                    ("198.51.100.0/30", 'a'),
                    ("198.51.100.2/31", 'b'),
                    ("198.51.100.3/32", 'c'),
                ],
                &[],
                "198.51.100.0/31a 198.51.100.2/32b 198.51.100.3/32c",
            ),
            (
                &[
                    ("198.51.100.0/31", 'a'),
                    ("198.51.100.2/31", 'a'),
                    ("2001:db8::/64", 'b'),
                ],
                &[],
                "198.51.100.0/31a 198.51.100.2/31a 2001:db8::/64b",
            ),
            (
                &[
                    ("198.51.100.0/30", 'a'),
                    ("198.51.100.1/32", 'b'),
                    ("203.0.113.0/24", 'c'),
                ],
                &["198.51.100.1/32", "203.0.0.0/8"],
                "198.51.100.0/32a 198.51.100.2/31a",
            ),
            (
                &[
                    ("0.0.0.0/0", 'a'),
                    ("255.255.255.255/32", 'b'),
                    ("ffff::/16", 'c'),
                ],
                &["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3", "224.0.0.0/3"],
                "ffff::/16c",
            ),
        ] {
            assert_eq!(shown(nets, excluded), expected);
        }
    }

    /// Every address around every border is said what the longest prefix around it says, once.
    #[test]
    fn it_agrees_with_the_longest_prefix() {
        let nets: BTreeMap<IpNet, u8> = [
            "198.18.0.0/22",
            "198.18.1.0/24",
            "198.18.1.128/25",
            "198.18.1.129/32",
            "198.18.3.255/32",
            "198.18.4.0/24",
            "198.18.5.7/32",
        ]
        .iter()
        .zip(0..)
        .map(|(net, value)| (net.parse().unwrap(), value))
        .collect();
        let excluded: Vec<IpNet> = vec!["198.18.2.4/30".parse().unwrap()];
        let found = partition(&nets, &excluded);
        let first = u32::from(Ipv4Addr::new(198, 17, 255, 0));
        for address in first..first + 0x700 {
            let address = IpAddr::from(Ipv4Addr::from(address));
            let longest = nets
                .iter()
                .filter(|(net, _)| net.contains(&address))
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|(_, value)| *value)
                .filter(|_| !excluded[0].contains(&address));
            let said: Vec<u8> = (found.iter())
                .filter(|(net, _)| net.contains(&address))
                .map(|(_, value)| *value)
                .collect();
            assert_eq!(said, Vec::from_iter(longest), "{address}");
        }
    }
}
