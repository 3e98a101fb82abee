//! The local terminal on Unix: raw mode that is always undone, its size, and the signals that are passed on.

use rc_proto::wire::shell::WindowSize;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Standard input in raw mode; dropping it restores what was there before, on any way out.
pub(in crate::cli) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Switches standard input to raw mode; `None` when it is not a terminal.
    pub(in crate::cli) fn enter() -> Option<Self> {
        if !isatty(stdin()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone already; there is nothing left to restore then.
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, &self.before) {
            tracing::debug!(%error, "the terminal is not restored");
        }
    }
}

/// The size of the terminal on standard input.
pub(in crate::cli) fn terminal_size() -> Option<WindowSize> {
    let size = tcgetwinsize(stdin()).ok()?;
    Some(WindowSize { columns: size.ws_col, rows: size.ws_row })
}

/// The signals that a shell passes on.
pub(in crate::cli) struct TerminalSignals {
    window: Signal,
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hang_up: Signal,
}

impl TerminalSignals {
    /// Takes them over from their default, which would end this process.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(in crate::cli) fn install() -> std::io::Result<Self> {
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal's name without `SIG`; `WINCH` when the window changed. Cancel-safe.
    pub(in crate::cli) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.window.recv() => "WINCH",
            _ = self.interrupt.recv() => "INT",
            _ = self.terminate.recv() => "TERM",
            _ = self.quit.recv() => "QUIT",
            _ = self.hang_up.recv() => "HUP",
        }
    }
}
