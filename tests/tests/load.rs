//! Two CPUs that count at once, and an agent with very many flows.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wificall::telemetry::view::{State, Tunnels};
use wificall_tests::{
    agent::{Agent, get},
    bench::telemetry::{
        agent,
        race::{Sharing, Tally, race},
    },
    lab::Lab,
    process::output_within,
    stolen::on_time,
};

const FLOWS: u32 = 2_000;
const PACKETS: u32 = 100_000;
/// Milliseconds of a scrape at most, of an agent without optimisation, on a machine that does other things as well: so the
/// quickest of several.
const SCRAPE: f64 = 3_000.0;

fn held(sharing: Sharing, flows: u32) -> Result<Tally> {
    let tally = race(sharing, flows, PACKETS)?;
    println!("{sharing:?}, {flows} flows: {tally:?}");
    // Bytes are counted as packets are: each packet's or not.
    ensure!(
        tally.packets <= tally.sent && tally.bytes <= tally.sent_bytes,
        "{tally:?}"
    );
    ensure!(tally.received <= tally.sent, "{tally:?}");
    Ok(tally)
}

/// A router's two interfaces, or two of its queues with flows of their own.
#[test]
fn cpus_that_share_no_direction_of_a_flow_count_exactly() -> Result<()> {
    for sharing in [Sharing::Apart, Sharing::Directions] {
        let tally = held(sharing, FLOWS)?;
        assert_eq!((tally.packets, tally.bytes), (tally.sent, tally.sent_bytes));
        assert_eq!(tally.received, tally.sent);
        let wrong = [tally.missing, tally.late, tally.duplicate, tally.stray];
        assert_eq!((wrong, tally.anchored), ([0; 4], 0), "{tally:?}");
    }
    Ok(())
}

/// The same direction of the same flows by two CPUs, whose packets then come in another order as well.
#[test]
fn cpus_that_share_a_direction_lose_each_others_counts_and_no_more() -> Result<()> {
    let many = held(Sharing::Together, FLOWS)?;
    let one = held(Sharing::Together, 1)?;
    // Measured: less than a hundredth of many flows, a twentieth of one.
    for (tally, most) in [(many, 0.05), (one, 0.2)] {
        let part = |count: u64| count as f64 / tally.sent as f64;
        assert!(part(tally.sent - tally.packets) <= most, "{tally:?}");
        assert!(part(tally.sent - tally.received) <= most, "{tally:?}");
        assert!(part(tally.missing) <= most, "{tally:?}");
    }
    Ok(())
}

/// It answers, and a call among them is seen as soon as it would be alone.
#[test]
fn an_agent_with_tens_of_thousands_of_flows_keeps_up() -> Result<()> {
    on_time(keeps_up)
}

fn keeps_up() -> Result<()> {
    const FLOWS: u32 = 30_000;
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, &agent::configuration(40_000, "full"))?;
    agent.log_less();
    agent.start()?;
    agent::fill(&agent, FLOWS)?;
    let took = agent::know(&mut agent, FLOWS)?;
    let (times, size) = agent::scrapes(&lab.router, 20)?;
    let quickest = times.iter().copied().fold(f64::MAX, f64::min);
    println!(
        "known after {took:?}; a scrape of {size} bytes took {times:.0?} ms; {:?}",
        agent::resident(&mut agent)?
    );
    ensure!(quickest < SCRAPE, "scrapes took {times:.0?} ms");

    // All are to be read at once, and a call is among them.
    agent::send(&agent, &lab.router, FLOWS, 2, Duration::from_millis(500))?;
    agent::talk(&lab.router, 8)?;
    agent.wait_metrics("the call", |metrics| {
        let calls = metrics.sum("wificall_calls_total", &[]);
        ensure!(calls == 1, "{calls} calls");
        Ok(())
    })?;
    let metrics = agent.metrics()?;
    assert_eq!(metrics.sum("wificall_flows", &[]), u64::from(FLOWS));
    let all = all_tunnels_cost_little(&mut agent, FLOWS)?;
    some_tunnels_are_told_soon(&lab, &all)?;
    agent.finish()
}

/// Milliseconds of a limited list at most, likewise the quickest of several.
const LIMITED: f64 = 1_500.0;
/// Bytes of a tunnel at most, as long as it has few calls.
const TUNNEL: usize = 4_096;

/// As the page and `top` ask.
fn some_tunnels_are_told_soon(lab: &Lab, all: &Tunnels) -> Result<()> {
    const LIMIT: usize = 200;
    let mut quickest = f64::MAX;
    let mut text = String::new();
    for _ in 0..5 {
        let start = Instant::now();
        text = get(&lab.router, &format!("/api/v1/tunnels?limit={LIMIT}"))?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        quickest = quickest.min(took);
    }
    println!("{LIMIT} tunnels: {} bytes in {quickest:.0} ms", text.len());
    ensure!(quickest < LIMITED, "{LIMIT} tunnels took {quickest:.0} ms");
    ensure!(text.len() < LIMIT * TUNNEL, "{} bytes", text.len());
    let some: Tunnels = serde_json::from_str(&text)?;
    ensure!(
        (some.total, some.found) == (30_000, 30_000),
        "{} of {}",
        some.found,
        some.total
    );
    ensure!(
        some.tunnels.len() == LIMIT,
        "{} tunnels",
        some.tunnels.len()
    );
    // One that is not among them is found by its address, and by its name.
    let far = all.tunnels.last().context("no tunnel")?;
    ensure!(
        some.tunnels.iter().all(|tunnel| tunnel.id != far.id),
        "{far:?}"
    );
    let filter = format!("/api/v1/tunnels?limit={LIMIT}&filter={}", far.client);
    let found: Tunnels = serde_json::from_str(&get(&lab.router, &filter)?)?;
    ensure!(
        found.tunnels.iter().any(|tunnel| tunnel.id == far.id),
        "{found:?}"
    );
    let one = get(&lab.router, &format!("/api/v1/tunnels/{}", far.id))?;
    ensure!(one.contains(&format!("\"{}\"", far.client)), "{one}");
    Ok(())
}

/// All of them, in their order, while the agent holds no more than some at a time.
fn all_tunnels_cost_little(agent: &mut Agent<'_>, flows: u32) -> Result<Tunnels> {
    /// MiB that the agent may grow by. All of them as text would be some forty.
    const GROWTH: f64 = 10.0;
    /// Unoptimised, on CPUs that others have as well.
    const PATIENCE: Duration = Duration::from_secs(120);
    // From here on (proc_pid_clear_refs(5)): its start cost it more.
    fs::write(format!("/proc/{}/clear_refs", agent.running()?.id()), "5")?;
    let before = peak(agent)?;
    let output = output_within(&mut agent.command(&["tunnels", "--json"]), PATIENCE)?;
    ensure!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let after = peak(agent)?;
    println!(
        "all tunnels: {} bytes; at most resident {before:.0} MiB before, {after:.0} after",
        text.len()
    );
    let all: Tunnels = serde_json::from_str(&text)?;
    let mut ids: Vec<_> = all.tunnels.iter().map(|tunnel| &tunnel.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == flows as usize, "{} tunnels", ids.len());
    let rank = |state: State| state != State::Call;
    ensure!(
        all.tunnels.is_sorted_by_key(|tunnel| rank(tunnel.state)),
        "calls come first"
    );
    ensure!(
        after - before <= GROWTH,
        "from {before:.1} to {after:.1} MiB"
    );
    Ok(all)
}

/// The most that the agent has had resident, in MiB.
fn peak(agent: &mut Agent<'_>) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.running()?.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("no VmHWM")?.parse::<f64>()? / 1024.0)
}
