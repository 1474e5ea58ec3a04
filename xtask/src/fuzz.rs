//! `cargo xtask fuzz`: what reads packets and captures, under libFuzzer.
//!
//! The instrumentation is LLVM's (`sancov-module`), which a stable compiler has as well: no nightly is needed, nor
//! cargo-fuzz. There is no AddressSanitizer: none of the code that is fuzzed is unsafe. Overflows, bounds and the assertions
//! of `fuzz/src/targets.rs` end a run.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    apt::{self, Component},
    workspace::{cargo, output, root, run, target},
};

const COMPONENT: Component<'_> = Component {
    name: "libFuzzer's compiler",
    packages: &["g++"],
};

const TARGETS: [&str; 4] = ["capture", "analysis", "ike", "flow"];

const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg fuzzing",
];
/// The longest input, in bytes.
const LONGEST: u32 = 16_384;

#[derive(clap::Args)]
pub struct Args {
    /// What to fuzz: capture, analysis, ike, flow [default: all, one after the other]
    #[arg(value_parser = TARGETS)]
    target: Vec<String>,
    /// How long each, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Fail if something is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Entry point of the task.
pub fn fuzz(args: &Args) -> Result<()> {
    apt::ensure(&[COMPONENT], !args.no_install)?;
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it runs on")?;
    let directory = target().join("fuzz");
    // With a target, or build scripts would be instrumented as well.
    run(cargo()
        .args(["build", "--release", "--target", host, "--manifest-path"])
        .arg(root().join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", FLAGS.join(" ")))?;
    run(cargo()
        .args(["run", "--quiet", "--package", "wificall-tests"])
        .args(["--bin", "wificall-seeds", "--"])
        .arg(directory.join("seeds")))?;
    let all = args.target.is_empty();
    let mut failed = Vec::new();
    for name in TARGETS {
        if all || args.target.iter().any(|wanted| wanted == name) {
            let binary = directory.join(host).join("release").join(name);
            if !one(name, &binary, &directory, args.seconds)? {
                failed.push(name);
            }
        }
    }
    ensure!(
        failed.is_empty(),
        "{} failed\nhint: what they failed on is in {}; it becomes a seed in tests/src/seeds.rs with what mends it",
        failed.join(", "),
        directory.join("found").display()
    );
    Ok(())
}

/// Runs one; whether nothing was found.
fn one(name: &str, binary: &Path, directory: &Path, seconds: u64) -> Result<bool> {
    let corpus = directory.join("corpus").join(name);
    let found = directory.join("found").join(name);
    for made in [&corpus, &found] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    let started = Instant::now();
    let run = Command::new(binary)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .args(["-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=10"])
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(&corpus)
        .arg(directory.join("seeds").join(name))
        .output()
        .with_context(|| format!("run {}", binary.display()))?;
    let log = String::from_utf8_lossy(&run.stderr);
    let stat = |key: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(key));
        line.map_or("?", |line| line.trim_start_matches(':').trim())
    };
    let covered = log.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("cov: ")?;
        rest.split_whitespace().next()
    });
    println!(
        "{name:<10} {:>4} s {:>12} executions {:>7} edges covered, {} MB at most",
        started.elapsed().as_secs(),
        stat("stat::number_of_executed_units"),
        covered.unwrap_or("?"),
        stat("stat::peak_rss_mb"),
    );
    if run.status.success() {
        return Ok(true);
    }
    let tail: Vec<_> = log.lines().collect();
    let from = tail.len().saturating_sub(60);
    if tail.is_empty() {
        bail!("{name}: {}", run.status);
    }
    eprintln!("{}", tail[from..].join("\n"));
    Ok(false)
}
