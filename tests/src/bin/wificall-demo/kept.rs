//! A lab that stays: its process goes to the background with it, and removes it when told to.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wificall_tests::agent::{Agent, agent_binary};
use wificall_tests::lab::LIMIT;
use wificall_tests::process::wait_until;

use crate::leftovers::Leftovers;
use crate::scene::Scene;
use crate::signals;
use crate::text::put;
use crate::traffic::Traffic;

/// Process id of the one whose lab is kept, and the exit code that its summary gives. `cargo xtask
/// demo` waits for this file.
const FILE: &str = "/run/wificall-demo.pid";
/// The program of such a process.
const PROGRAM: &str = "wificall-demo";

/// Fails if a lab is kept already: one is enough to look at, and to remember.
///
/// # Errors
///
/// See above.
pub fn refuse_second() -> Result<()> {
    if let Some(pid) = owner()?.filter(|pid| is_alive(*pid)) {
        bail!(
            "the lab of process {pid} is still there\nhint: `cargo xtask demo --remove` removes it"
        );
    }
    Ok(())
}

/// Leaves the terminal's session, so that neither the agent nor this process hears of what happens
/// there once the lab is kept. Until then, this process ends with the one that started it.
///
/// # Errors
///
/// If a shell has started it.
pub fn begin() -> Result<()> {
    die_with_parent(libc::SIGTERM);
    // SAFETY: a system call without pointers.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error())
            .context("leave the session\nhint: start it by `cargo xtask demo --keep`");
    }
    Ok(())
}

/// Says how to look around, and keeps everything going in the background until a signal comes.
///
/// # Errors
///
/// In the end always, with what ended it.
pub fn keep(scene: &Scene, agent: &Agent<'_>, agree: bool) -> Result<()> {
    let _traffic = Traffic::start(scene)?;
    put(&hints(scene, agent)?)?;
    detach()?;
    let file = Pid::write(agree)?;
    let result = loop {
        let later = Instant::now() + Duration::from_secs(3_600);
        if let Err(ended) = signals::sleep_until(later) {
            break Err(ended);
        }
    };
    drop(file);
    result
}

/// Ends the process whose lab is kept, and waits until the lab is gone.
///
/// # Errors
///
/// If something of it stays.
pub fn remove() -> Result<()> {
    let Some(pid) = owner()? else {
        put("No lab is kept.\n")?;
        return Ok(());
    };
    let leftovers = Leftovers::of(pid);
    if is_alive(pid) {
        // SAFETY: a system call without pointers; the process is a demonstration, as just seen.
        if unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) } != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("end process {pid}"));
        }
        wait_until(&format!("process {pid} to end"), LIMIT, || {
            (!is_alive(pid)).then_some(())
        })?;
    }
    // Without effect, unless it was killed.
    leftovers.remove()?;
    let _ = fs::remove_file(FILE);
    let left = leftovers.find();
    ensure!(left.is_empty(), "left behind: {left:?}");
    put("Removed.\n")?;
    Ok(())
}

fn owner() -> Result<Option<u32>> {
    match fs::read_to_string(FILE) {
        Ok(text) => {
            let pid = text.split(' ').next().unwrap_or_default();
            pid.parse()
                .map(Some)
                .with_context(|| format!("{FILE}: `{text}`"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(FILE),
    }
}

fn is_alive(pid: u32) -> bool {
    // A process that has ended and that nobody has waited for has no program any more; one whose
    // file was built anew has it with a remark behind.
    let program = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe"));
    program.is_ok_and(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split(' ').next() == Some(PROGRAM)
    })
}

/// The file that says whose lab is kept; gone when dropped.
struct Pid;

impl Pid {
    fn write(agree: bool) -> Result<Self> {
        // Never there half written: whoever waits for it reads it at once.
        let new = format!("{FILE}.new");
        fs::write(&new, format!("{} {}", std::process::id(), u8::from(!agree)))
            .with_context(|| new.clone())?;
        fs::rename(&new, FILE).context(FILE)?;
        Ok(Self)
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        let _ = fs::remove_file(FILE);
    }
}

/// Outlives the process that started this one, and no longer writes to where that one did.
fn detach() -> Result<()> {
    die_with_parent(0);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in 0..=2 {
        // SAFETY: both descriptors are open, and nothing else owns the standard ones.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error()).context("redirect the output");
        }
    }
    Ok(())
}

fn die_with_parent(signal: libc::c_int) {
    // SAFETY: this option takes a signal's number and no pointer; it cannot fail with one.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

fn hints(scene: &Scene, agent: &Agent<'_>) -> Result<String> {
    let (binary, config) = (agent_binary()?, agent.config_path());
    let (binary, config) = (binary.display(), config.display());
    let (router, far) = (scene.lab.router.name(), scene.lab.far.name());
    Ok(format!(
        "
The lab stays, and its traffic flows on. To look around:
  {binary} status --config {config}
  ip netns exec {router} curl -s http://127.0.0.1:9817/metrics
  ip netns exec {router} ip rule
  ip netns exec {far} tcpdump -nvi exit0
To remove it:
  cargo xtask demo --remove
"
    ))
}
