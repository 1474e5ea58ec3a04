//! DNS messages of others: what they ask, and what they were told.
//!
//! Decoded by hickory, and believed only in the plainest form: one question, for addresses, of the Internet class; an
//! address counts if it stands at the end of the chain of aliases that begins with the name asked for.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, RecordType};
use wificall_common::wire::dns;

use super::super::Family;

/// Aliases followed (hickory's resolver follows as many).
const ALIASES: usize = 8;
/// Addresses taken from one answer. As many A records fit into no datagram that is looked at.
const ADDRESSES: usize = 64;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Transaction ID (RFC 1035 §4.1.1).
    pub id: u16,
    /// The name, in lower case, without the final dot.
    pub name: String,
    /// What is asked for.
    pub family: Family,
    /// The question as it stands in the message: name, type and class. A resolver repeats it octet by octet
    /// (draft-vixie-dnsext-dns0x20).
    pub wire: Vec<u8>,
}

/// An answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The question, repeated.
    pub question: Question,
    /// What it says.
    pub said: Said,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Addresses, each once, in their order, and the shortest TTL of what leads to them.
    Addresses(Vec<IpAddr>, Duration),
    /// The name has none, or does not exist, or the resolver could not tell.
    None,
    /// The answer did not fit: the client asks again over TCP.
    Truncated,
}

/// Why a message tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is about something else than addresses.
    Other,
    /// It does not parse, or contradicts itself.
    Malformed,
}

/// Reads a query.
pub(super) fn query(bytes: &[u8]) -> Result<Question, Bad> {
    let message = message(bytes, MessageType::Query)?;
    question(bytes, &message)
}

/// Reads an answer.
pub(super) fn answer(bytes: &[u8]) -> Result<Answer, Bad> {
    let message = message(bytes, MessageType::Response)?;
    let question = question(bytes, &message)?;
    let said = if message.metadata.truncation {
        Said::Truncated
    } else if message.metadata.response_code != ResponseCode::NoError {
        Said::None
    } else {
        addresses(&message, question.family)?
    };
    Ok(Answer { question, said })
}

fn message(bytes: &[u8], kind: MessageType) -> Result<Message, Bad> {
    let message = Message::from_vec(bytes).map_err(|_| Bad::Malformed)?;
    if message.metadata.message_type != kind || message.metadata.op_code != OpCode::Query {
        return Err(Bad::Other);
    }
    Ok(message)
}

fn question(bytes: &[u8], message: &Message) -> Result<Question, Bad> {
    let [query] = &message.queries[..] else {
        return Err(Bad::Malformed);
    };
    let family = match query.query_type() {
        RecordType::A => Family::V4,
        RecordType::AAAA => Family::V6,
        _ => return Err(Bad::Other),
    };
    if query.query_class() != DNSClass::IN {
        return Err(Bad::Other);
    }
    let name = dns::question_name(bytes).ok_or(Bad::Malformed)?;
    let wire = bytes
        .get(dns::HEADER_LEN..dns::HEADER_LEN + name + 4)
        .ok_or(Bad::Malformed)?;
    Ok(Question {
        id: message.metadata.id,
        name: plain(query.name()),
        family,
        wire: wire.to_vec(),
    })
}

fn addresses(message: &Message, family: Family) -> Result<Said, Bad> {
    let [query] = &message.queries[..] else {
        return Err(Bad::Malformed);
    };
    let mut owner: &Name = query.name();
    let mut ttl = u32::MAX;
    // The records may stand in any order (RFC 1034 §3.6.2 wants one, and not every server keeps it).
    for _ in 0..=ALIASES {
        let of_owner = |name: &Name| name == owner;
        let mut found = Vec::new();
        let mut alias = None;
        for record in message.answers.iter().filter(|r| of_owner(&r.name)) {
            if record.dns_class != DNSClass::IN {
                continue;
            }
            match (&record.data, family) {
                (RData::A(address), Family::V4) => {
                    found.push((IpAddr::from(address.0), record.ttl));
                }
                (RData::AAAA(address), Family::V6) => {
                    found.push((IpAddr::from(address.0), record.ttl));
                }
                (RData::CNAME(target), _) => {
                    if alias.is_some_and(|(other, _)| other != &target.0) {
                        // Two different aliases of one name (RFC 2181 §10.1).
                        return Err(Bad::Malformed);
                    }
                    alias = Some((&target.0, record.ttl));
                }
                _ => {}
            }
        }
        match (alias, found.is_empty()) {
            // An alias has no other data (RFC 1034 §3.6.2).
            (Some(_), false) => return Err(Bad::Malformed),
            (Some((target, alias_ttl)), true) => {
                ttl = ttl.min(alias_ttl);
                owner = target;
            }
            (None, true) => return Ok(Said::None),
            (None, false) => {
                let mut addresses = Vec::new();
                for (address, own_ttl) in found {
                    ttl = ttl.min(own_ttl);
                    if !addresses.contains(&address) && addresses.len() < ADDRESSES {
                        addresses.push(address);
                    }
                }
                return Ok(Said::Addresses(addresses, Duration::from_secs(ttl.into())));
            }
        }
    }
    // A loop, or as good as one.
    Err(Bad::Malformed)
}

fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(plain) => plain.to_owned(),
        None => text,
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
