//! What two CPUs that count in the same flows at once lose: packets sent against packets counted.
//!
//! Nothing is lost, repeated or sent twice on the way to the programs: whatever is missing or too much is the race's.

use std::{
    os::fd::OwnedFd,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wificall_common::abi::{Features, Flow, SpiSlot};

use super::crowd::{Crowd, frames, in_table};
use crate::{
    bench::program::{contest::USUAL_FEATURES, traffic::Frames},
    programs::{driver::Driver, raw::Kind},
    rig::clock,
};

/// The CPUs start so often anew, together: else one would soon be far ahead.
const LAPS: u32 = 20;

/// How two CPUs share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each has flows of its own.
    Apart,
    /// Each has a direction of all flows: as a router's two interfaces have.
    Directions,
    /// Both send the same direction of all flows: each number comes once, by whichever CPU is first.
    Together,
}

/// What was sent and what the map has of it, all flows together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Packets.
    pub sent: u64,
    /// Likewise, as counted.
    pub packets: u64,
    /// IP bytes sent.
    pub sent_bytes: u64,
    /// Likewise, as counted.
    pub bytes: u64,
    /// ESP packets counted: all are.
    pub received: u64,
    /// Numbers counted as lost, or not yet come.
    pub missing: u64,
    /// Packets counted as late.
    pub late: u64,
    /// Packets counted as come twice.
    pub duplicate: u64,
    /// Packets whose number nothing confirmed.
    pub stray: u64,
    /// How often counting began anew.
    pub anchored: u64,
    /// The most that a flow has counted as lost.
    pub most_missing: u64,
    /// The part of the time in which both CPUs ran, as far as their threads' time says: 1 is all of it.
    pub at_once: f64,
}

/// Sends so many packets through so many flows from two CPUs at once.
///
/// # Errors
///
/// If there are no two CPUs, or the kernel refuses something.
pub fn race(sharing: Sharing, flows: u32, packets: u32) -> Result<Tally> {
    let mut crowd = Crowd::new(USUAL_FEATURES | Features::FLOWS, flows)?;
    crowd.begin(flows)?;
    let up = frames(flows, false, in_table)?;
    let driver = |frames: &Frames| {
        Driver::new(
            Kind::Tc,
            &frames.frame,
            &frames.headers,
            frames.header,
            frames.counter,
        )
    };
    let names = match sharing {
        Sharing::Directions => ["in_up", "out_down"],
        Sharing::Apart | Sharing::Together => ["in_up"; 2],
    };
    let drivers = match sharing {
        Sharing::Apart => {
            let middle = flows as usize / 2 * up.header;
            let part = |headers: &[u8]| Frames {
                frame: up.frame.clone(),
                headers: headers.to_vec(),
                ..up
            };
            let (first, second) = up.headers.split_at(middle);
            [driver(&part(first))?, driver(&part(second))?]
        }
        Sharing::Directions => [driver(&up)?, driver(&frames(flows, true, in_table)?)?],
        Sharing::Together => {
            let counter = up.counter.context("frames without a counter")?;
            Driver::pair(&up.frame, &up.headers, up.header, counter)?
        }
    };
    let programs = [
        crowd.kernel.descriptor(names[0])?,
        crowd.kernel.descriptor(names[1])?,
    ];
    let lap = (packets / 2).div_ceil(LAPS);
    let at_once = run(&drivers, &programs, lap)?;
    let sent = u64::from(lap) * u64::from(LAPS) * 2;
    let mut tally = Tally {
        sent,
        sent_bytes: sent * (up.frame.len() as u64 - 14),
        at_once,
        ..Tally::default()
    };
    for flow in crowd.map.iter() {
        tally.add(&flow?.1.0);
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, flow: &Flow) {
        for way in [&flow.up, &flow.down] {
            let open: u32 = way.spis.iter().map(SpiSlot::missing).sum();
            let missing = u64::from(way.lost) + u64::from(open);
            self.packets += way.packets;
            self.bytes += way.bytes;
            self.received += u64::from(way.esp);
            self.missing += missing;
            self.late += u64::from(way.late);
            self.duplicate += u64::from(way.duplicate);
            self.stray += u64::from(way.stray);
            self.anchored += u64::from(way.anchored);
            self.most_missing = self.most_missing.max(missing);
        }
    }

    /// A count in parts per million of what was sent.
    #[must_use]
    pub fn ppm(&self, count: f64) -> f64 {
        count * 1e6 / self.sent as f64
    }

    /// Packets that are in no count.
    #[must_use]
    pub fn uncounted(&self) -> f64 {
        self.sent as f64 - self.packets as f64
    }
}

/// Runs the drivers on a CPU each; the part of the time in which both ran.
fn run(drivers: &[Driver; 2], programs: &[OwnedFd; 2], lap: u32) -> Result<f64> {
    let cpus = clock::usable()?;
    ensure!(
        cpus.len() >= 2,
        "two CPUs cannot race on a machine of {}\nhint: this needs two",
        cpus.len()
    );
    let start = Barrier::new(2);
    let run = |which: usize| -> Result<[Duration; 2]> {
        let mut outcome = clock::pin(cpus[which]);
        let mut took = [Duration::ZERO; 2];
        for _ in 0..LAPS {
            // Also after an error: the other one waits here.
            start.wait();
            let began = Instant::now();
            if outcome.is_ok() {
                match drivers[which].time(&programs[which], lap) {
                    Ok(each) => took[0] += Duration::from_secs_f64(each * f64::from(lap) / 1e9),
                    Err(error) => outcome = Err(error),
                }
            }
            took[1] += began.elapsed();
        }
        outcome.map(|()| took)
    };
    let took = thread::scope(|scope| {
        [0, 1]
            .map(|which| scope.spawn(move || run(which)))
            .map(|thread| thread.join().map_err(|_| anyhow!("a sender panicked"))?)
            .into_iter()
            .collect::<Result<Vec<_>>>()
    })?;
    let busy: Duration = took.iter().map(|[busy, _]| *busy).sum();
    let wall = took.iter().map(|[_, wall]| *wall).max().unwrap_or_default();
    Ok((busy.as_secs_f64() / 2.0 / wall.as_secs_f64()).min(1.0))
}
