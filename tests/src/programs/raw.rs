//! `bpf(2)` for what aya has no interface for: programs made here, the verifier's statistics of good ones.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::util::nr_cpus;

/// `struct bpf_insn` (linux/bpf.h), little-endian.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    /// Code, destination and source register, offset, immediate.
    #[must_use]
    pub const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: src << 4 | dst,
            offset,
            immediate,
        }
    }

    /// The same with another offset: how far a jump goes.
    #[must_use]
    pub const fn jumping(self, offset: i16) -> Self {
        Self { offset, ..self }
    }

    /// `r0 = value; exit`: a program that does nothing else.
    #[must_use]
    pub const fn empty(value: i32) -> [Self; 2] {
        [Self::new(0xb7, 0, 0, 0, value), Self::new(0x95, 0, 0, 0, 0)]
    }
}

/// Kinds of programs (`enum bpf_prog_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Tc = 3,
    /// `BPF_PROG_TYPE_XDP`.
    Xdp = 6,
}

/// A program that was loaded without aya.
#[derive(Debug)]
pub struct RawProgram {
    fd: OwnedFd,
}

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS`; egress is the next.
const ATTACH_TCX_INGRESS: u32 = 46;
/// `BPF_F_TEST_XDP_LIVE_FRAMES` (Linux 5.18).
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames that are sent on at once: what NAPI takes at a time.
const BATCH: u32 = 64;
/// `XDP_FLAGS_SKB_MODE` (linux/if_link.h).
const XDP_GENERIC: u32 = 1 << 1;
/// `BPF_LOG_STATS`: nothing but the last line of the verifier's log (Linux 5.2).
const LOG_STATS: u32 = 4;
/// `BPF_LOG_LEVEL1`: every instruction walked, and why the last one is refused.
const LOG_REASON: u32 = 1;
/// Characters of that which are shown.
const REASON: usize = 4000;

/// Members of `union bpf_attr` for `BPF_PROG_LOAD`, as far as they are needed.
#[derive(Default)]
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// Likewise for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    object: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`; the pointers are null: only the lengths are asked for.
#[derive(Default)]
#[repr(C)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited: u32,
    translated: u32,
    pointers: [u64; 2],
}

/// Likewise for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Likewise for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Likewise for `BPF_PROG_TEST_RUN`.
#[derive(Default)]
#[repr(C)]
struct ProgTestRun {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    // The kernel insists that what it does not know is zero.
    padding: u32,
}

/// `struct xdp_md`.
#[derive(Default)]
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Likewise for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

impl RawProgram {
    /// Loads a program.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses it.
    pub fn load(kind: Kind, insns: &[Insn]) -> Result<Self> {
        let attr = ProgLoad {
            kind: kind as u32,
            count: u32::try_from(insns.len())?,
            insns: insns.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            // What aya loads with: programs in one table must agree.
            attach_type: if kind == Kind::Xdp { ATTACH_XDP } else { 0 },
            ..ProgLoad::default()
        };
        let fd = bpf(PROG_LOAD, &mut { attr }).context("load a program")?;
        // SAFETY: the kernel just made this descriptor, and nothing else knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Runs it `repeat` times on one and the same packet, and returns its last verdict.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the run.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<u32> {
        let mut attr = ProgTestRun {
            program: self.fd.as_raw_fd().try_into()?,
            data_size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..ProgTestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut attr).context("test run")?;
        Ok(attr.verdict)
    }

