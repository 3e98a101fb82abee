//! What the demo shows: headings and tables for people, events for programs.

use std::time::Instant;

use rc_daemon::output::{Output, Table};
use serde_json::{Value, json};

/// Where the story is told.
#[derive(Debug, Clone)]
pub(super) struct Show {
    output: Output,
    begin: Instant,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self { output: Output::new(json), begin: Instant::now() }
    }

    /// A step begins.
    pub(super) fn step(&self, title: &str) {
        if !self.output.is_json() {
            let seconds = self.begin.elapsed().as_secs_f64();
            self.print("");
            self.print(&format!("[{seconds:5.1} s] {title}"));
        }
    }

    /// One thing that was found: a line for people, an event for programs.
    pub(super) fn found(&self, event: &str, fields: Value, line: &str) {
        if self.output.is_json() {
            self.event(event, fields);
        } else {
            self.print(&format!("  {line}"));
        }
    }

    /// A table, or the value it was made of.
    pub(super) fn table(&self, event: &str, fields: Value, table: &Table) {
        self.text(event, fields, &table.render());
    }

    /// Text of several lines, or the value behind it.
    pub(super) fn text(&self, event: &str, fields: Value, text: &str) {
        if self.output.is_json() {
            self.event(event, fields);
        } else {
            for line in text.lines() {
                self.print(&format!("  {line}"));
            }
        }
    }

    /// Whether a person watches.
    pub(super) fn for_people(&self) -> bool {
        !self.output.is_json()
    }

    /// The story could not go on.
    pub(super) fn failed(&self, error: &anyhow::Error) {
        if self.output.is_json() {
            self.event("failed", json!({ "reason": format!("{error:#}") }));
        }
        rc_daemon::output::notice(&format!("rc-demo: {error:#}"));
    }

    fn event(&self, event: &str, fields: Value) {
        let mut object = serde_json::Map::new();
        object.insert("event".to_owned(), json!(event));
        object.insert("seconds".to_owned(), json!(self.begin.elapsed().as_secs_f64()));
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        // Whoever closed standard output has seen enough.
        drop(self.output.json(&object));
    }

    fn print(&self, line: &str) {
        drop(self.output.line(line));
    }
}
