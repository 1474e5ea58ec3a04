//! The blocks of the endpoint table: cells in lines, written through a mapping of the map, one word at a time.
//!
//! See `wificall_common::abi::Line` for the layout and for what the order of two writes has to be.
//!
//! A program reads a cell's key and then its meaning. Were the cell given to another block in between, one packet would be
//! treated as that block's: so a cell that is given up keeps its key, says nothing, and rests until no program that has
//! read the key can still be running.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use wificall_common::abi::{CELLS_PER_LINE, Cell, Line, line_of, line_shift};

use super::{
    error::{Context as _, KernelError},
    maps::absent,
};

/// How long a cell rests. A program runs for microseconds, and what may interrupt it for milliseconds.
const REST: Duration = Duration::from_secs(1);

/// A network address as the maps are keyed by: four bytes of a /24, eight of a /64.
pub(super) trait Address: Copy + Pod {
    /// The arrays and hash maps of its family.
    const MAPS: [&'static str; 2];
    fn number(self) -> u64;
    fn of(cell: Cell) -> Self;
}

impl Address for [u8; 4] {
    const MAPS: [&'static str; 2] = ["BLOCKS4", "SPILLED4"];

    fn number(self) -> u64 {
        u32::from_be_bytes(self).into()
    }

    fn of(cell: Cell) -> Self {
        cell.block4([0; 8]).0.to_be_bytes()
    }
}

impl Address for [u8; 8] {
    const MAPS: [&'static str; 2] = ["BLOCKS6", "SPILLED6"];

    fn number(self) -> u64 {
        u64::from_be_bytes(self)
    }

    fn of(cell: Cell) -> Self {
        cell.block6().0.to_be_bytes()
    }
}

/// As aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct RawCell(Cell);
// SAFETY: two integers, no padding, any bytes are valid.
unsafe impl Pod for RawCell {}

/// The blocks of one family.
pub(super) struct Blocks<A: Address> {
    lines: Lines,
    spilled: HashMap<MapData, A, RawCell>,
    /// Cells that rest, and since when, in that order.
    resting: VecDeque<(Instant, &'static Slot)>,
}

impl<A: Address> Blocks<A> {
    /// Opens the maps pinned in `directory`.
    ///
    /// # Errors
    ///
    /// If they cannot be opened or mapped.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        let [lines, spilled] = A::MAPS.map(|name| directory.join(name));
        let opening = |path: &Path| format!("open map {}", path.display());
        let data = MapData::from_pin(&lines).doing(|| opening(&lines))?;
        let entries = data.info().doing(|| opening(&lines))?.max_entries();
        let data_spilled = MapData::from_pin(&spilled).doing(|| opening(&spilled))?;
        let lines = Lines::map(data.fd().as_fd(), entries)
            .doing(|| format!("map the memory of {}", lines.display()))?;
        // Those of an agent before this one.
        let now = Instant::now();
        let slots = lines.words.iter();
        let resting = slots.filter(|slot| slot.rests()).map(|slot| (now, slot));
        Ok(Self {
            resting: resting.collect(),
            lines,
            spilled: Map::HashMap(data_spilled)
                .try_into()
                .doing(|| opening(&spilled))?,
        })
    }

    /// Every block that anything is said of.
    pub(super) fn cells(&self) -> Result<Vec<(A, Cell)>, KernelError> {
        let mut all: Vec<_> = self
            .lines
            .words
            .iter()
            .map(Slot::get)
            .filter(|cell| cell.key != 0 && cell.meaning != 0)
            .map(|cell| (A::of(cell), cell))
            .collect();
        for pair in self.spilled.iter() {
            let (key, RawCell(cell)) = pair.doing(|| format!("read map {}", A::MAPS[1]))?;
            all.push((key, cell));
        }
        Ok(all)
    }

    /// Says something of a block, instead of what was said before.
    pub(super) fn set(&mut self, address: A, cell: Cell) -> Result<(), MapError> {
        self.settle()?;
        let line = self.lines.line(address.number());
        let free = |slot: &&Slot| slot.get().key == 0;
        if let Some(slot) = line.iter().find(|slot| slot.is_of(address)) {
            // If it rests, it need not any longer: it was this block's before.
            self.resting.retain(|(_, other)| !ptr::eq(*other, slot));
            slot.put(cell);
        } else if self.spilled.get(&address, 0).is_err()
            && let Some(slot) = line.iter().find(free)
        {
            slot.put(cell);
        } else {
            self.spilled.insert(address, RawCell(cell), 0)?;
        }
        Ok(())
    }

