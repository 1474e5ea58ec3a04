//! Other IPsec (`[other_ipsec]`): what goes up on IPsec's ports to an address that is no endpoint, or to an endpoint that is
//! not trusted enough to pass a firewall.
//!
//! TC ingress of access interfaces marks, counts and drops; XDP drops. Where it is switched off the verifier removes it.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::bpf_ktime_get_ns,
    programs::{TcContext, XdpContext},
};
use wificall_common::{
    Direction,
    abi::{Destination, Features, Policy, XdpVerdict},
    classify::{Link, Match},
    exit::Exit,
    frame::Frame,
    other::{destination, look},
};

use crate::{
    gateway,
    maps::{Aligned, OTHERS, is_spared},
    settings,
    tc::Place,
    whole::Whole,
    xdp,
};

const ANY: u32 = Features::OTHER_MARK | Features::OTHER_AUDIT | Features::OTHER_DROP;

/// Whether it is for [`second_look`] to say by which exit this packet leaves.
#[inline(always)]
pub fn is_asked(place: Place, exit: Exit) -> bool {
    place.is_access_ingress() && settings::any(ANY) && is_unknown(exit)
}

/// Whether the classifier has found IPsec's port or protocol, and no endpoint.
#[inline(always)]
fn is_unknown(exit: Exit) -> bool {
    matches!(exit, Exit::NotEndpoint | Exit::NewIke)
}

/// Looks at a packet that was let go with this exit; the exit that it leaves by.
#[inline(always)]
pub fn second_look(ctx: &TcContext, exit: Exit, place: Place) -> Exit {
    if !place.is_access_ingress() || !settings::any(ANY) {
        return exit;
    }
    // One call, wherever the exit comes from, as in `snoop::second_look`.
    let number = core::hint::black_box(exit as u32);
    if number != Exit::NotEndpoint as u32 && number != Exit::NewIke as u32 {
        return exit;
    }
    let skb = ctx.skb.skb;
    let number = look_at(skb, number, matches!(place.link, Link::Bare).into());
    let exit = judged(number, exit);
    set_mark(skb, exit);
    exit
}

/// The exit of a match in TC, or what is done with it because its endpoint may not pass.
#[inline(always)]
pub fn of_match<F: Frame>(
    skb: *mut __sk_buff,
    frame: &F,
    place: Place,
    found: &Match,
    policy: &Policy,
    segments: u64,
) -> Exit {
    if !place.is_access_ingress() || !settings::any(ANY) || policy.passes != 0 {
        return Exit::Matched;
    }
    let Some(to) = destination(frame, &found.packet) else {
        return Exit::Matched;
    };
    let number = judge(
        (to >> 64) as u64,
        to as u64,
        found.packet.total_len as u64,
        segments,
        Exit::Matched as u32,
    );
    let exit = judged(number, Exit::Matched);
    set_mark(skb, exit);
    exit
}

/// The exit of a match in TC behind XDP, likewise. XDP has dropped what is dropped.
#[inline(always)]
pub fn of_xdp_match(ctx: &TcContext, place: Place, verdict: &XdpVerdict) -> Exit {
    let marks_or_audits = Features::OTHER_MARK | Features::OTHER_AUDIT;
    if !place.is_access_ingress() || !settings::any(marks_or_audits) || verdict.passes != 0 {
        return Exit::ByXdp;
    }
    let skb = ctx.skb.skb;
    let number = look_at(skb, Exit::ByXdp as u32, 0);
    let exit = judged(number, Exit::ByXdp);
    set_mark(skb, exit);
    exit
}

/// Whether a match is dropped in XDP.
#[inline(always)]
pub fn drops_match<F: Frame>(
    frame: &F,
    direction: Direction,
    found: &Match,
    policy: &Policy,
) -> bool {
    if matches!(direction, Direction::Down)
        || !settings::on(Features::OTHER_DROP)
        || policy.passes != 0
    {
        return false;
    }
    let Some(to) = destination(frame, &found.packet) else {
        return false;
    };
    let number = judge(
        (to >> 64) as u64,
        to as u64,
        found.packet.total_len as u64,
        1,
        Exit::Matched as u32,
    );
    number == Exit::OtherDropped as u32
}

