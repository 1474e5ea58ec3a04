//! The box's own addresses and the networks that it is part of (`linux/if_addr.h`).

use std::io;

use ipnet::IpNet;
use netlink_packet_core::parse_ip;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{attributes, dump, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// Bytes of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// All addresses of this namespace with their prefix lengths, host bits kept, beside the index of their link.
///
/// An address with a peer (point-to-point) gives two: itself alone, and the peer with the prefix length.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn addresses() -> io::Result<Vec<(u32, IpNet)>> {
    let answer = dump(NETLINK_ROUTE, RTM_GETADDR, &[0; IFADDRMSG]).await?;
    let messages = answer.iter().filter(|message| message.kind == RTM_NEWADDR);
    Ok(messages
        .flat_map(|message| parse(&message.payload))
        .collect())
}

/// Reads an `RTM_NEWADDR` message; nothing if it is cut short.
fn parse(payload: &[u8]) -> Vec<(u32, IpNet)> {
    let (Some(&length), Some(index)) = (payload.get(1), u32_at(payload, 4)) else {
        return Vec::new();
    };
    let ip = |kind| {
        let attribute =
            attributes(payload, IFADDRMSG).find(|attribute| attribute.kind() == kind)?;
        parse_ip(attribute.value()).ok()
    };
    let nets = match (ip(IFA_LOCAL), ip(IFA_ADDRESS)) {
        (Some(local), Some(peer)) if local != peer => {
            vec![Ok(IpNet::from(local)), IpNet::new(peer, length)]
        }
        (Some(own), _) | (None, Some(own)) => vec![IpNet::new(own, length)],
        (None, None) => Vec::new(),
    };
    nets.into_iter()
        .flatten()
        .map(|net: IpNet| (index, net))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, index, ip};
    use super::*;

    #[test]
    fn a_message_cut_short_gives_nothing() {
        assert_eq!(parse(&[2, 24, 0, 0, 5, 0, 0]), []);
        assert_eq!(parse(&[2, 24, 0, 0, 5, 0, 0, 0]), []);
    }

    #[test]
    fn root_addresses_have_their_prefix_and_link() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            ip("address add 192.0.2.1/24 dev lan0");
            ip("address add 198.51.100.1 peer 203.0.113.7/32 dev lan0");
            ip("-6 address add 2001:db8::1/64 dev lan0 nodad");
            let lan0 = index("lan0");
            let mut found = runtime.block_on(addresses()).unwrap();
            found.sort();
            let expected = [
                "192.0.2.1/24",
                "198.51.100.1/32",
                "203.0.113.7/32",
                "2001:db8::1/64",
            ];
            assert_eq!(found, expected.map(|net| (lan0, net.parse().unwrap())));
        });
    }
}
