//! The dashboards and alerts of `dist/`, against a real Prometheus that scrapes the real agent.

mod board;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use board::{dashboards, declared, metrics, repository};
use serde_json::Value;
use wificall_tests::lab::Lab;
use wificall_tests::process::output;
use wificall_tests::prometheus::Prometheus;

const RULES: &str = "dist/prometheus/wificall.rules.yml";

/// Selectors of alerts that select nothing in the lab, each with the reason.
const NOT_IN_THE_LAB: [(&str, &str); 1] = [(
    "node_textfile_mtime_seconds",
    "node_exporter's, which does not run in the lab",
)];

/// Selectors that look further back than the lab exists.
const OF_YESTERDAY: &str = "offset 1d";

#[test]
fn every_panel_says_what_it_shows_in_which_unit_from_a_metric_that_exists() -> Result<()> {
    let declared = declared()?;
    ensure!(declared.len() > 60, "{declared:?}");
    let dashboards = dashboards()?;
    assert_eq!(dashboards.len(), 3);
    let uids: BTreeSet<_> = dashboards.iter().map(|board| &board.uid).collect();
    assert_eq!(uids.len(), 3, "{uids:?}");
    let mut panels = 0;
    for board in &dashboards {
        let title = &board.title;
        ensure!(!board.description.is_empty(), "{title} has no description");
        let of_type = |kind: &str| {
            board
                .templating
                .list
                .iter()
                .filter(|v| v.kind == kind)
                .count()
        };
        assert_eq!(of_type("datasource"), 1, "{title}");
        for variable in &board.templating.list {
            let names = metrics(&variable.definition);
            ensure!(names.is_subset(&declared), "{title}: ${}", variable.name);
        }
        let rows: Vec<_> = board.panels.iter().filter(|p| p.kind == "row").collect();
        for side in ["My side", "The network side", "The carrier"] {
            let has = rows.iter().any(|row| row.title.starts_with(side));
            ensure!(has, "{title} has no row `{side}`");
        }
        let ids: BTreeSet<_> = board.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), board.panels.len(), "{title}: ids are not unique");
        for panel in board.panels.iter().filter(|panel| panel.kind != "row") {
            let at = format!("{title}: {}", panel.title);
            ensure!(panel.description.len() > 20, "{at}: no description");
            ensure!(
                !panel.field_config.defaults.unit.is_empty(),
                "{at}: no unit"
            );
            let source = panel.datasource.as_ref().map(|source| &*source.uid);
            assert_eq!(source, Some("${datasource}"), "{at}");
            ensure!(!panel.targets.is_empty(), "{at}: no query");
            for target in &panel.targets {
                assert_eq!(target.datasource.uid, "${datasource}", "{at}");
                ensure!(
                    target.expr.contains("job=~\"$job\""),
                    "{at}: {}",
                    target.expr
                );
                for name in metrics(&target.expr) {
                    ensure!(declared.contains(&name), "{at}: no metric is called {name}");
                }
            }
            panels += 1;
        }
    }
    println!("{panels} panels, {} metrics declared", declared.len());
    Ok(())
}

#[test]
fn promtool_finds_the_rules_right_and_they_fire_when_they_should() -> Result<()> {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        output(
            command
                .args(arguments)
                .current_dir(repository("dist/prometheus")),
        )
    };
    print!("{}", promtool(&["check", "rules", "wificall.rules.yml"])?);
    print!(
        "{}",
        promtool(&["check", "config", "--syntax-only", "prometheus.yml"])?
    );
    print!("{}", promtool(&["test", "rules", "wificall.test.yml"])?);
    Ok(())
}

#[test]
fn every_alert_is_tested_both_ways_and_has_a_page_that_says_what_to_do() -> Result<()> {
    let rules = fs::read_to_string(repository(RULES))?;
    let tests = fs::read_to_string(repository("dist/prometheus/wificall.test.yml"))?;
    let pages = fs::read_to_string(repository("docs/alerts.md"))?;
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    ensure!(alerts.len() >= 15, "{alerts:?}");
    for alert in &alerts {
        let of_alert = format!("alertname: {alert}\n");
        let tests: Vec<&str> = tests.split(&of_alert).skip(1).collect();
        let quiet = |rest: &&&str| rest.trim_start().starts_with("exp_alerts: []");
        let silent = tests.iter().filter(quiet).count();
        ensure!(silent > 0, "{alert}: no test in which it does not fire");
        ensure!(tests.len() > silent, "{alert}: no test in which it fires");
        let heading = format!("\n## {alert}\n");
        ensure!(pages.contains(&heading), "docs/alerts.md has no {alert}");
        let runbook = format!("runbook: docs/alerts.md#{}\n", alert.to_lowercase());
        ensure!(rules.contains(&runbook), "{alert} names no page");
    }
    for part in ["severity: ", "summary: ", "description: "] {
        assert_eq!(rules.matches(part).count(), alerts.len(), "{part}");
    }
    // An estimate that rests on assumptions wakes nobody.
    let expressions = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let estimated = expressions.filter(|line| line.to_lowercase().contains("mos_"));
    assert_eq!(estimated.count(), 0);
    Ok(())
}

