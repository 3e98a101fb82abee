//! What `rc-target` is configured with.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use rc_client::cli::{read_client_config, with_endpoint_knobs};
use rc_daemon::Failure;
use rc_daemon::cli::CommonArgs;
use rc_daemon::config::{Kind, Knob, Reader, Settings};
use rc_proto::wire::ServiceName;

use super::BINARY;
use super::consent::Policy;
use super::services::{Account, Service, ServiceTable, parse_host_port};
use crate::config::{TargetConfig, TargetLimits};

const OWN_KNOBS: &[Knob] = &[
    Knob::new(
        "tickets.keys",
        Kind::List(&Kind::Path),
        "[]",
        "Public ticket keys (ticket-keys.json of rc-certs).",
    ),
    Knob::optional(
        "tickets.deny",
        Kind::Path,
        "List of revoked tickets (deny.jws of rc-certs), read at the start.",
    ),
    Knob::new("offer.shell", Kind::Bool, "false", "Whether `shell` is offered."),
    Knob::optional(
        "offer.run_as",
        Kind::Text,
        "The account that shells run as; this process's own when unset.",
    ),
    Knob::new("offer.echo", Kind::Bool, "false", "Whether `echo` is offered: every byte comes back."),
    Knob::new("offer.sink", Kind::Bool, "false", "Whether `sink` is offered: bytes are counted and hashed."),
    Knob::required("tcp[].name", Kind::Text, "Offered as `tcp:<name>`, for example ssh, rdp or vnc."),
    Knob::required("tcp[].address", Kind::HostPort, "Where such a channel is connected to."),
    Knob::required("pipe[].name", Kind::Text, "Offered as `pipe:<name>`."),
    Knob::required(
        "pipe[].command",
        Kind::List(&Kind::Text),
        "Program and arguments; the channel is its standard input and output.",
    ),
    Knob::new(
        "consent.policy",
        Kind::Choice(&["allow", "ask"]),
        "allow",
        "Whether whoever sits in front is asked on the terminal before each channel; without a terminal, ask refuses.",
    ),
    Knob::new("consent.timeout", Kind::Duration, "60s", "How long a question waits for its answer.")
        .range("1s", "1h")
        .too_small("nobody can answer in time")
        .too_large("a forgotten question keeps an engineer waiting"),
    Knob::new("limits.invites_per_second", Kind::Integer, "10", "Invites that are followed.")
        .range("1", "1000"),
    Knob::new("limits.handshakes", Kind::Integer, "4", "Unfinished end-to-end handshakes at once.")
        .range("1", "64"),
    Knob::new("limits.attaches_per_minute", Kind::Integer, "30", "Attempts to attach.").range("1", "10000"),
    Knob::new("limits.sessions", Kind::Integer, "16", "Sessions at once.").range("1", "1024"),
    Knob::new("limits.pending_offers", Kind::Integer, "64", "Channels that wait for an answer.")
        .range("1", "1024"),
    Knob::optional("admin.socket", Kind::Path, "The admin socket; a per-user default when unset."),
    Knob::optional("ready.file", Kind::Path, "Written once the registration stands, removed at the end."),
];

static KNOBS: LazyLock<Vec<Knob>> = LazyLock::new(|| with_endpoint_knobs(OWN_KNOBS));

/// The validated configuration of `rc-target run`.
#[derive(Debug)]
pub(super) struct RunConfig {
    pub(super) target: TargetConfig,
    pub(super) services: ServiceTable,
    pub(super) consent: Policy,
    pub(super) admin_socket: Option<PathBuf>,
    pub(super) ready_file: Option<PathBuf>,
}

/// The generated reference page of every knob.
pub fn reference() -> String {
    rc_daemon::config::reference(BINARY, &KNOBS)
}

pub(super) fn load(common: &CommonArgs) -> Settings {
    Settings::load(common.config_sources(BINARY), &KNOBS)
}

pub(super) fn read(settings: &Settings) -> Result<RunConfig, Failure> {
    let mut reader = settings.reader();
    let client = read_client_config(&mut reader);
    let mut target = TargetConfig::new(client, reader.read::<Vec<PathBuf>>("tickets.keys"));
    if target.ticket_keys.is_empty() {
        reader.reject(
            "tickets.keys",
            "without a ticket key nobody can be admitted",
            "name the ticket-keys.json that rc-certs wrote",
        );
    }
    target.deny_list = reader.optional("tickets.deny");
    target.limits = limits(&mut reader);
    let services = services(&mut reader);
    let timeout: Duration = reader.read("consent.timeout");
    let policy: String = reader.read("consent.policy");
    let config = RunConfig {
        target,
        services,
        consent: if policy == "ask" { Policy::Ask { timeout } } else { Policy::Allow },
        admin_socket: reader.optional("admin.socket"),
        ready_file: reader.optional("ready.file"),
    };
    Ok(reader.finish(config)?)
}

fn limits(reader: &mut Reader<'_>) -> TargetLimits {
    TargetLimits {
        invites_per_second: reader.read("limits.invites_per_second"),
        handshakes: reader.read("limits.handshakes"),
        attaches_per_minute: reader.read("limits.attaches_per_minute"),
        sessions: reader.read("limits.sessions"),
        pending_offers: reader.read("limits.pending_offers"),
    }
}

