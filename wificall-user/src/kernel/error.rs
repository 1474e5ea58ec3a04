//! What can go wrong between the agent and the kernel.

use std::io;

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError, tc::TcError},
};

/// An operation on the data plane that failed: what, on which object, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{operation}{}", hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default())]
pub struct KernelError {
    operation: String,
    hint: Option<&'static str>,
    #[source]
    source: Option<Box<Source>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Source {
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Object(#[from] aya_obj::ParseError),
    #[error(transparent)]
    Pin(#[from] aya::pin::PinError),
}

impl KernelError {
    pub(super) fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            hint: None,
            source: None,
        }
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Another agent's data plane is newer than this program.
    pub(super) fn newer_abi(found: u32, ours: u32, path: &std::path::Path) -> Self {
        Self::new(format!(
            "use the data plane in {}: its ABI {found} is newer than this program's {ours}",
            path.display()
        ))
        .hint(
            "start the newer wificall again, or remove its data plane with the newer \
             `wificall detach` first; classification goes on meanwhile",
        )
    }
}

/// Names the operation that an error came from, and what can be done where that is known.
pub(super) trait Context<T> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T, E: Into<Source>> Context<T> for Result<T, E> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|error| {
            let source = error.into();
            KernelError {
                operation: operation(),
                hint: hint(&source),
                source: Some(Box::new(source)),
            }
        })
    }
}

/// The system error at the bottom of a chain of sources.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(code) = io.raw_os_error()
        {
            return Some(code);
        }
        next = error.source();
    }
    // `SyscallError` and `NetlinkError` name their cause without offering it as a source.
    None
}

fn hint(source: &Source) -> Option<&'static str> {
    let code = match source {
        Source::Io(error) => error.raw_os_error(),
        Source::Program(ProgramError::SyscallError(error))
        | Source::Map(MapError::SyscallError(error))
        | Source::Link(LinkError::SyscallError(error)) => error.io_error.raw_os_error(),
        other => errno(other),
    };
    match code? {
        libc::EPERM => Some(
            "wificall needs the capabilities BPF, NET_ADMIN and PERFMON (or root); on kernels before \
             5.8 SYS_ADMIN",
        ),
        libc::ENOMEM => {
            Some("the memory cgroup or RLIMIT_MEMLOCK is too small: raise it, or lower [limits]")
        }
        libc::ENOSYS => Some("the kernel was built without CONFIG_BPF_SYSCALL"),
        _ => None,
    }
}
