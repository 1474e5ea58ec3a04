//! Socket filters in classic BPF (Documentation/networking/filter.rst): what nobody waits for is dropped before it takes
//! room in a socket's buffer.

use std::io;
use std::os::fd::AsRawFd;

use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX};
use libc::{BPF_MISC, BPF_RET, BPF_TAX, BPF_W, sock_filter};

/// Takes a whole packet.
pub(super) const TAKE: sock_filter = code(BPF_RET | BPF_K, u32::MAX);
/// Takes nothing of it.
pub(super) const DROP: sock_filter = code(BPF_RET | BPF_K, 0);
/// Copies A to X.
pub(super) const TAX: sock_filter = code(BPF_MISC | BPF_TAX, 0);

const fn code(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// A = the byte at an offset.
pub(super) const fn byte(offset: u32) -> sock_filter {
    code(BPF_LD | BPF_B | BPF_ABS, offset)
}

/// A = the two bytes at an offset, big-endian.
pub(super) const fn half(offset: u32) -> sock_filter {
    code(BPF_LD | BPF_H | BPF_ABS, offset)
}

/// A = the four bytes at an offset, big-endian.
pub(super) const fn word(offset: u32) -> sock_filter {
    code(BPF_LD | BPF_W | BPF_ABS, offset)
}

/// A = the four bytes at an offset behind X, big-endian.
pub(super) const fn word_behind_x(offset: u32) -> sock_filter {
    code(BPF_LD | BPF_W | BPF_IND, offset)
}

/// A = a number.
pub(super) const fn load(number: u32) -> sock_filter {
    code(BPF_LD | BPF_IMM, number)
}

/// X = a number.
pub(super) const fn load_x(number: u32) -> sock_filter {
    code(BPF_LDX | BPF_IMM, number)
}

/// Passes over `yes` instructions if A is a number, else over `no`.
pub(super) const fn equal(number: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: yes,
        jf: no,
        k: number,
    }
}

/// Has a socket's packets pass a program from now on.
///
/// # Errors
///
/// The OS error of `SO_ATTACH_FILTER`.
pub(super) fn attach(socket: &impl AsRawFd, program: &mut [sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which outlives the call; its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
