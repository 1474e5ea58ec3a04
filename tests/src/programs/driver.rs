//! Times a program on packets that differ, each as fresh as the first.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one packet: its address is always the same, and what it writes once it finds
//! written ever after. So a small program goes first: it puts the next header of a list into the packet and tail-calls
//! the program to be timed. What that itself costs is subtracted by timing an empty program behind it in the same way.
//!
//! The headers are written in words, and a program that reads more at once would wait for the stores, which no packet
//! that comes from a driver makes it do. A call that takes longer than the stores (the clock) stands in between.
//!
//! Time is this thread's, in the kernel and outside, so that other work on the machine counts as little as it can.

use std::{
    os::fd::{AsFd, AsRawFd as _},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::raw::{ArrayKind, At, Attached, Insn, Kind, RawArray, RawProgram, attach};
use crate::netns::Netns;

/// Length of the Ethernet header that stays.
const LINK: usize = 14;
/// Returned if the tail call fails.
const FAILED: i32 = 99;

// Instruction codes: class | size or source | mode or operation (linux/bpf_common.h, linux/bpf.h).
const LDX_W: u8 = 0x61;
const LDX_DW: u8 = 0x79;
const STX_W: u8 = 0x63;
const STX_DW: u8 = 0x7b;
/// On a word of memory; what it does is the immediate.
const ATOMIC_W: u8 = 0xc3;
/// Adds, and leaves in the source register what was there before (`BPF_ADD | BPF_FETCH`, Linux 5.12).
const FETCH_ADD: i32 = 0x01;
const ST_W: u8 = 0x62;
const LD_IMM64: u8 = 0x18;
const ADD64_K: u8 = 0x07;
const SUB64_X: u8 = 0x1f;
const MOV64_K: u8 = 0xb7;
const MOV64_X: u8 = 0xbf;
const JEQ_K: u8 = 0x15;
const JGT_X: u8 = 0x2d;
const JLT_K: u8 = 0xa5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// To and from network order.
const TO_BE: u8 = 0xdc;
/// Source register of `LD_IMM64` for a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;
// Helpers (`enum bpf_func_id`).
const MAP_LOOKUP: i32 = 1;
const KTIME: i32 = 5;
const TAIL_CALL: i32 = 12;
const ADJUST_META: i32 = 54;

/// A program that puts one header after another into its packet and calls the next program.
pub struct Driver {
    program: RawProgram,
    next: RawArray,
    frame: Vec<u8>,
    // Held: the program refers to them by descriptor only while it is loaded, but closing them is not needed either.
    _position: RawArray,
    _list: Arc<RawArray>,
    // Held likewise.
    known: Option<Attached>,
}

impl Driver {
    /// One for frames that differ in the `header` bytes behind Ethernet, a multiple of four, and are `frame` else; these
    /// headers stand one after another in `headers`. The word at `counter` of each, in network order, grows by one each time
    /// that it is used.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses a map or the program.
    pub fn new(
        kind: Kind,
        frame: &[u8],
        headers: &[u8],
        header: usize,
        counter: Option<usize>,
    ) -> Result<Self> {
        let counter = counter.map_or(Counter::None, Counter::Own);
        let list = Arc::new(listed(headers, header, counter)?);
        Self::on(kind, frame, list, header, counter)
    }

    /// Two for threads that run at once, on the same headers: each number that the word at `counter` takes is sent once, by
    /// whichever of the two comes first. For TC programs, from Linux 5.12 on.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn pair(frame: &[u8], headers: &[u8], header: usize, counter: usize) -> Result<[Self; 2]> {
        let counter = Counter::Shared(counter);
        let list = Arc::new(listed(headers, header, counter)?);
        let one = || Self::on(Kind::Tc, frame, Arc::clone(&list), header, counter);
        Ok([one()?, one()?])
    }

    fn on(
        kind: Kind,
        frame: &[u8],
        list: Arc<RawArray>,
        header: usize,
        counter: Counter,
    ) -> Result<Self> {
        let next = RawArray::new(ArrayKind::Programs, 4, 1)?;
        let position = RawArray::new(ArrayKind::Values, 8, 1)?;
        let insns = instructions(
            kind,
            (header, counter),
            list.entries().try_into()?,
            [position.number(), list.number(), next.number()],
        )?;
        Ok(Self {
            program: RawProgram::load(kind, &insns)?,
            next,
            frame: frame.to_vec(),
            _position: position,
            _list: list,
            known: None,
        })
    }

    /// Makes test runs of an XDP program begin and end at once. A program that is attached nowhere is entered into the
    /// dispatcher of XDP programs for each run (`bpf_prog_change_xdp()`, net/bpf/test_run.c), which waits for a grace
    /// period both times: some 20 ms. So it is attached where no packet passes, to loopback in `namespace`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn make_known(&mut self, namespace: &Netns) -> Result<()> {
        let loopback = namespace.index("lo")?;
        self.known = Some(namespace.enter(|| attach(&self.program, loopback, At::Xdp))?);
        Ok(())
    }

    /// Mean time of one packet through `program`, this driver's own included.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the run or the program was never reached.
    pub fn time(&self, program: impl AsFd, packets: u32) -> Result<f64> {
        let descriptor = program.as_fd().as_raw_fd();
        self.next.set(0, &descriptor.to_ne_bytes())?;
        let before = thread_time();
        let verdict = self.program.test_run(&self.frame, packets)?;
        let elapsed = thread_time() - before;
        ensure!(
            verdict != FAILED.cast_unsigned(),
            "the program to be timed was not called"
        );
        Ok(elapsed.as_secs_f64() * 1e9 / f64::from(packets))
    }
}

