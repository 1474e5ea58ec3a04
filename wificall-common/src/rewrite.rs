//! DSCP changes (RFC 2474), checksums (RFC 1624), marks.

use crate::{
    Class, Direction,
    abi::{DSCP_DEMOTE, DSCP_IF_DEFAULT, DSCP_KEEP, Policy},
    wire::{ipv4, ipv6},
};

const ECN_MASK: u8 = 0b11;
const DSCP_MASK: u8 = 0x3f;
/// Expedited forwarding (RFC 3246).
const EF: u8 = 46;
/// VOICE-ADMIT (RFC 5865).
const VA: u8 = 44;

/// The rule byte that a policy has for a packet.
#[inline(always)]
#[must_use]
pub const fn rule(policy: &Policy, direction: Direction, class: Class) -> u8 {
    let rules = &policy.dscp[direction as usize];
    match class {
        Class::Ike => rules[0],
        Class::EspUdp => rules[1],
        Class::Keepalive => rules[2],
        Class::Esp => rules[3],
        // A later fragment is treated as its first fragment's class, which is never this one.
        Class::Fragment => DSCP_KEEP,
    }
}

/// The rule for a packet that is over its client's cap, of the one that its policy has: it loses what the policy gives,
/// and the DSCPs of voice, whoever set them.
#[inline(always)]
#[must_use]
pub const fn excess(rule: u8) -> u8 {
    if rule & DSCP_KEEP != 0 {
        DSCP_DEMOTE
    } else {
        DSCP_DEMOTE | rule & DSCP_MASK
    }
}

/// Whether a DSCP is one of voice's.
#[inline(always)]
#[must_use]
pub const fn is_voice(dscp: u8) -> bool {
    dscp == EF || dscp == VA
}

/// The traffic class octet (DSCP 6 bits, ECN 2 bits) under a rule, or `None` if it stays as it is. ECN is preserved.
#[inline(always)]
#[must_use]
pub const fn traffic_class(current: u8, rule: u8) -> Option<u8> {
    if rule & DSCP_DEMOTE == DSCP_DEMOTE {
        let dscp = current >> 2;
        let goes = is_voice(dscp) || (dscp != 0 && dscp == rule & DSCP_MASK);
        return if goes { Some(current & ECN_MASK) } else { None };
    }
    if rule & DSCP_KEEP != 0 || (rule & DSCP_IF_DEFAULT != 0 && current & !ECN_MASK != 0) {
        return None;
    }
    let wanted = ((rule & DSCP_MASK) << 2) | (current & ECN_MASK);
    if wanted == current {
        return None;
    }
    Some(wanted)
}

