//! One layer's values put into the tree of all values: which key is a knob, a section, a table array, or unknown.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Value};

use super::knob::Knob;
use super::problem::{Problem, ProblemKind, Source};
use super::setting::Setting;
use super::suggest::nearest;

/// The most tables one table array may have; more is a mistake, not a configuration.
const TABLE_ARRAY_MAX: usize = 4096;

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub(super) setting: Setting,
    pub(super) source: Source,
}

/// All values that some layer set, under their concrete paths (`service[0].name`).
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tree {
    pub(super) values: BTreeMap<String, Located>,
    /// For each table array that was set, the place of each of its tables.
    pub(super) arrays: BTreeMap<String, Vec<Source>>,
    /// The place of each array as a whole.
    pub(super) array_sources: BTreeMap<String, Source>,
}

impl Tree {
    /// A later layer replaces a table array as a whole.
    fn replace_array(&mut self, path: &str, source: Source, entries: Vec<Source>) {
        let inside = format!("{path}[");
        self.values.retain(|key, _| !key.starts_with(&inside));
        self.arrays.insert(path.to_owned(), entries);
        self.array_sources.insert(path.to_owned(), source);
    }
}

/// What a path is in the knob table.
pub(super) enum Place<'k> {
    Knob(&'k Knob),
    Section,
    TableArray,
    Unknown,
}

/// Looks up a path whose array levels are written `[]`.
pub(super) fn place<'k>(knobs: &'k [Knob], pattern: &str) -> Place<'k> {
    if let Some(knob) = knobs.iter().find(|knob| knob.path == pattern) {
        return Place::Knob(knob);
    }
    let rests = || knobs.iter().filter_map(|knob| knob.path.strip_prefix(pattern));
    if rests().any(|rest| rest.starts_with("[].")) {
        Place::TableArray
    } else if rests().any(|rest| rest.starts_with('.')) {
        Place::Section
    } else {
        Place::Unknown
    }
}

/// A position in the document: the path as the knob table writes it, and as it is.
#[derive(Clone)]
struct At {
    pattern: String,
    concrete: String,
}

impl At {
    fn child(&self, name: &str) -> Self {
        let join = |base: &str| if base.is_empty() { name.to_owned() } else { format!("{base}.{name}") };
        Self { pattern: join(&self.pattern), concrete: join(&self.concrete) }
    }

    fn entry(&self, index: usize) -> Self {
        Self { pattern: format!("{}[]", self.pattern), concrete: format!("{}[{index}]", self.concrete) }
    }
}

/// Puts one parsed layer into the tree.
pub(super) struct Walk<'a> {
    pub(super) knobs: &'a [Knob],
    pub(super) tree: &'a mut Tree,
    pub(super) problems: &'a mut Vec<Problem>,
    /// Relative paths are relative to this; nothing leaves them alone.
    pub(super) base: Option<&'a Path>,
    /// The place of a byte offset.
    pub(super) locate: &'a dyn Fn(usize) -> Source,
}

impl Walk<'_> {
    /// Takes a whole document.
    pub(super) fn document(&mut self, table: &DeTable<'_>) {
        self.table(table, &At { pattern: String::new(), concrete: String::new() });
    }

    /// Takes the value of a table array that did not come from a document.
    pub(super) fn array_at(&mut self, path: &str, value: &Spanned<DeValue<'_>>) {
        let at = At { pattern: path.to_owned(), concrete: path.to_owned() };
        self.table_array(value, &at);
    }

    fn table(&mut self, table: &DeTable<'_>, at: &At) {
        for (key, value) in table {
            let child = at.child(key.get_ref());
            match place(self.knobs, &child.pattern) {
                Place::Knob(knob) => self.leaf(knob, value, &child),
                Place::Section => self.section(value, &child),
                Place::TableArray => self.table_array(value, &child),
                Place::Unknown => {
                    let source = (self.locate)(key.span().start);
                    self.problems.push(unknown_key(self.knobs, source, child.concrete, &child.pattern));
                }
            }
        }
    }

    fn leaf(&mut self, knob: &Knob, value: &Spanned<DeValue<'_>>, at: &At) {
        let source = (self.locate)(value.span().start);
        let read = Value::deserialize(ValueDeserializer::from(value.clone()))
            .map_err(|error| ProblemKind::Syntax { message: one_line(error.message()) })
            .and_then(|value| Setting::from_toml(knob.kind, &value));
        self.store(knob, read, source, at.concrete.clone());
    }

    /// Puts a value in, or its problem on the list.
    pub(super) fn store(
        &mut self,
        knob: &Knob,
        read: Result<Setting, ProblemKind>,
        source: Source,
        key: String,
    ) {
        let checked = read.and_then(|setting| knob.check_range(&setting).map(|()| setting));
        match checked {
            Ok(setting) => {
                let setting = match self.base {
                    Some(base) => setting.resolved(base),
                    None => setting,
                };
                self.tree.values.insert(key, Located { setting, source });
            }
            Err(kind) => self.problems.push(Problem { source, key, kind }),
        }
    }

    fn section(&mut self, value: &Spanned<DeValue<'_>>, at: &At) {
        if let Some(table) = value.get_ref().as_table() {
            self.table(table, at);
        } else {
            self.not_a_section(value, at, format!("[{}] with keys below it", at.concrete));
        }
    }

    fn table_array(&mut self, value: &Spanned<DeValue<'_>>, at: &At) {
        let expected = || format!("[[{}]] with keys below it", at.concrete);
        let Some(items) = value.get_ref().as_array() else {
            return self.not_a_section(value, at, expected());
        };
        if items.len() > TABLE_ARRAY_MAX {
            return self.not_a_section(
                value,
                at,
                format!("at most {TABLE_ARRAY_MAX} [[{}]] tables", at.concrete),
            );
        }
        let places = items.iter().map(|item| (self.locate)(item.span().start)).collect();
        self.tree.replace_array(&at.concrete, (self.locate)(value.span().start), places);
        for (index, item) in items.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => self.table(table, &at.entry(index)),
                None => self.not_a_section(item, &at.entry(index), expected()),
            }
        }
    }

    fn not_a_section(&mut self, value: &Spanned<DeValue<'_>>, at: &At, expected: String) {
        let source = (self.locate)(value.span().start);
        let kind = ProblemKind::NotASection { found: value.get_ref().type_str().to_owned(), expected };
        self.problems.push(Problem { source, key: at.concrete.clone(), kind });
    }
}

/// The problem for a key that no knob has, with the suggestion in the form of its source.
pub(super) fn unknown_key(knobs: &[Knob], source: Source, key: String, pattern: &str) -> Problem {
    let near = nearest(knobs, pattern);
    // Outside the file a table array is set as a whole.
    let settable = |path: &'static str| path.split("[]").next().unwrap_or(path);
    let suggestion = near.map(|path| match &source {
        Source::Env(_) => super::knob::env_name(settable(path)),
        Source::Flag(_) => settable(path).to_owned(),
        Source::Default | Source::File { .. } => path.to_owned(),
    });
    let shown = if let Source::Env(name) = &source { name.clone() } else { key.clone() };
    Problem { source, key, kind: ProblemKind::UnknownKey { key: shown, suggestion } }
}

/// A parser's message without its line breaks.
pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
