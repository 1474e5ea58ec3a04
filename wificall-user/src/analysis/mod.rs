//! What a capture tells of tunnels and calls: the classifier and the arithmetic of the kernel, and the tracker of the agent,
//! over a file. A file is read once to find who speaks as an ePDG, unless that is said, and once to follow them. What is
//! kept is bounded whatever the file says: flows, candidates, guesses, gaps and events by the constants of this module.

mod endpoints;
mod flows;
mod follow;
mod report;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use wificall_common::abi::FragmentKey;
use wificall_common::classify::{Match, classify, fragment_key};
use wificall_common::exit::Exit;
use wificall_common::wire::Fragment;
use wificall_common::{Class, Direction};

use crate::capture::{self, CaptureError, Frames, LinkType};
use crate::telemetry::totals::Whose;

pub use endpoints::Source;
pub use flows::{CANDIDATES_MAX, FLOWS_MAX, GAPS_MAX};
pub use follow::EVENTS_MAX;
pub use report::{Analysis, Both, Endpoint, FlowReport, GapReport, Leg, Passed};

use endpoints::{Endpoints, Guesses, Known};
use flows::{Flows, Subject};
use follow::Follower;

/// First fragments that are remembered.
const FIRSTS_MAX: usize = 1_024;
/// Endpoints that packets went to or came from, as the report lists them.
const ENDPOINTS_MAX: usize = 16_384;
/// The latest time that is believed: what is later is taken for it. 2200-01-01, in nanoseconds since 1970-01-01 UTC.
const LATEST: u64 = 7_258_118_400_000_000_000;

/// What is known beforehand.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Endpoints; if there are any, none is guessed.
    pub endpoints: Vec<IpNet>,
}

/// Analyses a capture.
///
/// # Errors
///
/// If nothing of it can be read. What is behind a place that cannot be read is told in [`Analysis::stopped`].
pub fn analyze(path: &Path, options: &Options) -> Result<Analysis, CaptureError> {
    analyze_frames(|| capture::open(path), options)
}

/// Likewise of what `open` opens, which is done twice if endpoints are to be guessed.
///
/// # Errors
///
/// Likewise.
pub fn analyze_frames<R: Read>(
    open: impl Fn() -> Result<Frames<R>, CaptureError>,
    options: &Options,
) -> Result<Analysis, CaptureError> {
    let mut guesses = Guesses::default();
    if options.endpoints.is_empty() {
        for frame in open()? {
            // The second reading tells.
            let Ok(frame) = frame else { break };
            if let Some(packet) = frame.packet() {
                guesses.see(&packet.bytes, packet.link);
            }
        }
    }
    let named = options.endpoints.iter().map(|net| Known {
        net: *net,
        source: Source::Named,
        owners: endpoints::owners(*net),
    });
    let known = named
        .chain(endpoints::of_catalogue().iter().cloned())
        .chain(guesses.known());
    let mut analyzer = Analyzer::new(Endpoints::new(known));
    for frame in open()? {
        match frame {
            Ok(frame) => analyzer.take(&frame),
            Err(error) if analyzer.frames == 0 => return Err(error),
            Err(error) => {
                analyzer.stopped = Some(error.to_string());
                break;
            }
        }
    }
    analyzer.must_be_read()?;
    Ok(analyzer.finish(&guesses))
}

/// Whose an endpoint is.
fn whose(endpoints: &Endpoints, address: [u8; 16]) -> Arc<Whose> {
    let known = endpoints.find(address);
    let owners = || known.iter().flat_map(|known| &known.owners);
    let joined = |parts: BTreeSet<String>| match parts.len() {
        0 => "none".to_owned(),
        _ => Vec::from_iter(parts).join("+"),
    };
    let operators = owners().filter_map(|owner| owner.plmn);
    let countries = owners().filter_map(|owner| owner.country);
    Arc::new(Whose {
        operator: joined(operators.map(|plmn| plmn.to_string()).collect()),
        country: joined(countries.map(|country| country.to_string()).collect()),
    })
}

/// What a fragment is of: source, destination, identification, protocol.
type Datagram = ([u8; 16], [u8; 16], u32, u8);

fn datagram(key: &FragmentKey) -> Datagram {
    (key.source, key.destination, key.id, key.protocol)
}

/// What is found on the way through a file.
struct Analyzer {
    endpoints: Endpoints,
    flows: Flows,
    follower: Follower,
    frames: u64,
    /// Nanoseconds since 1970-01-01 UTC; they never go back.
    now: u64,
    first: Option<u64>,
    stopped: Option<String>,
    passed: BTreeMap<Class, [Passed; 2]>,
    exits: BTreeMap<Exit, u64>,
    /// Frames that start with what cannot be read.
    foreign: BTreeMap<String, u64>,
    /// Frames whose time was before that of the one before them.
    backward: u64,
    /// Frames without a time.
    timeless: u64,
    /// Matches of which what counts was not captured.
    short: u64,
    firsts: VecDeque<Datagram>,
    first_classes: HashMap<Datagram, Class>,
    seen: BTreeMap<Vec<u8>, Endpoint>,
}

