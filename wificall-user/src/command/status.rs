//! `wificall status`

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Context as _;

use super::{Failure, Outcome, instance, print, print_json};
use crate::cli::Instance;
use crate::config::{Agent, Config};
use crate::control::socket::{Answer, AskError, Question, ask};
use crate::kernel::{Pins, inspect};
use crate::net;
use crate::observe::{Report, offline, status};

pub(super) async fn run(arguments: &Instance) -> Result<Outcome, Failure> {
    let (agent, config) = instance(arguments)?;
    let report = match ask(&agent.control_socket(), Question::Report).await {
        Ok(Answer::Report(report)) => *report,
        Ok(answer) => {
            return Err(anyhow::anyhow!("the agent answered something else: {answer:?}").into());
        }
        Err(AskError::NoAgent(_)) => offline(&agent, config.as_ref()).await?,
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    show(&report, arguments.json)?;
    Ok(match report.pid {
        Some(_) => Outcome::Done,
        None => Outcome::Failed,
    })
}

/// What is left in the kernel.
async fn offline(agent: &Agent, config: Option<&Config>) -> anyhow::Result<Report> {
    let left = inspect(&Pins::new(agent.pin_dir()))?;
    let links = net::links().await.context("list the interfaces")?;
    let mut clsact = BTreeMap::new();
    for (_, index) in left.iter().flat_map(|left| left.filters.keys()) {
        let state = net::clsact_state(*index).await.context("read qdiscs")?;
        clsact.insert(*index, state);
    }
    Ok(offline::report(
        agent,
        config.map(|config| &config.interfaces),
        left.as_ref(),
        &links,
        &clsact,
        SystemTime::now(),
    ))
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        print_json(report)
    } else {
        print(&status::text(report))
    }
}
