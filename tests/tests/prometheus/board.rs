//! The dashboards of `dist/grafana`, as far as a test reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[derive(Deserialize)]
pub struct Dashboard {
    pub uid: String,
    pub title: String,
    pub description: String,
    pub panels: Vec<Panel>,
    pub templating: Templating,
}

#[derive(Deserialize)]
pub struct Templating {
    pub list: Vec<Variable>,
}

#[derive(Deserialize)]
pub struct Variable {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub definition: String,
}

#[derive(Deserialize)]
pub struct Panel {
    pub id: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub datasource: Option<Datasource>,
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(rename = "fieldConfig", default)]
    pub field_config: FieldConfig,
}

#[derive(Deserialize)]
pub struct Datasource {
    pub uid: String,
}

#[derive(Default, Deserialize)]
pub struct FieldConfig {
    pub defaults: Defaults,
}

#[derive(Default, Deserialize)]
pub struct Defaults {
    #[serde(default)]
    pub unit: String,
}

#[derive(Deserialize)]
pub struct Target {
    #[serde(rename = "refId")]
    pub id: String,
    pub expr: String,
    /// Asked for one moment rather than for the time shown.
    #[serde(default)]
    pub instant: bool,
    pub datasource: Datasource,
}

/// All dashboards.
///
/// # Errors
///
/// If a file is not as Grafana writes it.
pub fn dashboards() -> Result<Vec<Dashboard>> {
    let mut dashboards = Vec::new();
    for entry in fs::read_dir(repository("dist/grafana/dashboards"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let read = serde_json::from_str(&text);
        dashboards.push(read.with_context(|| path.display().to_string())?);
    }
    Ok(dashboards)
}

/// Names of metrics in an expression, without what a histogram's samples add.
pub fn metrics(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !is_name(c));
    let names = words.filter(|word| word.starts_with("wificall_") || word.starts_with("process_"));
    names.map(ToOwned::to_owned).collect()
}

/// The metrics that `docs/metrics.md` lists, which is made from their declarations; histograms as their samples are called
/// as well.
///
/// # Errors
///
/// If the page cannot be read.
pub fn declared() -> Result<BTreeSet<String>> {
    let page = fs::read_to_string(repository("docs/metrics.md"))?;
    let mut names = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split(" | ");
        let name = cells.next().unwrap_or_default();
        let name = name.trim_matches(['|', ' ', '`']).to_owned();
        if cells.next() == Some("histogram") {
            names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        }
        names.insert(name);
    }
    Ok(names)
}
