//! Every key that can be configured.

use rc_daemon::config::{Kind, Knob};

use super::BINARY;

/// The methods of Azure Traffic Manager.
const METHODS: &[&str] = &["MultiValue", "Priority", "Weighted", "Performance", "Geographic", "Subnet"];
/// How endpoints can be probed.
const PROTOCOLS: &[&str] = &["broker", "HTTP", "HTTPS", "TCP"];
/// What a profile's records can be bound to.
const RECORD_TYPES: &[&str] = &["A", "AAAA", "CNAME"];
/// What an endpoint is.
const ENDPOINT_KINDS: &[&str] = &["external", "azure"];
/// What Subnet routing answers when nothing matches.
const NO_MATCH: &[&str] = &["nodata", "nxdomain"];

/// The knob table.
pub const KNOBS: &[Knob] = &[
    Knob::optional(
        "credentials.certificate",
        Kind::Path,
        "Our certificate chain, role traffic-manager, PEM.",
    ),
    Knob::optional("credentials.key", Kind::Path, "Its private key, PEM; readable by its owner only."),
    Knob::optional("credentials.ca", Kind::Path, "The certificate authority that brokers must show, PEM."),
    Knob::optional("credentials.crl", Kind::Path, "The authority's revocation list, PEM."),
    Knob::new(
        "listen.dns",
        Kind::List(&Kind::SocketAddr),
        "[\"0.0.0.0:53\", \"[::]:53\"]",
        "Where DNS is served, UDP and TCP on the same port.",
    ),
    Knob::new("listen.tcp_idle", Kind::Duration, "10s", "How long a TCP connection may be without a query.")
        .range("1s", "10min")
        .too_small("resolvers connect again for each query")
        .too_large("idle connections hold memory and descriptors"),
    Knob::new(
        "listen.udp_threads",
        Kind::Integer,
        "0",
        "Threads for UDP at each address, each with a socket of its own; 0: one for each processor.",
    )
    .unit("threads")
    .range("0", "64")
    .too_small("processors stay idle under load")
    .too_large("threads wait for each other"),
    Knob::new(
        "listen.responses_per_second",
        Kind::Integer,
        "5000",
        "Responses over UDP that one network (/24, /56) gets; one much longer than its query counts for several. Beyond \
         it half are dropped, and half say to ask over TCP. 0: no limit.",
    )
    .unit("responses per second")
    .range("0", "4294967295")
    .too_small("large resolvers have to ask over TCP")
    .too_large("with forged addresses more can be sent to a victim"),
    Knob::optional(
        "listen.nsid",
        Kind::Text,
        "The name that clients are told who ask which server answers (RFC 5001); none when unset.",
    ),
    Knob::optional("admin.socket", Kind::Path, "The admin socket; a default for this user when unset."),
    Knob::optional(
        "state.file",
        Kind::Path,
        "Where the health of the endpoints and the operator's orders outlive the process; beside the admin socket when unset.",
    ),
    rc_daemon::metrics::ADDRESSES,
    Knob::optional("ready.file", Kind::Path, "Written once DNS is served, removed at the end."),
    Knob::new("probe.concurrency", Kind::Integer, "256", "Probes in flight at once.")
        .unit("probes")
        .range("1", "16384")
        .too_small("with many dead endpoints probes start late, and faults are noticed late")
        .too_large("needs as many file descriptors"),
    Knob::new(
        "azure.strict",
        Kind::Bool,
        "false",
        "Whether only what Azure Traffic Manager takes is taken: intervals of 30 s and 10 s with their timeouts, public \
         addresses, 200 endpoints in a profile.",
    ),
    // Where askers are.
    Knob::optional("maps.latency", Kind::Path, "Round trips by range of askers, CSV: `<range>,<location>,<ms>`."),
    Knob::optional(
        "maps.nearest",
        Kind::Path,
        "The nearest location by range of askers or part of the world, CSV: `<range or region>,<location>`.",
    ),
    Knob::optional(
        "maps.round_trips",
        Kind::Path,
        "Round trips between locations in ms, CSV with a head line; those between cloud regions when unset.",
    ),
    Knob::optional(
        "maps.geography",
        Kind::Path,
        "The part of the world by range of askers: a database in MaxMind's format (.mmdb), or CSV: `<range>,<region>`.",
    ),
    // Zones.
    Knob::required(
        "zone[].name",
        Kind::Text,
        "A part of the name space that this server is the authority for.",
    ),
    Knob::new(
        "zone[].name_servers",
        Kind::List(&Kind::Text),
        "[]",
        "Names of all servers of the zone, for its NS and SOA records; `ns.<zone>` when empty.",
    ),
    Knob::optional(
        "zone[].contact",
        Kind::Text,
        "Mail address of who is responsible, with a dot for the @; `hostmaster.<zone>` when unset.",
    ),
    Knob::optional(
        "zone[].serial",
        Kind::Integer,
        "Version of the zone in its SOA record; the time of the start when unset.",
    )
    .range("0", "4294967295"),
    Knob::new("zone[].ttl", Kind::Integer, "300", "How long the zone's own records may be cached.")
        .unit("seconds")
        .range("0", "2147483647"),
    Knob::new("zone[].negative_ttl", Kind::Integer, "30", "How long the absence of a name may be cached.")
        .unit("seconds")
        .range("0", "2147483647")
        .too_small("typing errors and missing records cost a query each")
        .too_large("a new name stays unknown to resolvers that asked too early"),
    // Fixed addresses.
    Knob::required("record[].name", Kind::Text, "A name with fixed addresses, in one of the zones."),
    Knob::required("record[].addresses", Kind::List(&Kind::Text), "Its IPv4 and IPv6 addresses."),
    Knob::optional("record[].ttl", Kind::Integer, "How long they may be cached; the zone's ttl when unset.")
        .unit("seconds")
        .range("0", "2147483647"),
    // Aliases.
    Knob::required("alias[].name", Kind::Text, "Another name for something, in one of the zones."),
    Knob::required("alias[].target", Kind::Text, "What it stands for: a name here or elsewhere."),
    Knob::optional("alias[].ttl", Kind::Integer, "How long it may be cached; the zone's ttl when unset. A flattened one has its profile's.")
        .unit("seconds")
        .range("0", "2147483647"),
    Knob::new(
        "alias[].flatten",
        Kind::Bool,
        "false",
        "Whether it answers the addresses of the target, which is a profile, in place of its name; works at a zone's apex.",
    ),
    // Profiles.
    Knob::required(
        "profile[].name",
        Kind::Text,
        "A DNS name in one of the zones whose answer depends on health.",
    ),
    Knob::new("profile[].enabled", Kind::Bool, "true", "Whether the name exists at all."),
    Knob::new("profile[].method", Kind::Choice(METHODS), "MultiValue", "How an answer is chosen."),
    Knob::new("profile[].ttl", Kind::Integer, "300", "How long an answer may be cached.")
        .unit("seconds")
        .range("0", "2147483647")
        .too_small("more queries")
        .too_large("clients dial a dead broker for longer"),
    Knob::new(
        "profile[].max_return",
        Kind::Integer,
        "2",
        "How many addresses a MultiValue answer has at most.",
    )
    .unit("addresses")
    .range("1", "10")
    .too_small("clients have nothing to choose from"),
    Knob::optional(
        "profile[].record_type",
        Kind::Choice(RECORD_TYPES),
        "The one type of record that it answers; its endpoints have to fit, and it cannot change while it is served.",
    ),
    Knob::new(
        "profile[].no_match",
        Kind::Choice(NO_MATCH),
        "nodata",
        "What Subnet routing answers when no range matches: that there are no records, or that there is no such name.",
    ),
    Knob::new(
        "profile[].all_down",
        Kind::Text,
        "all",
        "Beyond Azure. What is answered when no endpoint is available: `all` endpoints, `nodata`, `nxdomain`, or the \
         address or name given.",
    ),
    Knob::new(
        "profile[].min_healthy",
        Kind::Integer,
        "0",
        "Beyond Azure. With a smaller share of available endpoints than this, all are answered, so that the rest does not \
         drown; 0: never.",
    )
    .unit("percent")
    .range("0", "100")
    .too_large("dead endpoints are answered although others live"),
    Knob::new(
        "profile[].weighted",
        Kind::Bool,
        "false",
        "Beyond Azure. Whether MultiValue draws endpoints in proportion to their weights.",
    ),
    Knob::optional(
        "profile[].shed_from",
        Kind::Integer,
        "Beyond Azure. MultiValue draws by free capacity, and leaves out endpoints by chance from this load on.",
    )
    .unit("per mille")
    .range("0", "1000"),
    Knob::optional(
        "profile[].shed_at",
        Kind::Integer,
        "Beyond Azure. From this load on MultiValue leaves an endpoint out while another has less; needs shed_from.",
    )
    .unit("per mille")
    .range("1", "1000"),
    Knob::optional(
        "profile[].subset",
        Kind::Integer,
        "Beyond Azure. Each network of askers (/24, /56) gets MultiValue answers from so many endpoints, always the same \
         while they live; others get others.",
    )
    .unit("endpoints")
    .range("1", "1000")
    .too_small("a fault of one endpoint leaves its networks with few"),
    Knob::new(
        "profile[].protocol",
        Kind::Choice(PROTOCOLS),
        "broker",
        "How its endpoints are probed: `broker` asks a broker's data path with our own certificate.",
    ),
    Knob::optional("profile[].probe_path", Kind::Text, "The path that HTTP and HTTPS ask for; required for these, and for no other."),
    Knob::new(
        "profile[].probe_headers",
        Kind::List(&Kind::Text),
        "[]",
        "Headers of HTTP and HTTPS probes, `Name: value`, at most 8.",
    ),
    Knob::new(
        "profile[].expected_status",
        Kind::List(&Kind::Text),
        "[\"200\"]",
        "Status codes of HTTP and HTTPS that count as healthy: codes or ranges such as `200-299`, at most 8.",
    ),
    Knob::new("profile[].probe_port", Kind::Integer, "443", "The TCP port that probes dial.")
        .range("1", "65535"),
    Knob::new(
        "profile[].interval",
        Kind::Duration,
        "30s",
        "Time from one probe of an endpoint to the next; up to a tenth less, at random.",
    )
    .range("100ms", "1h")
    .too_small("costs brokers a handshake each")
    .too_large("a dead broker stays in the answers for longer"),
    Knob::optional(
        "profile[].timeout",
        Kind::Duration,
        "How long a probe may take, at most the interval; nine tenths of the interval, and at most 10 s, when unset.",
    )
    .range("50ms", "1h")
        .too_small("a far or busy broker counts as dead")
        .too_large("a frozen broker stays in the answers for longer"),
    Knob::new(
        "profile[].tolerated_failures",
        Kind::Integer,
        "3",
        "Failed probes in a row that change nothing; one more takes the endpoint out.",
    )
    .range("0", "9")
    .too_small("one lost packet takes a broker out")
    .too_large("a dead broker stays in the answers for longer"),
    Knob::new(
        "profile[].flap_limit",
        Kind::Integer,
        "0",
        "How often an endpoint may be taken out within ten minutes and still come back at its first success; each \
         further time doubles the successes in a row that it needs, up to 16. 0: the first success always counts.",
    )
    .range("0", "20")
    .too_small("an endpoint that was out by chance stays out for longer"),
    Knob::optional(
        "profile[].service_name",
        Kind::Text,
        "DNS name that a probed broker's certificate must have; the profile's name when unset.",
    ),
    // Endpoints.
    Knob::required("endpoint[].profile", Kind::Text, "Name of the profile that it belongs to."),
    Knob::required("endpoint[].name", Kind::Text, "Its name in status and events."),
    Knob::new("endpoint[].kind", Kind::Choice(ENDPOINT_KINDS), "external", "Whether it is a service of Azure, or any other."),
    Knob::optional("endpoint[].address", Kind::Text, "The IP address that answers give; this, target or nested."),
    Knob::optional("endpoint[].target", Kind::Text, "The DNS name that answers give (CNAME)."),
    Knob::optional("endpoint[].nested", Kind::Text, "Name of the profile whose answer is given."),
    Knob::new(
        "endpoint[].min_children",
        Kind::Integer,
        "1",
        "Available endpoints that a nested profile needs to be used.",
    )
    .unit("endpoints")
    .range("0", "100000"),
    Knob::new("endpoint[].min_children_ipv4", Kind::Integer, "0", "The same for endpoints that give IPv4.")
        .unit("endpoints")
        .range("0", "100000"),
    Knob::new("endpoint[].min_children_ipv6", Kind::Integer, "0", "The same for endpoints that give IPv6.")
        .unit("endpoints")
        .range("0", "100000"),
    Knob::optional(
        "endpoint[].priority",
        Kind::Integer,
        "Priority: the available endpoint with the lowest is answered; the order of the file when unset for all.",
    )
    .range("1", "1000"),
    Knob::new("endpoint[].weight", Kind::Integer, "1", "Weighted: its share of the answers.").range("1", "1000"),
    Knob::optional("endpoint[].location", Kind::Text, "Performance: where it is, such as `west-europe`."),
    Knob::new(
        "endpoint[].regions",
        Kind::List(&Kind::Text),
        "[]",
        "Geographic: whose askers it gets: `WORLD`, groups such as `GEO-EU`, countries such as `IE`, states such as `US-CA`.",
    ),
    Knob::new(
        "endpoint[].subnets",
        Kind::List(&Kind::Text),
        "[]",
        "Subnet: whose askers it gets: `192.0.2.0/24`, `192.0.2.3-192.0.2.9` or `192.0.2.3`. They come before the method \
         of Performance and Geographic profiles.",
    ),
    Knob::new(
        "endpoint[].probe_headers",
        Kind::List(&Kind::Text),
        "[]",
        "Headers of its HTTP and HTTPS probes, `Name: value`; they come before the profile's of the same name.",
    ),
    Knob::new("endpoint[].enabled", Kind::Bool, "true", "Whether it is probed and answered at all."),
    Knob::new(
        "endpoint[].always_serve",
        Kind::Bool,
        "false",
        "Whether it counts as healthy without being probed.",
    ),
    Knob::optional(
        "endpoint[].broker",
        Kind::Text,
        "The broker that must answer there, `<region>/<id>`; any broker of the service when unset.",
    ),
    Knob::optional(
        "endpoint[].probe_address",
        Kind::SocketAddr,
        "What probes dial; its address with the profile's probe_port when unset.",
    ),
];

/// The reference page.
pub fn reference() -> String {
    rc_daemon::config::reference(BINARY, KNOBS)
}
