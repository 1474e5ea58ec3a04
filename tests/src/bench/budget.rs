//! What paths may cost: `tests/budgets.toml`, which says how it is read.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Layer, Scale, row::Row};

/// The committed budgets.
const BUDGETS: &str = include_str!("../../budgets.toml");
/// Where they are, from the root of the repository.
pub const FILE: &str = "tests/budgets.toml";
/// What to do about one that is not kept.
pub const HINT: &str = "hint: if the cost is wanted, change the budget, with the measurement in docs/decisions; if not, \
                        `bpftool prog dump xlated` shows what the program has become. `cargo xtask bench` measures all of it";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    budget: Vec<Budget>,
}

/// What the rows of some paths may cost.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What is shown of it.
    pub what: String,
    layer: String,
    /// Patterns, in which `*` is anything; what is not named may be anything.
    #[serde(default)]
    setting: BTreeMap<String, String>,
    case: Vec<String>,
    variant: Vec<String>,
    /// At most so much more than the baseline, on a machine on which the baseline takes `baseline`.
    difference: Option<f64>,
    baseline: Option<f64>,
    /// At most so many times the baseline.
    ratio: Option<f64>,
    /// At most this.
    at_most: Option<f64>,
    /// What noise may add, as a factor: of the difference, of what the ratio is over one, of the value.
    margin: f64,
}

/// What a measurement says of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is within the limit for sure.
    Kept,
    /// Too few quiet rounds, or rounds that differ too much, to tell.
    Unclear,
    /// It is past the limit for sure.
    Past,
}

/// A row and its budget.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// What was measured.
    pub row: &'a Row,
    /// The budget.
    pub budget: &'a Budget,
    /// Median.
    pub measured: f64,
    /// Between these it is, with 95 % confidence.
    pub sure: [f64; 2],
    /// The budget on this machine.
    pub allowed: f64,
    /// The same with the margin.
    pub limit: f64,
    /// Of these figures.
    pub unit: String,
}

impl Verdict<'_> {
    /// What it comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let [least, most] = self.sure;
        if !self.row.is_sound() {
            Outcome::Unclear
        } else if most <= self.limit {
            Outcome::Kept
        } else if least > self.limit {
            Outcome::Past
        } else {
            Outcome::Unclear
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            row,
            budget,
            measured,
            sure: [least, most],
            allowed,
            limit,
            unit,
        } = self;
        let than = row
            .against
            .as_ref()
            .map(|against| format!(", against {}", against.variant))
            .unwrap_or_default();
        write!(
            formatter,
            "{row}\n    measured {measured:.2} {unit} ({least:.2} to {most:.2}{than}, {} quiet rounds of {} wanted), \
             allowed {allowed:.2}, with the margin {limit:.2}: {}",
            row.rounds, row.wanted, budget.what
        )
    }
}

/// The committed budgets.
///
/// # Errors
///
/// If the file is wrong in itself.
pub fn budgets() -> Result<Vec<Budget>> {
    parse(BUDGETS).context(FILE)
}

fn parse(text: &str) -> Result<Vec<Budget>> {
    let File { budget: budgets } = toml::from_str(text)?;
    for budget in &budgets {
        let limits = [budget.difference, budget.ratio, budget.at_most];
        ensure!(
            limits.iter().flatten().count() == 1,
            "{:?} needs one of `difference`, `ratio`, `at_most`",
            budget.what
        );
        ensure!(
            budget.difference.is_some() == budget.baseline.is_some(),
            "{:?} needs `difference` and `baseline`, or neither",
            budget.what
        );
        ensure!(
            budget.margin >= 1.0,
            "{:?}: a margin is a factor from 1 on",
            budget.what
        );
    }
    Ok(budgets)
}

impl Budget {
    fn is_for(&self, row: &Row) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|each| like(each, text));
        self.layer == row.layer
            && any(&self.case, &row.case)
            && any(&self.variant, &row.variant)
            && self
                .setting
                .iter()
                .all(|(name, pattern)| like(pattern, row.at(name)))
    }

    fn verdict<'a>(&'a self, row: &'a Row) -> Result<Verdict<'a>> {
        let against = || {
            row.against
                .as_ref()
                .with_context(|| format!("{:?} compares {row}, which has no baseline", self.what))
        };
        let (spread, allowed, limit, unit) =
            if let (Some(difference), Some(baseline)) = (self.difference, self.baseline) {
                let against = against()?;
                // A slower machine is slower in both.
                let allowed = difference * against.value.median / baseline;
                (
                    against.difference,
                    allowed,
                    allowed * self.margin,
                    row.unit.clone(),
                )
            } else if let Some(ratio) = self.ratio {
                let limit = 1.0 + (ratio - 1.0) * self.margin;
                (against()?.ratio, ratio, limit, "times".to_owned())
            } else {
                let most = self.at_most.unwrap_or_default();
                (row.value, most, most * self.margin, row.unit.clone())
            };
        Ok(Verdict {
            row,
            budget: self,
            measured: spread.median,
            sure: spread.sure,
            allowed,
            limit,
            unit,
        })
    }
}

