//! Figures as people read them, and short.

use crate::telemetry::view::{Call, Cause, HalfLeg, Sample, Setup, State, Voice};

/// What is not known.
pub const UNKNOWN: &str = "-";

/// A length of time in at most six characters: `9s`, `4m09s`, `3h20m`, `12d4h`.
pub fn lasted(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// A share in per cent; a little loss is not none.
pub fn percent(value: Option<f64>) -> String {
    match value {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0%".to_owned(),
        Some(value) if value < 0.1 => format!("{value:.2}%"),
        Some(value) if value < 10.0 => format!("{value:.1}%"),
        Some(value) => format!("{value:.0}%"),
    }
}

/// Milliseconds, without their unit.
pub fn millis(value: Option<f64>) -> String {
    match value {
        None => UNKNOWN.to_owned(),
        Some(value) if value < 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// A text in so many characters at most: of what has no room, the middle is left out, and that is seen.
pub fn elided(text: &str, width: usize, unicode: bool) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let Some(left) = width.checked_sub(1) else {
        return String::new();
    };
    // Of an address the end tells more than the beginning, which others share.
    let (start, end) = (left / 2, left - left / 2);
    let mut short: String = text.chars().take(start).collect();
    short.push(if unicode { '…' } else { '~' });
    short.extend(text.chars().skip(length - end));
    short
}

/// What is unknown or nothing, as such.
pub fn or_unknown(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

/// What a tunnel does.
pub const fn state(state: State) -> &'static str {
    match state {
        State::SettingUp => "setting up",
        State::Failed => "failed",
        State::Up => "up",
        State::Call => "call",
        State::Idle => "idle",
        State::Gone => "gone",
    }
}

/// What is heard of a call.
pub const fn voice(voice: Voice) -> &'static str {
    match voice {
        Voice::Talking => "talking",
        Voice::Silent => "silent",
        Voice::OneWayUp => "one-way: only the phone is heard",
        Voice::OneWayDown => "one-way: only the network is heard",
    }
}

/// A cause, by its name in JSON.
pub fn cause(name: &str) -> String {
    match name {
        _ if name == Cause::NoAnswer.name() => "no answer to IKE_SA_INIT".to_owned(),
        _ if name == Cause::AuthenticationStalled.name() => "authentication stalled".to_owned(),
        _ if name == Cause::EspMissing.name() => "ESP missing".to_owned(),
        other => other.replace('_', " "),
    }
}

/// A step of a set-up, by its name in JSON.
pub fn milestone(name: &str) -> String {
    match name {
        "init_sent" => "IKE_SA_INIT sent".to_owned(),
        "init_answered" => "IKE_SA_INIT answered".to_owned(),
        "natt" => "port 4500".to_owned(),
        "auth_sent" => "IKE_AUTH sent".to_owned(),
        "auth_answered" => "IKE_AUTH answered".to_owned(),
        "esp_up" => "ESP from the phone".to_owned(),
        "esp_down" => "ESP from the ePDG".to_owned(),
        other => other.replace('_', " "),
    }
}

/// The detail of a set-up that failed: its cause, a notify, what was waited for.
pub fn failure(detail: &str) -> String {
    let (why, next) = match detail.split_once(", waited for ") {
        Some((why, next)) => (why, Some(next)),
        None => (detail, None),
    };
    let why = match why.split_once(": ") {
        Some((name, notify)) => format!("{}: {notify}", cause(name)),
        None => cause(why),
    };
    match next {
        Some(next) => format!("{why}, waited for {}", milestone(next)),
        None => why,
    }
}

/// How a set-up went, or goes.
pub fn setup(setup: Option<&Setup>) -> String {
    let Some(setup) = setup else {
        return "before this agent's sight".to_owned();
    };
    let notify = match &setup.notify {
        Some(notify) => format!(" ({notify})"),
        None => String::new(),
    };
    match (setup.result.as_deref(), &setup.stalled) {
        (Some("ok"), _) => match setup.took_ms {
            Some(ms) => format!("ok in {ms:.0} ms"),
            None => "ok".to_owned(),
        },
        (Some(result), _) => cause(result) + &notify,
        (None, Some(next)) => {
            let seconds = setup.stalled_ms.unwrap_or(0) / 1_000;
            format!("waits {seconds}s for {}{notify}", milestone(next))
        }
        (None, None) => format!("goes on{notify}"),
    }
}

/// A half-leg in a line.
pub fn half_leg(leg: &HalfLeg) -> String {
    let jitter = match leg.jitter_ms {
        Some(ms) => format!(", jitter {ms:.1} ms"),
        None => String::new(),
    };
    format!(
        "{} received, {} lost ({}), {} late, {} twice{jitter}",
        leg.received,
        leg.lost,
        percent(leg.loss_percent),
        leg.late,
        leg.duplicate
    )
}

/// The MOS of a call, or why there is none.
pub fn mos(call: &Call) -> String {
    match (call.mos, &call.mos_missing) {
        (Some(mos), _) => format!("{mos:.1}"),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// The last seconds of a call, `width` characters at most: the higher, the more packets; `x` where some were lost.
pub fn sparkline(history: &[Sample], width: usize, unicode: bool) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '_', '.', '.', '-', '-', '=', '='];
    let glyphs = if unicode { BLOCKS } else { ASCII };
    let lost = if unicode { '×' } else { 'x' };
    let shown = &history[history.len().saturating_sub(width)..];
    let came = |sample: &Sample| sample.up + sample.down;
    let most = shown.iter().map(came).max().unwrap_or(0).max(1);
    shown
        .iter()
        .map(|sample| {
            if sample.up_lost + sample.down_lost > 0 {
                lost
            } else {
                let level = u64::from(came(sample)) * (glyphs.len() as u64 - 1) / u64::from(most);
                glyphs[level as usize]
            }
        })
        .collect()
}
