//! Used tickets on disk: a line is there, synced, before the Controller is answered, so that a restart forgets none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rc_proto::identity::ticket::{USED_TICKETS_MAX, UsedTicket, UsedTickets};
use rc_proto::wire::{Jti, SessionId};

/// Name of the file in the state directory.
const FILE_NAME: &str = "used-tickets";
/// Extension of the file that a damaged last line is moved to.
const DAMAGED: &str = "damaged";
/// Lines after which the file is written anew: four times what is remembered at most.
const LINES_MAX: usize = 4 * USED_TICKETS_MAX;
/// Bytes of a line: two 16-byte ids in hexadecimal, a time of at most 20 digits, two spaces and the end.
const LINE_BYTES_MAX: usize = 2 * 32 + 20 + 3;

/// The file behind [`UsedTickets`].
#[derive(Debug)]
pub(crate) struct UsedStore {
    path: PathBuf,
    file: File,
    lines: usize,
    /// A write failed and what it left is not known: the file is written anew before anything is added.
    torn: bool,
    #[cfg(test)]
    fail_next: bool,
}

impl UsedStore {
    /// Opens the file of a state directory, and restores what it holds. A damaged last line is moved aside: it was
    /// being written when this process or the machine stopped, and its Controller was never answered.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub(crate) fn open(directory: &Path, now_unix_s: u64) -> io::Result<(Self, UsedTickets)> {
        let path = directory.join(FILE_NAME);
        let mut used = UsedTickets::restored(read_lines(&path)?);
        used.forget(now_unix_s);
        let file = rewrite(&path, &used)?;
        let lines = used.len();
        let store = Self {
            path,
            file,
            lines,
            torn: false,
            #[cfg(test)]
            fail_next: false,
        };
        Ok((store, used))
    }

    /// Keeps one more; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written: then the ticket must not be taken, and nothing of it is left in the file.
    pub(crate) fn keep(&mut self, used: &UsedTicket, all: &UsedTickets) -> io::Result<()> {
        if self.torn || self.lines >= LINES_MAX {
            // `all` holds the new one already.
            self.torn = true;
            self.file = rewrite(&self.path, all)?;
            self.lines = all.len();
            self.torn = false;
            return Ok(());
        }
        let good = self.file.metadata()?.len();
        let written = self.append(line(used).as_bytes());
        match written {
            Ok(()) => self.lines += 1,
            Err(_) => {
                let cut = self.file.set_len(good).and_then(|()| self.file.sync_data());
                self.torn = cut.is_err();
            }
        }
        written
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if std::mem::take(&mut self.fail_next) {
            // A full disk takes a part.
            self.file.write_all(line.get(..line.len() / 2).unwrap_or_default())?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    /// The next write takes half of its bytes and fails.
    #[cfg(test)]
    pub(crate) fn fail_next_write(&mut self) {
        self.fail_next = true;
    }
}

fn line(used: &UsedTicket) -> String {
    format!("{} {} {}\n", used.jti, used.session, used.until_unix_s)
}

/// Writes the file anew in one step, and leaves it open for appending.
fn rewrite(path: &Path, used: &UsedTickets) -> io::Result<File> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&fresh)?;
    let text: String = used.iter().map(|used| line(&used)).collect();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    sync_directory(path)?;
    OpenOptions::new().append(true).open(path)
}

/// Makes a rename last; where a directory cannot be opened as a file, the file system sees to that by itself.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent().map(File::open) {
        Some(Ok(directory)) => directory.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}

fn read_lines(path: &Path) -> io::Result<Vec<UsedTicket>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let limit = u64::try_from((LINES_MAX + 1) * LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // A line without its end was cut by a crash, even when what is there can be read.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let cut = text.get(whole.len()..).unwrap_or_default().trim_start_matches('\n');
    if !cut.is_empty() {
        move_aside(path, cut)?;
    }
    let mut lines: Vec<&str> = whole.lines().collect();
    if let Some(last) = lines.pop_if(|last| parse_line(last).is_err()) {
        move_aside(path, last)?;
    }
    lines.into_iter().map(parse_line).collect()
}

/// Keeps a damaged line for whoever wants to know, next to the file.
fn move_aside(path: &Path, line: &str) -> io::Result<()> {
    let aside = path.with_extension(DAMAGED);
    tracing::warn!(
        file = %path.display(),
        moved_to = %aside.display(),
        "the last line of the used tickets is damaged, as a crash leaves it; it is moved aside"
    );
    std::fs::write(aside, format!("{line}\n"))
}

fn parse_line(line: &str) -> io::Result<UsedTicket> {
    let damaged = || {
        let words = "a line is not `<ticket> <session> <unix time>`: restore the file, or remove it and restart with \
                     tickets issued from now on";
        io::Error::new(io::ErrorKind::InvalidData, words)
    };
    let mut words = line.split(' ');
    let (Some(jti), Some(session), Some(until), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(damaged());
    };
    Ok(UsedTicket {
        jti: Jti(parse_hex(jti).ok_or_else(damaged)?),
        session: SessionId(parse_hex(session).ok_or_else(damaged)?),
        until_unix_s: until.parse().map_err(|_| damaged())?,
    })
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(number: u8, until_unix_s: u64) -> UsedTicket {
        UsedTicket { jti: Jti([number; 16]), session: SessionId([number + 1; 16]), until_unix_s }
    }

    fn restored(store: &Path) -> Vec<UsedTicket> {
        UsedStore::open(store, 1000).unwrap().1.iter().collect()
    }

    #[test]
    fn what_is_kept_survives_and_what_ended_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, all) = UsedStore::open(dir.path(), 1000).unwrap();
        store.keep(&used(1, 1500), &all).unwrap();
        store.keep(&used(2, 999), &all).unwrap();
        drop(store);
        assert_eq!(restored(dir.path()), [used(1, 1500)]);
    }

    #[test]
    fn a_damaged_last_line_is_moved_aside_and_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let aside = path.with_extension(DAMAGED);
        let good = line(&used(1, 1500));
        for (last, kept) in [("0a0a", "0a0a\n"), ("nonsense\n", "nonsense\n"), ("\u{fffd}\n", "\u{fffd}\n")] {
            std::fs::write(&path, format!("{good}{last}")).unwrap();
            assert_eq!(restored(dir.path()), [used(1, 1500)]);
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), kept);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), good);
        }
        std::fs::write(&path, format!("nonsense\n{good}")).unwrap();
        assert_eq!(UsedStore::open(dir.path(), 1000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_failed_write_leaves_no_half_line_and_the_next_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, all) = UsedStore::open(dir.path(), 1000).unwrap();
        store.keep(&used(1, 1500), &all).unwrap();
        store.fail_next_write();
        assert!(store.keep(&used(2, 1500), &all).is_err());
        let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(text, line(&used(1, 1500)));
        store.keep(&used(3, 1500), &all).unwrap();
        assert_eq!(restored(dir.path()), [used(1, 1500), used(3, 1500)]);
    }
}
