//! The configuration files of a deployment's processes, as an operator would write them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rc_certs::{Authority, IssuedFiles};
use rc_proto::wire::BrokerId;
use serde_json::Value;

use crate::mesh::{SERVICE_NAME, ZONE, broker_name};

/// What a DNS server of the deployment is told.
pub(crate) struct TrafficManager<'a> {
    pub(crate) leaf: &'a IssuedFiles,
    pub(crate) authority: &'a Authority,
    pub(crate) listen: SocketAddr,
    pub(crate) view: Vec<(BrokerId, SocketAddr)>,
    pub(crate) ttl: Duration,
    pub(crate) admin: &'a Path,
    pub(crate) ready_file: &'a Path,
}

/// What a broker is told.
pub(crate) struct Broker<'a> {
    pub(crate) leaf: &'a IssuedFiles,
    pub(crate) authority: &'a Authority,
    pub(crate) listen: SocketAddr,
    pub(crate) name: &'a str,
    pub(crate) seeds: Vec<String>,
    pub(crate) name_server: SocketAddr,
    pub(crate) admin: &'a Path,
    pub(crate) ready_file: &'a Path,
}

/// What every endpoint is told.
pub(crate) struct Endpoint<'a> {
    pub(crate) leaf: &'a IssuedFiles,
    pub(crate) authority: &'a Authority,
    pub(crate) port: u16,
    pub(crate) name_server: SocketAddr,
}

/// What a Target is told besides.
pub(crate) struct Target<'a> {
    pub(crate) endpoint: Endpoint<'a>,
    pub(crate) keys: &'a Path,
    pub(crate) state: &'a Path,
    pub(crate) tcp: &'a [(String, String)],
    pub(crate) pipe: &'a [(String, Vec<String>)],
    pub(crate) admin: &'a Path,
    pub(crate) ready_file: &'a Path,
}

/// A TOML string.
fn quoted(text: impl std::fmt::Display) -> String {
    format!("{:?}", text.to_string())
}

/// A TOML list of strings.
fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

fn credentials(leaf: &IssuedFiles, authority: &Authority) -> String {
    format!(
        "[credentials]\ncertificate = {}\nkey = {}\nca = {}\ncrl = {}\n",
        quoted(leaf.certificate.display()),
        quoted(leaf.key.display()),
        quoted(authority.ca_file().display()),
        quoted(authority.crl_file().display()),
    )
}

fn places(admin: &Path, ready_file: &Path) -> String {
    format!(
        "\n[admin]\nsocket = {}\n\n[ready]\nfile = {}\n",
        quoted(admin.display()),
        quoted(ready_file.display())
    )
}

pub(crate) fn traffic_manager(of: &TrafficManager<'_>) -> String {
    let mut text = credentials(of.leaf, of.authority);
    text.push_str(&places(of.admin, of.ready_file));
    let ttl = of.ttl.as_secs();
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "\n[listen]\ndns = {}\n\n[[zone]]\nname = {}\nttl = {ttl}\nnegative_ttl = 1\n\
         \n[[profile]]\nname = {}\nmethod = \"MultiValue\"\nttl = {ttl}\nmax_return = 10\nprobe_port = {}\n\
         interval = \"1s\"\ntimeout = \"1s\"\ntolerated_failures = 1\n",
        list([of.listen]),
        quoted(ZONE),
        quoted(SERVICE_NAME),
        of.listen.port(),
    );
    for (broker, address) in &of.view {
        let _infallible = write!(
            text,
            "\n[[record]]\nname = {}\naddresses = {}\n\n[[endpoint]]\nprofile = {}\nname = {}\naddress = {}\nbroker = {}\n",
            quoted(broker_name(broker)),
            list([address.ip()]),
            quoted(SERVICE_NAME),
            quoted(format!("{}-{}", broker.region(), broker.id())),
            quoted(address.ip()),
            quoted(broker),
        );
    }
    text
}

pub(crate) fn broker(of: &Broker<'_>) -> String {
    format!(
        "{}\n[tickets]\nkeys = {}\n\n[listen]\naddresses = {}\n\n[advertise]\nname = {}\naddresses = []\n\
         \n[mesh]\nseeds = {}\n\n[resolver]\nservers = {}\n{}",
        credentials(of.leaf, of.authority),
        quoted(of.authority.ticket_keys_file().display()),
        list([of.listen]),
        quoted(of.name),
        list(&of.seeds),
        list([of.name_server]),
        places(of.admin, of.ready_file),
    )
}

fn endpoint(of: &Endpoint<'_>) -> String {
    format!(
        "{}\n[brokers]\nnames = {}\nport = {}\nname_servers = {}\nallow_loopback = true\n",
        credentials(of.leaf, of.authority),
        list([SERVICE_NAME]),
        of.port,
        list([of.name_server]),
    )
}

pub(crate) fn controller(of: &Endpoint<'_>) -> String {
    endpoint(of)
}

pub(crate) fn target(of: &Target<'_>) -> String {
    let mut text = endpoint(&of.endpoint);
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "\n[tickets]\nkeys = {}\n\n[state]\ndir = {}\n\n[offer]\nshell = true\necho = true\nsink = true\n{}",
        list([of.keys.display()]),
        quoted(of.state.display()),
        places(of.admin, of.ready_file),
    );
    for (name, address) in of.tcp {
        let _infallible = write!(text, "\n[[tcp]]\nname = {}\naddress = {}\n", quoted(name), quoted(address));
    }
    for (name, command) in of.pipe {
        let _infallible = write!(text, "\n[[pipe]]\nname = {}\ncommand = {}\n", quoted(name), list(command));
    }
    text
}

/// How many peers a broker's status says it is linked to.
pub(crate) fn linked_peers(status: &Value) -> usize {
    status
        .pointer("/mesh/linked")
        .and_then(Value::as_u64)
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or_default()
}
