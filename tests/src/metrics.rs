//! The agent's `/metrics`, as numbers to compare.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<(String, Labels, f64)>,
}

/// The counters that an upgrade carries over (docs/metrics.md); others start with the agent or with its maps.
const CARRIED: [&str; 5] = [
    "wificall_packets_total",
    "wificall_bytes_total",
    "wificall_exits_total",
    "wificall_demoted_packets_total",
    "wificall_bleached_packets_total",
];

impl Metrics {
    /// Reads the OpenMetrics text format.
    ///
    /// # Errors
    ///
    /// If a line is not of it, or the end marker is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            samples.push(sample(line).with_context(|| format!("metrics line `{line}`"))?);
        }
        if text.lines().next_back() != Some("# EOF") {
            bail!("metrics without `# EOF` at the end");
        }
        Ok(Self { samples })
    }

    /// The samples called `name` whose labels include all of `labels`.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.samples
            .iter()
            .filter(move |(sample, has, _)| {
                sample == name
                    && labels
                        .iter()
                        .all(|(key, value)| has.get(*key).is_some_and(|v| v == value))
            })
            .map(|(_, labels, value)| (labels, *value))
    }

    /// Their sum; zero if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        // Counters of the tests are far below 2^53, where doubles are exact.
        self.select(name, labels)
            .map(|(_, value)| value)
            .sum::<f64>() as u64
    }

    /// Packets counted with these labels.
    #[must_use]
    pub fn packets(&self, labels: &[(&str, &str)]) -> u64 {
        self.sum("wificall_packets_total", labels)
    }

    /// Packets by class and direction, those with none left out.
    #[must_use]
    pub fn by_class(&self) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for (labels, value) in self.select("wificall_packets_total", &[]) {
            if value > 0.0 {
                let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
                *counts
                    .entry((label("class"), label("direction")))
                    .or_default() += value as u64;
            }
        }
        counts
    }

    /// What this scrape has less of than an `earlier` one, among the counters that go on over restarts and upgrades of the
    /// agent. Must be empty.
    #[must_use]
    pub fn gone_back(&self, earlier: &Self) -> Vec<String> {
        earlier
            .samples
            .iter()
            .filter(|(name, ..)| CARRIED.contains(&name.as_str()))
            .filter_map(|(name, labels, before)| {
                let now = self
                    .samples
                    .iter()
                    .find(|(n, l, _)| n == name && l == labels);
                let now = now.map_or(0.0, |(.., value)| *value);
                (now < *before).then(|| format!("{name}{labels:?}: {before} -> {now}"))
            })
            .collect()
    }
}

/// One line: `name{key="value",...} number [timestamp]`.
fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' ']).context("no value")?);
    let mut labels = Labels::new();
    let mut rest = rest;
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").context("no label value")?;
            let (value, after) = quoted(after).context("open label value")?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest
        .split_whitespace()
        .next()
        .context("no value")?
        .parse()?;
    Ok((name.to_owned(), labels, value))
}

/// A label's value with its escapes undone, and what follows the closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            (_, other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE wificall_packets counter
wificall_packets_total{class="ike",direction="up"} 3
wificall_packets_total{class="ike",direction="down"} 4
wificall_packets_total{class="esp",direction="up"} 0
wificall_info{path="a\"b,c\\d"} 1
wificall_up 1.5
# EOF
"#;

    #[test]
    fn reads_samples() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.packets(&[("class", "ike")]), 7);
        assert_eq!(metrics.packets(&[("class", "ike"), ("direction", "up")]), 3);
        assert_eq!(metrics.sum("wificall_info", &[("path", "a\"b,c\\d")]), 1);
        let classes: Vec<_> = metrics.by_class().into_values().collect();
        assert_eq!(classes, [4, 3]);
    }

    #[test]
    fn notices_counters_that_go_back() {
        let earlier = Metrics::parse(TEXT).unwrap();
        assert!(earlier.gone_back(&earlier).is_empty());
        let later = Metrics::parse(&TEXT.replace("up\"} 3", "up\"} 2")).unwrap();
        assert_eq!(later.gone_back(&earlier).len(), 1);
        assert_eq!(
            Metrics::parse("# EOF").unwrap().gone_back(&earlier).len(),
            2
        );
    }

    #[test]
    fn refuses_what_is_torn() {
        assert!(Metrics::parse("wificall_up 1\n").is_err());
        assert!(Metrics::parse("wificall_up{a=\"b} 1\n# EOF").is_err());
    }
}
