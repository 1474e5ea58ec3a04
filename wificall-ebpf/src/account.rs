//! The one way out, and what a match leaves behind.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use wificall_common::{
    Direction,
    abi::{Bucket, Features, FragmentValue, Hook, Policy, TIER_OBSERVED, demoted_slot, exit_slot},
    classify::{Link, Match, bucket_key, fragment_key},
    exit::Exit,
    frame::Frame,
    wire::Fragment,
};

use crate::{
    maps::{ACTIVITY, BUCKETS, COUNTERS, EXITS, FRAGMENTS},
    settings,
};

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

/// IP bytes of the `segments` packets that a match stands for.
#[inline(always)]
pub fn bytes(found: &Match, segments: u64) -> u64 {
    found.packet.total_len as u64 + (segments - 1) * found.segment_headers as u64
}

/// Counts a match of `segments` packets, remembers its first fragment.
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
        let bytes = bytes(found, segments);
        // SAFETY: this CPU's own value, as above.
        let cell = unsafe { &mut (*counters).cells[direction as usize][found.class as usize] };
        cell.packets += segments;
        cell.bytes += bytes;
    }
}

/// Marks an endpoint as active. One that nobody of ours has confirmed is that only if it answers: a client could keep any
/// address in the table otherwise, by sending to it.
#[inline(always)]
pub fn touch(found: &Match, policy: &Policy, direction: Direction) {
    if policy.tier == TIER_OBSERVED && matches!(direction, Direction::Up) {
        return;
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

/// Where a packet is that may be over a cap.
#[derive(Clone, Copy)]
pub struct At {
    pub hook: Hook,
    pub direction: Direction,
    pub link: Link,
    /// At an access interface: the other side of the link is the client's.
    pub faces_clients: bool,
}

/// Whether `segments` packets are more than their client may have by its policy's cap; if not, they are counted towards
/// it. Excess is counted.
#[inline(always)]
pub fn over_cap<F: Frame>(
    frame: &F,
    found: &Match,
    policy: &Policy,
    at: At,
    segments: u64,
) -> bool {
    let At {
        hook,
        direction,
        link,
        faces_clients,
    } = at;
    if !settings::on(Features::CAP) || policy.interval == 0 {
        return false;
    }
    let Some(key) = bucket_key(
        frame,
        &found.packet,
        link,
        faces_clients,
        direction,
        policy.tier,
    ) else {
        return false;
    };
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = BUCKETS.get_ptr_mut(key) else {
        let due = Bucket::take(0, now, policy.interval, segments);
        // A full table forgets who was quiet longest; whoever finds no room at all is not held to a cap.
        let _ = BUCKETS.insert(key, Bucket { due }, 0);
        return false;
    };
    // SAFETY: an aligned word of a map value. CPUs that race lose one of two packets; an entry that is given to another
    // client meanwhile costs that one as much.
    unsafe {
        let due = &raw mut (*bucket).due;
        let next = Bucket::take(due.read_volatile(), now, policy.interval, segments);
        if next != 0 {
            due.write_volatile(next);
            return false;
        }
    }
    if let Some(count) = EXITS.get_ptr_mut(demoted_slot(hook, direction)) {
        // SAFETY: as in `leave`.
        unsafe { *count += segments };
    }
    true
}
