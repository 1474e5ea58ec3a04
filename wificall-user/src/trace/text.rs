//! A line a step.

use std::fmt::Write as _;

use super::advice::refused;
use super::follow::Stall;
use crate::telemetry::view::{Step, TraceEvent};
use crate::top::words;

/// A time of day, UTC: `12:03:04.567`.
#[must_use]
pub fn time(at: u64) -> String {
    let (seconds, millis) = (at / 1_000, at % 1_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}

const fn what(step: Step) -> &'static str {
    match step {
        Step::DnsAsked => "DNS asked",
        Step::DnsAnswered => "DNS answered",
        Step::InitSent => "IKE_SA_INIT sent",
        Step::InitAnswered => "IKE_SA_INIT answered",
        Step::Notify => "notify",
        Step::Retransmitted => "sent again",
        Step::Natt => "moved to port 4500",
        Step::AuthSent => "IKE_AUTH sent",
        Step::AuthAnswered => "IKE_AUTH answered",
        Step::EspUp => "ESP from the phone",
        Step::EspDown => "ESP from the ePDG",
        Step::Up => "TUNNEL UP",
        Step::Failed => "SET-UP FAILED",
        Step::Exit => "exit taken",
        Step::Roamed => "moved",
        Step::Rekeyed => "new keys",
        Step::CallBegan => "call began",
        Step::CallChanged => "call",
        Step::CallEnded => "call ended",
        Step::Idle => "idle",
        Step::Gone => "gone",
    }
}

/// An event's line, with its end.
#[must_use]
pub fn line(event: &TraceEvent) -> String {
    let after = match event.after_ms {
        Some(ms) => format!("+{ms:.0} ms"),
        None => String::new(),
    };
    let mut line = format!(
        "{}  {:<15}  {after:>9}  {:<20}  {}",
        time(event.at),
        event.client,
        what(event.step),
        detail(event)
    );
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// More of it. A phone may have several ePDGs at once: which it is is said where steps are of a set-up as a whole.
fn detail(event: &TraceEvent) -> String {
    let (detail, endpoint) = (&*event.detail, &*event.endpoint);
    match event.step {
        Step::Notify => match refused(detail) {
            Some(why) => format!("{detail}: {why}"),
            None => detail.to_owned(),
        },
        Step::InitSent | Step::Retransmitted => format!("to {endpoint} {detail}"),
        Step::Up => format!("with {endpoint} {detail}"),
        Step::Failed => format!("with {endpoint}: {}", words::failure(detail)),
        Step::Roamed => match &event.from {
            Some(from) => format!("from {from} {detail}"),
            None => detail.to_owned(),
        },
        _ => detail.to_owned(),
    }
}

/// What is said of a step that does not come.
#[must_use]
pub fn stall(stall: &Stall) -> String {
    let at = match &*stall.endpoint {
        "" => String::new(),
        endpoint => format!(" at {endpoint}"),
    };
    let seconds = stall.for_ms as f64 / 1e3;
    let mut text = format!(
        "{}  {} STALLS{at}: waits {seconds:.1} s for {}\n",
        time(stall.at),
        stall.client,
        stall.advice.missing
    );
    let _ = writeln!(text, "    {}", stall.advice.means);
    if let Some(notify) = &stall.notify {
        let why = refused(notify).map_or_else(String::new, |why| format!(": {why}"));
        let _ = writeln!(text, "    It says {notify}{why}.");
    }
    if stall.lost {
        text += "    Events were lost meanwhile: it may have come, unseen.\n";
    }
    if let Some(exit) = &stall.exit {
        let _ = writeln!(text, "    Exit taken: {exit}.");
    }
    for attempt in &stall.advice.tries {
        let _ = writeln!(text, "    try: {attempt}");
    }
    text
}
