//! Rows as JSON and as Markdown.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    budget::{Outcome, Verdict},
    record::Record,
    row::{Row, Spread},
};

/// A layer's rows and what they were measured on: `<layer>.json`, of further runs `<layer>-<run>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The layer.
    pub layer: String,
    /// Which run it was, from 1.
    pub run: usize,
    /// What on.
    pub record: Record,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl Results {
    /// Writes them to a directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let path = directory.join(self.file());
        let mut text = serde_json::to_string_pretty(&self.rounded())?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        match self.run {
            1 => format!("{}.json", self.layer),
            run => format!("{}-{run}.json", self.layer),
        }
    }

    /// Without the digits that mean nothing.
    fn rounded(&self) -> Self {
        let mut results = self.clone();
        let round = |spread: &mut Spread| {
            let Spread {
                low,
                median,
                high,
                sure: [least, most],
            } = spread;
            for number in [low, median, high, least, most] {
                *number = (*number * 1e4).round() / 1e4;
            }
        };
        for row in &mut results.rows {
            round(&mut row.value);
            if let Some(against) = &mut row.against {
                round(&mut against.value);
                round(&mut against.difference);
                round(&mut against.ratio);
            }
        }
        results
    }
}

/// A table of some rows.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    corner: String,
    down: Vec<String>,
    across: Vec<String>,
    cells: BTreeMap<(usize, usize), String>,
}

