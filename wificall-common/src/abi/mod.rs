//! What crosses a map.
//!
//! Integers and byte arrays only, explicit padding, sizes asserted. A change that an older agent could misread raises
//! [`ABI_VERSION`]; classes, exits and directions are only ever appended to, so that a newer agent can read an older
//! data plane's counters by the sizes of its maps.

mod client;
mod counters;
mod endpoint;
mod event;
mod features;
mod flow;
mod fragment;
mod lines;
mod meta;
mod other;
mod policy;
mod tunnel;
mod xdp;

pub use client::{
    COMPANIONS_SIZE, Choice, ChoiceKey, ClientKey, EPOCH_BITS, GATEWAYS_SIZE, InterfaceKey,
    StationKey,
};
pub use counters::{
    CELLS, Counter, Counters, EXIT_SLOTS, Hook, bleached_slot, demoted_slot, exit_slot,
};
pub use endpoint::{Block4, Block6, EndpointRef, FLAG_HOSTS, FLAG_WHOLE};
pub use event::{
    CLIENT_BUCKETS, EVENT_BUCKETS, EVENT_BURST, EVENT_DATA, EVENT_HEAD, EVENT_SLOTS, EVENT_VERSION,
    EVENTS_SIZE, Event, EventFate, EventHeader, EventKind, EventPacket, client_bucket, event_slot,
    kind_bucket, take,
};
pub use features::{Features, PREF64S};
pub use flow::{
    Candidate, Control, FLOW_BUCKETS, Flow, FlowFate, FlowKey, FlowNote, MILESTONES, RESUMED_SHIFT,
    Request, SpiSlot, Way,
};
pub use fragment::{FragmentKey, FragmentValue};
pub use lines::{CELLS_PER_LINE, Cell, Line, MIN_LINES, Members, line_of, line_shift, lines};
pub use meta::{GroupLabel, HookKey, HookRecord, LABEL_LEN, META_MAGIC, Meta};
pub use other::{Destination, OTHERS_SIZE, SPARED_SIZE};
pub use policy::{
    Bucket, BucketKey, CAP_BURST, CLIENT_IPV4, CLIENT_IPV6, CLIENT_MAC, DSCP_DEMOTE,
    DSCP_IF_DEFAULT, DSCP_KEEP, Policy, RULES, TIER_CORROBORATED, TIER_OBSERVED, TIER_TRUSTED,
};
pub use tunnel::{KEEP_OFF, KEEP_ON, KEEP_UNKNOWN, MOVED, SEEN_SHIFT, Tunnel, TunnelKey};
pub use xdp::{VERDICT_MAGIC, XdpVerdict};

/// Version of everything in this module. A data plane of an older version is migrated, a newer one is refused.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") { 5 } else { 4 };

/// Asserts the size of a map type at compile time; `repr(C)` without implicit padding is checked by the sum of the
/// fields that each file spells out.
macro_rules! assert_size {
    ($type:ty, $size:expr) => {
        const _: () = assert!(size_of::<$type>() == $size);
    };
}
pub(crate) use assert_size;
