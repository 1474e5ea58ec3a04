//! The few raw `bpf(2)` calls that aya has no interface for.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};

/// `struct bpf_insn`, linux/bpf.h: the registers are two nibbles, the destination in the lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Insn {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

impl Insn {
    pub const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: src << 4 | dst,
            offset,
            immediate,
        }
    }
}

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
}

/// Loads a TC classifier.
pub fn load_classifier(insns: &[Insn]) -> Result<OwnedFd> {
    let attr = ProgLoad {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: u32::try_from(insns.len())?,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    let fd = bpf(PROG_LOAD, &attr).context("load a TC program")?;
    // SAFETY: the kernel just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The instructions of a loaded program after the verifier rewrote them.
pub fn translated(program: BorrowedFd<'_>) -> Result<Vec<Insn>> {
    let mut info = ProgInfo::default();
    info_by_fd(program, &mut info)?;
    let mut insns = vec![Insn::default(); info.xlated_len as usize / size_of::<Insn>()];
    let mut info = ProgInfo {
        xlated_len: info.xlated_len,
        xlated: insns.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    info_by_fd(program, &mut info)?;
    if info.xlated == 0 || insns.is_empty() {
        bail!(
            "the kernel does not show translated programs (net.core.bpf_jit_harden, kernel.kptr_restrict)"
        );
    }
    Ok(insns)
}

fn info_by_fd(program: BorrowedFd<'_>, info: &mut ProgInfo) -> Result<()> {
    let attr = GetInfo {
        fd: program.as_raw_fd().try_into()?,
        len: size_of::<ProgInfo>().try_into()?,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attr).context("read a program's information")?;
    Ok(())
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size passed; the buffers it points to outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
