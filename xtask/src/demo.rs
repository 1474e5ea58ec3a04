//! `cargo xtask demo`: builds the agent and the demonstration, and runs it.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Component},
    workspace::{cargo, executable, run, show},
};

#[path = "../../tests/src/bin/wificall-demo/args.rs"]
mod args;

pub use args::Args;

const DEMO: &str = "wificall-demo";
/// What the demonstration writes when it stays in the background: its process id and exit code.
const KEPT: &str = "/run/wificall-demo.pid";

/// Entry point of the task. Comes back only if the lab is kept.
pub fn demo(args: &Args) -> Result<ExitCode> {
    // SAFETY: getuid has no preconditions and cannot fail.
    if unsafe { libc::getuid() } != 0 {
        bail!(
            "the demonstration loads BPF programs and makes network namespaces\nhint: run `cargo xtask demo` as root"
        );
    }
    ensure_ip()?;
    // With the build's progress to see: the first one takes minutes.
    run(&mut build())?;
    let agent = executable(&mut build(), "wificall")?;
    let mut command = Command::new(executable(&mut build(), DEMO)?);
    command
        .env("WIFICALL_BIN", agent)
        .arg("--seconds")
        .arg(args.seconds.to_string());
    for (set, option) in [(args.xdp, "--xdp"), (args.keep, "--keep")] {
        command.args(set.then_some(option));
    }
    if args.remove {
        command = Command::new(command.get_program());
        command.arg("--remove");
    }
    if args.keep {
        return keep(&mut command);
    }
    // In place of this process, so that Ctrl-C and the exit code are the demonstration's own.
    Err(command.exec()).with_context(|| format!("start {}", show(&command)))
}

fn build() -> Command {
    let mut command = cargo();
    command.args([
        "build",
        "--package",
        "wificall",
        "--package",
        "wificall-tests",
    ]);
    command.args(["--bin", "wificall", "--bin", DEMO]);
    command
}

/// A minimal system may be without iproute2.
fn ensure_ip() -> Result<()> {
    let ip = Command::new("ip").arg("-V").stdout(Stdio::null()).status();
    if ip.is_ok() {
        return Ok(());
    }
    apt::ensure(
        &[Component {
            name: "network namespaces",
            packages: &["iproute2"],
        }],
        true,
    )
}

/// Waits until the demonstration goes to the background, or ends.
fn keep(command: &mut Command) -> Result<ExitCode> {
    const LOOK: Duration = Duration::from_millis(100);
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", show(command)))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(code(status.code()));
        }
        let kept = fs::read_to_string(KEPT).unwrap_or_default();
        if let Some((pid, result)) = kept.split_once(' ')
            && pid.parse() == Ok(child.id())
        {
            return Ok(code(result.parse().ok()));
        }
        thread::sleep(LOOK);
    }
}

fn code(status: Option<i32>) -> ExitCode {
    status
        .and_then(|status| u8::try_from(status).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
