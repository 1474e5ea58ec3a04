//! The routes of one table, and the default routes that we put there (`linux/rtnetlink.h`).
//!
//! A router may have a million routes, nearly all in its main table: the kernel is only ever asked for one table of ours.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{address, attribute, attributes, dump_strictly, octets, set, u32_at};
use super::{Family, PROTOCOL};

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// Bytes of `struct rtmsg`.
pub(super) const RTMSG: usize = 12;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
/// The table's number does not fit `struct rtmsg`: it is in its attribute.
pub(super) const RT_TABLE_COMPAT: u8 = 252;
const RTM_F_CLONED: u32 = 0x200;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_TABLE: u16 = 15;

/// A route of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The family whose packets it is for.
    pub family: Family,
    /// Its table.
    pub table: u32,
    /// Bits of its destination's prefix: 0 is a default route.
    pub length: u8,
    /// Where it leads.
    pub hop: Hop,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
}

impl Route {
    /// Our default route in a table.
    #[must_use]
    pub const fn own(family: Family, table: u32, hop: Hop) -> Self {
        Self {
            family,
            table,
            length: 0,
            hop,
            protocol: PROTOCOL,
        }
    }

    /// Whether we have made it, by its protocol number and form.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.protocol == PROTOCOL && self.length == 0
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// To a gateway on a link.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// Index of the link.
        ifindex: u32,
    },
    /// To whoever is at the other end of a link.
    Device {
        /// Index of the link.
        ifindex: u32,
    },
    /// Nowhere: the sender is told that the destination is unreachable.
    Unreachable,
    /// Somewhere that no route of ours leads.
    Other,
}

