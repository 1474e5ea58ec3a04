//! What only a running agent knows of a packet that is explained.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use wificall_common::abi::{Features, MOVED, SEEN_SHIFT, Tunnel, TunnelKey};

use super::{agent::Agent, other::Arming, report::seconds, tunnels::step};
use crate::observe::Steering;

/// What the kernel has, and the exits.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// Whether other IPsec is dropped.
    pub arming: Arming,
    /// The load-time features.
    pub features: u32,
    /// `KEEP_…`.
    pub keep: u32,
    /// Which exits tunnels have.
    pub tunnels: BTreeMap<TunnelKey, Tunnel>,
    /// Now, as the kernel notes it of tunnels.
    pub now: u32,
    /// Now, in seconds since the Unix epoch.
    pub at: u64,
    /// The exits.
    pub steering: Vec<Steering>,
}

impl Live {
    /// Whether tunnels keep their exits: the programs set marks, and there are exits.
    pub(super) const fn keeps_exits(&self) -> bool {
        const NEEDED: u32 = Features::MARK | Features::EXITS;
        self.features & NEEDED == NEEDED
    }

    /// The seconds since a step of [`Tunnel::began`].
    fn age(&self, began: u32) -> u64 {
        let steps = u64::from(self.now.saturating_sub(began & !MOVED));
        Duration::from_nanos(steps << SEEN_SHIFT).as_secs()
    }

    /// How long ago that was.
    pub(super) fn ago(&self, began: u32) -> String {
        // It was there before anybody noted it.
        if began & !MOVED == 0 {
            return "nobody knows when".into();
        }
        format!("{} s ago", self.age(began))
    }

    /// When that was, in seconds since the Unix epoch.
    pub(super) fn since(&self, began: u32) -> Option<u64> {
        (began & !MOVED != 0).then(|| self.at.saturating_sub(self.age(began)))
    }
}

impl Agent {
    pub(super) fn live(&self) -> Result<Live> {
        Ok(Live {
            arming: self.arming,
            features: self.plane.settings().features,
            keep: self.plane.keep()?,
            tunnels: self.plane.tunnels()?.into_iter().collect(),
            now: step(),
            at: seconds(SystemTime::now()),
            steering: self.steering_report(),
        })
    }
}
