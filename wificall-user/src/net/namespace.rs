//! A network namespace of its own for a test.

use std::process::Command;
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// Runs `test` on a thread in a fresh network namespace. Needs root; fails without.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce(&Runtime) -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: unshare takes no pointers, and CLONE_NEWNET concerns the calling thread only.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(
                result,
                0,
                "new network namespace (needs root): {}",
                std::io::Error::last_os_error()
            );
            test(&Builder::new_current_thread().enable_all().build().unwrap())
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` with these arguments in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

/// The index of the link of this name in the namespace of the calling thread.
pub(crate) fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(
        index,
        0,
        "index of {name:?}: {}",
        std::io::Error::last_os_error()
    );
    index
}

/// Runs a command with these arguments in the namespace of the calling thread; it must succeed.
pub(crate) fn run(command: &str, arguments: &str) {
    let output = Command::new(command)
        .args(arguments.split_whitespace())
        .output()
        .expect(command);
    assert!(
        output.status.success(),
        "{command} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
