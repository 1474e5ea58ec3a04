//! A phone's link to a router, and sockets that tell what became of a packet.

use std::{
    io,
    mem::{size_of, zeroed},
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

use wificall_tests::{
    netns::{Netns, veth},
    programs::{
        Kernel,
        raw::{At, Attached, attach},
    },
    send::{self, RawFrames},
};

use crate::{ESP4, ESP6, frame};

/// How long a packet may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A phone's link to a router that has two endpoint addresses of its own, so that packets to them can be received.
pub struct Link {
    pub router: Netns,
    pub index: u32,
    pub v4: UdpSocket,
    pub v6: UdpSocket,
    pub frames: RawFrames,
    pub phone: Netns,
}

/// What the socket says of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub payload: usize,
    pub mark: u32,
    pub traffic_class: u8,
}

impl Link {
    pub fn new() -> Self {
        let (phone, router) = (Netns::new("phone").unwrap(), Netns::new("router").unwrap());
        veth((&phone, "p0"), (&router, "r0")).unwrap();
        for (namespace, device, mac) in [(&phone, "p0", 1), (&router, "r0", 2)] {
            let command = format!("link set {device} address 02:00:00:00:00:0{mac}");
            namespace.ip(&command).unwrap();
        }
        // The phone's own kernel is to send nothing: every frame counts.
        phone.sysctl("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
        phone.ip("link set p0 up").unwrap();
        router.forward().unwrap();
        router.ip("link set r0 up").unwrap();
        for address in ["203.0.113.1/24", "2001:db8:1::1/64 nodad"] {
            router.ip(&format!("addr add {address} dev r0")).unwrap();
        }
        let index = router.index("r0").unwrap();
        let v4 = send::udp(&router, "203.0.113.1:4500").unwrap();
        let v6 = send::udp(&router, "[2001:db8:1::1]:4500").unwrap();
        for socket in [&v4, &v6] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            set(socket, libc::SOL_SOCKET, SO_RCVMARK, 1);
        }
        set(&v4, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
        set(&v6, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
        let frames = RawFrames::new(&phone, "p0").unwrap();
        Self {
            router,
            index,
            v4,
            v6,
            frames,
            phone,
        }
    }

    pub fn attach(&self, kernel: &mut Kernel, program: &str, at: At) -> Attached {
        let program = kernel.descriptor(program).unwrap();
        self.attach_fd(&program, at)
    }

    pub fn attach_fd(&self, program: &(impl AsFd + Sync), at: At) -> Attached {
        let attached = self.router.enter(|| attach(program, self.index, at));
        attached.unwrap()
    }

    /// Sends both packets, under a link header, and says how they were received.
    pub fn deliver(&self, link: &str) -> [Received; 2] {
        [ESP4, ESP6].map(|packet| {
            self.frames.send(&frame(link, packet)).unwrap();
            receive(if packet == ESP4 { &self.v4 } else { &self.v6 }).unwrap()
        })
    }
}

/// SO_RCVMARK (asm-generic/socket.h), Linux 5.19.
const SO_RCVMARK: libc::c_int = 75;
/// PACKET_VNET_HDR (linux/if_packet.h).
const PACKET_VNET_HDR: libc::c_int = 15;

fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the pointer and length describe `value`, which is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "setsockopt: {}", io::Error::last_os_error());
}

/// Sends a frame longer than a page as an skb whose first `linear` bytes alone are linear: `packet_alloc_skb()`
/// (net/packet/af_packet.c) puts the rest into pages if a virtio header says where the headers end.
pub fn send_paged(namespace: &Netns, device: &str, frame: &[u8], linear: usize) {
    assert!(frame.len() > 4096);
    let index = namespace.index(device).unwrap();
    namespace.enter(|| {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: just made, and nothing else knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1);
        // `struct virtio_net_hdr`: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
        let mut message = vec![0; 10];
        message[2..4].copy_from_slice(&(linear as u16).to_le_bytes());
        message.extend(frame);
        // SAFETY: all zeros are valid.
        let mut to: libc::sockaddr_ll = unsafe { zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index.cast_signed();
        // SAFETY: the pointers and lengths describe `message` and `to`, which are only read.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(
            usize::try_from(sent).ok(),
            Some(message.len()),
            "sendto: {}",
            io::Error::last_os_error()
        );
    });
}

/// The next packet of a socket, with its mark and traffic class.
pub fn receive(socket: &UdpSocket) -> io::Result<Received> {
    let mut payload = vec![0u8; 9000];
    // Aligned as control messages must be.
    let mut control = [0u64; 32];
    let mut vector = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: all zeros are valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message refers to buffers that outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut received = Received {
        payload: len as usize,
        mark: 0,
        traffic_class: 0,
    };
    // SAFETY: the kernel filled the control buffer; the macros walk it within its length.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(entry) = header.as_ref() {
            let data = libc::CMSG_DATA(header);
            match (entry.cmsg_level, entry.cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_MARK) => {
                    received.mark = data.cast::<u32>().read_unaligned();
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => received.traffic_class = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    received.traffic_class = data.cast::<u32>().read_unaligned() as u8;
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(received)
}
