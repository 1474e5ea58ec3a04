//! The tunnels, one a row. A narrow terminal has fewer columns.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::draw::{Tone, loss_tone};
use super::state::{Look, State};
use super::words;
use crate::telemetry::view::{Call, State as TunnelState, Tunnel, Voice};

/// A column: the smaller `rank`, the narrower a terminal that has it.
struct Column {
    name: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&Tunnel, &Context) -> (String, Tone),
}

struct Context {
    now: u64,
    look: Look,
    /// Characters of the last column, and of clients.
    width: usize,
    clients: usize,
}

const COLUMNS: [Column; 10] = [
    column("CLIENT", 15, 0, |tunnel, context| {
        let client = words::elided(&tunnel.client, context.clients, context.look.unicode);
        (client, Tone::Plain)
    }),
    column("OPERATOR", 12, 3, |tunnel, _| {
        let name = words::or_unknown(&tunnel.operator);
        (name.to_owned(), Tone::Plain)
    }),
    column("CC", 2, 5, |tunnel, _| {
        let country = words::or_unknown(&tunnel.country);
        (country.to_owned(), Tone::Plain)
    }),
    column("STATE", 10, 0, state),
    column("FOR", 6, 2, |tunnel, context| {
        let seconds = context.now.saturating_sub(tunnel.since) / 1_000;
        (words::lasted(seconds), Tone::Plain)
    }),
    column("LOSS UP/DN", 10, 1, loss),
    column("JIT UP/DN", 9, 6, jitter),
    column("~MOS", 4, 4, |tunnel, _| {
        let mos = going(tunnel).and_then(|call| call.mos);
        let text = mos.map_or_else(|| words::UNKNOWN.to_owned(), |mos| format!("{mos:.1}"));
        (text, mos.map_or(Tone::Quiet, |_| Tone::Plain))
    }),
    column("RTT PH/NET", 10, 7, |tunnel, _| {
        let ms = |ms| words::millis(ms);
        let (phone, network) = (tunnel.round_trip_client_ms, tunnel.round_trip_network_ms);
        (format!("{}/{}", ms(phone), ms(network)), Tone::Plain)
    }),
    // Of what is no call there is the set-up to be told.
    column("LAST SECONDS, SET-UP", 20, 3, last),
];
/// The last column takes what is left.
const LAST: usize = COLUMNS.len() - 1;
/// Between columns, and for the mark of the row that is chosen.
const GAP: u16 = 1;
const MARK: &str = "> ";

const fn column(
    name: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&Tunnel, &Context) -> (String, Tone),
) -> Column {
    Column {
        name,
        width,
        rank,
        cell,
    }
}

/// The call that goes on.
pub(super) fn going(tunnel: &Tunnel) -> Option<&Call> {
    tunnel.calls.first().filter(|call| call.ended.is_none())
}

fn state(tunnel: &Tunnel, _: &Context) -> (String, Tone) {
    match (going(tunnel), tunnel.state) {
        (Some(call), _) => match call.state {
            Voice::Talking => ("call".to_owned(), Tone::Good),
            Voice::Silent => ("call quiet".to_owned(), Tone::Good),
            Voice::OneWayUp => ("1-WAY up".to_owned(), Tone::Bad),
            Voice::OneWayDown => ("1-WAY down".to_owned(), Tone::Bad),
        },
        (None, state) => {
            let tone = match state {
                TunnelState::Failed => Tone::Bad,
                TunnelState::SettingUp => Tone::Warn,
                TunnelState::Up | TunnelState::Call => Tone::Good,
                TunnelState::Idle | TunnelState::Gone => Tone::Quiet,
            };
            (words::state(state).to_owned(), tone)
        }
    }
}

fn loss(tunnel: &Tunnel, _: &Context) -> (String, Tone) {
    let Some(call) = going(tunnel) else {
        return (words::UNKNOWN.to_owned(), Tone::Quiet);
    };
    let [up, down] = [call.client_to_us, call.network_to_us].map(|leg| leg.loss_percent);
    let worse = up.unwrap_or(0.0).max(down.unwrap_or(0.0));
    let text = format!("{}/{}", words::percent(up), words::percent(down));
    (text, loss_tone(Some(worse)))
}

