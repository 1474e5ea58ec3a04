//! `wificall status`

use std::time::SystemTime;

use anyhow::Context as _;

use super::{Failure, Outcome, instance, print, print_json};
use crate::cli::Instance;
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
        Err(AskError::NoAgent(_)) => {
            let left = inspect(&Pins::new(agent.pin_dir())).map_err(anyhow::Error::from)?;
            let links = net::links().await.context("list the interfaces")?;
            offline::report(
                &agent,
                config.as_ref().map(|config| &config.interfaces),
                left.as_ref(),
                &links,
                SystemTime::now(),
            )
        }
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    show(&report, arguments.json)?;
    Ok(match report.pid {
        Some(_) => Outcome::Done,
        None => Outcome::Failed,
    })
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        print_json(report)
    } else {
        print(&status::text(report))
    }
}
