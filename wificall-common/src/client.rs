//! Which policy a client's packets get.

use crate::abi::{Choice, ChoiceKey, Policy};

/// What is asked of the maps. 0 is the class of whom no policy names.
pub trait Clients {
    /// The class of a client by its address; IPv4 as `::ffff:a.b.c.d`.
    fn network(&self, epoch: u32, address: u128) -> u32;
    /// The class of a client by its link-layer address, in the low 48 bits.
    fn station(&self, epoch: u32, mac: u64) -> u32;
    /// The class of an interface.
    fn interface(&self, epoch: u32, ifindex: u32) -> u32;
    /// What a set has for these classes.
    fn choice(&self, key: &ChoiceKey) -> Option<Choice>;
}

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// As [`Clients::network`] has it.
    pub address: u128,
    /// As [`Clients::station`] has it; `None` where the link's other side is not the client's.
    pub mac: Option<u64>,
    /// Where the packet is treated.
    pub ifindex: u32,
}

/// The row that takes the place of `row` for this client, if any: of the policies that name the client by address, by
/// link-layer address or not at all, the first.
#[inline(always)]
pub fn choose<T: Clients>(tables: &T, row: &Policy, client: &Client) -> Option<Choice> {
    let mut key = ChoiceKey {
        set: row.set,
        interface: tables.interface(row.epoch, client.ifindex),
        client: 0,
        reserved: 0,
    };
    let mut best = Choice {
        order: u32::MAX,
        policy: 0,
    };
    if key.interface != 0 {
        better(tables, &key, &mut best);
    }
    key.client = tables.network(row.epoch, client.address);
    if key.client != 0 {
        better(tables, &key, &mut best);
    }
    if let Some(mac) = client.mac {
        key.client = tables.station(row.epoch, mac);
        if key.client != 0 {
            better(tables, &key, &mut best);
        }
    }
    (best.order != u32::MAX).then_some(best)
}

#[inline(always)]
fn better<T: Clients>(tables: &T, key: &ChoiceKey, best: &mut Choice) {
    if let Some(choice) = tables.choice(key)
        && choice.order < best.order
    {
        *best = choice;
    }
}
