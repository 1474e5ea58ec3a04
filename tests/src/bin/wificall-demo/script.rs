//! Who says what to whom.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use wificall_tests::lab::{EPDG4, OTHER4, OTHER6, PHONE4, PHONE6};
use wificall_tests::netns::Netns;
use wificall_tests::send::{self, IKE, KEEPALIVE, NATT, RawIp};

use crate::scene::{DNS, OPERATORS, Scene};
use crate::traffic::{LONG, NON_ESP_MARKER, Play, Socket, Stream};

/// About a second, in ticks.
const SECOND: u32 = 50;
const HTTPS: u16 = 443;
const ESP: u8 = 50;
// IKE exchange types (RFC 7296 §3.1), and the payload that has the others in it (§3.2).
const IKE_AUTH: u8 = 35;
const INFORMATIONAL: u8 = 37;
const ENCRYPTED: u8 = 46;

impl Play {
    /// Opens all sockets.
    ///
    /// # Errors
    ///
    /// If an address or port cannot be bound.
    pub(crate) fn open(scene: &Scene) -> Result<Self> {
        let (phone, far) = (&scene.lab.phone, &scene.lab.far);
        let mut play = Self {
            streams: Vec::new(),
            responders: Vec::new(),
            tcp: tcp(phone, far)?,
        };
        // Phones find a NAT on the way in IPv4, and none in IPv6: there, the first operator's calls
        // are ESP without UDP, and the second's in UDP all the same.
        let [test, german] = &OPERATORS;
        for (local, epdgs) in [
            (
                PHONE4,
                [(test.addresses[0], true), (german.addresses[0], true)],
            ),
            (
                PHONE6,
                [(test.addresses[1], false), (german.addresses[1], true)],
            ),
        ] {
            let ike = Port::open(phone, local, IKE)?;
            let natt = Port::open(phone, local, NATT)?;
            for (epdg, in_udp) in epdgs {
                let epdg_ike = Port::open(far, epdg, IKE)?;
                let epdg_natt = Port::open(far, epdg, NATT)?;
                if in_udp {
                    play.set_up((&ike, &epdg_ike), (&natt, &epdg_natt))?;
                    play.call_in_udp(&natt, &epdg_natt)?;
                } else {
                    play.set_up((&ike, &epdg_ike), (&ike, &epdg_ike))?;
                    play.call_in_esp((phone, ike.at), (far, epdg_ike.at))?;
                }
                play.respond(epdg_ike, 0);
                play.respond(epdg_natt, NON_ESP_MARKER.len());
            }
        }
        for (local, other) in [(PHONE4, OTHER4), (PHONE6, OTHER6)] {
            // Some other company's VPN on the port of Wi-Fi Calling.
            let vpn = (Port::open(phone, local, 0)?, Port::open(far, other, NATT)?);
            play.both_ways(&vpn, 1, |number| send::esp(number, 1_000))?;
            let quic = (Port::open(phone, local, 0)?, Port::open(far, other, HTTPS)?);
            play.both_ways(&quic, 1, |_| vec![0x66; 1_250])?;
        }
        // The right host and the wrong port.
        let web = (
            Port::open(phone, PHONE4, 0)?,
            Port::open(far, EPDG4, HTTPS)?,
        );
        play.both_ways(&web, 5, |_| vec![0x66; 1_250])?;
        let asker = Port::open(phone, PHONE4, 0)?;
        play.stream(&asker, send::address(DNS, 53)?, (SECOND / 2, 5), |number| {
            query(OPERATORS[number as usize % OPERATORS.len()].name, number)
        })?;
        Ok(play)
    }

