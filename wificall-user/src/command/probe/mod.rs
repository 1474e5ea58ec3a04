//! `wificall probe`

mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::progress::Progress;
use super::{Failure, Outcome, print_json, print_styled, resolve};
use crate::catalogue::{OperatorPattern, Plmn};
use crate::cli::{self, ProbeTarget, Target};
use crate::config::{Config, Policy};
use crate::control;
use crate::discover::{self, Family, Filter, Owner, Resolver, Selection, Stats, Targets, targets};
use crate::net;
use crate::probe::best::{Choice, best};
use crate::probe::plan::{Admission, Plan, Refused, Summary};
use crate::probe::sweep::{Follow, Options, sweep};
use crate::probe::{AskedFor, Place, Probed, Source, Timing, VerdictKind};

/// Fewer probes are over before anybody wonders.
const MANY: usize = 20;

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Found {
    mark: Option<u32>,
    probed: Vec<Probed>,
    refused: Vec<Refused>,
    left_out: usize,
    asked: Vec<Summary>,
    best: Choice,
}

impl Found {
    /// Whether all that was asked for can be reached.
    fn all_reachable(&self) -> bool {
        !self.asked.is_empty() && self.asked.iter().all(|asked| asked.reachable > 0)
    }
}

pub(super) async fn run(arguments: cli::Probe) -> Result<Outcome, Failure> {
    let needed = arguments.targets.is_empty() || arguments.policy.is_some();
    let config = resolve::configuration(arguments.config.as_deref(), needed)?;
    let policy = match &arguments.policy {
        Some(name) => match config.policies.iter().find(|policy| policy.name == *name) {
            Some(policy) => Some(policy),
            None => {
                eprintln!("error: {}", unknown_policy(name, &config));
                return Ok(Outcome::Usage);
            }
        },
        None => None,
    };
    let mark = match policy {
        Some(policy) => match policy.treatment.mark {
            Some(mark) => Some(mark.value),
            None => {
                eprintln!(
                    "error: the policy `{}` sets no mark\n  hint: without --policy, probes go the way of this box's own traffic",
                    policy.name
                );
                return Ok(Outcome::Usage);
            }
        },
        None => arguments.mark,
    };
    let wanted = wanted(&arguments.targets, policy, &config);
    let resolver = resolver(&config, mark)?;
    let own = net::addresses()
        .await
        .context("read the addresses of this box")?;
    let filter = Filter::new(
        own.into_iter().map(|(_, address)| address),
        config.lab.admit.iter().copied(),
    );
    let admission = Admission::new(filter, arguments.allow_local);
    let families: &[Family] = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => &[Family::V4],
        (_, true) => &[Family::V6],
        _ => &Family::ALL,
    };
    let plan = plan(&wanted, &config, &resolver, families, &admission).await;
    let options = Options {
        ports: deduplicated(&arguments.ports),
        per_second: arguments.rate,
        timing: Timing {
            timeout: arguments.timeout,
            retries: arguments.retries,
        },
        group: arguments.group,
        source: Source { mark },
    };
    let follow = Follow {
        admission: &admission,
        resolver: Some(&resolver),
    };
    let places: Vec<Place> = plan.places.values().cloned().collect();
    let total = places.len() * options.ports.len();
    let mut progress = Progress::new("probes", total, total > MANY);
    let mut reachable = 0;
    let mut probed = sweep(&places, &options, follow, |probe| {
        reachable += u64::from(probe.finding.verdict.kind() == VerdictKind::Reachable);
        progress.step(|| format!("{reachable} reachable"));
    })
    .await;
    progress.finish();
    probed.sort_by_key(|probe| (probe.operators(), probe.address, probe.port));
    let choice = best(&probed);
    let found = Found {
        mark,
        asked: plan.summary(&probed, &choice),
        probed,
        refused: plan.refused,
        left_out: plan.left_out,
        best: choice,
    };
    match (arguments.json, arguments.best) {
        (true, false) => print_json(&found)?,
        (true, true) => print_json(&found.best)?,
        (false, true) => print_styled(&table::best(&found))?,
        (false, false) => print_styled(&table::all(&found))?,
    }
    Ok(if found.all_reachable() {
        Outcome::Done
    } else {
        Outcome::Failed
    })
}