#[test]
fn every_query_of_every_panel_and_rule_returns_data_from_a_real_agent() -> Result<()> {
    let lab = Lab::new()?;
    let _dns = scene::carrier(&lab)?;
    let agent = scene::agent(&lab)?;
    let rules = repository(RULES).canonicalize()?;
    let prometheus = Prometheus::start(&lab.router, scene::TARGET, &rules)?;
    scene::two_set_ups_and_a_call(&lab, &agent)?;

    let mut queries = 0;
    let mut empty = Vec::new();
    for board in dashboards()? {
        for panel in &board.panels {
            for target in &panel.targets {
                let expression = filled_in(&target.expr);
                let series = if target.instant {
                    prometheus.query(&expression)?
                } else {
                    prometheus.query_range(&expression, scene::SECONDS)?
                };
                queries += 1;
                if !series.iter().any(|series| series.value.is_finite()) {
                    let at = format!("{}: {} {}", board.title, panel.title, target.id);
                    empty.push(format!("{at}\n  {expression}\n  {series:?}"));
                }
            }
        }
    }
    ensure!(
        empty.is_empty(),
        "no data:\n{}\n{}",
        empty.join("\n"),
        agent.log()
    );

    let (alerts, recorded, selectors) = check_rules(&prometheus)?;
    println!(
        "{queries} queries of panels returned data; {recorded} recorded series; {alerts} alerts, whose {selectors} selectors \
         have data, none of them pending"
    );
    let classic = scene::classic(&lab)?;
    scene::check_by_promtool(&classic)?;
    agent.finish()
}

/// Numbers of alerts, of recording rules with data, and of selectors looked at.
fn check_rules(prometheus: &Prometheus<'_>) -> Result<(usize, usize, usize)> {
    let groups = prometheus.rules()?;
    let groups = groups["groups"].as_array().context("no groups")?;
    let rules: Vec<&Value> = groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut alerts, mut recorded, mut looked_at) = (0, 0, 0);
    for rule in rules {
        let name = rule["name"].as_str().context("a rule without a name")?;
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        if rule["type"] == "recording" {
            let series = prometheus.query(name)?;
            let data = series.iter().any(|series| series.value.is_finite());
            ensure!(data, "{name} records nothing: {series:?}");
            recorded += 1;
            continue;
        }
        // A lab in which all is well: an alert that looks for something that is wrong finds nothing, so that what it
        // looks at is asked for.
        assert_eq!(rule["state"], "inactive", "{name}: {}", rule["alerts"]);
        alerts += 1;
        let expression = rule["query"].as_str().context("an alert without a query")?;
        for selector in selectors(expression) {
            if let Some((known, _)) = NOT_IN_THE_LAB.iter().find(|(m, _)| selector.starts_with(m)) {
                *skipped.entry(known).or_default() += 1;
                continue;
            }
            let series = prometheus.query(&selector)?;
            ensure!(!series.is_empty(), "{name}: nothing has {selector}");
            looked_at += 1;
        }
    }
    for (selector, why) in NOT_IN_THE_LAB {
        ensure!(skipped.contains_key(selector), "{selector} is in no alert");
        println!("without data: {selector}: {why}");
    }
    Ok((alerts, recorded, looked_at))
}

/// The vector selectors of an expression: a name, and its matchers. Of yesterday, the selector without the offset.
fn selectors(expression: &str) -> BTreeSet<String> {
    let expression = expression.replace(OF_YESTERDAY, "");
    let mut found = BTreeSet::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = &*expression;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let ours = ["wificall_", "wificall:", "node_", "process_"];
        if name != "up" && !ours.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let matchers = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((matchers, after)) => {
                rest = after;
                format!("{{{matchers}}}")
            }
            None => String::new(),
        };
        found.insert(format!("{name}{matchers}"));
    }
    found
}

/// An expression as Grafana sends it, with what somebody chose.
fn filled_in(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "5s")
        .replace("$job", "wificall")
        .replace("$instance", scene::TARGET)
        .replace("$operator", "001-01")
}

#[test]
fn selectors_are_found_with_their_matchers() {
    let expression = r#"sum by (job) (rate(wificall_a_total{x=~"a|b"}[5m])) / on (job) wificall:b:ratio > 3 and up == 0"#;
    let expected = ["up", "wificall:b:ratio", r#"wificall_a_total{x=~"a|b"}"#];
    assert!(selectors(expression).iter().eq(expected));
}
