//! What it comes to: sent, counted and arrived side by side, each row right or wrong.

use std::fmt::{Display, Write as _};

use crate::counted::{Call, Counted};
use crate::live::{calls, flow, others};
use crate::scene::{OPERATORS, Operator};
use crate::tally::{Count, Direction, Flow, Tally, Way};
use crate::text::{dscp, mark, only};

/// The summary as text, and what its rows say.
#[derive(Default)]
pub struct Summary {
    /// To print.
    pub text: String,
    /// Rows that compare something.
    pub rows: u32,
    /// How many of them are wrong.
    pub wrong: u32,
}

impl Summary {
    /// Compares.
    pub fn new(tally: &Tally, counted: &Counted, xdp: bool) -> Self {
        let mut summary = Self::default();
        summary.line(&format!(
            "   {:22}{:>22}{:>22}",
            "Wi-Fi Calling, packets", "-------- up --------", "------- down -------"
        ));
        let columns = ["sent", "counted", "arrived"];
        summary.line(&format!(
            "   {}",
            cells("operator", "class", [columns, columns], "DSCP", "mark")
        ));
        for call in calls(tally, counted) {
            summary.call(&call, tally, counted);
        }
        let columns = ["sent", "", "arrived"];
        summary.line(&format!(
            "\n   {}",
            cells("Everything else", "", [columns, columns], "", "")
        ));
        for name in others(tally) {
            summary.other(name, tally);
        }
        summary.line("");
        summary.totals(tally, counted);
        summary.hooks(tally, counted, xdp);
        summary
    }

    fn call(&mut self, call: &Call, tally: &Tally, counted: &Counted) {
        let (operator, country, class) = call;
        let counts = Direction::ALL.map(|direction| counted.way(call, direction));
        let mut problems = Vec::new();
        let ways = if let Some(flow @ Flow::Call(number, _)) = flow(call) {
            let ways = Direction::ALL.map(|direction| tally.way(flow, direction));
            let Operator { dscp, mark, .. } = OPERATORS[number];
            problems.extend(wrong("up", &ways[0], counts[0], dscp, mark));
            problems.extend(wrong("down", &ways[1], counts[1], dscp, 0));
            ways
        } else {
            problems.push("nobody has sent packets that such labels belong to".to_owned());
            Default::default()
        };
        let numbers = [0, 1].map(|way| {
            let Way { sent, arrived, .. } = &ways[way];
            [sent.packets, counts[way].packets, arrived.packets]
        });
        let operator = format!("{operator} {country}");
        let row = cells(
            &operator,
            class,
            numbers,
            &received_dscp(&ways),
            &only(&ways[0].mark, mark),
        );
        self.row(&row, &problems);
    }

    /// Nothing of it is counted: what is would be a row among the calls.
    fn other(&mut self, name: &'static str, tally: &Tally) {
        let ways = Direction::ALL.map(|direction| tally.way(Flow::Other(name), direction));
        let [up, down] = &ways;
        let mut problems = wrong("up", up, up.sent, 0, 0);
        problems.extend(wrong("down", down, down.sent, 0, 0));
        let numbers = [up, down].map(|way| {
            let Way { sent, arrived, .. } = way;
            [
                sent.packets.to_string(),
                String::new(),
                arrived.packets.to_string(),
            ]
        });
        let row = cells(
            name,
            "",
            numbers,
            &received_dscp(&ways),
            &only(&up.mark, mark),
        );
        self.row(&row, &problems);
    }
    fn totals(&mut self, tally: &Tally, counted: &Counted) {
        let (mut sent, mut all, mut arrived, mut ipv6) =
            (Count::default(), Count::default(), Count::default(), 0);
        for ((flow, _), way) in &tally.ways {
            if let Flow::Call(..) = flow {
                sent.add(way.sent);
                arrived.add(way.arrived);
                ipv6 += way.ipv6;
            }
        }
        counted.calls.values().for_each(|count| all.add(*count));
        let agree = sent == all && all == arrived && sent != Count::default();
        self.check(
            agree,
            format!(
                "bytes of calls: {} sent, {} counted, {} arrived",
                sent.bytes, all.bytes, arrived.bytes
            ),
        );
        self.check(
            ipv6 > 0 && ipv6 < arrived.packets,
            format!(
                "packets of calls that arrived: {} IPv4, {ipv6} IPv6",
                arrived.packets - ipv6
            ),
        );
    }

    /// The link's frames against the ways out: each frame leaves a program by exactly one.
    fn hooks(&mut self, tally: &Tally, counted: &Counted, xdp: bool) {
        let mut hooks = vec![
            ("tc_ingress", Direction::Up, "from"),
            ("tc_egress", Direction::Down, "to"),
        ];
        if xdp {
            hooks.insert(0, ("xdp", Direction::Up, "from"));
        }
        for (hook, direction, word) in hooks {
            let (passed, seen) = (tally.frames(direction), counted.frames(hook));
            let matched = counted.exit(hook, "matched");
            self.check(
                passed == seen && seen > 0,
                format!(
                    "{hook}: {seen} ways out of {passed} frames {word} the phone, {matched} matched"
                ),
            );
        }
        if xdp {
            let (matched, taken) = (
                counted.exit("xdp", "matched"),
                counted.exit("tc_ingress", "by_xdp"),
            );
            let again = counted.exit("tc_ingress", "matched");
            self.check(
                matched == taken && matched > 0 && again == 0,
                format!("XDP classified {matched} packets, TC took over {taken} and classified {again} itself"),
            );
        }
    }

