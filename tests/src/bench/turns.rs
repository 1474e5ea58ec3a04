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
    /// A round is quiet for a variant if it and what it is compared with both took at most so much longer than at their
    /// best: in the others one of them shared its core with somebody. Both alike, or a round that was noisy for one of them
    /// only would count against it, or for it.
    pub slack: f64,
}

/// One variant's turn, which gives its figure.
pub type Turn<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// What the variants took, by round.
#[derive(Clone, Debug)]
pub struct Turns {
    names: Vec<String>,
    /// In each round a value for every variant.
    rounds: Vec<Vec<f64>>,
    effort: Effort,
}

/// Runs the variants until there are enough rounds that were quiet for each of them and the first. Each has a turn to get to know caches and branch
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
    let mut turns = Turns {
        rounds: Vec::new(),
        effort: *effort,
        names: names.clone(),
    };
    while turns.rounds.len() < effort.rounds
        || (turns.rounds.len() < effort.most && !turns.are_enough())
    {
        let mut values = vec![0.0; names.len()];
        for at in 0..names.len() {
            let at = (at + turns.rounds.len()) % names.len();
            values[at] = turn(at)?;
        }
        turns.rounds.push(values);
    }
    Ok(turns)
}

impl Turns {
    fn are_enough(&self) -> bool {
        (0..self.names.len()).all(|at| self.quiet([at, 0]).len() >= self.effort.quiet)
    }

    /// The values of two variants in the rounds that were quiet for both.
    fn quiet(&self, pair: [usize; 2]) -> Vec<[f64; 2]> {
        let values = || self.rounds.iter().map(|round| pair.map(|at| round[at]));
        let limits = [0, 1].map(|which| {
            let best = values().map(|two| two[which]).fold(f64::MAX, f64::min);
            best * self.effort.slack
        });
        values()
            .filter(|two| two[0] <= limits[0] && two[1] <= limits[1])
            .collect()
    }

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
        let base = self.position(baseline.unwrap_or(variant))?;
        let quiet = self.quiet([at, base]);
        // Without a quiet one, there is nothing to show, but something to look at.
        let all = || self.rounds.iter().map(|round| [round[at], round[base]]);
        let values: Vec<_> = if quiet.is_empty() {
            all().collect()
        } else {
            quiet.clone()
        };
        let of = |figure: fn([f64; 2]) -> f64| Spread::of(values.iter().copied().map(figure));
        Ok(Row {
            layer: layer.to_owned(),
            setting: setting.clone(),
            case: case.to_owned(),
            variant: variant.to_owned(),
            unit: unit.to_owned(),
            value: of(|[value, _]| value),
            rounds: quiet.len(),
            wanted: self.effort.quiet,
            against: baseline.map(|baseline| Comparison {
                variant: baseline.to_owned(),
                value: of(|[_, base]| base),
                difference: of(|[value, base]| value - base),
                ratio: of(|[value, base]| value / base),
            }),
        })
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

    /// Half the rounds are noisy for the baseline, half for the other: what they would say is opposite, and wrong.
    #[test]
    fn a_round_counts_only_if_it_was_quiet_for_both() {
        let round = Cell::new(0);
        let base: Turn<'_> = Box::new(|| {
            round.set(round.get() + 1);
            Ok(if round.get() % 3 == 0 { 30.0 } else { 10.0 })
        });
        let ours: Turn<'_> = Box::new(|| Ok(if round.get() % 3 == 1 { 90.0 } else { 15.0 }));
        let measured = turns(
            &EFFORT,
            vec![("empty".to_owned(), base), ("ours".to_owned(), ours)],
        )
        .unwrap();
        let names = ["TCP", "ours", "ns"];
        let row = measured
            .row("layer", &Setting::new(), names, Some("empty"))
            .unwrap();
        let against = row.against.as_ref().unwrap();
        assert_eq!(against.difference.sure, [5.0, 5.0]);
        assert!(row.is_sound(), "{row:?}");
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
        let names = ["TCP", "only", "ns"];
        let row = measured.row("layer", &Setting::new(), names, None).unwrap();
        assert_eq!((row.rounds, row.is_sound()), (2, false));
        let names = ["TCP", "other", "ns"];
        assert!(measured.row("layer", &Setting::new(), names, None).is_err());
    }
}
