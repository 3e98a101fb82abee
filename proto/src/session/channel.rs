//! One channel: its offer, its two directions, and which path carries it.

use super::ack::AckSchedule;
use super::config::{Flaw, Mutant};
use super::event::PathKey;
use super::receiver::ChannelReceiver;
use super::sender::ChannelSender;
use crate::Moment;
use crate::wire::ChannelId;
use crate::wire::codes::{Class, ResetCode};
use crate::wire::frame::{ChannelClaim, Open};
use crate::wire::limits::CHANNEL_INITIAL_CREDIT_BYTES;

/// Who offered the channel and what came of it.
///
/// ```text
/// Asked{answered: no} ──ACK──▶ Asked{answered} ──OPENED──▶ Agreed        this side opened it
/// Pending ──accept──▶ Agreed                                             the peer opened it
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// This side opened it; OPEN is repeated until anything answers.
    Asked { answered: bool },
    /// The peer opened it and the application has not said yes.
    Pending,
    /// Both sides use it.
    Agreed,
}

/// What the application is waiting for and what it was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// A `Readable` event is out and no read has come back empty since.
    pub(super) readable: bool,
    /// A write was cut short.
    pub(super) wants_room: bool,
}

/// An open channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) open: Open,
    pub(super) opened_here: bool,
    pub(super) consent: Consent,
    pub(super) sender: ChannelSender,
    pub(super) receiver: ChannelReceiver,
    pub(super) ack: AckSchedule,
    pub(super) bound: Option<PathKey>,
    /// OPEN (opener) or OPENED (acceptor) is to be sent on the bound path.
    pub(super) offer_due: bool,
    /// OPEN was sent at least once.
    pub(super) offered: bool,
    pub(super) told: Told,
    flaw: Flaw,
}

impl Channel {
    pub(super) fn new(open: Open, opened_here: bool, cap: usize, window: u64, flaw: Flaw) -> Self {
        let may_skip = open.options.may_skip_ms;
        Self {
            open,
            opened_here,
            consent: if opened_here { Consent::Asked { answered: false } } else { Consent::Pending },
            sender: ChannelSender::new(cap, may_skip, flaw),
            receiver: ChannelReceiver::new(window, may_skip.is_some(), flaw),
            ack: AckSchedule::new(CHANNEL_INITIAL_CREDIT_BYTES),
            bound: None,
            offer_due: opened_here,
            offered: false,
            told: Told::default(),
            flaw,
        }
    }

    pub(super) fn class(&self) -> Class {
        self.open.class
    }

    /// Whether the channel carries messages, which may be skipped.
    pub(super) fn has_messages(&self) -> bool {
        self.open.options.may_skip_ms.is_some()
    }

    /// The peer has shown that it knows the channel.
    pub(super) fn note_answered(&mut self) {
        if let Consent::Asked { answered } = &mut self.consent {
            *answered = true;
            self.offer_due = false;
        }
    }

    /// Moves the channel to `path`; a new path is told everything that the old one may have lost.
    pub(super) fn bind(&mut self, path: Option<PathKey>, now: Moment) {
        if self.bound == path {
            return;
        }
        self.bound = path;
        if path.is_none() {
            return;
        }
        self.sender.bind(now);
        if !self.flaw.is(Mutant::AcksNotRepeated) {
            self.ack.repeat();
        }
        self.offer_due = match self.consent {
            Consent::Asked { answered: true } | Consent::Pending => false,
            Consent::Asked { answered: false } => !self.offered || !self.flaw.is(Mutant::OpenNotRepeated),
            Consent::Agreed => !self.opened_here,
        };
    }

    /// What an ATTACH says of the channel; nothing is granted that an ACK would not grant.
    pub(super) fn claim(&mut self, channel: ChannelId) -> ChannelClaim {
        ChannelClaim {
            channel,
            next: self.receiver.next(),
            max: self.grant(),
            hash: self.receiver.hash().unwrap_or(0),
        }
    }

    /// The limit to tell the peer: no more than the initial credit while consent is pending.
    pub(super) fn grant(&mut self) -> u64 {
        if self.consent == Consent::Pending { self.receiver.granted() } else { self.receiver.grant() }
    }

    /// Notes credit that reading, skipping or consent has freed.
    pub(super) fn note_credit(&mut self) {
        if self.consent != Consent::Pending && !self.receiver.is_finished() {
            self.ack.credit(self.receiver.grantable(), self.receiver.window());
        }
    }

    /// Whether both directions are finished and nothing is owed to the peer.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_done() && self.receiver.is_done() && !self.ack.is_pending() && !self.offer_due
    }
}

/// A channel that this side has reset; kept until the peer answers.
#[derive(Debug)]
pub(super) struct Resetting {
    pub(super) class: Class,
    pub(super) code: ResetCode,
    pub(super) reason: String,
    pub(super) final_size: u64,
    /// The channel's OPEN, if the peer may never have seen it: it goes in front.
    pub(super) bound: Option<PathKey>,
    pub(super) due: bool,
    /// What the peer's own RESET said.
    pub(super) peer: Option<(ResetCode, u64)>,
}

impl Resetting {
    pub(super) fn bind(&mut self, path: Option<PathKey>) {
        if self.bound != path {
            self.bound = path;
            self.due |= path.is_some();
        }
    }
}
