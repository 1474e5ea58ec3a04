//! Flows: what packets of a match tell of their tunnel, kept and told.
//!
//! What depends on the frame is collected inline, into this CPU's `FLOW`. The rest is functions of their own, each with
//! little on its stack, which the entry point calls in turn. They leave each other everything in `FLOW`: of what comes from
//! a map the verifier knows nothing, and so follows each of them once.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, xdp_md},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output},
    programs::{TcContext, XdpContext},
};
use wificall_common::{
    Class, Direction,
    abi::{
        CLIENT_BUCKETS, Candidate, EVENT_HEAD, EVENT_VERSION, EventFate, EventHeader, EventKind,
        EventPacket, Features, Flow, FlowFate, FlowKey, FlowNote, event_slot, take,
    },
    classify::{Match, tunnel_ends},
    exit::Exit,
    flow::{Changes, Message, Sides, Sight},
    frame::Frame,
    snoop::client_hash,
    wire::{PROTOCOL_ESP, PROTOCOL_UDP, natt, udp},
};

use crate::{
    account,
    maps::{self, CANDIDATES, EVENT_COUNTS, EVENTS, FLOW, FLOW_COUNTS, FLOW_DUE, FLOW_ROOM, FLOWS},
    settings, snoop,
    whole::Whole,
    xdp,
};

/// Of the rates of events and of flows, no client uses up more than one part in so many.
const CLIENT_SHARE: u64 = 8;
/// Bits of the offset of an IKE header: what [`Match::payload`] can be, and a marker.
const OFFSET_MASK: usize = 0x7fff;

/// What a packet brings to its flow, and room for what does not fit on the stack.
#[repr(C, align(8))]
pub struct Room {
    key: FlowKey,
    bytes: u64,
    now: u64,
    segments: u32,
    esp: [u32; 2],
    /// 1: there is a packet to be tracked; it is taken back when it has been.
    collected: u32,
    class: u32,
    direction: u32,
    /// What the packet has changed, [`Changes`].
    changes: u32,
    /// Where the IKE header is.
    offset: u32,
    /// On port 4500.
    natt: u32,
    group: u32,
    ifindex: u32,
    ingress_ifindex: u32,
    message: Message,
    candidate: Candidate,
    note: Note,
    /// A flow before its first packet; nothing is ever written here.
    empty: Flow,
}

/// An event of the kind `Flow`.
#[repr(C)]
struct Note {
    header: EventHeader,
    packet: EventPacket,
    data: FlowNote,
}
const NOTE_LEN: usize = size_of::<Note>();
const _: () = assert!(NOTE_LEN == EVENT_HEAD + size_of::<FlowNote>());

/// Where a match is seen.
#[derive(Clone, Copy)]
pub struct Seen {
    pub direction: Direction,
    pub segments: u64,
    pub ifindex: u32,
    pub ingress_ifindex: u32,
}

impl Room {
    /// A field as it is now: the compiler is to remember no value of it, which the verifier would then know.
    #[inline(always)]
    fn now<T: Copy>(field: &T) -> T {
        // SAFETY: a reference.
        unsafe { core::ptr::from_ref(field).read_volatile() }
    }

    #[inline(always)]
    fn direction(&self) -> Direction {
        if Self::now(&self.direction) & 1 == 0 {
            Direction::Up
        } else {
            Direction::Down
        }
    }

    #[inline(always)]
    fn is(&self, class: Class) -> bool {
        Self::now(&self.class) == class as u32
    }

    #[inline(always)]
    fn change(&mut self, changes: u32) {
        let before = Self::now(&self.changes);
        // SAFETY: a reference.
        unsafe { core::ptr::from_mut(&mut self.changes).write_volatile(before | changes) };
    }
}

/// This CPU's room; nothing else runs between collecting a packet and tracking it.
#[inline(always)]
fn room() -> Option<&'static mut Room> {
    let room = FLOW.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value, as above; the functions of this file do not keep what they borrow.
    Some(unsafe { &mut *room })
}

/// The flow of a packet, if it is in the table. CPUs that race for one lose each other's counts.
#[inline(always)]
fn flow(room: &Room) -> Option<&'static mut Flow> {
    // By reference: a copy would be on the stack.
    let key = &room.key;
    let flow = FLOWS.get_ptr_mut(key)?;
    // SAFETY: a map value, as above.
    Some(unsafe { &mut *flow })
}

