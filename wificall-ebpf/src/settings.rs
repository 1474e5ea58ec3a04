//! Load-time constants, set by the agent before the programs are loaded.

use wificall_common::{
    abi::{self, Features, PREF64S},
    wire::nat64::Pref64,
};

#[unsafe(no_mangle)]
static FEATURES: u32 = Features::DSCP
    | Features::MARK
    | Features::PRIORITY
    | Features::COUNT_ACCESS
    | Features::PREFIXES;
/// What a block's hash is shifted by: as the maps of blocks have so many lines.
#[unsafe(no_mangle)]
static LINE_SHIFT: u32 = abi::line_shift(abi::lines(16_384));
/// 0 switches NAT64 off.
#[unsafe(no_mangle)]
static PREF64_LEN: u8 = 0;
#[unsafe(no_mangle)]
static PREF64: [u8; 16] = [0; 16];
/// Likewise, of the prefixes after the first.
#[unsafe(no_mangle)]
static PREF64_MORE_LEN: [u8; PREF64S - 1] = [0; PREF64S - 1];
#[unsafe(no_mangle)]
static PREF64_MORE: [[u8; 16]; PREF64S - 1] = [[0; 16]; PREF64S - 1];
/// What our XDP programs write into their verdicts.
#[unsafe(no_mangle)]
static NONCE: [u32; 2] = [0; 2];
/// What those of the load before this one wrote: while one replaces the other, TC trusts both.
#[unsafe(no_mangle)]
static PREVIOUS_NONCE: [u32; 2] = [0; 2];

/// Value and mask of the mark of other IPsec.
#[unsafe(no_mangle)]
static OTHER_MARK: [u32; 2] = [0; 2];
/// Nanoseconds that one caught address uses up of their rate.
#[unsafe(no_mangle)]
static CATCH_GAP: u32 = 50_000_000;
/// The exit of tunnels to unknown addresses: table, value and mask of the mark.
#[unsafe(no_mangle)]
static CATCH_EXIT: [u32; 3] = [0; 3];

/// Nanoseconds that one event uses up of the rate of its kind on a CPU.
#[unsafe(no_mangle)]
static EVENT_GAP: u64 = 1_000_000;
/// Likewise of its client's share.
#[unsafe(no_mangle)]
static CLIENT_GAP: u64 = 20_000_000;

/// Nanoseconds that one flow uses up of the rate at which flows enter, on a CPU.
#[unsafe(no_mangle)]
static FLOW_GAP: u64 = 1_000_000;
/// Nanoseconds that one event of a flow uses up of their rate on a CPU.
#[unsafe(no_mangle)]
static FLOW_EVENT_GAP: u64 = 1_000_000;

/// Whether all of these features are on.
#[inline(always)]
pub fn on(features: u32) -> bool {
    all() & features == features
}

/// Whether any of these features is on.
#[inline(always)]
pub fn any(features: u32) -> bool {
    all() & features != 0
}

#[inline(always)]
fn all() -> u32 {
    // SAFETY: a static of this program; volatile because its value is set after compilation.
    unsafe { core::ptr::read_volatile(&raw const FEATURES) }
}

/// The mark of other IPsec, and its mask.
#[inline(always)]
pub fn other_mark() -> [u32; 2] {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const OTHER_MARK) }
}

/// Shift of [`line_of`](wificall_common::abi::line_of).
#[inline(always)]
pub fn line_shift() -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const LINE_SHIFT) }
}

#[inline(always)]
pub fn pref64(index: usize) -> Option<Pref64> {
    let (len, prefix) = match index.checked_sub(1) {
        None => (&raw const PREF64_LEN, &raw const PREF64),
        Some(more) if more < PREF64S - 1 => (
            (&raw const PREF64_MORE_LEN).cast::<u8>().wrapping_add(more),
            (&raw const PREF64_MORE)
                .cast::<[u8; 16]>()
                .wrapping_add(more),
        ),
        Some(_) => return None,
    };
    // SAFETY: a static of this program or an element of one; volatile as above.
    let len = unsafe { core::ptr::read_volatile(len) };
    if len == 0 {
        return None;
    }
    // SAFETY: as above.
    let prefix = unsafe { core::ptr::read_volatile(prefix) };
    Some(Pref64 { prefix, len })
}

#[inline(always)]
pub fn nonce() -> [u32; 2] {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const NONCE) }
}

#[inline(always)]
pub fn previous_nonce() -> [u32; 2] {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const PREVIOUS_NONCE) }
}

#[inline(always)]
pub fn event_gap() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const EVENT_GAP) }
}

#[inline(always)]
pub fn client_gap() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const CLIENT_GAP) }
}

#[inline(always)]
pub fn catch_gap() -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const CATCH_GAP) }
}

#[inline(always)]
pub fn catch_exit() -> [u32; 3] {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const CATCH_EXIT) }
}

#[inline(always)]
pub fn flow_gap() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const FLOW_GAP) }
}

#[inline(always)]
pub fn flow_event_gap() -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const FLOW_EVENT_GAP) }
}
