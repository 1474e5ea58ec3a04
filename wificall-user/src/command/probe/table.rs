//! The table of `probe`. It says everything in words; colours only help the eye.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::Found;
use crate::probe::best::Best;
use crate::probe::plan::Summary;
use crate::probe::{Probed, VerdictKind};

/// A cell and how it looks.
type Cell = (String, Style);

const TITLES: [&str; 6] = ["operator", "address", "port", "result", "rtt", "answer"];
/// These are flushed right.
const NUMBERS: [&str; 2] = ["port", "rtt"];

fn plain(text: impl Into<String>) -> Cell {
    (text.into(), Style::new())
}

fn style(kind: VerdictKind) -> Style {
    let colour = match kind {
        VerdictKind::Reachable => AnsiColor::Green,
        VerdictKind::Redirected | VerdictKind::Refused | VerdictKind::Invalid => AnsiColor::Yellow,
        VerdictKind::Silent | VerdictKind::Unreachable | VerdictKind::Failed => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into())).bold()
}

/// More addresses that are not probed are only counted for people.
const REFUSED_MAX: usize = 32;

/// All exchanges, then what became of those asked for.
pub(super) fn all(found: &Found) -> String {
    let mut text = String::new();
    let rows: Vec<[Cell; 6]> = found.probed.iter().map(row).collect();
    columns(&mut text, TITLES, &rows);
    if !found.refused.is_empty() {
        text += if text.is_empty() {
            "Not probed\n"
        } else {
            "\nNot probed\n"
        };
        for refused in found.refused.iter().take(REFUSED_MAX) {
            let _ = writeln!(
                text,
                "  {}  {}: not a global address; --allow-local probes it all the same",
                refused.address, refused.reason
            );
        }
    }
    let more = found.refused.len().saturating_sub(REFUSED_MAX);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more, which --json lists");
    }
    if found.left_out > 0 {
        let _ = writeln!(
            text,
            "\n{} addresses of names with too many left out",
            found.left_out
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for summary in &found.asked {
        summarise(&mut text, summary, found);
    }
    if found.asked.is_empty() {
        text += "Nothing to probe: none of these operators has an ePDG that DNS knows\n";
    }
    text
}

fn row(probe: &Probed) -> [Cell; 6] {
    let finding = &probe.finding;
    let kind = finding.verdict.kind();
    let operators: Vec<String> = probe.operators().into_iter().collect();
    let mut answer = Vec::new();
    match finding.verdict.detail() {
        detail if detail.is_empty() => {}
        detail => answer.push(detail),
    }
    if kind == VerdictKind::Silent {
        let times = if finding.sent == 1 {
            "request"
        } else {
            "requests"
        };
        answer.push(format!("{} {times}, no answer", finding.sent));
    }
    if !finding.followed.is_empty() {
        let steps: Vec<_> = finding.followed.iter().map(ToString::to_string).collect();
        answer.push(format!("after {}", steps.join(", ")));
    }
    if finding.nat.is_some_and(|nat| nat.here) {
        answer.push("NAT here".to_owned());
    }
    let vendors = probe.vendors();
    if !vendors.is_empty() {
        answer.push(format!("vendor {}", vendors.join(", ")));
    }
    [
        plain(if operators.is_empty() {
            "-".to_owned()
        } else {
            operators.join("+")
        }),
        plain(probe.address.to_string()),
        plain(probe.port.to_string()),
        (kind.as_str().to_owned(), style(kind)),
        plain(finding.rtt.map_or("-".to_owned(), rtt)),
        plain(answer.join("; ")),
    ]
}

/// Milliseconds with as many decimals as make sense.
fn rtt(rtt: Duration) -> String {
    let ms = rtt.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn summarise(text: &mut String, summary: &Summary, found: &Found) {
    let Summary {
        asked,
        addresses,
        reachable,
        best,
        problem,
    } = summary;
    let kind = if *reachable > 0 {
        VerdictKind::Reachable
    } else {
        VerdictKind::Failed
    };
    let style = style(kind);
    let _ = write!(text, "{style}{asked}{style:#}: ");
    let _ = match (*addresses, problem) {
        (0, Some(problem)) => write!(text, "no address, because DNS failed: {problem}"),
        (0, None) => write!(text, "no address to probe"),
        (1, _) => write!(
            text,
            "{}",
            if *reachable > 0 {
                "reachable"
            } else {
                "not reachable"
            }
        ),
        (all, _) => write!(text, "{reachable} of {all} addresses reachable"),
    };
    if let Some(best) = best {
        let rtt_ms = found.best.operators.get(asked).and_then(|best| best.rtt_ms);
        let _ = match rtt_ms {
            Some(ms) => write!(
                text,
                "; best {best}, {}",
                rtt(Duration::from_secs_f64(ms / 1000.0))
            ),
            None => write!(text, "; best {best}"),
        };
    }
    if let (1.., Some(problem)) = (*addresses, problem) {
        let _ = write!(text, "; not all of its names were resolved: {problem}");
    }
    text.push('\n');
}

/// The best of each operator and of each name.
pub(super) fn best(found: &Found) -> String {
    let mut text = String::new();
    let entry = |of: &str, best: &Best| {
        let ports: Vec<String> = best.ports.iter().map(ToString::to_string).collect();
        let time = best.rtt_ms.map_or("-".to_owned(), |ms| {
            rtt(Duration::from_secs_f64(ms / 1000.0))
        });
        [
            of.to_owned(),
            best.address.to_string(),
            ports.join(","),
            time,
        ]
        .map(plain)
    };
    let operators: Vec<[Cell; 4]> = found
        .best
        .operators
        .iter()
        .map(|(operator, best)| entry(operator, best))
        .collect();
    columns(
        &mut text,
        ["operator", "address", "ports", "rtt"],
        &operators,
    );
    let names: Vec<[Cell; 4]> = found
        .best
        .names
        .iter()
        .flat_map(|(name, families)| {
            let both = [&families.ipv4, &families.ipv6];
            both.map(|best| best.as_ref().map(|best| entry(name, best)))
        })
        .flatten()
        .collect();
    if !operators.is_empty() && !names.is_empty() {
        text.push('\n');
    }
    columns(&mut text, ["name", "address", "ports", "rtt"], &names);
    for summary in found.asked.iter().filter(|summary| summary.reachable == 0) {
        summarise(&mut text, summary, found);
    }
    text
}

/// A table with two blanks between its columns; nothing without rows.
fn columns<const N: usize>(text: &mut String, titles: [&str; N], rows: &[[Cell; N]]) {
    if rows.is_empty() {
        return;
    }
    let head = titles.map(|title| (title.to_uppercase(), Style::new().bold()));
    let widths: [usize; N] = std::array::from_fn(|column| {
        let all = std::iter::once(&head).chain(rows);
        let width = |row: &[Cell; N]| row[column].0.chars().count();
        all.map(width).max().unwrap_or(0)
    });
    for row in std::iter::once(&head).chain(rows) {
        let last = row.iter().rposition(|(cell, _)| !cell.is_empty());
        for (column, (cell, style)) in row.iter().enumerate() {
            if last.is_none_or(|last| column > last) {
                break;
            }
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let right = NUMBERS.contains(&titles[column]);
            let (before, behind) = if right {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            // The blanks stand outside the colour, and none at the end of the line.
            let behind = if Some(column) == last { "" } else { behind };
            let _ = write!(text, "  {before}{style}{cell}{style:#}{behind}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
