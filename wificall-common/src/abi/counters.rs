//! Counters, written by the kernel only.

use super::assert_size;
use crate::{Class, Direction, exit::Exit};

/// Packets and bytes. Bytes are those of the IP packets, headers included, link header and padding excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets; an aggregate (GSO) counts its segments.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}
assert_size!(Counter, 16);

/// Classes that a [`Counters`] has room for.
#[cfg(not(feature = "next-abi"))]
pub const CELLS: usize = Class::ALL.len();
/// The upgrade test's other layout.
#[cfg(feature = "next-abi")]
pub const CELLS: usize = Class::ALL.len() + 1;

/// Counters of one group (map `COUNTERS`, per CPU, indexed by group).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// By direction, then class.
    pub cells: [[Counter; CELLS]; Direction::ALL.len()],
}
assert_size!(Counters, 2 * CELLS * 16);

/// Where a program runs; with [`Exit`] the index of the `EXITS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// TC ingress.
    TcIngress = 0,
    /// TC egress.
    TcEgress = 1,
    /// XDP.
    Xdp = 2,
}

impl Hook {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::TcIngress, Self::TcEgress, Self::Xdp];

    /// The name used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
            Self::Xdp => "xdp",
        }
    }
}

/// Slots of the `EXITS` map that each hook has.
const EXITS_PER_HOOK: u32 = 32;
/// The last ones count something else.
const DEMOTED: u32 = EXITS_PER_HOOK - Direction::ALL.len() as u32;
const BLEACHED: u32 = DEMOTED - 1;
const _: () = assert!(Exit::ALL.len() <= BLEACHED as usize);
/// Entries of the `EXITS` map (per CPU, one u64 each).
pub const EXIT_SLOTS: u32 = EXITS_PER_HOOK * Hook::ALL.len() as u32;

/// Index of an exit in the `EXITS` map.
#[inline(always)]
#[must_use]
pub const fn exit_slot(hook: Hook, exit: Exit) -> u32 {
    hook as u32 * EXITS_PER_HOOK + exit as u32
}

/// Index in the `EXITS` map of the number of packets, an aggregate's segments counted each, that were over a cap.
#[inline(always)]
#[must_use]
pub const fn demoted_slot(hook: Hook, direction: Direction) -> u32 {
    hook as u32 * EXITS_PER_HOOK + DEMOTED + direction as u32
}

/// Index in the `EXITS` map of the number of packets, counted likewise, that were no match and lost the DSCP of voice.
#[inline(always)]
#[must_use]
pub const fn bleached_slot(hook: Hook) -> u32 {
    hook as u32 * EXITS_PER_HOOK + BLEACHED
}
