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

use wificall_common::abi::{COMPANIONS_SIZE, PREF64S};

use super::memory::{self, NameState};
use super::seen::{self, SeenName};
use super::{Bounds, Family, Found, Memory, Visited, observed};

const FORMAT: &str = "wificall addresses";
/// Version 1 had no names and addresses from clients and no NAT64 prefixes.
const VERSION: u32 = 2;
const OLDEST: u32 = 1;

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
    /// Names that visited countries' NAPTR records gave, of those that have addresses.
    pub found: Vec<Found>,
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
    let problem = match peek(path, keep, bounds) {
        Ok(loaded) => return loaded,
        Err(problem) => problem,
    };
    let aside = match set_aside(path) {
        Ok(aside) => format!("it was set aside as {}", aside.display()),
        Err(error) => format!("it could not be set aside: {error}"),
    };
    Loaded {
        memory: Memory::new(keep, bounds),
        warning: Some(format!(
            "{} {problem}; {aside}; starting with no remembered addresses",
            path.display()
        )),
        found: Vec::new(),
    }
}

/// The same for those who are not the agent: an unreadable file stays where it is.
///
/// # Errors
///
/// What is wrong with the file, without its name.
pub fn peek(path: &Path, keep: Duration, bounds: Bounds) -> Result<Loaded, String> {
    let empty = Memory::new(keep, bounds);
    let text = read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let Some(text) = text else {
        return Ok(Loaded {
            memory: empty,
            warning: None,
            found: Vec::new(),
        });
    };
    let mut document = Document::parse(&text)?;
    let found = std::mem::take(&mut document.found).into_iter();
    Ok(Loaded {
        found: found
            .map(|(name, at)| Found {
                at: at.into(),
                names: vec![name],
            })
            .collect(),
        memory: document.into_memory(empty),
        warning: None,
    })
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

/// Writes the memory, and what was found in visited countries, to `path`, whose directory is made if there is none. Only one process at a
/// time may do so; the agent's instance lock sees to that.
///
/// # Errors
///
/// If any step fails, with the step and the file. `path` is then as it was.
pub fn save(path: &Path, memory: &Memory, visited: &Visited) -> Result<(), SaveError> {
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
    let text = serde_json::to_vec(&Document::of(memory, visited))
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
    #[serde(default)]
    seen: BTreeMap<String, SavedSeen>,
    #[serde(default)]
    observed: BTreeMap<IpAddr, SavedObserved>,
    #[serde(default)]
    nat64: BTreeMap<String, Seconds>,
    /// Addresses of companion names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    companions: BTreeMap<String, BTreeMap<IpAddr, Seconds>>,
    /// Names that NAPTR records gave, and at which name.
    #[serde(default)]
    found: BTreeMap<String, String>,
}

/// A name that clients asked for.
#[derive(Serialize, Deserialize)]
struct SavedSeen {
    first_seen: Seconds,
    last_seen: Seconds,
    client: IpAddr,
    #[serde(flatten)]
    asked: SavedName,
}

/// An address of the observed tier.
#[derive(Serialize, Deserialize)]
struct SavedObserved {
    first_seen: Seconds,
    last_seen: Seconds,
    last_traffic: Option<Seconds>,
    client: IpAddr,
    names: BTreeMap<String, Seconds>,
    ike: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caught: Option<Seconds>,
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
        if !(OLDEST..=VERSION).contains(&header.version) {
            return Err(format!(
                "has format version {}, and this program reads versions {OLDEST} to {VERSION}",
                header.version
            ));
        }
        serde_json::from_slice(text).map_err(torn)
    }

    fn of(memory: &Memory, visited: &Visited) -> Self {
        let answered = |(name, state): (&Arc<str>, &NameState)| {
            state.last_success()?;
            Some((name.to_string(), SavedName::of(state)))
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            names: memory.names.iter().filter_map(answered).collect(),
            addresses: memory
                .addresses
                .iter()
                .map(|(address, entry)| {
                    let saved = SavedAddress {
                        first_seen: entry.first_seen.into(),
                        last_traffic: entry.last_traffic.map(Into::into),
                        answers: by_name(&entry.answers),
                    };
                    (*address, saved)
                })
                .collect(),
            seen: memory
                .seen
                .names
                .iter()
                .map(|(name, seen)| {
                    let saved = SavedSeen {
                        first_seen: seen.first_seen.into(),
                        last_seen: seen.last_seen.into(),
                        client: seen.client,
                        asked: SavedName::of(&seen.state),
                    };
                    (name.to_string(), saved)
                })
                .collect(),
            observed: memory
                .observed
                .addresses
                .iter()
                .map(|(address, entry)| {
                    let saved = SavedObserved {
                        first_seen: entry.first_seen.into(),
                        last_seen: entry.last_seen.into(),
                        last_traffic: entry.last_traffic.map(Into::into),
                        client: entry.client,
                        names: by_name(&entry.names),
                        ike: entry.ike.map(Into::into),
                        caught: entry.caught.map(Into::into),
                    };
                    (*address, saved)
                })
                .collect(),
            nat64: memory
                .nat64
                .prefixes
                .iter()
                .map(|(prefix, at)| (prefix.to_string(), (*at).into()))
                .collect(),
            companions: memory
                .companions
                .names
                .iter()
                .filter(|(_, addresses)| !addresses.is_empty())
                .map(|(name, addresses)| {
                    let addresses = addresses.iter();
                    let addresses = addresses.map(|(address, at)| (*address, (*at).into()));
                    (name.to_string(), addresses.collect())
                })
                .collect(),
            // The others can be found again: it is addresses that must not lose their owners.
            found: visited
                .found()
                .filter(|(name, _)| memory.count_of(name) > 0)
                .map(|(name, at)| (name.to_string(), at.to_string()))
                .collect(),
        }
    }

    /// The bounds hold here too: they may have been changed, and the file with them.
    fn into_memory(self, mut memory: Memory) -> Memory {
        let bounds = memory.bounds();
        for (name, saved) in self.names {
            let state = memory.names.entry(name.into()).or_default();
            saved.restore(state);
        }
        // Before the addresses: names known only from these are no configured names.
        for (name, saved) in self.seen.into_iter().take(seen::NAMES_MAX) {
            let name = Arc::from(name);
            // The catalogue in force will say whether it still counts.
            let owners = memory.owners_of_name(&name).unwrap_or_default();
            let mut state = NameState::of(owners);
            saved.asked.restore(&mut state);
            let seen = SeenName {
                // One that had addresses is asked again at once, and any other in its turn.
                admitted: state.last_success().map(|_| saved.last_seen.into()),
                state,
                first_seen: saved.first_seen.into(),
                last_seen: saved.last_seen.into(),
                client: saved.client,
            };
            memory.seen.names.insert(name, seen);
        }
        let mut counts: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (address, saved) in self.addresses {
            if memory.addresses.len() >= bounds.total + bounds.corroborated {
                break;
            }
            let mut answers = BTreeMap::new();
            for (name, at) in saved.answers {
                // One copy of each name is shared by all its addresses.
                let name = shared(&memory, name);
                let count = counts.entry(name.clone()).or_default();
                if *count < bounds.per_name {
                    *count += 1;
                    if !memory.seen.names.contains_key(&name) {
                        memory.names.entry(name.clone()).or_default();
                    }
                    answers.insert(name, at.into());
                }
            }
            if !answers.is_empty() {
                let entry = memory::Entry {
                    first_seen: saved.first_seen.into(),
                    last_traffic: saved.last_traffic.map(Into::into),
                    answers,
                };
                memory.addresses.insert(address, entry);
            }
        }
        for (address, saved) in self.observed.into_iter().take(observed::ADDRESSES_MAX) {
            let names = saved.names.into_iter().take(observed::NAMES_MAX);
            let entry = observed::Entry {
                first_seen: saved.first_seen.into(),
                last_seen: saved.last_seen.into(),
                last_traffic: saved.last_traffic.map(Into::into),
                client: saved.client,
                names: names
                    .map(|(name, at)| (shared(&memory, name), at.into()))
                    .collect(),
                ike: saved.ike.map(Into::into),
                caught: saved.caught.map(Into::into),
                spent: false,
            };
            memory.observed.addresses.insert(address, entry);
        }
        for (prefix, at) in self.nat64.into_iter().take(PREF64S) {
            if let Ok(prefix) = prefix.parse() {
                memory.nat64.prefixes.insert(prefix, at.into());
            }
        }
        for (name, addresses) in self.companions {
            let addresses = addresses.into_iter().take(COMPANIONS_SIZE as usize);
            let addresses = addresses.map(|(address, at)| (address, at.into()));
            let name: Arc<str> = name.into();
            memory.companions.names.insert(name, addresses.collect());
        }
        memory
    }
}

