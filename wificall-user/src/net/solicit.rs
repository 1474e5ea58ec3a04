//! Asking a gateway whether it is there: ARP (RFC 826) and neighbour solicitation (RFC 4861 §4.3), sent by ourselves, so
//! that a dead one is found out in our time. The kernel finds out only when it has packets for it, and takes its own.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use libc::sock_filter;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::filter::{self, DROP, TAKE, byte, equal, half, word};

/// That a gateway is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its Ethernet address, if it says so.
    pub address: Option<[u8; 6]>,
}

/// The socket by which one gateway is asked.
#[derive(Debug)]
pub struct Solicitor {
    socket: AsyncFd<Socket>,
    ifindex: u32,
    own: [u8; 6],
    question: Question,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Arp { source: Ipv4Addr, gateway: Ipv4Addr },
    Neighbour { gateway: Ipv6Addr },
}

const ARP_LEN: usize = 28;
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u32 = 2;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
/// Octets of an advertisement before its options.
const ADVERTISEMENT: usize = 24;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// The network header, as a filter finds it (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
const IPV6_HOP_LIMIT: u32 = 7;

impl Solicitor {
    /// Opens a socket to ask a gateway on an Ethernet-like link, whose own Ethernet address is `own`; `source` is our IPv4
    /// address there.
    ///
    /// # Errors
    ///
    /// The OS error of opening or setting up the socket.
    pub fn open(
        ifindex: u32,
        device: &str,
        own: [u8; 6],
        source: Option<Ipv4Addr>,
        gateway: IpAddr,
    ) -> io::Result<Self> {
        let (socket, question) = match gateway {
            IpAddr::V4(gateway) => {
                let source = source.unwrap_or(Ipv4Addr::UNSPECIFIED);
                (
                    arp_socket(ifindex, gateway)?,
                    Question::Arp { source, gateway },
                )
            }
            IpAddr::V6(gateway) => (
                neighbour_socket(ifindex, device, gateway)?,
                Question::Neighbour { gateway },
            ),
        };
        socket.set_nonblocking(true)?;
        // SAFETY: a `Socket` owns its descriptor, which is open and the same for as long as it lives.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self {
            socket,
            ifindex,
            own,
            question,
        })
    }

    /// Asks once. With an Ethernet address, ARP asks that one alone, as a host does that believes to know it (RFC 1122
    /// §2.3.2.1); a solicitation goes to the gateway's multicast group always, which is hardly anybody else.
    ///
    /// # Errors
    ///
    /// The OS error of sending.
    pub fn ask(&self, known: Option<[u8; 6]>) -> io::Result<()> {
        let (packet, to) = match self.question {
            Question::Arp { source, gateway } => (
                arp_request(self.own, source, gateway),
                link_layer(self.ifindex, known.unwrap_or([0xff; 6])),
            ),
            Question::Neighbour { gateway } => {
                let group = solicited_node(gateway);
                let to = SocketAddrV6::new(group, 0, 0, self.ifindex);
                (solicitation(self.own, gateway), SockAddr::from(to))
            }
        };
        self.socket.get_ref().send_to(&packet, &to).map(drop)
    }

    /// Waits for an answer. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The OS error of reading the socket, `ENETDOWN` when the link goes down.
    pub async fn answer(&self) -> io::Result<Answer> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
            match ready.try_io(|socket| socket.get_ref().recv(&mut buffer)) {
                Ok(Ok(length)) => {
                    // SAFETY: recv has initialised the first `length` bytes.
                    let packet = unsafe { buffer[..length].assume_init_ref() };
                    if let Some(answer) = self.read(packet) {
                        return Ok(answer);
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn read(&self, packet: &[u8]) -> Option<Answer> {
        match self.question {
            Question::Arp { gateway, .. } => arp_reply(packet, gateway),
            Question::Neighbour { gateway } => advertisement(packet, gateway),
        }
    }
}

fn arp_socket(ifindex: u32, gateway: Ipv4Addr) -> io::Result<Socket> {
    // Protocol 0: nothing arrives before it is bound to the link.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    let mut program: [sock_filter; 6] = [
        half(6),
        equal(ARP_REPLY, 0, 3),
        word(14),
        equal(gateway.to_bits(), 0, 1),
        TAKE,
        DROP,
    ];
    filter::attach(&socket, &mut program)?;
    socket.bind(&link_layer(ifindex, [0; 6]))?;
    Ok(socket)
}

fn neighbour_socket(ifindex: u32, device: &str, gateway: Ipv6Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // Of a hop limit of 255, and so from this link (RFC 4861 §7.1.2), about this gateway. The kernel verifies the checksum
    // of what passes a filter (net/ipv6/raw.c).
    let mut program = vec![
        byte(NETWORK_HEADER + IPV6_HOP_LIMIT),
        equal(255, 1, 0),
        DROP,
        byte(0),
        equal(NEIGHBOUR_ADVERTISEMENT, 1, 0),
        DROP,
    ];
    for (place, word_of) in (8..).step_by(4).zip(gateway.octets().as_chunks::<4>().0) {
        program.extend([word(place), equal(u32::from_be_bytes(*word_of), 1, 0), DROP]);
    }
    program.push(TAKE);
    filter::attach(&socket, &mut program)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v6(ifindex)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    Ok(socket)
}

/// ARP's address of a link, or of a host on it.
fn link_layer(ifindex: u32, to: [u8; 6]) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the kernel's socket addresses, for which the storage has room, and plain data.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
    address.sll_ifindex = ifindex as i32;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds an address of this length.
    unsafe { SockAddr::new(storage, length) }
}

