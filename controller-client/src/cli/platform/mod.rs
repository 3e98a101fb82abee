//! Everything of the Controller binary that only one family of operating systems has.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(super) use unix::{RawTerminal, TerminalSignals, terminal_size};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(super) use other::{RawTerminal, TerminalSignals, terminal_size};
