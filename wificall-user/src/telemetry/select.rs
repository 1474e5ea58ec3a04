//! Which of very many tunnels are shown: chosen before a view is made of any.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    show::{Show, address, country, plmns, received},
    totals::Whose,
    tracker::{Id, Tracker},
    tunnel::Tunnel,
    view::{self, State},
};

/// Which tunnels are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The first ones of those that have something.
    First(Selection),
    /// That of this [`id`](view::Tunnel::id).
    One(String),
    /// Those of these numbers, in this order, as far as they are still there.
    These(Vec<Id>),
}

/// Which tunnels, how many, and which first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// At most so many.
    pub limit: usize,
    /// Words that are all in client, ePDG, operator, PLMN, country or state, in capitals or not; empty: all tunnels.
    pub filter: String,
    /// Which come first.
    pub order: Order,
    /// The other way round.
    pub reverse: bool,
    /// The [`id`](view::Tunnel::id) of one that is told too, behind the others, wherever it stands; empty: none.
    pub also: String,
}

impl Selection {
    /// Whether it is about the same tunnels in the same order, whichever else is told.
    #[must_use]
    pub fn is_about(&self, other: &Self) -> bool {
        let rest = |one: &Self| (one.limit, one.order, one.reverse);
        rest(self) == rest(other) && self.filter == other.filter
    }
}

/// What tunnels are ordered by. Where that is the same, by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Calls first, then what changed last.
    #[default]
    Activity,
    /// By loss of the call that goes on, most first.
    Loss,
    /// By the phone's address.
    Client,
    /// By operator.
    Operator,
    /// By state.
    State,
    /// By how long it has been so, longest first.
    Since,
}

impl Order {
    const ALL: [Self; 6] = [
        Self::Activity,
        Self::Loss,
        Self::Client,
        Self::Operator,
        Self::State,
        Self::Since,
    ];

    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Loss => "loss",
            Self::Client => "client",
            Self::Operator => "operator",
            Self::State => "state",
            Self::Since => "time",
        }
    }

    /// The one behind it, around.
    #[must_use]
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self);
        Self::ALL[(place.unwrap_or(0) + 1) % Self::ALL.len()]
    }
}

/// A filter as it is looked for.
#[derive(Clone, Debug, Default)]
pub struct Words(Vec<String>);

impl Words {
    /// Those of a filter.
    #[must_use]
    pub fn new(filter: &str) -> Self {
        let words = filter.split_whitespace().map(str::to_lowercase);
        Self(words.collect())
    }

    /// Whether a tunnel has them all.
    #[must_use]
    pub fn are_in(&self, tunnel: &view::Tunnel) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let owners = tunnel.owners.iter().map(String::as_str);
        let owner = owner_text(&tunnel.operator, &tunnel.country, owners);
        self.are_found(
            || ends_text(&tunnel.client, &tunnel.endpoint),
            &owner,
            tunnel.state,
        )
    }

    /// `ends` is asked only for what stands nowhere else.
    fn are_found(&self, ends: impl Fn() -> String, owner: &str, state: State) -> bool {
        let state = state_text(state);
        let mut left = (self.0.iter())
            .filter(|word| !state.contains(word.as_str()) && !owner.contains(word.as_str()))
            .peekable();
        if left.peek().is_none() {
            return true;
        }
        let ends = ends();
        left.all(|word| ends.contains(word.as_str()))
    }
}

fn ends_text(client: &str, endpoint: &str) -> String {
    format!("{client} {endpoint}").to_lowercase()
}

fn owner_text<'a>(name: &str, country: &str, plmns: impl Iterator<Item = &'a str>) -> String {
    let mut text = format!("{name} {country}");
    for plmn in plmns {
        text.push(' ');
        text.push_str(plmn);
    }
    text.to_lowercase()
}

/// What the page, which says more, and the terminal call it.
const fn state_text(state: State) -> &'static str {
    match state {
        State::SettingUp => "setting up",
        State::Failed => "set-up failed",
        State::Up => "up",
        State::Call => "in a call",
        State::Idle => "idle",
        State::Gone => "gone",
    }
}

/// An owner of tunnels, with what is wanted of it many times.
struct Owner {
    name: String,
    text: String,
}

/// A tunnel that may be shown.
struct Candidate<'t> {
    id: Id,
    tunnel: &'t Tunnel,
    /// Its place among the owners.
    owner: usize,
}

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// How many tunnels have what was asked for.
    pub found: usize,
    /// Of these, those to be shown.
    pub tunnels: Vec<view::Tunnel>,
}

