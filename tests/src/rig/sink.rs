//! The far end: counts what arrives, by DSCP, and drops it.

use anyhow::{Result, ensure};

use crate::{
    netns::Netns,
    programs::{
        code::{Code, If, Reg, Width},
        raw::{ArrayKind, At, Attached, Kind, RawArray, RawProgram, attach},
    },
};

const XDP_DROP: i32 = 1;
/// DSCPs that there are.
const DSCPS: usize = 64;

/// A program at an interface that counts and drops TCP, UDP and ESP, and drops all else.
pub struct Sink {
    counts: RawArray,
    _program: RawProgram,
    _attached: Attached,
}

/// Packets that have arrived, by DSCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived(Vec<u64>);

impl Sink {
    /// At an interface of `namespace`, natively.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn attach(namespace: &Netns, ifindex: u32) -> Result<Self> {
        let counts = RawArray::new(ArrayKind::PerCpu, 8 * DSCPS, 1)?;
        let program = code(&counts).load_as(Kind::Xdp)?;
        let attached = namespace.enter(|| attach(&program, ifindex, At::Xdp))?;
        Ok(Self {
            counts,
            _program: program,
            _attached: attached,
        })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn arrived(&self) -> Result<Arrived> {
        self.counts.sums(0, DSCPS).map(Arrived)
    }

    /// Checks that since `before` exactly `sent` packets have arrived, all of them with this DSCP.
    ///
    /// # Errors
    ///
    /// Says what has arrived, if not.
    pub fn expect(&self, before: &Arrived, sent: u64, dscp: u8) -> Result<()> {
        let Arrived(now) = self.arrived()?;
        let new: Vec<_> = now
            .iter()
            .zip(&before.0)
            .map(|(now, before)| now - before)
            .collect();
        let total: u64 = new.iter().sum();
        ensure!(total == sent, "{total} packets arrived instead of {sent}");
        let right = new[usize::from(dscp)];
        ensure!(
            right == sent,
            "{sent} packets arrived, but only {right} of them with DSCP {dscp}"
        );
        Ok(())
    }
}

/// Counts, into the number that `R6` is the index of, packets that are TCP, UDP or ESP; what else there is on a link (the
/// kernel reports its multicast groups, for example) is none of the rig's. `R2` and `R3` are the frame and its end, and
/// `index` sets `R6` with `R2` at hand: for IPv4 if it is given `false`, for IPv6 if `true`. Returns `verdict`.
pub(super) fn count_by(
    code: &mut Code,
    counts: &RawArray,
    index: impl Fn(&mut Code, bool),
    verdict: i32,
) {
    use Reg::{R0, R1, R2, R3, R4, R6, R10};
    // Ethernet with an IPv4 header.
    const NEEDED: i32 = 14 + 20;
    let (v6, known, count, leave) = (code.label(), code.label(), code.label(), code.label());
    code.copy(R4, R2)
        .add(R4, NEEDED)
        .jump_if_reg(R4, If::Greater, R3, leave)
        .load(Width::U16, R4, R2, 12)
        .swap16(R4)
        .jump_if(R4, If::Equal, 0x86dd, v6)
        .jump_if(R4, If::NotEqual, 0x0800, leave);
    index(code, false);
    code.load(Width::U8, R4, R2, 23).jump(known).here(v6);
    index(code, true);
    code.load(Width::U8, R4, R2, 20).here(known);
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP, libc::IPPROTO_ESP] {
        code.jump_if(R4, If::Equal, protocol, count);
    }
    // A number has eight bytes.
    code.jump(leave)
        .here(count)
        .shl(R6, 3)
        .store_value(Width::U32, R10, -4, 0)
        .lookup(counts, -4)
        .jump_if(R0, If::Equal, 0, leave)
        .add_reg(R0, R6)
        .load(Width::U64, R1, R0, 0)
        .add(R1, 1)
        .store(Width::U64, R0, 0, R1)
        .here(leave)
        .leave(verdict);
}

fn code(counts: &RawArray) -> Code {
    use Reg::{R1, R2, R3, R6};
    let mut code = Code::new();
    code.load(Width::U32, R2, R1, 0).load(Width::U32, R3, R1, 4);
    let dscp = |code: &mut Code, v6| {
        if v6 {
            // Version, traffic class, flow label; of the class, the upper six bits.
            code.load(Width::U16, R6, R2, 14).swap16(R6).shr(R6, 6);
        } else {
            code.load(Width::U8, R6, R2, 15).shr(R6, 2);
        }
        code.and(R6, 0x3f);
    };
    count_by(&mut code, counts, dscp, XDP_DROP);
    code
}
