//! Everything about one tunnel.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};

use super::draw::{Tone, loss_tone, scrolled};
use super::list::going;
use super::state::{Look, State};
use super::words;
use crate::telemetry::view::{Call, Sample, Tunnel};

pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State) {
    let text = match state.chosen() {
        Some(tunnel) => {
            let now = state.snapshot.as_ref().map_or(0, |s| s.tunnels.now);
            about(tunnel, now, state.look, area.width)
        }
        None => Text::raw("\nThis tunnel is over. Esc: back."),
    };
    scrolled(frame, area, state, text);
}

fn about(tunnel: &Tunnel, now: u64, look: Look, width: u16) -> Text<'static> {
    let ago = |at: u64| words::lasted(now.saturating_sub(at) / 1_000);
    let mut lines = vec![
        Line::raw(""),
        Line::styled(
            format!("{} to {}", tunnel.client, tunnel.endpoint),
            Style::default().add_modifier(Modifier::BOLD),
        ),
    ];
    let owners = match tunnel.owners.join(", ") {
        owners if owners.is_empty() => String::new(),
        owners => format!(" ({owners})"),
    };
    let country = match tunnel.country.as_str() {
        "" => String::new(),
        country => format!(", {country}"),
    };
    let operator = words::or_unknown(&tunnel.operator);
    let mut fact = |name: &str, text: String, tone| lines.push(fact(name, text, tone, look));
    fact(
        "operator",
        format!("{operator}{country}{owners}"),
        Tone::Plain,
    );
    fact(
        "state",
        format!(
            "{} for {}; first seen {} ago, last packet {} ago",
            words::state(tunnel.state),
            ago(tunnel.since),
            ago(tunnel.began),
            ago(tunnel.seen)
        ),
        Tone::Plain,
    );
    fact("set-up", words::setup(tunnel.setup.as_ref()), Tone::Plain);
    if let Some(setup) = &tunnel.setup {
        for step in &setup.milestones {
            let name = words::milestone(&step.name);
            fact(
                "",
                format!("{:>8.1} ms  {name}", step.after_ms),
                Tone::Plain,
            );
        }
        fact(
            "",
            format!(
                "{} IKE_AUTH responses, {} requests sent again",
                setup.auth_responses, setup.retransmitted
            ),
            Tone::Quiet,
        );
    }
    fact(
        "round trips",
        format!(
            "phone {} ms, ePDG {} ms",
            words::millis(tunnel.round_trip_client_ms),
            words::millis(tunnel.round_trip_network_ms)
        ),
        Tone::Plain,
    );
    match tunnel.keepalive_ms {
        Some(ms) if tunnel.nat_timeout_shorter => fact(
            "keepalives",
            format!("every {} s: this host's NAT forgets sooner", ms / 1_000),
            Tone::Warn,
        ),
        Some(ms) => fact("keepalives", format!("every {} s", ms / 1_000), Tone::Plain),
        None => {}
    }
    fact(
        "packets",
        format!(
            "{} from the phone ({} bytes), {} to it ({} bytes)",
            tunnel.packets_up, tunnel.bytes_up, tunnel.packets_down, tunnel.bytes_down
        ),
        Tone::Plain,
    );
    if let Some(exit) = &tunnel.exit {
        fact("exit taken", exit.to_string(), Tone::Plain);
    }
    if tunnel.roamed > 0 {
        fact("moved", format!("{} times", tunnel.roamed), Tone::Plain);
    }
    for flow in &tunnel.flows {
        let port = match flow.port {
            0 => "native ESP".to_owned(),
            port => format!("port {port}"),
        };
        fact(
            "flow",
            format!("{} {port}, last packet {} ago", flow.client, ago(flow.seen)),
            Tone::Quiet,
        );
    }
    if let Some(call) = going(tunnel) {
        lines.push(Line::raw(""));
        lines.extend(of_call(call, look, width));
    }
    for call in tunnel.calls.iter().filter(|call| call.ended.is_some()) {
        lines.push(Line::raw(""));
        let ended = call.ended.unwrap_or(now);
        let title = format!(
            "Call of {}, {} ago",
            words::lasted(call.seconds),
            ago(ended)
        );
        lines.push(Line::raw(title));
        lines.extend(legs(call, look));
    }
    Text::from(lines)
}

fn of_call(call: &Call, look: Look, width: u16) -> Vec<Line<'static>> {
    let one_way = words::voice(call.state).starts_with("one-way");
    let tone = if one_way { Tone::Bad } else { Tone::Good };
    let mut lines = vec![Line::from(vec![
        Span::raw(format!("Call for {}: ", words::lasted(call.seconds))),
        Span::styled(words::voice(call.state), look.style(tone)),
    ])];
    lines.extend(legs(call, look));
    lines.push(fact("~MOS", words::mos(call), Tone::Plain, look));
    // Each half-leg by itself.
    let half = |of: fn(&Sample) -> Sample| call.history.iter().map(of).collect::<Vec<_>>();
    let up = half(|sample| Sample {
        down: 0,
        down_lost: 0,
        ..*sample
    });
    let down = half(|sample| Sample {
        up: 0,
        up_lost: 0,
        ..*sample
    });
    let room = usize::from(width).saturating_sub(NAME + 1);
    for (name, samples) in [("from phone", up), ("from network", down)] {
        let line = words::sparkline(&samples, room, look.unicode);
        lines.push(fact(name, line, Tone::Plain, look));
    }
    lines
}

fn legs(call: &Call, look: Look) -> [Line<'static>; 2] {
    [
        ("phone to here", &call.client_to_us),
        ("net to here", &call.network_to_us),
    ]
    .map(|(name, leg)| {
        fact(
            name,
            words::half_leg(leg),
            loss_tone(leg.loss_percent),
            look,
        )
    })
}

/// Characters of a name.
const NAME: usize = 14;

fn fact(name: &str, text: String, tone: Tone, look: Look) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{name:<NAME$} "), look.style(Tone::Quiet)),
        Span::styled(text, look.style(tone)),
    ])
}
