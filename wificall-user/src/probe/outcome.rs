//! What came of a probe.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::ike::{Gateway, notify};
use super::transform::{Suite, dh};
use super::vendor;
use crate::discover::Owner;

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The responder agreed to a suite.
    Reachable(Suite),
    /// It answered with an error notify of this type; with INVALID_KE_PAYLOAD, the group that it wants.
    Refused(u16, Option<u16>),
    /// It sent us on, and that is not followed any further.
    Redirected(Gateway),
    /// It answered, and not as IKEv2 demands.
    Invalid(String),
    /// Nothing came back.
    Silent,
    /// An ICMP error came back.
    Unreachable(Icmp),
    /// Nothing could be sent from here.
    Failed(String),
}

/// The kinds of [`Verdict`], the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    /// [`Verdict::Reachable`]
    Reachable,
    /// [`Verdict::Redirected`]
    Redirected,
    /// [`Verdict::Refused`]
    Refused,
    /// [`Verdict::Invalid`]
    Invalid,
    /// [`Verdict::Silent`]
    Silent,
    /// [`Verdict::Unreachable`]
    Unreachable,
    /// [`Verdict::Failed`]
    Failed,
}

impl VerdictKind {
    /// All, the best first.
    pub const ALL: [Self; 7] = [
        Self::Reachable,
        Self::Redirected,
        Self::Refused,
        Self::Invalid,
        Self::Silent,
        Self::Unreachable,
        Self::Failed,
    ];

    /// A stable name, for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }

    /// Whether something came back from the address itself.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        match self {
            Self::Reachable | Self::Redirected | Self::Refused | Self::Invalid => true,
            Self::Silent | Self::Unreachable | Self::Failed => false,
        }
    }
}

impl Verdict {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Reachable(_) => VerdictKind::Reachable,
            Self::Refused(..) => VerdictKind::Refused,
            Self::Redirected(_) => VerdictKind::Redirected,
            Self::Invalid(_) => VerdictKind::Invalid,
            Self::Silent => VerdictKind::Silent,
            Self::Unreachable(_) => VerdictKind::Unreachable,
            Self::Failed(_) => VerdictKind::Failed,
        }
    }

    /// More of it, for people; empty if there is no more.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Reachable(suite) => suite.to_string(),
            Self::Refused(kind, group) => match group {
                Some(group) => format!("{}, wants {}", notify::name(*kind), dh(*group)),
                None => notify::name(*kind),
            },
            Self::Redirected(gateway) => format!("to {gateway}, not followed"),
            Self::Invalid(what) => what.clone(),
            Self::Silent => String::new(),
            Self::Unreachable(icmp) => icmp.to_string(),
            Self::Failed(why) => why.clone(),
        }
    }
}

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Whether it is ICMPv6.
    pub v6: bool,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Who sent it, if the kernel says so.
    pub from: Option<IpAddr>,
}

impl Icmp {
    /// Whether it is the last word: nobody listens, or somebody forbids it. Of the others a route that changes, or a
    /// neighbour that wakes up, may be the remedy (RFC 1122 §4.2.3.9).
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self.v6 {
            // RFC 792 and RFC 1812 §5.2.7.1: protocol, port; prohibited (network, host, communication).
            false => self.kind == 3 && matches!(self.code, 2 | 3 | 9 | 10 | 13),
            // RFC 4443 §3.1: prohibited, port, failed policy, reject route.
            true => self.kind == 1 && matches!(self.code, 1 | 4 | 5 | 6),
        }
    }

    /// Whether it is an error of reachability at all, and not of size.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        match self.v6 {
            false => (self.kind == 3 && self.code != 4) || self.kind == 11,
            true => self.kind == 1 || self.kind == 3,
        }
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.v6, self.kind, self.code) {
            (false, 3, 0 | 6) | (true, 1, 0) => "no route to the network",
            (false, 3, 1 | 7) | (true, 1, 3) => "host unreachable",
            (false, 3, 2) => "protocol unreachable",
            (false, 3, 3) | (true, 1, 4) => "port unreachable",
            (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
            (true, 1, 5) => "source address failed policy",
            (true, 1, 6) => "reject route",
            (false, 11, _) | (true, 3, _) => "time exceeded: a routing loop",
            _ => "unreachable",
        };
        let version = if self.v6 { "ICMPv6" } else { "ICMP" };
        write!(f, "{version}: {what}")?;
        match self.from {
            Some(from) => write!(f, ", says {from}"),
            None => Ok(()),
        }
    }
}

