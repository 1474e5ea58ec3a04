//! A DNS server that knows the world: every operator's ePDG that was found to resolve in February
//! 2025 has an address of its own, and no other name exists. It takes down when each query arrived.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use crate::netns::Netns;

/// The operators whose names resolve, as MCC and three-digit MNC.
const RESOLVING: &str = include_str!("../../data/epdg_resolving_plmns_2025-02.tsv");

/// Minimum of the SOA that says that a name does not exist.
const ABSENT: u32 = 3600;

/// A query that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When the kernel took it in, since 1970-01-01.
    pub at: Duration,
    /// The name that was asked for.
    pub name: String,
    /// What of it.
    pub kind: RecordType,
}

/// The server. It ends when dropped.
pub struct World {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The operators whose names resolve, and their addresses, in 198.18.0.0/15.
#[must_use]
pub fn resolving() -> BTreeMap<(u16, u16), Ipv4Addr> {
    let rows = RESOLVING.lines().filter(|line| !line.starts_with('#'));
    let plmns = rows.filter_map(|line| {
        let mut fields = line.split('\t');
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let addresses =
        (0_u32..).map(|n| Ipv4Addr::from_bits(0xc612_0000 + (n / 200) * 256 + 1 + n % 200));
    plmns.zip(addresses).collect()
}

/// The name of an operator's ePDG (TS 23.003 §19.4.2.9.2).
#[must_use]
pub fn name((mcc, mnc): (u16, u16)) -> String {
    format!("epdg.epc.mnc{mnc:03}.mcc{mcc:03}.pub.3gppnetwork.org")
}

impl World {
    /// Starts it on UDP at an address of `namespace`. Answers live for `ttl` seconds.
    ///
    /// # Errors
    ///
    /// If the address is taken, or the kernel gives no timestamps.
    pub fn start(namespace: &Netns, at: &str, ttl: u32) -> Result<Self> {
        let socket = crate::send::udp(namespace, at)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        timestamps(&socket).context("have the kernel timestamp what arrives")?;
        let answers: BTreeMap<String, Ipv4Addr> = resolving()
            .into_iter()
            .map(|(plmn, address)| (name(plmn) + ".", address))
            .collect();
        ensure!(answers.len() > 400, "{} operators resolve", answers.len());
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (log, ended) = (arrivals.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Ok((query, from, at)) = receive(&socket)
                    && let Ok(query) = Message::from_vec(&query)
                {
                    let arrival = Arrival {
                        at,
                        name: query.queries[0].name().to_lowercase().to_ascii(),
                        kind: query.queries[0].query_type(),
                    };
                    let answer = answer(&query, answers.get(&arrival.name), ttl);
                    // A client that is gone is not our concern.
                    let _ = answer.map(|answer| socket.send_to(&answer, from));
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(arrival);
                }
            }
        });
        Ok(Self {
            arrivals,
            stop,
            thread: Some(thread),
        })
    }

    /// The queries so far, which are forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<Arrival> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *arrivals)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The most arrivals within a window.
#[must_use]
pub fn most_within(arrivals: &[Arrival], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, arrival) in arrivals.iter().enumerate() {
        while arrival.at.saturating_sub(arrivals[first].at) >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn answer(query: &Message, address: Option<&Ipv4Addr>, ttl: u32) -> Option<Vec<u8>> {
    let asked = &query.queries[0];
    let mut answer = query.clone().into_response();
    match address {
        Some(address) if asked.query_type() == RecordType::A => {
            let data = RData::A((*address).into());
            answer.add_answer(Record::from_rdata(asked.name().clone(), ttl, data));
        }
        Some(_) => {}
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    if answer.answers.is_empty() {
        let zone = Name::from_ascii("3gppnetwork.org.").ok()?;
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, ABSENT);
        answer.add_authority(Record::from_rdata(zone, ABSENT, RData::SOA(soa)));
    }
    answer.to_vec().ok()
}

fn timestamps(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A datagram, its sender, and when it arrived.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr, Duration)> {
    // The time is looked at before the datagram is taken: `recvmsg` would give both, and the
    // address as bytes.
    let mut data = vec![0_u8; 1500];
    let mut control = [0_u64; 16];
    let mut vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to buffers of the lengths it says, which outlive the call.
    let peeked = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_PEEK) };
    if peeked < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut at = Duration::ZERO;
    // SAFETY: the kernel filled the control buffer, and the macros stay within its length.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(found) = header.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                let time: libc::timespec = libc::CMSG_DATA(header)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                at = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let (length, from) = socket.recv_from(&mut data)?;
    data.truncate(length);
    Ok((data, from, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted() {
        let at = |milliseconds| Arrival {
            at: Duration::from_millis(milliseconds),
            name: String::new(),
            kind: RecordType::A,
        };
        let arrivals: Vec<_> = [0, 10, 20, 99, 100, 101, 500].map(at).into();
        let most = |window| most_within(&arrivals, Duration::from_millis(window));
        assert_eq!((most(1), most(3), most(100), most(1000)), (1, 3, 5, 7));
    }

    #[test]
    fn every_operator_has_an_address_of_its_own() {
        let world = resolving();
        let addresses: std::collections::BTreeSet<_> = world.values().collect();
        assert_eq!(addresses.len(), world.len());
    }
}
