//! stdout and the last words on stderr: the only code that prints.
//!
//! Answers go to stdout, as lines and tables for people or as JSON lines for programs; failures go to stderr as
//! `<binary>: what (where): what to do`. A reader that closed stdout early (`| head`) ends the command quietly.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;
use thiserror::Error;

use crate::exit::{ExitStatus, Failure};
use crate::text::{escape_controls, escape_except, escape_json};

/// The longest a table cell may be; more is cut with `…`.
const CELL_MAX_CHARS: usize = 64;

/// Why an answer did not reach stdout.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Whoever read stdout went away; the command has nothing left to do.
    #[error("stdout is closed")]
    Closed,
    /// Writing failed.
    #[error("cannot write to stdout: {0}")]
    Write(io::Error),
    /// The answer has no JSON form: a fault of the program.
    #[error("cannot write the answer as JSON: {0}")]
    Json(String),
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Closed => Self::silent(ExitStatus::Ok),
            OutputError::Write(_) | OutputError::Json(_) => Self::from_error(ExitStatus::Internal, error),
        }
    }
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Write(error) }
    }
}

/// Where answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Output for people, or with `json` for programs.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether answers are wanted as JSON.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line; control characters are escaped.
    ///
    /// # Errors
    /// stdout is closed or cannot be written.
    pub fn line(&self, line: impl AsRef<str>) -> Result<(), OutputError> {
        write_out(format!("{}\n", escape_controls(line.as_ref())).as_bytes())
    }

    /// Prints text of several lines; control characters other than line ends and tabs are escaped.
    ///
    /// # Errors
    /// stdout is closed or cannot be written.
    pub fn text(&self, text: &str) -> Result<(), OutputError> {
        write_out(escape_except(text, &['\n', '\t']).as_bytes())
    }

    /// Prints one JSON object on a line.
    ///
    /// # Errors
    /// stdout is closed or cannot be written, or the value has no JSON form.
    pub fn json(&self, value: &impl Serialize) -> Result<(), OutputError> {
        write_out(json_line(value)?.as_bytes())
    }

    /// Prints `value` as JSON when that is wanted, else the table.
    ///
    /// # Errors
    /// As [`json`](Self::json) and [`text`](Self::text).
    pub fn answer(&self, value: &impl Serialize, table: &Table) -> Result<(), OutputError> {
        if self.json { self.json(value) } else { self.text(&table.render()) }
    }

    /// Writes bytes as they are, for pages and scripts that the program itself made.
    ///
    /// # Errors
    /// stdout is closed or cannot be written.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), OutputError> {
        write_out(bytes)
    }
}

/// Ends a binary: prints the failure, if there is one, and gives the exit code.
pub fn finish(binary: &str, outcome: Result<ExitStatus, Failure>) -> ExitCode {
    match outcome {
        Ok(status) => status.into(),
        Err(failure) => {
            complain(binary, &failure);
            failure.status().into()
        }
    }
}

/// Prints a failure on stderr, each line as `<binary>: …`.
pub fn complain(binary: &str, failure: &Failure) {
    let text: String = failure.lines().map(|line| format!("{binary}: {line}\n")).collect();
    // There is no other place left to tell it.
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// Prints a notice for the person in front of the terminal, on stderr so that it never mixes with an answer.
pub fn notice(line: &str) {
    io::stderr().write_all(format!("{}\n", escape_controls(line)).as_bytes()).unwrap_or_default();
}

fn write_out(bytes: &[u8]) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

fn json_line(value: &impl Serialize) -> Result<String, OutputError> {
    let mut line = serde_json::to_string(value).map_err(|error| OutputError::Json(error.to_string()))?;
    line = escape_json(&line).into_owned();
    line.push('\n');
    Ok(line)
}

/// A table for people: columns as wide as their widest cell, control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    numeric: bool,
}

impl Table {
    /// A table with these columns; one whose name starts with `>` is aligned to the right, for numbers.
    pub fn new(columns: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => Column { name: name.to_owned(), numeric: true },
            None => Column { name: (*name).to_owned(), numeric: false },
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells stay empty, cells beyond the columns are left out, long ones are cut to 64
    /// characters.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        let mut row: Vec<String> =
            cells.into_iter().take(self.columns.len()).map(|cell| cell_text(&cell.into())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    /// Whether it has no rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, the header first.
    pub fn render(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                lines().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in lines() {
            let mut shown = String::new();
            for ((cell, column), width) in line.iter().zip(&self.columns).zip(&widths) {
                let width = *width;
                let padded =
                    if column.numeric { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
                shown.push_str(&padded);
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

fn cell_text(cell: &str) -> String {
    let escaped = escape_controls(cell);
    if escaped.chars().count() <= CELL_MAX_CHARS {
        return escaped.into_owned();
    }
    let mut cut: String = escaped.chars().take(CELL_MAX_CHARS - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_are_aligned_to_the_right() {
        let mut table = Table::new(&["BROKER", ">RTT ms", "STATE"]);
        table.row(["in/broker-3", "1.2", "pinned"]).row(["us/b", "221.0", ""]);
        assert_eq!(
            table.render(),
            "BROKER       RTT ms  STATE\nin/broker-3     1.2  pinned\nus/b          221.0\n"
        );
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let mut table = Table::new(&["NAME", "NEXT"]);
        table.row(["a\nb\u{1b}[1m".to_owned(), "é".repeat(100)]);
        let text = table.render();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.chars().filter(|c| *c == 'é').count(), CELL_MAX_CHARS - 1);
        assert!(text.ends_with("…\n"));
    }

    #[test]
    fn rows_always_have_as_many_cells_as_there_are_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["1"]).row(["1", "2", "3"]);
        assert_eq!(table.render(), "A  B\n1\n1  2\n");
    }

    #[test]
    fn a_closed_stdout_ends_quietly_and_a_full_disk_does_not() {
        let closed: OutputError = io::Error::from(ErrorKind::BrokenPipe).into();
        let failure = Failure::from(closed);
        assert_eq!(failure.status(), ExitStatus::Ok);
        assert_eq!(failure.lines().count(), 0);
        let full: OutputError = io::Error::from(ErrorKind::StorageFull).into();
        assert_eq!(Failure::from(full).status(), ExitStatus::Internal);
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let line = json_line(&serde_json::json!({"name": "a\nb", "rtt_ms": 3})).unwrap();
        assert_eq!(line, "{\"name\":\"a\\nb\",\"rtt_ms\":3}\n");
    }
}
