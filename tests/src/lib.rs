//! What the integration tests are made of: network namespaces, child
//! processes, captures, senders, real peers, and the agent under test.
//!
//! Everything here cleans up when dropped, has names of its own (so that tests
//! run in parallel), and reaches no address outside its own namespaces. A
//! missing tool or privilege is an error with a hint, never a skipped test.

pub mod agent;
pub mod bench;
pub mod browser;
pub mod bypass;
pub mod capture;
pub mod conversation;
pub mod dns;
pub mod home;
pub mod lab;
pub mod leftovers;
pub mod metrics;
pub mod netns;
pub mod packet;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod rig;
pub mod scatter;
pub mod seeds;
pub mod send;
pub mod stolen;
pub mod swan;
pub mod terminal;
pub mod tshark;
pub mod vectors;
pub mod view;
pub mod world;