/// Every row that has a budget, in the order of the rows; the first budget that fits is a row's own.
///
/// # Errors
///
/// If a budget of a layer that was measured is for no row: it would never fail.
pub fn verdicts<'a>(budgets: &'a [Budget], rows: &'a [Row]) -> Result<Vec<Verdict<'a>>> {
    for budget in budgets {
        // A machine of one CPU has no rows of two.
        let cpus = budget.setting.get("cpus");
        let layer_measured = rows
            .iter()
            .any(|row| row.layer == budget.layer && cpus.is_none_or(|cpus| row.at("cpus") == cpus));
        ensure!(
            !layer_measured || rows.iter().any(|row| budget.is_for(row)),
            "{FILE}: the budget {:?} is for nothing that was measured\n\
             hint: its setting, case and variant must be those of a row; `target/bench/{}.json` has all of them",
            budget.what,
            budget.layer
        );
    }
    rows.iter()
        .filter_map(|row| {
            let budget = budgets.iter().find(|budget| budget.is_for(row))?;
            Some(budget.verdict(row))
        })
        .collect()
}

/// A budget that was kept in no run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How the last run ended; not [`Outcome::Kept`].
    pub outcome: Outcome,
    /// What was measured for sure, of the budget with its margin: over one if it is past it.
    pub share: f64,
    /// What was measured.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Kept => "kept",
            Outcome::Unclear => "the machine is too noisy to tell",
            Outcome::Past => "past its budget",
        };
        write!(formatter, "{outcome}: {}", self.text)
    }
}

/// What was kept in none of the runs of a layer; of a single one, what it does not keep is measured once more: a neighbour
/// may have been busy for long.
///
/// # Errors
///
/// If measuring fails.
pub fn check(
    layer: &Layer,
    scale: Scale,
    budgets: &[Budget],
    mut runs: Vec<Vec<Row>>,
) -> Result<Vec<Failure>> {
    let found = failures(budgets, &runs)?;
    if found.is_empty() || runs.len() > 1 {
        return Ok(found);
    }
    for failure in &found {
        eprintln!("to be measured once more: {failure}");
    }
    runs.push((layer.measure)(scale)?);
    failures(budgets, &runs)
}

fn failures(budgets: &[Budget], runs: &[Vec<Row>]) -> Result<Vec<Failure>> {
    let mut found = Vec::new();
    let Some((last, before)) = runs.split_last() else {
        return Ok(found);
    };
    let before = before
        .iter()
        .map(|rows| verdicts(budgets, rows))
        .collect::<Result<Vec<_>>>()?;
    for verdict in verdicts(budgets, last)? {
        let kept = |one: &Verdict<'_>| one.outcome() == Outcome::Kept;
        let kept_before = before
            .iter()
            .flatten()
            .any(|one| one.row.is_of(verdict.row) && kept(one));
        if !kept(&verdict) && !kept_before {
            found.push(Failure {
                outcome: verdict.outcome(),
                share: verdict.sure[0] / verdict.limit,
                text: verdict.to_string(),
            });
        }
    }
    Ok(found)
}

/// Whether `text` is like `pattern`, in which `*` is any number of characters.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| like(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::row::{Comparison, Spread, setting},
        *,
    };

    const TEXT: &str = r#"