/// The exit of a packet that XDP lets go: what is not dropped is for TC to mark and count.
#[inline(always)]
pub fn in_xdp(ctx: &XdpContext, direction: Direction, exit: Exit) -> Exit {
    if matches!(direction, Direction::Down) || !settings::on(Features::OTHER_DROP) {
        return exit;
    }
    let number = core::hint::black_box(exit as u32);
    if number != Exit::NotEndpoint as u32 && number != Exit::NewIke as u32 {
        return exit;
    }
    judged(look_at_in_xdp(ctx.ctx, number), exit)
}

#[inline(always)]
fn judged(number: u32, otherwise: Exit) -> Exit {
    if number == Exit::OtherDropped as u32 {
        Exit::OtherDropped
    } else if number == Exit::OtherAudited as u32 {
        Exit::OtherAudited
    } else if number == Exit::OtherMarked as u32 {
        Exit::OtherMarked
    } else {
        otherwise
    }
}

#[inline(always)]
fn set_mark(skb: *mut __sk_buff, exit: Exit) {
    if settings::on(Features::OTHER_MARK) && matches!(exit, Exit::OtherMarked) {
        let [value, mask] = settings::other_mark();
        // SAFETY: a context field that SCHED_CLS may write.
        unsafe { (*skb).mark = ((*skb).mark & !mask) | (value & mask) };
    }
}

#[inline(never)]
fn look_at(skb: *mut __sk_buff, exit: u32, bare: u32) -> u32 {
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let Ok(seen) = look(&Whole { skb }, link) else {
        return exit;
    };
    // SAFETY: a context field.
    let segments = u64::from(unsafe { (*skb).gso_segs }.max(1));
    decide(seen.destination, seen.len as u64, segments, exit)
}

#[inline(never)]
fn look_at_in_xdp(ctx: *mut xdp_md, exit: u32) -> u32 {
    // The compiler would hand the context's fields over instead, and treat packet pointers as numbers.
    let ctx = core::hint::black_box(ctx);
    let frame = xdp::frame::<false>(&XdpContext::new(ctx));
    if settings::on(Features::GATEWAYS) && gateway::is_one(&frame, Link::Ethernet) {
        return exit;
    }
    match look(&frame, Link::Ethernet) {
        Ok(seen) => decide(seen.destination, seen.len as u64, 1, exit),
        Err(_) => exit,
    }
}

/// [`decide`], with a destination in two halves. Once in a program, wherever it is called from.
#[inline(never)]
fn judge(high: u64, low: u64, bytes: u64, packets: u64, exit: u32) -> u32 {
    decide(
        (u128::from(high) << 64) | u128::from(low),
        bytes,
        packets,
        exit,
    )
}

/// What becomes of packets to this destination: a number of an exit, `exit` if they are spared.
#[inline(always)]
fn decide(to: u128, bytes: u64, packets: u64, exit: u32) -> u32 {
    if is_spared(to) {
        return exit;
    }
    count(to, bytes, packets);
    let exit = if settings::on(Features::OTHER_DROP) {
        Exit::OtherDropped
    } else if settings::on(Features::OTHER_AUDIT) {
        Exit::OtherAudited
    } else {
        Exit::OtherMarked
    };
    exit as u32
}

#[inline(always)]
fn count(to: u128, bytes: u64, packets: u64) {
    let key = Aligned(to.to_be_bytes());
    // SAFETY: no precondition.
    let last = unsafe { bpf_ktime_get_ns() };
    if let Some(known) = OTHERS.get_ptr_mut(key) {
        // SAFETY: aligned words of a map value. CPUs that race lose one of two packets.
        unsafe {
            (*known).packets += packets;
            (*known).bytes += bytes;
            (*known).last = last;
        }
        return;
    }
    let first = Destination {
        packets,
        bytes,
        last,
    };
    // A full table forgets who was quiet longest; who finds no room is in the exits all the same.
    let _ = OTHERS.insert(key, first, 0);
}
