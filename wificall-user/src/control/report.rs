//! The agent's report of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use wificall_common::{
    Class, Direction,
    abi::{ABI_VERSION, Counters},
};

use super::{agent::Agent, label::Label, probes};
use crate::{
    discover::{Family, Known, Lie, Owner, Transport, memory::NameState},
    kernel::Key,
    observe::{
        Address, Counter, Discovery, Exit, Group, Hook, Interface, Name, Probes, Question, Reloads,
        Report, Table,
        metrics::{NAME_STATES, name_state},
    },
};

impl Agent {
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
            discovery,
            probes,
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
        problems.extend(self.selection.waiting.iter().map(|name| {
            format!("no interface is called `{name}`: it is attached when it appears")
        }));
        if discovery.stale {
            problems.push(
                "DNS has stopped answering: the addresses known before stay in use".to_owned(),
            );
        }
        problems.extend(discovery.state_problem.clone());
        problems.extend(probes::problem(probed));
        problems.extend(
            self.reload_problem
                .as_ref()
                .map(|problem| format!("the last reload was refused: {problem}")),
        );
        problems
    }

    fn tables(&self) -> Result<Vec<Table>> {
        let entries = self.plane.entries()?;
        let count = |kind: fn(&Key) -> bool| entries.keys().filter(|key| kind(key)).count() as u64;
        let limits = self.plane.limits();
        let rows = self.plane.policies()?;
        let policies = rows.iter().filter(|row| row.valid != 0).count() as u64;
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
        // A name that has addresses and whose last attempts all failed rests on what was known before.
        let mut answering = names
            .iter()
            .filter(|name| !name.addresses.is_empty())
            .peekable();
        let stale = answering.peek().is_some() && answering.all(|name| name.error.is_some());
        Discovery {
            addresses: memory.len() as u64,
            seen: memory.seen_names().map(report).collect(),
            known: known.iter().map(address).collect(),
            displaced: memory.displaced(),
            nat64: self.world.nat64_prefixes(),
            last_success: names.iter().filter_map(|name| name.last_success).max(),
            stale,
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

fn address(known: &Known) -> Address {
    let (operators, countries) = owners(&known.owners);
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

/// Operators and countries, each once and in order.
fn owners(owners: &BTreeSet<Owner>) -> (Vec<String>, Vec<String>) {
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
