//! Where an answer may come from: the uplink or the box itself, and from no client.
//!
//! An answer is seen where it goes out to its client, and the kernel tells which interface it came in on. If
//! `interfaces.uplink` names interfaces, those are the uplink. Otherwise it is what the default routes leave by, unless
//! that is an access interface. If that is a bridge with clients' ports, it is the one port of it that is no access
//! interface: of several, any may have clients behind it, and none counts until the configuration names the uplink.

use std::collections::BTreeSet;

use crate::net::Link;

/// The loopback interface, whose index is 1 in every network namespace.
const LOOPBACK: u32 = 1;

/// The interfaces that answers may come in on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    uplinks: BTreeSet<u32>,
    /// Why answers through some interface do not count although they might be real.
    pub problem: Option<String>,
}

impl Origins {
    /// Finds them. `access` and `uplink` are the interfaces that the configuration selects in these roles, `named` whether
    /// it names any uplink at all, `routes` the interfaces that default routes leave by.
    #[must_use]
    pub fn new(
        links: &[Link],
        access: &BTreeSet<u32>,
        uplink: &BTreeSet<u32>,
        named: bool,
        routes: &BTreeSet<u32>,
    ) -> Self {
        let mut origins = Self::default();
        if named {
            origins.uplinks.clone_from(uplink);
            return origins;
        }
        for index in routes {
            let of_index = links.iter().find(|link| link.index == *index);
            // The kernel names the bond or the bridge itself for what is routed, and the port for what a bridge passes on
            // between its ports.
            let bridge = of_index.filter(|link| link.info_kind.as_deref() == Some("bridge"));
            let ports = links.iter().filter(|link| link.master == Some(*index));
            let (clients, others): (Vec<&Link>, Vec<&Link>) =
                ports.partition(|port| access.contains(&port.index));
            match (bridge, access.contains(index), &others[..]) {
                (None, false, _) => {
                    origins.uplinks.insert(*index);
                }
                (None, true, _) => {}
                (Some(_), false, _) if clients.is_empty() => {
                    origins.uplinks.insert(*index);
                }
                // What is routed in by the bridge's own address came through this port or a client's, and the kernel
                // does not tell which: it does not count.
                (Some(_), false, [only]) => {
                    origins.uplinks.insert(only.index);
                }
                (Some(bridge), ..) => {
                    origins.problem = Some(format!(
                        "which port of `{}` leads to the network is not known, so clients' DNS answers through it do not \
                         count: name it in interfaces.uplink",
                        bridge.name
                    ));
                }
            }
        }
        origins
    }

    /// Whether an answer that came in on this interface counts.
    #[must_use]
    pub fn admit(&self, ingress_ifindex: u32) -> bool {
        matches!(ingress_ifindex, 0 | LOOPBACK) || self.uplinks.contains(&ingress_ifindex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Kind;

    fn link(index: u32, name: &str, master: Option<u32>, info_kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Kind::Ethernet,
            wireless: false,
            master,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: info_kind.map(str::to_owned),
        }
    }

    /// 2 wan, 3 wlan0 and 4 lan1 and 5 lan2 in 6 br-lan.
    fn house() -> Vec<Link> {
        vec![
            link(1, "lo", None, None),
            link(2, "wan", None, None),
            link(3, "wlan0", Some(6), None),
            link(4, "lan1", Some(6), None),
            link(5, "lan2", Some(6), None),
            link(6, "br-lan", None, Some("bridge")),
        ]
    }

    fn admitted(
        links: &[Link],
        access: &[u32],
        uplink: Option<&[u32]>,
        routes: &[u32],
    ) -> Vec<u32> {
        let set = |indices: &[u32]| indices.iter().copied().collect::<BTreeSet<u32>>();
        let origins = Origins::new(
            links,
            &set(access),
            &set(uplink.unwrap_or_default()),
            uplink.is_some(),
            &set(routes),
        );
        (2..10).filter(|index| origins.admit(*index)).collect()
    }

    #[test]
    fn the_box_itself_always_counts() {
        let origins = Origins::default();
        assert!(origins.admit(0) && origins.admit(1) && !origins.admit(2));
    }

    #[test]
    fn a_named_uplink_is_the_only_one() {
        assert_eq!(admitted(&house(), &[3], Some(&[2]), &[2, 6]), [2]);
        // Named, and not there at the moment: still no other one is.
        assert_eq!(admitted(&house(), &[3], Some(&[]), &[2]), [0; 0]);
    }

    #[test]
    fn a_router_takes_its_default_route_and_no_other_port() {
        assert_eq!(admitted(&house(), &[3], None, &[2]), [2]);
        assert_eq!(admitted(&house(), &[6], None, &[2]), [2]);
        // Two ways out.
        let mut links = house();
        links.push(link(9, "wg0", None, Some("wireguard")));
        assert_eq!(admitted(&links, &[6], None, &[2, 9]), [2, 9]);
        assert_eq!(admitted(&house(), &[6], None, &[]), [0; 0]);
    }

    /// The kernel names the master for whatever came in on a member and is routed.
    #[test]
    fn an_uplink_of_several_ports_is_the_device_above_them() {
        for kind in ["bond", "team", "bridge"] {
            for ports in [1, 2] {
                let mut links = house();
                links[1].master = Some(9);
                links.push(link(8, "eth1", (ports == 2).then_some(9), None));
                links.push(link(9, "up", None, Some(kind)));
                assert_eq!(admitted(&links, &[6], None, &[9]), [9], "{kind} {ports}");
            }
        }
    }

    #[test]
    fn a_bridging_access_point_takes_its_one_other_port() {
        assert_eq!(admitted(&house(), &[3, 5], None, &[6]), [4]);
        // Two that are no access: either may have clients behind it.
        assert_eq!(admitted(&house(), &[3], None, &[6]), [0; 0]);
        let set = |indices: &[u32]| indices.iter().copied().collect::<BTreeSet<u32>>();
        let origins = Origins::new(&house(), &set(&[3]), &set(&[]), false, &set(&[6]));
        assert!(origins.problem.unwrap().contains("`br-lan`"));
    }

    #[test]
    fn a_box_with_one_interface_both_ways_takes_its_own_answers_only() {
        let links = [link(1, "lo", None, None), link(2, "eth0", None, None)];
        assert_eq!(admitted(&links, &[2], None, &[2]), [0; 0]);
    }
}
