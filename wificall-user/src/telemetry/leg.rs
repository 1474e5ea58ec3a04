//! What came in one direction, as differences between two looks at a flow.

use wificall_common::abi::{SpiSlot, Way};

/// So much less than at the look before may a count of 32 bits be: CPUs that wrote at once have undone what others counted.
const RACED: i32 = 1 << 16;

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// Packets of all classes.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// ESP packets.
    pub received: u64,
    /// Numbers that did not come, those of the last 64 included: some may yet come late, which takes them back.
    pub missing: i64,
    /// Numbers that did not come and will not.
    pub lost: u64,
    /// Packets that came behind a later one.
    pub late: u64,
    /// Packets that came again.
    pub duplicate: u64,
    /// Packets whose number nothing confirmed.
    pub stray: u64,
    /// Packets of a voice frame's size.
    pub voice: u64,
    /// Intervals that are a talker's.
    pub talk: u64,
    /// Intervals that are those of comfort noise.
    pub pause: u64,
}

/// A flow's direction as it was looked at last: what the next look is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Packets of all classes.
    pub packets: u64,
    bytes: u64,
    esp: u32,
    /// Lost, and not yet come.
    missing: u32,
    lost: u32,
    late: u32,
    duplicate: u32,
    stray: u32,
    voice: u32,
    talk: u32,
    pause: u32,
}

impl Mark {
    /// Of a direction as it is now.
    #[must_use]
    pub fn of(way: &Way) -> Self {
        let open = way.spis.iter().map(SpiSlot::missing).sum();
        Self {
            packets: way.packets,
            bytes: way.bytes,
            esp: way.esp,
            missing: way.lost.wrapping_add(open),
            lost: way.lost,
            late: way.late,
            duplicate: way.duplicate,
            stray: way.stray,
            voice: way.voice,
            talk: way.talk,
            pause: way.pause,
        }
    }
}

impl Leg {
    /// From one look at a flow's direction to the next.
    #[must_use]
    pub fn between(before: &Mark, after: &Mark) -> Self {
        // The kernel's counts are of 32 bits, and wrap; a little less than before is the work of CPUs that raced.
        let more = |before: u32, after: u32| match after.wrapping_sub(before).cast_signed() {
            less @ i32::MIN..0 if less > -RACED => 0,
            more => u64::from(more.cast_unsigned()),
        };
        Self {
            packets: after.packets.saturating_sub(before.packets),
            bytes: after.bytes.saturating_sub(before.bytes),
            received: more(before.esp, after.esp),
            missing: (after.missing.wrapping_sub(before.missing))
                .cast_signed()
                .into(),
            lost: more(before.lost, after.lost),
            late: more(before.late, after.late),
            duplicate: more(before.duplicate, after.duplicate),
            stray: more(before.stray, after.stray),
            voice: more(before.voice, after.voice),
            talk: more(before.talk, after.talk),
            pause: more(before.pause, after.pause),
        }
    }

    /// What came since `before`, if both were counted from the same beginning.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            received: self.received - before.received,
            missing: self.missing - before.missing,
            lost: self.lost - before.lost,
            late: self.late - before.late,
            duplicate: self.duplicate - before.duplicate,
            stray: self.stray - before.stray,
            voice: self.voice - before.voice,
            talk: self.talk - before.talk,
            pause: self.pause - before.pause,
        }
    }

    /// Adds what came.
    pub fn add(&mut self, more: &Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.received += more.received;
        self.missing += more.missing;
        self.lost += more.lost;
        self.late += more.late;
        self.duplicate += more.duplicate;
        self.stray += more.stray;
        self.voice += more.voice;
        self.talk += more.talk;
        self.pause += more.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_wrapped_go_on() {
        let before = Way {
            esp: u32::MAX - 1,
            lost: u32::MAX,
            ..Way::default()
        };
        let after = Way {
            esp: 8,
            lost: 4,
            ..Way::default()
        };
        let leg = Leg::between(&Mark::of(&before), &Mark::of(&after));
        assert_eq!((leg.received, leg.lost, leg.missing), (10, 5, 5));
    }

    #[test]
    fn what_a_race_has_undone_is_nothing() {
        let of = |lost: u32, packets: u64| {
            Mark::of(&Way {
                lost,
                packets,
                ..Way::default()
            })
        };
        let leg = Leg::between(&of(7, 100), &of(5, 99));
        assert_eq!((leg.lost, leg.packets), (0, 0));
    }

    #[test]
    fn what_came_late_after_all_is_missing_no_more() {
        let hole = SpiSlot {
            spi: 1,
            window: !0b10,
            ..SpiSlot::default()
        };
        let filled = SpiSlot {
            window: u64::MAX,
            ..hole
        };
        let with = |slot| {
            Mark::of(&Way {
                spis: [slot, SpiSlot::default()],
                ..Way::default()
            })
        };
        let (whole, torn) = (with(filled), with(hole));
        let mut total = Leg::between(&whole, &torn);
        assert_eq!((total.missing, total.lost), (1, 0));
        total.add(&Leg::between(&torn, &whole));
        assert_eq!(total.missing, 0);
    }
}
