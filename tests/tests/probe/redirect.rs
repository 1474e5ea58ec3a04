//! A responder that answers every IKE_SA_INIT with REDIRECT (RFC 5685 §5).

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use wificall_tests::netns::Netns;

/// Payload types and the notify (RFC 7296 §3.2, RFC 5685 §10).
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;
const REDIRECT: u16 = 16407;

/// The running responder; it ends when dropped.
pub struct Redirector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Redirector {
    /// Starts one on `port` of `address` that sends everybody to `gateway`, an address or a name.
    pub fn start(namespace: &Netns, address: &str, port: u16, gateway: &str) -> Result<Self> {
        let gateway = identity(gateway)?;
        let socket = namespace.enter(|| UdpSocket::bind((address, port)))?;
        let marker = if port == 4500 { 4 } else { 0 };
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer)
                    && let Some(request) = buffer[..length].get(marker..)
                    && let Some(answer) = answer(request, &gateway)
                {
                    // RFC 3948 §2.2: the non-ESP marker.
                    let answer = [vec![0; marker], answer].concat();
                    // The prober will tell that nothing came.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Redirector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A gateway's identity: type, length, and itself (RFC 5685 §4).
fn identity(gateway: &str) -> Result<Vec<u8>> {
    let (kind, identity) = match gateway.parse() {
        Ok(IpAddr::V4(address)) => (1, address.octets().to_vec()),
        Ok(IpAddr::V6(address)) => (2, address.octets().to_vec()),
        Err(_) => (3, gateway.as_bytes().to_vec()),
    };
    Ok([vec![kind, u8::try_from(identity.len())?], identity].concat())
}

/// The answer to a request: its SPI, and a REDIRECT with its nonce.
fn answer(request: &[u8], gateway: &[u8]) -> Option<Vec<u8>> {
    let mut next = *request.get(16)?;
    let mut at = 28;
    while next != NONCE {
        let length = u16::from_be_bytes([*request.get(at + 2)?, *request.get(at + 3)?]);
        next = request[at];
        at += usize::from(length);
    }
    let length = usize::from(u16::from_be_bytes([
        *request.get(at + 2)?,
        *request.get(at + 3)?,
    ]));
    let nonce = request.get(at + 4..at + length)?;
    let body_length = 4 + 4 + gateway.len() + nonce.len();
    let mut answer = request[..8].to_vec();
    answer.extend([0; 8]);
    answer.extend([NOTIFY, 0x20, 34, 0x20, 0, 0, 0, 0]);
    answer.extend(u32::try_from(28 + body_length).ok()?.to_be_bytes());
    answer.extend([0, 0]);
    answer.extend(u16::try_from(body_length).ok()?.to_be_bytes());
    answer.extend([0, 0]);
    answer.extend(REDIRECT.to_be_bytes());
    answer.extend(gateway);
    answer.extend(nonce);
    Some(answer)
}
