//! Two CPUs that count at once, and an agent with 100,000 flows.

use std::time::Duration;

use anyhow::{Result, ensure};
use wificall_tests::{
    agent::Agent,
    bench::telemetry::{
        agent,
        race::{Sharing, Tally, race},
    },
    lab::Lab,
};

const FLOWS: u32 = 2_000;
const PACKETS: u32 = 100_000;

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
    for (tally, most) in [(many, 0.01), (one, 0.6)] {
        let part = |count: u64| count as f64 / tally.sent as f64;
        assert!(part(tally.sent - tally.packets) <= most, "{tally:?}");
        assert!(part(tally.sent - tally.received) <= most, "{tally:?}");
        assert!(part(tally.missing) <= most, "{tally:?}");
    }
    Ok(())
}

#[test]
fn an_agent_with_a_hundred_thousand_flows_answers_a_scrape() -> Result<()> {
    const FLOWS: u32 = 100_000;
    let lab = Lab::new()?;
    let mut agent = Agent::new(&lab.router, &agent::configuration(120_000, "full"))?;
    agent.log_less();
    agent.start()?;
    agent::fill(&agent, FLOWS)?;
    let took = agent::know(&mut agent, FLOWS)?;
    let (times, size) = agent::scrapes(&lab.router, 20)?;
    let slowest = times.iter().copied().fold(0.0, f64::max);
    println!("{:?}", agent::resident(&mut agent)?);
    println!("known after {took:?}; a scrape of {size} bytes took {times:.0?} ms");
    ensure!(slowest < 1_000.0, "a scrape took {slowest:.0} ms");
    agent::send(&agent, &lab.router, FLOWS, 2, Duration::from_millis(500))?;
    let metrics = agent.metrics()?;
    assert_eq!(metrics.sum("wificall_flows", &[]), u64::from(FLOWS));
    agent.finish()
}
