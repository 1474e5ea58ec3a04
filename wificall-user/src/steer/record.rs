//! What we have installed, on disk: written before it is installed, so that it is removed whatever happens to us.
//!
//! The file lies beside the instance's lock, where a reboot takes it away with the rules and routes themselves.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::net::{Rule, Sysctl};

/// A sysctl that we have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    pub sysctl: Sysctl,
    /// Of which device, or `all`.
    pub device: String,
    /// What it was.
    pub before: u32,
    /// What we have set it to.
    pub value: u32,
}

/// What an instance has installed, or was about to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Tables: the default routes there with our protocol number are ours.
    pub tables: BTreeSet<u32>,
    /// Sysctls.
    pub sysctls: BTreeSet<Changed>,
}

impl Record {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the record of an instance; empty if there is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is none of ours.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "read {}, which says what exits have installed\n  hint: `ip rule` and `ip route` show what there is by \
                 its protocol number 87; remove that by hand, then the file",
                path.display()
            )
        })
    }

    /// Writes it, as a whole or not at all; an empty one is removed.
    ///
    /// # Errors
    ///
    /// If a step fails, with the file.
    pub fn save(&self, path: &Path) -> Result<()> {
        if self.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("remove {}", path.display()))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let new = path.with_extension("json.new");
        let text = serde_json::to_vec(self).context("encode what exits install")?;
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("replace {}", path.display()))
    }

    /// The records of the other instances below the same directory, by instance.
    #[must_use]
    pub fn of_others(path: &Path) -> Vec<(String, Self)> {
        let (Some(file), Some(own)) = (path.file_name(), path.parent()) else {
            return Vec::new();
        };
        let Some(entries) = own.parent().and_then(|parent| fs::read_dir(parent).ok()) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.path() != own)
            .filter_map(|entry| {
                let record = Self::load(&entry.path().join(file)).ok()?;
                let name = entry.file_name().to_string_lossy().into_owned();
                (!record.is_empty()).then_some((name, record))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Family;
    use crate::steer::sample;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |instance: &str| {
            let directory = directory.path().join(instance);
            fs::create_dir_all(&directory).unwrap();
            directory.join("exits.json")
        };
        assert!(Record::load(&path("a")).unwrap().is_empty());
        let exit = sample::exit();
        let rule = Rule::own(Family::V6, exit.priority, exit.mark, exit.table);
        let record = Record {
            rules: [rule].into(),
            tables: [exit.table].into(),
            sysctls: [Changed {
                sysctl: Sysctl::RpFilter,
                device: "lan".to_owned(),
                before: 1,
                value: 2,
            }]
            .into(),
        };
        record.save(&path("a")).unwrap();
        assert_eq!(Record::load(&path("a")).unwrap(), record);
        assert_eq!(Record::of_others(&path("b")), [("a".to_owned(), record)]);
        assert_eq!(Record::of_others(&path("a")), []);
        fs::write(path("b"), "{\"rules\": 7}").unwrap();
        assert!(Record::load(&path("b")).is_err());
        Record::default().save(&path("a")).unwrap();
        assert!(!path("a").exists());
        Record::default().save(&path("a")).unwrap();
    }
}
