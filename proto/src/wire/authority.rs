//! Who may say what: the one table of role × ALPN × message.

use std::fmt;

/// What a certificate says its owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A broker daemon.
    Broker,
    /// The engineer's side of a session.
    Controller,
    /// The machine that is controlled.
    Target,
    /// Holds start and inventory data; never in the data path.
    RcServer,
    /// Probes brokers and answers DNS.
    TrafficManager,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Broker, Self::Controller, Self::Target, Self::RcServer, Self::TrafficManager];

    /// The role's segment in a SPIFFE path.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Controller => "controller",
            Self::Target => "target",
            Self::RcServer => "rc-server",
            Self::TrafficManager => "traffic-manager",
        }
    }

    /// The role that a SPIFFE path segment names.
    pub fn from_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.segment() == segment)
    }

    /// Whether its certificate must allow TLS server authentication.
    pub fn is_tls_server(self) -> bool {
        matches!(self, Self::Broker | Self::Target | Self::RcServer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment())
    }
}

/// Application protocol of a connection; its number marks incompatible generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// Control link of an endpoint.
    Control,
    /// One leg of a path.
    Path,
    /// Link between brokers.
    Mesh,
    /// End to end between Controller and Target.
    EndToEnd,
}

impl Alpn {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Control, Self::Path, Self::Mesh, Self::EndToEnd];

    /// The protocol's name in the TLS handshake.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "rc-ctl/1",
            Self::Path => "rc-path/1",
            Self::Mesh => "rc-mesh/1",
            Self::EndToEnd => "rc-e2e/1",
        }
    }

    /// The protocol that a handshake agreed on.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.name().as_bytes() == name)
    }

    /// Whether a peer of `role` may dial a broker with this protocol.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Control => matches!(role, Role::Controller | Role::Target | Role::TrafficManager),
            Self::Path => matches!(role, Role::Controller | Role::Target | Role::Broker),
            Self::Mesh => role == Role::Broker,
            Self::EndToEnd => false,
        }
    }
}

/// The kinds of control messages; the number is the envelope's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[expect(missing_docs, reason = "each is documented at its struct in `message`")]
pub enum MessageKind {
    Hello = 1,
    Welcome = 2,
    Ping = 3,
    Pong = 4,
    Register = 5,
    Registered = 6,
    Superseded = 7,
    RetryAfter = 8,
    Unregister = 9,
    OpenPath = 10,
    MeshOpen = 11,
    Invite = 12,
    JoinPath = 13,
    PathOpened = 14,
    PathFailed = 15,
    ClosePath = 16,
    PathClosed = 17,
    Locate = 18,
    Here = 19,
    NotHere = 20,
    Announce = 21,
    Peers = 22,
    Matrix = 23,
    Crl = 24,
    Deny = 25,
    Drain = 26,
    ScoreReport = 27,
}

impl MessageKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 27] = [
        Self::Hello,
        Self::Welcome,
        Self::Ping,
        Self::Pong,
        Self::Register,
        Self::Registered,
        Self::Superseded,
        Self::RetryAfter,
        Self::Unregister,
        Self::OpenPath,
        Self::MeshOpen,
        Self::Invite,
        Self::JoinPath,
        Self::PathOpened,
        Self::PathFailed,
        Self::ClosePath,
        Self::PathClosed,
        Self::Locate,
        Self::Here,
        Self::NotHere,
        Self::Announce,
        Self::Peers,
        Self::Matrix,
        Self::Crl,
        Self::Deny,
        Self::Drain,
        Self::ScoreReport,
    ];

    /// The envelope's type number.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The kind of a type number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Whether a peer whose certificate says `role` may send `kind` on a connection of `alpn`.
