//! What tracking costs a packet, by flows.

use std::{cell::Cell, os::fd::AsFd as _};

use anyhow::{Result, ensure};
use wificall_common::{
    abi::{Features, Hook},
    exit::Exit,
};

use super::{
    NAME,
    crowd::{Crowd, frames, in_table},
};
use crate::{
    bench::{
        program::{
            EMPTY, OVER, UNIT,
            contest::USUAL_FEATURES,
            track::{self, Track},
            traffic::ESP_IN_UDP,
        },
        report::thousands,
        row::{Row, setting},
        turns::{Effort, Turn, turns},
    },
    netns::Netns,
    programs::raw::Kind,
};

/// The programs without tracking: what is loaded where `telemetry.enabled` is off.
pub const OFF: &str = "telemetry off";
/// Likewise with it.
pub const ON: &str = "telemetry on";
const PROGRAM: &str = "in_up";
/// What a packet of ESP in UDP costs with and without tracking, each in the flow of its own client: a row each, first that
/// of the empty program.
///
/// # Errors
///
/// If the kernel refuses something, or a packet is not counted as it should be.
pub fn compare(flows: u32, effort: &Effort, idle: &Netns) -> Result<Vec<Row>> {
    let frames = frames(flows, false, in_table)?;
    let track = Track::new(Kind::Tc, &frames, flows, idle)?;
    let empty = track::empty(Kind::Tc)?;
    let mut off = Crowd::new(USUAL_FEATURES, flows)?;
    let mut on = Crowd::new(USUAL_FEATURES | Features::FLOWS, flows)?;
    on.begin(flows)?;
    let programs = [
        off.kernel.descriptor(PROGRAM)?,
        on.kernel.descriptor(PROGRAM)?,
    ];
    let sent = [Cell::new(0_u64), Cell::new(0)];
    let turn = |which: usize| -> Turn<'_> {
        let (track, program, sent) = (&track, &programs[which], &sent[which]);
        Box::new(move || {
            sent.set(sent.get() + track.packets());
            track.time(program.as_fd())
        })
    };
    let turns = turns(
        effort,
        vec![
            (
                EMPTY.to_owned(),
                Box::new(|| track.time(empty.as_fd())) as Turn<'_>,
            ),
            (OFF.to_owned(), turn(0)),
            (ON.to_owned(), turn(1)),
        ],
    )?;
    for (crowd, sent) in [&off, &on].into_iter().zip(&sent) {
        let exits = crowd.kernel.exits(Hook::TcIngress)?;
        let matched = exits.get(&(Hook::TcIngress, Exit::Matched)).copied();
        ensure!(
            matched == Some(sent.get()),
            "{matched:?} of {} packets left as a match",
            sent.get()
        );
    }
    let mut counted = 0;
    for flow in on.map.iter() {
        counted += flow?.1.0.up.packets;
    }
    ensure!(
        counted == sent[1].get(),
        "{counted} of {} packets counted in flows",
        sent[1].get()
    );
    let flows = thousands(flows);
    let at = |over: &str| setting(&[("flows", &flows), (OVER, over)]);
    let row = |variant, over| turns.row(NAME, &at(over), [ESP_IN_UDP, variant, UNIT], Some(over));
    Ok(vec![
        turns.row(NAME, &at(EMPTY), [ESP_IN_UDP, EMPTY, UNIT], None)?,
        row(OFF, EMPTY)?,
        row(ON, EMPTY)?,
        row(ON, OFF)?,
    ])
}