[[budget]]
what = "TCP passes"
layer = "program"
setting = { hook = "TC *" }
case = ["TCP*"]
variant = ["all"]
difference = 3.0
baseline = 40.0
margin = 1.5
"#;

    fn row(case: &str, base: f64, over: f64) -> Row {
        let at = setting(&[("hook", "TC ingress")]);
        let mut row = Row::alone("program", &at, [case, "all", "ns"], [base + over]);
        row.against = Some(Comparison {
            variant: "empty".to_owned(),
            value: Spread::of([base]),
            difference: Spread::of([over]),
            ratio: Spread::of([(base + over) / base]),
        });
        row
    }

    #[test]
    fn fails_past_budget_and_margin() {
        let budgets = parse(TEXT).unwrap();
        for (over, kept) in [(2.9, true), (4.4, true), (4.6, false)] {
            let rows = [row("TCP, IPv6", 40.0, over)];
            let verdicts = verdicts(&budgets, &rows).unwrap();
            assert_eq!(verdicts.len(), 1);
            let outcome = if kept { Outcome::Kept } else { Outcome::Past };
            assert_eq!(verdicts[0].outcome(), outcome, "{}", verdicts[0]);
        }
    }

    /// Neither a median within the limit nor a lower quartile below it says that a budget is kept.
    #[test]
    fn noise_is_not_a_budget_that_is_kept() {
        let budgets = parse(TEXT).unwrap();
        let outcome = |over: &[f64], wanted| {
            let mut row = row("TCP", 40.0, 0.0);
            row.against.as_mut().unwrap().difference = Spread::of(over.iter().copied());
            (row.rounds, row.wanted) = (over.len(), wanted);
            verdicts(&budgets, &[row]).unwrap()[0].outcome()
        };
        assert_eq!(outcome(&[2.0, 3.0, 4.0, 5.0, 9.0], 5), Outcome::Unclear);
        assert_eq!(outcome(&[-9.0, 5.0, 6.0, 7.0, 8.0], 5), Outcome::Unclear);
        assert_eq!(outcome(&[1.0, 2.0, 3.0, 4.0], 5), Outcome::Unclear);
        assert_eq!(outcome(&[5.0, 6.0, 7.0, 8.0, 9.0], 5), Outcome::Past);
        assert_eq!(outcome(&[1.0, 2.0, 3.0, 4.0, 4.4], 5), Outcome::Kept);
        // The same noise, and no doubt left.
        let many: Vec<_> = (0..100).map(|at| f64::from(at % 5)).collect();
        assert_eq!(outcome(&many, 5), Outcome::Kept);
    }

    #[test]
    fn what_is_kept_in_no_run_fails() {
        let budgets = parse(TEXT).unwrap();
        let unclear = || {
            let mut row = row("TCP", 40.0, 1.0);
            row.wanted = 2;
            vec![row]
        };
        let over = |over| vec![row("TCP", 40.0, over)];
        let found = |runs: &[Vec<Row>]| {
            let failures = failures(&budgets, runs).unwrap();
            failures.first().map(|failure| failure.outcome)
        };
        assert_eq!(found(&[over(1.0)]), None);
        assert_eq!(found(&[over(9.0), over(1.0)]), None);
        assert_eq!(found(&[over(1.0), over(9.0)]), None);
        assert_eq!(found(&[over(9.0), over(9.0)]), Some(Outcome::Past));
        assert_eq!(found(&[over(9.0), unclear()]), Some(Outcome::Unclear));
        assert_eq!(found(&[unclear(), unclear()]), Some(Outcome::Unclear));
        assert_eq!(found(&[unclear(), over(1.0)]), None);
    }

    /// Half as fast in everything is as good.
    #[test]
    fn a_slower_machine_is_allowed_more_in_proportion() {
        let budgets = parse(TEXT).unwrap();
        for (base, over, kept) in [(80.0, 8.8, true), (80.0, 9.2, false), (20.0, 2.4, false)] {
            let rows = [row("TCP", base, over)];
            let verdicts = verdicts(&budgets, &rows).unwrap();
            let is_kept = verdicts[0].outcome() == Outcome::Kept;
            assert_eq!(is_kept, kept, "{}", verdicts[0]);
        }
    }

    #[test]
    fn a_budget_for_nothing_is_an_error() {
        let budgets = parse(TEXT).unwrap();
        let error = verdicts(&budgets, &[row("UDP", 40.0, 1.0)]).unwrap_err();
        assert!(error.to_string().contains("TCP passes"), "{error}");
        assert!(verdicts(&budgets, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_budget_says_one_thing() {
        for wrong in ["ratio = 2.0", "at_most = 1.0"] {
            assert!(parse(&format!("{TEXT}{wrong}\n")).is_err(), "{wrong}");
        }
        assert!(parse(&TEXT.replace("margin = 1.5", "margin = 0.9")).is_err());
        assert!(parse(&TEXT.replace("baseline = 40.0", "")).is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, text, is) in [
            ("TCP", "TCP", true),
            ("TCP", "TCP, IPv6", false),
            ("TCP*", "TCP", true),
            ("*v6", "TCP, IPv6", true),
            ("T*, *6", "TCP, IPv6", true),
            ("*", "", true),
            ("T*4", "TCP, IPv6", false),
        ] {
            assert_eq!(like(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn the_committed_file_is_read() {
        assert!(!budgets().unwrap().is_empty());
    }
}
