//! ESP sequence numbers: what was lost before it came here, what came late or twice (RFC 4303 §2.2, §3.4.3; the idea of
//! believing a jump only when the next packet confirms it is RFC 3550 A.1's).

use super::{Changes, Sight};
use crate::abi::{RESUMED_SHIFT, SpiSlot, Way};

/// Numbers behind the highest for which is known whether they came.
pub const WINDOW: u32 = u64::BITS;

/// A confirmed jump of at most so many is loss; of more, nobody knows (MAX_DROPOUT of RFC 3550 A.1).
pub const DROPOUT: u32 = 3000;

/// Silence of both directions for longer than this, in nanoseconds, and then a jump: the phone was elsewhere, and its
/// packets went there.
pub const ABSENCE: u64 = 1_000_000_000;

impl SpiSlot {
    const fn begin(spi: u32, sequence: u32) -> Self {
        Self {
            window: u64::MAX,
            spi,
            highest: sequence,
            anchor: sequence,
            candidate: 0,
        }
    }

    /// How many numbers in the window did not come. When the flow is over, these are lost too.
    #[must_use]
    pub const fn missing(&self) -> u32 {
        if self.spi == 0 {
            return 0;
        }
        self.window.count_zeros()
    }

    /// Moves the window on by `by`, at least 1, and marks the new highest; how many are lost for good.
    #[inline(always)]
    fn advance(&mut self, by: u32) -> u32 {
        self.highest = self.highest.wrapping_add(by);
        if by == 1 {
            let lost = (self.window >> (WINDOW - 1)) ^ 1;
            self.window = self.window << 1 | 1;
            return lost as u32;
        }
        if by >= WINDOW {
            let lost = self.window.count_zeros() + (by - WINDOW);
            self.window = 1;
            return lost;
        }
        let left = self.window >> (WINDOW - by);
        self.window = self.window << by | 1;
        by - left.count_ones()
    }
}

/// Whether ESP came back after silence within the last [`ABSENCE`].
#[inline(always)]
const fn is_recent(resumed: u32, now: u64) -> bool {
    let since = ((now >> RESUMED_SHIFT) as u32).wrapping_sub(resumed);
    resumed != 0 && since.cast_signed() <= (ABSENCE >> RESUMED_SHIFT) as i32
}

/// Whether the other direction is silent or was so until now: then
/// the phone was not here. Silence of one direction alone is loss.
#[inline(always)]
const fn was_silent(other: &Way, now: u64) -> bool {
    now.saturating_sub(other.esp_seen) > ABSENCE || is_recent(other.resumed, now)
}

impl Way {
    /// Takes an ESP packet's number in. How far it is ahead of the highest of its SPI, if that is what is expected next or a
    /// little more, else 0; and what has changed.
    #[inline(always)]
    pub(super) fn sequence(&mut self, sight: &Sight, silence: u64, other: &Way) -> (u32, u32) {
        let [spi, sequence] = sight.esp;
        if silence > ABSENCE {
            self.resumed = (sight.now >> RESUMED_SHIFT) as u32 | 1;
        }
        let current = self.current & 1;
        let index = if self.spis[current as usize].spi == spi {
            current
        } else {
            // The other one is the last but one: whatever it is, it may go.
            let last = current ^ 1;
            self.current = last;
            if self.spis[last as usize].spi != spi {
                let old = &mut self.spis[last as usize];
                self.lost = self.lost.wrapping_add(old.missing());
                *old = SpiSlot::begin(spi, sequence.wrapping_add(sight.segments - 1));
                return (0, 0);
            }
            last
        };
        let slot = &mut self.spis[index as usize & 1];
        let ahead = sequence.wrapping_sub(slot.highest).cast_signed();
        let mut changes = 0;
        let result = if ahead == 1 {
            if slot.candidate != 0 {
                // The stream goes on as if it had not been.
                slot.candidate = 0;
                self.stray = self.stray.wrapping_add(1);
            }
            if slot.highest == slot.anchor {
                changes |= Changes::SPI;
            }
            self.lost = self.lost.wrapping_add(slot.advance(1));
            1
        } else if ahead > 1 && ahead <= WINDOW.cast_signed() {
            if slot.highest == slot.anchor {
                changes |= Changes::SPI;
            }
            if silence > ABSENCE && was_silent(other, sight.now) {
                self.lost = self.lost.wrapping_add(slot.missing());
                *slot = SpiSlot::begin(spi, sequence);
                self.anchored = self.anchored.wrapping_add(1);
                changes |= Changes::ANCHORED;
                0
            } else {
                self.lost = self.lost.wrapping_add(slot.advance(ahead.cast_unsigned()));
                ahead.cast_unsigned()
            }
        } else if ahead <= 0 && ahead > -WINDOW.cast_signed() {
            let bit = 1 << (ahead.unsigned_abs() & (WINDOW - 1));
            if sequence.wrapping_sub(slot.anchor).cast_signed() < 0 {
                self.stray = self.stray.wrapping_add(1);
            } else if slot.window & bit != 0 {
                self.duplicate = self.duplicate.wrapping_add(1);
            } else {
                slot.window |= bit;
                self.late = self.late.wrapping_add(1);
            }
            return (0, 0);
        } else {
            return (0, self.jump(index, sight, other));
        };
        // An aggregate's other segments have the numbers that follow.
        if sight.segments > 1 {
            let slot = &mut self.spis[index as usize & 1];
            let more = sight.segments - 1;
            self.lost = self.lost.wrapping_add(slot.advance(more));
            slot.window |= if more >= WINDOW {
                u64::MAX
            } else {
                (1 << (more & (WINDOW - 1))) - 1
            };
        }
        (result, changes)
    }

    /// A number far from the highest. Whether it is what goes on here, the next packet will tell.
    #[inline(always)]
    fn jump(&mut self, index: u8, sight: &Sight, other: &Way) -> u32 {
        let [_, sequence] = sight.esp;
        let came_back = is_recent(self.resumed, sight.now);
        let slot = &mut self.spis[index as usize & 1];
        let from = sequence.wrapping_sub(slot.candidate).cast_signed();
        let distance = from.unsigned_abs();
        if slot.candidate == 0 || distance >= WINDOW {
            if slot.candidate != 0 {
                self.stray = self.stray.wrapping_add(1);
            }
            // Zero stands for none; a number that is zero is as good as the next.
            slot.candidate = if sequence == 0 { 1 } else { sequence };
            return 0;
        }
        if distance == 0 {
            self.duplicate = self.duplicate.wrapping_add(1);
            return 0;
        }
        let (first, last) = if from > 0 {
            (slot.candidate, sequence)
        } else {
            (sequence, slot.candidate)
        };
        let ahead = first.wrapping_sub(slot.highest).cast_signed();
        let is_loss = ahead > 0
            && ahead.cast_unsigned() <= DROPOUT
            && !(came_back && was_silent(other, sight.now));
        let spi = slot.spi;
        let mut lost = slot.missing();
        let mut changes = 0;
        if is_loss {
            // Between the highest and what the window now shows.
            lost += last.wrapping_sub(slot.highest) - WINDOW;
            slot.highest = last;
            slot.window = 1 | 1 << (distance & (WINDOW - 1));
            slot.candidate = 0;
        } else {
            *slot = SpiSlot {
                window: u64::MAX << (distance & (WINDOW - 1)) | 1,
                highest: last,
                ..SpiSlot::begin(spi, first)
            };
            self.anchored = self.anchored.wrapping_add(1);
            changes |= Changes::ANCHORED;
        }
        self.lost = self.lost.wrapping_add(lost);
        changes
    }
}
