//! The table while the traffic flows.

use std::collections::BTreeSet;

use crate::counted::{Call, Counted};
use crate::scene::OPERATORS;
use crate::tally::{Direction, Flow, Tally};
use crate::text::{bytes, dscp, list, mark, only};

/// The calls of a tally as the metrics would name them.
pub fn call(operator: usize, class: &str) -> Call {
    let operator = &OPERATORS[operator];
    (
        operator.plmn.to_owned(),
        operator.country.to_owned(),
        class.to_owned(),
    )
}

/// The classes, in the order of a tunnel's life.
const CLASSES: [&str; 5] = ["ike", "esp_udp", "keepalive", "esp", "fragment"];

/// All calls that were seen at one end or counted, by operator.
pub fn calls(tally: &Tally, counted: &Counted) -> Vec<Call> {
    let seen = tally.ways.keys().filter_map(|(flow, _)| match flow {
        Flow::Call(operator, class) => Some(call(*operator, class)),
        Flow::Other(_) => None,
    });
    let mut calls: Vec<_> = seen
        .chain(counted.calls.keys().map(|(call, _)| call.clone()))
        .collect();
    calls.sort_by_cached_key(|call| {
        let class = CLASSES.iter().position(|class| *class == call.2);
        (call.0.clone(), call.1.clone(), class, call.2.clone())
    });
    calls.dedup();
    calls
}

/// The flow of a call, if it is one that the scene has.
pub fn flow(call: &Call) -> Option<Flow> {
    let operator = OPERATORS
        .iter()
        .position(|o| o.plmn == call.0 && o.country == call.1)?;
    let class = CLASSES.into_iter().find(|class| *class == call.2)?;
    Some(Flow::Call(operator, class))
}

/// Names of all other traffic that was seen.
pub fn others(tally: &Tally) -> BTreeSet<&'static str> {
    let names = tally.ways.keys().filter_map(|(flow, _)| match flow {
        Flow::Other(name) => Some(*name),
        Flow::Call(..) => None,
    });
    names.collect()
}

/// Draws it, for 80 columns.
pub fn table(second: u32, of: u32, tally: &Tally, counted: &Counted) -> Vec<String> {
    use Direction::{Down, Up};
    let mut lines = vec![
        format!(
            "{:<62}DSCP received",
            format!("Second {second} of {of}: Wi-Fi Calling as the agent counts it")
        ),
        format!(
            "{:<9}{:<8}{:<10}{:>6}{:>9}{:>8}{:>9}  {:>4}{:>5}{:>6}",
            "operator", "country", "class", "up", "", "down", "", "up", "down", "mark"
        ),
    ];
    for call in calls(tally, counted) {
        let (operator, country, class) = &call;
        let counts = Direction::ALL.map(|direction| counted.way(&call, direction));
        let [up, down] = Direction::ALL.map(|direction| {
            flow(&call)
                .map(|flow| tally.way(flow, direction))
                .unwrap_or_default()
        });
        lines.push(format!(
            "{operator:<9}{country:<8}{class:<10}{:>6}{:>9}{:>8}{:>9}  {:>4}{:>5}{:>6}",
            counts[0].packets,
            bytes(counts[0].bytes),
            counts[1].packets,
            bytes(counts[1].bytes),
            only(&up.dscp, dscp),
            only(&down.dscp, dscp),
            only(&up.mark, mark),
        ));
    }
    lines.extend([
        String::new(),
        format!(
            "{:<27}{:>6}{:>9}{:>8}{:>9}",
            "Everything else", "up", "arrived", "down", "arrived"
        ),
    ]);
    for name in others(tally) {
        let [up, down] = [Up, Down].map(|direction| tally.way(Flow::Other(name), direction));
        lines.push(format!(
            "{name:<27}{:>6}{:>9}{:>8}{:>9}  {:>4}{:>5}{:>6}",
            up.sent.packets,
            up.arrived.packets,
            down.sent.packets,
            down.arrived.packets,
            only(&up.dscp, dscp),
            only(&down.dscp, dscp),
            only(&up.mark, mark),
        ));
    }
    lines.push(String::new());
    for (hook, exits) in &counted.exits {
        lines.extend(list(
            &format!("{hook:<11}"),
            exits.iter().map(|(exit, frames)| (exit, *frames)),
        ));
    }
    lines
}

/// The same in a line, for where nothing can be drawn again.
pub fn line(second: u32, tally: &Tally, counted: &Counted) -> String {
    let calls = |direction| -> u64 {
        let ways = counted
            .calls
            .iter()
            .filter(|((_, way), _)| *way == direction);
        ways.map(|(_, count)| count.packets).sum()
    };
    let (sent, arrived) = tally
        .ways
        .iter()
        .filter(|((flow, _), _)| matches!(flow, Flow::Other(_)))
        .fold((0, 0), |(sent, arrived), (_, way)| {
            (sent + way.sent.packets, arrived + way.arrived.packets)
        });
    format!(
        "{second:>4} s  calls counted: {} up, {} down; other traffic: {arrived} of {sent} arrived\n",
        calls(Direction::Up),
        calls(Direction::Down),
    )
}