/// What was followed on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The request was sent again with the cookie that the responder asked for.
    Cookie,
    /// It was sent again with a public value of the group that the responder asked for.
    Group(u16),
    /// Another gateway was asked.
    Redirect(Gateway, IpAddr),
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie => f.write_str("cookie"),
            Self::Group(group) => write!(f, "group {}", dh(*group)),
            Self::Redirect(Gateway::Name(name), address) => {
                write!(f, "redirect to {name} ({address})")
            }
            Self::Redirect(Gateway::Address(_), address) => write!(f, "redirect to {address}"),
        }
    }
}

impl Serialize for Followed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// NATs on the path, as the hashes of RFC 7296 §2.23 tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Nat {
    /// We are behind one: the responder saw another source than ours.
    pub here: bool,
    /// The responder is behind one, or says so.
    pub there: bool,
}

/// What one exchange found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it ended.
    pub verdict: Verdict,
    /// The shortest time from a request to its answer, of those requests that were sent once (Karn: of one that was
    /// sent again nobody knows which of them was answered).
    pub rtt: Option<Duration>,
    /// What was followed, in order.
    pub followed: Vec<Followed>,
    /// NATs, if the responder agreed and told.
    pub nat: Option<Nat>,
    /// Vendor ids of the last answer.
    pub vendor_ids: Vec<Vec<u8>>,
    /// Datagrams sent.
    pub sent: u32,
    /// Datagrams that were no answer to ours.
    pub ignored: u32,
}

impl Finding {
    /// One of which nothing was sent.
    #[must_use]
    pub fn failed(why: String) -> Self {
        Self {
            verdict: Verdict::Failed(why),
            rtt: None,
            followed: Vec::new(),
            nat: None,
            vendor_ids: Vec::new(),
            sent: 0,
            ignored: 0,
        }
    }
}

/// A finding and where it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The address asked for.
    pub address: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// Whose it is.
    pub owners: BTreeSet<Owner>,
    /// Names that led to it.
    pub names: BTreeSet<Arc<str>>,
    /// What was found.
    pub finding: Finding,
}

impl Probed {
    /// Operators, each once.
    pub fn operators(&self) -> BTreeSet<String> {
        let plmns = self.owners.iter().filter_map(|owner| owner.plmn);
        plmns.map(|plmn| plmn.to_string()).collect()
    }

    /// Vendor ids as people read them.
    pub fn vendors(&self) -> Vec<String> {
        let ids = self.finding.vendor_ids.iter();
        ids.map(|id| vendor::show(id)).collect()
    }
}

impl Serialize for Probed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            address: IpAddr,
            port: u16,
            operators: BTreeSet<String>,
            countries: BTreeSet<String>,
            names: Vec<&'a str>,
            result: &'static str,
            suite: Option<&'a Suite>,
            notify: Option<String>,
            wanted_group: Option<String>,
            icmp: Option<String>,
            detail: String,
            rtt_ms: Option<f64>,
            followed: &'a [Followed],
            nat: Option<Nat>,
            vendor_ids: Vec<String>,
            datagrams_sent: u32,
            datagrams_ignored: u32,
        }
        let finding = &self.finding;
        let (mut suite, mut notify, mut wanted_group, mut icmp) = (None, None, None, None);
        match &finding.verdict {
            Verdict::Reachable(agreed) => suite = Some(agreed),
            Verdict::Refused(kind, group) => {
                notify = Some(notify::name(*kind));
                wanted_group = group.map(dh);
            }
            Verdict::Unreachable(error) => icmp = Some(error.to_string()),
            Verdict::Redirected(_) | Verdict::Invalid(_) | Verdict::Silent | Verdict::Failed(_) => {
            }
        }
        let countries = self.owners.iter().filter_map(|owner| owner.country);
        Shown {
            address: self.address,
            port: self.port,
            operators: self.operators(),
            countries: countries.map(|country| country.to_string()).collect(),
            names: self.names.iter().map(|name| &**name).collect(),
            result: finding.verdict.kind().as_str(),
            suite,
            notify,
            wanted_group,
            icmp,
            detail: finding.verdict.detail(),
            rtt_ms: finding.rtt.map(milliseconds),
            followed: &finding.followed,
            nat: finding.nat,
            vendor_ids: self.vendors(),
            datagrams_sent: finding.sent,
            datagrams_ignored: finding.ignored,
        }
        .serialize(serializer)
    }
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
