//! What the kernel tells the agent as it happens (map `EVENTS`, a ring buffer), and what became of what it could have
//! told (map `EVENT_COUNTS`).
//!
//! Every event begins with an [`EventHeader`]; a reader skips kinds and versions that it does not know by its length.

use super::assert_size;
use crate::Direction;

/// Version of everything in this file: an event of another version is skipped.
pub const EVENT_VERSION: u8 = 1;

/// Bytes of the ring buffer: a power of two, and a multiple of every architecture's page size. Room for some 1,500 DNS
/// messages of a usual size.
pub const EVENTS_SIZE: u32 = 256 * 1024;

/// The longest payload of an event: DNS over UDP without fragments (RFC 9715 §3, the size that resolvers offer).
pub const EVENT_DATA: usize = 1232;

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A DNS query of a client; the data is the DNS message.
    NameQuery = 0,
    /// A DNS answer to a client; the data is the DNS message.
    NameAnswer = 1,
    /// An IKE_SA_INIT request to an address that is no endpoint; the data is the IKE header.
    IkeRequest = 2,
    /// An IKE_SA_INIT response from an address that is no endpoint; the data is the IKE header.
    IkeResponse = 3,
    /// Something has changed in a flow; the data is a [`FlowNote`](super::FlowNote).
    Flow = 4,
}

impl EventKind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::NameQuery,
        Self::NameAnswer,
        Self::IkeRequest,
        Self::IkeResponse,
        Self::Flow,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NameQuery => "name_query",
            Self::NameAnswer => "name_answer",
            Self::IkeRequest => "ike_request",
            Self::IkeResponse => "ike_response",
            Self::Flow => "flow",
        }
    }

    /// The kind of DNS message that goes this way.
    #[must_use]
    #[inline(always)]
    pub const fn of_names(direction: Direction) -> Self {
        match direction {
            Direction::Up => Self::NameQuery,
            Direction::Down => Self::NameAnswer,
        }
    }

    /// The kind of IKE message that goes this way.
    #[must_use]
    #[inline(always)]
    pub const fn of_ike(direction: Direction) -> Self {
        match direction {
            Direction::Up => Self::IkeRequest,
            Direction::Down => Self::IkeResponse,
        }
    }

    /// Which way such a packet goes; of a flow's, its note says that.
    #[must_use]
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        match self {
            Self::NameQuery | Self::IkeRequest | Self::Flow => Direction::Up,
            Self::NameAnswer | Self::IkeResponse => Direction::Down,
        }
    }

    /// Whether the data is a DNS message.
    #[must_use]
    #[inline(always)]
    pub const fn is_name(self) -> bool {
        matches!(self, Self::NameQuery | Self::NameAnswer)
    }

    /// The kind with this number in a map, if there is one.
    #[must_use]
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::NameQuery),
            1 => Some(Self::NameAnswer),
            2 => Some(Self::IkeRequest),
            3 => Some(Self::IkeResponse),
            4 => Some(Self::Flow),
            _ => None,
        }
    }
}

/// What became of a packet that was looked at for an event. New fates are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventFate {
    /// An event was sent.
    Sent = 0,
    /// It is about something else: another name, a query where an answer should be, another IKE exchange.
    Other = 1,
    /// Dropped: more than the configured rate of this kind on this CPU.
    Rate = 2,
    /// Dropped: more than one client's share of that rate.
    ClientRate = 3,
    /// Dropped: the agent has not read what is in the ring buffer.
    Full = 4,
    /// Dropped: longer than [`EVENT_DATA`].
    Large = 5,
    /// Dropped: a fragment or an aggregate, not one whole datagram.
    Fragment = 6,
    /// Dropped: the message ends before its headers say it does, or contradicts its standard.
    Malformed = 7,
}

impl EventFate {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Sent,
        Self::Other,
        Self::Rate,
        Self::ClientRate,
        Self::Full,
        Self::Large,
        Self::Fragment,
        Self::Malformed,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Other => "other",
            Self::Rate => "rate",
            Self::ClientRate => "client_rate",
            Self::Full => "full",
            Self::Large => "large",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
        }
    }
}

const FATES: u32 = 16;
const KINDS: u32 = 16;
const _: () = assert!(EventFate::ALL.len() <= FATES as usize);
const _: () = assert!(EventKind::ALL.len() <= KINDS as usize);
/// Entries of the map `EVENT_COUNTS` (per CPU, one u64 each).
pub const EVENT_SLOTS: u32 = KINDS * FATES;

