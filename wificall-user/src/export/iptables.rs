//! ipset and iptables: sets and chains of our own, as files to restore and as a script.

use std::io::{Result, Write};

use ipnet::IpNet;

use super::set::{Dscp, Kind, Treatment};
use super::steering::Policy;
use super::view::{Meaning, Nets, View};
use super::{comment, script, unsaid};

/// More than an agent's memory holds, cut into prefixes. The same for every set: one that is there with another size could
/// not be swapped in place.
const ELEMENTS: u32 = 1 << 20;

/// Sets for `ipset restore`: filled beside those in use, and swapped with them.
///
/// # Errors
///
/// Those of the writer.
pub fn sets(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    set_lines(view, out)
}

/// Chains for `iptables-restore --noflush` and `ip6tables-restore --noflush`: rules of the other family are left out by
/// either (`-4`, `-6`).
///
/// # Errors
///
/// Those of the writer.
pub fn rules(view: &View, out: &mut dyn Write) -> Result<()> {
    comment(view, "#", out)?;
    unsaid(view, out)?;
    writeln!(out, "*mangle")?;
    for chain in chains(view) {
        writeln!(out, ":{chain} - [0:0]")?;
    }
    rule_lines(view, out)
}

/// Both in a script for POSIX shells.
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
    let names: Vec<String> = set_names(view).map(|(name, ..)| name).collect();
    writeln!(out, "\nsets='{}'", names.join(" "))?;
    writeln!(out, "chains='{}'\n", chains(view).join(" "))?;
    writeln!(out, "elements() {{\n\tcat <<'EOF'")?;
    set_lines(view, out)?;
    writeln!(out, "EOF\n}}\n\nrules() {{\n\tcat <<'EOF'")?;
    rule_lines(view, out)?;
    writeln!(out, "EOF\n}}")?;
    out.write_all(SCRIPT.as_bytes())?;
    out.write_all(script::MAIN.as_bytes())
}

const SCRIPT: &str = r#"
# The programs that work here.
programs() {
	for program in iptables ip6tables; do
		if "$program" -w -t mangle -S >/dev/null 2>&1; then
			echo "$program"
		else
			echo "$program does not work here: nothing is set up for it" >&2
		fi
	done
}

# Our chains that are there.
chains_of() {
	"$1" -w -t mangle -S | sed -n 's/^-N \(WIFICALL[A-Z0-9_]*\)$/\1/p'
}

# Our sets that are there.
sets_there() {
	ipset list -n | sed -n '/^wificall[46]\(_[0-9]*\)\{0,1\}$/p'
}

marks_up() {
	elements | ipset restore
	found=$(programs)
	[ -n "$found" ] || exit 1
	for program in $found; do
		# Asked before the lock is taken for what follows.
		there=$(chains_of "$program")
		{
			echo '*mangle'
			printf ':%s - [0:0]\n' $chains $there | sort -u
			rules
		} | "$program-restore" -w --noflush
		"$program" -w -t mangle -C PREROUTING -j WIFICALL 2>/dev/null ||
			"$program" -w -t mangle -I PREROUTING -j WIFICALL
		# What is left of an earlier one.
		for chain in $(chains_of "$program"); do
			case " $chains " in
			*" $chain "*) ;;
			*) "$program" -w -t mangle -X "$chain" ;;
			esac
		done
	done
	for set in $(sets_there); do
		case " $sets " in
		*" $set "*) ;;
		*) ipset destroy "$set" ;;
		esac
	done
}

marks_down() {
	for program in $(programs); do
		while "$program" -w -t mangle -D PREROUTING -j WIFICALL 2>/dev/null; do :; done
		for chain in $(chains_of "$program"); do
			"$program" -w -t mangle -F "$chain"
		done
		for chain in $(chains_of "$program"); do
			"$program" -w -t mangle -X "$chain"
		done
	done
	for set in $(sets_there); do
		ipset destroy "$set"
	done
}
"#;

/// The families that were selected, as `ipset` calls them.
fn families(view: &View) -> impl Iterator<Item = (u8, &'static str)> + use<> {
    let families = [(4, "inet"), (6, "inet6")].into_iter().zip(view.families);
    families
        .filter(|(_, selected)| *selected)
        .map(|(family, _)| family)
}

/// What comes after the family in the name of a group's set: the set of everything is that of the only group.
fn suffix(view: &View, number: usize) -> String {
    if view.groups.len() > 1 {
        format!("_{number}")
    } else {
        String::new()
    }
}

fn set_names(view: &View) -> impl Iterator<Item = (String, &'static str, Vec<IpNet>)> {
    let several = (view.groups.len() > 1).then_some(&view.groups);
    let groups = several.into_iter().flatten().zip(1..);
    let groups = groups.map(|((_, nets), number)| (suffix(view, number), nets));
    let all = [(String::new(), &view.nets)];
    all.into_iter()
        .chain(groups)
        .flat_map(|(suffix, nets): (String, &Nets)| {
            families(view).map(move |(number, family)| {
                let nets = match number {
                    4 => nets.v4.iter().copied().map(IpNet::from).collect(),
                    _ => nets.v6.iter().copied().map(IpNet::from).collect(),
                };
                (format!("wificall{number}{suffix}"), family, nets)
            })
        })
}

fn set_lines(view: &View, out: &mut dyn Write) -> Result<()> {
    for (name, family, nets) in set_names(view) {
        for name in [&name, &format!("{name}.new")] {
            writeln!(
                out,
                "create {name} hash:net family {family} maxelem {ELEMENTS} -exist"
            )?;
        }
        writeln!(out, "flush {name}.new")?;
        for net in nets {
            writeln!(out, "add {name}.new {net}")?;
        }
        writeln!(out, "swap {name}.new {name}\ndestroy {name}.new")?;
    }
    Ok(())
}

