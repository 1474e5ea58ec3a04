//! `wificall top`

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Failure, Outcome, socket_of};
use crate::cli::Top;
use crate::control::socket::{Answer, Question, ask};
use crate::telemetry::select::{Selection, Wanted};
use crate::top::{Key, Look, Snapshot, State, draw};

const EVERY: Duration = Duration::from_secs(1);
/// An agent with very many tunnels takes long to answer, and does nothing else meanwhile: it is asked so many times more
/// rarely, but this often.
const PART: u32 = 10;
const EVERY_MOST: Duration = Duration::from_secs(10);

pub(super) async fn run(arguments: &Top) -> Result<Outcome, Failure> {
    let socket = socket_of(arguments.instance.as_ref(), &arguments.config)?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(anyhow!(
            "show tunnels live: this is no terminal\n  hint: `wificall tunnels --json` prints them once"
        )
        .into());
    }
    // Whether there is an agent at all is said in words, on a screen of its own it would be gone at once.
    let mut state = State::new(look());
    let first = snapshot(&socket, state.wanted()).await?;
    state.take(Ok(first));
    let mut terminal = ratatui::try_init().context("take the terminal")?;
    let result = show(&mut terminal, &socket, state).await;
    ratatui::restore();
    result?;
    Ok(Outcome::Done)
}

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    socket: &Path,
    mut state: State,
) -> anyhow::Result<()> {
    let (sender, mut pressed) = mpsc::channel(64);
    // A read that waits cannot be called off: the thread ends with the process.
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(event).is_err() {
                    break;
                }
            }
        })
        .context("read the keyboard")?;
    let mut next = Instant::now() + EVERY;
    let mut asked = None;
    let mut wanted = state.wanted();
    loop {
        terminal
            .draw(|frame| draw(frame, &state))
            .context("draw on the terminal")?;
        tokio::select! {
            event = pressed.recv() => match event {
                Some(event) => if key(&event).is_some_and(|key| state.press(key)) {
                    return Ok(());
                },
                // The terminal is gone.
                None => return Ok(()),
            },
            // Keys are taken while the agent thinks.
            (answer, took) = answered(&mut asked) => {
                asked = None;
                // What was asked for before would take rows away that are wanted now.
                if state.wanted().is_about(&wanted) {
                    state.take(answer);
                }
                next = Instant::now() + (took * PART).clamp(EVERY, EVERY_MOST);
            }
            () = sleep_until(next), if asked.is_none() => {
                wanted = state.wanted();
                let (socket, wanted) = (socket.to_owned(), wanted.clone());
                asked = Some(tokio::spawn(async move {
                    let start = Instant::now();
                    (snapshot(&socket, wanted).await, start.elapsed())
                }));
            }
        }
        // What was asked for otherwise is not waited for.
        if !state.wanted().is_about(&wanted) {
            next = Instant::now();
        }
    }
}

/// What the agent will say, and how long it took.
type Asked = tokio::task::JoinHandle<(anyhow::Result<Snapshot>, Duration)>;

/// What the agent says, once it does.
async fn answered(asked: &mut Option<Asked>) -> (Result<Snapshot, String>, Duration) {
    match asked {
        Some(asked) => match asked.await {
            Ok((answer, took)) => (answer.map_err(|problem| format!("{problem:#}")), took),
            Err(problem) => (Err(problem.to_string()), Duration::ZERO),
        },
        None => std::future::pending().await,
    }
}

async fn snapshot(socket: &Path, wanted: Selection) -> anyhow::Result<Snapshot> {
    let other = |answer| anyhow!("the agent answered something else: {answer:?}");
    let overview = match ask(socket, Question::Overview).await? {
        Answer::Overview(overview) => *overview,
        answer => return Err(other(answer)),
    };
    let filter = wanted.filter.clone();
    let tunnels = match ask(socket, Question::Tunnels(Wanted::First(wanted))).await? {
        Answer::Tunnels(tunnels) => *tunnels,
        answer => return Err(other(answer)),
    };
    Ok(Snapshot {
        overview,
        tunnels,
        filter,
    })
}

/// What the environment says of the terminal.
fn look() -> Look {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // POSIX: the first of these that is set decides.
    let locale = (["LC_ALL", "LC_CTYPE", "LANG"].into_iter()).find_map(set);
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    Look {
        // https://no-color.org
        colour: set("NO_COLOR").is_none() && set("TERM").as_deref() != Some("dumb"),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(event) = event else {
        return None;
    };
    if event.kind == KeyEventKind::Release {
        return None;
    }
    Some(match event.code {
        KeyCode::Char('c' | 'C') if event.modifiers.contains(KeyModifiers::CONTROL) => {
            Key::Interrupt
        }
        KeyCode::Char(_) if event.modifiers.contains(KeyModifiers::CONTROL) => return None,
        KeyCode::Char(character) => Key::Char(character),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
