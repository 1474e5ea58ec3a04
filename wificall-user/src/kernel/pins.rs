//! Where an instance keeps its pins: `<bpffs>/wificall/<instance>/`
//!
//! - `abi<ABI>-<generation>/<MAP>`: the maps. A new generation is made when the ABI or a size changes; the links are
//!   then moved over and the old one is removed.
//! - `links/<hook>-<ifindex>`, `links/xdp_generic-<ifindex>`: the TCX and XDP links. They stay where they are when programs and maps change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use wificall_common::abi::Hook;

use super::error::{Context as _, KernelError};

const LINKS: &str = "links";
const GENERIC: &str = "xdp_generic";
/// `f_type` of bpffs (uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// An instance's directory in bpffs.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// A directory of maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    pub number: u32,
    pub abi: u32,
    pub path: PathBuf,
}

impl Pins {
    /// The directory `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether anything is pinned here.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// If its parent is not on a bpffs, or cannot be written.
    pub(super) fn create(&self) -> Result<(), KernelError> {
        let links = self.root.join(LINKS);
        let existing = self
            .root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(KernelError::new(format!(
                "pin maps in {}: {} is not on a BPF file system",
                self.root.display(),
                existing.display()
            ))
            .hint(
                "mount one: `mount -t bpf bpf /sys/fs/bpf`; or set agent.bpffs to where yours is",
            ));
        }
        fs::create_dir_all(&links).doing(|| format!("create {}", links.display()))
    }

    /// The directories of maps, oldest first.
    ///
    /// # Errors
    ///
    /// If the directory exists and cannot be read.
    pub(super) fn generations(&self) -> Result<Vec<Generation>, KernelError> {
        let mut found = Vec::new();
        for (name, path) in entries(&self.root)? {
            if let Some(rest) = name.strip_prefix("abi")
                && let Some((abi, number)) = rest.split_once('-')
                && let (Ok(abi), Ok(number)) = (abi.parse(), number.parse())
            {
                found.push(Generation { number, abi, path });
            }
        }
        found.sort();
        Ok(found)
    }

    /// The path of a generation that does not exist yet.
    pub(super) fn generation(&self, abi: u32, number: u32) -> Generation {
        Generation {
            number,
            abi,
            path: self.root.join(format!("abi{abi}-{number}")),
        }
    }

    /// Where the link of a hook is pinned.
    pub(super) fn link(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.root
            .join(LINKS)
            .join(format!("{}-{ifindex}", hook.name()))
    }

    /// Where an XDP link is pinned; a generic one by a name of its own, for a link does not tell its mode.
    pub(super) fn xdp(&self, ifindex: u32, generic: bool) -> PathBuf {
        if generic {
            self.root.join(LINKS).join(format!("{GENERIC}-{ifindex}"))
        } else {
            self.link(Hook::Xdp, ifindex)
        }
    }

    /// The hooks that have a pinned link, and where it is.
    ///
    /// # Errors
    ///
    /// If the directory exists and cannot be read.
    pub(super) fn links(&self) -> Result<Vec<(Hook, u32, PathBuf)>, KernelError> {
        let mut found = Vec::new();
        for (name, path) in entries(&self.root.join(LINKS))? {
            if let Some((hook, ifindex)) = name.rsplit_once('-')
                && let Some(hook) = Hook::ALL
                    .into_iter()
                    .find(|known| known.name() == hook)
                    .or((hook == GENERIC).then_some(Hook::Xdp))
                && let Ok(ifindex) = ifindex.parse()
            {
                found.push((hook, ifindex, path));
            }
        }
        Ok(found)
    }

    /// Removes the directory and whatever is still pinned in it, and its parent if that is empty then.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        for generation in self.generations()? {
            generation.remove()?;
        }
        remove_directory(&self.root.join(LINKS))?;
        remove_directory(&self.root)?;
        if let Some(parent) = self.root.parent() {
            // Other instances may live there.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

impl Generation {
    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(super) fn create(&self) -> Result<(), KernelError> {
        fs::create_dir(&self.path).doing(|| format!("create {}", self.path.display()))
    }

    /// Removes the directory and its pins.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        remove_directory(&self.path)
    }
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, KernelError> {
    let reading = || format!("read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(reading),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.doing(reading)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn remove_directory(path: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a terminated string and a buffer of the right type.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded and filled it.
    let kind = unsafe { stat.assume_init() }.f_type;
    // The type of `f_type` differs between targets; the magic has 32 bits.
    (kind as u64) & 0xffff_ffff == BPF_FS_MAGIC
}
