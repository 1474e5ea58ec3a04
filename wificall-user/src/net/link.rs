//! Links: what there is to attach to, and how they stand on each other (`linux/if_link.h`).

use std::collections::HashSet;
use std::io;

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use super::netlink::{attribute, attributes, dump, get, string, u16_at, u32_at};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, never 0.
    pub index: u32,
    /// Interface name, unique in the namespace at one moment.
    pub name: String,
    /// How its packets begin.
    pub kind: Kind,
    /// nl80211 knows it: its driver takes the user priority from `skb->priority`.
    pub wireless: bool,
    /// Index of the bridge, bond or other device that it is a port of.
    pub master: Option<u32>,
    /// Index of the device below a VLAN, macvlan or ipvlan, if that is in this namespace.
    pub parent: Option<u32>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Up, and with a carrier (`IFF_LOWER_UP`).
    pub running: bool,
    /// The largest packet that it takes, bytes; 0 if not known.
    pub mtu: u32,
    /// Its Ethernet address.
    pub address: Option<[u8; 6]>,
    /// What the driver calls itself: `bridge`, `bond`, `vlan`, `veth`, `tun`…; hardware has none.
    pub info_kind: Option<String>,
}

/// How a packet on the link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With an Ethernet header.
    Ethernet,
    /// With the IP header.
    NoLinkHeader,
    /// With something that the classifier does not read.
    Unsupported {
        /// `ARPHRD_*` of `linux/if_arp.h`.
        arphrd: u16,
    },
}

impl Kind {
    /// The kind that belongs to an `ARPHRD_*` value.
    pub fn of(arphrd: u16) -> Self {
        const ETHER: u16 = 1;
        const PPP: u16 = 512;
        const RAWIP: u16 = 519;
        const LOOPBACK: u16 = 772;
        const NONE: u16 = 0xFFFE;
        match arphrd {
            // The loopback device builds an Ethernet header of zeros (`drivers/net/loopback.c`).
            ETHER | LOOPBACK => Self::Ethernet,
            NONE | PPP | RAWIP => Self::NoLinkHeader,
            arphrd => Self::Unsupported { arphrd },
        }
    }
}

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
/// Statistics are most of a link's message, and unused here.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// The drivers whose `IFLA_LINK` is the device that their packets pass, unencapsulated but for a VLAN tag.
/// For others it is something else: a veth's peer, the device that carries a tunnel.
const STACKED_ON_PARENT: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];

/// All links of this namespace, by index.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn links() -> io::Result<Vec<Link>> {
    let mut request = vec![0; IFINFOMSG];
    request.extend(attribute(
        IFLA_EXT_MASK,
        &RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
    ));
    let wireless = wireless().await?;
    let mut links: Vec<Link> = dump(NETLINK_ROUTE, RTM_GETLINK, &request)
        .await?
        .iter()
        .filter(|message| message.kind == RTM_NEWLINK)
        .filter_map(|message| parse(&message.payload))
        .map(|link| Link {
            wireless: wireless.contains(&link.index),
            ..link
        })
        .collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// Reads an `RTM_NEWLINK` message. `None` if it lacks its header or a name.
fn parse(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: u32_at(payload, 4)?,
        name: String::new(),
        kind: Kind::of(u16_at(payload, 2)?),
        wireless: false,
        master: None,
        parent: None,
        up: u32_at(payload, 8)? & IFF_UP != 0,
        running: u32_at(payload, 8)? & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP,
        mtu: 0,
        address: None,
        info_kind: None,
    };
    let mut elsewhere = false;
    for attribute in attributes(payload, IFINFOMSG) {
        match attribute.kind() {
            IFLA_ADDRESS => link.address = attribute.value().try_into().ok(),
            IFLA_MTU => link.mtu = u32_at(attribute.value(), 0).unwrap_or(0),
            IFLA_IFNAME => link.name = string(attribute.value()),
            IFLA_LINK => link.parent = u32_at(attribute.value(), 0).filter(|&index| index != 0),
            IFLA_MASTER => link.master = u32_at(attribute.value(), 0).filter(|&index| index != 0),
            // The index in `IFLA_LINK` is then one of another namespace.
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_LINKINFO => {
                link.info_kind = attributes(attribute.value(), 0)
                    .find(|attribute| attribute.kind() == IFLA_INFO_KIND)
                    .map(|attribute| string(attribute.value()));
            }
            _ => {}
        }
    }
    let stacked = link
        .info_kind
        .as_deref()
        .is_some_and(|kind| STACKED_ON_PARENT.contains(&kind));
    if elsewhere || !stacked || link.parent == Some(link.index) {
        link.parent = None;
    }
    (!link.name.is_empty()).then_some(link)
}

