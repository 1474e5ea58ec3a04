//! The agent's report of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use ipnet::IpNet;
use wificall_common::{
    Class, Direction,
    abi::{ABI_VERSION, Counters, EventKind},
};

use super::{agent::Agent, label::Label, probes};
use crate::{
    discover::{Family, Known, Lie, Memory, Owner, Transport, memory::NameState},
    kernel::Key,
    observe::{
        Address, Candidate, Client, ClientName, Counter, Discovery, Exit, Fate, GeoIp, Group, Hook,
        Interface, Name, Probes, Question, Reloads, Report, Snoop, Table,
        metrics::{NAME_STATES, name_state},
    },
};

impl Agent {
    /// Sees what is around the hooks, which a report tells.
    pub(super) async fn look_around(&mut self) {
        let links = &self.world.links;
        self.around
            .look(&self.selection, links, Instant::now())
            .await;
    }

    /// Takes a report.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub(super) fn report(&self) -> Result<Report> {
        let interfaces = self.interfaces();
        let discovery = self.discovery_report();
        let probes = probes::report(&self.prober.state());
        let problems = self.problems(&interfaces, &discovery, &probes);
        let ready = self.table_problem.is_none()
            && interfaces
                .iter()
                .all(|interface| interface.problem.is_none());
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            instance: self.world.config.agent.instance.clone(),
            pid: Some(std::process::id()),
            started: Some(seconds(self.started)),
            config: Some(self.path.display().to_string()),
            at: seconds(SystemTime::now()),
            ready,
            problems,
            interfaces,
            waiting: self.selection.waiting.clone(),
            tables: self.tables()?,
            groups: self.groups()?,
            exits: self
                .plane
                .exits()?
                .into_iter()
                .map(|(hook, exit, frames)| Exit {
                    hook: hook.name().into(),
                    exit: exit.name().into(),
                    frames,
                })
                .collect(),
            demoted: demoted(self.plane.demoted()?),
            bleached: self.plane.bleached()?,
            other_ipsec: self.other_report()?,
            discovery,
            snoop: self.snoop_report()?,
            telemetry: self.telemetry_report()?,
            geoip: self.geoip_report(),
            probes,
            steering: self.steering_report(),
            steering_repairs: self.exits.repairs,
            surroundings: self.around.seen.clone(),
            reloads: Reloads {
                done: self.reloads_done,
                refused: self.reloads_refused,
                problem: self.reload_problem.clone(),
            },
            repairs: self.repairs,
        })
    }

    fn interfaces(&self) -> Vec<Interface> {
        self.selection
            .interfaces
            .iter()
            .map(|selected| Interface {
                name: selected.link.name.clone(),
                index: selected.link.index,
                role: selected.role.name().into(),
                wireless: selected.wireless,
                hooks: self
                    .attached
                    .values()
                    .filter(|attached| attached.attachment.ifindex == selected.link.index)
                    .map(|attached| Hook {
                        hook: attached.attachment.hook.name().into(),
                        method: attached.attachment.method.name().into(),
                        program: attached.attachment.program.into(),
                        program_id: attached.program_id,
                    })
                    .collect(),
                problem: selected
                    .problem
                    .clone()
                    .or_else(|| self.failed.get(&selected.link.index).cloned()),
            })
            .collect()
    }

    fn problems(
        &self,
        interfaces: &[Interface],
        discovery: &Discovery,
        probed: &Probes,
    ) -> Vec<String> {
        let mut problems: Vec<String> = interfaces
            .iter()
            .filter_map(|interface| interface.problem.clone())
            .collect();
        problems.extend(self.table_problem.clone());
        problems.extend(self.world.geo.problem.clone());
        problems.extend(self.arming_problem());
        problems.extend(self.own_prefixes());
        if self.world.config.listens() {
            problems.extend(self.world.origins().problem);
        }
        problems.extend(self.selection.waiting.iter().map(|name| {
            format!("no interface is called `{name}`: it is attached when it appears")
        }));
        if discovery.stale {
            problems.push(
                "DNS has stopped answering: the addresses known before stay in use".to_owned(),
            );
        }
        problems.extend(discovery.state_problem.clone());
        problems.extend(self.textfile_problem.clone());
        problems.extend(self.exits.problems());
        problems.extend(self.around.seen.problems());
        problems.extend(probes::problem(probed));
        problems.extend(
            self.reload_problem
                .as_ref()
                .map(|problem| format!("the last reload was refused: {problem}")),
        );
        problems
    }

    /// Prefixes of the configuration that no packet will match: the box's own addresses and networks are never endpoints.
    fn own_prefixes(&self) -> impl Iterator<Item = String> {
        let excluded = self.world.excluded();
        (self.world.config.prefixes.iter()).filter_map(move |configured| {
            let prefix = configured.prefix;
            let own = excluded.iter().find(|own| own.contains(&prefix))?;
            Some(format!(
                "the prefix {prefix} is no endpoint: it is in {own}, which is this box's own"
            ))
        })
    }

    fn tables(&self) -> Result<Vec<Table>> {
        let entries = self.plane.entries()?;
        let count = |kind: fn(&Key) -> bool| entries.keys().filter(|key| kind(key)).count() as u64;
        let limits = self.plane.limits();
        let rows = self.plane.policies()?;
        let policies = rows.iter().filter(|row| row.valid != 0).count() as u64;
        let choices = self.plane.choices()?.len() as u64;
        let left = &self.left_out;
        let table = |name: &str, used, size: u32, left_out| Table {
            name: name.into(),
            used,
            size: size.into(),
            left_out,
        };
        Ok(vec![
            table(
                "ipv4_blocks",
                count(|key| matches!(key, Key::Block4(_))),
                limits.blocks,
                left.ipv4_blocks,
            ),
            table(
                "ipv6_blocks",
                count(|key| matches!(key, Key::Block6(_))),
                limits.blocks,
                left.ipv6_blocks,
            ),
            table(
                "hosts",
                count(|key| matches!(key, Key::Host(_))),
                limits.hosts,
                left.hosts,
            ),
            table(
                "prefixes",
                count(|key| matches!(key, Key::Prefix(..))),
                limits.prefixes,
                left.prefixes,
            ),
            table(
                "groups",
                self.plane.labels()?.len() as u64,
                limits.groups,
                left.groups,
            ),
            table("policies", policies, limits.policies, left.policies),
            table("choices", choices, limits.choices, left.choices),
        ])
    }

    fn groups(&self) -> Result<Vec<Group>> {
        self.plane
            .labels()?
            .iter()
            .map(|(index, label)| {
                Ok(group(
                    &Label::from_abi(label),
                    &self.plane.counters(*index)?,
                ))
            })
            .collect()
    }

    fn snoop_report(&self) -> Result<Snoop> {
        let count = |kind: &str, fate: &str, count| Fate {
            kind: kind.into(),
            fate: fate.into(),
            count,
        };
        let events = self.plane.event_counts()?;
        let clients = self.snoop.clients();
        Ok(Snoop {
            on: self.world.config.listens(),
            events: events
                .into_iter()
                .map(|(kind, fate, number)| count(kind.name(), fate.name(), number))
                .collect(),
            heard: self
                .snoop
                .fates()
                .map(|(kind, fate, number)| {
                    let kind = kind.map_or("unknown", EventKind::name);
                    count(kind, fate.as_str(), number)
                })
                .collect(),
            waiting: self.snoop.waiting() as u64,
            displaced: self.snoop.displaced(),
            clients: clients
                .iter()
                .map(|(address, names)| {
                    let owners = clients.owners(address);
                    let operators: BTreeSet<_> = owners.iter().filter_map(|o| o.plmn).collect();
                    let countries: BTreeSet<_> = owners.iter().filter_map(|o| o.country).collect();
                    Client {
                        address: address.to_string(),
                        operators: operators.iter().map(ToString::to_string).collect(),
                        countries: countries.iter().map(ToString::to_string).collect(),
                        names: names
                            .iter()
                            .map(|(name, asked)| ClientName {
                                name: name.clone(),
                                first: seconds(asked.first),
                                last: seconds(asked.last),
                            })
                            .collect(),
                    }
                })
                .collect(),
            candidates: self
                .snoop
                .candidates()
                .iter()
                .map(|(address, candidate)| Candidate {
                    address: address.to_string(),
                    country: candidate.country.map(|country| country.to_string()),
                    first: seconds(candidate.first),
                    last: seconds(candidate.last),
                    exchanges: candidate.exchanges,
                })
                .collect(),
        })
    }

    fn geoip_report(&self) -> GeoIp {
        let (hosts, prefixes) = self.world.claims();
        let hosts = hosts
            .iter()
            .map(|(address, claim)| (IpNet::from(*address), &claim.owners));
        let prefixes = prefixes.iter().map(|(net, owners)| (*net, owners));
        self.world
            .geo
            .report(hosts.chain(prefixes), &self.world.config.catalogue)
    }

    fn discovery_report(&self) -> Discovery {
        let filter = self.world.filter();
        let memory = &self.world.memory;
        let known: Vec<_> = memory.known(&filter).collect();
        let mut addresses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for known in &known {
            for name in &known.names {
                let of_name = addresses.entry(name).or_default();
                of_name.push(known.address.to_string());
            }
        }
        let report = |(name, state): (&Arc<str>, &NameState)| {
            let asked = Family::ALL.map(|family| state.asked(family));
            let [ipv4, ipv6] =
                [&asked[0], &asked[1]].map(|asked| asked.result.map(ToOwned::to_owned));
            let (operators, countries) = owners(&state.owners);
            Name {
                name: name.to_string(),
                operators,
                countries,
                addresses: addresses.get(&**name).cloned().unwrap_or_default(),
                found_at: self.world.visited.source(name).map(ToOwned::to_owned),
                ipv4,
                ipv6,
                last_success: state.last_success().map(seconds),
                error: asked.iter().find_map(|asked| asked.error.clone()),
            }
        };
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        let names: Vec<Name> = memory
            .names()
            .map(report)
            // Most of the world's names do not exist: they are counted, lest each scrape cost as
            // much memory as the agent has otherwise.
            .filter(|name| {
                let state = name_state(name);
                *states.entry(state).or_default() += 1;
                !name.addresses.is_empty() || matches!(state, "addresses" | "failed")
            })
            .collect();
        Discovery {
            addresses: memory.len() as u64,
            seen: memory.seen_names().map(report).collect(),
            known: known.iter().map(|known| self.address(known)).collect(),
            displaced: memory.displaced(),
            nat64: self.world.nat64_prefixes(),
            last_success: last_success(memory).map(seconds),
            stale: stale(memory, &known),
            names,
            name_states: NAME_STATES
                .map(|state| (state.to_owned(), states.get(state).copied().unwrap_or(0)))
                .into(),
            questions: self
                .stats
                .questions()
                .map(|(kind, result, count)| Question {
                    kind: kind.as_str().into(),
                    result: result.into(),
                    count,
                })
                .collect(),
            queries: by_transport(|transport| self.stats.queries(transport)),
            connections: by_transport(|transport| self.stats.connections(transport)),
            not_believed: Lie::ALL
                .map(|lie| (lie.as_str().to_owned(), self.stats.lies(lie)))
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            servers: self.stats.servers(),
            unasked: self.stats.unasked(),
            backlog: self.stats.backlog(),
            refused: self
                .refused
                .iter()
                .map(|(reason, count)| (reason.as_str().to_owned(), *count))
                .collect(),
            overflow: self.world.memory.overflow(),
            state_problem: self.state_problem.clone(),
        }
    }
}

