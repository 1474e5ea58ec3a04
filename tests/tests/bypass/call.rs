//! A call: an IKE_SA_INIT, then fifty numbered ESP packets a second each way.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use wificall_tests::bypass::{Arrival, Bypass, Country, NAMES, PHONES, Watch};
use wificall_tests::send::{self, NATT};

/// Between two packets of a direction, as voice codecs have it.
pub const TICK: Duration = Duration::from_millis(20);
const LENGTH: usize = 160;
/// After the last packet, until it has arrived.
const LINGER: Duration = Duration::from_millis(100);
/// What is later than this is no use to a call: about what its jitter buffer holds.
const LATE: Duration = Duration::from_millis(200);
pub const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What one end has sent and heard.
pub struct Said {
    /// When each was sent, from number 1 on.
    pub sent: Vec<Instant>,
    pub heard: Vec<(u32, Instant)>,
}

/// Two ends that talk, fifty numbered packets a second each way.
pub struct Talk {
    mute: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    ends: [JoinHandle<Result<Said>>; 2],
}

impl Talk {
    /// Begins: the near end talks to `to`, the far end to where it is spoken to from.
    pub fn start(near: UdpSocket, to: SocketAddr, far: UdpSocket) -> Self {
        let (mute, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let end = |socket: UdpSocket, peer: Option<SocketAddr>| {
            let flags = (Arc::clone(&mute), Arc::clone(&stop));
            thread::spawn(move || talk(&socket, peer, &flags.0, &flags.1))
        };
        let ends = [end(near, Some(to)), end(far, None)];
        Self { mute, stop, ends }
    }

    /// Ends; what the near and the far end have said and heard.
    pub fn finish(self) -> Result<[Said; 2]> {
        self.mute.store(true, Ordering::Release);
        thread::sleep(LINGER);
        self.stop.store(true, Ordering::Release);
        let [near, far] = self
            .ends
            .map(|end| end.join().map_err(|_| anyhow!("an end panicked"))?);
        Ok([near?, far?])
    }
}

/// How much of what one end said the other has not heard in time, and the longest time between two packets.
pub fn missed(said: &Said, heard: &Said) -> Result<(usize, Duration)> {
    // A dead gateway's kernel sends what waited in it when it is alive again: too late to be heard.
    let in_time = |(number, at): &&(u32, Instant)| *at - said.sent[*number as usize - 1] < LATE;
    let heard: Vec<_> = heard.heard.iter().filter(in_time).collect();
    let pauses = heard.windows(2).map(|two| two[1].1 - two[0].1);
    let longest = pauses.max().context("nothing was heard")?;
    Ok((said.sent.len() - heard.len(), longest))
}

/// A running call.
pub struct Call {
    to: IpAddr,
    talk: Talk,
}

/// What a call came to.
pub struct Ended {
    /// What of it arrived where on the way up, in order.
    pub up: Vec<Arrival>,
    pub lost_up: usize,
    pub lost_down: usize,
    /// The longest time that the phone heard nothing, between two packets.
    pub silence: Duration,
}

impl Call {
    /// Begins one of a phone with a country's ePDG, IPv4 (0) or IPv6 (1), over which packets go already.
    pub fn start(scene: &Bypass, phone: usize, country: &Country, family: usize) -> Result<Self> {
        let (from, to) = (PHONES[phone][family], country.epdg[family]);
        let (from, to) = (send::address(from, 0)?, send::address(to, NATT)?);
        let near = send::udp(&scene.phones[phone], &from.to_string())?;
        let far = send::udp(&scene.internet, &to.to_string())?;
        near.send_to(&send::ike_behind_marker(300), to)?;
        Ok(Self {
            to: to.ip(),
            talk: Talk::start(near, to, far),
        })
    }

