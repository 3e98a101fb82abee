//! The ready-file: written when the process serves, with the real addresses of ports that were 0; gone when it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cli::{COMMIT, VERSION};
use crate::exit::{ExitStatus, Failure};

/// What a ready-file says, as one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The program.
    pub binary: String,
    /// Its release.
    pub version: String,
    /// The commit that was built.
    pub commit: String,
    /// Its process id.
    pub pid: u32,
    /// The addresses it really listens on, by the name of the listener (`endpoints`, `mesh`, `dns`).
    pub listen: BTreeMap<String, Vec<SocketAddr>>,
    /// Its admin socket.
    pub admin: Option<PathBuf>,
}

impl Ready {
    /// This process, so far without addresses.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.to_owned(),
            version: VERSION.to_owned(),
            commit: COMMIT.to_owned(),
            pid: std::process::id(),
            listen: BTreeMap::new(),
            admin: None,
        }
    }

    /// Adds a listener.
    #[must_use]
    pub fn listening(mut self, name: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.listen.entry(name.to_owned()).or_default().extend(addresses);
        self
    }

    /// Names the admin socket.
    #[must_use]
    pub fn admin(mut self, path: impl Into<PathBuf>) -> Self {
        self.admin = Some(path.into());
        self
    }

    /// Reads a ready-file.
    ///
    /// # Errors
    /// It is not there (the process is not ready), or it is not a ready-file.
    pub fn read(path: &Path) -> Result<Self, ReadyError> {
        let failed = |source| ReadyError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        serde_json::from_str(&text).map_err(|error| failed(error.into()))
    }
}

/// Why a ready-file cannot be written or read.
#[derive(Debug, Error)]
pub enum ReadyError {
    /// Writing failed.
    #[error("cannot write the ready-file: {source} ({}): name a directory that can be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Reading failed, or the content is not ours.
    #[error("cannot read the ready-file: {source} ({}): wait until the process is ready", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system or the parser says.
        source: io::Error,
    },
}

impl From<ReadyError> for Failure {
    fn from(error: ReadyError) -> Self {
        let status = match error {
            ReadyError::Write { .. } => ExitStatus::Usage,
            ReadyError::Read { .. } => ExitStatus::Unreachable,
        };
        Self::from_error(status, error)
    }
}

/// A ready-file that is there; dropping it removes the file, unless another process has replaced it.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
    pid: u32,
}

impl ReadyFile {
    /// Writes the file in one step: a reader sees all of it or none.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(path: &Path, ready: &Ready) -> Result<Self, ReadyError> {
        write_whole(path, ready).map_err(|source| ReadyError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), pid: ready.pid })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let ours = Ready::read(&self.path).is_ok_and(|ready| ready.pid == self.pid);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the ready-file stays behind");
        }
    }
}

fn write_whole(path: &Path, ready: &Ready) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ready-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.tempfile_in(dir)?;
    serde_json::to_writer(&mut file, ready)?;
    file.write_all(b"\n")?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready::new("rc-example")
            .listening("endpoints", ["127.0.0.1:4433".parse().unwrap()])
            .admin("/run/x.sock")
    }

    #[test]
    fn the_file_tells_the_real_addresses_and_goes_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        let guard = ReadyFile::write(&path, &ready()).unwrap();
        let read = Ready::read(guard.path()).unwrap();
        assert_eq!(read, ready());
        assert_eq!(read.listen["endpoints"], ["127.0.0.1:4433".parse().unwrap()]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        drop(guard);
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn everybody_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let guard = ReadyFile::write(&dir.path().join("r"), &ready()).unwrap();
        let mode = fs::metadata(guard.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o022, 0o644);
    }

    #[test]
    fn a_file_that_another_process_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        let ours = ReadyFile::write(&path, &ready()).unwrap();
        let theirs = Ready { pid: ready().pid + 1, ..ready() };
        let guard = ReadyFile::write(&path, &theirs).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(guard);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/ready.json");
        let error = ReadyFile::write(&path, &ready()).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