/// Index in the map `EVENT_COUNTS`.
#[inline(always)]
#[must_use]
pub const fn event_slot(kind: EventKind, fate: EventFate) -> u32 {
    kind as u32 * FATES + fate as u32
}

/// Buckets that clients of one kind share out among them, by a keyed hash of their address.
pub const CLIENT_BUCKETS: u32 = 256;
const BUCKETS_PER_KIND: u32 = CLIENT_BUCKETS + 1;
/// Entries of the map `EVENT_BUCKETS` (per CPU, one u64 each): until when, in ktime, what was sent has used its rate up.
pub const EVENT_BUCKETS: u32 = BUCKETS_PER_KIND * EventKind::ALL.len() as u32;
/// How far ahead of the clock a bucket may be, in nanoseconds: a second's worth may come at once.
pub const EVENT_BURST: u64 = 1_000_000_000;

/// Index in the map `EVENT_BUCKETS`: that of the whole kind.
#[inline(always)]
#[must_use]
pub const fn kind_bucket(kind: EventKind) -> u32 {
    kind as u32 * BUCKETS_PER_KIND
}

/// Index in the map `EVENT_BUCKETS`: that of a client, whose address hashes to `hash`.
#[inline(always)]
#[must_use]
pub const fn client_bucket(kind: EventKind, hash: u32) -> u32 {
    kind_bucket(kind) + 1 + hash % CLIENT_BUCKETS
}

/// What a bucket holds after one more at `now`, each using up `gap` nanoseconds; `None` if it has no room.
#[inline(always)]
#[must_use]
pub const fn take(bucket: u64, now: u64, gap: u64) -> Option<u64> {
    let from = if bucket > now { bucket } else { now };
    if from - now > EVENT_BURST {
        return None;
    }
    Some(from + gap)
}

/// What every event begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventHeader {
    /// When, in nanoseconds of CLOCK_MONOTONIC (`bpf_ktime_get_ns()`).
    pub at: u64,
    /// [`EVENT_VERSION`].
    pub version: u8,
    /// [`EventKind`].
    pub kind: u8,
    /// Bytes of the event, this header included.
    pub length: u16,
    /// The interface at whose hook it was seen.
    pub ifindex: u32,
    /// The interface that the packet came in on; 0 if the box itself sent it.
    pub ingress_ifindex: u32,
    /// Zero.
    pub reserved: u32,
}
assert_size!(EventHeader, 24);

/// Whose packet it is. The data follow, up to the event's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventPacket {
    /// The client's address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The far end's address, likewise.
    pub far: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The far end's port.
    pub far_port: u16,
    /// VLAN ID of the outermost tag, in the frame or taken out by the NIC; 0 without one.
    pub vlan: u16,
    /// Zero.
    pub reserved: u16,
}
assert_size!(EventPacket, 40);

/// Bytes before the data.
pub const EVENT_HEAD: usize = size_of::<EventHeader>() + size_of::<EventPacket>();

/// An event of the longest kind. Of the data only the first `header.length - EVENT_HEAD` bytes are sent.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Event {
    /// The header.
    pub header: EventHeader,
    /// Whose packet it is.
    pub packet: EventPacket,
    /// The message.
    pub data: [u8; EVENT_DATA],
}
assert_size!(Event, EVENT_HEAD + EVENT_DATA);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for (position, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, position);
            assert_eq!(EventKind::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(EventKind::from_u8(EventKind::ALL.len() as u8), None);
        for (position, fate) in EventFate::ALL.into_iter().enumerate() {
            assert_eq!(fate as usize, position);
        }
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        const GAP: u64 = 100_000_000;
        let mut bucket = 0;
        let start = 5_000_000_000;
        let mut take_at = |now| {
            take(bucket, now, GAP)
                .inspect(|next| bucket = *next)
                .is_some()
        };
        let burst = (0..100).filter(|_| take_at(start)).count();
        assert_eq!(burst, 11);
        let second = (1..=1000)
            .filter(|ms| take_at(start + ms * 1_000_000))
            .count();
        assert_eq!(second, 10);
        // A long pause earns a burst, not more.
        let later = start + 3600 * 1_000_000_000;
        assert_eq!((0..100).filter(|_| take_at(later)).count(), 11);
    }

    #[test]
    fn buckets_of_kinds_do_not_overlap() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in EventKind::ALL {
            assert!(seen.insert(kind_bucket(kind)));
            for hash in 0..CLIENT_BUCKETS {
                assert!(seen.insert(client_bucket(kind, hash)));
            }
        }
        assert_eq!(seen.len() as u32, EVENT_BUCKETS);
        assert_eq!(seen.last(), Some(&(EVENT_BUCKETS - 1)));
    }
}
