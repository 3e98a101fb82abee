//! Used tickets on disk: a line is there, synced, before the Controller is answered, so that a restart forgets none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rc_proto::identity::ticket::{USED_TICKETS_MAX, UsedTicket, UsedTickets};
use rc_proto::wire::{Jti, SessionId};

/// Name of the file in the state directory.
const FILE_NAME: &str = "used-tickets";
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
}

impl UsedStore {
    /// Opens the file of a state directory, and restores what it holds.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub(crate) fn open(directory: &Path, now_unix_s: u64) -> io::Result<(Self, UsedTickets)> {
        let path = directory.join(FILE_NAME);
        let mut used = UsedTickets::restored(read_lines(&path)?);
        used.forget(now_unix_s);
        let file = rewrite(&path, &used)?;
        Ok((Self { path, file, lines: used.len() }, used))
    }

    /// Keeps one more; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written: then the ticket must not be taken.
    pub(crate) fn keep(&mut self, used: &UsedTicket, all: &UsedTickets) -> io::Result<()> {
        if self.lines >= LINES_MAX {
            // `all` holds the new one already.
            self.file = rewrite(&self.path, all)?;
            self.lines = all.len();
            return Ok(());
        }
        self.file.write_all(line(used).as_bytes())?;
        self.file.sync_data()?;
        self.lines += 1;
        Ok(())
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
    OpenOptions::new().append(true).open(path)
}

fn read_lines(path: &Path) -> io::Result<Vec<UsedTicket>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let limit = u64::try_from((LINES_MAX + 1) * LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text)?;
    // A crash in the middle of a write leaves a last line without its end; its Controller was never answered.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole.lines().map(parse_line).collect()
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
    fn a_line_cut_by_a_crash_is_ignored_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, format!("{}{}", line(&used(1, 1500)), "0a0a")).unwrap();
        assert_eq!(restored(dir.path()), [used(1, 1500)]);
        std::fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(UsedStore::open(dir.path(), 1000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
