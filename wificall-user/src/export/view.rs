//! A selected set as formats want it: aggregated, in order, with its header.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::set::{HostName, Origin, Selection, Set, Treatment};
use super::steering::{Choice, Exit};

/// What a renderer gets.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The part that was selected.
    pub set: Set,
    /// What was selected, in words.
    pub selected: String,
    /// All networks.
    pub nets: Nets,
    /// The same by what their packets get, in order.
    pub groups: Vec<(Meaning, Nets)>,
    /// Exits that packets take.
    pub exits: Vec<Exit>,
    /// The gateways of the exits: what they send of themselves is left alone where others' packets take an exit.
    pub gateways: Nets,
    /// Whether IPv4 was selected, and IPv6.
    pub families: [bool; 2],
}

/// What packets of some networks get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meaning {
    /// What they get unless a choice is for their client.
    pub treatment: Treatment,
    /// What those of some clients get.
    pub choices: Vec<Choice>,
}

impl Meaning {
    /// Whether packets of anybody take this exit.
    #[must_use]
    pub fn takes(&self, exit: &Exit) -> bool {
        let choices = self.choices.iter().map(|choice| &choice.treatment);
        let mut treatments = choices.chain([&self.treatment]);
        treatments.any(|treatment| exit.is_taken_by(treatment))
    }
}

/// Disjoint networks, of which none can be joined with its neighbour, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nets {
    /// IPv4.
    pub v4: Vec<Ipv4Net>,
    /// IPv6.
    pub v6: Vec<Ipv6Net>,
}

impl Nets {
    /// Joins what can be joined.
    #[must_use]
    pub fn of(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }
        let (mut v4, mut v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4, v6 }
    }

    /// Both families, IPv4 first.
    pub fn all(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.iter().copied().map(IpNet::from);
        v4.chain(self.v6.iter().copied().map(IpNet::from))
    }
}

impl View {
    /// Of a part of a set.
    #[must_use]
    pub fn new(set: &Set, selection: &Selection) -> Self {
        let set = selection.of(set);
        let mut groups: BTreeMap<Meaning, Vec<IpNet>> = BTreeMap::new();
        for entry in &set.entries {
            let meaning = Meaning {
                treatment: entry.treatment,
                choices: entry.choices.clone(),
            };
            groups.entry(meaning).or_default().push(entry.net.0);
        }
        let takes = |exit: &Exit| groups.keys().any(|meaning| meaning.takes(exit));
        let gateways = set.exits.iter().flat_map(|exit| &exit.gateways);
        let gateways = gateways.filter(|gateway| match gateway.0 {
            IpAddr::V4(_) => selection.ipv4,
            IpAddr::V6(_) => selection.ipv6,
        });
        let exits = set.exits.iter().filter(|exit| takes(exit)).map(|exit| {
            let family = |ipv4| if ipv4 { selection.ipv4 } else { selection.ipv6 };
            let mut exit = exit.clone();
            exit.routes.retain(|route| family(route.ipv4));
            exit
        });
        Self {
            selected: selection.to_string(),
            exits: exits.collect(),
            gateways: Nets::of(gateways.map(|gateway| gateway.0.into())),
            nets: Nets::of(set.entries.iter().map(|entry| entry.net.0)),
            groups: groups
                .into_iter()
                .map(|(meaning, nets)| (meaning, Nets::of(nets)))
                .collect(),
            families: [selection.ipv4, selection.ipv6],
            set,
        }
    }

    /// The gateways whose own traffic is left alone where packets get this: before every policy, as the classifier has it.
    #[must_use]
    pub fn left_alone(&self, meaning: &Meaning) -> Option<&Nets> {
        let steers = self.exits.iter().any(|exit| meaning.takes(exit));
        steers.then_some(&self.gateways)
    }

