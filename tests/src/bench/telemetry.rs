//! The layer `telemetry`: what tracking 100,000 flows takes, and how well it counts.
//!
//! Three parts: what two CPUs lose that count in the same flows at once, what tracking costs a packet by the number of
//! flows, and what the agent takes that knows them.

pub mod agent;
mod cost;
pub mod crowd;
pub mod race;

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::race::{Sharing, Tally, race};
use super::{
    Layer, Scale,
    chart::Chart,
    patience::hold_all,
    program::{EMPTY, FULL, PATIENCE, QUICK, QUICK_PATIENCE, over},
    report::{Table, thousands},
    row::{Row, Setting, setting},
};
use crate::{agent::Agent, lab::Lab, netns::Netns, rig::clock};

/// This layer.
pub const LAYER: Layer = Layer {
    name: NAME,
    measure,
    tables,
    charts,
};
const NAME: &str = "telemetry";
const FEW: u32 = 1_000;
const MANY: u32 = 100_000;
/// The agent's room for so many: it keeps a sixteenth back.
const ROOM: u32 = 120_000;
/// How often a race is held.
const RACES: usize = 5;
const UNCOUNTED: &str = "packets not counted";

/// Who shares what with whom.
const PAIRS: [(&str, Sharing, u32); 5] = [
    ("a half of the flows each", Sharing::Apart, MANY),
    ("a direction each", Sharing::Directions, MANY),
    ("both the same direction", Sharing::Together, MANY),
    ("both the same direction", Sharing::Together, FEW),
    ("both the same direction", Sharing::Together, 1),
];

struct Effort {
    /// Packets of a race.
    packets: u32,
    scrapes: usize,
    /// Packets of each flow that the agent looks on at, one a second.
    each: u32,
    idle: Duration,
}

/// Measures the layer.
///
/// # Errors
///
/// If the kernel refuses something, or what is counted exactly is not.
pub fn measure(scale: Scale) -> Result<Vec<Row>> {
    let quick = scale == Scale::Quick;
    let effort = if quick {
        Effort {
            packets: 400_000,
            scrapes: 20,
            each: 5,
            idle: Duration::from_secs(5),
        }
    } else {
        Effort {
            packets: 2_000_000,
            scrapes: 51,
            each: 20,
            idle: Duration::from_secs(60),
        }
    };
    let mut rows = Vec::new();
    // A machine of one CPU has no races.
    if clock::usable()?.len() >= 2 {
        for (name, sharing, flows) in PAIRS {
            races(name, sharing, flows, effort.packets, &mut rows)?;
        }
    }
    rows.extend(costs(quick)?);
    with_agent(&effort, &mut rows)?;
    Ok(rows)
}

/// What it is called, and how many packets of a tally it is.
type Figure = (&'static str, fn(&Tally) -> f64);

fn races(
    name: &str,
    sharing: Sharing,
    flows: u32,
    packets: u32,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let tallies = (0..RACES)
        .map(|_| race(sharing, flows, packets))
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("{name}, {flows} flows"))?;
    for tally in &tallies {
        eprintln!("{name}, {flows} flows: {tally:?}");
        ensure!(
            sharing == Sharing::Together || (tally.packets, tally.missing) == (tally.sent, 0),
            "{name}: CPUs that share nothing have lost something: {tally:?}"
        );
    }
    let at = setting(&[("cpus", "2"), ("flows", &thousands(flows))]);
    let figures: [Figure; 7] = [
        (UNCOUNTED, Tally::uncounted),
        ("bytes not counted", |tally| {
            // As many packets as that is.
            let bytes = tally.sent_bytes as f64 - tally.bytes as f64;
            bytes * tally.sent as f64 / tally.sent_bytes as f64
        }),
        ("ESP packets not counted", |tally| {
            tally.sent as f64 - tally.received as f64
        }),
        ("numbers counted as lost", |tally| tally.missing as f64),
        ("packets counted as late", |tally| tally.late as f64),
        ("packets counted as come twice", |tally| {
            tally.duplicate as f64
        }),
        ("packets counted as stray", |tally| tally.stray as f64),
    ];
    for (case, figure) in figures {
        let values = tallies.iter().map(|tally| tally.ppm(figure(tally)));
        rows.push(Row::alone(NAME, &at, [case, name, "ppm"], values));
    }
    let at_once = tallies.iter().map(|tally| 100.0 * tally.at_once);
    let names = ["both CPUs at once", name, "% of the time"];
    rows.push(Row::alone(NAME, &at, names, at_once));
    Ok(())
}

fn costs(quick: bool) -> Result<Vec<Row>> {
    let (effort, patience) = if quick {
        (QUICK, QUICK_PATIENCE)
    } else {
        (FULL, PATIENCE)
    };
    let idle = Netns::new("idle")?;
    hold_all(
        &[FEW, MANY],
        // With more flows, the baseline misses its caches as well.
        |flows| *flows,
        patience,
        |flows| cost::compare(*flows, &effort, &idle),
    )
}

