//! Changes of links, addresses and qdiscs as they happen; where there are exits, also of rules, of the exits' routes and
//! of their gateways as neighbours.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use libc::sock_filter;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::time::{Instant, timeout_at};

use super::fib::{RT_TABLE_COMPAT, RTA_TABLE, RTM_DELROUTE, RTM_NEWROUTE, RTMSG};
use super::filter::{self, DROP, TAKE, TAX, byte, equal, half, load, load_x, word_behind_x};
use super::neighbour::{RTM_DELNEIGH, RTM_NEWNEIGH, subject};
use super::netlink::{parts, receive, u32_at};

/// Something in this namespace is not as it was; read it again to see how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Messages were lost because the socket's buffer was full: anything may have changed.
    Overflow,
    /// A link came, went, or changed.
    Links,
    /// An address came, went, or changed.
    Addresses,
    /// A qdisc or filter of a link came, went, or changed.
    Qdiscs {
        /// Index of the link.
        ifindex: u32,
    },
    /// A policy rule came or went.
    Rules,
    /// A route of a table that is followed came or went.
    Routes,
    /// A gateway that is followed has another state or link-layer address as a neighbour.
    Neighbours,
}

/// A subscription to the changes of one network namespace.
pub struct Watch {
    socket: TokioSocket,
    pending: BTreeSet<Change>,
    /// When the pending changes are due; set by the first of them.
    due: Option<Instant>,
    /// Whether it is subscribed to what exits need.
    steering: bool,
    gateways: BTreeSet<IpAddr>,
}

/// Changes come in bursts (a new interface is a dozen messages); this long after the first one they are told, each once.
const COALESCE: Duration = Duration::from_millis(50);
/// Bytes asked for the receive buffer; the kernel caps it at `net.core.rmem_max`.
const BUFFER: u32 = 1 << 20;

/// `RTNLGRP_NEIGH`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_ROUTE`, `_IPV6_RULE`.
const STEERING_GROUPS: [u32; 5] = [3, 7, 8, 11, 19];
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Subscribes to the changes of the calling thread's network namespace.
///
/// Subscribe first and read the state afterwards: then no change is missed between the two.
///
/// # Errors
///
/// The OS error of opening or binding the socket.
pub fn watch() -> io::Result<Watch> {
    Watch::open(BUFFER)
}

impl Watch {
    fn open(buffer: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_ref().set_rx_buf_sz(buffer)?;
        let groups = [
            RTNLGRP_LINK,
            RTNLGRP_TC,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
        ];
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
        Ok(Self {
            socket,
            pending: BTreeSet::new(),
            due: None,
            steering: false,
            gateways: BTreeSet::new(),
        })
    }

    /// Tells also of rules, of the routes of these tables and of these neighbours, from now on; without tables no more.
    ///
    /// Messages about other tables are dropped in the kernel: a router with the Internet's routes changes hundreds a
    /// second.
    ///
    /// # Errors
    ///
    /// The OS error of setting up the socket.
    pub fn follow(&mut self, tables: &BTreeSet<u32>, gateways: BTreeSet<IpAddr>) -> io::Result<()> {
        self.gateways = gateways;
        let wanted = !tables.is_empty();
        if !wanted && !self.steering {
            return Ok(());
        }
        // Before the groups are joined, so that nothing passes unfiltered.
        let socket = self.socket.socket_ref();
        filter::attach(&socket.as_raw_fd(), &mut only_tables(tables))?;
        for group in STEERING_GROUPS {
            if wanted {
                socket.add_membership(group)?;
            } else {
                socket.drop_membership(group)?;
            }
        }
        self.steering = wanted;
        Ok(())
    }

    /// Waits for the next change. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The OS error of reading the socket. An overflow is a [`Change`], not an error.
    pub async fn next(&mut self) -> io::Result<Change> {
        loop {
            let received = match self.due {
                None => receive(&self.socket).await,
                // Told now even if more keeps arriving: a storm of messages must not hold back the first of them.
                Some(due) if Instant::now() >= due => match self.pending.pop_first() {
                    Some(change) => return Ok(change),
                    None => {
                        self.due = None;
                        continue;
                    }
                },
                Some(due) => match timeout_at(due, receive(&self.socket)).await {
                    Ok(received) => received,
                    Err(_) => continue,
                },
            };
            match received {
                Ok(datagram) => self.take_in(&datagram),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.pending.insert(Change::Overflow);
                }
                Err(error) => return Err(error),
            }
            if !self.pending.is_empty() {
                self.due.get_or_insert_with(|| Instant::now() + COALESCE);
            }
        }
    }

    fn take_in(&mut self, datagram: &[u8]) {
        match parts(datagram) {
            Ok(parts) => self.pending.extend(
                parts
                    .iter()
                    .filter_map(|part| change(part.kind, part.payload, &self.gateways)),
            ),
            // Unreadable is as good as lost.
            Err(_) => {
                self.pending.insert(Change::Overflow);
            }
        }
    }
}

