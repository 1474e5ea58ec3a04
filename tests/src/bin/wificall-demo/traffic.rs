//! What flows: calls with both operators, and other traffic beside them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use wificall_tests::send::RawIp;

use crate::scene::Scene;

/// A frame of AMR-WB or EVS is 20 ms of speech (TS 26.190, TS 26.445), so a call is a packet a tick, each way.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between requests over TCP.
const REQUEST_EVERY: u32 = 3;
const LAST_TICKS: u32 = 5;
/// Octets of an IKE header (RFC 7296 §3.1).
const IKE_HEADER: usize = 28;
/// The flag of a response, at octet 19 of the header.
const RESPONSE: u8 = 0x20;
/// Before an IKE header on port 4500 (RFC 3948 §2.2).
pub(crate) const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Octets of an IKE message that does not fit an Ethernet frame: one that carries certificates.
pub(crate) const LONG: usize = 2_400;

/// Traffic that flows until finished or dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Traffic {
    /// Opens the sockets of both ends and starts.
    ///
    /// # Errors
    ///
    /// If an address or port cannot be bound.
    pub fn start(scene: &Scene) -> Result<Self> {
        let mut play = Play::open(scene)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let start = Instant::now();
                let mut tick = 0;
                while !stop.load(Ordering::Acquire) {
                    play.tick(tick)?;
                    tick += 1;
                    let due = start + TICK * tick;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                // The last requests are answered, too, before the ports close.
                for _ in 0..LAST_TICKS {
                    play.answer()?;
                    thread::sleep(TICK);
                }
                Ok(())
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Whether it has ended, which only a failure does by itself.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// If something could not be sent.
    pub fn finish(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map_or(Ok(()), |thread| {
            thread
                .join()
                .map_err(|_| anyhow!("the sender's thread panicked"))?
                .context("traffic")
        })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // Whoever drops it is on the way out with an error of his own.
        let _ = self.join();
    }
}

/// Packets at regular ticks.
pub(crate) struct Stream {
    pub(crate) socket: Socket,
    pub(crate) to: SocketAddr,
    /// Ticks from one to the next.
    pub(crate) every: u32,
    /// The tick of the first, below `every`.
    pub(crate) phase: u32,
    /// What the packet of a number has in it.
    pub(crate) payload: Payload,
}

/// Makes payloads from numbers.
pub(crate) type Payload = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// What packets leave by.
pub(crate) enum Socket {
    /// Of UDP.
    Udp(UdpSocket),
    /// Of ESP.
    Ip(RawIp),
}

impl Stream {
    fn tick(&self, tick: u32) -> Result<()> {
        if tick % self.every != self.phase {
            return Ok(());
        }
        let payload = (self.payload)(tick / self.every);
        match &self.socket {
            Socket::Udp(socket) => socket
                .send_to(&payload, self.to)
                .map(drop)
                .with_context(|| format!("send to {}", self.to)),
            Socket::Ip(socket) => {
                socket.drain()?;
                socket.send(&payload, self.to.ip())
            }
        }
    }
}

/// Everybody who talks. The sockets know their namespaces.
pub(crate) struct Play {
    /// What is sent whether it arrives or not.
    pub(crate) streams: Vec<Stream>,
    /// The sockets that IKE requests arrive at, with what comes before the IKE header.
    pub(crate) responders: Vec<(UdpSocket, usize)>,
    /// A TCP connection, and both of its ends.
    pub(crate) tcp: (TcpStream, TcpStream),
}

impl Play {
    fn tick(&mut self, tick: u32) -> Result<()> {
        self.answer()?;
        for stream in &self.streams {
            stream.tick(tick)?;
        }
        if tick.is_multiple_of(REQUEST_EVERY) {
            self.request().context("TCP")?;
        }
        Ok(())
    }

    /// Answers the IKE requests that have arrived; everything else is dropped unread.
    fn answer(&self) -> Result<()> {
        let mut buffer = [0; LONG + NON_ESP_MARKER.len()];
        for (socket, header) in &self.responders {
            loop {
                let (length, from) = match socket.recv_from(&mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("receive at an ePDG"),
                };
                if let Some(response) = response(&buffer[..length], *header) {
                    socket
                        .send_to(&response, from)
                        .with_context(|| format!("answer {from}"))?;
                }
            }
        }
        Ok(())
    }

    /// A request over TCP and its response.
    fn request(&mut self) -> std::io::Result<()> {
        const REQUEST: [u8; 200] = [0x44; 200];
        const RESPONSE: [u8; 1_200] = [0x55; 1_200];
        let (phone, far) = &mut self.tcp;
        phone.write_all(&REQUEST)?;
        far.read_exact(&mut [0; REQUEST.len()])?;
        far.write_all(&RESPONSE)?;
        phone.read_exact(&mut [0; RESPONSE.len()])
    }
}

/// What an ePDG answers to an IKE request: a message of the same length. Nothing to anything else.
fn response(request: &[u8], header: usize) -> Option<Vec<u8>> {
    let (marker, message) = request.split_at_checked(header)?;
    if marker.iter().any(|byte| *byte != 0)
        || message.len() < IKE_HEADER
        || message[19] & RESPONSE != 0
    {
        return None;
    }
    let mut answer = request.to_vec();
    answer[header + 8..header + 16].fill(0x99);
    answer[header + 19] = RESPONSE;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wificall_tests::send;

    #[test]
    fn only_requests_are_answered() {
        let request = send::ike_behind_marker(300);
        let answer = response(&request, 4).unwrap();
        assert_eq!(answer.len(), request.len());
        assert_eq!(response(&answer, 4), None);
        assert_eq!(response(&send::esp(1, 100), 4), None);
        assert_eq!(response(&send::KEEPALIVE, 4), None);
        assert!(response(&send::ike_sa_init(300), 0).is_some());
    }
}
