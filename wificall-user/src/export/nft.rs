//! nftables: a table of our own, as a file and as a script.

use std::io::{Result, Write};

use ipnet::IpNet;

use super::set::{Dscp, Kind, Treatment};
use super::steering::Policy;
use super::view::{Nets, View};
use super::{comment, script, unsaid};

/// The table: replaced as a whole and at once.
///
/// # Errors
///
/// Those of the writer.
pub fn table(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    unsaid(view, out)?;
    body(view, out)
}

/// The same in a script for POSIX shells.
///
/// # Errors
///
/// Those of the writer.
pub fn whole_script(view: &View, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "#!/bin/sh")?;
    comment(view, "#", out)?;
    unsaid(view, out)?;
    out.write_all(script::USAGE.as_bytes())?;
    script::exits(view, out)?;
    writeln!(out, "\nmarks_up() {{\n\tnft -f - <<'EOF'")?;
    body(view, out)?;
    out.write_all(b"EOF\n}\n\nmarks_down() {\n\tnft -f - <<'EOF'\nadd table inet wificall\ndelete table inet wificall\nEOF\n}\n")?;
    out.write_all(script::MAIN.as_bytes())
}

fn body(view: &View, out: &mut dyn Write) -> Result<()> {
    let many = view.groups.len() > 1;
    writeln!(
        out,
        "add table inet wificall\ndelete table inet wificall\ntable inet wificall {{"
    )?;
    sets(view, "", &view.nets, out)?;
    for (number, (_, nets)) in (1..).zip(&view.groups) {
        if many {
            sets(view, &format!("_{number}"), nets, out)?;
        }
    }
    for (number, (meaning, _)) in (1..).zip(&view.groups) {
        for (name, up) in [("up", true), ("down", false)] {
            let mut choices = Vec::new();
            for (index, choice) in (1..).zip(&meaning.choices) {
                let policy = view.set.policies.get(choice.policy);
                let conditions = policy.map_or_else(Vec::new, |policy| conditions(policy, up));
                if conditions.is_empty() {
                    continue;
                }
                let chain = format!("{name}_{number}_{index}");
                writeln!(out, "\tchain {chain} {{")?;
                treat(view, &choice.treatment, up, out)?;
                writeln!(out, "\t}}")?;
                let rule = |condition| format!("{condition} goto {chain}");
                choices.extend(conditions.into_iter().map(rule));
            }
            writeln!(out, "\tchain {name}_{number} {{")?;
            if let Some(gateways) = view.left_alone(meaning) {
                for condition in of_clients(gateways, up) {
                    writeln!(out, "\t\t{condition} return")?;
                }
            }
            for rule in choices {
                writeln!(out, "\t\t{rule}")?;
            }
            treat(view, &meaning.treatment, up, out)?;
            writeln!(out, "\t}}")?;
        }
    }
    for (name, end) in [("up", "daddr"), ("down", "saddr")] {
        writeln!(out, "\tchain {name} {{")?;
        for number in 1..=view.groups.len() {
            let suffix = if many {
                format!("_{number}")
            } else {
                String::new()
            };
            for (family, protocol) in families(view) {
                writeln!(
                    out,
                    "\t\t{protocol} {end} @epdg{family}{suffix} goto {name}_{number}"
                )?;
            }
        }
        writeln!(out, "\t}}")?;
    }
    // Before routing, so that marks choose the route.
    out.write_all(
        b"\tchain prerouting {\n\
          \t\ttype filter hook prerouting priority -150; policy accept;\n\
          \t\tudp dport { 500, 4500 } jump up\n\
          \t\tmeta l4proto esp jump up\n\
          \t\tudp sport { 500, 4500 } jump down\n\
          \t\tmeta l4proto esp jump down\n\
          \t}\n}\n",
    )
}

