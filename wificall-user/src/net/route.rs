//! The way out: where packets to the Internet leave (`linux/rtnetlink.h`).

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{attribute, attributes, get, u32_at};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Bytes of `struct rtmsg`.
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// Addresses as far away as any: a root server's (a.root-servers.net). Nothing is sent to them.
const FAR: [&str; 2] = ["198.41.0.4", "2001:503:ba3e::2:30"];

/// The interfaces that packets of this box to the Internet leave by, IPv4 and IPv6; none where there is no route.
///
/// The kernel is asked about one address rather than for its table, which on a router may have a million routes.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn ways_out() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for far in FAR {
        let address: IpAddr = far.parse().map_err(io::Error::other)?;
        match get(NETLINK_ROUTE, RTM_GETROUTE, &request(address)).await {
            Ok(answer) => found.extend(
                answer
                    .iter()
                    .filter(|message| message.kind == RTM_NEWROUTE)
                    .filter_map(|message| parse(&message.payload)),
            ),
            // No route, one that prohibits, or no IPv6 at all.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(
                        libc::ENETUNREACH
                            | libc::EHOSTUNREACH
                            | libc::EACCES
                            | libc::EINVAL
                            | libc::EAFNOSUPPORT
                            | libc::EOPNOTSUPP
                    )
                ) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn request(address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut request = vec![0; RTMSG];
    request[0] = family as u8;
    request[1] = octets.len() as u8 * 8;
    request.extend(attribute(RTA_DST, &octets));
    request
}

/// The outgoing interface of an `RTM_NEWROUTE` message.
fn parse(payload: &[u8]) -> Option<u32> {
    let interface = attributes(payload, RTMSG).find(|attribute| attribute.kind() == RTA_OIF)?;
    u32_at(interface.value(), 0).filter(|index| *index != 0)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, index, ip};
    use super::*;

    #[test]
    fn root_the_way_out_is_that_of_both_families() {
        in_namespace(|runtime| {
            assert!(runtime.block_on(ways_out()).unwrap().is_empty());
            for (name, peer, v4, v6) in [
                ("wan0", "far0", "192.0.2.1/24", "2001:db8::1/64"),
                ("wan1", "far1", "198.51.100.1/24", "2001:db8:1::1/64"),
            ] {
                ip(&format!("link add {name} type veth peer name {peer}"));
                ip(&format!("address add {v4} dev {name}"));
                ip(&format!("-6 address add {v6} dev {name} nodad"));
                ip(&format!("link set {name} up"));
                ip(&format!("link set {peer} up"));
            }
            assert!(runtime.block_on(ways_out()).unwrap().is_empty());
            let (wan0, wan1) = (index("wan0"), index("wan1"));
            ip("route add default via 192.0.2.2");
            assert_eq!(runtime.block_on(ways_out()).unwrap(), [wan0]);
            ip("-6 route add default via 2001:db8:1::2");
            assert_eq!(runtime.block_on(ways_out()).unwrap(), [wan0, wan1]);
            ip("route replace prohibit default");
            assert_eq!(runtime.block_on(ways_out()).unwrap(), [wan1]);
        });
    }
}
