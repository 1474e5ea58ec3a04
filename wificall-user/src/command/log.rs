//! The log: on stderr, as text or JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// Starts the log, records of the `log` crate included (aya's readers of the programs' own log use it). `RUST_LOG`
/// decides what is logged; without it `-v` does, on top of what is usual: `info` for the agent, `warn` for a command.
pub(super) fn start(format: LogFormat, verbose: u8, agent: bool) {
    let usual = match (verbose, agent) {
        (0, false) => "warn",
        (0, true) => "info",
        (1, _) => "info,wificall=debug",
        (_, _) => "debug,wificall=trace",
    };
    let (filter, problem) = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wanted) => match EnvFilter::try_new(&wanted) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(usual), Some(error)),
        },
        Err(_) => (EnvFilter::new(usual), None),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => log.finish().try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().try_init(),
    };
    if let Err(error) = started {
        eprintln!("the log cannot be started: {error}");
    }
    if let Some(error) = problem {
        tracing::warn!("RUST_LOG is not understood and not followed: {error}");
    }
}
