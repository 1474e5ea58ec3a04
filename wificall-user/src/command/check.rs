//! `wificall check`

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::machine::{self, Note};
use super::{Failure, Outcome, print, print_json};
use crate::cli;
use crate::config::{self, Config, Errors, Parsed, Problem};
use crate::discover::targets;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    file: &'a Path,
    /// Whether an agent would take it.
    ok: bool,
    errors: &'a [Problem],
    warnings: &'a [Problem],
    /// What stands in the way on this machine, now; not the file's fault.
    machine: &'a [Note],
}

pub(super) async fn run(arguments: &cli::Check) -> Result<Outcome, Failure> {
    let file = &arguments.config;
    match config::load(file) {
        Ok(parsed) => {
            let notes = machine::notes(&parsed.config).await;
            if arguments.json {
                print_json(&Checked {
                    file,
                    ok: true,
                    errors: &[],
                    warnings: &parsed.warnings.warnings,
                    machine: &notes,
                })?;
            } else {
                print(&text(file, &parsed, &notes))?;
            }
            Ok(Outcome::Done)
        }
        Err(errors) if arguments.json => {
            let Errors { file, errors } = &errors;
            print_json(&Checked {
                file,
                ok: false,
                errors,
                warnings: &[],
                machine: &[],
            })?;
            Ok(Outcome::Usage)
        }
        Err(errors) => Err(errors.into()),
    }
}

fn text(file: &Path, parsed: &Parsed, notes: &[Note]) -> String {
    let mut text = String::new();
    if !parsed.warnings.warnings.is_empty() {
        let _ = writeln!(text, "{}", parsed.warnings);
    }
    for note in notes {
        let _ = writeln!(text, "this machine: {}", note.message);
        if let Some(hint) = &note.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    let _ = writeln!(text, "{}: ok, {}", file.display(), summary(&parsed.config));
    text
}

fn summary(config: &Config) -> String {
    let interfaces = config.interfaces.access.len() + config.interfaces.uplink.len();
    let names = targets(&config.catalogue, &config.discovery.selection())
        .names
        .len();
    format!(
        "instance {}; interface names and globs: {interfaces}, DNS names: {names}, prefixes: {}, policies: {}",
        config.agent.instance,
        config.prefixes.len(),
        config.policies.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "wificall.toml";

    fn parsed(source: &str) -> Parsed {
        config::parse(source, Path::new(FILE)).unwrap()
    }

    #[test]
    fn a_good_file_is_summed_up_after_what_is_odd() {
        let parsed = parsed(
            "[interfaces]\naccess = [\"wlan*\"]\n[discovery]\noperators = [\"262-97\"]\n\
             [[prefix]]\nprefix = \"109.237.187.0/24\"\n",
        );
        assert!(!parsed.warnings.warnings.is_empty());
        let notes = [Note {
            about: "kernel",
            message: "Linux 5.4 is older than 5.10".into(),
            hint: Some("upgrade".into()),
        }];
        assert_eq!(
            text(Path::new(FILE), &parsed, &notes),
            format!(
                "{}\nthis machine: Linux 5.4 is older than 5.10\n  hint: upgrade\n\
                 wificall.toml: ok, instance default; interface names and globs: 1, DNS names: 4, \
                 prefixes: 1, policies: 0\n",
                parsed.warnings
            )
        );
    }

    #[test]
    fn scripts_get_the_same() {
        let errors = config::parse("colour = 1\n", Path::new(FILE)).unwrap_err();
        let checked = Checked {
            file: &errors.file,
            ok: false,
            errors: &errors.errors,
            warnings: &[],
            machine: &[],
        };
        let json = serde_json::to_value(&checked).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["file"], FILE);
        assert_eq!(json["errors"][0]["line"], 1);
        assert_eq!(json["errors"][0]["key"], "colour");
        assert_eq!(json["machine"], serde_json::json!([]));
    }
}
