//! docs/performance.md, whose prose stays, and docs/performance/.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use wificall_tests::bench::{
    Layer,
    budget::Verdict,
    report::{Results, Table, budget_table},
};

const PAGE: &str = "docs/performance.md";
/// Charts and figures.
const DIRECTORY: &str = "docs/performance";

/// What is generated of a layer.
pub fn block(layer: &Layer, results: &Results, verdicts: &[Verdict<'_>]) -> String {
    let mut parts = vec![format!(
        "{}. All figures: [{name}.json](performance/{name}.json).\n",
        results.record.line(),
        name = layer.name
    )];
    for chart in (layer.charts)(&results.rows) {
        parts.push(format!(
            "![{}](performance/{}.svg)\n",
            chart.title, chart.name
        ));
    }
    parts.extend((layer.tables)(&results.rows).iter().map(Table::markdown));
    if !verdicts.is_empty() {
        parts.push(budget_table(verdicts));
    }
    parts.join("\n")
}

/// Writes the layer's part of the page, its charts and its figures.
pub fn write(layer: &Layer, results: &Results, verdicts: &[Verdict<'_>]) -> Result<()> {
    results.write(Path::new(DIRECTORY))?;
    for chart in (layer.charts)(&results.rows) {
        let path = Path::new(DIRECTORY).join(format!("{}.svg", chart.name));
        fs::write(&path, chart.svg()?).with_context(|| format!("write {}", path.display()))?;
    }
    let page = fs::read_to_string(PAGE).with_context(|| format!("read {PAGE}"))?;
    let page = replaced(&page, layer.name, &block(layer, results, verdicts))?;
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
