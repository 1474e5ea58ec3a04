//! The recorded numbers of instructions: `tests/instructions.toml`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use wificall_common::abi::Features;

use super::verifier::{self, Effort};
use crate::vectors::Setup;

/// Embedded: a guest that runs the vectors has no repository.
const RECORDED: &str = include_str!("../../instructions.toml");
/// What to do about a difference.
pub const HINT: &str = "hint: if the change is wanted, `cargo xtask bench --record-instructions` records the new numbers in \
                        tests/instructions.toml";

/// Instructions by program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// In the object.
    pub object: BTreeMap<String, usize>,
    /// That the verifier walked, by the kernel's release: with all features, and with none.
    pub verified: BTreeMap<String, BTreeMap<String, [u64; 2]>>,
}

impl Instructions {
    /// What is recorded.
    ///
    /// # Errors
    ///
    /// If the file is wrong in itself.
    pub fn recorded() -> Result<Self> {
        toml::from_str(RECORDED).context("tests/instructions.toml")
    }

    /// What the object under test has, and this kernel says of it.
    ///
    /// # Errors
    ///
    /// If this kernel refuses a program.
    pub fn here() -> Result<Self> {
        let all = Setup {
            features: Setup::DEFAULT.features | Features::HANDOVER | Features::CAP,
            pref64: Some(([0; 16], 96)),
        };
        let none = Setup {
            features: 0,
            pref64: None,
        };
        let (all, none) = (verifier::efforts(&all)?, verifier::efforts(&none)?);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("read the kernel's release")?;
        let verified = |(full, bare): (&Effort, &Effort)| {
            (full.program.clone(), [full.verified, bare.verified])
        };
        Ok(Self {
            object: all
                .iter()
                .map(|effort| (effort.program.clone(), effort.instructions))
                .collect(),
            verified: BTreeMap::from([(
                release.trim().to_owned(),
                all.iter().zip(&none).map(verified).collect(),
            )]),
        })
    }

    /// What is not as `recorded`. A kernel that is not recorded is compared with nothing.
    #[must_use]
    pub fn differences(&self, recorded: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.object != recorded.object {
            found.push(format!(
                "instructions in the object: {:?}, recorded: {:?}",
                self.object, recorded.object
            ));
        }
        for (release, verified) in &self.verified {
            if let Some(known) = recorded.verified.get(release)
                && known != verified
            {
                found.push(format!(
                    "instructions that Linux {release} verified, [all features, none]: {verified:?}, recorded: {known:?}"
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(object: usize, release: &str, verified: u64) -> Instructions {
        let name = || "in_up".to_owned();
        Instructions {
            object: BTreeMap::from([(name(), object)]),
            verified: BTreeMap::from([(
                release.to_owned(),
                BTreeMap::from([(name(), [verified, 1])]),
            )]),
        }
    }

    #[test]
    fn numbers_are_exact_where_they_are_recorded() {
        let recorded = counts(10, "5.10", 100);
        assert!(
            counts(10, "5.10", 100).differences(&recorded).is_empty(),
            "the same"
        );
        assert_eq!(counts(11, "5.10", 100).differences(&recorded).len(), 1);
        assert_eq!(counts(10, "5.10", 99).differences(&recorded).len(), 1);
        assert!(counts(10, "6.18", 99).differences(&recorded).is_empty());
    }
}
