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
    tunnel::carries,
    wire::Packet,
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
    let skb = ctx.skb.skb;
    if settings::on(Features::CATCH_HOLD) {
        return if is_new && hold(skb, bare) != 0 {
            Exit::Held
        } else {
            exit
        };
    }
    if keep(skb, is_new.into(), bare) == 0 {
        return exit;
    }
    if number == Exit::NotEndpoint as u32 {
        note_carried(skb, bare);
    }
    Exit::CaughtFirst
}

/// The packet of a frame that may be caught.
#[inline(always)]
fn packet(frame: &Whole, bare: u32) -> Option<Packet> {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let packet = network(frame, link).ok()?;
    if is_spared(destination(frame, &packet)?) {
        return None;
    }
    Some(packet)
}

/// Whether the first packet to an address is held now. In a function of its own, for its stack.
#[inline(never)]
fn hold(skb: *mut __sk_buff, bare: u32) -> u32 {
    let frame = Whole { skb };
    let to = packet(&frame, bare).and_then(|packet| destination(&frame, &packet));
    let Some(to) = to else {
        return 0;
    };
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = Aligned(to.to_be_bytes());
    // SAFETY: values are single words.
    if let Some(held) = unsafe { HELD.get(key) }
        && now - *held < AGAIN
    {
        return 0;
    }
    u32::from(has_turn(now) && HELD.insert(key, now, 0).is_ok())
}

/// Marks a packet of a tunnel that began by the default exit, or that begins now; whether it did. Likewise.
#[inline(never)]
fn keep(skb: *mut __sk_buff, is_new: u32, bare: u32) -> u32 {
    let frame = Whole { skb };
    let key = packet(&frame, bare).and_then(|packet| tunnel_key(&frame, &packet));
    let Some(key) = key else {
        return 0;
    };
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
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
            return 0;
        }
        let [exit, value, mask] = settings::catch_exit();
        let first = Tunnel {
            exit,
            mark: value,
            mask,
            seen,
            began: seen,
            esp: 0,
        };
        if TUNNELS.insert(key, first, 0).is_err() {
            return 0;
        }
        Mark { value, mask }
    };
    set_mark(skb, mark);
    u32::from(mark.mask != 0)
}

/// Notes that a tunnel carries something, if this packet is ESP. Likewise: [`keep`] has no stack left for it.
#[inline(never)]
fn note_carried(skb: *mut __sk_buff, bare: u32) {
    let frame = Whole { skb };
    let Some(packet) = packet(&frame, bare).filter(|packet| carries(&frame, packet)) else {
        return;
    };
    let Some(tunnel) = tunnel_key(&frame, &packet).and_then(|key| TUNNELS.get_ptr_mut(key)) else {
        return;
    };
    // SAFETY: a map value, as above.
    unsafe {
        if (*tunnel).esp != (*tunnel).seen {
            (*tunnel).esp = (*tunnel).seen;
        }
    }
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
