//! A whole skb, read by helper.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use wificall_common::frame::Frame;

use crate::maps::{self, Aligned};

/// A whole skb, read by helper.
pub struct Whole {
    pub skb: *mut __sk_buff,
}

impl Frame for Whole {
    #[inline(always)]
    fn forget(&self, number: usize, mask: usize) -> usize {
        maps::forget(number, mask)
    }

    #[inline(always)]
    fn size(&self) -> usize {
        // SAFETY: a context field.
        unsafe { (*self.skb).len as usize }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Not zeroed: that would be a call, and the stack of one more function beside this program's and its own callees'.
        let mut bytes = MaybeUninit::<Aligned<[u8; N]>>::uninit();
        // SAFETY: `bytes` is `N` bytes long; the kernel checks the offset and fills them all, or none.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        if result != 0 {
            return None;
        }
        // Volatile: the compiler would load any eight bytes at once, and the verifier refuses unaligned ones on the stack.
        let mut read = [0; N];
        if N.is_multiple_of(4) {
            let words = (&raw const bytes).cast::<u32>();
            for (index, word) in read.chunks_exact_mut(4).enumerate() {
                // SAFETY: inside `bytes`, which is aligned.
                let value = unsafe { words.add(index).read_volatile() };
                word.copy_from_slice(&value.to_ne_bytes());
            }
        } else {
            for (index, byte) in read.iter_mut().enumerate() {
                // SAFETY: inside `bytes`.
                *byte = unsafe { bytes.as_ptr().cast::<u8>().add(index).read_volatile() };
            }
        }
        Some(read)
    }
}
