//! What keeps addresses, and how they go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::Memory;
use crate::discover::trust::Observed;
use crate::discover::{Family, nat64, observed};

impl Memory {
    /// Notes that packets of an endpoint in `prefix` were seen. Endpoints are widened to blocks,
    /// so all addresses of the block are taken to be in use; observed ones only where the kernel
    /// tells them from others, as it does of every single one. An IPv6 address that stands for an
    /// IPv4 host behind one of the NAT64 prefixes is that host. Returns how many are known.
    pub fn note_traffic(&mut self, prefix: IpNet, now: SystemTime) -> usize {
        let mut known = 0;
        let own = prefix.network()..=prefix.broadcast();
        for block in std::iter::once(own).chain(nat64::behind(prefix, &self.pref64)) {
            for (_, entry) in self.addresses.range_mut(block.clone()) {
                entry.last_traffic = entry.last_traffic.max(Some(now));
                known += 1;
            }
            for (_, entry) in self.observed.addresses.range_mut(block) {
                entry.last_traffic = entry.last_traffic.max(Some(now));
                known += 1;
            }
        }
        known
    }

    /// Begins again with what was remembered when nobody looked any more: for what had traffic until then, the time in
    /// between does not count, for its tunnels may live. What has none now goes when its time is over from here.
    pub fn resume(&mut self, now: SystemTime) {
        let of_addresses = self
            .addresses
            .values()
            .flat_map(|entry| entry.answers.values().copied().chain(entry.last_traffic));
        let of_observed = self
            .observed
            .addresses
            .values()
            .map(observed::Entry::last_sign);
        let Some(looked) = of_addresses.chain(of_observed).max() else {
            return;
        };
        let Ok(gap) = now.duration_since(looked) else {
            return;
        };
        // Its age stays: what was over then is over now.
        let of_addresses = self.addresses.values_mut();
        let of_addresses = of_addresses.map(|entry| &mut entry.last_traffic);
        let of_observed = self.observed.addresses.values_mut();
        let of_observed = of_observed.map(|entry| &mut entry.last_traffic);
        for at in of_addresses.chain(of_observed).flatten() {
            *at = at.checked_add(gap).unwrap_or(now);
        }
    }

    /// Forgets what has had its time, and returns the addresses that went. The configured names
    /// must have been [set](Self::set_targets) before, for of others time alone decides.
    ///
    /// A time in the future (the clock was wrong once) counts as just now: too long is harmless.
    pub fn expire(&mut self, now: SystemTime) -> Vec<IpAddr> {
        let Self {
            keep,
            names,
            addresses,
            seen,
            ..
        } = self;
        let over_at = |now: SystemTime, since: SystemTime| {
            since.checked_add(*keep).is_some_and(|end| now >= end)
        };
        let over = |since| over_at(now, since);
        let mut in_use: BTreeSet<&Arc<str>> = BTreeSet::new();
        for entry in addresses.values() {
            if entry.last_traffic.is_some_and(|at| !over(at)) {
                in_use.extend(entry.answers.keys());
            }
        }
        let forgotten = seen.expire(now, *keep, |name| in_use.contains(name));
        let mut gone = Vec::new();
        addresses.retain(|address, entry| {
            if entry.last_traffic.is_some_and(|at| !over(at)) {
                return true;
            }
            let family = if address.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            entry.answers.retain(|name, last_answer| {
                let configured = names.get(name).filter(|state| state.configured());
                let asked = configured.or(seen.names.get(name).map(|seen| &seen.state));
                let superseded = asked.is_none_or(|state| {
                    let success = state.success(family);
                    success.is_some_and(|at| at > *last_answer && over_at(at, *last_answer))
                });
                !(over(*last_answer) && superseded || forgotten.contains(name))
            });
            let keep = !entry.answers.is_empty();
            if !keep {
                gone.push(*address);
            }
            keep
        });
        let mut answering: BTreeSet<&Arc<str>> = BTreeSet::new();
        for entry in addresses.values() {
            answering.extend(entry.answers.keys());
        }
        names.retain(|name, state| state.configured() || answering.contains(name));
        self.nat64.expire(now, *keep);
        self.companions.expire(now, *keep);
        let Observed { keep, longest, .. } = self.rules;
        for address in self.observed.expire(now, keep, longest) {
            let entry = self.addresses.get(&address);
            if entry.and_then(|entry| self.tier(entry)).is_none() {
                gone.push(address);
            }
        }
        gone
    }
}
