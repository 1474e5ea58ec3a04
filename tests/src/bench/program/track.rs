//! What programs are timed on: one kind of traffic, to every endpoint of a table.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use super::traffic::Frames;
use crate::{
    netns::Netns,
    programs::{
        TC_ACT_UNSPEC, XDP_PASS,
        driver::Driver,
        raw::{Insn, Kind, RawProgram},
    },
};

/// Packets of a turn, at least.
const PACKETS: u32 = 25_000;
/// A larger table does not stay in the caches, with or without a pass before.
const CACHED: u32 = 10_000;

/// Frames, and how many a turn takes.
pub struct Track {
    driver: Driver,
    pass_before: u32,
    packets: u32,
}

impl Track {
    /// One of these frames, of which there is one for each endpoint.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the driver.
    pub fn new(kind: Kind, frames: &Frames, endpoints: u32, idle: &Netns) -> Result<Self> {
        let mut driver = driver(kind, frames)?;
        if kind == Kind::Xdp {
            driver.make_known(idle)?;
        }
        Ok(Self {
            driver,
            pass_before: if endpoints > CACHED { 0 } else { endpoints },
            // Turns go on in the table where the one before stopped.
            packets: PACKETS.max(endpoints / 2),
        })
    }

    /// Packets that a turn sends, those that are not timed included.
    pub fn packets(&self) -> u64 {
        u64::from(self.pass_before + self.packets)
    }

    /// One turn: nanoseconds a packet, the driver's own included.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the run.
    pub fn time(&self, program: BorrowedFd<'_>) -> Result<f64> {
        if self.pass_before > 0 {
            self.driver.time(program, self.pass_before)?;
        }
        self.driver.time(program, self.packets)
    }
}

/// What sends these frames through a program, for other reasons than to time it.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn driver(kind: Kind, frames: &Frames) -> Result<Driver> {
    Driver::new(
        kind,
        &frames.frame,
        &frames.headers,
        frames.header,
        frames.counter,
    )
}

/// A program that only returns: the baseline.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn empty(kind: Kind) -> Result<RawProgram> {
    let pass = match kind {
        Kind::Xdp => XDP_PASS,
        Kind::Tc => TC_ACT_UNSPEC,
    };
    RawProgram::load(kind, &Insn::empty(pass.cast_signed()))
}
