//! The report of the round of probes, and what is wrong in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::report::seconds;
use crate::observe::{ProbedOperator, Probes};
use crate::probe::VerdictKind;
use crate::probe::background::State;

/// More operators are not named in one problem.
const NAMED_MAX: usize = 5;

/// What the agent tells of its probes.
pub(super) fn report(state: &State) -> Probes {
    let mut by_operator: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, wanted) in &state.wanted {
        for operator in wanted.operators() {
            by_operator.entry(operator).or_default().insert(*address);
        }
    }
    let exchanges = VerdictKind::ALL.map(|kind| {
        let count = state.exchanges[kind as usize];
        (kind.as_str().to_owned(), count)
    });
    Probes {
        enabled: state.enabled,
        operators: by_operator
            .into_iter()
            .map(|(operator, addresses)| of_operator(state, &operator, &addresses))
            .collect(),
        left_out: state.left_out as u64,
        exchanges: exchanges.into_iter().filter(|(_, n)| *n > 0).collect(),
    }
}

fn of_operator(state: &State, operator: &str, addresses: &BTreeSet<IpAddr>) -> ProbedOperator {
    let mut results: BTreeMap<(u16, VerdictKind), u64> = BTreeMap::new();
    let (mut reachable, mut answering) = (BTreeSet::new(), BTreeSet::new());
    let mut failing = Vec::new();
    let mut row = ProbedOperator {
        operator: operator.to_owned(),
        addresses: addresses.len() as u64,
        last_success: state.last_success.get(operator).copied().map(seconds),
        ..ProbedOperator::default()
    };
    for ((address, port), last) in &state.last {
        if !addresses.contains(address) {
            continue;
        }
        *results.entry((*port, last.kind)).or_default() += 1;
        // Something of this port even if nothing is reachable: a metric that is absent raises no alert.
        results.entry((*port, VerdictKind::Reachable)).or_default();
        if last.kind == VerdictKind::Reachable {
            reachable.insert(address);
            let rtt = last.rtt.map(|rtt| rtt.as_micros() as u64);
            row.rtt_us = [row.rtt_us, rtt].into_iter().flatten().min();
        } else {
            let answers = if last.kind.is_answer() {
                "answers: "
            } else {
                ""
            };
            let kind = last.kind.as_str();
            let mut detail = format!("{answers}{address} port {port} {kind}");
            if !last.detail.is_empty() {
                detail = format!("{detail}: {}", last.detail);
            }
            failing.push((!last.kind.is_answer(), detail));
        }
        if last.kind.is_answer() {
            answering.insert(address);
        }
    }
    if reachable.is_empty() {
        failing.sort_by_key(|(silent, _)| *silent);
    }
    row.detail = failing.into_iter().next().map(|(_, detail)| detail);
    row.answering = answering.len() as u64;
    row.reachable = reachable.len() as u64;
    // One that is silent on a port may answer on the next.
    let is_pending = |address: &&IpAddr| {
        let mut ports = state.ports.iter();
        ports.any(|port| !state.last.contains_key(&(**address, *port)))
    };
    row.pending = addresses.iter().filter(is_pending).count() as u64;
    row.results = results
        .into_iter()
        .map(|((port, kind), count)| (port, kind.as_str().to_owned(), count))
        .collect();
    row
}

