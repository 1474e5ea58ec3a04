//! IKE messages of a flow: milestones, round trips, what is said in clear.

use super::{Changes, Milestone};
use crate::{
    Direction,
    abi::{Control, Flow, Request},
    frame::Frame,
    wire::ike::{self, EXCHANGE_AUTH, EXCHANGE_SA_INIT},
};

impl Control {
    /// No request waits any more.
    #[inline(always)]
    const fn forget_requests(&mut self) {
        self.requests[0].at = 0;
        self.requests[1].at = 0;
    }
}

/// Whether two SPIs are the same: by words, for comparing bytes is a function in BPF, with a stack of its own.
#[inline(always)]
pub(super) const fn is_same(one: [u8; 8], other: [u8; 8]) -> bool {
    u64::from_ne_bytes(one) == u64::from_ne_bytes(other)
}

/// What counts of an IKE message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// SPI of the initiator, as in the header.
    pub spi_i: [u8; 8],
    /// Likewise the responder's.
    pub spi_r: [u8; 8],
    /// Exchange type.
    pub exchange: u8,
    /// Message ID.
    pub id: u32,
    /// The R flag: it answers.
    pub response: bool,
    /// Of an IKE fragment (RFC 7383), not the first: it counts as a packet only.
    pub continues: bool,
    /// On port 4500.
    pub natt: bool,
    /// The notify that refuses or asks for another way, of an IKE_SA_INIT response; 0: none.
    pub notify: u16,
}

impl Message {
    /// Reads the message whose header, [checked](ike::check), is at `offset`; `None` if the frame ends too early.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, offset: usize, natt: bool) -> Option<Self> {
        let header = ike::header(frame, offset)?;
        let response = header.flags & ike::FLAG_RESPONSE != 0;
        let notify = if header.exchange == EXCHANGE_SA_INIT && response {
            ike::refusal(frame, offset + ike::HEADER_LEN, header.next)
        } else {
            0
        };
        Some(Self {
            spi_i: header.spi_i,
            spi_r: header.spi_r,
            exchange: header.exchange,
            id: header.id,
            response,
            continues: header.next == ike::PAYLOAD_SKF && ike::fragment_number(frame, offset) > 1,
            natt,
            notify,
        })
    }
}

impl Message {
    /// Whether it is an initiator's first request, which knows no responder yet, and goes up.
    #[must_use]
    #[inline(always)]
    pub const fn is_first(&self, direction: Direction) -> bool {
        matches!(direction, Direction::Up)
            && self.exchange == EXCHANGE_SA_INIT
            && !self.response
            && u64::from_ne_bytes(self.spi_r) == 0
    }
}

impl Flow {
    /// Takes an IKE message in that goes in `direction`; what it has changed.
    #[inline(always)]
    pub fn message(&mut self, direction: Direction, message: &Message, now: u64) -> u32 {
        if message.continues {
            return 0;
        }
        let is_init = message.exchange == EXCHANGE_SA_INIT;
        let mut changes = if is_init || message.exchange == EXCHANGE_AUTH {
            Changes::MESSAGE
        } else {
            0
        };
        let control = &mut self.control;
        let from_client = matches!(direction, Direction::Up);
        if is_init && from_client && !message.response {
            if !is_same(control.spi_i, message.spi_i) {
                control.spi_i = message.spi_i;
                control.spi_r = [0; 8];
                control.began = now;
                control.milestones = 0;
                control.notify = 0;
                control.auth_responses = 0;
                control.forget_requests();
                control.setups = control.setups.wrapping_add(1);
                self.up.reached = 0;
                self.down.reached = 0;
                changes |= Changes::BEGAN;
            }
            changes |= control.reach(Milestone::InitSent as u8, now);
        } else if is_init {
            // An answer to another question tells nothing of this one.
            if from_client || !message.response || !is_same(control.spi_i, message.spi_i) {
                return 0;
            }
            if message.notify != 0 {
                control.notify = message.notify;
                changes |= Changes::NOTIFY;
            } else {
                control.spi_r = message.spi_r;
                control.notify = 0;
                changes |= control.reach(Milestone::InitAnswered as u8, now);
            }
        } else {
            if !is_same(control.spi_i, message.spi_i) || !is_same(control.spi_r, message.spi_r) {
                control.spi_i = message.spi_i;
                control.spi_r = message.spi_r;
                // Message IDs count from zero in each SA.
                control.forget_requests();
                changes |= Changes::IKE_SA;
                if message.exchange == EXCHANGE_AUTH && from_client && !message.response {
                    // The first of its flow: what went before it had another port.
                    control.began = now;
                    control.milestones = 0;
                    control.notify = 0;
                    control.auth_responses = 0;
                    self.up.reached = 0;
                    self.down.reached = 0;
                }
            }
            if message.natt {
                changes |= control.reach(Milestone::Natt as u8, now);
            }
            if message.exchange == EXCHANGE_AUTH {
                if from_client && !message.response {
                    changes |= control.reach(Milestone::AuthSent as u8, now);
                } else if !from_client && message.response {
                    control.auth_responses = control.auth_responses.saturating_add(1);
                    changes |= control.reach(Milestone::AuthAnswered as u8, now);
                }
            }
        }
        changes | self.pair(direction, message, now)
    }

    /// Pairs requests and responses. A request that was repeated gives no round trip (Karn's rule), nor does IKE_AUTH,
    /// which waits for the SIM and for servers behind the endpoint.
    #[inline(always)]
    fn pair(&mut self, direction: Direction, message: &Message, now: u64) -> u32 {
        let control = &mut self.control;
        if !message.response {
            let index = direction as usize & 1;
            let request = &mut control.requests[index];
            let waits = request.at != 0;
            if waits && request.id == message.id && request.exchange == message.exchange {
                request.sent = request.sent.saturating_add(1);
                let count = &mut control.retransmitted[index];
                *count = count.wrapping_add(1);
                return Changes::RETRANSMITTED;
            }
            *request = Request {
                at: now,
                id: message.id,
                exchange: message.exchange,
                sent: 1,
                reserved: [0; 2],
            };
            return 0;
        }
        let index = direction as usize & 1 ^ 1;
        let request = &mut control.requests[index];
        if request.at == 0 || request.id != message.id || request.exchange != message.exchange {
            return 0;
        }
        let took = now.saturating_sub(request.at) / 1_000;
        let counts = request.sent == 1 && request.exchange != EXCHANGE_AUTH;
        request.at = 0;
        if !counts || took > u64::from(u32::MAX) {
            return 0;
        }
        // Zero stands for unknown.
        control.round_trip[index] = if took == 0 { 1 } else { took as u32 };
        Changes::ROUND_TRIP
    }
}
