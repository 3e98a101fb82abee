//! What a driver may set, and the flaws that tests put in.

use std::time::Duration;

use crate::wire::limits::{CHANNEL_INITIAL_CREDIT_BYTES, FRAME_PAYLOAD_BYTES_MAX};

/// Settings of one side of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Bytes that one channel keeps until the peer acknowledges them. Too small stalls a fast path (it must hold
    /// a round trip of data: 4 MiB are 150 Mbit/s over 220 ms), too large costs memory per busy channel. Default 4 MiB.
    pub send_cap_bytes: usize,
    /// Bytes that the peer may send on one channel ahead of the application's reading; at least the initial
    /// credit of 64 KiB. Default 4 MiB.
    pub receive_window_bytes: u64,
    /// How long the session is kept without a path. The Controller uses the smaller of this and what the Target
    /// announces less 30 s. Default 120 s.
    pub resume_window: Duration,
    /// Largest payload of one DATA frame; at most 16 KiB, the default.
    pub frame_payload_bytes_max: usize,
    /// Feature bits offered end to end. Default none.
    pub features: u64,
    /// A deliberate bug that the simulations must catch.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            send_cap_bytes: 4 * 1024 * 1024,
            receive_window_bytes: 4 * 1024 * 1024,
            resume_window: Duration::from_secs(120),
            frame_payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX,
            features: 0,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl SessionConfig {
    /// The settings with every value inside its range.
    pub(super) fn clamped(mut self) -> Self {
        self.receive_window_bytes = self.receive_window_bytes.max(CHANNEL_INITIAL_CREDIT_BYTES);
        self.frame_payload_bytes_max = self.frame_payload_bytes_max.clamp(1, FRAME_PAYLOAD_BYTES_MAX);
        self.send_cap_bytes = self.send_cap_bytes.max(1);
        self
    }

    pub(super) fn flaw(&self) -> Flaw {
        #[cfg(feature = "mutants")]
        return Flaw(self.mutant);
        #[cfg(not(feature = "mutants"))]
        Flaw
    }
}

/// A deliberate bug. Each one is caught by a test; no release binary can set one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A bind leaves the cursor where it was.
    NoRewindOnBind,
    /// A peer that wants bytes from below base is taken for broken.
    PositionBelowBaseFatal,
    /// Bytes leave the replay buffer when they are sent.
    ReplayFreedOnSend,
    /// Bytes that came before are delivered again.
    DuplicatesCounted,
    /// FIN is sent once only.
    FinNotRepeated,
    /// The last credit counts, not the highest.
    CreditOverwritten,
    /// SKIP is sent once only.
    SkipNotRepeated,
    /// A bind repeats no acknowledgement.
    AcksNotRepeated,
    /// OPEN is sent once only.
    OpenNotRepeated,
    /// The window of a path stays as it starts.
    WindowNeverOpens,
    /// The window of a path grows whatever waits in front of it.
    WindowIgnoresDelay,
    /// An ATTACH is accepted whatever epochs were seen before.
    EpochCheckDropped,
    /// A path that is to stand by carries the session at once.
    StandbyBinds,
    /// More is kept for replay than the cap allows.
    CapIgnored,
    /// More is written than the peer has granted.
    CreditIgnored,
    /// FIN goes with whatever DATA is sent after it was wanted.
    FinBeforeLastByte,
    /// An acknowledgement says one position more than was received.
    AckAhead,
    /// The credit that is granted follows the unread bytes down again.
    GrantShrinks,
    /// SKIP ends one byte before a boundary.
    SkipOffBoundary,
    /// FIN takes no position, so nothing acknowledges it.
    FinNotAcknowledged,
    /// END goes while channels are still open.
    EndBeforeChannels,
}

/// Which flaw is in force; without the feature a constant no.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Flaw(Option<Mutant>);

/// Which flaw is in force; without the feature a constant no.
#[cfg(not(feature = "mutants"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Flaw;

impl Flaw {
    #[cfg(feature = "mutants")]
    pub(super) fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature")]
    pub(super) fn is(self, _mutant: Mutant) -> bool {
        false
    }
}
