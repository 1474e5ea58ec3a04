//! The programs' own log: rare events only.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

/// A task that reads the log of one load of the programs; dropping it ends it.
pub(super) struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the log of the programs in `ebpf`.
pub(super) fn start(ebpf: &mut Ebpf) -> Option<Reader> {
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
            return None;
        }
    };
    let task = tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Some(Reader(task))
}
