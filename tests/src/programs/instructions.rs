//! The recorded numbers of instructions: `tests/instructions.toml`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use wificall_common::abi::Features;

use super::verifier;
use crate::vectors::Setup;

/// Embedded: a guest that runs the vectors has no repository.
const RECORDED: &str = include_str!("../../instructions.toml");
/// What the agent sets up for policies with marks and nothing more.
const USUAL: u32 = Features::DSCP
    | Features::MARK
    | Features::PRIORITY
    | Features::COUNT_ACCESS
    | Features::COUNT_UPLINK;
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
    /// That it left, likewise: with no features, the usual ones and all.
    pub translated: BTreeMap<String, BTreeMap<String, [usize; 3]>>,
    /// Bytes of machine code, likewise. Not compared: the same program takes a few more or less after the next boot.
    pub jited: BTreeMap<String, BTreeMap<String, [u32; 3]>>,
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
            features: Features::ALL,
            pref64: Some(([0; 16], 96)),
        };
        let with = |features| Setup {
            features,
            pref64: None,
        };
        let efforts = [
            verifier::efforts(&with(0))?,
            verifier::efforts(&with(USUAL))?,
            verifier::efforts(&all)?,
        ];
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("read the kernel's release")?;
        let release = release.trim();
        let [none, usual, all] = &efforts;
        let programs = || {
            all.iter()
                .zip(none.iter().zip(usual))
                .map(|(all, (none, usual))| (all.program.clone(), [none, usual, all]))
        };
        Ok(Self {
            object: all
                .iter()
                .map(|effort| (effort.program.clone(), effort.instructions))
                .collect(),
            verified: BTreeMap::from([(
                release.to_owned(),
                programs()
                    .map(|(name, [none, _, all])| (name, [all.verified, none.verified]))
                    .collect(),
            )]),
            translated: BTreeMap::from([(
                release.to_owned(),
                programs()
                    .map(|(name, three)| (name, three.map(|effort| effort.translated)))
                    .collect(),
            )]),
            jited: BTreeMap::from([(
                release.to_owned(),
                programs()
                    .map(|(name, three)| (name, three.map(|effort| effort.jited)))
                    .collect(),
            )]),
        })
    }

    /// Whether `recorded` knows this kernel. What another one verifies is compared with nothing.
    #[must_use]
    pub fn is_known(&self, recorded: &Self) -> bool {
        let knows = |release| recorded.verified.contains_key(release);
        self.verified.keys().all(knows)
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
        for (release, translated) in &self.translated {
            if let Some(known) = recorded.translated.get(release)
                && known != translated
            {
                found.push(format!(
                    "instructions that Linux {release} left, [no features, the usual, all]: {translated:?}, recorded: {known:?}"
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
        fn one<T>(name: &str, value: T) -> BTreeMap<String, T> {
            BTreeMap::from([(name.to_owned(), value)])
        }
        Instructions {
            object: one("in_up", object),
            verified: one(release, one("in_up", [verified, 1])),
            translated: one(release, one("in_up", [1, 2, 3])),
            jited: one(release, one("in_up", [10, 20, 30])),
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
        let mut other = counts(10, "5.10", 100);
        other.jited.clear();
        assert!(other.differences(&recorded).is_empty());
        for sizes in other.translated.values_mut().flat_map(BTreeMap::values_mut) {
            sizes[0] += 1;
        }
        assert_eq!(other.differences(&recorded).len(), 1);
    }

    #[test]
    fn a_kernel_that_is_not_recorded_is_told_apart() {
        let recorded = counts(10, "5.10", 100);
        assert!(counts(10, "5.10", 99).is_known(&recorded));
        let other = counts(10, "6.18", 99);
        assert!(other.differences(&recorded).is_empty());
        assert!(!other.is_known(&recorded));
    }
}
