//! The log: on stderr, as text or JSON lines, safe to show on a terminal.

use std::fmt;
use std::io::{self, Write};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::exit::{ExitStatus, Failure};
use crate::text::escape_except;

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
            .with_writer(EscapedLines(io::stderr))
            .try_init(),
        LogFormat::Json => tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(EscapedLines(io::stderr))
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
    const OURS: [&str; 9] = [
        "rc_proto",
        "rc_transport",
        "rc_daemon",
        "rc_client",
        "rc_controller_client",
        "rc_target_client",
        "rc_broker",
        "rc_traffic_manager",
        "rc_event",
    ];
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
    let ours: Vec<String> = OURS.iter().map(|name| format!("{name}={level}")).collect();
    format!("{others},{}", ours.join(","))
}

/// Makes writers that escape every control character but the line's own end.
struct EscapedLines<F>(F);

/// One log line on its way out. The formatter hands over each line with a single write.
struct EscapedLine<W>(W);

impl<'a, W: Write + 'a, F: Fn() -> W + 'a> MakeWriter<'a> for EscapedLines<F> {
    type Writer = EscapedLine<W>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedLine((self.0)())
    }
}

impl<W: Write> Write for EscapedLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (content, end) = match text.strip_suffix('\n') {
            Some(content) => (content, "\n"),
            None => (text.as_ref(), ""),
        };
        let mut escaped = escape_except(content, &[]).into_owned();
        escaped.push_str(end);
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
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

    #[test]
    fn a_peer_cannot_write_control_characters_or_lines_into_the_log() {
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(EscapedLines(move || sink.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = %"x\u{1b}]0;owned\u{7}\nERROR forged", "refused");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.ends_with('\n'));
        assert!(!text.trim_end().contains(|c: char| c.is_control()), "{text:?}");
        assert!(text.contains("refused") && text.contains("forged"), "{text:?}");
    }

    #[test]
    fn each_v_is_one_level_and_others_stay_one_quieter() {
        assert!(directives(&options(DefaultLevel::Warn, 0)).starts_with("warn,rc_proto=warn,"));
        assert!(directives(&options(DefaultLevel::Info, 0)).starts_with("warn,rc_proto=info,"));
        assert!(directives(&options(DefaultLevel::Warn, 2)).starts_with("info,rc_proto=debug,"));
        assert!(directives(&options(DefaultLevel::Info, 9)).starts_with("debug,rc_proto=trace,"));
        assert!(filter(&options(DefaultLevel::Info, 1)).is_ok());
    }

    #[test]
    fn a_bad_filter_is_a_usage_error_that_names_it() {
        let bad = LogOptions { filter: Some("rc_broker=loud".to_owned()), ..options(DefaultLevel::Warn, 0) };
        let error = filter(&bad).unwrap_err();
        assert!(error.to_string().contains("rc_broker=loud") && error.to_string().contains("--log"));
        assert_eq!(Failure::from(error).status(), ExitStatus::Usage);
    }
}