    /// Names that are known to have addresses, with those.
    pub fn resolved(&self) -> impl Iterator<Item = (&HostName, impl Iterator<Item = IpAddr>)> {
        let named = self.set.names.iter();
        named
            .filter(|name| !name.addresses.is_empty())
            .map(|name| (&name.name.0, name.addresses.iter().map(|address| address.0)))
    }

    /// Names, whether they have addresses or not.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        self.set.names.iter().map(|name| &name.name.0)
    }

    /// Where this is from.
    #[must_use]
    pub fn source(&self) -> String {
        let instance = &self.set.instance.0;
        match self.set.origin {
            Origin::Agent => format!("the running agent of instance {instance}"),
            Origin::Offline => format!(
                "the state on disk of instance {instance} and its configuration; no agent was asked"
            ),
        }
    }

    /// When, as RFC 3339 has it.
    #[must_use]
    pub fn time(&self) -> String {
        rfc3339(self.set.at)
    }

    /// The lines of the header, without a comment's signs.
    #[must_use]
    pub fn header(&self) -> [String; 4] {
        [
            format!(
                "wificall {}: endpoints of Wi-Fi Calling",
                env!("CARGO_PKG_VERSION")
            ),
            format!("source: {}", self.source()),
            format!("selected: {}", self.selected),
            format!("{TIME}{}", self.time()),
        ]
    }
}

/// What stands before the time in every format that has one: nothing else varies between two runs over the same set.
pub const TIME: &str = "time: ";

/// Whether two renderings differ in their time only.
#[must_use]
pub fn same_but_time(one: &[u8], other: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|byte| *byte == b'\n');
        lines
            .map(|line| {
                if is_time(line) {
                    Vec::new()
                } else {
                    line.to_vec()
                }
            })
            .collect()
    };
    lines(one) == lines(other)
}

/// Only a header has such a line: no other line of any format has a space and a time at its end.
fn is_time(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else {
        return false;
    };
    let start = line.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    start.starts_with(TIME) || start.starts_with("time\": ")
}

/// Seconds since 1970-01-01 UTC as a time of day.
pub(crate) fn rfc3339(at: u64) -> String {
    let (days, second) = (at / 86_400, at % 86_400);
    // Years that begin in March, in eras of 400 (H. Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Operators and countries of owners, each once and in order, with something between them.
#[must_use]
pub fn joined(owners: &[super::set::Owner], between: &str) -> (String, String) {
    let join = |items: BTreeSet<String>| Vec::from_iter(items).join(between);
    let operators = owners.iter().filter_map(|owner| owner.operator);
    let countries = owners.iter().filter_map(|owner| owner.country);
    (
        join(operators.map(|plmn| plmn.0.to_string()).collect()),
        join(countries.map(|country| country.0.to_string()).collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at), expected);
        }
    }

    #[test]
    fn neighbours_are_joined_and_sorted() {
        let nets = [
            "2001:db8:0:1::/64",
            "203.0.113.0/25",
            "2001:db8::/64",
            "203.0.113.128/25",
            "198.51.100.7/32",
        ];
        let nets = Nets::of(nets.map(|net| net.parse().unwrap()));
        let all: Vec<_> = nets.all().map(|net| net.to_string()).collect();
        assert_eq!(all, ["198.51.100.7/32", "203.0.113.0/24", "2001:db8::/63"]);
    }

    #[test]
    fn only_the_time_may_differ() {
        let text = |time: &str, net: &str| format!("# a\n# time: {time}\n{net}\n").into_bytes();
        assert!(same_but_time(&text("1", "a"), &text("2", "a")));
        assert!(!same_but_time(&text("1", "a"), &text("1", "b")));
        let json = |time: &str| format!("{{\n  \"time\": \"{time}\"\n}}").into_bytes();
        assert!(same_but_time(&json("1"), &json("2")));
        assert!(!same_but_time(b"1.2.3.4\n", b"1.2.3.4\n1.2.3.5\n"));
    }
}