fn chains(view: &View) -> Vec<String> {
    let mut chains = ["WIFICALL", "WIFICALL_UP", "WIFICALL_DOWN"]
        .map(str::to_owned)
        .to_vec();
    for (number, (meaning, _)) in (1..).zip(&view.groups) {
        for (name, up) in [("UP", true), ("DOWN", false)] {
            chains.push(format!("WIFICALL_{name}_{number}"));
            chains.extend(
                choices(view, meaning, up)
                    .map(|(index, ..)| format!("WIFICALL_{name}_{number}_{index}")),
            );
        }
    }
    chains
}

/// The choices that can be said, with their number, their conditions and what packets get.
fn choices<'a>(
    view: &'a View,
    meaning: &'a Meaning,
    up: bool,
) -> impl Iterator<Item = (usize, Vec<String>, &'a Treatment)> {
    let all = (1..).zip(&meaning.choices);
    all.filter_map(move |(index, choice)| {
        let conditions = conditions(view.set.policies.get(choice.policy)?, up);
        (!conditions.is_empty()).then_some((index, conditions, &choice.treatment))
    })
}

/// The conditions of a policy, of which any is enough. Packets to phones are neither at their interface yet nor sent to
/// their link-layer address.
fn conditions(policy: &Policy, up: bool) -> Vec<String> {
    let mut clients = of_clients(&policy.nets(), up);
    if up {
        clients.extend(
            policy
                .macs()
                .map(|mac| format!("-m mac --mac-source {mac}")),
        );
    }
    let Some(interfaces) = &policy.interfaces else {
        return clients;
    };
    if !up {
        return Vec::new();
    }
    let names = interfaces
        .iter()
        .map(|interface| format!("-i {}", interface.0.with('+')));
    if policy.networks.is_empty() && policy.stations.is_empty() {
        return names.collect();
    }
    names
        .flat_map(|name| clients.iter().map(move |client| format!("{client} {name}")))
        .collect()
}

/// The conditions that a packet is from these clients (up), or to them.
fn of_clients(nets: &Nets, up: bool) -> Vec<String> {
    let end = if up { "-s" } else { "-d" };
    let v4 = nets.v4.iter().map(|net| format!("-4 {end} {net}"));
    let v6 = nets.v6.iter().map(|net| format!("-6 {end} {net}"));
    v4.chain(v6).collect()
}

fn rule_lines(view: &View, out: &mut dyn Write) -> Result<()> {
    out.write_all(
        b"-A WIFICALL -p udp -m multiport --dports 500,4500 -j WIFICALL_UP\n\
          -A WIFICALL -p esp -j WIFICALL_UP\n\
          -A WIFICALL -p udp -m multiport --sports 500,4500 -j WIFICALL_DOWN\n\
          -A WIFICALL -p esp -j WIFICALL_DOWN\n",
    )?;
    for (number, (meaning, _)) in (1..).zip(&view.groups) {
        let suffix = suffix(view, number);
        for (name, up, end) in [("UP", true, "dst"), ("DOWN", false, "src")] {
            for (family, _) in families(view) {
                writeln!(
                    out,
                    "-A WIFICALL_{name} -{family} -m set --match-set wificall{family}{suffix} {end} \
                     -g WIFICALL_{name}_{number}"
                )?;
            }
            let chain = format!("WIFICALL_{name}_{number}");
            for condition in
                (view.left_alone(meaning).into_iter()).flat_map(|nets| of_clients(nets, up))
            {
                writeln!(out, "-A {chain} {condition} -j RETURN")?;
            }
            for (index, conditions, treatment) in choices(view, meaning, up) {
                for condition in conditions {
                    writeln!(out, "-A {chain} {condition} -g {chain}_{index}")?;
                }
                treat(&format!("{chain}_{index}"), treatment, up, out)?;
            }
            treat(&chain, &meaning.treatment, up, out)?;
        }
    }
    writeln!(out, "COMMIT")
}

fn treat(chain: &str, treatment: &Treatment, up: bool, out: &mut dyn Write) -> Result<()> {
    if treatment.drop {
        return writeln!(out, "-A {chain} -j DROP");
    }
    let Treatment { mark, mask, .. } = treatment;
    if up && *mask != 0 {
        writeln!(out, "-A {chain} -j MARK --set-xmark {mark:#x}/{mask:#x}")?;
    }
    let rules = Kind::ALL.map(|kind| treatment.dscp(up, kind));
    let mut write = |select: &str, dscp: Dscp| {
        let condition = if dscp.if_default {
            "-m dscp --dscp 0 "
        } else {
            ""
        };
        let value = dscp.value;
        writeln!(
            out,
            "-A {chain} {select}{condition}-j DSCP --set-dscp {value}"
        )
    };
    if let [Some(first), ..] = rules
        && rules == [Some(first); 3]
    {
        return write("", first);
    }
    let port = if up { "dport" } else { "sport" };
    for (kind, dscp) in Kind::ALL.into_iter().zip(rules) {
        let select = match kind {
            Kind::Ike => format!("-p udp --{port} 500 "),
            Kind::NatT => format!("-p udp --{port} 4500 "),
            Kind::Esp => "-p esp ".to_owned(),
        };
        if let Some(dscp) = dscp {
            write(&select, dscp)?;
        }
    }
    Ok(())
}
