//! What the kernel keeps of a flow (map `FLOWS`, an LRU), and of what may become one (map `CANDIDATES`, a small LRU): both
//! written by the kernel alone; the agent reads, and removes what is over.
//!
//! The arithmetic is in [`flow`](crate::flow). Times are nanoseconds of the monotonic clock, counts wrap.

use super::{CLIENT_BUCKETS, assert_size};

/// A flow: what one NAT mapping of a phone carries to and from an endpoint. IKE on port 500, what is on 4500, and native
/// ESP are flows of their own, which the agent stitches to a tunnel by their IKE SPIs.
///
/// Aligned for the BPF programs, which have it on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// The phone's address as it stands in the packet, network order; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The ePDG's, likewise.
    pub endpoint: [u8; 16],
    /// The phone's port, host order; 0 for native ESP.
    pub port: u16,
    /// IP protocol: 17 or 50.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}
assert_size!(FlowKey, 40);

/// The ESP sequence numbers of one SPI (RFC 4303 §2.2; of extended ones, the low half, which is what the packets show).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SpiSlot {
    /// Which of the last 64 up to [`highest`](Self::highest) were received: bit 0 is that itself.
    pub window: u64,
    /// The SPI, host order; 0: the slot is free.
    pub spi: u32,
    /// The highest number received, modulo 2^32.
    pub highest: u32,
    /// Where counting began: what is older is not known to be missing.
    pub anchor: u32,
    /// A number far from the highest that nothing has confirmed yet; 0: none.
    pub candidate: u32,
}
assert_size!(SpiSlot, 24);

/// One direction of a flow: the CPU that handles it writes no line of the other direction's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Way {
    /// Packets of all classes but later fragments.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// When the last of them was seen.
    pub seen: u64,
    /// When the last ESP packet was seen; 0: none yet.
    pub esp_seen: u64,
    /// Two SPIs: the new one's first packets and the old one's last ones mix in a rekey.
    pub spis: [SpiSlot; 2],
    /// ESP packets received.
    pub esp: u32,
    /// Sequence numbers that have left the window without a packet: lost before they came here.
    pub lost: u32,
    /// Packets that came behind a later one, within the window.
    pub late: u32,
    /// Packets that came again.
    pub duplicate: u32,
    /// Packets whose number nothing confirmed: forged, or older than the window.
    pub stray: u32,
    /// Packets of a voice frame's size.
    pub voice: u32,
    /// Intervals between those that are a talker's.
    pub talk: u32,
    /// Intervals that are those of comfort noise (SID).
    pub pause: u32,
    /// Smoothed deviation from the interval of voice frames (RFC 3550 §6.4.1), in nanoseconds.
    pub jitter: u32,
    /// When ESP came back after silence, in steps of 2^[`RESUMED_SHIFT`] ns, modulo 2^32; 0: never.
    pub resumed: u32,
    /// How often counting began anew, since what was missed went elsewhere, or cannot be known.
    pub anchored: u16,
    /// Packets of a voice frame's size in a row, as far as [`VOICE_RUN`](crate::flow::VOICE_RUN).
    pub run: u16,
    /// The slot of `spis` that the last ESP packet had.
    pub current: u8,
    /// 1: ESP was seen since the last set-up began.
    pub reached: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
assert_size!(Way, 128);

/// A step of [`Way::resumed`] is about a millisecond: 2^20 ns.
pub const RESUMED_SHIFT: u32 = 20;

/// An IKE request that waits for its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// When it was first seen; 0: none waits.
    pub at: u64,
    /// Message ID (RFC 7296 §2.2).
    pub id: u32,
    /// Exchange type.
    pub exchange: u8,
    /// How often it was seen, as far as 255.
    pub sent: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
assert_size!(Request, 16);

