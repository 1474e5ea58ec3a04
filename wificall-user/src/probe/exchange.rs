//! One IKE_SA_INIT as a state machine: datagrams, ICMP errors and the time in; datagrams and a finding out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ike::{self, MARKER, NATT_PORT, Request, Response, notify};
use super::keys::{Group, Keys};
use super::outcome::{Finding, Followed, Icmp, Nat, Verdict};
use super::vendor;

/// The first retransmission follows after this, each other after twice as long (0.5, 1, 2 s), as Android does.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(500);
/// How often a responder may send us back for a cookie: it may have changed its secret meanwhile (RFC 7296 §2.6), but
/// one that always wants another keeps us busy.
const COOKIES_MAX: usize = 2;
/// How often it may ask for another group.
const GROUPS_MAX: usize = 2;
/// A cookie is 1 to 64 bytes (RFC 7296 §2.6).
const COOKIE_LEN_MAX: usize = 64;
const NONCE_LEN: usize = 32;

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a request waits for its answer, retransmissions included.
    pub timeout: Duration,
    /// How often it is sent again at most.
    pub retries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            retries: 3,
        }
    }
}

/// What an exchange begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Our address and port.
    pub local: SocketAddr,
    /// The responder's; on port 4500 messages stand behind the non-ESP marker.
    pub remote: SocketAddr,
    /// The group of the first request.
    pub group: Group,
    /// How patient to be.
    pub timing: Timing,
    /// The gateway that redirected us here.
    pub redirected_from: Option<IpAddr>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Send(Vec<u8>),
    /// Wait until [`Exchange::due`].
    Wait,
    /// It is over.
    Done(Box<Finding>),
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    setup: Setup,
    keys: Arc<Keys>,
    spi: [u8; 8],
    nonce: [u8; NONCE_LEN],
    cookie: Option<Vec<u8>>,
    group: Group,
    /// The request that waits for its answer, as it is sent.
    request: Vec<u8>,
    /// When that was made, to be sent first.
    sent_at: Instant,
    /// When it left first.
    left_at: Instant,
    /// How often it was sent.
    sends: u32,
    /// Answers to the request before that may still come: one for each time that it was sent again.
    late: u32,
    /// When to send it again, or to give up.
    due: Instant,
    /// An ICMP error that may pass.
    icmp: Option<Icmp>,
    found: Finding,
}

impl Exchange {
    /// Begins an exchange; the first datagram to send is beside it.
    #[must_use]
    pub fn new(setup: Setup, keys: Arc<Keys>, now: Instant) -> (Self, Vec<u8>) {
        let mut spi = [0; 8];
        let mut nonce = [0; NONCE_LEN];
        keys.fill(&mut spi);
        keys.fill(&mut nonce);
        // Zero means that there is none (RFC 7296 §3.1).
        spi[0] |= 1;
        let mut exchange = Self {
            group: setup.group,
            setup,
            keys,
            spi,
            nonce,
            cookie: None,
            request: Vec::new(),
            sent_at: now,
            left_at: now,
            sends: 0,
            late: 0,
            due: now,
            icmp: None,
            found: Finding {
                verdict: Verdict::Silent,
                rtt: None,
                followed: Vec::new(),
                nat: None,
                vendor_ids: Vec::new(),
                sent: 0,
                ignored: 0,
            },
        };
        let datagram = exchange.ask(now);
        (exchange, datagram)
    }

    /// When [`timeout`](Self::timeout) is to be called if nothing comes before.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// What was to be sent leaves now. Making it takes milliseconds where a public value is computed, which are not the
    /// path's.
    pub fn left(&mut self, now: Instant) {
        if self.sends == 1 {
            self.left_at = now;
        }
    }

