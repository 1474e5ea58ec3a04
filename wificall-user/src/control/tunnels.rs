//! Tunnels keep their exit: what the agent has to do for it.
//!
//! The programs note a tunnel's exit when it begins, and go by that note instead of by policy. ESP does so only while
//! `KEEP` says so: from before a change that could move somebody until those who were there then are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use tracing::{debug, info, warn};
use wificall_common::abi::{KEEP_OFF, KEEP_ON, KEEP_UNKNOWN, MOVED, SEEN_SHIFT, Tunnel, TunnelKey};

use super::{
    agent::Agent,
    plan::{Actual, Plan},
};
use crate::{
    config::Mark,
    kernel::{self, Key},
    net::{self, Family},
};

/// Steps of [`Tunnel::seen`] (about seconds) after which a tunnel that was not seen is over: phones ask whether their
/// gateway is alive every 120 s (AOSP `IkeSessionParams`), and keep NATs open every 20 s.
const IDLE: u32 = 300;

/// Likewise, after which a tunnel without ESP carries no call: also silence is six packets a second
/// (comfort noise, 3GPP TS 26.193).
const QUIET: u32 = 30;

/// Since when, and how, the exits of tunnels are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keeping {
    /// `KEEP_…`, as the kernel has it.
    mode: u32,
    /// When something changed last that could move a tunnel.
    changed: u32,
    /// Since when the programs note ESP.
    since: u32,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    mode: u32,
    /// Tunnels that are over, or whose exit is none any more.
    over: Vec<TunnelKey>,
}

impl Keeping {
    /// `exits`: the tables of all exits. `failed_over`: an exit is not on the gateway that it prefers, and asks whether
    /// anybody uses it.
    fn judge(
        self,
        tunnels: &[(TunnelKey, Tunnel)],
        now: u32,
        exits: &BTreeSet<u32>,
        failed_over: bool,
    ) -> Judgement {
        let age = |then: u32| now.saturating_sub(then);
        let watched = self.mode != KEEP_OFF && age(self.changed) > IDLE;
        let is_gone = |tunnel: &Tunnel| {
            let idle = watched && age(tunnel.seen) > IDLE;
            idle || (tunnel.exit != 0 && !exits.contains(&tunnel.exit))
        };
        let (over, alive): (Vec<_>, Vec<_>) = tunnels.iter().partition(|(_, t)| is_gone(t));
        let from_before = |tunnel: &Tunnel| tunnel.began & !MOVED <= self.changed;
        let stays = !watched || failed_over || alive.iter().any(|(_, t)| from_before(t));
        let mode = match self.mode {
            // Who is seen again is known by now.
            KEEP_UNKNOWN if !watched => KEEP_UNKNOWN,
            KEEP_OFF if !failed_over => KEEP_OFF,
            _ if stays => KEEP_ON,
            _ => KEEP_OFF,
        };
        Judgement {
            mode,
            over: over.into_iter().map(|(key, _)| key).collect(),
        }
    }
}

/// What the kernel notes of tunnels, as it was read last.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    read: Instant,
    tunnels: Arc<[(TunnelKey, Tunnel)]>,
}

/// Now, as the kernel notes it.
pub(super) fn step() -> u32 {
    (kernel::ktime() >> SEEN_SHIFT) as u32
}

impl Agent {
    /// Before anything changes: tunnels stay where they are. `unknown`: there were no exits before, so that whoever has a
    /// tunnel has it without one.
    pub(super) fn hold_tunnels(&mut self, unknown: bool) -> Result<()> {
        if self.world.config.exits.is_empty() {
            return Ok(());
        }
        let mode = if unknown { KEEP_UNKNOWN } else { KEEP_ON };
        // What is not known yet stays so.
        let mode = mode.max(self.keeping.mode);
        let now = step();
        let since = match self.keeping.mode {
            KEEP_OFF => now,
            _ => self.keeping.since,
        };
        self.keeping = Keeping {
            mode,
            changed: now,
            since,
        };
        self.plane.set_keep(mode)?;
        Ok(())
    }

    /// At a start: whoever was seen before this agent is where the one before had it.
    pub(super) fn hold_all(&mut self) -> Result<()> {
        self.keeping.mode = self.plane.keep()?;
        self.keeping.since = step();
        self.hold_tunnels(false)
    }

    /// Likewise, if a plan could move anybody.
    pub(super) fn hold_for(&mut self, plan: &Plan, actual: &Actual) -> Result<()> {
        // An entry that is new, or goes, may take addresses from a wider one, or leave them to it.
        let is_endpoint = |key: &Key| !matches!(key, Key::Companion(_));
        let changes = plan.set.iter().filter(|(key, entry)| {
            let before = actual.entries.get(key);
            before.is_none_or(|before| before.policy != entry.policy)
        });
        let moves = changes
            .map(|(key, _)| key)
            .chain(&plan.remove)
            .any(is_endpoint);
        if moves {
            self.hold_tunnels(false)
        } else {
            Ok(())
        }
    }

