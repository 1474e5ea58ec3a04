//! The files of `data/`: a comment, a header line, rows of tab-separated fields.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};

/// A file, read.
pub struct File {
    name: &'static str,
    text: String,
}

/// What is wrong with a row.
#[derive(Debug, PartialEq)]
pub struct Problem {
    file: &'static str,
    line: usize,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data/{}:{}: {}", self.file, self.line, self.message)
    }
}

/// A row and its place.
pub struct Row<'a, const N: usize> {
    file: &'static str,
    line: usize,
    pub fields: [&'a str; N],
}

impl<const N: usize> Row<'_, N> {
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            file: self.file,
            line: self.line,
            message: message.into(),
        }
    }
}

impl File {
    pub fn read(directory: &Path, name: &'static str) -> Result<Self> {
        let path = directory.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { name, text })
    }

    #[cfg(test)]
    pub fn of(name: &'static str, text: &str) -> Self {
        Self {
            name,
            text: text.to_owned(),
        }
    }

    /// The rows; those with another number of fields are problems.
    pub fn rows<'a, const N: usize>(&'a self, problems: &mut Vec<Problem>) -> Vec<Row<'a, N>> {
        let mut rows = Vec::new();
        let lines = self.text.lines().zip(1..);
        let lines = lines.filter(|(line, _)| !line.starts_with('#') && !line.is_empty());
        // The first one is the header.
        for (text, line) in lines.skip(1) {
            let fields: Vec<&str> = text.split('\t').collect();
            let row = |fields| Row {
                file: self.name,
                line,
                fields,
            };
            match <[&str; N]>::try_from(fields.as_slice()) {
                Ok(fields) if fields.iter().all(|field| field.trim() == *field) => {
                    rows.push(row(fields));
                }
                Ok(_) => problems.push(row([""; N]).problem("a field with white space around it")),
                Err(_) => problems
                    .push(row([""; N]).problem(format!("{} fields, expected {N}", fields.len()))),
            }
        }
        rows
    }
}
