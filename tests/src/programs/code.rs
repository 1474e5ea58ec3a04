//! Small programs, written instruction by instruction: what a rig needs beside the object under test.

use anyhow::{Context as _, Result};

use super::raw::{Insn, Kind, RawArray, RawProgram};

/// A register. `R0` is what a function returns, `R1` to `R5` its arguments and lost in a call, `R6` to `R9` are kept, and
/// `R10` is the end of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "said above")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of a load or store (linux/bpf_common.h).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Width {
    U32 = 0x00,
    U16 = 0x08,
    U8 = 0x10,
    U64 = 0x18,
}

/// When to jump: how the register compares with the operand, both unsigned.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A place in the code that jumps lead to.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

// Instruction codes: class | source or size | operation or mode.
const LDX: u8 = 0x61;
const STX: u8 = 0x63;
const ST: u8 = 0x62;
const LD_IMM64: u8 = 0x18;
const MOV_K: u8 = 0xb7;
const MOV_X: u8 = 0xbf;
const ADD_K: u8 = 0x07;
const ADD_X: u8 = 0x0f;
const AND_K: u8 = 0x57;
const LSH_K: u8 = 0x67;
const RSH_K: u8 = 0x77;
const TO_BE: u8 = 0xdc;
const JUMP: u8 = 0x05;
const JUMP_K: u8 = 0x05;
const JUMP_X: u8 = 0x0d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source register of `LD_IMM64` for a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;
/// `enum bpf_func_id`.
const MAP_LOOKUP: i32 = 1;

/// Code that grows from the top down.
#[derive(Debug, Default)]
pub struct Code {
    insns: Vec<Insn>,
    places: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Code {
    /// No instructions yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A label whose place is not yet known.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts the label here.
    pub fn here(&mut self, label: Label) -> &mut Self {
        self.places[label.0] = Some(self.insns.len());
        self
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, offset: i16, immediate: i32) -> &mut Self {
        self.insns
            .push(Insn::new(code, dst as u8, src, offset, immediate));
        self
    }

    /// `to = value`
    pub fn set(&mut self, to: Reg, value: i32) -> &mut Self {
        self.push(MOV_K, to, 0, 0, value)
    }

    /// `to = from`
    pub fn copy(&mut self, to: Reg, from: Reg) -> &mut Self {
        self.push(MOV_X, to, from as u8, 0, 0)
    }

    /// `to += value`
    pub fn add(&mut self, to: Reg, value: i32) -> &mut Self {
        self.push(ADD_K, to, 0, 0, value)
    }

    /// `to += from`
    pub fn add_reg(&mut self, to: Reg, from: Reg) -> &mut Self {
        self.push(ADD_X, to, from as u8, 0, 0)
    }

    /// `to &= value`
    pub fn and(&mut self, to: Reg, value: i32) -> &mut Self {
        self.push(AND_K, to, 0, 0, value)
    }

    /// `to <<= bits`
    pub fn shl(&mut self, to: Reg, bits: i32) -> &mut Self {
        self.push(LSH_K, to, 0, 0, bits)
    }

    /// `to >>= bits`
    pub fn shr(&mut self, to: Reg, bits: i32) -> &mut Self {
        self.push(RSH_K, to, 0, 0, bits)
    }

    /// Turns the lower 16 bits from network order, or to it.
    pub fn swap16(&mut self, to: Reg) -> &mut Self {
        self.push(TO_BE, to, 0, 0, 16)
    }

    /// `to = from[offset]`
    pub fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) -> &mut Self {
        self.push(LDX | width as u8, to, from as u8, offset, 0)
    }

    /// `to[offset] = from`
    pub fn store(&mut self, width: Width, to: Reg, offset: i16, from: Reg) -> &mut Self {
        self.push(STX | width as u8, to, from as u8, offset, 0)
    }

    /// `to[offset] = value`
    pub fn store_value(&mut self, width: Width, to: Reg, offset: i16, value: i32) -> &mut Self {
        self.push(ST | width as u8, to, 0, offset, value)
    }

    /// Jumps if the register compares so with a value.
    pub fn jump_if(&mut self, reg: Reg, condition: If, value: i32, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.push(JUMP_K | condition as u8, reg, 0, 0, value)
    }

    /// Jumps if the register compares so with another one.
    pub fn jump_if_reg(&mut self, reg: Reg, condition: If, other: Reg, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.push(JUMP_X | condition as u8, reg, other as u8, 0, 0)
    }

    /// Jumps.
    pub fn jump(&mut self, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.push(JUMP, Reg::R0, 0, 0, 0)
    }

    /// `R0` = the value in `map` under the key at `stack` of the stack, or 0.
    pub fn lookup(&mut self, map: &RawArray, stack: i32) -> &mut Self {
        self.push(LD_IMM64, Reg::R1, PSEUDO_MAP_FD, 0, map.number())
            .push(0, Reg::R0, 0, 0, 0)
            .copy(Reg::R2, Reg::R10)
            .add(Reg::R2, stack)
            .push(CALL, Reg::R0, 0, 0, MAP_LOOKUP)
    }

    /// Returns `value`.
    pub fn leave(&mut self, value: i32) -> &mut Self {
        self.set(Reg::R0, value).push(EXIT, Reg::R0, 0, 0, 0)
    }

    /// Loads the program.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses it, or a label has no place.
    pub fn load_as(&self, kind: Kind) -> Result<RawProgram> {
        let mut insns = self.insns.clone();
        for (at, label) in &self.jumps {
            let place = self.places[label.0].context("a label without a place")?;
            insns[*at] = insns[*at].jumping((place as i64 - *at as i64 - 1).try_into()?);
        }
        RawProgram::load(kind, &insns)
    }
}
