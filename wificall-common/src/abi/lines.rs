//! The blocks of the endpoint table (maps `BLOCKS4` and `BLOCKS6`, arrays of [`Line`]), written by the agent only.
//!
//! A hash table of cache lines: a block hashes to one line, and whatever is to be known of it for most packets stands in
//! that line. A block whose line is full is in `SPILLED4` or `SPILLED6`, ordinary hash maps.
//!
//! The agent writes through a mapping of the arrays, one aligned word at a time; the two words of a cell need not change
//! together. A cell whose meaning is 0 says nothing. So: a free cell gets its meaning before its key, and one that is given
//! up loses its meaning alone: it keeps its key for a while (`wificall-user/src/kernel/blocks.rs`), since a program may be
//! between the two, and then gets another key before it gets a meaning again.

use super::{Block4, Block6, FLAG_HOSTS, FLAG_WHOLE, assert_size};

/// Cells of a line.
pub const CELLS_PER_LINE: usize = 4;
/// Smallest number of lines that [`line_of`] can tell apart.
pub const MIN_LINES: u32 = 2;

/// Bits of a group and of a policy in [`Cell::meaning`]; a slot has two more. No limit of the configuration is beyond
/// them.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const SLOT_SHIFT: u32 = 2 * INDEX_BITS;
const SLOT_MASK: u64 = (1 << (INDEX_BITS + 2)) - 1;
/// The block holds single hosts with entries of their own in `HOSTS`.
const HOSTS: u64 = 1 << 62;
/// IPv4: which addresses of the block are endpoints is in `MEMBERS`. IPv6: none but those in `HOSTS`.
const PARTIAL: u64 = 1 << 63;

/// In an IPv4 block's key: there is one.
const TAKEN: u64 = 1 << 16;

/// A block and what is said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cell {
    /// 0 if the cell is free. IPv4, from the highest bit: network address 32, zero 15, one 1, first member 8, last
    /// member less the first 8. IPv6: the complement of the network address's upper half.
    pub key: u64,
    /// From the lowest bit: group 20, policy 20, activity slot 22, and two flags. 0 if nothing is said.
    pub meaning: u64,
}
assert_size!(Cell, 16);

/// What one look into the table finds: a cache line. `BPF_F_MMAPABLE` arrays begin on a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Line {
    /// In no order.
    pub cells: [Cell; CELLS_PER_LINE],
}
assert_size!(Line, 64);

/// Bit `last_byte % 32` of word `last_byte / 32` is set for each endpoint of a /24 (value of `MEMBERS`, whose key is that
/// of the /24).
pub type Members = [u32; 8];

/// The lines that a table for `blocks` blocks has: a quarter to a half of its cells are taken when it is full.
#[must_use]
pub const fn lines(blocks: u32) -> u32 {
    let wanted = blocks.next_power_of_two() / 2;
    if wanted < MIN_LINES {
        MIN_LINES
    } else {
        wanted
    }
}

/// What [`line_of`] is to shift by for so many lines, a power of two.
#[must_use]
pub const fn line_shift(lines: u32) -> u32 {
    u64::BITS - lines.trailing_zeros()
}

/// The line of a block, by its network address (of IPv6, the upper half): Fibonacci hashing, whose upper bits depend on
/// all of the address.
#[inline(always)]
#[must_use]
pub const fn line_of(address: u64, shift: u32) -> u32 {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (shift & 63)) as u32
}

impl Cell {
    /// What nothing is said by.
    pub const NONE: Self = Self { key: 0, meaning: 0 };

    /// Index in `COUNTERS` and `GROUPS`.
    #[inline(always)]
    #[must_use]
    pub const fn group(self) -> u32 {
        (self.meaning & INDEX_MASK) as u32
    }

    /// Index in `POLICIES`.
    #[inline(always)]
    #[must_use]
    pub const fn policy(self) -> u32 {
        (self.meaning >> INDEX_BITS & INDEX_MASK) as u32
    }

