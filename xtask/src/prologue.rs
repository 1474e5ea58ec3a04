//! `cargo xtask prologue`: no TC program writes the packet directly.
//!
//! A TC program with one direct packet write is given a prologue that pulls the data of every cloned packet, also
//! those that match nothing, and drops the packet where that fails (`bpf_unclone_prologue`, net/core/filter.c). The
//! prologue is visible in the translated program, so this is checked where it matters: after the verifier, with every
//! feature on, so that it has removed nothing that might write.

use std::{os::fd::AsFd as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::{EbpfLoader, programs::Program};

use crate::{
    bpf::{Insn, load_classifier, translated},
    ebpf,
};

#[derive(clap::Args)]
pub struct Args {
    /// The object to check instead of the committed one
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

/// Entry point of the task.
pub fn prologue(args: &Args) -> Result<()> {
    self_test()?;
    let path = args.object.clone().unwrap_or_else(ebpf::committed);
    let mut object = EbpfLoader::new()
        .override_global("FEATURES", &u32::MAX, true)
        .override_global("PREF64_LEN", &96u8, true)
        .override_global("PREF64_MORE_LEN", &[96u8; 3], true)
        .load_file(&path)
        .with_context(|| format!("load {}", path.display()))?;
    let mut checked = 0;
    for (name, program) in object.programs_mut() {
        let Program::SchedClassifier(program) = program else {
            continue;
        };
        program
            .load()
            .with_context(|| format!("load the TC program `{name}`"))?;
        let insns = translated(program.fd()?.as_fd())?;
        if has_prologue(&insns) {
            bail!(
                "the TC program `{name}` writes the packet directly: the kernel gave it a prologue that pulls every cloned packet"
            );
        }
        println!("{name}: {} instructions, no pull prologue", insns.len());
        checked += 1;
    }
    if checked == 0 {
        bail!("{} has no TC program", path.display());
    }
    Ok(())
}

/// This kernel's prologue is recognised, and only where a program writes: without that, finding none says nothing.
fn self_test() -> Result<()> {
    for (stores, expected) in [(true, true), (false, false)] {
        let program = load_classifier(&touch_packet(stores))?;
        let found = has_prologue(&translated(program.as_fd())?);
        if found != expected {
            bail!(
                "self-test: a program with direct {} has a prologue: {found}",
                if stores { "writes" } else { "reads" }
            );
        }
    }
    Ok(())
}

/// A program that writes, or only reads, the first byte of the packet directly.
fn touch_packet(stores: bool) -> [Insn; 8] {
    [
        Insn::new(LDX_W, 2, 1, 76, 0), // r2 = skb->data
        Insn::new(LDX_W, 3, 1, 80, 0), // r3 = skb->data_end
        Insn::new(MOV64_X, 4, 2, 0, 0),
        Insn::new(ADD64_K, 4, 0, 0, 1),
        Insn::new(JGT_X, 4, 3, 1, 0),
        if stores {
            Insn::new(ST_B, 2, 0, 0, 0)
        } else {
            Insn::new(LDX_B, 5, 2, 0, 0)
        },
        Insn::new(MOV64_K, 0, 0, 0, -1),
        Insn::new(EXIT, 0, 0, 0, 0),
    ]
}

// Instruction codes: class | size or source | mode or operation (linux/bpf_common.h, linux/bpf.h).
const LDX_W: u8 = 0x61;
const LDX_B: u8 = 0x71;
const ST_B: u8 = 0x72;
const ADD64_K: u8 = 0x07;
const AND32_K: u8 = 0x54;
const JEQ_K: u8 = 0x15;
const JGT_X: u8 = 0x2d;
const MOV64_K: u8 = 0xb7;
const MOV64_X: u8 = 0xbf;
const XOR64_X: u8 = 0xaf;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Whether the prologue of `bpf_unclone_prologue` occurs: code and registers of its start are compared, because offset,
/// mask and the helper's number depend on the kernel's build. It is looked for everywhere, as a kernel may put more
/// before it.
fn has_prologue(insns: &[Insn]) -> bool {
    const PROLOGUE: [(u8, u8); 7] = [
        (LDX_B, 0x16), // r6 = the byte with skb->cloned
        (AND32_K, 0x06),
        (JEQ_K, 0x06), // not cloned: skip the rest
        (MOV64_X, 0x16),
        (XOR64_X, 0x22),
        (CALL, 0x00),  // bpf_skb_pull_data(skb, 0)
        (JEQ_K, 0x00), // failed: drop
    ];
    insns.windows(PROLOGUE.len()).any(|window| {
        window
            .iter()
            .zip(PROLOGUE)
            .all(|(insn, expected)| (insn.code, insn.registers) == expected)
    })
}