impl Table {
    /// One whose lines and columns are what two functions say of the rows, in the order in which they first say it.
    /// What is shown of a row is its difference from its baseline, or its value if it has none; of one with too few quiet
    /// rounds, that it has too few.
    #[must_use]
    pub fn pivot<'a>(
        title: &str,
        corner: &str,
        rows: impl IntoIterator<Item = &'a Row>,
        down: impl Fn(&Row) -> String,
        across: impl Fn(&Row) -> String,
    ) -> Self {
        let mut table = Self {
            title: title.to_owned(),
            corner: corner.to_owned(),
            down: Vec::new(),
            across: Vec::new(),
            cells: BTreeMap::new(),
        };
        for row in rows {
            let at = (
                position(&mut table.down, down(row)),
                position(&mut table.across, across(row)),
            );
            let cell = match row.rounds {
                _ if !row.is_sound() => "noisy".to_owned(),
                // Nothing is known of how it varies.
                1 => signed(row),
                _ => format!(
                    "{} ±{}",
                    signed(row),
                    decimals(row.shown().half_range(), row.shown())
                ),
            };
            table.cells.insert(at, cell);
        }
        table
    }

    /// Markdown, its title a heading of the third level.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self {
            title,
            corner,
            down,
            across,
            cells,
        } = self;
        let mut text = format!("### {title}\n\n| {corner} |");
        // Writing to a String cannot fail.
        for name in across {
            let _ = write!(text, " {name} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---:|".repeat(across.len()));
        for (line, name) in down.iter().enumerate() {
            let _ = write!(text, "| {name} |");
            for column in 0..across.len() {
                let cell = cells.get(&(line, column)).map_or("–", String::as_str);
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }
}

fn position(names: &mut Vec<String>, name: String) -> usize {
    names
        .iter()
        .position(|known| *known == name)
        .unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
}

fn signed(row: &Row) -> String {
    let shown = row.shown();
    let text = decimals(shown.median, shown);
    if row.against.is_some() && !text.starts_with('-') {
        return format!("+{text}");
    }
    text
}

/// As many digits as mean something.
fn decimals(number: f64, of: Spread) -> String {
    if of.median.abs() >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

/// How the budgets are kept: of each, the path that is furthest past it, or in doubt, or nearest to it.
#[must_use]
pub fn budget_table(verdicts: &[Verdict<'_>]) -> String {
    let mut text = "### Budgets\n\n\
         | budget | path that comes nearest | measured | 95 % sure | allowed here | limit | |\n\
         |---|---|---:|---:|---:|---:|---|\n"
        .to_owned();
    let mut seen: Vec<&str> = Vec::new();
    for verdict in verdicts {
        let what = verdict.budget.what.as_str();
        if seen.contains(&what) {
            continue;
        }
        seen.push(what);
        let share = |verdict: &&Verdict<'_>| verdict.measured / verdict.limit;
        let Some(worst) = verdicts
            .iter()
            .filter(|each| each.budget.what == what)
            .max_by(|one, other| {
                let outcomes = one.outcome().cmp(&other.outcome());
                outcomes.then(share(one).total_cmp(&share(other)))
            })
        else {
            continue;
        };
        let Verdict {
            row,
            measured,
            sure: [least, most],
            allowed,
            limit,
            unit,
            ..
        } = worst;
        let verdict = match worst.outcome() {
            Outcome::Kept if measured <= allowed => "kept",
            Outcome::Kept => "over, within the margin",
            Outcome::Unclear => "**unclear**, too noisy",
            Outcome::Past => "**missed**",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {row} | {measured:.2} {unit} | {least:.2} to {most:.2} | {allowed:.2} | {limit:.2} | {verdict} |"
        );
    }
    text
}

/// Every path with a budget in each of several runs: how many times its baseline of the same run it took, or its value if
/// it has no baseline.
#[must_use]
pub fn runs_table(runs: &[Vec<Verdict<'_>>]) -> String {
    let mut text =
        "### Run by run\n\n| path with a budget, as a multiple of its baseline in the same run |"
            .to_owned();
    // Writing to a String cannot fail.
    for run in 1..=runs.len() {
        let _ = write!(text, " run {run} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---:|".repeat(runs.len()));
    for first in runs.first().into_iter().flatten() {
        let _ = write!(text, "| {} |", first.row);
        for run in runs {
            let same = run.iter().find(|one| one.row.is_of(first.row));
            let cell = same.map_or("–".to_owned(), |one| match &one.row.against {
                _ if !one.row.is_sound() => "noisy".to_owned(),
                Some(against) => format!("{:.3}", against.ratio.median),
                None => format!("{:.2} {}", one.measured, one.unit),
            });
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// A number with its thousands apart.
#[must_use]
pub fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::row::{Comparison, setting},
        *,
    };

    #[test]
    fn a_table_has_a_cell_for_each_row() {
        let row = |hook: &str, case: &str, over: f64| {
            let at = setting(&[("hook", hook)]);
            let mut row = Row::alone("program", &at, [case, "all", "ns"], [40.0 + over]);
            row.against = Some(Comparison {
                variant: "empty".to_owned(),
                value: Spread::of([40.0]),
                difference: Spread::of([over - 0.5, over, over + 0.5]),
                ratio: Spread::of([1.0]),
            });
            row
        };
        let mut rows = [
            row("XDP", "TCP", 3.04),
            row("TC", "TCP", 2.0),
            row("XDP", "UDP", 123.4),
            row("TC", "UDP", 2.0),
            row("XDP", "ESP", 40.0),
        ];
        for row in &mut rows[..4] {
            (row.rounds, row.wanted) = (9, 9);
        }
        rows[3].rounds = 8;
        let table = Table::pivot(
            "What passes",
            "traffic",
            &rows,
            |row| row.case.clone(),
            |row| row.at("hook").to_owned(),
        );
        assert_eq!(
            table.markdown(),
            "### What passes\n\n\
             | traffic | XDP | TC |\n\
             |---|---:|---:|\n\
             | TCP | +3.0 ±0.5 | +2.0 ±0.5 |\n\
             | UDP | +123 ±0 | noisy |\n\
             | ESP | +40.0 | – |\n"
        );
    }

    #[test]
    fn thousands_are_apart() {
        let shown = [7, 10_000, 123_456, 1_234_567].map(thousands);
        assert_eq!(shown, ["7", "10,000", "123,456", "1,234,567"]);
    }
}
