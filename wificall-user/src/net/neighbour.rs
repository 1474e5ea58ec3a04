//! What the kernel knows of a neighbour (`linux/neighbour.h`).

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::Family;
use super::netlink::{address, attribute, attributes, dump, get, octets, u16_at, u32_at};

pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;
/// Bytes of `struct ndmsg`.
pub(super) const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States in which the link-layer address is good: `NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE |
/// NUD_DELAY` (`NUD_VALID`).
const NUD_VALID: u16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08;

/// The Ethernet address that the kernel has for a neighbour; `None` if it has none.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn neighbour(ifindex: u32, neighbour: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let mut request = vec![0; NDMSG];
    request[0] = Family::from(neighbour).number();
    request[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    request.extend(attribute(NDA_DST, &octets(neighbour)));
    match get(NETLINK_ROUTE, RTM_GETNEIGH, &request).await {
        Ok(answer) => Ok(answer
            .iter()
            .filter(|message| message.kind == RTM_NEWNEIGH)
            .find_map(|message| link_address(&message.payload))),
        // No such neighbour, no such link any more, or a family that its link does not have.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            ) || super::is_unsupported(&error) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// All addresses of neighbours with the Ethernet addresses that the kernel has for them.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn neighbours() -> io::Result<Vec<(IpAddr, [u8; 6])>> {
    let answer = dump(NETLINK_ROUTE, RTM_GETNEIGH, &[0; NDMSG]).await?;
    let entry = |payload: &[u8]| Some((subject(payload)?.1, link_address(payload)?));
    Ok((answer.iter())
        .filter(|message| message.kind == RTM_NEWNEIGH)
        .filter_map(|message| entry(&message.payload))
        .collect())
}

/// The Ethernet address in a message, if it is a good one.
pub(super) fn link_address(payload: &[u8]) -> Option<[u8; 6]> {
    let valid = u16_at(payload, 8)? & NUD_VALID != 0;
    let attribute = attributes(payload, NDMSG)
        .find(|attribute| attribute.kind() == NDA_LLADDR)
        .filter(|_| valid)?;
    attribute.value().try_into().ok()
}

/// Whom a message is about: link and address.
pub(super) fn subject(payload: &[u8]) -> Option<(u32, IpAddr)> {
    let destination = attributes(payload, NDMSG).find(|attribute| attribute.kind() == NDA_DST)?;
    Some((u32_at(payload, 4)?, address(destination.value())?))
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, index, ip};
    use super::*;

    #[test]
    fn root_a_neighbour_has_the_address_that_the_kernel_has() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            ip("link set lan0 up");
            ip("address add 192.0.2.1/24 dev lan0");
            let lan0 = index("lan0");
            let known = |address: &str| {
                runtime
                    .block_on(neighbour(lan0, address.parse().unwrap()))
                    .unwrap()
            };
            assert_eq!(known("192.0.2.2"), None);
            ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:07 dev lan0 nud stale");
            ip("neigh add fe80::7 lladdr 02:00:00:00:00:08 dev lan0 nud permanent");
            ip("neigh add 192.0.2.3 lladdr 02:00:00:00:00:09 dev lan0 nud failed");
            assert_eq!(known("192.0.2.2"), Some([2, 0, 0, 0, 0, 7]));
            assert_eq!(known("fe80::7"), Some([2, 0, 0, 0, 0, 8]));
            assert_eq!(known("192.0.2.3"), None);
            let mut all = runtime.block_on(neighbours()).unwrap();
            all.retain(|(_, mac)| mac[0] == 2);
            all.sort_unstable();
            let stale = ([192, 0, 2, 2].into(), [2, 0, 0, 0, 0, 7]);
            let permanent = ("fe80::7".parse().unwrap(), [2, 0, 0, 0, 0, 8]);
            assert_eq!(all, [stale, permanent]);
            assert_eq!(
                runtime
                    .block_on(neighbour(9999, [192, 0, 2, 2].into()))
                    .unwrap(),
                None
            );
        });
    }
}
