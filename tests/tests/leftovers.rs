//! A run of the measurements that is killed leaves no namespace behind.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use wificall_tests::process::wait_until;

fn namespaces_of(process: u32) -> usize {
    let prefix = format!("wfct-{process}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

#[test]
fn a_killed_run_leaves_no_namespace() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    let out = tempfile::tempdir()?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_wificall-bench"))
        .args(["--layer", "xdp", "--quick", "--out"])
        .arg(out.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the measurements")?;
    let process = bench.id();
    wait_until("namespaces", LIMIT, || {
        (namespaces_of(process) > 1).then_some(())
    })?;
    bench.kill()?;
    // Not reaped yet: whoever cleans up cannot go by the process being gone.
    wait_until("the namespaces to be removed", LIMIT, || {
        (namespaces_of(process) == 0).then_some(())
    })?;
    bench.wait()?;
    Ok(())
}
