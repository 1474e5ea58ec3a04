//! The frame around the views: what there is at a glance above, what keys do below.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Wrap};

use super::state::{Look, Screen, Snapshot, State};
use super::{detail, list, words};
use crate::telemetry::view::{Minute, Received, Sides, State as TunnelState, Trouble};

const HELP: &str = "\
Keys
  Up, Down, k, j        choose a tunnel
  PgUp, PgDn, g, G      ten rows, the first, the last; here and in all about one, too
  Enter                 everything about it; again or Esc: back
  /                     filter by client, ePDG, operator, country, state; Esc clears it
  s, r                  order by the next column; the other way round
  ?                     this; any other key: back
  q                     end

Above the list
  my side               Wi-Fi and LAN, between phones and this box
  network side          uplink and Internet
  carrier               its ePDG, and what is behind it; ? where nothing was seen to judge by

Columns
  LOSS UP/DN            of a call, lost before it came here: from the phone, from the network
  JIT UP/DN             of a call, jitter in milliseconds, likewise
  ~MOS                  estimated by ITU-T G.107, 1 to 4.5; assumptions are in docs/telemetry.md
  RTT PH/NET            last round trip to the phone and to the ePDG, in milliseconds
  LAST SECONDS          packets of a call; a cross where some were lost

What is lost behind this box (to the phone over the air, to the network) cannot be seen here.";

const EMPTY: &str = "\
No phone has a tunnel. To see one:

  1. Join a phone whose carrier has Wi-Fi calling to this box's Wi-Fi, with Wi-Fi calling on.
  2. Airplane mode on, then Wi-Fi alone on again.
  3. Wait for half a minute.

If nothing comes, `wificall trace --any` says how far it gets and what to try.";

const OFF: &str = "\
Flows are not tracked: the configuration says telemetry.enabled = false.
Set it to true and run `wificall reload`.";

/// Columns below which words are left out.
const NARROW: u16 = 76;

/// How something is to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Quiet,
    Good,
    Warn,
    Bad,
}

