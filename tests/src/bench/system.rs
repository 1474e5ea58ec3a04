//! The layer `system`: what the agent itself takes, in the lab, with a DNS server that has the world's names. What flows
//! take is in the layer `telemetry`.

use std::{
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Layer, Scale,
    chart::Chart,
    report::Table,
    row::{Row, Setting},
};
use crate::{
    agent::{Agent, get},
    lab::{LIMIT, Lab, ROUTER_DNS},
    netns::Netns,
    process::wait_for,
    world::World,
};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables,
    charts,
};
const NAME: &str = "system";

// Variants: what the agent is told to know.
const FEW: &str = "3 operators";
const WORLD: &str = "the world";
const MANY: &str = "10,000 endpoints, 1,000 groups";

/// Queries a second of the sweep; at the default of 20 it takes a quarter of an hour.
const SWEEP_RATE: u32 = 2_000;
const ENDPOINTS: u32 = 10_000;
/// Operators of the test network's and the next country codes, a group each.
const GROUPS: u32 = 1_000;

/// How often and how long.
struct Effort {
    starts: usize,
    scrapes: usize,
    idles: usize,
    idle: Duration,
}

/// Measures the layer.
///
/// # Errors
///
/// If the agent does not do what is measured.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let effort = match scale {
        Scale::Full => Effort {
            starts: 9,
            scrapes: 51,
            idles: 5,
            idle: Duration::from_secs(5),
        },
        Scale::Quick => Effort {
            starts: 3,
            scrapes: 11,
            idles: 2,
            idle: Duration::from_secs(1),
        },
    };
    let lab = Lab::new()?;
    let mut world = World::start(&lab, 3600)?;
    let mut rows = Vec::new();
    with_few(&lab.router, &effort, &mut rows)?;
    with_world(&lab.router, &mut world, &effort, &mut rows)?;
    with_many(&lab.router, &effort, &mut rows)?;
    Ok(rows)
}

fn with_few(router: &Netns, effort: &Effort, rows: &mut Vec<Row>) -> Result<()> {
    let discovery = |operators: &str| {
        format!("[discovery]\noperators = [{operators}]\nresolvers = [\"{ROUTER_DNS}\"]\n{LAB}")
    };
    let few = discovery("\"262-01\", \"310-260\", \"505-01\"");
    let mut agent = agent(router, &few)?;
    agent.start()?;
    swept(&agent)?;
    at_rest(&mut agent, FEW, effort, rows)?;
    rows.push(row("scrape", FEW, "ms", scrapes(router, effort)?));
    let other = discovery("\"262-01\", \"310-260\", \"505-02\"");
    let reloads = reloads(&agent, [&other, &few], effort)?;
    rows.push(row("reload", FEW, "ms", reloads));
    starts(&mut agent, FEW, effort, rows)?;
    agent.finish()
}

fn with_world(
    router: &Netns,
    world: &mut World<'_>,
    effort: &Effort,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let all = format!(
        "[discovery]\nworld = true\nresolvers = [\"{ROUTER_DNS}\"]\n\
         queries_per_second = {SWEEP_RATE}\nconcurrency = 64\n{LAB}"
    );
    // What others have asked for.
    drop(world.take()?);
    let mut agent = agent(router, &all)?;
    agent.start()?;
    swept(&agent)?;
    let seconds = cpu(agent.running()?.id())?.as_secs_f64();
    let queries = world.take()?.len();
    rows.push(row("sweep, CPU", WORLD, "s", [seconds]));
    rows.push(row(
        "sweep, DNS queries",
        WORLD,
        "queries",
        [queries as f64],
    ));
    let each = seconds * 1e6 / queries as f64;
    rows.push(row("sweep, CPU a query", WORLD, "µs", [each]));
    at_rest(&mut agent, WORLD, effort, rows)?;
    rows.push(row("scrape", WORLD, "ms", scrapes(router, effort)?));
    starts(&mut agent, WORLD, effort, rows)?;
    agent.finish()
}

fn with_many(router: &Netns, effort: &Effort, rows: &mut Vec<Row>) -> Result<()> {
    let [one, other] = ["0x65/0xff", "0x66/0xff"].map(many);
    let mut agent = agent(router, &one)?;
    agent.start()?;
    at_rest(&mut agent, MANY, effort, rows)?;
    rows.push(row("scrape", MANY, "ms", scrapes(router, effort)?));
    let reloads = reloads(&agent, [&other, &one], effort)?;
    rows.push(row("reload", MANY, "ms", reloads));
    agent.finish()
}

/// The lab's addresses are admitted, and its operators are none of the catalogue's.
const LAB: &str = "[lab]\nadmit = [\"198.18.0.0/16\"]\n";

/// Static endpoints, a block each.
fn many(mark: &str) -> String {
    let mut text =
        format!("[limits]\nprefixes = {ENDPOINTS}\n[defaults]\nmark = \"{mark}\"\n{LAB}");
    for number in 0..ENDPOINTS {
        let block = std::net::Ipv4Addr::from(u32::from_be_bytes([101, 0, 0, 0]) + (number << 8));
        let (mcc, mnc) = (1 + number % GROUPS / 100, number % 100);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[prefix]]\nprefix = \"{block}/24\"\noperator = \"{mcc:03}-{mnc:02}\""
        );
    }
    text
}

