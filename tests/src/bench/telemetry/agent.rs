//! The agent with many tunnels: memory, scrapes, CPU.

use std::{
    fmt::Write as _,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::{HashMap, Map, MapData},
    programs::{ProgramInfo, SchedClassifier, TcAttachType},
};
use wificall::kernel::ktime;
use wificall_common::{
    abi::{Control, Flow, FlowKey, MILESTONES, SpiSlot, Way},
    flow::Milestone,
};

use super::crowd::{ENDPOINTS, for_agent, frames, key};
use crate::{
    agent::{Agent, get},
    bench::system::{cpu, memory, milliseconds},
    netns::Netns,
    process::wait_for,
    programs::{Abi, driver::Driver, raw::Kind},
};

/// Operators that the endpoints are spread over, of a country code each: labels.
const OPERATORS: u32 = 200;
/// How long the agent may take to read the whole table.
const READ: Duration = Duration::from_secs(120);
const SECOND: u64 = 1_000_000_000;

/// Configuration of an agent that knows the crowd's endpoints and has room for so many flows.
#[must_use]
pub fn configuration(flows: u32, labels: &str) -> String {
    let mut text = format!(
        "[interfaces]\naccess = [\"lan\"]\n[lab]\nadmit = [\"198.18.0.0/16\"]\n[limits]\nflows = {flows}\n\
         [telemetry]\nlabels = \"{labels}\"\n"
    );
    for number in 0..ENDPOINTS {
        let [a, b, c, _] = for_agent(number).octets();
        let (mcc, mnc) = (1 + number % OPERATORS / 100, number % 100);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[prefix]]\nprefix = \"{a}.{b}.{c}.0/24\"\noperator = \"{mcc:03}-{mnc:02}\""
        );
    }
    text
}

/// The map of flows of an agent.
///
/// # Errors
///
/// If it cannot be opened.
pub fn map(agent: &Agent<'_>) -> Result<HashMap<MapData, Abi<FlowKey>, Abi<Flow>>> {
    let map = Map::LruHashMap(agent.map("FLOWS")?);
    map.try_into().context("the map FLOWS")
}

/// Bytes that the kernel charges for a map.
///
/// # Errors
///
/// If it does not say.
pub fn charged(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = bytes.with_context(|| format!("no memlock in {path}: {text}"))?;
    Ok(bytes.trim().parse()?)
}

/// Puts so many flows into the table as the programs would have by now: a tunnel each, set up a minute ago, idle.
///
/// # Errors
///
/// If the map does not take them.
pub fn fill(agent: &Agent<'_>, flows: u32) -> Result<()> {
    let mut map = map(agent)?;
    let now = ktime();
    for number in 0..flows {
        let flow = settled(number, now);
        map.insert(Abi(key(number, for_agent)), Abi(flow), 0)?;
    }
    Ok(())
}

/// A flow on port 4500 whose tunnel is up.
fn settled(number: u32, now: u64) -> Flow {
    let began = now.saturating_sub(60 * SECOND);
    let way = |spi: u32, highest: u32| Way {
        packets: u64::from(highest) + 4,
        bytes: u64::from(highest + 4) * 140,
        seen: now,
        esp_seen: now,
        spis: [
            SpiSlot {
                window: u64::MAX,
                spi,
                highest,
                anchor: 1,
                candidate: 0,
            },
            SpiSlot::default(),
        ],
        esp: highest,
        reached: 1,
        ..Way::default()
    };
    let spi = u64::from(number) + 1;
    let reached = Milestone::ALL
        .into_iter()
        .filter(|milestone| *milestone > Milestone::InitAnswered);
    let mut times = [0; MILESTONES];
    for milestone in reached.clone() {
        times[milestone as usize] = 50_000 * (milestone as u32 + 1);
    }
    Flow {
        up: way(0x1000_0000 | number, 400),
        down: way(0x2000_0000 | number, 400),
        control: Control {
            began,
            spi_i: spi.to_be_bytes(),
            spi_r: (spi << 32).to_be_bytes(),
            round_trip: [20_000, 0],
            reached: times,
            auth_responses: 3,
            milestones: reached.fold(0, |bits, milestone| bits | milestone.bit()),
            ..Control::default()
        },
    }
}

