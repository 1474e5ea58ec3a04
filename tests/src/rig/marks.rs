//! Which marks packets leave a router with: a program behind everything else, attached for a check only.

use anyhow::Result;

use super::sink::count_by;
use crate::{
    netns::Netns,
    programs::{
        TC_ACT_UNSPEC,
        code::{Code, Reg, Width},
        raw::{ArrayKind, At, Attached, Kind, RawArray, RawProgram, attach},
    },
};

/// Marks that are told apart, by their lowest bits.
const MARKS: usize = 256;
/// Offsets of `mark` and `data` in `struct __sk_buff`; `data_end` is the next.
const MARK: i16 = 8;
const DATA: i16 = 76;

/// Counts packets by mark at an interface's egress until it is finished.
pub struct Probe {
    counts: RawArray,
    _program: RawProgram,
    _attached: Attached,
}

impl Probe {
    /// At an interface of `namespace`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn attach(namespace: &Netns, ifindex: u32) -> Result<Self> {
        let counts = RawArray::new(ArrayKind::PerCpu, 8 * MARKS, 1)?;
        let program = code(&counts).load_as(Kind::Tc)?;
        let attached = namespace.enter(|| attach(&program, ifindex, At::TcEgress))?;
        Ok(Self {
            counts,
            _program: program,
            _attached: attached,
        })
    }

    /// The marks that were seen, each with its number of packets; those without one are left out.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn finish(self) -> Result<Vec<(u32, u64)>> {
        let counts = self.counts.sums(0, MARKS)?;
        Ok((0..)
            .zip(counts)
            .skip(1)
            .filter(|(_, count)| *count != 0)
            .collect())
    }
}

fn code(counts: &RawArray) -> Code {
    use Reg::{R1, R2, R3, R6};
    let mut code = Code::new();
    code.load(Width::U32, R6, R1, MARK)
        .and(R6, 0xff)
        .load(Width::U32, R2, R1, DATA)
        .load(Width::U32, R3, R1, DATA + 4);
    count_by(&mut code, counts, |_, _| {}, TC_ACT_UNSPEC.cast_signed());
    code
}
