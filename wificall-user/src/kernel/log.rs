//! The programs' own log: rare events only.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// Reads the log of the programs in `ebpf` for as long as they are loaded by this agent.
pub(super) fn start(ebpf: &mut Ebpf) {
    let logger = EbpfLogger::init(ebpf)
        .map_err(|error| error.to_string())
        .and_then(|logger| {
            // SAFETY: the logger owns its descriptor, which stays the same and open for as long as it lives.
            unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
                .map_err(|error| error.to_string())
        });
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the data plane's own log cannot be read: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}