///
/// Anything else is closed uniformly (protocol section 3).
pub fn may_send(role: Role, alpn: Alpn, kind: MessageKind) -> bool {
    use MessageKind as K;
    let by_alpn = match alpn {
        Alpn::EndToEnd => false,
        Alpn::Path => matches!(kind, K::OpenPath | K::MeshOpen | K::JoinPath | K::PathOpened | K::PathFailed),
        Alpn::Control => !matches!(
            kind,
            K::OpenPath
                | K::MeshOpen
                | K::JoinPath
                | K::PathOpened
                | K::PathFailed
                | K::Locate
                | K::Here
                | K::NotHere
                | K::Announce
                | K::Peers
                | K::Matrix
        ),
        Alpn::Mesh => matches!(
            kind,
            K::Hello
                | K::Welcome
                | K::Ping
                | K::Pong
                | K::Locate
                | K::Here
                | K::NotHere
                | K::Announce
                | K::Peers
                | K::Matrix
                | K::Crl
                | K::Deny
                | K::Drain
                | K::ScoreReport
        ),
    };
    by_alpn && by_role(role, alpn, kind)
}

fn by_role(role: Role, alpn: Alpn, kind: MessageKind) -> bool {
    use MessageKind as K;
    match kind {
        K::Hello => match role {
            Role::Controller | Role::Target => alpn == Alpn::Control,
            Role::Broker => alpn == Alpn::Mesh,
            Role::RcServer | Role::TrafficManager => false,
        },
        K::Ping => match role {
            Role::Controller | Role::Target | Role::TrafficManager => alpn == Alpn::Control,
            Role::Broker => true,
            Role::RcServer => false,
        },
        K::Register | K::Unregister | K::JoinPath => role == Role::Target,
        K::OpenPath => role == Role::Controller,
        K::ClosePath => matches!(role, Role::Controller | Role::Target),
        K::ScoreReport => match role {
            Role::Controller | Role::Target => alpn == Alpn::Control,
            Role::Broker => alpn == Alpn::Mesh,
            Role::RcServer | Role::TrafficManager => false,
        },
        K::MeshOpen
        | K::Locate
        | K::Here
        | K::NotHere
        | K::Announce
        | K::Peers
        | K::Matrix
        | K::Welcome
        | K::Pong
        | K::Registered
        | K::Superseded
        | K::RetryAfter
        | K::Invite
        | K::PathOpened
        | K::PathFailed
        | K::PathClosed
        | K::Drain
        | K::Crl
        | K::Deny => role == Role::Broker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_numbers_round_trip() {
        for (index, kind) in MessageKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), index + 1);
            assert_eq!(MessageKind::from_number(kind.number()), Some(kind));
        }
        assert_eq!(MessageKind::from_number(0), None);
        assert_eq!(MessageKind::from_number(28), None);
    }

    #[test]
    fn only_brokers_speak_on_the_mesh() {
        for role in Role::ALL {
            for kind in MessageKind::ALL {
                assert!(role == Role::Broker || !may_send(role, Alpn::Mesh, kind), "{role} {kind:?}");
            }
        }
    }

    #[test]
    fn endpoints_send_exactly_what_the_table_says() {
        let sends = |role, alpn| {
            MessageKind::ALL.into_iter().filter(|kind| may_send(role, alpn, *kind)).collect::<Vec<_>>()
        };
        use MessageKind as K;
        assert_eq!(sends(Role::Controller, Alpn::Control), [K::Hello, K::Ping, K::ClosePath, K::ScoreReport]);
        assert_eq!(sends(Role::Controller, Alpn::Path), [K::OpenPath]);
        assert_eq!(
            sends(Role::Target, Alpn::Control),
            [K::Hello, K::Ping, K::Register, K::Unregister, K::ClosePath, K::ScoreReport]
        );
        assert_eq!(sends(Role::Target, Alpn::Path), [K::JoinPath]);
        assert_eq!(sends(Role::TrafficManager, Alpn::Control), [K::Ping]);
        assert_eq!(sends(Role::TrafficManager, Alpn::Path), []);
        for alpn in Alpn::ALL {
            assert_eq!(sends(Role::RcServer, alpn), []);
        }
    }

    #[test]
    fn nobody_dials_a_broker_end_to_end() {
        assert!(Role::ALL.into_iter().all(|role| !Alpn::EndToEnd.admits(role)));
        assert!(!Alpn::Mesh.admits(Role::Target));
        assert!(!Alpn::Control.admits(Role::Broker));
    }
}
