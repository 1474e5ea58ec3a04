//! What the page has to show of what the API says, worked out anew.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use wificall::telemetry::view::{
    Call, HalfLeg, Minute, Operator, Overview, Received, Setup, Side, State, Trouble, Tunnel,
    Tunnels, Voice,
};

/// Keeps what the page is answered, so that what it shows is compared with that and not with what is so a moment later.
pub const LISTEN: &str = r##"(() => {
  const ask = window.fetch;
  window.heard = {};
  window.fetch = async (path, options) => {
    const answer = await ask(path, options);
    window.heard[path] = await answer.clone().json();
    return answer;
  };
})()"##;

/// What stands on the page, and what it was answered.
pub const SHOWN: &str = r##"(() => {
  const text = (node) => node.textContent;
  const facts = (id) => Object.fromEntries([...document.querySelectorAll(`#${id} > div`)]
    .map((row) => [text(row.firstChild), text(row.lastChild)]));
  const rows = (id) => {
    const heads = [...document.querySelectorAll(`#${id} thead th`)].map(text);
    return [...document.querySelectorAll(`#${id} tbody tr:not(.more)`)].map((row) => Object.fromEntries(
      [...row.children].map((cell, i) => [heads[i], cell.querySelector("svg")?.getAttribute("aria-label") || text(cell)])));
  };
  const more = [...document.querySelectorAll("#tunnels tr.more")].map((row) => row.hidden ? {} : Object.fromEntries(
    [...row.querySelectorAll("dl > div")].map((one) => [text(one.firstChild), text(one.lastChild)])));
  return {
    sides: Object.fromEntries(["client", "network", "carrier"].map((side) => {
      const box = document.getElementById(`side-${side}`).parentNode;
      return [side, [text(box.querySelectorAll("p")[1]), ...[...box.querySelectorAll("li")].map(text)]];
    })),
    now: facts("now"), health: facts("health"), problems: [...document.querySelectorAll("#problems li")].map(text),
    legs: Object.fromEntries(["client_to_us", "network_to_us"].map((leg) => [leg, text(document.getElementById(`leg-${leg}`))])),
    calls: rows("calls"), tunnels: rows("tunnels"), more, operators: rows("operators"),
    overview: window.heard["/api/v1/overview"], list: window.heard["/api/v1/tunnels?limit=200"],
  };
})()"##;

type Facts = BTreeMap<String, String>;

/// What the page shows, and what it was answered.
#[derive(Debug, Deserialize)]
pub struct Shown {
    sides: BTreeMap<String, Vec<String>>,
    now: Facts,
    health: Facts,
    problems: Vec<String>,
    legs: Facts,
    calls: Vec<Facts>,
    tunnels: Vec<Facts>,
    more: Vec<Facts>,
    operators: Vec<Facts>,
    /// What there is at a glance, as the API said.
    pub overview: Overview,
    /// The tunnels, likewise.
    pub list: Tunnels,
}

impl Shown {
    /// Compares them.
    ///
    /// # Errors
    ///
    /// Says what is not equal.
    pub fn is_as_the_api_says(&self) -> Result<()> {
        let overview = &self.overview;
        equal("now", &self.now, &now(overview))?;
        equal("health", &self.health, &health(overview))?;
        ensure!(
            self.problems == overview.health.problems,
            "{:?}",
            self.problems
        );
        let sides = &overview.sides;
        let all = [
            ("client", &sides.client),
            ("network", &sides.network),
            ("carrier", &sides.carrier),
        ];
        for (name, api) in all {
            let page = self.sides.get(name).context("a side")?;
            ensure!(
                *page == side(api),
                "{name}: the page has {page:?}, the API {api:?}"
            );
        }
        let legs = [
            (
                "client_to_us",
                leg_in(&overview.minutes, |minute| minute.client_to_us),
            ),
            (
                "network_to_us",
                leg_in(&overview.minutes, |minute| minute.network_to_us),
            ),
        ];
        equal("legs", &self.legs, &legs.map(|(name, text)| (name, text)))?;
        let going: Vec<_> = (self.list.tunnels.iter())
            .filter_map(|tunnel| {
                Some((
                    tunnel,
                    tunnel.calls.first().filter(|call| call.ended.is_none())?,
                ))
            })
            .collect();
        ensure!(
            going.len() == self.calls.len(),
            "{} calls, not {}",
            self.calls.len(),
            going.len()
        );
        for (page, (tunnel, call)) in self.calls.iter().zip(going) {
            equal("a call", page, &call_row(tunnel, call))?;
        }
        ensure!(
            self.list.tunnels.len() == self.tunnels.len(),
            "{} tunnels",
            self.tunnels.len()
        );
        for ((page, more), tunnel) in self.tunnels.iter().zip(&self.more).zip(&self.list.tunnels) {
            equal("a tunnel", page, &tunnel_row(tunnel, overview.now))?;
            for (name, api) in tunnel_facts(tunnel) {
                let page = more.get(name).map_or("nothing", String::as_str);
                ensure!(
                    page == api,
                    "{name}: the page has {page:?}, the API {api:?}"
                );
            }
        }
        ensure!(
            overview.operators.len() == self.operators.len(),
            "{} operators",
            self.operators.len()
        );
        for (page, operator) in self.operators.iter().zip(&overview.operators) {
            equal("an operator", page, &operator_row(operator))?;
        }
        Ok(())
    }
}

