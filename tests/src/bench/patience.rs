//! Comparisons that the machine was in no state for are held again.
//!
//! A virtual machine may be slow for seconds on end, longer than it takes to compare some variants: no round stands out
//! then. Such a contest is found by its baseline, which is to be like that of others; one that was noisy instead by its
//! rows, which lack quiet rounds. One that is slow to the end has none: what pushes a program out of the caches it shares
//! with others costs lookups twice as much as the empty program, so that a ratio of the two says nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::row::Row;

/// How long, and what is slow.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Contests are held again until so much time has passed since the first one.
    pub limit: Duration,
    /// A contest was slow if its baseline was so many times the best of those like it.
    pub slow: f64,
}

/// Holds every contest, whose first row is the baseline, and again those that were slow or noisy. Those with the same
/// `kind` have baselines that are alike. Returns the rows in the order of the contests.
///
/// # Errors
///
/// If `hold` fails.
pub fn hold_all<C, K: PartialEq>(
    contests: &[C],
    kind: impl Fn(&C) -> K,
    patience: Patience,
    mut hold: impl FnMut(&C) -> Result<Vec<Row>>,
) -> Result<Vec<Row>> {
    let start = Instant::now();
    let mut all = contests.iter().map(&mut hold).collect::<Result<Vec<_>>>()?;
    loop {
        let best = |at: usize| {
            contests
                .iter()
                .zip(&all)
                .filter(|(contest, _)| kind(contest) == kind(&contests[at]))
                .map(|(_, rows)| baseline(rows))
                .fold(f64::MAX, f64::min)
        };
        let limits: Vec<_> = (0..all.len()).map(|at| best(at) * patience.slow).collect();
        let wanting: Vec<_> = (0..all.len())
            .filter(|at| wants(&all[*at], limits[*at]) > (false, 0))
            .collect();
        eprintln!(
            "{} of {} contests were slow or noisy after {} s",
            wanting.len(),
            all.len(),
            start.elapsed().as_secs()
        );
        if wanting.is_empty() {
            break;
        }
        for at in wanting {
            if start.elapsed() > patience.limit {
                eprintln!("no time to hold the others again");
                let limits = limits.into_iter();
                let told = all
                    .into_iter()
                    .zip(limits)
                    .map(|(rows, limit)| told(rows, limit));
                return Ok(told.flatten().collect());
            }
            let again = hold(&contests[at])?;
            let is_better = match wants(&again, limits[at]).cmp(&wants(&all[at], limits[at])) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => baseline(&again) < baseline(&all[at]),
                std::cmp::Ordering::Greater => false,
            };
            if is_better {
                all[at] = again;
            }
        }
    }
    Ok(all.concat())
}

/// What a contest tells: nothing, if it was slow.
fn told(mut rows: Vec<Row>, limit: f64) -> Vec<Row> {
    if baseline(&rows) > limit {
        rows.iter_mut().for_each(|row| row.rounds = 0);
    }
    rows
}

fn baseline(rows: &[Row]) -> f64 {
    rows.first().map_or(f64::MAX, |row| row.value.median)
}

/// What is wrong with a contest: whether it was slow, and how many of its rows have too few quiet rounds.
fn wants(rows: &[Row], limit: f64) -> (bool, usize) {
    let noisy = rows.iter().filter(|row| !row.is_sound()).count();
    (baseline(rows) > limit, noisy)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{super::row::Setting, *};

    fn row(case: &str, value: f64, wanted: usize) -> Vec<Row> {
        let mut row = Row::alone("layer", &Setting::new(), [case, "base", "ns"], [value]);
        row.wanted = wanted;
        vec![row]
    }

    #[test]
    fn what_was_slow_or_noisy_is_held_again() {
        let held = RefCell::new(Vec::new());
        let rows = hold_all(
            &["good", "slow", "noisy", "another kind"],
            |contest| contest.len() > 5,
            Patience {
                limit: Duration::MAX,
                slow: 1.2,
            },
            |contest| {
                held.borrow_mut().push(*contest);
                let first = held.borrow().iter().filter(|one| *one == contest).count() == 1;
                Ok(match (*contest, first) {
                    ("slow", true) => row(contest, 20.0, 1),
                    ("noisy", true) => row(contest, 10.0, 2),
                    ("another kind", _) => row(contest, 90.0, 1),
                    _ => row(contest, 10.0, 1),
                })
            },
        )
        .unwrap();
        assert_eq!(held.borrow()[4..], ["slow", "noisy"]);
        let values: Vec<_> = rows.iter().map(|row| row.value.median).collect();
        assert_eq!(values, [10.0, 10.0, 10.0, 90.0]);
        assert!(rows.iter().all(Row::is_sound));
    }

    #[test]
    fn what_stays_slow_tells_nothing() {
        let rows = hold_all(
            &["good", "slow"],
            |_| (),
            Patience {
                limit: Duration::ZERO,
                slow: 1.2,
            },
            |contest| {
                Ok(row(
                    contest,
                    if *contest == "slow" { 20.0 } else { 10.0 },
                    1,
                ))
            },
        )
        .unwrap();
        let sound: Vec<_> = rows.iter().map(Row::is_sound).collect();
        assert_eq!(sound, [true, false]);
    }
}
