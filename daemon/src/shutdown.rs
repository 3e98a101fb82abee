//! Requests to stop: the first is graceful, the second immediate.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::ExitStatus;

/// Who asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, or on Windows the closing of the console or the session.
    Terminate,
    /// The program itself, or a command on the admin socket.
    Request,
}

impl StopCause {
    /// How a process ends that stopped cleanly for this cause.
    pub const fn exit_status(self) -> ExitStatus {
        match self {
            Self::Interrupt => ExitStatus::Interrupted,
            Self::Terminate | Self::Request => ExitStatus::Ok,
        }
    }
}

/// The two stages of stopping; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    graceful: CancellationToken,
    immediate: CancellationToken,
    cause: Arc<OnceLock<StopCause>>,
}

impl Shutdown {
    /// A shutdown that only [`request`](Self::request) starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop: the first time gracefully, from the second time on immediately.
    pub fn request(&self, cause: StopCause) {
        if self.cause.set(cause).is_ok() {
            tracing::info!(?cause, "stopping");
            self.graceful.cancel();
        } else {
            tracing::warn!(?cause, "stopping at once");
            self.immediate.cancel();
        }
    }

    /// Cancelled at the first request: stop accepting, finish what is there.
    pub const fn graceful(&self) -> &CancellationToken {
        &self.graceful
    }

    /// Cancelled at the second request: stop now.
    pub const fn immediate(&self) -> &CancellationToken {
        &self.immediate
    }

    /// Who asked first; nothing while nobody did.
    pub fn cause(&self) -> Option<StopCause> {
        self.cause.get().copied()
    }

    /// The exit status for the cause; [`ExitStatus::Ok`] while nobody asked.
    pub fn exit_status(&self) -> ExitStatus {
        self.cause().map_or(ExitStatus::Ok, StopCause::exit_status)
    }

    /// Starts to listen for SIGTERM and SIGINT (Ctrl-C and console close on Windows); needs a tokio runtime. Until
    /// the guard is dropped the signals no longer end the process by themselves, and after it neither do they: drop it
    /// at the end of the process.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn on_signals(&self) -> io::Result<SignalGuard> {
        let mut signals = signals::Signals::listen()?;
        let shutdown = self.clone();
        let task = tokio::spawn(async move {
            loop {
                shutdown.request(signals.next().await);
            }
        });
        Ok(SignalGuard(task))
    }
}

/// Owns the task that waits for signals, and ends it when dropped.
#[derive(Debug)]
pub struct SignalGuard(JoinHandle<()>);

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::StopCause;

    pub(super) struct Signals {
        terminate: Signal,
        interrupt: Signal,
    }

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        }

        pub(super) async fn next(&mut self) -> StopCause {
            tokio::select! {
                Some(()) = self.terminate.recv() => StopCause::Terminate,
                Some(()) = self.interrupt.recv() => StopCause::Interrupt,
                // Both streams end only with the runtime, which ends this task too.
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(windows)]
mod signals {
    use std::io;

    use tokio::signal::windows::{CtrlC, CtrlClose, CtrlShutdown, ctrl_c, ctrl_close, ctrl_shutdown};

    use super::StopCause;

    pub(super) struct Signals {
        interrupt: CtrlC,
        close: CtrlClose,
        shutdown: CtrlShutdown,
    }

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self { interrupt: ctrl_c()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
        }

        pub(super) async fn next(&mut self) -> StopCause {
            tokio::select! {
                Some(()) = self.interrupt.recv() => StopCause::Interrupt,
                Some(()) = self.close.recv() => StopCause::Terminate,
                Some(()) = self.shutdown.recv() => StopCause::Terminate,
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_graceful_and_the_second_immediate() {
        let shutdown = Shutdown::new();
        assert_eq!((shutdown.cause(), shutdown.exit_status()), (None, ExitStatus::Ok));
        shutdown.request(StopCause::Terminate);
        assert!(shutdown.graceful().is_cancelled() && !shutdown.immediate().is_cancelled());
        shutdown.clone().request(StopCause::Interrupt);
        assert!(shutdown.immediate().is_cancelled());
        assert_eq!(shutdown.cause(), Some(StopCause::Terminate));
        assert_eq!(shutdown.exit_status(), ExitStatus::Ok);
    }

    #[test]
    fn ctrl_c_exits_with_130() {
        let shutdown = Shutdown::new();
        shutdown.request(StopCause::Interrupt);
        assert_eq!(shutdown.exit_status().code(), 130);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn signals_become_requests() {
        use rustix::process::{Signal, getpid, kill_process};
        let shutdown = Shutdown::new();
        let _guard = shutdown.on_signals().unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        shutdown.graceful().cancelled().await;
        assert_eq!(shutdown.cause(), Some(StopCause::Terminate));
        kill_process(getpid(), Signal::INT).unwrap();
        shutdown.immediate().cancelled().await;
    }
}
