//! Reload: another configuration comes in force as a whole, or not at all.

use std::time::SystemTime;

use anyhow::{Result, bail};
use tracing::{error, info, warn};

use super::{
    Refused,
    agent::{Agent, discovery},
    plan::LeftOut,
};
use crate::{
    config::{self, Config},
    discover::{Command, Refresher},
    kernel::{Pins, Plane},
};

impl Agent {
    /// Reads the configuration again and puts it in force, or leaves everything as it is.
    pub(super) async fn reload(&mut self, refresher: &Refresher) -> Result<(), Refused> {
        let result = self.try_reload(refresher).await;
        match &result {
            Ok(()) => {
                self.reloads_done += 1;
                self.reload_problem = None;
                info!("configuration reloaded");
            }
            Err(refused) => {
                self.reloads_refused += 1;
                self.reload_problem = Some(refused.message.clone());
                error!("configuration not reloaded: {}", refused.message);
            }
        }
        result
    }

    async fn try_reload(&mut self, refresher: &Refresher) -> Result<(), Refused> {
        let parsed = config::load(&self.path).map_err(|errors| Refused {
            message: errors.to_string(),
            configuration: true,
        })?;
        let config = parsed.config;
        if config.agent != self.world.config.agent {
            return Err(Refused {
                message: "[agent] cannot change while the agent runs: restart it; the kernel goes on meanwhile".into(),
                configuration: true,
            });
        }
        let kernel = |error: anyhow::Error| Refused {
            message: format!("{error:#}"),
            configuration: false,
        };
        let warnings = super::steer::checked(&self.exits, &config)
            .await
            .map_err(|error| Refused {
                message: format!("{error:#}"),
                configuration: true,
            })?;
        self.world.look_around().await.map_err(kernel)?;
        let before = self.world.config.clone();
        let targets_before = self.world.targets.clone();
        self.world.configure(config);
        if let Err(error) = self.put_in_force(&before).await {
            // What was in force is put back; what the kernel refused to take it never had.
            let message = format!("{error:#}");
            self.world.configure(before.clone());
            if let Err(error) = self.put_in_force(&before).await {
                warn!("the configuration before could not be put back whole: {error:#}");
            }
            return Err(kernel(anyhow::anyhow!(message)));
        }
        self.exits.note_warnings(warnings);
        if self.world.targets != targets_before {
            // Other names are wanted: what was found of unknown names is not to outlive that.
            self.recovered.clear();
        }
        self.follow_probes();
        refresher.command(Command::Configure(discovery(&self.world.config)));
        refresher.command(Command::Replace(self.world.names()));
        let asked = |config: &Config| {
            (
                config.discovery.resolvers.clone(),
                config.discovery.routes.clone(),
            )
        };
        if asked(&self.world.config) != asked(&before) {
            refresher.command(Command::RefreshNow);
        }
        Ok(())
    }

    /// The kernel's side of a reload. Other sizes need other maps: those are filled, then the links move over.
    async fn put_in_force(&mut self, before: &Config) -> Result<()> {
        self.world.follow_geoip();
        let config = self.world.config.clone();
        self.exits.configure(&config).await?;
        // An exit is there before the first packet is marked for it, and goes after the last.
        self.steer_first().await?;
        let room_before = self.left_out;
        self.put_tables_in_force(before).await?;
        self.refuse_without_room(&room_before)?;
        self.follow_tunnels().await?;
        self.steer_last().await
    }

    /// A configuration that finds no room for its policies would be in force by halves.
    fn refuse_without_room(&self, before: &LeftOut) -> Result<()> {
        let LeftOut {
            policies, choices, ..
        } = self.left_out;
        if policies > before.policies {
            bail!(
                "{policies} endpoints find no room for what this configuration says of them: raise limits.policies \
                 (now {})",
                self.world.config.limits.policies
            );
        }
        if choices > before.choices {
            bail!(
                "{choices} endpoints find no room for what this configuration says of their clients: raise \
                 limits.choices (now {}) or limits.clients (now {})",
                self.world.config.limits.choices,
                self.world.config.limits.clients
            );
        }
        Ok(())
    }

    async fn put_tables_in_force(&mut self, before: &Config) -> Result<()> {
        if *self.plane.limits() != self.world.config.sizes() {
            let settings = self.plane.settings();
            self.plane = Plane::open(
                Pins::new(self.world.config.agent.pin_dir()),
                settings,
                self.world.config.sizes(),
            )?;
            self.activity.clear();
            self.hold_tunnels(before.exits.is_empty())?;
            return self.reconcile(SystemTime::now(), true).await;
        }
        // Another way of attaching leaves the old one in place until the new one runs.
        let reattach = self.world.config.interfaces != before.interfaces
            || self.world.config.snoop != before.snoop
            || self.world.config.catalogue != before.catalogue;
        self.reconcile(SystemTime::now(), reattach).await
    }
}
