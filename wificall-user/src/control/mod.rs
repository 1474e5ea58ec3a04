//! Control: desired − actual = plan; apply.

pub mod lock;
mod request;
pub mod socket;

pub use request::{Refused, Request, Requests};
