//! What a test run cannot show: metadata from XDP to TC, skbs whose headers lie in pages, skbs that others hold too,
//! tags that were taken out. Real packets over a veth, read back by a real socket.

use std::{
    io,
    mem::{size_of, zeroed},
    net::UdpSocket,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use aya::{TestRun as _, TestRunOptions};
use wificall_common::{
    Class, Direction,
    abi::{Features, Hook, VERDICT_MAGIC},
    exit::Exit,
};
use wificall_tests::{
    capture::Capture,
    netns::{Netns, veth},
    packet::Packet,
    programs::{
        Kernel,
        raw::{At, Attached, Insn, Kind, RawProgram, attach},
    },
    send::{self, RawFrames},
    vectors::{Setup, contents},
};

const NONCE: [u32; 2] = [0x0dd_ba11, 0x5eed];
/// DSCP EF, which policy 1 sets, with ECN 0.
const EF: u8 = 0xb8;
/// Mark of policy 1.
const MARK: u32 = 0x65;

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(5);

const ESP4: &str = "ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / esp 136";
const ESP6: &str = "ip6 2001:db8:ffff::2 > 2001:db8:1::1 / udp 40000 > 4500 / esp 136";

/// A phone's link to a router that has two endpoint addresses of its own, so that packets to them can be received.
struct Link {
    router: Netns,
    index: u32,
    v4: UdpSocket,
    v6: UdpSocket,
    frames: RawFrames,
    phone: Netns,
}

/// What the socket says of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    payload: usize,
    mark: u32,
    traffic_class: u8,
}

