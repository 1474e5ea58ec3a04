//! The network as the kernel tells it over netlink: links, addresses, clsact, and their changes.
//!
//! Everything here reads, but for [`remove_empty_clsact`]; nothing here decides. All calls act on the network namespace of the calling thread.
//!
//! The messages are read attribute by attribute rather than with a typed decoder of the whole protocol:
//! we need six attributes of a link, and a decoder that knows them all drops the whole link
//! when a newer or older kernel sends one of them in a form that it does not expect.

mod address;
mod link;
mod netlink;
mod role;
mod route;
mod tc;
mod watch;

#[cfg(test)]
mod namespace;

pub use address::addresses;
pub use link::{Kind, Link, links};
pub use role::{Conflict, select, stacked, unmatched};
pub use route::ways_out;
pub use tc::{ClsactState, Filter, clsact_state, remove_empty_clsact};
pub use watch::{Change, Watch, watch};
