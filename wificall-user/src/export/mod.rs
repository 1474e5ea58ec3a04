//! The endpoint set, for what others run: firewalls, DNS servers, routers, proxies, scripts.
//!
//! Renderers are pure: a [`View`] and a writer. What they write is stable in its order, and two of the same set differ in
//! the header's time only. Rules and routes are in the scripts only ([`script`]).

pub mod dns;
mod iptables;
mod list;
mod nft;
mod partition;
mod proxy;
mod script;
pub mod set;
pub mod steering;
mod vendor;
pub mod view;

#[cfg(test)]
mod grammar;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

pub use dns::{Dnsmasq, Server};
pub use list::lines;
pub use partition::partition;
pub use set::{Selection, Set, Text};
pub(crate) use view::rfc3339;
pub use view::{View, same_but_time};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table of nftables.
    Nft,
    /// A script that sets that up and removes it.
    NftScript,
    /// Sets for `ipset restore`.
    Ipset,
    /// Chains that use these, for `iptables-restore --noflush`.
    Iptables,
    /// A script that sets both up and removes them.
    IptablesScript,
    /// dnsmasq.
    Dnsmasq(Dnsmasq),
    /// `hosts(5)`.
    Hosts,
    /// Local data for unbound.
    Unbound,
    /// Juniper SRX.
    Junos,
    /// Cisco IOS and IOS XE.
    CiscoIos,
    /// Cisco ASA.
    CiscoAsa,
    /// MikroTik RouterOS.
    Mikrotik,
    /// Surge.
    Surge,
    /// Clash and mihomo.
    Clash,
    /// sing-box.
    SingBox,
    /// JSON.
    Json,
    /// CSV.
    Csv,
    /// A network a line.
    Plain,
}

impl Format {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(self, view: &View, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Nft => nft::table(view, out),
            Self::NftScript => nft::whole_script(view, out),
            Self::Ipset => iptables::sets(view, out),
            Self::Iptables => iptables::rules(view, out),
            Self::IptablesScript => iptables::whole_script(view, out),
            Self::Dnsmasq(what) => dns::dnsmasq(view, what, out),
            Self::Hosts => dns::hosts(view, out),
            Self::Unbound => dns::unbound(view, out),
            Self::Junos => vendor::junos(view, out),
            Self::CiscoIos => vendor::cisco_ios(view, out),
            Self::CiscoAsa => vendor::cisco_asa(view, out),
            Self::Mikrotik => vendor::mikrotik(view, out),
            Self::Surge => proxy::surge(view, out),
            Self::Clash => proxy::clash(view, out),
            Self::SingBox => proxy::sing_box(view, out),
            Self::Json => list::json(view, out),
            Self::Csv => list::csv(view, out),
            Self::Plain => list::plain(view, out),
        }
    }
}

/// What firewalls cannot say of policies and gateways, as comments.
fn unsaid(view: &View, out: &mut dyn Write) -> io::Result<()> {
    let policies = view.set.policies.iter();
    let mut lines = policies.filter_map(steering::Policy::unsaid);
    lines.try_for_each(|line| writeln!(out, "# {line}"))?;
    if view.gateways.all().next().is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "# gateways of exits: left out: what they forward for others, which only their link-layer addresses tell"
    )
}

/// The header, as comments.
fn comment(view: &View, sign: &str, out: &mut dyn Write) -> io::Result<()> {
    let header = view.header();
    header
        .iter()
        .try_for_each(|line| writeln!(out, "{sign} {line}"))
}