fn unknown_policy(name: &str, config: &Config) -> String {
    let names: Vec<&str> = config.policies.iter().map(|p| p.name.as_str()).collect();
    let hint = match names.as_slice() {
        [] => "the configuration has no policies".to_owned(),
        names => format!("the policies are {}", names.join(", ")),
    };
    format!("there is no policy `{name}`\n  hint: {hint}")
}

/// What is to be probed, before DNS is asked.
#[derive(Debug, Default)]
struct Wanted {
    targets: Targets,
    /// Operators that were named themselves.
    operators: Vec<Plmn>,
    /// Names that were named themselves, or that are nobody's.
    names: Vec<Arc<str>>,
    addresses: Vec<IpAddr>,
}

/// The arguments; without any, what the policy is for; without one, what is configured.
fn wanted(arguments: &[ProbeTarget], policy: Option<&Policy>, config: &Config) -> Wanted {
    let catalogue = &*config.catalogue;
    let (mut operators, mut countries) = (Vec::new(), Vec::new());
    let mut wanted = Wanted::default();
    for argument in arguments {
        match argument {
            ProbeTarget::Address(address) => wanted.addresses.push(*address),
            ProbeTarget::Resolved(Target::Operators(pattern)) => operators.push(*pattern),
            ProbeTarget::Resolved(Target::Country(country)) => countries.push(*country),
            ProbeTarget::Resolved(Target::Name(name)) => wanted.names.push(name.as_str().into()),
        }
    }
    let selection = match policy {
        _ if !arguments.is_empty() => Selection {
            operators: &operators,
            countries: &countries,
            ..Selection::default()
        },
        Some(policy) => Selection {
            operators: &policy.operators,
            countries: &policy.countries,
            ..Selection::default()
        },
        None => config.discovery.selection(),
    };
    wanted.targets = targets(catalogue, &selection);
    if let (true, Some(policy)) = (arguments.is_empty(), policy) {
        // With both keys, both must hold.
        let fits = |owners: &mut BTreeSet<Owner>| {
            owners.retain(|owner| policy.matches(owner));
            !owners.is_empty()
        };
        wanted
            .targets
            .names
            .retain_mut(|target| fits(Arc::make_mut(&mut target.owners)));
        wanted
            .targets
            .addresses
            .retain_mut(|(_, owners)| fits(owners));
    }
    for pattern in selection.operators {
        if let OperatorPattern::Exact(plmn) = pattern {
            let known = catalogue.operator(*plmn);
            wanted
                .operators
                .push(known.map_or(*plmn, |known| known.plmn));
        }
    }
    for target in &wanted.targets.names {
        if target.owners.iter().all(|owner| owner.plmn.is_none()) {
            wanted.names.push(target.name.clone());
        }
    }
    for name in &wanted.names {
        if wanted
            .targets
            .names
            .iter()
            .all(|target| target.name != *name)
        {
            wanted.targets.names.push(discover::Target {
                name: name.clone(),
                owners: catalogue
                    .owner_of_name(name)
                    .map(|(_, owners)| Arc::new(owners))
                    .unwrap_or_default(),
            });
        }
    }
    wanted
}

fn deduplicated(ports: &[u16]) -> Vec<u16> {
    let ports: BTreeSet<u16> = ports.iter().copied().collect();
    ports.into_iter().collect()
}

/// Who is asked for names: as the agent asks, but by the way of the mark if there is one.
fn resolver(config: &Config, mark: Option<u32>) -> anyhow::Result<Resolver> {
    let mut settings = control::discovery(config);
    if mark.is_some() {
        settings.mark = mark;
        for route in &mut settings.routes {
            route.mark = mark;
        }
    }
    Resolver::new(&settings, Arc::new(Stats::default())).context("make a resolver")
}

