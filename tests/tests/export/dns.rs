//! Exports in DNS servers.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use wificall_tests::agent::Agent;
use wificall_tests::dns::{Dns, EPDG};
use wificall_tests::lab::{EPDG4, EPDG6, LIMIT, Lab, ROUTER_DNS};
use wificall_tests::process::{Process, output, wait_for};

use super::export;

/// An agent that has resolved the ePDG's name, and ended: its state is on disk.
fn resolved(lab: &Lab) -> Result<Agent<'_>> {
    let _dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4, EPDG6])])?;
    let mut agent = Agent::run(
        &lab.router,
        &format!(
            "[interfaces]\naccess = [\"lan\"]\n[discovery]\noperators = [\"001-01\"]\n\
             resolvers = [\"{ROUTER_DNS}\"]\ntimeout = \"500ms\"\n\
             [lab]\nadmit = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n"
        ),
    )?;
    wait_for("the addresses", LIMIT, || {
        let hosts = agent.ask(&["export", "hosts"])?;
        ensure!(hosts.contains(EPDG4) && hosts.contains(EPDG6), "{hosts}");
        Ok(())
    })?;
    agent.stop()?;
    Ok(agent)
}

/// What the router is answered at 127.0.0.1.
fn dig(lab: &Lab, kind: &str) -> Result<String> {
    let mut command = lab.router.command("dig");
    let answer = output(command.args(["+short", "+tries=1", "+time=2", "@127.0.0.1", EPDG, kind]))?;
    Ok(answer.trim().to_owned())
}

fn wait_answers(lab: &Lab, server: &mut Process) -> Result<()> {
    wait_for("the answers", LIMIT, || {
        server.check_running()?;
        let answers = (dig(lab, "A")?, dig(lab, "AAAA")?);
        ensure!(answers == (EPDG4.into(), EPDG6.into()), "{answers:?}");
        Ok(())
    })
}

fn dnsmasq(lab: &Lab, options: &[&str], directory: &Path) -> Result<Process> {
    let mut command: Command = lab.router.command("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--no-hosts",
            "--no-resolv",
        ])
        .args([
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ])
        .args(options);
    Process::spawn(command, "dnsmasq", directory)
}

#[test]
fn dnsmasq_answers_with_the_addresses() -> Result<()> {
    let lab = Lab::new()?;
    let agent = resolved(&lab)?;
    let directory = TempDir::new()?;
    let address = ["dnsmasq", "--offline", "--dnsmasq", "address"];
    for (arguments, option) in [
        (&address[..], "--conf-file"),
        (&["hosts", "--offline"], "--addn-hosts"),
    ] {
        let file = export(&agent, arguments, directory.path())?;
        let option = format!("{option}={}", file.display());
        let mut server = dnsmasq(&lab, &[&option], directory.path())?;
        wait_answers(&lab, &mut server)?;
    }
    agent.finish()
}

#[test]
fn dnsmasq_asks_the_server_and_fills_sets() -> Result<()> {
    let lab = Lab::new()?;
    let agent = resolved(&lab)?;
    let _dns = Dns::start(&lab.far, &[ROUTER_DNS], 1, &[(EPDG, &[EPDG4, EPDG6])])?;
    let directory = TempDir::new()?;
    lab.router.run("nft", "add table inet wificall_dns")?;
    for (family, kind) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        lab.router.run(
            "nft",
            &format!("add set inet wificall_dns epdg{family} {{ type {kind}; }}"),
        )?;
    }
    lab.router
        .run("ipset", "create wificall_dns4 hash:ip family inet")?;
    lab.router
        .run("ipset", "create wificall_dns6 hash:ip family inet6")?;
    let mut options = Vec::new();
    for what in ["server", "nftset", "ipset"] {
        let mut line = vec!["export", "dnsmasq", "--offline", "--dnsmasq", what];
        if what == "server" {
            line.extend(["--server", ROUTER_DNS]);
        }
        let file = directory.path().join(what);
        fs::write(&file, agent.ask(&line)?)?;
        options.push(format!("--conf-file={}", file.display()));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut server = dnsmasq(&lab, &options, directory.path())?;
    wait_answers(&lab, &mut server)?;
    for (family, address) in [("4", EPDG4), ("6", EPDG6)] {
        let set = lab
            .router
            .run("nft", &format!("list set inet wificall_dns epdg{family}"))?;
        ensure!(set.contains(address), "{set}");
        lab.router
            .run("ipset", &format!("test wificall_dns{family} {address}"))?;
    }
    agent.finish()
}

#[test]
fn unbound_answers_with_the_addresses() -> Result<()> {
    let lab = Lab::new()?;
    let agent = resolved(&lab)?;
    let directory = TempDir::new()?;
    let file = export(&agent, &["unbound", "--offline"], directory.path())?;
    let configuration = directory.path().join("unbound.conf");
    fs::write(
        &configuration,
        format!(
            "server:\n  interface: 127.0.0.1\n  username: \"\"\n  chroot: \"\"\n  directory: \"{0}\"\n  \
             pidfile: \"{0}/pid\"\n  use-syslog: no\n  module-config: \"iterator\"\n\
             include: \"{1}\"\nremote-control:\n  control-enable: no\n",
            directory.path().display(),
            file.display()
        ),
    )?;
    output(Command::new("unbound-checkconf").arg(&configuration))?;
    let mut command = lab.router.command("unbound");
    command.args(["-d", "-p", "-c"]).arg(&configuration);
    let mut server = Process::spawn(command, "unbound", directory.path())?;
    wait_answers(&lab, &mut server)?;
    agent.finish()
}
