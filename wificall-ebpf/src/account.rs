//! The one way out, and what a match leaves behind.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use wificall_common::{
    Direction,
    abi::{FragmentValue, Hook, exit_slot},
    classify::{Match, fragment_key},
    exit::Exit,
    frame::Frame,
    wire::Fragment,
};

use crate::maps::{ACTIVITY, COUNTERS, EXITS, FRAGMENTS};

/// Activity is told apart in steps of 2^13 jiffies: 8 to 82 s, depending on the kernel's tick.
const ACTIVITY_SHIFT: u32 = 13;

/// Counts the exit that a run ends with.
#[inline(always)]
pub fn leave(hook: Hook, exit: Exit) -> Exit {
    if let Some(count) = EXITS.get_ptr_mut(exit_slot(hook, exit)) {
        // SAFETY: this CPU's own value; programs of one hook do not preempt each other on a CPU.
        unsafe { *count += 1 };
    }
    exit
}

/// Counts a match of `segments` packets, marks its endpoint as active, remembers its first fragment.
#[inline(always)]
pub fn record<F: Frame>(frame: &F, found: &Match, direction: Direction, segments: u64) {
    if matches!(found.packet.fragment, Fragment::First)
        && let Some(key) = fragment_key(frame, &found.packet)
    {
        let value = FragmentValue {
            class: found.class as u8,
            reserved: [0; 3],
        };
        // A full table forgets its oldest; nothing to do about any other failure but to let the fragments pass.
        let _ = FRAGMENTS.insert(key, value, 0);
    }
    if let Some(counters) = COUNTERS.get_ptr_mut(found.endpoint.group) {
        let bytes = found.packet.total_len as u64 + (segments - 1) * found.segment_headers as u64;
        // SAFETY: this CPU's own value, as above.
        let cell = unsafe { &mut (*counters).cells[direction as usize][found.class as usize] };
        cell.packets += segments;
        cell.bytes += bytes;
    }
    if let Some(last) = ACTIVITY.get_ptr_mut(found.endpoint.slot) {
        // SAFETY: no precondition.
        let now = (unsafe { bpf_jiffies64() } >> ACTIVITY_SHIFT) as u32;
        // SAFETY: an aligned word of a map value; CPUs race to write the same number. Written only when it changes, so
        // that its cache line stays shared.
        unsafe {
            if last.read_volatile() != now {
                last.write_volatile(now);
            }
        }
    }
}
