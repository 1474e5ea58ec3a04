//! Tracked connections (`linux/netfilter/nfnetlink_conntrack.h`): those of a tunnel that moves to another exit are
//! forgotten, for they hold the source address that it was translated to there; and which of them pass the programs by.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::Family;
use super::netlink::{Message, address, attribute, attributes, dump, set};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_*`.
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// What of a tuple a dump is to agree with (`net/netfilter/nf_internals.h`, Linux 5.8).
const F_PROTO_NUM: u32 = 1 << 3;
const F_PROTO_SRC_PORT: u32 = 1 << 4;
const F_PROTO_DST_PORT: u32 = 1 << 5;
/// What has the connection's packets, if it is not the stack (`linux/netfilter/nf_conntrack_common.h`).
const IPS_OFFLOAD: u32 = 1 << 14;
const IPS_HW_OFFLOAD: u32 = 1 << 15;
const UDP: u8 = 17;
const ESP: u8 = 50;
const IKE_PORTS: [u16; 2] = [500, 4500];

/// Forgets what is tracked between these clients and endpoints on UDP 500 and 4500 and as ESP; returns how many. Where
/// nothing is tracked, there is nothing to do.
///
/// The kernel sends the connections of those protocols and ports alone.
///
/// # Errors
///
/// The OS error of the netlink requests.
pub async fn forget_connections(tunnels: &BTreeSet<(IpAddr, IpAddr)>) -> io::Result<u64> {
    if tunnels.is_empty() || !is_tracking() {
        return Ok(0);
    }
    let mut forgotten = 0;
    for family in Family::ALL {
        let of_family = |(_, endpoint): &&(IpAddr, IpAddr)| Family::from(*endpoint) == family;
        if !tunnels.iter().any(|tunnel| of_family(&tunnel)) {
            continue;
        }
        for filter in filters() {
            let mut request = header(family);
            request.extend(filter);
            let found = match dump(NETLINK_NETFILTER, CT_GET, &request).await {
                Ok(found) => found,
                // A kernel that tracks but cannot tell by netlink.
                Err(error) if super::is_unsupported(&error) => return Ok(forgotten),
                Err(error) => return Err(error),
            };
            let found = found.iter().filter(|message| message.kind == CT_NEW);
            for message in found.filter(|message| is_of(message, tunnels)) {
                forgotten += u64::from(forget(family, message).await?);
            }
        }
    }
    Ok(forgotten)
}

/// Tracked connections, and those whose packets do not all go by the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloaded {
    /// All.
    pub tracked: u64,
    /// Forwarded by a flowtable in software: TC still sees them, routing no longer decides.
    pub software: u64,
    /// Forwarded by hardware: nothing on this box sees them.
    pub hardware: u64,
}

/// How many connections on UDP 500 and 4500 and of ESP are tracked, and which of them a flowtable has taken over; `None` where nothing is tracked.
///
/// # Errors
///
/// The OS error of the netlink requests.
pub async fn offloaded() -> io::Result<Option<Offloaded>> {
    if !is_tracking() {
        return Ok(None);
    }
    let mut offloaded = Offloaded::default();
    for family in Family::ALL {
        for filter in filters() {
            let mut request = header(family);
            request.extend(filter);
            let found = match dump(NETLINK_NETFILTER, CT_GET, &request).await {
                Ok(found) => found,
                Err(error) if super::is_unsupported(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let found = found.iter().filter(|message| message.kind == CT_NEW);
            found.for_each(|message| offloaded.note(&message.payload));
        }
    }
    Ok(Some(offloaded))
}

impl Offloaded {
    fn note(&mut self, payload: &[u8]) {
        let status = attributes(payload, NFGENMSG).find(|part| part.kind() == CTA_STATUS);
        let status = status.and_then(|part| part.value().try_into().ok());
        let status = status.map_or(0, u32::from_be_bytes);
        self.tracked += 1;
        // The software has those too that the hardware has, as long as it does.
        if status & IPS_HW_OFFLOAD != 0 {
            self.hardware += 1;
        } else if status & IPS_OFFLOAD != 0 {
            self.software += 1;
        }
    }
}

/// Whether connections are tracked: asking by netlink would load the module.
fn is_tracking() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists()
}

/// Removes one; false if it was gone.
async fn forget(family: Family, message: &Message) -> io::Result<bool> {
    let mut request = header(family);
    // The id tells it from one that has come in its place.
    for part in attributes(&message.payload, NFGENMSG)
        .filter(|part| matches!(part.kind(), CTA_TUPLE_ORIG | CTA_ZONE | CTA_ID))
    {
        let nested = if part.kind() == CTA_TUPLE_ORIG {
            NLA_F_NESTED
        } else {
            0
        };
        request.extend(attribute(part.kind() | nested, part.value()));
    }
    match set(NETLINK_NETFILTER, CT_DELETE, 0, &request).await {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn header(family: Family) -> Vec<u8> {
    vec![family.number(), 0, 0, 0]
}

/// A filter for each protocol and port, either side having opened the connection.
fn filters() -> impl Iterator<Item = Vec<u8>> {
    let udp = IKE_PORTS.into_iter().flat_map(|port| {
        [
            filter(UDP, Some((CTA_PROTO_SRC_PORT, port)), F_PROTO_SRC_PORT),
            filter(UDP, Some((CTA_PROTO_DST_PORT, port)), F_PROTO_DST_PORT),
        ]
    });
    udp.chain([filter(ESP, None, 0)])
}

fn filter(protocol: u8, port: Option<(u16, u16)>, flags: u32) -> Vec<u8> {
    let mut proto = attribute(CTA_PROTO_NUM, &[protocol]);
    if let Some((side, port)) = port {
        // The tuple's parser wants both ports; the flags say which one counts.
        for kind in [CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT] {
            let port = if kind == side { port } else { 0 };
            proto.extend(attribute(kind, &port.to_be_bytes()));
        }
    }
    let tuple = attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, &proto);
    let flags = attribute(CTA_FILTER_ORIG_FLAGS, &(F_PROTO_NUM | flags).to_ne_bytes());
    let mut filter = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple);
    filter.extend(attribute(CTA_FILTER | NLA_F_NESTED, &flags));
    filter
}

/// Whether a connection is between the two ends of a tunnel, in either direction.
fn is_of(message: &Message, tunnels: &BTreeSet<(IpAddr, IpAddr)>) -> bool {
    let tuple = attributes(&message.payload, NFGENMSG).find(|part| part.kind() == CTA_TUPLE_ORIG);
    let Some(tuple) = tuple else { return false };
    let Some(ip) = attributes(tuple.value(), 0).find(|part| part.kind() == CTA_TUPLE_IP) else {
        return false;
    };
    let (mut source, mut destination) = (None, None);
    for part in attributes(ip.value(), 0) {
        match part.kind() {
            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = address(part.value()),
            CTA_IP_V4_DST | CTA_IP_V6_DST => destination = address(part.value()),
            _ => {}
        }
    }
    source
        .zip(destination)
        .is_some_and(|(source, destination)| {
            tunnels.contains(&(source, destination)) || tunnels.contains(&(destination, source))
        })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use super::super::namespace::{in_namespace, ip};
    use super::*;

    fn nft(command: &str) {
        let output = Command::new("nft").arg(command).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    fn tracked() -> u32 {
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        count.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_connection_in_hardware_is_not_counted_in_software_too() {
        let mut offloaded = Offloaded::default();
        // Seen reply, assured, confirmed.
        for status in [0xe, 0xe | IPS_OFFLOAD, 0xe | IPS_OFFLOAD | IPS_HW_OFFLOAD] {
            let mut message = header(Family::V4);
            message.extend(attribute(CTA_STATUS, &status.to_be_bytes()));
            offloaded.note(&message);
        }
        let expected = Offloaded {
            tracked: 3,
            software: 1,
            hardware: 1,
        };
        assert_eq!(offloaded, expected);
    }

    #[test]
    fn root_only_the_connections_of_the_tunnels_are_forgotten() {
        in_namespace(|runtime| {
            ip("link set lo up");
            ip("link add wan0 type veth peer name far0");
            for command in ["link set wan0 up", "link set far0 up"] {
                ip(command);
            }
            // The first of each family is the client, the second what it is translated to.
            for address in ["10.1.0.2/24", "10.1.0.3/24", "192.0.2.1/24"] {
                ip(&format!("address add {address} dev wan0"));
            }
            for address in ["fd00:1::2/64", "2001:db8::1/64"] {
                ip(&format!("-6 address add {address} dev wan0 nodad"));
            }
            ip("route add 198.51.100.0/24 via 192.0.2.2");
            ip("-6 route add 2001:db8:5::/64 via 2001:db8::2");
            ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:07 dev wan0");
            ip("-6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:07 dev wan0");
            nft("add table inet nat");
            nft("add chain inet nat post { type nat hook postrouting priority 100 ; }");
            nft("add rule inet nat post oifname wan0 masquerade");
            let send = |from: &str, to: &str| {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                for port in [500, 4500, 53] {
                    socket.send_to(b"x", (to, port)).unwrap();
                }
            };
            send("10.1.0.2", "198.51.100.1");
            send("10.1.0.3", "198.51.100.1");
            send("10.1.0.2", "198.51.100.2");
            send("fd00:1::2", "2001:db8:5::1");
            let raw = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::RAW,
                Some(socket2::Protocol::from(50)),
            )
            .unwrap();
            raw.bind(&std::net::SocketAddr::from(([10, 1, 0, 2], 0)).into())
                .unwrap();
            let to = std::net::SocketAddr::from(([198, 51, 100, 1], 0));
            raw.send_to(&[0; 16], &to.into()).unwrap();
            assert_eq!(tracked(), 13);
            let forget = |client: &str, endpoint: &str| {
                let tunnel = (client.parse().unwrap(), endpoint.parse().unwrap());
                runtime
                    .block_on(forget_connections(&[tunnel].into()))
                    .unwrap()
            };
            assert_eq!(forget("10.1.0.9", "198.51.100.1"), 0);
            assert_eq!(forget("10.1.0.2", "198.51.100.1"), 3);
            assert_eq!(forget("10.1.0.2", "198.51.100.1"), 0);
            assert_eq!(forget("fd00:1::2", "2001:db8:5::1"), 2);
            // DNS of the same ends, another client, another endpoint.
            assert_eq!(tracked(), 8);
            assert_eq!(
                runtime
                    .block_on(forget_connections(&BTreeSet::new()))
                    .unwrap(),
                0
            );
        });
    }
}
