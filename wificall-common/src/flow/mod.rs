//! What becomes of a flow as its packets go by: sequence numbers, voice, IKE. The kernel runs it per packet, the agent over
//! capture files.
//!
//! Several CPUs may write one flow at once, without a lock: what one packet adds may then be lost, and a number whose sight is
//! lost counts as missing.

mod esp;
mod ike;
mod voice;

pub use esp::{ABSENCE, DROPOUT, WINDOW};
pub use ike::Message;
pub use voice::{VOICE_INTERVAL, VOICE_MAX, VOICE_MIN, VOICE_RUN};

use crate::{
    Class, Direction,
    abi::{Candidate, Control, Flow, MILESTONES, Request, Way},
    wire::ike::{EXCHANGE_AUTH, EXCHANGE_SA_INIT},
};

/// What a packet has changed, worth telling: bits.
pub struct Changes;

impl Changes {
    /// The flow entered the table.
    pub const ENTERED: u32 = 1;
    /// A set-up began: an IKE_SA_INIT of another SA than before.
    pub const BEGAN: u32 = 1 << 1;
    /// A milestone was reached.
    pub const MILESTONE: u32 = 1 << 2;
    /// A notify in clear refuses, or asks for another way.
    pub const NOTIFY: u32 = 1 << 3;
    /// A response gave a round trip.
    pub const ROUND_TRIP: u32 = 1 << 4;
    /// A request was seen again.
    pub const RETRANSMITTED: u32 = 1 << 5;
    /// IKE goes on under other SPIs: after a rekey, or another SA's.
    pub const IKE_SA: u32 = 1 << 6;
    /// ESP under a new SPI was confirmed by a second packet.
    pub const SPI: u32 = 1 << 7;
    /// A run of packets of a voice frame's size began.
    pub const VOICE: u32 = 1 << 8;
    /// Counting of sequence numbers began anew.
    pub const ANCHORED: u32 = 1 << 9;
    /// An IKE_SA_INIT request to an endpoint that has not answered yet.
    pub const ASKED: u32 = 1 << 10;
    /// A message of a set-up: each is told.
    pub const MESSAGE: u32 = 1 << 11;
}

/// A step of a set-up, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Milestone {
    /// IKE_SA_INIT was sent.
    InitSent = 0,
    /// The responder has committed itself to an SPI.
    InitAnswered = 1,
    /// IKE moved to port 4500.
    Natt = 2,
    /// IKE_AUTH was sent.
    AuthSent = 3,
    /// The first IKE_AUTH was answered.
    AuthAnswered = 4,
    /// The phone has sent ESP.
    EspUp = 5,
    /// The endpoint has sent ESP.
    EspDown = 6,
}

impl Milestone {
    /// All, in the order of their numbers.
    pub const ALL: [Self; MILESTONES] = [
        Self::InitSent,
        Self::InitAnswered,
        Self::Natt,
        Self::AuthSent,
        Self::AuthAnswered,
        Self::EspUp,
        Self::EspDown,
    ];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitSent => "init_sent",
            Self::InitAnswered => "init_answered",
            Self::Natt => "natt",
            Self::AuthSent => "auth_sent",
            Self::AuthAnswered => "auth_answered",
            Self::EspUp => "esp_up",
            Self::EspDown => "esp_down",
        }
    }

    /// Its bit in [`Control::milestones`].
    #[must_use]
    #[inline(always)]
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Keepalives that are less far apart are one, of which there are two, in milliseconds.
const KEEPALIVE_MIN: u64 = 500;
/// Those that are further apart are no keepalives of one tunnel any more.
const KEEPALIVE_MAX: u64 = 3_600_000;

/// What counts of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// When, in nanoseconds of the monotonic clock.
    pub now: u64,
    /// IP bytes, of all segments.
    pub bytes: u64,
    /// Packets that an aggregate stands for; 1 for all others.
    pub segments: u32,
    /// What it is.
    pub class: Class,
    /// ESP: its SPI and sequence number, of the first segment, host order.
    pub esp: [u32; 2],
}

/// A flow as a packet of one direction sees it.
pub struct Sides<'flow> {
    /// The packet's direction.
    pub way: &'flow mut Way,
    /// The other one. Its cache line is another CPU's: read only where it matters.
    pub other: &'flow Way,
    /// IKE and keepalives.
    pub control: &'flow mut Control,
}

