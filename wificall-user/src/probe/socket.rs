//! The socket of one exchange: connected UDP, with the ICMP errors that come back.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::exchange::{Exchange, Setup, Step, Timing};
use super::keys::{Group, Keys};
use super::outcome::{Finding, Icmp};

/// An answer to IKE_SA_INIT is a few hundred bytes; what does not fit is cut and found malformed.
const DATAGRAM_MAX: usize = 4096;

/// A `struct sock_extended_err` and a `struct sockaddr_in6`.
const ERROR_MAX: usize = 16 + 28;

/// Where probes leave from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The fwmark of what is sent (`SO_MARK`), by which the box's rules choose its route.
    pub mark: Option<u32>,
}

/// Makes one exchange with `remote`, from the first datagram to the finding.
pub async fn probe(
    remote: SocketAddr,
    source: Source,
    group: Group,
    timing: Timing,
    redirected_from: Option<IpAddr>,
    keys: &Arc<Keys>,
) -> Finding {
    let socket = match connect(remote, source) {
        Ok(socket) => socket,
        Err(error) => return Finding::failed(error),
    };
    let local = match socket.local_addr() {
        Ok(local) => local,
        Err(error) => return Finding::failed(format!("read the local address: {error}")),
    };
    let setup = Setup {
        local,
        remote,
        group,
        timing,
        redirected_from,
    };
    run(&socket, setup, keys).await
}

fn connect(remote: SocketAddr, source: Source) -> Result<UdpSocket, String> {
    let operation = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::DGRAM,
        Some(Protocol::UDP),
    )
    .map_err(operation("make a UDP socket"))?;
    if let Some(mark) = source.mark {
        socket
            .set_mark(mark)
            .map_err(|error| format!("set the mark {mark:#x}: {error} (it needs CAP_NET_ADMIN)"))?;
    }
    report_errors(&socket, remote).map_err(operation("ask for ICMP errors"))?;
    socket
        .set_nonblocking(true)
        .map_err(operation("make the socket non-blocking"))?;
    socket
        .connect(&remote.into())
        .map_err(operation(&format!("find a route to {}", remote.ip())))?;
    UdpSocket::from_std(StdUdpSocket::from(socket)).map_err(operation("watch the socket"))
}

/// Has all ICMP errors queued, also those that a connected socket would not tell of (ip(7), `IP_RECVERR`).
fn report_errors(socket: &Socket, remote: SocketAddr) -> io::Result<()> {
    let (level, option) = match remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

async fn run(socket: &UdpSocket, setup: Setup, keys: &Arc<Keys>) -> Finding {
    let (mut exchange, datagram) = Exchange::new(setup, keys.clone(), Instant::now());
    let mut step = Step::Send(datagram);
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        step = match step {
            Step::Done(finding) => return *finding,
            Step::Send(datagram) => match send(socket, &datagram, &mut exchange).await {
                Ok(step) => step,
                Err(error) => return Finding::failed(format!("send: {error}")),
            },
            Step::Wait => tokio::select! {
                ready = socket.ready(Interest::READABLE | Interest::ERROR) => match ready {
                    Ok(ready) if ready.is_error() => take_errors(socket, &mut exchange),
                    Ok(_) => take_datagram(socket, &mut buffer, &mut exchange),
                    Err(error) => return Finding::failed(format!("wait: {error}")),
                },
                () = sleep_until(exchange.due().into()) => exchange.timeout(Instant::now()),
            },
        };
    }
}

/// Sends. An error may be that of an earlier datagram, and then lies in the queue.
async fn send(socket: &UdpSocket, datagram: &[u8], exchange: &mut Exchange) -> io::Result<Step> {
    let now = Instant::now();
    match socket.send(datagram).await {
        Ok(_) => {
            exchange.left(now);
            Ok(Step::Wait)
        }
        Err(error) => match queued_error(socket.as_raw_fd()) {
            Ok(Queued::Icmp(icmp)) => Ok(exchange.icmp(icmp)),
            // The datagram is too large for the path: the next one is sent in fragments.
            Ok(Queued::Size) => Ok(Step::Wait),
            Ok(Queued::Other) | Err(_) => Err(error),
        },
    }
}

fn take_errors(socket: &UdpSocket, exchange: &mut Exchange) -> Step {
    match socket.try_io(Interest::ERROR, || queued_error(socket.as_raw_fd())) {
        Ok(Queued::Icmp(icmp)) => exchange.icmp(icmp),
        // An empty queue: the readiness is cleared by that.
        Ok(Queued::Size | Queued::Other) | Err(_) => Step::Wait,
    }
}

fn take_datagram(socket: &UdpSocket, buffer: &mut [u8], exchange: &mut Exchange) -> Step {
    match socket.try_recv(buffer) {
        Ok(length) => exchange.datagram(&buffer[..length], Instant::now()),
        // Nothing after all, or an error that is in the queue as well.
        Err(_) => Step::Wait,
    }
}

