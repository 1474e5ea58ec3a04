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
        let problem = problem(path, mismatch);
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
        let problem = problem(path, mismatch);
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
            number(&mut problems, self.source);
            problems.into_iter().map(|(_, problem)| problem).collect()
        };
        (in_order(self.errors), in_order(self.warnings))
    }
}

/// A problem whose line and column are not known yet.
fn problem(path: &KeyPath, mismatch: Mismatch) -> Problem {
    Problem {
        file: None,
        line: None,
        column: None,
        key: path.key.clone(),
        name: path.name.clone(),
        found: mismatch.found.unwrap_or_default(),
        expected: mismatch.expected,
        hint: mismatch.hint,
    }
}

/// Gives problems that are in the order of their places the line and column (in characters) of these, from 1. A file may
/// have as many problems as lines: it is walked once for all of them.
fn number(problems: &mut [(Place, Problem)], source: &str) {
    let mut chars = source.char_indices().peekable();
    let (mut line, mut column) = (1, 1);
    for (place, problem) in problems {
        let Some(place) = *place else { continue };
        while let Some((_, char)) = chars.next_if(|(at, char)| at + char.len_utf8() <= place) {
            #[cfg(test)]
            WALKED.set(WALKED.get() + 1);
            (line, column) = if char == '\n' {
                (line + 1, 1)
            } else {
                (line, column + 1)
            };
        }
        (problem.line, problem.column) = (Some(line), Some(column));
    }
}

#[cfg(test)]
thread_local! {
    /// Characters that [`number`] has looked at.
    static WALKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Some on lines of their own, the others all on one.
    #[test]
    fn a_file_of_problems_is_walked_twice_at_most() {
        const PROBLEMS: usize = 2_000;
        for between in ["\n", " "] {
            let source = format!("ä = 1{between}").repeat(PROBLEMS);
            WALKED.set(0);
            let report = Report::new(&source);
            // In no order, as checks of a whole file come after those of its keys.
            for index in (0..PROBLEMS).rev() {
                let place = Some(index * source.len() / PROBLEMS);
                report.refuse(place, &KeyPath::default(), Mismatch::expected("less"));
                report.warn(place, &KeyPath::default(), Mismatch::expected("less"));
            }
            let (errors, warnings) = report.finish();
            let walked = WALKED.get();
            // Once for errors, once for warnings.
            let most = 2 * source.len();
            assert!(walked > source.len() / 2 && walked <= most, "{walked}");
            for (index, problem) in errors.iter().enumerate() {
                let (line, column) = if between == "\n" {
                    (index + 1, 1)
                } else {
                    (1, 6 * index + 1)
                };
                assert_eq!((problem.line, problem.column), (Some(line), Some(column)));
            }
            assert_eq!(errors, warnings);
        }
    }

    #[test]
    fn a_place_inside_of_a_character_is_that_character() {
        let report = Report::new("a\n bä");
        for place in [0, 2, 4, 5, 6, 9] {
            report.warn(Some(place), &KeyPath::default(), Mismatch::expected(""));
        }
        let (_, warnings) = report.finish();
        let places: Vec<_> = warnings.iter().map(|it| (it.line, it.column)).collect();
        let expected = [(1, 1), (2, 1), (2, 3), (2, 3), (2, 4), (2, 4)];
        assert_eq!(
            places,
            expected.map(|(line, column)| (Some(line), Some(column)))
        );
    }
}
