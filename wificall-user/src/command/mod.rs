//! The subcommands, one a file: each gathers, prints and says how it went.

mod analyze;
mod check;
mod detach;
mod explain;
mod export;
mod failure;
mod log;
mod machine;
mod operators;
mod probe;
mod progress;
mod reload;
mod resolve;
mod status;
mod top;
mod trace;
mod tunnels;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{Cli, Command, Instance};
use crate::config::{self, Agent, Config};
use crate::control;

pub use failure::Failure;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It did what was asked.
    Done,
    /// It did not, or what it found is bad.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Usage => Self::from(2),
        }
    }
}

/// Runs a subcommand to its end. What it finds is on stdout, what goes wrong and the log are on stderr.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    log::start(
        cli.log_format,
        cli.verbose,
        matches!(cli.command, Command::Run(_)),
    );
    // One thread is enough, and small: the packets are the kernel's.
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::Other)
        .and_then(|runtime| runtime.block_on(dispatch(cli.command)));
    match outcome {
        Ok(outcome) => outcome,
        Err(failure) => {
            eprintln!("{failure}");
            failure.outcome()
        }
    }
    .into()
}

async fn dispatch(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Run(arguments) => {
            // What stands in the way is said before it does; a wrong file is for `control` to refuse.
            if let Ok(parsed) = config::load(&arguments.config) {
                machine::warn(&machine::notes(&parsed.config).await);
            }
            control::run(arguments.config).await?;
            Ok(Outcome::Done)
        }
        Command::Check(arguments) => check::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Tunnels(arguments) => tunnels::run(&arguments).await,
        Command::Trace(arguments) => trace::run(&arguments).await,
        Command::Top(arguments) => top::run(&arguments).await,
        Command::Resolve(arguments) => resolve::run(arguments).await,
        Command::Operators(arguments) => operators::run(&arguments),
        Command::Explain(arguments) => explain::run(*arguments).await,
        Command::Analyze(arguments) => analyze::run(arguments),
        Command::Export(arguments) => export::run(*arguments).await,
        Command::Probe(arguments) => probe::run(*arguments).await,
        Command::Reload(arguments) => reload::run(&arguments).await,
        Command::Detach(arguments) => detach::run(&arguments).await,
    }
}

/// Which instance is meant, and its configuration if one was read.
fn instance(arguments: &Instance) -> Result<(Agent, Option<Config>), Failure> {
    match &arguments.instance {
        Some(agent) => Ok((agent.clone(), None)),
        None => {
            let config = config::load(&arguments.config)?.config;
            Ok((config.agent.clone(), Some(config)))
        }
    }
}

/// Where the agent that is meant listens.
fn socket_of(instance: Option<&Agent>, config: &Path) -> Result<PathBuf, Failure> {
    Ok(match instance {
        Some(agent) => agent.control_socket(),
        None => config::load(config)?.config.agent.control_socket(),
    })
}

/// Prints to stdout. Whoever closed it early has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints to stdout with colours where it is a terminal that has them, and nobody said `NO_COLOR`.
fn print_styled(text: &str) -> anyhow::Result<()> {
    let choice = anstream::AutoStream::choice(&io::stdout());
    let mut plain = anstream::AutoStream::new(Vec::new(), choice);
    plain.write_all(text.as_bytes()).context("style the text")?;
    let text = plain.into_inner();
    print(&String::from_utf8_lossy(&text))
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}
