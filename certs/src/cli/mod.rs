//! The `rc-certs` command line: each subcommand does one thing to the authority and answers with one [`Answer`].

mod arguments;
mod commands;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory as _;
use rc_daemon::log::{self, DefaultLevel, LogError};
use rc_daemon::output::{self, Output};
use rc_daemon::{ExitStatus, Failure};
use serde_json::Value;

use crate::error::CertsError;
use arguments::{Arguments, Verb};

/// The program's name.
const BINARY: &str = "rc-certs";

/// What a subcommand says: to programs, and to people.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    /// One JSON object a line.
    values: Vec<Value>,
    text: String,
}

impl Answer {
    fn new(value: Value, text: String) -> Self {
        Self { values: vec![value], text }
    }
}

/// Runs the command line; `arguments` include the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match rc_daemon::cli::parse::<Arguments>(arguments) {
        Ok(arguments) => output::finish(BINARY, dispatch(&arguments)),
        Err(code) => code,
    }
}

fn dispatch(arguments: &Arguments) -> Result<ExitStatus, Failure> {
    let common = &arguments.common;
    if !common.set.is_empty() {
        return Err(Failure::new(
            ExitStatus::Usage,
            "rc-certs has no configuration",
            "--set",
            "leave it out",
        ));
    }
    match log::init(&common.log_options(DefaultLevel::Warn)) {
        // A process that runs several commands keeps its first log.
        Ok(()) | Err(LogError::AlreadyStarted) => {}
        Err(error @ LogError::Filter { .. }) => return Err(error.into()),
    }
    let output = common.output();
    match &arguments.verb {
        Verb::Version => rc_daemon::cli::version(BINARY, output),
        Verb::Completions(completions) => completions.run(Arguments::command(), output),
        Verb::Man(man) => man.run(Arguments::command(), output),
        Verb::Init(_)
        | Verb::Ca(_)
        | Verb::Issue(_)
        | Verb::Renew(_)
        | Verb::Crl(_)
        | Verb::Revoke(_)
        | Verb::TicketKey(_)
        | Verb::Ticket(_)
        | Verb::Inspect(_) => print(&execute(&arguments.verb).map_err(failure)?, output),
    }
}

/// Does what a subcommand of our own asks; the others print by themselves and answer nothing here.
fn execute(verb: &Verb) -> Result<Answer, CertsError> {
    match verb {
        Verb::Init(args) => commands::init(args),
        Verb::Ca(args) => commands::ca(args),
        Verb::Issue(args) => commands::issue(args),
        Verb::Renew(args) => commands::renew(args),
        Verb::Crl(args) => commands::crl(args),
        Verb::Revoke(args) => commands::revoke(args),
        Verb::TicketKey(args) => commands::ticket_key(args),
        Verb::Ticket(args) => commands::ticket(args),
        Verb::Inspect(args) => commands::inspect(args),
        Verb::Version | Verb::Completions(_) | Verb::Man(_) => {
            Ok(Answer { values: vec![], text: String::new() })
        }
    }
}

fn print(answer: &Answer, output: Output) -> Result<ExitStatus, Failure> {
    if output.is_json() {
        for value in &answer.values {
            output.json(value)?;
        }
    } else {
        output.text(&answer.text)?;
    }
    Ok(ExitStatus::Ok)
}

fn failure(error: CertsError) -> Failure {
    let status = if error.is_usage() { ExitStatus::Usage } else { ExitStatus::Internal };
    Failure::from_error(status, error)
}
