//! Probing: a real IKE_SA_INIT to an ePDG, to learn whether it answers from here, how fast, and what it agrees to.
//!
//! ```text
//! targets ── sweep (pace, redirects) ──▶ socket (UDP, ICMP errors) ◀──▶ exchange (state machine) ◀── ike, keys
//!                                             │
//!               table, JSON ◀── Probed ◀──────┘──▶ best, background (the agent's slow round)
//! ```
//!
//! [`Exchange`], [`best`], [`pace`] and [`schedule`] decide, do no I/O and take the time as an argument.
//!
//! Nothing after IKE_SA_INIT is ever sent: no identity, no authentication. A responder that accepted keeps a half-open
//! SA until it tires of waiting (strongSwan: 30 s); IKEv2 has no way to take it back before IKE_AUTH. So probes are few:
//! one exchange for each address and port, spaced, and never in parallel to one address and port.

pub mod background;
pub mod best;
mod exchange;
pub mod ike;
mod keys;
mod outcome;
pub mod pace;
pub mod plan;
pub mod schedule;
mod socket;
pub mod sweep;
mod transform;
mod vendor;

pub use exchange::{Exchange, Setup, Step, Timing};
pub use ike::Gateway;
pub use keys::{Group, Keys};
pub use outcome::{Finding, Followed, Icmp, Nat, Probed, Verdict, VerdictKind};
pub use plan::{Asked, AskedFor, Place, Plan};
pub use socket::{Source, probe};
pub use transform::Suite;

/// Fills bytes with random numbers.
pub type Fill = fn(&mut [u8]);

/// The kernel's random numbers.
///
/// # Panics
///
/// If the kernel has none: getrandom(2) cannot fail once the machine has started.
pub fn system_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("getrandom(2) gives random numbers");
}