impl Link {
    fn new() -> Self {
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

    fn attach(&self, kernel: &mut Kernel, program: &str, at: At) -> Attached {
        let program = kernel.descriptor(program).unwrap();
        self.attach_fd(&program, at)
    }

    fn attach_fd(&self, program: &(impl std::os::fd::AsFd + Sync), at: At) -> Attached {
        let attached = self.router.enter(|| attach(program, self.index, at));
        attached.unwrap()
    }

    /// Sends both packets, under a link header, and says how they were received.
    fn deliver(&self, link: &str) -> [Received; 2] {
        [ESP4, ESP6].map(|packet| {
            self.frames.send(&frame(link, packet)).unwrap();
            receive(if packet == ESP4 { &self.v4 } else { &self.v6 }).unwrap()
        })
    }
}

fn frame(link: &str, packet: &str) -> Vec<u8> {
    let packet: Packet = format!("{link} / {packet}").parse().unwrap();
    packet.bytes()
}

fn kernel(features: u32) -> Kernel {
    let setup = Setup {
        features: Setup::DEFAULT.features | features,
        pref64: None,
    };
    let mut kernel = Kernel::load_with(&setup, NONCE, &[]).unwrap();
    kernel.fill(&contents().unwrap()).unwrap();
    kernel
}

fn exits(kernel: &Kernel, hook: Hook, exit: Exit) -> u64 {
    let exits = kernel.exits(hook).unwrap();
    exits.get(&(hook, exit)).copied().unwrap_or(0)
}

/// Packets counted as ESP in UDP, up, for policy 1's group.
fn counted(kernel: &Kernel) -> u64 {
    let counters = kernel.counters().unwrap();
    counters
        .get(&(1, Direction::Up, Class::EspUdp))
        .map_or(0, |counter| counter.packets)
}

const TREATED: Received = Received {
    payload: 136,
    mark: MARK,
    traffic_class: EF,
};

#[test]
fn xdp_hands_over_to_tc() {
    let link = Link::new();
    let mut kernel = kernel(Features::HANDOVER);
    let _xdp = link.attach(&mut kernel, "xdp_up", At::Xdp);
    let _tc = link.attach(&mut kernel, "in_up_xdp", At::TcIngress);
    assert_eq!(link.deliver("eth"), [TREATED, TREATED]);
    assert_eq!(exits(&kernel, Hook::Xdp, Exit::Matched), 2);
    assert_eq!(exits(&kernel, Hook::TcIngress, Exit::ByXdp), 2);
    assert_eq!(exits(&kernel, Hook::TcIngress, Exit::Matched), 0);
    assert_eq!(counted(&kernel), 2, "each packet once");
}

/// Metadata that somebody else wrote. The first row shows that the method works: all of it right, TC believes it.
#[test]
fn tc_trusts_only_our_verdicts() {
    let link = Link::new();
    let right = [VERDICT_MAGIC, link.index, NONCE[0], NONCE[1], 1];
    let changed = |word: usize, value: u32| {
        let mut words = right;
        words[word] = value;
        words
    };
    let rows = [
        ("right", right, true),
        ("another magic", changed(0, VERDICT_MAGIC ^ 1), false),
        ("another interface", changed(1, link.index + 1), false),
        ("another nonce", changed(2, NONCE[0] + 1), false),
        ("another nonce, upper half", changed(3, 0), false),
        ("all zero", [0; 5], false),
    ];
    for (name, words, trusted) in rows {
        let mut kernel = kernel(Features::HANDOVER);
        let forger = RawProgram::load(Kind::Xdp, &forge(words)).unwrap();
        let _xdp = link.attach_fd(&forger.as_fd(), At::Xdp);
        let _tc = link.attach(&mut kernel, "in_up_xdp", At::TcIngress);
        let received = link.deliver("eth");
        if trusted {
            let marked = Received {
                traffic_class: 0,
                ..TREATED
            };
            assert_eq!(received, [(); 2].map(|()| Received { ..marked }), "{name}");
            assert_eq!(exits(&kernel, Hook::TcIngress, Exit::ByXdp), 2, "{name}");
            assert_eq!(counted(&kernel), 0, "{name}");
        } else {
            assert_eq!(received, [TREATED, TREATED], "{name}");
            assert_eq!(exits(&kernel, Hook::TcIngress, Exit::Matched), 2, "{name}");
            assert_eq!(counted(&kernel), 2, "{name}");
        }
    }
}

/// A program elsewhere than behind XDP believes no metadata at all.
#[test]
fn without_xdp_metadata_means_nothing() {
    let link = Link::new();
    let mut kernel = kernel(Features::HANDOVER);
    let words = [VERDICT_MAGIC, link.index, NONCE[0], NONCE[1], 2];
    let forger = RawProgram::load(Kind::Xdp, &forge(words)).unwrap();
    let _xdp = link.attach_fd(&forger.as_fd(), At::Xdp);
    let _tc = link.attach(&mut kernel, "in_up", At::TcIngress);
    assert_eq!(link.deliver("eth"), [TREATED, TREATED]);
    assert_eq!(exits(&kernel, Hook::TcIngress, Exit::Matched), 2);
}

/// The program for interfaces with XDP does everything itself while XDP is not attached, or gone.
#[test]
fn without_xdp_tc_does_it_all() {
    let link = Link::new();
    let mut kernel = kernel(Features::HANDOVER);
    let _tc = link.attach(&mut kernel, "in_up_xdp", At::TcIngress);
    assert_eq!(link.deliver("eth"), [TREATED, TREATED]);
    assert_eq!(exits(&kernel, Hook::TcIngress, Exit::Matched), 2);
    assert_eq!(counted(&kernel), 2);
}

/// The verdict, byte by byte, before a frame that is treated already.
#[test]
fn the_verdict_of_xdp() {
    let mut kernel = kernel(Features::HANDOVER);
    let run = kernel.run("xdp_up", &frame("eth", ESP4), 0).unwrap();
    let packet: Packet = format!("eth / {ESP4}").parse().unwrap();
    // Test runs are on loopback, whose index is 1.
    let words = [VERDICT_MAGIC, 1, NONCE[0], NONCE[1], 1];
    let mut expected = words.map(u32::to_le_bytes).concat();
    expected.extend(packet.with_dscp(46).bytes());
    assert_eq!(run.unwrap().frame, expected);
}

/// Other metadata that leaves no room for a verdict: XDP does not touch the packet and does not count it.
#[test]
fn no_room_for_a_verdict() {
    let mut kernel = kernel(Features::HANDOVER);
    let bytes = frame("eth", ESP4);
    // The most that Linux allows: 32 bytes first, later all headroom but that of `struct xdp_frame`
    // (`bpf_xdp_adjust_meta()`, net/core/filter.c).
    for metadata in [32, 216] {
        let data_in = [vec![0xa5; metadata], bytes.clone()].concat();
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [metadata as u32, data_in.len() as u32, 0, 0, 0, 0]
            .map(u32::to_ne_bytes)
            .concat();
        let mut data_out = vec![0; data_in.len() + 64];
        let aya::programs::Program::Xdp(program) = kernel.program("xdp_up").unwrap() else {
            panic!("xdp_up is an XDP program");
        };
        let run = program.test_run(TestRunOptions {
            data_in: Some(&data_in),
            data_out: Some(&mut data_out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        });
        let full = match run {
            // Kernels whose limit is 32.
            Err(_) if metadata > 32 => continue,
            run => run.unwrap().data_size_out as usize == data_in.len(),
        };
        if full {
            assert_eq!(data_out[..data_in.len()], data_in, "untouched");
            assert_eq!(exits(&kernel, Hook::Xdp, Exit::NoMetadata), 1);
            assert_eq!(counted(&kernel), u64::from(metadata > 32));
            return;
        }
        // There was room for more: this kernel's limit is higher.
        assert_eq!(counted(&kernel), 1);
    }
    panic!("no amount of metadata filled the room");
}

/// A tag that is in the frame on the wire is out of it when TC sees it. A priority tag: the kernel needs no VLAN device
/// to deliver it.
#[test]
fn tags_taken_out() {
    let link = Link::new();
    let mut kernel = kernel(0);
    let _tc = link.attach(&mut kernel, "in_up", At::TcIngress);
    assert_eq!(link.deliver("eth / vlan 0"), [TREATED, TREATED]);
    assert_eq!(counted(&kernel), 2);
}

/// A capture holds a clone of each skb: it keeps the bytes as they came, the socket gets those rewritten. The checksum
/// of UDP over IPv6, which the socket verifies, still agrees.
#[test]
fn cloned_skbs() {
    let link = Link::new();
    let mut kernel = kernel(0);
    let capture = Capture::start(&link.router, "r0", |frame| {
        let is_ours = frame.bytes.len() > 100 && !frame.outgoing;
        is_ours.then(|| frame.bytes.to_vec())
    })
    .unwrap();
    let _tc = link.attach(&mut kernel, "in_up", At::TcIngress);
    assert_eq!(link.deliver("eth"), [TREATED, TREATED]);
    assert_eq!(
        capture.finish().unwrap(),
        [ESP4, ESP6].map(|packet| frame("eth", packet))
    );
}

/// Frames of which only the Ethernet header is linear. A second program drops whatever has more, which shows that these
/// have not, and that the check works.
#[test]
fn headers_in_pages() {
    let link = Link::new();
    link.router.ip("link set r0 mtu 9000").unwrap();
    link.phone.ip("link set p0 mtu 9000").unwrap();
    let mut kernel = kernel(0);
    let guard = RawProgram::load(Kind::Tc, &drop_linear()).unwrap();
    let guard = link.attach_fd(&guard.as_fd(), At::TcIngress);
    let _tc = link.attach(&mut kernel, "in_up", At::TcIngress);
    for (packet, socket) in [(ESP4, &link.v4), (ESP6, &link.v6)] {
        let long = packet.replace("esp 136", "esp 6000");
        for header in ["", " / vlan 0"] {
            let bytes = frame(&format!("eth{header}"), &long);
            send_paged(
                &link.phone,
                "p0",
                &bytes,
                14 + 4 * usize::from(!header.is_empty()),
            );
            let expected = Received {
                payload: 6000,
                ..TREATED
            };
            assert_eq!(receive(socket).unwrap(), expected, "{packet}{header}");
        }
    }
    assert_eq!(exits(&kernel, Hook::TcIngress, Exit::Matched), 4);
    // Linear ones do not get through.
    link.v4
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    link.frames.send(&frame("eth", ESP4)).unwrap();
    assert!(receive(&link.v4).is_err());
    link.v4.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(guard);
    assert_eq!(link.deliver("eth"), [TREATED, TREATED]);
}

/// `return bpf_xdp_adjust_meta(ctx, -20) == 0 && room ? write words, XDP_PASS : XDP_ABORTED`.
fn forge(words: [u32; 5]) -> Vec<Insn> {
    let len = 4 * words.len() as i32;
    let mut code = vec![
        Insn::new(0xbf, 6, 1, 0, 0),    // r6 = ctx
        Insn::new(0xb7, 2, 0, 0, -len), // r2 = -20
        Insn::new(0x85, 0, 0, 0, 54),   // r0 = bpf_xdp_adjust_meta(ctx, r2)
        Insn::new(0x55, 0, 0, 11, 0),   // if r0 != 0 goto out
        Insn::new(0x61, 2, 6, 8, 0),    // r2 = ctx->data_meta
        Insn::new(0x61, 3, 6, 0, 0),    // r3 = ctx->data
        Insn::new(0xbf, 4, 2, 0, 0),    // r4 = r2 + 20
        Insn::new(0x07, 4, 0, 0, len),
        Insn::new(0x2d, 4, 3, 6, 0), // if r4 > r3 goto out
    ];
    for (index, word) in words.into_iter().enumerate() {
        code.push(Insn::new(0x62, 2, 0, 4 * index as i16, word.cast_signed()));
    }
    code.push(Insn::new(0x05, 0, 0, 2, 0)); // goto pass
    code.extend(Insn::empty(0)); // out
    code.extend(Insn::empty(2)); // pass
    code
}

/// `return data + 34 > data_end ? TC_ACT_UNSPEC : TC_ACT_SHOT`: an IPv4 header in the linear part is too much.
fn drop_linear() -> Vec<Insn> {
    let mut code = vec![
        Insn::new(0x61, 2, 1, 76, 0), // r2 = skb->data
        Insn::new(0x61, 3, 1, 80, 0), // r3 = skb->data_end
        Insn::new(0x07, 2, 0, 0, 34),
        Insn::new(0x2d, 2, 3, 2, 0), // if r2 > r3 goto pass
    ];
    code.extend(Insn::empty(2));
    code.extend(Insn::empty(-1));
    code
}

/// SO_RCVMARK (asm-generic/socket.h), Linux 5.19.
const SO_RCVMARK: libc::c_int = 75;
/// PACKET_VNET_HDR (linux/if_packet.h).
const PACKET_VNET_HDR: libc::c_int = 15;

fn set(
    socket: &impl std::os::fd::AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) {
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
fn send_paged(namespace: &Netns, device: &str, frame: &[u8], linear: usize) {
    assert!(frame.len() > 4096);
    let index = namespace.index(device).unwrap();
    namespace.enter(|| {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: just made, and nothing else knows of it.
        let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
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
fn receive(socket: &UdpSocket) -> io::Result<Received> {
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
