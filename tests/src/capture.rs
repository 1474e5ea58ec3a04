//! Captures on an interface by AF_PACKET: exact, from the moment `start`
//! returns, and failing if the kernel had to drop a frame.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::netns::Netns;

/// Room for half a second of 10,000 packets/s and the kernel's bookkeeping of each.
const BUFFER: libc::c_int = 64 << 20;
const SNAPLEN: usize = 65_535;

/// A frame as the kernel handed it over.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Since the Unix epoch, when the kernel took it.
    pub time: Duration,
    /// From the link-layer header; without a VLAN tag that the device took out.
    pub bytes: &'a [u8],
    /// The tag control information of a VLAN tag that the device took out.
    pub vlan: Option<u16>,
    /// Sent by this host, rather than received.
    pub outgoing: bool,
}

/// A running capture that keeps what `keep` made of each frame.
pub struct Capture<T> {
    stop: Arc<AtomicBool>,
    kept: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<T>>>,
}

impl<T: Send + 'static> Capture<T> {
    /// Starts capturing on `device` of `namespace`, both directions. Every frame
    /// from now on is seen.
    ///
    /// # Errors
    ///
    /// If there is no such device, or AF_PACKET is not permitted.
    pub fn start(
        namespace: &Netns,
        device: &str,
        mut keep: impl FnMut(&Frame<'_>) -> Option<T> + Send + 'static,
    ) -> Result<Self> {
        let index = namespace.index(device)?;
        let socket = namespace
            .enter(|| open(index, libc::ETH_P_ALL))
            .with_context(|| format!("capture on {device} in {}", namespace.name()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let kept = Arc::new(AtomicU64::new(0));
        let place = format!("{device} in {}", namespace.name());
        let thread = thread::spawn({
            let (stop, kept) = (Arc::clone(&stop), Arc::clone(&kept));
            move || {
                let mut all = Vec::new();
                let mut buffer = vec![0; SNAPLEN];
                loop {
                    // Read before looking for frames, so that everything which arrived
                    // before `finish` is still taken.
                    let stopping = stop.load(Ordering::Acquire);
                    wait_readable(&socket)?;
                    while let Some(frame) = receive(&socket, &mut buffer)? {
                        if let Some(value) = keep(&frame) {
                            all.push(value);
                            kept.fetch_add(1, Ordering::Release);
                        }
                    }
                    if stopping {
                        break;
                    }
                }
                let dropped = dropped(&socket)?;
                if dropped > 0 {
                    bail!("the capture on {place} lost {dropped} frames");
                }
                Ok(all)
            }
        });
        Ok(Self { stop, kept, thread })
    }

    /// How many frames were kept so far.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// Ends the capture; what was kept, in order.
    ///
    /// # Errors
    ///
    /// If a frame was lost.
    pub fn finish(self) -> Result<Vec<T>> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow!("the capture's thread panicked"))?
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    })
    .map(drop)
}

/// An AF_PACKET socket bound to one interface of the thread's namespace, receiving
/// `protocol`: `ETH_P_ALL`, or 0 for nothing.
pub(crate) fn open(index: u32, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // Protocol 0: nothing arrives before the bind, thus nothing of other interfaces.
    // SAFETY: a system call without pointers; the result is a new descriptor of ours.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        ))?)
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `address`, which the kernel only reads.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            length,
        )
    })?;
    Ok(socket)
}

/// Waits for a frame, but only for a moment.
fn wait_readable(socket: &OwnedFd) -> io::Result<()> {
    const MILLISECONDS: libc::c_int = 20;
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, as the count says.
    match check(unsafe { libc::poll(&raw mut poll, 1, MILLISECONDS) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes one frame, or nothing if none is waiting.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<Frame<'a>>> {
    // Aligned for the control messages' headers.
    let mut control = [0_u64; 32];
    // SAFETY: all-zero is valid for these plain structures.
    let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) =
        unsafe { (zeroed(), zeroed()) };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in `message` is to a live local of the stated length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    };

    let mut time = Duration::ZERO;
    let mut vlan = None;
    // SAFETY: the kernel filled the control buffer and set its length; the macros
    // walk within it, and each message is read as the type its kind says.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let stamp: libc::timespec = data.cast::<libc::timespec>().read_unaligned();
                    time = Duration::new(stamp.tv_sec.cast_unsigned(), stamp.tv_nsec as u32);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let aux = data.cast::<libc::tpacket_auxdata>().read_unaligned();
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        vlan = Some(aux.tp_vlan_tci);
                    }
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Some(Frame {
        time,
        bytes: &buffer[..length],
        vlan,
        outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
    }))
}

/// How many frames the kernel had no room for.
fn dropped(socket: &OwnedFd) -> io::Result<u32> {
    // SAFETY: all-zero is valid for this plain structure.
    let mut statistics: libc::tpacket_stats = unsafe { zeroed() };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `statistics`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    })?;
    Ok(statistics.tp_drops)
}
