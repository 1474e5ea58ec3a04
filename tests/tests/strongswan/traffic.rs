//! What goes through the router: tunnels, and everything else beside them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::dns;
use wificall_tests::lab::{DNS, EPDG4, EPDG6, LIMIT, Lab, OTHER4, OTHER6, PHONE4, PHONE6};
use wificall_tests::process::wait_until;
use wificall_tests::send::{self, RawIp};
use wificall_tests::swan::{self, Connection, Swan};

const ESP: u8 = 50;
/// What ends both captures.
pub const LAST: &[u8] = b"the last packet of this test";

/// Two tunnels to the ePDG and one to a company's VPN gateway, which is none: set-up,
/// traffic of a call's size both ways, large packets, a rekey, keepalives, the end.
pub fn tunnels(lab: &Lab, agent: &Agent<'_>) -> Result<()> {
    const CONNECTIONS: [Connection<'_>; 3] = [
        Connection {
            name: "four",
            local: PHONE4,
            remote: dns::EPDG,
            inside: "10.98.0.1",
        },
        Connection {
            name: "six",
            local: PHONE6,
            remote: dns::EPDG,
            inside: "10.98.0.2",
        },
        Connection {
            name: "office",
            local: PHONE4,
            remote: OTHER4,
            inside: "10.98.0.3",
        },
    ];
    let _epdg = Swan::start(&lab.far, &swan::epdg(), None)?;
    let phone = Swan::start(&lab.phone, &swan::phone(&CONNECTIONS), Some(DNS))?;
    for Connection { name, inside, .. } in CONNECTIONS {
        phone.initiate(name)?;
        lab.phone
            .run("ping", &format!("-q -c100 -i0.004 -s80 -W5 {inside}"))?;
    }
    lab.phone
        .run("ping", "-q -c5 -i0.01 -s1350 -W5 10.98.0.1")?;
    phone.rekey("four")?;
    lab.phone
        .run("ping", "-q -c20 -i0.004 -s80 -W5 10.98.0.1")?;
    // The agent under test only says when to go on; what is right, tshark tells.
    agent.wait_metrics("keepalives", |metrics| {
        let keepalives = metrics.packets(&[("class", "keepalive")]);
        ensure!(keepalives >= 2, "{keepalives} keepalives");
        Ok(())
    })?;
    for Connection { name, .. } in CONNECTIONS {
        phone.terminate(name)?;
    }
    Ok(())
}

/// Traffic that must not be touched, some of it to the ePDG itself.
pub fn neighbours(lab: &Lab) -> Result<()> {
    const ECHO: [(&str, u16); 4] = [(OTHER4, 8080), (OTHER6, 8080), (EPDG4, 4500), (EPDG6, 443)];
    for (address, port) in ECHO {
        tcp_echo(lab, (address, port)).with_context(|| format!("TCP to {address} {port}"))?;
    }
    const UDP: [(&str, u16); 4] = [(OTHER4, 7), (OTHER6, 7), (EPDG4, 4501), (EPDG6, 5060)];
    for (address, port) in UDP {
        udp_echo(lab, (address, port)).with_context(|| format!("UDP to {address} {port}"))?;
    }
    for address in [EPDG4, OTHER4, EPDG6, OTHER6] {
        // AF41 and ECT(0): both must stay.
        lab.phone
            .run("ping", &format!("-q -c20 -i0.01 -W5 -Q 0x8a {address}"))?;
    }
    Ok(())
}

fn tcp_echo(lab: &Lab, to: (&str, u16)) -> Result<()> {
    const LENGTH: usize = 100_000;
    let to = send::address(to.0, to.1)?;
    let listener = lab.far.enter(|| TcpListener::bind(to))?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = vec![0; LENGTH];
            stream.read_exact(&mut bytes)?;
            stream.write_all(&bytes)?;
            // The client closes first, and this side sees it.
            ensure!(stream.read(&mut bytes)? == 0, "more than was sent");
            Ok(())
        });
        let mut stream = lab.phone.enter(|| TcpStream::connect_timeout(&to, LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let bytes: Vec<u8> = (0..LENGTH).map(|number| number as u8).collect();
        stream.write_all(&bytes)?;
        let mut back = vec![0; LENGTH];
        stream.read_exact(&mut back)?;
        ensure!(bytes == back, "the echo differs");
        drop(stream);
        server.join().map_err(|_| anyhow!("the server panicked"))?
    })
}

fn udp_echo(lab: &Lab, to: (&str, u16)) -> Result<()> {
    let to = send::address(to.0, to.1)?;
    let server = send::udp(&lab.far, &to.to_string())?;
    let client = send::udp(
        &lab.phone,
        if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" },
    )?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let mut buffer = [0; 2048];
    for number in 0..50 {
        // The shape of ESP: only its port says that it is none.
        client.send_to(&send::esp(number, 150), to)?;
        let (length, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..length], from)?;
        client.recv_from(&mut buffer)?;
    }
    Ok(())
}

/// ESP as IP protocol 50, which strongSwan in user space cannot send.
pub fn native_esp(lab: &Lab) -> Result<()> {
    const COUNT: u32 = 25;
    // Open on all sides, or a kernel would answer that nobody speaks this protocol.
    let phone4 = RawIp::new(&lab.phone, false, ESP)?;
    let phone6 = RawIp::new(&lab.phone, true, ESP)?;
    let _far4 = RawIp::new(&lab.far, false, ESP)?;
    let far6 = RawIp::new(&lab.far, true, ESP)?;
    for number in 0..COUNT {
        phone4.send(&send::esp(number, 120), EPDG4.parse()?)?;
        phone6.send(&send::esp(number, 120), EPDG6.parse()?)?;
        far6.send(&send::esp(number, 120), PHONE6.parse()?)?;
    }
    Ok(())
}

/// A datagram there and back, after everything else.
pub fn last_packet(lab: &Lab) -> Result<()> {
    let server = send::udp(&lab.far, &format!("{OTHER4}:9"))?;
    let client = send::udp(&lab.phone, "0.0.0.0:0")?;
    client.send_to(LAST, (OTHER4, 9))?;
    server.set_read_timeout(Some(LIMIT))?;
    client.set_read_timeout(Some(LIMIT))?;
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer[..length], from)?;
    wait_until("the last packet", LIMIT, || {
        client.recv_from(&mut buffer).ok()
    })
    .map(drop)
}