fn equal<N: AsRef<str>>(what: &str, page: &Facts, api: &[(N, String)]) -> Result<()> {
    let named = |(name, text): &(N, String)| (name.as_ref().to_owned(), text.clone());
    let api: Facts = api.iter().map(named).collect();
    ensure!(
        *page == api,
        "{what}: the page has {page:#?}, the API {api:#?}"
    );
    Ok(())
}

/// A number with commas.
fn count(value: u64) -> String {
    let digits = value.to_string();
    let places = digits.len();
    let grouped = digits.chars().enumerate().map(|(place, digit)| {
        let comma = place > 0 && (places - place).is_multiple_of(3);
        format!("{}{digit}", if comma { "," } else { "" })
    });
    grouped.collect()
}

/// A half is rounded up, as browsers do.
fn rounded(value: f64, digits: usize) -> String {
    format!("{:.digits$}", value + 1e-9)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "–" } else { text }.to_owned()
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(
        || "–".to_owned(),
        |ms| format!("{} ms", rounded(ms, usize::from(ms < 10.0))),
    )
}

fn percent(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "–".to_owned();
    };
    let digits = match value {
        0.0 => 0,
        _ if value < 0.1 => 2,
        _ if value < 10.0 => 1,
        _ => 0,
    };
    format!("{} %", rounded(value, digits))
}

