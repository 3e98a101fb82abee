//! What `rc-controller` is configured with.

use std::path::PathBuf;
use std::sync::LazyLock;

use rc_client::ClientConfig;
use rc_client::cli::{read_client_config, with_endpoint_knobs};
use rc_daemon::Failure;
use rc_daemon::cli::CommonArgs;
use rc_daemon::config::{Kind, Knob, Override, Settings};

use super::BINARY;

const OWN_KNOBS: &[Knob] = &[
    Knob::optional("tickets.file", Kind::Path, "File that holds the ticket, when no flag names one."),
    Knob::optional("tickets.command", Kind::Text, "Command that prints the ticket, when no flag names one."),
];

static KNOBS: LazyLock<Vec<Knob>> = LazyLock::new(|| with_endpoint_knobs(OWN_KNOBS));

/// The validated configuration.
#[derive(Debug)]
pub(super) struct ControllerConfig {
    pub(super) client: ClientConfig,
    pub(super) ticket_file: Option<PathBuf>,
    pub(super) ticket_command: Option<String>,
}

/// The generated reference page of every knob.
pub fn reference() -> String {
    rc_daemon::config::reference(BINARY, &KNOBS)
}

/// Merges file, environment and flags; `name` replaces the configured service names.
pub(super) fn load(common: &CommonArgs, name: Option<&str>) -> Settings {
    let mut sources = common.config_sources(BINARY);
    if let Some(name) = name {
        sources = sources.overriding(Override::new("NAME", "brokers.names", name));
    }
    Settings::load(sources, &KNOBS)
}

pub(super) fn read(settings: &Settings) -> Result<ControllerConfig, Failure> {
    let mut reader = settings.reader();
    let config = ControllerConfig {
        client: read_client_config(&mut reader),
        ticket_file: reader.optional("tickets.file"),
        ticket_command: reader.optional("tickets.command"),
    };
    Ok(reader.finish(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knob_table_holds() {
        assert_eq!(Knob::mistakes(&KNOBS), Vec::<String>::new());
    }

    #[test]
    fn the_reference_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-rc-controller.md");
        if std::env::var_os("RC_WRITE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            written,
            reference(),
            "write it with RC_WRITE_DOCS=1 cargo test -p rc-controller-client reference"
        );
    }
}
