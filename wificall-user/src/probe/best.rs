//! Which address to use: the choice behind `probe --best`, and of whoever writes hosts files from probes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::outcome::{Probed, VerdictKind, milliseconds};

/// The best addresses by operator and by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Choice {
    /// The best of each operator.
    pub operators: BTreeMap<String, Best>,
    /// The best of each name and address family: an entry of a hosts file.
    pub names: BTreeMap<String, Families>,
}

/// The best of each family.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: Option<Best>,
    /// IPv6.
    pub ipv6: Option<Best>,
}

/// An address that answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The address.
    pub address: IpAddr,
    /// Ports on which it agreed to a suite.
    pub ports: Vec<u16>,
    /// The shortest round-trip time; `None` if no answer was to a request that was sent once.
    pub rtt_ms: Option<f64>,
}

/// What is known of an address, over all its ports.
#[derive(Debug, Default)]
struct Candidate {
    ports: Vec<u16>,
    closed: usize,
    rtt: Option<Duration>,
}

/// Chooses among what was found. Only addresses that agreed to a suite count; those that did so on all ports that were
/// asked come first (phones behind a NAT need 4500), then those that answered faster, then the lower address.
#[must_use]
pub fn best(probed: &[Probed]) -> Choice {
    let mut candidates: BTreeMap<IpAddr, Candidate> = BTreeMap::new();
    for probe in probed {
        let candidate = candidates.entry(probe.address).or_default();
        if probe.finding.verdict.kind() == VerdictKind::Reachable {
            candidate.ports.push(probe.port);
            let rtts = [candidate.rtt, probe.finding.rtt];
            candidate.rtt = rtts.into_iter().flatten().min();
        } else {
            candidate.closed += 1;
        }
    }
    candidates.retain(|_, candidate| !candidate.ports.is_empty());
    let better = |one: &IpAddr, other: &IpAddr| {
        order((one, &candidates[one])).cmp(&order((other, &candidates[other])))
    };
    let choose = |addresses: &mut dyn Iterator<Item = IpAddr>| {
        let address = addresses
            .filter(|address| candidates.contains_key(address))
            .min_by(|one, other| better(one, other))?;
        let Candidate { ports, rtt, .. } = &candidates[&address];
        let mut ports = ports.clone();
        ports.sort_unstable();
        Some(Best {
            address,
            ports,
            rtt_ms: rtt.map(milliseconds),
        })
    };
    let mut choice = Choice::default();
    let mut by_operator: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for probe in probed {
        for operator in probe.operators() {
            by_operator.entry(operator).or_default().push(probe.address);
        }
        for name in &probe.names {
            by_name
                .entry(name.to_string())
                .or_default()
                .push(probe.address);
        }
    }
    for (operator, addresses) in by_operator {
        if let Some(best) = choose(&mut addresses.into_iter()) {
            choice.operators.insert(operator, best);
        }
    }
    for (name, addresses) in by_name {
        let family =
            |v4: bool| choose(&mut addresses.iter().copied().filter(|a| a.is_ipv4() == v4));
        let families = Families {
            ipv4: family(true),
            ipv6: family(false),
        };
        if families != Families::default() {
            choice.names.insert(name, families);
        }
    }
    choice
}

/// The less the better. Without a round-trip time, last.
fn order((address, candidate): (&IpAddr, &Candidate)) -> (bool, bool, Option<Duration>, IpAddr) {
    let Candidate { closed, rtt, .. } = candidate;
    (*closed > 0, rtt.is_none(), *rtt, *address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Owner;
    use crate::probe::outcome::{Finding, Icmp};
    use crate::probe::{Suite, Verdict};

    const SUITE: Suite = Suite {
        encr: (12, Some(256)),
        integ: Some(12),
        prf: 5,
        dh: 14,
    };

    fn probed(address: &str, port: u16, verdict: Verdict, rtt: Option<u64>, of: &[&str]) -> Probed {
        let owner = |operator: &&str| Owner {
            plmn: Some(operator.parse().unwrap()),
            country: None,
        };
        Probed {
            address: address.parse().unwrap(),
            port,
            owners: of.iter().map(owner).collect(),
            names: of.iter().map(|of| format!("epdg.{of}").into()).collect(),
            finding: Finding {
                verdict,
                rtt: rtt.map(Duration::from_millis),
                ..Finding::failed(String::new())
            },
        }
    }

    fn yes(address: &str, port: u16, rtt: u64, of: &[&str]) -> Probed {
        probed(address, port, Verdict::Reachable(SUITE), Some(rtt), of)
    }

    #[test]
    fn the_fastest_that_answers_on_all_ports() {
        let icmp = Icmp {
            v6: false,
            kind: 3,
            code: 3,
            from: None,
        };
        let (one, both, other) = (&["262-01"][..], &["262-01", "262-02"][..], &["505-01"][..]);
        let found = [
            yes("198.18.0.1", 500, 30, one),
            yes("198.18.0.1", 4500, 40, one),
            // Faster, and phones behind a NAT would not reach it.
            yes("198.18.0.2", 500, 5, both),
            probed("198.18.0.2", 4500, Verdict::Silent, None, both),
            yes("2001:db8::1", 500, 35, one),
            yes("2001:db8::1", 4500, 20, one),
            // Answered, but only after retransmissions.
            probed("198.18.0.3", 500, Verdict::Reachable(SUITE), None, one),
            probed("198.18.0.3", 4500, Verdict::Reachable(SUITE), None, one),
            // A refusal is no help, however fast.
            probed("198.18.0.4", 500, Verdict::Refused(14, None), Some(1), one),
            probed("198.18.0.5", 500, Verdict::Unreachable(icmp), None, other),
        ];
        let choice = best(&found);
        let of = |operator: &str| {
            let best = &choice.operators[operator];
            (best.address.to_string(), best.ports.clone(), best.rtt_ms)
        };
        assert_eq!(
            of("262-01"),
            ("2001:db8::1".into(), vec![500, 4500], Some(20.0))
        );
        assert_eq!(of("262-02"), ("198.18.0.2".into(), vec![500], Some(5.0)));
        assert_eq!(choice.operators.len(), 2, "none of 505-01");
        let json = serde_json::to_value(&choice).unwrap();
        let name = &json["names"]["epdg.262-01"];
        assert_eq!(name["ipv4"]["address"], "198.18.0.1");
        assert_eq!(name["ipv6"]["address"], "2001:db8::1");
        assert!(json["names"]["epdg.262-02"]["ipv6"].is_null());
        assert!(json["names"].get("epdg.505-01").is_none());
        assert_eq!(best(&[]), Choice::default());
    }
}
