//! What `wificall export` writes, in the programs that it is for: firewalls, packet by packet, and DNS servers.

mod dns;
mod packets;
mod steering;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use wificall_tests::agent::Agent;
use wificall_tests::lab::Lab;
use wificall_tests::netns::Netns;
use wificall_tests::process::output;

/// Networks that nest and touch, of two operators whose packets get different things.
const CONFIGURATION: &str = r#"
[interfaces]
access = ["lan"]
[lab]
admit = ["198.18.0.0/15", "2001:db8::/32"]
[[prefix]]
prefix = "198.18.0.0/26"
operator = "001-01"
[[prefix]]
prefix = "198.18.0.64/26"
operator = "001-01"
[[prefix]]
prefix = "198.18.0.77/32"
operator = "999-01"
[[prefix]]
prefix = "198.18.3.3/32"
operator = "999-01"
[[prefix]]
prefix = "2001:db8:18::/64"
operator = "001-01"
[[prefix]]
prefix = "2001:db8:18::7/128"
operator = "999-01"
[[policy]]
name = "marked"
operators = ["001-01"]
mark = "0x65/0xff"
[[policy]]
name = "other"
operators = ["999-01"]
dscp = { up = { default = "AF41", ike = "CS6" }, down = "keep" }
"#;

/// A way to run the programs of iptables and the shell.
struct Tools {
    directory: TempDir,
    shell: &'static [&'static str],
}

impl Tools {
    /// `variant` of iptables: `nft` or `legacy`.
    fn new(variant: &str, shell: &'static [&'static str]) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-tools-")?;
        for family in ["iptables", "ip6tables"] {
            for what in ["", "-save", "-restore"] {
                let program = format!("/usr/sbin/{family}-{variant}{what}");
                ensure!(Path::new(&program).exists(), "{program} is missing");
                symlink(program, directory.path().join(format!("{family}{what}")))?;
            }
        }
        Ok(Self { directory, shell })
    }

    /// A command of `namespace` that finds these programs.
    fn command(&self, namespace: &Netns, program: &str) -> Command {
        let mut command = namespace.command("env");
        let path = format!(
            "PATH={}:/usr/sbin:/usr/bin:/sbin:/bin",
            self.directory.path().display()
        );
        command.args([&path, program]);
        command
    }

    fn run(&self, namespace: &Netns, line: &str) -> Result<String> {
        output(self.command(namespace, "sh").args(["-c", line]))
    }

    fn script(&self, namespace: &Netns, file: &Path, what: &str) -> Result<String> {
        let mut command = self.command(namespace, "timeout");
        output(command.arg("60").args(self.shell).arg(file).arg(what))
    }

    /// All rules and sets, without counters.
    fn state(&self, namespace: &Netns) -> Result<String> {
        let line = "nft -s list ruleset; iptables-save -t mangle; ip6tables-save -t mangle; ipset save | sort";
        let state = self.run(namespace, line)?;
        // Counters and seeds come last.
        let kept = |line: &str| {
            let line = line.split(" [").next().unwrap_or(line);
            line.split(" initval ").next().unwrap_or(line).to_owned() + "\n"
        };
        Ok(state
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(kept)
            .collect())
    }
}

fn same(state: &str, expected: &str) -> Result<()> {
    let differs = |one: &str, other: &str| -> Vec<String> {
        let lines = one
            .lines()
            .filter(|line| !other.lines().any(|there| there == *line));
        lines.map(str::to_owned).collect()
    };
    let (new, gone) = (differs(state, expected), differs(expected, state));
    ensure!(state == expected, "new {new:#?}, gone {gone:#?}");
    Ok(())
}

/// Writes an export to a file.
fn export(agent: &Agent<'_>, arguments: &[&str], directory: &Path) -> Result<PathBuf> {
    let file = directory.join(arguments[0]);
    let mut line = vec!["export"];
    line.extend(arguments);
    fs::write(&file, agent.ask(&line)?)?;
    Ok(file)
}

