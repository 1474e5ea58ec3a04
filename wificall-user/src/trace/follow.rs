//! Phones as they come along, and which of them waits for what.

use std::collections::BTreeMap;

use serde::Serialize;

use super::advice::{Advice, Wait};
use crate::telemetry::view::{Cause, Step, TraceEvent, WayOut};

/// Silence after which a step is late, in milliseconds. Phones send a request again after 0.5, 1 and 2 s.
const LATE: u64 = 3_000;
/// A phone that has addresses may take its time to use them.
const LATE_INIT: u64 = 8_000;
/// Phones that are followed at once; the one that was quiet longest is forgotten.
const PHONES: usize = 1_024;

/// Something that does not come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stall {
    /// When that was said, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
    /// The phone.
    pub client: String,
    /// The ePDG; empty before it is known.
    pub endpoint: String,
    /// What is waited for.
    pub waits_for: Wait,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// The notify that refuses, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// By which way out the phone's packets go, once it sends to its ePDG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<WayOut>,
    /// What that means, and what to try.
    #[serde(flatten)]
    pub advice: Advice,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// An event.
    Event(TraceEvent),
    /// A step that does not come.
    Stall(Stall),
}

/// Where a phone stands.
#[derive(Clone, Debug)]
struct Phone {
    endpoint: String,
    waits: Option<Wait>,
    since: u64,
    said: bool,
    notify: Option<String>,
    exit: Option<WayOut>,
    up: bool,
    down: bool,
    seen: u64,
}

/// The phones.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    phones: BTreeMap<String, Phone>,
}

impl Follow {
    /// Takes an event in; what is to be said of it.
    pub fn take(&mut self, event: TraceEvent) -> Vec<Seen> {
        if self.phones.len() >= PHONES && !self.phones.contains_key(&event.client) {
            let oldest = self.phones.iter().min_by_key(|(_, phone)| phone.seen);
            if let Some(client) = oldest.map(|(client, _)| client.clone()) {
                self.phones.remove(&client);
            }
        }
        let phone = self
            .phones
            .entry(event.client.clone())
            .or_insert_with(|| Phone {
                endpoint: String::new(),
                waits: None,
                since: event.at,
                said: false,
                notify: None,
                exit: None,
                up: false,
                down: false,
                seen: event.at,
            });
        phone.seen = phone.seen.max(event.at);
        let failed = event.step == Step::Failed;
        let late = if failed && !phone.said {
            let wait = phone.failed(&event.detail);
            Some(phone.stall(&event.client, wait, event.at))
        } else {
            phone.advance(&event);
            None
        };
        if failed {
            phone.waits = None;
            phone.said = true;
        }
        let mut seen = vec![Seen::Event(event)];
        seen.extend(late.map(Seen::Stall));
        seen
    }

    /// Phones whose next step is late at `now`, in milliseconds since 1970-01-01 UTC; each is told once.
    pub fn late(&mut self, now: u64) -> Vec<Stall> {
        let mut stalls = Vec::new();
        for (client, phone) in &mut self.phones {
            let Some(wait) = phone.waits.filter(|_| !phone.said) else {
                continue;
            };
            let patience = if wait == Wait::Init { LATE_INIT } else { LATE };
            if now.saturating_sub(phone.since) >= patience {
                phone.said = true;
                stalls.push(phone.stall(client, wait, now));
            }
        }
        stalls
    }
}

impl Phone {
    fn stall(&self, client: &str, wait: Wait, at: u64) -> Stall {
        Stall {
            at,
            client: client.to_owned(),
            endpoint: self.endpoint.clone(),
            waits_for: wait,
            for_ms: at.saturating_sub(self.since),
            notify: self.notify.clone().filter(|_| wait == Wait::Refused),
            exit: self.exit.clone().filter(|_| wait > Wait::Init),
            advice: wait.advice(client, &self.endpoint),
        }
    }

    fn wait(&mut self, wait: Option<Wait>, at: u64) {
        // The second family's question and answer are no news, nor is one that comes in between.
        if self.waits != wait {
            self.since = at;
        }
        self.waits = wait;
        self.said = false;
    }

    fn advance(&mut self, event: &TraceEvent) {
        let sets_up = self.waits > Some(Wait::Init);
        if !event.endpoint.is_empty() {
            self.endpoint.clone_from(&event.endpoint);
        }
        let wait = match event.step {
            // While it sets up, what it asks besides is none of it.
            Step::DnsAsked | Step::DnsAnswered if sets_up => return,
            Step::DnsAsked => Some(Wait::DnsAnswer),
            // No address: the answer that has some may still come.
            Step::DnsAnswered if event.detail.ends_with(": no address") => self.waits,
            Step::DnsAnswered => Some(Wait::Init),
            Step::InitSent => {
                (self.notify, self.up, self.down) = (None, false, false);
                self.exit = None;
                self.since = event.at;
                Some(Wait::InitAnswer)
            }
            // Told late: it is beyond that.
            Step::InitAnswered if self.waits > Some(Wait::Auth) => return,
            Step::InitAnswered => {
                self.notify = None;
                Some(Wait::Auth)
            }
            Step::Notify => {
                self.notify = Some(event.detail.clone());
                Some(Wait::Refused)
            }
            Step::Natt if self.waits == Some(Wait::Auth) => Some(Wait::Auth),
            Step::AuthSent => Some(Wait::AuthAnswer),
            Step::AuthAnswered => Some(Wait::Esp),
            Step::EspUp | Step::EspDown => {
                self.up |= event.step == Step::EspUp;
                self.down |= event.step == Step::EspDown;
                match (self.up, self.down) {
                    (true, true) => None,
                    (true, false) => Some(Wait::EspDown),
                    _ => Some(Wait::EspUp),
                }
            }
            Step::Up | Step::Gone | Step::CallBegan => None,
            // They say that it waits, not that it gets on.
            Step::Retransmitted | Step::Natt | Step::Failed => return,
            Step::Exit => {
                self.exit.clone_from(&event.exit);
                return;
            }
            Step::Roamed | Step::Rekeyed | Step::CallChanged | Step::CallEnded | Step::Idle => {
                return;
            }
        };
        self.wait(wait, event.at);
    }

    /// What was missing, of one whose failure comes before it was late.
    fn failed(&self, detail: &str) -> Wait {
        let is = |cause: Cause| detail.starts_with(cause.name());
        match self.waits {
            Some(wait) if wait > Wait::Init => wait,
            _ if is(Cause::Refused) => Wait::Refused,
            _ if is(Cause::AuthenticationStalled) => Wait::AuthAnswer,
            _ if is(Cause::EspMissing) => Wait::Esp,
            _ => Wait::InitAnswer,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
