//! TC ingress and egress.
//!
//! Packets are read directly and never written directly: one direct write would give the program a prologue that pulls
//! every cloned skb, matching or not (`bpf_unclone_prologue()`, net/core/filter.c). All writes go through
//! `bpf_skb_store_bytes()`, on the match path only.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_skb_store_bytes,
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::warn;
use wificall_common::{
    Direction,
    abi::{Features, Hook, VERDICT_MAGIC, XdpVerdict},
    classify::{Link, Match, classify},
    exit::Exit,
    frame::Frame,
    rewrite::{self, Mark},
    wire::{Packet, Version},
};

use crate::{
    account, bleach, catch, companion,
    direct::Direct,
    flows, gateway,
    maps::{Aligned, KernelTables},
    other, policy, settings, snoop,
    whole::Whole,
};

/// `skb->priority` that cfg80211 reads as user priority 6, voice (`cfg80211_classify8021d()`, net/wireless/util.c).
const PRIORITY_WIRELESS_VOICE: u32 = 256 + 6;
/// TC_PRIO_INTERACTIVE (uapi/linux/pkt_sched.h).
const PRIORITY_INTERACTIVE: u32 = 6;

/// What is fixed for an entry point.
#[derive(Clone, Copy)]
pub struct Place {
    pub hook: Hook,
    pub direction: Direction,
    pub link: Link,
    wireless: bool,
    behind_xdp: bool,
}

impl Place {
    const fn new(hook: Hook, direction: Direction) -> Self {
        Self {
            hook,
            direction,
            link: Link::Ethernet,
            wireless: false,
            behind_xdp: false,
        }
    }

    const fn bare(self) -> Self {
        Self {
            link: Link::Bare,
            ..self
        }
    }

    const fn wireless(self) -> Self {
        Self {
            wireless: true,
            ..self
        }
    }

    const fn behind_xdp(self) -> Self {
        Self {
            behind_xdp: true,
            ..self
        }
    }

    /// Up at ingress and down at egress is an access interface, the rest an uplink.
    const fn counting(self) -> u32 {
        match (self.hook, self.direction) {
            (Hook::TcIngress, Direction::Up) | (Hook::TcEgress, Direction::Down) => {
                Features::COUNT_ACCESS
            }
            _ => Features::COUNT_UPLINK,
        }
    }

    /// Where clients' packets come in. Only these are marked, before routing: a marked `down` packet would be routed back to
    /// its exit.
    pub const fn is_access_ingress(self) -> bool {
        matches!(
            (self.hook, self.direction),
            (Hook::TcIngress, Direction::Up)
        )
    }
}

const IN_UP: Place = Place::new(Hook::TcIngress, Direction::Up);
const IN_DOWN: Place = Place::new(Hook::TcIngress, Direction::Down);
const OUT_UP: Place = Place::new(Hook::TcEgress, Direction::Up);
const OUT_DOWN: Place = Place::new(Hook::TcEgress, Direction::Down);

/// Declares an entry point.
macro_rules! program {
    ($name:ident, $place:expr) => {
        #[doc = concat!("TC entry point `", stringify!($name), "`.")]
        #[classifier]
        #[inline(always)]
        pub fn $name(ctx: TcContext) -> i32 {
            let exit = run(&ctx, $place);
            flows::track(&ctx, exit);
            let exit = second_looks(&ctx, exit, $place);
            match exit {
                Exit::Matched
                | Exit::NotIp
                | Exit::OtherProtocol
                | Exit::OtherPort
                | Exit::NotEndpoint
                | Exit::NotIpsec
                | Exit::UnknownFragment
                | Exit::Truncated
                | Exit::Malformed
                | Exit::VlanDepth
                | Exit::ExtensionDepth
                | Exit::ByXdp
                | Exit::RewriteFailed
                | Exit::NoPolicy
                | Exit::NoMetadata
                | Exit::Dns
                | Exit::NewIke
                | Exit::OtherMarked
                | Exit::OtherAudited
                | Exit::CaughtFirst
                | Exit::Companion => TC_ACT_UNSPEC,
                Exit::Dropped | Exit::OtherDropped | Exit::Held => TC_ACT_SHOT,
            }
        }
    };
}