fn interfaces(configuration: &str) -> String {
    format!("[interfaces]\naccess = [\"lan\"]\n{configuration}")
}

/// One with this configuration that, unlike a test's, resyncs and logs as it does by default.
fn agent<'a>(router: &'a Netns, configuration: &str) -> Result<Agent<'a>> {
    let mut agent = Agent::new(router, &interfaces(configuration))?;
    agent.log_less();
    configure(&agent, configuration)?;
    Ok(agent)
}

fn configure(agent: &Agent<'_>, configuration: &str) -> Result<()> {
    const RESYNC: &str = "resync = \"2s\"\n";
    agent.configure(&interfaces(configuration))?;
    let text = fs::read_to_string(agent.config_path())?;
    ensure!(text.contains(RESYNC), "the lab's configuration:\n{text}");
    fs::write(agent.config_path(), text.replace(RESYNC, "")).context("write the configuration")
}

fn row(case: &str, variant: &str, unit: &str, values: impl IntoIterator<Item = f64>) -> Row {
    Row::alone(NAME, &Setting::new(), [case, variant, unit], values)
}

/// Waits until every name has been asked for. Seldom asked, so that what is measured is not the asking.
fn swept(agent: &Agent<'_>) -> Result<()> {
    wait_for("the end of the sweep", LIMIT * 3, || {
        thread::sleep(Duration::from_secs(1));
        let metrics = agent.metrics()?;
        let left = metrics.sum("wificall_dns_names_unasked", &[])
            + metrics.sum("wificall_dns_backlog", &[])
            + metrics.sum("wificall_dns_names", &[("state", "pending")]);
        ensure!(left == 0, "{left} names left");
        Ok(())
    })
}

/// What all threads of a process have run.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first of three numbers (Documentation/scheduler/sched-stats.rst).
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split(' ').next().unwrap_or_default();
        nanoseconds += first.parse::<u64>().context("schedstat")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// What it takes while nothing happens: percent of one CPU, and memory of three kinds, each looked at once.
fn at_rest(
    agent: &mut Agent<'_>,
    variant: &str,
    effort: &Effort,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let pid = agent.running()?.id();
    let mut percents = Vec::new();
    for _ in 0..effort.idles {
        let (start, before) = (Instant::now(), cpu(pid)?);
        thread::sleep(effort.idle);
        let used = cpu(pid)?.saturating_sub(before);
        percents.push(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64());
    }
    agent.running()?.check_running()?;
    rows.push(row("idle", variant, "% of a CPU", percents));
    for (case, mebibytes) in memory(pid)? {
        rows.push(row(case, variant, "MiB", [mebibytes]));
    }
    Ok(())
}

/// Memory of three kinds of a process, in MiB.
pub(super) fn memory(pid: u32) -> Result<Vec<(&'static str, f64)>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kinds = [
        ("memory, resident", "VmRSS:"),
        ("memory, resident at most so far", "VmHWM:"),
        ("memory, resident and of no file", "RssAnon:"),
    ];
    let read = |(case, name)| {
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
            .with_context(|| format!("{name} of /proc/<pid>/status"))?;
        Ok((case, kilobytes.parse::<f64>()? / 1024.0))
    };
    kinds.into_iter().map(read).collect()
}

pub(super) fn milliseconds(action: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    action()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn scrapes(router: &Netns, effort: &Effort) -> Result<Vec<f64>> {
    (0..effort.scrapes)
        .map(|_| milliseconds(|| get(router, "/metrics").map(drop)))
        .collect()
}

/// `wificall reload`, each time to another configuration than the one before, ending at the second.
fn reloads(agent: &Agent<'_>, configurations: [&str; 2], effort: &Effort) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..effort.starts.div_ceil(2) {
        for configuration in configurations {
            configure(agent, configuration)?;
            times.push(milliseconds(|| agent.ask(&["reload"]).map(drop))?);
        }
    }
    Ok(times)
}

/// From exec to `/readyz`, with the last known good on disk: with the maps of the agent before, and with none.
fn starts(
    agent: &mut Agent<'_>,
    variant: &str,
    effort: &Effort,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let (mut again, mut afresh) = (Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        agent.stop()?;
        again.push(milliseconds(|| agent.start())?);
        agent.stop()?;
        agent.ask(&["detach"])?;
        afresh.push(milliseconds(|| agent.start())?);
    }
    rows.push(row("exec to attached, maps there", variant, "ms", again));
    rows.push(row("exec to attached, maps made", variant, "ms", afresh));
    Ok(())
}

fn tables(rows: &[Row]) -> Vec<Table> {
    vec![Table::pivot(
        "The agent",
        "",
        rows,
        |row| format!("{}, {}", row.case, row.unit),
        |row| row.variant.clone(),
    )]
}

fn charts(_: &[Row]) -> Vec<Chart> {
    // Figures of as many units as rows.
    Vec::new()
}