/// Collects what a packet's flow needs to know, while the packet is as it came.
#[inline(always)]
pub fn collect<F: Frame>(frame: &F, found: &Match, seen: Seen) {
    if settings::on(Features::FLOWS) {
        let _ = collected(frame, found, seen);
    }
}

/// `None` if it has no flow: a later fragment tells no port.
#[inline(always)]
fn collected<F: Frame>(frame: &F, found: &Match, seen: Seen) -> Option<()> {
    if matches!(found.class, Class::Fragment) {
        return None;
    }
    let room = room()?;
    let (client, endpoint) = tunnel_ends(frame, &found.packet, seen.direction)?;
    let is_esp = matches!(found.class, Class::Esp);
    let (mut port, mut natt) = (0, false);
    let mut esp_at = found.payload;
    if is_esp {
        esp_at -= udp::HEADER_LEN;
    } else {
        let [s0, s1, d0, d1] = frame.read(found.payload - udp::HEADER_LEN)?;
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let far = match seen.direction {
            Direction::Up => {
                port = source;
                destination
            }
            Direction::Down => {
                port = destination;
                source
            }
        };
        natt = far == udp::PORT_NATT;
    }
    let mut esp = [0; 2];
    if is_esp || matches!(found.class, Class::EspUdp) {
        let [s0, s1, s2, s3, n0, n1, n2, n3] = frame.read(esp_at)?;
        esp = [
            u32::from_be_bytes([s0, s1, s2, s3]),
            u32::from_be_bytes([n0, n1, n2, n3]),
        ];
    }
    let marker = if natt { natt::MARKER_LEN } else { 0 };
    room.key = FlowKey {
        client: client.to_be_bytes(),
        endpoint: endpoint.to_be_bytes(),
        port,
        protocol: if is_esp { PROTOCOL_ESP } else { PROTOCOL_UDP },
        reserved: [0; 5],
    };
    room.bytes = account::bytes(found, seen.segments);
    room.segments = seen.segments as u32;
    room.esp = esp;
    room.collected = 1;
    room.class = found.class as u32;
    room.direction = seen.direction as u32;
    room.changes = 0;
    room.offset = (found.payload + marker) as u32;
    room.natt = natt.into();
    room.group = found.endpoint.group;
    room.ifindex = seen.ifindex;
    room.ingress_ifindex = seen.ingress_ifindex;
    Some(())
}

/// Tracks the packet that was collected, if one was, in TC. `exit` is that of the packet.
#[inline(always)]
pub fn track(ctx: &TcContext, exit: Exit) {
    let is_match = matches!(
        exit,
        Exit::Matched | Exit::OtherMarked | Exit::OtherAudited | Exit::RewriteFailed
    );
    if settings::on(Features::FLOWS) && is_match && count() != 0 {
        let _ = parse(ctx.skb.skb);
        go_on();
    }
}

/// Likewise in XDP.
#[inline(always)]
pub fn track_xdp(ctx: &XdpContext) {
    if settings::on(Features::FLOWS) && count() != 0 {
        let _ = parse_xdp(ctx.ctx);
        go_on();
    }
}

/// What is rarely more to do than counting. One call each: none has the stack of another above it.
#[inline(always)]
fn go_on() {
    let _ = enter();
    let _ = exchange();
    let _ = tell();
}

/// Counts the packet in its flow. 0 if that was all.
#[inline(never)]
fn count() -> u32 {
    let Some(room) = room() else {
        return 0;
    };
    if room.collected == 0 {
        return 0;
    }
    room.collected = 0;
    // SAFETY: no precondition.
    room.now = unsafe { bpf_ktime_get_ns() };
    let key = &room.key;
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        return 1;
    };
    see(room, flow);
    (Room::now(&room.changes) != 0 || room.is(Class::Ike)).into()
}