program!(in_up, IN_UP);
program!(in_up_bare, IN_UP.bare());
program!(in_up_xdp, IN_UP.behind_xdp());
program!(in_down, IN_DOWN);
program!(in_down_xdp, IN_DOWN.behind_xdp());
program!(in_down_bare, IN_DOWN.bare());
program!(out_up, OUT_UP);
program!(out_up_bare, OUT_UP.bare());
program!(out_up_wifi, OUT_UP.wireless());
program!(out_down, OUT_DOWN);
program!(out_down_bare, OUT_DOWN.bare());
program!(out_down_wifi, OUT_DOWN.wireless());

/// Looks once more at what the classifier has let go. The exit that it leaves by at last is counted then.
#[inline(always)]
fn second_looks(ctx: &TcContext, exit: Exit, place: Place) -> Exit {
    let told = snoop::second_look(ctx, exit, place.direction, place.link);
    if !is_asked(place, exit) {
        return exit;
    }
    if gateway::sent(ctx.skb.skb, place.link) {
        return account::leave(place.hook, exit);
    }
    // What is not known may still not pass a firewall.
    let caught = catch::second_look(ctx, exit, place, told);
    let exit = match other::second_look(ctx, exit, place) {
        Exit::OtherDropped => Exit::OtherDropped,
        other => match caught {
            Exit::Held | Exit::CaughtFirst => caught,
            _ => other,
        },
    };
    account::leave(place.hook, exit)
}

/// Whether the exit of a packet that is no match is known only after a second look.
#[inline(always)]
fn is_asked(place: Place, exit: Exit) -> bool {
    other::is_asked(place, exit) || catch::is_asked(place, exit)
}

#[inline(always)]
fn run(ctx: &TcContext, place: Place) -> Exit {
    if place.behind_xdp
        && let Some(verdict) = verdict(ctx)
    {
        return finish_for_xdp(ctx, place, &verdict);
    }
    let frame: Direct<true> = Direct::new(ctx.data(), ctx.data_end(), ctx.len() as usize);
    match classify(&frame, &KernelTables, place.link, place.direction) {
        Ok(found) => act(ctx, &frame, place, &found),
        Err(Exit::Truncated) => run_whole(ctx, place),
        Err(exit) => let_go(ctx, &frame, place, exit),
    }
}

/// The same for a frame that is not plain, or whose headers lie in the skb's pages: every read is a helper call.
#[inline(always)]
fn run_whole(ctx: &TcContext, place: Place) -> Exit {
    let frame = Whole { skb: ctx.skb.skb };
    match classify(&frame, &KernelTables, place.link, place.direction) {
        Ok(found) => act(ctx, &frame, place, &found),
        Err(exit) => let_go(ctx, &frame, place, exit),
    }
}

/// Lets a packet go that is no match. Of what may be IPsec to other addresses, the exit is counted when it is known.
#[inline(always)]
fn let_go<F: Frame>(ctx: &TcContext, frame: &F, place: Place, exit: Exit) -> Exit {
    let exit = companion::steer(ctx, frame, place, exit);
    // The last to read the packet: writing makes its pointers stale.
    bleach::reset(ctx, frame, place);
    if is_asked(place, exit) {
        return exit;
    }
    account::leave(place.hook, exit)
}

/// Treats a match by its policy.
#[inline(always)]
fn act<F: Frame>(ctx: &TcContext, frame: &F, place: Place, found: &Match) -> Exit {
    let skb = ctx.skb.skb;
    // SAFETY: a context field.
    let segments = u64::from(unsafe { (*skb).gso_segs }.max(1));
    if settings::on(place.counting()) {
        account::record(frame, found, place.direction, segments);
    }
    let at = account::At {
        hook: place.hook,
        direction: place.direction,
        link: place.link,
        faces_clients: place.counting() == Features::COUNT_ACCESS,
    };
    // SAFETY: a context field.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(row) = policy::row(frame, found, at, ifindex) else {
        warn!(
            ctx,
            "no policy {} for group {}", found.endpoint.policy, found.endpoint.group
        );
        return account::leave(place.hook, Exit::NoPolicy);
    };
    if settings::on(Features::DROP) && row.drop != 0 {
        return account::leave(place.hook, Exit::Dropped);
    }
    let exit = other::of_match(skb, frame, place, found, row, segments);
    if matches!(exit, Exit::OtherDropped) {
        return account::leave(place.hook, exit);
    }
    if settings::on(place.counting()) {
        account::touch(found, row, place.direction);
        // SAFETY: a context field.
        let ingress_ifindex = unsafe { (*skb).ingress_ifindex };
        let seen = flows::Seen {
            direction: place.direction,
            segments,
            ifindex,
            ingress_ifindex,
        };
        flows::collect(frame, found, seen);
    }
    if place.is_access_ingress() && settings::on(Features::MARK) {
        set_mark(skb, policy::mark(frame, found, row));
    }
    let excess = account::over_cap(frame, found, row, at, segments);
    if matches!(place.hook, Hook::TcEgress)
        && settings::on(Features::PRIORITY)
        && row.voice[place.direction as usize] != 0
    {
        let priority = if place.wireless {
            PRIORITY_WIRELESS_VOICE
        } else {
            PRIORITY_INTERACTIVE
        };
        // SAFETY: a context field that SCHED_CLS may write.
        unsafe {
            if !excess {
                (*skb).priority = priority;
            } else if (*skb).priority == priority {
                // Forwarding makes it of the DSCP that came (`rt_tos2priority()`).
                (*skb).priority = 0;
            }
        }
    }
    if settings::on(Features::DSCP) {
        let mut rule = rewrite::rule(row, place.direction, found.treat_as);
        if excess {
            rule = rewrite::excess(rule);
        }
        if let Err(error) = set_dscp(skb, frame, &found.packet, rule) {
            warn!(ctx, "cannot set the DSCP: error {}", error);
            return account::leave(place.hook, Exit::RewriteFailed);
        }
    }
    account::leave(place.hook, exit)
}