/// Asks DNS for all that is wanted.
async fn plan(
    wanted: &Wanted,
    config: &Config,
    resolver: &Resolver,
    families: &[Family],
    admission: &Admission,
) -> Plan {
    let mut plan = Plan::default();
    let fits = |address: &IpAddr| {
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        families.contains(&family)
    };
    let Wanted {
        targets,
        operators,
        names,
        addresses,
    } = wanted;
    for operator in operators {
        plan.ask(AskedFor::Operator(*operator), true);
    }
    for name in names {
        plan.ask(AskedFor::Name(name.clone()), true);
    }
    let owners = targets
        .names
        .iter()
        .filter(|target| !names.contains(&target.name));
    let owners = owners.map(|target| &*target.owners);
    let literal = targets.addresses.iter().map(|(_, owners)| owners);
    for owner in owners.chain(literal).flatten() {
        if let Some(plmn) = owner.plmn {
            plan.ask(AskedFor::Operator(plmn), false);
        }
    }
    for address in addresses {
        plan.ask(AskedFor::Address(*address), true);
        plan.add(
            Some(*address).filter(fits),
            None,
            &BTreeSet::new(),
            admission,
        );
    }
    for (address, owners) in &targets.addresses {
        plan.add(Some(*address).filter(fits), None, owners, admission);
    }
    let questions = targets
        .names
        .iter()
        .flat_map(|target| families.iter().map(move |family| (target, *family)));
    let mut answers = stream::iter(questions)
        .map(async |(target, family)| {
            let route = resolver.route(&*target.owners);
            let answer = resolver.ask(&target.name, family.into(), route).await;
            (target, answer.outcome)
        })
        .buffered(config.discovery.concurrency.max(1));
    while let Some((target, outcome)) = answers.next().await {
        match outcome {
            discover::Outcome::Addresses { addresses, .. } => {
                plan.add(addresses, Some(&target.name), &target.owners, admission);
            }
            discover::Outcome::Failed(failure) => {
                plan.fail(&target.name, &target.owners, &failure.to_string());
            }
            discover::Outcome::NoData | discover::Outcome::NxDomain => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn an_unknown_policy_is_told_which_there_are() {
        let source = "interfaces.access = [\"*\"]\ndiscovery.operators = [\"262-01\"]\n";
        let parse = |source: &str| config::parse(source, Path::new("x.toml")).unwrap().config;
        assert_eq!(
            unknown_policy("a", &parse(source)),
            "there is no policy `a`\n  hint: the configuration has no policies"
        );
        let with = format!("{source}[[policy]]\nname = \"germany\"\noperators = [\"262-*\"]\n");
        assert!(unknown_policy("a", &parse(&with)).ends_with("the policies are germany"));
    }

    #[test]
    fn without_arguments_the_policy_or_the_configuration_decides() {
        let source = "interfaces.access = [\"*\"]\ndiscovery.countries = [\"AU\", \"NZ\"]\n\
                      [[policy]]\nname = \"one\"\noperators = [\"505-*\"]\ncountries = [\"AU\"]\n";
        let config = config::parse(source, Path::new("x.toml")).unwrap().config;
        let countries = |wanted: &Wanted| -> BTreeSet<String> {
            let owners = wanted
                .targets
                .names
                .iter()
                .flat_map(|target| &*target.owners);
            owners
                .map(|owner| owner.country.unwrap().to_string())
                .collect()
        };
        let all = wanted(&[], None, &config);
        assert_eq!(countries(&all), ["AU".to_owned(), "NZ".to_owned()].into());
        let one = wanted(&[], Some(&config.policies[0]), &config);
        assert_eq!(countries(&one), ["AU".to_owned()].into(), "both keys hold");
        let arguments = ["262-01", "198.51.100.1", "x.example.org"].map(|a| a.parse().unwrap());
        let named = wanted(&arguments, Some(&config.policies[0]), &config);
        assert_eq!(named.operators, ["262-01".parse().unwrap()]);
        assert_eq!((named.addresses.len(), named.names.len()), (1, 1));
        assert!(
            named
                .targets
                .names
                .iter()
                .any(|target| &*target.name == "x.example.org")
        );
    }

    #[test]
    fn each_port_is_probed_once() {
        assert_eq!(deduplicated(&[4500, 500, 4500]), [500, 4500]);
    }
}
