//! docs/performance.md, whose prose stays, and docs/performance/.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use wificall_tests::bench::{
    Layer,
    budget::{Budget, verdicts},
    report::{Results, Table, budget_table, runs_table},
};

const PAGE: &str = "docs/performance.md";
/// Charts and figures.
const DIRECTORY: &str = "docs/performance";

/// What is generated of a layer: the first run, and how the others compare with it.
pub fn block(layer: &Layer, runs: &[Results], budgets: &[Budget]) -> Result<String> {
    let results = runs.first().context("no run")?;
    let files: Vec<_> = runs
        .iter()
        .map(|run| format!("[{file}](performance/{file})", file = run.file()))
        .collect();
    let mut parts = vec![format!(
        "{}. All figures: {}.\n",
        results.record.line(),
        files.join(", ")
    )];
    for chart in (layer.charts)(&results.rows) {
        parts.push(format!(
            "![{}](performance/{}.svg)\n",
            chart.title, chart.name
        ));
    }
    parts.extend((layer.tables)(&results.rows).iter().map(Table::markdown));
    let verdicts = runs
        .iter()
        .map(|run| verdicts(budgets, &run.rows))
        .collect::<Result<Vec<_>>>()?;
    if !verdicts[0].is_empty() {
        parts.push(budget_table(&verdicts[0]));
        if runs.len() > 1 {
            parts.push(runs_table(&verdicts));
        }
    }
    Ok(parts.join("\n"))
}

/// Writes the layer's part of the page, its charts and its figures.
pub fn write(layer: &Layer, runs: &[Results], budgets: &[Budget]) -> Result<()> {
    let block = block(layer, runs, budgets)?;
    for results in runs {
        results.write(Path::new(DIRECTORY))?;
    }
    for chart in runs
        .first()
        .map_or(Vec::new(), |run| (layer.charts)(&run.rows))
    {
        let path = Path::new(DIRECTORY).join(format!("{}.svg", chart.name));
        fs::write(&path, chart.svg()?).with_context(|| format!("write {}", path.display()))?;
    }
    let page = fs::read_to_string(PAGE).with_context(|| format!("read {PAGE}"))?;
    let page = replaced(&page, layer.name, &block)?;
    fs::write(PAGE, page).with_context(|| format!("write {PAGE}"))
}

/// The page with another text between the two marks of a layer.
fn replaced(page: &str, layer: &str, text: &str) -> Result<String> {
    let [start, end] = [
        format!("<!-- bench:{layer} -->\n"),
        format!("<!-- /bench:{layer} -->\n"),
    ];
    let (before, rest) = page.split_once(&start).with_context(|| {
        format!(
            "{PAGE} has no place for the layer {layer}\nhint: put `{}` and `{}` on lines of their own where its tables belong",
            start.trim_end(),
            end.trim_end()
        )
    })?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("{PAGE}: `{}` is not closed", start.trim_end()))?;
    Ok(format!(
        "{before}{start}\n{}\n\n{end}{after}",
        text.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = "prose\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nmore\n<!-- bench:b -->\nb\n<!-- /bench:b -->\n";
        let new = replaced(page, "a", "new\n").unwrap();
        assert_eq!(new, page.replace("old\n", "\nnew\n\n"));
        // Once more changes nothing.
        assert_eq!(replaced(&new, "a", "new\n").unwrap(), new);
        assert!(replaced(page, "c", "").is_err());
        assert!(replaced("<!-- bench:a -->\n", "a", "").is_err());
    }
}
