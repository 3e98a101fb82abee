//! One table of the u16 codes that cross a wire. They are constants, not enum positions: a code that this
//! version does not know stays representable and reads as the family's own fallback.

use std::fmt;

use super::codec::{Decode, Encode};

/// A family of codes: a u16 with named constants.
macro_rules! code_family {
    ($(#[$doc:meta])* $family:ident { $( $(#[$code_doc:meta])* $name:ident = $value:literal, $text:literal; )+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $family(pub u16);

        impl $family {
            $( $(#[$code_doc])* pub const $name: Self = Self($value); )+

            /// Every code that this version knows.
            pub const ALL: &'static [Self] = &[$( Self::$name ),+];

            /// The code's name in logs and `--json`; `None` for a code of a later version.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some($text), )+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $family {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "unknown-{}", self.0),
                }
            }
        }

        impl fmt::Debug for $family {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($family))
            }
        }

        impl serde::Serialize for $family {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

code_family!(
    /// Why a path was not opened.
    PathFailure {
        /// No Target of that id is registered anywhere, or it went away before the deadline.
        NOT_FOUND = 1, "not-found";
        /// The broker named last in the route does not hold the Target.
        NOT_HERE = 2, "not-here";
        /// Ticket, identity or revocation forbids it.
        UNAUTHORIZED = 3, "unauthorized";
        /// A limit is reached.
        BUSY = 4, "busy";
        /// Try again after the time that the message carries.
        RETRY_AFTER = 5, "retry-after";
        /// The broker is about to stop.
        DRAINING = 6, "draining";
        /// The route is longer than three brokers or names one twice.
        HOP_LIMIT = 7, "hop-limit";
        /// The broker sees half or less of the mesh, so it cannot tell whether the Target is there.
        ISOLATED = 8, "isolated";
        /// Not every peer answered, so it cannot tell whether the Target is there.
        PARTIAL = 9, "partial";
        /// No common protocol version.
        VERSION = 10, "version";
        /// The deadline passed.
        TIMEOUT = 11, "timeout";
        /// Anything else; the broker's event has the cause.
        INTERNAL = 12, "internal";
    }
);

impl PathFailure {
    /// Whether another attempt could give another answer, for a session that starts now.
    ///
    /// For any purpose but new no failure is final (protocol section 4).
    pub fn is_final_for_new(self) -> bool {
        matches!(self, Self::NOT_FOUND | Self::UNAUTHORIZED | Self::VERSION)
    }
}

code_family!(
    /// Why a path that was open ended, in PathClosed.
    PathEnd {
        /// An endpoint asked for it or closed its leg cleanly.
        CLOSED = 1, "closed";
        /// A leg broke.
        LEG_LOST = 2, "leg-lost";
        /// No byte either way for the idle limit.
        IDLE = 3, "idle";
        /// The broker stopped.
        DRAINED = 4, "drained";
        /// An operator disconnected it.
        DISCONNECTED = 5, "disconnected";
        /// A certificate of the path was revoked or ran out.
        REVOKED = 6, "revoked";
    }
);

code_family!(
    /// What a path is wanted for.
    Purpose {
        /// The first path of a session.
        NEW = 1, "new";
        /// A path after a loss.
        RESUME = 2, "resume";
        /// A path before the old one ends.
        HANDOVER = 3, "handover";
        /// A path kept ready.
        STANDBY = 4, "standby";
    }
);

code_family!(
    /// The kind of a path.
    Lane {
        /// Everything but bulk.
        INTERACTIVE = 1, "interactive";
        /// File transfers and the like.
        BULK = 2, "bulk";
    }
);

code_family!(
    /// Role of a registration.
    RegistrationRole {
        /// Where the Target is found first.
        PRIMARY = 1, "primary";
        /// A second registration, kept in another region while in session.
        STANDBY = 2, "standby";
        /// Found only by an open that names its instance.
        RESUME = 3, "resume";
    }
);

code_family!(
    /// What an ATTACH asks for.
    AttachKind {
        /// Start the session, or repeat the start whose answer was lost.
        NEW = 1, "new";
        /// Continue it on another path.
        RESUME = 2, "resume";
        /// Keep the path ready; binds nothing.
        STANDBY = 3, "standby";
    }
);

code_family!(
    /// Why an ATTACH was refused.
    Refusal {
        /// A higher epoch was seen; the message carries it.
        STALE_EPOCH = 1, "stale-epoch";
        /// This instance does not know the session.
        UNKNOWN_SESSION = 2, "unknown-session";
        /// The session has ended; the message carries its end code.
        ENDED = 3, "ended";
        /// Authorisation failed; the message carries the [`Denial`].
        DENIED = 4, "denied";
        /// No common protocol version.
        VERSION = 5, "version";
    }
);

code_family!(
    /// Why authorisation failed end to end.
    Denial {
        /// The ticket has started another session.
        TICKET_USED = 1, "ticket-used";
        /// `start_by` or `exp` has passed.
        TICKET_EXPIRED = 2, "ticket-expired";
        /// The ticket is not valid yet: the clocks differ.
        CLOCK = 3, "clock";
        /// A limit of the Target is reached.
        BUSY = 4, "busy";
        /// The ticket or a certificate was revoked.
        REVOKED = 5, "revoked";
        /// The ticket does not fit the identities, or allows nothing here.
        NOT_PERMITTED = 6, "not-permitted";
    }
);

impl Denial {
    /// Whether the session ends, rather than this attempt (protocol section 5).
    pub fn ends_session(self) -> bool {
        matches!(self, Self::REVOKED | Self::NOT_PERMITTED)
    }
}

code_family!(
    /// Priority of a channel, highest first.
    Class {
        /// The session itself and small control channels.
        CONTROL = 0, "control";
        /// Keyboard, mouse, terminal.
        INPUT = 1, "input";
        /// Cursor shape and clipboard.
        CURSOR = 2, "cursor";
        /// Sound.
        AUDIO = 3, "audio";
        /// Screen updates.
        SCREEN = 4, "screen";
        /// Everything else: files, forwarded ports.
        BULK = 5, "bulk";
    }
);

impl Class {
    /// Whether an acknowledgement is sent at once rather than batched.
    pub fn is_interactive(self) -> bool {
        matches!(self, Self::CONTROL | Self::INPUT | Self::CURSOR)
    }
}

code_family!(
    /// Why a channel was reset.
    ResetCode {
        /// The application gave it up.
        CANCELLED = 1, "cancelled";
        /// The person in front, or the policy, said no.
        REFUSED = 2, "refused";
        /// The ticket does not permit the service.
        NOT_PERMITTED = 3, "not-permitted";
        /// The Target offers no such service.
        NO_SUCH_SERVICE = 4, "no-such-service";
        /// A limit of channels is reached.
        TOO_MANY = 5, "too-many";
        /// The service failed; its own words are in the message.
        SERVICE_FAILED = 6, "service-failed";
        /// Anything else.
        INTERNAL = 7, "internal";
    }
);

code_family!(
    /// Why a session ended.
    EndCode {
        /// Every channel is finished and the application is done.
        DONE = 1, "done";
        /// Whoever sits in front of the Target ended it.
        DISCONNECTED = 2, "disconnected";
        /// The resume window ran out without a path.
        WINDOW_EXPIRED = 3, "window-expired";
        /// The ticket ran out.
        TICKET_EXPIRED = 4, "ticket-expired";
        /// A certificate or ticket was revoked.
        REVOKED = 5, "revoked";
        /// The last path died and this version does not resume.
        PATH_LOST = 6, "path-lost";
        /// The process is about to stop.
        SHUTDOWN = 7, "shutdown";
        /// The peer refused the session.
        REFUSED = 8, "refused";
        /// Anything else.
        INTERNAL = 9, "internal";
    }
);

code_family!(
    /// Which rule the peer broke so that the session cannot go on.
    AbortCode {
        /// A running hash differs: bytes were changed.
        CORRUPT = 1, "corrupt";
        /// DATA beyond the granted credit.
        CREDIT = 2, "credit";
        /// An acknowledgement beyond what was sent.
        ACK_BEYOND_END = 3, "ack-beyond-end";
        /// A second OPEN of one id that differs from the first.
        OPEN_DIFFERS = 4, "open-differs";
        /// A second end of one channel that differs from the first.
        END_DIFFERS = 5, "end-differs";
        /// Three gaps within 60 s.
        GAPS = 6, "gaps";
        /// Any other broken rule.
        PROTOCOL = 7, "protocol";
    }
);

code_family!(
    /// Why a Target asks in band for another path.
    RepathReason {
        /// It hears nothing.
        SUSPECT = 1, "suspect";
        /// Its broker drains.
        DRAIN = 2, "drain";
        /// It knows a better broker.
        BETTER = 3, "better";
        /// Its network changed.
        NETWORK_CHANGED = 4, "network-changed";
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_family_are_distinct_and_named() {
        fn distinct(codes: impl Iterator<Item = (u16, Option<&'static str>)>) {
            let mut seen = std::collections::BTreeMap::new();
            for (code, name) in codes {
                let name = name.unwrap();
                assert!(!seen.values().any(|n| *n == name), "{name} stands twice");
                assert_eq!(seen.insert(code, name), None, "{code} stands twice");
            }
        }
        distinct(PathFailure::ALL.iter().map(|c| (c.0, c.name())));
        distinct(Denial::ALL.iter().map(|c| (c.0, c.name())));
        distinct(ResetCode::ALL.iter().map(|c| (c.0, c.name())));
        distinct(EndCode::ALL.iter().map(|c| (c.0, c.name())));
        distinct(AbortCode::ALL.iter().map(|c| (c.0, c.name())));
        distinct(Class::ALL.iter().map(|c| (c.0, c.name())));
        distinct(PathEnd::ALL.iter().map(|c| (c.0, c.name())));
    }

    #[test]
    fn a_code_of_a_later_version_stays_printable() {
        assert_eq!(PathFailure(900).to_string(), "unknown-900");
        assert!(!PathFailure(900).is_final_for_new());
    }
}
