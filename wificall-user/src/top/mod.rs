//! What `wificall top` shows: tunnels and calls, as a screen. Pure: answers of the agent and keys go in, cells come out.

mod detail;
mod draw;
mod list;
#[cfg(test)]
mod sample;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod words;

pub use draw::draw;
pub use state::{Key, Look, Screen, Snapshot, State};
