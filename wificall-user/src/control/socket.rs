//! The control socket: one JSON question a line, one JSON answer a line.
//!
//! Only root reaches it. It is made while the instance's lock is held, so whatever lies at its path is stale.

use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast::error::RecvError};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Following, Refused, Requests, Told};
use crate::explanation::{Explanation, Packet};
use crate::export::Set;
use crate::observe::Report;
use crate::telemetry::select::Wanted;
use crate::telemetry::tracker::Id;
use crate::telemetry::view::{Overview, TraceEvent, Tunnels};

/// A question is a word or two, or has two packets in hex.
const QUESTION_MAX: u64 = 4 * crate::explanation::FRAME_MAX as u64 + 4096;
/// The world's catalogue gives a report of a few megabytes.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// An event is a few hundred bytes.
const EVENT_MAX: u64 = 64 * 1024;
/// Connections served at a time; further ones wait.
const CONNECTIONS: usize = 16;
/// Of these, those that follow what happens: they stay.
const FOLLOWERS: usize = 8;
/// One that follows and takes nothing for so long has stopped: it makes room for another.
const FOLLOWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Addresses that one phone is followed by, as it roams.
const ADDRESSES: usize = 64;
/// Within this a client asks, and takes its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Within this the loop reports. It may be loading programs, which takes seconds on small boxes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Within this the loop reloads.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// What can be asked: `"report"`, `{"trace":{"clients":[]}}` and so on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Report.
    Report,
    /// Tell the endpoint set.
    Endpoints,
    /// Tell the numbers of all tunnels, by activity: to ask for them a few at a time.
    TunnelIds,
    /// Tell tunnels, with clients' addresses: only root asks here.
    Tunnels(Wanted),
    /// Tell what there is at a glance.
    Overview,
    /// Tell what happens from now on: the answers to come are one [`Answer::Following`], and then one for each event, until
    /// whoever asks goes. Nothing else can be asked on this connection.
    Trace {
        /// Only what is about these phones; all if there are none.
        clients: Vec<IpAddr>,
    },
    /// Explain what is done with a packet.
    Explain(Box<Packet>),
    /// Read the configuration again.
    Reload,
}

/// What is answered: `{"report":{…}}` and so on. Not by a tag inside: to read that, all of an answer is kept in another form
/// first, and every type in it has code for both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The report.
    Report(Box<Report>),
    /// The endpoint set.
    Endpoints(Box<Set>),
    /// The numbers of all tunnels.
    TunnelIds(Vec<Id>),
    /// Tunnels.
    Tunnels(Box<Tunnels>),
    /// What there is at a glance.
    Overview(Box<Overview>),
    /// Events follow.
    Following {
        /// Whether flows are tracked (`telemetry.enabled`).
        tracked: bool,
        /// Whether phones' questions to DNS are seen (`snoop.names`).
        names: bool,
    },
    /// An event.
    Event(Box<TraceEvent>),
    /// Events were lost, of whatever phones.
    Lost {
        /// How many.
        events: u64,
        /// Where.
        place: Place,
    },
    /// What is done with a packet.
    Explanation(Box<Explanation>),
    /// The new configuration is in force.
    Reloaded,
    /// The old configuration stays in force.
    Refused(Refused),
    /// There is no answer.
    Error {
        /// Why.
        message: String,
    },
}

/// Where events are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the way out of the kernel: there were more than the agent is told.
    Kernel,
    /// At whoever follows: it did not read them in time.
    Reader,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent listens at {}\n  hint: start it with `wificall run`", .0.display())]
    NoAgent(PathBuf),
    /// Somebody may listen, but not to us, or answers nonsense.
    #[error("ask the agent at {}{}", path.display(), hint(source))]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says that it cannot.
    #[error("ask the agent at {}: {message}", path.display())]
    Agent {
        /// The socket.
        path: PathBuf,
        /// What it says.
        message: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "\n  hint: run as root",
        _ => "",
    }
}