fn lasted(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}\u{a0}s"),
        60..3_600 => format!("{} min {}\u{a0}s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

fn now(overview: &Overview) -> Vec<(&'static str, String)> {
    let by = |state: State| overview.tunnels.get(&state).copied().unwrap_or(0);
    vec![
        ("Calls", count(overview.calls_active)),
        ("One-way calls", count(overview.calls_one_way)),
        ("Calls so far", count(overview.calls_total)),
        ("Tunnels up", count(by(State::Up) + by(State::Call))),
        ("Idle", count(by(State::Idle))),
        ("Setting up", count(by(State::SettingUp))),
        ("Set-up failed", count(by(State::Failed))),
    ]
}

fn health(overview: &Overview) -> Vec<(&'static str, String)> {
    let health = &overview.health;
    let dns = health.dns.iter().filter(|(_, number)| **number > 0);
    let dns: Vec<_> = dns
        .map(|(what, number)| format!("{} {what}", count(*number)))
        .collect();
    let none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    let timeout = health.nat_timeout_seconds.map(|seconds| {
        let rarer = match health.nat_timeout_shorter {
            0 => "no".to_owned(),
            number => count(number),
        };
        format!(
            "{}; {rarer} tunnels keep alive more rarely",
            lasted(seconds)
        )
    });
    vec![
        ("Names looked up", none(dns.join(", "))),
        (
            "Flows",
            format!("{} of {}", count(health.flows), count(health.flows_limit)),
        ),
        ("Events lost", count(health.events_dropped)),
        ("Hooks", none(health.hooks.join(", "))),
        ("Not attached", count(health.hooks_missing)),
        (
            "NAT timeout",
            timeout.unwrap_or_else(|| "no connection tracking here".to_owned()),
        ),
    ]
}

/// The verdict, and what speaks for it.
fn side(side: &Side) -> Vec<String> {
    let verdict = match side.trouble {
        Trouble::Bad => "‼ trouble",
        Trouble::Some => "! some trouble",
        Trouble::None => "✓ nothing wrong seen",
        Trouble::Unknown => "nothing seen to judge by",
    };
    let why = side.why.iter().cloned();
    [verdict.to_owned()].into_iter().chain(why).collect()
}

/// The headline of a half-leg: all of the last minutes.
fn leg_in(minutes: &[Minute], of: fn(&Minute) -> Received) -> String {
    let (received, lost) = (minutes.iter().map(of)).fold((0, 0), |(received, lost), one| {
        (received + one.received, lost + one.lost)
    });
    let span = match minutes.len() {
        0 | 1 => "the last minute".to_owned(),
        many => format!("{many} minutes"),
    };
    let sent = received + lost;
    match sent {
        0 => format!("no call in {span}"),
        _ => {
            let share = percent(Some(lost as f64 * 100.0 / sent as f64));
            format!(
                "{share} lost in {span} ({} of {})",
                count(lost),
                count(sent)
            )
        }
    }
}

fn leg(leg: &HalfLeg) -> String {
    if leg.loss_percent.is_none() {
        return "nothing was sent".to_owned();
    }
    let jitter = leg
        .jitter_ms
        .map_or_else(String::new, |_| format!(", jitter {}", ms(leg.jitter_ms)));
    format!(
        "{} lost ({}){jitter}",
        percent(leg.loss_percent),
        count(leg.lost)
    )
}

fn call_row(tunnel: &Tunnel, call: &Call) -> Vec<(&'static str, String)> {
    let heard = match call.state {
        Voice::Talking => "talking",
        Voice::Silent => "silent",
        Voice::OneWayUp => "one-way: only the phone is heard",
        Voice::OneWayDown => "one-way: only the network is heard",
    };
    let mos = match (call.mos, &call.mos_missing) {
        (Some(mos), _) => format!("≈ {}", rounded(mos, 1)),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "–".to_owned(),
    };
    let lost = call
        .history
        .iter()
        .map(|second| u64::from(second.up_lost + second.down_lost));
    let last = format!(
        "last {} seconds: {} packets lost",
        call.history.len(),
        count(lost.sum())
    );
    vec![
        ("Phone", tunnel.client.clone()),
        ("Operator", or_dash(&tunnel.operator)),
        ("Heard", heard.to_owned()),
        ("For", lasted(call.seconds)),
        ("Phone → here", leg(&call.client_to_us)),
        ("Network → here", leg(&call.network_to_us)),
        ("MOS, estimated", mos),
        ("Last seconds", last),
    ]
}

fn setup(setup: Option<&Setup>) -> String {
    let Some(setup) = setup else {
        return "older than this agent's sight".to_owned();
    };
    match setup.result.as_deref() {
        Some("ok") => format!("ok in {}", ms(setup.took_ms)),
        other => format!("{other:?} is not expected here"),
    }
}

fn tunnel_row(tunnel: &Tunnel, now: u64) -> Vec<(&'static str, String)> {
    let state = match tunnel.state {
        State::SettingUp => "setting up",
        State::Failed => "set-up failed",
        State::Up => "up",
        State::Call => "in a call",
        State::Idle => "idle",
        State::Gone => "gone",
    };
    // To the nearest second.
    let seconds = (now.saturating_sub(tunnel.since) + 500) / 1_000;
    vec![
        ("Phone", tunnel.client.clone()),
        ("Operator", or_dash(&tunnel.operator)),
        ("Country", or_dash(&tunnel.country)),
        ("State", state.to_owned()),
        ("State for", lasted(seconds)),
        ("Set-up", setup(tunnel.setup.as_ref())),
        ("Round trip, phone", ms(tunnel.round_trip_client_ms)),
        ("Round trip, ePDG", ms(tunnel.round_trip_network_ms)),
    ]
}

fn tunnel_facts(tunnel: &Tunnel) -> Vec<(&'static str, String)> {
    let exit = tunnel.exit.as_ref().map(ToString::to_string);
    let moved = match tunnel.roamed {
        1 => "once".to_owned(),
        times => format!("{} times", count(times)),
    };
    let both = |up, down| format!("{} from the phone, {} to it", count(up), count(down));
    vec![
        ("ePDG", tunnel.endpoint.clone()),
        ("Owners", tunnel.owners.join(", ")),
        ("Packets", both(tunnel.packets_up, tunnel.packets_down)),
        ("Bytes", both(tunnel.bytes_up, tunnel.bytes_down)),
        (
            "Exit taken",
            exit.unwrap_or_else(|| "not known yet".to_owned()),
        ),
        ("Moved", moved),
    ]
}

fn operator_row(operator: &Operator) -> Vec<(&'static str, String)> {
    let failed: u64 = operator.setups_failed.values().sum();
    vec![
        ("Operator", or_dash(&operator.name)),
        ("Network", or_dash(&operator.plmn)),
        ("Country", or_dash(&operator.country)),
        ("Tunnels", count(operator.tunnels)),
        ("Calls", count(operator.calls)),
        ("Set-ups ok", count(operator.setups_ok)),
        ("Set-ups failed", count(failed)),
        (
            "Clients in the last hour",
            format!(
                "{} ok, {} failed",
                count(operator.clients_ok),
                count(operator.clients_failed)
            ),
        ),
    ]
}