#[test]
fn nft_matches_what_the_set_says() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::new(&lab.router, CONFIGURATION)?;
    let tools = Tools::new("nft", &["sh"])?;
    let directory = TempDir::new()?;
    packets::compare(&lab, &BTreeMap::new())?;
    let file = export(&agent, &["nft", "--offline"], directory.path())?;
    for _ in 0..2 {
        lab.router.run("nft", &format!("-f {}", file.display()))?;
        packets::compare(&lab, &packets::expected())?;
    }
    ensure!(
        tools.state(&lab.router)?.contains("198.18.0.78/31"),
        "holes are cut"
    );
    Ok(())
}

#[test]
fn ipset_and_iptables_match_what_the_set_says() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::new(&lab.router, CONFIGURATION)?;
    let tools = Tools::new("nft", &["sh"])?;
    let directory = TempDir::new()?;
    let sets = export(&agent, &["ipset", "--offline"], directory.path())?;
    let rules = export(&agent, &["iptables", "--offline"], directory.path())?;
    let load = format!(
        "set -e; ipset restore < {}; for p in iptables ip6tables; do $p-restore --noflush < {}; done",
        sets.display(),
        rules.display()
    );
    tools.run(&lab.router, &load)?;
    tools.run(&lab.router, "iptables -t mangle -A PREROUTING -j WIFICALL && ip6tables -t mangle -A PREROUTING -j WIFICALL")?;
    packets::compare(&lab, &packets::expected())?;
    let before = tools.state(&lab.router)?;
    tools.run(&lab.router, &load)?;
    same(&tools.state(&lab.router)?, &before)?;
    packets::compare(&lab, &packets::expected())
}

/// The kernel's own programs, on the same packets.
#[test]
fn the_data_plane_says_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::run(&lab.router, CONFIGURATION)?;
    packets::compare(&lab, &packets::expected())?;
    agent.finish()
}

#[test]
fn the_nft_script_sets_up_and_removes() -> Result<()> {
    let tools = Tools::new("nft", &["busybox", "sh"])?;
    script("nft-script", &tools)
}

#[test]
fn the_iptables_script_sets_up_and_removes() -> Result<()> {
    script("iptables-script", &Tools::new("nft", &["busybox", "sh"])?)
}

#[test]
fn the_iptables_script_works_with_the_legacy_programs() -> Result<()> {
    script("iptables-script", &Tools::new("legacy", &["sh"])?)
}

fn script(format: &str, tools: &Tools) -> Result<()> {
    let lab = Lab::new()?;
    let router = &lab.router;
    let agent = Agent::new(router, CONFIGURATION)?;
    let directory = TempDir::new()?;
    // What is not ours stays.
    tools.run(
        router,
        "set -e; nft add table inet other; ipset create wificall_dns4 hash:ip; ipset create other hash:net; \
         for p in iptables ip6tables; do $p -t mangle -N OTHER; $p -t mangle -A PREROUTING -j OTHER; done",
    )?;
    let before = tools.state(router)?;
    let file = export(&agent, &[format, "--offline"], directory.path())?;

    tools.script(router, &file, "up")?;
    packets::compare(&lab, &packets::expected())?;
    let up = tools.state(router)?;
    ensure!(up != before, "something was set up");
    tools.script(router, &file, "up")?;
    same(&tools.state(router)?, &up).context("up twice")?;
    packets::compare(&lab, &packets::expected())?;

    // A smaller one leaves nothing of the larger one.
    let smaller = ["--offline", "--operator", "001-01"];
    let smaller = export(
        &agent,
        &[&[format], &smaller[..]].concat(),
        directory.path(),
    )?;
    tools.script(router, &smaller, "up")?;
    let state = tools.state(router)?;
    ensure!(
        !state.contains("198.18.3.3") && !state.to_uppercase().contains("UP_2"),
        "{state}"
    );
    let only = packets::expected()
        .into_iter()
        .filter(|(_, arrival)| arrival.marked);
    packets::compare(&lab, &only.collect())?;

    for _ in 0..2 {
        tools.script(router, &smaller, "down")?;
        same(&tools.state(router)?, &before).context("down")?;
    }
    packets::compare(&lab, &BTreeMap::new())?;
    let wrong = tools.script(router, &smaller, "sideways");
    ensure!(
        wrong.is_err_and(|error| error.to_string().contains("usage: ")),
        "usage"
    );
    Ok(())
}
