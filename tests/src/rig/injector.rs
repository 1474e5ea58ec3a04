//! Frames out of nothing: live frames of a test run, with one header after another.

use anyhow::{Result, ensure};

use super::traffic::{LINK, Traffic};
use crate::{
    netns::Netns,
    programs::{
        code::{Code, If, Reg, Width},
        raw::{ArrayKind, At, Attached, Kind, RawArray, RawProgram, attach},
    },
};

const XDP_ABORTED: i32 = 0;
const XDP_TX: i32 = 3;

/// What sends one kind of traffic, on one CPU at a time.
pub struct Injector {
    program: RawProgram,
    frame: Vec<u8>,
    frames: usize,
    _known: Attached,
}

impl Injector {
    /// One that goes round `traffic` for so many endpoints.
    ///
    /// Its program is attached to an interface of `namespace` that is used for nothing else: one that is attached nowhere
    /// is entered into the dispatcher of XDP programs for each run (`bpf_prog_change_xdp()`, net/bpf/test_run.c), which
    /// waits for a grace period, before and after.
    ///
    /// # Errors
    ///
    /// If the kernel refuses its program or maps.
    pub fn new(traffic: &Traffic, endpoints: u32, namespace: &Netns, spare: u32) -> Result<Self> {
        let frames = traffic.frames(endpoints)?;
        // In words; what is too much of it is the same in all frames.
        let header = (LINK + traffic.family.header()).next_multiple_of(4);
        let position = RawArray::new(ArrayKind::Values, 8, 1)?;
        let headers = RawArray::new(ArrayKind::Values, header, frames.len())?;
        for (index, frame) in frames.iter().enumerate() {
            headers.set(index.try_into()?, &frame[..header])?;
        }
        let code = code(header, frames.len(), &position, &headers)?;
        let program = code.load_as(Kind::Xdp)?;
        let known = namespace.enter(|| attach(&program, spare, At::Xdp))?;
        Ok(Self {
            _known: known,
            program,
            frame: frames[0].clone(),
            frames: frames.len(),
        })
    }

    /// In how many frames the list ends and begins again.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Sends so many frames out of an interface of this thread's namespace, and comes back when the receiving side's
    /// softirqs have run. Returns what the kernel says that it took: nanoseconds a packet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: before Linux 5.18 it has no live frames.
    pub fn run(&self, ifindex: u32, packets: u32) -> Result<u32> {
        self.program.run_live(&self.frame, ifindex, packets)
    }
}

/// The whole header is written each time, link layer and all: the kernel gives a frame that was forwarded once, and thus
/// changed, to the program again.
fn code(header: usize, count: usize, position: &RawArray, headers: &RawArray) -> Result<Code> {
    use Reg::{R0, R1, R2, R3, R6, R10};
    ensure!(header.is_multiple_of(4), "headers are written in words");
    let mut code = Code::new();
    let (fail, next) = (code.label(), code.label());
    code.load(Width::U32, R6, R1, 0)
        .load(Width::U32, R3, R1, 4)
        .copy(R1, R6)
        .add(R1, header.try_into()?)
        .jump_if_reg(R1, If::Greater, R3, fail)
        .store_value(Width::U32, R10, -4, 0)
        .lookup(position, -4)
        .jump_if(R0, If::Equal, 0, fail)
        .load(Width::U64, R1, R0, 0)
        .copy(R2, R1)
        .add(R2, 1)
        .jump_if(R2, If::Less, count.try_into()?, next)
        .set(R2, 0)
        .here(next)
        .store(Width::U64, R0, 0, R2)
        .store(Width::U32, R10, -4, R1)
        .lookup(headers, -4)
        .jump_if(R0, If::Equal, 0, fail);
    let mut at = 0;
    while at < header {
        let width = if header - at >= 8 {
            Width::U64
        } else {
            Width::U32
        };
        let offset = at.try_into()?;
        code.load(width, R1, R0, offset)
            .store(width, R6, offset, R1);
        at += if matches!(width, Width::U64) { 8 } else { 4 };
    }
    code.leave(XDP_TX).here(fail).leave(XDP_ABORTED);
    Ok(code)
}
