//! Policies by client and interface, and exits, as far as firewalls and routing tables can have them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::set::{Text, Treatment};
use super::view::Nets;
use crate::config;
use crate::net::Family;
use crate::steer::{self, choice};

/// The name of a policy or an exit: letters, digits, `_`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a name"))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An interface, or all whose names begin alike: what nft and iptables both can say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    name: String,
    all: bool,
}

impl Interface {
    /// As a program writes it whose sign for the rest of a name this is.
    #[must_use]
    pub fn with(&self, rest: char) -> String {
        let Self { name, all } = self;
        if *all {
            format!("{name}{rest}")
        } else {
            name.clone()
        }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let plain = !name.is_empty() && name.chars().all(is_plain);
        if plain && config::Glob::new(text).is_some() && !name.starts_with('-') {
            Ok(Self {
                name: name.to_owned(),
                all: name.len() < text.len(),
            })
        } else {
            Err(format!(
                "{text:?} is no interface that every firewall can name"
            ))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.with('*'))
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// What some clients' packets get instead of what those of others get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Choice {
    /// By which of the set's policies.
    pub policy: usize,
    /// What they get.
    pub treatment: Treatment,
}

/// A policy that is for some clients or interfaces, or says what firewalls cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: Text<Label>,
    /// Networks of its clients.
    pub networks: Vec<Text<IpNet>>,
    /// Their link-layer addresses.
    pub stations: Vec<[u8; 6]>,
    /// Its interfaces; `None` = all. Those that cannot be said are not in it.
    pub interfaces: Option<Vec<Text<Interface>>>,
    /// What cannot be said.
    pub unsaid: Vec<Unsaid>,
}

/// What a policy says and a firewall cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsaid {
    /// A pattern of interfaces that is more than the beginning of a name.
    Interfaces,
    /// That it is also for packets to phones: those are not of an address or interface yet.
    Down,
    /// A rate for each client.
    Cap,
    /// Names whose addresses take the exit.
    Companions,
}

impl Unsaid {
    const fn text(self) -> &'static str {
        match self {
            Self::Interfaces => "interfaces by such patterns",
            Self::Down => "packets to phones by link-layer address or interface",
            Self::Cap => "cap",
            Self::Companions => "companions",
        }
    }
}

impl Policy {
    /// Of the configuration.
    #[must_use]
    pub fn of(policy: &config::Policy) -> Option<Self> {
        let mut unsaid = Vec::new();
        let interfaces: Vec<Text<Interface>> = policy
            .interfaces
            .iter()
            .filter_map(|glob| glob.as_str().parse().ok().map(Text))
            .collect();
        if interfaces.len() < policy.interfaces.len() {
            unsaid.push(Unsaid::Interfaces);
        }
        let mut networks = Vec::new();
        let mut stations = Vec::new();
        for client in &policy.clients {
            match client {
                config::Client::Network(net) => networks.push(Text(*net)),
                config::Client::Mac(mac) => stations.push(*mac),
            }
        }
        if !stations.is_empty() || !policy.interfaces.is_empty() {
            unsaid.push(Unsaid::Down);
        }
        if policy.treatment.cap.is_some() {
            unsaid.push(Unsaid::Cap);
        }
        if !policy.companions.is_empty() {
            unsaid.push(Unsaid::Companions);
        }
        Some(Self {
            name: Text(policy.name.parse().ok()?),
            networks,
            stations,
            interfaces: (!policy.interfaces.is_empty()).then_some(interfaces),
            unsaid,
        })
    }

    /// What cannot be said, as the line of a comment.
    #[must_use]
    pub fn unsaid(&self) -> Option<String> {
        let parts: Vec<&str> = self.unsaid.iter().map(|part| part.text()).collect();
        let name = &self.name.0;
        (!parts.is_empty()).then(|| format!("policy {name}: left out: {}", parts.join(", ")))
    }

