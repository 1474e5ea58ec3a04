//! The country of an endpoint by its address, where its operator has none: for policies, counters and the status.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use wificall_tests::agent::Agent;
use wificall_tests::lab::{LIMIT, Lab, PHONE4};
use wificall_tests::process::wait_for;

/// In GB by `GeoLite2-Country-Test.mmdb`, in AU by `flat-2-AU.mmdb`.
const ADDRESS: &str = "2.125.160.217";
/// In SE by the first, unknown to the second.
const ELSEWHERE: &str = "89.160.20.112";

fn configuration(database: &Path) -> String {
    format!(
        r#"
[interfaces]
access = ["lan"]
[geoip]
database = "{}"
[[prefix]]
prefix = "2.125.160.216/29"
[[prefix]]
prefix = "{ELSEWHERE}/32"
operator = "262-01"
[[policy]]
name = "britain"
countries = ["GB"]
mark = "0x65/0xff"
"#,
        database.display()
    )
}

/// Puts a database in place of the one that is there, as an updater does.
fn replace(database: &Path, content: &[u8]) -> Result<()> {
    let new = database.with_extension("new");
    fs::write(&new, content)?;
    Ok(fs::rename(new, database)?)
}

#[test]
fn an_endpoint_without_a_country_is_where_its_address_is() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let lab = Lab::new()?;
    for address in [ADDRESS, ELSEWHERE] {
        lab.far.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let directory = tempfile::tempdir()?;
    let database = directory.path().join("country.mmdb");
    replace(
        &database,
        &fs::read(data.join("GeoLite2-Country-Test.mmdb"))?,
    )?;
    let agent = Agent::run(&lab.router, &configuration(&database))?;
    let marked = || -> Result<bool> { Ok(lab.probe(PHONE4, ADDRESS)?.marked) };
    ensure!(marked()?, "its policy is that of GB");
    ensure!(
        !lab.probe(PHONE4, ELSEWHERE)?.marked,
        "its operator is of DE"
    );
    let in_gb = [("operator", "none"), ("country", "GB")];
    agent.wait_metrics("counted in GB", |metrics| {
        let packets = metrics.sum("wificall_packets_total", &in_gb);
        ensure!(packets == 1, "{packets}");
        for (name, expected) in [("located", 1), ("contradictions", 1)] {
            let value = metrics.sum(&format!("wificall_geoip_{name}"), &[]);
            ensure!(value == expected, "{name}: {value}");
        }
        Ok(())
    })?;
    let status = agent.status()?;
    let listed = &status["geoip"]["listed"][0];
    assert_eq!(listed["network"], ELSEWHERE);
    assert_eq!(listed["countries"][0], "DE");
    assert_eq!(listed["geoip"], "SE");
    let text = agent.ask(&["status"])?;
    ensure!(
        text.contains(&format!("{ELSEWHERE}  262-01    DE           SE")),
        "{text}"
    );

    // A broken one changes nothing but the list of problems.
    replace(&database, b"torn")?;
    wait_for("a problem", LIMIT, || {
        let problems = agent.status()?["problems"].to_string();
        ensure!(problems.contains("GeoIP database"), "{problems}");
        Ok(())
    })?;
    ensure!(marked()?, "the database before is in use");

    // Another one changes what follows, without a restart.
    replace(&database, &fs::read(data.join("flat-2-AU.mmdb"))?)?;
    wait_for("another country", LIMIT, || {
        ensure!(!marked()?, "still marked");
        Ok(())
    })?;
    lab.probe(PHONE4, ADDRESS)?;
    agent.wait_metrics("counted in AU", |metrics| {
        let in_au = [("operator", "none"), ("country", "AU")];
        let packets = metrics.sum("wificall_packets_total", &in_au);
        ensure!(packets >= 1, "{packets}");
        let contradictions = metrics.sum("wificall_geoip_contradictions", &[]);
        ensure!(contradictions == 0, "{contradictions} contradictions");
        Ok(())
    })?;
    assert_eq!(agent.status()?["problems"], serde_json::json!([]));

    // Without one, nothing is in any country but by operator.
    let without = configuration(&database)
        .replace("[geoip]", "")
        .replace(&format!("database = \"{}\"", database.display()), "");
    agent.configure(&without)?;
    agent.ask(&["reload"])?;
    assert_eq!(
        agent.status()?["geoip"]["database"],
        serde_json::Value::Null
    );
    agent.finish()
}

/// A reload that names another database, without waiting for the next look at the file.
#[test]
fn a_reload_follows_the_database_that_it_names() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let lab = Lab::new()?;
    lab.far.ip(&format!("addr add {ADDRESS}/32 dev lo"))?;
    let flat = data.join("flat-2-AU.mmdb");
    let agent = Agent::run(&lab.router, &configuration(&flat))?;
    ensure!(!lab.probe(PHONE4, ADDRESS)?.marked);
    agent.configure(&configuration(&data.join("GeoLite2-Country-Test.mmdb")))?;
    agent.ask(&["reload"])?;
    ensure!(lab.probe(PHONE4, ADDRESS)?.marked);
    agent.finish()
}
