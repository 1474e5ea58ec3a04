//! What is exported: disjoint networks with their owners and treatment, and names.
//!
//! It crosses the control socket and a file's border, so every value has a type that is checked as it is read: no text of
//! somebody else's making reaches a script.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use wificall_common::abi::{DSCP_IF_DEFAULT, DSCP_KEEP, Policy, RULES};

use super::steering::{self, Choice, Exit};
use crate::catalogue::{Country, OperatorPattern, Plmn, names};
use crate::discover::{self, Tier};

/// A value that is written as text and checked when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A host name that can stand in every format: letters, digits and hyphens (RFC 1123 §2.1), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_label = |label: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
        };
        match names::host_name(text) {
            Ok(name) if name.split('.').all(is_label) => Ok(Self(name)),
            _ => Err(format!("{text:?} is not the name of a host")),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of an instance: `[a-z0-9_-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl FromStr for Instance {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match crate::config::Agent::of_instance(text) {
            Some(agent) => Ok(Self(agent.instance)),
            None => Err("this is no name of an instance"),
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tier = Self::ALL.into_iter().find(|tier| tier.as_str() == text);
        tier.ok_or_else(|| {
            format!("{text:?} is not a tier: expected authoritative, corroborated or observed")
        })
    }
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The agent that runs.
    Agent,
    /// The state that an agent left on disk, and the catalogue and prefixes of the configuration.
    Offline,
}

/// The endpoint set of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// The instance.
    pub instance: Text<Instance>,
    /// Who says so.
    pub origin: Origin,
    /// When, in seconds since 1970 UTC.
    pub at: u64,
    /// Disjoint, in order.
    pub entries: Vec<Entry>,
    /// In order, each once.
    pub names: Vec<Name>,
    /// Policies that choices are by, or that say what no format can.
    pub policies: Vec<steering::Policy>,
    /// Exits.
    pub exits: Vec<Exit>,
}

/// A network of endpoints that are treated alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The network.
    pub net: Text<IpNet>,
    /// How far it is trusted.
    pub tier: Text<Tier>,
    /// Whose it is, in order.
    pub owners: Vec<Owner>,
    /// What its packets get.
    pub treatment: Treatment,
    /// What those of some clients get instead: the first that is for them.
    pub choices: Vec<Choice>,
}

/// A name that is looked up, or that a client asked for and our resolver confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: Text<HostName>,
    /// How far it is trusted.
    pub tier: Text<Tier>,
    /// Whose it is, in order.
    pub owners: Vec<Owner>,
    /// In order; empty if it is not known to have any.
    pub addresses: Vec<Text<IpAddr>>,
}

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The operator.
    pub operator: Option<Text<Plmn>>,
    /// The country.
    pub country: Option<Text<Country>>,
}

impl From<&discover::Owner> for Owner {
    fn from(owner: &discover::Owner) -> Self {
        Self {
            operator: owner.plmn.map(Text),
            country: owner.country.map(Text),
        }
    }
}

/// What packets get, as far as a firewall can give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Treatment {
    /// The mark of what goes up.
    pub mark: u32,
    /// Which of its bits are ours; 0 = no mark.
    pub mask: u32,
    /// Rules for the DSCP by direction and class, as the kernel has them.
    dscp: [[u8; RULES]; 2],
    /// Whether they are dropped.
    pub drop: bool,
}

impl From<&Policy> for Treatment {
    fn from(row: &Policy) -> Self {
        Self {
            mark: row.mark,
            mask: row.mask,
            dscp: row.dscp,
            drop: row.drop != 0,
        }
    }
}

/// What a firewall can tell apart: an endpoint's port, or the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP 500.
    Ike,
    /// UDP 4500, whatever is in it; it has the rule of ESP in UDP.
    NatT,
    /// ESP.
    Esp,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Ike, Self::NatT, Self::Esp];
}

/// A DSCP to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dscp {
    /// The DSCP, 0 to 63.
    pub value: u8,
    /// Only over 0.
    pub if_default: bool,
}

impl Treatment {
    /// The DSCP that packets get, `up` or down.
    #[must_use]
    pub const fn dscp(&self, up: bool, kind: Kind) -> Option<Dscp> {
        let class = match kind {
            Kind::Ike => 0,
            Kind::NatT => 1,
            Kind::Esp => 3,
        };
        let rule = self.dscp[if up { 0 } else { 1 }][class];
        if rule & DSCP_KEEP != 0 {
            return None;
        }
        Some(Dscp {
            value: rule & 0x3f,
            if_default: rule & DSCP_IF_DEFAULT != 0,
        })
    }
}

/// Which part of a set is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
    /// Of these countries; empty = of any.
    pub countries: Vec<Country>,
    /// Of these operators; empty = of any.
    pub operators: Vec<OperatorPattern>,
    /// Of this tier and better.
    pub tier: Tier,
}

impl Default for Selection {
    /// Everything but what is only observed.
    fn default() -> Self {
        Self {
            ipv4: true,
            ipv6: true,
            countries: Vec::new(),
            operators: Vec::new(),
            tier: Tier::Corroborated,
        }
    }
}

impl Selection {
    /// The part of a set.
    #[must_use]
    pub fn of(&self, set: &Set) -> Set {
        let family = |v4: bool| if v4 { self.ipv4 } else { self.ipv6 };
        let entries = set.entries.iter().filter(|entry| {
            family(entry.net.0.addr().is_ipv4()) && self.takes(entry.tier.0, &entry.owners)
        });
        let names = set
            .names
            .iter()
            .filter(|name| self.takes(name.tier.0, &name.owners))
            .map(|name| Name {
                addresses: (name.addresses.iter().copied())
                    .filter(|address| family(address.0.is_ipv4()))
                    .collect(),
                ..name.clone()
            });
        Set {
            entries: entries.cloned().collect(),
            names: names.collect(),
            ..set.clone()
        }
    }

    /// Both conditions must hold of the same owner, as in a policy.
    fn takes(&self, tier: Tier, owners: &[Owner]) -> bool {
        let of = |owner: &Owner| {
            let operator = self.operators.is_empty()
                || owner
                    .operator
                    .is_some_and(|plmn| self.operators.iter().any(|o| o.matches(&plmn.0)));
            let country = self.countries.is_empty()
                || owner.country.is_some_and(|c| self.countries.contains(&c.0));
            operator && country
        };
        let any = self.operators.is_empty() && self.countries.is_empty();
        tier >= self.tier && (any || owners.iter().any(of))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match (self.ipv4, self.ipv6) {
            (true, false) => "IPv4, ",
            (false, true) => "IPv6, ",
            _ => "",
        };
        write!(f, "{family}{}", self.tier)?;
        if self.tier < Tier::Authoritative {
            f.write_str(" and better")?;
        }
        let mut list = |what: &str, items: BTreeSet<String>| {
            if items.is_empty() {
                return Ok(());
            }
            let items: Vec<String> = items.into_iter().collect();
            write!(f, ", {what} {}", items.join(" "))
        };
        list(
            "countries",
            self.countries.iter().map(ToString::to_string).collect(),
        )?;
        list(
            "operators",
            self.operators.iter().map(ToString::to_string).collect(),
        )
    }
}

/// A small set with a bit of everything.
#[cfg(test)]
pub(crate) fn sample() -> Set {
    const EF: [[u8; RULES]; 2] = [[46; RULES]; 2];
    let owner = |operator: &str, country: &str| Owner {
        operator: Some(Text(operator.parse().unwrap())),
        country: Some(Text(country.parse().unwrap())),
    };
    // Where nothing is marked, one network of clients is, and those of one interface are dropped.
    let choices = |mark: u32| {
        let choice = |policy, mark, drop| Choice {
            policy,
            treatment: Treatment {
                mark,
                mask: 0xff,
                dscp: EF,
                drop,
            },
        };
        if mark == 0 {
            vec![choice(0, 0x66, false), choice(1, 0, true)]
        } else {
            Vec::new()
        }
    };
    let entry = |net: &str, tier, owners: &[Owner], (mark, mask), dscp| Entry {
        net: Text(net.parse().unwrap()),
        tier: Text(tier),
        owners: owners.to_vec(),
        treatment: Treatment {
            mark,
            mask,
            dscp,
            drop: false,
        },
        choices: choices(mark),
    };
    let name = |name: &str, tier, owners: &[Owner], addresses: &[&str]| Name {
        name: Text(name.parse().unwrap()),
        tier: Text(tier),
        owners: owners.to_vec(),
        addresses: (addresses.iter())
            .map(|address| Text(address.parse().unwrap()))
            .collect(),
    };
    let (german, british) = (owner("262-01", "DE"), owner("234-15", "GB"));
    let other = [
        [46 | DSCP_IF_DEFAULT, 46, DSCP_KEEP, 34],
        [DSCP_KEEP; RULES],
    ];
    Set {
        instance: Text("lab".parse().unwrap()),
        origin: Origin::Agent,
        at: 1_767_225_599,
        entries: vec![
            entry("192.0.2.7/32", Tier::Observed, &[], (0, 0), EF),
            entry(
                "198.51.100.0/25",
                Tier::Authoritative,
                &[german],
                (0x65, 0xff),
                EF,
            ),
            entry(
                "198.51.100.128/25",
                Tier::Corroborated,
                &[german],
                (0x65, 0xff),
                EF,
            ),
            entry(
                "203.0.113.9/32",
                Tier::Authoritative,
                &[german, british],
                (0, 0),
                other,
            ),
            entry(
                "2001:db8:0:1::/64",
                Tier::Authoritative,
                &[british],
                (0, 0),
                other,
            ),
            entry(
                "2001:db8::5/128",
                Tier::Authoritative,
                &[german],
                (0x65, 0xff),
                EF,
            ),
        ],
        names: vec![
            name(
                "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org",
                Tier::Authoritative,
                &[german],
                &["198.51.100.1", "2001:db8::5"],
            ),
            name(
                "epdg.epc.mnc015.mcc234.pub.3gppnetwork.org",
                Tier::Authoritative,
                &[british],
                &[],
            ),
            name(
                "wo.example.net",
                Tier::Corroborated,
                &[german, british],
                &["203.0.113.9"],
            ),
        ],
        policies: vec![
            steering::Policy {
                name: Text("phones".parse().unwrap()),
                networks: ["192.168.1.0/24", "192.168.0.0/16", "fd00::/64"]
                    .map(|net| Text(net.parse().unwrap()))
                    .to_vec(),
                stations: vec![[2, 0, 0, 0, 0, 0xab]],
                interfaces: None,
                unsaid: vec![steering::Unsaid::Down, steering::Unsaid::Cap],
            },
            steering::Policy {
                name: Text("guests".parse().unwrap()),
                networks: vec![Text("192.168.9.0/24".parse().unwrap())],
                stations: Vec::new(),
                interfaces: Some(vec![
                    Text("wlan*".parse().unwrap()),
                    Text("br-guest".parse().unwrap()),
                ]),
                unsaid: Vec::new(),
            },
        ],
        exits: [
            (0x65, 1065, Some("192.168.1.2")),
            (0x66, 1066, None),
            (0x67, 1067, None),
        ]
        .map(|(mark, table, via)| {
            let via = via.map(|via| Text(via.parse().unwrap()));
            let device = if via.is_some() { "lan" } else { "wg-de" };
            let route = |ipv4| steering::Route {
                ipv4,
                via,
                device: Some(Text(device.parse().unwrap())),
                unreachable: false,
            };
            let blocked = steering::Route {
                ipv4: false,
                via: None,
                device: None,
                unreachable: true,
            };
            Exit {
                name: Text(format!("exit-{mark}").parse().unwrap()),
                table,
                priority: table,
                mark,
                mask: 0xff,
                routes: if via.is_some() {
                    vec![route(true), blocked]
                } else {
                    vec![route(true), route(false)]
                },
                gateways: via.into_iter().collect(),
            }
        })
        .to_vec(),
    }
}
