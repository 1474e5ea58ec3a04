//! Debian packages that a task needs: says which, installs them, starts nothing.

use std::{
    collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::output;

/// Asked by `invoke-rc.d` before a package starts its service; 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What a part of a task needs.
#[derive(Clone, Copy)]
pub struct Component<'a> {
    pub name: &'a str,
    pub packages: &'a [&'a str],
}

/// Installs what is missing, or fails naming it if `install` is false.
pub fn ensure(components: &[Component<'_>], install: bool) -> Result<()> {
    let installed = installed()?;
    let mut missing = Vec::new();
    for component in components {
        let absent: Vec<_> = component
            .packages
            .iter()
            .copied()
            .filter(|name| !installed.contains(*name))
            .collect();
        if !absent.is_empty() {
            eprintln!("packages for {}: {}", component.name, absent.join(" "));
            missing.extend(absent);
        }
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        bail!(
            "packages are missing\nhint: apt-get install {}",
            missing.join(" ")
        );
    }
    install_quietly(&missing, &installed)
}

fn install_quietly(packages: &[&str], before: &BTreeSet<String>) -> Result<()> {
    let _policy = Policy::forbid_starts()?;
    output(apt().arg("update"))?;
    output(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )?;
    for package in installed()?.difference(before) {
        disable_services(package)?;
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args([
            "-qq",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=120",
        ])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null());
    command
}

/// Names of the packages that are completely installed, without their architecture.
fn installed() -> Result<BTreeSet<String>> {
    let list =
        output(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\\n"]))
            .context("list the installed packages (Debian or a derivative is needed)")?;
    Ok(list
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect())
}

/// Undoes what a package's installation enabled: the tests start their own, in namespaces.
fn disable_services(package: &str) -> Result<()> {
    for file in output(Command::new("dpkg").args(["-L", package]))?.lines() {
        let path = Path::new(file);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let mut command;
        if parent.ends_with("systemd/system") {
            // The tool that enabled it, which works without a running systemd. It runs for a package only.
            command = Command::new("deb-systemd-helper");
            command
                .arg("disable")
                .arg(name)
                .env("DPKG_MAINTSCRIPT_PACKAGE", package);
        } else if parent == Path::new("/etc/init.d") {
            command = Command::new("update-rc.d");
            command.arg(name).arg("disable");
        } else {
            continue;
        }
        output(&mut command)?;
    }
    Ok(())
}

/// Forbids service starts for its lifetime, unless the machine has a policy of its own.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid_starts() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            // Nothing to be done about it while unwinding; the next installation finds and keeps the file.
            let _ = fs::remove_file(POLICY);
        }
    }
}
