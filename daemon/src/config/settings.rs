//! The layers in their order: file, environment, flags.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::document::{Place, Tree, Walk, one_line, place, unknown_key};
use super::knob::{Initial, Knob, env_name};
use super::problem::{Problem, ProblemKind, Source};
use super::reader::Reader;
use super::setting::Setting;

/// The largest configuration file that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A value given by a flag.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    flag: String,
    path: String,
    value: Option<String>,
}

impl Override {
    /// A binary's own flag that stands for the knob `path`.
    pub fn new(flag: impl Into<String>, path: impl Into<String>, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), path: path.into(), value: Some(value.into()) }
    }

    /// The argument of `--set`, `section.key=value`.
    pub fn set(assignment: &str) -> Self {
        let (path, value) = match assignment.split_once('=') {
            Some((path, value)) => (path, Some(value.to_owned())),
            None => (assignment, None),
        };
        let path = path.trim().to_owned();
        Self { flag: format!("--set {path}"), path, value }
    }
}

/// Without the value, which may be a secret.
impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Override").field("flag", &self.flag).field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where a binary's configuration comes from.
#[derive(Clone)]
pub struct ConfigSources {
    binary: String,
    file: Option<PathBuf>,
    search: Vec<PathBuf>,
    env: Vec<(OsString, OsString)>,
    overrides: Vec<Override>,
}

/// Without the environment, which may have secrets.
impl fmt::Debug for ConfigSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSources")
            .field("binary", &self.binary)
            .field("file", &self.file)
            .field("search", &self.search)
            .field("overrides", &self.overrides)
            .finish_non_exhaustive()
    }
}

impl ConfigSources {
    /// Only the defaults of `binary`: no file, no environment, no flags.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.to_owned(),
            file: None,
            search: Vec::new(),
            env: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// The sources of a running process: the file that was named, else the first that exists of the usual places, and
    /// the process's environment.
    pub fn of_process(binary: &str, file: Option<PathBuf>) -> Self {
        let env: Vec<_> = std::env::vars_os().collect();
        let search = usual_places(binary, &env);
        Self { file, search, env, ..Self::new(binary) }
    }

    /// Reads this file, which has to exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes this instead of the process's environment.
    #[must_use]
    pub fn env(mut self, env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env = env.into_iter().collect();
        self
    }

    /// Adds an argument of `--set`; of several for one key the last wins.
    #[must_use]
    pub fn set(self, assignment: &str) -> Self {
        self.overriding(Override::set(assignment))
    }

    /// Adds a flag; of several for one key the last wins.
    #[must_use]
    pub fn overriding(mut self, flag: Override) -> Self {
        self.overrides.push(flag);
        self
    }
}

/// Where a configuration file is looked for when none is named.
fn usual_places(binary: &str, env: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let var = |name: &str| {
        env.iter().find(|(key, value)| key == OsStr::new(name) && !value.is_empty()).map(|(_, value)| value)
    };
    let user = var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| var("HOME").map(|home| Path::new(home).join(".config")));
    let file = Path::new("rc-mesh").join(format!("{binary}.toml"));
    [Some(PathBuf::from("/etc")), user].into_iter().flatten().map(|dir| dir.join(&file)).collect()
}

/// The merged values of all layers, with the problems found so far.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) binary: String,
    pub(super) knobs: &'static [Knob],
    pub(super) file: Option<Arc<Path>>,
    pub(super) tree: Tree,
    pub(super) problems: Vec<Problem>,
}

impl Settings {
    /// Reads all layers. It never fails: what is wrong is reported by [`Reader::finish`], with the rest.
    #[expect(clippy::needless_pass_by_value, reason = "the sources are of no use after they were read")]
    pub fn load(sources: ConfigSources, knobs: &'static [Knob]) -> Self {
        let mut settings = Self {
            binary: sources.binary.clone(),
            knobs,
            file: None,
            tree: Tree::default(),
            problems: Vec::new(),
        };
        settings.read_file(&sources);
        settings.read_env(&sources.env);
        for flag in &sources.overrides {
            settings.read_flag(flag);
        }
        settings.require();
        settings
    }

