//! What happens to tunnels and calls, as lines of the log: target `wificall::events`, one event a line, its parts as fields.

use tracing::{Level, debug, enabled, info, warn};

use crate::{
    config::{EventLog, Telemetry},
    telemetry::view::{Step, TraceEvent},
};

/// The target of these lines, for filters.
pub const TARGET: &str = "wificall::events";

/// Keeps to so many lines a second; what is over it is counted.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The second that is counted, of whatever clock.
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Pace {
    /// Whether there is room for one more line in this second.
    fn admit(&mut self, second: u64, most: u32) -> bool {
        if self.second != second {
            (self.second, self.lines) = (second, 0);
        }
        let admitted = self.lines < most;
        self.lines += u32::from(admitted);
        self.left_out += u64::from(!admitted);
        admitted
    }

    /// How many were left out since this was asked last.
    fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

/// The level of a step's line; `None`: there is none.
const fn level(log: EventLog, step: Step) -> Option<Level> {
    let is_result = matches!(
        step,
        Step::Up
            | Step::Failed
            | Step::CallBegan
            | Step::CallChanged
            | Step::CallEnded
            | Step::Roamed
            | Step::Exit
    );
    match log {
        EventLog::Off => None,
        _ if matches!(step, Step::Failed) => Some(Level::WARN),
        EventLog::All => Some(Level::INFO),
        EventLog::Results if is_result => Some(Level::INFO),
        EventLog::Results => Some(Level::DEBUG),
    }
}

/// Whether a step is logged with this configuration and the filter that is in force.
pub(super) fn is_logged(settings: &Telemetry, step: Step) -> bool {
    match level(settings.log, step) {
        Some(Level::WARN) => enabled!(target: TARGET, Level::WARN),
        Some(Level::INFO) => enabled!(target: TARGET, Level::INFO),
        Some(_) => enabled!(target: TARGET, Level::DEBUG),
        None => false,
    }
}

/// Logs an event. `client` and `from`: what the log may have of the phone's address, and of the one before. `second` of
/// whatever clock.
pub(super) fn log(
    pace: &mut Pace,
    settings: &Telemetry,
    event: &TraceEvent,
    (client, from): (&str, Option<&str>),
    (operator, country): (&str, &str),
    second: u64,
) {
    let Some(level) = level(settings.log, event.step) else {
        return;
    };
    if !is_logged(settings, event.step) || !pace.admit(second, settings.log_per_second) {
        return;
    }
    let exit = event.exit.as_ref();
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: TARGET,
                event = event.step.name(),
                client,
                from,
                tunnel = known(&event.tunnel),
                endpoint = known(&event.endpoint),
                operator = known(operator),
                country = known(country),
                after_ms = event.after_ms,
                exit = exit.and_then(|exit| exit.exit.as_deref()),
                gateway = exit.and_then(|exit| exit.gateway.as_deref()),
                device = exit.and_then(|exit| exit.device.as_deref()),
                mark = exit.and_then(|exit| exit.mark.as_deref()),
                detail = known(&event.detail),
                "{}",
                words(event.step)
            )
        };
    }
    match level {
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}

/// Says how many events were over the rate, if some were.
pub(super) fn tell_left_out(pace: &mut Pace, settings: &Telemetry) {
    let events = pace.take_left_out();
    if events > 0 {
        let most = settings.log_per_second;
        warn!(target: TARGET, events, most, "more events than telemetry.log_per_second: not logged");
    }
}

/// Nobody's endpoint has the label `none`.
fn known(text: &str) -> Option<&str> {
    (!matches!(text, "" | "none")).then_some(text)
}

const fn words(step: Step) -> &'static str {
    match step {
        Step::DnsAsked => "a phone asks DNS for its ePDG",
        Step::DnsAnswered => "a phone is answered by DNS",
        Step::InitSent => "IKE_SA_INIT sent",
        Step::InitAnswered => "IKE_SA_INIT answered",
        Step::Notify => "IKE_SA_INIT answered with a notify",
        Step::Retransmitted => "a request was sent again",
        Step::Natt => "IKE moved to port 4500",
        Step::AuthSent => "IKE_AUTH sent",
        Step::AuthAnswered => "IKE_AUTH answered",
        Step::EspUp => "ESP from the phone",
        Step::EspDown => "ESP from the ePDG",
        Step::Up => "tunnel set up",
        Step::Failed => "tunnel not set up",
        Step::Exit => "exit taken",
        Step::Roamed => "phone roamed",
        Step::Rekeyed => "new keys",
        Step::CallBegan => "call began",
        Step::CallChanged => "call changed",
        Step::CallEnded => "call ended",
        Step::Idle => "tunnel idle",
        Step::Gone => "tunnel gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many_lines_and_what_is_over_is_counted() {
        let mut pace = Pace::default();
        let admitted = |pace: &mut Pace, second| (0..5).filter(|_| pace.admit(second, 3)).count();
        assert_eq!(admitted(&mut pace, 7), 3);
        assert_eq!(admitted(&mut pace, 8), 3);
        assert_eq!(pace.take_left_out(), 4);
        assert_eq!(pace.take_left_out(), 0);
    }

    #[test]
    fn the_configuration_decides_what_is_more_than_a_detail() {
        for (log, up, failed, auth) in [
            (EventLog::Off, None, None, None),
            (
                EventLog::Results,
                Some(Level::INFO),
                Some(Level::WARN),
                Some(Level::DEBUG),
            ),
            (
                EventLog::All,
                Some(Level::INFO),
                Some(Level::WARN),
                Some(Level::INFO),
            ),
        ] {
            assert_eq!(level(log, Step::Up), up);
            assert_eq!(level(log, Step::Failed), failed);
            assert_eq!(level(log, Step::AuthSent), auth);
        }
    }
}
