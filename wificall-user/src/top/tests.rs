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

/// All rows of a text that is scrolled through by a key, on terminals on which it does not fit.
fn scrolled_through(open: &str, key: Key, width: u16, height: u16) -> String {
    let mut state = known();
    press(&mut state, open);
    let mut all = String::new();
    let mut last = String::new();
    loop {
        let shown = text(&state, width, height);
        if shown == last {
            return all;
        }
        all += &shown;
        last = shown;
        state.press(key);
    }
}

#[test]
fn what_does_not_fit_is_scrolled_to_its_end_and_no_further() {
    for (width, height) in [(80, 24), (40, 12)] {
        for (open, first, end) in [
            ("?", "Keys", "be seen here."),
            ("\n", "192.0.2.23 to", "twice, jitter 3.0 ms"),
        ] {
            let case = format!("{open:?} {width}x{height}");
            let mut state = known();
            press(&mut state, open);
            let top = text(&state, width, height);
            // Where the words before an end are depends on the width.
            let end = end.split(' ').next_back().unwrap();
            assert!(top.contains(first), "{case}:\n{top}");
            for key in [Key::Down, Key::PageDown, Key::Char('j')] {
                let all = scrolled_through(open, key, width, height);
                assert!(all.contains(end), "{case} {key:?}:\n{all}");
            }
            for (to_end, to_start) in [(Key::End, Key::Home), (Key::Char('G'), Key::Char('g'))] {
                state.press(to_end);
                let bottom = text(&state, width, height);
                assert!(bottom.contains(end), "{case}:\n{bottom}");
                assert!(!bottom.contains(first), "{case}:\n{bottom}");
                // The end is at the bottom; nothing is scrolled to nowhere, and so one step back is one.
                let rows: Vec<&str> = bottom.lines().collect();
                assert_ne!(rows[usize::from(height) - 2], "", "{case}:\n{bottom}");
                for _ in 0..50 {
                    state.press(Key::Down);
                }
                assert_eq!(text(&state, width, height), bottom, "{case}");
                state.press(Key::Up);
                assert_ne!(text(&state, width, height), bottom, "{case}");
                state.press(to_start);
                assert_eq!(text(&state, width, height), top, "{case}");
            }
            // It is still the same screen.
            state.press(Key::PageUp);
            assert!(text(&state, width, height).contains(first), "{case}");
        }
    }
    // What opens next begins at its beginning.
    let mut state = known();
    press(&mut state, "\n");
    state.press(Key::End);
    text(&state, 40, 12);
    press(&mut state, "?");
    assert!(text(&state, 40, 12).contains("Keys"));
}

#[test]
fn an_address_that_does_not_fit_is_seen_not_to() {
    let address = "2001:db8:4::1c5f:23";
    assert_eq!(words::elided(address, 19, true), address);
    assert_eq!(words::elided(address, 15, true), "2001:db…1c5f:23");
    assert_eq!(words::elided(address, 15, false), "2001:db~1c5f:23");
    assert_eq!(words::elided(address, 1, true), "…");
    assert_eq!(words::elided(address, 0, true), "");
    let mut state = State::new(Look {
        unicode: false,
        ..PLAIN
    });
    state.take(Ok(sample::snapshot()));
    let shown = text(&state, 40, 13);
    assert!(
        shown.is_ascii() && shown.contains("2001:db~1c5f:23 "),
        "{shown}"
    );
}

#[test]
fn of_very_many_tunnels_some_are_shown_and_the_agent_looks_for_the_others() {
    let mut state = known();
    let mut many = sample::snapshot();
    (many.tunnels.total, many.tunnels.found) = (100_000, 100_000);
    state.take(Ok(many.clone()));
    assert!(text(&state, 100, 20).contains("5 of 100000 shown"));
    press(&mut state, "/nobody");
    let asked = state.wanted();
    assert_eq!((asked.filter.as_str(), asked.limit), ("nobody", 500));
    // Not before the agent has looked among all of them is there none.
    assert!(text(&state, 100, 20).contains("Asking the agent"));
    many.tunnels.tunnels.clear();
    many.tunnels.found = 0;
    many.filter = "nobody".into();
    state.take(Ok(many));
    assert!(text(&state, 100, 20).contains("No tunnel has \"nobody\""));
    // The one that is looked at is told of wherever it stands, and where it stands changes nothing else.
    let mut state = known();
    state.press(Key::Down);
    let before = state.wanted();
    assert_eq!(before.also, state.chosen().unwrap().id);
    press(&mut state, "g");
    assert!(state.wanted() != before && state.wanted().is_about(&before));
    press(&mut state, "sr");
    assert!(state.wanted().reverse && !state.wanted().is_about(&before));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let mut state = State::new(PLAIN);
    assert!(text(&state, 80, 10).contains("Asking the agent"));
    let mut empty = sample::snapshot();
    empty.tunnels.tunnels.clear();
    (empty.tunnels.total, empty.tunnels.found) = (0, 0);
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

#[test]
fn a_row_that_comes_back_with_the_filter_gone_is_chosen() {
    let mut state = known();
    press(&mut state, "/nobody\n");
    assert_eq!(state.rows().len(), 0);
    press(&mut state, "\x1b\n");
    assert_eq!(state.screen, Screen::Detail, "Enter opens what is marked");
}
