//! What is looked at, and what keys do to it.

use std::cell::Cell;
use std::cmp::Ordering;

use crate::telemetry::select::{Order, Selection, Words};
use crate::telemetry::view::{Overview, Tunnel, Tunnels};

/// What the agent said at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// At a glance.
    pub overview: Overview,
    /// The tunnels that were asked for: [`State::wanted`].
    pub tunnels: Tunnels,
    /// What they all have.
    pub filter: String,
}

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours; without, what they say is said by words and weight.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
}

/// A key, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first row.
    Home,
    /// To the last row.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// All tunnels.
    #[default]
    List,
    /// One of them.
    Detail,
    /// The keys.
    Help,
}

/// Rows that are asked for: more than anybody goes through; the filter and the order find the others.
const ROWS: usize = 500;
/// Rows that a page key moves by.
const PAGE: usize = 10;
/// Characters of a filter.
const FILTER_MAX: usize = 64;

/// Everything that the screen depends on.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) look: Look,
    pub(super) snapshot: Option<Snapshot>,
    /// What went wrong when the agent was asked last.
    pub(super) problem: Option<String>,
    pub(super) screen: Screen,
    pub(super) sort: Order,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// Whether keys go to the filter.
    pub(super) typing: bool,
    /// The tunnel that is chosen, by its id: it stays so wherever it is moved.
    selected: Option<String>,
    /// Rows that are scrolled out above. Where the text ends is known where it is drawn.
    pub(super) scroll: Cell<u16>,
}

impl State {
    /// Nothing known yet.
    #[must_use]
    pub fn new(look: Look) -> Self {
        Self {
            look,
            snapshot: None,
            problem: None,
            screen: Screen::List,
            sort: Order::default(),
            reverse: false,
            filter: String::new(),
            typing: false,
            selected: None,
            scroll: Cell::new(0),
        }
    }

