//! What clients' own packets tell: the names that they ask for and what they are told, and who answers their IKE.
//!
//! Pure: an [`Event`] and the time go in, a [`Found`] comes out. Nothing here is trusted: whoever is on the access side, or
//! on the way to a resolver, may have made it up. [`trust`](super::trust) says what it is good for, and everything here is
//! bounded.
//!
//! An answer is taken if all of this holds:
//!
//! - it came in from the uplink, or the box itself sent it ([`Origins`]),
//! - the same client asked that question of that server within [`PATIENCE`]: interface, VLAN, addresses, ports,
//!   transaction ID and the question octet by octet,
//! - the name is one of an ePDG.

mod candidates;
mod clients;
mod message;
mod origin;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wificall_common::abi::EventKind;

pub use candidates::{Candidate, Candidates};
pub use clients::{Asked, Clients};
pub use origin::Origins;

use super::{Family, Filter, Owner};
use crate::catalogue::Country;
use crate::kernel::Event;
use message::{Bad, Said};
use waiting::Waiting;

/// How long an answer is waited for. Resolvers' own timeouts are about as long (Android: 5 s).
pub const PATIENCE: Duration = Duration::from_secs(5);
/// An event that waited longer than this for its reader is stale: the phone has gone on long ago, and its question or
/// answer may be missing.
const FRESH: Duration = Duration::from_secs(2);
/// Questions that wait for their answers, of DNS and of IKE.
const WAITING: usize = 4096;
/// Exchanges longer than this are none: the first response comes within the initiator's retransmissions.
const IKE_PATIENCE: Duration = Duration::from_secs(5);

/// What an event has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A client asks for a name, and waits for the answer.
    Query {
        /// The name, in lower case and without a final dot.
        name: Arc<str>,
        /// The client.
        client: IpAddr,
    },
    /// A client was told addresses of a name.
    Answer(Answered),
    /// A client was told that there are none.
    Empty {
        /// The name, likewise.
        name: Arc<str>,
        /// The client.
        client: IpAddr,
    },
    /// A client's IKE_SA_INIT went to an address.
    Asked {
        /// The address.
        address: IpAddr,
        /// The client.
        client: IpAddr,
    },
    /// An address answered a client's IKE_SA_INIT.
    Peer {
        /// The address.
        address: IpAddr,
        /// The client.
        client: IpAddr,
    },
}

impl Found {
    const fn fate(&self) -> Fate {
        match self {
            Self::Query { .. } | Self::Asked { .. } => Fate::Waiting,
            Self::Empty { .. } => Fate::Empty,
            Self::Answer(_) | Self::Peer { .. } => Fate::Taken,
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The name that it asked for, in lower case and without a final dot.
    pub name: Arc<str>,
    /// The addresses; none if the answer was truncated, and the client asks again where nobody sees it.
    pub addresses: Vec<IpAddr>,
    /// For how long they are said to be good.
    pub ttl: Duration,
    /// The client.
    pub client: IpAddr,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// A question that waits for its answer now.
    Waiting,
    /// It has shown something.
    Taken,
    /// It waited too long for its reader, or was sent before this agent started.
    Stale,
    /// Of a version or kind that is not known, or no event at all.
    Unknown,
    /// Seen where this agent does not look any more.
    Elsewhere,
    /// A message that does not parse or contradicts itself.
    Malformed,
    /// About something else: another type of record, a name that is no ePDG's.
    Other,
    /// An answer that came in from neither the uplink nor the box: somebody pretends to be the resolver.
    Spoofed,
    /// An answer to a question that nobody asked, or that was answered often enough.
    Unasked,
    /// An answer to a question of another spelling.
    Respelled,
    /// An answer without addresses.
    Empty,
    /// An address that may not be an endpoint, of an IKE exchange.
    Refused,
}

impl Fate {
    /// All.
    pub const ALL: [Self; 12] = [
        Self::Waiting,
        Self::Taken,
        Self::Stale,
        Self::Unknown,
        Self::Elsewhere,
        Self::Malformed,
        Self::Other,
        Self::Spoofed,
        Self::Unasked,
        Self::Respelled,
        Self::Empty,
        Self::Refused,
    ];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Taken => "taken",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Elsewhere => "elsewhere",
            Self::Malformed => "malformed",
            Self::Other => "other",
            Self::Spoofed => "spoofed",
            Self::Unasked => "unasked",
            Self::Respelled => "respelled",
            Self::Empty => "empty",
            Self::Refused => "refused",
        }
    }
}