    /// Whether it is for some clients or interfaces only.
    #[must_use]
    pub fn chooses(&self) -> bool {
        !self.networks.is_empty() || !self.stations.is_empty() || self.interfaces.is_some()
    }

    /// Its clients' networks; those that overlap, once.
    #[must_use]
    pub fn nets(&self) -> Nets {
        Nets::of(self.networks.iter().map(|net| net.0))
    }

    /// Its stations, as they are written everywhere.
    pub fn macs(&self) -> impl Iterator<Item = String> {
        self.stations.iter().map(|mac| {
            let bytes = mac.map(|byte| format!("{byte:02x}"));
            bytes.join(":")
        })
    }
}

/// An exit: the routes of its table, and the mark that leads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its name.
    pub name: Text<Label>,
    /// The table.
    pub table: u32,
    /// The priority of the rules.
    pub priority: u32,
    /// The value of the mark.
    pub mark: u32,
    /// Its mask.
    pub mask: u32,
    /// One for each family that it has a way for, or that it blocks.
    pub routes: Vec<Route>,
    /// All gateways: their own traffic is left alone, or it would be sent back to them.
    pub gateways: Vec<Text<IpAddr>>,
}

/// The tables of exits that block a family for want of a gateway: emergency calls do not take them.
#[must_use]
pub fn blocked(exits: &[steer::Exit]) -> BTreeSet<(u32, Family)> {
    let blocking = exits
        .iter()
        .filter(|exit| choice::none(exit) == choice::Way::Block);
    let lacking = |exit: &steer::Exit| {
        let families = Family::ALL.into_iter();
        let lacking: Vec<_> = families.filter(|family| exit.lacks(*family)).collect();
        let table = exit.table;
        lacking.into_iter().map(move |family| (table, family))
    };
    blocking.flat_map(lacking).collect()
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Of IPv4, or of IPv6.
    pub ipv4: bool,
    /// The gateway.
    pub via: Option<Text<IpAddr>>,
    /// The device.
    pub device: Option<Text<Interface>>,
    /// Nowhere: the sender is told that the destination is unreachable.
    pub unreachable: bool,
}

impl Exit {
    /// Of the configuration: the first gateway of each family. `None` if its device has a name that a shell could not take.
    #[must_use]
    pub fn of(exit: &steer::Exit) -> Option<Self> {
        let route = |ipv4: bool| {
            let mut gateways = exit.gateways.iter();
            let gateway = gateways.find(|gateway| gateway.address.is_ipv4() == ipv4);
            if exit.lacks(if ipv4 { Family::V4 } else { Family::V6 }) {
                return Ok((choice::none(exit) == choice::Way::Block).then_some(Route {
                    ipv4,
                    via: None,
                    device: None,
                    unreachable: true,
                }));
            }
            let device = gateway.and_then(|gateway| gateway.device.as_ref());
            let device = device.or(exit.device.as_ref());
            let device = device.map(|name| name.parse::<Interface>()).transpose()?;
            Ok::<_, String>(Some(Route {
                ipv4,
                via: gateway.map(|gateway| Text(gateway.address)),
                device: device.map(Text),
                unreachable: false,
            }))
        };
        let routes: Result<Vec<Option<Route>>, String> =
            [true, false].map(route).into_iter().collect();
        Some(Self {
            name: Text(exit.name.parse().ok()?),
            table: exit.table,
            priority: exit.priority,
            mark: exit.mark.value,
            mask: exit.mark.mask,
            routes: routes.ok()?.into_iter().flatten().collect(),
            gateways: (exit.gateways.iter())
                .map(|gateway| Text(gateway.address))
                .collect(),
        })
    }

    /// Whether packets that get this come here.
    #[must_use]
    pub const fn is_taken_by(&self, treatment: &Treatment) -> bool {
        treatment.mask != 0 && treatment.mask == self.mask && treatment.mark == self.mark
    }

