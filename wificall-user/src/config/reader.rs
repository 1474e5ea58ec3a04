//! Walks a TOML document, tells what is wrong at which place, and which keys exist.
//!
//! A key that cannot be read takes its default, so that the rest of the file is still looked at;
//! the configuration that results is thrown away if there was an error.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{KeyPath, Mismatch, Place, Report};

/// A table of the document, or one that is not there and whose keys all take their defaults.
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    table: Option<&'a DeTable<'a>>,
    path: KeyPath,
    place: Place,
    /// The keys that were asked for: the ones that exist.
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub fn root(report: &'a Report<'a>, tree: &'a DeTable<'a>) -> Self {
        Self {
            report,
            table: Some(tree),
            path: KeyPath::default(),
            place: None,
            asked: RefCell::default(),
        }
    }

    /// Whether the document has this table.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Puts the name of a policy or an exit beside the paths of its keys.
    pub fn set_name(&mut self, name: String) {
        self.path.name = Some(name);
    }

    /// The name that was set; empty if none was.
    pub fn name(&self) -> &str {
        self.path.name.as_deref().unwrap_or_default()
    }

    /// The value of a key, if it is there.
    pub fn item(&self, key: &'static str) -> Option<Item<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let value = self.table?.get(key)?;
        Some(Item {
            report: self.report,
            path: self.path.child(key),
            value,
        })
    }

    /// Whether a key is not there, or is an array of nothing.
    pub fn lacks(&self, key: &'static str) -> bool {
        self.item(key)
            .is_none_or(|item| item.get().as_array().is_some_and(|array| array.is_empty()))
    }

    /// Reports that something is not there.
    pub fn require(&self, what: &str, expected: &str) {
        self.refuse(Mismatch::expected(expected).found(format!("no `{what}`")));
    }

    /// The value of a key as `read` understands it, or `default` if it is not there or cannot be read.
    pub fn value<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Item<'a>) -> Result<T, Mismatch>,
    ) -> T {
        self.item(key)
            .and_then(|item| item.read(read))
            .unwrap_or(default)
    }

    /// The elements of an array as `read` understands them. Empty if it is not there; what cannot be read is left out.
    pub fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Item<'a>) -> Result<T, Mismatch>,
    ) -> Vec<(Item<'a>, T)> {
        self.items(key, expected)
            .into_iter()
            .filter_map(|element| element.read(&read).map(|value| (element, value)))
            .collect()
    }

    /// The elements of an array. Empty if it is not there.
    pub fn items(&self, key: &'static str, expected: &str) -> Vec<Item<'a>> {
        self.item(key)
            .map(|item| item.elements(expected))
            .unwrap_or_default()
    }

    /// The table of a key.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        self.item(key)
            .map(|item| item.section(&format!("a table, [{key}]")))
            .unwrap_or_else(|| Section {
                report: self.report,
                table: None,
                path: self.path.child(key),
                place: None,
                asked: RefCell::default(),
            })
    }

    /// The tables of an array of tables.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let expected = format!("an array of tables, each under [[{key}]]");
        self.items(key, &expected)
            .iter()
            .map(|element| element.section(&expected))
            .collect()
    }

    /// Reports an error of the table as a whole, at its header. The mismatch says what was found.
    pub fn refuse(&self, mismatch: Mismatch) {
        // That a value is no table has been reported; nothing more can be said about it.
        let is_no_table = self.table.is_none() && self.place.is_some();
        if !is_no_table {
            self.report.refuse(self.place, &self.path, mismatch);
        }
    }

    /// Reports something odd about the table as a whole, at its header. The mismatch says what was found.
    pub fn warn(&self, mismatch: Mismatch) {
        self.report.warn(self.place, &self.path, mismatch);
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let known = self.asked.into_inner();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let expected = format!("one of the keys {}", known.join(", "));
                let mismatch = Mismatch {
                    hint: nearest(name, &known).map(|near| format!("did you mean `{near}`?")),
                    ..Mismatch::expected(expected).found("an unknown key")
                };
                self.report
                    .refuse(Some(key.span().start), &self.path.child(name), mismatch);
            }
        }
    }
}

