//! Exits: the ways by which policies send the traffic of a country or an operator.
//!
//! (Not to be confused with `wificall_common::exit`, the ways out of a program.)

//!
//! ```text
//! links, addresses ─ place ─┐
//! ARP, ND, IKE ─── health ──┴─ machine (choice) ─▶ desired − actual ─▶ plan ─▶ control/exits ─▶ net
//! ```
//!
//! All but [`prober`] decides, does no I/O and takes the time as an argument; [`record`] is a file.

pub mod check;
pub mod choice;
pub mod health;
pub mod machine;
pub mod place;
pub mod plan;
pub mod prober;
pub mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod sysctls;

use std::{net::IpAddr, time::Duration};

use crate::config::Mark;
use crate::net::Family;

/// `[[exit]]`: a routing table that packets with a mark are led to, and the gateways that stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Unique among the exits.
    pub name: String,
    /// In the order in which they are preferred, each family by itself. Empty: [`device`](Self::device) is the way out.
    pub gateways: Vec<Gateway>,
    /// The device that packets leave by; with gateways, the one that those without a device of their own are on.
    pub device: Option<String>,
    /// The routing table, ours alone.
    pub table: u32,
    /// Priority of the rules (`ip rule`), IPv4 and IPv6.
    pub priority: u32,
    /// The mark that leads here.
    pub mark: Mark,
    /// What happens when the gateway in use is down.
    pub when_down: WhenDown,
    /// What happens when no gateway is left.
    pub when_none: WhenNone,
    /// How it is found out whether a gateway is up.
    pub health: Health,
    /// How often that is asked.
    pub interval: Duration,
    /// Down after so many unanswered in a row.
    pub down_after: u32,
    /// Up again after so many answered in a row.
    pub up_after: u32,
    /// Whom IKE probes go to; `None`: an endpoint that policies send here.
    pub probe: Option<IpAddr>,
    /// Whether sysctls of the devices may be changed: reverse-path filter, ICMP redirects.
    pub manage_sysctls: bool,
}

impl Exit {
    /// Whether it has gateways, but none of this family.
    #[must_use]
    pub fn lacks(&self, family: Family) -> bool {
        let v4 = family == Family::V4;
        let mut gateways = self.gateways.iter();
        !self.gateways.is_empty() && gateways.all(|gateway| gateway.address.is_ipv4() != v4)
    }
}

/// A gateway of an exit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Its address: on-link.
    pub address: IpAddr,
    /// The device it is on; `None`: the one whose network has its address.
    pub device: Option<String>,
}

/// What happens to an exit's traffic when the gateway in use is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// The next gateway that is up takes over; if there is none, see [`WhenNone`].
    Next,
    /// It goes the way that it would go without us.
    Direct,
    /// It is answered with ICMP "unreachable".
    Block,
}

/// What happens to an exit's traffic when no gateway is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenNone {
    /// As [`WhenDown::Direct`].
    Direct,
    /// As [`WhenDown::Block`].
    Block,
}

/// How it is found out whether a gateway is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers ARP (RFC 826) or neighbour solicitations (RFC 4861 §7.2); of a device, its link is up.
    Neighbour,
    /// An IKE_SA_INIT that leaves by this exit is answered.
    Ike,
    /// It is taken to be up while its device's link is.
    None,
}
