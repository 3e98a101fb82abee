//! From merged values to the checked [`Config`].

use std::path::PathBuf;
use std::sync::Arc;

use rc_daemon::admin;
use rc_daemon::config::{ConfigErrors, Reader, Settings};
use rc_transport::CredentialFiles;

use super::{BINARY, Config, check, endpoints, probes, profiles, zones};
use crate::maps::MapFiles;
use crate::server::ServerOptions;
use crate::zone::Zones;

/// Longest name for the NSID option: it has to fit into every answer.
const NSID_BYTES_MAX: usize = 64;

/// Judges all values.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn read(settings: &Settings) -> Result<Config, ConfigErrors> {
    let mut reader = settings.reader();
    let mut served = Zones::default();
    let is_strict = reader.read("azure.strict");
    zones::zones(&mut reader, &mut served);
    let mut drafts = profiles::profiles(&mut reader, is_strict);
    let endpoints = endpoints::endpoints(&mut reader, &mut drafts, is_strict);
    check::all(&mut reader, &drafts, is_strict);
    zones::records(&mut reader, &mut served);
    profiles::insert(&mut reader, drafts, &mut served);
    zones::aliases(&mut reader, &mut served);
    let targets = endpoints.iter().filter_map(|endpoint| endpoint.target.as_ref());
    let is_probed = targets.into_iter().any(probes::needs_credentials);
    let config = Config {
        credentials: credentials(&mut reader, is_probed),
        listen: reader.read("listen.dns"),
        server: ServerOptions {
            udp_threads: udp_threads(&mut reader),
            tcp_idle: reader.read("listen.tcp_idle"),
            responses_per_second: Some(reader.read("listen.responses_per_second")).filter(|rate| *rate > 0),
        },
        nsid: nsid(&mut reader),
        admin_socket: admin_socket(&mut reader),
        state_file: state_file(&mut reader),
        metrics: reader.read("metrics.addresses"),
        ready_file: reader.optional("ready.file"),
        probes_max: reader.read("probe.concurrency"),
        zones: Arc::new(served),
        endpoints,
        maps: maps(&mut reader),
    };
    if config.listen.is_empty() {
        reader.reject("listen.dns", "there is no address", "name at least one, such as \"127.0.0.1:5353\"");
    }
    reader.finish(config)
}

fn maps(reader: &mut Reader<'_>) -> MapFiles {
    MapFiles {
        latency: reader.optional("maps.latency"),
        nearest: reader.optional("maps.nearest"),
        round_trips: reader.optional("maps.round_trips"),
        geography: reader.optional("maps.geography"),
    }
}

/// The file that the configuration names, or one beside the admin socket.
fn state_file(reader: &mut Reader<'_>) -> PathBuf {
    reader.optional("state.file").unwrap_or_else(|| admin_socket(reader).with_extension("state.json"))
}

fn udp_threads(reader: &mut Reader<'_>) -> usize {
    match reader.read("listen.udp_threads") {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}

fn nsid(reader: &mut Reader<'_>) -> Option<String> {
    let name: Option<String> = reader.optional("listen.nsid");
    if name.as_ref().is_some_and(|name| name.len() > NSID_BYTES_MAX) {
        let what = format_args!("the name has more than {NSID_BYTES_MAX} bytes");
        reader.reject("listen.nsid", what, "write a short name such as \"tm-1\"");
    }
    name
}

/// The admin socket that the configuration names, or the usual one.
pub(crate) fn admin_socket(reader: &mut Reader<'_>) -> PathBuf {
    reader.optional("admin.socket").unwrap_or_else(|| admin::default_path(BINARY))
}

fn credentials(reader: &mut Reader<'_>, is_probed: bool) -> Option<CredentialFiles> {
    let mut file = |key: &str| {
        let path: Option<PathBuf> = reader.optional(key);
        if path.is_none() && is_probed {
            reader.reject(
                key,
                "there are brokers to probe, and no credentials to do it with",
                "name the file that `rc-certs issue` made, or probe by another protocol",
            );
        }
        path
    };
    let (certificate, key, ca) =
        (file("credentials.certificate"), file("credentials.key"), file("credentials.ca"));
    let crl = reader.optional("credentials.crl");
    match (certificate, key, ca) {
        (Some(certificate), Some(key), Some(ca)) if is_probed => {
            Some(CredentialFiles { certificate, key, ca, crl })
        }
        _ => None,
    }
}
