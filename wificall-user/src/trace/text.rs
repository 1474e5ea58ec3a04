//! A line a step.

use std::fmt::Write as _;

use super::advice::refused;
use super::follow::Stall;
use crate::telemetry::view::{Step, TraceEvent};

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

/// An event's line. `phone`: with the phone's address, where several are followed.
#[must_use]
pub fn line(event: &TraceEvent, phone: bool) -> String {
    let mut line = time(event.at);
    if phone {
        let _ = write!(line, "  {:<15}", event.client);
    }
    let after = match event.after_ms {
        Some(ms) => format!("+{ms:.0} ms"),
        None => String::new(),
    };
    let _ = write!(line, "  {after:>9}  {:<20}", what(event.step));
    let mut detail = event.detail.clone();
    if event.step == Step::Notify
        && let Some(why) = refused(&event.detail)
    {
        let _ = write!(detail, ": {why}");
    }
    if event.step == Step::InitSent {
        detail = format!("to {} {detail}", event.endpoint);
    }
    let _ = write!(line, "  {detail}");
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// What is said of a step that does not come.
#[must_use]
pub fn stall(stall: &Stall, phone: bool) -> String {
    let who = if phone {
        format!("{} ", stall.client)
    } else {
        String::new()
    };
    let seconds = stall.for_ms as f64 / 1e3;
    let mut text = format!(
        "{}  {who}STALLS: waits {seconds:.1} s for {}\n",
        time(stall.at),
        stall.advice.missing
    );
    let _ = writeln!(text, "    {}", stall.advice.means);
    if let Some(notify) = &stall.notify {
        let why = refused(notify).map_or_else(String::new, |why| format!(": {why}"));
        let _ = writeln!(text, "    It says {notify}{why}.");
    }
    if let Some(exit) = &stall.exit {
        let _ = writeln!(text, "    Exit taken: {exit}.");
    }
    for attempt in &stall.advice.tries {
        let _ = writeln!(text, "    try: {attempt}");
    }
    text
}