fn with_agent(effort: &Effort, rows: &mut Vec<Row>) -> Result<()> {
    let lab = Lab::new()?;
    let router = &lab.router;
    let mut agent = Agent::new(router, &agent::configuration(ROOM, "full"))?;
    agent.log_less();
    agent.start()?;
    let mut add = |flows: u32, case: &str, unit: &str, values: Vec<f64>| {
        let at: Setting = setting(&[("labels", "full")]);
        let variant = format!("{} flows", thousands(flows));
        rows.push(Row::alone(NAME, &at, [case, &variant, unit], values));
    };
    let charged = agent::charged(&agent.map("FLOWS")?)?;
    let mebibytes = charged as f64 / f64::from(1 << 20);
    add(MANY, "map FLOWS, room for 120,000", "MiB", vec![mebibytes]);
    let each = charged as f64 / f64::from(ROOM);
    add(MANY, "map FLOWS, a flow", "bytes", vec![each]);
    for flows in [0, MANY] {
        agent::fill(&agent, flows)?;
        let took = agent::know(&mut agent, flows)?;
        add(
            flows,
            "from ready to all flows known",
            "s",
            vec![took.as_secs_f64()],
        );
        // What a start leaves behind, a resync gives back.
        thread::sleep(Duration::from_secs(3));
        for (case, mebibytes) in agent::resident(&mut agent)? {
            add(flows, case, "MiB", vec![mebibytes]);
        }
        let (times, size) = agent::scrapes(router, effort.scrapes)?;
        let slowest = times.iter().copied().fold(0.0, f64::max);
        add(flows, "scrape", "ms", times);
        add(flows, "scrape, the slowest", "ms", vec![slowest]);
        add(flows, "scrape, size", "KiB", vec![size as f64 / 1024.0]);
        let (mut times, mut size) = (Vec::new(), 0);
        for _ in 0..3 {
            let (took, bytes) = agent::tunnels(&agent)?;
            times.push(took);
            size = bytes;
        }
        add(flows, "tunnels --json", "ms", times);
        let mebibytes = size as f64 / f64::from(1 << 20);
        add(flows, "tunnels --json, size", "MiB", vec![mebibytes]);
        for (case, mebibytes) in agent::resident(&mut agent)? {
            let case = format!("{case}, after tunnels --json");
            add(flows, &case, "MiB", vec![mebibytes]);
        }
        if flows > 0 {
            let watch = agent::Watch::begin(&mut agent)?;
            let second = Duration::from_secs(1);
            let sent = agent::send(&agent, router, flows, effort.each, second)?;
            let case = format!("CPU while {} packets a second pass", thousands(flows));
            add(flows, &case, "% of a CPU", vec![watch.end()?]);
            eprintln!("{sent} packets in the agent's flows");
        }
        let watch = agent::Watch::begin(&mut agent)?;
        thread::sleep(effort.idle);
        add(flows, "CPU, idle", "% of a CPU", vec![watch.end()?]);
        agent.running()?.check_running()?;
    }
    agent.configure(&agent::configuration(ROOM, "small"))?;
    agent.ask(&["reload"])?;
    let (times, size) = agent::scrapes(router, effort.scrapes)?;
    add(MANY, "scrape, labels small", "ms", times);
    let kibibytes = size as f64 / 1024.0;
    add(MANY, "scrape, labels small, size", "KiB", vec![kibibytes]);
    agent.finish()
}

fn tables(rows: &[Row]) -> Vec<Table> {
    let case = |row: &Row| row.case.clone();
    let variant = |row: &Row| row.variant.clone();
    let races = rows.iter().filter(|row| row.at("cpus") == "2");
    let mut tables = vec![Table::pivot(
        "Two CPUs at once",
        "parts per million of the packets that were sent",
        races,
        |row| format!("{}, {}", row.case, row.unit),
        |row| format!("{}, {} flows", row.variant, row.at("flows")),
    )];
    for baseline in [EMPTY, cost::OFF] {
        tables.push(Table::pivot(
            &format!("A packet of ESP in UDP, over {baseline}"),
            "ns a packet",
            over(rows, baseline),
            variant,
            |row| format!("{} flows", row.at("flows")),
        ));
    }
    tables.push(Table::pivot(
        "The agent, a tunnel for each flow",
        "",
        rows.iter().filter(|row| !row.at("labels").is_empty()),
        |row| format!("{}, {}", case(row), row.unit),
        variant,
    ));
    tables
}

fn charts(_: &[Row]) -> Vec<Chart> {
    // Figures of as many units as rows.
    Vec::new()
}
