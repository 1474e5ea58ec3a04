//! `wificall resolve`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::{Failure, Outcome, print, print_json};
use crate::cli::{self, DEFAULT_CONFIG, Target};
use crate::config::{self, Config};
use crate::discover::{
    self, Family, Filter, Owner, Reason, Resolver, Selection, Settings, Stats, Targets, targets,
};
use crate::net;

/// What came of all questions.
#[derive(Debug, Serialize)]
struct Resolved {
    names: Vec<Name>,
    /// Addresses that carriers give their handsets in place of a name.
    catalogued: Vec<Catalogued>,
}

#[derive(Debug, Serialize)]
struct Name {
    name: String,
    operators: Vec<String>,
    countries: Vec<String>,
    ipv4: Answer,
    ipv6: Answer,
}

/// What came of one question.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Answer {
    /// `addresses`, `no_data`, `nx_domain`, `timeout`, ….
    result: &'static str,
    ttl_seconds: Option<u64>,
    addresses: Vec<IpAddr>,
    refused: Vec<Refused>,
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
    operators: Vec<String>,
    countries: Vec<String>,
    refused: Option<Reason>,
}

pub(super) async fn run(arguments: cli::Resolve) -> Result<Outcome, Failure> {
    let config = configuration(arguments.config.as_deref(), arguments.targets.is_empty())?;
    let wanted = wanted(&arguments.targets, &config);
    let resolved = resolve(&wanted, &config).await?;
    if arguments.json {
        print_json(&resolved)?;
    } else {
        print(&resolved.text())?;
    }
    Ok(if resolved.is_empty() {
        Outcome::Failed
    } else {
        Outcome::Done
    })
}

