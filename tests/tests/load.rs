//! Two CPUs that count at once, and an agent with very many flows.

use std::time::Duration;

use anyhow::{Result, ensure};
use wificall_tests::{
    agent::Agent,
    bench::telemetry::{
        agent,
        race::{Sharing, Tally, race},
    },
    lab::Lab,
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
    agent.finish()
}
