//! The endpoint table: blocks, hosts, prefixes, and the addresses of companions.

use std::collections::BTreeMap;

use aya::maps::{MapError, lpm_trie::Key as LpmKey};
use wificall_common::abi::{Block4, Block6, Cell, EndpointRef, Members};

use super::{Maps, Raw, absent};
use crate::kernel::error::{Context as _, KernelError};

/// A key of the endpoint table. The order is the order in which entries are added, and the reverse of that in which they
/// are removed: what refers comes after what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address of a companion name, likewise mapped. No endpoint.
    Companion([u8; 16]),
    /// A single host; IPv4 as `::ffff:a.b.c.d`.
    Host([u8; 16]),
    /// An irregular prefix: length in bits, address; IPv4 mapped likewise, 96 bits longer.
    Prefix(u8, [u8; 16]),
    /// A /24: three bytes and a zero.
    Block4([u8; 4]),
    /// A /64: its first eight bytes.
    Block6([u8; 8]),
}

/// A value of the endpoint table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Index of the group; 0 in an exception: not an endpoint.
    pub group: u32,
    /// Index of the policy.
    pub policy: u32,
    /// Index of the activity slot.
    pub slot: u32,
    /// `FLAG_…` of a block.
    pub flags: u32,
    /// Members of a /24.
    pub members: [u32; 8],
}

impl Maps {
    pub(in crate::kernel) fn entries(&self) -> Result<BTreeMap<Key, Entry>, KernelError> {
        let mut all = BTreeMap::new();
        for (key, cell) in self.blocks4.cells()? {
            let members = if cell.is_partial() {
                self.members(key)?
            } else {
                Members::default()
            };
            all.insert(Key::Block4(key), Entry::from(cell.block4(members).1));
        }
        for (key, cell) in self.blocks6.cells()? {
            all.insert(Key::Block6(key), Entry::from(cell.block6().1));
        }
        for pair in self.hosts.iter() {
            let (key, Raw(host)) = pair.doing(|| "read map HOSTS".into())?;
            all.insert(Key::Host(key), Entry::from(host));
        }
        for pair in self.companions.iter() {
            let (key, Raw(host)) = pair.doing(|| "read map COMPANION_HOSTS".into())?;
            all.insert(Key::Companion(key), Entry::from(host));
        }
        for pair in self.prefixes.iter() {
            let (key, Raw(prefix)) = pair.doing(|| "read map PREFIXES".into())?;
            all.insert(
                Key::Prefix(key.prefix_len() as u8, key.data()),
                Entry::from(prefix),
            );
        }
        Ok(all)
    }

    pub(in crate::kernel) fn set(&mut self, key: Key, entry: &Entry) -> Result<(), KernelError> {
        match key {
            Key::Companion(address) => self.companions.insert(address, Raw(entry.into()), 0),
            Key::Host(address) => self.hosts.insert(address, Raw(entry.into()), 0),
            Key::Prefix(len, address) => {
                self.prefixes
                    .insert(&LpmKey::new(len.into(), address), Raw(entry.into()), 0)
            }
            Key::Block4(key) => self.set_block4(key, &entry.into()),
            Key::Block6(key) => {
                let cell = Cell::of6(u64::from_be_bytes(key), &entry.into());
                self.blocks6.set(key, cell)
            }
        }
        .doing(|| format!("add {key:?} to the endpoint table"))
    }

    pub(in crate::kernel) fn remove(&mut self, key: Key) -> Result<(), KernelError> {
        let result = absent(match key {
            Key::Companion(address) => self.companions.remove(&address),
            Key::Host(address) => self.hosts.remove(&address),
            Key::Prefix(len, address) => self.prefixes.remove(&LpmKey::new(len.into(), address)),
            Key::Block4(key) => self
                .blocks4
                .remove(key)
                .and_then(|()| self.members.remove(&key)),
            Key::Block6(key) => self.blocks6.remove(key),
        });
        result.doing(|| format!("remove {key:?} from the endpoint table"))
    }

    /// Members that are no range come before the cell that refers to them and go after it.
    fn set_block4(&mut self, key: [u8; 4], block: &Block4) -> Result<(), MapError> {
        let cell = Cell::of4(u32::from_be_bytes(key), block);
        if cell.is_partial() {
            self.members.insert(key, block.members, 0)?;
            return self.blocks4.set(key, cell);
        }
        self.blocks4.set(key, cell)?;
        absent(self.members.remove(&key))
    }

    fn members(&self, key: [u8; 4]) -> Result<Members, KernelError> {
        match self.members.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(Members::default()),
            result => result.doing(|| "read map MEMBERS".into()),
        }
    }
}

impl From<Block4> for Entry {
    fn from(block: Block4) -> Self {
        let Block4 {
            group,
            policy,
            slot,
            flags,
            members,
        } = block;
        Self {
            group,
            policy,
            slot,
            flags,
            members,
        }
    }
}

impl From<Block6> for Entry {
    fn from(block: Block6) -> Self {
        let Block6 {
            group,
            policy,
            slot,
            flags,
        } = block;
        Self {
            group,
            policy,
            slot,
            flags,
            members: [0; 8],
        }
    }
}

impl From<EndpointRef> for Entry {
    fn from(endpoint: EndpointRef) -> Self {
        Self {
            group: endpoint.group,
            policy: endpoint.policy,
            slot: endpoint.slot,
            flags: 0,
            members: [0; 8],
        }
    }
}

impl From<&Entry> for Block4 {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            flags: entry.flags,
            members: entry.members,
        }
    }
}

impl From<&Entry> for Block6 {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            flags: entry.flags,
        }
    }
}

impl From<&Entry> for EndpointRef {
    fn from(entry: &Entry) -> Self {
        Self {
            group: entry.group,
            policy: entry.policy,
            slot: entry.slot,
            reserved: 0,
        }
    }
}
