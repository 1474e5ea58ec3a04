//! The agent under test: the real `wificall`, in a namespace, with a bpffs, a run
//! directory and a state directory of its own, so that it can meet neither another
//! test's agent nor one that serves this machine.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::MapData;
use aya::programs::{SchedClassifier, TcAttachType};

use crate::home::Home;
use crate::lab::LIMIT;
use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::process::{Process, output_within, wait_for};

/// Each agent listens in its own namespace, so the port can be the same.
const LISTEN: &str = "127.0.0.1:9817";
/// The agent's instance.
pub const INSTANCE: &str = "lab";

/// The `wificall` to test: `$WIFICALL_BIN`, or the one built beside this test.
///
/// # Errors
///
/// If there is none.
pub fn agent_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WIFICALL_BIN") {
        return existing(
            path.into(),
            "unset WIFICALL_BIN to test the one of this build",
        );
    }
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe()?;
    let profile = test
        .ancestors()
        .nth(2)
        .context("the test runs outside a target directory")?;
    existing(
        profile.join("wificall"),
        "build it with `cargo build --package wificall`",
    )
}

/// A `wificall` built with another ABI version (`--features next-abi`), to upgrade
/// to: `$WIFICALL_NEXT_ABI_AGENT`.
///
/// # Errors
///
/// If there is none.
pub fn next_abi_binary() -> Result<PathBuf> {
    const HINT: &str = "`cargo xtask test` builds it";
    let path = std::env::var_os("WIFICALL_NEXT_ABI_AGENT")
        .with_context(|| format!("WIFICALL_NEXT_ABI_AGENT is not set\nhint: {HINT}"))?;
    existing(path.into(), HINT)
}

fn existing(path: PathBuf, hint: &str) -> Result<PathBuf> {
    ensure!(
        path.is_file(),
        "no agent at {}\nhint: {hint}",
        path.display()
    );
    Ok(path)
}

/// An agent with its configuration, running or not.
pub struct Agent<'a> {
    namespace: &'a Netns,
    binary: PathBuf,
    process: Option<Process>,
    home: Home,
    verbose: bool,
}

impl<'a> Agent<'a> {
    /// Prepares an agent in `namespace` with `configuration`, in which the section
    /// `[agent]` is left out. It does not run yet.
    ///
    /// # Errors
    ///
    /// If there is no agent to test, or no bpffs can be mounted.
    pub fn new(namespace: &'a Netns, configuration: &str) -> Result<Self> {
        let agent = Self {
            namespace,
            binary: agent_binary()?,
            process: None,
            home: Home::new()?,
            verbose: true,
        };
        agent.configure(configuration)?;
        Ok(agent)
    }

    /// Prepares an agent and runs it until it is ready.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) and [`start`](Self::start).
    pub fn run(namespace: &'a Netns, configuration: &str) -> Result<Self> {
        let mut agent = Self::new(namespace, configuration)?;
        agent.start()?;
        Ok(agent)
    }

