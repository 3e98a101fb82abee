//! What every binary of the project shares; nothing in here knows of brokers or sessions.
//!
//! | module | owns |
//! |---|---|
//! | [`exit`] | the exit codes, and [`Failure`]: what a binary's `run` ends with when it fails |
//! | [`config`] | the knob table, the layers file < environment < flags, the reader that collects every problem |
//! | [`cli`] | the flags every binary has, `version`, `completions`, `man` |
//! | [`log`] | the log on stderr |
//! | [`output`] | stdout: the only code that prints there |
//! | [`admin`] | the admin socket: requests and streamed answers between a daemon and its own command line |
//! | [`events`] | the bounded ring of what happened, and its subscribers |
//! | `metrics` (a feature) | the listener that answers Prometheus and health checks |
//! | [`ready`] | the ready-file that tells the real addresses |
//! | [`shutdown`] | signals as a first (graceful) and a second (immediate) request to stop |
//! | [`clock`] | the boot-time clock and the wall clock |
#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod events;
pub mod exit;
pub mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod output;
pub mod ready;
pub mod shutdown;
mod text;

pub use exit::{ExitStatus, Failure};
pub use text::escape_controls;