/// The generic netlink controller (`linux/genetlink.h`).
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `linux/nl80211.h`.
const NL80211_CMD_GET_INTERFACE: u8 = 5;
pub(super) const NL80211_ATTR_IFINDEX: u16 = 3;
/// Bytes of `struct genlmsghdr`: command, version, two reserved.
pub(super) const GENLMSGHDR: usize = 4;

/// Indices of the links that nl80211 knows. Not from sysfs: a mount of it shows the namespace it was mounted in.
async fn wireless() -> io::Result<HashSet<u32>> {
    let Some(family) = nl80211().await? else {
        return Ok(HashSet::new());
    };
    let interfaces = dump(
        NETLINK_GENERIC,
        family,
        &[NL80211_CMD_GET_INTERFACE, 0, 0, 0],
    )
    .await?;
    Ok(interfaces
        .iter()
        .filter_map(|message| wireless_index(&message.payload))
        .collect())
}

/// The number that generic netlink has for nl80211; `None` for a kernel without Wi-Fi.
///
/// # Errors
///
/// The OS error of the netlink request.
pub(super) async fn nl80211() -> io::Result<Option<u16>> {
    let mut request = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    request.extend(attribute(CTRL_ATTR_FAMILY_NAME, b"nl80211\0"));
    let answer = match get(NETLINK_GENERIC, GENL_ID_CTRL, &request).await {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answer.iter().find_map(|message| {
        let attribute = attributes(&message.payload, GENLMSGHDR)
            .find(|attr| attr.kind() == CTRL_ATTR_FAMILY_ID)?;
        u16_at(attribute.value(), 0)
    }))
}

