//! Exits in the agent's loop: when they are looked after, and what follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use tracing::warn;

use super::agent::Agent;
use super::exits::{Because, Exits};
use super::report::seconds;
use crate::config::Config;
use crate::observe::{Steering, SteeringGateway};
use crate::steer::choice::Way;
use crate::steer::machine::Candidate;
use crate::steer::prober::Heard;
use crate::steer::{Exit, health};

/// How often it is looked at which exits have tunnels, while one waits for having none.
const LOOK: Duration = Duration::from_secs(1);

/// Checks the exits of a configuration against this box; what may not work, if nothing is sure not to.
///
/// # Errors
///
/// All that cannot work.
pub(super) async fn checked(exits: &Exits, config: &Config) -> Result<Vec<String>> {
    let findings = exits.check(config).await?;
    if findings.errors.is_empty() {
        return Ok(findings.warnings);
    }
    Err(anyhow!("{}", findings.errors.join("\n")))
}

impl Agent {
    /// Adds the rules and routes that are missing, before packets are marked for them.
    pub(super) async fn steer_first(&mut self) -> Result<()> {
        self.exits.choose();
        let result = self.exits.put_in_force(Because::Adding).await;
        let steering = self.exits.steering();
        if steering.failed_over && !self.world.steering.failed_over {
            self.hold_tunnels(false)?;
        }
        self.world.steering = steering;
        result
    }

    /// Removes those that nothing is marked for any more.
    pub(super) async fn steer_last(&mut self) -> Result<()> {
        self.exits.put_in_force(Because::Moving).await?;
        let moved = Instant::now();
        self.forget_moved(moved).await;
        self.follow_trials();
        self.release_tunnels(&self.world.steering.blocked.clone(), moved)
    }

    /// Looks at links and addresses, and at rules and routes.
    pub(super) async fn steer_by_network(&mut self) -> Result<()> {
        let interfaces = self.world.config.interfaces.clone();
        self.exits.follow(&interfaces).await?;
        self.look_after_exits().await
    }

    /// Puts back what somebody has removed or changed.
    pub(super) async fn look_after_exits(&mut self) -> Result<()> {
        self.note_active()?;
        let because = if self.exits.choose() {
            Because::Moving
        } else {
            Because::Looking
        };
        self.put_exits_in_force(because).await
    }

    /// Takes in what was heard of a gateway.
    pub(super) async fn hear_of_gateway(&mut self, heard: Option<Heard>) -> Result<()> {
        self.exits.hear(heard);
        self.note_active()?;
        if self.exits.choose() {
            return self.put_exits_in_force(Because::Moving).await;
        }
        self.follow_steering(Instant::now()).await
    }

    async fn put_exits_in_force(&mut self, because: Because) -> Result<()> {
        let result = self.exits.put_in_force(because).await;
        // Who begins from now on does so by the new way.
        let moved = Instant::now();
        self.forget_moved(moved).await;
        self.follow_trials();
        self.follow_steering(moved).await?;
        result
    }

    /// Makes the tables anew if another exit blocks, or another gateway is to be left alone, as it is since `moved`.
    async fn follow_steering(&mut self, moved: Instant) -> Result<()> {
        let steering = self.exits.steering();
        if self.world.steering != steering {
            // From now on it counts who is active: what the programs note of ESP.
            if steering.failed_over && !self.world.steering.failed_over {
                self.hold_tunnels(false)?;
            }
            let before = std::mem::replace(&mut self.world.steering, steering);
            self.reconcile(SystemTime::now(), false).await?;
            let newly = self.world.steering.blocked.difference(&before.blocked);
            self.release_tunnels(&newly.copied().collect(), moved)?;
        }
        Ok(())
    }

    /// Looks which exits have tunnels, if one is to return to a better gateway when it has none. As long as that was not
    /// looked at, it has some.
    fn note_active(&mut self) -> Result<()> {
        let now = Instant::now();
        let waiting = self.exits.waiting(now);
        if waiting.is_empty() {
            return Ok(());
        }
        if self.exits.looked.is_some_and(|at| now - at < LOOK) {
            self.exits.note_active(waiting);
            return Ok(());
        }
        self.exits.looked = Some(now);
        let active = self.in_use(&waiting, now.checked_sub(LOOK).unwrap_or(now))?;
        self.exits.note_active(active);
        Ok(())
    }

    /// Forgets the tracked connections of the tunnels that have moved to another gateway: they hold the address that they
    /// were translated to for the one before.
    async fn forget_moved(&mut self, since: Instant) {
        let moved = self.exits.take_moved();
        let tunnels = match self.tunnels_of(&moved, since) {
            Ok(tunnels) => tunnels,
            Err(error) => return warn!("{error:#}"),
        };
        self.forget_connections(tunnels).await;
    }

    /// Has IKE tried through the gateways in use, with the ePDG that is configured or one that policies send there.
    pub(super) fn follow_trials(&mut self) {
        let epdgs = match self.exits.epdgs.take() {
            None if !self.exits.asks_for_epdgs() => return self.exits.attempt(&BTreeMap::new()),
            Some(epdgs) => epdgs,
            None => self.world.steered(),
        };
        self.exits.attempt(&epdgs);
        self.exits.epdgs = Some(epdgs);
    }

    /// The exits, for the report.
    pub(super) fn steering_report(&self) -> Vec<Steering> {
        let now = Instant::now();
        let mut report = Vec::new();
        for (running, since) in self.exits.running() {
            let exit = &running.exit;
            for side in &running.sides {
                let (state, gateway) = match side.way {
                    Some(way @ Way::By(_)) => ("gateway", Some(side.name(exit, way))),
                    Some(Way::Block) => ("block", None),
                    Some(Way::Direct) | None => ("direct", None),
                };
                let candidates = side.candidates.iter();
                report.push(Steering {
                    exit: exit.name.clone(),
                    family: side.family.as_str().into(),
                    mark: format!("{:#x}/{:#x}", exit.mark.value, exit.mark.mask),
                    table: exit.table,
                    state: state.into(),
                    gateway,
                    since: since.get(&(exit.table, side.family)).map(|at| seconds(*at)),
                    failovers: side.failovers,
                    gateways: candidates.map(|it| gateway_report(exit, it, now)).collect(),
                });
            }
        }
        report
    }
}

fn gateway_report(exit: &Exit, candidate: &Candidate, now: Instant) -> SteeringGateway {
    let place = candidate.place.as_ref();
    SteeringGateway {
        gateway: candidate.name(exit),
        device: place.ok().map(|place| place.device.clone()),
        state: match candidate.state(now) {
            health::State::Up => "up",
            health::State::Down => "down",
            health::State::Unknown | health::State::Due => "unknown",
        }
        .into(),
        ethernet: candidate.address.map(|address| {
            let octets = address.map(|octet| format!("{octet:02x}"));
            octets.join(":")
        }),
        last_answer_ms: candidate
            .answers
            .last()
            .map(|last| now.saturating_duration_since(last).as_millis() as u64),
        problem: place.err().map(|nowhere| nowhere.text().to_owned()),
    }
}
