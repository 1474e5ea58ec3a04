//! A real Prometheus in a namespace, and what it answers.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::LIMIT;
use crate::netns::Netns;
use crate::process::{Process, wait_for};

/// Each runs in a namespace of its own, so the port can be the same.
const LISTEN: &str = "127.0.0.1:9090";
/// Seconds between scrapes, and between evaluations of rules.
pub const INTERVAL: u32 = 1;

/// A Prometheus that scrapes one target.
pub struct Prometheus<'a> {
    namespace: &'a Netns,
    _process: Process,
    _directory: TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts one in `namespace` that scrapes `target` as job `wificall` each second, with the rules of a file, and waits
    /// for a scrape to succeed.
    ///
    /// # Errors
    ///
    /// With its log, if it does not come up or cannot scrape.
    pub fn start(namespace: &'a Netns, target: &str, rules: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("wificall-prometheus-")?;
        let configuration = directory.path().join("prometheus.yml");
        let rules = rules.display();
        fs::write(
            &configuration,
            format!(
                "global:\n  scrape_interval: {INTERVAL}s\n  evaluation_interval: {INTERVAL}s\n\
                 rule_files: [\"{rules}\"]\n\
                 scrape_configs:\n  - job_name: wificall\n    static_configs:\n      - targets: [\"{target}\"]\n"
            ),
        )?;
        let mut command = namespace.command("prometheus");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={LISTEN}"));
        let process = Process::spawn(command, "prometheus", directory.path())?;
        let prometheus = Self {
            namespace,
            _process: process,
            _directory: directory,
        };
        wait_for("a scrape", LIMIT, || {
            let up = prometheus.query("up{job=\"wificall\"}")?;
            ensure!(up.iter().any(|series| series.value == 1.0), "{up:?}");
            Ok(())
        })
        .with_context(|| prometheus._process.log())?;
        Ok(prometheus)
    }

    /// What an expression is now.
    ///
    /// # Errors
    ///
    /// If Prometheus refuses the expression.
    pub fn query(&self, expression: &str) -> Result<Vec<Series>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let data = self.ask(&path)?;
        if data["resultType"] == "scalar" {
            return Ok(vec![Series {
                labels: Value::Null,
                value: number(&data["result"])?,
            }]);
        }
        each(&data, |series| number(&series["value"]))
    }

    /// What an expression was in the last `seconds`: of each series the last number, if it was one at any time.
    ///
    /// # Errors
    ///
    /// If Prometheus refuses the expression.
    pub fn query_range(&self, expression: &str, seconds: u32) -> Result<Vec<Series>> {
        let now = self.query("time()")?;
        let now = now.first().context("no time")?.value;
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={now}&step=1",
            encoded(expression),
            now - f64::from(seconds)
        );
        let data = self.ask(&path)?;
        each(&data, |series| {
            let points = series["values"].as_array().context("no points")?;
            let numbers: Result<Vec<f64>> = points.iter().map(number).collect();
            let mut finite = numbers?.into_iter().filter(|number| number.is_finite());
            Ok(finite.next_back().unwrap_or(f64::NAN))
        })
    }

    /// `/api/v1/rules`: the groups of rules.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn rules(&self) -> Result<Value> {
        self.ask("/api/v1/rules")
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let body = get(self.namespace, LISTEN, path, "application/json")?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }
}

/// A time series: its labels, and its value.
#[derive(Clone, Debug)]
pub struct Series {
    /// An object of strings.
    pub labels: Value,
    /// The value asked for; not a number where there is none.
    pub value: f64,
}

fn each(data: &Value, value: impl Fn(&Value) -> Result<f64>) -> Result<Vec<Series>> {
    let series = data["result"].as_array().context("no result")?;
    let read = series.iter().map(|series| {
        Ok(Series {
            labels: series["metric"].clone(),
            value: value(series)?,
        })
    });
    read.collect()
}

/// The number of a pair of time and number.
fn number(pair: &Value) -> Result<f64> {
    let text = pair[1].as_str().with_context(|| pair.to_string())?;
    Ok(text.parse()?)
}

fn encoded(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The body of `GET path` from `address` in `namespace`, with this `Accept`.
///
/// # Errors
///
/// If nobody answers, or not with 200: then with what was answered.
pub fn get(namespace: &Netns, address: &str, path: &str, accept: &str) -> Result<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let to: SocketAddr = address.parse()?;
    let mut stream = namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The older version: what is answered is not cut into chunks.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a torn answer")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("GET {path}: {head}\n{body}");
    }
    Ok(body.to_owned())
}