/// What of a flow comes from its IKE messages and keepalives. It lies between the directions, so that these share no
/// cache line wherever the map's entry begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// When the last set-up began: its IKE_SA_INIT, or the first packet that was seen of an older tunnel.
    pub began: u64,
    /// SPI of the IKE SA's initiator, as in the header; zero: no IKE was seen.
    pub spi_i: [u8; 8],
    /// Likewise the responder's; zero before it has answered.
    pub spi_r: [u8; 8],
    /// Requests by [`Direction`](crate::Direction).
    pub requests: [Request; 2],
    /// When the last keepalive was seen (RFC 3948 §4).
    pub keepalive: u64,
    /// The shortest interval between keepalives of a quiet tunnel, in milliseconds; 0: unknown.
    pub keepalive_interval: u32,
    /// The last round trip by the request's direction, in microseconds: of the network side, of the client's; 0: unknown.
    pub round_trip: [u32; 2],
    /// When each milestone was reached, in microseconds since `began`, as far as `milestones` has it.
    pub reached: [u32; MILESTONES],
    /// Requests that were seen again, by direction.
    pub retransmitted: [u16; 2],
    /// The last notify in clear that stands for a refusal or a detour (RFC 7296 §3.10.1), of this set-up; 0: none.
    pub notify: u16,
    /// Set-ups that began in this flow.
    pub setups: u16,
    /// IKE_AUTH responses of this set-up, as far as 65,535: EAP-AKA takes several.
    pub auth_responses: u16,
    /// Bits by [`Milestone`](crate::flow::Milestone).
    pub milestones: u8,
    /// Zero.
    pub reserved: u8,
    /// Group of the endpoint's entry when the flow entered the table.
    pub group: u32,
    /// The interface at whose hook it entered.
    pub ifindex: u32,
    /// Zero.
    pub reserved2: u32,
}
assert_size!(Control, 128);

/// Milestones that there are.
pub const MILESTONES: usize = 7;

/// A flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// From the phone.
    pub up: Way,
    /// IKE and keepalives.
    pub control: Control,
    /// To the phone.
    pub down: Way,
}
assert_size!(Flow, 384);

/// A flow whose endpoint has not answered yet, or whose client has not spoken yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Candidate {
    /// When the first packet was seen.
    pub first: u64,
    /// When the client's last IKE request was first sent; 0: none was seen.
    pub asked: u64,
    /// SPI of the initiator in it.
    pub spi_i: [u8; 8],
    /// Likewise the responder's.
    pub spi_r: [u8; 8],
    /// Its message ID.
    pub id: u32,
    /// Its exchange type.
    pub exchange: u8,
    /// How often it was sent, as far as 255.
    pub sent: u8,
    /// 1: on port 4500.
    pub natt: u8,
    /// 1 + [`Direction`](crate::Direction) of the first packet.
    pub way: u8,
}
assert_size!(Candidate, 40);

/// What the data of an event of the kind [`Flow`](super::EventKind::Flow) are. Whose it is, the event's packet says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowNote {
    /// Bits of [`Changes`](crate::flow::Changes).
    pub changes: u32,
    /// With [`ROUND_TRIP`](crate::flow::Changes::ROUND_TRIP): microseconds.
    pub round_trip: u32,
    /// SPIs of the IKE SA.
    pub spi_i: [u8; 8],
    /// Likewise.
    pub spi_r: [u8; 8],
    /// With [`SPI`](crate::flow::Changes::SPI): the ESP SPI, host order.
    pub spi: u32,
    /// Message ID of an IKE message.
    pub id: u32,
    /// [`Control::notify`].
    pub notify: u16,
    /// Exchange type of an IKE message; 0: it was none.
    pub exchange: u8,
    /// [`Direction`](crate::Direction) of the packet.
    pub direction: u8,
    /// [`Control::milestones`] after it.
    pub milestones: u8,
    /// [`Class`](crate::Class) of the packet.
    pub class: u8,
    /// IP protocol of the flow.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}
assert_size!(FlowNote, 40);

/// What became of what could have entered the table: entries of the map `FLOW_COUNTS` (per CPU, one u64 each).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowFate {
    /// A candidate was noted.
    Candidate = 0,
    /// Both ends have spoken: it entered.
    Entered = 1,
    /// It would have, but for the rate.
    Rate = 2,
    /// It would have, but there is no room left (map `FLOW_ROOM`).
    Full = 3,
    /// It would have, but for its client's share of the rate.
    ClientRate = 4,
}

/// Entries of the map `FLOW_DUE` (per CPU, one u64 each): until when the flows that entered have used the rate up; of all
/// together, then of clients by a keyed hash of their address.
pub const FLOW_BUCKETS: u32 = 1 + CLIENT_BUCKETS;

impl FlowFate {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Candidate,
        Self::Entered,
        Self::Rate,
        Self::Full,
        Self::ClientRate,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Entered => "entered",
            Self::Rate => "rate",
            Self::Full => "full",
            Self::ClientRate => "client_rate",
        }
    }
}
