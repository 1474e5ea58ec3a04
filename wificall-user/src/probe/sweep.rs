//! Many exchanges: one for each address and port, paced, a few at a time; and the redirects that they meet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use tokio::time::sleep_until;

use super::exchange::Timing;
use super::ike::Gateway;
use super::keys::{Group, Keys};
use super::outcome::{Finding, Followed, Probed, Verdict};
use super::pace::Pace;
use super::plan::{Admission, Place};
use super::socket::{Source, probe};
use super::system_random;
use crate::discover::{Family, Outcome, Owner, Resolver};

/// Exchanges at a time.
const CONCURRENCY: usize = 16;

/// How to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ports, each probed at every address.
    pub ports: Vec<u16>,
    /// Exchanges begun a second at most.
    pub per_second: u32,
    /// How patient an exchange is.
    pub timing: Timing,
    /// The group that is tried first.
    pub group: Group,
    /// Where to send from.
    pub source: Source,
}

/// How a redirect is followed.
#[derive(Clone, Copy, Debug)]
pub struct Follow<'a> {
    /// Where to.
    pub admission: &'a Admission,
    /// Who resolves a gateway that is given by name; without one such a redirect is not followed.
    pub resolver: Option<&'a Resolver>,
}

/// Probes all `places`, all on one port first. `progress` hears of each exchange when it is over.
pub async fn sweep(
    places: &[Place],
    options: &Options,
    follow: Follow<'_>,
    mut progress: impl FnMut(&Probed),
) -> Vec<Probed> {
    let keys = Arc::new(Keys::new(system_random));
    let pace = Mutex::new(Pace::per_second(options.per_second));
    let jobs = options
        .ports
        .iter()
        .flat_map(|port| places.iter().map(move |place| (place, *port)));
    let count = options.ports.len() * places.len();
    let (pace, keys) = (&pace, &keys);
    let mut running = stream::iter(jobs)
        .map(async |(place, port)| {
            let mut random = [0];
            system_random(&mut random);
            let slot = pace
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .slot(Instant::now(), random[0]);
            sleep_until(slot.into()).await;
            let remote = SocketAddr::new(place.address, port);
            Probed {
                address: place.address,
                port,
                owners: place.owners.clone(),
                names: place.names.clone(),
                finding: exchange(remote, &place.owners, options, follow, keys).await,
            }
        })
        .buffer_unordered(CONCURRENCY);
    let mut probed = Vec::with_capacity(count);
    while let Some(one) = running.next().await {
        progress(&one);
        probed.push(one);
    }
    probed
}

/// One exchange with an ePDG of these owners, and one more where a redirect leads.
pub async fn exchange(
    remote: SocketAddr,
    owners: &BTreeSet<Owner>,
    options: &Options,
    follow: Follow<'_>,
    keys: &Arc<Keys>,
) -> Finding {
    let Options {
        source,
        group,
        timing,
        ..
    } = *options;
    let first = probe(remote, source, group, timing, None, keys).await;
    let Verdict::Redirected(gateway) = first.verdict.clone() else {
        return first;
    };
    let Some(address) = target(&gateway, remote.ip(), owners, follow).await else {
        return first;
    };
    let next = SocketAddr::new(address, remote.port());
    let second = probe(next, source, group, timing, Some(remote.ip()), keys).await;
    joined(first, gateway, address, second)
}

/// The finding where a redirect led, with what came before it.
fn joined(first: Finding, gateway: Gateway, address: IpAddr, second: Finding) -> Finding {
    let mut followed = first.followed;
    followed.push(Followed::Redirect(gateway, address));
    followed.extend(second.followed);
    Finding {
        followed,
        sent: first.sent + second.sent,
        ignored: first.ignored + second.ignored,
        ..second
    }
}

/// Where a redirect leads: not back, and only to where we would probe unasked. A name is asked for where the owners'
/// names are.
async fn target(
    gateway: &Gateway,
    from: IpAddr,
    owners: &BTreeSet<Owner>,
    follow: Follow<'_>,
) -> Option<IpAddr> {
    let fits = |address: &IpAddr| *address != from && follow.admission.check(*address).is_ok();
    match gateway {
        Gateway::Address(address) => Some(*address).filter(fits),
        Gateway::Name(name) => {
            let families = if from.is_ipv4() {
                [Family::V4, Family::V6]
            } else {
                [Family::V6, Family::V4]
            };
            let resolver = follow.resolver?;
            let route = resolver.route(owners);
            for family in families {
                let answer = resolver.ask(name, family.into(), route).await;
                if let Outcome::Addresses { addresses, .. } = answer.outcome
                    && let Some(address) = addresses.into_iter().find(fits)
                {
                    return Some(address);
                }
            }
            None
        }
    }
}