/// Counts the packet in this flow.
#[inline(always)]
fn see(room: &mut Room, flow: *mut Flow) {
    // By an offset and not by branches, of which the verifier would follow both to their ends.
    let direction = Room::now(&room.direction) as usize & 1;
    let bytes = flow.cast::<u8>();
    // SAFETY: parts of a map value; `flow()` says what races cost.
    let mut sides = unsafe {
        Sides {
            way: &mut *bytes.add(direction * WAYS_APART).cast(),
            other: &*bytes.add((direction ^ 1) * WAYS_APART).cast(),
            control: &mut (*flow).control,
        }
    };
    let class = if room.is(Class::Keepalive) {
        Class::Keepalive
    } else if room.is(Class::Ike) {
        Class::Ike
    } else {
        Class::Esp
    };
    let sight = Sight {
        now: room.now,
        bytes: room.bytes,
        segments: room.segments,
        class,
        esp: room.esp,
    };
    let changes = sides.see(room.direction(), &sight);
    room.change(changes);
}
const WAYS_APART: usize = offset_of!(Flow, down);
const _: () = assert!(offset_of!(Flow, up) == 0);

/// Reads an IKE message.
#[inline(never)]
fn parse(skb: *mut __sk_buff) -> u32 {
    read(&Whole { skb })
}

#[inline(never)]
fn parse_xdp(ctx: *mut xdp_md) -> u32 {
    // The compiler would pass what it reads of the context instead, of which the verifier does not know what it is.
    let ctx = XdpContext::new(core::hint::black_box(ctx));
    read(&xdp::frame::<false>(&ctx))
}

#[inline(always)]
fn read<F: Frame>(frame: &F) -> u32 {
    let Some(room) = room() else {
        return 0;
    };
    if !room.is(Class::Ike) {
        return 0;
    }
    let offset = maps::forget(room.offset as usize, OFFSET_MASK);
    let Some(message) = Message::read(frame, offset, room.natt != 0) else {
        // Never: it was classified by its header.
        room.class = Class::Fragment as u32;
        return 0;
    };
    room.message = message;
    1
}

/// Lets the flow into the table whose ends have both spoken, within the rate, and counts the packet in it.
#[inline(never)]
fn enter() -> u32 {
    let Some(room) = room() else {
        return 0;
    };
    let key = &room.key;
    if FLOWS.get_ptr_mut(key).is_some() {
        return 0;
    }
    let direction = room.direction();
    let asks = room.is(Class::Ike)
        && matches!(direction, Direction::Up)
        && !room.message.response
        && !room.message.continues;
    let Some(candidate) = CANDIDATES.get_ptr_mut(key) else {
        room.candidate = Candidate::begin(direction, room.now);
        if asks {
            room.candidate.ask(&room.message, room.now);
            room.changes = asked(&room.message, direction);
        }
        counted(FlowFate::Candidate);
        // A full table forgets who was quiet longest.
        let (key, new) = (&room.key, &room.candidate);
        let _ = CANDIDATES.insert(key, new, 0);
        return 0;
    };
    // SAFETY: a map value, as in `flow()`.
    let candidate = unsafe { &mut *candidate };
    if !candidate.is_answered_by(direction) {
        if asks {
            candidate.ask(&room.message, room.now);
            room.changes = asked(&room.message, direction);
        }
        return 0;
    }
    let fate = admit(&room.key, room.now);
    if !matches!(fate, FlowFate::Entered) {
        counted(fate);
        return 0;
    }
    let empty = &room.empty;
    let _ = FLOWS.insert(key, empty, BPF_NOEXIST.into());
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        counted(FlowFate::Full);
        return 0;
    };
    counted(FlowFate::Entered);
    // SAFETY: as above.
    unsafe { (*flow).begin(candidate, room.group, room.ifindex) };
    let _ = CANDIDATES.remove(key);
    room.changes = Changes::ENTERED;
    1
}

/// What a request of a candidate's client is told as.
#[inline(always)]
fn asked(message: &Message, direction: Direction) -> u32 {
    if message.is_first(direction) {
        Changes::ASKED
    } else {
        Changes::MESSAGE
    }
}