/// The configuration that is named; else the one at the usual place; else, if none is needed, the defaults.
fn configuration(named: Option<&Path>, needed: bool) -> Result<Config, config::Errors> {
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

fn wanted(arguments: &[Target], config: &Config) -> Targets {
    if arguments.is_empty() {
        return targets(&config.catalogue, &config.discovery.selection());
    }
    let (mut operators, mut countries) = (Vec::new(), Vec::new());
    let mut names: Vec<Arc<str>> = Vec::new();
    for argument in arguments {
        match argument {
            Target::Operators(pattern) => operators.push(*pattern),
            Target::Country(country) => countries.push(*country),
            Target::Name(name) => names.push(name.as_str().into()),
        }
    }
    let mut wanted = targets(
        &config.catalogue,
        &Selection {
            operators: &operators,
            countries: &countries,
            ..Selection::default()
        },
    );
    for name in names {
        if wanted.names.iter().all(|target| target.name != name) {
            wanted.names.push(discover::Target {
                owners: config
                    .catalogue
                    .owner_of_name(&name)
                    .map(|(_, owners)| owners)
                    .unwrap_or_default(),
                name,
            });
        }
    }
    wanted
}

async fn resolve(wanted: &Targets, config: &Config) -> anyhow::Result<Resolved> {
    let discovery = &config.discovery;
    let settings = Settings {
        upstreams: discovery.resolvers.clone(),
        timeout: discovery.timeout,
        refresh_min: discovery.refresh_min,
        refresh_max: discovery.refresh_max,
        queries_per_second: discovery.queries_per_second,
        concurrency: discovery.concurrency,
        mark: None,
    };
    let resolver =
        Resolver::new(&settings, Arc::new(Stats::default())).context("make a resolver")?;
    let own = net::addresses()
        .await
        .context("read the addresses of this box")?;
    let filter = Filter::new(
        own.into_iter().map(|(_, address)| address),
        config.lab.admit.iter().copied(),
    );
    let (resolver, filter) = (&resolver, &filter);
    let names = stream::iter(&wanted.names)
        .map(|target| async move {
            let ask =
                async |family| Answer::of(resolver.lookup(&target.name, family).await, filter);
            let (operators, countries) = owners(&target.owners);
            Name {
                name: target.name.to_string(),
                operators,
                countries,
                ipv4: ask(Family::V4).await,
                ipv6: ask(Family::V6).await,
            }
        })
        .buffered(discovery.concurrency.max(1))
        .collect()
        .await;
    let catalogued = wanted.addresses.iter().map(|(address, of)| {
        let (operators, countries) = owners(of);
        Catalogued {
            address: *address,
            operators,
            countries,
            refused: filter.check(*address).err(),
        }
    });
    Ok(Resolved {
        names,
        catalogued: catalogued.collect(),
    })
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
    fn of(outcome: discover::Outcome, filter: &Filter) -> Self {
        let mut answer = Self {
            result: outcome.as_str(),
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
    /// Whether there is no address that could be an endpoint.
    fn is_empty(&self) -> bool {
        self.addresses().next().is_none()
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
        for name in &self.names {
            let _ = writeln!(
                text,
                "{}{}",
                name.name,
                whose(&name.operators, &name.countries)
            );
            if name.ipv4.result == "nx_domain" && name.ipv6.result == "nx_domain" {
                text += "  no such name\n";
            } else {
                name.ipv4.write(&mut text, "A");
                name.ipv6.write(&mut text, "AAAA");
            }
        }
        if !self.catalogued.is_empty() {
            text += "In the catalogue without a name\n";
        }
        for address in &self.catalogued {
            let whose = whose(&address.operators, &address.countries);
            let _ = match address.refused {
                None => writeln!(text, "  {}{whose}", address.address),
                Some(reason) => writeln!(text, "  {}{whose}  refused: {reason}", address.address),
            };
        }
        let addresses: BTreeSet<_> = self.addresses().collect();
        let _ = writeln!(
            text,
            "{} names asked, {} addresses usable",
            self.names.len(),
            addresses.len()
        );
        text
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

    use super::*;
    use crate::discover::{Failure, FailureKind};

    fn name(name: &str, ipv4: discover::Outcome, ipv6: discover::Outcome) -> Name {
        let filter = Filter::default();
        Name {
            name: name.to_owned(),
            operators: vec!["262-01".to_owned(), "262-06".to_owned()],
            countries: vec!["DE".to_owned()],
            ipv4: Answer::of(ipv4, &filter),
            ipv6: Answer::of(ipv6, &filter),
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
        let resolved = Resolved {
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
            catalogued: vec![Catalogued {
                address: "69.79.196.12".parse().unwrap(),
                operators: vec!["338-180".to_owned()],
                countries: vec!["JM".to_owned()],
                refused: None,
            }],
        };
        assert_eq!(
            resolved.text(),
            "epdg.example.org  262-01+262-06 DE\n  \
               A     109.237.187.195  (TTL 300 s)\n  \
               A     10.0.0.1  refused: private\n  \
               AAAA  no_data\n\
             sos.example.org  262-01+262-06 DE\n  \
               no such name\n\
             n3iwf.example.org  262-01+262-06 DE\n  \
               A     109.237.187.195  (TTL 300 s)\n  \
               AAAA  timeout: 192.0.2.53:53: timed out\n\
             In the catalogue without a name\n  \
               69.79.196.12  338-180 JM\n\
             3 names asked, 2 addresses usable\n"
        );
        assert!(!resolved.is_empty());
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
            catalogued: Vec::new(),
        };
        assert!(resolved.is_empty());
    }

    #[test]
    fn arguments_replace_what_is_configured() {
        let config = configuration_of_defaults();
        let names = |arguments: &[&str]| -> Vec<String> {
            let arguments: Vec<_> = arguments.iter().map(|a| a.parse().unwrap()).collect();
            let names = wanted(&arguments, &config).names;
            names.iter().map(|target| target.name.to_string()).collect()
        };
        assert_eq!(names(&[]).len(), 4);
        assert_eq!(names(&["x.example.org"]), ["x.example.org"]);
        // One name, asked for twice.
        let standard = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
        assert_eq!(names(&["262-01", standard]).len(), 4);
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
