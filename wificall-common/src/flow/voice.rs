//! Packets that look like voice: of a voice frame's size, in a talker's rhythm. What is inside is not seen.

use super::{Changes, Sight};
use crate::abi::Way;

/// The interval of voice frames, in nanoseconds: 20 ms (AMR-WB, 3GPP TS 26.201; EVS, TS 26.445).
pub const VOICE_INTERVAL: u64 = 20_000_000;
/// The smallest IP packet that may carry a voice frame or comfort noise, in bytes: a SID frame in native ESP by AES-GCM
/// over IPv4.
pub const VOICE_MIN: u64 = 96;
/// The largest: EVS 24.4 in UDP over IPv6, or two frames of a lower rate in one packet.
pub const VOICE_MAX: u64 = 272;
/// So many in a row are told as [`Changes::VOICE`]: half a second of a talker.
pub const VOICE_RUN: u16 = 25;

/// A packet so much later than its interval says may still be a talker's, in nanoseconds.
const TALK_SLACK: u64 = 80_000_000;
/// The longest interval of comfort noise: 160 ms (TS 26.093 §5.1.2), late by as much as a talker's may be.
const PAUSE: u64 = 160_000_000 + TALK_SLACK;
/// A longer one ends a run.
const RUN_BREAK: u64 = 1_000_000_000;
/// Of so many numbers ahead, the interval is still that many times the usual one: the packets between were lost.
const AHEAD: u32 = 8;

impl Way {
    /// Takes the interval between two ESP packets in, whose numbers are `ahead` apart (0: unknown), `silence` nanoseconds.
    #[inline(always)]
    pub(super) fn voice(&mut self, sight: &Sight, silence: u64, ahead: u32) -> u32 {
        if sight.segments != 1 || sight.bytes < VOICE_MIN || sight.bytes > VOICE_MAX {
            return 0;
        }
        self.voice = self.voice.wrapping_add(1);
        let mut changes = 0;
        if silence == 0 || silence > RUN_BREAK {
            self.run = 1;
        } else if self.run < VOICE_RUN {
            self.run += 1;
            if self.run == VOICE_RUN {
                changes = Changes::VOICE;
            }
        }
        if ahead == 0 || ahead > AHEAD || silence == 0 {
            return changes;
        }
        let usual = VOICE_INTERVAL * u64::from(ahead);
        if silence < usual + TALK_SLACK {
            self.talk = self.talk.wrapping_add(1);
            let deviation = silence.abs_diff(usual) as u32;
            // RFC 3550 §6.4.1: J += (|D| - J) / 16.
            self.jitter = if deviation >= self.jitter {
                self.jitter + (deviation - self.jitter) / 16
            } else {
                self.jitter - (self.jitter - deviation) / 16
            };
        } else if silence < PAUSE {
            self.pause = self.pause.wrapping_add(1);
        }
        changes
    }
}
