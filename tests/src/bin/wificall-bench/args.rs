//! The options of the measurements: those of `cargo xtask bench` and of the program that it runs.

/// What to measure, and what to do with it.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Measure these layers only (program, …); all if not given
    #[arg(long = "layer", value_name = "LAYER", value_delimiter = ',')]
    pub layers: Vec<String>,
    /// Fail if a path costs more than tests/budgets.toml allows it
    #[arg(long)]
    pub check: bool,
    /// Measure only what the budgets need, in seconds instead of minutes
    #[arg(long)]
    pub quick: bool,
    /// Write tables, charts and figures to docs/performance.md and docs/performance/
    #[arg(long, conflicts_with = "quick")]
    pub write_docs: bool,
}
