//! Where IPsec goes that the classifier has let go as no match.

use crate::{
    classify::{Link, network},
    endpoint::mapped,
    exit::Exit,
    frame::Frame,
    wire::{Fragment, Packet, Version, ipv4, ipv6},
};

/// IPsec on its standard ports that goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipsec {
    /// Where to; IPv4 as `::ffff:a.b.c.d`.
    pub destination: u128,
    /// Length of the IP packet in bytes.
    pub len: usize,
}

/// Looks at a frame that goes up and left the classifier as [`Exit::NotEndpoint`] or [`Exit::NewIke`], by which its
/// protocol or port is IPsec's.
///
/// # Errors
///
/// [`Exit::UnknownFragment`] for a later fragment, whose port nobody knows. Others never, as the classifier has parsed it.
#[inline(always)]
pub fn look<F: Frame + ?Sized>(frame: &F, link: Link) -> Result<Ipsec, Exit> {
    let packet = network(frame, link)?;
    if matches!(packet.fragment, Fragment::Later) {
        return Err(Exit::UnknownFragment);
    }
    Ok(Ipsec {
        destination: destination(frame, &packet).ok_or(Exit::Truncated)?,
        len: packet.total_len,
    })
}

/// The destination of a packet, IPv4 mapped; `None` if the frame ends too early.
#[inline(always)]
pub fn destination<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<u128> {
    match packet.version {
        Version::V4 => ipv4::destination(frame, packet.offset).map(mapped),
        Version::V6 => ipv6::destination(frame, packet.offset),
    }
}