/// Takes room for a flow, and its turn: of its client's share and of the rate of all.
#[inline(always)]
fn admit(key: &FlowKey, now: u64) -> FlowFate {
    let Some(left) = FLOW_ROOM.get_ptr_mut(0) else {
        return FlowFate::Full;
    };
    // SAFETY: an aligned word of a map value. CPUs that race let one flow more in than there is room for; the agent keeps
    // some back for them.
    let free = unsafe { left.read_volatile() };
    if free == 0 {
        return FlowFate::Full;
    }
    let gap = settings::flow_gap();
    let client = u128::from_be_bytes(key.client);
    let share = 1 + client_hash(client, settings::nonce()) % CLIENT_BUCKETS;
    if !spend(share, now, gap * CLIENT_SHARE) {
        return FlowFate::ClientRate;
    }
    if !spend(0, now, gap) {
        return FlowFate::Rate;
    }
    // SAFETY: as above.
    unsafe { left.write_volatile(free - 1) };
    FlowFate::Entered
}

#[inline(always)]
fn spend(bucket: u32, now: u64, gap: u64) -> bool {
    let Some(due) = FLOW_DUE.get_ptr_mut(bucket) else {
        return false;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        match take(*due, now, gap) {
            Some(next) => {
                *due = next;
                true
            }
            None => false,
        }
    }
}

/// Takes an IKE message in.
#[inline(never)]
fn exchange() -> u32 {
    let Some(room) = room() else {
        return 0;
    };
    let Some(flow) = flow(room) else {
        return 0;
    };
    if Room::now(&room.changes) & Changes::ENTERED != 0 {
        see(room, flow);
    }
    if room.is(Class::Ike) {
        let changes = flow.message(room.direction(), &room.message, room.now);
        room.change(changes);
    }
    1
}

#[inline(always)]
fn counted(fate: FlowFate) {
    if let Some(count) = FLOW_COUNTS.get_ptr_mut(fate as u32) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
}

/// Sends what has changed as an event, within the rates; what became of it is counted.
#[inline(never)]
fn tell() -> u32 {
    let Some(room) = room() else {
        return 0;
    };
    let changes = Room::now(&room.changes);
    if changes == 0 {
        return 0;
    }
    let gap = settings::flow_event_gap();
    let client = u128::from_be_bytes(room.key.client);
    let fate = snoop::admit(EventKind::Flow, client, room.now, (gap, gap * CLIENT_SHARE));
    let fate = if matches!(fate, EventFate::Sent) {
        write(room, changes);
        // SAFETY: as long as it is said to be.
        let sent = unsafe {
            bpf_ringbuf_output(
                (&raw const EVENTS).cast_mut().cast(),
                (&raw mut room.note).cast(),
                NOTE_LEN as u64,
                0,
            )
        };
        if sent == 0 {
            EventFate::Sent
        } else {
            EventFate::Full
        }
    } else {
        fate
    };
    if let Some(count) = EVENT_COUNTS.get_ptr_mut(event_slot(EventKind::Flow, fate)) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
    1
}

/// Writes the event.
#[inline(always)]
fn write(room: &mut Room, changes: u32) {
    let key = &room.key;
    room.note.header = EventHeader {
        at: room.now,
        version: EVENT_VERSION,
        kind: EventKind::Flow as u8,
        length: NOTE_LEN as u16,
        ifindex: room.ifindex,
        ingress_ifindex: room.ingress_ifindex,
        reserved: 0,
    };
    room.note.packet = EventPacket {
        client: key.client,
        far: key.endpoint,
        client_port: key.port,
        far_port: match (key.protocol, room.natt) {
            (PROTOCOL_ESP, _) => 0,
            (_, 0) => udp::PORT_IKE,
            _ => udp::PORT_NATT,
        },
        vlan: 0,
        reserved: 0,
    };
    let is_ike = room.is(Class::Ike);
    let mut data = FlowNote {
        changes,
        spi: room.esp[0],
        id: if is_ike { room.message.id } else { 0 },
        exchange: if is_ike { room.message.exchange } else { 0 },
        direction: room.direction as u8,
        class: room.class as u8,
        protocol: key.protocol,
        ..FlowNote::default()
    };
    if let Some(flow) = flow(room) {
        data.spi_i = flow.control.spi_i;
        data.spi_r = flow.control.spi_r;
        data.notify = flow.control.notify;
        data.milestones = flow.control.milestones;
        // The request of a response went the other way.
        data.round_trip = match room.direction() {
            Direction::Up => flow.control.round_trip[1],
            Direction::Down => flow.control.round_trip[0],
        };
    } else if is_ike {
        data.spi_i = room.message.spi_i;
    }
    room.note.data = data;
}
