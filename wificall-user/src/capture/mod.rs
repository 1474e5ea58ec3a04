//! Files of captured frames: classic pcap and pcapng, read frame by frame.
//!
//! Nothing that a file says is believed: one frame is in memory at a time, and what claims to be longer than any capture
//! program writes ends the reading with an error. Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types:
//! draft-ietf-opsawg-pcaplinktype.

mod classic;
mod link;
mod pcapng;
mod source;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use thiserror::Error;

pub use link::{LinkType, Packet};

use source::Source;

/// The longest frame, in bytes: what libpcap takes for the largest snapshot (`MAXIMUM_SNAPLEN`).
pub const FRAME_MAX: u32 = 262_144;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the file, from 1 on, as capture programs count.
    pub number: u64,
    /// When it was captured; `None` if the file does not say.
    pub at: Option<SystemTime>,
    /// What it starts with.
    pub link: LinkType,
    /// As much of it as was captured.
    pub bytes: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub len: u32,
}

/// Why a file cannot be read on. Where a frame has a number, it counts from 1 on.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// It cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("read the capture at byte {at}")]
    Read {
        /// How much had been read.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("this is no capture: it starts with {start}\n  hint: {hint}")]
    Unknown {
        /// Its first bytes, in hex.
        start: String,
        /// What it may be.
        hint: &'static str,
    },
    /// There is nothing in it.
    #[error(
        "the file is empty\n  hint: `tcpdump` writes when it has much, or ends; with `-U` it writes each packet at once"
    )]
    Empty,
    /// None of its frames is of a kind that can be read.
    #[error(
        "none of the {frames} frames can be read: they are of {links}\n  hint: Ethernet, raw IP and Linux cooked captures \
         can be; Wi-Fi is captured on the access point's network interface, not in monitor mode"
    )]
    Foreign {
        /// How many there are.
        frames: u64,
        /// Of which kinds.
        links: String,
    },
    /// It ends in the middle of something.
    #[error(
        "the capture ends in the middle of {what}, at byte {at}\n  hint: it was cut short; what stands before is good"
    )]
    CutShort {
        /// What was being read.
        what: String,
        /// Where the file ends.
        at: u64,
    },
    /// What it says cannot be.
    #[error("the capture is damaged: {what}, before byte {at}")]
    Damaged {
        /// What it says.
        what: String,
        /// How much had been read.
        at: u64,
    },
}

/// The frames of a capture, in order. After an error there are no more.
pub struct Frames<R> {
    source: Source<R>,
    format: Format,
    number: u64,
    ended: bool,
}

enum Format {
    Classic(classic::Header),
    Ng(pcapng::Section),
}

/// Opens a capture.
///
/// # Errors
///
/// If it cannot be opened, or is none.
pub fn open(path: &Path) -> Result<Frames<BufReader<File>>, CaptureError> {
    let file = File::open(path).map_err(|source| CaptureError::Open {
        path: path.to_owned(),
        source,
    })?;
    Frames::new(BufReader::new(file))
}

impl<R: Read> Frames<R> {
    /// Reads a capture's head.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut source = Source::new(reader);
        let magic: [u8; 4] = source.read("the file's head")?;
        let format = if magic == pcapng::SECTION.to_be_bytes() {
            Format::Ng(pcapng::Section::read(&mut source)?)
        } else if let Some(header) = classic::Header::read(magic, &mut source)? {
            Format::Classic(header)
        } else {
            return Err(unknown(magic));
        };
        Ok(Self {
            source,
            format,
            number: 0,
            ended: false,
        })
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = Result<Frame, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.number += 1;
        let next = match &mut self.format {
            Format::Classic(header) => header.next(&mut self.source, self.number),
            Format::Ng(section) => section.next(&mut self.source, self.number),
        };
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

fn unknown(magic: [u8; 4]) -> CaptureError {
    let hint = match magic {
        [0x1f, 0x8b, ..] => "it is compressed by gzip: decompress it first",
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed by zstd: decompress it first",
        [0xfd, b'7', b'z', b'X'] => "it is compressed by xz: decompress it first",
        [b's', b'n', b'o', b'o'] => "it is a capture of snoop: convert it, as with editcap -F pcap",
        _ => "expected a file of tcpdump, Wireshark or the like, in pcap or pcapng",
    };
    let start: Vec<String> = magic.iter().map(|byte| format!("{byte:02x}")).collect();
    CaptureError::Unknown {
        start: start.join(" "),
        hint,
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