    /// Index in `ACTIVITY`.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.meaning >> SLOT_SHIFT & SLOT_MASK) as u32
    }

    /// Whether single hosts of the block have entries of their own.
    #[inline(always)]
    #[must_use]
    pub const fn has_hosts(self) -> bool {
        self.meaning & HOSTS != 0
    }

    /// Whether only some addresses are endpoints: of an IPv4 block those in `MEMBERS`, of an IPv6 block those in `HOSTS`.
    #[inline(always)]
    #[must_use]
    pub const fn is_partial(self) -> bool {
        self.meaning & PARTIAL != 0
    }

    /// Whether an address of this IPv4 block lies between its first and its last member.
    #[inline(always)]
    #[must_use]
    pub const fn spans(self, address: u32) -> bool {
        let (first, span) = ((self.key >> 8) as u8, self.key as u8);
        (address as u8).wrapping_sub(first) <= span
    }

    /// Whether this is the cell of the IPv4 block with this network address.
    #[inline(always)]
    #[must_use]
    pub const fn is4(self, block: u32) -> bool {
        self.key >> 16 == (block as u64) << 16 | 1
    }

    /// Whether this is the cell of the IPv6 block with this upper half of its network address.
    #[inline(always)]
    #[must_use]
    pub const fn is6(self, block: u64) -> bool {
        self.key == !block
    }

    /// The cell of an IPv4 block.
    #[must_use]
    pub fn of4(block: u32, value: &Block4) -> Self {
        let range = range(&value.members);
        let partial = if range.is_none() { PARTIAL } else { 0 };
        let (first, span) = range.unwrap_or((0, u8::MAX));
        Self {
            key: u64::from(block) << 32 | TAKEN | u64::from(first) << 8 | u64::from(span),
            meaning: meaning(value.group, value.policy, value.slot, value.flags) | partial,
        }
    }

    /// The cell of an IPv6 block.
    #[must_use]
    pub const fn of6(block: u64, value: &Block6) -> Self {
        let partial = if value.flags & FLAG_WHOLE == 0 {
            PARTIAL
        } else {
            0
        };
        Self {
            key: !block,
            meaning: meaning(value.group, value.policy, value.slot, value.flags) | partial,
        }
    }

    /// The network address of an IPv4 cell, and what it says; `members` is what `MEMBERS` has if it is partial.
    #[must_use]
    pub fn block4(self, members: Members) -> (u32, Block4) {
        let members = if self.is_partial() {
            members
        } else {
            let mut bits = [0; 8];
            for last in (0..=u8::MAX).filter(|last| self.spans((*last).into())) {
                bits[usize::from(last / 32)] |= 1 << (last % 32);
            }
            bits
        };
        let value = Block4 {
            group: self.group(),
            policy: self.policy(),
            slot: self.slot(),
            flags: if self.has_hosts() { FLAG_HOSTS } else { 0 },
            members,
        };
        ((self.key >> 32) as u32, value)
    }

    /// The upper half of the network address of an IPv6 cell, and what it says.
    #[must_use]
    pub const fn block6(self) -> (u64, Block6) {
        let hosts = if self.has_hosts() { FLAG_HOSTS } else { 0 };
        let whole = if self.is_partial() { 0 } else { FLAG_WHOLE };
        let value = Block6 {
            group: self.group(),
            policy: self.policy(),
            slot: self.slot(),
            flags: hosts | whole,
        };
        (!self.key, value)
    }
}

impl Line {
    /// What this line says of an IPv4 block.
    #[inline(always)]
    #[must_use]
    pub fn find4(&self, block: u32) -> Cell {
        for cell in &self.cells {
            if cell.is4(block) {
                return *cell;
            }
        }
        Cell::NONE
    }

    /// What this line says of an IPv6 block.
    #[inline(always)]
    #[must_use]
    pub fn find6(&self, block: u64) -> Cell {
        for cell in &self.cells {
            if cell.is6(block) {
                return *cell;
            }
        }
        Cell::NONE
    }

    /// Whether no cell is free. Only then may a block of this line be among the spilled ones.
    #[inline(always)]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.cells.iter().all(|cell| cell.key != 0)
    }
}