/// What grows from packet to packet: the word at this offset of the header, in network order.
#[derive(Clone, Copy)]
enum Counter {
    None,
    /// It is counted where it stands.
    Own(usize),
    /// It is drawn from a word behind the header, in this machine's order, by one driver at a time.
    Shared(usize),
}

/// The map of the headers.
fn listed(headers: &[u8], header: usize, counter: Counter) -> Result<RawArray> {
    let more = if matches!(counter, Counter::Shared(_)) {
        4
    } else {
        0
    };
    let count = headers.len() / header;
    let list = RawArray::new(ArrayKind::Values, header + more, count)?;
    for (index, header) in headers.chunks_exact(header).enumerate() {
        let mut value = header.to_vec();
        if let Counter::Shared(at) = counter {
            let first = u32::from_be_bytes(header[at..at + 4].try_into()?);
            value.extend(first.to_ne_bytes());
        }
        list.set(index.try_into()?, &value)?;
    }
    Ok(list)
}

fn instructions(
    kind: Kind,
    (header, counter): (usize, Counter),
    count: i32,
    maps: [i32; 3],
) -> Result<Vec<Insn>> {
    let [position, headers, next] = maps;
    // Offsets of `data` and `data_end` in `struct xdp_md` and `struct __sk_buff`.
    let (data, data_end) = match kind {
        Kind::Xdp => (0, 4),
        Kind::Tc => (76, 80),
    };
    let load_map = |register, map| {
        [
            Insn::new(LD_IMM64, register, PSEUDO_MAP_FD, 0, map),
            Insn::new(0, 0, 0, 0, 0),
        ]
    };
    let lookup = |map| {
        let [low, high] = load_map(1, map);
        [
            low,
            high,
            Insn::new(MOV64_X, 2, 10, 0, 0),
            Insn::new(ADD64_K, 2, 0, 0, -4),
            Insn::new(CALL, 0, 0, 0, MAP_LOOKUP),
        ]
    };
    let mut code = vec![Insn::new(MOV64_X, 6, 1, 0, 0)];
    if kind == Kind::Xdp {
        // What the run before left as metadata stays there in a test run.
        code.extend([
            Insn::new(LDX_W, 2, 6, 0, 0),
            Insn::new(LDX_W, 3, 6, 8, 0),
            Insn::new(SUB64_X, 2, 3, 0, 0),
            Insn::new(JEQ_K, 2, 0, 2, 0),
            Insn::new(MOV64_X, 1, 6, 0, 0),
            Insn::new(CALL, 0, 0, 0, ADJUST_META),
        ]);
    }
    code.extend([
        Insn::new(LDX_W, 7, 6, data, 0),
        Insn::new(LDX_W, 8, 6, data_end, 0),
        Insn::new(MOV64_X, 1, 7, 0, 0),
        Insn::new(ADD64_K, 1, 0, 0, (LINK + header).try_into()?),
    ]);
    // Jumps to the end, whose distance is not known yet.
    let mut leave = vec![code.len()];
    code.push(Insn::new(JGT_X, 1, 8, 0, 0));
    code.push(Insn::new(ST_W, 10, 0, -4, 0));
    code.extend(lookup(position));
    leave.push(code.len());
    code.push(Insn::new(JEQ_K, 0, 0, 0, 0));
    code.extend([
        Insn::new(LDX_DW, 1, 0, 0, 0),
        Insn::new(MOV64_X, 2, 1, 0, 0),
        Insn::new(ADD64_K, 2, 0, 0, 1),
        Insn::new(JLT_K, 2, 0, 1, count),
        Insn::new(MOV64_K, 2, 0, 0, 0),
        Insn::new(STX_DW, 0, 2, 0, 0),
        Insn::new(STX_W, 10, 1, -4, 0),
    ]);
    code.extend(lookup(headers));
    leave.push(code.len());
    code.push(Insn::new(JEQ_K, 0, 0, 0, 0));
    for offset in (0..header).step_by(4) {
        code.push(Insn::new(LDX_W, 1, 0, offset.try_into()?, 0));
        code.push(Insn::new(STX_W, 7, 1, (LINK + offset).try_into()?, 0));
    }
    match counter {
        Counter::None => {}
        Counter::Own(at) => {
            let at = at.try_into()?;
            code.extend([
                Insn::new(LDX_W, 1, 0, at, 0),
                Insn::new(TO_BE, 1, 0, 0, 32),
                Insn::new(ADD64_K, 1, 0, 0, 1),
                Insn::new(TO_BE, 1, 0, 0, 32),
                Insn::new(STX_W, 0, 1, at, 0),
            ]);
        }
        Counter::Shared(at) => code.extend([
            Insn::new(MOV64_K, 1, 0, 0, 1),
            Insn::new(ATOMIC_W, 0, 1, header.try_into()?, FETCH_ADD),
            Insn::new(TO_BE, 1, 0, 0, 32),
            Insn::new(STX_W, 7, 1, (LINK + at).try_into()?, 0),
        ]),
    }
    code.push(Insn::new(CALL, 0, 0, 0, KTIME));
    code.push(Insn::new(MOV64_X, 1, 6, 0, 0));
    code.extend(load_map(2, next));
    code.push(Insn::new(MOV64_K, 3, 0, 0, 0));
    code.push(Insn::new(CALL, 0, 0, 0, TAIL_CALL));
    let end = code.len();
    code.push(Insn::new(MOV64_K, 0, 0, 0, FAILED));
    code.push(Insn::new(EXIT, 0, 0, 0, 0));
    for at in leave {
        code[at] = code[at].jumping((end - at - 1).try_into()?);
    }
    Ok(code)
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