/// Starts the agent anew and waits until it knows so many flows; how long that took after it was ready.
///
/// # Errors
///
/// If it does not get to know them.
pub fn know(agent: &mut Agent<'_>, flows: u32) -> Result<Duration> {
    agent.stop()?;
    agent.start()?;
    let start = Instant::now();
    wait_for("the agent to read all flows", READ, || {
        let known = agent.metrics()?.sum("wificall_flows", &[]);
        if known != u64::from(flows) {
            // Seldom: a scrape is work for the agent, too.
            thread::sleep(Duration::from_millis(250));
            bail!("it knows {known} flows, not {flows}");
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// Milliseconds of so many scrapes, and the bytes of one.
///
/// # Errors
///
/// If the agent does not answer.
pub fn scrapes(router: &Netns, count: usize) -> Result<(Vec<f64>, usize)> {
    let mut size = 0;
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(milliseconds(|| {
            size = get(router, "/metrics")?.len();
            Ok(())
        })?);
    }
    Ok((times, size))
}

/// What a process ran and was, from here to [`Watch::end`].
pub struct Watch {
    pid: u32,
    start: Instant,
    before: Duration,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    ///
    /// If the agent does not run.
    pub fn begin(agent: &mut Agent<'_>) -> Result<Self> {
        let pid = agent.running()?.id();
        Ok(Self {
            pid,
            start: Instant::now(),
            before: cpu(pid)?,
        })
    }

    /// CPU seconds a second since then, in percent of one CPU.
    ///
    /// # Errors
    ///
    /// If the agent does not run any more.
    pub fn end(self) -> Result<f64> {
        let used = cpu(self.pid)?.saturating_sub(self.before);
        Ok(100.0 * used.as_secs_f64() / self.start.elapsed().as_secs_f64())
    }
}

/// The agent's memory in MiB, by kind.
///
/// # Errors
///
/// If the agent does not run.
pub fn resident(agent: &mut Agent<'_>) -> Result<Vec<(&'static str, f64)>> {
    memory(agent.running()?.id())
}

/// The agent's own program at ingress of `lan`.
fn program(router: &Netns) -> Result<ProgramInfo> {
    let (_, found) = router.enter(|| SchedClassifier::query_tcx("lan", TcAttachType::Ingress))?;
    let [program] = <[ProgramInfo; 1]>::try_from(found)
        .map_err(|found| anyhow::anyhow!("{} programs at ingress of lan", found.len()))?;
    Ok(program)
}

/// Sends `each` packets of each of the flows through the agent's program, from two CPUs at once, one of each flow every
/// `pace`. How many there were.
///
/// # Errors
///
/// If the kernel refuses it, or a packet is not counted in its flow.
pub fn send(
    agent: &Agent<'_>,
    router: &Netns,
    flows: u32,
    each: u32,
    pace: Duration,
) -> Result<u64> {
    let frames = frames(flows, false, for_agent)?;
    let program = program(router)?.fd()?;
    let middle = flows as usize / 2 * frames.header;
    let (first, second) = frames.headers.split_at(middle);
    let before = counted(agent)?;
    thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for headers in [first, second] {
            let (frames, program) = (&frames, &program);
            threads.push(scope.spawn(move || -> Result<()> {
                let driver = Driver::new(
                    Kind::Tc,
                    &frames.frame,
                    headers,
                    frames.header,
                    frames.counter,
                )?;
                let packets = u32::try_from(headers.len() / frames.header)?;
                let start = Instant::now();
                for round in 1..=each {
                    driver.time(program, packets)?;
                    let due = start + pace * round;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                Ok(())
            }));
        }
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        Ok(())
    })?;
    let sent = u64::from(flows) * u64::from(each);
    let counted = counted(agent)? - before;
    ensure!(
        counted == sent,
        "the flows have counted {counted} packets, not {sent}"
    );
    Ok(sent)
}

/// Packets up that the flows have counted.
fn counted(agent: &Agent<'_>) -> Result<u64> {
    let mut sum = 0;
    for flow in map(agent)?.iter() {
        sum += flow?.1.0.up.packets;
    }
    Ok(sum)
}