const fn meaning(group: u32, policy: u32, slot: u32, flags: u32) -> u64 {
    let hosts = if flags & FLAG_HOSTS != 0 { HOSTS } else { 0 };
    group as u64 & INDEX_MASK
        | (policy as u64 & INDEX_MASK) << INDEX_BITS
        | (slot as u64 & SLOT_MASK) << SLOT_SHIFT
        | hosts
}

/// First member and distance to the last, if there is no gap between them.
fn range(members: &Members) -> Option<(u8, u8)> {
    let is_member = |last: &u8| members[usize::from(last / 32)] & 1 << (last % 32) != 0;
    let first = (0..=u8::MAX).find(is_member)?;
    let last = (0..=u8::MAX).rfind(is_member)?;
    (first..=last)
        .all(|last| is_member(&last))
        .then_some((first, last - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(set: impl IntoIterator<Item = u8>) -> Members {
        let mut members = [0; 8];
        for last in set {
            members[usize::from(last / 32)] |= 1 << (last % 32);
        }
        members
    }

    #[test]
    fn a_cell_says_what_was_put_in() {
        let sets = [
            members(0..=255),
            members(1..=254),
            members([7]),
            members([0]),
            members([255]),
            members([7, 9]),
            members([]),
        ];
        for set in sets {
            for (group, policy, slot, flags) in [
                (1, 0, 0, 0),
                (999_999, 999_999, 3_999_999, FLAG_HOSTS),
                (2, 3, 4, FLAG_HOSTS),
            ] {
                let value = Block4 {
                    group,
                    policy,
                    slot,
                    flags,
                    members: set,
                };
                for block in [0, 0xcb00_7100, 0xffff_ff00] {
                    let cell = Cell::of4(block, &value);
                    assert!(cell.is4(block) && !cell.is4(block ^ 0x100) && cell.key != 0);
                    assert_eq!(cell.block4(set), (block, value));
                    for last in 0..=u8::MAX {
                        let member = set[usize::from(last / 32)] & 1 << (last % 32) != 0;
                        assert!(cell.is_partial() || cell.spans(block | u32::from(last)) == member);
                    }
                }
                for flags in [flags, flags | FLAG_WHOLE] {
                    let value = Block6 {
                        group,
                        policy,
                        slot,
                        flags,
                    };
                    let block = 0x2001_0db8_0001_0002;
                    let cell = Cell::of6(block, &value);
                    assert!(cell.is6(block) && !cell.is6(block + 1));
                    assert_eq!(cell.block6(), (block, value));
                }
            }
        }
    }

    #[test]
    fn members_with_gaps_are_kept_apart() {
        let value = |set| Block4 {
            group: 1,
            members: set,
            ..Block4::default()
        };
        assert!(!Cell::of4(0, &value(members(3..=9))).is_partial());
        assert!(Cell::of4(0, &value(members([3, 5]))).is_partial());
    }

    #[test]
    fn every_block_has_a_line() {
        for blocks in [1, 2, 3, 16_384, 1_000_000] {
            let lines = lines(blocks);
            let shift = line_shift(lines);
            assert!(lines.is_power_of_two() && lines as usize * CELLS_PER_LINE >= blocks as usize);
            for address in [0, 1 << 8, 0xcb00_7100, 0x2001_0db8_0000_0000, u64::MAX] {
                assert!(line_of(address, shift) < lines);
            }
        }
    }

    #[test]
    fn a_full_line_is_full() {
        let mut line = Line::default();
        assert!(!line.is_full());
        assert_eq!(line.find4(0), Cell::NONE);
        for (index, cell) in line.cells.iter_mut().enumerate() {
            let value = Block4 {
                group: 1 + index as u32,
                ..Block4::default()
            };
            *cell = Cell::of4((index as u32) << 8, &value);
        }
        assert!(line.is_full());
        for index in 0..CELLS_PER_LINE as u32 {
            assert_eq!(line.find4(index << 8).group(), 1 + index);
        }
    }
}
