//! The sockets that questions leave by: marked for policy routing, and deaf to what is no answer.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
    iocompat::AsyncIoTokioAsStd,
};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Stats;
use super::answer::Lie;

/// The header of a message (RFC 1035 §4.1.1), before the question.
const HEADER: usize = 12;

/// Type and class, after the name of a question (RFC 1035 §4.1.2).
const TYPE_AND_CLASS: usize = 4;

/// Makes the sockets.
#[derive(Clone)]
pub(super) struct Sockets {
    /// The fwmark of what they send.
    mark: Option<u32>,
    stats: Arc<Stats>,
    tokio: TokioRuntimeProvider,
}

impl Sockets {
    pub(super) fn new(mark: Option<u32>, stats: Arc<Stats>) -> Self {
        Self {
            mark,
            stats,
            tokio: TokioRuntimeProvider::default(),
        }
    }

    fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        let Some(mark) = self.mark else {
            return Ok(());
        };
        SockRef::from(socket).set_mark(mark).map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("set the mark {mark:#x} of a socket: {error}"))
        })
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Guarded;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let this = self.clone();
        Box::pin(async move {
            let socket = match server {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            this.mark(&socket)?;
            socket.set_nodelay(true)?;
            let connect = socket.connect(server);
            let stream = match wait_for {
                Some(limit) => timeout(limit, connect)
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?,
                None => connect.await,
            }?;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Guarded>>>> {
        let this = self.clone();
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            this.mark(&socket)?;
            Ok(Guarded {
                socket,
                server,
                asked: Mutex::default(),
                stats: this.stats,
            })
        })
    }
}

/// A UDP socket that gives out nothing but answers of the server that was asked to the question
/// that was asked. Whatever else arrives is counted, and the wait goes on: a guess of an attacker
/// must not end it.
pub(super) struct Guarded {
    socket: UdpSocket,
    server: SocketAddr,
    /// The query as it was sent.
    asked: Mutex<Vec<u8>>,
    stats: Arc<Stats>,
}

impl Guarded {
    fn check(&self, answer: &[u8], from: SocketAddr) -> Result<(), Lie> {
        // The scope of a link-local address is not part of what is compared.
        if (from.ip(), from.port()) != (self.server.ip(), self.server.port()) {
            return Err(Lie::Source);
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        matches(&asked, answer)
    }
}

/// Whether an answer repeats identifier and question of a query (RFC 5452 §9.1).
fn matches(asked: &[u8], answer: &[u8]) -> Result<(), Lie> {
    if answer.len() < HEADER || answer.get(..2) != asked.get(..2) {
        return Err(Lie::Id);
    }
    // A question is not compressed: there is nothing before it to point to.
    let question = question(asked).ok_or(Lie::Question)?;
    let (name, rest) = question.split_at(question.len() - TYPE_AND_CLASS);
    let given = answer
        .get(HEADER..HEADER + question.len())
        .ok_or(Lie::Question)?;
    let (given_name, given_rest) = given.split_at(name.len());
    // One question; letters in any case (RFC 4343 §3).
    let one = answer[4..6] == [0, 1];
    if one && given_name.eq_ignore_ascii_case(name) && given_rest == rest {
        Ok(())
    } else {
        Err(Lie::Question)
    }
}

/// The question of a query of ours.
fn question(query: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        let length = usize::from(*query.get(end)?);
        end += 1 + length;
        if length == 0 {
            return query.get(HEADER..end + TYPE_AND_CLASS);
        }
    }
}

impl DnsUdpSocket for Guarded {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            let (length, from) = ready!(DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer))?;
            match self.check(&buffer[..length], from) {
                Ok(()) => return Poll::Ready(Ok((length, from))),
                Err(lie) => {
                    self.stats.add_lie(lie, 1);
                }
            }
        }
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clear();
        asked.extend_from_slice(buffer);
        drop(asked);
        // Now, because now is its slot: tokio would wait until it has been told that a new socket
        // can be written to.
        match SockRef::from(&self.socket).send_to(buffer, &target.into()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                DnsUdpSocket::poll_send_to(&self.socket, cx, buffer, target)
            }
            sent => Poll::Ready(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `epdg.example`, A, IN.
    const ASKED: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x04epdg\x07example\0\0\x01\0\x01opt";

    fn answer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut answer = ASKED.to_vec();
        answer[2] = 0x81;
        change(&mut answer);
        answer
    }

    #[test]
    fn answers_repeat_the_question() {
        for (answer, expected) in [
            (answer(|_| {}), Ok(())),
            (answer(|a| a[13..17].copy_from_slice(b"ePdG")), Ok(())),
            (answer(|a| a[1] = 0x35), Err(Lie::Id)),
            (answer(|a| a.truncate(11)), Err(Lie::Id)),
            (answer(|a| a.truncate(20)), Err(Lie::Question)),
            (answer(|a| a[16] = b'h'), Err(Lie::Question)),
            // AAAA where A was asked, two questions, none.
            (answer(|a| a[27] = 28), Err(Lie::Question)),
            (answer(|a| a[5] = 2), Err(Lie::Question)),
            (answer(|a| a[5] = 0), Err(Lie::Question)),
        ] {
            assert_eq!(matches(ASKED, &answer), expected, "{answer:?}");
        }
        // Not a query of ours, and still no panic.
        for length in 0..ASKED.len() {
            let _ = matches(&ASKED[..length], ASKED);
        }
    }
}
