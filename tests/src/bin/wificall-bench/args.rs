//! The options of the measurements: those of `cargo xtask bench` and of the program that it runs.

/// What to measure, and what to do with it.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Measure these layers only (program, policies, forwarding, xdp, system, telemetry); all if not given
    #[arg(long = "layer", value_name = "LAYER", value_delimiter = ',')]
    pub layers: Vec<String>,
    /// Fail if a path costs more than tests/budgets.toml allows it, or if the machine is too noisy to tell
    #[arg(long)]
    pub check: bool,
    /// Measure only what the budgets need, in seconds instead of minutes
    #[arg(long)]
    pub quick: bool,
    /// Measure everything so many times, one run after another; tables are of the first, with a comparison of all
    #[arg(long, value_name = "RUNS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub runs: u8,
    /// Write tables, charts and figures to docs/performance.md and docs/performance/; only of a commit
    #[arg(long, conflicts_with = "quick")]
    pub write_docs: bool,
}
