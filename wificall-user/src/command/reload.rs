//! `wificall reload`

use serde_json::json;

use super::{Failure, Outcome, instance, print, print_json};
use crate::cli::Instance;
use crate::control::socket::{Answer, Question, ask};

pub(super) async fn run(arguments: &Instance) -> Result<Outcome, Failure> {
    let (agent, _) = instance(arguments)?;
    let answer = ask(&agent.control_socket(), Question::Reload)
        .await
        .map_err(anyhow::Error::from)?;
    let (outcome, message) = match answer {
        Answer::Reloaded => (Outcome::Done, None),
        Answer::Refused(refused) => {
            let outcome = if refused.configuration {
                Outcome::Usage
            } else {
                Outcome::Failed
            };
            (outcome, Some(refused.message))
        }
        answer => {
            return Err(anyhow::anyhow!("the agent answered something else: {answer:?}").into());
        }
    };
    if arguments.json {
        print_json(&json!({
            "reloaded": outcome == Outcome::Done,
            "configuration": outcome == Outcome::Usage,
            "message": message,
        }))?;
    } else if let Some(message) = message {
        eprintln!("error: the configuration before stays in force\n{message}");
    } else {
        print(&format!("instance {} has reloaded\n", agent.instance))?;
    }
    Ok(outcome)
}