impl SavedName {
    fn of(state: &NameState) -> Self {
        let saved = |family| {
            let asked = state.asked(family);
            Some(SavedAsked {
                last_success: asked.last_success?.into(),
                ttl: asked.ttl.unwrap_or_default().as_secs(),
            })
        };
        Self {
            ipv4: saved(Family::V4),
            ipv6: saved(Family::V6),
        }
    }

    fn restore(self, state: &mut NameState) {
        for (family, saved) in [(Family::V4, self.ipv4), (Family::V6, self.ipv6)] {
            if let Some(saved) = saved {
                let ttl = Duration::from_secs(saved.ttl);
                state.restore(family, saved.last_success.into(), ttl);
            }
        }
    }
}

fn by_name(times: &BTreeMap<Arc<str>, SystemTime>) -> BTreeMap<String, Seconds> {
    let times = times.iter();
    times
        .map(|(name, at)| (name.to_string(), (*at).into()))
        .collect()
}

/// A name, as the memory has it already if it does.
fn shared(memory: &Memory, name: String) -> Arc<str> {
    let configured = memory
        .names
        .get_key_value(name.as_str())
        .map(|(name, _)| name);
    let seen = memory
        .seen
        .names
        .get_key_value(name.as_str())
        .map(|(name, _)| name);
    configured.or(seen).cloned().unwrap_or_else(|| name.into())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