/// What an event is judged by.
pub struct Context<'a> {
    /// Where answers may come in.
    pub origins: &'a Origins,
    /// Which addresses may be endpoints.
    pub filter: &'a Filter,
    /// Whether an interface is one that is looked at.
    pub watched: &'a dyn Fn(u32) -> bool,
    /// Whose a name is; `None` if it is no ePDG's.
    pub owners: &'a dyn Fn(&str) -> Option<BTreeSet<Owner>>,
    /// Where an address is.
    pub country: &'a dyn Fn(IpAddr) -> Option<Country>,
    /// Whether clients are seen by their own addresses, and not behind a NAT.
    pub clients: bool,
    /// Now, on the clock of the events.
    pub ktime: u64,
    /// Now.
    pub now: SystemTime,
}

/// What a DNS answer has to agree with its question in, but for the spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NameKey {
    ends: Ends,
    id: u16,
    family: Family,
    name: String,
}

/// Between whom, and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    ifindex: u32,
    vlan: u16,
    client: IpAddr,
    client_port: u16,
    far: IpAddr,
    far_port: u16,
}

impl Ends {
    fn of(event: &Event) -> Self {
        Self {
            ifindex: event.ifindex,
            vlan: event.vlan,
            client: event.client,
            client_port: event.client_port,
            far: event.far,
            far_port: event.far_port,
        }
    }
}

/// What is known of clients' packets.
#[derive(Debug)]
pub struct Snoop {
    /// When this agent began to read, on the clock of the events.
    started: u64,
    names: Waiting<NameKey, Vec<u8>>,
    peers: Waiting<(Ends, [u8; 8]), ()>,
    clients: Clients,
    candidates: Candidates,
    fates: BTreeMap<(Option<EventKind>, Fate), u64>,
}

impl Snoop {
    /// Nothing seen yet; `ktime` is now.
    #[must_use]
    pub fn new(ktime: u64) -> Self {
        Self {
            started: ktime,
            names: Waiting::new(PATIENCE.as_nanos() as u64, WAITING),
            peers: Waiting::new(IKE_PATIENCE.as_nanos() as u64, WAITING),
            clients: Clients::default(),
            candidates: Candidates::default(),
            fates: BTreeMap::new(),
        }
    }

    /// Takes an event in, or what should have been one.
    pub fn take(&mut self, event: Option<&Event>, context: &Context<'_>) -> Option<Found> {
        let (fate, found) = match event {
            None => (Fate::Unknown, None),
            Some(event) => match self.judge(event, context) {
                Ok(found) => (found.fate(), Some(found)),
                Err(fate) => (fate, None),
            },
        };
        let kind = event.map(|event| event.kind);
        *self.fates.entry((kind, fate)).or_default() += 1;
        found
    }

    fn judge(&mut self, event: &Event, context: &Context<'_>) -> Result<Found, Fate> {
        let age = context.ktime.saturating_sub(event.at);
        if event.at < self.started || age > FRESH.as_nanos() as u64 {
            return Err(Fate::Stale);
        }
        if !(context.watched)(event.ifindex) {
            return Err(Fate::Elsewhere);
        }
        match event.kind {
            EventKind::NameQuery => self.query(event, context),
            EventKind::NameAnswer => self.answer(event, context),
            EventKind::IkeRequest => self.request(event, context),
            EventKind::IkeResponse => self.response(event, context),
            EventKind::Flow => Err(Fate::Other),
        }
    }

