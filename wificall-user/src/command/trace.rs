//! `wificall trace`

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Failure, Outcome, print, socket_of};
use crate::cli::{Client, Trace};
use crate::control::socket::{Answer, Place, follow, is_about};
use crate::net;
use crate::telemetry::view::TraceEvent;
use crate::trace::{Follow, GUIDE, Seen, Stall, line, stall};

/// How often it is looked for steps that are late, and for a phone's new addresses.
const EVERY: Duration = Duration::from_millis(500);
/// Silence after which it is said that nothing was seen at all.
const NOTHING: Duration = Duration::from_secs(45);

/// Events that wait for a look into the neighbour table; more are a reason to look at once.
const HELD: usize = 1_024;

/// Who is followed.
enum Whom {
    All,
    /// The address that was asked for, and those to which that phone has roamed since.
    Address(Vec<IpAddr>),
    /// The addresses that the neighbour table has for it: a phone has several, and new ones at times.
    Mac([u8; 6], Vec<IpAddr>),
}

impl Whom {
    fn includes(&mut self, event: &TraceEvent) -> bool {
        match self {
            Self::All => true,
            Self::Address(addresses) => is_about(event, addresses),
            Self::Mac(_, addresses) => {
                let is = |address: &str| {
                    let address: Option<IpAddr> = address.parse().ok();
                    address.is_some_and(|address| addresses.contains(&address))
                };
                is(&event.client) || event.from.as_deref().is_some_and(is)
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        if matches!(self, Self::Mac(..)) {
            let neighbours = net::neighbours();
            self.know(neighbours.await.context("read the neighbour table")?);
        }
        Ok(())
    }

    /// Takes in the neighbour table. An address that is in it no more was the phone's a moment ago, and still is in what was
    /// told then; one that is another's now is not.
    fn know(&mut self, neighbours: impl IntoIterator<Item = (IpAddr, [u8; 6])>) {
        let Self::Mac(mac, addresses) = self else {
            return;
        };
        for (address, of) in neighbours {
            if of != *mac {
                addresses.retain(|known| *known != address);
            } else if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
}

/// What is printed with `--json`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Following { tracked: bool, names: bool },
    Event(&'a TraceEvent),
    Stall(&'a Stall),
    Lost { events: u64, place: Place },
    Nothing { seconds: u64 },
}

pub(super) async fn run(arguments: &Trace) -> Result<Outcome, Failure> {
    let socket = socket_of(arguments.instance.as_ref(), &arguments.config)?;
    let whom = match arguments.client {
        None => Whom::All,
        Some(Client::Address(address)) => Whom::Address(vec![address.to_canonical()]),
        Some(Client::Mac(mac)) => Whom::Mac(mac.0, Vec::new()),
    };
    // The agent need not tell of others, but of a phone whose address may change.
    let asked = match &whom {
        Whom::Address(addresses) => addresses.clone(),
        Whom::All | Whom::Mac(..) => Vec::new(),
    };
    let mut stream = follow(&socket, asked).await.map_err(anyhow::Error::from)?;
    let mut tracing = Tracing {
        whom,
        held: VecDeque::new(),
        teller: Teller {
            json: arguments.json,
            follow: Follow::default(),
        },
        heard: Instant::now(),
        quiet: false,
    };
    tracing.whom.look().await?;
    if let (Whom::Mac(_, addresses), Some(Client::Mac(mac))) = (&tracing.whom, arguments.client)
        && addresses.is_empty()
    {
        eprintln!(
            "note: {mac} is not in this host's neighbour table (`ip neigh`): it is waited for"
        );
    }
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answer = stream.next() => match answer.map_err(anyhow::Error::from)? {
                Some(answer) => tracing.take(answer).await?,
                None => {
                    tracing.tick().await?;
                    return Err(anyhow!(
                    "follow what happens: the agent has ended, or has let go of this trace because it took nothing for a minute\n  \
                     hint: start the trace again once `wificall status` answers"
                ).into());
                }
            },
            _ = tick.tick() => tracing.tick().await?,
            // To end it so is how it is meant to end.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("wait for Ctrl-C")?;
                return Ok(Outcome::Done);
            }
        }
    }
}

/// A trace as it goes on.
struct Tracing {
    whom: Whom,
    /// Events that are not told yet: whose the first is says the next look into the neighbour table.
    held: VecDeque<TraceEvent>,
    teller: Teller,
    heard: Instant,
    /// Whether it was said that nothing was seen.
    quiet: bool,
}

impl Tracing {
    async fn take(&mut self, answer: Answer) -> anyhow::Result<()> {
        match answer {
            Answer::Following { tracked, names } => self.teller.begin(tracked, names),
            Answer::Event(event) => {
                self.held.push_back(*event);
                if self.held.len() > HELD {
                    return self.tick().await;
                }
                self.tell(false)
            }
            Answer::Lost { events, place } => self.teller.lost(events, place),
            answer => Err(anyhow!("the agent answered something else: {answer:?}")),
        }
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.whom.look().await?;
        self.tell(true)?;
        self.teller.late()?;
        if !self.quiet && self.heard.elapsed() >= NOTHING {
            self.quiet = true;
            self.teller.nothing(&self.whom)?;
        }
        Ok(())
    }

    /// Tells what is held of this phone, in its order, up to the first event of which only a look tells whose it is. `looked`:
    /// the neighbour table was read since they came.
    fn tell(&mut self, looked: bool) -> anyhow::Result<()> {
        while let Some(event) = self.held.pop_front() {
            if self.whom.includes(&event) {
                (self.heard, self.quiet) = (Instant::now(), false);
                self.teller.event(event)?;
            } else if !looked && matches!(self.whom, Whom::Mac(..)) {
                self.held.push_front(event);
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Teller {
    json: bool,
    follow: Follow,
}

impl Teller {
    fn begin(&self, tracked: bool, names: bool) -> anyhow::Result<()> {
        if self.json {
            return line_of(&Line::Following { tracked, names });
        }
        let mut text = GUIDE.to_owned();
        if !names {
            text += "Questions to DNS are not seen: [snoop] names is off.\n";
        }
        if !tracked {
            text += "Nothing else is seen: telemetry.enabled is false.\n";
        }
        print(&(text + "Times are UTC; after them, since the set-up began.\n\n"))
    }

    fn event(&mut self, event: TraceEvent) -> anyhow::Result<()> {
        for seen in self.follow.take(event) {
            self.tell(&seen)?;
        }
        Ok(())
    }

    fn late(&mut self) -> anyhow::Result<()> {
        for stall in self.follow.late(now()) {
            self.tell(&Seen::Stall(stall))?;
        }
        Ok(())
    }

    fn tell(&self, seen: &Seen) -> anyhow::Result<()> {
        match (seen, self.json) {
            (Seen::Event(event), true) => line_of(&Line::Event(event)),
            (Seen::Stall(stall), true) => line_of(&Line::Stall(stall)),
            (Seen::Event(event), false) => print(&line(event)),
            (Seen::Stall(late), false) => print(&stall(late)),
        }
    }

    fn lost(&mut self, events: u64, place: Place) -> anyhow::Result<()> {
        self.follow.lost(now());
        if self.json {
            return line_of(&Line::Lost { events, place });
        }
        let why = match place {
            Place::Kernel => {
                "there were more than the agent is told (`telemetry.events_per_second`)"
            }
            Place::Reader => "they were not read in time",
        };
        print(&format!("{events} events of all phones were lost: {why}\n"))
    }

    fn nothing(&self, whom: &Whom) -> anyhow::Result<()> {
        let seconds = NOTHING.as_secs();
        if self.json {
            return line_of(&Line::Nothing { seconds });
        }
        let whom = match whom {
            Whom::All => "any phone".to_owned(),
            Whom::Mac(_, addresses) if addresses.is_empty() => {
                "that phone: this host's neighbour table does not have it".to_owned()
            }
            Whom::Address(addresses) | Whom::Mac(_, addresses) => {
                let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                all.join(", ")
            }
        };
        print(&format!(
            "Nothing was seen of {whom} for {seconds} s.\n    \
             try: `wificall status`: whether the phone's interface is attached, and the carrier's addresses are known\n    \
             try: airplane mode on, then Wi-Fi alone on again; with a cell most phones stay there\n"
        ))
    }
}

/// In milliseconds since 1970-01-01 UTC.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

fn line_of(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::view::{Step, WayKind, WayOut};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn event(client: &str) -> TraceEvent {
        TraceEvent {
            at: 1_000,
            tunnel: "1a".into(),
            client: client.into(),
            endpoint: "198.51.100.1".into(),
            step: Step::InitSent,
            ..TraceEvent::default()
        }
    }

    #[test]
    fn an_address_that_another_phone_has_now_is_followed_no_more() {
        let mut whom = Whom::Mac(MAC, Vec::new());
        whom.know([(address("192.0.2.7"), MAC), (address("192.0.2.8"), [9; 6])]);
        assert!(whom.includes(&event("192.0.2.7")) && !whom.includes(&event("192.0.2.8")));
        // The entry has gone: what it did a moment ago is told now.
        whom.know([]);
        assert!(whom.includes(&event("192.0.2.7")));
        whom.know([(address("192.0.2.7"), [9; 6]), (address("192.0.2.8"), MAC)]);
        assert!(!whom.includes(&event("192.0.2.7")) && whom.includes(&event("192.0.2.8")));
    }

    #[test]
    fn events_wait_in_their_order_for_a_look_at_whose_they_are() {
        let mut tracing = Tracing {
            whom: Whom::Mac(MAC, vec![address("192.0.2.7")]),
            held: ["192.0.2.7", "192.0.2.8", "192.0.2.7", "2001:db8::7"]
                .map(event)
                .into(),
            teller: Teller {
                json: true,
                follow: Follow::default(),
            },
            heard: Instant::now(),
            quiet: false,
        };
        tracing.tell(false).unwrap();
        assert_eq!(tracing.held.len(), 3, "the first is its own");
        tracing.whom.know([(address("2001:db8::7"), MAC)]);
        tracing.tell(true).unwrap();
        assert!(tracing.held.is_empty());
    }

    #[test]
    fn each_kind_of_line_is_an_object_with_its_fields() {
        let is = |line: &Line<'_>, expected: Value| {
            assert_eq!(serde_json::to_value(line).unwrap(), expected);
        };
        is(
            &Line::Following {
                tracked: true,
                names: false,
            },
            json!({"kind": "following", "tracked": true, "names": false}),
        );
        is(
            &Line::Lost {
                events: 3,
                place: Place::Kernel,
            },
            json!({"kind": "lost", "events": 3, "place": "kernel"}),
        );
        is(
            &Line::Nothing { seconds: 45 },
            json!({"kind": "nothing", "seconds": 45}),
        );
        let mut moved = event("192.0.2.8");
        (moved.step, moved.from) = (Step::Roamed, Some("192.0.2.7".into()));
        is(
            &Line::Event(&moved),
            json!({"kind": "event", "at": 1000, "tunnel": "1a", "client": "192.0.2.8",
                "endpoint": "198.51.100.1", "step": "roamed", "detail": "", "from": "192.0.2.7"}),
        );
    }

    #[test]
    fn a_stall_is_an_object_with_all_that_is_known() {
        let mut follow = Follow::default();
        follow.take(event("192.0.2.7"));
        let mut exit = event("192.0.2.7");
        exit.step = Step::Exit;
        exit.exit = Some(WayOut {
            exit: Some("au".into()),
            way: WayKind::Direct,
            ..WayOut::default()
        });
        follow.take(exit);
        let mut notify = event("192.0.2.7");
        (notify.step, notify.detail) = (Step::Notify, "NO_PROPOSAL_CHOSEN".into());
        follow.take(notify);
        follow.lost(2_000);
        let late = follow.late(4_500);
        let line = serde_json::to_value(Line::Stall(&late[0])).unwrap();
        for (field, value) in [
            ("kind", json!("stall")),
            ("at", json!(4500)),
            ("client", json!("192.0.2.7")),
            ("endpoint", json!("198.51.100.1")),
            ("waits_for", json!("refused")),
            ("for_ms", json!(3500)),
            ("notify", json!("NO_PROPOSAL_CHOSEN")),
            ("exit", json!({"exit": "au", "way": "direct"})),
            ("lost", json!(true)),
            ("missing", json!("a try that is not refused")),
        ] {
            assert_eq!(line[field], value, "{field}: {line}");
        }
        assert!(line["means"].is_string(), "{line}");
        let first = line["tries"][0].as_str().unwrap();
        assert!(first.contains("restart the phone"), "{line}");
    }
}
