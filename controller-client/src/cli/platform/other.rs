//! Systems without termios: no raw terminal. On Windows it would be `SetConsoleMode` with virtual terminal input, and
//! console buffer events in place of SIGWINCH.

use rc_proto::wire::shell::WindowSize;

/// Never made here.
pub(in crate::cli) struct RawTerminal(std::convert::Infallible);

impl RawTerminal {
    pub(in crate::cli) fn enter() -> Option<Self> {
        None
    }
}

pub(in crate::cli) fn terminal_size() -> Option<WindowSize> {
    None
}

/// Ctrl-C alone.
pub(in crate::cli) struct TerminalSignals;

impl TerminalSignals {
    pub(in crate::cli) fn install() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// The next signal's name without `SIG`; `WINCH` when the window changed.
    pub(in crate::cli) async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "INT",
            Err(_) => std::future::pending().await,
        }
    }
}
