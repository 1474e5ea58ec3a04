//! Classic pcap (draft-ietf-opsawg-pcap): a header of 24 bytes, then for each frame one of 16: seconds, fraction, captured
//! length, length on the wire. In the byte order of who wrote it.

use std::{
    io::Read,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{CaptureError, FRAME_MAX, Frame, LinkType, source::Source};

/// Fractions are microseconds.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
/// Fractions are nanoseconds.
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Of the field that has the link type, the rest being about frame check sequences.
const LINK_TYPE: u32 = 0xffff;

pub(super) struct Header {
    number: fn([u8; 4]) -> u32,
    /// Nanoseconds.
    fraction: u32,
    link: LinkType,
}

impl Header {
    /// Reads what stands behind the magic number; `None` if that is another format's.
    pub(super) fn read<R: Read>(
        magic: [u8; 4],
        source: &mut Source<R>,
    ) -> Result<Option<Self>, CaptureError> {
        let orders: [fn([u8; 4]) -> u32; 2] = [u32::from_le_bytes, u32::from_be_bytes];
        let known = orders.into_iter().find_map(|number| {
            let fraction = match number(magic) {
                MICROSECONDS => 1000,
                NANOSECONDS => 1,
                _ => return None,
            };
            Some((number, fraction))
        });
        let Some((number, fraction)) = known else {
            return Ok(None);
        };
        // Version, time zone, accuracy and snapshot length say nothing that is needed.
        let _: [u8; 16] = source.read("the file's head")?;
        let network = number(source.read("the file's head")?);
        Ok(Some(Self {
            number,
            fraction,
            link: LinkType::from(network & LINK_TYPE),
        }))
    }

    pub(super) fn next<R: Read>(
        &self,
        source: &mut Source<R>,
        number: u64,
    ) -> Result<Option<Frame>, CaptureError> {
        let what = format!("frame {number}");
        let Some(seconds) = source.read_or_end(&what)? else {
            return Ok(None);
        };
        let seconds = (self.number)(seconds);
        let fraction = (self.number)(source.read(&what)?);
        let captured = (self.number)(source.read(&what)?);
        let len = (self.number)(source.read(&what)?);
        if captured > FRAME_MAX {
            return Err(source.damaged(format!(
                "{what} has {captured} bytes, at most {FRAME_MAX} can be"
            )));
        }
        let nanoseconds = u64::from(fraction) * u64::from(self.fraction);
        let since = Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds);
        Ok(Some(Frame {
            number,
            at: UNIX_EPOCH
                .checked_add(since)
                .filter(|at| *at > SystemTime::UNIX_EPOCH),
            link: self.link,
            bytes: source.take(captured, &what)?,
            len: len.max(captured),
        }))
    }
}