/// Makes the socket, in place of a stale one. Needs a tokio runtime.
///
/// # Errors
///
/// If it cannot be made.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let making = || format!("make the control socket {}", path.display());
    // Moved to its place once its mode is right.
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(making);
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new).with_context(making)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&new, path))
        .with_context(making)?;
    Ok(listener)
}

/// Serves the socket until dropped.
///
/// # Errors
///
/// None: what fails concerns one connection.
pub async fn serve(listener: UnixListener, requests: Requests) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let followers = Arc::new(Semaphore::new(FOLLOWERS));
    loop {
        let place = places.clone().acquire_owned().await?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                let followers = followers.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &requests, &followers).await {
                        debug!("control connection: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others have to end first.
                warn!("accept a control connection: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    mut stream: UnixStream,
    requests: &Requests,
    followers: &Semaphore,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = timeout(CLIENT_TIMEOUT, read_line(&mut reader, QUESTION_MAX)).await?;
        let (answer, last) = match line {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(Question::Trace { clients }) => {
                    let Ok(_place) = followers.try_acquire() else {
                        let full = failed(format!(
                            "{FOLLOWERS} follow what happens already, and it has no room for more\n  \
                             hint: end another `wificall trace`"
                        ));
                        return write(&mut writer, &full).await;
                    };
                    let Ok(Some(following)) = timeout(REPORT_TIMEOUT, requests.trace()).await
                    else {
                        let busy = failed(
                            "it is busy, or going down\n  hint: try again; its log says what it does".into(),
                        );
                        return write(&mut writer, &busy).await;
                    };
                    return tell(&mut reader, &mut writer, following, clients).await;
                }
                Ok(question) => (answer(question, requests).await, false),
                Err(error) => (
                    failed(format!("this is no question that I know: {error}")),
                    true,
                ),
            },
            Ok(None) => return Ok(()),
            Err(error) => (failed(error.to_string()), true),
        };
        timeout(CLIENT_TIMEOUT, write(&mut writer, &answer)).await??;
        if last {
            return Ok(());
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(answer)?;
    bytes.push(b'\n');
    writer.write_all(&bytes).await
}

/// Tells what happens until the other end goes, or has stopped. One that reads slowly is waited for, and loses what does not
/// fit meanwhile.
async fn tell(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    following: Following,
    mut clients: Vec<IpAddr>,
) -> io::Result<()> {
    let Following {
        tracked,
        names,
        mut events,
    } = following;
    let telling = async {
        let begins = Answer::Following { tracked, names };
        timeout(FOLLOWER_TIMEOUT, write(writer, &begins)).await??;
        loop {
            let answer = match events.recv().await {
                Ok(Told::Event(event)) => {
                    if !clients.is_empty() && !is_about(&event, &mut clients) {
                        continue;
                    }
                    Answer::Event(Box::new((*event).clone()))
                }
                Ok(Told::Lost(events)) => Answer::Lost {
                    events,
                    place: Place::Kernel,
                },
                Err(RecvError::Lagged(events)) => Answer::Lost {
                    events,
                    place: Place::Reader,
                },
                Err(RecvError::Closed) => return Ok(()),
            };
            timeout(FOLLOWER_TIMEOUT, write(writer, &answer)).await??;
        }
    };
    let mut byte = [0];
    tokio::select! {
        told = telling => told,
        // Its end, or a word where none is expected.
        _ = reader.read(&mut byte) => Ok(()),
    }
}

/// Whether an event is about a phone with one of these addresses. Of one that has roamed, the new one is added.
pub fn is_about(event: &TraceEvent, clients: &mut Vec<IpAddr>) -> bool {
    let is = |address: &str| {
        let address: Option<IpAddr> = address.parse().ok();
        address.is_some_and(|address| clients.contains(&address))
    };
    if is(&event.client) {
        return true;
    }
    let has_roamed = event.from.as_deref().is_some_and(is);
    if has_roamed
        && clients.len() < ADDRESSES
        && let Ok(client) = event.client.parse()
    {
        clients.push(client);
    }
    has_roamed
}

async fn answer(question: Question, requests: &Requests) -> Answer {
    let answered = match question {
        Question::Report => timeout(REPORT_TIMEOUT, requests.report(true))
            .await
            .map(|report| match report {
                Some(report) => Answer::Report(Box::new(report)),
                None => failed("it cannot report now: its log says why".into()),
            }),
        Question::Endpoints => timeout(REPORT_TIMEOUT, requests.endpoints())
            .await
            .map(|set| match set {
                Some(set) => Answer::Endpoints(Box::new(set)),
                None => failed("it cannot tell its endpoints now: its log says why".into()),
            }),
        Question::TunnelIds => timeout(REPORT_TIMEOUT, requests.tunnel_ids())
            .await
            .map(|ids| match ids {
                Some(ids) => Answer::TunnelIds(ids),
                None => failed("it cannot tell its tunnels now: its log says why".into()),
            }),
        Question::Tunnels(wanted) => timeout(REPORT_TIMEOUT, requests.tunnels(wanted, true))
            .await
            .map(|tunnels| match tunnels {
                Some(tunnels) => Answer::Tunnels(Box::new(tunnels)),
                None => failed("it cannot tell its tunnels now: its log says why".into()),
            }),
        Question::Overview => timeout(REPORT_TIMEOUT, requests.overview())
            .await
            .map(|overview| match overview {
                Some(overview) => Answer::Overview(Box::new(overview)),
                None => failed("it cannot report now: its log says why".into()),
            }),
        Question::Explain(packet) => timeout(REPORT_TIMEOUT, requests.explain(*packet))
            .await
            .map(|explanation| match explanation {
                Some(explanation) => Answer::Explanation(Box::new(explanation)),
                None => failed("it cannot explain now: its log says why".into()),
            }),
        Question::Trace { .. } => Ok(failed("this is answered on a connection of its own".into())),
        Question::Reload => timeout(RELOAD_TIMEOUT, requests.reload())
            .await
            .map(|result| match result {
                Ok(()) => Answer::Reloaded,
                Err(refused) => Answer::Refused(refused),
            }),
    };
    answered.unwrap_or_else(|_| failed("it is busy".into()))
}

fn failed(message: String) -> Answer {
    Answer::Error { message }
}

async fn connect(path: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(path)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NoAgent(path.to_owned())
            }
            _ => AskError::Io {
                path: path.to_owned(),
                source,
            },
        })
}