    /// Runs it on `count` live frames, copies of `frame`, as if the interface had received them, and does with each what
    /// it says. The kernel uses the pages of a frame again without setting them back: what a frame needs must be written
    /// by the program. `ifindex` is one of this thread's namespace. Returns the kernel's own measure: nanoseconds a frame,
    /// on the wall but for what it gave to other threads, and without the preparations.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the run (before Linux 5.18), or a signal ends it.
    pub fn run_live(&self, frame: &[u8], ifindex: u32, count: u32) -> Result<u32> {
        let len = u32::try_from(frame.len())?;
        let context = XdpContext {
            data_end: len,
            ingress_ifindex: ifindex,
            ..XdpContext::default()
        };
        let mut attr = ProgTestRun {
            program: self.fd.as_raw_fd().try_into()?,
            data_size_in: len,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            context_size_in: size_of::<XdpContext>().try_into()?,
            context_in: (&raw const context) as u64,
            flags: LIVE_FRAMES,
            batch: BATCH,
            ..ProgTestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut attr).context("run on live frames")?;
        Ok(attr.duration)
    }
}

/// Where a program is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `BPF_XDP`: natively where the driver can.
    Xdp,
    /// `BPF_XDP` on skbs.
    XdpGeneric,
    /// `BPF_TCX_INGRESS` (Linux 6.6), behind what is there.
    TcIngress,
    /// `BPF_TCX_EGRESS`, likewise.
    TcEgress,
}

/// A program's place at an interface, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Attached {
    link: OwnedFd,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Closing the descriptor would do, but for processes that are being started meanwhile: each holds a copy until
        // it executes.
        let mut link = self.link.as_raw_fd();
        let _ = bpf(LINK_DETACH, &mut link);
    }
}

/// Attaches a program to an interface of this thread's namespace.
///
/// # Errors
///
/// Fails if the kernel refuses it.
pub fn attach(program: impl AsFd, ifindex: u32, at: At) -> Result<Attached> {
    let (attach_type, flags) = match at {
        At::Xdp => (ATTACH_XDP, 0),
        At::XdpGeneric => (ATTACH_XDP, XDP_GENERIC),
        At::TcIngress => (ATTACH_TCX_INGRESS, 0),
        At::TcEgress => (ATTACH_TCX_INGRESS + 1, 0),
    };
    let mut attr = LinkCreate {
        program: program.as_fd().as_raw_fd().try_into()?,
        target: ifindex,
        attach_type,
        flags,
    };
    let fd = bpf(LINK_CREATE, &mut attr).with_context(|| format!("attach a program: {at:?}"))?;
    // SAFETY: as above.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Attached { link })
}

impl AsFd for RawProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A map that was made without aya, indexed by a `u32`.
#[derive(Debug)]
pub struct RawArray {
    fd: OwnedFd,
    entries: usize,
}

/// Kinds of such maps (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum ArrayKind {
    /// `BPF_MAP_TYPE_ARRAY`.
    Values = 2,
    /// `BPF_MAP_TYPE_PROG_ARRAY`.
    Programs = 3,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpu = 6,
    /// `BPF_MAP_TYPE_HASH`: the index is a key like any other.
    Hash = 1,
}

impl RawArray {
    /// Makes one of `entries` values of `size` bytes.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses it.
    pub fn new(kind: ArrayKind, size: usize, entries: usize) -> Result<Self> {
        let mut attr = MapCreate {
            kind: kind as u32,
            key_size: 4,
            value_size: size.try_into()?,
            max_entries: entries.try_into()?,
        };
        let fd = bpf(MAP_CREATE, &mut attr).context("make a map")?;
        // SAFETY: as above.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, entries })
    }

    /// How many values it has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Sets a value, which must have the size of the map's values.
    ///
    /// # Errors
    ///
    /// Fails if there is no such index.
    pub fn set(&self, index: u32, value: &[u8]) -> Result<()> {
        let mut attr = MapUpdate {
            map: self.fd.as_raw_fd().try_into()?,
            padding: 0,
            key: (&raw const index) as u64,
            value: value.as_ptr() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE, &mut attr).context("set a map's value")?;
        Ok(())
    }

