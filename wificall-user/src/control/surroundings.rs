//! What is around the hooks, read when somebody asks for a report: stations, flowtables, tracked connections.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::hooks::{Role, Selection};
use crate::{
    net::{self, Flowtable, Link},
    observe::{Bypass, Offloaded, Stations, Surroundings},
};

/// Several scrapers, or a page that asks each second, have it read no more often than this.
const FRESH: Duration = Duration::from_secs(10);

/// The last look around.
#[derive(Default)]
pub(super) struct Around {
    at: Option<Instant>,
    pub seen: Surroundings,
}

impl Around {
    /// Whether this host tracks connections of tunnels, so that they may be forgotten.
    pub fn tracks(&self) -> bool {
        self.seen.offloaded.is_some_and(|seen| seen.tracked > 0)
    }

    /// Looks again if the last look was a while ago.
    pub async fn look(&mut self, selection: &Selection, links: &[Link], now: Instant) {
        let fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if self.at.is_some_and(fresh) {
            return;
        }
        self.at = Some(now);
        self.seen = match read(selection, links).await {
            Ok(seen) => seen,
            Err(problem) => Surroundings {
                problem: Some(format!("{problem:#}")),
                ..Surroundings::default()
            },
        };
    }
}

async fn read(selection: &Selection, links: &[Link]) -> Result<Surroundings> {
    let mut seen = Surroundings::default();
    for selected in &selection.interfaces {
        if selected.role != Role::Access {
            continue;
        }
        let name = &selected.link.name;
        let stations = net::stations(&selected.link).await;
        let stations =
            stations.with_context(|| format!("read the stations of `{name}` over netlink"))?;
        let (source, count) = match stations {
            net::Stations::Associated(count) => ("nl80211", count),
            net::Stations::Neighbours(count) => ("neighbours", count),
        };
        seen.stations.push(Stations {
            interface: name.clone(),
            source: source.into(),
            count,
        });
    }
    let flowtables = net::flowtables().await;
    let flowtables = flowtables.context("read the flowtables over netlink")?;
    let offloaded = net::offloaded().await;
    seen.offloaded = offloaded
        .context("read the tracked connections over netlink")?
        .map(|offloaded| Offloaded {
            tracked: offloaded.tracked,
            software: offloaded.software,
            hardware: offloaded.hardware,
        });
    let hooked = selection.interfaces.iter();
    let hooked = hooked.filter(|selected| !selected.attachments.is_empty());
    seen.bypasses = hooked
        .map(|selected| Bypass {
            interface: selected.link.name.clone(),
            why: bypass(&selected.link.name, links, &flowtables, seen.offloaded),
        })
        .collect();
    Ok(seen)
}

/// What may take packets past the hooks of an interface.
///
/// A flowtable in software does not: it stands behind TC ingress, and sends by TC egress. Of accelerators that are not
/// driven by the kernel, nothing can be known.
fn bypass(
    interface: &str,
    links: &[Link],
    flowtables: &[Flowtable],
    offloaded: Option<Offloaded>,
) -> Option<String> {
    let hardware: Vec<_> = flowtables.iter().filter(|table| table.hardware).collect();
    // The device itself, a port or a device above or below it.
    let concerns = |device: &&String| {
        *device == interface || !net::stacked(links, &[interface, device.as_str()]).is_empty()
    };
    let found = hardware.iter().find_map(|flowtable| {
        let device = flowtable.devices.iter().find(concerns)?;
        Some((flowtable, device))
    });
    if let Some((flowtable, device)) = found {
        let Flowtable { table, name, .. } = flowtable;
        return Some(format!(
            "the flowtable `{name}` of the table `{table}` hands what `{device}` forwards to hardware (`flags offload`)"
        ));
    }
    let connections = offloaded.map_or(0, |offloaded| offloaded.hardware);
    // If a flowtable has them, it is that of other interfaces.
    (connections > 0 && hardware.is_empty())
        .then(|| format!("{connections} connections on UDP 500 and 4500 or of ESP are in hardware"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Kind;

    fn link(index: u32, name: &str, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Kind::Ethernet,
            wireless: false,
            master,
            parent: None,
            up: true,
            running: true,
            mtu: 1500,
            address: None,
            info_kind: None,
        }
    }

    fn flowtable(hardware: bool, device: &str) -> Flowtable {
        Flowtable {
            table: "fw4".into(),
            name: "ft".into(),
            hardware,
            devices: [device.to_owned(), "wan".to_owned()].into(),
        }
    }

    const HARDWARE: Option<Offloaded> = Some(Offloaded {
        tracked: 9,
        software: 4,
        hardware: 2,
    });

    #[test]
    fn a_port_in_a_hardware_flowtable_bypasses_its_bridge_and_no_other() {
        let links = [
            link(1, "br-lan", None),
            link(2, "lan1", Some(1)),
            link(3, "wan", None),
            link(4, "guest", None),
        ];
        let why = |interface: &str, hardware: bool| {
            bypass(interface, &links, &[flowtable(hardware, "lan1")], HARDWARE)
        };
        assert!(why("br-lan", true).unwrap().contains("`lan1` forwards"));
        assert!(why("lan1", true).is_some());
        assert!(why("wan", true).is_some());
        assert_eq!(why("guest", true), None);
    }

    #[test]
    fn software_alone_is_no_bypass_and_connections_in_hardware_are_one() {
        let links = [link(1, "lan1", None)];
        let software = [flowtable(false, "lan1")];
        let none = Some(Offloaded {
            tracked: 9,
            software: 9,
            hardware: 0,
        });
        assert_eq!(bypass("lan1", &links, &software, none), None);
        assert_eq!(bypass("lan1", &links, &[], None), None);
        let why = bypass("lan1", &links, &software, HARDWARE).unwrap();
        assert!(why.starts_with("2 connections"), "{why}");
    }
}
