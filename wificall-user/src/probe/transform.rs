//! The algorithms of IKEv2 that are proposed, and their names (IANA registry "Internet Key Exchange Version 2 (IKEv2)
//! Parameters", RFC 7296 §3.3.2).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::keys::Group;

/// Encryption Algorithm (ENCR).
pub const ENCR: u8 = 1;
/// Pseudorandom Function (PRF).
pub const PRF: u8 = 2;
/// Integrity Algorithm (INTEG).
pub const INTEG: u8 = 3;
/// Key Exchange Method, once called Diffie-Hellman group (RFC 9370).
pub const DH: u8 = 4;

/// A transform: its type, its id, and the length of its key in bits where the algorithm has several.
pub type Transform = (u8, u16, Option<u16>);

/// AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868): what RFC 8247 asks of everybody.
const CBC_SHA2: &[Transform] = &[
    (ENCR, 12, Some(256)),
    (ENCR, 12, Some(192)),
    (ENCR, 12, Some(128)),
    (PRF, 5, None),
    (PRF, 6, None),
    (PRF, 7, None),
    (INTEG, 12, None),
    (INTEG, 13, None),
    (INTEG, 14, None),
];

/// Ciphers that need no integrity algorithm (RFC 5282, RFC 7634).
const AEAD: &[Transform] = &[
    (ENCR, 20, Some(256)),
    (ENCR, 20, Some(128)),
    (ENCR, 19, Some(256)),
    (ENCR, 19, Some(128)),
    (ENCR, 18, Some(256)),
    (ENCR, 18, Some(128)),
    (ENCR, 28, None),
    (PRF, 5, None),
    (PRF, 6, None),
    (PRF, 7, None),
    (PRF, 2, None),
];

/// What old gateways have: SHA-1 (RFC 2404) and AES-XCBC (RFC 3566, RFC 4434).
const CBC_OLD: &[Transform] = &[
    (ENCR, 12, Some(256)),
    (ENCR, 12, Some(192)),
    (ENCR, 12, Some(128)),
    (PRF, 2, None),
    (PRF, 4, None),
    (INTEG, 2, None),
    (INTEG, 5, None),
];

/// What is proposed, in this order; each with all of [`Group::ALL`].
pub const PROPOSALS: [&[Transform]; 3] = [CBC_SHA2, AEAD, CBC_OLD];

/// The algorithms that a responder chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Encryption, and its key's length in bits.
    pub encr: (u16, Option<u16>),
    /// Integrity; none with an AEAD cipher.
    pub integ: Option<u16>,
    /// Pseudorandom function.
    pub prf: u16,
    /// Diffie-Hellman group.
    pub dh: u16,
}

impl Suite {
    /// Whether it is one of those proposed, as RFC 7296 §3.3.6 demands of the responder.
    #[must_use]
    pub fn was_proposed(&self) -> bool {
        let group = Group::ALL.iter().any(|group| group.id() == self.dh);
        group
            && PROPOSALS.iter().any(|proposal| {
                let integ = match self.integ {
                    Some(integ) => proposal.contains(&(INTEG, integ, None)),
                    None => proposal.iter().all(|(kind, ..)| *kind != INTEG),
                };
                integ
                    && proposal.contains(&(ENCR, self.encr.0, self.encr.1))
                    && proposal.contains(&(PRF, self.prf, None))
            })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encr(self.encr))?;
        if let Some(id) = self.integ {
            write!(f, " {}", integ(id))?;
        }
        write!(f, " {} {}", prf(self.prf), dh(self.dh))
    }
}

impl Serialize for Suite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Names {
            encr: String,
            integ: Option<String>,
            prf: String,
            dh: String,
        }
        Names {
            encr: encr(self.encr),
            integ: self.integ.map(integ),
            prf: prf(self.prf),
            dh: dh(self.dh),
        }
        .serialize(serializer)
    }
}

fn encr((id, bits): (u16, Option<u16>)) -> String {
    let name = match id {
        12 => "aes-cbc",
        18 => "aes-gcm-8",
        19 => "aes-gcm-12",
        20 => "aes-gcm-16",
        28 => "chacha20-poly1305",
        _ => "",
    };
    let name = match name {
        "" => format!("encr-{id}"),
        name => name.to_owned(),
    };
    match bits {
        Some(bits) => format!("{name}-{bits}"),
        None => name,
    }
}

fn integ(id: u16) -> String {
    match id {
        2 => "hmac-sha1-96".to_owned(),
        5 => "aes-xcbc-96".to_owned(),
        12 => "hmac-sha2-256-128".to_owned(),
        13 => "hmac-sha2-384-192".to_owned(),
        14 => "hmac-sha2-512-256".to_owned(),
        _ => format!("integ-{id}"),
    }
}

fn prf(id: u16) -> String {
    match id {
        2 => "prf-hmac-sha1".to_owned(),
        4 => "prf-aes128-xcbc".to_owned(),
        5 => "prf-hmac-sha2-256".to_owned(),
        6 => "prf-hmac-sha2-384".to_owned(),
        7 => "prf-hmac-sha2-512".to_owned(),
        _ => format!("prf-{id}"),
    }
}

/// The name of a group, also of one that is not proposed.
#[must_use]
pub fn dh(id: u16) -> String {
    match Group::of_id(id) {
        Some(group) => group.name().to_owned(),
        None => format!("group-{id}"),
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|group| group.name() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name);
                format!("expected one of {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite {
        encr: (12, Some(256)),
        integ: Some(12),
        prf: 5,
        dh: 14,
    };

    #[test]
    fn a_suite_is_of_one_proposal() {
        assert!(SUITE.was_proposed());
        let gcm = Suite {
            encr: (20, Some(128)),
            integ: None,
            ..SUITE
        };
        assert!(gcm.was_proposed());
        for wrong in [
            Suite { dh: 1, ..SUITE },
            Suite { prf: 2, ..SUITE },
            Suite {
                integ: Some(2),
                ..SUITE
            },
            Suite {
                integ: None,
                ..SUITE
            },
            Suite {
                integ: Some(12),
                ..gcm
            },
            Suite {
                encr: (12, None),
                ..SUITE
            },
            Suite {
                encr: (3, None),
                ..SUITE
            },
        ] {
            assert!(!wrong.was_proposed(), "{wrong}");
        }
        assert_eq!(
            SUITE.to_string(),
            "aes-cbc-256 hmac-sha2-256-128 prf-hmac-sha2-256 modp2048"
        );
        assert_eq!(gcm.to_string(), "aes-gcm-16-128 prf-hmac-sha2-256 modp2048");
    }

    #[test]
    fn all_that_is_proposed_has_a_name() {
        for (kind, id, bits) in PROPOSALS.concat() {
            let name = match kind {
                ENCR => encr((id, bits)),
                PRF => prf(id),
                INTEG => integ(id),
                _ => panic!("{kind}"),
            };
            let numbers = ["encr", "prf", "integ"].map(|kind| format!("{kind}-{id}"));
            assert!(!numbers.contains(&name), "{name}");
        }
        for group in Group::ALL {
            assert_eq!(dh(group.id()).parse(), Ok(group));
        }
        assert_eq!(dh(31), "x25519");
        assert!("modp768".parse::<Group>().unwrap_err().contains("modp1024"));
    }
}
