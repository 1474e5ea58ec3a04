//! The world's names, answered by unbound: every operator's ePDG that was found to resolve in February 2025 has an
//! address of its own, and no other name exists. When each query arrives is captured.

use std::collections::BTreeMap;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use hickory_server::proto::op::Message;
use hickory_server::proto::rr::RecordType;

use crate::capture::{Capture, Frame};
use crate::dns::{Dns, Record};
use crate::lab::{Lab, ROUTER_DNS};

/// The operators whose names resolve, as MCC and three-digit MNC.
const RESOLVING: &str = include_str!("../../data/epdg_resolving_plmns_2025-02.tsv");

/// A query that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When the kernel took it in, since 1970-01-01.
    pub at: Duration,
    /// The name that was asked for.
    pub name: String,
    /// What of it.
    pub kind: RecordType,
}

/// The server and what sees its queries.
pub struct World<'a> {
    lab: &'a Lab,
    capture: Capture<Arrival>,
    _dns: Dns<'a>,
}

/// The operators whose names resolve, and their addresses, in 198.18.0.0/15.
#[must_use]
pub fn resolving() -> BTreeMap<(u16, u16), Ipv4Addr> {
    let rows = RESOLVING.lines().filter(|line| !line.starts_with('#'));
    let plmns = rows.filter_map(|line| {
        let mut fields = line.split('\t');
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let addresses =
        (0_u32..).map(|n| Ipv4Addr::from_bits(0xc612_0000 + (n / 200) * 256 + 1 + n % 200));
    plmns.zip(addresses).collect()
}

/// The name of an operator's ePDG (TS 23.003 §19.4.2.9.2).
#[must_use]
pub fn name((mcc, mnc): (u16, u16)) -> String {
    format!("epdg.epc.mnc{mnc:03}.mcc{mcc:03}.pub.3gppnetwork.org")
}

impl<'a> World<'a> {
    /// Starts it where a lab's router finds its DNS server. Answers live for `ttl` seconds.
    ///
    /// # Errors
    ///
    /// If unbound is missing or does not answer.
    pub fn start(lab: &'a Lab, ttl: u32) -> Result<Self> {
        let answers: Vec<_> = resolving()
            .into_iter()
            .map(|(plmn, address)| (name(plmn), address.to_string()))
            .collect();
        ensure!(answers.len() > 400, "{} operators resolve", answers.len());
        let addresses: Vec<_> = answers.iter().map(|(_, address)| [&**address]).collect();
        let records: Vec<Record<'_>> = answers
            .iter()
            .zip(&addresses)
            .map(|((name, _), address)| (&**name, &address[..]))
            .collect();
        Ok(Self {
            lab,
            capture: capture(lab)?,
            _dns: Dns::start_whole(&lab.far, &[ROUTER_DNS], ttl, &records)?,
        })
    }

    /// The queries since the start or since this was last called. There must be none under way.
    ///
    /// # Errors
    ///
    /// If a frame was lost.
    pub fn take(&mut self) -> Result<Vec<Arrival>> {
        mem::replace(&mut self.capture, capture(self.lab)?).finish()
    }
}

fn capture(lab: &Lab) -> Result<Capture<Arrival>> {
    Capture::start(&lab.far, "exit0", arrival)
}

/// The query in a frame that came in, if it is one: Ethernet, IPv4 without options, UDP 53.
fn arrival(frame: &Frame<'_>) -> Option<Arrival> {
    const QUERY: usize = 14 + 20 + 8;
    let bytes = frame.bytes;
    let is_query = !frame.outgoing
        && bytes.len() > QUERY
        && bytes[12..15] == [0x08, 0x00, 0x45]
        && bytes[23] == 17
        && bytes[36..38] == [0, 53];
    if !is_query {
        return None;
    }
    let query = Message::from_vec(&bytes[QUERY..]).ok()?;
    let query = query.queries.first()?;
    Some(Arrival {
        at: frame.time,
        name: query.name().to_lowercase().to_ascii(),
        kind: query.query_type(),
    })
}

/// The most arrivals within a window.
#[must_use]
pub fn most_within(arrivals: &[Arrival], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, arrival) in arrivals.iter().enumerate() {
        while arrival.at.saturating_sub(arrivals[first].at) >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted() {
        let at = |milliseconds| Arrival {
            at: Duration::from_millis(milliseconds),
            name: String::new(),
            kind: RecordType::A,
        };
        let arrivals: Vec<_> = [0, 10, 20, 99, 100, 101, 500].map(at).into();
        let most = |window| most_within(&arrivals, Duration::from_millis(window));
        assert_eq!((most(1), most(3), most(100), most(1000)), (1, 3, 5, 7));
    }

    #[test]
    fn every_operator_has_an_address_of_its_own() {
        let world = resolving();
        let addresses: std::collections::BTreeSet<_> = world.values().collect();
        assert_eq!(addresses.len(), world.len());
    }
}
