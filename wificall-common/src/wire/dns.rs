//! The question of a DNS message (RFC 1035 §4.1): only as much of it as tells whether it is for us.
//!
//! Names are compared in lower case (RFC 4343). Only host names count: a label holds letters, digits, hyphens and
//! underscores. So what stands for a label's length cannot be confused with what stands in a label.

/// Server port.
pub const PORT: u16 = 53;
/// Length of the header.
pub const HEADER_LEN: usize = 12;
/// The longest name that is followed, in wire form, its root label included. RFC 1035 §2.3.4 allows 255; the longest name of
/// an ePDG (TS 23.003 §28.3.2.2, by 5GS tracking area, emergency) has 85, and a verifier walks every octet of this.
pub const NAME_MAX: usize = 128;
/// The shortest question: the root, type and class.
pub const QUESTION_MIN: usize = 1 + 4;
/// The longest label (RFC 1035 §2.3.4). Larger octets in its place are compression pointers or nothing.
const LABEL_MAX: usize = 63;
/// QR: a response.
const RESPONSE: u8 = 0x80;
/// OPCODE; 0 is a standard query.
const OPCODE: u8 = 0x78;

/// `.3gppnetwork.org` in wire form, without the root label.
const SUFFIX: u128 = u128::from_be_bytes(*b"\x0b3gppnetwork\x03org");
/// FNV-1a, 64 bits (draft-eastlake-fnv): short inputs, byte by byte, and needs no table.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Whether the header is that of a standard query (`response` false) or its answer, with one question.
#[inline(always)]
#[must_use]
pub const fn is_plain(header: &[u8; HEADER_LEN], response: bool) -> bool {
    (header[2] & RESPONSE != 0) == response
        && header[2] & OPCODE == 0
        && header[4] == 0
        && header[5] == 1
}

/// What each octet counts as: in place of a label's length (first half), and inside a label (second half). 0 is nothing
/// that may stand there. A table, and no comparisons: a verifier follows every branch of every step of a loop.
static OCTETS: [u8; 512] = octets();

const fn octets() -> [u8; 512] {
    let mut table = [0; 512];
    let mut octet = 0;
    while octet < 256 {
        let value = octet as u8;
        if octet <= LABEL_MAX {
            table[octet] = value;
        }
        table[256 + octet] = match value {
            b'A'..=b'Z' | b'a'..=b'z' => value | 0x20,
            b'0'..=b'9' | b'-' | b'_' => value,
            _ => 0,
        };
        octet += 1;
    }
    table
}

/// A name on its way, octet by octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Octets left of the label.
    left: usize,
    hash: u64,
    /// The last 16 octets.
    last: [u64; 2],
}

/// What an octet has made of a [`Walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The name goes on.
    On,
    /// It is whole.
    End,
    /// It is no host name.
    Not,
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Walk {
    /// Before the first octet.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            left: 0,
            hash: HASH_START,
            last: [0; 2],
        }
    }

    /// Takes the next octet.
    #[inline(always)]
    pub fn step(&mut self, octet: u8) -> Step {
        // 1 inside a label, 0 in place of a length; by arithmetic, for the verifier's sake.
        let inside = (self.left + LABEL_MAX) >> 6 & 1;
        let counts = OCTETS[inside << 8 | usize::from(octet)];
        if counts == 0 {
            return if inside == 0 && octet == 0 {
                Step::End
            } else {
                Step::Not
            };
        }
        let mask = inside.wrapping_neg();
        self.left = self.left.wrapping_sub(1) & mask | usize::from(counts) & !mask;
        self.hash = (self.hash ^ u64::from(counts)).wrapping_mul(HASH_PRIME);
        self.last[0] = self.last[0] << 8 | self.last[1] >> 56;
        self.last[1] = self.last[1] << 8 | u64::from(counts);
        Step::On
    }

    /// Whether the whole name ends in `.3gppnetwork.org`.
    #[inline(always)]
    #[must_use]
    pub const fn is_3gpp(&self) -> bool {
        self.last[0] == (SUFFIX >> 64) as u64 && self.last[1] == SUFFIX as u64
    }

    /// Stands for the whole name in the map `NAMES`.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

/// What stands for `name` (in dots, with or without the final one) in the map `NAMES`; `None` if it is no host name.
#[must_use]
pub fn hash(name: &str) -> Option<u64> {
    let mut walk = Walk::new();
    let mut octets = 1;
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len()).ok()?;
        octets += 1 + label.len();
        if length == 0 || octets > NAME_MAX || walk.step(length) != Step::On {
            return None;
        }
        for octet in label.bytes() {
            if walk.step(octet) != Step::On {
                return None;
            }
        }
    }
    Some(walk.hash())
}