impl Agent {
    fn address(&self, known: &Known) -> Address {
        let mut located = BTreeSet::clone(&known.owners);
        let catalogue = &self.world.config.catalogue;
        let geo = &self.world.geo;
        geo.locate(&mut located, catalogue, known.address.into());
        let (operators, countries) = owners(&located);
        let sources = known.sources.iter();
        Address {
            address: known.address.to_string(),
            tier: known.tier.as_str().into(),
            operators,
            countries,
            sources: sources
                .map(|(source, at)| (source.as_str().to_owned(), seconds(*at)))
                .collect(),
            first_seen: seconds(known.first_seen),
            last_answer: seconds(known.last_answer),
            last_traffic: known.last_traffic.map(seconds),
        }
    }
}

/// All names that our resolver is asked for.
fn asked(memory: &Memory) -> impl Iterator<Item = (&Arc<str>, &NameState)> {
    memory.names().chain(memory.seen_names())
}

fn last_success(memory: &Memory) -> Option<SystemTime> {
    let states = asked(memory).map(|(_, state)| state);
    states.filter_map(NameState::last_success).max()
}

/// Whether what is known rests on what was known before: the last attempts failed for every name that our resolver gave
/// addresses for.
fn stale(memory: &Memory, known: &[Known]) -> bool {
    let named: BTreeSet<&Arc<str>> = known.iter().flat_map(|known| &known.names).collect();
    let mut answered = asked(memory)
        .filter(|(name, _)| named.contains(name))
        .filter_map(|(_, state)| state.failing())
        .peekable();
    answered.peek().is_some() && answered.all(|failing| failing)
}

