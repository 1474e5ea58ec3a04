//! Whether anything of a lab is still there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use wificall_tests::process::output;

/// Where `ip netns` keeps its namespaces: a mount that it makes when first used.
const NAMESPACES: &str = "/run/netns";
/// Where the library of the labs keeps the agents' directories and their bpffs.
const HOMES: &str = "/run/wificall-test";

/// What belongs to the lab of one process.
pub struct Leftovers {
    pid: u32,
    mounted: bool,
}

impl Leftovers {
    /// Of a process that has made nothing yet, or has made all of it.
    pub fn of(pid: u32) -> Self {
        Self {
            pid,
            mounted: mounts().iter().any(|mount| mount == Path::new(NAMESPACES)),
        }
    }

    /// Everything that there is of it. What `ip` and the library needed to begin with, and nobody
    /// else needs, is removed first.
    pub fn find(&self) -> Vec<PathBuf> {
        if !self.mounted {
            unmount(Path::new(NAMESPACES), 0);
        }
        // Both fail while others have something in them, which is right.
        let _ = fs::remove_dir(NAMESPACES);
        let _ = fs::remove_dir(HOMES);
        let mut found = self.namespaces();
        let home = Path::new(HOMES).join(format!("p-{}-0", self.pid));
        found.extend(
            mounts()
                .into_iter()
                .filter(|mount| mount.starts_with(&home)),
        );
        found.extend(home.exists().then_some(home));
        found
    }

    /// Removes what a process left that had no time to: it was killed.
    ///
    /// # Errors
    ///
    /// If a namespace cannot be deleted.
    pub fn remove(&self) -> Result<()> {
        for path in self.namespaces() {
            let name = path.file_name().unwrap_or_default();
            output(Command::new("ip").args(["netns", "del"]).arg(name))?;
        }
        for path in self.find() {
            unmount(&path, libc::MNT_DETACH);
        }
        for path in self.find() {
            let _ = fs::remove_dir_all(path);
        }
        Ok(())
    }

    fn namespaces(&self) -> Vec<PathBuf> {
        let prefix = format!("wfct-{}-", self.pid);
        let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect()
    }
}

fn unmount(path: &Path, flags: libc::c_int) {
    use std::os::unix::ffi::OsStrExt as _;
    if let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) {
        // SAFETY: a NUL-terminated string that outlives the call.
        unsafe { libc::umount2(path.as_ptr(), flags) };
    }
}

/// Mount points; none in a lab has a character that /proc would escape.
fn mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .collect()
}
