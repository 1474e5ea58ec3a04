//! The network as the kernel tells it over netlink: links, addresses, clsact, rules, routes, neighbours, stations,
//! tracked connections, flowtables, and their changes.
//!
//! Nothing here decides. What writes says so by its name: `add_`, `replace_`, `remove_`, `forget_`, [`Sysctl::write`]. All calls act on the network namespace of the calling thread.
//!
//! The messages are read attribute by attribute rather than with a typed decoder of the whole protocol:
//! we need six attributes of a link, and a decoder that knows them all drops the whole link
//! when a newer or older kernel sends one of them in a form that it does not expect.

mod address;
mod conntrack;
mod family;
mod fib;
mod filter;
mod flowtable;
mod link;
mod nat;
mod neighbour;
mod netlink;
mod role;
mod route;
mod rule;
mod solicit;
mod station;
mod sysctl;
mod tc;
mod watch;

#[cfg(test)]
pub(crate) mod namespace;

pub use address::addresses;
pub use conntrack::{Offloaded, forget_connections, offloaded};
pub use family::{Family, PROTOCOL};
pub use fib::{Hop, Route, remove_route, replace_route, routes};
pub use flowtable::{Flowtable, flowtables};
pub use link::{Kind, Link, links};
pub use nat::{UdpTimeouts, udp_timeouts};
pub use neighbour::{neighbour, neighbours};
pub use role::{Conflict, select, stacked, unmatched};
pub use route::ways_out;
pub use rule::{Rule, add_rule, remove_rule, rules};
pub use solicit::{Answer, Solicitor};
pub use station::{Stations, stations};
pub use sysctl::{ALL, Sysctl, has_ipv6};
pub use tc::{ClsactState, Filter, clsact_state, remove_empty_clsact};
pub use watch::{Change, Watch, watch};

use family::is_unsupported;
