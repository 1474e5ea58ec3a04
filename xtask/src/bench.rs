//! `cargo xtask bench`: builds the agent and the measurements, and runs them.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Component},
    instructions, qemu,
    workspace::{cargo, executable, root, run, show, target},
};

#[path = "../../tests/src/bin/wificall-bench/args.rs"]
mod args;

const BENCH: &str = "wificall-bench";

/// What each layer compares with, or needs.
const LAYERS: [(&str, &[Component<'_>]); 6] = [
    ("program", NAMESPACES),
    ("policies", NAMESPACES),
    ("forwarding", &[FORWARDING]),
    ("xdp", &[FORWARDING]),
    ("system", NAMESPACES),
    ("telemetry", NAMESPACES),
];

/// Routers in namespaces, and the rules that others write for them.
pub const FORWARDING: Component<'_> = Component {
    name: "forwarding",
    packages: &["iproute2", "ethtool", "iptables", "ipset", "nftables"],
};

const NAMESPACES: &[Component<'_>] = &[Component {
    name: "network namespaces",
    packages: &["iproute2"],
}];

// A group of its own name, for the flattened one has that of its type, too.
#[derive(clap::Args)]
#[group(id = "bench")]
pub struct Args {
    #[command(flatten)]
    bench: args::Args,
    /// Measure nothing: record the programs' numbers of instructions in tests/instructions.toml
    #[arg(long)]
    record_instructions: bool,
    /// Kernel lines, in QEMU, to record them of, besides this machine's
    #[arg(
        long,
        value_name = "VERSIONS",
        value_delimiter = ',',
        default_value = "5.10"
    )]
    kernels: Vec<String>,
    /// Fail if something is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Entry point of the task. Comes back only if the measurements cannot be started.
pub fn bench(args: &Args) -> Result<ExitCode> {
    // SAFETY: getuid has no preconditions and cannot fail.
    if unsafe { libc::getuid() } != 0 {
        bail!(
            "the measurements load BPF programs and make network namespaces\nhint: run `cargo xtask bench` as root"
        );
    }
    let Args {
        bench, no_install, ..
    } = args;
    if args.record_instructions {
        apt::ensure(&[qemu::COMPONENT], !no_install)?;
        return instructions::record(&args.kernels).map(|()| ExitCode::SUCCESS);
    }
    for name in &bench.layers {
        if !LAYERS.iter().any(|(layer, _)| layer == name) {
            let known = LAYERS.map(|(layer, _)| layer).join(", ");
            bail!("no layer is called {name:?}\nhint: there are: {known}");
        }
    }
    let chosen = |name: &str| bench.layers.is_empty() || bench.layers.iter().any(|one| one == name);
    let components: Vec<_> = LAYERS
        .iter()
        .filter(|(layer, _)| chosen(layer))
        .flat_map(|(_, components)| components.iter().copied())
        .collect();
    apt::ensure(&components, !no_install)?;
    // With the build's progress to see: the first one takes minutes.
    run(&mut build())?;
    let agent = executable(&mut build(), "wificall")?;
    let mut command = Command::new(executable(&mut build(), BENCH)?);
    command
        .current_dir(root())
        .env("WIFICALL_BIN", agent)
        .arg("--out")
        .arg(target().join("bench"))
        .args(["--runs", &bench.runs.to_string()]);
    for layer in &bench.layers {
        command.args(["--layer", layer]);
    }
    for (set, option) in [
        (bench.check, "--check"),
        (bench.quick, "--quick"),
        (bench.write_docs, "--write-docs"),
    ] {
        command.args(set.then_some(option));
    }
    // In place of this process, so that Ctrl-C and the exit code are the measurements' own.
    Err(command.exec()).with_context(|| format!("start {}", show(&command)))
}

fn build() -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "wificall"]);
    command.args(["--package", "wificall-tests"]);
    command.args(["--bin", "wificall", "--bin", BENCH]);
    command
}
