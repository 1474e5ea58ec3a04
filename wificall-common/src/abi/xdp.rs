//! What XDP hands to TC in the packet's metadata.

use super::assert_size;

/// First word of a verdict.
pub const VERDICT_MAGIC: u32 = u32::from_le_bytes(*b"wfc3");

/// A verdict. Metadata survives a veth into the next hop's TC ingress, and others may write some too: TC trusts it only
/// where our XDP program is attached, and only with the magic, its own interface and the nonce of a load of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct XdpVerdict {
    /// [`VERDICT_MAGIC`].
    pub magic: u32,
    /// Interface that the frame came in on.
    pub ifindex: u32,
    /// Random number of the load, low and high half.
    pub nonce: [u32; 2],
    /// The mark that is left to do.
    pub mark: u32,
    /// Which bits of it.
    pub mask: u32,
    /// [`Policy::passes`](super::Policy::passes).
    pub passes: u32,
}
assert_size!(XdpVerdict, 28);