/// The length in wire form of the name that `message` asks for, its root label included; `None` if there is no whole host
/// name in the first question.
#[must_use]
pub fn question_name(message: &[u8]) -> Option<usize> {
    let mut walk = Walk::new();
    let octets = message.get(HEADER_LEN..)?;
    for (index, octet) in octets.iter().take(NAME_MAX).enumerate() {
        match walk.step(*octet) {
            Step::On => {}
            Step::End => return Some(index + 1),
            Step::Not => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(wire: &[u8]) -> (Step, Walk) {
        let mut walk = Walk::new();
        for octet in wire {
            let step = walk.step(*octet);
            if step != Step::On {
                return (step, walk);
            }
        }
        (Step::On, walk)
    }

    #[test]
    fn names_under_3gppnetwork_org_in_any_case() {
        for wire in [
            &b"\x04epdg\x03epc\x06mnc001\x06mcc262\x03pub\x0b3gppnetwork\x03org\0"[..],
            b"\x04ePdG\x0b3GPPnetwork\x03oRg\0",
            b"\x0b3gppnetwork\x03org\0",
        ] {
            let (step, walk) = walk(wire);
            assert_eq!(step, Step::End);
            assert!(walk.is_3gpp(), "{wire:?}");
        }
    }

    #[test]
    fn names_that_only_look_like_it() {
        for wire in [
            &b"\x04epdg\x0b3gppnetwork\x03org\x04evil\x07example\0"[..],
            b"\x0c3gppnetworkx\x03org\0",
            b"\x0cx3gppnetwork\x03org\0",
            b"\x033gp\x073gppnetwork\x03org\0",
            b"\x0b3gppnetwork\x03com\0",
            b"\x03org\0",
            b"\0",
        ] {
            assert!(!walk(wire).1.is_3gpp(), "{wire:?}");
        }
        // The length octets of the suffix inside one label.
        let (step, _) = walk(b"\x11x\x0b3gppnetwork\x03org\0");
        assert_eq!(step, Step::Not);
        // A compression pointer, an extended label type, a blank, a dot inside a label.
        for wire in [&b"\xc0\x0c"[..], b"\x41\x01", b"\x02a \0", b"\x03a.b\0"] {
            assert_eq!(walk(wire).0, Step::Not, "{wire:?}");
        }
        assert_eq!(walk(b"\x04epd").0, Step::On);
    }

    #[test]
    fn the_hash_is_that_of_the_name_in_any_form() {
        let (step, walked) = walk(b"\x02WO\x05vzwwo\x03COM\0");
        assert_eq!(step, Step::End);
        assert_eq!(hash("wo.vzwwo.com"), Some(walked.hash()));
        assert_eq!(hash("Wo.VZWWO.com."), Some(walked.hash()));
        assert_ne!(hash("wov.zwwo.com"), Some(walked.hash()));
        for not in ["", ".", "a..b", "a b.c", "ü.example"] {
            assert_eq!(hash(not), None, "{not:?}");
        }
        let label = core::str::from_utf8(&[b'a'; 63]).unwrap();
        let long = std::format!("{label}.{}", &label[..62]);
        assert!(hash(&long).is_some());
        assert_eq!(hash(&std::format!("{long}a")), None);
        assert_eq!(hash(&std::format!("{label}a.org")), None);
    }

    #[test]
    fn the_question_has_an_end_or_is_none() {
        let message = b"............\x01a\x03org\0\0\x01\0\x01";
        assert_eq!(question_name(message), Some(7));
        assert_eq!(question_name(&message[..18]), None);
        assert_eq!(question_name(b"short"), None);
    }

    #[test]
    fn one_question_one_direction() {
        let query = [1, 2, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        let answer = [1, 2, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 1];
        assert!(is_plain(&query, false) && !is_plain(&query, true));
        assert!(is_plain(&answer, true) && !is_plain(&answer, false));
        let two = [1, 2, 0x01, 0, 0, 2, 0, 0, 0, 0, 0, 1];
        let many = [1, 2, 0x01, 0, 1, 1, 0, 0, 0, 0, 0, 1];
        let notify = [1, 2, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert!(!is_plain(&two, false) && !is_plain(&many, false) && !is_plain(&notify, false));
    }
}
