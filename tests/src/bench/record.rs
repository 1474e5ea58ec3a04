//! What figures were measured on, and of what.

use std::{
    fs,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Scale;

/// The circumstances of a run that are the same for all its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it began, UTC.
    pub date: String,
    /// `uname -m`.
    pub architecture: String,
    /// Its model, as the kernel names it.
    pub cpu: String,
    /// How many the run could use.
    pub cpus: usize,
    /// Megabytes.
    pub memory: u64,
    /// Whether it is a virtual machine, as far as the CPU says.
    pub virtual_machine: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of the agent.
    pub agent: String,
    /// Commit of the repository, with a plus sign if there were changes.
    pub commit: String,
    /// Whether only what the budgets need was measured.
    pub quick: bool,
}

impl Record {
    /// Of a run that begins now.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub fn now(scale: Scale) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self {
            date: date(seconds.try_into()?),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: field(&cpuinfo, &["model name", "Model", "Hardware"]).to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            memory: field(&read("/proc/meminfo")?, &["MemTotal"])
                .split(' ')
                .next()
                .unwrap_or_default()
                .parse::<u64>()
                .context("MemTotal of /proc/meminfo")?
                / 1024,
            virtual_machine: field(&cpuinfo, &["flags"])
                .split(' ')
                .any(|flag| flag == "hypervisor"),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            quick: scale == Scale::Quick,
        })
    }

    /// Whether what was measured is no commit.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.commit.ends_with('+')
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            date,
            architecture,
            cpu,
            cpus,
            memory,
            virtual_machine,
            kernel,
            agent,
            commit,
            quick,
        } = self;
        let kind = if *virtual_machine {
            "virtual machine"
        } else {
            "machine"
        };
        let scale = if *quick { "; a quick run" } else { "" };
        format!(
            "{date}, wificall {agent} ({commit}), Linux {kernel}, {architecture} {kind}, {cpus} CPUs ({cpu}), {memory} MB{scale}"
        )
    }
}

/// The first of these fields that a file of /proc has.
fn field<'a>(text: &'a str, names: &[&str]) -> &'a str {
    let of = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then_some(value.trim())
        })
    };
    names.iter().find_map(|name| of(name)).unwrap_or("unknown")
}

/// A run from outside a clone has none.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // What a run itself writes is no change of what it measures.
    let changed = ["status", "--porcelain", "--untracked-files=no", "--"];
    let outside = [":/", ":(exclude,top)docs"];
    match git(&[&changed[..], &outside[..]].concat()) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}+"),
    }
}

/// The day of a Unix time, proleptic Gregorian (Howard Hinnant's `civil_from_days`).
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is 0.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with `date -u -d @…`.
    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_219_199), "2026-11-20");
        assert_eq!(date(1_795_219_200), "2026-11-21");
    }

    #[test]
    fn this_machine_is_described() {
        let record = Record::now(Scale::Quick).unwrap();
        assert!(record.cpus > 0 && record.memory > 0, "{record:?}");
        assert!(record.line().contains(&record.kernel));
    }
}