impl Sides<'_> {
    /// Counts a packet that goes in `direction`; what it has changed. An IKE message goes to
    /// [`Flow::message`] as well.
    #[inline(always)]
    pub fn see(&mut self, direction: Direction, sight: &Sight) -> u32 {
        let Self {
            way,
            other,
            control,
        } = self;
        way.packets = way.packets.wrapping_add(u64::from(sight.segments));
        way.bytes = way.bytes.wrapping_add(sight.bytes);
        way.seen = sight.now;
        match sight.class {
            Class::EspUdp | Class::Esp => {
                let silence = match way.esp_seen {
                    0 => 0,
                    before => sight.now.saturating_sub(before),
                };
                let (ahead, mut changes) = way.sequence(sight, silence, other);
                changes |= way.voice(sight, silence, ahead);
                way.esp = way.esp.wrapping_add(sight.segments);
                way.esp_seen = sight.now;
                if way.reached == 0 {
                    way.reached = 1;
                    changes |= control.reach(Milestone::EspUp as u8 + direction as u8, sight.now);
                }
                changes
            }
            Class::Keepalive => {
                // The one behind the NAT sends them (RFC 3948 §4).
                if direction as u8 == Direction::Up as u8 {
                    control.keep_alive(sight.now, way.esp_seen);
                }
                0
            }
            Class::Ike | Class::Fragment => 0,
        }
    }
}

impl Flow {
    /// Begins an empty flow, whose candidate was seen from both ends.
    #[inline(always)]
    pub fn begin(&mut self, candidate: &Candidate, group: u32, ifindex: u32) {
        let control = &mut self.control;
        control.group = group;
        control.ifindex = ifindex;
        control.began = candidate.first;
        if candidate.asked == 0 {
            return;
        }
        control.began = candidate.asked;
        control.spi_i = candidate.spi_i;
        control.spi_r = candidate.spi_r;
        control.requests[Direction::Up as usize] = Request {
            at: candidate.asked,
            id: candidate.id,
            exchange: candidate.exchange,
            sent: candidate.sent,
            reserved: [0; 2],
        };
        // All at once: these bits are times of zero.
        if candidate.natt != 0 {
            control.milestones = Milestone::Natt.bit();
        }
        if candidate.exchange == EXCHANGE_SA_INIT {
            control.milestones |= Milestone::InitSent.bit();
            control.setups = 1;
        } else if candidate.exchange == EXCHANGE_AUTH {
            control.milestones |= Milestone::AuthSent.bit();
        }
    }

    /// The flow as a packet that goes in `direction` sees it.
    #[inline(always)]
    pub fn sides(&mut self, direction: Direction) -> Sides<'_> {
        let Self { up, control, down } = self;
        let (way, other) = match direction {
            Direction::Up => (up, down),
            Direction::Down => (down, up),
        };
        Sides {
            way,
            other,
            control,
        }
    }

    /// [`Sides::see`].
    #[inline(always)]
    pub fn see(&mut self, direction: Direction, sight: &Sight) -> u32 {
        self.sides(direction).see(direction, sight)
    }
}

impl Control {
    /// Notes when the milestone with this number was reached, if it was not yet.
    #[inline(always)]
    fn reach(&mut self, milestone: u8, now: u64) -> u32 {
        let bit = 1 << (milestone & 7);
        if self.milestones & bit != 0 {
            return 0;
        }
        self.milestones |= bit;
        let micros = now.saturating_sub(self.began) / 1_000;
        if let Some(reached) = self.reached.get_mut(milestone as usize) {
            *reached = if micros > u64::from(u32::MAX) {
                u32::MAX
            } else {
                micros as u32
            };
        }
        Changes::MILESTONE
    }

    /// A keepalive is sent only where nothing else was (RFC 3948 §4): one that follows ESP tells no interval, nor does one
    /// that the network has made two of. An interval that is longer than the one before may be two, between which one was
    /// lost: it counts by an eighth, so that a short one that somebody forged is forgotten too.
    #[inline(always)]
    fn keep_alive(&mut self, now: u64, esp_seen: u64) {
        let before = self.keepalive;
        self.keepalive = now;
        if before == 0 || esp_seen > before {
            return;
        }
        let millis = now.saturating_sub(before) / 1_000_000;
        if !(KEEPALIVE_MIN..=KEEPALIVE_MAX).contains(&millis) {
            return;
        }
        let (millis, interval) = (millis as u32, self.keepalive_interval);
        self.keepalive_interval = if interval == 0 || millis < interval {
            millis
        } else {
            interval + (millis - interval) / 8
        };
    }
}

impl Candidate {
    /// A candidate's first packet.
    #[must_use]
    #[inline(always)]
    pub fn begin(direction: Direction, now: u64) -> Self {
        Self {
            first: now,
            way: 1 + direction as u8,
            ..Self::default()
        }
    }

    /// Notes an IKE request of its client.
    #[inline(always)]
    pub fn ask(&mut self, message: &Message, now: u64) {
        let is_same = ike::is_same(self.spi_i, message.spi_i)
            && self.exchange == message.exchange
            && self.id == message.id;
        if self.asked != 0 && is_same {
            self.sent = self.sent.saturating_add(1);
            return;
        }
        self.asked = now;
        self.spi_i = message.spi_i;
        self.spi_r = message.spi_r;
        self.id = message.id;
        self.exchange = message.exchange;
        self.natt = message.natt.into();
        self.sent = 1;
    }

    /// Whether a packet that goes in `direction` shows that both ends speak.
    #[must_use]
    #[inline(always)]
    pub const fn is_answered_by(&self, direction: Direction) -> bool {
        self.way != 1 + direction as u8
    }
}

#[cfg(test)]
mod tests;
