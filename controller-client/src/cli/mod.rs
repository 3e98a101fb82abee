//! The `rc-controller` command line.

mod arguments;
mod connect;
mod escape;
mod forward;
mod inspect;
mod pipe;
mod platform;
mod session;
mod settings;
mod shell;
mod shell_command;
mod standard;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use rc_daemon::log::{self, DefaultLevel};
use rc_daemon::output;
use rc_daemon::{ExitStatus, Failure};

use arguments::{Arguments, Verb};
pub use settings::reference;

/// The program's name.
const BINARY: &str = "rc-controller";
/// What every failure of ours becomes when the exit code is the remote command's, as in ssh.
const SHELL_FAILURE: u8 = 255;
/// How long tasks may take to end; a thread that waits for the terminal never does.
const RUNTIME_STOP: Duration = Duration::from_millis(100);

/// Runs the command line; `arguments` include the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match rc_daemon::cli::parse::<Arguments>(arguments) {
        Ok(arguments) => {
            let shell = matches!(arguments.command, Verb::Shell(_));
            let outcome = start(&arguments);
            let code = output::finish(BINARY, outcome.clone());
            match outcome {
                Err(failure) if shell && failure.status() != ExitStatus::Interrupted => {
                    ExitCode::from(SHELL_FAILURE)
                }
                Ok(_) | Err(_) => code,
            }
        }
        Err(code) => code,
    }
}

fn start(arguments: &Arguments) -> Result<ExitStatus, Failure> {
    log::init(&arguments.common.log_options(DefaultLevel::Warn))?;
    let output = arguments.common.output();
    match &arguments.command {
        Verb::Version => rc_daemon::cli::version(BINARY, output),
        Verb::Completions(completions) => completions.run(Arguments::command(), output),
        Verb::Man(man) => man.run(Arguments::command(), output),
        Verb::CheckConfig { print } => inspect::check_config(&arguments.common, *print),
        Verb::Shell(_)
        | Verb::Connect(_)
        | Verb::Forward(_)
        | Verb::Pipe(_)
        | Verb::Ping(_)
        | Verb::Probe { .. }
        | Verb::Status
        | Verb::Events { .. }
        | Verb::Disconnect { .. } => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(ExitStatus::Internal, error, "starting threads", ""))?;
            let outcome = runtime.block_on(dispatch(arguments));
            runtime.shutdown_timeout(RUNTIME_STOP);
            outcome
        }
    }
}

async fn dispatch(arguments: &Arguments) -> Result<ExitStatus, Failure> {
    let common = &arguments.common;
    let output = common.output();
    match &arguments.command {
        Verb::Shell(verb) => shell_command::run(common, verb).await,
        Verb::Connect(verb) => connect::run(common, verb).await,
        Verb::Forward(verb) => forward::run(common, verb).await,
        Verb::Pipe(verb) => pipe::run(common, verb).await,
        Verb::Ping(verb) => inspect::ping(common, verb).await,
        Verb::Probe { name } => interruptible(inspect::probe(common, name.as_deref())).await,
        Verb::Status => inspect::status(output).await,
        Verb::Events { socket } => interruptible(rc_client::cli::admin::print_events(socket, output)).await,
        Verb::Disconnect { session } => inspect::disconnect(session, output).await,
        Verb::CheckConfig { .. } | Verb::Version | Verb::Completions(_) | Verb::Man(_) => Ok(ExitStatus::Ok),
    }
}

/// Ends work that holds no session on Ctrl-C, with its own exit code.
async fn interruptible(
    work: impl Future<Output = Result<ExitStatus, Failure>>,
) -> Result<ExitStatus, Failure> {
    tokio::select! {
        outcome = work => outcome,
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitStatus::Interrupted),
    }
}