    /// Nothing has come until now.
    pub fn timeout(&mut self, now: Instant) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        let waited = now.saturating_duration_since(self.sent_at);
        if waited >= self.setup.timing.timeout || self.sends > self.setup.timing.retries {
            let verdict = match self.icmp {
                Some(icmp) => Verdict::Unreachable(icmp),
                None => Verdict::Silent,
            };
            return self.done(verdict);
        }
        self.sent(now);
        Step::Send(self.request.clone())
    }

    /// An ICMP error came for one of our datagrams.
    pub fn icmp(&mut self, icmp: Icmp) -> Step {
        if !icmp.is_unreachable() {
            return Step::Wait;
        }
        self.icmp = Some(icmp);
        if icmp.is_final() {
            self.done(Verdict::Unreachable(icmp))
        } else {
            Step::Wait
        }
    }

    /// A datagram came from the responder's address and port.
    pub fn datagram(&mut self, datagram: &[u8], now: Instant) -> Step {
        let message = if self.setup.remote.port() == NATT_PORT {
            datagram.strip_prefix(&MARKER)
        } else {
            Some(datagram)
        };
        let Some(Ok((message, version))) = message
            .map(|message| ike::answers(message, self.spi).map(|version| (message, version)))
        else {
            return self.ignore();
        };
        if version != 2 {
            self.answered(now);
            return self.done(Verdict::Invalid(format!(
                "answers with IKE version {version}"
            )));
        }
        match ike::response(message) {
            Ok(response) => self.response(&response, now),
            Err(malformed) => {
                self.answered(now);
                self.done(Verdict::Invalid(malformed.0.to_owned()))
            }
        }
    }

    fn response(&mut self, response: &Response<'_>, now: Instant) -> Step {
        let of = |kind| response.notifies.iter().find(|notify| notify.kind == kind);
        if let Some(redirect) = of(notify::REDIRECT) {
            let gateway = match ike::gateway(redirect.data) {
                // RFC 5685 §5: whoever has not seen our request cannot redirect us.
                Ok((_, nonce)) if nonce != self.nonce => return self.ignore(),
                Ok((gateway, _)) => gateway,
                Err(malformed) => {
                    self.answered(now);
                    return self.done(Verdict::Invalid(malformed.0.to_owned()));
                }
            };
            self.answered(now);
            self.keep_vendor_ids(response);
            return self.done(Verdict::Redirected(gateway));
        }
        if let Some(cookie) = of(notify::COOKIE) {
            let repeated = self.cookie.as_deref() == Some(cookie.data);
            if repeated && self.is_late() {
                return self.ignore();
            }
            self.answered(now);
            if repeated {
                let what = "asks for a cookie that it has got".to_owned();
                return self.done(Verdict::Invalid(what));
            }
            return self.follow_cookie(cookie.data, now);
        }
        if let Some(wanted) = of(notify::INVALID_KE_PAYLOAD) {
            let group = match *wanted.data {
                [a, b] => Some(u16::from_be_bytes([a, b])),
                _ => None,
            };
            let repeated = group == Some(self.group.id());
            if repeated && self.is_late() {
                return self.ignore();
            }
            self.answered(now);
            if repeated {
                return self.done(Verdict::Refused(notify::INVALID_KE_PAYLOAD, group));
            }
            return self.follow_group(group, now);
        }
        self.answered(now);
        self.keep_vendor_ids(response);
        if let Some(error) = response
            .notifies
            .iter()
            .find(|notify| notify.kind < notify::FIRST_STATUS)
        {
            return self.done(Verdict::Refused(error.kind, None));
        }
        let verdict = self.agreed(response);
        self.done(verdict)
    }

    /// Whether the responder's choice is one of ours.
    fn agreed(&mut self, response: &Response<'_>) -> Verdict {
        let invalid = |what: &str| Verdict::Invalid(what.to_owned());
        let Some(suite) = response.suite else {
            return invalid("an answer that chooses nothing");
        };
        if !suite.was_proposed() {
            return Verdict::Invalid(format!("chooses what was not proposed: {suite}"));
        }
        if !response.nonce {
            return invalid("an answer without a nonce");
        }
        if response.group != Some(suite.dh) || suite.dh != self.group.id() {
            return invalid("chooses one group and answers in another");
        }
        if response.spi == [0; 8] {
            return invalid("agrees without an SPI of its own");
        }
        self.found.nat = self.nat(response);
        Verdict::Reachable(suite)
    }

    /// NATs: the responder's hashes beside ours (RFC 7296 §2.23). Its destination is us.
    fn nat(&self, response: &Response<'_>) -> Option<Nat> {
        let translated = |kind, end| {
            let hash = ike::address_hash(self.spi, response.spi, end);
            let mut hashes = response
                .notifies
                .iter()
                .filter(|notify| notify.kind == kind)
                .peekable();
            hashes.peek()?;
            Some(hashes.all(|notify| notify.data != hash))
        };
        Some(Nat {
            here: translated(notify::NAT_DETECTION_DESTINATION_IP, self.setup.local)?,
            there: translated(notify::NAT_DETECTION_SOURCE_IP, self.setup.remote)?,
        })
    }

    fn follow_cookie(&mut self, cookie: &[u8], now: Instant) -> Step {
        if !(1..=COOKIE_LEN_MAX).contains(&cookie.len()) {
            return self.done(Verdict::Invalid(
                "a cookie of a forbidden length".to_owned(),
            ));
        }
        if self.count(|step| *step == Followed::Cookie) >= COOKIES_MAX {
            return self.done(Verdict::Invalid(
                "asks for one cookie after another".to_owned(),
            ));
        }
        self.found.followed.push(Followed::Cookie);
        self.cookie = Some(cookie.to_vec());
        Step::Send(self.ask(now))
    }

    fn follow_group(&mut self, wanted: Option<u16>, now: Instant) -> Step {
        let refused = Verdict::Refused(notify::INVALID_KE_PAYLOAD, wanted);
        let Some(group) = wanted.and_then(Group::of_id) else {
            return self.done(refused);
        };
        if self.count(|step| matches!(step, Followed::Group(_))) >= GROUPS_MAX {
            return self.done(refused);
        }
        self.found.followed.push(Followed::Group(group.id()));
        self.group = group;
        Step::Send(self.ask(now))
    }

    /// Whether what came again may be the answer to a retransmission of the request before.
    fn is_late(&mut self) -> bool {
        let late = self.late > 0;
        self.late = self.late.saturating_sub(1);
        late
    }

    fn count(&self, kind: impl Fn(&Followed) -> bool) -> usize {
        self.found.followed.iter().filter(|step| kind(step)).count()
    }

    /// A new request, with all that is known by now.
    fn ask(&mut self, now: Instant) -> Vec<u8> {
        let message = Request {
            spi: self.spi,
            group: self.group,
            public: self.keys.public(self.group),
            nonce: &self.nonce,
            cookie: self.cookie.as_deref(),
            local: self.setup.local,
            remote: self.setup.remote,
            redirected_from: self.setup.redirected_from,
        }
        .build();
        self.request = if self.setup.remote.port() == NATT_PORT {
            [&MARKER[..], &message].concat()
        } else {
            message
        };
        self.sent_at = now;
        self.left_at = now;
        self.late = self.sends.saturating_sub(1);
        self.sends = 0;
        self.sent(now);
        self.request.clone()
    }

    /// The request goes out once more.
    fn sent(&mut self, now: Instant) {
        let give_up = self.sent_at + self.setup.timing.timeout;
        self.due = if self.sends < self.setup.timing.retries {
            let pause = FIRST_RETRANSMISSION * 2_u32.saturating_pow(self.sends.min(16));
            give_up.min(now + pause)
        } else {
            give_up
        };
        self.sends += 1;
        self.found.sent += 1;
    }

    /// An answer came to the request that waits.
    fn answered(&mut self, now: Instant) {
        if self.sends == 1 {
            let rtt = now.saturating_duration_since(self.left_at);
            self.found.rtt = Some(self.found.rtt.map_or(rtt, |before| before.min(rtt)));
        }
    }

    fn keep_vendor_ids(&mut self, response: &Response<'_>) {
        let ids = response.vendor_ids.iter().take(vendor::COUNT_MAX);
        self.found.vendor_ids = ids
            .map(|id| id[..id.len().min(vendor::LENGTH_MAX)].to_vec())
            .collect();
    }

    fn ignore(&mut self) -> Step {
        self.found.ignored = self.found.ignored.saturating_add(1);
        Step::Wait
    }

    fn done(&mut self, verdict: Verdict) -> Step {
        self.found.verdict = verdict;
        Step::Done(Box::new(self.found.clone()))
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