/// What happens, as the agent tells it.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// Follows what happens to these phones, or to all if none is named. Needs a tokio runtime.
///
/// # Errors
///
/// If nobody listens there.
pub async fn follow(path: &Path, clients: Vec<IpAddr>) -> Result<Stream, AskError> {
    let mut stream = connect(path).await?;
    let io = |source| AskError::Io {
        path: path.to_owned(),
        source,
    };
    let question = serde_json::to_vec(&Question::Trace { clients });
    let mut line = question.map_err(|error| io(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(io)?;
    Ok(Stream {
        path: path.to_owned(),
        reader: BufReader::new(stream),
        line: Vec::new(),
    })
}

impl Stream {
    /// The next answer; `None` when the agent has ended, or has let go of one that did not read. What was read of one is kept if this is not waited for.
    ///
    /// # Errors
    ///
    /// What the agent says, or why it cannot be read.
    pub async fn next(&mut self) -> Result<Option<Answer>, AskError> {
        let Self { path, reader, line } = self;
        let io = |source| AskError::Io {
            path: path.clone(),
            source,
        };
        let room = EVENT_MAX.saturating_sub(line.len() as u64);
        let mut rest = (&mut *reader).take(room);
        rest.read_until(b'\n', line).await.map_err(io)?;
        if line.last() != Some(&b'\n') {
            return match line.len() as u64 {
                EVENT_MAX.. => Err(io(too_long(EVENT_MAX))),
                _ => Ok(None),
            };
        }
        let answer = serde_json::from_slice(line).map_err(|error| io(error.into()));
        line.clear();
        match answer? {
            Answer::Error { message } => Err(AskError::Agent {
                path: path.clone(),
                message,
            }),
            answer => Ok(Some(answer)),
        }
    }
}

/// Asks the agent at the other end of the socket. Needs a tokio runtime.
///
/// # Errors
///
/// If nobody listens there, or the question cannot be answered. [`Answer::Error`] is returned as an error.
pub async fn ask(path: &Path, question: Question) -> Result<Answer, AskError> {
    let io = |source| AskError::Io {
        path: path.to_owned(),
        source,
    };
    let stream = connect(path).await?;
    let patience = CLIENT_TIMEOUT
        + match question {
            Question::Report
            | Question::Endpoints
            | Question::TunnelIds
            | Question::Tunnels(_)
            | Question::Overview
            | Question::Trace { .. }
            | Question::Explain(_) => REPORT_TIMEOUT,
            Question::Reload => RELOAD_TIMEOUT,
        };
    match timeout(patience, exchange(stream, question)).await {
        Ok(Ok(Answer::Error { message })) => Err(AskError::Agent {
            path: path.to_owned(),
            message,
        }),
        Ok(answer) => answer.map_err(io),
        Err(elapsed) => Err(io(elapsed.into())),
    }
}

async fn exchange(mut stream: UnixStream, question: Question) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let answer = read_line(&mut BufReader::new(stream), ANSWER_MAX)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(&answer)?)
}

