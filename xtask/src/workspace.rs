//! Where things are, and commands that say which of them failed.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// The directory of everything that is built or downloaded.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs this task, in the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if is_of_this_run(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

/// What cargo set for the run of xtask itself and would mislead another cargo or a build script.
pub fn is_of_this_run(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST")
        || matches!(
            name,
            "CARGO" | "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE"
        )
}

/// Runs to the end; a status other than success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Standard output of a command that must succeed; its standard error is shown if it does not.
pub fn output(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", show(command)))?;
    if !status.success() {
        bail!(
            "{} failed: {status}\n{}",
            show(command),
            String::from_utf8_lossy(&stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a cargo command that builds, and says where the executable of the target `name` is.
pub fn executable(command: &mut Command, name: &str) -> Result<PathBuf> {
    let built = messages(command)?;
    built
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("{} names no executable {name}", show(command)))
}

/// A program of tests that cargo built.
pub struct TestProgram {
    /// The target's name: that of the file or directory under `tests`.
    pub name: String,
    pub path: PathBuf,
}

/// Runs a cargo command that builds, and says which programs of tests it made.
pub fn test_programs(command: &mut Command) -> Result<Vec<TestProgram>> {
    let built = messages(command)?;
    let programs = built
        .iter()
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            Some(TestProgram {
                name: message["target"]["name"].as_str()?.to_owned(),
                path: message["executable"].as_str()?.into(),
            })
        });
    let mut programs: Vec<_> = programs.collect();
    // Cargo names them in the order in which they were built.
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// What a cargo command that builds says of what it built.
fn messages(command: &mut Command) -> Result<Vec<serde_json::Value>> {
    let lines = output(command.args(["--quiet", "--message-format=json-render-diagnostics"]))?;
    let messages = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.collect())
}

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    format!("`{}`", words.join(" "))
}
