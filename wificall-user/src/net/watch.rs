//! Changes of links, addresses and qdiscs as they happen.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::time::{Instant, timeout_at};

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
}

/// A subscription to the changes of one network namespace.
pub struct Watch {
    socket: TokioSocket,
    pending: BTreeSet<Change>,
    /// When the pending changes are due; set by the first of them.
    due: Option<Instant>,
}

/// Changes come in bursts (a new interface is a dozen messages); this long after the first one they are told, each once.
const COALESCE: Duration = Duration::from_millis(50);
/// Bytes asked for the receive buffer; the kernel caps it at `net.core.rmem_max`.
const BUFFER: u32 = 1 << 20;

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
        })
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
                    .filter_map(|part| change(part.kind, part.payload)),
            ),
            // Unreadable is as good as lost.
            Err(_) => {
                self.pending.insert(Change::Overflow);
            }
        }
    }
}

/// What a message of one of our groups means. `None` for classes, actions, and filters of blocks shared by links.
fn change(message_type: u16, payload: &[u8]) -> Option<Change> {
    const NEWLINK: u16 = 16;
    const DELLINK: u16 = 17;
    const NEWADDR: u16 = 20;
    const DELADDR: u16 = 21;
    const NEWQDISC: u16 = 36;
    const DELQDISC: u16 = 37;
    const NEWTFILTER: u16 = 44;
    const DELTFILTER: u16 = 45;
    const SHARED_BLOCK: u32 = u32::MAX;
    match message_type {
        NEWLINK | DELLINK => Some(Change::Links),
        NEWADDR | DELADDR => Some(Change::Addresses),
        NEWQDISC | DELQDISC | NEWTFILTER | DELTFILTER => u32_at(payload, 4)
            .filter(|&index| index != SHARED_BLOCK)
            .map(|ifindex| Change::Qdiscs { ifindex }),
        _ => None,
    }
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
