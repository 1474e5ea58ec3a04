//! The time that a CPU spends on frames.
//!
//! Forwarding is softirq work. Where it is done inside the injecting system call, it is time of the injecting thread; if
//! there is too much of it at once, the kernel hands the rest to the CPU's `ksoftirqd`. So both are added up. Neither has
//! the time in it that other work on the machine takes, nor, in a virtual machine, what the host takes.
//!
//! Kernels with `IRQ_TIME_ACCOUNTING` charge softirq work to no thread: there it has to be the kernel's own measure of
//! the test run, which has what the host takes in it, and is a whole number of nanoseconds.

use std::{fs, io, mem, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

/// The CPUs that this process may run on.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn usable() -> Result<Vec<usize>> {
    // SAFETY: plain data, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` outlives the call and has the size that is passed.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("read the CPU affinity");
    }
    let limit = 8 * size_of_val(&set);
    // SAFETY: the index is below the size of the set.
    Ok((0..limit)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect())
}

/// Keeps this thread on one CPU.
///
/// # Errors
///
/// If it may not run there.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: plain data, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: a CPU from `usable` is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` outlives the call and has the size that is passed.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("run on CPU {cpu}"));
    }
    Ok(())
}

/// Times work of this thread and of its CPU's `ksoftirqd`.
pub struct Clock<'a> {
    softirqd: &'a Softirqd,
    start: Duration,
}

impl<'a> Clock<'a> {
    /// Begins, on a thread that is pinned to the CPU of this softirq thread.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub fn start(softirqd: &'a Softirqd) -> Result<Self> {
        let start = read(softirqd)?;
        Ok(Self { softirqd, start })
    }

    /// Time since it began.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub fn elapsed(&self) -> Result<Duration> {
        Ok(read(self.softirqd)? - self.start)
    }
}

fn read(Softirqd(path): &Softirqd) -> Result<Duration> {
    // Time on the CPU in nanoseconds, time in its queue, time slices (Documentation/scheduler/sched-stats.rst).
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let ran: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32) + Duration::from_nanos(ran))
}

/// The statistics of a CPU's softirq thread.
pub struct Softirqd(PathBuf);

impl Softirqd {
    /// Finds them.
    ///
    /// # Errors
    ///
    /// If there is no such thread.
    pub fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        for entry in fs::read_dir("/proc")?.flatten() {
            let path = entry.path();
            // Others come and go meanwhile.
            if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
                return Ok(Self(path.join("schedstat")));
            }
        }
        bail!("no thread is called {name}")
    }
}