    fn check(&mut self, right: bool, text: String) {
        let problems: &[String] = if right {
            &[]
        } else {
            &["these do not agree".to_owned()]
        };
        self.row(&text, problems);
    }

    fn row(&mut self, text: &str, problems: &[String]) {
        let sign = if problems.is_empty() { '✓' } else { '✗' };
        self.line(&format!(" {sign} {text}"));
        for problem in problems {
            self.line(&format!("     {problem}"));
        }
        self.rows += 1;
        self.wrong += u32::from(!problems.is_empty());
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", text.trim_end());
    }
}

/// A row's columns. What has no class has its name over both of the first two.
fn cells<T: Display>(
    name: &str,
    class: &str,
    numbers: [[T; 3]; 2],
    dscp: &str,
    mark: &str,
) -> String {
    let [up, down] = numbers.map(|[a, b, c]| format!("{a:>6}{b:>8}{c:>8}"));
    let name = if class.is_empty() {
        format!("{name:<22}")
    } else {
        format!("{name:<12}{class:<10}")
    };
    format!("{name}{up}{down}{dscp:>5}{mark:>6}")
}

/// The DSCP of both directions.
fn received_dscp(ways: &[Way; 2]) -> String {
    let [up, down] = ways.each_ref().map(|way| only(&way.dscp, dscp));
    if up == down || down == "-" {
        up
    } else {
        format!("{up}/{down}")
    }
}

/// What is not as it should be in one direction.
fn wrong(direction: &str, way: &Way, counted: Count, dscp: u8, mark: u32) -> Vec<String> {
    let mut problems = Vec::new();
    let Way { sent, arrived, .. } = way;
    if sent != arrived || *sent != counted {
        problems.push(format!(
            "{direction}: {sent} sent, {counted} counted, {arrived} arrived"
        ));
    }
    if way.sent_with_dscp > 0 {
        problems.push(format!(
            "{direction}: {} left with a DSCP",
            way.sent_with_dscp
        ));
    }
    if way.dscp.keys().any(|seen| *seen != dscp) {
        problems.push(format!(
            "{direction}: DSCP {dscp} expected, packets by DSCP: {:?}",
            way.dscp
        ));
    }
    if way.mark.keys().any(|seen| *seen != mark) {
        problems.push(format!(
            "{direction}: mark {mark} expected, packets by mark: {:?}",
            way.mark
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::call;
    use crate::scene::VA;

    fn right() -> (Tally, Counted) {
        let (mut tally, mut counted) = (Tally::default(), Counted::default());
        let count = Count {
            packets: 3,
            bytes: 300,
        };
        for (direction, mark) in [(Direction::Up, 0x66), (Direction::Down, 0)] {
            let way = Way {
                sent: count,
                arrived: count,
                dscp: [(VA, 3)].into(),
                mark: [(mark, 3)].into(),
                ipv6: 1,
                ..Way::default()
            };
            tally
                .ways
                .insert((Flow::Call(1, "esp_udp"), direction), way);
            tally.frames.insert(direction, 5);
            counted.calls.insert((call(1, "esp_udp"), direction), count);
        }
        for hook in ["tc_ingress", "tc_egress"] {
            let exits = [("matched".to_owned(), 3), ("other_port".to_owned(), 2)];
            counted.exits.insert(hook.to_owned(), exits.into());
        }
        (tally, counted)
    }

    #[test]
    fn agreement_is_seen() {
        let (tally, counted) = right();
        let summary = Summary::new(&tally, &counted, false);
        assert_eq!((summary.rows, summary.wrong), (5, 0), "{}", summary.text);
    }

    #[test]
    fn each_disagreement_is_seen() {
        type Change = fn(&mut Tally, &mut Counted);
        let changes: [(&str, Change); 6] = [
            ("down: 3 packets (300 B) sent", |tally, _| {
                let way = tally
                    .ways
                    .get_mut(&(Flow::Call(1, "esp_udp"), Direction::Down));
                way.unwrap().arrived.packets = 2;
            }),
            ("(301 B) counted", |_, counted| {
                counted
                    .calls
                    .get_mut(&(call(1, "esp_udp"), Direction::Up))
                    .unwrap()
                    .bytes = 301;
            }),
            ("DSCP 44 expected", |tally, _| {
                let way = tally
                    .ways
                    .get_mut(&(Flow::Call(1, "esp_udp"), Direction::Up));
                way.unwrap().dscp = [(0, 3)].into();
            }),
            ("mark 102 expected", |tally, _| {
                let way = tally
                    .ways
                    .get_mut(&(Flow::Call(1, "esp_udp"), Direction::Up));
                way.unwrap().mark = [(0, 1), (102, 2)].into();
            }),
            ("nobody has sent", |_, counted| {
                let labels = ("262-01".to_owned(), "none".to_owned(), "esp_udp".to_owned());
                counted.calls.insert(
                    (labels, Direction::Up),
                    Count {
                        packets: 1,
                        bytes: 1,
                    },
                );
            }),
            ("✗ tc_egress", |tally, _| {
                tally.frames.insert(Direction::Down, 6);
            }),
        ];
        for (expected, change) in changes {
            let (mut tally, mut counted) = right();
            change(&mut tally, &mut counted);
            let summary = Summary::new(&tally, &counted, false);
            assert!(summary.wrong > 0, "{expected}");
            assert!(
                summary.text.contains(expected),
                "{expected}:\n{}",
                summary.text
            );
        }
    }
}
