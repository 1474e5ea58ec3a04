//! The log: on stderr, as text or JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// Starts the log, records of the `log` crate included (aya's readers of the programs' own log use it). `RUST_LOG`
/// decides what is logged, as levels by target (`info,wificall::discover=debug`); without it `-v` does, on top of what
/// is usual: `info` for the agent, `warn` for a command.
pub(super) fn start(format: LogFormat, verbose: u8, agent: bool) {
    let usual = match (verbose, agent) {
        (0, false) => "warn",
        (0, true) => "info",
        (1, _) => "info,wificall=debug",
        (_, _) => "debug,wificall=trace",
    };
    // Without `EnvFilter`, whose regular expressions take a third of a megabyte.
    let wanted = std::env::var("RUST_LOG").ok();
    let (filter, problem) = match wanted.as_deref().unwrap_or(usual).parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (usual.parse().unwrap_or_default(), Some(error)),
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .try_init();
    if let Err(error) = started {
        eprintln!("the log cannot be started: {error}");
    }
    if let Some(error) = problem {
        tracing::warn!("RUST_LOG is not understood and not followed: {error}");
    }
}
