//! `catch_all`: the first packets to an address that is no endpoint, until the agent knows its country.
//!
//! At TC ingress of access interfaces only. Where it is switched off the verifier removes it.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns, programs::TcContext};
use wificall_common::{
    abi::{Bucket, Features, SEEN_SHIFT, Tunnel},
    classify::{Link, network, tunnel_key},
    exit::Exit,
    other::destination,
    rewrite::Mark,
    wire::Fragment,
};

use crate::{
    maps::{Aligned, CATCH_DUE, HELD, TUNNELS, is_spared},
    settings,
    tc::{Place, set_mark},
    whole::Whole,
};

const ANY: u32 = Features::CATCH_HOLD | Features::CATCH_MARK;

/// An address whose first packet was held is not held again for ten minutes: whoever is still unknown then stays so.
const AGAIN: u64 = 600_000_000_000;

/// Whether it is for [`second_look`] to say by which exit this packet leaves.
#[inline(always)]
pub fn is_asked(place: Place, exit: Exit) -> bool {
    place.is_access_ingress()
        && settings::any(ANY)
        && matches!(exit, Exit::NotEndpoint | Exit::NewIke)
}

/// Looks at a packet that was let go with this exit; the exit that it leaves by. `told`: the agent has been told of it.
#[inline(always)]
pub fn second_look(ctx: &TcContext, exit: Exit, place: Place, told: bool) -> Exit {
    if !place.is_access_ingress() || !settings::any(ANY) {
        return exit;
    }
    // One call, wherever the exit comes from, as in `snoop::second_look`.
    let number = core::hint::black_box(exit as u32);
    if number != Exit::NotEndpoint as u32 && number != Exit::NewIke as u32 {
        return exit;
    }
    let is_new = number == Exit::NewIke as u32 && told;
    let bare = u32::from(matches!(place.link, Link::Bare));
    let number = look_at(ctx.skb.skb, is_new.into(), bare);
    if number == Exit::Held as u32 {
        Exit::Held
    } else if number == Exit::CaughtFirst as u32 {
        Exit::CaughtFirst
    } else {
        exit
    }
}

#[inline(never)]
fn look_at(skb: *mut __sk_buff, is_new: u32, bare: u32) -> u32 {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let passes = Exit::NotEndpoint as u32;
    let frame = Whole { skb };
    let Ok(packet) = network(&frame, link) else {
        return passes;
    };
    if matches!(packet.fragment, Fragment::Later) {
        return passes;
    }
    let Some(to) = destination(&frame, &packet) else {
        return passes;
    };
    if is_spared(to) {
        return passes;
    }
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    if settings::on(Features::CATCH_HOLD) {
        return if is_new != 0 && hold(to, now) {
            Exit::Held as u32
        } else {
            passes
        };
    }
    let Some(key) = tunnel_key(&frame, &packet) else {
        return passes;
    };
    let seen = (now >> SEEN_SHIFT) as u32;
    let mark = if let Some(tunnel) = TUNNELS.get_ptr_mut(key) {
        // SAFETY: a map value, as in `policy::mark`.
        unsafe {
            if (*tunnel).seen != seen {
                (*tunnel).seen = seen;
            }
            Mark {
                value: (*tunnel).mark,
                mask: (*tunnel).mask,
            }
        }
    } else {
        if is_new == 0 || !has_turn(now) {
            return passes;
        }
        let [exit, value, mask] = settings::catch_exit();
        let first = Tunnel {
            exit,
            mark: value,
            mask,
            seen,
            began: seen,
            reserved: 0,
        };
        if TUNNELS.insert(key, first, 0).is_err() {
            return passes;
        }
        Mark { value, mask }
    };
    set_mark(skb, mark);
    if mark.mask == 0 {
        passes
    } else {
        Exit::CaughtFirst as u32
    }
}

/// Whether the first packet to an address is held now.
#[inline(always)]
fn hold(to: u128, now: u64) -> bool {
    let key = Aligned(to.to_be_bytes());
    // SAFETY: values are single words.
    if let Some(held) = unsafe { HELD.get(key) }
        && now - *held < AGAIN
    {
        return false;
    }
    has_turn(now) && HELD.insert(key, now, 0).is_ok()
}

/// Takes one of the addresses that may be caught in a second.
#[inline(always)]
fn has_turn(now: u64) -> bool {
    let Some(due) = CATCH_DUE.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: an aligned word of a map value; CPUs that race take one turn for two.
    unsafe {
        let next = Bucket::take(due.read_volatile(), now, settings::catch_gap(), 1);
        if next != 0 {
            due.write_volatile(next);
        }
        next != 0
    }
}
