//! Where a gateway is: which link it is on.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Exit, Gateway};
use crate::net::{Family, Kind, Link};

/// The box's links and addresses.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// The links.
    pub links: Vec<Link>,
    /// Addresses with their prefix lengths, by the index of their link.
    pub addresses: Vec<(u32, IpNet)>,
    /// Indices of the links towards phones.
    pub access: Vec<u32>,
    /// Indices of the links that have IPv6.
    pub ipv6: Vec<u32>,
}

impl Network {
    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link of this index.
    #[must_use]
    pub fn by_index(&self, ifindex: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == ifindex)
    }
}

/// Where a gateway is, or a device leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The link.
    pub ifindex: u32,
    /// Its name.
    pub device: String,
    /// Our IPv4 address in the gateway's network.
    pub source: Option<Ipv4Addr>,
    /// Our Ethernet address there; `None` where there are none and nobody can be asked for one.
    pub own: Option<[u8; 6]>,
    /// Whether the link is up and has a carrier.
    pub running: bool,
}

/// Why there is no place for a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// It may come: its device, or the device's addresses, are not there yet.
    Awaited(String),
    /// It is configured wrong.
    Wrong(String),
}

impl Nowhere {
    /// In words.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Awaited(text) | Self::Wrong(text) => text,
        }
    }
}

fn at(link: &Link, source: Option<Ipv4Addr>) -> Place {
    Place {
        ifindex: link.index,
        device: link.name.clone(),
        source,
        own: link.address.filter(|_| link.kind == Kind::Ethernet),
        running: link.running,
    }
}

/// Where a gateway is.
///
/// # Errors
///
/// If it is on no link, or not to be told on which.
pub fn of_gateway(exit: &Exit, gateway: &Gateway, network: &Network) -> Result<Place, Nowhere> {
    let Gateway { address, device } = gateway;
    let name = &exit.name;
    let device = device.as_ref().or(exit.device.as_ref());
    let link = match device {
        None => None,
        Some(device) => Some(network.link(device).ok_or_else(|| {
            Nowhere::Awaited(format!(
                "exit `{name}`: gateway {address}: no interface is called `{device}`"
            ))
        })?),
    };
    if network
        .addresses
        .iter()
        .any(|(_, own)| own.addr() == *address)
    {
        return Err(Nowhere::Wrong(format!(
            "exit `{name}`: gateway {address} is an address of this box\n  hint: an exit's gateway is another router"
        )));
    }
    // Link-local addresses are on every link.
    if let (IpAddr::V6(v6), Some(link)) = (address, link)
        && v6.is_unicast_link_local()
    {
        return Ok(at(link, None));
    }
    let candidates = network.addresses.iter().filter(|(ifindex, own)| {
        Family::from(own.addr()) == Family::from(*address)
            && !own.addr().is_loopback()
            && link.is_none_or(|link| link.index == *ifindex)
    });
    let found = candidates
        .clone()
        .filter(|(_, own)| own.contains(address))
        .max_by_key(|(_, own)| own.prefix_len());
    if let Some((ifindex, own)) = found {
        let link = network.by_index(*ifindex).ok_or_else(|| {
            Nowhere::Awaited(format!(
                "exit `{name}`: gateway {address}: its interface has just gone"
            ))
        })?;
        let source = match own.addr() {
            IpAddr::V4(own) => Some(own),
            IpAddr::V6(_) => None,
        };
        return Ok(at(link, source));
    }
    let place = match device {
        Some(device) => format!("`{device}`"),
        None => "any interface".to_owned(),
    };
    let text =
        format!("exit `{name}`: gateway {address} is not on-link: it is in no network of {place}");
    // The networks that there are: none of IPv6's own making.
    let global = |own: &IpNet| match own.addr() {
        IpAddr::V6(own) => !own.is_unicast_link_local(),
        IpAddr::V4(_) => true,
    };
    let networks: Vec<_> = candidates
        .filter(|(_, own)| global(own))
        .map(|(_, own)| own.trunc().to_string())
        .collect();
    if networks.is_empty() {
        return Err(Nowhere::Awaited(format!("{text} yet")));
    }
    Err(Nowhere::Wrong(format!(
        "{text}\n  hint: a gateway is a neighbour; there are {}",
        networks.join(", ")
    )))
}

/// Where an exit without gateways leads.
///
/// # Errors
///
/// If its device is not there.
pub fn of_device(exit: &Exit, family: Family, network: &Network) -> Result<Place, Nowhere> {
    let name = &exit.name;
    let device = exit.device.as_deref().unwrap_or_default();
    let link = network.link(device).ok_or_else(|| {
        Nowhere::Awaited(format!("exit `{name}`: no interface is called `{device}`"))
    })?;
    if family == Family::V6 && !network.ipv6.contains(&link.index) {
        return Err(Nowhere::Awaited(format!(
            "exit `{name}`: `{device}` has no IPv6"
        )));
    }
    Ok(at(link, None))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn place(address: &str, device: Option<&str>) -> Result<(u32, Option<Ipv4Addr>), Nowhere> {
        let gateway = Gateway {
            address: address.parse().unwrap(),
            device: device.map(str::to_owned),
        };
        of_gateway(&sample::exit(), &gateway, &sample::network())
            .map(|place| (place.ifindex, place.source))
    }

    #[test]
    fn a_gateway_is_where_its_network_is() {
        let lan = |source: &str| Ok((2, Some(source.parse().unwrap())));
        assert_eq!(place("192.168.1.2", None), lan("192.168.1.1"));
        assert_eq!(place("192.168.1.2", Some("lan")), lan("192.168.1.1"));
        assert_eq!(place("fd00::2", None), Ok((2, None)));
        assert_eq!(place("fe80::2", Some("wan")), Ok((3, None)));
        // The longest prefix is the one that the kernel would take.
        assert_eq!(
            place("192.168.1.130", None),
            Ok((3, Some([192, 168, 1, 129].into())))
        );
    }

    #[test]
    fn one_that_is_not_on_link_is_refused_unless_it_may_come() {
        for (address, device) in [
            ("203.0.113.7", None),
            ("192.168.1.2", Some("wan")),
            ("192.168.1.1", None),
            ("2001:db8::1", None),
        ] {
            assert!(
                matches!(place(address, device), Err(Nowhere::Wrong(_))),
                "{address}: {:?}",
                place(address, device)
            );
        }
        for (address, device) in [("192.168.1.2", Some("later")), ("fd00::2", Some("wan"))] {
            assert!(
                matches!(place(address, device), Err(Nowhere::Awaited(_))),
                "{address}"
            );
        }
    }
}
