//! Flowtables of nftables (`linux/netfilter/nf_tables.h`): those that hand connections to hardware take them past every
//! hook.

use std::collections::BTreeSet;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{attributes, dump, string};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_*FLOWTABLE`.
const NFT_NEWFLOWTABLE: u16 = 10 << 8 | 22;
const NFT_GETFLOWTABLE: u16 = 10 << 8 | 23;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;
const NFTA_FLOWTABLE_HOOK: u16 = 3;
const NFTA_FLOWTABLE_FLAGS: u16 = 7;
const NFTA_FLOWTABLE_HOOK_DEVS: u16 = 3;
const NFTA_DEVICE_NAME: u16 = 1;
/// `flags offload`.
const NFT_FLOWTABLE_HW_OFFLOAD: u32 = 1;

/// A flowtable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// The table that it is in.
    pub table: String,
    /// Its name there.
    pub name: String,
    /// Whether it hands connections to hardware.
    pub hardware: bool,
    /// Names of the interfaces whose packets it forwards.
    pub devices: BTreeSet<String>,
}

/// The flowtables of this namespace, of all families.
///
/// # Errors
///
/// The OS error of the netlink request.
pub async fn flowtables() -> io::Result<Vec<Flowtable>> {
    match dump(NETLINK_NETFILTER, NFT_GETFLOWTABLE, &[0; NFGENMSG]).await {
        Ok(answer) => Ok(answer
            .iter()
            .filter(|message| message.kind == NFT_NEWFLOWTABLE)
            .map(|message| parse(&message.payload))
            .collect()),
        // A kernel without nftables: netfilter's netlink answers EINVAL for what it does not have.
        Err(error)
            if error.raw_os_error() == Some(libc::EINVAL) || super::is_unsupported(&error) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn parse(payload: &[u8]) -> Flowtable {
    let mut flowtable = Flowtable {
        table: String::new(),
        name: String::new(),
        hardware: false,
        devices: BTreeSet::new(),
    };
    for part in attributes(payload, NFGENMSG) {
        match part.kind() {
            NFTA_FLOWTABLE_TABLE => flowtable.table = string(part.value()),
            NFTA_FLOWTABLE_NAME => flowtable.name = string(part.value()),
            NFTA_FLOWTABLE_FLAGS => {
                let flags = part.value().try_into().map_or(0, u32::from_be_bytes);
                flowtable.hardware = flags & NFT_FLOWTABLE_HW_OFFLOAD != 0;
            }
            NFTA_FLOWTABLE_HOOK => {
                let lists = attributes(part.value(), 0)
                    .filter(|part| part.kind() == NFTA_FLOWTABLE_HOOK_DEVS);
                for list in lists {
                    let names = attributes(list.value(), 0);
                    let names = names.filter(|device| device.kind() == NFTA_DEVICE_NAME);
                    flowtable
                        .devices
                        .extend(names.map(|device| string(device.value())));
                }
            }
            _ => {}
        }
    }
    flowtable
}

#[cfg(test)]
mod tests {
    use super::super::namespace::in_namespace;
    use super::super::netlink::attribute;
    use super::*;

    /// As `nf_tables_fill_flowtable_info` writes it.
    fn message(flags: u32, devices: &[&str]) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let names = devices
            .iter()
            .flat_map(|name| attribute(NFTA_DEVICE_NAME, format!("{name}\0").as_bytes()));
        let mut hook = attribute(1, &0u32.to_be_bytes());
        hook.extend(attribute(2, &0u32.to_be_bytes()));
        let names: Vec<u8> = names.collect();
        hook.extend(attribute(NFTA_FLOWTABLE_HOOK_DEVS | NESTED, &names));
        let mut message = vec![1, 0, 0, 0];
        message.extend(attribute(NFTA_FLOWTABLE_TABLE, b"fw4\0"));
        message.extend(attribute(NFTA_FLOWTABLE_NAME, b"ft\0"));
        message.extend(attribute(4, &1u32.to_be_bytes()));
        message.extend(attribute(5, &7u64.to_be_bytes()));
        message.extend(attribute(NFTA_FLOWTABLE_FLAGS, &flags.to_be_bytes()));
        message.extend(attribute(NFTA_FLOWTABLE_HOOK | NESTED, &hook));
        message
    }

    #[test]
    fn a_flowtable_is_read_with_its_devices_and_its_flag() {
        let hardware = parse(&message(3, &["lan1", "wan"]));
        assert!(hardware.hardware);
        assert_eq!((&*hardware.table, &*hardware.name), ("fw4", "ft"));
        assert!(hardware.devices.iter().eq(["lan1", "wan"]));
        // `counter` alone.
        assert!(!parse(&message(2, &["lan1"])).hardware);
    }

    #[test]
    fn a_message_cut_short_is_a_flowtable_without_what_is_missing() {
        let whole = message(1, &["lan1"]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).devices.len() <= 1);
        }
    }

    #[test]
    fn root_a_namespace_without_flowtables_has_none() {
        in_namespace(|runtime| assert_eq!(runtime.block_on(flowtables()).unwrap(), []));
    }
}
