//! pcapng (draft-ietf-opsawg-pcapng): blocks of a type, a length, a body padded to four bytes, and the length again. Sections
//! have a byte order and interfaces of their own; an interface says the link type of its frames and the unit of their time.

use std::{
    io::Read,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{CaptureError, FRAME_MAX, Frame, LinkType, source::Source};

/// Section header block.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// Obsolete, and still written.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Type and length before the body, and the length behind it.
const HEAD_LEN: u32 = 8;
const TAIL_LEN: u32 = 4;
/// Interfaces of a section; capture programs have a handful.
const INTERFACES_MAX: usize = 4096;
/// Options of an interface that are looked at, in bytes.
const OPTIONS_MAX: u32 = 65_536;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_TIME_OFFSET: u16 = 14;

/// The section that is being read.
pub(super) struct Section {
    little: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    /// Frames are cut to this many bytes; 0: not at all.
    snaplen: u32,
    /// Units of time in a second.
    units: u64,
    /// Seconds to add.
    offset: i64,
}

/// What the headers of a frame say.
struct Head {
    interface: u32,
    time: Option<u64>,
    captured: u32,
    len: u32,
    /// Bytes of the block's body that have been read.
    read: u32,
}

impl Section {
    /// Reads a section header block behind its type.
    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, CaptureError> {
        const WHAT: &str = "a section header";
        let len: [u8; 4] = source.read(WHAT)?;
        let order: [u8; 4] = source.read(WHAT)?;
        let little = match (u32::from_le_bytes(order), u32::from_be_bytes(order)) {
            (BYTE_ORDER, _) => true,
            (_, BYTE_ORDER) => false,
            _ => return Err(source.damaged("a section has no known byte order")),
        };
        let section = Self {
            little,
            interfaces: Vec::new(),
        };
        let body = section.body_len(section.number(len), WHAT, source)?;
        let version: [u8; 4] = match body {
            ..8 => return Err(source.damaged("a section header is too short")),
            _ => source.read(WHAT)?,
        };
        let major = section.half([version[0], version[1]]);
        if major != 1 {
            return Err(source.damaged(format!(
                "a section is of version {major} of pcapng, and 1 is known"
            )));
        }
        source.skip(u64::from(body - 8 + TAIL_LEN), WHAT)?;
        Ok(section)
    }

    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
        number: u64,
    ) -> Result<Option<Frame>, CaptureError> {
        let what = format!("the block before frame {number}");
        while let Some(kind) = source.read_or_end(&what)? {
            // Its own type reads the same in both byte orders.
            if self.number(kind) == SECTION {
                *self = Self::read(source)?;
                continue;
            }
            let len = self.number(source.read(&what)?);
            let body = self.body_len(len, &what, source)?;
            match self.number(kind) {
                INTERFACE => self.add_interface(source, body, &what)?,
                kind @ (PACKET | SIMPLE_PACKET | ENHANCED_PACKET) => {
                    return self.frame(source, kind, body, number).map(Some);
                }
                _ => source.skip(u64::from(body) + u64::from(TAIL_LEN), &what)?,
            }
        }
        Ok(None)
    }

    /// Length in bytes of a block's body.
    fn body_len<R: Read>(
        &self,
        len: u32,
        what: &str,
        source: &Source<R>,
    ) -> Result<u32, CaptureError> {
        match len.checked_sub(HEAD_LEN + TAIL_LEN) {
            Some(body) if len.is_multiple_of(4) => Ok(body),
            _ => Err(source.damaged(format!("{what} has {len} bytes, which none has"))),
        }
    }

    fn add_interface<R: Read>(
        &mut self,
        source: &mut Source<R>,
        body: u32,
        what: &str,
    ) -> Result<(), CaptureError> {
        const FIXED: u32 = 8;
        if body < FIXED {
            return Err(source.damaged(format!("{what} is an interface of {body} bytes")));
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(source.damaged(format!(
                "a section has more than {INTERFACES_MAX} interfaces"
            )));
        }
        let [l0, l1, _, _] = source.read(what)?;
        let snaplen = self.number(source.read(what)?);
        let mut interface = Interface {
            link: LinkType::from(u32::from(self.half([l0, l1]))),
            snaplen,
            units: 1_000_000,
            offset: 0,
        };
        let options = (body - FIXED).min(OPTIONS_MAX);
        self.read_options(&source.take(options, what)?, &mut interface);
        source.skip(u64::from(body - FIXED - options + TAIL_LEN), what)?;
        self.interfaces.push(interface);
        Ok(())
    }

    /// Options: code 2, length 2, value padded to four bytes. Those that make no sense are left out.
    fn read_options(&self, bytes: &[u8], interface: &mut Interface) {
        let mut rest = bytes;
        while let Some(([c0, c1, l0, l1], behind)) = rest.split_first_chunk() {
            let code = self.half([*c0, *c1]);
            let len = usize::from(self.half([*l0, *l1]));
            let Some(value) = behind.get(..len) else {
                return;
            };
            match (code, value) {
                (0, _) => return,
                (OPTION_TIME_RESOLUTION, [unit]) => {
                    interface.units = units(*unit).unwrap_or(interface.units);
                }
                (OPTION_TIME_OFFSET, _) => {
                    if let Ok(value) = <[u8; 8]>::try_from(value) {
                        let order = if self.little {
                            i64::from_le_bytes
                        } else {
                            i64::from_be_bytes
                        };
                        interface.offset = order(value);
                    }
                }
                _ => {}
            }
            rest = behind.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn frame<R: Read>(
        &self,
        source: &mut Source<R>,
        kind: u32,
        body: u32,
        number: u64,
    ) -> Result<Frame, CaptureError> {
        let what = format!("frame {number}");
        let head = self.head(source, kind, body, &what)?;
        let Some(interface) = self.interfaces.get(head.interface as usize) else {
            return Err(source.damaged(format!(
                "{what} is of interface {}, and there are {}",
                head.interface,
                self.interfaces.len()
            )));
        };
        if head.captured > FRAME_MAX
            || u64::from(head.captured) + u64::from(head.read) > body.into()
        {
            return Err(source.damaged(format!(
                "{what} has {} bytes in a block of {body}, at most {FRAME_MAX} can be",
                head.captured
            )));
        }
        let bytes = source.take(head.captured, &what)?;
        let rest = u64::from(body - head.read - head.captured) + u64::from(TAIL_LEN);
        source.skip(rest, &what)?;
        Ok(Frame {
            number,
            at: head.time.and_then(|time| interface.time(time)),
            link: interface.link,
            bytes,
            len: head.len.max(head.captured),
        })
    }

    fn head<R: Read>(
        &self,
        source: &mut Source<R>,
        kind: u32,
        body: u32,
        what: &str,
    ) -> Result<Head, CaptureError> {
        let (simple, read) = match kind {
            SIMPLE_PACKET => (true, 4),
            _ => (false, 20),
        };
        if body < read {
            return Err(source.damaged(format!("{what} is in a block of {body} bytes")));
        }
        if simple {
            let len = self.number(source.read(what)?);
            let snaplen = self.interfaces.first().map_or(0, |first| first.snaplen);
            let cut = if snaplen == 0 { len } else { len.min(snaplen) };
            return Ok(Head {
                interface: 0,
                time: None,
                captured: cut,
                len,
                read,
            });
        }
        let interface: [u8; 4] = source.read(what)?;
        let interface = match (kind, interface) {
            // Of the obsolete one the second half is a number of drops.
            (PACKET, [a, b, ..]) => self.half([a, b]).into(),
            _ => self.number(interface),
        };
        let high = self.number(source.read(what)?);
        let low = self.number(source.read(what)?);
        Ok(Head {
            interface,
            time: Some(u64::from(high) << 32 | u64::from(low)),
            captured: self.number(source.read(what)?),
            len: self.number(source.read(what)?),
            read,
        })
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        }
    }

    fn half(&self, bytes: [u8; 2]) -> u16 {
        if self.little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        }
    }
}

impl Interface {
    fn time(&self, time: u64) -> Option<SystemTime> {
        let seconds = i64::try_from(time / self.units)
            .ok()?
            .checked_add(self.offset)?;
        let fraction = u128::from(time % self.units) * 1_000_000_000 / u128::from(self.units);
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(fraction).ok()?);
        UNIX_EPOCH.checked_add(since).filter(|at| *at > UNIX_EPOCH)
    }
}

/// Units in a second: a power of ten, or with the highest bit, of two.
fn units(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    match resolution & 0x80 {
        0 => 10_u64.checked_pow(exponent),
        _ => 1_u64.checked_shl(exponent),
    }
}
