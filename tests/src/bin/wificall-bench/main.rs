//! The measurements that `cargo xtask bench` runs. It runs in the root of the repository.

mod args;
mod docs;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use wificall_tests::{
    bench::{LAYERS, Layer, Scale, budget, record::Record, report::Results},
    leftovers::remove_at_end,
};

use crate::args::Args;

#[derive(Parser)]
#[command(name = "wificall-bench")]
struct Cli {
    #[command(flatten)]
    args: Args,
    /// Where to write <layer>.json
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let Cli { args, out } = Cli::parse();
    // SAFETY: no other thread has been started.
    let prepared = unsafe { remove_at_end() };
    match prepared.and_then(|()| run(&args, &out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, out: &Path) -> Result<()> {
    let scale = if args.quick {
        Scale::Quick
    } else {
        Scale::Full
    };
    let budgets = budget::budgets()?;
    if args.write_docs && Record::now(scale)?.has_changes() {
        bail!(
            "what is measured is no commit: there are changes outside of docs/\n\
             hint: commit or stash them, for what is published must name what it was measured of"
        );
    }
    let layers = layers(&args.layers)?;
    let mut measured = vec![Vec::new(); layers.len()];
    let mut failures = Vec::new();
    for run in 1..=usize::from(args.runs) {
        for (layer, runs) in layers.iter().zip(&mut measured) {
            let record = Record::now(scale)?;
            eprintln!("== {}, run {run}: {}", layer.name, record.line());
            let rows = (layer.measure)(scale).with_context(|| format!("layer {}", layer.name))?;
            let results = Results {
                layer: layer.name.to_owned(),
                run,
                record,
                rows,
            };
            results.write(out)?;
            runs.push(results);
            if runs.len() < args.runs.into() {
                continue;
            }
            println!("{}", docs::block(layer, runs, &budgets)?);
            if args.write_docs {
                docs::write(layer, runs, &budgets)?;
            }
            if args.check {
                let runs = runs.iter().map(|run| run.rows.clone()).collect();
                failures.extend(budget::check(layer, scale, &budgets, runs)?);
            }
        }
    }
    if !failures.is_empty() {
        let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
        bail!(
            "not within their budgets in {}, with the margin:\n{}\n{}",
            budget::FILE,
            failures.join("\n"),
            budget::HINT
        );
    }
    Ok(())
}

/// The layers of these names, in their order; all if there are none.
fn layers(names: &[String]) -> Result<Vec<&'static Layer>> {
    for name in names {
        if !LAYERS.iter().any(|layer| layer.name == name) {
            let known: Vec<_> = LAYERS.iter().map(|layer| layer.name).collect();
            bail!(
                "no layer is called {name:?}; there are: {}",
                known.join(", ")
            );
        }
    }
    let chosen = |layer: &&Layer| names.is_empty() || names.iter().any(|name| name == layer.name);
    Ok(LAYERS.iter().filter(chosen).collect())
}
