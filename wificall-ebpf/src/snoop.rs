//! The second look: at DNS messages and at IKE with unknown addresses, for the agent's eyes.
//!
//! A function of its own and not inlined, called by the entry points when they have let such a packet go and counted it.
//! Where it is switched off the verifier removes it together with its call.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_skb_load_bytes},
    programs::TcContext,
};
use wificall_common::{
    Direction,
    abi::{
        EVENT_DATA, EVENT_HEAD, EVENT_VERSION, Event, EventFate, EventHeader, EventKind,
        EventPacket, Features, client_bucket, event_slot, kind_bucket, take,
    },
    classify::Link,
    exit::Exit,
    snoop::{Seen, client_hash, ends, look},
    wire::{Packet, Version, dns, ike, vlan},
};

use crate::{
    maps::{self, EVENT, EVENT_BUCKETS, EVENT_COUNTS, EVENTS, LENGTH_MASK, NAMES},
    settings,
    whole::Whole,
};

const _: () = assert!(EVENT_DATA <= LENGTH_MASK);

/// Looks at a packet that was let go with this exit. Returns whether the agent was told of it.
#[inline(always)]
pub fn second_look(ctx: &TcContext, exit: Exit, direction: Direction, link: Link) -> bool {
    if !settings::on(Features::SNOOP_NAMES) && !settings::on(Features::SNOOP_IKE) {
        return false;
    }
    // One call, wherever the exit comes from: the verifier walks through it again for each place that it is called from.
    let exit = core::hint::black_box(exit as u32);
    let kind = if exit == Exit::Dns as u32 {
        EventKind::of_names(direction)
    } else if exit == Exit::NewIke as u32 {
        EventKind::of_ike(direction)
    } else {
        return false;
    };
    let kind = core::hint::black_box(kind as u32);
    look_at(ctx.skb.skb, kind, matches!(link, Link::Bare).into()) != 0
}

#[inline(never)]
fn look_at(skb: *mut __sk_buff, kind: u32, bare: u32) -> u32 {
    let Some(kind) = EventKind::from_u8(kind as u8) else {
        return 0;
    };
    let link = if bare == 0 {
        Link::Ethernet
    } else {
        Link::Bare
    };
    let fate = run(skb, kind, link);
    let kind = blurred(kind);
    if let Some(count) = EVENT_COUNTS.get_ptr_mut(event_slot(kind, fate)) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
    matches!(fate, EventFate::Sent).into()
}

#[inline(always)]
fn run(skb: *mut __sk_buff, kind: EventKind, link: Link) -> EventFate {
    // SAFETY: a context field.
    if unsafe { (*skb).gso_segs } > 1 {
        return EventFate::Fragment;
    }
    let frame = Whole { skb };
    let seen = match look(&frame, link, kind) {
        Ok(seen) => seen,
        Err(fate) => return fate,
    };
    let Some(room) = EVENT.get_ptr_mut(0) else {
        return EventFate::Malformed;
    };
    let event = room.cast::<Event>();
    let kind = blurred(kind);
    // The data first: whether it is about something for us is to be known before it uses up anybody's rate.
    let data = if kind.is_name() {
        match load_name(skb, event, &seen) {
            Ok(data) => data,
            Err(fate) => return fate,
        }
    } else {
        match load_ike(skb, event, &seen) {
            Ok(data) => data,
            Err(fate) => return fate,
        }
    };
    let kind = blurred(kind);
    let packet = Packet {
        version: blurred_version(seen.packet.version),
        ..seen.packet
    };
    let Some([client, far]) = ends(&frame, &packet, kind.direction()) else {
        return EventFate::Malformed;
    };
    // SAFETY: no precondition.
    let at = unsafe { bpf_ktime_get_ns() };
    let gaps = (settings::event_gap(), settings::client_gap());
    let fate = admit(kind, client, at, gaps);
    if !matches!(fate, EventFate::Sent) {
        return fate;
    }
    // SAFETY: context fields.
    let (ifindex, ingress_ifindex) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex) };
    // SAFETY: this CPU's own value; nothing else writes it before it is sent.
    unsafe {
        (*event).header = EventHeader {
            at,
            version: EVENT_VERSION,
            kind: kind as u8,
            length: (EVENT_HEAD + data) as u16,
            ifindex,
            ingress_ifindex,
            reserved: 0,
        };
        (*event).packet = EventPacket {
            client: client.to_be_bytes(),
            far: far.to_be_bytes(),
            client_port: seen.client_port,
            far_port: seen.far_port,
            vlan: vlan_id(skb, &frame, link),
            reserved: 0,
        };
    }
    // SAFETY: `data` bytes and the head before them lie inside the event, as the verifier has been shown.
    let result = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            event.cast(),
            (EVENT_HEAD + data) as u64,
            0,
        )
    };
    if result == 0 {
        EventFate::Sent
    } else {
        EventFate::Full
    }
}

