//! Records how many instructions the programs have, and how many the verifier walks: `tests/instructions.toml`, which the
//! test `instruction_counts` compares.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    fs,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{
    test::run_vectors,
    workspace::{cargo, output, root},
};

const FILE: &str = "tests/instructions.toml";
const TEST: &str = "instruction_counts";
/// Set, the test says what it finds instead of comparing it.
const RECORD: &str = "WIFICALL_RECORD_INSTRUCTIONS";
/// Set, a kernel that nothing is recorded of fails it.
pub const COMPARE: &str = "WIFICALL_COMPARE_INSTRUCTIONS";
const INTRODUCTION: &str = "\
# Of the programs in the committed BPF object, instructions: in the object; that the verifier walks, every path counted,
# with [all features, none]; that it leaves, with [no features, the usual ones, all], which shows what switching a feature
# off removes. Compared exactly, but for those of the object by a kernel whose release is one of these. The bytes of
# machine code that the last become are for information: addresses have more or fewer bytes from one boot to the next.
#
# Written by `cargo xtask bench --record-instructions`.
";

/// What a run of the test says.
#[derive(Deserialize)]
struct Counts {
    object: BTreeMap<String, usize>,
    verified: BTreeMap<String, BTreeMap<String, [u64; 2]>>,
    translated: BTreeMap<String, BTreeMap<String, [usize; 3]>>,
    jited: BTreeMap<String, BTreeMap<String, [u32; 3]>>,
}

/// Runs the test on this kernel and on others, and writes the file.
pub fn record(kernels: &[String]) -> Result<()> {
    let mut arguments = vec!["--nocapture", "--exact", TEST];
    let test = [
        "test",
        "--package",
        "wificall-tests",
        "--test",
        "vectors",
        "--",
    ];
    let said = output(cargo().args(test).args(&arguments).env(RECORD, "1"))?;
    let mut counts = parse(&said)?;
    // The guest has no terminal that would tell the two apart.
    arguments.extend(["--test-threads", "1"]);
    let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
    for version in kernels {
        let (release, outcome) = run_vectors(version, &arguments, &[(RECORD, "1".to_owned())])?;
        outcome.success()?;
        let other = parse(&outcome.log).with_context(|| format!("Linux {release}"))?;
        ensure!(
            other.object == counts.object,
            "Linux {release} was given other programs than this kernel"
        );
        counts.verified.extend(other.verified);
        counts.translated.extend(other.translated);
        counts.jited.extend(other.jited);
    }
    let path = root().join(FILE);
    fs::write(&path, counts.toml()).with_context(|| format!("write {}", path.display()))?;
    let releases: Vec<_> = counts.verified.into_keys().collect();
    println!("{FILE}: recorded of Linux {}", releases.join(", "));
    Ok(())
}

fn parse(said: &str) -> Result<Counts> {
    let json = said
        .lines()
        .find_map(|line| Some(line.split_once("recorded: ")?.1))
        .with_context(|| format!("the test {TEST} recorded nothing"))?;
    serde_json::from_str(json.trim()).context("what the test recorded")
}

impl Counts {
    fn toml(&self) -> String {
        let mut text = format!("{INTRODUCTION}\n[object]\n");
        // Writing to a String cannot fail.
        for (program, count) in &self.object {
            let _ = writeln!(text, "{program} = {count}");
        }
        tables(&mut text, "verified", &self.verified);
        tables(&mut text, "translated", &self.translated);
        tables(&mut text, "jited", &self.jited);
        text
    }
}

fn tables<T: Debug>(
    text: &mut String,
    name: &str,
    releases: &BTreeMap<String, BTreeMap<String, T>>,
) {
    for (release, programs) in releases {
        let _ = writeln!(text, "\n[{name}.\"{release}\"]");
        for (program, figures) in programs {
            let _ = writeln!(text, "{program} = {figures:?}");
        }
    }
}

/// Whether a kernel of this line is recorded.
pub fn knows(version: &str) -> Result<bool> {
    let path = root().join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.contains(&format!("\n[verified.\"{version}.")))
}
