//! A report without an agent: what the kernel goes on doing.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{Agent, Interfaces};
use crate::control::{Label, demoted, group};
use crate::kernel::{EndpointMap, Filter, Inspection, Method};
use crate::net::{ClsactState, Link};
use wificall_common::abi::Hook as Where;

use super::{Exit, Hook, Interface, Report, Table};

/// The report of what an instance has left in the kernel, if anything. `roles` are those of the configuration, where one
/// was read; `links` and `clsact` (by interface index) are as the kernel has them now.
#[must_use]
pub fn report(
    agent: &Agent,
    roles: Option<&Interfaces>,
    left: Option<&Inspection>,
    links: &[Link],
    clsact: &BTreeMap<u32, ClsactState>,
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
    report.interfaces = interfaces(left, roles, links, clsact);
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
    report.demoted = demoted(left.demoted);
    report.bleached = left.bleached;
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

fn interfaces(
    left: &Inspection,
    roles: Option<&Interfaces>,
    links: &[Link],
    clsact: &BTreeMap<u32, ClsactState>,
) -> Vec<Interface> {
    let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
    let attached = left
        .links
        .iter()
        .map(|((hook, index), program)| (*hook, *index, link_method(*hook), Some(*program)));
    let filters = left.filters.iter().map(|((hook, index), filter)| {
        let program = clsact
            .get(index)
            .and_then(|state| program(state, *hook, filter));
        (*hook, *index, Method::Clsact, program)
    });
    for (hook, index, method, program) in attached.chain(filters) {
        let interface = interfaces
            .entry(index)
            .or_insert_with(|| interface(index, roles, links));
        match program {
            Some(program_id) => interface.hooks.push(Hook {
                hook: hook.name().into(),
                method: method.name().into(),
                program: String::new(),
                program_id,
            }),
            None if interface.problem.is_none() => {
                interface.problem = Some(format!(
                    "`{}`: somebody has removed our filter at {}, and what passes there is not classified",
                    interface.name,
                    hook.name()
                ));
            }
            None => {}
        }
    }
    interfaces.into_values().collect()
}

/// The kernel's id of the program of one of our clsact filters; `None` if the filter is not there.
fn program(state: &ClsactState, hook: Where, filter: &Filter) -> Option<u32> {
    state
        .filters
        .iter()
        .find(|there| {
            there.ingress == (hook == Where::TcIngress)
                && (there.priority, there.handle) == (filter.priority, filter.handle)
        })
        .and_then(|there| there.bpf_id)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{self, Kind};
    use std::time::Duration;

    fn offline(left: Option<&Inspection>, clsact: &BTreeMap<u32, ClsactState>) -> Report {
        let agent = Agent::of_instance("lab").unwrap();
        let links = [Link {
            index: 3,
            name: "wlan0".into(),
            kind: Kind::Ethernet,
            wireless: true,
            master: None,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: None,
        }];
        let now = UNIX_EPOCH + Duration::from_secs(7);
        report(&agent, None, left, &links, clsact, now)
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let report = offline(None, &BTreeMap::new());
        assert_eq!((report.pid, report.ready, report.at), (None, false, 7));
        assert!(report.problems[0].ends_with("everything passes unclassified"));
    }

    #[test]
    fn links_and_filters_are_told_and_what_is_gone() {
        let filter = Filter {
            priority: 50,
            handle: 1,
            own_qdisc: true,
        };
        let left = Inspection {
            abi: Some(1),
            links: [((Where::Xdp, 3), 40), ((Where::TcIngress, 9), 41)].into(),
            filters: [
                ((Where::TcIngress, 3), filter),
                ((Where::TcEgress, 3), filter),
            ]
            .into(),
            ..Inspection::default()
        };
        let there = net::Filter {
            ingress: true,
            kind: "bpf".into(),
            priority: 50,
            handle: 1,
            bpf_name: None,
            bpf_id: Some(42),
        };
        let clsact = ClsactState {
            qdisc: true,
            filters: vec![there],
            ..ClsactState::default()
        };
        let report = offline(Some(&left), &[(3, clsact)].into());
        let [wlan0, gone] = report.interfaces.as_slice() else {
            panic!("{:?}", report.interfaces);
        };
        let hooks: Vec<_> = wlan0
            .hooks
            .iter()
            .map(|hook| (hook.hook.as_str(), hook.method.as_str(), hook.program_id))
            .collect();
        assert_eq!(hooks, [("xdp", "xdp", 40), ("tc_ingress", "clsact", 42)]);
        assert_eq!((wlan0.role.as_str(), wlan0.wireless), ("unknown", true));
        assert!(wlan0.problem.as_ref().unwrap().contains("at tc_egress"));
        assert_eq!((gone.name.as_str(), gone.role.as_str()), ("#9", "gone"));
        assert_eq!(report.problems.len(), 3);
    }
}
