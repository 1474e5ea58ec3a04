//! Gateways of exits on access links: their own IPsec is neither caught, nor other IPsec, nor bleached, and so is what they
//! forward.

use aya_ebpf::bindings::__sk_buff;
use wificall_common::{
    abi::Features,
    classify::Link,
    endpoint::mapped,
    frame::Frame,
    wire::{Version, ethernet, ipv4, ipv6},
};

use crate::{
    maps::{Aligned, GATEWAYS},
    settings,
    whole::Whole,
};

/// Whether a packet comes from a gateway.
#[inline(always)]
pub fn sent(skb: *mut __sk_buff, link: Link) -> bool {
    settings::on(Features::GATEWAYS) && look(skb, matches!(link, Link::Bare).into()) != 0
}

#[inline(never)]
fn look(skb: *mut __sk_buff, bare: u32) -> u32 {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    u32::from(is_one(&Whole { skb }, link))
}

/// Likewise, of any frame.
#[inline(always)]
pub fn is_one<F: Frame>(frame: &F, link: Link) -> bool {
    if let Link::Ethernet = link
        && let Some(mac) = ethernet::address(frame, ethernet::SOURCE)
        && is_known(u128::from(mac))
    {
        return true;
    }
    let header = match link {
        Link::Ethernet => ethernet::network(frame),
        Link::Bare => ethernet::bare_network(frame),
    };
    let source = header.ok().and_then(|(version, offset)| match version {
        Version::V4 => ipv4::source(frame, offset).map(mapped),
        Version::V6 => ipv6::source(frame, offset),
    });
    source.is_some_and(is_known)
}

/// An IP address, IPv4 mapped; or a link-layer address, which as an IP address would be one of ::/80 that nobody has.
#[inline(always)]
fn is_known(address: u128) -> bool {
    // SAFETY: values are never changed.
    unsafe { GATEWAYS.get(Aligned(address.to_be_bytes())) }.is_some()
}
