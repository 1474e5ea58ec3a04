//! Histograms with fixed bounds.

use serde::{Deserialize, Serialize};

/// How often values fell between bounds. The bounds are whoever's that keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// One for each bound, of the values at most as large and larger than the one before; then one for the rest.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: f64,
}

impl Histogram {
    /// An empty one with these bounds, ascending.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        Self {
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    /// Counts a value.
    pub fn add(&mut self, bounds: &[f64], value: f64) {
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
            self.sum += value;
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another one with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_at_the_first_bound_that_holds_it() {
        const BOUNDS: [f64; 3] = [0.1, 0.2, 0.5];
        let mut histogram = Histogram::new(&BOUNDS);
        for value in [0.05, 0.1, 0.15, 0.5, 7.0] {
            histogram.add(&BOUNDS, value);
        }
        assert_eq!(histogram.counts, [2, 1, 1, 1]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum - 7.8).abs() < 1e-9);
    }
}