impl Look {
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::default();
        let coloured = |colour| if self.colour { style.fg(colour) } else { style };
        match tone {
            Tone::Plain => style,
            Tone::Quiet => style.add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

/// How bad a loss is, in per cent.
pub(super) fn loss_tone(percent: Option<f64>) -> Tone {
    match percent {
        Some(percent) if percent >= 3.0 => Tone::Bad,
        Some(percent) if percent >= 1.0 => Tone::Warn,
        Some(_) => Tone::Plain,
        None => Tone::Quiet,
    }
}

/// Draws the screen.
pub fn draw(frame: &mut Frame, state: &State) {
    let head = head(state, frame.area().width);
    let [above, middle, below] = Layout::vertical([
        Constraint::Length(u16::try_from(head.lines.len()).unwrap_or(u16::MAX)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head, above);
    match state.screen {
        Screen::Help => scrolled(frame, middle, state, Text::raw(format!("\n{HELP}"))),
        Screen::Detail => detail::draw(frame, middle, state),
        Screen::List => match &state.snapshot {
            None if state.problem.is_none() => paragraph(frame, middle, "Asking the agent..."),
            None => {}
            Some(snapshot) if !snapshot.overview.enabled => paragraph(frame, middle, OFF),
            Some(snapshot) if snapshot.tunnels.total == 0 => {
                paragraph(frame, middle, EMPTY);
            }
            Some(_) => list::draw(frame, middle, state),
        },
    }
    frame.render_widget(foot(state), below);
}

/// A text that keys scroll: as far as its last row is to be seen, and no further.
pub(super) fn scrolled(frame: &mut Frame, area: Rect, state: &State, text: Text<'_>) {
    let text = Paragraph::new(text).wrap(Wrap { trim: false });
    let rows = u16::try_from(text.line_count(area.width)).unwrap_or(u16::MAX);
    let most = rows.saturating_sub(area.height);
    state.scroll.set(state.scroll.get().min(most));
    frame.render_widget(text.scroll((state.scroll.get(), 0)), area);
}

fn paragraph(frame: &mut Frame, area: Rect, text: &str) {
    let text = Paragraph::new(format!("\n{text}")).wrap(Wrap { trim: false });
    frame.render_widget(text, area);
}

fn head(state: &State, width: u16) -> Text<'static> {
    let look = state.look;
    let mut lines = Vec::new();
    if let Some(problem) = &state.problem {
        let old = match &state.snapshot {
            Some(_) => "; what is below is older",
            None => "",
        };
        let first = problem.lines().next().unwrap_or_default();
        lines.push(Line::styled(
            format!("! {first}{old}"),
            look.style(Tone::Bad),
        ));
    }
    if let Some(snapshot) = &state.snapshot {
        lines.push(counts(look, snapshot, width));
        lines.push(loss(look, &snapshot.overview.minutes, width));
        lines.extend(sides(look, &snapshot.overview.sides, width));
        let problems = &snapshot.overview.health.problems;
        if let Some(first) = problems.first() {
            let more = match problems.len() {
                1 => String::new(),
                count => format!(" (and {} more: `wificall status`)", count - 1),
            };
            lines.push(Line::styled(
                format!("! {first}{more}"),
                look.style(Tone::Warn),
            ));
        }
    }
    Text::from(lines)
}

fn counts(look: Look, snapshot: &Snapshot, width: u16) -> Line<'static> {
    let overview = &snapshot.overview;
    let by = |state| overview.tunnels.get(&state).copied().unwrap_or(0);
    let failed = by(TunnelState::Failed);
    let (calls, up) = (
        overview.calls_active,
        by(TunnelState::Up) + by(TunnelState::Call),
    );
    let (idle, setting_up) = (by(TunnelState::Idle), by(TunnelState::SettingUp));
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let wide = width >= NARROW;
    let mut spans = vec![Span::styled(format!("calls {calls}"), bold)];
    if overview.calls_one_way > 0 {
        spans.push(Span::styled(
            format!(" ONE-WAY {}", overview.calls_one_way),
            look.style(Tone::Bad),
        ));
    }
    spans.push(Span::raw(if wide {
        format!("  tunnels up {up}, idle {idle}, setting up {setting_up}, ")
    } else {
        format!(" up {up} idle {idle} ")
    }));
    spans.push(Span::styled(
        format!("failed {failed}"),
        look.style(if failed > 0 { Tone::Bad } else { Tone::Plain }),
    ));
    if wide {
        let runs = words::lasted(overview.uptime_seconds);
        let runs = format!("  agent runs for {runs}");
        spans.push(Span::styled(runs, look.style(Tone::Quiet)));
    }
    Line::from(spans)
}

/// Loss of the last minutes by half-leg.
fn loss(look: Look, minutes: &[Minute], width: u16) -> Line<'static> {
    let sum = |of: fn(&Minute) -> Received| {
        let all = minutes.iter().map(of);
        let (received, lost) = all.fold((0, 0), |(received, lost), minute| {
            (received + minute.received, lost + minute.lost)
        });
        Received::new(received, lost)
    };
    let named = if width < NARROW {
        ["up", "down"]
    } else if look.unicode {
        ["phone → here", "network → here"]
    } else {
        ["phone to here", "network to here"]
    };
    let legs = [
        sum(|minute| minute.client_to_us),
        sum(|minute| minute.network_to_us),
    ];
    let mut spans = vec![Span::raw(format!("loss in {} min: ", minutes.len()))];
    for (name, leg) in named.into_iter().zip(legs) {
        let text = match leg.loss_percent {
            Some(_) => words::percent(leg.loss_percent),
            None => "no call".to_owned(),
        };
        spans.push(Span::styled(
            format!("{name} {text}  "),
            look.style(loss_tone(leg.loss_percent)),
        ));
    }
    Line::from(spans)
}

/// Whose side trouble is on, and below what speaks most for it.
fn sides(look: Look, sides: &Sides, width: u16) -> Vec<Line<'static>> {
    let is_wide = width >= NARROW;
    let named = if is_wide {
        ["my side", "network side", "carrier"]
    } else {
        ["me", "net", "carrier"]
    };
    let all = [&sides.client, &sides.network, &sides.carrier];
    let mut spans = Vec::new();
    for (name, side) in named.into_iter().zip(all) {
        let (word, tone) = match side.trouble {
            Trouble::Unknown => ("?", Tone::Quiet),
            Trouble::None => ("ok", Tone::Good),
            Trouble::Some if is_wide => ("some trouble", Tone::Warn),
            Trouble::Some => ("some", Tone::Warn),
            Trouble::Bad if is_wide => ("TROUBLE", Tone::Bad),
            Trouble::Bad => ("BAD", Tone::Bad),
        };
        spans.push(Span::raw(format!("{name}: ")));
        spans.push(Span::styled(format!("{word}  "), look.style(tone)));
    }
    let mut lines = vec![Line::from(spans)];
    let worst = all.into_iter().rev().max_by_key(|side| side.trouble);
    if is_wide && let Some(why) = worst.and_then(|side| side.why.first()) {
        let why = if look.unicode {
            why.clone()
        } else {
            why.replace('×', "x")
        };
        lines.push(Line::styled(format!("  {why}"), look.style(Tone::Quiet)));
    }
    lines
}

/// How many of how many are in the list, where that is not all.
fn some(state: &State) -> String {
    let Some(snapshot) = &state.snapshot else {
        return String::new();
    };
    let (found, rows) = (snapshot.tunnels.found, state.rows().len());
    match rows as u64 {
        rows if rows < found && !state.is_filtering() => format!("{rows} of {found} shown  "),
        _ => String::new(),
    }
}

fn foot(state: &State) -> Line<'static> {
    let filter = &state.filter;
    let text = match state.screen {
        _ if state.typing => format!("/{filter}_  Enter: keep  Esc: clear"),
        Screen::Help => "Up, Down: scroll  any other key: back  q: end".to_owned(),
        Screen::Detail => "Esc: back  Up, Down: scroll  ?: help  q: end".to_owned(),
        Screen::List => {
            let order = if state.reverse { " reversed" } else { "" };
            let sort = state.sort.name();
            let filter = match filter.as_str() {
                "" => "/: filter".to_owned(),
                filter => format!("filter \"{filter}\" (Esc clears)"),
            };
            let some = some(state);
            format!("{some}q: end  ?: help  Enter: detail  {filter}  s: by {sort}{order}")
        }
    };
    Line::styled(text, Style::default().add_modifier(Modifier::REVERSED))
}
