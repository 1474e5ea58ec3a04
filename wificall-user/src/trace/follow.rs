//! Phones as they come along, and which of their tunnels waits for what.

mod names;

use std::collections::BTreeMap;

use serde::Serialize;

use self::names::Names;
use super::advice::{About, Advice, Wait};
use crate::telemetry::notify::is_detour_named;
use crate::telemetry::view::{Cause, Step, TraceEvent, WayOut};

/// Silence after which a step is late, in milliseconds. Phones send a request again after 0.5, 1 and 2 s.
const LATE: u64 = 3_000;
/// A phone that has addresses may take its time to use them.
const LATE_INIT: u64 = 8_000;
/// EAP-AKA takes three IKE_AUTH exchanges, between which the SIM and its home network are asked (3GPP TS 33.402 §8.2.2): only
/// the first answer is told.
const LATE_ESP: u64 = 10_000;
/// Tunnels that are followed at once, and phones that ask DNS; those that were quiet longest are forgotten.
const MOST: usize = 1_024;

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
    /// The notify that refuses or asks for another way, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// By which way out the phone's packets go, once it sends to its ePDG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<WayOut>,
    /// Whether events were lost since that is waited for: what is missing may have come.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
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

/// Where a tunnel stands.
#[derive(Clone, Debug)]
struct Tunnel {
    client: String,
    endpoint: String,
    waits: Option<Wait>,
    since: u64,
    /// Whether it was said that this is late.
    said: bool,
    notify: Option<String>,
    exit: Option<WayOut>,
    /// ESP from the phone, and from the ePDG.
    esp: [bool; 2],
    seen: u64,
}

/// The phones.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    /// By name ([`TraceEvent::tunnel`]): a phone may have several, one after the other or at once.
    tunnels: BTreeMap<String, Tunnel>,
    names: Names,
    /// When events were lost last; 0: none were.
    lost: u64,
}

/// Forgets the one that was quiet longest where there is no room for another.
fn make_room<T>(all: &mut BTreeMap<String, T>, key: &str, seen: impl Fn(&T) -> u64) {
    if all.len() < MOST || all.contains_key(key) {
        return;
    }
    let oldest = all.iter().min_by_key(|(_, one)| seen(one));
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        all.remove(&key);
    }
}

impl Follow {
    /// Takes an event in; what is to be said of it.
    pub fn take(&mut self, event: TraceEvent) -> Vec<Seen> {
        let late = match event.step {
            Step::DnsAsked | Step::DnsAnswered => {
                let of = |tunnel: &&Tunnel| tunnel.client == event.client;
                let mut tunnels = self.tunnels.values().filter(of);
                // While it sets up, what it asks besides is none of it.
                if !tunnels.clone().any(|tunnel| tunnel.waits.is_some()) {
                    self.names.take(&event, tunnels.any(Tunnel::is_up));
                }
                None
            }
            _ => self.take_tunnel(&event),
        };
        let mut seen = vec![Seen::Event(event)];
        seen.extend(late.map(Seen::Stall));
        seen
    }

    fn take_tunnel(&mut self, event: &TraceEvent) -> Option<Stall> {
        // It sends: what it waited for of DNS has come.
        if event.step <= Step::Up {
            self.names.forget(&event.client);
        }
        match event.step {
            Step::InitSent => self.begins(event),
            Step::Gone => {
                self.tunnels.remove(&event.tunnel);
                return None;
            }
            _ => {}
        }
        make_room(&mut self.tunnels, &event.tunnel, |tunnel| tunnel.seen);
        let lost = self.lost;
        let tunnel = self
            .tunnels
            .entry(event.tunnel.clone())
            .or_insert_with(|| Tunnel::new(event));
        tunnel.seen = tunnel.seen.max(event.at);
        // A tunnel stays the same when its phone roams.
        tunnel.client.clone_from(&event.client);
        if event.step != Step::Failed {
            tunnel.advance(event);
            return None;
        }
        let wait = tunnel.failed(&event.detail);
        let late = (!tunnel.said).then(|| tunnel.stall(wait, event.at, lost));
        (tunnel.waits, tunnel.said) = (None, true);
        late
    }

    /// A phone begins: it has given up what it tried before at this ePDG, and what another has sent it away from.
    fn begins(&mut self, event: &TraceEvent) {
        for (name, tunnel) in &mut self.tunnels {
            let is_other = *name != event.tunnel && tunnel.client == event.client;
            let is_over = tunnel.endpoint == event.endpoint || tunnel.waits == Some(Wait::Detour);
            if is_other && is_over {
                (tunnel.waits, tunnel.said) = (None, true);
            }
        }
    }

    /// Events were lost, at `now` at the latest, in milliseconds since 1970-01-01 UTC.
    pub fn lost(&mut self, now: u64) {
        self.lost = self.lost.max(now);
    }