fn arp_request(own: [u8; 6], source: Ipv4Addr, gateway: Ipv4Addr) -> Vec<u8> {
    // Ethernet (1), IPv4, lengths 6 and 4.
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, ARP_REQUEST];
    packet.extend(own);
    packet.extend(source.octets());
    packet.extend([0; 6]);
    packet.extend(gateway.octets());
    packet
}

fn arp_reply(packet: &[u8], gateway: Ipv4Addr) -> Option<Answer> {
    let packet: &[u8; ARP_LEN] = packet.first_chunk()?;
    let is_reply = packet[..8] == [0, 1, 8, 0, 6, 4, 0, ARP_REPLY as u8];
    (is_reply && packet[14..18] == gateway.octets()).then(|| Answer {
        address: packet[8..14].try_into().ok(),
    })
}

/// The group that a host joins for an address of its own (RFC 4291 §2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The kernel fills in the checksum.
fn solicitation(own: [u8; 6], gateway: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(gateway.octets());
    packet.extend([SOURCE_LINK_LAYER, 1]);
    packet.extend(own);
    packet
}

fn advertisement(packet: &[u8], gateway: Ipv6Addr) -> Option<Answer> {
    let (head, mut options) = packet.split_first_chunk::<ADVERTISEMENT>()?;
    let is_one = head[..2] == [NEIGHBOUR_ADVERTISEMENT as u8, 0];
    if !is_one || head[8..] != gateway.octets() {
        return None;
    }
    let mut address = None;
    // An option's length is in units of eight octets, and never 0 (RFC 4861 §4.6).
    while let [kind, units, ..] = *options
        && units > 0
    {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if kind == TARGET_LINK_LAYER {
            address = option[2..8].try_into().ok();
        }
        options = rest;
    }
    Some(Answer { address })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::namespace::{in_namespace, index, ip, run};
    use super::*;

    const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);

    #[test]
    fn what_is_no_answer_is_none() {
        let gateway = Ipv4Addr::new(192, 0, 2, 2);
        let mut reply = arp_request([2; 6], gateway, Ipv4Addr::LOCALHOST);
        assert_eq!(arp_reply(&reply, gateway), None, "a request");
        reply[7] = 2;
        let answer = Some(Answer {
            address: Some([2; 6]),
        });
        assert_eq!(arp_reply(&reply, gateway), answer);
        assert_eq!(arp_reply(&reply, Ipv4Addr::LOCALHOST), None, "of another");
        assert_eq!(arp_reply(&reply[..27], gateway), None);

        let mut packet = solicitation([2; 6], GATEWAY);
        assert_eq!(advertisement(&packet, GATEWAY), None, "a solicitation");
        packet[0] = 136;
        assert_eq!(
            advertisement(&packet, GATEWAY),
            Some(Answer { address: None })
        );
        packet[24] = TARGET_LINK_LAYER;
        assert_eq!(advertisement(&packet, GATEWAY), answer);
        assert_eq!(
            advertisement(&packet[..24], GATEWAY),
            Some(Answer { address: None })
        );
        for length in 26..32 {
            assert_eq!(advertisement(&packet[..length], GATEWAY), None, "{length}");
        }
        assert_eq!(advertisement(&packet, Ipv6Addr::LOCALHOST), None);
        packet[25] = 0;
        assert_eq!(
            advertisement(&packet, GATEWAY),
            Some(Answer { address: None })
        );
        assert_eq!(
            solicited_node(GATEWAY),
            "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap()
        );
    }

    #[test]
    fn root_a_neighbour_answers_until_its_link_is_down() {
        in_namespace(|runtime| {
            ip("link add lan0 type veth peer name far0");
            ip("address add 192.0.2.1/24 dev lan0");
            ip("-6 address add fd00::1/64 dev lan0 nodad");
            ip("link set lan0 up");
            let (ifindex, own) = (index("lan0"), {
                let links = runtime.block_on(super::super::links()).unwrap();
                links
                    .into_iter()
                    .find(|link| link.name == "lan0")
                    .unwrap()
                    .address
                    .unwrap()
            });
            let (moved, wait) = std::sync::mpsc::channel();
            let (ready, set_up) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let (cut, to_cut) = std::sync::mpsc::channel::<()>();
            let (was_cut, is_cut) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    in_namespace(move |_| {
                        // SAFETY: gettid has no preconditions.
                        ready.send(unsafe { libc::gettid() }).unwrap();
                        wait.recv().unwrap();
                        ip("address add 192.0.2.2/24 dev far0");
                        ip("-6 address add fd00::12:3456/64 dev far0 nodad");
                        ip("link set far0 address 02:00:00:00:00:07");
                        ip("link set far0 up");
                        was_cut.send(()).unwrap();
                        to_cut.recv().unwrap();
                        run("sysctl", "-qw net.ipv4.conf.far0.arp_ignore=8");
                        ip("-6 address del fd00::12:3456/64 dev far0");
                        was_cut.send(()).unwrap();
                        let _ = ended.recv();
                    });
                });
                let thread = set_up.recv().unwrap();
                ip(&format!(
                    "link set far0 netns /proc/{}/task/{thread}/ns/net",
                    std::process::id()
                ));
                moved.send(()).unwrap();
                is_cut.recv().unwrap();
                let patience = Duration::from_millis(500);
                let gateways = [IpAddr::from([192, 0, 2, 2]), IpAddr::from(GATEWAY)];
                let asked = |known| {
                    gateways.map(|gateway| {
                        runtime.block_on(async {
                            let source = Some(Ipv4Addr::new(192, 0, 2, 1));
                            let solicitor =
                                Solicitor::open(ifindex, "lan0", own, source, gateway).unwrap();
                            // A link that has just come up takes its time.
                            for _ in 0..6 {
                                solicitor.ask(known).unwrap();
                                if let Ok(answer) = timeout(patience, solicitor.answer()).await {
                                    return Some(answer.unwrap());
                                }
                            }
                            None
                        })
                    })
                };
                let mac = [2, 0, 0, 0, 0, 7];
                let there = Some(Answer { address: Some(mac) });
                assert_eq!(asked(None), [there, there]);
                assert_eq!(asked(Some(mac)), [there, there]);
                assert_eq!(
                    asked(Some([2, 0, 0, 0, 0, 8])),
                    [None, there],
                    "ARP of another"
                );
                cut.send(()).unwrap();
                is_cut.recv().unwrap();
                assert_eq!(asked(None), [None, None]);
                drop(end);
            });
        });
    }
}
