//! From merged values to the checked [`Config`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rc_daemon::admin;
use rc_daemon::config::{ConfigErrors, Reader, Settings};
use rc_proto::identity::ticket::{TICKET_KEYS_BYTES_MAX, TicketKeys};
use rc_proto::wire::{BrokerId, limits as wire_limits};
use rc_transport::{CredentialFiles, ResolverConfig};

use super::{BINARY, Config};
use crate::core::limits::{Limits, Timers};
use crate::mesh::Seed;
use crate::server::BrokerConfig;

/// Judges all values.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn read(settings: &Settings) -> Result<Config, ConfigErrors> {
    let mut reader = settings.reader();
    let config = Config {
        credentials: CredentialFiles {
            certificate: reader.read("credentials.certificate"),
            key: reader.read("credentials.key"),
            ca: reader.read("credentials.ca"),
            crl: reader.optional("credentials.crl"),
        },
        ticket_keys: ticket_keys(&mut reader),
        deny_list: reader.optional("tickets.deny"),
        region: reader.optional("identity.region"),
        id: reader.optional("identity.id"),
        broker: broker(&mut reader),
        admin_socket: admin_socket(&mut reader),
        ready_file: reader.optional("ready.file"),
    };
    judge(&mut reader, &config);
    reader.finish(config)
}

/// The admin socket that the configuration names, or the usual one.
pub(crate) fn admin_socket(reader: &mut Reader<'_>) -> PathBuf {
    reader.optional("admin.socket").unwrap_or_else(|| admin::default_path(BINARY))
}

fn broker(reader: &mut Reader<'_>) -> BrokerConfig {
    BrokerConfig {
        listen: reader.read("listen.addresses"),
        name: reader.optional("advertise.name").unwrap_or_default(),
        addresses: reader.optional("advertise.addresses"),
        seeds: reader.parsed_list("mesh.seeds", "write host:port or region/id@address:port"),
        resolver: ResolverConfig {
            servers: reader.read("resolver.servers"),
            timeout: reader.read("resolver.timeout"),
            attempts: reader.read("resolver.attempts"),
        },
        limits: limits(reader),
        timers: timers(reader),
    }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        paths: reader.read("limits.paths"),
        registrations: reader.read("limits.registrations"),
        control_links: reader.read("limits.control_links"),
        waiting_legs: reader.read("limits.waiting_legs"),
        handshakes: reader.read("limits.handshakes"),
        connections_per_second: reader.read("limits.connections_per_second"),
        connections_burst: reader.read("limits.connections_burst"),
        opens_per_second: reader.read("limits.opens_per_second"),
        opens_burst: reader.read("limits.opens_burst"),
        registrations_per_second: reader.read("limits.registrations_per_second"),
        registrations_burst: reader.read("limits.registrations_burst"),
        announced_targets: reader.read("limits.announced_targets"),
    }
}

fn timers(reader: &mut Reader<'_>) -> Timers {
    Timers {
        keep_alive: reader.read("timers.keep_alive"),
        control_silence: reader.read("timers.control_silence"),
        path_idle: reader.read("timers.path_idle"),
        pooled_leg_idle: reader.read("timers.pooled_leg_idle"),
        mesh_leg_idle: reader.read("timers.mesh_leg_idle"),
        open: reader.read("timers.open"),
        park: reader.read("timers.park"),
        mesh_ping: reader.read("mesh.ping"),
        mesh_down: reader.read("mesh.down_after"),
        drain: reader.read("drain.deadline"),
        drain_spread: reader.read("drain.spread"),
    }
}

/// What no single value can be blamed for.
fn judge(reader: &mut Reader<'_>, config: &Config) {
    let broker = &config.broker;
    if broker.listen.is_empty() {
        reader.reject(
            "listen.addresses",
            "there is no address",
            "name at least one, such as \"0.0.0.0:443\"",
        );
    }
    let told = broker.addresses.as_deref().unwrap_or_default();
    if told.len() > wire_limits::ADDRESSES_MAX {
        let what = format!("{} addresses are more than {}", told.len(), wire_limits::ADDRESSES_MAX);
        reader.reject("advertise.addresses", what, "leave some out");
    }
    if let Some(address) = told.iter().find(|address| address.ip().is_unspecified() || address.port() == 0) {
        let what = format!("{address} cannot be dialled");
        reader.reject("advertise.addresses", what, "name a real address and port");
    }
    if broker.timers.mesh_down < broker.timers.mesh_ping * 2 {
        let fix = "make it at least twice mesh.ping";
        reader.reject("mesh.down_after", "one late ping takes the link down", fix);
    }
    if broker.timers.control_silence <= broker.timers.keep_alive {
        let fix = "make it longer than timers.keep_alive, best three times";
        reader.reject("timers.control_silence", "links are closed between two keep-alives", fix);
    }
}

fn ticket_keys(reader: &mut Reader<'_>) -> TicketKeys {
    let Some(path) = reader.optional::<PathBuf>("tickets.keys") else { return TicketKeys::default() };
    match read_bounded(&path).and_then(|text| TicketKeys::parse(&text).map_err(|error| error.to_string())) {
        Ok(keys) => keys,
        Err(reason) => {
            let what = format!("{}: {reason}", path.display());
            reader.reject(
                "tickets.keys",
                what,
                "name the file of public keys that `rc-certs ticket-key` wrote",
            );
            TicketKeys::default()
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if usize::try_from(size).is_ok_and(|size| size <= TICKET_KEYS_BYTES_MAX) {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    } else {
        Err(format!("{size} bytes are more than {TICKET_KEYS_BYTES_MAX}"))
    }
}

/// Why a text is not a seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Neither form.
    #[error("neither host:port nor region/id@address:port")]
    Shape,
    /// The part before the `@` is not a broker.
    #[error("{0}")]
    Broker(#[from] rc_proto::wire::IdError),
    /// An address without an id: nothing would tell who may answer there.
    #[error("an address needs the id of the broker there")]
    AddressWithoutId,
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        if let Some((id, address)) = text.split_once('@') {
            let id: BrokerId = id.parse()?;
            let address: SocketAddr = address.parse().map_err(|_| SeedError::Shape)?;
            return Ok(Self::Broker { id, address });
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Err(SeedError::AddressWithoutId);
        }
        let (host, port) = text.rsplit_once(':').ok_or(SeedError::Shape)?;
        let port: u16 = port.parse().map_err(|_| SeedError::Shape)?;
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        if !is_name || port == 0 {
            return Err(SeedError::Shape);
        }
        Ok(Self::Name { host: host.to_ascii_lowercase(), port })
    }
}
