//! What is around the hooks: who could be making calls, and what may take packets past the programs.

use serde::{Deserialize, Serialize};

/// What is around the hooks, some seconds ago at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Who is on the access interfaces.
    pub stations: Vec<Stations>,
    /// What may take packets past the hooks of interfaces; one an interface that has hooks.
    pub bypasses: Vec<Bypass>,
    /// Tracked connections on UDP 500 and 4500 and of ESP, and those that a flowtable has taken over; `None` where nothing
    /// is tracked.
    pub offloaded: Option<Offloaded>,
    /// What could not be read of all this.
    pub problem: Option<String>,
}

/// Who is on an access interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stations {
    /// Its name.
    pub interface: String,
    /// `nl80211` for associated stations, `neighbours` for link-layer addresses that were there within 15 minutes.
    pub source: String,
    /// How many.
    pub count: u64,
}

/// What may take packets past the hooks of an interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bypass {
    /// Its name.
    pub interface: String,
    /// Why it is thought so; `None` if nothing is known that does.
    pub why: Option<String>,
}

/// Tracked connections, and those whose packets do not go all the way through the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloaded {
    /// All.
    pub tracked: u64,
    /// Forwarded by a flowtable in software.
    pub software: u64,
    /// Forwarded by hardware.
    pub hardware: u64,
}

impl Surroundings {
    /// What is wrong, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let bypasses = self.bypasses.iter().filter_map(|bypass| {
            let why = bypass.why.as_ref()?;
            let interface = &bypass.interface;
            Some(format!(
                "packets may pass `{interface}` unseen: {why}; take the offload of forwarded traffic off, or leave UDP \
                 500 and 4500 and ESP out of it"
            ))
        });
        bypasses.chain(self.problem.clone())
    }
}
