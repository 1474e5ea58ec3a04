//! What `wificall trace` makes of what happens: lines, and when a step does not come, which one and what to try. Pure: events
//! and the time go in.

mod advice;
mod follow;
mod text;

pub use advice::{About, Advice, GUIDE, Wait, refused};
pub use follow::{Follow, Seen, Stall};
pub use text::{line, stall, time};
