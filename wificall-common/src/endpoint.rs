//! The lookup of an address in the endpoint table.

use crate::{
    abi::{Block4, Block6, EndpointRef, FLAG_HOSTS, FLAG_WHOLE, PREF64S},
    wire::nat64::Pref64,
};

/// An endpoint, as the rest of the data plane knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Index in `COUNTERS`.
    pub group: u32,
    /// Index in `POLICIES`.
    pub policy: u32,
    /// Index in `ACTIVITY`.
    pub slot: u32,
}

/// The maps of the endpoint table. Addresses and keys are numbers, in the maps most significant byte first: of an array, the
/// compiler would put single bytes on the BPF stack, and then load several at once from where the verifier does not allow.
pub trait Table {
    /// The block of a /24, by its network address.
    fn block4(&self, key: u32) -> Option<&Block4>;
    /// The block of a /64, by the upper half of its network address.
    fn block6(&self, key: u64) -> Option<&Block6>;
    /// A single host; IPv4 as `::ffff:a.b.c.d`.
    fn host(&self, address: u128) -> Option<&EndpointRef>;
    /// The longest prefix, or `None` without a lookup if there are no irregular prefixes; IPv4 as for hosts.
    fn prefix(&self, address: u128) -> Option<&EndpointRef>;
    /// A NAT64 prefix, of up to [`PREF64S`]; `None` at the first that is not there.
    fn pref64(&self, index: usize) -> Option<Pref64>;
}

/// `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | address as u128
}

/// Looks an IPv4 address up.
#[inline(always)]
pub fn lookup4<T: Table>(table: &T, address: u32) -> Option<Endpoint> {
    if let Some(block) = table.block4(address & !0xff) {
        // `& 7` spares a bounds check.
        let word = block.members[(address >> 5) as usize & 7];
        if word & (1 << (address & 31)) != 0 {
            if block.flags & FLAG_HOSTS != 0
                && let Some(host) = table.host(mapped(address))
            {
                return found(host);
            }
            return Some(Endpoint {
                group: block.group,
                policy: block.policy,
                slot: block.slot,
            });
        }
    }
    table.prefix(mapped(address)).and_then(found)
}

/// Looks an IPv6 address up; one inside a NAT64 prefix is looked up as the IPv4 address that it stands for.
#[inline(always)]
pub fn lookup6<T: Table>(table: &T, address: u128) -> Option<Endpoint> {
    // A number and no `Option`: one lookup for all prefixes, and no register left undefined.
    let mut inner = u64::MAX;
    let mut index = 0;
    while index < PREF64S
        && let Some(pref64) = table.pref64(index)
    {
        if let Some(found) = pref64.extract(&address.to_be_bytes()) {
            inner = u64::from(u32::from_be_bytes(found));
        }
        index += 1;
    }
    if inner != u64::MAX {
        return lookup4(table, inner as u32);
    }
    if let Some(block) = table.block6((address >> 64) as u64) {
        if block.flags & FLAG_HOSTS != 0
            && let Some(host) = table.host(address)
        {
            return found(host);
        }
        if block.flags & FLAG_WHOLE != 0 {
            return Some(Endpoint {
                group: block.group,
                policy: block.policy,
                slot: block.slot,
            });
        }
    }
    table.prefix(address).and_then(found)
}

#[inline(always)]
fn found(entry: &EndpointRef) -> Option<Endpoint> {
    (entry.group != 0).then_some(Endpoint {
        group: entry.group,
        policy: entry.policy,
        slot: entry.slot,
    })
}
