//! Child processes that end with the test, and waiting with a limit.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` gives a value.
///
/// # Errors
///
/// If it has given none after `limit`; `what` says what was waited for.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        thread::sleep(POLL);
    }
}

/// Waits until `condition` succeeds.
///
/// # Errors
///
/// The last error of `condition`, if it still fails after `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = None;
    wait_until(what, limit, || {
        condition().map_err(|error| last = Some(error)).ok()
    })
    .map_err(|timeout| match last {
        Some(error) => error.context(timeout),
        None => timeout,
    })
}

/// Runs a command to its end; its standard output.
///
/// # Errors
///
/// If it cannot be run, or fails: then with its arguments and standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command.stdin(Stdio::null()).output().with_context(|| {
        format!("run {command:?}\nhint: `cargo xtask test` installs what the tests need")
    })?;
    if !result.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            result.status,
            String::from_utf8_lossy(&result.stdout),
            String::from_utf8_lossy(&result.stderr),
        );
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs a command to its end, however it ends, but no longer than `limit`.
///
/// # Errors
///
/// If it cannot be run, or has to be killed: then with its standard error.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    // Files, because a pipe that nobody reads would make the child wait.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let ended = wait_until("the command to end", limit, || child.try_wait().transpose());
    let _ = child.kill();
    let status = child.wait()?;
    let read = |file: &mut File| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    ended.with_context(|| format!("{command:?}\n{}", String::from_utf8_lossy(&stderr)))??;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// A running program with its output in a file; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Memory that the process has resident, in kB.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// Starts `command`, both its outputs appended to `directory/name.log`.
    ///
    /// # Errors
    ///
    /// If the log cannot be opened or the program not started.
    pub fn spawn(mut command: Command, name: &str, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!("start {command:?}\nhint: `cargo xtask test` installs what the tests need")
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Sends a signal, one of `libc::SIG…`.
    ///
    /// # Errors
    ///
    /// If it has already ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        self.check_running()?;
        let id = i32::try_from(self.child.id())?;
        // SAFETY: a system call; the child has not been reaped (checked above,
        // and only this object reaps it), so the id is still its own.
        if unsafe { libc::kill(id, signal) } != 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("signal {signal} to {}", self.name));
        }
        Ok(())
    }

    /// Fails, with the log, if the process has ended.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended: {status}\n{}", self.name, self.log())),
        }
    }

    /// Waits for it to become ready as `ready` tells.
    ///
    /// # Errors
    ///
    /// With its log, if it ends first or is not ready within `limit`.
    pub fn wait_ready<T>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            self.check_running()?;
            match ready() {
                Ok(value) => return Ok(value),
                Err(error) if start.elapsed() > limit => {
                    return Err(error.context(format!(
                        "{} not ready within {limit:?}\n{}",
                        self.name,
                        self.log()
                    )));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// With its log, if it is still running after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait_until("the process to end", limit, || child.try_wait().transpose())
            .with_context(|| format!("{}\n{}", self.name, self.log()))?
            .map_err(Into::into)
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    ///
    /// If it cannot be reaped.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        if thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.log());
        }
    }
}