/// Operators and countries, each once and in order.
pub(super) fn owners(owners: &BTreeSet<Owner>) -> (Vec<String>, Vec<String>) {
    let operators: BTreeSet<_> = owners.iter().filter_map(|owner| owner.plmn).collect();
    let countries: BTreeSet<_> = owners.iter().filter_map(|owner| owner.country).collect();
    (
        operators.iter().map(ToString::to_string).collect(),
        countries.iter().map(ToString::to_string).collect(),
    )
}

/// Packets over a cap, as reports have them.
#[must_use]
pub fn demoted(packets: [u64; 2]) -> Vec<(String, u64)> {
    let directions = Direction::ALL.map(|direction| direction.name().to_owned());
    directions.into_iter().zip(packets).collect()
}

fn by_transport(count: impl Fn(Transport) -> u64) -> Vec<(String, u64)> {
    Transport::ALL
        .map(|transport| (transport.as_str().to_owned(), count(transport)))
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A group's counters that are not zero.
#[must_use]
pub fn group(label: &Label, counters: &Counters) -> Group {
    let mut cells = Vec::new();
    for direction in Direction::ALL {
        for class in Class::ALL {
            let cell = counters.cells[direction as usize][class as usize];
            if cell.packets != 0 {
                cells.push(Counter {
                    direction: direction.name().into(),
                    class: class.name().into(),
                    packets: cell.packets,
                    bytes: cell.bytes,
                });
            }
        }
    }
    Group {
        operator: label.operator.clone(),
        country: label.country.clone(),
        counters: cells,
    }
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::discover::{
        Bounds, Failure, FailureKind, Filter, Outcome, Sighting, Target, Update,
    };

    const CONFIGURED: &str = "epdg.epc.mnc001.mcc262.pub.3gppnetwork.org";
    const SEEN: &str = "epdg.epc.mnc001.mcc505.pub.3gppnetwork.org";

    /// Takes in what came of a question; whether it is all stale, and the second of the last success.
    fn told(
        memory: &mut Memory,
        name: &str,
        family: Family,
        address: Option<&str>,
        at: u64,
    ) -> (bool, Option<u64>) {
        let outcome = match address {
            Some(address) => Outcome::Addresses {
                addresses: vec![address.parse().unwrap()],
                ttl: Duration::from_secs(60),
            },
            None => Outcome::Failed(Failure {
                kind: FailureKind::ServFail,
                detail: "it answers SERVFAIL".to_owned(),
            }),
        };
        let update = Update {
            name: name.into(),
            family,
            outcome,
            at: UNIX_EPOCH + Duration::from_secs(at),
        };
        let filter = Filter::default();
        memory.apply(&update, &filter);
        let known: Vec<_> = memory.known(&filter).collect();
        (stale(memory, &known), last_success(memory).map(seconds))
    }

    #[test]
    fn a_family_that_fails_is_not_all_of_dns() {
        let mut memory = Memory::new(Duration::from_secs(86_400), Bounds::default());
        memory.set_targets(&[Target {
            name: CONFIGURED.into(),
            owners: Arc::new([Owner::UNKNOWN].into()),
        }]);
        let mut told = |family, address, at| told(&mut memory, CONFIGURED, family, address, at);
        assert_eq!(told(Family::V6, None, 1), (false, None), "nothing is known");
        assert_eq!(told(Family::V4, Some("8.8.4.4"), 2), (false, Some(2)));
        assert_eq!(told(Family::V6, None, 3), (false, Some(2)));
        assert_eq!(told(Family::V4, None, 4), (true, Some(2)));
        assert_eq!(told(Family::V6, Some("2a00::1"), 5), (false, Some(5)));
        assert_eq!(told(Family::V6, None, 6), (true, Some(5)), "both fail now");
        assert_eq!(told(Family::V4, Some("8.8.4.4"), 7), (false, Some(7)));
    }

    #[test]
    fn names_that_only_clients_asked_for_count_too() {
        let mut memory = Memory::new(Duration::from_secs(86_400), Bounds::default());
        let sighting = Sighting {
            name: SEEN.into(),
            addresses: vec!["8.8.8.8".parse().unwrap()],
            client: "10.0.0.2".parse().unwrap(),
            at: UNIX_EPOCH + Duration::from_secs(1),
        };
        assert!(memory.observe(&sighting, &Filter::default()).counts);
        let mut told = |address, at| told(&mut memory, SEEN, Family::V4, address, at);
        assert_eq!(told(None, 2), (false, None), "it never answered us");
        assert_eq!(told(Some("8.8.4.4"), 3), (false, Some(3)));
        assert_eq!(told(None, 4), (true, Some(3)));
    }
}
