//! How parsers see a packet.

use crate::exit::Exit;

/// A packet as one hook sees it, read by value.
///
/// Implementations exist for XDP and TC (direct access), for TC's non-linear skbs (by helper), and for byte
/// slices on the host. Reading by value is what lets one parser satisfy the verifier in all of them: no
/// reference into packet memory outlives its bounds check.
pub trait Frame {
    /// Whether only the plain shape is read: Ethernet or no link header, no tags, no IPv4 options, no IPv6 extension
    /// headers, no fragments. All offsets are constants then, which is fast and quick to verify. Whatever else the frame
    /// may be ends in [`Exit::Truncated`], and is to be read again through a frame that sees everything.
    const PLAIN: bool = false;

    /// The same number, at most `mask` (a low-bits mask), with its origin forgotten. A verifier that knows an offset's
    /// every possible value follows the rest of the program once for each; one that knows only its bound, once.
    #[inline(always)]
    fn forget(&self, number: usize, mask: usize) -> usize {
        number & mask
    }

    /// Size of the frame in bytes, from its first header to its end, fragments of the skb included.
    fn size(&self) -> usize;

    /// The `N` bytes at `offset`, or `None` if the frame ends before `offset + N`.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// Leaves the plain shape.
///
/// # Errors
///
/// [`Exit::Truncated`] if the frame is read in that shape only.
#[inline(always)]
pub fn leave_plain<F: Frame + ?Sized>() -> Result<(), Exit> {
    if F::PLAIN {
        Err(Exit::Truncated)
    } else {
        Ok(())
    }
}

impl Frame for [u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        self.get(offset..end)?.try_into().ok()
    }
}
