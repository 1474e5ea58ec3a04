//! Firewalls and routers of vendors.

use std::io::{Result, Write};

use ipnet::IpNet;

use super::comment;
use super::view::View;

/// Juniper SRX: `load set` of addresses and a set of them in the global address book.
///
/// # Errors
///
/// Those of the writer.
pub fn junos(view: &View, out: &mut dyn Write) -> Result<()> {
    const BOOK: &str = "security address-book global";
    comment(view, "#", out)?;
    let names: Vec<String> = (view.nets.all())
        // Letters, digits, dots and hyphens; no two networks have the same.
        .map(|net| {
            format!(
                "wificall-{}-{}",
                net.network().to_string().replace(':', "-"),
                net.prefix_len()
            )
        })
        .collect();
    writeln!(out, "delete {BOOK} address-set wificall")?;
    for (net, name) in view.nets.all().zip(&names) {
        writeln!(out, "set {BOOK} address {name} {net}")?;
    }
    for name in &names {
        writeln!(out, "set {BOOK} address-set wificall address {name}")?;
    }
    Ok(())
}

/// Cisco IOS and IOS XE: an object group a family.
///
/// # Errors
///
/// Those of the writer.
pub fn cisco_ios(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "!", out)?;
    if !view.nets.v4.is_empty() {
        writeln!(out, "object-group network WIFICALL-V4")?;
        for net in &view.nets.v4 {
            match net.prefix_len() {
                32 => writeln!(out, " host {}", net.network())?,
                _ => writeln!(out, " {} {}", net.network(), net.netmask())?,
            }
        }
        writeln!(out, " exit")?;
    }
    if !view.nets.v6.is_empty() {
        writeln!(out, "object-group v6-network WIFICALL-V6")?;
        for net in &view.nets.v6 {
            match net.prefix_len() {
                128 => writeln!(out, " host {}", net.network())?,
                _ => writeln!(out, " {net}")?,
            }
        }
        writeln!(out, " exit")?;
    }
    Ok(())
}

/// Cisco ASA: one object group for both families.
///
/// # Errors
///
/// Those of the writer.
pub fn cisco_asa(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "!", out)?;
    if view.nets.all().next().is_none() {
        return Ok(());
    }
    writeln!(out, "object-group network WIFICALL")?;
    for net in view.nets.all() {
        match net {
            net if net.prefix_len() == net.max_prefix_len() => {
                writeln!(out, " network-object host {}", net.network())?;
            }
            IpNet::V4(net) => writeln!(out, " network-object {} {}", net.network(), net.netmask())?,
            IpNet::V6(net) => writeln!(out, " network-object {net}")?,
        }
    }
    Ok(())
}

/// MikroTik RouterOS: an address list a family, in place of what is in it.
///
/// # Errors
///
/// Those of the writer.
pub fn mikrotik(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    let nets = [
        (
            "ip",
            view.nets
                .v4
                .iter()
                .copied()
                .map(IpNet::from)
                .collect::<Vec<_>>(),
        ),
        (
            "ipv6",
            view.nets.v6.iter().copied().map(IpNet::from).collect(),
        ),
    ];
    for ((family, nets), selected) in nets.into_iter().zip(view.families) {
        if !selected {
            continue;
        }
        writeln!(out, "/{family} firewall address-list")?;
        writeln!(out, "remove [find list=wificall]")?;
        for net in nets {
            writeln!(out, "add list=wificall address={net}")?;
        }
    }
    Ok(())
}