    /// Sums of the 64-bit numbers of a value over the CPUs, for a map that has one per CPU.
    ///
    /// # Errors
    ///
    /// Fails if there is no such index.
    pub fn sums(&self, index: u32, numbers: usize) -> Result<Vec<u64>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let mut cells = vec![0u64; cpus * numbers];
        let mut attr = MapUpdate {
            map: self.fd.as_raw_fd().try_into()?,
            padding: 0,
            key: (&raw const index) as u64,
            value: cells.as_mut_ptr() as u64,
            flags: 0,
        };
        bpf(MAP_LOOKUP, &mut attr).context("read a map's value")?;
        let mut sums = vec![0; numbers];
        for cpu in cells.chunks(numbers) {
            for (sum, number) in sums.iter_mut().zip(cpu) {
                *sum += number;
            }
        }
        Ok(sums)
    }

    /// Its descriptor, as an instruction's immediate.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// What the kernel says of a program that it accepts.
pub(super) struct Statistics {
    /// The last line of the verifier's log.
    pub log: String,
    /// Instructions after the verifier rewrote them.
    pub translated: usize,
    /// Bytes of machine code; 0 without a JIT.
    pub jited: u32,
}

/// Loads a program for what is said of it.
///
/// # Errors
///
/// Fails if it is refused.
pub(super) fn statistics<T>(kind: Kind, insns: &[T]) -> Result<Statistics> {
    const { assert!(size_of::<T>() == size_of::<Insn>()) };
    let mut log = vec![0u8; 1 << 24];
    let mut attr = ProgLoad {
        kind: kind as u32,
        count: u32::try_from(insns.len())?,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: LOG_STATS,
        log_size: u32::try_from(log.len())?,
        log: log.as_mut_ptr() as u64,
        ..ProgLoad::default()
    };
    let mut verdict = String::new();
    let loaded = bpf(PROG_LOAD, &mut attr).or_else(|refused| {
        verdict = written(&log);
        // Once more, for the way there; it may not fit, and then lacks the end.
        attr.log_level = LOG_REASON;
        bpf(PROG_LOAD, &mut attr).map_err(|_| refused)
    });
    let fd = loaded
        .with_context(|| {
            let way = written(&log);
            let tail = way.char_indices().rev().nth(REASON).map_or(0, |(at, _)| at);
            format!("{verdict}\n…{}", &way[tail..])
        })
        .context("load for the verifier's statistics")?;
    // SAFETY: as above.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        object: program.as_raw_fd().try_into()?,
        length: size_of::<ProgInfo>().try_into()?,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).context("read a program's information")?;
    Ok(Statistics {
        log: written(&log),
        translated: info.translated as usize / size_of::<Insn>(),
        jited: info.jited,
    })
}

/// The identifiers of the maps that a loaded program's instructions name, as the verifier left them: those that what was
/// switched off named are not among them.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn maps_named(program: impl AsFd) -> Result<BTreeSet<u32>> {
    /// `BPF_LD | BPF_IMM | BPF_DW`, with a map's identifier where the source register says so.
    const LD_IMM64: u8 = 0x18;
    /// `BPF_PSEUDO_MAP_FD`, `BPF_PSEUDO_MAP_VALUE`.
    const PSEUDO_MAPS: [u8; 2] = [1, 2];
    let object = program.as_fd().as_raw_fd().try_into()?;
    let ask = |info: &mut ProgInfo| {
        let mut attr = GetInfo {
            object,
            length: size_of::<ProgInfo>().try_into()?,
            info: (&raw mut *info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut attr).context("read a program's instructions")
    };
    let mut info = ProgInfo::default();
    ask(&mut info)?;
    let mut insns = vec![Insn::new(0, 0, 0, 0, 0); info.translated as usize / size_of::<Insn>()];
    info = ProgInfo {
        translated: info.translated,
        pointers: [0, insns.as_mut_ptr() as u64],
        ..ProgInfo::default()
    };
    ask(&mut info)?;
    let names_map =
        |insn: &&Insn| insn.code == LD_IMM64 && PSEUDO_MAPS.contains(&(insn.registers >> 4));
    Ok((insns.iter().filter(names_map))
        .map(|insn| insn.immediate.cast_unsigned())
        .collect())
}

/// What the kernel wrote into a log.
fn written(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size passed; the buffers it points to outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
