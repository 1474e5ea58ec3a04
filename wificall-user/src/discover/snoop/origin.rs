//! Where an answer may come from: the uplink or the box itself, and from no client.
//!
//! An answer is seen where it goes out to its client, and the kernel tells which interface it came in on. If
//! `interfaces.uplink` names interfaces, those are the uplink. Otherwise it is what the default routes leave by, unless
//! that is an access interface. If that is a bridge, it is the one port of it that is no access interface: of several, any
//! may have clients behind it, and none counts until the configuration names the uplink.

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
            let ports: Vec<&Link> = links.iter().filter(|l| l.master == Some(*index)).collect();
            if ports.is_empty() {
                if !access.contains(index) {
                    origins.uplinks.insert(*index);
                }
                continue;
            }
            // A packet that the bridge passes on came in on a port; one that is routed came in on the bridge. An access
            // interface above or below is on the clients' side.
            let bridge = links.iter().find(|link| link.index == *index);
            let others: Vec<&&Link> = ports
                .iter()
                .filter(|p| !access.contains(&p.index))
                .collect();
            match others[..] {
                [only] if !access.contains(index) => {
                    origins.uplinks.insert(only.index);
                    // Where every other port is access, what is routed in by the bridge's own address came through one
                    // of them or the uplink, and the kernel does not tell which.
                }
                _ => {
                    let name = bridge.map_or("a bridge", |link| &*link.name);
                    origins.problem = Some(format!(
                        "which port of `{name}` leads to the network is not known, so clients' DNS answers through it do \
                         not count: name it in interfaces.uplink"
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

    fn link(index: u32, name: &str, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Kind::Ethernet,
            wireless: false,
            master,
            parent: None,
            up: true,
            info_kind: None,
        }
    }

    /// 2 wan, 3 wlan0 and 4 lan1 and 5 lan2 in 6 br-lan.
    fn house() -> Vec<Link> {
        vec![
            link(1, "lo", None),
            link(2, "wan", None),
            link(3, "wlan0", Some(6)),
            link(4, "lan1", Some(6)),
            link(5, "lan2", Some(6)),
            link(6, "br-lan", None),
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
        links.push(link(9, "wg0", None));
        assert_eq!(admitted(&links, &[6], None, &[2, 9]), [2, 9]);
        assert_eq!(admitted(&house(), &[6], None, &[]), [0; 0]);
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
        let links = [link(1, "lo", None), link(2, "eth0", None)];
        assert_eq!(admitted(&links, &[2], None, &[2]), [0; 0]);
    }
}
