//! Writes the table: rows of numbers in Rust, and the text that they point into.

use std::{collections::HashMap, fmt::Write as _};

use anyhow::{Result, ensure};

use super::merge::{Catalogue, Iso};

/// The generated files.
pub struct Table {
    pub rows: String,
    pub text: String,
}

/// Texts, each once, one a line.
#[derive(Default)]
struct Texts {
    text: String,
    known: HashMap<String, u32>,
}

impl Texts {
    /// Where a text is, as `Text` of `wificall-user/src/catalogue/row.rs` has it: offset and length in one number.
    fn add(&mut self, text: &str) -> Result<u32> {
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(known) = self.known.get(text) {
            return Ok(*known);
        }
        ensure!(
            text.len() <= 0xff && self.text.len() <= 0xff_ffff && !text.contains('\n'),
            "{text:?} does not fit the table"
        );
        let packed = (self.text.len() as u32) << 8 | text.len() as u32;
        self.text.push_str(text);
        self.text.push('\n');
        self.known.insert(text.to_owned(), packed);
        Ok(packed)
    }

    /// Several texts as one, with tabs between.
    fn list(&mut self, texts: &[String]) -> Result<u32> {
        self.add(&texts.join("\t"))
    }
}

/// Lists of countries, each once.
#[derive(Default)]
struct Sets {
    members: Vec<Iso>,
    known: HashMap<Vec<Iso>, usize>,
}

impl Sets {
    /// Where a list begins, and its length.
    fn add(&mut self, set: &[Iso]) -> (usize, usize) {
        if set.is_empty() {
            return (0, 0);
        }
        let members = &mut self.members;
        let at = *self.known.entry(set.to_vec()).or_insert_with(|| {
            members.extend_from_slice(set);
            members.len() - set.len()
        });
        (at, set.len())
    }
}

pub fn table(catalogue: &Catalogue) -> Result<Table> {
    let (mut texts, mut sets) = (Texts::default(), Sets::default());
    let mut operators = String::new();
    for (plmn, operator) in &catalogue.operators {
        let (at, len) = sets.add(&operator.countries);
        writeln!(
            operators,
            "    O({},{},{},{},{at},{len},{:#x},{:#x},{:#x}),",
            plmn.mcc(),
            plmn.mnc(),
            plmn.mnc_digits(),
            operator.status | if operator.resolves { 0x80 } else { 0 },
            texts.add(&operator.brand)?,
            texts.add(&operator.company)?,
            texts.list(&operator.aliases)?,
        )?;
    }
    let mut dialled = String::new();
    for (plmn, targets) in &catalogue.dialled {
        for (target, source) in targets {
            let (target, source) = (texts.add(target)?, texts.add(source)?);
            writeln!(
                dialled,
                "    D({},{},{},{target:#x},{source:#x}),",
                plmn.mcc(),
                plmn.mnc(),
                plmn.mnc_digits(),
            )?;
        }
    }
    let mut mccs = String::new();
    for (mcc, countries) in &catalogue.mccs {
        let (at, len) = sets.add(countries);
        writeln!(mccs, "    M({mcc},{at},{len}),")?;
    }
    let mut countries = String::new();
    for (iso, country) in &catalogue.countries {
        writeln!(
            countries,
            "    C(K(*b\"{}\"),{:#x},{:#x},{:#x}),",
            String::from_utf8_lossy(iso),
            texts.add(&country.iso3)?,
            texts.add(&country.name)?,
            texts.list(&country.aliases)?,
        )?;
    }
    let mut members = String::new();
    for iso in &sets.members {
        writeln!(members, "    K(*b\"{}\"),", String::from_utf8_lossy(iso))?;
    }
    let mut rows = "// Made of data/ by `cargo xtask catalogue`. Do not edit.\n".to_owned();
    for (comment, name, kind, content) in [
        (
            "MCC, MNC, its digits, status, countries: first and number; brand, company, aliases",
            "OPERATORS",
            "O",
            &operators,
        ),
        (
            "MCC, MNC, its digits, name or network, source",
            "DIALLED",
            "D",
            &dialled,
        ),
        ("MCC, countries: first and number", "MCCS", "M", &mccs),
        (
            "code, ISO 3166-1 alpha-3, name, aliases",
            "COUNTRIES",
            "C",
            &countries,
        ),
        (
            "members of the lists of countries",
            "MEMBERS",
            "K",
            &members,
        ),
    ] {
        let count = content.lines().count();
        write!(
            rows,
            "\n// {comment}\npub(super) static {name}: [{kind}; {count}] = [\n{content}];\n"
        )?;
    }
    Ok(Table {
        rows,
        text: texts.text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_are_there_once() {
        let mut texts = Texts::default();
        assert_eq!(texts.add("").unwrap(), 0);
        assert_eq!(texts.add("Vodafone").unwrap(), 8);
        assert_eq!(texts.add("ö").unwrap(), 9 << 8 | 2);
        assert_eq!(texts.add("Vodafone").unwrap(), 8);
        assert_eq!(texts.text, "Vodafone\nö\n");
        assert!(texts.add(&"x".repeat(256)).is_err());
        let mut sets = Sets::default();
        assert_eq!(sets.add(&[]), (0, 0));
        assert_eq!(sets.add(&[*b"DE"]), (0, 1));
        assert_eq!(sets.add(&[*b"GG", *b"JE"]), (1, 2));
        assert_eq!(sets.add(&[*b"DE"]), (0, 1));
    }
}
