//! One run of a program on one frame.

use aya::{
    TestRun as _, TestRunOptions,
    programs::{ProgramError, SchedClassifier, Xdp},
};

use crate::vectors::{MARK, PRIORITY};

/// What one run of a program returned.
#[derive(Clone, Debug)]
pub struct Run {
    /// The program's return value.
    pub verdict: u32,
    /// The frame; in XDP with the metadata before it.
    pub frame: Vec<u8>,
    /// `skb->mark` and `skb->priority`; of XDP, those of a packet that it cannot change.
    pub mark: u32,
    /// See `mark`.
    pub priority: u32,
}

pub(super) fn run_xdp(program: &Xdp, frame: &[u8]) -> Result<Run, ProgramError> {
    let mut out = vec![0; frame.len() + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok(Run {
        verdict: result.return_value,
        frame: out,
        mark: MARK,
        priority: PRIORITY,
    })
}

pub(super) fn run_tc(
    program: &SchedClassifier,
    frame: &[u8],
    gso_segs: u32,
    priority: u32,
) -> Result<Run, ProgramError> {
    let mut out = vec![0; frame.len() + 256];
    let context = skb_context(gso_segs, priority);
    let mut context_out = [0; SKB_LEN];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ctx_out: Some(&mut context_out),
        ..TestRunOptions::default()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok(Run {
        verdict: result.return_value,
        frame: out,
        mark: word(&context_out, SKB_MARK),
        priority: word(&context_out, SKB_PRIORITY),
    })
}

// Offsets in `struct __sk_buff` (linux/bpf.h).
const SKB_LEN: usize = 192;
const SKB_MARK: usize = 8;
const SKB_PRIORITY: usize = 32;
const SKB_GSO_SEGS: usize = 164;

fn skb_context(gso_segs: u32, priority: u32) -> [u8; SKB_LEN] {
    let mut context = [0; SKB_LEN];
    for (offset, value) in [
        (SKB_MARK, MARK),
        (SKB_PRIORITY, priority),
        (SKB_GSO_SEGS, gso_segs),
    ] {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}

fn word(context: &[u8; SKB_LEN], offset: usize) -> u32 {
    let bytes = context[offset..].first_chunk().expect("inside the context");
    u32::from_ne_bytes(*bytes)
}
