//! What is installed: rules, routes, sysctls. It is written to the record first.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow};
use tracing::{info, warn};

use super::remove::restore;
use super::survey::read_routes;
use super::{Because, Exits};
use crate::net::{self, Family, Sysctl};
use crate::steer::machine::Running;
use crate::steer::place::Place;
use crate::steer::record::Changed;
use crate::steer::sysctls;

impl Exits {
    /// Makes the rules and routes what they should be.
    ///
    /// # Errors
    ///
    /// What could not be done; the rest is done.
    pub(in crate::control) async fn put_in_force(&mut self, because: Because) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let result = self.try_put_in_force(because).await;
        self.problem = result.as_ref().err().map(|error| format!("{error:#}"));
        result
    }

    async fn try_put_in_force(&mut self, because: Because) -> Result<()> {
        let desired = self.machine.desired();
        let tables: BTreeSet<u32> = desired
            .tables()
            .union(&self.record.tables)
            .copied()
            .collect();
        let rules = net::rules().await.context("read the policy rules")?;
        let routes = read_routes(&tables).await?;
        let plan = crate::steer::plan::plan(&desired, &rules, &routes, &self.record);
        let before = self.record.clone();
        self.record.rules.extend(desired.rules.iter().cloned());
        self.record.tables.extend(desired.tables());
        if self.record != before {
            self.record.save(&self.path)?;
        }
        let mut failures = Failures::default();
        for route in &plan.set {
            failures.note(net::replace_route(route).await, || {
                format!(
                    "set the default route of table {} ({})",
                    route.table, route.family
                )
            });
        }
        for rule in &plan.add {
            failures.note(net::add_rule(rule).await, || {
                format!("add the {} rule `{rule}`", rule.family)
            });
        }
        let put_back = (plan.set.len() + plan.add.len()) as u64;
        if because == Because::Looking && put_back > 0 {
            self.repairs += put_back;
            warn!(
                rules = plan.add.len(),
                routes = plan.set.len(),
                "somebody has removed or changed what exits need: it is back"
            );
        }
        failures.note_all(self.follow_sysctls(because));
        if because != Because::Adding {
            for rule in &plan.remove {
                failures.note(net::remove_rule(rule).await, || {
                    format!("remove the {} rule `{rule}`", rule.family)
                });
            }
            for route in &plan.clear {
                failures.note(net::remove_route(route).await, || {
                    format!(
                        "remove the default route of table {} ({})",
                        route.table, route.family
                    )
                });
            }
            if failures.is_empty()
                && (self.record.rules != desired.rules || self.record.tables != desired.tables())
            {
                self.record.rules.clone_from(&desired.rules);
                self.record.tables = desired.tables();
                self.record.save(&self.path)?;
            }
        }
        self.learn_addresses().await;
        failures.into_result()
    }

    /// Has sysctls as the exits that may change them need them, and those of exits that went as they were before, once
    /// nothing goes there any more. What may not be written, as under systemd's `ProtectKernelTunables=`, is a problem and
    /// no failure: exits work without, or not all of them do.
    fn follow_sysctls(&mut self, because: Because) -> Result<()> {
        let mut unset = Vec::new();
        let result = self.try_follow_sysctls(because, &mut unset);
        for problem in unset.iter().filter(|it| !self.unset.contains(it)) {
            warn!("{problem}");
        }
        self.unset = unset;
        result
    }

    fn try_follow_sysctls(&mut self, because: Because, unset: &mut Vec<String>) -> Result<()> {
        let read = |sysctl: Sysctl, device: &str| sysctl.read(device).ok().flatten();
        let mut wanted = BTreeSet::new();
        let mut changes = BTreeSet::new();
        self.advice.clear();
        for running in self.machine.exits() {
            let places = ipv4_places(running);
            let needs = sysctls::needs(&places, &self.network.access, read);
            if running.exit.manage_sysctls {
                wanted.extend(sysctls::governed(&places, &self.network.access));
                changes.extend(needs.into_iter().map(|need| need.change));
            } else {
                let texts = needs
                    .iter()
                    .map(|need| format!("exit `{}`: {}", running.exit.name, need.text()));
                self.advice.extend(texts);
            }
        }
        let is_of = |changed: &Changed, (sysctl, device): (Sysctl, &str)| {
            changed.sysctl == sysctl && changed.device == device
        };
        for change in changes {
            let (sysctl, device) = (change.sysctl, change.device.clone());
            let known = self
                .record
                .sysctls
                .iter()
                .any(|it| is_of(it, (sysctl, &device)));
            if !known {
                self.record.sysctls.insert(change.clone());
                self.record.save(&self.path)?;
            }
            if let Err(error) = sysctl.write(&device, change.value) {
                let (name, value) = (sysctl.name(), change.value);
                unset.push(format!(
                    "set net.ipv4.conf.{device}.{name} to {value}: {error}\n  hint: `sysctl -w \
                     net.ipv4.conf.{device}.{name}={value}`, or a drop-in with ProtectKernelTunables=no for the systemd unit"
                ));
                continue;
            }
            info!(
                device,
                sysctl = sysctl.name(),
                from = change.before,
                to = change.value,
                "sysctl set for an exit"
            );
        }
        if because == Because::Adding {
            return Ok(());
        }
        let outlived: Vec<_> = self
            .record
            .sysctls
            .iter()
            .filter(|changed| !wanted.contains(&(changed.sysctl, changed.device.clone())))
            .cloned()
            .collect();
        for changed in outlived {
            if let Err(error) = restore(&changed) {
                unset.push(format!("{error:#}"));
                continue;
            }
            self.record.sysctls.remove(&changed);
            self.record.save(&self.path)?;
        }
        Ok(())
    }

    /// Of gateways that nobody asks, the kernel may know the Ethernet address.
    async fn learn_addresses(&mut self) {
        for (table, gateway, ifindex) in self.machine.unasked() {
            if let Ok(address) = net::neighbour(ifindex, gateway).await {
                self.machine.note_address(table, gateway, address);
            }
        }
    }
}

/// What could not be done.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note(&mut self, result: std::io::Result<()>, what: impl FnOnce() -> String) {
        if let Err(error) = result {
            self.0.push(format!("{}: {error}", what()));
        }
    }

    fn note_all(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{error:#}"));
        }
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(anyhow!("{}", self.0.join("; ")))
    }
}

fn ipv4_places(running: &Running) -> Vec<&Place> {
    let sides = running
        .sides
        .iter()
        .filter(|side| side.family == Family::V4);
    let candidates = sides.flat_map(|side| &side.candidates);
    candidates
        .filter_map(|candidate| candidate.place.as_ref().ok())
        .collect()
}
