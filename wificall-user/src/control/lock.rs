//! The lock that an instance's agent holds: one agent an instance.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The lock, held. Dropping it, or dying, lets go of it; the file stays, unless it is [removed](Self::remove).
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "take the lock {}: {} holds it\n  hint: stop that agent first, or give this one a name of its own with agent.instance",
        path.display(),
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The lock.
        path: PathBuf,
        /// Who; `None` if it has not said so yet.
        pid: Option<u32>,
    },
    /// The file cannot be made or locked.
    #[error("take the lock {}{}", path.display(), hint(source))]
    Io {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\n  hint: run as root, or set agent.run_dir to a directory that can be written"
        }
        _ => "",
    }
}

impl Lock {
    /// Takes the lock at once or not at all, and writes our process id into it. Makes its directory, for root only, if
    /// that is missing.
    ///
    /// # Errors
    ///
    /// If another process has it, or the file cannot be made.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        loop {
            let mut file = open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        pid: holder(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // `detach` may have removed the file between the two steps: this lock would then guard nothing.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(failed)?;
            return Ok(Self {
                file,
                path: path.to_owned(),
            });
        }
    }

    /// Removes the file while it is still locked, and its directory if that is empty then.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        if let Some(directory) = self.path.parent() {
            // Not empty if somebody keeps something of theirs there.
            let _ = fs::remove_dir(directory);
        }
        drop(self.file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        // Who can reach the control socket in there rules the agent.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab/lock");
        let lock = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        let ours = format!("process {} holds it", std::process::id());
        assert!(error.contains(&ours), "{error}");
        assert!(error.contains("\n  hint: "), "{error}");
        drop(lock);
        // Shorter and longer ids replace each other.
        fs::write(&path, "123456789012\n").unwrap();
        let lock = Lock::take(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        lock.remove().unwrap();
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn a_file_that_is_gone_guards_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = open(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        let _other = open(&path).unwrap();
        assert!(!is_at(&file, &path));
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        let error = Lock::take(Path::new("/proc/wificall/lock")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("take the lock /proc/wificall/lock")
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}
