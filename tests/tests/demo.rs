//! The demonstration agrees with itself, and leaves nothing behind however it ends.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wificall_tests::agent::agent_binary;
use wificall_tests::lab::LIMIT;
use wificall_tests::process::{output, output_within, wait_until};

const KEPT: &str = "/run/wificall-demo.pid";

fn demo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wificall-demo"));
    command.args(arguments).env("WIFICALL_BIN", agent_binary()?);
    Ok(command)
}

/// Namespaces and mounts that a process's lab is known by.
fn traces(pid: u32) -> Result<Vec<String>> {
    let marks = [format!("wfct-{pid}-"), format!("/p-{pid}-")];
    let namespaces = output(Command::new("ip").args(["netns", "list"]))?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let lines = namespaces.lines().chain(mounts.lines());
    Ok(lines
        .filter(|line| marks.iter().any(|mark| line.contains(mark)))
        .map(str::to_owned)
        .collect())
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
}

fn wait_gone(child: &mut Child) -> Result<i32> {
    let agent = children(child.id());
    let status = wait_until("the demonstration to end", LIMIT, || {
        child.try_wait().transpose()
    })??;
    let left = traces(child.id())?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    for process in agent.split_whitespace() {
        let program = Path::new("/proc").join(process).join("exe");
        ensure!(fs::read_link(program).is_err(), "process {process} goes on");
    }
    status.code().context("ended by a signal")
}

#[test]
fn what_is_sent_counted_and_received_agrees() -> Result<()> {
    for arguments in [&["--seconds", "2"][..], &["--seconds", "2", "--xdp"]] {
        let result = output_within(&mut demo(arguments)?, LIMIT)?;
        let text = String::from_utf8_lossy(&result.stdout);
        print!("{text}");
        ensure!(
            result.status.success(),
            "{}",
            String::from_utf8_lossy(&result.stderr)
        );
        assert!(!text.contains('✗'));
        assert_eq!(text.contains("TC took over"), arguments.len() > 2);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }
    Ok(())
}

#[test]
fn signals_end_it_early_and_clean() -> Result<()> {
    for (signal, after) in [
        (libc::SIGINT, 200),
        (libc::SIGINT, 2_500),
        (libc::SIGTERM, 2_500),
    ] {
        let mut child = demo(&["--seconds", "60"])?.stdout(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(after));
        // SAFETY: a system call; the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
        assert_eq!(
            wait_gone(&mut child)?,
            1,
            "signal {signal} after {after} ms"
        );
    }
    Ok(())
}

#[test]
fn a_kept_lab_is_removed_on_demand() -> Result<()> {
    for killed in [false, true] {
        let mut child = demo(&["--seconds", "1", "--keep"])?
            .stdout(Stdio::null())
            .spawn()?;
        let pid = child.id();
        wait_until("the lab to be kept", LIMIT, || {
            let text = fs::read_to_string(KEPT).ok()?;
            (text == format!("{pid} 0")).then_some(())
        })?;
        assert!(!traces(pid)?.is_empty());
        let second = output_within(&mut demo(&["--keep"])?, LIMIT)?;
        assert_eq!(second.status.code(), Some(1), "a second one");
        if killed {
            child.kill()?;
            child.wait()?;
        }
        assert_eq!(output(&mut demo(&["--remove"])?)?, "Removed.\n");
        assert!(!Path::new(KEPT).exists());
        if !killed {
            assert_eq!(wait_gone(&mut child)?, 1, "ended by the removal");
        }
        let left = traces(pid)?;
        ensure!(left.is_empty(), "left behind: {left:?}");
    }
    Ok(())
}