impl Show<'_> {
    /// The tunnels that are asked for.
    #[must_use]
    pub fn wanted(&self, tracker: &Tracker, wanted: &Wanted) -> Found {
        let one = |id: Id| Some(self.tunnel(tracker, id, tracker.tunnel(id)?));
        match wanted {
            Wanted::First(selection) => self.select(tracker, selection),
            Wanted::One(name) => {
                let tunnels: Vec<_> = self.number(name).and_then(one).into_iter().collect();
                let found = tunnels.len();
                Found { found, tunnels }
            }
            Wanted::These(ids) => Found {
                found: ids.len(),
                tunnels: ids.iter().copied().filter_map(one).collect(),
            },
        }
    }

    /// The numbers of all tunnels, by activity.
    #[must_use]
    pub fn ids(&self, tracker: &Tracker) -> Vec<Id> {
        let mut all: Vec<_> = tracker.tunnels().collect();
        all.sort_unstable_by_key(|(id, tunnel)| activity(*id, tunnel));
        all.into_iter().map(|(id, _)| id).collect()
    }

    fn select(&self, tracker: &Tracker, selection: &Selection) -> Found {
        let words = Words::new(&selection.filter);
        let mut owners = Owners::default();
        let mut all = Vec::new();
        for (id, tunnel) in tracker.tunnels() {
            let owner = owners.place(self, &tunnel.whose);
            let ends = || {
                ends_text(
                    &self.client(tunnel.client),
                    &address(tunnel.endpoint).to_string(),
                )
            };
            if words.are_found(ends, &owners.all[owner].text, tunnel.state) {
                all.push(Candidate { id, tunnel, owner });
            }
        }
        let found = all.len();
        let compare = |a: &Candidate, b: &Candidate| self.compare(selection, &owners, a, b);
        if found > selection.limit {
            // Only those that are shown are put in order.
            all.select_nth_unstable_by(selection.limit, compare);
            all.truncate(selection.limit);
        }
        all.sort_unstable_by(compare);
        let mut tunnels: Vec<_> = (all.iter())
            .map(|one| self.tunnel(tracker, one.id, one.tunnel))
            .collect();
        let also = self.number(&selection.also);
        if let Some(id) = also
            && let Some(tunnel) = tracker.tunnel(id)
            && all.iter().all(|one| one.id != id)
        {
            tunnels.push(self.tunnel(tracker, id, tunnel));
        }
        Found { found, tunnels }
    }

    fn compare(
        &self,
        selection: &Selection,
        owners: &Owners,
        a: &Candidate,
        b: &Candidate,
    ) -> Ordering {
        let name = |one: &Candidate| owners.all[one.owner].name.as_str();
        let order = match selection.order {
            Order::Activity => Ordering::Equal,
            Order::Loss => loss(b.tunnel).total_cmp(&loss(a.tunnel)),
            // The order of hidden addresses would tell of them.
            Order::Client if !self.clients => Ordering::Equal,
            Order::Client => address(a.tunnel.client).cmp(&address(b.tunnel.client)),
            Order::Operator => name(a).cmp(name(b)),
            Order::State => a.tunnel.state.cmp(&b.tunnel.state),
            Order::Since => a.tunnel.since.cmp(&b.tunnel.since),
        };
        let order = order.then_with(|| activity(a.id, a.tunnel).cmp(&activity(b.id, b.tunnel)));
        if selection.reverse {
            order.reverse()
        } else {
            order
        }
    }
}

/// Owners, told apart by where they are: tunnels are many, and share them.
#[derive(Default)]
struct Owners {
    places: HashMap<*const Whose, usize>,
    all: Vec<Owner>,
}

impl Owners {
    fn place(&mut self, show: &Show, whose: &Arc<Whose>) -> usize {
        *self.places.entry(Arc::as_ptr(whose)).or_insert_with(|| {
            let name = show.operator(whose);
            let text = owner_text(&name, &country(whose), plmns(whose));
            self.all.push(Owner { name, text });
            self.all.len() - 1
        })
    }
}

/// Calls first, then what changed last.
fn activity(id: Id, tunnel: &Tunnel) -> (bool, Reverse<u64>, Id) {
    (tunnel.state != State::Call, Reverse(tunnel.since), id)
}

/// The loss of the worse half-leg of the call that goes on, in per cent; -1 without a call.
fn loss(tunnel: &Tunnel) -> f64 {
    let Some(call) = &tunnel.detector.call else {
        return -1.0;
    };
    let of = |leg| received(leg).loss_percent.unwrap_or(0.0);
    of(&call.legs[0]).max(of(&call.legs[1]))
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