    fn query(&mut self, event: &Event, context: &Context<'_>) -> Result<Found, Fate> {
        let question = message::query(&event.data)?;
        let owners = (context.owners)(&question.name).ok_or(Fate::Other)?;
        if context.clients {
            let Self { clients, .. } = self;
            clients.note(event.client, &question.name, || owners, context.now);
        }
        let key = NameKey {
            ends: Ends::of(event),
            id: question.id,
            family: question.family,
            name: question.name,
        };
        let found = Found::Query {
            name: key.name.as_str().into(),
            client: event.client,
        };
        self.names.ask(key, question.wire, event.at);
        Ok(found)
    }

    fn answer(&mut self, event: &Event, context: &Context<'_>) -> Result<Found, Fate> {
        // First of all, whatever it says: a client that pretends to be the resolver is to be seen as such.
        if !context.origins.admit(event.ingress_ifindex) {
            return Err(Fate::Spoofed);
        }
        let message::Answer { question, said } = message::answer(&event.data)?;
        if (context.owners)(&question.name).is_none() {
            return Err(Fate::Other);
        }
        let key = NameKey {
            ends: Ends::of(event),
            id: question.id,
            family: question.family,
            name: question.name,
        };
        let asked = self.names.answer(&key, event.at).ok_or(Fate::Unasked)?;
        if *asked != question.wire {
            return Err(Fate::Respelled);
        }
        let (addresses, ttl) = match said {
            Said::Addresses(addresses, ttl) => (addresses, ttl),
            Said::Truncated => (Vec::new(), Duration::ZERO),
            Said::None => {
                return Ok(Found::Empty {
                    name: key.name.into(),
                    client: event.client,
                });
            }
        };
        Ok(Found::Answer(Answered {
            name: key.name.into(),
            addresses,
            ttl,
            client: event.client,
        }))
    }

    fn request(&mut self, event: &Event, context: &Context<'_>) -> Result<Found, Fate> {
        let spi = initiator(&event.data)?;
        context.filter.check(event.far).map_err(|_| Fate::Refused)?;
        self.peers.ask((Ends::of(event), spi), (), event.at);
        Ok(Found::Asked {
            address: event.far,
            client: event.client,
        })
    }

    fn response(&mut self, event: &Event, context: &Context<'_>) -> Result<Found, Fate> {
        if !context.origins.admit(event.ingress_ifindex) {
            return Err(Fate::Spoofed);
        }
        let spi = initiator(&event.data)?;
        self.peers
            .answer(&(Ends::of(event), spi), event.at)
            .ok_or(Fate::Unasked)?;
        Ok(Found::Peer {
            address: event.far,
            client: event.client,
        })
    }

    /// Notes an address that answered IKE; whether it is a new candidate.
    pub fn note_candidate(&mut self, address: IpAddr, context: &Context<'_>) -> bool {
        let country = || (context.country)(address);
        self.candidates.note(address, country, context.now)
    }

    /// Forgets what has had its time.
    pub fn expire(&mut self, now: SystemTime) {
        self.clients.expire(now);
        self.candidates.expire(now);
    }

    /// Which carriers' names clients asked for.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Addresses that answered IKE.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// How many events of a kind had which fate, since the start.
    pub fn fates(&self) -> impl Iterator<Item = (Option<EventKind>, Fate, u64)> {
        let counts = self.fates.iter();
        counts.map(|((kind, fate), count)| (*kind, *fate, *count))
    }

    /// Questions that wait for their answers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.names.len() + self.peers.len()
    }

    /// Questions that made room for others, since the start.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.names.displaced() + self.peers.displaced()
    }
}

impl From<Bad> for Fate {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Other => Self::Other,
            Bad::Malformed => Self::Malformed,
        }
    }
}

/// The initiator's SPI of an IKE header (RFC 7296 §3.1).
fn initiator(header: &[u8]) -> Result<[u8; 8], Fate> {
    header.first_chunk().copied().ok_or(Fate::Malformed)
}

#[cfg(test)]
#[path = "snoop_tests.rs"]
mod tests;
