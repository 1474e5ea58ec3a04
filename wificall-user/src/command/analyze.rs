//! `wificall analyze`

use anyhow::Context as _;

use super::{Failure, Outcome, print, print_json};
use crate::analysis::{self, Options};
use crate::cli::Analyze;

pub(super) fn run(arguments: Analyze) -> Result<Outcome, Failure> {
    let options = Options {
        endpoints: arguments.endpoint,
    };
    let analysis = analysis::analyze(&arguments.file, &options)
        .with_context(|| format!("analyze {}", arguments.file.display()))?;
    if arguments.json {
        print_json(&analysis)?;
    } else {
        print(&analysis.text())?;
    }
    // Whoever reads the output only by a program is to hear of it as well.
    if let Some(stopped) = &analysis.stopped {
        eprintln!("warning: analyze {}: {stopped}", arguments.file.display());
    }
    Ok(Outcome::Done)
}
