//! The memory on disk, so that the agent classifies after a restart before its first query.
//!
//! One JSON file with a format name and version. It is replaced as a whole (written beside,
//! synced, renamed, directory synced), so a crash leaves the old one or the new one. A file that
//! cannot be read is set aside under another name and never a reason not to start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::memory::{Entry, NameState};
use super::{Bounds, Family, Memory};

const FORMAT: &str = "wificall addresses";
const VERSION: u32 = 1;

/// A larger file is not ours: [`Bounds::default`] makes about 4 MiB.
const SIZE_MAX: u64 = 64 << 20;

/// How many unreadable files are set aside before the last is replaced.
const ASIDE_MAX: u32 = 9;

/// Only root reads which carriers' users were here, and when.
const FILE_MODE: u32 = 0o600;

/// What was found on disk.
#[derive(Debug)]
pub struct Loaded {
    /// The memory; empty if there was none that could be read.
    pub memory: Memory,
    /// What was wrong with the file, and where it is now.
    pub warning: Option<String>,
}

/// The memory could not be written. The file on disk is as it was.
#[derive(Debug, Error)]
#[error("{operation} {}", path.display())]
pub struct SaveError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads the memory of `path`. A missing file is an empty memory; an unreadable one is set aside
/// as `<path>.unreadable-<n>`.
#[must_use]
pub fn load(path: &Path, keep: Duration, bounds: Bounds) -> Loaded {
    let empty = || Memory::new(keep, bounds);
    let problem = match read(path) {
        Ok(None) => {
            return Loaded {
                memory: empty(),
                warning: None,
            };
        }
        Ok(Some(text)) => match Document::parse(&text) {
            Ok(document) => {
                return Loaded {
                    memory: document.into_memory(empty()),
                    warning: None,
                };
            }
            Err(problem) => problem,
        },
        Err(error) => format!("cannot be read: {error}"),
    };
    let aside = match set_aside(path) {
        Ok(aside) => format!("it was set aside as {}", aside.display()),
        Err(error) => format!("it could not be set aside: {error}"),
    };
    Loaded {
        memory: empty(),
        warning: Some(format!(
            "{} {problem}; {aside}; starting with no remembered addresses",
            path.display()
        )),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it is too large to be a state file"));
    }
    Ok(Some(text))
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{n}"));
        PathBuf::from(name)
    };
    let free = (1..ASIDE_MAX).map(name).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| name(ASIDE_MAX));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes the memory to `path`, whose directory is made if there is none. Only one process at a
/// time may do so; the agent's instance lock sees to that.
///
/// # Errors
///
/// If any step fails, with the step and the file. `path` is then as it was.
pub fn save(path: &Path, memory: &Memory) -> Result<(), SaveError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let step = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| SaveError {
            operation,
            path,
            source,
        }
    };

    fs::create_dir_all(directory).map_err(step("create directory", directory))?;
    let text = serde_json::to_vec(&Document::from_memory(memory))
        .map_err(|error| step("encode", path)(error.into()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .map_err(step("create", &temporary))?;
    file.write_all(&text).map_err(step("write", &temporary))?;
    file.sync_all().map_err(step("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(step("replace", path))?;
    // The rename itself lasts only once the directory is on disk.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(step("sync directory", directory))
}

/// Read first and alone, so that a newer format is recognised whatever else is in it.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: String,
    version: u32,
    names: BTreeMap<String, SavedName>,
    addresses: BTreeMap<IpAddr, SavedAddress>,
}

#[derive(Default, Serialize, Deserialize)]
struct SavedName {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv4: Option<SavedAsked>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv6: Option<SavedAsked>,
}

/// The last answer with addresses. Failures are not kept: the next run will see for itself.
#[derive(Serialize, Deserialize)]
struct SavedAsked {
    last_success: Seconds,
    ttl: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedAddress {
    first_seen: Seconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_traffic: Option<Seconds>,
    /// The last answer of each name.
    answers: BTreeMap<String, Seconds>,
}

/// A time, in whole seconds since 1970 UTC.
#[derive(Copy, Clone, Serialize, Deserialize)]
struct Seconds(u64);

impl From<SystemTime> for Seconds {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Self(since.map_or(0, |since| since.as_secs()))
    }
}

impl From<Seconds> for SystemTime {
    /// Times that the platform cannot hold become 1970.
    fn from(seconds: Seconds) -> Self {
        let since = Duration::from_secs(seconds.0);
        Self::UNIX_EPOCH
            .checked_add(since)
            .unwrap_or(Self::UNIX_EPOCH)
    }
}

impl Document {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let torn = |error| format!("is torn or no state file of wificall: {error}");
        let header: Header = serde_json::from_slice(text).map_err(torn)?;
        if header.format != FORMAT {
            return Err(format!("is no state file of wificall: {:?}", header.format));
        }
        if header.version != VERSION {
            return Err(format!(
                "has format version {}, and this program reads version {VERSION}",
                header.version
            ));
        }
        serde_json::from_slice(text).map_err(torn)
    }

    fn from_memory(memory: &Memory) -> Self {
        let saved = |state: &NameState, family| {
            let asked = state.asked(family);
            Some(SavedAsked {
                last_success: asked.last_success?.into(),
                ttl: asked.ttl.unwrap_or_default().as_secs(),
            })
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            names: memory
                .names
                .iter()
                .filter(|(_, state)| state.last_success().is_some())
                .map(|(name, state)| {
                    let ipv4 = saved(state, Family::V4);
                    let ipv6 = saved(state, Family::V6);
                    (name.to_string(), SavedName { ipv4, ipv6 })
                })
                .collect(),
            addresses: memory
                .addresses
                .iter()
                .map(|(address, entry)| {
                    let answers = entry.answers.iter();
                    let saved = SavedAddress {
                        first_seen: entry.first_seen.into(),
                        last_traffic: entry.last_traffic.map(Into::into),
                        answers: answers
                            .map(|(n, at)| (n.to_string(), (*at).into()))
                            .collect(),
                    };
                    (*address, saved)
                })
                .collect(),
        }
    }

    /// The bounds hold here too: they may have been changed, and the file with them.
    fn into_memory(self, mut memory: Memory) -> Memory {
        let bounds = memory.bounds();
        for (name, saved) in self.names {
            let state = memory.names.entry(name.into()).or_default();
            for (family, saved) in [(Family::V4, saved.ipv4), (Family::V6, saved.ipv6)] {
                if let Some(saved) = saved {
                    let asked = state.asked_mut(family);
                    asked.last_success = Some(saved.last_success.into());
                    asked.ttl = Some(Duration::from_secs(saved.ttl));
                }
            }
        }
        let mut counts: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (address, saved) in self.addresses {
            if memory.addresses.len() >= bounds.total {
                break;
            }
            let mut answers = BTreeMap::new();
            for (name, at) in saved.answers {
                // One copy of each name is shared by all its addresses.
                let name = match memory.names.get_key_value(name.as_str()) {
                    Some((known, _)) => known.clone(),
                    None => Arc::from(name),
                };
                let count = counts.entry(name.clone()).or_default();
                if *count < bounds.per_name {
                    *count += 1;
                    memory.names.entry(name.clone()).or_default();
                    answers.insert(name, at.into());
                }
            }
            if !answers.is_empty() {
                let entry = Entry {
                    first_seen: saved.first_seen.into(),
                    last_traffic: saved.last_traffic.map(Into::into),
                    answers,
                };
                memory.addresses.insert(address, entry);
            }
        }
        memory
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
