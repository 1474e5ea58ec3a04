//! Collects what is wrong with a document, each with its place.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use super::problem::Problem;
use crate::catalogue::RowError;

/// Byte offset into the document; none for what concerns the file as a whole.
pub(super) type Place = Option<usize>;

/// Why a value is not what it should be.
#[derive(Debug, PartialEq)]
pub(super) struct Mismatch {
    /// What is there; if `None`, whoever reports it fills in how it is written.
    pub found: Option<String>,
    pub expected: String,
    pub hint: Option<String>,
}

impl Mismatch {
    pub fn expected(expected: impl Into<String>) -> Self {
        Self {
            found: None,
            expected: expected.into(),
            hint: None,
        }
    }

    pub fn found(self, found: impl Into<String>) -> Self {
        Self {
            found: Some(found.into()),
            ..self
        }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Collects the problems of one document.
pub(super) struct Report<'a> {
    source: &'a str,
    /// The place (byte offset) of each problem beside it.
    errors: RefCell<Vec<(Place, Problem)>>,
    warnings: RefCell<Vec<(Place, Problem)>>,
}

impl<'a> Report<'a> {
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Parses the document. Only its syntax errors are reported if it has any: the rest of such a tree is guesswork.
    pub fn parse(&self) -> Option<DeTable<'a>> {
        let (tree, errors) = DeTable::parse_recoverable(self.source);
        if errors.is_empty() {
            return Some(tree.into_inner());
        }
        for error in errors {
            let (found, expected) = error
                .message()
                .split_once(", expected ")
                .unwrap_or((error.message(), "valid TOML"));
            let place = error.span().map(|span| span.start);
            let mismatch = Mismatch::expected(expected).found(found);
            self.refuse(place, &KeyPath::default(), mismatch);
        }
        None
    }

    /// Adds an error.
    pub fn refuse(&self, place: Place, path: &KeyPath, mismatch: Mismatch) {
        let problem = self.problem(place, path, mismatch);
        self.errors.borrow_mut().push((place, problem));
    }

    /// Adds the errors of another file.
    pub fn refuse_rows(&self, file: &Path, rows: Vec<RowError>) {
        let problems = rows.into_iter().map(|row| Problem {
            file: Some(file.to_owned()),
            line: Some(row.line),
            column: Some(row.column),
            key: String::new(),
            name: None,
            found: row.found,
            expected: row.expected,
            hint: row.hint,
        });
        // They come after those of the configuration, in the order of the files.
        self.errors
            .borrow_mut()
            .extend(problems.map(|problem| (None, problem)));
    }

    /// Adds a warning.
    pub fn warn(&self, place: Place, path: &KeyPath, mismatch: Mismatch) {
        let problem = self.problem(place, path, mismatch);
        self.warnings.borrow_mut().push((place, problem));
    }

    /// What is written between two places.
    pub fn written(&self, span: Range<usize>) -> &'a str {
        self.source.get(span).unwrap_or_default()
    }

    /// Errors and warnings, each in the order of the file; what concerns the whole file comes last.
    pub fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let in_order = |problems: RefCell<Vec<(Place, Problem)>>| {
            let mut problems = problems.into_inner();
            problems.sort_by_key(|(offset, _)| offset.unwrap_or(usize::MAX));
            problems.into_iter().map(|(_, problem)| problem).collect()
        };
        (in_order(self.errors), in_order(self.warnings))
    }

    fn problem(&self, place: Place, path: &KeyPath, mismatch: Mismatch) -> Problem {
        let (line, column) = place.map(|offset| self.position(offset)).unzip();
        Problem {
            file: None,
            line,
            column,
            key: path.key.clone(),
            name: path.name.clone(),
            found: mismatch.found.unwrap_or_default(),
            expected: mismatch.expected,
            hint: mismatch.hint,
        }
    }

    /// Line and column (in characters) of a byte offset, from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.source[..self.source.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

/// The path of a key, and the name of the policy that it belongs to.
#[derive(Clone, Default)]
pub(super) struct KeyPath {
    key: String,
    /// The name of the policy that the key belongs to.
    pub name: Option<String>,
}

impl KeyPath {
    pub fn child(&self, key: &str) -> Self {
        let key = if self.key.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.key)
        };
        Self {
            key,
            name: self.name.clone(),
        }
    }

    pub fn element(&self, index: usize) -> Self {
        Self {
            key: format!("{}[{index}]", self.key),
            name: self.name.clone(),
        }
    }
}