impl Analyzer {
    fn new(endpoints: Endpoints) -> Self {
        Self {
            endpoints,
            flows: Flows::default(),
            follower: Follower::new(),
            frames: 0,
            now: 0,
            first: None,
            stopped: None,
            passed: BTreeMap::new(),
            exits: BTreeMap::new(),
            foreign: BTreeMap::new(),
            backward: 0,
            timeless: 0,
            short: 0,
            firsts: VecDeque::new(),
            first_classes: HashMap::new(),
            seen: BTreeMap::new(),
        }
    }

    fn take(&mut self, frame: &capture::Frame) {
        self.frames += 1;
        self.advance(frame.at);
        let Some(packet) = frame.packet() else {
            if let LinkType::Other(_) = frame.link {
                *self.foreign.entry(frame.link.to_string()).or_default() += 1;
            } else {
                *self.exits.entry(Exit::Truncated).or_default() += 1;
            }
            return;
        };
        let bytes = &packet.bytes[..];
        let found = Direction::ALL.map(|direction| {
            self.recall(bytes, packet.link);
            classify(bytes, &self.endpoints.tables, packet.link, direction)
        });
        let (direction, found) = match found {
            [Ok(found), _] => (Direction::Up, found),
            [_, Ok(found)] => (Direction::Down, found),
            [Err(up), Err(down)] => {
                // The far end's port decides, and each end was taken for it once.
                let exit = if up == Exit::OtherPort { down } else { up };
                *self.exits.entry(exit).or_default() += 1;
                return;
            }
        };
        let captured = bytes.len() - (packet.missing as usize).min(bytes.len());
        self.matched(bytes, captured, direction, &found);
    }

    /// If there are frames, and none of them is of a kind that can be read.
    fn must_be_read(&self) -> Result<(), CaptureError> {
        let foreign: u64 = self.foreign.values().sum();
        if foreign == 0 || foreign < self.frames {
            return Ok(());
        }
        let links: Vec<_> = self.foreign.keys().map(String::as_str).collect();
        Err(CaptureError::Foreign {
            frames: foreign,
            links: links.join(", "),
        })
    }

    /// Goes on to a frame's time.
    fn advance(&mut self, at: Option<SystemTime>) {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let Some(since) = since else {
            self.timeless += 1;
            return;
        };
        let now = u64::try_from(since.as_nanos()).map_or(LATEST, |now| now.min(LATEST));
        if now < self.now {
            self.backward += 1;
            return;
        }
        self.now = now;
        let endpoints = &self.endpoints;
        let owners = |address| whose(endpoints, address);
        self.follower.advance(now, &mut self.flows, &owners);
        let _ = self.first.get_or_insert(now);
    }

    /// Gives the classifier the first fragment of this one's datagram, if it is a later one.
    fn recall(&mut self, bytes: &[u8], link: wificall_common::classify::Link) {
        let packet = wificall_common::classify::network(bytes, link).ok();
        let later = packet.filter(|packet| matches!(packet.fragment, Fragment::Later));
        let key = later.and_then(|packet| fragment_key(bytes, &packet));
        self.endpoints.tables.first =
            key.and_then(|key| Some((key, *self.first_classes.get(&datagram(&key))?)));
    }

    fn matched(&mut self, bytes: &[u8], captured: usize, direction: Direction, found: &Match) {
        let passed = self.passed.entry(found.class).or_default();
        let passed = &mut passed[direction as usize];
        passed.packets += 1;
        passed.bytes += found.packet.total_len as u64;
        if matches!(found.packet.fragment, Fragment::First)
            && let Some(key) = fragment_key(bytes, &found.packet).map(|key| datagram(&key))
            && self.first_classes.insert(key, found.class).is_none()
        {
            self.firsts.push_back(key);
            if self.firsts.len() > FIRSTS_MAX
                && let Some(oldest) = self.firsts.pop_front()
            {
                self.first_classes.remove(&oldest);
            }
        }
        if found.class == Class::Fragment {
            return;
        }
        let Some(subject) = Subject::of(bytes, captured, found, direction, self.now) else {
            self.short += 1;
            return;
        };
        self.meet(&subject);
        if let Some(told) = self.flows.see(&subject) {
            let endpoints = &self.endpoints;
            let owners = |address| whose(endpoints, address);
            self.follower.tell(self.now, subject.key, told, &owners);
        }
    }

    /// Notes the endpoint of a packet.
    fn meet(&mut self, subject: &Subject) {
        let key = subject.key.endpoint;
        if let Some(endpoint) = self.seen.get_mut(&key[..]) {
            endpoint.packets += 1;
        } else if self.seen.len() < ENDPOINTS_MAX
            && let Some(known) = self.endpoints.known(subject.slot)
        {
            self.seen.insert(key.to_vec(), Endpoint::new(key, known));
        }
    }
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
