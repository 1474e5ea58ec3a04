//! `cargo xtask catalogue`: the agent's table of operators, built from `data/`.
//!
//! The table is generated and committed, so that the agent reads and parses nothing at its start:
//! rows of numbers, and one text that they point into.

mod import;
mod merge;
#[path = "../../../wificall-user/src/catalogue/names.rs"]
#[expect(dead_code, reason = "the agent makes names; here they are only read")]
mod names;
#[path = "../../../wificall-user/src/catalogue/plmn.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the agent has more use for it"))]
mod plmn;
mod tsv;
mod write;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;
use plmn::Plmn;

#[derive(clap::Args)]
pub struct Args {
    /// Only check the data, and that the committed table is the one that it gives
    #[arg(long)]
    check: bool,
    /// First replace data/operators_wikipedia.tsv from mcc-mnc-list.json of the npm package mcc-mnc-list, which
    /// `npm pack mcc-mnc-list` fetches
    #[arg(long, value_name = "PATH", conflicts_with = "check")]
    import: Option<PathBuf>,
}

/// The generated files, in `wificall-user/src/catalogue`.
const ROWS: &str = "table.rs";
const TEXT: &str = "table.txt";

/// Entry point of the task.
pub fn catalogue(args: &Args) -> Result<()> {
    let root = workspace::root();
    let data = root.join("data");
    if let Some(path) = &args.import {
        import::import(path, &data.join(merge::WIKIPEDIA))?;
    }
    let catalogue = merge::read(&data)?;
    if !catalogue.problems.is_empty() {
        for problem in &catalogue.problems {
            eprintln!("{problem}");
        }
        bail!("{} problems in data/", catalogue.problems.len());
    }
    for note in &catalogue.notes {
        println!("note: {note}");
    }
    let table = write::table(&catalogue)?;
    let directory = root.join("wificall-user/src/catalogue");
    for (name, content) in [(ROWS, &table.rows), (TEXT, &table.text)] {
        put(&directory.join(name), content, args.check)?;
    }
    println!(
        "{} operators, {} of them with a country; {} countries; {} MCCs; {} names and addresses of {} carriers; {} bytes of text",
        catalogue.operators.len(),
        catalogue
            .operators
            .values()
            .filter(|o| !o.countries.is_empty())
            .count(),
        catalogue.countries.len(),
        catalogue.mccs.len(),
        catalogue.dialled.values().map(Vec::len).sum::<usize>(),
        catalogue.dialled.len(),
        table.text.len(),
    );
    Ok(())
}

fn put(path: &Path, content: &str, check: bool) -> Result<()> {
    let shown = path.display();
    // Missing is as wrong as stale.
    let committed = fs::read_to_string(path).unwrap_or_default();
    if committed == content {
        return Ok(());
    }
    if check {
        bail!(
            "{shown} is not what data/ gives\nhint: run `cargo xtask catalogue` and commit the result"
        );
    }
    fs::write(path, content).with_context(|| format!("write {shown}"))
}
