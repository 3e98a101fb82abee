//! The knob table as text: the effective configuration, and the reference page.

use std::fmt::Write;

use super::knob::{Initial, Kind, Knob, env_name};
use super::problem::Source;
use super::settings::Settings;

/// The section of a path and the key in it; inside a table array the key keeps its lower levels.
fn split(path: &str) -> (&str, &str) {
    match path.split_once("[].") {
        Some((array, key)) => (path.get(..array.len() + 2).unwrap_or(array), key),
        None => path.rsplit_once('.').unwrap_or(("", path)),
    }
}

/// The sections in the order of their first knob; keys without a section first, as TOML needs it.
fn sections(knobs: &[Knob]) -> Vec<&str> {
    let mut found = vec![""];
    for knob in knobs {
        let (section, _) = split(knob.path);
        if !found.contains(&section) {
            found.push(section);
        }
    }
    found
}

fn in_section<'k>(knobs: &'k [Knob], section: &str) -> impl Iterator<Item = (&'k Knob, &'k str)> {
    knobs
        .iter()
        .map(|knob| (knob, split(knob.path)))
        .filter(move |(_, (found, _))| *found == section)
        .map(|(knob, (_, key))| (knob, key))
}

impl Settings {
    /// The effective configuration as TOML, each value with its source; secrets as `***`.
    ///
    /// Values that have a problem show their default. Without secrets the text reads back to the same configuration.
    pub fn print(&self) -> String {
        let mut text = format!("# Effective configuration of {}.\n", self.binary);
        for section in sections(self.knobs) {
            match section.strip_suffix("[]") {
                Some(array) => self.print_array(&mut text, section, array),
                None => self.print_section(&mut text, section),
            }
        }
        text
    }

    fn print_section(&self, text: &mut String, section: &str) {
        let mut knobs = in_section(self.knobs, section).peekable();
        if knobs.peek().is_some() && !section.is_empty() {
            text.push_str(&format!("\n[{section}]\n"));
        }
        for (knob, key) in knobs {
            self.print_value(text, knob, key, knob.path);
        }
    }

    fn print_array(&self, text: &mut String, section: &str, array: &str) {
        let count = self.tree.arrays.get(array).map_or(0, Vec::len);
        for index in 0..count {
            text.push_str(&format!("\n[[{array}]]\n"));
            for (knob, key) in in_section(self.knobs, section) {
                self.print_value(text, knob, key, &format!("{array}[{index}].{key}"));
            }
        }
    }

    fn print_value(&self, text: &mut String, knob: &Knob, key: &str, concrete: &str) {
        let (value, source) = match self.tree.values.get(concrete) {
            Some(located) => (Some(located.setting.to_string()), located.source.clone()),
            None => (knob.default_value().map(|value| value.to_string()), Source::Default),
        };
        match value {
            Some(value) => text
                .push_str(&format!("{key} = {value}  # {}\n", crate::escape_controls(&source.to_string()))),
            None => text.push_str(&format!("# {key} is not set\n")),
        }
    }
}

/// The reference page of a binary's configuration, in Markdown, generated from its knob table.
pub fn reference(binary: &str, knobs: &[Knob]) -> String {
    let mut page = format!(
        "# Configuration of {binary}\n\n\
        Generated from the program's own table; do not edit.\n\n\
        Values come from one TOML file (`--config FILE`, else `/etc/rc-mesh/{binary}.toml`, else\n\
        `$XDG_CONFIG_HOME/rc-mesh/{binary}.toml`), then from the environment, then from flags\n\
        (`--set section.key=value`); the last one wins. An unknown key is an error, and all problems are reported at\n\
        once. Relative paths in the file are relative to the file's directory. `{binary} run --print-config` shows the\n\
        effective values and where each comes from.\n"
    );
    for section in sections(knobs) {
        let mut inside = in_section(knobs, section).peekable();
        if inside.peek().is_none() {
            continue;
        }
        page.push_str(&heading(section));
        for (knob, key) in inside {
            describe(&mut page, knob, key);
        }
    }
    page
}

fn heading(section: &str) -> String {
    match section.strip_suffix("[]") {
        Some(array) => format!(
            "\n## `[[{array}]]`\n\nAny number of these tables. From the environment (`{}`) or `--set {array}=…` the whole list as a TOML \
            array of inline tables.\n",
            env_name(array)
        ),
        None if section.is_empty() => "\n## Top level\n".to_owned(),
        None => format!("\n## `[{section}]`\n"),
    }
}

fn describe(page: &mut String, knob: &Knob, key: &str) {
    let default = match knob.initial {
        Initial::Value(text) => {
            knob.default_value().map_or_else(|| text.to_owned(), |value| format!("`{value}`"))
        }
        Initial::Unset => "not set".to_owned(),
        Initial::Required => "none, must be set".to_owned(),
    };
    page.push_str(&format!("\n### `{key}`\n\n{}\n\n- Default: {default}\n", knob.doc));
    let unit = knob.unit.map_or_else(|| knob.kind.unit(), str::to_owned);
    let mut item = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        writeln!(page, "- {name}: {value}").unwrap_or_default();
    };
    item("Unit", &unit);
    if let Some((min, max)) = knob.range {
        item("Range", &format!("{} to {}", shown(knob.kind, min), shown(knob.kind, max)));
    }
    if let Some(name) = knob.env_name() {
        item("Environment", &format!("`{name}`"));
    }
    if let Some(breaks) = knob.too_small {
        item("Too small", breaks);
    }
    if let Some(breaks) = knob.too_large {
        item("Too large", breaks);
    }
}

fn shown(kind: Kind, bound: &str) -> String {
    let value = super::setting::Setting::from_text(kind.of_each(), bound);
    value.map_or_else(|_| bound.to_owned(), |value| format!("`{value}`"))
}
