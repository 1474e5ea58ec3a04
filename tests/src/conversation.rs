//! Conversations of a phone and an ePDG whose faults are known: what was lost, reordered, repeated, delayed or forged is
//! counted here, where it is made, to be compared with what is measured.
//!
//! Times are those of the point of observation. What is lost was lost before it came there: it is not among the packets.

mod kinds;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::kinds::all;
use crate::packet::Packet;

/// The interval of voice frames.
pub const VOICE: Duration = Duration::from_millis(20);
/// The interval of comfort noise (SID).
pub const NOISE: Duration = Duration::from_millis(160);
/// ESP bytes of a voice frame: with IPv4 and UDP 144, as AMR-WB 12.65 has.
const VOICE_BYTES: usize = 116;
/// Likewise of comfort noise.
const NOISE_BYTES: usize = 100;
/// When a conversation begins, in seconds since 1970-01-01 UTC.
const EPOCH: u64 = 1_800_000_000;
/// Headers before what UDP carries: Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the phone.
    Up = 0,
    /// To the phone.
    Down = 1,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// What is to be measured of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// ESP packets that come, of whatever kind.
    pub received: u64,
    /// Numbers that do not.
    pub lost: u64,
    /// Packets that come behind a later one.
    pub late: u64,
    /// Packets that come again.
    pub duplicate: u64,
    /// Packets with a forged number.
    pub stray: u64,
    /// How often the phone was away.
    pub anchored: u64,
    /// Intervals of comfort noise.
    pub pause: u64,
    /// Deviation from the interval of voice, in microseconds, once it has settled.
    pub jitter: u64,
}

/// A packet.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When, after the conversation began.
    pub at: Duration,
    /// Which way.
    pub way: Way,
    /// The phone's port.
    pub near: u16,
    /// The ePDG's.
    pub far: u16,
    /// What UDP carries, in the words of [`Packet`].
    pub words: String,
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Which fault it has.
    pub name: &'static str,
    /// Its packets, in order of time.
    pub packets: Vec<Sent>,
    /// What is to be measured, by [`Way`].
    pub truth: [Truth; 2],
    /// Whether that depends on when packets come, and not on their order alone.
    pub timed: bool,
}

impl Sent {
    /// The packet as an Ethernet frame, between these addresses.
    ///
    /// # Errors
    ///
    /// If the words make no packet.
    pub fn frame(&self, phone: &str, epdg: &str) -> Result<Vec<u8>> {
        let Self {
            near, far, words, ..
        } = self;
        let packet = match self.way {
            Way::Up => format!("eth / ip4 {phone} > {epdg} / udp {near} > {far} / {words}"),
            Way::Down => format!("eth / ip4 {epdg} > {phone} / udp {far} > {near} / {words}"),
        };
        let packet: Packet = packet.parse().with_context(|| packet.clone())?;
        Ok(packet.bytes())
    }

    /// What UDP carries.
    ///
    /// # Errors
    ///
    /// As [`frame`](Self::frame).
    pub fn payload(&self) -> Result<Vec<u8>> {
        Ok(self.frame("192.0.2.1", "192.0.2.2")?.split_off(HEADERS))
    }
}

impl Conversation {
    /// Lets the phone use other ports, so that several conversations are told apart.
    pub fn move_ports(&mut self, by: u16) {
        for packet in &mut self.packets {
            packet.near += by;
        }
    }

    /// Writes it as a pcap of nanoseconds (draft-ietf-opsawg-pcap).
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, out: &mut impl Write, phone: &str, epdg: &str) -> Result<()> {
        let mut header = Vec::new();
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            header.extend(word.to_le_bytes());
        }
        out.write_all(&header)?;
        for packet in &self.packets {
            let frame = packet.frame(phone, epdg)?;
            record(out, packet.at, &frame)?;
        }
        Ok(())
    }
}

fn record(out: &mut impl Write, at: Duration, frame: &[u8]) -> io::Result<()> {
    let len = frame.len() as u32;
    let seconds = (EPOCH + at.as_secs()) as u32;
    for word in [seconds, at.subsec_nanos(), len, len] {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(frame)
}

/// Makes a conversation step by step.
struct Talk {
    name: &'static str,
    now: Duration,
    /// The phone's port on the way to 4500.
    port: u16,
    spi: [u32; 2],
    /// The next number.
    next: [u32; 2],
    packets: Vec<Sent>,
    truth: [Truth; 2],
    timed: bool,
}

impl Talk {
    /// A tunnel that has just been set up.
    fn begin(name: &'static str) -> Self {
        let mut talk = Self {
            name,
            now: Duration::ZERO,
            port: 40_001,
            spi: [0x1001, 0x2002],
            next: [1, 1],
            packets: Vec::new(),
            truth: [Truth::default(); 2],
            timed: false,
        };
        let ms = Duration::from_millis;
        talk.ike(Way::Up, 500, "ike 300");
        talk.wait(ms(40));
        talk.ike(Way::Down, 500, "ike 300 spir=0xfeed flags=0x20 next=33");
        for (id, took) in [(1, 80), (2, 300), (3, 60)] {
            talk.wait(ms(20));
            let auth = format!("marker / ike 400 spir=0xfeed exchange=35 next=46 id={id}");
            talk.ike(Way::Up, 4500, &auth);
            talk.wait(ms(took));
            talk.ike(Way::Down, 4500, &format!("{auth} flags=0x20"));
        }
        talk.wait(ms(50));
        talk
    }

    fn ike(&mut self, way: Way, far: u16, words: &str) {
        let near = if far == 500 { self.port - 1 } else { self.port };
        self.packets.push(Sent {
            at: self.now,
            way,
            near,
            far,
            words: words.to_owned(),
        });
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// An ESP packet that comes now.
    fn esp(&mut self, way: Way, spi: u32, number: u32, bytes: usize) {
        self.truth[way as usize].received += 1;
        self.packets.push(Sent {
            at: self.now,
            way,
            near: self.port,
            far: 4500,
            words: format!("esp {bytes} spi={spi} seq={number}"),
        });
    }

    /// A number that is sent now, whether or not it comes.
    fn number(&mut self, way: Way) -> (u32, u32) {
        let number = self.next[way as usize];
        self.next[way as usize] += 1;
        (self.spi[way as usize], number)
    }

    /// A voice frame that comes in time.
    fn voice(&mut self, way: Way) {
        let (spi, number) = self.number(way);
        self.esp(way, spi, number, VOICE_BYTES);
    }

    /// Comfort noise.
    fn noise(&mut self, way: Way) {
        let (spi, number) = self.number(way);
        self.esp(way, spi, number, NOISE_BYTES);
    }

    /// So many numbers do not come.
    fn lose(&mut self, way: Way, count: u32) {
        self.next[way as usize] += count;
        self.truth[way as usize].lost += u64::from(count);
    }

    /// Both talk for so many frames, nothing being wrong.
    fn both(&mut self, frames: u32) {
        for _ in 0..frames {
            self.step();
        }
    }

    /// One frame each way.
    fn step(&mut self) {
        self.wait(VOICE);
        for way in Way::BOTH {
            self.voice(way);
        }
    }

    fn end(mut self) -> Conversation {
        self.packets.sort_by_key(|packet| packet.at);
        Conversation {
            name: self.name,
            packets: self.packets,
            truth: self.truth,
            timed: self.timed,
        }
    }
}
