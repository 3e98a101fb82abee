//! The settings that a Controller and a Target have in common, and how they become a [`ClientConfig`].

use rc_daemon::config::{Kind, Knob, Reader};

use crate::config::{BrokerPlaces, Buffers, ClientConfig, Timers};
use rc_transport::CredentialFiles;

/// The knobs of both endpoint binaries.
pub const ENDPOINT_KNOBS: &[Knob] = &[
    Knob::required("credentials.certificate", Kind::Path, "This process's certificate chain, PEM."),
    Knob::required("credentials.key", Kind::Path, "Its private key, PEM; readable by its owner only."),
    Knob::required(
        "credentials.ca",
        Kind::Path,
        "The certificate authority that brokers and peers must show, PEM.",
    ),
    Knob::optional("credentials.crl", Kind::Path, "The authority's revocation list, PEM."),
    Knob::new(
        "brokers.names",
        Kind::List(&Kind::Text),
        "[]",
        "Service names; each resolves to the addresses of several brokers.",
    ),
    Knob::new(
        "brokers.addresses",
        Kind::List(&Kind::Text),
        "[]",
        "Brokers whose address is known without DNS: <region>/<id>@<address>:<port>.",
    ),
    Knob::new("brokers.port", Kind::Integer, "443", "Port of every address that a name resolves to.")
        .range("1", "65535"),
    Knob::new(
        "brokers.name_servers",
        Kind::List(&Kind::SocketAddr),
        "[]",
        "DNS servers to ask; empty means those of the system.",
    ),
    Knob::new(
        "brokers.allow_loopback",
        Kind::Bool,
        "false",
        "Whether loopback, link-local and v4-mapped addresses are used; for tests and demonstrations.",
    ),
    Knob::new(
        "timers.dial",
        Kind::Duration,
        "3s",
        "For a broker's TCP and TLS handshake and its first answer.",
    )
    .range("100ms", "60s")
    .too_small("far brokers are lost")
    .too_large("a broken broker delays the next one"),
    Knob::new("timers.locate", Kind::Duration, "10s", "How long a command waits for a usable broker.")
        .range("100ms", "120s")
        .too_small("no broker is found on a slow network")
        .too_large("a clear error comes late"),
    Knob::new(
        "timers.open_path",
        Kind::Duration,
        "15s",
        "For a path to be opened, the Target's part included.",
    )
    .range("1s", "120s")
    .too_small("a Target that is just coming back is missed")
    .too_large("a clear error comes late"),
    Knob::new(
        "timers.attach",
        Kind::Duration,
        "5s",
        "For the end-to-end handshake and the peer's first answer.",
    )
    .range("100ms", "60s")
    .too_small("sessions over slow networks fail")
    .too_large("a silent peer is noticed late"),
    Knob::new("timers.keep_alive", Kind::Duration, "15s", "Between pings on the control link.")
        .range("100ms", "5m")
        .too_small("wastes traffic and battery")
        .too_large("network address translators forget the link"),
    Knob::new("timers.keep_alive_answer", Kind::Duration, "5s", "For the answer to such a ping.")
        .range("100ms", "60s")
        .too_small("a slow network looks dead")
        .too_large("a dead broker is noticed late"),
    Knob::new(
        "session.send_cap",
        Kind::Size,
        "4MiB",
        "Bytes that a channel keeps until the other end acknowledges them.",
    )
    .range("64KiB", "256MiB")
    .too_small("a fast and far path is not filled: it holds one round trip of data")
    .too_large("costs that much memory for each busy channel"),
    Knob::new(
        "session.receive_window",
        Kind::Size,
        "4MiB",
        "Bytes of a channel that may arrive before the application reads them.",
    )
    .range("64KiB", "256MiB")
    .too_small("a fast and far path is not filled: it holds one round trip of data")
    .too_large("costs that much memory for each channel that nobody reads"),
    Knob::optional(
        "session.resume_window",
        Kind::Duration,
        "How long a session is kept while no path carries it. A controller keeps the smaller of this and the target's less 30 s.",
    )
    .range("0ms", "15m")
    .too_small("a session ends with its last broker, or before this machine is back on a network")
    .too_large("a session whose other end is gone for good keeps its memory and its place"),
    Knob::new(
        "session.repath_every",
        Kind::Duration,
        "30m",
        "Between a controller's periodic changes of path, which keep the way of a recovery exercised; 0ms for none.",
    )
    .range("0ms", "12h")
    .too_small("paths are opened for nothing")
    .too_large("that a way does not work any more shows when it is needed"),
    Knob::new(
        "pool.legs",
        Kind::Integer,
        "2",
        "Connections to brokers that are kept ready for the next path, while a session lives.",
    )
    .range("0", "2")
    .too_small("each new path begins with a handshake: a session that lost its path is back later"),
    Knob::optional(
        "state.dir",
        Kind::Path,
        "Directory for what outlives the process: the last-known-good broker list and, at a Target, used tickets.",
    ),
];