    /// Writes another configuration, which the agent has not read yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        let home = self.home.path().display();
        let text = format!(
            "[agent]\ninstance = \"{INSTANCE}\"\nbpffs = \"{home}/bpf\"\n\
             run_dir = \"{home}/run\"\nstate_dir = \"{home}/state\"\nlisten = \"{LISTEN}\"\n\
             resync = \"2s\"\n{configuration}"
        );
        fs::write(self.config_path(), text).context("write the agent's configuration")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("config.toml")
    }

    /// Where this agent pins: below its bpffs.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.home.bpffs().join("wificall").join(INSTANCE)
    }

    /// From now on, one that logs no more than it does by default.
    pub fn log_less(&mut self) {
        self.verbose = false;
    }

    /// One of its maps, of the only generation there is.
    ///
    /// # Errors
    ///
    /// If there is none or there are several.
    pub fn map(&self, name: &str) -> Result<MapData> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.pin_dir())? {
            let path = entry?.path().join(name);
            if path.exists() {
                found.push(path);
            }
        }
        let [path] = &found[..] else {
            bail!("{} maps are called {name}: {found:?}", found.len());
        };
        MapData::from_pin(path).with_context(|| format!("open {}", path.display()))
    }

    /// From now on, another build of the agent.
    pub fn use_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Starts it and waits until `/readyz` says that it is ready.
    ///
    /// # Errors
    ///
    /// With its log, if it ends or does not become ready.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let namespace = self.namespace;
        self.running()?
            .wait_ready(LIMIT, || get(namespace, "/readyz").map(drop))
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let command = if self.verbose {
            self.command(&["run", "-v"])
        } else {
            self.command(&["run"])
        };
        self.process = Some(Process::spawn(command, "agent", self.home.path())?);
        Ok(())
    }

    /// The running agent's process.
    ///
    /// # Errors
    ///
    /// If it was not started.
    pub fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent does not run")
    }

    /// Everything it has logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("agent.log")).unwrap_or_default()
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    ///
    /// If it was not running.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.check_running()?;
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    ///
    /// With its log, if it does not end in time or not with success.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.running()?;
        process.signal(libc::SIGTERM)?;
        let status = process.wait_exit(LIMIT)?;
        ensure!(
            status.success(),
            "the agent ended: {status}\n{}",
            process.log()
        );
        self.process = None;
        Ok(())
    }

    /// `wificall <arguments> --config <file>` in the agent's namespace.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config_path());
        command
    }

    /// Runs a `wificall` command to its end, however it ends.
    ///
    /// # Errors
    ///
    /// If it cannot be run, or does not end.
    pub fn call(&self, arguments: &[&str]) -> Result<Output> {
        output_within(&mut self.command(arguments), LIMIT)
    }

    /// Runs a `wificall` command, which must succeed; its standard output.
    ///
    /// # Errors
    ///
    /// With its standard error, if it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.call(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!(
                "wificall {arguments:?}: {}\n{}",
                output.status,
                text(&output.stderr)
            );
        }
        Ok(text(&output.stdout))
    }

    /// `wificall status --json`.
    ///
    /// # Errors
    ///
    /// If the command fails or does not print JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let text = self.ask(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("status --json:\n{text}"))
    }

    /// A scrape of `/metrics`.
    ///
    /// # Errors
    ///
    /// If the agent does not answer, or not with metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&get(self.namespace, "/metrics")?)
    }

    /// Waits until a scrape satisfies `condition`, which says what is wrong if not.
    ///
    /// # Errors
    ///
    /// What was wrong last, if it stays so.
    pub fn wait_metrics(
        &self,
        what: &str,
        mut condition: impl FnMut(&Metrics) -> Result<()>,
    ) -> Result<Metrics> {
        wait_for(what, LIMIT, || {
            let metrics = self.metrics()?;
            condition(&metrics)?;
            Ok(metrics)
        })
        .with_context(|| self.log())
    }

    /// Waits until at least `count` hooks are attached.
    ///
    /// # Errors
    ///
    /// If they are not in time.
    pub fn wait_hooks(&self, interface: &str, count: u64) -> Result<Metrics> {
        self.wait_metrics(&format!("{count} hooks on {interface}"), |metrics| {
            let hooks = metrics.sum("wificall_hooks_attached", &[("interface", interface)]);
            ensure!(hooks == count, "{hooks} hooks on {interface}, not {count}");
            Ok(())
        })
    }

    /// Ends the agent, detaches, and fails if anything of it is left in the kernel.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn finish(mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop()?;
        }
        self.ask(&["detach"])?;
        let left = self.left_behind()?;
        ensure!(
            left.is_empty(),
            "after `wificall detach` there is still:\n{}",
            left.join("\n")
        );
        Ok(())
    }

    /// What programs, qdiscs and pins there are in the namespace and the bpffs.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn left_behind(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let pins = self.home.bpffs().join("wificall");
        match fs::read_dir(&pins) {
            Ok(entries) => {
                left.extend(
                    entries
                        .flatten()
                        .map(|entry| entry.path().display().to_string()),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| pins.display().to_string()),
        }
        let qdiscs = self.namespace.run("tc", "qdisc show")?;
        left.extend(
            qdiscs
                .lines()
                .filter(|line| line.contains("clsact"))
                .map(str::to_owned),
        );
        let links = self.namespace.ip("-o link")?;
        left.extend(
            links
                .lines()
                .filter(|line| line.contains("xdp"))
                .map(str::to_owned),
        );
        for line in links.lines() {
            let name = line
                .split([':', '@'])
                .nth(1)
                .context("an interface's name")?
                .trim();
            left.extend(tcx(self.namespace, name)?);
        }
        Ok(left)
    }
}

/// The programs that TCX runs on an interface, as `interface hook: program`.
///
/// # Errors
///
/// If the kernel refuses the query.
pub fn tcx(namespace: &Netns, interface: &str) -> Result<Vec<String>> {
    let mut programs = Vec::new();
    for (hook, attach) in [
        ("ingress", TcAttachType::Ingress),
        ("egress", TcAttachType::Egress),
    ] {
        let (_, found) = namespace
            .enter(|| SchedClassifier::query_tcx(interface, attach))
            .with_context(|| format!("query TCX {hook} of {interface}"))?;
        for program in found {
            let name = program.name_as_str().unwrap_or("?").to_owned();
            programs.push(format!("{interface} {hook}: {name}"));
        }
    }
    Ok(programs)
}

/// The body of `GET path` from the agent in `namespace`.
///
/// # Errors
///
/// If it does not answer, or not with 200.
pub fn get(namespace: &Netns, path: &str) -> Result<String> {
    // A debug build with very many flows, on CPUs that others have as well.
    const PATIENCE: Duration = Duration::from_secs(20);
    let address: SocketAddr = LISTEN.parse()?;
    let mut stream = namespace.enter(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("a torn HTTP answer")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .ok_or_else(|| anyhow!("no HTTP status"))?;
    if status != "200" {
        bail!("GET {path}: {status}: {body}");
    }
    Ok(body.to_owned())
}
