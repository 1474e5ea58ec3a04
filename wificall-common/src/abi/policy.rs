//! What is done to a match (map `POLICIES`, indexed by policy), written by the agent only.

use super::assert_size;
use crate::{Class, Direction};

/// In a rule byte: write only over DSCP 0.
pub const DSCP_IF_DEFAULT: u8 = 0x40;
/// In a rule byte: leave the DSCP alone.
pub const DSCP_KEEP: u8 = 0x80;
/// Classes that have a rule of their own; a later fragment follows its first.
pub const RULES: usize = Class::ALL.len() - 1;

/// A policy row. Rows are never changed while an endpoint points to them: a changed policy gets a new row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Policy {
    /// Bits for `skb->mark` of `up` packets, host order.
    pub mark: u32,
    /// Which bits of `skb->mark` are ours; 0 leaves the mark alone.
    pub mask: u32,
    /// By direction and class: the DSCP (RFC 2474) in the low six bits, or [`DSCP_KEEP`]; with [`DSCP_IF_DEFAULT`].
    pub dscp: [[u8; RULES]; Direction::ALL.len()],
    /// By direction: 1 sets voice priority at TC egress, 0 leaves the priority alone.
    pub voice: [u8; Direction::ALL.len()],
    /// Not 0 in a row that holds a policy.
    pub valid: u8,
    /// Zero.
    pub reserved: [u8; 5],
}
assert_size!(Policy, 24);