    /// Forgets tunnels that are over, and lets ESP go by policy again when nobody is left who could be elsewhere. Those
    /// whose exit is none any more move: so do their tracked connections.
    pub(super) async fn follow_tunnels(&mut self) -> Result<()> {
        let exits: BTreeSet<u32> = self
            .world
            .config
            .exits
            .iter()
            .map(|exit| exit.table)
            .collect();
        if exits.is_empty() {
            return Ok(());
        }
        let tunnels = self.notes_since(Instant::now())?;
        let Judgement { mode, over } =
            self.keeping
                .judge(&tunnels, step(), &exits, self.world.steering.failed_over);
        let orphaned: BTreeSet<TunnelKey> = tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.exit != 0 && !exits.contains(&tunnel.exit))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            self.plane.remove_tunnel(key)?;
        }
        self.remark(&tunnels)?;
        self.forget_connections(orphaned.iter().map(ends).collect())
            .await;
        if mode != self.keeping.mode {
            debug!(mode, "tunnels' exits");
            self.plane.set_keep(mode)?;
            self.keeping.mode = mode;
        }
        Ok(())
    }

    /// Gives tunnels the mark that their exit has now.
    fn remark(&mut self, tunnels: &[(TunnelKey, Tunnel)]) -> Result<()> {
        let exits = &self.world.config.exits;
        let marks: BTreeMap<u32, Mark> = exits.iter().map(|exit| (exit.table, exit.mark)).collect();
        for (key, tunnel) in tunnels {
            let Some(Mark { value, mask }) = marks.get(&tunnel.exit).copied() else {
                continue;
            };
            if (tunnel.mark, tunnel.mask) != (value, mask)
                && let Some(tunnel) = self.plane.tunnel(*key)?
            {
                let marked = Tunnel {
                    mark: value,
                    mask,
                    ..tunnel
                };
                self.plane.set_tunnel(*key, marked)?;
            }
        }
        Ok(())
    }

    /// All notes, as they were at `since` or later: reading thousands takes milliseconds, and several ask for them in one
    /// pass.
    pub(super) fn notes_since(&mut self, since: Instant) -> Result<Arc<[(TunnelKey, Tunnel)]>> {
        if let Some(notes) = self.notes.as_ref().filter(|notes| notes.read >= since) {
            return Ok(Arc::clone(&notes.tunnels));
        }
        let read = Instant::now();
        let tunnels: Arc<[_]> = self.plane.tunnels()?.into();
        self.notes = Some(Notes {
            read,
            tunnels: Arc::clone(&tunnels),
        });
        Ok(tunnels)
    }

    /// The tunnels of exits, by table, that were seen lately, by what was noted at `since` or later: client and endpoint.
    pub(super) fn tunnels_of(
        &mut self,
        tables: &BTreeSet<u32>,
        since: Instant,
    ) -> Result<BTreeSet<(IpAddr, IpAddr)>> {
        if tables.is_empty() {
            return Ok(BTreeSet::new());
        }
        let now = step();
        let tunnels = self.notes_since(since)?;
        let tunnels = tunnels.iter();
        Ok(tunnels
            .filter(|(_, tunnel)| tables.contains(&tunnel.exit))
            .filter(|(_, tunnel)| now.saturating_sub(tunnel.seen) <= IDLE)
            .map(|(key, _)| ends(key))
            .collect())
    }

    /// Lets the tunnels of exits that block now, by table and family, go by policy: one that was moved to another exit may
    /// take that, and an emergency call is not to be blocked. By what was noted at `since` or later.
    pub(super) fn release_tunnels(
        &mut self,
        blocked: &BTreeSet<(u32, Family)>,
        since: Instant,
    ) -> Result<()> {
        if blocked.is_empty() {
            return Ok(());
        }
        for (key, tunnel) in self.notes_since(since)?.iter() {
            let (_, endpoint) = ends(key);
            if blocked.contains(&(tunnel.exit, Family::from(endpoint))) {
                self.plane.remove_tunnel(*key)?;
            }
        }
        Ok(())
    }

    /// Of these exits, by table, those with a tunnel that has carried something lately. One that only keeps itself alive
    /// may be moved: its phone sets it up again. By what was noted at `since` or later.
    pub(super) fn in_use(
        &mut self,
        tables: &BTreeSet<u32>,
        since: Instant,
    ) -> Result<BTreeSet<u32>> {
        if tables.is_empty() {
            return Ok(BTreeSet::new());
        }
        let now = step();
        // What was carried before is not known yet.
        if now.saturating_sub(self.keeping.since) <= QUIET {
            return Ok(tables.clone());
        }
        let tunnels = self.notes_since(since)?;
        let tunnels = tunnels.iter().map(|(_, tunnel)| tunnel);
        Ok(tunnels
            .filter(|tunnel| tables.contains(&tunnel.exit))
            .filter(|tunnel| tunnel.esp != 0 && now.saturating_sub(tunnel.esp) <= QUIET)
            .map(|tunnel| tunnel.exit)
            .collect())
    }

    /// Whether tunnels may begin anew by another exit: to be looked after every second then.
    pub(super) fn may_move(&self) -> bool {
        self.keeping.mode != KEEP_OFF && !self.world.config.exits.is_empty()
    }

    /// Forgets the tracked connections of tunnels that began anew by another exit: where this box translates addresses,
    /// they hold those of the exit before, and the phone's ports are the same.
    pub(super) async fn follow_moved(&mut self) -> Result<()> {
        let mut moved = BTreeSet::new();
        for (key, tunnel) in self.notes_since(Instant::now())?.iter() {
            if tunnel.began & MOVED != 0 {
                moved.insert(ends(key));
                // As it is now: it was read some time ago.
                if let Some(tunnel) = self.plane.tunnel(*key)? {
                    let began = tunnel.began & !MOVED;
                    self.plane.set_tunnel(*key, Tunnel { began, ..tunnel })?;
                }
            }
        }
        self.forget_connections(moved).await;
        Ok(())
    }

    /// Forgets tracked connections between clients and endpoints, on IPsec's ports.
    pub(super) async fn forget_connections(&self, tunnels: BTreeSet<(IpAddr, IpAddr)>) {
        if tunnels.is_empty() {
            return;
        }
        match net::forget_connections(&tunnels).await {
            Ok(0) => {}
            Ok(connections) => info!(
                connections,
                "tracked connections of moved tunnels forgotten"
            ),
            Err(error) => warn!("forget tracked connections: {error}"),
        }
    }
}