/// What a message of one of our groups means. `None` for classes, actions, and filters of blocks shared by links.
fn change(message_type: u16, payload: &[u8], gateways: &BTreeSet<IpAddr>) -> Option<Change> {
    const NEWLINK: u16 = 16;
    const DELLINK: u16 = 17;
    const NEWADDR: u16 = 20;
    const DELADDR: u16 = 21;
    const NEWQDISC: u16 = 36;
    const DELQDISC: u16 = 37;
    const NEWTFILTER: u16 = 44;
    const DELTFILTER: u16 = 45;
    const NEWRULE: u16 = 32;
    const DELRULE: u16 = 33;
    const SHARED_BLOCK: u32 = u32::MAX;
    match message_type {
        NEWLINK | DELLINK => Some(Change::Links),
        NEWADDR | DELADDR => Some(Change::Addresses),
        NEWQDISC | DELQDISC | NEWTFILTER | DELTFILTER => u32_at(payload, 4)
            .filter(|&index| index != SHARED_BLOCK)
            .map(|ifindex| Change::Qdiscs { ifindex }),
        NEWRULE | DELRULE => Some(Change::Rules),
        // Of other tables there are none: see `only_tables`.
        RTM_NEWROUTE | RTM_DELROUTE => Some(Change::Routes),
        RTM_NEWNEIGH | RTM_DELNEIGH => subject(payload)
            .filter(|(_, address)| gateways.contains(address))
            .map(|_| Change::Neighbours),
        _ => None,
    }
}

/// Bytes of a netlink message header, and where its type stands.
const NLMSGHDR: u32 = 16;
const NLMSG_TYPE: u32 = 4;
const RTMSG_TABLE: u32 = 4;
/// Has a filter find an attribute: from the offset in A, of the kind in X (`SKF_AD_OFF + SKF_AD_NLATTR`).
const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12) as u32;

