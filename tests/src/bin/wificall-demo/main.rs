//! The demonstration that `cargo xtask demo` runs: the agent in a lab of network namespaces, with
//! calls and other traffic, shown while it happens and compared in the end.

mod args;
mod counted;
mod dns;
mod kept;
mod leftovers;
mod live;
mod scene;
mod script;
mod signals;
mod summary;
mod tally;
mod text;
mod traffic;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use wificall::observe::Report;
use wificall_tests::agent::Agent;
use wificall_tests::lab::LIMIT;
use wificall_tests::metrics::Metrics;
use wificall_tests::process::wait_for;

use crate::args::Args;
use crate::counted::Counted;
use crate::leftovers::Leftovers;
use crate::scene::{OPERATORS, Scene};
use crate::summary::Summary;
use crate::tally::{Tally, Watch};
use crate::text::{Screen, put};
use crate::traffic::Traffic;

#[derive(Parser)]
#[command(name = "wificall-demo")]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let Cli { args } = Cli::parse();
    let result = if args.remove {
        kept::remove()
    } else {
        run(args)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    if args.keep {
        kept::refuse_second()?;
        kept::begin()?;
    }
    signals::catch();
    let leftovers = Leftovers::of(std::process::id());
    let result = show(args);
    let left = leftovers.find();
    if !left.is_empty() {
        eprintln!("left behind: {left:?}");
    } else if result.is_err() && signals::interrupted() {
        bail!("interrupted; everything is removed");
    }
    result?;
    ensure!(left.is_empty(), "the lab could not be removed");
    put("The lab is removed, and nothing is left of it.\n")?;
    Ok(())
}

fn show(args: Args) -> Result<()> {
    put("Building the lab: phone - router with the agent - ePDGs, DNS server\n")?;
    let scene = Scene::new()?;
    let result = play(&scene, args);
    signals::ignore();
    result
}

fn play(scene: &Scene, args: Args) -> Result<()> {
    let mut agent = Agent::run(&scene.lab.router, &scene::configuration(args.xdp))?;
    put(&discovered(&agent)?)?;
    let watch = Watch::start(scene)?;
    let before = quiet(&watch, &agent)?;
    let traffic = Traffic::start(scene)?;
    let mut screen = Screen::new();
    let start = Instant::now();
    for second in 1..=args.seconds {
        signals::sleep_until(start + Duration::from_secs(second.into()))?;
        agent.running()?.check_running()?;
        if traffic.ended() {
            break;
        }
        let counted = Counted::since(&before, &agent.metrics()?);
        let tally = watch.tally();
        if screen.is_terminal() {
            screen.draw(&live::table(second, args.seconds, &tally, &counted))?;
        } else {
            put(&live::line(second, &tally, &counted))?;
        }
    }
    traffic.finish()?;
    let (tally, counted) = settled(watch, &agent, &before)?;
    screen.clear()?;
    let Summary { text, rows, wrong } = Summary::new(&tally, &counted, args.xdp);
    if !screen.is_terminal() {
        put("\n")?;
    }
    put(&text)?;
    if args.keep {
        return kept::keep(scene, &agent, wrong == 0);
    }
    // The kernel's objects, by the agent's own command; then namespaces, bpffs, directories.
    agent.finish()?;
    ensure!(wrong == 0, "{wrong} of {rows} rows do not agree");
    put(&format!("\nAll {rows} rows agree.\n"))?;
    Ok(())
}

/// Waits until DNS has told the agent all addresses; what it found, as it reports it.
fn discovered(agent: &Agent<'_>) -> Result<String> {
    let names = wait_for("all addresses of the ePDGs", LIMIT, || {
        let report: Report = serde_json::from_value(agent.status()?)?;
        let mut names = report.discovery.names;
        names.retain(|name| !name.addresses.is_empty());
        let found: usize = names.iter().map(|name| name.addresses.len()).sum();
        let told: usize = OPERATORS
            .iter()
            .map(|operator| operator.addresses.len())
            .sum();
        ensure!(found == told, "{names:?}");
        Ok(names)
    })
    .with_context(|| agent.log())?;
    let lines = names.iter().map(|name| {
        let (operators, addresses) = (name.operators.join("+"), name.addresses.join("  "));
        format!("{operators}  {}\n        {addresses}\n", name.name)
    });
    Ok(format!(
        "The agent asked DNS, and found\n{}\n",
        lines.collect::<String>()
    ))
}

/// How long a frame may take to be seen by a capture that looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The counters at a moment from which on everything is captured, and nothing was on its way.
fn quiet(watch: &Watch, agent: &Agent<'_>) -> Result<Metrics> {
    wait_for("a quiet link", LIMIT, || {
        watch.forget();
        let metrics = agent.metrics()?;
        thread::sleep(PAUSE);
        ensure!(watch.tally().frames.is_empty(), "frames on their way");
        Ok(metrics)
    })
}

/// What was seen and counted, once everything has arrived. What does not arrive is missing in the
/// summary.
fn settled(watch: Watch, agent: &Agent<'_>, before: &Metrics) -> Result<(Tally, Counted)> {
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        let tally = watch.tally();
        let counted = Counted::since(before, &agent.metrics()?);
        thread::sleep(PAUSE);
        let quiet = watch.tally().frames == tally.frames;
        if quiet && tally.settled() || Instant::now() > end {
            return Ok((watch.finish()?, counted));
        }
    }
}
