//! Who is on an access interface: stations that are associated (`linux/nl80211.h`), or neighbours (`linux/neighbour.h`).

use std::collections::BTreeSet;
use std::io;

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use super::Link;
use super::link::{GENLMSGHDR, NL80211_ATTR_IFINDEX, nl80211};
use super::neighbour::{NDMSG, RTM_GETNEIGH, RTM_NEWNEIGH, link_address};
use super::netlink::{attribute, attributes, dump, u16_at, u32_at};

const NL80211_CMD_GET_STATION: u8 = 17;
const NL80211_CMD_NEW_STATION: u8 = 19;
const NDA_CACHEINFO: u16 = 3;
/// A neighbour that nothing was sent to, and that confirmed nothing, for this long is not counted: the kernel keeps
/// entries for hours where there are few. In clock ticks, 100 a second (`USER_HZ`).
const PRESENT: u32 = 15 * 60 * 100;

/// How many there are, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stations {
    /// Stations associated with an access point, by nl80211.
    Associated(u64),
    /// Link-layer addresses of neighbours that the kernel has used or that have answered within 15 minutes.
    Neighbours(u64),
}

/// Who is on a link. What is behind a bridge is a neighbour only if it talks to this box by IP.
///
/// # Errors
///
/// The OS error of the netlink requests.
pub async fn stations(link: &Link) -> io::Result<Stations> {
    if link.wireless
        && let Some(family) = nl80211().await?
    {
        let mut request = vec![NL80211_CMD_GET_STATION, 0, 0, 0];
        request.extend(attribute(NL80211_ATTR_IFINDEX, &link.index.to_ne_bytes()));
        match dump(NETLINK_GENERIC, family, &request).await {
            Ok(answer) => {
                let stations = answer.iter().filter(|message| message.kind == family);
                let stations = stations.filter(|message| is_station(&message.payload, link.index));
                return Ok(Stations::Associated(stations.count() as u64));
            }
            // A driver that does not tell.
            Err(error) if super::is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let answer = dump(NETLINK_ROUTE, RTM_GETNEIGH, &[0; NDMSG]).await?;
    let present: BTreeSet<[u8; 6]> = answer
        .iter()
        .filter(|message| message.kind == RTM_NEWNEIGH)
        .filter_map(|message| present(&message.payload, link.index))
        .collect();
    Ok(Stations::Neighbours(present.len() as u64))
}

fn is_station(payload: &[u8], ifindex: u32) -> bool {
    let index = attributes(payload, GENLMSGHDR).find(|part| part.kind() == NL80211_ATTR_IFINDEX);
    payload.first() == Some(&NL80211_CMD_NEW_STATION)
        && index.and_then(|part| u32_at(part.value(), 0)) == Some(ifindex)
}

/// The address of a neighbour on this link that was there lately.
fn present(payload: &[u8], ifindex: u32) -> Option<[u8; 6]> {
    /// Multicast, and links without resolution.
    const NUD_NOARP: u16 = 0x40;
    if u32_at(payload, 4)? != ifindex || u16_at(payload, 8)? & NUD_NOARP != 0 {
        return None;
    }
    let times = attributes(payload, NDMSG).find(|part| part.kind() == NDA_CACHEINFO)?;
    let confirmed = u32_at(times.value(), 0)?;
    let used = u32_at(times.value(), 4)?;
    link_address(payload).filter(|_| confirmed.min(used) < PRESENT)
}

#[cfg(test)]
mod tests {
    use super::super::links;
    use super::super::namespace::{in_namespace, ip};
    use super::*;

    const LINK: u32 = 7;
    const NDA_LLADDR: u16 = 2;
    const STALE: u16 = 4;
    const FAILED: u16 = 0x20;

    fn neighbour(ifindex: u32, state: u16, confirmed: u32, used: u32) -> Vec<u8> {
        let mut message = vec![2, 0, 0, 0];
        message.extend(ifindex.to_ne_bytes());
        message.extend(state.to_ne_bytes());
        message.extend([0, 1]);
        message.extend(attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 9]));
        let times = [confirmed, used, used, 0].map(u32::to_ne_bytes);
        message.extend(attribute(NDA_CACHEINFO, &times.concat()));
        message
    }

    #[test]
    fn a_neighbour_is_present_if_it_was_there_lately() {
        let is = |message: &[u8]| present(message, LINK).is_some();
        assert!(is(&neighbour(LINK, STALE, 10 * PRESENT, 100)));
        assert!(is(&neighbour(LINK, STALE, 100, 10 * PRESENT)));
        assert!(!is(&neighbour(LINK, STALE, PRESENT, PRESENT)));
        assert!(!is(&neighbour(LINK, FAILED, 0, 0)));
        assert!(!is(&neighbour(LINK, 0x40, 0, 0)), "multicast");
        assert!(!is(&neighbour(8, STALE, 0, 0)), "another link");
        assert!(!is(&neighbour(LINK, STALE, 0, 0)[..20]));
    }

    #[test]
    fn a_station_is_one_of_this_interface() {
        let mut message = vec![NL80211_CMD_NEW_STATION, 1, 0, 0];
        message.extend(attribute(NL80211_ATTR_IFINDEX, &LINK.to_ne_bytes()));
        message.extend(attribute(6, &[2, 0, 0, 0, 0, 9]));
        assert!(is_station(&message, LINK));
        assert!(!is_station(&message, 8));
        message[0] = 7;
        assert!(!is_station(&message, LINK), "an interface");
        assert!(!is_station(&[], LINK));
    }

    #[test]
    fn root_a_phone_with_two_addresses_is_one() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            ip("link set lan0 up");
            ip("address add 192.0.2.1/24 dev lan0");
            let links = runtime.block_on(links()).unwrap();
            let lan0 = links.iter().find(|link| link.name == "lan0").unwrap();
            let count = || runtime.block_on(stations(lan0)).unwrap();
            assert_eq!(count(), Stations::Neighbours(0));
            ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:07 dev lan0 nud reachable");
            ip("neigh add fe80::7 lladdr 02:00:00:00:00:07 dev lan0 nud reachable");
            ip("neigh add 192.0.2.3 lladdr 02:00:00:00:00:08 dev lan0 nud reachable");
            ip("neigh add 192.0.2.4 lladdr 02:00:00:00:00:09 dev far0 nud reachable");
            assert_eq!(count(), Stations::Neighbours(2));
        });
    }
}