    /// Hangs up. What comes out makes an account of what arrived.
    pub fn finish(self) -> Result<impl FnOnce(&[Arrival]) -> Result<Ended>> {
        let [near, far] = self.talk.finish()?;
        let to = self.to;
        Ok(move |arrivals: &[Arrival]| {
            let up: Vec<_> = arrivals.iter().filter(|it| it.to == to).copied().collect();
            let numbers: BTreeSet<_> = up.iter().filter_map(|it| it.number).collect();
            ensure!(numbers.len() == up.len(), "a packet arrived twice");
            let (lost_down, silence) = missed(&far, &near)?;
            Ok(Ended {
                lost_up: near.sent.len() - numbers.len(),
                lost_down,
                silence,
                up,
            })
        })
    }
}

/// One end: sends at each tick, to where it was spoken to from last if nobody is given, and hears meanwhile.
fn talk(
    socket: &UdpSocket,
    peer: Option<SocketAddr>,
    mute: &AtomicBool,
    stop: &AtomicBool,
) -> Result<Said> {
    let mut said = Said {
        sent: Vec::new(),
        heard: Vec::new(),
    };
    let (mut last, mut due) = (peer, Instant::now());
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Acquire) {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            due += TICK;
            if let Some(to) = last.filter(|_| !mute.load(Ordering::Acquire)) {
                said.sent.push(Instant::now());
                let number = said.sent.len() as u32;
                socket
                    .send_to(&send::esp(number, LENGTH), to)
                    .with_context(|| format!("packet {number} to {to}"))?;
            }
            continue;
        }
        socket.set_read_timeout(Some(wait))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                last = peer.or(Some(from));
                // The SPI of IKE behind its marker is zero.
                if buffer[..4] != [0; 4]
                    && let Some(number) = send::esp_sequence(&buffer[..length])
                {
                    said.heard.push((number, Instant::now()));
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error).context("hear"),
        }
    }
    Ok(said)
}

/// Two calls at once, of phone `a` with a country's ePDG over IPv4 and IPv6.
pub struct Calls {
    calls: [Call; 2],
    pub watch: Watch,
}

impl Calls {
    /// Begins them, and waits until they go by `place`.
    pub fn start(scene: &Bypass, country: &Country, place: usize) -> Result<Self> {
        let epdgs = country.epdg.map(str::parse::<IpAddr>);
        let epdgs = [epdgs[0].clone()?, epdgs[1].clone()?];
        // Of the calls alone, not of what others send meanwhile.
        let watch = Watch::of(scene, move |it| {
            epdgs.contains(&it.to) && it.number.is_some()
        })?;
        let calls = [
            Call::start(scene, 0, country, 0)?,
            Call::start(scene, 0, country, 1)?,
        ];
        let calls = Self { calls, watch };
        calls
            .watch
            .wait_more(place, 50)
            .context("the calls begin")?;
        Ok(calls)
    }

    /// Hangs up; IPv4, then IPv6.
    pub fn finish(self) -> Result<[Ended; 2]> {
        let [four, six] = self.calls;
        let (four, six) = (four.finish()?, six.finish()?);
        let arrivals = self.watch.finish()?;
        Ok([four(&arrivals)?, six(&arrivals)?])
    }
}

impl Ended {
    /// The places that its packets took, each with how many in a row.
    pub fn way(&self) -> Vec<(&'static str, usize)> {
        let mut way: Vec<(&str, usize)> = Vec::new();
        for arrival in &self.up {
            let name = NAMES[arrival.place];
            match way.last_mut() {
                Some((last, count)) if *last == name => *count += 1,
                _ => way.push((name, 1)),
            }
        }
        way
    }

    /// From the last packet at the first place to the first anywhere else.
    pub fn gap(&self, from: usize) -> Result<Duration> {
        let next = self.up.iter().position(|it| it.place != from);
        let next = next.with_context(|| format!("nothing but at {}", NAMES[from]))?;
        let last = next.checked_sub(1);
        let last = last.with_context(|| format!("nothing at {} at first", NAMES[from]))?;
        Ok(self.up[next].time - self.up[last].time)
    }
}

/// A phone begins a tunnel with a country's ePDG; where its IKE_SA_INIT goes.
pub fn begins(scene: &Bypass, phone: usize, to: &str) -> Result<Option<usize>> {
    let target: IpAddr = to.parse()?;
    let from: IpAddr = PHONES[phone][usize::from(target.is_ipv6())].parse()?;
    let watch = Watch::of(scene, move |it| {
        it.to == target && it.from == from && it.ports.is_some_and(|(_, to)| to == send::IKE)
    })?;
    let socket = scene.phones[phone].enter(|| UdpSocket::bind((from, 0)))?;
    socket.send_to(&send::ike_sa_init(300), (target, send::IKE))?;
    // One that goes nowhere is known by what does not come.
    let start = Instant::now();
    while watch.all() == 0 && start.elapsed() < Duration::from_millis(300) {
        thread::sleep(Duration::from_millis(2));
    }
    let seen = watch.finish()?;
    ensure!(seen.len() < 2, "{seen:?}");
    Ok(seen.first().map(|it| it.place))
}
