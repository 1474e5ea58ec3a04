//! What is known of the endpoint of a packet that is explained.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    agent::net_of,
    country::written,
    desired::{Claim, Desired, Known, Meaning},
    report::owners,
    world::World,
};
use crate::{discover::Tier, explanation::Endpoint, export::set::Text, kernel::Key};

/// Values of a kind that are listed.
const LISTED: usize = 8;

/// An endpoint, as the table and the memory have it.
pub(super) struct Found<'k> {
    /// The address that was looked up.
    address: IpAddr,
    /// Where it is in the table.
    key: Key,
    /// What the table says of it.
    pub meaning: Option<&'k Meaning>,
    /// The most specific of what is known of it; `None` if it is only left over in the kernel.
    pub claim: Option<(IpNet, &'k Claim, Tier)>,
}

/// What else is known of a network.
#[derive(Default)]
struct Named {
    names: BTreeSet<Arc<str>>,
    addresses: BTreeSet<IpAddr>,
    sources: BTreeSet<&'static str>,
}

impl World {
    /// The endpoint that an address was found to be.
    pub(super) fn found<'k>(
        &self,
        address: IpAddr,
        key: Key,
        desired: &'k Desired,
        known: &'k Known,
        tiers: &BTreeMap<IpNet, Option<Tier>>,
    ) -> Found<'k> {
        let claims = known.iter().filter(|(net, _)| net.contains(&address));
        let claims = claims.filter_map(|(net, claim)| {
            let tier = tiers.get(net).copied().flatten()?;
            Some((*net, claim, tier))
        });
        Found {
            address,
            key,
            meaning: desired.get(&key).and_then(|entry| entry.meaning.as_ref()),
            claim: claims.max_by_key(|(net, ..)| net.prefix_len()),
        }
    }

    /// What is told of it.
    pub(super) fn endpoint(&self, found: &Found) -> Endpoint {
        let country = self.geo.country(found.address);
        let mut endpoint = Endpoint {
            address: Some(Text(found.address)),
            found_as: match found.key {
                Key::Companion(_) => "companion",
                Key::Host(_) => "host",
                Key::Prefix(..) => "prefix",
                Key::Block4(_) | Key::Block6(_) => "block",
            }
            .into(),
            network: net_of(found.key).map(written).unwrap_or_default(),
            geoip: country.map(|country| country.to_string()),
            ..Endpoint::default()
        };
        if let Some(Meaning { label, .. }) = found.meaning {
            endpoint.counted_operator.clone_from(&label.operator);
            endpoint.counted_country.clone_from(&label.country);
        }
        let Some((net, claim, tier)) = found.claim else {
            return endpoint;
        };
        endpoint.network = written(net);
        if net.prefix_len() == net.max_prefix_len() {
            // Of one that says nothing else than its block, the table has no entry.
            endpoint.found_as = "host".into();
        }
        endpoint.tier = Some(tier.as_str().into());
        (endpoint.operators, endpoint.countries) = owners(&claim.owners);
        let named = self.known_in(net);
        endpoint.names = few(named.names.iter());
        endpoint.addresses = few(named.addresses.iter());
        endpoint.sources = named.sources.into_iter().map(Into::into).collect();
        endpoint.emergency = claim.emergency;
        endpoint
    }

    /// The names and addresses in a network that is known; of a single address, its own.
    fn known_in(&self, net: IpNet) -> Named {
        let filter = self.filter();
        let mut named = Named::default();
        for known in self.memory.known(&filter) {
            let address = self.plain(known.address);
            if net.contains(&address) {
                named.addresses.insert(address);
                named
                    .sources
                    .extend(known.sources.keys().map(|source| source.as_str()));
                named.names.extend(known.names);
            }
        }
        let mut prefixes = self.config.prefixes.iter();
        if prefixes.any(|prefix| prefix.prefix.contains(&net)) {
            named.sources.insert("static");
        }
        let mut networks = self.targets.networks.iter();
        let mut addresses = self.targets.addresses.iter();
        if networks.any(|(other, _)| other.contains(&net))
            || addresses.any(|(other, _)| net.contains(other))
        {
            named.sources.insert("catalogue");
        }
        named
    }
}

/// The first few of many.
pub(super) fn few(values: impl ExactSizeIterator<Item = impl ToString>) -> Vec<String> {
    let more = values.len().saturating_sub(LISTED);
    let mut texts: Vec<String> = values.take(LISTED).map(|value| value.to_string()).collect();
    if more > 0 {
        texts.push(format!("… {more} more"));
    }
    texts
}
