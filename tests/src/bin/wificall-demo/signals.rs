//! Ctrl-C and its like end the demonstration early, by the way that removes the lab.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

extern "C" fn note(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Release);
}

/// From now on signals are noted.
pub fn catch() {
    set(note as extern "C" fn(libc::c_int) as libc::sighandler_t);
}

/// From now on signals have no effect, neither here nor in programs started from here: what removes
/// the lab must not be ended by a second Ctrl-C.
pub fn ignore() {
    set(libc::SIG_IGN);
}

fn set(handler: libc::sighandler_t) {
    for signal in SIGNALS {
        // SAFETY: the handler only stores to an atomic, which is allowed in one.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether a signal came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire)
}

/// Waits until `until`.
///
/// # Errors
///
/// At once, if a signal comes.
pub fn sleep_until(until: Instant) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    loop {
        if interrupted() {
            bail!("interrupted");
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK));
    }
}
