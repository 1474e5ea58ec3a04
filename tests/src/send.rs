//! Senders of the shapes that matter, over UDP, raw IP and raw frames.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::netns::Netns;

/// IKE's own port.
pub const IKE: u16 = 500;
/// The port of IKE and ESP behind a NAT (RFC 3948).
pub const NATT: u16 = 4500;
/// A NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// An IKE_SA_INIT request of `length` octets, header included (RFC 7296 §3.1).
///
/// # Panics
///
/// If it is shorter than the header.
#[must_use]
pub fn ike_sa_init(length: usize) -> Vec<u8> {
    const HEADER: usize = 28;
    assert!(length >= HEADER, "an IKE header has {HEADER} octets");
    let mut message = vec![0x11; 8];
    message.extend([0; 8]); // the responder's SPI, not known yet
    message.extend([33, 0x20, 34, 0x08]); // SA payload, version 2.0, IKE_SA_INIT, initiator
    message.extend([0; 4]); // message id
    message.extend(u32::try_from(length).expect("fits").to_be_bytes());
    message.resize(length, 0x22);
    message
}

/// The same behind the non-ESP marker of port 4500 (RFC 3948 §2.2).
#[must_use]
pub fn ike_behind_marker(length: usize) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(ike_sa_init(length));
    message
}

/// An ESP packet (RFC 4303 §2) of `length` octets, at least 8.
#[must_use]
pub fn esp(sequence: u32, length: usize) -> Vec<u8> {
    const SPI: u32 = 0xc0ff_ee01;
    let mut packet = Vec::with_capacity(length);
    packet.extend(SPI.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.resize(length.max(8), 0x33);
    packet
}

/// The sequence number of a packet that [`esp`] made.
#[must_use]
pub fn esp_sequence(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?))
}

/// A socket address from an IP address without brackets.
///
/// # Errors
///
/// If it is not an IP address.
pub fn address(ip: &str, port: u16) -> Result<SocketAddr> {
    let ip: IpAddr = ip.parse().with_context(|| format!("`{ip}`"))?;
    Ok(SocketAddr::new(ip, port))
}

/// A UDP socket in `namespace`.
///
/// # Errors
///
/// If the address cannot be bound.
pub fn udp(namespace: &Netns, local: &str) -> Result<UdpSocket> {
    let address: SocketAddr = local.parse().with_context(|| local.to_owned())?;
    namespace
        .enter(|| UdpSocket::bind(address))
        .with_context(|| format!("bind {local} in {}", namespace.name()))
}

/// From now on, what `socket` sends in one go leaves as datagrams of `length` octets,
/// cut as late as possible (UDP_SEGMENT of udp(7)).
///
/// # Errors
///
/// If the kernel cannot do that.
pub fn segmented(socket: &UdpSocket, length: usize) -> Result<()> {
    let length = libc::c_int::try_from(length)?;
    // SAFETY: the pointer and size describe `length`, which is only read.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&length).cast(),
            size_of_val(&length) as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).context("set UDP_SEGMENT");
    }
    Ok(())
}

/// From now on, what `socket` sends has this IPv4 TOS or IPv6 traffic class.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn traffic_class(socket: &UdpSocket, class: u8) -> Result<()> {
    let class = libc::c_int::from(class);
    let (level, name) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    };
    // SAFETY: the pointer and size describe `class`, which is only read.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&class).cast(),
            size_of_val(&class) as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).context("set the traffic class");
    }
    Ok(())
}

/// A raw IP socket in `namespace`: the kernel makes the IP header.
pub struct RawIp {
    socket: OwnedFd,
}

impl RawIp {
    /// For packets of IP protocol `protocol`, over IPv4 or IPv6.
    ///
    /// # Errors
    ///
    /// If raw sockets are not permitted.
    pub fn new(namespace: &Netns, ipv6: bool, protocol: u8) -> Result<Self> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let socket = namespace.enter(|| {
            // SAFETY: a system call without pointers.
            let socket = unsafe {
                libc::socket(
                    family,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    i32::from(protocol),
                )
            };
            if socket < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a new descriptor that nobody else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(socket) })
        });
        Ok(Self {
            socket: socket.context("open a raw IP socket")?,
        })
    }

    /// Sends `payload` as the packet's content.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn send(&self, payload: &[u8], to: IpAddr) -> Result<()> {
        // A UdpSocket's `send_to` is the same system call with the same address
        // structure, the port of which raw sockets want to be zero.
        let socket = UdpSocket::from(self.socket.try_clone()?);
        let sent = socket
            .send_to(payload, (to, 0))
            .with_context(|| format!("send to {to}"))?;
        if sent != payload.len() {
            return Err(anyhow!("sent {sent} of {} octets to {to}", payload.len()));
        }
        Ok(())
    }

    /// Throws away what has arrived. Once a raw socket is full, the kernel tells IPv6 senders that
    /// nobody here speaks the protocol.
    ///
    /// # Errors
    ///
    /// If the socket has failed.
    pub fn drain(&self) -> io::Result<()> {
        let socket = UdpSocket::from(self.socket.try_clone()?);
        socket.set_nonblocking(true)?;
        loop {
            match socket.recv(&mut [0]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends raw frames out of an interface.
pub struct RawFrames {
    socket: OwnedFd,
}

impl RawFrames {
    /// Out of `device` of `namespace`.
    ///
    /// # Errors
    ///
    /// If there is no such device, or AF_PACKET is not permitted.
    pub fn new(namespace: &Netns, device: &str) -> Result<Self> {
        let index = namespace.index(device)?;
        let socket = namespace
            .enter(|| crate::capture::open(index, 0))
            .with_context(|| format!("send on {device} in {}", namespace.name()))?;
        Ok(Self { socket })
    }

    /// Sends one frame, link-layer header included.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and length describe `frame`, which is only read.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if usize::try_from(sent) != Ok(frame.len()) {
            return Err(io::Error::last_os_error()).context("send a frame");
        }
        Ok(())
    }
}

/// ESP in UDP at a steady rate, numbered from 1 without a gap, until stopped.
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Stream {
    /// How many packets leave at once; the pause after each such batch is what
    /// makes the rate.
    const BATCH: u32 = 10;

    /// Starts sending `rate` packets/s of `length` octets from `socket` to `to`.
    #[must_use]
    pub fn start(socket: UdpSocket, to: SocketAddr, rate: u32, length: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let start = Instant::now();
                let mut sent = 0;
                while !stop.load(Ordering::Acquire) {
                    for _ in 0..Self::BATCH {
                        sent += 1;
                        socket
                            .send_to(&esp(sent, length), to)
                            .with_context(|| format!("packet {sent} to {to}"))?;
                    }
                    let due = start + Duration::from_secs(1) * sent / rate;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                Ok(sent)
            }
        });
        Self { stop, thread }
    }

    /// Ends it; how many packets were sent.
    ///
    /// # Errors
    ///
    /// If a packet could not be sent.
    pub fn finish(self) -> Result<u32> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow!("the sender's thread panicked"))?
    }
}
