//! One figure and what it is compared with.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Median and quartiles of what was measured several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter was less.
    pub low: f64,
    /// Half was less.
    pub median: f64,
    /// Three quarters were less.
    pub high: f64,
    /// Between these two the median lies with 95 % confidence, as far as so few values say (the order statistics of the
    /// sign test): however noisy single values are, many of them leave little doubt.
    pub sure: [f64; 2],
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    ///
    /// Without any.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| values[values.len() * quarter / 4]);
        let count = values.len() as f64;
        let first = ((count - 1.96 * count.sqrt()) / 2.0).max(0.0) as usize;
        let sure = [values[first], values[values.len() - 1 - first]];
        Self {
            low,
            median,
            high,
            sure,
        }
    }

    /// Half the distance of the quartiles: what stands behind ±.
    #[must_use]
    pub fn half_range(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// The circumstances of a measurement, by name: hook, endpoints, CPUs, ….
pub type Setting = BTreeMap<String, String>;

/// A setting out of pairs.
#[must_use]
pub fn setting(pairs: &[(&str, &str)]) -> Setting {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The layer that measured it.
    pub layer: String,
    /// Circumstances that are the same for all that are compared.
    pub setting: Setting,
    /// What was done: a kind of traffic, for example.
    pub case: String,
    /// With what: the one of several that are compared.
    pub variant: String,
    /// Of the values.
    pub unit: String,
    /// What was measured.
    pub value: Spread,
    /// Out of so many quiet rounds.
    pub rounds: usize,
    /// With fewer than so many it says nothing.
    pub wanted: usize,
    /// What it is compared with, in the same rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Comparison>,
}

/// A figure beside that of its baseline, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The variant that is the baseline.
    pub variant: String,
    /// Its value.
    pub value: Spread,
    /// The figure minus the baseline's.
    pub difference: Spread,
    /// The figure divided by the baseline's.
    pub ratio: Spread,
}

impl Row {
    /// A value of its own, compared with nothing.
    #[must_use]
    pub fn alone(
        layer: &str,
        setting: &Setting,
        [case, variant, unit]: [&str; 3],
        values: impl IntoIterator<Item = f64>,
    ) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        Self {
            layer: layer.to_owned(),
            setting: setting.clone(),
            case: case.to_owned(),
            variant: variant.to_owned(),
            unit: unit.to_owned(),
            rounds: values.len(),
            wanted: values.len(),
            value: Spread::of(values),
            against: None,
        }
    }

    /// A circumstance, or nothing.
    #[must_use]
    pub fn at(&self, name: &str) -> &str {
        self.setting.get(name).map_or("", String::as_str)
    }

    /// Whether there were enough quiet rounds to show it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.rounds >= self.wanted
    }

    /// Whether the other one measured the same.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.layer, &self.setting, &self.case, &self.variant)
            == (&other.layer, &other.setting, &other.case, &other.variant)
    }

    /// What is shown of it: the difference from its baseline, or the value if it has none.
    #[must_use]
    pub fn shown(&self) -> Spread {
        self.against
            .as_ref()
            .map_or(self.value, |against| against.difference)
    }
}

impl fmt::Display for Row {
    /// Its path: layer, setting, case, variant.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/", self.layer)?;
        for (name, value) in &self.setting {
            write!(formatter, "{name}={value}/")?;
        }
        write!(formatter, "{}/{}", self.case, self.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_values_that_were_measured() {
        let spread = Spread::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!([spread.low, spread.median, spread.high], [2.0, 3.0, 4.0]);
        let one = Spread::of([7.0]);
        assert_eq!([one.low, one.median, one.high], [7.0, 7.0, 7.0]);
        assert_eq!(one.sure, [7.0, 7.0]);
    }

    /// Of 20 values the sign test says the sixth to the fifteenth; of 100 the 41st to the 60th.
    #[test]
    fn more_values_leave_less_doubt() {
        let upto = |count: u32| Spread::of((1..=count).map(f64::from)).sure;
        assert_eq!(upto(5), [1.0, 5.0]);
        assert_eq!(upto(20), [6.0, 15.0]);
        assert_eq!(upto(100), [41.0, 60.0]);
    }

    #[test]
    fn a_row_is_found_by_its_path() {
        let setting = setting(&[("hook", "XDP"), ("endpoints", "10")]);
        let row = Row::alone("program", &setting, ["TCP", "all", "ns"], [1.0]);
        assert_eq!(row.to_string(), "program/endpoints=10/hook=XDP/TCP/all");
    }
}
