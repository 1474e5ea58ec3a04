//! What phones ask DNS for, and whether they begin once they are answered.

use std::collections::BTreeMap;

use super::{About, Stall, Step, TraceEvent, Wait, make_room, patience};

/// What an answer without addresses is told as.
const NO_ADDRESS: &str = "no address";
/// Questions that are no further apart are of one try, in milliseconds: resolvers ask again after 5 s.
const ROUND: u64 = 10_000;

/// What a phone asks for.
#[derive(Clone, Debug)]
struct Asked {
    name: String,
    waits: Wait,
    since: u64,
    /// Whether it was said that this is late.
    said: bool,
    seen: u64,
}

/// The phones that ask, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    asked: BTreeMap<String, Asked>,
}

impl Names {
    /// Takes in a question or an answer. `up`: the phone has a tunnel, and need not begin.
    pub(super) fn take(&mut self, event: &TraceEvent, up: bool) {
        let (name, answer) = match event.detail.split_once(": ") {
            Some((name, answer)) => (name, Some(answer)),
            None => (&*event.detail, None),
        };
        let waits = match (event.step, answer) {
            (Step::DnsAsked, _) => Wait::DnsAnswer,
            (_, Some(NO_ADDRESS)) => Wait::DnsAddress,
            _ => Wait::Init,
        };
        if up && waits != Wait::DnsAnswer {
            self.forget(&event.client);
            return;
        }
        let before = self.asked.get_mut(&event.client);
        // A phone asks for both families, and again: what is known of one is not undone by the other.
        if let Some(before) = before
            && event.at.saturating_sub(before.seen) < ROUND
            && before.waits >= waits
        {
            before.seen = before.seen.max(event.at);
            return;
        }
        make_room(&mut self.asked, &event.client, |asked| asked.seen);
        let asked = Asked {
            name: name.to_owned(),
            waits,
            since: event.at,
            said: false,
            seen: event.at,
        };
        self.asked.insert(event.client.clone(), asked);
    }

    /// The phone waits for nothing of DNS any more.
    pub(super) fn forget(&mut self, client: &str) {
        self.asked.remove(client);
    }

    /// What is late at `now`; each is told once. `lost`: when events were lost last.
    pub(super) fn late(&mut self, now: u64, lost: u64) -> Vec<Stall> {
        let mut stalls = Vec::new();
        for (client, asked) in &mut self.asked {
            let waited = now.saturating_sub(asked.since);
            if asked.said || waited < patience(asked.waits) {
                continue;
            }
            asked.said = true;
            stalls.push(Stall {
                at: now,
                client: client.clone(),
                endpoint: String::new(),
                waits_for: asked.waits,
                for_ms: waited,
                notify: None,
                exit: None,
                lost: lost != 0 && lost >= asked.since,
                advice: asked.waits.advice(About {
                    client,
                    endpoint: "",
                    name: &asked.name,
                }),
            });
        }
        stalls
    }
}