/// An entry of a socket's error queue.
#[derive(Debug, PartialEq, Eq)]
enum Queued {
    Icmp(Icmp),
    /// The datagram was too large.
    Size,
    Other,
}

/// Takes one entry from the socket's error queue (ip(7), `IP_RECVERR`).
fn queued_error(socket: RawFd) -> io::Result<Queued> {
    // More than an error and the address of its sender take; aligned as control messages want it.
    let mut control = [0_u64; 64];
    // SAFETY: all-zero is a valid msghdr: null pointers and no lengths.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to `control`, whose size it gives; no data and no name are asked for.
    let received = unsafe {
        libc::recvmsg(
            socket,
            &raw mut message,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the header and the control messages in it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers inside `control`, or null.
        let (header, data) = unsafe { (*next, libc::CMSG_DATA(next)) };
        let about = (header.cmsg_level, header.cmsg_type);
        if about == (libc::SOL_IP, libc::IP_RECVERR)
            || about == (libc::SOL_IPV6, libc::IPV6_RECVERR)
        {
            let end = control.as_ptr_range().end as usize;
            let length = ERROR_MAX.min(end.saturating_sub(data as usize));
            // SAFETY: `data` points into `control`, which outlives this use, and the length ends in it. What the kernel
            // has not written there is zero.
            let data = unsafe { std::slice::from_raw_parts(data, length) };
            return Ok(extended_error(data));
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok(Queued::Other)
}

/// Reads a `struct sock_extended_err` (linux/errqueue.h) and the `sockaddr` of the offender behind it.
fn extended_error(data: &[u8]) -> Queued {
    const ORIGIN_ICMP: u8 = 2;
    const ORIGIN_ICMP6: u8 = 3;
    let [a, b, c, d, origin, kind, code, _, rest @ ..] = data else {
        return Queued::Other;
    };
    if i32::from_ne_bytes([*a, *b, *c, *d]) == libc::EMSGSIZE {
        return Queued::Size;
    }
    let v6 = match *origin {
        ORIGIN_ICMP => false,
        ORIGIN_ICMP6 => true,
        _ => return Queued::Other,
    };
    // Info and data, then the address: family, port (and flow), address.
    let from = rest.get(8..).and_then(|name| {
        let family = u16::from_ne_bytes([*name.first()?, *name.get(1)?]);
        match i32::from(family) {
            libc::AF_INET => {
                let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(octets)))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)))
            }
            _ => None,
        }
    });
    Queued::Icmp(Icmp {
        v6,
        kind: *kind,
        code: *code,
        from,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::{Verdict, system_random};

    #[test]
    fn errors_are_read_byte_by_byte() {
        let mut bytes = 111_i32.to_ne_bytes().to_vec();
        bytes.extend([2, 3, 3, 0]);
        bytes.extend([0; 8]);
        bytes.extend((libc::AF_INET as u16).to_ne_bytes());
        bytes.extend([0, 0, 192, 0, 2, 1]);
        let read = |bytes: &[u8]| extended_error(bytes);
        let icmp = |from| {
            Queued::Icmp(Icmp {
                v6: false,
                kind: 3,
                code: 3,
                from,
            })
        };
        assert_eq!(read(&bytes), icmp(Some("192.0.2.1".parse().unwrap())));
        assert_eq!(read(&bytes[..20]), icmp(None));
        for length in 0..8 {
            assert_eq!(read(&bytes[..length]), Queued::Other);
        }
        bytes[4] = 1;
        assert_eq!(read(&bytes), Queued::Other, "of this host");
        bytes[..4].copy_from_slice(&libc::EMSGSIZE.to_ne_bytes());
        assert_eq!(read(&bytes), Queued::Size);
    }

    /// Nobody listens on a port of this host: its own ICMP error comes back, over IPv4 and IPv6.
    #[tokio::test]
    async fn a_closed_port_says_so_at_once() {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            // Free a moment ago, and given out again last of all.
            let free = StdUdpSocket::bind((address, 0)).unwrap();
            let remote = free.local_addr().unwrap();
            drop(free);
            let start = Instant::now();
            let keys = Arc::new(Keys::new(system_random));
            let finding = probe(
                remote,
                Source::default(),
                Group::X25519,
                Timing::default(),
                None,
                &keys,
            )
            .await;
            let Verdict::Unreachable(icmp) = finding.verdict else {
                panic!("{finding:?}")
            };
            assert!(icmp.to_string().contains("port unreachable"), "{icmp}");
            assert_eq!((icmp.from, finding.sent), (Some(address), 1));
            assert!(start.elapsed() < Duration::from_millis(500));
        }
    }
}
