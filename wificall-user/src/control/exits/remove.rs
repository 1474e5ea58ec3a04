//! Removing what was installed, by the record.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use super::survey::read_routes;
use crate::net::{self, Route, Rule};
use crate::steer::record::{Changed, Record};

/// What [`remove`] has removed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Rules.
    pub rules: Vec<Rule>,
    /// Default routes.
    pub routes: Vec<Route>,
    /// Sysctls that were set back.
    pub sysctls: Vec<Changed>,
}

/// Removes what the record at `path` says, and the record.
///
/// # Errors
///
/// What could not be removed; the record then stays.
pub(crate) async fn remove(path: &Path) -> Result<Removed> {
    let record = Record::load(path)?;
    let mut removed = Removed::default();
    if record.is_empty() {
        return Ok(removed);
    }
    let rules = net::rules().await.context("read the policy rules")?;
    let routes = read_routes(&record.tables).await?;
    for rule in record.rules.iter().filter(|rule| rules.contains(rule)) {
        net::remove_rule(rule)
            .await
            .with_context(|| format!("remove the {} rule `{rule}`", rule.family))?;
        removed.rules.push(rule.clone());
    }
    for route in routes.into_iter().filter(Route::is_own) {
        net::remove_route(&route).await.with_context(|| {
            format!(
                "remove the default route of table {} ({})",
                route.table, route.family
            )
        })?;
        removed.routes.push(route);
    }
    // Those of a device before that of `all`: together they come into force.
    for changed in record.sysctls.iter().rev() {
        if restore(changed)? {
            removed.sysctls.push(changed.clone());
        }
    }
    Record::default().save(path)?;
    Ok(removed)
}

/// Sets a sysctl back to what it was, unless somebody has changed it since.
pub(super) fn restore(changed: &Changed) -> Result<bool> {
    let Changed {
        sysctl,
        device,
        before,
        value,
    } = changed;
    let name = format!("net.ipv4.conf.{device}.{}", sysctl.name());
    let now = sysctl
        .read(device)
        .with_context(|| format!("read {name}"))?;
    if now != Some(*value) {
        return Ok(false);
    }
    sysctl
        .write(device, *before)
        .with_context(|| format!("set {name} back to {before}"))?;
    info!(
        device,
        sysctl = sysctl.name(),
        to = before,
        "sysctl set back"
    );
    Ok(true)
}
