//! Which addresses of a capture are ePDGs: those that were named, the catalogue's, and those that speak IKE as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wificall_common::classify::{Link, network};
use wificall_common::endpoint::Table as _;
use wificall_common::wire::{Fragment, PROTOCOL_ESP, Packet, Version, ike, ipv4, ipv6, natt, udp};

use crate::catalogue::{Owner, catalogue};
use crate::control::tables::Tables;

/// Addresses that are guessed, of each kind.
const GUESSES_MAX: usize = 16_384;
/// Addresses that speak IPsec and whose packets are counted, to name the busiest where no endpoint is known.
const SPEAKERS_MAX: usize = 4_096;

/// How it is known that something is an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It was named on the command line.
    Named,
    /// The catalogue has it.
    Catalogue,
    /// It answered an IKE_SA_INIT of this capture.
    Answered,
    /// It was sent an IKE_SA_INIT in this capture, and was not heard to answer.
    Asked,
}

impl Source {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Catalogue => "of the catalogue",
            Self::Answered => "guessed: it answered IKE_SA_INIT",
            Self::Asked => "guessed: it was sent IKE_SA_INIT, and did not answer",
        }
    }
}

/// A network of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) net: IpNet,
    pub(super) source: Source,
    pub(super) owners: BTreeSet<Owner>,
}

/// What a first reading finds.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    answered: BTreeSet<IpAddr>,
    asked: BTreeSet<IpAddr>,
    speakers: BTreeMap<IpAddr, u64>,
    /// Whether there were more than are kept.
    pub(super) overflow: bool,
}

impl Guesses {
    /// Looks at a frame.
    pub(super) fn see(&mut self, frame: &[u8], link: Link) {
        let _ = self.look(frame, link);
    }

    fn look(&mut self, frame: &[u8], link: Link) -> Option<()> {
        let packet = network(frame, link).ok()?;
        let (source, destination) = ends(frame, &packet)?;
        if packet.protocol == PROTOCOL_ESP {
            self.speaks(source);
            return Some(());
        }
        if matches!(packet.fragment, Fragment::Later) {
            return None;
        }
        let payload = packet.offset + packet.header_len;
        let header = udp::parse(frame, payload).ok()?;
        let is_ours = |port| port == udp::PORT_IKE || port == udp::PORT_NATT;
        if is_ours(header.source) {
            self.speaks(source);
        }
        if !is_ours(header.source) && !is_ours(header.destination) {
            return None;
        }
        let mut offset = payload + udp::HEADER_LEN;
        let mut len = header.len.checked_sub(udp::HEADER_LEN)?;
        if frame.get(offset..offset + natt::MARKER_LEN) == Some(&[0; natt::MARKER_LEN]) {
            offset += natt::MARKER_LEN;
            len = len.checked_sub(natt::MARKER_LEN)?;
        }
        ike::check(frame, offset, len).ok()?;
        let message = ike::header(frame, offset)?;
        if message.exchange != ike::EXCHANGE_SA_INIT {
            return None;
        }
        let (guesses, address) = if message.flags & ike::FLAG_RESPONSE != 0 {
            is_ours(header.source).then_some((&mut self.answered, source))?
        } else {
            is_ours(header.destination).then_some((&mut self.asked, destination))?
        };
        if guesses.len() < GUESSES_MAX {
            guesses.insert(address);
        } else if !guesses.contains(&address) {
            self.overflow = true;
        }
        Some(())
    }

    fn speaks(&mut self, address: IpAddr) {
        if self.speakers.len() < SPEAKERS_MAX || self.speakers.contains_key(&address) {
            *self.speakers.entry(address).or_default() += 1;
        }
    }

    /// The addresses that sent most of what looks like IPsec, with how many packets.
    pub(super) fn busiest(&self, most: usize) -> Vec<(IpAddr, u64)> {
        let mut all: Vec<_> = self.speakers.iter().map(|(ip, n)| (*ip, *n)).collect();
        all.sort_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
        all.truncate(most);
        all
    }

    /// As endpoints; nobody knows whose.
    pub(super) fn known(&self) -> impl Iterator<Item = Known> {
        let answered = self.answered.iter().map(|it| (*it, Source::Answered));
        let unanswered = self.asked.difference(&self.answered);
        let all = answered.chain(unanswered.map(|it| (*it, Source::Asked)));
        all.map(|(address, source)| Known {
            net: address.into(),
            source,
            owners: BTreeSet::from([Owner::UNKNOWN]),
        })
    }
}

fn ends(frame: &[u8], packet: &Packet) -> Option<(IpAddr, IpAddr)> {
    let offset = packet.offset;
    Some(match packet.version {
        Version::V4 => (
            IpAddr::V4(ipv4::source(frame, offset)?.into()),
            IpAddr::V4(ipv4::destination(frame, offset)?.into()),
        ),
        Version::V6 => (
            IpAddr::V6(ipv6::source(frame, offset)?.into()),
            IpAddr::V6(ipv6::destination(frame, offset)?.into()),
        ),
    })
}

/// The catalogue's networks.
pub(super) fn of_catalogue() -> &'static [Known] {
    static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
        let catalogue = catalogue();
        let mut known: BTreeMap<IpNet, BTreeSet<Owner>> = BTreeMap::new();
        for operator in catalogue.operators() {
            for net in catalogue.networks(operator.plmn) {
                let owner = Owner::of(catalogue, operator.plmn);
                known.entry(net).or_default().insert(owner);
            }
        }
        let known = known.into_iter().map(|(net, owners)| Known {
            net,
            source: Source::Catalogue,
            owners,
        });
        known.collect()
    });
    &KNOWN
}

/// The endpoints of an analysis: the table that the classifier asks, and where each entry is from.
pub(super) struct Endpoints {
    /// The table; a slot is an index of `known`.
    pub(super) tables: Tables,
    known: Vec<Known>,
}

impl Endpoints {
    /// What comes first counts where two name the same network.
    pub(super) fn new(known: impl IntoIterator<Item = Known>) -> Self {
        let mut nets = BTreeSet::new();
        let mut known: Vec<_> = known.into_iter().collect();
        known.retain(|known| nets.insert(known.net.trunc()));
        Self {
            tables: Tables::of_networks(known.iter().map(|known| known.net)),
            known,
        }
    }

    /// What a slot stands for.
    pub(super) fn known(&self, slot: u32) -> Option<&Known> {
        self.known.get(slot as usize)
    }

    /// What an address is known by; IPv4 as `::ffff:a.b.c.d`.
    pub(super) fn find(&self, address: [u8; 16]) -> Option<&Known> {
        let found = self.tables.prefix(u128::from_be_bytes(address))?;
        self.known(found.slot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Whose a network is by the catalogue.
pub(super) fn owners(net: IpNet) -> BTreeSet<Owner> {
    let known = of_catalogue().iter();
    let owners = known.filter(|known| known.net.contains(&net));
    let owners: BTreeSet<Owner> = owners.flat_map(|known| known.owners.clone()).collect();
    if owners.is_empty() {
        return BTreeSet::from([Owner::UNKNOWN]);
    }
    owners
}
