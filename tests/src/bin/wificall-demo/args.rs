//! The options of the demonstration: those of `cargo xtask demo` and of the program that it runs.

/// What to show, and what to leave.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Args {
    /// How long the traffic flows
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Classify in XDP (native, at the router's interface to the phone), before TC
    #[arg(long)]
    pub xdp: bool,
    /// Leave the lab and its traffic for a look, and say how to look around
    #[arg(long)]
    pub keep: bool,
    /// Remove the lab that --keep has left
    #[arg(long, conflicts_with_all = ["seconds", "xdp", "keep"])]
    pub remove: bool,
}
