//! Companion names (`companions` of a policy): port 443 of their addresses takes the exit of the client's policy.
//!
//! At TC ingress of access interfaces only, where a mark is set. Where it is switched off the verifier removes it.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use wificall_common::{
    abi::Features, classify::Link, companion::find, exit::Exit, frame::Frame, rewrite::Mark,
};

use crate::{
    maps::Aligned,
    maps::COMPANION_HOSTS,
    policy, settings,
    tc::{Place, set_mark},
    whole::Whole,
};

/// Marks a packet that the classifier has let go with this exit, if it goes to a companion; the exit that it leaves by.
#[inline(always)]
pub fn steer<F: Frame>(ctx: &TcContext, frame: &F, place: Place, exit: Exit) -> Exit {
    if !place.is_access_ingress() || !settings::on(Features::COMPANIONS) {
        return exit;
    }
    if !matches!(exit, Exit::OtherProtocol | Exit::OtherPort) {
        return exit;
    }
    let Some(to) = find(frame, place.link) else {
        return exit;
    };
    // SAFETY: the agent replaces whole values.
    let Some(host) = (unsafe { COMPANION_HOSTS.get(Aligned(to.address.to_be_bytes())) }) else {
        return exit;
    };
    let marked = mark(
        ctx.skb.skb,
        host.policy,
        matches!(place.link, Link::Bare).into(),
    );
    if marked == 0 { exit } else { Exit::Companion }
}

/// By helper: few packets come here.
#[inline(never)]
fn mark(skb: *mut __sk_buff, index: u32, bare: u32) -> u32 {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let frame = Whole { skb };
    // SAFETY: a context field.
    let ifindex = unsafe { (*skb).ifindex };
    let row =
        find(&frame, link).and_then(|to| policy::of_companion(&frame, &to, link, index, ifindex));
    let mark = row.map_or(Mark::default(), Mark::of);
    set_mark(skb, mark);
    u32::from(mark.mask != 0)
}