fn services(reader: &mut Reader<'_>) -> ServiceTable {
    let mut table = ServiceTable::default();
    let run_as: Option<String> = reader.optional("offer.run_as");
    if let Some(name) = &run_as
        && Account::lookup(name).is_none()
    {
        reader.reject(
            "offer.run_as",
            format_args!("there is no account {name:?}"),
            "name one of this machine",
        );
    }
    for (knob, name, service) in [
        ("offer.shell", "shell", Service::Shell { run_as }),
        ("offer.echo", "echo", Service::Echo),
        ("offer.sink", "sink", Service::Sink),
    ] {
        if reader.read(knob) {
            offer(reader, &mut table, knob, name, service);
        }
    }
    let connections = reader.each("tcp", |entry| {
        let (name, address): (String, String) = (entry.read("name"), entry.read("address"));
        let parsed = parse_host_port(&address);
        if parsed.is_none() && !address.is_empty() {
            entry.reject(
                "address",
                format_args!("{address:?} is no host and port"),
                "write it as 127.0.0.1:22",
            );
        }
        parsed.map(|(host, port)| (format!("tcp:{name}"), Service::Tcp { host, port }))
    });
    for (name, service) in connections.into_iter().flatten() {
        offer(reader, &mut table, "tcp", &name, service);
    }
    let commands = reader.each("pipe", |entry| {
        let (name, command): (String, Vec<String>) = (entry.read("name"), entry.read("command"));
        if command.is_empty() {
            entry.reject(
                "command",
                "no program is named",
                "write it as [\"/usr/bin/program\", \"argument\"]",
            );
        }
        (format!("pipe:{name}"), Service::Pipe { command })
    });
    for (name, service) in commands {
        offer(reader, &mut table, "pipe", &name, service);
    }
    if table.names().next().is_none() {
        reader.reject(
            "offer.shell",
            "nothing is offered",
            "set offer.shell, offer.echo, [[tcp]] or [[pipe]]",
        );
    }
    table
}

fn offer(reader: &mut Reader<'_>, table: &mut ServiceTable, knob: &str, name: &str, service: Service) {
    match name.parse::<ServiceName>() {
        Ok(parsed) => {
            if !table.offer(parsed, service) {
                reader.reject(knob, format_args!("{name} is offered twice"), "give each a name of its own");
            }
        }
        Err(error) => reader.reject(knob, error, "choose another name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rc_daemon::config::ConfigSources;

    fn sources() -> ConfigSources {
        ConfigSources::new(BINARY)
            .set("credentials.certificate=a.pem")
            .set("credentials.key=a.key")
            .set("credentials.ca=ca.pem")
            .set("brokers.names=brokers.mesh.example")
            .set("tickets.keys=ticket-keys.json")
    }

    fn read_with(sources: ConfigSources) -> Result<RunConfig, Failure> {
        read(&Settings::load(sources, &KNOBS))
    }

    #[test]
    fn the_knob_table_holds_and_every_knob_is_read() {
        assert_eq!(Knob::mistakes(&KNOBS), Vec::<String>::new());
        let settings = Settings::load(ConfigSources::new(BINARY), &KNOBS);
        let mut reader = settings.reader();
        drop(read_client_config(&mut reader));
        drop(services(&mut reader));
        let limits = limits(&mut reader);
        assert_eq!(limits, TargetLimits::default());
        let run_reads = [
            "tickets.keys",
            "tickets.deny",
            "consent.policy",
            "consent.timeout",
            "admin.socket",
            "ready.file",
        ];
        assert_eq!(reader.unread(), run_reads);
    }

    #[test]
    fn services_come_from_the_configuration_only() {
        let sources = sources()
            .set("offer.shell=true")
            .set(r#"tcp=[{name="ssh", address="127.0.0.1:22"}]"#)
            .set(r#"pipe=[{name="up", command=["tr", "a", "b"]}]"#);
        let config = read_with(sources).unwrap();
        let names: Vec<&str> = config.services.names().map(ServiceName::as_str).collect();
        assert_eq!(names, ["pipe:up", "shell", "tcp:ssh"]);
        assert_eq!(config.consent, Policy::Allow);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let sources = ConfigSources::new(BINARY)
            .set("offer.run_as=no-such-account-here")
            .set("offer.shel=true")
            .set(r#"tcp=[{name="ssh", address="nowhere"}]"#)
            .set("consent.policy=maybe");
        let text = read_with(sources).unwrap_err().to_string();
        for expected in [
            "no-such-account-here",
            "offer.shel",
            "nowhere",
            "maybe",
            "credentials.ca",
            "ticket key",
            "no broker",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn a_name_is_offered_once() {
        let sources =
            sources().set(r#"tcp=[{name="a", address="127.0.0.1:1"}, {name="a", address="127.0.0.1:2"}]"#);
        assert!(read_with(sources).unwrap_err().to_string().contains("tcp:a is offered twice"));
    }

    #[test]
    fn the_reference_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-rc-target.md");
        if std::env::var_os("RC_WRITE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            written,
            reference(),
            "write it with RC_WRITE_DOCS=1 cargo test -p rc-target-client reference"
        );
    }
}