    /// Takes in what the agent says, or why it does not. What was known stays on the screen.
    pub fn take(&mut self, answer: Result<Snapshot, String>) {
        match answer {
            Ok(snapshot) => {
                self.snapshot = Some(snapshot);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
        // One that is looked at may end: then that is said, until one goes back.
        if self.screen != Screen::Detail {
            self.choose();
        }
    }

    /// The tunnels to show, in their order.
    pub(super) fn rows(&self) -> Vec<&Tunnel> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        // The agent has done so, too: this is what was typed since.
        let wanted = Words::new(&self.filter);
        let mut rows: Vec<&Tunnel> = (snapshot.tunnels.tunnels.iter())
            .filter(|tunnel| wanted.are_in(tunnel))
            .collect();
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            if self.reverse { order.reverse() } else { order }
        });
        rows
    }

    fn compare(&self, a: &Tunnel, b: &Tunnel) -> Ordering {
        match self.sort {
            // As the agent has it.
            Order::Activity => Ordering::Equal,
            Order::Loss => loss(b).total_cmp(&loss(a)),
            Order::Client => client(a).cmp(&client(b)),
            Order::Operator => a.operator.cmp(&b.operator),
            Order::State => a.state.cmp(&b.state),
            Order::Since => a.since.cmp(&b.since),
        }
    }

    /// What to ask the agent for.
    #[must_use]
    pub fn wanted(&self) -> Selection {
        Selection {
            limit: ROWS,
            filter: self.filter.clone(),
            order: self.sort,
            reverse: self.reverse,
            also: self.selected.clone().unwrap_or_default(),
        }
    }

    /// Whether the agent has yet to say which tunnels have what is written in the filter.
    pub(super) fn is_filtering(&self) -> bool {
        (self.snapshot.as_ref()).is_some_and(|snapshot| {
            let tunnels = &snapshot.tunnels;
            snapshot.filter != self.filter && tunnels.total > tunnels.tunnels.len() as u64
        })
    }

    /// Which row is chosen.
    pub(super) fn place(&self, rows: &[&Tunnel]) -> Option<usize> {
        let id = self.selected.as_deref()?;
        rows.iter().position(|tunnel| tunnel.id == id)
    }

    /// The tunnel that is looked at, if it is still there.
    pub(super) fn chosen(&self) -> Option<&Tunnel> {
        let id = self.selected.as_deref()?;
        let tunnels = &self.snapshot.as_ref()?.tunnels.tunnels;
        tunnels.iter().find(|tunnel| tunnel.id == id)
    }

    fn go(&mut self, to: impl Fn(usize, usize) -> usize) {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let place = self.place(&rows).unwrap_or(0);
        let id = rows[to(place, last).min(last)].id.clone();
        self.selected = Some(id);
    }

    /// Does what a key asks for; whether to end.
    pub fn press(&mut self, key: Key) -> bool {
        if key == Key::Interrupt {
            return true;
        }
        if self.typing {
            self.write(key);
            return false;
        }
        match (self.screen, key) {
            (_, Key::Char('q')) => return true,
            (Screen::Help | Screen::Detail, key) if self.scrolled(key) => {}
            (Screen::Help, _) => self.show(Screen::List),
            (_, Key::Char('?')) => self.show(Screen::Help),
            (Screen::Detail, Key::Escape | Key::Enter | Key::Backspace) => {
                self.show(Screen::List);
            }
            (Screen::Detail, _) => {}
            (Screen::List, Key::Enter) if self.chosen().is_some() => self.show(Screen::Detail),
            (Screen::List, Key::Char('/')) => self.typing = true,
            (Screen::List, Key::Escape) => {
                self.filter.clear();
                self.choose();
            }
            (Screen::List, Key::Char('s')) => self.sort = self.sort.next(),
            (Screen::List, Key::Char('r')) => self.reverse = !self.reverse,
            (Screen::List, Key::Up | Key::Char('k')) => self.go(|at, _| at.saturating_sub(1)),
            (Screen::List, Key::Down | Key::Char('j')) => self.go(|at, _| at + 1),
            (Screen::List, Key::PageUp) => self.go(|at, _| at.saturating_sub(PAGE)),
            (Screen::List, Key::PageDown) => self.go(|at, _| at + PAGE),
            (Screen::List, Key::Home | Key::Char('g')) => self.go(|_, _| 0),
            (Screen::List, Key::End | Key::Char('G')) => self.go(|_, last| last),
            (Screen::List, _) => {}
        }
        false
    }

    fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.scroll.set(0);
    }

    /// Scrolls a text, if a key asks for that. Where that leads beyond its end, drawing goes back.
    fn scrolled(&self, key: Key) -> bool {
        let at = self.scroll.get();
        self.scroll.set(match key {
            Key::Up | Key::Char('k') => at.saturating_sub(1),
            Key::Down | Key::Char('j') => at.saturating_add(1),
            Key::PageUp => at.saturating_sub(PAGE as u16),
            Key::PageDown => at.saturating_add(PAGE as u16),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => u16::MAX,
            _ => return false,
        });
        true
    }

    fn write(&mut self, key: Key) {
        match key {
            Key::Char(character) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(character);
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
        self.choose();
    }

    /// Chooses the first row, if what was chosen is not among them.
    fn choose(&mut self) {
        let rows = self.rows();
        if self.place(&rows).is_none() {
            self.selected = rows.first().map(|tunnel| tunnel.id.clone());
        }
    }
}

/// Addresses in their order, and before what is none.
fn client(tunnel: &Tunnel) -> (bool, Option<std::net::IpAddr>, &str) {
    let address = tunnel.client.parse().ok();
    (address.is_none(), address, &tunnel.client)
}

/// The loss of the worse half-leg of the call that goes on, in per cent; -1 without a call.
fn loss(tunnel: &Tunnel) -> f64 {
    let Some(call) = tunnel.calls.first().filter(|call| call.ended.is_none()) else {
        return -1.0;
    };
    let of = |percent: Option<f64>| percent.unwrap_or(0.0);
    of(call.client_to_us.loss_percent).max(of(call.network_to_us.loss_percent))
}
