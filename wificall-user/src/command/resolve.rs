//! `wificall resolve`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use ipnet::IpNet;
use serde::Serialize;

use super::progress::Progress;
use super::{Failure, Outcome, print, print_json};
use crate::catalogue::{Catalogue, NameKind};
use crate::cli::{self, DEFAULT_CONFIG, Target};
use crate::config::{self, Config};
use crate::control;
use crate::discover::{
    self, Family, Filter, Found, Kind, Owner, Reason, Resolver, Selection, Stats, Targets,
    Transport, targets,
};
use crate::net;
use crate::observe::Contradiction;

/// With more names than this it takes a while.
const MANY: usize = 100;

/// What came of all questions.
#[derive(Debug, Serialize)]
struct Resolved {
    names: Vec<Name>,
    /// Names that visited countries' records give names at.
    visited: Vec<Visited>,
    /// Addresses that carriers give their handsets in place of a name.
    catalogued: Vec<Catalogued>,
    /// All that follows: addresses as far as they are widened, and prefixes.
    classified: Vec<Classified>,
    /// What the GeoIP database has in another country than its operators' codes.
    contradictions: Vec<Contradiction>,
    /// Names that were not asked for, because of an interrupt.
    unasked: usize,
    /// Queries sent.
    queries: u64,
    seconds: f64,
    /// Names that do not exist are counted only.
    #[serde(skip)]
    brief: bool,
}

#[derive(Debug, Serialize)]
struct Name {
    name: String,
    /// `operator`, `emergency`, …; none for a name that is not known to be an ePDG's.
    kind: Option<NameKind>,
    /// Who says so: `standard`, `domain`, `configuration`, or a source of the catalogue.
    sources: Vec<String>,
    operators: Vec<String>,
    countries: Vec<String>,
    /// The visited country's name whose records gave it.
    found_at: Option<String>,
    ipv4: Answer,
    ipv6: Answer,
}

