//! `wificall trace`

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Failure, Outcome, print, socket_of};
use crate::cli::{Client, Trace};
use crate::control::socket::{Answer, follow};
use crate::net;
use crate::telemetry::view::TraceEvent;
use crate::trace::{Follow, GUIDE, Seen, line, stall};

/// How often it is looked for steps that are late, and for a phone's new addresses.
const EVERY: Duration = Duration::from_millis(500);
/// Silence after which it is said that nothing was seen at all.
const NOTHING: Duration = Duration::from_secs(45);

/// Who is followed.
enum Whom {
    All,
    Address(IpAddr),
    /// The addresses that the neighbour table has for it: a phone has several, and new ones at times.
    Mac([u8; 6], Vec<IpAddr>),
}

impl Whom {
    fn includes(&self, client: &str) -> bool {
        let is = |address: &IpAddr| {
            client
                .parse()
                .is_ok_and(|client: IpAddr| client == *address)
        };
        match self {
            Self::All => true,
            Self::Address(address) => is(address),
            Self::Mac(_, addresses) => addresses.iter().any(is),
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let Self::Mac(mac, addresses) = self else {
            return Ok(());
        };
        let neighbours = net::neighbours()
            .await
            .context("read the neighbour table")?;
        for (address, of) in neighbours {
            // One that was its own a moment ago still is in what was told then.
            if of == *mac && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(())
    }
}

/// What is printed with `--json`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Event(&'a TraceEvent),
    Stall(&'a crate::trace::Stall),
}

pub(super) async fn run(arguments: &Trace) -> Result<Outcome, Failure> {
    let socket = socket_of(arguments.instance.as_ref(), &arguments.config)?;
    let mut whom = match arguments.client {
        None => Whom::All,
        Some(Client::Address(address)) => Whom::Address(address.to_canonical()),
        Some(Client::Mac(mac)) => Whom::Mac(mac.0, Vec::new()),
    };
    // The agent need not tell of others, but of a phone whose address may change.
    let asked = match &whom {
        Whom::Address(address) => vec![*address],
        Whom::All | Whom::Mac(..) => Vec::new(),
    };
    let mut stream = follow(&socket, asked).await.map_err(anyhow::Error::from)?;
    whom.look().await?;
    let mut teller = Teller {
        json: arguments.json,
        follow: Follow::default(),
    };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut quiet = false;
    loop {
        tokio::select! {
            answer = stream.next() => match answer.map_err(anyhow::Error::from)? {
                Some(Answer::Following { tracked, names }) => teller.begin(tracked, names)?,
                Some(Answer::Event(event)) => {
                    if !whom.includes(&event.client) {
                        whom.look().await?;
                    }
                    if whom.includes(&event.client) {
                        (heard, quiet) = (Instant::now(), false);
                        teller.event(*event)?;
                    }
                }
                Some(Answer::Lost { events }) => teller.lost(events)?,
                Some(answer) => {
                    return Err(anyhow!("the agent answered something else: {answer:?}").into());
                }
                None => return Err(anyhow!("follow what happens: the agent has ended").into()),
            },
            _ = tick.tick() => {
                whom.look().await?;
                teller.late()?;
                if !quiet && heard.elapsed() >= NOTHING {
                    quiet = true;
                    teller.nothing(&whom)?;
                }
            }
            // To end it so is how it is meant to end.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("wait for Ctrl-C")?;
                return Ok(Outcome::Done);
            }
        }
    }
}

struct Teller {
    json: bool,
    follow: Follow,
}

impl Teller {
    fn begin(&self, tracked: bool, names: bool) -> anyhow::Result<()> {
        if self.json {
            return line_of(&json!({"kind": "following", "tracked": tracked, "names": names}));
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis() as u64);
        for stall in self.follow.late(now) {
            self.tell(&Seen::Stall(stall))?;
        }
        Ok(())
    }

    fn tell(&self, seen: &Seen) -> anyhow::Result<()> {
        match (seen, self.json) {
            (Seen::Event(event), true) => line_of(&Line::Event(event)),
            (Seen::Stall(stall), true) => line_of(&Line::Stall(stall)),
            (Seen::Event(event), false) => print(&line(event, true)),
            (Seen::Stall(late), false) => print(&stall(late, true)),
        }
    }

    fn lost(&self, events: u64) -> anyhow::Result<()> {
        if self.json {
            return line_of(&json!({"kind": "lost", "events": events}));
        }
        print(&format!(
            "{events} events were lost, for they were not read in time\n"
        ))
    }

    fn nothing(&self, whom: &Whom) -> anyhow::Result<()> {
        let seconds = NOTHING.as_secs();
        if self.json {
            return line_of(&json!({"kind": "nothing", "seconds": seconds}));
        }
        let whom = match whom {
            Whom::All => "any phone".to_owned(),
            Whom::Address(address) => address.to_string(),
            Whom::Mac(_, addresses) if addresses.is_empty() => {
                "that phone: this host's neighbour table does not have it".to_owned()
            }
            Whom::Mac(_, addresses) => {
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

fn line_of(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}