    /// What is late at `now`, in milliseconds since 1970-01-01 UTC; each is told once.
    pub fn late(&mut self, now: u64) -> Vec<Stall> {
        let mut stalls = self.names.late(now, self.lost);
        for tunnel in self.tunnels.values_mut() {
            let Some(wait) = tunnel.waits.filter(|_| !tunnel.said) else {
                continue;
            };
            if now.saturating_sub(tunnel.since) >= patience(wait) {
                tunnel.said = true;
                stalls.push(tunnel.stall(wait, now, self.lost));
            }
        }
        stalls
    }
}

const fn patience(wait: Wait) -> u64 {
    match wait {
        Wait::Init => LATE_INIT,
        Wait::Esp => LATE_ESP,
        _ => LATE,
    }
}

impl Tunnel {
    /// One of which this is seen first.
    fn new(event: &TraceEvent) -> Self {
        let after = event.after_ms.unwrap_or_default();
        Self {
            client: event.client.clone(),
            endpoint: event.endpoint.clone(),
            waits: None,
            since: event.at.saturating_sub(after as u64),
            said: false,
            notify: None,
            exit: None,
            esp: [false; 2],
            seen: event.at,
        }
    }

    fn is_up(&self) -> bool {
        self.esp == [true; 2]
    }

    fn stall(&self, wait: Wait, at: u64, lost: u64) -> Stall {
        let answers = matches!(wait, Wait::Refused | Wait::Detour);
        Stall {
            at,
            client: self.client.clone(),
            endpoint: self.endpoint.clone(),
            waits_for: wait,
            for_ms: at.saturating_sub(self.since),
            notify: self.notify.clone().filter(|_| answers),
            exit: self.exit.clone(),
            lost: lost != 0 && lost >= self.since,
            advice: wait.advice(About {
                client: &self.client,
                endpoint: &self.endpoint,
                name: "",
            }),
        }
    }

    fn wait(&mut self, wait: Option<Wait>, at: u64) {
        if self.waits != wait {
            self.since = at;
        }
        self.waits = wait;
        self.said = false;
    }

    fn advance(&mut self, event: &TraceEvent) {
        let wait = match event.step {
            Step::InitSent => {
                (self.notify, self.exit, self.esp) = (None, None, [false; 2]);
                self.since = event.at;
                Some(Wait::InitAnswer)
            }
            // Told late: it is beyond that.
            Step::InitAnswered if self.is_up() || self.waits > Some(Wait::Auth) => return,
            Step::InitAnswered => {
                self.notify = None;
                Some(Wait::Auth)
            }
            // What is forged, or told late, sets nobody back.
            Step::Notify if self.is_up() || self.waits > Some(Wait::Refused) => return,
            Step::Notify => Some(self.refused(&event.detail)),
            Step::AuthSent if self.is_up() || self.waits > Some(Wait::AuthAnswer) => return,
            Step::AuthSent => Some(Wait::AuthAnswer),
            Step::AuthAnswered if self.is_up() || self.waits > Some(Wait::Esp) => return,
            Step::AuthAnswered => Some(Wait::Esp),
            Step::EspUp | Step::EspDown => {
                self.esp[usize::from(event.step == Step::EspDown)] = true;
                match self.esp {
                    [true, true] => None,
                    [true, false] => Some(Wait::EspDown),
                    _ => Some(Wait::EspUp),
                }
            }
            Step::Up | Step::CallBegan => {
                self.esp = [true; 2];
                None
            }
            // It was up before it was followed.
            Step::CallChanged | Step::CallEnded | Step::Roamed | Step::Rekeyed | Step::Idle => {
                if self.waits.is_none() {
                    self.esp = [true; 2];
                }
                return;
            }
            Step::Exit => {
                self.exit.clone_from(&event.exit);
                return;
            }
            // With the cookie, or the group, that it was asked for.
            Step::Retransmitted if self.waits == Some(Wait::Detour) => Some(Wait::InitAnswer),
            // They say that it waits, not that it gets on.
            Step::Retransmitted | Step::Natt => return,
            // They are no tunnel's steps, or its last.
            Step::DnsAsked | Step::DnsAnswered | Step::Failed | Step::Gone => return,
        };
        self.wait(wait, event.at);
    }

    /// What was missing, of one whose failure comes before it was late.
    fn failed(&mut self, detail: &str) -> Wait {
        if let Some(wait) = self.waits {
            return wait;
        }
        let is = |cause: Cause| detail.starts_with(cause.name());
        if is(Cause::AuthenticationStalled) {
            return Wait::AuthAnswer;
        } else if is(Cause::EspMissing) {
            return Wait::Esp;
        } else if !is(Cause::Refused) {
            return Wait::InitAnswer;
        }
        let notify = detail.split_once(": ").map_or("", |(_, rest)| rest);
        let notify = notify.split(',').next().unwrap_or_default();
        self.refused(notify)
    }

    /// Notes what the ePDG says instead of an answer; what is waited for then.
    fn refused(&mut self, notify: &str) -> Wait {
        self.notify = Some(notify.to_owned()).filter(|notify| !notify.is_empty());
        if is_detour_named(notify) {
            Wait::Detour
        } else {
            Wait::Refused
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
