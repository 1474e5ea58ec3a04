//! XDP at ingress: the same classifier before an skb exists.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::bpf_xdp_adjust_meta,
    macros::xdp,
    programs::XdpContext,
};
use wificall_common::{
    Direction,
    abi::{Features, Hook, VERDICT_MAGIC, XdpVerdict},
    classify::{Link, Match, classify},
    exit::Exit,
    rewrite::{self, Mark},
    wire::Version,
};

use crate::{account, direct::Direct, flows, maps::KernelTables, other, policy, settings};

/// XDP entry point of access interfaces.
#[xdp]
#[inline(always)]
pub fn xdp_up(ctx: XdpContext) -> u32 {
    action(run(&ctx, Direction::Up, Features::COUNT_ACCESS))
}

/// XDP entry point of uplink interfaces.
#[xdp]
#[inline(always)]
pub fn xdp_down(ctx: XdpContext) -> u32 {
    action(run(&ctx, Direction::Down, Features::COUNT_UPLINK))
}

#[inline(always)]
fn action(exit: Exit) -> u32 {
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
        | Exit::Companion => XDP_PASS,
        Exit::Dropped | Exit::OtherDropped | Exit::Held => XDP_DROP,
    }
}

#[inline(always)]
fn run(ctx: &XdpContext, direction: Direction, counting: u32) -> Exit {
    let outcome = match classify(
        &frame::<true>(ctx),
        &KernelTables,
        Link::Ethernet,
        direction,
    ) {
        // Not plain, or really truncated.
        Err(Exit::Truncated) => classify(
            &frame::<false>(ctx),
            &KernelTables,
            Link::Ethernet,
            direction,
        ),
        decided => decided,
    };
    match outcome {
        Ok(found) => {
            let exit = act(ctx, direction, counting, &found);
            flows::track_xdp(ctx);
            account::leave(Hook::Xdp, exit)
        }
        Err(exit) => {
            let exit = other::in_xdp(ctx, direction, exit);
            account::leave(Hook::Xdp, exit)
        }
    }
}

/// Treats a match by its policy. If TC stands behind, the verdict is written first: without room for it, the packet
/// stays untouched and uncounted, and TC does all of it.
#[inline(always)]
fn act(ctx: &XdpContext, direction: Direction, counting: u32, found: &Match) -> Exit {
    let at = account::At {
        hook: Hook::Xdp,
        direction,
        link: Link::Ethernet,
        faces_clients: counting == Features::COUNT_ACCESS,
    };
    let row = policy::row(
        &frame::<false>(ctx),
        found,
        at,
        ctx.ingress_ifindex() as u32,
    );
    if settings::on(Features::DROP)
        && let Some(row) = row
        && row.drop != 0
    {
        if settings::on(counting) {
            account::record(&frame::<false>(ctx), found, direction, 1);
        }
        return Exit::Dropped;
    }
    if let Some(row) = row
        && other::drops_match(&frame::<false>(ctx), direction, found, row)
    {
        if settings::on(counting) {
            account::record(&frame::<false>(ctx), found, direction, 1);
        }
        return Exit::OtherDropped;
    }
    if settings::on(Features::HANDOVER) {
        let mark = match (direction, row) {
            (Direction::Up, Some(row)) if settings::on(Features::MARK) => {
                policy::mark(&frame::<false>(ctx), found, row)
            }
            _ => Mark::default(),
        };
        let passes = row.map_or(1, |row| row.passes);
        if hand_over(ctx, mark, passes).is_none() {
            return Exit::NoMetadata;
        }
    }
    // Made anew: the kernel has forgotten the bounds checked before the metadata moved.
    let frame = frame::<false>(ctx);
    if settings::on(counting) {
        account::record(&frame, found, direction, 1);
    }
    let Some(row) = row else {
        return Exit::NoPolicy;
    };
    if settings::on(counting) {
        account::touch(found, row, direction);
        let ifindex = ctx.ingress_ifindex() as u32;
        let seen = flows::Seen {
            direction,
            segments: 1,
            ifindex,
            ingress_ifindex: ifindex,
        };
        flows::collect(&frame, found, seen);
    }
    let excess = account::over_cap(&frame, found, row, at, 1);
    if settings::on(Features::DSCP) {
        let mut rule = rewrite::rule(row, direction, found.treat_as);
        if excess {
            rule = rewrite::excess(rule);
        }
        let offset = found.packet.offset;
        let written = match found.packet.version {
            Version::V4 => update(ctx, offset, |head| rewrite::ipv4(head, rule)),
            Version::V6 => update(ctx, offset, |head| rewrite::ipv6(head, rule)),
        };
        if written.is_none() {
            return Exit::RewriteFailed;
        }
    }
    Exit::Matched
}

/// Writes the verdict for TC into the packet's metadata.
#[inline(always)]
fn hand_over(ctx: &XdpContext, mark: Mark, passes: u8) -> Option<()> {
    const LEN: usize = size_of::<XdpVerdict>();
    // SAFETY: the kernel checks whether the driver supports metadata and whether there is room.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(LEN as i32)) } != 0 {
        return None;
    }
    let meta = ctx.metadata();
    if meta + LEN > ctx.data() {
        return None;
    }
    let verdict = XdpVerdict {
        magic: VERDICT_MAGIC,
        ifindex: ctx.ingress_ifindex() as u32,
        nonce: settings::nonce(),
        mark: mark.value,
        mask: mark.mask,
        passes: passes.into(),
    };
    // SAFETY: in bounds, as just checked; metadata is aligned to four bytes.
    unsafe { *(meta as *mut XdpVerdict) = verdict };
    Some(())
}

#[inline(always)]
pub fn frame<const PLAIN: bool>(ctx: &XdpContext) -> Direct<PLAIN> {
    Direct::new(ctx.data(), ctx.data_end(), ctx.data_end() - ctx.data())
}

/// Replaces the `N` bytes at `offset` by what `change` makes of them, if it makes anything. `None` if the frame ends too
/// early, which a parsed header excludes but the verifier has to be shown.
#[inline(always)]
fn update<const N: usize>(
    ctx: &XdpContext,
    offset: usize,
    change: impl FnOnce([u8; N]) -> Option<[u8; N]>,
) -> Option<()> {
    // As in `Direct::read`.
    let start = core::hint::black_box(ctx.data() + offset);
    if start + N > ctx.data_end() {
        return None;
    }
    let bytes = start as *mut [u8; N];
    // SAFETY: in bounds, as just checked; bytes need no alignment.
    unsafe {
        if let Some(new) = change(*bytes) {
            *bytes = new;
        }
    }
    Some(())
}
