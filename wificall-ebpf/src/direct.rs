//! Direct packet access.

use wificall_common::frame::Frame;

use crate::maps;

/// The directly readable part of a frame: all of it in XDP, the linear part of an skb in TC.
pub struct Direct<const PLAIN: bool> {
    data: usize,
    end: usize,
    size: usize,
}

impl<const PLAIN: bool> Direct<PLAIN> {
    /// `data` and `end` are the context's packet pointers; `size` is that of the whole frame.
    #[inline(always)]
    pub fn new(data: usize, end: usize, size: usize) -> Self {
        Self { data, end, size }
    }
}

impl<const PLAIN: bool> Frame for Direct<PLAIN> {
    const PLAIN: bool = PLAIN;

    #[inline(always)]
    fn forget(&self, number: usize, mask: usize) -> usize {
        maps::forget(number, mask)
    }

    #[inline(always)]
    fn size(&self) -> usize {
        // In XDP it is `end - data`: the compiler would conclude from a length that was checked that a read is in bounds,
        // which the verifier does not follow.
        core::hint::black_box(self.size)
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut start = self.data + offset;
        if !PLAIN {
            // The check below must be of the very pointer that is read: left to itself, the compiler adds the offset to
            // another base, and the verifier sees two pointers.
            start = core::hint::black_box(start);
        }
        let mut past = start + N;
        if N == 1 {
            // `start + 1 > end` would become `start >= end`, of which the verifier learns nothing
            // (`find_good_pkt_pointers()`, kernel/bpf/verifier.c).
            past = core::hint::black_box(past);
        }
        if past > self.end {
            return None;
        }
        // SAFETY: in bounds, as just checked; bytes need no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }
}