/// Client and endpoint.
fn ends(key: &TunnelKey) -> (IpAddr, IpAddr) {
    let address = |octets: [u8; 16]| IpAddr::from(octets).to_canonical();
    (address(key.client), address(key.endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u32 = 3600;

    fn tunnel(number: u8, exit: u32, began: u32, seen: u32) -> (TunnelKey, Tunnel) {
        let key = TunnelKey {
            client: [number; 16],
            endpoint: [0; 16],
        };
        let tunnel = Tunnel {
            exit,
            began,
            seen,
            ..Tunnel::default()
        };
        (key, tunnel)
    }

    fn judge(mode: u32, tunnels: &[(TunnelKey, Tunnel)], now: u32) -> (u32, Vec<u8>) {
        let keeping = Keeping {
            mode,
            changed: HOUR,
            since: 0,
        };
        let judged = keeping.judge(tunnels, now, &BTreeSet::from([7, 8]), false);
        let over = judged.over.iter().map(|key| key.client[0]).collect();
        (judged.mode, over)
    }

    #[test]
    fn esp_asks_until_those_from_before_the_change_are_gone() {
        let before = tunnel(1, 7, HOUR - 9, 2 * HOUR - 10);
        let after = tunnel(2, 8, HOUR + 9, 2 * HOUR - 10);
        assert_eq!(
            judge(KEEP_ON, &[before, after], 2 * HOUR),
            (KEEP_ON, vec![])
        );
        assert_eq!(judge(KEEP_ON, &[after], 2 * HOUR), (KEEP_OFF, vec![]));
        let idle = tunnel(1, 7, HOUR - 9, 2 * HOUR - IDLE - 1);
        assert_eq!(
            judge(KEEP_ON, &[idle, after], 2 * HOUR),
            (KEEP_OFF, vec![1])
        );
    }

    #[test]
    fn nobody_is_taken_for_idle_whose_esp_was_not_noted() {
        let quiet = tunnel(1, 7, 1, HOUR - 2 * IDLE);
        assert_eq!(judge(KEEP_ON, &[quiet], HOUR + IDLE / 2), (KEEP_ON, vec![]));
        assert_eq!(judge(KEEP_OFF, &[quiet], 2 * HOUR), (KEEP_OFF, vec![]));
    }

    #[test]
    fn an_exit_that_is_no_more_holds_nobody() {
        let gone = tunnel(1, 9, HOUR - 1, HOUR);
        let none = tunnel(2, 0, HOUR - 1, HOUR);
        assert_eq!(judge(KEEP_ON, &[gone, none], HOUR + 1), (KEEP_ON, vec![1]));
    }

    #[test]
    fn who_is_not_known_after_a_while_is_no_more() {
        assert_eq!(judge(KEEP_UNKNOWN, &[], HOUR + IDLE / 2).0, KEEP_UNKNOWN);
        assert_eq!(judge(KEEP_UNKNOWN, &[], HOUR + IDLE + 1).0, KEEP_OFF);
        let old = tunnel(1, 0, HOUR - 1, HOUR + IDLE);
        assert_eq!(judge(KEEP_UNKNOWN, &[old], HOUR + IDLE + 1).0, KEEP_ON);
    }
}
