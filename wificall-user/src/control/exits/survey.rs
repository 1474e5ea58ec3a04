//! What the box has that exits need, and whether a configuration fits it. Changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::config::{Config, Interfaces};
use crate::net::{self, Family, Link, Route};
use crate::steer::check::{self, Findings};
use crate::steer::place::Network;
use crate::steer::record::Record;

/// Checks a configuration against this box. Changes nothing.
///
/// # Errors
///
/// If the box cannot be read.
pub(crate) async fn check(config: &Config) -> Result<Findings> {
    let path = config.agent.exits_path();
    check_with(config, &Record::load(&path).unwrap_or_default(), &path).await
}

pub(super) async fn check_with(config: &Config, record: &Record, path: &Path) -> Result<Findings> {
    if config.exits.is_empty() {
        return Ok(Findings::default());
    }
    let network = network(&config.interfaces).await?;
    let uplinks = net::select(&config.interfaces.uplink, &network.links);
    let here = check::Box {
        uplinks: uplinks.iter().map(|link| link.index).collect(),
        network,
        rules: net::rules().await.context("read the policy rules")?,
        routes: read_routes(&config.exits.iter().map(|exit| exit.table).collect()).await?,
        record: record.clone(),
        others: Record::of_others(path),
    };
    Ok(check::check(&config.exits, &here))
}

pub(super) async fn network(interfaces: &Interfaces) -> Result<Network> {
    let links = net::links().await.context("read the links over netlink")?;
    let addresses = net::addresses()
        .await
        .context("read the addresses over netlink")?;
    let index = |link: &Link| link.index;
    Ok(Network {
        access: net::select(&interfaces.access, &links)
            .iter()
            .map(|link| link.index)
            .collect(),
        ipv6: links
            .iter()
            .filter(|link| net::has_ipv6(&link.name))
            .map(index)
            .collect(),
        links,
        addresses,
    })
}

pub(super) async fn read_routes(tables: &BTreeSet<u32>) -> Result<Vec<Route>> {
    net::routes(tables)
        .await
        .context("read the routes of the exits' tables")
}

/// The families that this kernel has.
pub(super) fn families() -> Vec<Family> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    let families = Family::ALL.into_iter();
    families
        .filter(|family| *family == Family::V4 || has_ipv6)
        .collect()
}