/// The routes of these tables. Tables that do not exist have none.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn routes(tables: &BTreeSet<u32>) -> io::Result<Vec<Route>> {
    let mut found = Vec::new();
    for &table in tables {
        for family in Family::ALL {
            let mut request = vec![0; RTMSG];
            request[0] = family.number();
            request.extend(attribute(RTA_TABLE, &table.to_ne_bytes()));
            match dump_strictly(NETLINK_ROUTE, RTM_GETROUTE, &request).await {
                Ok(answer) => found.extend(
                    answer
                        .iter()
                        .filter(|message| message.kind == RTM_NEWROUTE)
                        .filter_map(|message| parse(&message.payload))
                        .filter(|route| route.table == table),
                ),
                // "FIB table does not exist"
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if super::is_unsupported(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Puts a default route in the place of the one that its table has for its family, or adds it. There is no moment
/// without one.
///
/// # Errors
///
/// The OS error of the netlink request; `Unsupported` for [`Hop::Other`].
pub async fn replace_route(route: &Route) -> io::Result<()> {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    set(NETLINK_ROUTE, RTM_NEWROUTE, flags, &request(route)?).await
}

/// Removes a default route, unless it is gone.
///
/// # Errors
///
/// As [`replace_route`].
pub async fn remove_route(route: &Route) -> io::Result<()> {
    match set(NETLINK_ROUTE, RTM_DELROUTE, 0, &request(route)?).await {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        Err(error) if super::is_unsupported(&error) => Ok(()),
        result => result,
    }
}

fn request(route: &Route) -> io::Result<Vec<u8>> {
    let kind = match route.hop {
        Hop::Gateway { .. } | Hop::Device { .. } => RTN_UNICAST,
        Hop::Unreachable => RTN_UNREACHABLE,
        Hop::Other => return Err(io::ErrorKind::Unsupported.into()),
    };
    let scope = match (route.family, route.hop) {
        (Family::V4, Hop::Device { .. }) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let mut request = vec![0; RTMSG];
    request[0] = route.family.number();
    request[5] = route.protocol;
    request[6] = scope;
    request[7] = kind;
    request.extend(attribute(RTA_TABLE, &route.table.to_ne_bytes()));
    if let Hop::Gateway { address, .. } = route.hop {
        request.extend(attribute(RTA_GATEWAY, &octets(address)));
    }
    if let Hop::Gateway { ifindex, .. } | Hop::Device { ifindex } = route.hop {
        request.extend(attribute(RTA_OIF, &ifindex.to_ne_bytes()));
    }
    Ok(request)
}

/// Reads an `RTM_NEWROUTE` message. `None` if its header is cut short, it is of another family, or no route but a
/// memory of one.
fn parse(payload: &[u8]) -> Option<Route> {
    let [family, length, _, _, table, protocol, _, kind] = *payload.first_chunk()?;
    if u32_at(payload, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let mut route = Route {
        family: Family::of(family)?,
        table: table.into(),
        length,
        hop: Hop::Other,
        protocol,
    };
    let (mut gateway, mut interface) = (None, None);
    for attribute in attributes(payload, RTMSG) {
        match attribute.kind() {
            RTA_TABLE => route.table = u32_at(attribute.value(), 0)?,
            RTA_GATEWAY => gateway = address(attribute.value()),
            RTA_OIF => interface = u32_at(attribute.value(), 0),
            _ => {}
        }
    }
    route.hop = match (kind, gateway, interface) {
        (RTN_UNICAST, Some(address), Some(ifindex)) => Hop::Gateway { address, ifindex },
        (RTN_UNICAST, None, Some(ifindex)) => Hop::Device { ifindex },
        (RTN_UNREACHABLE, ..) => Hop::Unreachable,
        _ => Hop::Other,
    };
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, index, ip};
    use super::*;

    #[test]
    fn a_message_cut_short_is_no_route() {
        let route = Route::own(Family::V6, 70_000, Hop::Device { ifindex: 3 });
        let whole = request(&route).unwrap();
        assert_eq!(parse(&whole), Some(route));
        for length in 0..RTMSG {
            assert_eq!(parse(&whole[..length]), None);
        }
    }

    #[test]
    fn root_default_routes_are_replaced_told_and_removed() {
        in_namespace(|runtime| {
            runtime.block_on(async {
                ip("link add lan0 type veth peer name far0");
                ip("link set far0 up");
                ip("link set lan0 up");
                ip("address add 192.0.2.1/24 dev lan0");
                ip("-6 address add 2001:db8::1/64 dev lan0 nodad");
                let ifindex = index("lan0");
                let tables = BTreeSet::from([101, 70_000]);
                assert_eq!(routes(&tables).await.unwrap(), []);
                let gateway = |text: &str| Hop::Gateway {
                    address: text.parse().unwrap(),
                    ifindex,
                };
                for table in [101, 70_000] {
                    for (family, first, second) in [
                        (Family::V4, "192.0.2.2", "192.0.2.3"),
                        (Family::V6, "2001:db8::2", "fe80::3"),
                    ] {
                        for hop in [
                            gateway(first),
                            gateway(second),
                            Hop::Unreachable,
                            Hop::Device { ifindex },
                            Hop::Unreachable,
                            gateway(second),
                        ] {
                            let route = Route::own(family, table, hop);
                            replace_route(&route).await.unwrap();
                            let found = routes(&[table].into()).await.unwrap();
                            let found: Vec<_> = found
                                .iter()
                                .filter(|route| route.family == family)
                                .collect();
                            assert_eq!(found, [&route]);
                        }
                        let last = Route::own(family, table, gateway(second));
                        remove_route(&last).await.unwrap();
                        remove_route(&last).await.unwrap();
                    }
                }
                assert_eq!(routes(&tables).await.unwrap(), []);
                // What is not ours is told as such.
                ip("route add 198.51.100.0/24 via 192.0.2.9 table 101");
                let others = routes(&tables).await.unwrap();
                assert!(others.len() == 1 && !others[0].is_own(), "{others:?}");
            });
        });
    }

    #[test]
    fn root_only_the_tables_asked_for_are_sent() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            ip("link set lan0 up");
            ip("address add 192.0.2.1/24 dev lan0");
            let batch: String = (0..20_000)
                .map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.2\n", n / 256, n % 256))
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), batch).unwrap();
            ip(&format!("-batch {}", file.path().display()));
            ip("route add default via 192.0.2.2 table 101");
            // Of the kernel's answer itself, before anything of ours has looked at it.
            let mut request = vec![0; RTMSG];
            request[0] = Family::V4.number();
            request.extend(attribute(RTA_TABLE, &101u32.to_ne_bytes()));
            let answer = runtime
                .block_on(dump_strictly(NETLINK_ROUTE, RTM_GETROUTE, &request))
                .unwrap();
            assert_eq!(answer.len(), 1);
        });
    }
}
