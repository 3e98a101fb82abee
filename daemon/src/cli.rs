//! The flags and subcommands that every binary has.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, Parser};
use clap_complete::Shell;
use serde::Serialize;

use crate::config::ConfigSources;
use crate::exit::{ExitStatus, Failure};
use crate::log::{DefaultLevel, LogFormat, LogOptions};
use crate::output::{Output, OutputError};

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, in twelve digits; `unknown` when it was built from a source archive.
pub const COMMIT: &str = env!("RC_GIT_COMMIT");

/// Release and commit in one, for clap's `version`.
pub const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("RC_GIT_COMMIT"), ")");

/// The flags of every binary; flatten it into the top-level parser. They may stand before or after a subcommand.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Print answers as JSON lines
    #[arg(long, global = true)]
    pub json: bool,
    /// Log filter: a level, or target=level pairs separated by commas
    #[arg(long, global = true, value_name = "FILTER", env = "RC_LOG")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t, env = "RC_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Log more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one configuration value; wins over file and environment
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl CommonArgs {
    /// Where answers go.
    pub const fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// What to log.
    pub fn log_options(&self, level: DefaultLevel) -> LogOptions {
        LogOptions { filter: self.log.clone(), verbosity: self.verbose, level, format: self.log_format }
    }

    /// Where the configuration comes from; add the binary's own flags with
    /// [`overriding`](ConfigSources::overriding).
    pub fn config_sources(&self, binary: &str) -> ConfigSources {
        self.set
            .iter()
            .fold(ConfigSources::of_process(binary, self.config.clone()), |sources, set| sources.set(set))
    }
}

/// Reads a command line; `arguments` include the program's name. What is wrong with it, or what `--help` asks for, is
/// printed.
///
/// # Errors
/// The exit code to end with: 2 for a wrong command line, 0 for help and version.
pub fn parse<A: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<A, ExitCode> {
    A::try_parse_from(arguments).map_err(|error| {
        // What clap prints is its own; a closed stream leaves nobody to tell.
        drop(error.print());
        if error.use_stderr() { ExitStatus::Usage.into() } else { ExitStatus::Ok.into() }
    })
}

/// What `version --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version<'a> {
    /// The program.
    pub binary: &'a str,
    /// The release.
    pub version: &'static str,
    /// The commit that was built.
    pub commit: &'static str,
}

/// The line that `version` prints.
pub fn version_text(binary: &str) -> String {
    format!("{binary} {LONG_VERSION}")
}

/// The subcommand `version`.
///
/// # Errors
/// stdout cannot be written.
pub fn version(binary: &str, output: Output) -> Result<ExitStatus, Failure> {
    if output.is_json() {
        output.json(&Version { binary, version: VERSION, commit: COMMIT })?;
    } else {
        output.line(version_text(binary))?;
    }
    Ok(ExitStatus::Ok)
}

/// The arguments of the subcommand `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell to print completions for
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the completion script for `command`.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn run(&self, mut command: Command, output: Output) -> Result<ExitStatus, Failure> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        output.raw(&script)?;
        Ok(ExitStatus::Ok)
    }
}

/// The arguments of the subcommand `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write a page for the program and one for each subcommand into this directory; without it, print the program's
    dir: Option<PathBuf>,
}

impl ManArgs {
    /// Prints the manual page of `command`, or writes all pages into the directory.
    ///
    /// # Errors
    /// stdout or the directory cannot be written.
    pub fn run(&self, command: Command, output: Output) -> Result<ExitStatus, Failure> {
        match &self.dir {
            None => output.raw(&page(command).map_err(OutputError::from)?)?,
            Some(dir) => write_pages(dir, command).map_err(|error| {
                Failure::new(
                    ExitStatus::Internal,
                    error,
                    dir.display(),
                    "name a directory that can be written",
                )
            })?,
        }
        Ok(ExitStatus::Ok)
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(text)
}

fn write_pages(dir: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "rc-example", version = LONG_VERSION)]
    struct Example {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: Verb,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Verb {
        /// Runs it
        Run,
        /// Prints completions
        Completions(CompletionsArgs),
        /// Prints the manual
        Man(ManArgs),
    }

    #[test]
    fn common_flags_stand_before_or_after_the_subcommand() {
        let args =
            Example::parse_from(["rc-example", "-vv", "run", "--json", "--set", "a.b=1", "--set", "c.d=2"]);
        assert!(args.common.json);
        assert_eq!(args.common.verbose, 2);
        assert_eq!(args.common.set, ["a.b=1", "c.d=2"]);
        assert!(args.common.output().is_json());
        assert!(matches!(args.command, Verb::Run));
        Example::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_2_and_a_question_for_help_is_0() {
        let parse = |words: &[&str]| super::parse::<Example>(words.iter().map(OsString::from));
        assert!(parse(&["rc-example", "run"]).is_ok());
        assert_eq!(parse(&["rc-example", "fly"]).unwrap_err(), ExitCode::from(2));
        assert_eq!(parse(&["rc-example", "--help"]).unwrap_err(), ExitCode::from(0));
    }

    #[test]
    fn the_version_names_release_and_commit() {
        assert_eq!(version_text("rc-example"), format!("rc-example {VERSION} (commit {COMMIT})"));
        assert!(!COMMIT.is_empty());
        let is_commit = COMMIT.len() == 12 && COMMIT.chars().all(|c| c.is_ascii_hexdigit());
        assert!(is_commit || COMMIT == "unknown" || option_env!("RC_GIT_COMMIT").is_some(), "{COMMIT}");
    }

    #[test]
    fn man_writes_a_page_for_the_program_and_for_each_subcommand() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs { dir: Some(dir.path().join("man1")) };
        args.run(Example::command(), Output::new(false)).unwrap();
        let mut names: Vec<String> = fs::read_dir(dir.path().join("man1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["rc-example-completions.1", "rc-example-man.1", "rc-example-run.1", "rc-example.1"]
        );
        let text = fs::read_to_string(dir.path().join("man1/rc-example-run.1")).unwrap();
        assert!(text.contains("Runs it") && text.contains(".TH"));
    }

    #[test]
    fn man_into_a_place_that_is_no_directory_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let failure =
            ManArgs { dir: Some(file.clone()) }.run(Example::command(), Output::new(false)).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::Internal);
        assert!(failure.to_string().contains(file.to_str().unwrap()));
    }
}
