//! `wificall export`

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{Failure, Outcome, print};
use crate::cli::Export;
use crate::config;
use crate::control::offline_endpoints;
use crate::control::socket::{Answer, AskError, Question, ask};
use crate::export::{Set, View, same_but_time};

pub(super) async fn run(arguments: Export) -> Result<Outcome, Failure> {
    let Some(output) = &arguments.output else {
        let view = view(&arguments).await?;
        print(&String::from_utf8_lossy(&text(&arguments, &view)?))?;
        say_if_empty(&view);
        return Ok(Outcome::Done);
    };
    write(&arguments, output).await?;
    if arguments.watch {
        watch(&arguments, output).await?;
    }
    Ok(Outcome::Done)
}

/// Until a signal ends it. What goes wrong on the way leaves the file as it is.
async fn watch(arguments: &Export, output: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut said = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = tokio::time::sleep(arguments.interval) => {}
        }
        // Once for each thing that goes wrong, and not every few seconds.
        let problem = write(arguments, output)
            .await
            .err()
            .map(|failure| failure.to_string());
        if let Some(problem) = &problem
            && said.as_ref() != Some(problem)
        {
            warn!("{}: {problem}", output.display());
        }
        said = problem;
    }
}

/// Replaces the file if it says something else than it should, and runs the command then.
async fn write(arguments: &Export, output: &Path) -> Result<(), Failure> {
    let view = view(arguments).await?;
    let text = text(arguments, &view)?;
    // What a link points to is replaced, and not the link.
    let output = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
    match fs::read(&output) {
        Ok(there) if same_but_time(&there, &text) => return Ok(()),
        _ => replace(&output, &text)?,
    }
    info!("wrote {}", output.display());
    say_if_empty(&view);
    let Some(command) = &arguments.exec else {
        return Ok(());
    };
    let status = Command::new("sh")
        .args(["-c", command])
        .status()
        .await
        .with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        return Err(anyhow!("{command:?} failed: {status}").into());
    }
    Ok(())
}

/// What is to be written.
async fn view(arguments: &Export) -> Result<View, Failure> {
    let set = set(arguments).await?;
    Ok(View::new(&set, &arguments.selection()))
}

fn text(arguments: &Export, view: &View) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let written = arguments.format().write(view, &mut text);
    written.context("write the set")?;
    Ok(text)
}

fn say_if_empty(view: &View) {
    if view.set.entries.is_empty() {
        warn!("no endpoint is known that is {}", view.selected);
    }
}

async fn set(arguments: &Export) -> Result<Set, Failure> {
    let agent = match &arguments.instance {
        Some(agent) => agent.clone(),
        None => {
            let config = config::load(&arguments.config)?.config;
            if arguments.offline {
                return Ok(offline_endpoints(config).await?);
            }
            config.agent
        }
    };
    match ask(&agent.control_socket(), Question::Endpoints).await {
        Ok(Answer::Endpoints(set)) => Ok(*set),
        Ok(answer) => Err(anyhow!("the agent answered something else: {answer:?}").into()),
        Err(error @ AskError::NoAgent(_)) => {
            Err(anyhow!("{error}; or export what it left, with --offline").into())
        }
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// Writes beside the file and renames, so that whoever reads sees all of the old one or all of the new one. It keeps mode
/// and owner of the file that was there.
fn replace(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .with_context(|| format!("{} is no file", path.display()))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let beside = directory.join(beside);
    let written = fill(&beside, path, text).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // It may not even have been made.
        let _ = fs::remove_file(&beside);
        return Err(error).with_context(|| format!("replace {}", path.display()));
    }
    // The rename itself lasts only once the directory is on disk.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync {}", directory.display()))
}

fn fill(beside: &PathBuf, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    let mode = match fs::metadata(path) {
        Ok(old) => {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            old.permissions().mode() & 0o7777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0o644,
        Err(error) => return Err(error),
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text)?;
    file.sync_all()
}