    /// Says nothing of a block any more.
    pub(super) fn remove(&mut self, address: A) -> Result<(), MapError> {
        self.settle()?;
        let line = self.lines.line(address.number());
        let taken = |slot: &&Slot| slot.is_of(address) && !slot.rests();
        let Some(slot) = line.iter().find(taken) else {
            return absent(self.spilled.remove(&address));
        };
        slot.silence();
        self.resting.push_back((Instant::now(), slot));
        Ok(())
    }

    /// Frees the cells that have rested: for a spilled block of their line, or for any. While a line has spilled blocks, none
    /// of its keys is 0, and so a program that finds nothing in it looks for them.
    fn settle(&mut self) -> Result<(), MapError> {
        let rested = |(since, _): &(Instant, _)| since.elapsed() >= REST;
        if !self.resting.front().is_some_and(rested) {
            return Ok(());
        }
        let mut spilled = Vec::new();
        for pair in self.spilled.iter() {
            let (key, RawCell(cell)) = pair?;
            spilled.push((key, cell));
        }
        while let Some((_, slot)) = self.resting.pop_front_if(|entry| rested(entry)) {
            let line = self.lines.index(A::of(slot.get()).number());
            let of_line = |(key, _): &(A, Cell)| self.lines.index(key.number()) == line;
            let Some(index) = spilled.iter().position(of_line) else {
                slot.clear();
                continue;
            };
            // It is found at its old place until it is at its new one.
            let (key, cell) = spilled.swap_remove(index);
            slot.replace(cell);
            self.spilled.remove(&key)?;
        }
        Ok(())
    }
}
/// A cell that programs read meanwhile.
#[repr(C)]
struct Slot {
    key: AtomicU64,
    meaning: AtomicU64,
}
const _: () = assert!(size_of::<Slot>() == size_of::<Cell>());

impl Slot {
    fn get(&self) -> Cell {
        Cell {
            key: self.key.load(Ordering::Acquire),
            meaning: self.meaning.load(Ordering::Acquire),
        }
    }

    fn is_of<A: Address>(&self, address: A) -> bool {
        let cell = self.get();
        cell.key != 0 && A::of(cell).number() == address.number()
    }

    fn put(&self, cell: Cell) {
        self.meaning.store(cell.meaning, Ordering::Release);
        self.key.store(cell.key, Ordering::Release);
    }

    /// Whether it was given up and not yet given to another.
    fn rests(&self) -> bool {
        let cell = self.get();
        cell.key != 0 && cell.meaning == 0
    }

    /// Gives it up.
    fn silence(&self) {
        self.meaning.store(0, Ordering::Release);
    }

    /// Gives one that has rested to another block.
    fn replace(&self, cell: Cell) {
        self.key.store(cell.key, Ordering::Release);
        self.meaning.store(cell.meaning, Ordering::Release);
    }

    /// Makes one that has rested free.
    fn clear(&self) {
        self.key.store(0, Ordering::Release);
    }
}

/// The memory of a map of lines.
struct Lines {
    words: &'static [Slot],
    shift: u32,
}

impl Lines {
    fn map(fd: BorrowedFd<'_>, lines: u32) -> io::Result<Self> {
        let bytes = lines as usize * size_of::<Line>();
        // SAFETY: a new mapping, of no address that is in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<Slot>()).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: the mapping is that long, aligned to a page, stays until this is dropped, and is of atomics, which
        // programs only read.
        let words =
            unsafe { std::slice::from_raw_parts(start.as_ptr(), lines as usize * CELLS_PER_LINE) };
        Ok(Self {
            words,
            shift: line_shift(lines),
        })
    }

    fn index(&self, address: u64) -> usize {
        line_of(address, self.shift) as usize
    }

    /// Detached from `self`: the mapping outlives every use, as `Blocks` hands none out.
    fn line(&self, address: u64) -> &'static [Slot] {
        let start = self.index(address) * CELLS_PER_LINE;
        &self.words[start..start + CELLS_PER_LINE]
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made above, which nothing refers to any more.
        unsafe {
            libc::munmap(
                self.words.as_ptr().cast_mut().cast(),
                size_of_val(self.words),
            );
        }
    }
}
