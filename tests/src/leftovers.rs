//! Removing what a program of labs leaves behind, however it ends.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::FromRawFd as _,
};

use anyhow::{Context as _, Result};

use crate::{home, netns};

/// Starts a process that waits for the end of this one, by whatever signal, and then removes the namespaces and mounts
/// that are left of it. What is dropped in order is gone before.
///
/// # Errors
///
/// If there can be no such process.
///
/// # Safety
///
/// This process must have one thread yet: the other one goes on after a fork.
pub unsafe fn remove_at_end() -> Result<()> {
    let mut ends = [0; 2];
    // SAFETY: room for both descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error()).context("make a pipe");
    }
    // SAFETY: just made; each is owned once in either process.
    let [mut reading, writing] = ends.map(|end| unsafe { File::from_raw_fd(end) });
    let process = std::process::id();
    // SAFETY: one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            drop(writing);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: no handler, so nothing runs.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            // The other end is never written to: this ends with its process.
            let _ = reading.read(&mut [0]);
            netns::remove_of(process);
            home::remove_of(process);
            // SAFETY: ends this process without running what the other one has registered.
            unsafe { libc::_exit(0) }
        }
        _ => {
            // Open until the end.
            std::mem::forget(writing);
            Ok(())
        }
    }
}
