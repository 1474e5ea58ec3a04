//! `wificall analyze`

use anyhow::{Context as _, anyhow};

use super::{Failure, Outcome, print, print_json};
use crate::analysis::{self, Options};
use crate::cli::Analyze;

pub(super) fn run(arguments: Analyze) -> Result<Outcome, Failure> {
    if arguments.file.as_os_str() == "-" {
        return Err(anyhow!(
            "analyze standard input: endpoints are guessed by reading a capture twice\n  hint: write it to a file first, `tcpdump -w FILE`; \
             or name the endpoints with `--endpoint`, and `/dev/stdin`"
        )
        .into());
    }
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