    /// IKE every other second: IKE_SA_INIT, IKE_AUTH where the tunnel will be, later a sign of life.
    /// In IPv4, IKE_AUTH needs two fragments.
    fn set_up(&mut self, first: (&Port, &Port), then: (&Port, &Port)) -> Result<()> {
        let (phone, epdg) = first;
        self.stream(phone, epdg.at, (2 * SECOND, 0), |_| send::ike_sa_init(500))?;
        let (phone, epdg) = then;
        let marker: &[u8] = if epdg.at.port() == NATT {
            &NON_ESP_MARKER
        } else {
            &[]
        };
        let length = if epdg.at.is_ipv4() { LONG } else { 1_200 };
        for (phase, exchange, length) in [(2, IKE_AUTH, length), (SECOND, INFORMATIONAL, 80)] {
            self.stream(phone, epdg.at, (2 * SECOND, phase), move |number| {
                [marker, &encrypted(exchange, number, length)].concat()
            })?;
        }
        Ok(())
    }

    fn call_in_udp(&mut self, phone: &Port, epdg: &Port) -> Result<()> {
        self.both_ways(&(phone.clone()?, epdg.clone()?), 1, speech)?;
        self.stream(phone, epdg.at, (SECOND, 7), |_| KEEPALIVE.to_vec())
    }

    fn call_in_esp(
        &mut self,
        phone: (&Netns, SocketAddr),
        epdg: (&Netns, SocketAddr),
    ) -> Result<()> {
        for ((namespace, _), (_, to)) in [(phone, epdg), (epdg, phone)] {
            self.streams.push(Stream {
                socket: Socket::Ip(RawIp::new(namespace, to.is_ipv6(), ESP)?),
                to,
                every: 1,
                phase: 0,
                payload: Box::new(speech),
            });
        }
        Ok(())
    }

    fn both_ways(
        &mut self,
        (a, b): &(Port, Port),
        every: u32,
        payload: fn(u32) -> Vec<u8>,
    ) -> Result<()> {
        self.stream(a, b.at, (every, 0), payload)?;
        self.stream(b, a.at, (every, 0), payload)
    }

    /// Packets every so many ticks, from a certain one on.
    fn stream(
        &mut self,
        from: &Port,
        to: SocketAddr,
        (every, phase): (u32, u32),
        payload: impl Fn(u32) -> Vec<u8> + Send + 'static,
    ) -> Result<()> {
        self.streams.push(Stream {
            socket: Socket::Udp(from.socket.try_clone()?),
            to,
            every,
            phase,
            payload: Box::new(payload),
        });
        Ok(())
    }

    fn respond(&mut self, epdg: Port, header: usize) {
        self.responders.push((epdg.socket, header));
    }
}

/// A UDP port of one end.
struct Port {
    socket: UdpSocket,
    at: SocketAddr,
}

impl Port {
    fn open(namespace: &Netns, ip: &str, port: u16) -> Result<Self> {
        let socket = send::udp(namespace, &send::address(ip, port)?.to_string())?;
        socket.set_nonblocking(true)?;
        let at = socket.local_addr()?;
        Ok(Self { socket, at })
    }

    fn clone(&self) -> Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            at: self.at,
        })
    }
}

/// A connection from the phone to a web server.
fn tcp(phone: &Netns, far: &Netns) -> Result<(TcpStream, TcpStream)> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let server = send::address(OTHER4, HTTPS)?;
    let listener = far
        .enter(|| TcpListener::bind(server))
        .context("listen on TCP")?;
    let near = phone
        .enter(|| TcpStream::connect_timeout(&server, PATIENCE))
        .context("connect over TCP")?;
    let (there, _) = listener.accept()?;
    for end in [&near, &there] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((near, there))
}

/// ESP as long as around RTP over IPv6 with AMR-WB at 23.85 and at 12.65 kbit/s.
fn speech(number: u32) -> Vec<u8> {
    send::esp(number + 1, if number.is_multiple_of(4) { 136 } else { 168 })
}

/// An IKE request after IKE_SA_INIT, of `length` octets.
fn encrypted(exchange: u8, id: u32, length: usize) -> Vec<u8> {
    let mut message = send::ike_sa_init(length);
    message[8..16].fill(0x99);
    message[16] = ENCRYPTED;
    message[18] = exchange;
    message[20..24].copy_from_slice(&id.to_be_bytes());
    message
}

/// A question for the IPv4 addresses of `name` (RFC 1035 §4).
fn query(name: &str, id: u32) -> Vec<u8> {
    let [.., high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
