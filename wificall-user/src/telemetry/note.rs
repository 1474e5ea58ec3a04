//! What the programs tell of a flow as it happens.

use wificall_common::{
    Direction,
    abi::{FlowKey, FlowNote},
};

/// An event of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The flow, whether it is in the table or not.
    pub key: FlowKey,
    /// What of it.
    pub data: FlowNote,
}

impl Note {
    /// Of an event's packet and data: `client` and `endpoint` as in the packet; `None` if it is too short to be one.
    #[must_use]
    pub fn new(
        at: u64,
        client: [u8; 16],
        endpoint: [u8; 16],
        port: u16,
        data: &[u8],
    ) -> Option<Self> {
        let data = parse(data)?;
        let key = FlowKey {
            client,
            endpoint,
            port,
            protocol: data.protocol,
            reserved: [0; 5],
        };
        Some(Self { at, key, data })
    }

    /// Whether it tells of one of [`Changes`](wificall_common::flow::Changes).
    #[must_use]
    pub fn tells(&self, change: u32) -> bool {
        self.data.changes & change != 0
    }

    /// Which way the packet went; `None` if it says something else.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        match self.data.direction {
            0 => Some(Direction::Up),
            1 => Some(Direction::Down),
            _ => None,
        }
    }
}

/// In the order of [`FlowNote`]; integers little-endian, as on all targets.
fn parse(bytes: &[u8]) -> Option<FlowNote> {
    let (bytes, _) = bytes.split_first_chunk::<{ size_of::<FlowNote>() }>()?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let spi = |at: usize| {
        let mut spi = [0; 8];
        spi.copy_from_slice(&bytes[at..at + 8]);
        spi
    };
    Some(FlowNote {
        changes: word(0),
        round_trip: word(4),
        spi_i: spi(8),
        spi_r: spi(16),
        spi: word(24),
        id: word(28),
        notify: u16::from_le_bytes([bytes[32], bytes[33]]),
        exchange: bytes[34],
        direction: bytes[35],
        milestones: bytes[36],
        class: bytes[37],
        protocol: bytes[38],
        reserved: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_one_that_the_programs_write() {
        let data = FlowNote {
            changes: 0x0102_0304,
            round_trip: 5,
            spi_i: [6; 8],
            spi_r: [7; 8],
            spi: 8,
            id: 9,
            notify: 0x0a0b,
            exchange: 12,
            direction: 1,
            milestones: 14,
            class: 15,
            protocol: 17,
            reserved: 0,
        };
        // SAFETY: plain data without padding.
        let bytes = unsafe { std::mem::transmute::<FlowNote, [u8; size_of::<FlowNote>()]>(data) };
        let note = Note::new(1, [2; 16], [3; 16], 4, &bytes).unwrap();
        assert_eq!(note.data, data);
        assert_eq!(note.direction(), Some(Direction::Down));
        assert_eq!((note.key.port, note.key.protocol), (4, 17));
        assert_eq!(Note::new(1, [2; 16], [3; 16], 4, &bytes[1..]), None);
    }
}
