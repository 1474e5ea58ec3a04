//! What is done to a match (map `POLICIES`, indexed by policy), written by the agent only.

use super::assert_size;
use crate::{Class, Direction};

/// In a rule byte: write only over DSCP 0.
pub const DSCP_IF_DEFAULT: u8 = 0x40;
/// In a rule byte: leave the DSCP alone.
pub const DSCP_KEEP: u8 = 0x80;
/// In a rule byte, both together: reset EF, VOICE-ADMIT and the DSCP in the low six bits to 0, leave any other alone.
pub const DSCP_DEMOTE: u8 = DSCP_KEEP | DSCP_IF_DEFAULT;
/// Classes that have a rule of their own; a later fragment follows its first.
pub const RULES: usize = Class::ALL.len() - 1;

/// Endpoints that the configuration or the catalogue names, or our own resolver for a name that they have. These alone may
/// pass a firewall. The order of the tiers is that of trust.
pub const TIER_TRUSTED: u8 = 0;
/// Endpoints that our own resolver has confirmed for a name that a client asked for.
pub const TIER_CORROBORATED: u8 = 1;
/// Endpoints that nobody of ours has confirmed.
pub const TIER_OBSERVED: u8 = 2;

/// How far ahead of its cap a client may get: a second's worth of packets at once.
pub const CAP_BURST: u64 = 1_000_000_000;

/// [`BucketKey::client`] is a link-layer address, in its low 48 bits.
pub const CLIENT_MAC: u32 = 0;
/// [`BucketKey::client`] is an IPv4 address.
pub const CLIENT_IPV4: u32 = 1;
/// [`BucketKey::client`] is the upper half of an IPv6 address: whoever has a /64 has all of it (RFC 8981).
pub const CLIENT_IPV6: u32 = 2;

/// Which packets share a cap (key of the map `BUCKETS`, an LRU).
///
/// Aligned for the BPF programs, which have it on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BucketKey {
    /// The client, a number.
    pub client: u64,
    /// `CLIENT_…`.
    pub kind: u32,
    /// [`Policy::tier`].
    pub tier: u16,
    /// [`Direction`].
    pub direction: u16,
}
assert_size!(BucketKey, 16);

/// How far a client has used up its cap (value of the map `BUCKETS`), written by the kernel only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// When the next packet would be due if there were no burst, by the monotonic clock in nanoseconds (the theoretical
    /// arrival time of the GCRA, ITU-T I.371 annex A). One word: two CPUs that race lose one of two packets' worth.
    pub due: u64,
}
assert_size!(Bucket, 8);

impl Bucket {
    /// What [`due`](Self::due) becomes when `packets` come `now`; 0 if they are over the cap, and change nothing.
    ///
    /// A number and no `Option`, which would leave registers undefined that the verifier of BPF programs then refuses.
    #[inline(always)]
    #[must_use]
    pub const fn take(due: u64, now: u64, interval: u32, packets: u64) -> u64 {
        // Packets of an aggregate are few, and an interval is below 2^32: no overflow.
        let due = if due > now { due } else { now };
        if due - now > CAP_BURST {
            return 0;
        }
        due + packets * interval as u64
    }
}

/// A policy row. Rows are never changed while an endpoint points to them: a changed policy gets a new row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Policy {
    /// Bits for `skb->mark` of `up` packets, host order.
    pub mark: u32,
    /// Which bits of `skb->mark` are ours; 0 leaves the mark alone.
    pub mask: u32,
    /// By direction and class: the DSCP (RFC 2474) in the low six bits, or [`DSCP_KEEP`]; with [`DSCP_IF_DEFAULT`];
    /// or [`DSCP_DEMOTE`].
    pub dscp: [[u8; RULES]; Direction::ALL.len()],
    /// By direction: 1 sets voice priority at TC egress, 0 leaves the priority alone.
    pub voice: [u8; Direction::ALL.len()],
    /// Not 0 in a row that holds a policy.
    pub valid: u8,
    /// `TIER_…`. Rows of one tier share each client's [`Bucket`].
    pub tier: u8,
    /// Nanoseconds per packet of one client in one direction. What comes faster gets neither DSCP nor priority, and
    /// loses voice's that it has. 0: no cap.
    pub interval: u32,
    /// Which rows of `CHOICES` may replace this one, by client; 0: none.
    pub set: u32,
    /// In which numbering of clients (maps `CLIENTS`, `STATIONS`, `INTERFACES`) those rows are looked for.
    pub epoch: u32,
    /// The routing table of the exit that [`mark`](Self::mark) leads to; 0: none. Tunnels keep theirs.
    pub exit: u32,
    /// Not 0: the packet is dropped.
    pub drop: u8,
    /// Not 0: the packet may pass a firewall, and is no other IPsec.
    pub passes: u8,
    /// Not 0: the packet is a gateway's own, and goes its own way whatever tunnel it belongs to.
    pub own: u8,
    /// Zero.
    pub reserved: u8,
}
assert_size!(Policy, 40);

#[cfg(test)]
mod tests {
    use super::*;

    /// 150 packets a second.
    const INTERVAL: u32 = 1_000_000_000 / 150;

    /// How many of `count` packets, one each `step` nanoseconds, get through.
    fn passed(due: &mut u64, start: u64, step: u64, count: u64) -> u64 {
        let mut passed = 0;
        for n in 0..count {
            let next = Bucket::take(*due, start + n * step, INTERVAL, 1);
            if next != 0 {
                *due = next;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut due = 0;
        let start = 1_000_000_000_000;
        // Two calls pass for as long as they like.
        assert_eq!(passed(&mut due, start, 10_000_000, 100_000), 100_000);
        // A thousand at once: a second's worth.
        let start = start + 100_000 * 10_000_000;
        assert!((100..=152).contains(&passed(&mut due, start, 0, 1000)));
        // Ten thousand a second for ten seconds: the rate.
        let mut due = 0;
        let passed = passed(&mut due, start, 100_000, 100_000);
        assert!((1640..=1660).contains(&passed), "{passed}");
    }

    #[test]
    fn an_aggregate_counts_whole() {
        let now = 1_000_000_000_000;
        let due = Bucket::take(0, now, INTERVAL, 64);
        assert_eq!(due, now + 64 * u64::from(INTERVAL));
        let rest = Bucket::take(Bucket::take(due, now, INTERVAL, 64), now, INTERVAL, 64);
        assert_ne!(rest, 0, "what was begun within the burst");
        assert_eq!(Bucket::take(rest, now, INTERVAL, 1), 0);
        assert_ne!(Bucket::take(rest, now + 300_000_000, INTERVAL, 1), 0);
    }
}
