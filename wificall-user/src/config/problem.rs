//! What is wrong with a configuration, for people and for scripts.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The catalogue file that it is in, if it is not in the configuration itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line, from 1; none if it concerns the file as a whole.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// Path of the key, such as `policy[1].mark`; empty for the file as a whole.
    pub key: String,
    /// The name of the policy that the key belongs to, if it has one.
    pub name: Option<String>,
    /// What is there.
    pub found: String,
    /// What could be there.
    pub expected: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All that is wrong with a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Never empty.
    pub errors: Vec<Problem>,
}

/// All that is odd about a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warnings {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Often empty.
    pub warnings: Vec<Problem>,
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, &self.file, "", &self.errors)
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, &self.file, "warning: ", &self.warnings)
    }
}

/// Each problem on a line of its own and its hint on the next, without a line break at the end.
fn write_all(
    f: &mut fmt::Formatter<'_>,
    file: &Path,
    prefix: &str,
    problems: &[Problem],
) -> fmt::Result {
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            writeln!(f)?;
        }
        write!(f, "{}:", problem.file.as_deref().unwrap_or(file).display())?;
        if let (Some(line), Some(column)) = (problem.line, problem.column) {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {prefix}")?;
        match (&problem.name, problem.key.split_once('.')) {
            (Some(name), Some((policy, key))) => write!(f, "{policy} \"{name}\": {key}: ")?,
            (Some(name), None) => write!(f, "{} \"{name}\": ", problem.key)?,
            (None, _) if problem.key.is_empty() => {}
            (None, _) => write!(f, "{}: ", problem.key)?,
        }
        write!(f, "found {}, expected {}", problem.found, problem.expected)?;
        if let Some(hint) = &problem.hint {
            write!(f, "\n  hint: {hint}")?;
        }
    }
    Ok(())
}
