//! Layered configuration: one TOML file, then the environment, then flags; the last one to speak wins.
//!
//! A binary declares every key once, in a table of [`Knob`]s. The same table types and bounds the values, knows which
//! keys exist, prints the effective configuration and generates the reference page. Reading never stops at the
//! first mistake: unknown keys, wrong types, values out of range, missing values and the binary's own objections come
//! out together as [`ConfigErrors`], each with the line, variable or flag it came from.
//!
//! ```
//! use rc_daemon::config::{ConfigSources, Kind, Knob, Settings};
//! use std::time::Duration;
//!
//! const KNOBS: &[Knob] = &[
//!     Knob::new("timers.keep_alive", Kind::Duration, "15s", "How often an idle link is pinged.")
//!         .range("1s", "60s")
//!         .too_small("wastes traffic")
//!         .too_large("a dead link is noticed late"),
//!     Knob::optional("listen.admin", Kind::Path, "Where the admin socket is."),
//! ];
//!
//! let settings = Settings::load(ConfigSources::new("rc-example").set("timers.keep_alive=5s"), KNOBS);
//! let mut reader = settings.reader();
//! let keep_alive: Duration = reader.read("timers.keep_alive");
//! let keep_alive = reader.finish(keep_alive).expect("nothing is wrong");
//! assert_eq!(keep_alive, Duration::from_secs(5));
//! ```
//!
//! | layer | form |
//! |---|---|
//! | file | `--config FILE`, else `/etc/rc-mesh/<binary>.toml`, else `$XDG_CONFIG_HOME/rc-mesh/<binary>.toml` |
//! | environment | `RC_<SECTION>__<KEY>`, levels separated by `__` |
//! | flags | `--set section.key=value`, and the flags a binary adds |
//!
//! Relative paths in the file are relative to the file's directory, all others to the working directory.

mod document;
mod knob;
mod problem;
mod reader;
mod render;
mod setting;
mod settings;
mod suggest;

pub use knob::{Kind, Knob};
pub use problem::{ConfigErrors, Problem, ProblemKind, ProblemReport, Source};
pub use reader::Reader;
pub use render::reference;
pub use setting::{FromSetting, Secret, Setting};
pub use settings::{ConfigSources, Override, Settings};