/// The interface index in an nl80211 message; a P2P device has none.
fn wireless_index(payload: &[u8]) -> Option<u32> {
    let attribute = attributes(payload, GENLMSGHDR)
        .find(|attribute| attribute.kind() == NL80211_ATTR_IFINDEX)?;
    u32_at(attribute.value(), 0)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, ip};
    use super::*;

    fn message(index: u32, arphrd: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(arphrd.to_ne_bytes());
        bytes.extend(index.to_ne_bytes());
        bytes.extend(IFF_UP.to_ne_bytes());
        bytes.extend([0; 4]);
        for (kind, value) in parts {
            bytes.extend(attribute(*kind, value));
        }
        bytes
    }

    #[test]
    fn the_kind_follows_the_arphrd() {
        for arphrd in [1, 772] {
            assert_eq!(Kind::of(arphrd), Kind::Ethernet);
        }
        for arphrd in [0xFFFE, 512, 519] {
            assert_eq!(Kind::of(arphrd), Kind::NoLinkHeader);
        }
        assert_eq!(Kind::of(801), Kind::Unsupported { arphrd: 801 });
    }

    #[test]
    fn a_parent_is_one_of_this_namespace_below_a_stacked_device() {
        let kind = |kind: &[u8]| attribute(IFLA_INFO_KIND, kind);
        let lower = 2u32.to_ne_bytes();
        let here = |info: &[u8]| {
            parse(&message(
                7,
                1,
                &[(3, b"x\0"), (IFLA_LINK, &lower), (IFLA_LINKINFO, info)],
            ))
            .unwrap()
        };
        assert_eq!(here(&kind(b"vlan\0")).parent, Some(2));
        assert_eq!(here(&kind(b"macvlan\0")).parent, Some(2));
        assert_eq!(here(&kind(b"veth\0")).parent, None);
        assert_eq!(here(&kind(b"vxlan\0")).parent, None);
        let parts: &[(u16, &[u8])] = &[
            (3, b"x\0"),
            (IFLA_LINK, &lower),
            (IFLA_LINK_NETNSID, &[0; 4]),
            (IFLA_LINKINFO, &kind(b"vlan\0")),
        ];
        assert_eq!(parse(&message(7, 1, parts)).unwrap().parent, None);
    }

    #[test]
    fn a_message_cut_short_is_no_link() {
        let whole = message(7, 1, &[(3, b"lan0\0")]);
        assert_eq!(parse(&whole).unwrap().name, "lan0");
        for length in 0..IFINFOMSG {
            assert_eq!(parse(&whole[..length]), None);
        }
    }

    #[test]
    fn an_nl80211_message_gives_its_index() {
        let mut payload = vec![7, 1, 0, 0];
        payload.extend(attribute(1, &0u32.to_ne_bytes()));
        assert_eq!(wireless_index(&payload), None);
        payload.extend(attribute(NL80211_ATTR_IFINDEX, &4u32.to_ne_bytes()));
        assert_eq!(wireless_index(&payload), Some(4));
    }

    #[test]
    fn root_links_tell_bridge_port_veth_macvlan_and_tun_apart() {
        in_namespace(|runtime| {
            ip("link add br0 type bridge");
            ip("link add port0 type veth peer name far0");
            ip("link set port0 master br0 up");
            ip("link add link far0 name mac0 type macvlan");
            ip("tuntap add dev tun0 mode tun");
            let links = runtime.block_on(links()).unwrap();
            let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
            assert_eq!(link("lo").kind, Kind::Ethernet);
            assert_eq!(link("lo").info_kind, None);
            assert_eq!(link("br0").info_kind.as_deref(), Some("bridge"));
            assert_eq!(link("port0").master, Some(link("br0").index));
            assert_eq!(link("port0").parent, None);
            assert!(link("port0").up && !link("far0").up);
            // Its peer is down.
            assert!(!link("port0").running && link("lo").address == Some([0; 6]));
            assert_eq!((link("port0").mtu, link("tun0").mtu), (1500, 1500));
            assert!(link("port0").address.is_some() && link("tun0").address.is_none());
            assert_eq!(link("mac0").parent, Some(link("far0").index));
            assert_eq!(link("tun0").kind, Kind::NoLinkHeader);
            assert!(links.iter().all(|link| !link.wireless));
            assert!(links.is_sorted_by_key(|link| link.index));
        });
    }

    #[test]
    fn root_a_parent_in_another_namespace_is_not_one_of_ours() {
        in_namespace(|runtime| {
            ip("link add base0 type veth peer name base1");
            ip("link add link base0 name mac0 type macvlan");
            let inner = std::thread::scope(|scope| {
                // A macvlan moved to a child namespace keeps its parent's index, which means nothing there.
                let (ready, wait) = std::sync::mpsc::channel();
                let (moved, moving) = std::sync::mpsc::channel();
                let child = scope.spawn(move || {
                    in_namespace(move |runtime| {
                        // SAFETY: gettid has no preconditions.
                        ready.send(unsafe { libc::gettid() }).unwrap();
                        moving.recv().unwrap();
                        runtime.block_on(links()).unwrap()
                    })
                });
                let thread = wait.recv().unwrap();
                ip(&format!(
                    "link set mac0 netns /proc/{}/task/{thread}/ns/net",
                    std::process::id()
                ));
                moved.send(()).unwrap();
                child.join().unwrap()
            });
            let mac = inner.iter().find(|link| link.name == "mac0").unwrap();
            assert_eq!(
                (mac.parent, mac.info_kind.as_deref()),
                (None, Some("macvlan"))
            );
            runtime.block_on(links()).unwrap();
        });
    }
}