/// A value of the document with its place.
pub(super) struct Item<'a> {
    report: &'a Report<'a>,
    path: KeyPath,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    /// Applies `read` and reports what it refuses.
    pub fn read<T>(&self, read: impl FnOnce(&Self) -> Result<T, Mismatch>) -> Option<T> {
        read(self).map_err(|mismatch| self.refuse(mismatch)).ok()
    }

    /// The TOML value.
    pub fn get(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// The value as a string.
    pub fn string(&self, expected: &str) -> Result<&'a str, Mismatch> {
        self.get()
            .as_str()
            .ok_or_else(|| Mismatch::expected(expected))
    }

    /// The value as `true` or `false`.
    pub fn flag(&self) -> Result<bool, Mismatch> {
        self.get()
            .as_bool()
            .ok_or_else(|| Mismatch::expected("true or false, without quotes"))
    }

    /// The value as a whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u32>) -> Result<u32, Mismatch> {
        let refused = || {
            Mismatch::expected(format!(
                "a number from {} to {}",
                range.start(),
                range.end()
            ))
        };
        let number = self.get().as_integer().ok_or_else(refused)?;
        let number = u32::from_str_radix(number.as_str(), number.radix()).map_err(|_| refused())?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(refused())
        }
    }

    /// The value as one of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Mismatch> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let refused = || {
            let (last, others) = words.split_last().expect("a choice has choices");
            let others: Vec<String> = others.iter().map(|word| format!("{word:?}")).collect();
            Mismatch::expected(format!("{} or {last:?}", others.join(", ")))
        };
        let found = self.string("").map_err(|_| refused())?;
        match choices.iter().find(|(word, _)| *word == found) {
            Some((_, value)) => Ok(*value),
            None => {
                let hint = nearest(found, &words).map(|near| format!("did you mean {near:?}?"));
                Err(Mismatch { hint, ..refused() })
            }
        }
    }

    /// The value as a table.
    pub fn section(&self, expected: &str) -> Section<'a> {
        let table = match self.get() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.refuse(Mismatch::expected(expected));
                None
            }
        };
        Section {
            report: self.report,
            table,
            path: self.path.clone(),
            place: self.place(),
            asked: RefCell::default(),
        }
    }

    fn elements(&self, expected: &str) -> Vec<Item<'a>> {
        let DeValue::Array(array) = self.get() else {
            self.refuse(Mismatch::expected(expected));
            return Vec::new();
        };
        let items = array.iter().enumerate();
        items
            .map(|(index, value)| Item {
                report: self.report,
                path: self.path.element(index),
                value,
            })
            .collect()
    }

    /// Reports an error of this value.
    pub fn refuse(&self, mismatch: Mismatch) {
        self.report
            .refuse(self.place(), &self.path, self.with_found(mismatch));
    }

    /// Reports something odd about this value.
    pub fn warn(&self, mismatch: Mismatch) {
        self.report
            .warn(self.place(), &self.path, self.with_found(mismatch));
    }

    fn place(&self) -> Place {
        Some(self.value.span().start)
    }

    fn with_found(&self, mismatch: Mismatch) -> Mismatch {
        let found = mismatch.found.unwrap_or_else(|| self.written());
        Mismatch {
            found: Some(found),
            ..mismatch
        }
    }

    /// The value as it is written, shortened; tables and arrays by their kind.
    fn written(&self) -> String {
        const LONGEST: usize = 60;
        match self.get() {
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            _ => {
                let written = self.report.written(self.value.span());
                let line = written.lines().next().unwrap_or_default();
                let short: String = line.chars().take(LONGEST).collect();
                if short.len() < written.len() {
                    format!("{short}…")
                } else {
                    short
                }
            }
        }
    }
}

/// The one of `known` that `found` is probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |word: &str| strsim::damerau_levenshtein(&found.to_lowercase(), word);
    let best = known.iter().copied().min_by_key(|word| distance(word))?;
    (distance(best) <= best.len().max(3) / 3).then_some(best)
}
