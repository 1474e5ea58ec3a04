//! A report without an agent: what the kernel goes on doing.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{Agent, Interfaces};
use crate::control::{Label, group};
use crate::kernel::{EndpointMap, Inspection, Method};
use crate::net::Link;
use wificall_common::abi::Hook as Where;

use super::{Exit, Hook, Interface, Report, Table};

/// The report of what an instance has left in the kernel, if anything. `roles` are those of the configuration, where one
/// was read.
#[must_use]
pub fn report(
    agent: &Agent,
    roles: Option<&Interfaces>,
    left: Option<&Inspection>,
    links: &[Link],
    now: SystemTime,
) -> Report {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").into(),
        instance: agent.instance.clone(),
        at: now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        ..Report::default()
    };
    let Some(left) = left else {
        report.problems.push(
            "no agent runs, and nothing of this instance is in the kernel: everything passes unclassified".into(),
        );
        return report;
    };
    report.problems.push(
        "no agent runs: the kernel goes on classifying with the addresses that it has, and nobody looks after them or \
         after the hooks"
            .into(),
    );
    report.abi = left.abi.unwrap_or_default();
    report.interfaces = interfaces(left, roles, links);
    report.problems.extend(
        report
            .interfaces
            .iter()
            .filter_map(|interface| interface.problem.clone()),
    );
    report.groups = left
        .groups
        .iter()
        .map(|(label, counters)| group(&Label::from_abi(label), counters))
        .collect();
    for (hook, exit, frames) in &left.exits {
        report.exits.push(Exit {
            hook: hook.name().into(),
            exit: exit.name().into(),
            frames: *frames,
        });
    }
    for (map, used, size) in &left.endpoints {
        let name = match map {
            EndpointMap::Blocks4 => "ipv4_blocks",
            EndpointMap::Blocks6 => "ipv6_blocks",
            EndpointMap::Hosts => "hosts",
            EndpointMap::Prefixes => "prefixes",
        };
        report.tables.push(Table {
            name: name.into(),
            used: *used,
            size: *size,
            left_out: 0,
        });
    }
    report
}

fn interfaces(left: &Inspection, roles: Option<&Interfaces>, links: &[Link]) -> Vec<Interface> {
    let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
    let attached = left
        .links
        .iter()
        .map(|((hook, index), program)| (*hook, *index, link_method(*hook), *program));
    // A filter's program is known to its qdisc only.
    let filters = left
        .filters
        .keys()
        .map(|(hook, index)| (*hook, *index, Method::Clsact, 0));
    for (hook, index, method, program_id) in attached.chain(filters) {
        let interface = interfaces
            .entry(index)
            .or_insert_with(|| interface(index, roles, links));
        interface.hooks.push(Hook {
            hook: hook.name().into(),
            method: method.name().into(),
            program: String::new(),
            program_id,
        });
    }
    interfaces.into_values().collect()
}

/// How a hook with a pinned link is attached. Whether XDP runs in the driver is not told by its link.
fn link_method(hook: Where) -> Method {
    match hook {
        Where::TcIngress | Where::TcEgress => Method::Tcx,
        Where::Xdp => Method::XdpNative,
    }
}

fn interface(index: u32, roles: Option<&Interfaces>, links: &[Link]) -> Interface {
    let Some(link) = links.iter().find(|link| link.index == index) else {
        return Interface {
            name: format!("#{index}"),
            index,
            role: "gone".into(),
            problem: Some(format!(
                "interface number {index} is gone: what ran there went with it"
            )),
            ..Interface::default()
        };
    };
    let role = roles.map_or("unknown", |roles| {
        if roles.access.iter().any(|glob| glob.matches(&link.name)) {
            "access"
        } else if roles.uplink.iter().any(|glob| glob.matches(&link.name)) {
            "uplink"
        } else {
            "not configured"
        }
    });
    Interface {
        name: link.name.clone(),
        index,
        role: role.into(),
        wireless: link.wireless,
        ..Interface::default()
    }
}