/// The conditions of a policy, of which any is enough. Packets to phones are neither at their interface yet nor sent to
/// their link-layer address.
fn conditions(policy: &Policy, up: bool) -> Vec<String> {
    let mut clients = of_clients(&policy.nets(), up);
    if up {
        clients.extend(one_of("ether saddr", policy.macs()));
    }
    let Some(interfaces) = &policy.interfaces else {
        return clients;
    };
    if !up {
        return Vec::new();
    }
    let names = interfaces
        .iter()
        .map(|interface| format!("iifname \"{}\"", interface.0.with('*')));
    if policy.networks.is_empty() && policy.stations.is_empty() {
        return names.collect();
    }
    names
        .flat_map(|name| clients.iter().map(move |client| format!("{name} {client}")))
        .collect()
}

/// The conditions that a packet is from these clients (up), or to them.
fn of_clients(nets: &Nets, up: bool) -> Vec<String> {
    let end = if up { "saddr" } else { "daddr" };
    let v4 = one_of(
        &format!("ip {end}"),
        nets.v4.iter().map(ToString::to_string),
    );
    let v6 = one_of(
        &format!("ip6 {end}"),
        nets.v6.iter().map(ToString::to_string),
    );
    v4.into_iter().chain(v6).collect()
}

fn one_of(what: &str, elements: impl Iterator<Item = String>) -> Option<String> {
    let elements: Vec<String> = elements.collect();
    (!elements.is_empty()).then(|| format!("{what} {{ {} }}", elements.join(", ")))
}

/// The families that were selected, with the words for their addresses.
fn families(view: &View) -> impl Iterator<Item = (u8, &'static str)> {
    let families = [(4, "ip"), (6, "ip6")].into_iter().zip(view.families);
    families
        .filter(|(_, selected)| *selected)
        .map(|(family, _)| family)
}

fn sets(view: &View, suffix: &str, nets: &Nets, out: &mut dyn Write) -> Result<()> {
    for (family, _) in families(view) {
        let (address, elements): (_, Vec<IpNet>) = match family {
            4 => (
                "ipv4_addr",
                nets.v4.iter().copied().map(IpNet::from).collect(),
            ),
            _ => (
                "ipv6_addr",
                nets.v6.iter().copied().map(IpNet::from).collect(),
            ),
        };
        writeln!(
            out,
            "\tset epdg{family}{suffix} {{\n\t\ttype {address}\n\t\tflags interval"
        )?;
        if !elements.is_empty() {
            writeln!(out, "\t\telements = {{")?;
            for net in elements {
                writeln!(out, "\t\t\t{net},")?;
            }
            writeln!(out, "\t\t}}")?;
        }
        writeln!(out, "\t}}")?;
    }
    Ok(())
}

fn treat(view: &View, treatment: &Treatment, up: bool, out: &mut dyn Write) -> Result<()> {
    if treatment.drop {
        return writeln!(out, "\t\tdrop");
    }
    let Treatment { mark, mask, .. } = treatment;
    if up && *mask != 0 {
        let keep = !mask;
        writeln!(
            out,
            "\t\tmeta mark set meta mark & {keep:#010x} | {mark:#010x}"
        )?;
    }
    let rules = Kind::ALL.map(|kind| treatment.dscp(up, kind));
    let mut write = |select: &str, dscp: Dscp| -> Result<()> {
        for (_, protocol) in families(view) {
            let condition = if dscp.if_default {
                format!("{protocol} dscp 0 ")
            } else {
                String::new()
            };
            let value = dscp.value;
            writeln!(out, "\t\t{select}{condition}{protocol} dscp set {value}")?;
        }
        Ok(())
    };
    if let [Some(first), ..] = rules
        && rules == [Some(first); 3]
    {
        return write("", first);
    }
    let port = if up { "dport" } else { "sport" };
    for (kind, dscp) in Kind::ALL.into_iter().zip(rules) {
        let select = match kind {
            Kind::Ike => format!("udp {port} 500 "),
            Kind::NatT => format!("udp {port} 4500 "),
            Kind::Esp => "meta l4proto esp ".to_owned(),
        };
        if let Some(dscp) = dscp {
            write(&select, dscp)?;
        }
    }
    Ok(())
}
