//! Variants take turns, so that whatever else the machine does meets all of them alike.

use anyhow::{Context as _, Result, ensure};

use super::row::{Comparison, Row, Setting, Spread};

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// So many rounds at least.
    pub rounds: usize,
    /// So many of them have to be quiet; while they are not, there are more.
    pub quiet: usize,
    /// So many rounds at most.
    pub most: usize,
    /// A round is quiet if the first variant took at most so much longer than at its best: in the others it shared its
    /// core with somebody.
    pub slack: f64,
}

/// One variant's turn, which gives its figure.
pub type Turn<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// What the variants took, by round.
#[derive(Clone, Debug)]
pub struct Turns {
    names: Vec<String>,
    /// The quiet rounds, in each a value for every variant.
    rounds: Vec<Vec<f64>>,
}

/// Runs the variants, the first of which is the measure of quiet. Each has a turn to get to know caches and branch
/// predictors before it counts, and every round begins with another variant.
///
/// # Errors
///
/// If a turn fails.
pub fn turns(effort: &Effort, variants: Vec<(String, Turn<'_>)>) -> Result<Turns> {
    ensure!(!variants.is_empty(), "nothing to measure");
    let (names, mut variants): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
    let mut turn = |at: usize| variants[at]().with_context(|| names[at].clone());
    for at in 0..names.len() {
        turn(at)?;
    }
    let mut rounds = Vec::new();
    while rounds.len() < effort.rounds
        || (quiet(&rounds, effort.slack).len() < effort.quiet && rounds.len() < effort.most)
    {
        let mut values = vec![0.0; names.len()];
        for at in 0..names.len() {
            let at = (at + rounds.len()) % names.len();
            values[at] = turn(at)?;
        }
        rounds.push(values);
    }
    let rounds = quiet(&rounds, effort.slack);
    Ok(Turns { names, rounds })
}

fn quiet(rounds: &[Vec<f64>], slack: f64) -> Vec<Vec<f64>> {
    let best = rounds.iter().map(|round| round[0]).fold(f64::MAX, f64::min);
    rounds
        .iter()
        .filter(|round| round[0] <= best * slack)
        .cloned()
        .collect()
}

impl Turns {
    fn position(&self, variant: &str) -> Result<usize> {
        let found = self.names.iter().position(|name| name == variant);
        found.with_context(|| format!("no variant is called {variant:?}"))
    }

    /// The row of a variant, compared with another if that is given.
    ///
    /// # Errors
    ///
    /// If one of them was not among the variants.
    pub fn row(
        &self,
        layer: &str,
        setting: &Setting,
        [case, variant, unit]: [&str; 3],
        baseline: Option<&str>,
    ) -> Result<Row> {
        let at = self.position(variant)?;
        let values = self.rounds.iter().map(|round| round[at]);
        let mut row = Row::alone(layer, setting, [case, variant, unit], values);
        if let Some(baseline) = baseline {
            let base = self.position(baseline)?;
            let of = |figure: fn(f64, f64) -> f64| {
                Spread::of(
                    self.rounds
                        .iter()
                        .map(|round| figure(round[at], round[base])),
                )
            };
            row.against = Some(Comparison {
                variant: baseline.to_owned(),
                value: Spread::of(self.rounds.iter().map(|round| round[base])),
                difference: of(|value, base| value - base),
                ratio: of(|value, base| value / base),
            });
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const EFFORT: Effort = Effort {
        rounds: 4,
        quiet: 4,
        most: 12,
        slack: 1.1,
    };

    /// A neighbour makes every second round slow for both: those do not count, and others are run in their place.
    #[test]
    fn noisy_rounds_are_left_out_and_made_up_for() {
        let count = Cell::new(0);
        let measured = turns(
            &EFFORT,
            vec![
                (
                    "empty".to_owned(),
                    Box::new(|| {
                        count.set(count.get() + 1);
                        Ok(if count.get() % 2 == 0 { 30.0 } else { 10.0 })
                    }),
                ),
                (
                    "ours".to_owned(),
                    Box::new(|| Ok(if count.get() % 2 == 0 { 90.0 } else { 15.0 })),
                ),
            ],
        )
        .unwrap();
        let names = ["TCP", "ours", "ns"];
        let row = measured
            .row("layer", &Setting::new(), names, Some("empty"))
            .unwrap();
        assert_eq!(row.rounds, 4);
        let against = row.against.unwrap();
        assert_eq!(against.value.median, 10.0);
        assert_eq!(count.get(), 1 + 8);
    }

    #[test]
    fn a_machine_that_is_never_quiet_ends_all_the_same() {
        let count = Cell::new(0.0);
        let turn: Turn<'_> = Box::new(|| {
            count.set(count.get() + 1.0);
            Ok(100.0 / count.get())
        });
        let measured = turns(&EFFORT, vec![("only".to_owned(), turn)]).unwrap();
        assert_eq!(count.get(), 13.0);
        assert!(!measured.rounds.is_empty());
        let names = ["TCP", "other", "ns"];
        assert!(measured.row("layer", &Setting::new(), names, None).is_err());
    }
}