fn jitter(tunnel: &Tunnel, _: &Context) -> (String, Tone) {
    let Some(call) = going(tunnel) else {
        return (words::UNKNOWN.to_owned(), Tone::Quiet);
    };
    let [up, down] = [call.client_to_us, call.network_to_us].map(|leg| leg.jitter_ms);
    let text = format!("{}/{}", words::millis(up), words::millis(down));
    (text, Tone::Plain)
}

fn last(tunnel: &Tunnel, context: &Context) -> (String, Tone) {
    if let Some(call) = going(tunnel) {
        let line = words::sparkline(&call.history, context.width, context.look.unicode);
        return (line, Tone::Plain);
    }
    let result = tunnel.setup.as_ref().map(|setup| setup.result.as_deref());
    let tone = match result {
        Some(Some("ok")) => Tone::Plain,
        None => Tone::Quiet,
        Some(Some(_)) => Tone::Bad,
        Some(None) => Tone::Warn,
    };
    (words::setup(tunnel.setup.as_ref()), tone)
}

/// Which columns fit, from the most to the least important ones.
fn fitting(width: u16, clients: u16) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..COLUMNS.len()).collect();
    ranked.sort_by_key(|place| COLUMNS[*place].rank);
    // No gap behind the last one.
    let mut left = (width + GAP).saturating_sub(MARK.len() as u16);
    let mut fitting = Vec::new();
    for place in ranked {
        let column = &COLUMNS[place];
        let needed = if place == 0 { clients } else { column.width } + GAP;
        if needed <= left || fitting.is_empty() {
            left = left.saturating_sub(needed);
            fitting.push(place);
        }
    }
    fitting.sort_unstable();
    fitting
}

pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State) {
    let rows = state.rows();
    if rows.is_empty() && state.is_filtering() {
        frame.render_widget(Paragraph::new("\nAsking the agent..."), area);
        return;
    }
    if rows.is_empty() {
        let text = format!(
            "\nNo tunnel has \"{}\". Esc clears the filter.",
            state.filter
        );
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    // IPv6 addresses need more, and only where there are some.
    let longest = rows.iter().map(|tunnel| tunnel.client.len()).max();
    let longest = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
    let clients = longest.clamp(7, COLUMNS[0].width.max(area.width / 4).min(39));
    let places = fitting(area.width, clients);
    let fixed: u16 = places
        .iter()
        .filter(|place| **place != LAST)
        .map(|place| {
            GAP + if *place == 0 {
                clients
            } else {
                COLUMNS[*place].width
            }
        })
        .sum();
    let left = area.width.saturating_sub(fixed + MARK.len() as u16);
    let context = Context {
        now: state.snapshot.as_ref().map_or(0, |s| s.tunnels.now),
        look: state.look,
        width: left.into(),
        clients: clients.into(),
    };
    let widths = places.iter().map(|place| match *place {
        0 => Constraint::Length(clients),
        LAST => Constraint::Fill(1),
        place => Constraint::Length(COLUMNS[place].width),
    });
    let heads = places.iter().map(|place| COLUMNS[*place].name);
    let table_rows = rows.iter().map(|tunnel| {
        Row::new(places.iter().map(|place| {
            let (text, tone) = (COLUMNS[*place].cell)(tunnel, &context);
            Cell::from(Text::styled(text, state.look.style(tone)))
        }))
    });
    let table = Table::new(table_rows, widths)
        .header(Row::new(heads).style(Style::default().add_modifier(Modifier::BOLD)))
        .column_spacing(GAP)
        .highlight_symbol(MARK)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut place = TableState::default().with_selected(state.place(&rows).or(Some(0)));
    frame.render_stateful_widget(table, area, &mut place);
}