/// Passes everything but messages about routes of other tables.
fn only_tables(tables: &BTreeSet<u32>) -> Vec<sock_filter> {
    // A filter loads big-endian; netlink is in the machine's order.
    let kind = |kind: u16| u16::from_be_bytes(kind.to_ne_bytes()).into();
    let mut program = vec![
        half(NLMSG_TYPE),
        equal(kind(RTM_NEWROUTE), 2, 0),
        equal(kind(RTM_DELROUTE), 1, 0),
        TAKE,
        byte(NLMSGHDR + RTMSG_TABLE),
    ];
    let (small, large): (Vec<u32>, Vec<u32>) = tables.iter().partition(|table| **table < 256);
    for table in small {
        program.extend([equal(table, 0, 1), TAKE]);
    }
    program.extend([
        equal(RT_TABLE_COMPAT.into(), 1, 0),
        DROP,
        load(NLMSGHDR + RTMSG as u32),
        load_x(RTA_TABLE.into()),
        filter::word(FIND_ATTRIBUTE),
        equal(0, 0, 1),
        DROP,
        TAX,
        word_behind_x(4),
    ]);
    for table in large {
        let table = u32::from_be_bytes(table.to_ne_bytes());
        program.extend([equal(table, 0, 1), TAKE]);
    }
    program.push(DROP);
    program
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use tokio::time::timeout;

    use super::super::namespace::{in_namespace, index, ip, run};
    use super::*;

    /// Everything that is told until half a second of silence.
    async fn told(watch: &mut Watch) -> Vec<Change> {
        let mut told = Vec::new();
        while let Ok(change) = timeout(Duration::from_millis(500), watch.next()).await {
            told.push(change.unwrap());
        }
        told
    }

    #[test]
    fn root_changes_are_told_once_a_burst() {
        in_namespace(|runtime| {
            runtime.block_on(async {
                ip("link add lan0 type veth peer name far0");
                let lan0 = index("lan0");
                let mut watch = watch().unwrap();
                ip("link set lan0 up");
                ip("link set lan0 down");
                assert_eq!(told(&mut watch).await, [Change::Links]);
                ip("address add 192.0.2.1/24 dev lan0");
                ip("address add 192.0.2.2/24 dev lan0");
                assert_eq!(told(&mut watch).await, [Change::Addresses]);
                run("tc", "qdisc add dev lan0 clsact");
                run("tc", "filter add dev lan0 ingress u32 match u8 0 0");
                assert_eq!(told(&mut watch).await, [Change::Qdiscs { ifindex: lan0 }]);
                run("tc", "qdisc del dev lan0 clsact");
                assert_eq!(told(&mut watch).await, [Change::Qdiscs { ifindex: lan0 }]);
                ip("link del lan0");
                assert!(told(&mut watch).await.contains(&Change::Links));
                assert_eq!(told(&mut watch).await, []);
            });
        });
    }

    #[test]
    fn root_what_exits_need_is_told_and_nothing_of_other_tables() {
        in_namespace(|runtime| {
            runtime.block_on(async {
                ip("link add lan0 type veth peer name far0");
                // An address of its own would come whenever it likes.
                ip("link set lan0 addrgenmode none");
                ip("link set far0 addrgenmode none");
                ip("link set far0 up");
                ip("link set lan0 up");
                ip("address add 192.0.2.1/24 dev lan0");
                ip("-6 address add 2001:db8::1/64 dev lan0 nodad");
                let mut watch = watch().unwrap();
                ip("rule add fwmark 1 lookup 101");
                assert_eq!(told(&mut watch).await, [], "not subscribed");
                let gateways = ["192.0.2.2", "fe80::2"].map(|gateway| gateway.parse().unwrap());
                let tables = BTreeSet::from([101, 70_000]);
                watch.follow(&tables, gateways.into()).unwrap();
                ip("rule del fwmark 1 lookup 101");
                assert_eq!(told(&mut watch).await, [Change::Rules]);
                ip("-6 rule add fwmark 1 lookup 101");
                assert_eq!(told(&mut watch).await, [Change::Rules]);
                for ours in [101, 70_000] {
                    for route in [
                        "-4 route add default via 192.0.2.2",
                        "-6 route add default via fe80::2 dev lan0",
                    ] {
                        ip(&format!("{route} table {ours}"));
                        assert_eq!(told(&mut watch).await, [Change::Routes], "{route} {ours}");
                    }
                }
                for other in ["main", "102", "70001", "252"] {
                    for route in [
                        "-4 route add 10.0.0.0/8 via 192.0.2.2",
                        "-6 route add fd00::/64 via fe80::2 dev lan0",
                    ] {
                        ip(&format!("{route} table {other}"));
                    }
                }
                assert_eq!(told(&mut watch).await, []);
                ip("neigh replace 192.0.2.3 lladdr 02:00:00:00:00:07 dev lan0");
                assert_eq!(told(&mut watch).await, []);
                ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:07 dev lan0");
                assert_eq!(told(&mut watch).await, [Change::Neighbours]);
                watch.follow(&BTreeSet::new(), BTreeSet::new()).unwrap();
                ip("rule add fwmark 1 lookup 101");
                ip("route del default table 101");
                assert_eq!(told(&mut watch).await, []);
            });
        });
    }

    #[test]
    fn root_a_storm_of_changes_does_not_hold_them_back() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            thread::scope(|scope| {
                let (stop, stopped) = mpsc::channel::<()>();
                let _guard = runtime.enter();
                let mut watch = watch().unwrap();
                // A thread begins in the namespace of the one that starts it.
                scope.spawn(move || {
                    while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                        ip("link set lan0 up");
                        ip("link set lan0 down");
                    }
                });
                let first = runtime.block_on(timeout(Duration::from_secs(5), watch.next()));
                drop(stop);
                assert_eq!(first.unwrap().unwrap(), Change::Links);
            });
        });
    }

    #[test]
    fn root_an_overflow_is_told_and_survived() {
        in_namespace(|runtime| {
            runtime.block_on(async {
                let mut watch = Watch::open(1).unwrap();
                ip("link add lan0 type veth peer name far0");
                for _ in 0..20 {
                    ip("link set lan0 up");
                    ip("link set lan0 down");
                }
                assert!(told(&mut watch).await.contains(&Change::Overflow));
                ip("address add 192.0.2.1/24 dev lan0");
                assert_eq!(told(&mut watch).await, [Change::Addresses]);
            });
        });
    }
}
