//! Errors as people read them.

use std::error::Error;

/// An error with its causes in one sentence, and the hints of all of them (lines `  hint: …`) after it.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    const HINT: &str = "\n  hint: ";
    let mut sentence = String::new();
    let mut hints = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let mut parts = text.split(HINT);
        let what = parts.next().unwrap_or_default();
        // Some errors repeat their cause.
        if !sentence.ends_with(what) {
            if !sentence.is_empty() {
                sentence += ": ";
            }
            sentence += what;
        }
        for hint in parts {
            if !hints.iter().any(|known| known == hint) {
                hints.push(hint.to_owned());
            }
        }
        next = error.source();
    }
    for hint in hints {
        sentence += HINT;
        sentence += &hint;
    }
    sentence
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn hints_come_last_and_causes_once() {
        let error = anyhow!("EPERM")
            .context("load the programs\n  hint: run as root")
            .context("start: load the programs\n  hint: run as root\n  hint: or do not");
        assert_eq!(
            explain(error.as_ref()),
            "start: load the programs: EPERM\n  hint: run as root\n  hint: or do not"
        );
    }
}
