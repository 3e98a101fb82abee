//! Everything of the Target binary that only one family of operating systems has.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{ShellInput, ShellProcess, signal_of, spawn_shell};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{ShellInput, ShellProcess, signal_of, spawn_shell};
