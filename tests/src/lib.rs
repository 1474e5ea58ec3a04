//! What the integration tests share.

pub mod packet;
pub mod programs;
pub mod vectors;
