//! From merged values to a binary's own configuration, without stopping at the first problem.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use super::knob::Knob;
use super::problem::{ConfigErrors, Problem, ProblemKind, Source};
use super::setting::{FromSetting, Setting};
use super::settings::Settings;

/// Hands out values by path and collects what is wrong with them.
///
/// A value whose problem is on the list is replaced by a stand-in, so that the binary can go on and report the rest;
/// [`finish`](Self::finish) then refuses the whole.
#[derive(Debug)]
pub struct Reader<'s> {
    settings: &'s Settings,
    problems: Vec<Problem>,
    read: RefCell<BTreeSet<&'static str>>,
    /// The table of a table array that is being read: as the knob table writes it, and as it is.
    inside: Option<(String, String)>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(settings: &'s Settings) -> Self {
        Self { settings, problems: settings.problems.clone(), read: RefCell::default(), inside: None }
    }

    /// The value of a knob that has a default or is required.
    pub fn read<T: FromSetting>(&mut self, path: &str) -> T {
        let value = self.optional(path);
        if value.is_none() && !self.has_problem(path) {
            self.undeclared(path);
        }
        value.unwrap_or_else(T::placeholder)
    }

    /// The value of a knob that may be unset.
    pub fn optional<T: FromSetting>(&mut self, path: &str) -> Option<T> {
        let setting = self.setting(path)?;
        let value = T::from_setting(&setting);
        if value.is_none() {
            match setting {
                Setting::Integer(number) | Setting::Size(number) => {
                    self.reject(path, format_args!("{number} is too large"), "use a smaller number");
                }
                Setting::Bool(_)
                | Setting::Number(_)
                | Setting::Text(_)
                | Setting::Duration(_)
                | Setting::SocketAddr(_)
                | Setting::Path(_)
                | Setting::Secret(_)
                | Setting::List(_) => self.undeclared(path),
            }
        }
        value
    }

    /// The value of a text knob as the binary's own type; what its parser says becomes a problem with `fix`.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, path: &str, fix: &str) -> Option<T> {
        let text: String = self.optional(path)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.reject(path, error, fix);
                None
            }
        }
    }

    /// Each entry of a list of texts as the binary's own type; entries that do not parse become problems.
    pub fn parsed_list<T: FromStr<Err: Display>>(&mut self, path: &str, fix: &str) -> Vec<T> {
        let texts: Vec<String> = self.optional(path).unwrap_or_default();
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(error) => self.reject(path, format_args!("{text:?}: {error}"), fix),
            }
        }
        values
    }

    /// Reads each table of the table array `path`; inside `table`, paths are relative to it.
    pub fn each<T>(&mut self, path: &str, mut table: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.settings.tree.arrays.get(path).map_or(0, Vec::len);
        let mut tables = Vec::with_capacity(count);
        for index in 0..count {
            self.inside = Some((format!("{path}[]"), format!("{path}[{index}]")));
            tables.push(table(self));
        }
        self.inside = None;
        // The keys of an array that nobody set have still been asked for.
        let prefix = format!("{path}[].");
        let keys = self
            .settings
            .knobs
            .iter()
            .map(|knob| knob.path)
            .filter(|key| count == 0 && key.starts_with(&prefix));
        self.read.borrow_mut().extend(keys);
        tables
    }

    /// Whether somebody set the knob or table array.
    pub fn is_set(&self, path: &str) -> bool {
        let (_, concrete) = self.at(path);
        self.settings.tree.values.contains_key(&concrete) || self.settings.tree.arrays.contains_key(&concrete)
    }

    /// Adds the binary's own objection to a value: what is wrong with it and what to do.
    pub fn reject(&mut self, path: &str, what: impl Display, fix: impl Display) {
        let (_, key) = self.at(path);
        let kind = ProblemKind::Rejected { what: what.to_string(), fix: fix.to_string() };
        self.problems.push(Problem { source: self.source_of(&key), key, kind });
    }

    /// The knobs that were not read so far. A binary asserts in a test that there are none: a knob that nothing reads
    /// is a promise that nothing keeps.
    pub fn unread(&self) -> Vec<&'static str> {
        let read = self.read.borrow();
        self.settings.knobs.iter().map(|knob| knob.path).filter(|path| !read.contains(path)).collect()
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// Every problem of every layer, in the order of the layers, then the binary's own objections.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigErrors::new(self.problems)) }
    }

    fn at(&self, path: &str) -> (String, String) {
        match &self.inside {
            None => (path.to_owned(), path.to_owned()),
            Some((pattern, concrete)) => (format!("{pattern}.{path}"), format!("{concrete}.{path}")),
        }
    }

    fn knob(&self, pattern: &str) -> Option<&'static Knob> {
        self.settings.knobs.iter().find(|knob| knob.path == pattern)
    }

    fn setting(&mut self, path: &str) -> Option<Setting> {
        let (pattern, concrete) = self.at(path);
        let Some(knob) = self.knob(&pattern) else {
            self.undeclared(path);
            return None;
        };
        self.read.borrow_mut().insert(knob.path);
        let set = self.settings.tree.values.get(&concrete).map(|located| located.setting.clone());
        set.or_else(|| knob.default_value())
    }

    fn has_problem(&self, path: &str) -> bool {
        let (_, concrete) = self.at(path);
        self.problems.iter().any(|problem| problem.key == concrete)
    }

    fn source_of(&self, concrete: &str) -> Source {
        let tree = &self.settings.tree;
        let entry = || {
            let (table, _) = concrete.rsplit_once('.')?;
            let (array, index) = table.strip_suffix(']')?.rsplit_once('[')?;
            tree.arrays.get(array)?.get(index.parse::<usize>().ok()?)
        };
        let value = tree.values.get(concrete).map(|located| &located.source);
        value.or_else(|| tree.array_sources.get(concrete)).or_else(entry).cloned().unwrap_or(Source::Default)
    }

    fn undeclared(&mut self, path: &str) {
        let (_, key) = self.at(path);
        self.problems.push(Problem { source: Source::Default, key, kind: ProblemKind::Undeclared });
    }
}
