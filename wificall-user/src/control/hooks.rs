//! Which programs should run where. Pure.
//!
//! Up is handled where it comes in from phones and down where it goes out to them, so that each packet is handled and
//! counted once. Without an access interface the uplink does both, the other way round. With one, nothing is attached to
//! the uplink: everything there is to do was done on the access side.

use wificall_common::abi::{Features, Hook};

use crate::{
    config::{Glob, Interfaces, TcMode, XdpMode},
    kernel::{Attachment, Method},
    net::{Kind, Link, select, stacked, unmatched},
};

/// Which side an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Towards phones.
    Access,
    /// Towards the network.
    Uplink,
}

impl Role {
    /// The name used in the configuration and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Uplink => "uplink",
        }
    }
}

/// An interface that the configuration selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The interface.
    pub link: Link,
    /// Its role.
    pub role: Role,
    /// Whether its driver reads the WMM user priority from `skb->priority`: the kernel or the configuration says so.
    pub wireless: bool,
    /// What should run there.
    pub attachments: Vec<Attachment>,
    /// Why nothing can.
    pub problem: Option<String>,
}

/// All that the configuration selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The interfaces that exist.
    pub interfaces: Vec<Selected>,
    /// Names and globs that no interface has.
    pub waiting: Vec<String>,
}

/// Selects. `tcx` tells whether the kernel has TCX.
#[must_use]
pub fn selection(config: &Interfaces, links: &[Link], tcx: bool) -> Selection {
    let access = select(&config.access, links);
    let uplink = select(&config.uplink, links);
    let mut interfaces = Vec::new();
    for (role, members) in [(Role::Access, &access), (Role::Uplink, &uplink)] {
        let names: Vec<&str> = members.iter().map(|link| &*link.name).collect();
        let conflicts = stacked(links, &names);
        for link in members {
            let wireless = link.wireless || any(&config.wireless, &link.name);
            let stack = conflicts
                .iter()
                .find(|conflict| conflict.upper == link.name || conflict.lower == link.name);
            let problem = if let Some(conflict) = stack {
                Some(conflict.why.clone())
            } else if role == Role::Uplink && access.iter().any(|other| other.index == link.index) {
                Some(format!(
                    "`{}` is both access and uplink: an interface used both ways is access",
                    link.name
                ))
            } else if let Kind::Unsupported { arphrd } = link.kind {
                Some(format!(
                    "`{}` has a link header of a kind that is not supported (ARPHRD {arphrd}): name the Ethernet, \
                     tun, ppp or WireGuard device that its packets come from",
                    link.name
                ))
            } else if config.tc == TcMode::Tcx && !tcx {
                Some(format!(
                    "`{}` cannot be attached by TCX, which needs Linux 6.6: set interfaces.tc to \"auto\"",
                    link.name
                ))
            } else if link.kind == Kind::NoLinkHeader && any(&config.xdp, &link.name) {
                Some(format!(
                    "`{}` has no link header, and so no XDP: take it out of interfaces.xdp; TC is enough",
                    link.name
                ))
            } else {
                None
            };
            let used = role == Role::Access || config.access.is_empty();
            let attachments = if problem.is_none() && used {
                attachments(config, link, role, wireless, tcx)
            } else {
                Vec::new()
            };
            interfaces.push(Selected {
                link: (*link).clone(),
                role,
                wireless,
                attachments,
                problem,
            });
        }
    }
    let waiting = unmatched(&config.access, links)
        .into_iter()
        .chain(unmatched(&config.uplink, links))
        .map(ToString::to_string)
        .collect();
    Selection {
        interfaces,
        waiting,
    }
}

/// The load-time features that follow from the interfaces.
#[must_use]
pub fn features(config: &Interfaces) -> u32 {
    let counting = if config.access.is_empty() {
        Features::COUNT_UPLINK
    } else {
        Features::COUNT_ACCESS
    };
    let handover = if config.xdp.is_empty() {
        0
    } else {
        Features::HANDOVER
    };
    counting | handover
}