/// What came of a question for NAPTR records.
#[derive(Debug, Serialize)]
struct Visited {
    name: String,
    /// `names`, `no_data`, `nx_domain`, `timeout`, ….
    result: &'static str,
    /// As they were given.
    names: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Classified {
    network: IpNet,
    operators: Vec<String>,
    countries: Vec<String>,
}

/// What is to be resolved, and what is classified without.
struct Wanted {
    targets: Targets,
    visited: discover::Visited,
    prefixes: Vec<(IpNet, BTreeSet<Owner>)>,
}

/// What came of one question.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Answer {
    /// `addresses`, `no_data`, `nx_domain`, `timeout`, ….
    result: &'static str,
    ttl_seconds: Option<u64>,
    addresses: Vec<IpAddr>,
    refused: Vec<Refused>,
    /// The name that this one is an alias of.
    canonical: Option<String>,
    /// Addresses beyond as many as are taken from one answer.
    left_out: usize,
    /// Why there is no usable answer.
    error: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Refused {
    address: IpAddr,
    reason: Reason,
}

#[derive(Debug, Serialize)]
struct Catalogued {
    address: IpAddr,
    sources: Vec<String>,
    operators: Vec<String>,
    countries: Vec<String>,
    refused: Option<Reason>,
}

pub(super) async fn run(arguments: cli::Resolve) -> Result<Outcome, Failure> {
    let needed = arguments.targets.is_empty() && !arguments.world;
    let config = configuration(arguments.config.as_deref(), needed)?;
    let wanted = wanted(&arguments, &config);
    let mut resolved = resolve(wanted, &config).await?;
    resolved.brief = arguments.world;
    if arguments.json {
        print_json(&resolved)?;
    } else {
        print(&resolved.text())?;
    }
    Ok(if resolved.is_empty() || resolved.unasked > 0 {
        Outcome::Failed
    } else {
        Outcome::Done
    })
}

/// The configuration that is named; else the one at the usual place; else, if none is needed, the defaults.
pub(super) fn configuration(named: Option<&Path>, needed: bool) -> Result<Config, config::Errors> {
    let usual = Path::new(DEFAULT_CONFIG);
    let parsed = match named {
        Some(file) => config::load(file)?,
        None if needed || usual.exists() => config::load(usual)?,
        // The least that a file must say; everything asked for here is in its defaults.
        None => config::parse(
            "interfaces.access = [\"*\"]\ndiscovery.operators = [\"001-01\"]",
            Path::new("the defaults"),
        )?,
    };
    Ok(parsed.config)
}

fn wanted(arguments: &cli::Resolve, config: &Config) -> Wanted {
    let (mut operators, mut countries) = (Vec::new(), Vec::new());
    let mut names: Vec<Arc<str>> = Vec::new();
    for argument in &arguments.targets {
        match argument {
            Target::Operators(pattern) => operators.push(*pattern),
            Target::Country(country) => countries.push(*country),
            Target::Name(name) => names.push(name.as_str().into()),
        }
    }
    let selection = if arguments.world {
        Selection {
            world: true,
            ..Selection::default()
        }
    } else if arguments.targets.is_empty() {
        config.discovery.selection()
    } else {
        Selection {
            operators: &operators,
            countries: &countries,
            ..Selection::default()
        }
    };
    let mut visited = discover::Visited::default();
    visited.select(&config.catalogue, &selection);
    let prefixes = config.prefixes.iter().map(|prefix| {
        let owner = Owner::configured(&config.catalogue, prefix.operator, prefix.country);
        (prefix.prefix, owner)
    });
    let meant = |owner: &Owner| {
        let operator = |plmn| operators.iter().any(|pattern| pattern.matches(&plmn));
        let country = |country| countries.contains(&country);
        arguments.targets.is_empty()
            || owner.plmn.is_some_and(operator)
            || owner.country.is_some_and(country)
    };
    let prefixes = prefixes.filter(|(_, owner)| meant(owner));
    let prefixes = prefixes
        .map(|(prefix, owner)| (prefix, [owner].into()))
        .collect();
    let mut wanted = targets(&config.catalogue, &selection);
    if arguments.all_forms {
        let operators = selection.operators(&config.catalogue).into_iter();
        for (plmn, owner) in operators {
            let further = config.catalogue.further_names(plmn).into_iter();
            wanted.names.extend(further.map(|name| discover::Target {
                name: name.name.into(),
                owners: Arc::new([owner].into()),
            }));
        }
    }
    for name in names {
        if wanted.names.iter().all(|target| target.name != name) {
            wanted.names.push(discover::Target {
                owners: config
                    .catalogue
                    .owner_of_name(&name)
                    .map(|(_, owners)| Arc::new(owners))
                    .unwrap_or_default(),
                name,
            });
        }
    }
    Wanted {
        targets: wanted,
        visited,
        prefixes,
    }
}

async fn resolve(wanted: Wanted, config: &Config) -> anyhow::Result<Resolved> {
    let Wanted {
        targets: mut wanted,
        mut visited,
        prefixes,
    } = wanted;
    let discovery = &config.discovery;
    let stats = Arc::new(Stats::default());
    let resolver = Resolver::new(&control::discovery(config), stats.clone())?;
    let own = net::addresses()
        .await
        .context("read the addresses of this box")?;
    let filter = Filter::new(
        own.into_iter().map(|(_, address)| address),
        config.lab.admit.iter().copied(),
    );
    let (resolver, filter) = (&resolver, &filter);
    let began = Instant::now();
    let countries = look_abroad(&mut visited, resolver, config, &stats).await;
    for target in visited.targets() {
        if wanted.names.iter().all(|other| other.name != target.name) {
            wanted.names.push(target);
        }
    }
    // Neighbours in name are on the same servers, which need not get all questions at once.
    let spread = RandomState::new();
    let mut order: Vec<_> = wanted.names.iter().collect();
    order.sort_by_cached_key(|target| spread.hash_one(&target.name));
    let mut asking = stream::iter(order)
        .map(async |target| {
            (
                target,
                ask(target, resolver, filter, &config.catalogue).await,
            )
        })
        .buffer_unordered(discovery.concurrency.max(1));
    let total = wanted.names.len();
    let mut progress = Progress::new("names", total, total > MANY);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut names = Vec::new();
    let mut hosts: Vec<(IpAddr, BTreeSet<Owner>)> = Vec::new();
    let (mut found, mut failed) = (0, 0);
    loop {
        let name = tokio::select! {
            name = asking.next() => name,
            _ = &mut interrupt => break,
        };
        let Some((target, mut name)) = name else {
            break;
        };
        name.found_at = visited.source(&name.name).map(ToOwned::to_owned);
        // Of a name that is nobody's, nothing is classified.
        if !target.owners.is_empty() {
            let addresses = name.ipv4.addresses.iter().chain(&name.ipv6.addresses);
            hosts.extend(addresses.map(|address| (*address, BTreeSet::clone(&target.owners))));
        }
        let answers = [&name.ipv4, &name.ipv6];
        found += usize::from(answers.iter().any(|answer| !answer.addresses.is_empty()));
        failed += usize::from(answers.iter().any(|answer| answer.error.is_some()));
        names.push(name);
        progress.step(|| format!("{found} with addresses, {failed} failed"));
    }
    progress.finish();
    names.sort_by(|a: &Name, b| a.name.cmp(&b.name));
    let catalogued = wanted.addresses.iter().map(|(address, of)| {
        let (operators, countries) = owners(of);
        let sources: BTreeSet<&str> = config
            .catalogue
            .sources_of_target(&address.to_string())
            .collect();
        Catalogued {
            address: *address,
            sources: strings(sources),
            operators,
            countries,
            refused: filter.check(*address).err(),
        }
    });
    let catalogued: Vec<Catalogued> = catalogued.collect();
    let literal = wanted.addresses.iter().cloned();
    hosts.extend(literal.filter(|(address, _)| filter.check(*address).is_ok()));
    let prefixes = prefixes.into_iter().chain(wanted.networks.iter().cloned());
    let mut prefixes: Vec<(IpNet, BTreeSet<Owner>)> = prefixes.collect();
    let contradictions = locate(config, &mut hosts, &mut prefixes);
    Ok(Resolved {
        unasked: total - names.len(),
        names,
        visited: countries,
        catalogued,
        classified: classified(config, hosts, prefixes),
        contradictions,
        queries: Transport::ALL.iter().map(|t| stats.queries(*t)).sum(),
        seconds: began.elapsed().as_secs_f64(),
        brief: false,
    })
}

/// Gives what was found the countries that only the GeoIP database knows; what that contradicts.
fn locate(
    config: &Config,
    hosts: &mut [(IpAddr, BTreeSet<Owner>)],
    prefixes: &mut [(IpNet, BTreeSet<Owner>)],
) -> Vec<Contradiction> {
    let mut geo = control::Geo::default();
    geo.follow(&config.geoip);
    let catalogue = &config.catalogue;
    let hosts = hosts
        .iter_mut()
        .map(|(address, owners)| (IpNet::from(*address), owners));
    let prefixes = prefixes.iter_mut().map(|(net, owners)| (*net, owners));
    let mut contradictions = BTreeMap::new();
    for (net, owners) in hosts.chain(prefixes) {
        if let Some(found) = geo.contradiction(owners, catalogue, net) {
            contradictions.insert(net, found);
        }
        geo.locate(owners, catalogue, net);
    }
    contradictions.into_values().collect()
}

/// Asks for the names that countries give, and takes them in.
async fn look_abroad(
    visited: &mut discover::Visited,
    resolver: &Resolver,
    config: &Config,
    stats: &Stats,
) -> Vec<Visited> {
    let names: Vec<_> = visited
        .names()
        .map(|(name, owners)| (name.clone(), owners))
        .collect();
    let mut asking = stream::iter(names)
        .map(async |(name, owners)| {
            let route = resolver.route(&owners);
            let answer = resolver.ask(&name, Kind::Naptr, route).await;
            (name, answer)
        })
        .buffered(config.discovery.concurrency.max(1));
    let mut asked = Vec::new();
    while let Some((at, answer)) = asking.next().await {
        let result = answer.result();
        let names = answer
            .replacements
            .map(|(names, _)| names)
            .unwrap_or_default();
        let error = match answer.outcome {
            discover::Outcome::Failed(failure) => Some(failure.to_string()),
            _ => None,
        };
        asked.push(Visited {
            name: at.to_string(),
            result,
            names: names.clone(),
            error,
        });
        visited.take(&Found { at, names }, &config.catalogue, stats);
    }
    asked
}

/// What the agent would make endpoints of, each network that is in no other.
fn classified(
    config: &Config,
    hosts: Vec<(IpAddr, BTreeSet<Owner>)>,
    prefixes: impl IntoIterator<Item = (IpNet, BTreeSet<Owner>)>,
) -> Vec<Classified> {
    let known = control::endpoints(config, hosts, prefixes);
    let outermost = |net: &IpNet| {
        !known
            .keys()
            .any(|other| other != net && other.contains(net))
    };
    known
        .iter()
        .filter(|(net, _)| outermost(net))
        .map(|(net, claim)| {
            let (operators, countries) = owners(&claim.owners);
            Classified {
                network: *net,
                operators,
                countries,
            }
        })
        .collect()
}

/// Asks for one name as the agent does: not for AAAA if there is no such name (RFC 8020 §2).
async fn ask(
    target: &discover::Target,
    resolver: &Resolver,
    filter: &Filter,
    catalogue: &Catalogue,
) -> Name {
    let route = resolver.route(&*target.owners);
    let ask = async |family: Family| resolver.ask(&target.name, family.into(), route).await;
    let ipv4 = Answer::of(ask(Family::V4).await, filter);
    let ipv6 = if ipv4.result == discover::Outcome::NxDomain.as_str() {
        Answer {
            result: ipv4.result,
            ..Answer::default()
        }
    } else {
        Answer::of(ask(Family::V6).await, filter)
    };
    let (operators, countries) = owners(&target.owners);
    Name {
        name: target.name.to_string(),
        kind: catalogue.owner_of_name(&target.name).map(|(kind, _)| kind),
        sources: strings(catalogue.sources_of_name(&target.name)),
        operators,
        countries,
        found_at: None,
        ipv4,
        ipv6,
    }
}

fn strings(texts: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    texts.into_iter().map(Into::into).collect()
}

/// Operators and countries, each once, in order.
fn owners(owners: &BTreeSet<Owner>) -> (Vec<String>, Vec<String>) {
    let operators: BTreeSet<_> = owners.iter().filter_map(|owner| owner.plmn).collect();
    let countries: BTreeSet<_> = owners.iter().filter_map(|owner| owner.country).collect();
    (
        operators.iter().map(ToString::to_string).collect(),
        countries.iter().map(ToString::to_string).collect(),
    )
}

impl Answer {
    fn of(answer: discover::Answer, filter: &Filter) -> Self {
        let outcome = answer.outcome;
        let mut answer = Self {
            result: outcome.as_str(),
            canonical: answer.canonical,
            left_out: answer.left_out,
            ..Self::default()
        };
        match outcome {
            discover::Outcome::Addresses { addresses, ttl } => {
                answer.ttl_seconds = Some(ttl.as_secs());
                for address in addresses {
                    match filter.check(address) {
                        Ok(()) => answer.addresses.push(address),
                        Err(reason) => answer.refused.push(Refused { address, reason }),
                    }
                }
            }
            discover::Outcome::NoData | discover::Outcome::NxDomain => {}
            discover::Outcome::Failed(failure) => answer.error = Some(failure.to_string()),
        }
        answer
    }

