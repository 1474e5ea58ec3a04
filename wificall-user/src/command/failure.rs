//! How a failure is told: the operation, the causes, then the hints.

use std::fmt;

use super::Outcome;
use crate::config::Errors;
use crate::control;
use crate::explain::explain;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong.
    Configuration(Errors),
    /// Something else.
    Other(anyhow::Error),
}

impl Failure {
    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Configuration(_) => Outcome::Usage,
            Self::Other(_) => Outcome::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(errors) => errors.fmt(f),
            Self::Other(error) => write!(f, "error: {}", explain(error.as_ref())),
        }
    }
}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Self {
        Self::Configuration(errors)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<control::Failure> for Failure {
    fn from(failure: control::Failure) -> Self {
        match failure {
            control::Failure::Configuration(errors) => Self::Configuration(errors),
            control::Failure::Other(error) => Self::Other(error),
        }
    }
}