/// The endpoint knobs followed by a binary's own, as one table that lives as long as the process.
///
/// Call it once, from a `LazyLock`.
pub fn with_endpoint_knobs(own: &[Knob]) -> Vec<Knob> {
    ENDPOINT_KNOBS.iter().chain(own).copied().collect()
}

/// Reads the endpoint knobs; problems are collected in `reader`.
pub fn read_client_config(reader: &mut Reader<'_>) -> ClientConfig {
    let credentials = CredentialFiles {
        certificate: reader.read("credentials.certificate"),
        key: reader.read("credentials.key"),
        ca: reader.read("credentials.ca"),
        crl: reader.optional("credentials.crl"),
    };
    let brokers = BrokerPlaces {
        names: reader.read("brokers.names"),
        addresses: reader.parsed_list("brokers.addresses", "write it as in/broker-3@192.0.2.7:443"),
        port: reader.read("brokers.port"),
        name_servers: reader.read("brokers.name_servers"),
        allow_loopback: reader.read("brokers.allow_loopback"),
    };
    if brokers.names.is_empty() && brokers.addresses.is_empty() {
        reader.reject("brokers.names", "no broker is named", "set brokers.names or brokers.addresses");
    }
    let timers = Timers {
        dial: reader.read("timers.dial"),
        locate: reader.read("timers.locate"),
        open_path: reader.read("timers.open_path"),
        attach: reader.read("timers.attach"),
        keep_alive: reader.read("timers.keep_alive"),
        keep_alive_answer: reader.read("timers.keep_alive_answer"),
    };
    let buffers = Buffers {
        send_cap: reader.read("session.send_cap"),
        receive_window: reader.read("session.receive_window"),
    };
    let resume_window = reader.optional("session.resume_window");
    let repath_every: std::time::Duration = reader.read("session.repath_every");
    let repath_every = (!repath_every.is_zero()).then_some(repath_every);
    let pool_legs = reader.read("pool.legs");
    let state_dir = reader.optional("state.dir");
    ClientConfig { credentials, brokers, timers, buffers, resume_window, repath_every, pool_legs, state_dir }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rc_daemon::config::{ConfigSources, Settings};

    #[test]
    fn the_knob_table_holds_and_every_knob_is_read() {
        assert_eq!(Knob::mistakes(ENDPOINT_KNOBS), Vec::<String>::new());
        let settings = Settings::load(ConfigSources::new("rc-example"), ENDPOINT_KNOBS);
        let mut reader = settings.reader();
        let _config = read_client_config(&mut reader);
        assert_eq!(reader.unread(), Vec::<&str>::new());
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let sources = ConfigSources::new("rc-example")
            .set("credentials.certificate=a.pem")
            .set("credentials.key=a.key")
            .set("credentials.ca=ca.pem")
            .set("brokers.names=brokers.mesh.example");
        let settings = Settings::load(sources, ENDPOINT_KNOBS);
        let mut reader = settings.reader();
        let config = read_client_config(&mut reader);
        let config = reader.finish(config).unwrap();
        let expected = ClientConfig::new(config.credentials.clone(), ["brokers.mesh.example"]);
        assert_eq!(format!("{config:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_client_without_any_broker_is_refused() {
        let settings = Settings::load(ConfigSources::new("rc-example"), ENDPOINT_KNOBS);
        let mut reader = settings.reader();
        let config = read_client_config(&mut reader);
        let errors = reader.finish(config).unwrap_err();
        assert!(errors.to_string().contains("no broker is named"), "{errors}");
    }
}
