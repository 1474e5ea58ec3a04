//! A place for an agent: a bpffs, a run directory and a state directory of its own.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::netns::{is_stale, owner};

const BASE: &str = "/run/wificall-test";
const PREFIX: &str = "p-";

/// A directory with `bpf` (a bpffs), `run` and `state` in it, all gone when dropped.
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// If the directories cannot be made or the bpffs cannot be mounted.
    pub fn new() -> Result<Self> {
        static STALE: Once = Once::new();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        STALE.call_once(remove_stale);

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(BASE).join(format!("{PREFIX}{}-{number}", std::process::id()));
        for directory in ["bpf", "run", "state"] {
            fs::create_dir_all(path.join(directory))
                .with_context(|| format!("create {}\nhint: run as root", path.display()))?;
        }
        let home = Self { path };
        home.mount()?;
        Ok(home)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bpffs in it.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.path.join("bpf")
    }

    fn mount(&self) -> Result<()> {
        let target = CString::new(self.bpffs().as_os_str().as_bytes())?;
        // SAFETY: every pointer is to a NUL-terminated string that outlives the call.
        let mounted = unsafe {
            libc::mount(
                c"bpf".as_ptr(),
                target.as_ptr(),
                c"bpf".as_ptr(),
                0,
                std::ptr::null(),
            )
        };
        if mounted != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("mount a bpffs at {}", self.bpffs().display()));
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove_home(&self.path);
    }
}

/// Unmounts and removes, as far as that goes.
fn remove_home(path: &Path) {
    if let Ok(target) = CString::new(path.join("bpf").as_os_str().as_bytes()) {
        // SAFETY: a NUL-terminated string that outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
    let _ = fs::remove_dir_all(path);
}

fn remove_stale() {
    remove(|name| is_stale(name, PREFIX));
}

/// Removes the places that a process has left.
pub(crate) fn remove_of(process: u32) {
    remove(|name| owner(name, PREFIX) == Some(process));
}

fn remove(which: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(BASE).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&which) {
            remove_home(&entry.path());
        }
    }
}
