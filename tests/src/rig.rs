//! A rig that forwards: frames go in at one side of a router, are counted at the other, and the time is that of the CPU
//! which carried them.
//!
//! ```text
//!  outer                                     router n                    outer
//!  injector ─ XDP_TX ─ near<n> ═══ veth ═══ lan ─ forwarding ─ wan ═══ veth ═══ far<n> ─ XDP: count, drop
//! ```
//!
//! Every set of rules to be compared has a router of its own, all of them at once, so that they can take turns. The other
//! ends of their links are in one namespace.
//!
//! **Frames** are live ones of `BPF_PROG_TEST_RUN`: the kernel makes them, an XDP program ([`injector`]) writes the next
//! header of a list into each and sends it out of the near end. No sender's socket, no system call a packet. The far end
//! ([`sink`]) counts by DSCP before an skb would be used further, so that each burst also shows whether all of its packets
//! arrived and were treated as they should be.
//!
//! **Where the work is done**: an injecting thread is pinned to its CPU. The links have a queue for each CPU in use, and
//! XPS keeps the second link on the queue of the CPU (the first has it so by itself). NAPI is not threaded and RPS is
//! off, so all of a frame's way is softirq work on that CPU, done inside the injecting system call; [`clock`] says how
//! it is timed. Two CPUs are two such threads at once.

pub mod clock;
pub mod injector;
pub mod marks;
pub mod road;
pub mod sink;
pub mod traffic;

use std::{sync::Barrier, thread};

use anyhow::{Context as _, Result, ensure};

use self::{
    clock::{Clock, Softirqd},
    injector::Injector,
    road::Road,
    traffic::{Direction, Traffic},
};
use crate::netns::Netns;

/// The routers and what is around them.
pub struct Rig {
    outer: Netns,
    cpus: Vec<usize>,
    /// Interfaces that injectors are attached to, though nothing passes there.
    spares: Vec<u32>,
    /// Of each CPU.
    softirqds: Vec<Softirqd>,
    roads: usize,
}

impl Rig {
    /// One that uses up to two CPUs, without routers yet.
    ///
    /// # Errors
    ///
    /// If not root.
    pub fn new() -> Result<Self> {
        let mut cpus = clock::usable()?;
        // From the last one down: the first has most of the machine's interrupts.
        cpus.reverse();
        cpus.truncate(2);
        let outer = Netns::new("outer")?;
        let mut spares = Vec::new();
        for cpu in &cpus {
            let name = format!("spare{cpu}");
            outer.ip(&format!("link add {name} type veth peer name {name}p"))?;
            spares.push(outer.index(&name)?);
        }
        Ok(Self {
            outer,
            softirqds: cpus
                .iter()
                .map(|cpu| Softirqd::of(*cpu))
                .collect::<Result<_>>()?,
            cpus,
            spares,
            roads: 0,
        })
    }

    /// What sends one kind of traffic for so many endpoints: an injector for each CPU. There can be those of one kind
    /// at a time.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, for example because there are others.
    pub fn injectors(&self, traffic: &Traffic, endpoints: u32) -> Result<Vec<Injector>> {
        self.spares
            .iter()
            .map(|spare| Injector::new(traffic, endpoints, &self.outer, *spare))
            .collect()
    }

    /// The CPUs that injectors run on.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Builds one more router.
    ///
    /// # Errors
    ///
    /// If a tool is missing or the kernel refuses something.
    pub fn road(&mut self, label: &str) -> Result<Road> {
        self.roads += 1;
        Road::build(&self.outer, self.roads, label, &self.cpus)
            .with_context(|| format!("build the router `{label}`"))
    }

    /// Sends `packets` frames over the road by each of the injectors, one a CPU, and waits for the last. All must
    /// arrive, with the DSCP that is expected, or none if that is `None`. Returns the time of one packet, in nanoseconds
    /// of the CPU that carried it.
    ///
    /// # Errors
    ///
    /// If packets are lost or not treated as expected.
    pub fn burst(
        &self,
        road: &Road,
        direction: Direction,
        injectors: &[Injector],
        packets: u32,
        dscp: Option<u8>,
    ) -> Result<f64> {
        let (from, sink) = road.ends(direction);
        let before = sink.arrived()?;
        let times = self.send(from, injectors, packets)?;
        match dscp {
            Some(dscp) => {
                sink.expect(&before, u64::from(packets) * injectors.len() as u64, dscp)?;
            }
            None => sink.expect(&before, 0, 0)?,
        }
        Ok(times.iter().sum::<f64>() / times.len() as f64)
    }

    /// Sends frames out of an interface of the outer namespace; what each of the CPUs spent on one, in nanoseconds.
    fn send(&self, ifindex: u32, injectors: &[Injector], packets: u32) -> Result<Vec<f64>> {
        ensure!(
            injectors.len() <= self.cpus.len(),
            "{} CPUs are too few for {} injectors",
            self.cpus.len(),
            injectors.len()
        );
        let barrier = Barrier::new(injectors.len());
        thread::scope(|scope| {
            let threads: Vec<_> = injectors
                .iter()
                .zip(self.cpus.iter().zip(&self.softirqds))
                .map(|(injector, (cpu, softirqd))| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let ready = self.outer.join().and_then(|()| clock::pin(*cpu));
                        // Before failing: the others wait for all.
                        barrier.wait();
                        ready?;
                        let clock = Clock::start(softirqd)?;
                        let told = f64::from(injector.run(ifindex, packets)?);
                        let spent = clock.elapsed()?.as_secs_f64() * 1e9 / f64::from(packets);
                        // Far less than it took: softirq work is nobody's time on this kernel.
                        Ok(if spent * 2.0 < told { told } else { spent })
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("an injector does not panic"))
                .collect()
        })
    }

    /// Sends each frame of the injector's list once, as a check: the marks that they have when they leave the router,
    /// each with its number, beside what [`burst`](Self::burst) checks.
    ///
    /// # Errors
    ///
    /// As [`burst`](Self::burst).
    pub fn marks(
        &self,
        road: &Road,
        direction: Direction,
        injector: &Injector,
        dscp: u8,
    ) -> Result<Vec<(u32, u64)>> {
        let probe = road.probe(direction)?;
        let packets = u32::try_from(injector.frames())?;
        self.burst(
            road,
            direction,
            std::slice::from_ref(injector),
            packets,
            Some(dscp),
        )?;
        probe.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::traffic::{Family, Kind};
    use super::*;

    #[test]
    fn everything_arrives_untouched() -> Result<()> {
        let mut rig = Rig::new()?;
        let road = rig.road("plain")?;
        for direction in [Direction::Up, Direction::Down] {
            for family in [Family::V4, Family::V6] {
                for kind in [Kind::Tcp, Kind::Udp, Kind::Esp, Kind::Vpn] {
                    let traffic = Traffic {
                        direction,
                        kind,
                        family,
                    };
                    let injectors = rig.injectors(&traffic, 300)?;
                    let one = rig.burst(&road, direction, &injectors[..1], 20_000, Some(0))?;
                    let all = rig.burst(&road, direction, &injectors, 20_000, Some(0))?;
                    assert!(one > 0.0 && all > 0.0, "{one} {all}");
                    let marks = rig.marks(&road, direction, &injectors[0], 0)?;
                    assert!(marks.is_empty(), "{marks:?}");
                }
            }
        }
        Ok(())
    }
}