#[inline(always)]
pub fn set_mark(skb: *mut __sk_buff, mark: Mark) {
    if mark.mask != 0 {
        // SAFETY: a context field that SCHED_CLS may write.
        unsafe { (*skb).mark = mark.over((*skb).mark) };
    }
}

/// Writes the DSCP that `rule` asks for, if it is not there yet.
#[inline(always)]
fn set_dscp<F: Frame>(
    skb: *mut __sk_buff,
    frame: &F,
    packet: &Packet,
    rule: u8,
) -> Result<(), i64> {
    let result = match packet.version {
        Version::V4 => match frame
            .read(packet.offset)
            .and_then(|head| rewrite::ipv4(head, rule))
        {
            // The sum over the header stays the same: nothing to tell the skb.
            Some(head) => store(skb, packet.offset, head, 0),
            None => 0,
        },
        Version::V6 => match frame
            .read(packet.offset)
            .and_then(|head| rewrite::ipv6(head, rule))
        {
            // No checksum of its own: a CHECKSUM_COMPLETE of the packet must follow the change.
            Some(head) => store(skb, packet.offset, head, u64::from(BPF_F_RECOMPUTE_CSUM)),
            None => 0,
        },
    };
    if result == 0 { Ok(()) } else { Err(result) }
}

#[inline(always)]
pub fn store<const N: usize>(
    skb: *mut __sk_buff,
    offset: usize,
    bytes: [u8; N],
    flags: u64,
) -> i64 {
    let bytes = Aligned(bytes);
    // SAFETY: `bytes` is `N` bytes long; the kernel checks the offset and makes the packet writable.
    unsafe {
        bpf_skb_store_bytes(
            skb.cast(),
            offset as u32,
            bytes.0.as_ptr().cast(),
            N as u32,
            flags,
        )
    }
}

/// XDP has classified, counted and rewritten this packet; the mark is what it could not set.
#[inline(always)]
fn finish_for_xdp(ctx: &TcContext, place: Place, verdict: &XdpVerdict) -> Exit {
    let exit = other::of_xdp_match(ctx, place, verdict);
    if place.is_access_ingress() && settings::on(Features::MARK) {
        let mark = Mark {
            value: verdict.mark,
            mask: verdict.mask,
        };
        set_mark(ctx.skb.skb, mark);
    }
    account::leave(place.hook, exit)
}

/// The verdict in the packet's metadata, if it is one of ours for this interface.
#[inline(always)]
fn verdict(ctx: &TcContext) -> Option<XdpVerdict> {
    let skb = ctx.skb.skb;
    // SAFETY: context fields.
    let (meta, data, ifindex) = unsafe {
        (
            (*skb).data_meta as usize,
            (*skb).data as usize,
            (*skb).ifindex,
        )
    };
    if meta + size_of::<XdpVerdict>() > data {
        return None;
    }
    // SAFETY: in bounds, as just checked; metadata is aligned to four bytes.
    let verdict = unsafe { *(meta as *const XdpVerdict) };
    let known = verdict.nonce == settings::nonce() || verdict.nonce == settings::previous_nonce();
    (verdict.magic == VERDICT_MAGIC && verdict.ifindex == ifindex && known).then_some(verdict)
}
