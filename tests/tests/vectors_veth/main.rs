//! What a test run cannot show: metadata from XDP to TC, skbs whose headers lie in pages, skbs that others hold too,
//! tags that were taken out, checksums that follow. Real packets over a veth, read back by a real socket.

mod link;
mod probes;

use std::{os::fd::AsFd, time::Duration};

use aya::{TestRun as _, TestRunOptions};
use wificall_common::{
    Class, Direction,
    abi::{Features, Hook, VERDICT_MAGIC, XdpVerdict},
    exit::Exit,
};
use wificall_tests::{
    capture::Capture,
    packet::Packet,
    programs::{
        Kernel,
        raw::{At, Kind, RawProgram, attach},
    },
    vectors::{Setup, contents},
};

use crate::{
    link::{Link, PATIENCE, Received, receive, send_paged},
    probes::{drop_linear, drop_wrong_sum, forge, store_without_sum},
};

const NONCE: [u32; 2] = [0x0dd_ba11, 0x5eed];
const VERDICT_WORDS: usize = size_of::<XdpVerdict>() / 4;
/// DSCP EF, which policy 1 sets, with ECN 0.
const EF: u8 = 0xb8;
/// Mark of policy 1.
const MARK: u32 = 0x65;
const MASK: u32 = 0xff;

const ESP4: &str = "ip4 198.18.0.2 > 203.0.113.1 / udp 40000 > 4500 / esp 136";
const ESP6: &str = "ip6 2001:db8:ffff::2 > 2001:db8:1::1 / udp 40000 > 4500 / esp 136";

/// Length of `ESP6`'s IP packet.
const ESP6_LEN: i32 = 40 + 8 + 136;

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

/// An [`XdpVerdict`] of this load, of a policy that passes.
fn verdict(ifindex: u32, mark: u32, mask: u32) -> [u32; VERDICT_WORDS] {
    [VERDICT_MAGIC, ifindex, NONCE[0], NONCE[1], mark, mask, 1]
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
    let right = verdict(link.index, MARK, MASK);
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
        ("all zero", [0; VERDICT_WORDS], false),
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
    let words = verdict(link.index, 2, u32::MAX);
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
    let words = verdict(1, MARK, MASK);
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

/// CHECKSUM_COMPLETE: the skb carries the sum over its bytes, which an IPv6 traffic class is part of. A tunnel whose
/// outer checksum the kernel had to verify gives its inner packets such a sum. A program behind ours compares it with
/// the bytes and drops what has none, or another.
#[test]
fn checksum_complete_follows() {
    let link = Link::new();
    link.router
        .ip("link add v0 address 02:00:00:00:00:02 type vxlan id 7 local 10.1.0.2 dstport 4789")
        .unwrap();
    link.router.ip("addr flush dev r0 scope global").unwrap();
    link.router.ip("addr add 10.1.0.2/24 dev r0").unwrap();
    link.router
        .ip("addr add 2001:db8:1::1/64 nodad dev v0")
        .unwrap();
    link.router.ip("link set v0 up").unwrap();
    let v0 = link.router.index("v0").unwrap();
    let outer = "eth / ip4 10.1.0.1 > 10.1.0.2 / udp 50000 > 4789 / hex 0800000000000700 / eth";
    let frame = frame(outer, ESP6);
    let at_v0 = |program: &(dyn AsFd + Sync)| {
        let fd = program.as_fd();
        link.router.enter(|| attach(fd, v0, At::TcIngress)).unwrap()
    };
    let probe = RawProgram::load(Kind::Tc, &drop_wrong_sum(ESP6_LEN)).unwrap();
    let mut kernel = kernel(0);
    let ours = kernel.descriptor("in_up").unwrap();
    {
        let _tc = at_v0(&ours);
        let _probe = at_v0(&probe);
        link.frames.send(&frame).unwrap();
        assert_eq!(receive(&link.v6).unwrap(), TREATED);
    }
    // Were the sum not to follow, the socket would not take the packet.
    let careless = RawProgram::load(Kind::Tc, &store_without_sum()).unwrap();
    let _tc = at_v0(&careless);
    link.v6
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    link.frames.send(&frame).unwrap();
    assert!(receive(&link.v6).is_err());
    let counts = link.router.run("cat", "/proc/net/snmp6").unwrap();
    let errors = counts
        .lines()
        .find_map(|line| line.strip_prefix("Udp6InCsumErrors"));
    assert_eq!(errors.map(str::trim), Some("1"));
}