    /// The mark as `ip rule` shows it.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.mask == u32::MAX {
            format!("{:#x}", self.mark)
        } else {
            format!("{:#x}/{:#x}", self.mark, self.mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(policy: &str) -> config::Config {
        let source = format!(
            "[interfaces]\naccess = [\"*\"]\n[discovery]\ncountries = [\"AU\"]\n\
             [[exit]]\nname = \"au\"\ngateways = [\"fd00::3\", \"192.168.1.2\", \"192.168.1.3\"]\ndevice = \"lan\"\n\
             table = 1065\nmark = \"0x65\"\n\
             [[exit]]\nname = \"v4\"\ngateways = [\"192.168.1.2\"]\ntable = 1066\nmark = \"0x66\"\n\
             [[exit]]\nname = \"odd\"\ndevice = \"wg;reboot\"\ntable = 1067\nmark = \"0x67\"\n\
             [[exit]]\nname = \"only\"\ngateways = [\"192.168.1.2\"]\ntable = 1068\nmark = \"0x68\"\n\
             when_none = \"block\"\n\
             [[policy]]\nname = \"p\"\ncountries = [\"AU\"]\nexit = \"au\"\n{policy}\n"
        );
        config::parse(&source, "test.toml".as_ref())
            .unwrap_or_else(|errors| panic!("{errors}"))
            .config
    }

    #[test]
    fn exits_have_the_first_gateway_of_each_family() {
        let config = configured("");
        let routes = |index: usize| {
            let exit = Exit::of(&config.exits[index])?;
            let route = |route: &Route| {
                let via = route.via.map(|via| via.0.to_string());
                (via, route.device.as_ref().map(|device| device.0.with('*')))
            };
            Some(exit.routes.iter().map(route).collect::<Vec<_>>())
        };
        let via = |address: &str, device: Option<&str>| {
            (Some(address.to_owned()), device.map(str::to_owned))
        };
        assert_eq!(
            routes(0),
            Some(vec![
                via("192.168.1.2", Some("lan")),
                via("fd00::3", Some("lan"))
            ])
        );
        assert_eq!(routes(1), Some(vec![via("192.168.1.2", None)]));
        // A shell would run it.
        assert_eq!(routes(2), None);
        let blocking = Exit::of(&config.exits[3]).unwrap();
        let blocked: Vec<_> = (blocking.routes.iter())
            .map(|route| (route.ipv4, route.unreachable))
            .collect();
        assert_eq!(blocked, [(true, false), (false, true)]);
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        for (policy, expected) in [
            ("clients = [\"192.168.1.0/24\"]", None),
            (
                "clients = [\"02:00:00:00:00:01\"]\ncap = 5",
                Some("packets to phones by link-layer address or interface, cap"),
            ),
            (
                "interfaces = [\"wl?n*\", \"lan\"]\ncompanions = [\"a.example\"]",
                Some(
                    "interfaces by such patterns, packets to phones by link-layer address or interface, companions",
                ),
            ),
        ] {
            let said = Policy::of(&configured(policy).policies[0]).unwrap();
            let expected = expected.map(|what| format!("policy p: left out: {what}"));
            assert_eq!(said.unsaid(), expected, "{policy}");
        }
    }

    #[test]
    fn names_cannot_say_anything_to_a_shell() {
        for name in [
            "", "*", "a;b", "$(a)", "a\"b", "a'b", "a`b", "-a", "a b", "a\nb", "a*b", "a+",
        ] {
            assert!(name.parse::<Interface>().is_err(), "{name:?}");
        }
        for name in ["", "a;b", "a b", "a\"", "a\n"] {
            assert!(name.parse::<Label>().is_err(), "{name:?}");
        }
        assert_eq!("wlan*".parse::<Interface>().unwrap().with('+'), "wlan+");
        assert_eq!(
            "br-lan.7".parse::<Interface>().unwrap().to_string(),
            "br-lan.7"
        );
    }
}