/// TC before XDP: the TC program that trusts XDP's verdicts is to be there before the first one comes. It stays behind XDP
/// in any case: it sets the mark, and classifies what XDP could not (no metadata in the driver, or no XDP at all).
fn attachments(
    config: &Interfaces,
    link: &Link,
    role: Role,
    wireless: bool,
    tcx: bool,
) -> Vec<Attachment> {
    let bare = link.kind == Kind::NoLinkHeader;
    let xdp = any(&config.xdp, &link.name);
    let (ingress, egress) = match (role, bare) {
        (Role::Access, false) if xdp => ("in_up_xdp", "out_down"),
        (Role::Access, false) => ("in_up", "out_down"),
        (Role::Access, true) => ("in_up_bare", "out_down_bare"),
        (Role::Uplink, false) if xdp => ("in_down_xdp", "out_up"),
        (Role::Uplink, false) => ("in_down", "out_up"),
        (Role::Uplink, true) => ("in_down_bare", "out_up_bare"),
    };
    let egress = match egress {
        "out_down" if wireless => "out_down_wifi",
        "out_up" if wireless => "out_up_wifi",
        other => other,
    };
    let method = match config.tc {
        TcMode::Tcx => Method::Tcx,
        TcMode::Clsact => Method::Clsact,
        TcMode::Auto if tcx => Method::Tcx,
        TcMode::Auto => Method::Clsact,
    };
    let attach = |hook, program, method| Attachment {
        ifindex: link.index,
        hook,
        interface: link.name.clone(),
        program,
        method,
    };
    let mut wanted = vec![
        attach(Hook::TcIngress, ingress, method),
        attach(Hook::TcEgress, egress, method),
    ];
    if xdp {
        let program = match role {
            Role::Access => "xdp_up",
            Role::Uplink => "xdp_down",
        };
        let method = match config.xdp_mode {
            XdpMode::Native => Method::XdpNative,
            XdpMode::Generic => Method::XdpGeneric,
        };
        wanted.push(attach(Hook::Xdp, program, method));
    }
    wanted
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn link(index: u32, name: &str, kind: Kind) -> Link {
        Link {
            index,
            name: name.into(),
            kind,
            wireless: name.starts_with("wlan"),
            master: None,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: None,
        }
    }

    fn interfaces(text: &str) -> Interfaces {
        let source = format!("[interfaces]\n{text}\n[discovery]\noperators = [\"262-01\"]\n");
        config::parse(&source, "test.toml".as_ref())
            .unwrap()
            .config
            .interfaces
    }

    /// `interface hook program` of everything that should run.
    fn programs(text: &str, links: &[Link]) -> Vec<String> {
        selection(&interfaces(text), links, true)
            .interfaces
            .into_iter()
            .flat_map(|selected| selected.attachments)
            .map(|wanted| {
                format!(
                    "{} {} {}",
                    wanted.interface,
                    wanted.hook.name(),
                    wanted.program
                )
            })
            .collect()
    }

    fn house() -> [Link; 4] {
        [
            link(1, "wlan0", Kind::Ethernet),
            link(2, "lan", Kind::Ethernet),
            link(3, "wan", Kind::Ethernet),
            link(4, "ppp0", Kind::NoLinkHeader),
        ]
    }

    #[test]
    fn an_access_side_leaves_the_uplink_alone() {
        assert_eq!(
            programs(
                "access = [\"wlan*\", \"lan\"]\nuplink = [\"wan\"]",
                &house()
            ),
            [
                "wlan0 tc_ingress in_up",
                "wlan0 tc_egress out_down_wifi",
                "lan tc_ingress in_up",
                "lan tc_egress out_down",
            ]
        );
    }

    #[test]
    fn an_uplink_alone_does_both_the_other_way_round() {
        assert_eq!(
            programs("uplink = [\"wan\", \"ppp0\"]", &house()),
            [
                "wan tc_ingress in_down",
                "wan tc_egress out_up",
                "ppp0 tc_ingress in_down_bare",
                "ppp0 tc_egress out_up_bare",
            ]
        );
    }

    #[test]
    fn xdp_stands_before_a_program_that_trusts_it() {
        assert_eq!(
            programs("access = [\"lan\", \"ppp0\"]\nxdp = [\"lan\"]", &house()),
            [
                "lan tc_ingress in_up_xdp",
                "lan tc_egress out_down",
                "lan xdp xdp_up",
                "ppp0 tc_ingress in_up_bare",
                "ppp0 tc_egress out_down_bare",
            ]
        );
        assert_eq!(
            programs("uplink = [\"wan\"]\nxdp = [\"wan\"]", &house()),
            [
                "wan tc_ingress in_down_xdp",
                "wan tc_egress out_up",
                "wan xdp xdp_down"
            ]
        );
    }

    #[test]
    fn what_cannot_be_attached_is_said_and_the_rest_is() {
        let mut links = house();
        links[1].kind = Kind::Unsupported { arphrd: 824 };
        let chosen = selection(
            &interfaces("access = [\"lan\", \"wlan?\", \"usb0\"]\nuplink = [\"wl*\"]"),
            &links,
            true,
        );
        let problems: Vec<_> = chosen
            .interfaces
            .iter()
            .map(|selected| (selected.link.name.as_str(), selected.problem.is_some()))
            .collect();
        assert_eq!(problems, [("wlan0", false), ("lan", true), ("wlan0", true)]);
        assert_eq!(chosen.waiting, ["usb0"]);
    }

    #[test]
    fn tcx_is_not_asked_of_a_kernel_without_it() {
        let chosen = selection(
            &interfaces("access = [\"lan\"]\ntc = \"tcx\""),
            &house(),
            false,
        );
        assert!(chosen.interfaces[0].attachments.is_empty());
        assert!(
            chosen.interfaces[0]
                .problem
                .as_ref()
                .unwrap()
                .contains("Linux 6.6")
        );
        let chosen = selection(&interfaces("access = [\"lan\"]"), &house(), false);
        assert!(
            chosen.interfaces[0]
                .attachments
                .iter()
                .all(|wanted| wanted.method == Method::Clsact)
        );
    }
}
