//! The log: on stderr, as text or JSON lines, safe to show on a terminal.

use std::fmt;
use std::io::{self, Write};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::exit::{ExitStatus, Failure};
use crate::text::{escape_controls, escape_json};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What is logged when the user says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultLevel {
    /// For commands a person waits for: only what needs a look.
    Warn,
    /// For daemons: also every change a user can see.
    Info,
}

/// What to log and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// A filter such as `info,rc_transport=debug`; it replaces level and verbosity.
    pub filter: Option<String>,
    /// How many times `-v` was given; each is one level more.
    pub verbosity: u8,
    /// What the first `-v` adds to.
    pub level: DefaultLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Why the log cannot start.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?} is not valid: {reason} (--log): write a level or target=level pairs separated by commas"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser says.
        reason: String,
    },
    /// This process already has a log.
    #[error("the log was started twice")]
    AlreadyStarted,
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let status = match &error {
            LogError::Filter { .. } => ExitStatus::Usage,
            LogError::AlreadyStarted => ExitStatus::Internal,
        };
        Self::from_error(status, error)
    }
}

/// Starts the log of this process; once per process.
///
/// # Errors
/// The filter is not valid, or there is a log already.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let filter = filter(options)?;
    let started = match options.format {
        LogFormat::Text => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(EscapedLines { open: io::stderr, format: LogFormat::Text })
            .try_init(),
        LogFormat::Json => tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(EscapedLines { open: io::stderr, format: LogFormat::Json })
            .try_init(),
    };
    started.map_err(|_| LogError::AlreadyStarted)
}

fn filter(options: &LogOptions) -> Result<EnvFilter, LogError> {
    let directives = directives(options);
    EnvFilter::builder()
        .parse(&directives)
        .map_err(|error| LogError::Filter { filter: directives, reason: error.to_string() })
}

/// Third-party crates stay one level quieter than ours, so that `-v` shows our own decisions.
fn directives(options: &LogOptions) -> String {
    const LEVELS: [&str; 4] = ["warn", "info", "debug", "trace"];
    if let Some(filter) = &options.filter {
        return filter.clone();
    }
    let start = match options.level {
        DefaultLevel::Warn => 0,
        DefaultLevel::Info => 1,
    };
    let chosen = (start + usize::from(options.verbosity)).min(LEVELS.len() - 1);
    let level = LEVELS.get(chosen).copied().unwrap_or("trace");
    let others = LEVELS.get(chosen.saturating_sub(1)).copied().unwrap_or("warn");
    // A target matches by its beginning: all our crates, and the events.
    format!("{others},rc_={level}")
}

/// Makes writers that escape every control character but the line's own end.
struct EscapedLines<F> {
    open: F,
    format: LogFormat,
}

/// One log line on its way out. The formatter hands over each line with a single write.
struct EscapedLine<W> {
    out: W,
    format: LogFormat,
}

impl<'a, W: Write + 'a, F: Fn() -> W + 'a> MakeWriter<'a> for EscapedLines<F> {
    type Writer = EscapedLine<W>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedLine { out: (self.open)(), format: self.format }
    }
}

impl<W: Write> Write for EscapedLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (content, end) = match text.strip_suffix('\n') {
            Some(content) => (content, "\n"),
            None => (text.as_ref(), ""),
        };
        let escaped = match self.format {
            LogFormat::Text => escape_controls(content),
            LogFormat::Json => escape_json(content),
        };
        self.out.write_all(format!("{escaped}{end}").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn options(level: DefaultLevel, verbosity: u8) -> LogOptions {
        LogOptions { filter: None, verbosity, level, format: LogFormat::Text }
    }

    fn hostile_line(format: LogFormat) -> String {
        let captured = Captured::default();
        let sink = captured.clone();
        let writer = EscapedLines { open: move || sink.clone(), format };
        let warn = || tracing::warn!(name = %"x\u{1b}]0;owned\u{7}\nERROR \u{202e}forged", "refused");
        match format {
            LogFormat::Text => {
                let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
                tracing::subscriber::with_default(subscriber, warn);
            }
            LogFormat::Json => {
                let subscriber =
                    tracing_subscriber::fmt().json().flatten_event(true).with_writer(writer).finish();
                tracing::subscriber::with_default(subscriber, warn);
            }
        }
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_peer_cannot_write_control_characters_or_lines_into_the_log() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = hostile_line(format);
            assert_eq!(text.matches('\n').count(), 1);
            assert!(text.ends_with('\n'));
            assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
            assert!(text.contains("refused") && text.contains("forged"), "{text:?}");
        }
    }

    #[test]
    fn a_json_line_stays_json_whatever_a_peer_sends() {
        let line: serde_json::Value = serde_json::from_str(&hostile_line(LogFormat::Json)).unwrap();
        assert_eq!(line["name"], "x\u{1b}]0;owned\u{7}\nERROR \u{202e}forged");
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"refused".into()));
    }

    #[test]
    fn each_v_is_one_level_and_others_stay_one_quieter() {
        assert_eq!(directives(&options(DefaultLevel::Warn, 0)), "warn,rc_=warn");
        assert_eq!(directives(&options(DefaultLevel::Info, 0)), "warn,rc_=info");
        assert_eq!(directives(&options(DefaultLevel::Warn, 2)), "info,rc_=debug");
        assert_eq!(directives(&options(DefaultLevel::Info, 9)), "debug,rc_=trace");
    }

    #[test]
    fn one_rule_is_for_all_our_crates_and_no_others() {
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(&options(DefaultLevel::Info, 1)).unwrap())
            .with_writer(EscapedLines { open: move || sink.clone(), format: LogFormat::Text })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "rc_broker::core", "ours");
            tracing::debug!(target: "rc_event", "event");
            tracing::info!(target: "quinn", "others");
            tracing::debug!(target: "quinn", "chatter");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ours") && text.contains("event") && text.contains("others"), "{text}");
        assert!(!text.contains("chatter"), "{text}");
    }

    #[test]
    fn a_bad_filter_is_a_usage_error_that_names_it() {
        let bad = LogOptions { filter: Some("rc_broker=loud".to_owned()), ..options(DefaultLevel::Warn, 0) };
        let error = filter(&bad).unwrap_err();
        assert!(error.to_string().contains("rc_broker=loud") && error.to_string().contains("--log"));
        assert_eq!(Failure::from(error).status(), ExitStatus::Usage);
    }
}
