//! Control: desired − actual = plan; apply.

mod request;

pub use request::{Refused, Request, Requests};
