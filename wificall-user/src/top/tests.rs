use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::*;

const PLAIN: Look = Look {
    colour: false,
    unicode: true,
};

fn screen(state: &State, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal
}

/// The screen as text, without what is blank at the ends of lines.
fn text(state: &State, width: u16, height: u16) -> String {
    let terminal = screen(state, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

fn known() -> State {
    let mut state = State::new(PLAIN);
    state.take(Ok(sample::snapshot()));
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        assert!(!state.press(match key {
            '\n' => Key::Enter,
            '\x1b' => Key::Escape,
            character => Key::Char(character),
        }));
    }
}

fn clients(state: &State) -> Vec<&str> {
    let rows = state.rows().into_iter();
    rows.map(|tunnel| tunnel.client.as_str()).collect()
}

#[test]
fn a_wide_terminal_shows_everything_at_once() {
    let shown = text(&known(), 132, 14);
    assert_eq!(shown, include_str!("list.txt").trim_end_matches('\n'));
}

#[test]
fn a_narrow_terminal_keeps_who_what_and_loss() {
    let shown = text(&known(), 40, 13);
    assert_eq!(shown, include_str!("narrow.txt").trim_end_matches('\n'));
    // Whatever its size, it is drawn.
    for (width, height) in [(1, 1), (2, 40), (200, 2), (20, 5)] {
        let mut state = known();
        for keys in ["", "\n", "\x1b?"] {
            press(&mut state, keys);
            text(&state, width, height);
        }
    }
}

#[test]
fn a_tunnel_is_shown_with_all_that_is_known_of_it() {
    let mut state = known();
    press(&mut state, "\n");
    let shown = text(&state, 100, 37);
    assert_eq!(shown, include_str!("detail.txt").trim_end_matches('\n'));
    let mut over = sample::snapshot();
    over.tunnels.tunnels.remove(0);
    state.take(Ok(over));
    assert!(text(&state, 80, 10).contains("This tunnel is over"));
}

#[test]
fn the_help_has_every_key() {
    let mut state = known();
    press(&mut state, "?");
    let shown = text(&state, 100, 28);
    for key in ["Enter", "PgUp", "/ ", "s, r", "q "] {
        assert!(shown.contains(key), "{key}:\n{shown}");
    }
    press(&mut state, "x");
    assert!(text(&state, 100, 28).contains("CLIENT"));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let mut state = State::new(PLAIN);
    assert!(text(&state, 80, 10).contains("Asking the agent"));
    let mut empty = sample::snapshot();
    empty.tunnels.tunnels.clear();
    state.take(Ok(empty.clone()));
    assert!(text(&state, 100, 20).contains("Airplane mode on"));
    empty.overview.enabled = false;
    state.take(Ok(empty));
    assert!(text(&state, 100, 20).contains("telemetry.enabled = false"));
    let mut state = known();
    state.take(Err("no agent listens at /run/x\n  hint: …".to_owned()));
    let shown = text(&state, 100, 20);
    assert!(shown.starts_with("! no agent listens at /run/x; what is below is older"));
    assert!(shown.contains("192.0.2.23"), "{shown}");
}

#[test]
fn a_filter_takes_words_of_any_column() {
    let mut state = known();
    press(&mut state, "/telekom ");
    assert_eq!(clients(&state), ["192.0.2.23", "192.0.2.77"]);
    press(&mut state, "setting");
    assert_eq!(clients(&state), ["192.0.2.77"]);
    // A key of its own while it is written, and the row that is left is chosen.
    press(&mut state, "\nq".split_at(1).0);
    assert_eq!(state.chosen().unwrap().client, "192.0.2.77");
    press(&mut state, "/");
    for _ in 0.."telekom setting".len() {
        state.press(Key::Backspace);
    }
    press(&mut state, "nobody\n");
    assert!(text(&state, 80, 10).contains("No tunnel has \"nobody\""));
    press(&mut state, "\x1b");
    assert_eq!(clients(&state).len(), 5);
}

#[test]
fn rows_are_sorted_and_the_chosen_one_stays_chosen() {
    let mut state = known();
    state.press(Key::Down);
    assert_eq!(state.chosen().unwrap().client, "192.0.2.5");
    // Loss: the worst first.
    press(&mut state, "s");
    assert_eq!(clients(&state)[..2], ["192.0.2.23", "192.0.2.5"]);
    // Addresses in their order, not that of their letters.
    press(&mut state, "s");
    let ordered = [
        "192.0.2.5",
        "192.0.2.23",
        "192.0.2.77",
        "192.0.2.80",
        "2001:db8:4::1c5f:23",
    ];
    assert_eq!(clients(&state), ordered);
    assert_eq!(state.chosen().unwrap().client, "192.0.2.5");
    press(&mut state, "r");
    assert_eq!(clients(&state)[0], "2001:db8:4::1c5f:23");
    press(&mut state, "g");
    assert_eq!(state.chosen().unwrap().client, "2001:db8:4::1c5f:23");
    press(&mut state, "G");
    assert_eq!(state.chosen().unwrap().client, "192.0.2.5");
}

#[test]
fn colours_only_where_they_are_wanted_and_never_alone() {
    let coloured = |colour| {
        let mut state = State::new(Look {
            colour,
            unicode: true,
        });
        state.take(Ok(sample::snapshot()));
        let terminal = screen(&state, 132, 12);
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert!(coloured(true) > 20);
    assert_eq!(coloured(false), 0);
    let terminal = screen(&known(), 132, 12);
    let buffer = terminal.backend().buffer();
    // The row that is chosen has a mark, and is reversed.
    let row = (0..12).find(|y| buffer[(0, *y)].symbol() == ">").unwrap();
    assert!(buffer[(3, row)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_terminal_without_unicode_gets_ascii() {
    let mut state = State::new(Look {
        colour: false,
        unicode: false,
    });
    state.take(Ok(sample::snapshot()));
    assert!(text(&state, 132, 12).is_ascii());
    press(&mut state, "\n");
    assert!(text(&state, 132, 30).is_ascii());
}

#[test]
fn q_and_interrupt_end_it_from_everywhere() {
    for keys in ["", "\n", "?"] {
        let mut state = known();
        press(&mut state, keys);
        assert!(state.press(Key::Char('q')), "{keys:?}");
    }
    let mut state = known();
    press(&mut state, "/q");
    assert!(state.press(Key::Interrupt));
}
