//! Tunnels and calls, as their flows tell. No I/O, no clock: `now` is an argument, in nanoseconds of the monotonic clock.

pub mod call;
pub mod histogram;
pub mod leg;
pub mod mos;
pub mod note;
pub mod notify;
pub mod select;
pub mod setup;
pub mod show;
pub mod sides;
pub mod totals;
pub mod tracker;
pub mod tunnel;
pub mod view;
