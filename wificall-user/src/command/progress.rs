//! How far a long command is: a bar on a terminal, a line now and then elsewhere; on stderr.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// How far it is.
pub(super) enum Progress {
    /// Nobody needs to know.
    Silent,
    /// A bar.
    Bar(ProgressBar),
    /// Lines.
    Lines {
        /// What the steps are.
        what: &'static str,
        /// How many there are.
        total: u64,
        /// How many are done.
        done: u64,
        /// When it began.
        began: Instant,
        /// When the last line was written.
        written: Instant,
    },
}

impl Progress {
    /// Of `total` steps, if there are enough for it to matter.
    pub(super) fn new(what: &'static str, total: usize, shown: bool) -> Self {
        let total = total as u64;
        if !shown {
            Self::Silent
        } else if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(
                "{bar:30} {pos}/{len} {prefix} [{elapsed} elapsed, {eta} left]  {wide_msg}",
            );
            let bar = ProgressBar::new(total).with_prefix(what);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            Self::Bar(bar)
        } else {
            let now = Instant::now();
            Self::Lines {
                what,
                total,
                done: 0,
                began: now,
                written: now,
            }
        }
    }

    /// One step more; `message` says what has come of all so far.
    pub(super) fn step(&mut self, message: impl FnOnce() -> String) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.inc(1);
                bar.set_message(message());
            }
            Self::Lines {
                what,
                total,
                done,
                began,
                written,
            } => {
                *done += 1;
                if written.elapsed() >= EVERY {
                    *written = Instant::now();
                    let left = began.elapsed().as_secs_f64() / *done as f64;
                    let left = left * (*total - (*done).min(*total)) as f64;
                    eprintln!("{done} of {total} {what}, {left:.0} s left; {}", message());
                }
            }
        }
    }

    /// No more steps: the place is free for other output.
    pub(super) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
