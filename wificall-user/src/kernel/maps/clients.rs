//! Policies by client and interface: what they are numbered, and the choices by these numbers.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::lpm_trie::Key as LpmKey;
use ipnet::IpNet;
use wificall_common::abi::{Choice, ChoiceKey, ClientKey, EPOCH_BITS, InterfaceKey, StationKey};

use super::{Maps, Raw, absent};
use crate::kernel::error::{Context as _, KernelError};

/// A client or an interface, with the epoch of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Numbered {
    /// Clients by network.
    Network(u32, IpNet),
    /// A client by link-layer address.
    Station(u32, [u8; 6]),
    /// An interface by index.
    Interface(u32, u32),
}

impl Numbered {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        match self {
            Self::Network(epoch, _) | Self::Station(epoch, _) | Self::Interface(epoch, _) => *epoch,
        }
    }
}

impl Maps {
    /// Choices by client.
    pub(in crate::kernel) fn choices(&self) -> Result<BTreeMap<ChoiceKey, Choice>, KernelError> {
        self.choices
            .iter()
            .map(|pair| pair.map(|(Raw(key), Raw(choice))| (key, choice)))
            .collect::<Result<_, _>>()
            .doing(|| "read map CHOICES".into())
    }

    pub(in crate::kernel) fn set_choice(
        &mut self,
        key: ChoiceKey,
        choice: Choice,
    ) -> Result<(), KernelError> {
        self.choices
            .insert(Raw(key), Raw(choice), 0)
            .doing(|| format!("add {key:?} to map CHOICES"))
    }

    pub(in crate::kernel) fn remove_choice(&mut self, key: ChoiceKey) -> Result<(), KernelError> {
        absent(self.choices.remove(&Raw(key))).doing(|| format!("remove {key:?} from map CHOICES"))
    }

    /// Clients and interfaces of all epochs, with their classes.
    pub(in crate::kernel) fn numbered(&self) -> Result<BTreeMap<Numbered, u32>, KernelError> {
        let mut all = BTreeMap::new();
        for pair in self.clients.iter() {
            let (key, class) = pair.doing(|| "read map CLIENTS".into())?;
            let Raw(ClientKey { epoch, address }) = key.data();
            let address = IpAddr::from(address).to_canonical();
            let before = u32::from(EPOCH_BITS) + if address.is_ipv4() { 96 } else { 0 };
            let len = key.prefix_len().saturating_sub(before) as u8;
            if let Ok(net) = IpNet::new(address, len) {
                all.insert(Numbered::Network(u32::from_ne_bytes(epoch), net), class);
            }
        }
        for pair in self.stations.iter() {
            let (Raw(key), class) = pair.doing(|| "read map STATIONS".into())?;
            let [_, _, mac @ ..] = key.mac.to_be_bytes();
            all.insert(Numbered::Station(key.epoch, mac), class);
        }
        for pair in self.interfaces.iter() {
            let (Raw(key), class) = pair.doing(|| "read map INTERFACES".into())?;
            all.insert(Numbered::Interface(key.epoch, key.ifindex), class);
        }
        Ok(all)
    }

    pub(in crate::kernel) fn number(
        &mut self,
        numbered: Numbered,
        class: u32,
    ) -> Result<(), KernelError> {
        match numbered {
            Numbered::Network(epoch, net) => self.clients.insert(&client(epoch, net), class, 0),
            Numbered::Station(epoch, mac) => {
                self.stations.insert(Raw(station(epoch, mac)), class, 0)
            }
            Numbered::Interface(epoch, ifindex) => {
                self.interfaces
                    .insert(Raw(InterfaceKey { epoch, ifindex }), class, 0)
            }
        }
        .doing(|| format!("number {numbered:?}"))
    }

    pub(in crate::kernel) fn forget(&mut self, numbered: Numbered) -> Result<(), KernelError> {
        absent(match numbered {
            Numbered::Network(epoch, net) => self.clients.remove(&client(epoch, net)),
            Numbered::Station(epoch, mac) => self.stations.remove(&Raw(station(epoch, mac))),
            Numbered::Interface(epoch, ifindex) => self
                .interfaces
                .remove(&Raw(InterfaceKey { epoch, ifindex })),
        })
        .doing(|| format!("forget {numbered:?}"))
    }
}

fn client(epoch: u32, net: IpNet) -> LpmKey<Raw<ClientKey>> {
    let (address, before) = match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped(), 96),
        IpNet::V6(net) => (net.network(), 0),
    };
    let key = ClientKey {
        epoch: epoch.to_ne_bytes(),
        address: address.octets(),
    };
    let len = u32::from(EPOCH_BITS) + before + u32::from(net.prefix_len());
    LpmKey::new(len, Raw(key))
}

fn station(epoch: u32, mac: [u8; 6]) -> StationKey {
    let [a, b, c, d, e, f] = mac;
    StationKey {
        mac: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
        epoch,
        reserved: 0,
    }
}