/// A line without its end; `None` at the end of the stream.
///
/// # Errors
///
/// `InvalidData` if it is longer than `max` bytes, is not UTF-8, or does not end.
async fn read_line(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
    max: u64,
) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.take(max).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(line) => Ok(Some(line.to_owned())),
        None => Err(too_long(max)),
    }
}

fn too_long(max: u64) -> io::Error {
    let why = format!("a line ends with a newline and has at most {max} bytes");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Request;
    use crate::explanation::Hex;
    use crate::export::set::Text;

    /// A loop that answers as told, and the path of a socket to it.
    fn agent(reload: Result<(), Refused>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        // Left by one that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (requests, mut requested) = Requests::channel();
        tokio::spawn(serve(bind(&path).unwrap(), requests));
        tokio::spawn(async move {
            while let Some(request) = requested.recv().await {
                match request {
                    Request::Report { asker, .. } => drop(asker.send(Report {
                        instance: "lab".into(),
                        pid: Some(7),
                        ..Report::default()
                    })),
                    Request::Endpoints(answer) => drop(answer.send(crate::export::set::sample())),
                    Request::Explain(packet, answer) => {
                        drop(answer.send(crate::explanation::sample(&packet)));
                    }
                    Request::Reload(answer) => drop(answer.send(reload.clone())),
                    Request::TunnelIds(answer) => drop(answer.send(vec![7, 3])),
                    Request::Tunnels {
                        wanted: Wanted::These(ids),
                        clients,
                        asker,
                    } => drop(asker.send(Tunnels {
                        enabled: clients,
                        found: ids.len() as u64,
                        ..Tunnels::default()
                    })),
                    Request::Tunnels { .. } => {}
                    Request::Trace(answer) => drop(answer.send(following())),
                    Request::Overview(answer) => drop(answer.send(Overview {
                        calls_total: 3,
                        ..Overview::default()
                    })),
                }
            }
        });
        (directory, path)
    }

    /// Two events of two phones, and then the end.
    fn following() -> Following {
        let (sender, events) = tokio::sync::broadcast::channel(4);
        for client in ["192.0.2.7", "192.0.2.8"] {
            let event = TraceEvent {
                client: client.into(),
                ..TraceEvent::default()
            };
            sender.send(Told::Event(Arc::new(event))).unwrap();
        }
        Following {
            tracked: true,
            names: false,
            events,
        }
    }

    #[tokio::test]
    async fn what_happens_is_told_of_those_that_were_asked_for() {
        let (_directory, path) = agent(Ok(()));
        let one = vec!["192.0.2.8".parse().unwrap()];
        for (clients, expected) in [
            (one, &["192.0.2.8"][..]),
            (Vec::new(), &["192.0.2.7", "192.0.2.8"]),
        ] {
            let mut stream = follow(&path, clients).await.unwrap();
            let begins = stream.next().await.unwrap().unwrap();
            assert_eq!(
                begins,
                Answer::Following {
                    tracked: true,
                    names: false
                }
            );
            let mut told = Vec::new();
            while let Some(answer) = stream.next().await.unwrap() {
                let Answer::Event(event) = answer else {
                    panic!("{answer:?}");
                };
                told.push(event.client);
            }
            assert_eq!(told, expected);
        }
    }

    #[tokio::test]
    async fn an_event_without_an_end_is_not_read_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Until nobody reads it any more.
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
        });
        let mut stream = follow(&path, Vec::new()).await.unwrap();
        let error = stream.next().await.unwrap_err().to_string();
        assert!(error.contains("ask the agent at "), "{error}");
        assert!(stream.line.len() as u64 <= EVENT_MAX);
        // Nor is it taken for the agent's end the next time.
        assert!(stream.next().await.is_err());
    }

    #[tokio::test]
    async fn those_who_follow_leave_room_for_those_who_ask() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (requests, mut requested) = Requests::channel();
        tokio::spawn(serve(bind(&path).unwrap(), requests));
        let (sender, _events) = tokio::sync::broadcast::channel(4);
        tokio::spawn(async move {
            while let Some(request) = requested.recv().await {
                match request {
                    Request::Trace(answer) => drop(answer.send(Following {
                        tracked: true,
                        names: true,
                        events: sender.subscribe(),
                    })),
                    Request::Overview(answer) => drop(answer.send(Overview::default())),
                    _ => {}
                }
            }
        });
        let mut followers = Vec::new();
        for _ in 0..FOLLOWERS {
            let mut stream = follow(&path, Vec::new()).await.unwrap();
            assert!(stream.next().await.unwrap().is_some());
            followers.push(stream);
        }
        let mut late = follow(&path, Vec::new()).await.unwrap();
        let full = late.next().await.unwrap_err().to_string();
        assert!(full.contains("8 follow what happens already"), "{full}");
        assert!(full.contains("hint: end another"), "{full}");
        assert!(ask(&path, Question::Overview).await.is_ok());
        // One that goes makes room.
        followers.pop();
        let again = async {
            loop {
                let mut stream = follow(&path, Vec::new()).await.unwrap();
                if stream.next().await.is_ok() {
                    return;
                }
            }
        };
        timeout(CLIENT_TIMEOUT, again).await.unwrap();
    }

    /// What is told to followers of these clients.
    fn told(events: Vec<Told>) -> Following {
        let (sender, receiver) = tokio::sync::broadcast::channel(64);
        for event in events {
            sender.send(event).unwrap();
        }
        Following {
            tracked: true,
            names: true,
            events: receiver,
        }
    }

    fn of(client: &str, from: Option<&str>) -> Told {
        Told::Event(Arc::new(TraceEvent {
            client: client.into(),
            from: from.map(str::to_owned),
            ..TraceEvent::default()
        }))
    }

    #[tokio::test]
    async fn a_phone_that_roams_is_followed_on_and_losses_are_told_to_all() {
        let following = told(vec![
            of("192.0.2.9", None),
            of("192.0.2.9", Some("192.0.2.7")),
            of("192.0.2.9", None),
            of("192.0.2.8", Some("192.0.2.6")),
            Told::Lost(5),
        ]);
        let (mut writer, mut printed) = (Vec::new(), Vec::new());
        // The other end stays.
        let (mut open, _end) = tokio::io::duplex(1);
        let clients = vec!["192.0.2.7".parse().unwrap()];
        tell(&mut open, &mut writer, following, clients)
            .await
            .unwrap();
        for line in writer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line).unwrap() {
                Answer::Event(event) => printed.push((event.client, event.from)),
                Answer::Lost { events, place } => {
                    printed.push((events.to_string(), Some(format!("{place:?}"))));
                }
                _ => {}
            }
        }
        let expected = [
            ("192.0.2.9", Some("192.0.2.7")),
            ("192.0.2.9", None),
            ("5", Some("Kernel")),
        ];
        assert_eq!(
            printed,
            expected.map(|(one, other)| (one.to_owned(), other.map(str::to_owned)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stops_reading_makes_room() {
        let (sender, events) = tokio::sync::broadcast::channel(64);
        let following = Following {
            tracked: true,
            names: true,
            events,
        };
        for _ in 0..10 {
            sender.send(of("192.0.2.7", None)).unwrap();
        }
        // It is there, and takes no more than a few bytes.
        let (near, _far) = tokio::io::duplex(64);
        let (mut reader, mut writer) = tokio::io::split(near);
        let began = tokio::time::Instant::now();
        let ended = tell(&mut reader, &mut writer, following, Vec::new()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), FOLLOWER_TIMEOUT);
        drop(sender);
    }

    #[tokio::test]
    async fn questions_are_answered() {
        let refused = Refused {
            message: "wificall.toml:1:1: …".into(),
            configuration: true,
        };
        let (_directory, path) = agent(Err(refused.clone()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let Ok(Answer::Report(report)) = ask(&path, Question::Report).await else {
            panic!("no report");
        };
        assert_eq!((report.instance.as_str(), report.pid), ("lab", Some(7)));
        let answer = ask(&path, Question::Endpoints).await.unwrap();
        let sample = crate::export::set::sample();
        assert_eq!(answer, Answer::Endpoints(Box::new(sample)));
        let Ok(Answer::TunnelIds(ids)) = ask(&path, Question::TunnelIds).await else {
            panic!("no numbers");
        };
        let wanted = Question::Tunnels(Wanted::These(ids));
        let Ok(Answer::Tunnels(tunnels)) = ask(&path, wanted).await else {
            panic!("no tunnels");
        };
        assert!(tunnels.enabled, "with clients' addresses");
        assert_eq!(tunnels.found, 2);
        let Ok(Answer::Overview(overview)) = ask(&path, Question::Overview).await else {
            panic!("no overview");
        };
        assert_eq!(overview.calls_total, 3);
        // The largest packets that can be asked about.
        let largest = Hex(vec![0x45; crate::explanation::FRAME_MAX]);
        let packet = Packet {
            frame: Text(largest.clone()),
            link: None,
            direction: None,
            interface: None,
            client_mac: None,
            first_fragment: Some(Text(largest)),
        };
        let sample = crate::explanation::sample(&packet);
        let question = Question::Explain(Box::new(packet));
        let answer = ask(&path, question).await.unwrap();
        assert_eq!(answer, Answer::Explanation(Box::new(sample)));
        let answer = ask(&path, Question::Reload).await.unwrap();
        assert_eq!(answer, Answer::Refused(refused));
        let (_directory, path) = agent(Ok(()));
        let answer = ask(&path, Question::Reload).await.unwrap();
        assert_eq!(answer, Answer::Reloaded);
    }

    /// What is answered to what is written.
    async fn raw(path: &Path, question: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(question).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_connection_takes_several_questions_and_no_nonsense() {
        let (_directory, path) = agent(Ok(()));
        let question = b"\"reload\"\n".repeat(2);
        let reloaded = "\"reloaded\"\n";
        assert_eq!(raw(&path, &question).await, reloaded.repeat(2));
        assert_eq!(raw(&path, b"").await, "");
        let long = vec![b' '; QUESTION_MAX as usize + 1];
        for nonsense in [
            b"{}\n".as_slice(),
            b"\"stop\"\n",
            b"\"report\"",
            b"\xff\n",
            &long,
        ] {
            let answer = raw(&path, nonsense).await;
            assert!(answer.starts_with("{\"error\":{\"message\":"), "{answer}");
        }
    }

    #[tokio::test]
    async fn silence_is_told_from_absence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let absent = ask(&path, Question::Report).await;
        assert!(matches!(absent, Err(AskError::NoAgent(_))), "{absent:?}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let stale = ask(&path, Question::Report).await;
        assert!(matches!(stale, Err(AskError::NoAgent(_))), "{stale:?}");
        // A loop that is gone.
        let (requests, requested) = Requests::channel();
        drop(requested);
        tokio::spawn(serve(bind(&path).unwrap(), requests));
        let mute = ask(&path, Question::Report).await;
        assert!(matches!(mute, Err(AskError::Agent { .. })), "{mute:?}");
    }
}
