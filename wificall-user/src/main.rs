//! `wificall`

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    wificall::command::run(wificall::cli::Cli::parse())
}
