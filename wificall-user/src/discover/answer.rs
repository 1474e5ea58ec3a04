//! Reads answers: what they say of the name that was asked, and what of it cannot be true. Pure.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Names in a chain of CNAMEs. Real ones have two or three.
const CHAIN_MAX: usize = 8;

/// Addresses of one name and family that are taken from an answer. Real ones have up to sixteen;
/// what claims to have more says little about where an ePDG is.
pub(super) const ADDRESSES_MAX: usize = 256;

/// Replacement names that are taken from one answer to NAPTR.
pub(super) const REPLACEMENTS_MAX: usize = 64;

/// Something in an answer, or an answer, that is not believed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A datagram from somebody who was not asked.
    Source,
    /// An answer with an identifier that was not sent.
    Id,
    /// An answer to a question that was not asked.
    Question,
    /// A record of another class than IN.
    Class,
    /// An address for a name that the name asked for does not lead to.
    ForeignName,
    /// CNAMEs that lead back to where they were.
    CnameLoop,
    /// A chain of CNAMEs longer than any real one.
    CnameChain,
    /// An address beyond as many as are taken from one answer.
    TooMany,
    /// A replacement in a NAPTR record of a visited country that is no name of an ePDG there.
    Replacement,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Source,
        Self::Id,
        Self::Question,
        Self::Class,
        Self::ForeignName,
        Self::CnameLoop,
        Self::CnameChain,
        Self::TooMany,
        Self::Replacement,
    ];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Id => "id",
            Self::Question => "question",
            Self::Class => "class",
            Self::ForeignName => "foreign_name",
            Self::CnameLoop => "cname_loop",
            Self::CnameChain => "cname_chain",
            Self::TooMany => "too_many",
            Self::Replacement => "replacement",
        }
    }
}

/// What there is to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// These addresses.
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
        /// How many more there were.
        left_out: usize,
    },
    /// Replacements of NAPTR records (RFC 3403 §4.1).
    Replacements { names: Vec<String>, ttl: Duration },
    /// The name is an alias: the one at the end of the chain is to be asked for.
    Alias,
    /// The name, or the one that it is an alias of, does not exist.
    NoName,
    /// It has no such record.
    NoRecord,
}

/// The names that a name leads to, itself first.
#[derive(Debug)]
pub(super) struct Chain {
    names: Vec<Name>,
    /// The shortest TTL of what led here.
    ttl: u32,
}

impl Chain {
    pub(super) fn new(name: Name) -> Self {
        Self {
            names: vec![name],
            ttl: u32::MAX,
        }
    }

    /// The name to ask for.
    pub(super) fn last(&self) -> &Name {
        self.names.last().expect("a chain begins with a name")
    }

    /// Takes in an answer to the question for [`last`](Self::last): what it says, and how many of
    /// its addresses are for names that it does not lead to.
    pub(super) fn read(
        &mut self,
        answer: &Message,
        record_type: RecordType,
    ) -> Result<(Read, usize), Lie> {
        let asked = self.names.len();
        self.follow(&answer.answers)?;
        let mut foreign = 0;
        let ours = |record: &&Record| self.names.contains(&record.name);
        if record_type == RecordType::NAPTR {
            let mut ttl = self.ttl;
            let mut names = Vec::new();
            for record in answer.answers.iter().filter(ours) {
                if let RData::NAPTR(naptr) = &record.data {
                    ttl = ttl.min(record.ttl);
                    // The root stands for none: the record has a regular expression instead.
                    if !naptr.replacement.is_root() && names.len() < REPLACEMENTS_MAX {
                        names.push(plain(&naptr.replacement));
                    }
                }
            }
            if !names.is_empty() {
                let ttl = Duration::from_secs(ttl.into());
                return Ok((Read::Replacements { names, ttl }, 0));
            }
        } else {
            let mut addresses = Vec::new();
            let mut left_out = 0;
            let mut ttl = self.ttl;
            for record in &answer.answers {
                let address = match &record.data {
                    RData::A(address) => IpAddr::V4(address.0),
                    RData::AAAA(address) => IpAddr::V6(address.0),
                    _ => continue,
                };
                let is_new = record.record_type() == record_type && !addresses.contains(&address);
                if !ours(&record) {
                    foreign += 1;
                } else if is_new && addresses.len() < ADDRESSES_MAX {
                    ttl = ttl.min(record.ttl);
                    addresses.push(address);
                } else if is_new {
                    left_out += 1;
                }
            }
            if !addresses.is_empty() {
                let read = Read::Addresses {
                    addresses,
                    ttl: Duration::from_secs(ttl.into()),
                    left_out,
                };
                return Ok((read, foreign));
            }
        }
        let read = if answer.response_code == ResponseCode::NXDomain {
            Read::NoName
        } else if self.names.len() > asked {
            Read::Alias
        } else {
            Read::NoRecord
        };
        Ok((read, foreign))
    }

    /// Follows the CNAMEs of an answer as far as they go.
    fn follow(&mut self, answers: &[Record]) -> Result<(), Lie> {
        while let Some((target, ttl)) = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *self.last() => Some((&target.0, record.ttl)),
            _ => None,
        }) {
            if self.names.contains(target) {
                return Err(Lie::CnameLoop);
            }
            if self.names.len() == CHAIN_MAX {
                return Err(Lie::CnameChain);
            }
            self.ttl = self.ttl.min(ttl);
            self.names.push(target.clone());
        }
        Ok(())
    }

    /// The chain as people read it.
    pub(super) fn text(&self) -> String {
        let names: Vec<_> = self.names.iter().map(plain).collect();
        names.join(" → ")
    }

    /// Where it led, if that is somewhere else.
    pub(super) fn canonical(&self) -> Option<String> {
        (self.names.len() > 1).then(|| plain(self.last()))
    }
}

/// A name in lower case and without a final dot.
fn plain(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}