/// The same kind, with its origin forgotten: the verifier follows what comes next once for each value that it knows and
/// that is asked about later.
#[inline(always)]
fn blurred(kind: EventKind) -> EventKind {
    EventKind::from_u8(maps::forget(kind as usize, 0xff) as u8).unwrap_or(kind)
}

/// Likewise the IP version.
#[inline(always)]
fn blurred_version(version: Version) -> Version {
    if maps::forget(matches!(version, Version::V6).into(), 1) == 0 {
        Version::V4
    } else {
        Version::V6
    }
}

/// Loads a DNS message and walks the name in its question; its length, if the name is one for us.
#[inline(always)]
fn load_name(skb: *mut __sk_buff, event: *mut Event, seen: &Seen) -> Result<usize, EventFate> {
    // The verifier is to see both bounds of the length, of one register: the rest behind a header is at least nothing,
    // and so the whole is at least a header.
    let rest = maps::forget(seen.len.wrapping_sub(dns::HEADER_LEN), LENGTH_MASK);
    if rest > EVENT_DATA - dns::HEADER_LEN {
        return Err(EventFate::Large);
    }
    let length = dns::HEADER_LEN + rest;
    // SAFETY: the data have room for `length` bytes; the kernel checks the offset.
    let loaded = unsafe {
        bpf_skb_load_bytes(
            skb.cast(),
            seen.offset as u32,
            (&raw mut (*event).data).cast(),
            length as u32,
        )
    };
    if loaded != 0 {
        return Err(EventFate::Malformed);
    }
    // SAFETY: this CPU's own value.
    let data = unsafe { (&raw const (*event).data).cast::<u8>() };
    let mut walk = dns::Walk::new();
    for index in dns::HEADER_LEN..dns::HEADER_LEN + dns::NAME_MAX {
        if index >= length {
            return Err(EventFate::Malformed);
        }
        // SAFETY: inside the data: the largest name behind the header is shorter than they are.
        match walk.step(unsafe { data.add(index).read_volatile() }) {
            dns::Step::On => {}
            dns::Step::Not => return Err(EventFate::Other),
            dns::Step::End => {
                // SAFETY: values are never changed.
                let catalogued = || unsafe { NAMES.get(walk.hash()) }.is_some();
                return if walk.is_3gpp() || catalogued() {
                    Ok(length)
                } else {
                    Err(EventFate::Other)
                };
            }
        }
    }
    Err(EventFate::Malformed)
}
const _: () = assert!(dns::HEADER_LEN + dns::NAME_MAX <= EVENT_DATA);

/// Loads an IKE header; its length.
#[inline(always)]
fn load_ike(skb: *mut __sk_buff, event: *mut Event, seen: &Seen) -> Result<usize, EventFate> {
    // SAFETY: the data have room for a header; the kernel checks the offset.
    let loaded = unsafe {
        bpf_skb_load_bytes(
            skb.cast(),
            seen.offset as u32,
            (&raw mut (*event).data).cast(),
            ike::HEADER_LEN as u32,
        )
    };
    if loaded != 0 {
        return Err(EventFate::Malformed);
    }
    Ok(ike::HEADER_LEN)
}

/// Takes the client's share and the kind's rate: `Sent` if there is some of both. The client's first, so that one client's
/// flood does not use up what is there for all.
#[inline(always)]
pub fn admit(kind: EventKind, client: u128, now: u64, (gap, client_gap): (u64, u64)) -> EventFate {
    let share = client_bucket(kind, client_hash(client, settings::nonce()));
    if !spend(share, now, client_gap) {
        return EventFate::ClientRate;
    }
    if !spend(kind_bucket(kind), now, gap) {
        return EventFate::Rate;
    }
    EventFate::Sent
}

#[inline(always)]
fn spend(bucket: u32, now: u64, gap: u64) -> bool {
    let Some(bucket) = EVENT_BUCKETS.get_ptr_mut(bucket) else {
        return false;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        match take(*bucket, now, gap) {
            Some(next) => {
                *bucket = next;
                true
            }
            None => false,
        }
    }
}

/// VLAN ID of the outermost tag: the one that the NIC took out, or the first in the frame.
#[inline(always)]
fn vlan_id(skb: *mut __sk_buff, frame: &Whole, link: Link) -> u16 {
    // SAFETY: context fields.
    let (present, tci) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci) };
    if present != 0 {
        return tci as u16 & vlan::ID_MASK;
    }
    match link {
        Link::Ethernet => vlan::outermost(frame),
        Link::Bare => 0,
    }
}
