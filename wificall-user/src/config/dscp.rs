//! DSCP values by name, and which packets get which (RFC 2474, RFC 4594, RFC 5865).

/// Traffic classes that a DSCP is chosen for, in the order of [`Dscp::up`] and [`Dscp::down`].
pub(super) const CLASSES: [&str; 4] = ["ike", "esp_udp", "keepalive", "esp"];

/// Expedited Forwarding (RFC 3246): telephony (RFC 4594 §4.1).
pub(super) const EF: u8 = 46;

/// The DSCP that matched packets get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp {
    /// When it is written.
    pub mode: DscpMode,
    /// From the phone, by class: ike, esp_udp, keepalive, esp. 0 to 63; `None` = as it comes.
    pub up: [Option<u8>; 4],
    /// To the phone, likewise.
    pub down: [Option<u8>; 4],
}

/// When a DSCP is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DscpMode {
    /// Always.
    Set,
    /// Where the packet has none (DSCP 0).
    IfDefault,
    /// Never.
    Keep,
}

impl Dscp {
    /// Packets keep what they have.
    pub const KEEP: Self = Self {
        mode: DscpMode::Keep,
        up: [None; 4],
        down: [None; 4],
    };

    /// One value for all classes both ways.
    pub const fn all(value: u8) -> Self {
        Self {
            mode: DscpMode::Set,
            up: [Some(value); 4],
            down: [Some(value); 4],
        }
    }
}

/// The value of a DSCP's name: `EF`, `VA`, `DF`, `CS0` to `CS7`, `AF11` to `AF43`.
pub(super) fn by_name(name: &str) -> Option<u8> {
    const VOICE_ADMIT: u8 = 44;
    match name.as_bytes() {
        b"EF" => Some(EF),
        b"VA" => Some(VOICE_ADMIT),
        b"DF" => Some(0),
        [b'C', b'S', class @ b'0'..=b'7'] => Some(8 * (class - b'0')),
        [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
            Some(8 * (class - b'0') + 2 * (drop - b'0'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_values_of_their_rfcs() {
        let values = [
            ("EF", 46),
            ("VA", 44),
            ("DF", 0),
            ("CS0", 0),
            ("CS5", 40),
            ("CS7", 56),
            ("AF11", 10),
            ("AF23", 22),
            ("AF41", 34),
            ("AF43", 38),
        ];
        for (name, value) in values {
            assert_eq!(by_name(name), Some(value), "{name}");
        }
        for name in [
            "", "ef", "CS", "CS8", "CS05", "AF01", "AF44", "AF14", "AF1", "AF111", "CSé", "AFé",
            "46",
        ] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }
}