    fn write(&self, text: &mut String, record: &str) {
        for address in &self.addresses {
            let ttl = self.ttl_seconds.unwrap_or_default();
            let _ = writeln!(text, "  {record:<4}  {address}  (TTL {ttl} s)");
        }
        for Refused { address, reason } in &self.refused {
            let _ = writeln!(text, "  {record:<4}  {address}  refused: {reason}");
        }
        if self.left_out > 0 {
            let count = self.left_out;
            let _ = writeln!(
                text,
                "  {record:<4}  {count} more: no name has so many; ignored"
            );
        }
        match &self.error {
            Some(error) => {
                let _ = writeln!(text, "  {record:<4}  {}: {error}", self.result);
            }
            None if self.addresses.is_empty() && self.refused.is_empty() => {
                let _ = writeln!(text, "  {record:<4}  {}", self.result);
            }
            None => {}
        }
    }
}

impl Resolved {
    /// Whether there is nothing that could be an endpoint.
    fn is_empty(&self) -> bool {
        self.addresses().next().is_none() && self.classified.is_empty()
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let answered = self
            .names
            .iter()
            .flat_map(|name| name.ipv4.addresses.iter().chain(&name.ipv6.addresses));
        let catalogued = self
            .catalogued
            .iter()
            .filter(|catalogued| catalogued.refused.is_none())
            .map(|catalogued| &catalogued.address);
        answered.chain(catalogued).copied()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let absent = |answer: &Answer| matches!(answer.result, "nx_domain" | "no_data");
        for name in &self.names {
            if self.brief && absent(&name.ipv4) && absent(&name.ipv6) {
                continue;
            }
            let alias = name
                .ipv4
                .canonical
                .as_ref()
                .or(name.ipv6.canonical.as_ref());
            let _ = writeln!(
                text,
                "{}{}{}  {}",
                name.name,
                whose(&name.operators, &name.countries),
                alias.map(|name| format!("  → {name}")).unwrap_or_default(),
                name.why()
            );
            if name.ipv4.result == "nx_domain" && name.ipv6.result == "nx_domain" {
                text += "  no such name\n";
            } else {
                name.ipv4.write(&mut text, "A");
                name.ipv6.write(&mut text, "AAAA");
            }
        }
        for Visited {
            name,
            result,
            names,
            error,
        } in &self.visited
        {
            if names.is_empty() && error.is_none() {
                continue;
            }
            let _ = writeln!(text, "{name}  (visited country)");
            for name in names {
                let _ = writeln!(text, "  NAPTR  {name}");
            }
            if let Some(error) = error {
                let _ = writeln!(text, "  NAPTR  {result}: {error}");
            }
        }
        if !self.catalogued.is_empty() {
            text += "In the catalogue without a name\n";
        }
        for address in &self.catalogued {
            let whose = format!(
                "{}  ({})",
                whose(&address.operators, &address.countries),
                address.sources.join(", ")
            );
            let _ = match address.refused {
                None => writeln!(text, "  {}{whose}", address.address),
                Some(reason) => writeln!(text, "  {}{whose}  refused: {reason}", address.address),
            };
        }
        if !self.classified.is_empty() {
            text += "Would be classified\n";
        }
        for endpoint in &self.classified {
            let network = endpoint.network;
            let network = match network.prefix_len() == network.max_prefix_len() {
                true => network.addr().to_string(),
                false => network.to_string(),
            };
            let whose = whose(&endpoint.operators, &endpoint.countries);
            let _ = writeln!(text, "  {network}{whose}");
        }
        if !self.contradictions.is_empty() {
            text += "In another country by address (GeoIP) than by operator\n";
        }
        for found in &self.contradictions {
            let whose = whose(&found.operators, &found.countries);
            let _ = writeln!(
                text,
                "  {}{whose}, by address {}",
                found.network, found.geoip
            );
        }
        let addresses: BTreeSet<_> = self.addresses().collect();
        let _ = writeln!(
            text,
            "{} names asked, {} addresses usable",
            self.names.len(),
            addresses.len()
        );
        if self.brief {
            let count = |is: &dyn Fn(&Answer) -> bool| {
                let names = self.names.iter();
                names.filter(|n| is(&n.ipv4) || is(&n.ipv6)).count()
            };
            let with = count(&|answer| !answer.addresses.is_empty());
            let failed = count(&|answer| answer.error.is_some());
            let _ = writeln!(
                text,
                "{with} names have addresses, {failed} failed; {} queries in {:.0} s",
                self.queries, self.seconds
            );
        }
        if self.unasked > 0 {
            let _ = writeln!(text, "interrupted: {} names were not asked", self.unasked);
        }
        text
    }
}

impl Name {
    /// `(operator: standard)`
    fn why(&self) -> String {
        let at = self.found_at.as_ref();
        let at = at.map(|at| format!("; found at {at}")).unwrap_or_default();
        match self.kind {
            Some(kind) => format!("({}: {}{at})", kind.as_str(), self.sources.join(", ")),
            None => "(not known as an ePDG's: not classified unless it is configured)".to_owned(),
        }
    }
}

/// `  262-01+262-02 DE`, or nothing.
fn whose(operators: &[String], countries: &[String]) -> String {
    let mut text = String::new();
    for set in [operators, countries] {
        if !set.is_empty() {
            text += if text.is_empty() { "  " } else { " " };
            text += &set.join("+");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::discover::{Failure, FailureKind};

    fn name(name: &str, ipv4: discover::Outcome, ipv6: discover::Outcome) -> Name {
        let filter = Filter::default();
        Name {
            name: name.to_owned(),
            kind: Some(NameKind::Operator),
            sources: vec!["standard".to_owned()],
            operators: vec!["262-01".to_owned(), "262-06".to_owned()],
            countries: vec!["DE".to_owned()],
            found_at: None,
            ipv4: Answer::of(discover::Answer::of(ipv4), &filter),
            ipv6: Answer::of(discover::Answer::of(ipv6), &filter),
        }
    }

    fn addresses(addresses: &[&str]) -> discover::Outcome {
        discover::Outcome::Addresses {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ttl: Duration::from_secs(300),
        }
    }

    #[test]
    fn answers_read_like_this() {
        let failed = discover::Outcome::Failed(Failure {
            kind: FailureKind::Timeout,
            detail: "192.0.2.53:53: timed out".to_owned(),
        });
        let mut resolved = Resolved {
            names: vec![
                name(
                    "epdg.example.org",
                    addresses(&["109.237.187.195", "10.0.0.1"]),
                    discover::Outcome::NoData,
                ),
                name(
                    "sos.example.org",
                    discover::Outcome::NxDomain,
                    discover::Outcome::NxDomain,
                ),
                name("n3iwf.example.org", addresses(&["109.237.187.195"]), failed),
            ],
            visited: Vec::new(),
            classified: Vec::new(),
            contradictions: vec![Contradiction {
                network: "69.79.196.12".to_owned(),
                operators: vec!["338-180".to_owned()],
                countries: vec!["JM".to_owned()],
                geoip: "BB".to_owned(),
            }],
            catalogued: vec![Catalogued {
                address: "69.79.196.12".parse().unwrap(),
                sources: vec!["handset-profile".to_owned()],
                operators: vec!["338-180".to_owned()],
                countries: vec!["JM".to_owned()],
                refused: None,
            }],
            unasked: 0,
            queries: 7,
            seconds: 1.0,
            brief: false,
        };
        assert_eq!(
            resolved.text(),
            "epdg.example.org  262-01+262-06 DE  (operator: standard)\n  \
               A     109.237.187.195  (TTL 300 s)\n  \
               A     10.0.0.1  refused: private\n  \
               AAAA  no_data\n\
             sos.example.org  262-01+262-06 DE  (operator: standard)\n  \
               no such name\n\
             n3iwf.example.org  262-01+262-06 DE  (operator: standard)\n  \
               A     109.237.187.195  (TTL 300 s)\n  \
               AAAA  timeout: 192.0.2.53:53: timed out\n\
             In the catalogue without a name\n  \
               69.79.196.12  338-180 JM  (handset-profile)\n\
             In another country by address (GeoIP) than by operator\n  \
               69.79.196.12  338-180 JM, by address BB\n\
             3 names asked, 2 addresses usable\n"
        );
        assert!(!resolved.is_empty());
        // The world is mostly names that do not exist.
        resolved.brief = true;
        resolved.unasked = 4;
        let text = resolved.text();
        assert!(!text.contains("sos.example.org"), "{text}");
        let end = "2 names have addresses, 1 failed; 7 queries in 1 s\n\
                   interrupted: 4 names were not asked\n";
        assert!(text.ends_with(end), "{text}");
        let json = serde_json::to_value(&resolved).unwrap();
        assert_eq!(json["names"][0]["ipv4"]["refused"][0]["reason"], "private");
    }

    #[test]
    fn refused_addresses_are_no_success() {
        let resolved = Resolved {
            names: vec![name(
                "a.example.org",
                addresses(&["127.0.0.1"]),
                discover::Outcome::NoData,
            )],
            visited: Vec::new(),
            catalogued: Vec::new(),
            classified: Vec::new(),
            contradictions: Vec::new(),
            unasked: 0,
            queries: 2,
            seconds: 1.0,
            brief: false,
        };
        assert!(resolved.is_empty());
    }

    #[test]
    fn arguments_replace_what_is_configured() {
        let config = configuration_of_defaults();
        let names = |arguments: &[&str]| -> Vec<String> {
            let line = ["wificall", "resolve"].iter().chain(arguments);
            let cli::Command::Resolve(arguments) = cli::Cli::parse_from(line).command else {
                unreachable!("the subcommand is resolve");
            };
            let names = wanted(&arguments, &config).targets.names;
            names.iter().map(|target| target.name.to_string()).collect()
        };
        assert_eq!(names(&[]).len(), 4);
        assert_eq!(names(&["x.example.org"]), ["x.example.org"]);
        assert_eq!(names(&["262-01", "--all-forms"]).len(), 11);
        assert!(names(&["--world"]).len() > 9_000);
        // One name, asked for twice.
        let standard = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
        assert_eq!(names(&["262-01", standard]).len(), 4);
    }

    /// Addresses as far as they are widened, networks of the catalogue and of the configuration; what lies in another is
    /// not said again.
    #[test]
    fn all_that_would_be_classified() {
        let config = config::parse(
            "interfaces.access = [\"*\"]\ndiscovery.operators = [\"262-01\", \"505-01\"]\n\
             [[prefix]]\nprefix = \"8.8.0.0/20\"\noperator = \"262-01\"\n\
             [[prefix]]\nprefix = \"9.9.9.0/24\"\ncountry = \"NZ\"\n",
            Path::new("x.toml"),
        )
        .unwrap()
        .config;
        let shown = |arguments: &[&str]| -> Vec<String> {
            let line = ["wificall", "resolve"].iter().chain(arguments);
            let cli::Command::Resolve(arguments) = cli::Cli::parse_from(line).command else {
                unreachable!("the subcommand is resolve");
            };
            let wanted = wanted(&arguments, &config);
            let owner = Owner::of(&config.catalogue, "505-01".parse().unwrap());
            let hosts = ["8.8.8.8", "1.1.1.1", "2a00::8"];
            let hosts = hosts.map(|address| (address.parse().unwrap(), [owner].into()));
            let shown = classified(&config, hosts.into(), wanted.prefixes);
            let shown = shown.iter().map(|endpoint| {
                let whose = whose(&endpoint.operators, &endpoint.countries);
                format!("{}{whose}", endpoint.network)
            });
            shown.collect()
        };
        let (block4, block6) = ("1.1.1.0/24  505-01 AU", "2a00::/64  505-01 AU");
        let (germany, zealand) = ("8.8.0.0/20  262-01 DE", "9.9.9.0/24  NZ");
        assert_eq!(shown(&[]), [block4, germany, zealand, block6]);
        let own = "8.8.8.0/24  505-01 AU";
        assert_eq!(shown(&["NZ"]), [block4, own, zealand, block6]);
        assert_eq!(shown(&["262-*"]), [block4, germany, block6]);
    }

    /// In the GeoIP test database 2.125.160.216 is in GB, as is 81.2.69.142, and 89.160.20.112 in SE.
    #[test]
    fn countries_follow_the_addresses_of_whom_has_none() {
        let mut config = configuration_of_defaults();
        let database = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/data/GeoLite2-Country-Test.mmdb"
        );
        let owned = |operator: &str| {
            let plmn = operator.parse().unwrap();
            BTreeSet::from([Owner::of(&config.catalogue, plmn)])
        };
        let mut hosts = [
            ("2.125.160.216".parse().unwrap(), owned("901-28")),
            ("81.2.69.142".parse().unwrap(), owned("234-10")),
            ("89.160.20.112".parse().unwrap(), owned("234-10")),
        ];
        let mut prefixes = [
            ("2.125.160.216/29".parse().unwrap(), BTreeSet::new()),
            ("0.0.0.0/1".parse().unwrap(), BTreeSet::new()),
        ];
        let before = (hosts.clone(), prefixes.clone());
        assert!(locate(&config, &mut hosts, &mut prefixes).is_empty());
        assert_eq!(
            (hosts.clone(), prefixes.clone()),
            before,
            "without a database"
        );
        config.geoip.database = Some(database.into());
        let found = locate(&config, &mut hosts, &mut prefixes);
        let found: Vec<_> = found
            .iter()
            .map(|found| {
                format!(
                    "{} {} {}",
                    found.network,
                    found.countries.join("+"),
                    found.geoip
                )
            })
            .collect();
        assert_eq!(found, ["89.160.20.112 GB SE"]);
        let countries: Vec<_> = hosts
            .iter()
            .map(|(_, owners)| owners)
            .chain(prefixes.iter().map(|(_, owners)| owners))
            .map(|of| owners(of).1.join("+"))
            .collect();
        assert_eq!(countries, ["GB", "GB", "GB", "GB", ""]);
    }

    fn configuration_of_defaults() -> Config {
        config::parse(
            "interfaces.access = [\"*\"]\ndiscovery.operators = [\"001-01\"]",
            Path::new("x.toml"),
        )
        .unwrap()
        .config
    }
}
