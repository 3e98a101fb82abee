//! The account that a shell runs as.

use std::path::PathBuf;
use std::process::Command;

/// Who an account of this machine is, its home and its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Login name.
    pub(crate) name: String,
    /// User and primary group, as numbers.
    pub(crate) ids: Option<(u32, u32)>,
    /// Home directory.
    pub(crate) home: PathBuf,
    /// Login shell.
    pub(crate) shell: PathBuf,
}

impl Account {
    /// Looks up `name_or_uid` in the system's account database (`getent passwd`, so directory services count too).
    pub(crate) fn lookup(name_or_uid: &str) -> Option<Self> {
        let output = Command::new("getent").args(["passwd", "--", name_or_uid]).output().ok()?;
        Self::from_passwd_line(std::str::from_utf8(&output.stdout).ok()?)
    }

    /// The account of this process; falls back to the environment where there is no database.
    pub(crate) fn own() -> Self {
        #[cfg(unix)]
        if let Some(account) = Self::lookup(&rustix::process::getuid().as_raw().to_string()) {
            return account;
        }
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            ids: None,
            name: variable("USER").or_else(|| variable("USERNAME")).unwrap_or_else(|| "unknown".to_owned()),
            home: variable("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from),
            shell: variable("SHELL").map_or_else(|| PathBuf::from("/bin/sh"), PathBuf::from),
        }
    }

    fn from_passwd_line(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.lines().next()?.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
        let shell = if shell.is_empty() { "/bin/sh" } else { shell };
        let ids = uid.parse().ok().zip(gid.parse().ok());
        Some(Self { name: (*name).to_owned(), ids, home: PathBuf::from(home), shell: PathBuf::from(shell) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwd_line_names_home_and_shell() {
        let account = Account::from_passwd_line("ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash\n").unwrap();
        assert_eq!(account.ids, Some((1000, 1000)));
        assert_eq!(account.home, PathBuf::from("/home/ann"));
        assert_eq!(account.shell, PathBuf::from("/bin/bash"));
        let account = Account::from_passwd_line("ann:x:1000:1000::/home/ann:").unwrap();
        assert_eq!(account.shell, PathBuf::from("/bin/sh"));
        assert_eq!(Account::from_passwd_line("ann:x"), None);
        assert_eq!(Account::from_passwd_line(""), None);
    }
}