/// Operators none of whose addresses answers, in one sentence. One that refuses what probes offer is there, and phones
/// may fare better: of 275 ePDGs that answered in a survey, 33 refused everything (USENIX Security 2024).
pub(super) fn problem(probes: &Probes) -> Option<String> {
    let blocked: Vec<&str> = probes
        .operators
        .iter()
        .filter(|row| row.pending == 0 && row.answering == 0)
        .map(|row| row.operator.as_str())
        .collect();
    if blocked.is_empty() {
        return None;
    }
    let named = blocked[..blocked.len().min(NAMED_MAX)].join(", ");
    let more = match blocked.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "no ePDG of {named}{more} answers probes from here: Wi-Fi calls of its phones will probably fail (`wificall probe` shows why)"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::discover::Owner;
    use crate::probe::Source;
    use crate::probe::background::{Last, Wanted};

    fn state() -> State {
        let owner = |plmn: &&str| Owner {
            plmn: plmn.parse().ok(),
            country: None,
        };
        let wanted = |operators: &[&str]| Wanted {
            owners: Arc::new(operators.iter().map(owner).collect()),
            source: Source::default(),
        };
        let last = |kind, rtt: Option<u64>| Last {
            kind,
            detail: String::new(),
            rtt: rtt.map(Duration::from_millis),
        };
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        State {
            enabled: true,
            ports: vec![500, 4500],
            wanted: [
                (ip("198.18.0.1"), wanted(&["262-01", "262-02"])),
                (ip("198.18.0.2"), wanted(&["262-02"])),
                (ip("198.18.0.3"), wanted(&["505-01"])),
            ]
            .into(),
            last: [
                ((ip("198.18.0.1"), 500), last(VerdictKind::Silent, None)),
                ((ip("198.18.0.1"), 4500), last(VerdictKind::Silent, None)),
                (
                    (ip("198.18.0.2"), 500),
                    last(VerdictKind::Reachable, Some(20)),
                ),
            ]
            .into(),
            last_success: [(
                "262-02".to_owned(),
                SystemTime::UNIX_EPOCH + Duration::from_secs(9),
            )]
            .into(),
            ..State::default()
        }
    }

    #[test]
    fn an_operator_is_blocked_when_nothing_of_it_answers() {
        let probes = report(&state());
        let rows: Vec<_> = probes
            .operators
            .iter()
            .map(|row| {
                (
                    row.operator.as_str(),
                    row.addresses,
                    row.reachable,
                    row.pending,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("262-01", 1, 0, 0),
                ("262-02", 2, 1, 1),
                ("505-01", 1, 0, 1)
            ]
        );
        assert_eq!(probes.operators[1].rtt_us, Some(20_000));
        // Silent on one port, and not probed at the other yet: nothing to say.
        let mut begun = state();
        begun.last.remove(&("198.18.0.1".parse().unwrap(), 4500));
        assert_eq!(problem(&report(&begun)), None);
        assert_eq!(probes.operators[1].last_success, Some(9));
        assert!(
            probes.operators[0]
                .results
                .contains(&(500, "reachable".to_owned(), 0))
        );
        assert_eq!(
            probes.operators[0].detail.as_deref(),
            Some("198.18.0.1 port 500 silent")
        );
        let problem = problem(&probes).unwrap();
        assert!(
            problem.starts_with("no ePDG of 262-01 answers"),
            "{problem}"
        );
    }

    /// Each way that an exchange can end, on port 4500 while port 500 is silent.
    #[test]
    fn who_answers_is_not_blocked() {
        for kind in VerdictKind::ALL {
            let mut state = state();
            let last = Last {
                kind,
                detail: String::new(),
                rtt: None,
            };
            let address = "198.18.0.1".parse().unwrap();
            state.last.insert((address, 4500), last);
            let probes = report(&state);
            let silence = matches!(
                kind,
                VerdictKind::Silent | VerdictKind::Unreachable | VerdictKind::Failed
            );
            assert_eq!(problem(&probes).is_some(), silence, "{kind:?}");
            let detail = probes.operators[0].detail.as_deref();
            let refused = kind == VerdictKind::Refused;
            assert_eq!(
                detail == Some("answers: 198.18.0.1 port 4500 refused"),
                refused,
                "{detail:?}"
            );
        }
    }

    #[test]
    fn many_blocked_operators_are_one_problem() {
        let row = |n: u32| ProbedOperator {
            operator: format!("262-{n:02}"),
            addresses: 1,
            ..ProbedOperator::default()
        };
        let mut probes = Probes::default();
        assert_eq!(problem(&probes), None);
        probes.operators = (1..=8).map(row).collect();
        let problem = problem(&probes).unwrap();
        assert!(problem.contains("262-05 and 3 more answers"), "{problem}");
    }
}