    /// The file that was read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Starts to turn the values into the binary's own configuration.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self)
    }

    fn read_file(&mut self, sources: &ConfigSources) {
        let Some((path, content)) = open_first(sources) else { return };
        let path: Arc<Path> = Arc::from(path);
        self.file = Some(Arc::clone(&path));
        match content {
            Ok(text) => self.read_document(&path, &text),
            Err(reason) => {
                let source = Source::File { path, line: 0 };
                let kind = ProblemKind::Unreadable { reason };
                self.problems.push(Problem { source, key: String::new(), kind });
            }
        }
    }

    fn read_document(&mut self, path: &Arc<Path>, text: &str) {
        let locate = |offset: usize| Source::File { path: Arc::clone(path), line: line_of(text, offset) };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let source = locate(error.span().map_or(0, |span| span.start));
            let kind = ProblemKind::Syntax { message: one_line(error.message()) };
            self.problems.push(Problem { source, key: String::new(), kind });
        }
        let base = path.parent();
        let mut walk = Walk {
            knobs: self.knobs,
            tree: &mut self.tree,
            problems: &mut self.problems,
            base,
            locate: &locate,
        };
        walk.document(document.get_ref());
        // The parser gives the keys by name; a person reads from the top.
        self.problems.sort_by_key(|problem| match problem.source {
            Source::File { line, .. } => line,
            Source::Default | Source::Env(_) | Source::Flag(_) => usize::MAX,
        });
    }

    /// Variables named `RC_…` that have `__` in the name are ours; others only if they name a knob without a section.
    fn read_env(&mut self, env: &[(OsString, OsString)]) {
        let mut ours: Vec<(&str, &OsStr)> = env
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
            .filter(|(name, _)| name.starts_with("RC_"))
            .collect();
        ours.sort_unstable();
        for (name, value) in ours {
            let Some(rest) = name.strip_prefix("RC_") else { continue };
            let path = rest.to_ascii_lowercase().replace("__", ".");
            let known = !matches!(place(self.knobs, &path), Place::Unknown);
            if !known && !rest.contains("__") {
                continue;
            }
            let source = Source::Env(name.to_owned());
            match value.to_str() {
                Some(text) => self.read_value(&source, &path, text),
                None => self.problems.push(Problem { source, key: path, kind: ProblemKind::NotUtf8 }),
            }
        }
    }

    fn read_flag(&mut self, flag: &Override) {
        let source = Source::Flag(flag.flag.clone());
        match &flag.value {
            Some(text) => self.read_value(&source, &flag.path, text),
            None => {
                self.problems.push(Problem {
                    source,
                    key: flag.path.clone(),
                    kind: ProblemKind::NoAssignment,
                });
            }
        }
    }

    /// One value from outside the file: a knob outside table arrays, or a table array as a whole.
    fn read_value(&mut self, source: &Source, path: &str, text: &str) {
        let locate = |_: usize| source.clone();
        let found = place(self.knobs, path);
        let mut walk = Walk {
            knobs: self.knobs,
            tree: &mut self.tree,
            problems: &mut self.problems,
            base: None,
            locate: &locate,
        };
        let kind = match found {
            Place::Knob(knob) if !path.contains("[]") => {
                let read = Setting::from_text(knob.kind, text);
                return walk.store(knob, read, source.clone(), path.to_owned());
            }
            Place::TableArray => match DeValue::parse(text) {
                Ok(value) => return walk.array_at(path, &value),
                Err(error) => ProblemKind::Syntax { message: one_line(error.message()) },
            },
            Place::Section => ProblemKind::NotASection {
                found: "a section".to_owned(),
                expected: format!("a key of it, such as {path}.key"),
            },
            Place::Knob(_) | Place::Unknown => {
                let problem = unknown_key(self.knobs, source.clone(), path.to_owned(), path);
                return self.problems.push(problem);
            }
        };
        self.problems.push(Problem { source: source.clone(), key: path.to_owned(), kind });
    }

    /// Reports the required knobs that nobody set, in each table of their array.
    fn require(&mut self) {
        for knob in self.knobs.iter().filter(|knob| knob.initial == Initial::Required) {
            let Some((array, rest)) = knob.path.split_once("[]") else {
                self.require_at(knob.path.to_owned(), Source::Default, &self.how_to_set(knob));
                continue;
            };
            let entries = self.tree.arrays.get(array).cloned().unwrap_or_default();
            let key = rest.trim_start_matches('.');
            for (index, source) in entries.into_iter().enumerate() {
                let fix = format!("add {key} = …, {}", knob.kind.expected());
                self.require_at(format!("{array}[{index}]{rest}"), source, &fix);
            }
        }
    }

    /// A value whose own problem is already on the list is not missing as well.
    fn require_at(&mut self, path: String, source: Source, fix: &str) {
        let reported = self.problems.iter().any(|problem| problem.key == path);
        if !reported && !self.tree.values.contains_key(&path) {
            self.problems.push(Problem {
                source,
                key: path,
                kind: ProblemKind::Missing { fix: fix.to_owned() },
            });
        }
    }

    fn how_to_set(&self, knob: &Knob) -> String {
        let file = match &self.file {
            Some(path) => path.display().to_string(),
            None => format!("{}.toml", self.binary),
        };
        format!(
            "set {} in {file}, {} in the environment, or --set {}=…, to {}",
            knob.path,
            env_name(knob.path),
            knob.path,
            knob.kind.expected()
        )
    }
}

/// The content of the named file, or of the first usual place that has one.
fn open_first(sources: &ConfigSources) -> Option<(PathBuf, Result<String, String>)> {
    if let Some(named) = &sources.file {
        return Some((named.clone(), read_bounded(named).map_err(|error| error.to_string())));
    }
    sources.search.iter().find_map(|path| match read_bounded(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        content => Some((path.clone(), content.map_err(|error| error.to_string()))),
    })
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let taken = File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(taken).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

/// The line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
