//! Events: what the programs tell as it happens, through the ring buffer.

use std::{net::IpAddr, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use wificall_common::abi::{EVENT_HEAD, EVENT_VERSION, EventKind};

use super::error::{Context as _, KernelError};

/// A packet that the programs tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// What it is.
    pub kind: EventKind,
    /// The interface at whose hook it was seen.
    pub ifindex: u32,
    /// The interface that it came in on; 0 if the box itself sent it.
    pub ingress_ifindex: u32,
    /// VLAN ID, 0 without one.
    pub vlan: u16,
    /// The client's address.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// The far end's address.
    pub far: IpAddr,
    /// Its port.
    pub far_port: u16,
    /// The message: DNS, or an IKE header.
    pub data: Vec<u8>,
}

impl Event {
    /// Reads an event; `None` if it is of a kind or a version that this program does not know.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<EVENT_HEAD>()?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&head[at..at + 16]);
            IpAddr::from(octets).to_canonical()
        };
        if head[8] != EVENT_VERSION {
            return None;
        }
        Some(Self {
            at: u64::from(word(0)) | u64::from(word(4)) << 32,
            kind: EventKind::from_u8(head[9])?,
            ifindex: word(12),
            ingress_ifindex: word(16),
            client: address(24),
            far: address(40),
            client_port: half(56),
            far_port: half(58),
            vlan: half(60),
            data: bytes.get(EVENT_HEAD..half(10).into())?.to_vec(),
        })
    }
}

/// Now, on the clock that events are stamped by.
#[must_use]
pub fn ktime() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a buffer of the right type; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The reading end of the ring buffer. There is one at a time: the agent that holds the instance's lock.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    /// There may be more that no notification announces.
    more: bool,
}

impl Events {
    /// Opens the ring buffer pinned in `directory`. Needs a tokio runtime.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        let path = directory.join("EVENTS");
        let opening = || format!("open map {}", path.display());
        let data = MapData::from_pin(&path).doing(opening)?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).doing(opening)?;
        // SAFETY: the ring buffer owns its descriptor, which stays the same and open for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(std::io::Error::from)
            .doing(|| format!("watch map {}", path.display()))?;
        // What an agent before has left unread was announced to that one.
        Ok(Self { ring, more: true })
    }

    /// Waits until there may be events.
    ///
    /// # Errors
    ///
    /// If they cannot be waited for.
    pub async fn ready(&mut self) -> std::io::Result<()> {
        if !self.more {
            // Cleared before the events are read: what comes meanwhile is announced again.
            self.ring.readable_mut().await?.clear_ready();
            self.more = true;
        }
        Ok(())
    }

    /// The next event, or bytes that are none: `Some(None)`. `None` if there are no more for now: then
    /// [`ready`](Self::ready) waits.
    pub fn take(&mut self) -> Option<Option<Event>> {
        let taken = self.ring.get_mut().next().map(|item| Event::parse(&item));
        self.more = taken.is_some();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wificall_common::abi::{EventHeader, EventPacket};

    fn event(version: u8, kind: u8, data: &[u8]) -> Vec<u8> {
        let header = EventHeader {
            at: 0x0102_0304_0506_0708,
            version,
            kind,
            length: (EVENT_HEAD + data.len()) as u16,
            ifindex: 7,
            ingress_ifindex: 9,
            reserved: 0,
        };
        let mut client = [0; 16];
        client[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
        let mut far = [0; 16];
        far[0] = 0x20;
        far[15] = 1;
        let packet = EventPacket {
            client,
            far,
            client_port: 40_000,
            far_port: 53,
            vlan: 12,
            reserved: 0,
        };
        // SAFETY: plain data without padding.
        let mut bytes = unsafe { std::mem::transmute::<EventHeader, [u8; 24]>(header) }.to_vec();
        // SAFETY: as above.
        bytes.extend(unsafe { std::mem::transmute::<EventPacket, [u8; 40]>(packet) });
        bytes.extend(data);
        bytes
    }

    #[test]
    fn the_layout_is_the_one_that_the_programs_write() {
        // The kernel rounds an entry's length up to eight bytes; the header has the true one.
        let mut bytes = event(EVENT_VERSION, 1, &[1, 2, 3]);
        bytes.extend([0; 5]);
        assert_eq!(
            Event::parse(&bytes),
            Some(Event {
                at: 0x0102_0304_0506_0708,
                kind: EventKind::NameAnswer,
                ifindex: 7,
                ingress_ifindex: 9,
                vlan: 12,
                client: "10.0.0.2".parse().unwrap(),
                client_port: 40_000,
                far: "2000::1".parse().unwrap(),
                far_port: 53,
                data: vec![1, 2, 3],
            })
        );
    }

    #[test]
    fn what_is_unknown_or_torn_is_no_event() {
        assert_eq!(Event::parse(&event(EVENT_VERSION + 1, 0, &[])), None);
        assert_eq!(Event::parse(&event(EVENT_VERSION, 200, &[])), None);
        let whole = event(EVENT_VERSION, 0, &[9; 40]);
        for len in 0..whole.len() {
            assert_eq!(Event::parse(&whole[..len]), None, "{len}");
        }
        let mut short = whole;
        short[10..12].copy_from_slice(&3_u16.to_le_bytes());
        assert_eq!(Event::parse(&short), None);
    }
}
