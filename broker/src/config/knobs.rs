//! Every key that can be configured.

use rc_daemon::config::{Kind, Knob};

/// The knob table.
pub const KNOBS: &[Knob] = &[
    Knob::required("credentials.certificate", Kind::Path, "Our certificate chain, role broker, PEM."),
    Knob::required("credentials.key", Kind::Path, "Its private key, PEM; readable by its owner only."),
    Knob::required(
        "credentials.ca",
        Kind::Path,
        "The certificate authorities that everybody is judged by, PEM.",
    ),
    Knob::optional("credentials.crl", Kind::Path, "Their revocation lists, PEM."),
    Knob::required(
        "tickets.keys",
        Kind::Path,
        "The public keys that tickets are judged by, as `rc-certs ticket-key` writes them (JWK set).",
    ),
    Knob::optional(
        "tickets.deny",
        Kind::Path,
        "The list of revoked tickets, as `rc-certs revoke --ticket` writes it (deny.jws); taken when it appears and whenever it changes.",
    ),
    Knob::optional(
        "identity.region",
        Kind::Text,
        "The region that our certificate must name; the certificate decides, this only guards against a mix-up.",
    ),
    Knob::optional("identity.id", Kind::Text, "The id that our certificate must name; as `identity.region`."),
    Knob::new(
        "listen.addresses",
        Kind::List(&Kind::SocketAddr),
        "[\"0.0.0.0:443\", \"[::]:443\"]",
        "Where endpoints and other brokers connect; control, path and mesh connections share the port.",
    ),
    Knob::optional(
        "advertise.name",
        Kind::HostPort,
        "What others dial to reach this very broker; when unset, the first DNS name of the certificate with the port of the first address.",
    ),
    Knob::optional(
        "advertise.addresses",
        Kind::List(&Kind::SocketAddr),
        "Addresses that others dial when the name does not lead here; when unset, those that it listens at. An empty list tells none.",
    ),
    Knob::new(
        "mesh.seeds",
        Kind::List(&Kind::Text),
        "[]",
        "Other brokers: `host:port` (every address of the name; who answers must have it in its certificate) or `region/id@address:port`. The broker's own name among them is fine.",
    ),
    Knob::new("mesh.ping", Kind::Duration, "1s", "How often a mesh link is pinged.")
        .range("100ms", "10s")
        .too_small("costs traffic and wake-ups on every link")
        .too_large("a dead peer is noticed late, round trips are stale"),
    Knob::new("mesh.down_after", Kind::Duration, "3s", "Silence after which a mesh link is down.")
        .range("300ms", "60s")
        .too_small("a short stall takes links down")
        .too_large("new paths are tried through a dead peer"),
    Knob::new(
        "resolver.servers",
        Kind::List(&Kind::SocketAddr),
        "[]",
        "Name servers to ask; the system's when empty.",
    ),
    Knob::new("resolver.timeout", Kind::Duration, "1s", "How long one name server may take.")
        .range("100ms", "10s")
        .too_small("slow name servers count as dead")
        .too_large("a dead name server delays the mesh"),
    Knob::new("resolver.attempts", Kind::Integer, "2", "Attempts at each name server.")
        .unit("attempts")
        .range("1", "5"),
    Knob::optional("admin.socket", Kind::Path, "The admin socket; a default for this user when unset."),
    Knob::optional(
        "ready.file",
        Kind::Path,
        "Written once the broker listens, with the real addresses; removed at the end.",
    ),
    Knob::new(
        "timers.keep_alive",
        Kind::Duration,
        "15s",
        "How often endpoints should ping their control link.",
    )
    .range("1s", "60s")
    .too_small("wastes traffic and wakes sleeping devices")
    .too_large("middleboxes forget the connection"),
    Knob::new(
        "timers.control_silence",
        Kind::Duration,
        "45s",
        "Silence after which a control link is closed.",
    )
    .range("2s", "10min")
    .too_small("one lost keep-alive costs the registration")
    .too_large("a Target that is gone is still invited"),
    Knob::new(
        "timers.path_idle",
        Kind::Duration,
        "60s",
        "A path without a byte either way for so long is ended.",
    )
    .range("1s", "1h")
    .too_small("idle sessions lose their path between two of their pings")
    .too_large("paths of dead endpoints hold memory and descriptors"),
    Knob::new(
        "timers.pooled_leg_idle",
        Kind::Duration,
        "60s",
        "How long a proven connection of an endpoint may wait for its first frame.",
    )
    .range("5s", "1h")
    .too_small("connections kept ready are dialled again and again")
    .too_large("unused connections hold descriptors"),
    Knob::new("timers.mesh_leg_idle", Kind::Duration, "5min", "The same between brokers.")
        .range("5s", "1h")
        .too_small("connections kept ready are dialled again and again")
        .too_large("unused connections hold descriptors"),
    Knob::new(
        "timers.open",
        Kind::Duration,
        "15s",
        "The longest that opening a path may take, whatever was asked for.",
    )
    .range("1s", "60s")
    .too_small("Targets far away are never reached")
    .too_large("dead Targets hold opens"),
    Knob::new(
        "timers.park",
        Kind::Duration,
        "10s",
        "The longest that an open waits for a Target that is not there.",
    )
    .range("0s", "10s")
    .too_small("a Target that is just reconnecting is not found")
    .too_large("unknown Targets hold opens"),
    Knob::new(
        "drain.deadline",
        Kind::Duration,
        "60s",
        "From the request to stop to the end, whatever is left.",
    )
    .range("0s", "1h")
    .too_small("sessions are cut before they have moved")
    .too_large("a restart takes long"),
    Knob::new(
        "drain.spread",
        Kind::Duration,
        "30s",
        "Over how long paths spread their move, at most half the deadline.",
    )
    .range("0s", "30min")
    .too_small("other brokers get all sessions at once")
    .too_large("sessions that move late have little time"),
    Knob::new("limits.paths", Kind::Integer, "10000", "Paths at once.")
        .unit("paths")
        .range("1", "1000000")
        .too_small("sessions are refused as busy")
        .too_large("runs out of descriptors (two for each) and memory"),
    Knob::new("limits.registrations", Kind::Integer, "50000", "Registered Targets at once.")
        .unit("registrations")
        .range("1", "10000000")
        .too_small("Targets are sent away")
        .too_large("runs out of descriptors and memory"),
    Knob::new(
        "limits.control_links",
        Kind::Integer,
        "60000",
        "Control links at once, Controllers' included.",
    )
    .unit("links")
    .range("1", "10000000")
    .too_small("endpoints are refused")
    .too_large("runs out of descriptors and memory"),
    Knob::new(
        "limits.waiting_legs",
        Kind::Integer,
        "20000",
        "Proven path connections that wait for their first frame at once.",
    )
    .unit("connections")
    .range("1", "10000000")
    .too_small("connections that endpoints keep ready are refused")
    .too_large("unused connections hold descriptors and memory"),
    Knob::new(
        "limits.handshakes",
        Kind::Integer,
        "4096",
        "Handshakes at once, at most an eighth of them from one /24 (IPv6: /56); more connections wait in the listen queue.",
    )
    .unit("handshakes")
    .range("1", "65536")
    .too_small("slow peers keep others waiting")
    .too_large("a flood takes all processors and memory"),
    Knob::new(
        "limits.connections_per_second",
        Kind::Integer,
        "200",
        "New connections a second from one /24 (IPv6: /56), after the burst; loopback is not limited.",
    )
    .unit("per second")
    .range("1", "1000000")
    .too_small("many endpoints behind one address are locked out")
    .too_large("one network can take all handshakes"),
    Knob::new(
        "limits.connections_burst",
        Kind::Integer,
        "2000",
        "New connections at once from one /24 (IPv6: /56).",
    )
    .unit("connections")
    .range("1", "1000000")
    .too_small("many endpoints behind one address are locked out when they return together")
    .too_large("one network can take all handshakes"),
    Knob::new(
        "limits.opens_per_second",
        Kind::Integer,
        "500",
        "Opens a second of all Controllers, after the burst.",
    )
    .unit("per second")
    .range("1", "1000000")
    .too_small("sessions wait for their slot")
    .too_large("a herd takes the time of running sessions"),
    Knob::new(
        "limits.opens_burst",
        Kind::Integer,
        "2000",
        "Opens of all Controllers at once; half of it is kept for sessions that exist.",
    )
    .unit("opens")
    .range("4", "1000000")
    .too_small("sessions wait for their slot")
    .too_large("a herd takes the time of running sessions"),
    Knob::new(
        "limits.registrations_per_second",
        Kind::Integer,
        "500",
        "Targets that register a second, after the burst; the others get a slot.",
    )
    .unit("per second")
    .range("1", "1000000")
    .too_small("Targets are away for long after a broker was lost")
    .too_large("a herd takes the time of running sessions"),
    Knob::new(
        "limits.registrations_burst",
        Kind::Integer,
        "1000",
        "Targets that register at once; a quarter of it is kept for those with a session.",
    )
    .unit("registrations")
    .range("4", "1000000")
    .too_small("sessions wait for their Target")
    .too_large("a herd takes the time of running sessions"),
    Knob::new(
        "limits.announced_targets",
        Kind::Integer,
        "500000",
        "Targets of which peers may have announced where they are.",
    )
    .unit("targets")
    .range("1", "100000000")
    .too_small("Targets of a large mesh are found by asking, one round trip later")
    .too_large("a peer can fill the memory"),
];
