//! The DSCPs of voice that clients set themselves, reset on what is no match (`[trust] bleach`).
//!
//! At TC ingress of access interfaces only: what XDP lets go untouched comes by there too.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    programs::TcContext,
};
use wificall_common::{
    abi::{Features, Hook, bleached_slot},
    bleach::{find, ipv4, ipv6},
    classify::Link,
    frame::Frame,
    wire::Version,
};

use crate::{
    gateway,
    maps::EXITS,
    settings,
    tc::{Place, store},
    whole::Whole,
};

/// Resets the DSCP of a packet that is no match. A plain frame is asked directly whether it has one of voice's at all.
#[inline(always)]
pub fn reset<F: Frame>(ctx: &TcContext, frame: &F, place: Place) {
    if !place.is_access_ingress() || !settings::on(Features::BLEACH) {
        return;
    }
    if F::PLAIN && find(frame, place.link).is_none() {
        return;
    }
    write(ctx.skb.skb, matches!(place.link, Link::Bare).into());
}

#[inline(never)]
fn write(skb: *mut __sk_buff, bare: u32) -> u32 {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let frame = Whole { skb };
    let Some((version, offset)) = find(&frame, link) else {
        return 0;
    };
    if settings::on(Features::GATEWAYS) && gateway::is_one(&frame, link) {
        return 0;
    }
    let written = match version {
        Version::V4 => frame
            .read(offset)
            .and_then(ipv4)
            .map(|head| store(skb, offset, head, 0)),
        // No checksum of its own, as in `tc::set_dscp`.
        Version::V6 => frame
            .read(offset)
            .and_then(ipv6)
            .map(|head| store(skb, offset, head, u64::from(BPF_F_RECOMPUTE_CSUM))),
    };
    if written == Some(0)
        && let Some(count) = EXITS.get_ptr_mut(bleached_slot(Hook::TcIngress))
    {
        // SAFETY: a context field; and as in `account::leave`.
        unsafe { *count += u64::from((*skb).gso_segs.max(1)) };
    }
    0
}
