//! Tunnels and their exits, and the gateways that are no clients.

use std::{collections::BTreeSet, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError};
use wificall_common::abi::{Tunnel, TunnelKey};

use super::{Maps, Raw, absent};
use crate::kernel::error::{Context as _, KernelError};

impl Maps {
    /// What is done about the ESP of tunnels, `KEEP_…`.
    pub(in crate::kernel) fn keep(&self) -> Result<u32, KernelError> {
        self.keep.get(&0, 0).doing(|| "read map KEEP".into())
    }

    pub(in crate::kernel) fn set_keep(&mut self, keep: u32) -> Result<(), KernelError> {
        self.keep.set(0, keep, 0).doing(|| "write map KEEP".into())
    }

    /// The tunnels that have an exit, those seen last.
    pub(in crate::kernel) fn tunnels(&self) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
        read_tunnels(&self.tunnels)
    }

    pub(in crate::kernel) fn tunnel(&self, key: TunnelKey) -> Result<Option<Tunnel>, KernelError> {
        match self.tunnels.get(&Raw(key), 0) {
            Ok(Raw(tunnel)) => Ok(Some(tunnel)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).doing(|| "read map TUNNELS".into()),
        }
    }

    pub(in crate::kernel) fn set_gateways(
        &mut self,
        wanted: &BTreeSet<[u8; 16]>,
    ) -> Result<(), KernelError> {
        let present = self
            .gateways
            .keys()
            .collect::<Result<BTreeSet<_>, _>>()
            .doing(|| "read map GATEWAYS".into())?;
        for key in wanted.difference(&present) {
            self.gateways
                .insert(key, 0, 0)
                .doing(|| "add to map GATEWAYS".into())?;
        }
        for key in present.difference(wanted) {
            absent(self.gateways.remove(key)).doing(|| "remove from map GATEWAYS".into())?;
        }
        Ok(())
    }

    pub(in crate::kernel) fn set_tunnel(
        &mut self,
        key: TunnelKey,
        tunnel: Tunnel,
    ) -> Result<(), KernelError> {
        self.tunnels
            .insert(Raw(key), Raw(tunnel), 0)
            .doing(|| format!("add {key:?} to map TUNNELS"))
    }

    pub(in crate::kernel) fn remove_tunnel(&mut self, key: TunnelKey) -> Result<(), KernelError> {
        absent(self.tunnels.remove(&Raw(key))).doing(|| format!("remove {key:?} from map TUNNELS"))
    }
}

/// The tunnels in the maps of `directory`; none if they were never made, or are of an ABI that has others.
pub(in crate::kernel) fn tunnels_in(
    directory: &Path,
) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
    if !directory.join("TUNNELS").exists() {
        return Ok(Vec::new());
    }
    let path = directory.join("TUNNELS");
    let opening = || format!("open map {}", path.display());
    let data = MapData::from_pin(&path).doing(opening)?;
    let Ok(tunnels) = HashMap::try_from(Map::LruHashMap(data)) else {
        return Ok(Vec::new());
    };
    read_tunnels(&tunnels)
}

fn read_tunnels(
    map: &HashMap<MapData, Raw<TunnelKey>, Raw<Tunnel>>,
) -> Result<Vec<(TunnelKey, Tunnel)>, KernelError> {
    let mut tunnels = Vec::new();
    for key in map.keys() {
        let key = key.doing(|| "read map TUNNELS".into())?;
        match map.get(&key, 0) {
            Ok(Raw(tunnel)) => tunnels.push((key.0, tunnel)),
            // It made room for another meanwhile.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).doing(|| "read map TUNNELS".into()),
        }
    }
    Ok(tunnels)
}
