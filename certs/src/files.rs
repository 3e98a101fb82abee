//! Files of the authority: written whole or not at all, private ones never readable by others, not even for a moment.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large to be what it should be, or not text.
    #[error("{}: is no text of at most 4 MiB", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
    },
    /// A private key can be read by others.
    #[error("{}: the private key can be read by others (mode {mode:04o}): chmod 600 it", file.display())]
    Exposed {
        /// The key's file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is there already.
    #[error("{}: exists already: say --force to replace it", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// It cannot be written.
    #[error("{}: cannot be written: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner only (0600).
    Owner,
    /// Everybody (0644).
    Everybody,
}

/// What to do when the file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail.
    Keep,
    /// Replace it.
    Replace,
}

impl Existing {
    /// Replaces when `force` is said.
    pub fn with_force(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

/// Writes `text` to `file` in one step: a reader sees the old file or the whole new one.
pub(crate) fn write(file: &Path, text: &str, readers: Readers, existing: Existing) -> Result<(), FileError> {
    let failed = |source| FileError::Write { file: file.to_owned(), source };
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut builder = Builder::new();
    builder.prefix(".rc-certs-");
    platform::set_mode(&mut builder, readers);
    let mut draft = builder.tempfile_in(dir).map_err(failed)?;
    draft.write_all(text.as_bytes()).map_err(failed)?;
    draft.as_file().sync_all().map_err(failed)?;
    let placed = match existing {
        Existing::Replace => draft.persist(file),
        Existing::Keep => draft.persist_noclobber(file),
    };
    placed.map_err(|error| {
        let exists = error.error.kind() == std::io::ErrorKind::AlreadyExists;
        if exists { FileError::Exists { file: file.to_owned() } } else { failed(error.error) }
    })?;
    platform::sync_dir(dir).map_err(failed)
}

/// Fails when `file` is there and would be kept: asked before a step that several files depend on.
pub(crate) fn require_free(file: &Path, existing: Existing) -> Result<(), FileError> {
    if existing == Existing::Keep && fs::symlink_metadata(file).is_ok() {
        return Err(FileError::Exists { file: file.to_owned() });
    }
    Ok(())
}

/// Reads a text file of bounded size.
pub(crate) fn read(file: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let not_text = || FileError::NotText { file: file.to_owned() };
    if u64::try_from(bytes.len()).map_or(true, |length| length > FILE_BYTES_MAX) {
        return Err(not_text());
    }
    String::from_utf8(bytes).map_err(|_| not_text())
}

/// Reads a private key; one that others can read is refused.
pub(crate) fn read_private(file: &Path) -> Result<zeroize::Zeroizing<String>, FileError> {
    if let Some(mode) = exposed_mode(file) {
        return Err(FileError::Exposed { file: file.to_owned(), mode });
    }
    read(file).map(zeroize::Zeroizing::new)
}

/// The permission bits of a file that others than its owner can reach.
pub(crate) fn exposed_mode(file: &Path) -> Option<u32> {
    platform::mode(file).filter(|mode| mode & 0o077 != 0)
}

/// Makes a directory that only its owner reaches; one that exists is left as it is.
pub(crate) fn make_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    platform::make_private_dir(dir).map_err(|source| FileError::Write { file: dir.to_owned(), source })
}

#[cfg(unix)]
mod platform {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    use std::path::Path;

    use super::Readers;

    pub(super) fn set_mode(builder: &mut tempfile::Builder<'_, '_>, readers: Readers) {
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o644,
        };
        builder.permissions(fs::Permissions::from_mode(mode));
    }

    pub(super) fn mode(file: &Path) -> Option<u32> {
        fs::metadata(file).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
    }

    pub(super) fn make_private_dir(dir: &Path) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    /// The new name itself survives a power cut only when the directory is written.
    pub(super) fn sync_dir(dir: &Path) -> std::io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

/// Windows keeps a file to its owner by the directory's access list.
#[cfg(not(unix))]
mod platform {
    use std::path::Path;

    use super::Readers;

    pub(super) fn set_mode(_: &mut tempfile::Builder<'_, '_>, _: Readers) {}

    pub(super) fn mode(_: &Path) -> Option<u32> {
        None
    }

    pub(super) fn make_private_dir(dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    pub(super) fn sync_dir(_: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_private_file_is_for_its_owner_and_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        write(&file, "one", Readers::Owner, Existing::Keep).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = write(&file, "two", Readers::Owner, Existing::Keep);
        assert!(matches!(again, Err(FileError::Exists { .. })));
        assert_eq!(read(&file).unwrap(), "one");
        write(&file, "two", Readers::Owner, Existing::Replace).unwrap();
        assert_eq!(*read_private(&file).unwrap(), "two");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft stays behind");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        write(&file, "one", Readers::Everybody, Existing::Keep).unwrap();
        let refused = read_private(&file).unwrap_err().to_string();
        assert!(refused.ends_with("can be read by others (mode 0644): chmod 600 it"), "{refused}");
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("big");
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
        for (length, read_whole) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
            fs::write(&file, "a".repeat(length)).unwrap();
            assert_eq!(read(&file).is_ok(), read_whole, "{length}");
        }
    }
}