/// An IPv4 header's first bytes under a rule, checksum included, or `None` if they stay as they are.
///
/// The sum over the header stays the same, so a CHECKSUM_COMPLETE of the packet stays right.
#[inline(always)]
#[must_use]
pub fn ipv4(head: [u8; ipv4::HEAD_LEN], rule: u8) -> Option<[u8; ipv4::HEAD_LEN]> {
    let tos = traffic_class(head[1], rule)?;
    let sum = checksum(
        u16::from_be_bytes([head[10], head[11]]),
        u16::from_be_bytes([head[0], head[1]]),
        u16::from_be_bytes([head[0], tos]),
    );
    let [a, _, c, d, e, f, g, h, i, j, _, _] = head;
    let [k, l] = sum.to_be_bytes();
    // As words: the BPF programs have this on the stack, where all access has to be aligned.
    let words = [[a, tos, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
    let mut new = head;
    for (bytes, word) in new.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Some(new)
}

/// An IPv6 header's first bytes under a rule, or `None` if they stay as they are. The sum over the packet changes.
#[inline(always)]
#[must_use]
pub fn ipv6(head: [u8; ipv6::HEAD_LEN], rule: u8) -> Option<[u8; ipv6::HEAD_LEN]> {
    let [version, flow, f1, f2] = head;
    let class = traffic_class((version << 4) | (flow >> 4), rule)?;
    Some([
        (version & 0xf0) | (class >> 4),
        (class << 4) | (flow & 0x0f),
        f1,
        f2,
    ])
}

/// RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
#[inline(always)]
const fn checksum(sum: u16, old: u16, new: u16) -> u16 {
    let total = (!sum) as u32 + (!old) as u32 + new as u32;
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

/// Bits of `skb->mark`, host order: only those of `mask` are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// What they become.
    pub value: u32,
    /// 0 leaves the mark alone.
    pub mask: u32,
}

impl Mark {
    /// What a policy says.
    #[inline(always)]
    #[must_use]
    pub const fn of(policy: &Policy) -> Self {
        Self {
            value: policy.mark,
            mask: policy.mask,
        }
    }

    /// `skb->mark` with it.
    #[inline(always)]
    #[must_use]
    pub const fn over(self, current: u32) -> u32 {
        (current & !self.mask) | (self.value & self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_checksum(head: &[u8]) -> u16 {
        let sum: u32 = head
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !(((folded & 0xffff) + (folded >> 16)) as u16)
    }

    /// Every old octet and every DSCP: the incremental sum equals the one computed anew, in value or as the other zero.
    #[test]
    fn ipv4_checksum_is_right_for_every_octet() {
        // Under Miri, a sample: it is a hundred times slower.
        let step = if cfg!(miri) { 13 } else { 1 };
        for tos in (0..=255u8).step_by(step) {
            for dscp in (0..64u8).step_by(step) {
                let mut head = [0x45, tos, 0x00, 0x54, 0xbe, 0xef, 0, 0, 64, 17, 0, 0];
                let sum = full_checksum(&head);
                [head[10], head[11]] = sum.to_be_bytes();
                let Some(new) = ipv4(head, dscp) else {
                    assert_eq!(tos >> 2, dscp);
                    continue;
                };
                assert_eq!(new[1], (dscp << 2) | (tos & 3));
                assert_eq!(full_checksum(&new), 0, "tos {tos:#x} dscp {dscp}");
            }
        }
    }

    #[test]
    fn modes() {
        let ef = 46;
        assert_eq!(traffic_class(0x03, ef), Some(0xbb), "ECN is kept");
        assert_eq!(traffic_class(0xb8, ef), None, "already so");
        assert_eq!(traffic_class(0x20, ef | DSCP_IF_DEFAULT), None);
        assert_eq!(traffic_class(0x01, ef | DSCP_IF_DEFAULT), Some(0xb9));
        assert_eq!(traffic_class(0x00, DSCP_KEEP), None);
    }

    /// Whoever set it: the policy's value and those of voice go, all else stays.
    #[test]
    fn excess_loses_voice_and_what_its_policy_gives() {
        const CS5: u8 = 40;
        for (rule, also) in [
            (EF, EF),
            (CS5, CS5),
            (CS5 | DSCP_IF_DEFAULT, CS5),
            (0, 0),
            (DSCP_KEEP, 0),
            (DSCP_DEMOTE, 0),
        ] {
            for current in 0..=u8::MAX {
                let goes = [EF, VA, also].contains(&(current >> 2)) && current >> 2 != 0;
                let expected = goes.then_some(current & ECN_MASK);
                assert_eq!(traffic_class(current, excess(rule)), expected, "{rule:#x}");
            }
        }
    }

    #[test]
    fn ipv6_keeps_flow_label_and_ecn() {
        assert_eq!(
            ipv6([0x60, 0x1a, 0xbc, 0xde], 46),
            Some([0x6b, 0x9a, 0xbc, 0xde])
        );
    }

    #[test]
    fn mark_leaves_foreign_bits_alone() {
        let policy = Policy {
            mark: 0x65,
            mask: 0xff,
            ..Policy::default()
        };
        assert_eq!(Mark::of(&policy).over(0xabcd_0012), 0xabcd_0065);
        assert_eq!(Mark::of(&Policy::default()).over(7), 7);
    }
}
